/** The admin page: who may see it, which view is shown, and the request a second that keeps it alive. */

import { get, onSignedOut, post } from "./api.js";
import { Channel } from "./channel.js";
import { Connection } from "./connection.js";
import { $, h, setText } from "./dom.js";
import { Channels, Connections } from "./lists.js";
import { Overview } from "./overview.js";

const PERIOD = 1000; // ms

let view = null;
let stats = null;
let rows = []; // what the charts show, oldest first
let timer = 0;
let polling = false;

// -- views

function part(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function makeView() {
  const [, kind = "", ...rest] = location.hash.split("/");
  const name = part(rest.join("/"));
  if (kind === "channels") return ["channels", "Channels", new Channels(name)];
  if (kind === "connections") return ["connections", "Connections", new Connections(name)];
  if (kind === "channel" && name) return ["channels", name, new Channel(name)];
  if (kind === "connection" && name) return ["connections", "Connection", new Connection(name)];
  return ["overview", "Overview", new Overview()];
}

function show() {
  const [tab, title, next] = makeView();
  view = next;
  document.title = `${title} · fastws admin`;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === tab) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  $("#main").replaceChildren(view.element);
  if (stats) refresh();
}

window.addEventListener("hashchange", () => {
  if (document.body.dataset.state !== "in") return;
  show();
  $("#main").focus({ preventScroll: true });
  window.scrollTo(0, 0);
});

$("#skip").addEventListener("click", (event) => {
  event.preventDefault(); // the fragment is the view's
  $("#main").focus();
});

// -- once a second, while somebody looks

function setLive(state, text) {
  $("#live").dataset.state = state;
  setText($("#live span"), text);
}

async function refresh() {
  try {
    await view.update(stats, rows);
  } catch {
    // The next one may do; what matters is said by the view, or by the poll.
  }
}

async function poll() {
  clearTimeout(timer);
  if (polling || document.body.dataset.state !== "in") return;
  if (document.hidden) return; // the event below wakes it
  polling = true;
  const begun = performance.now();
  try {
    const query = stats ? { since: stats.count, uid: stats.uid } : {};
    const next = await get("stats", query);
    if (stats && next.uid !== stats.uid) rows = [];
    stats = next;
    for (const values of stats.rows) rows.push(Object.fromEntries(stats.columns.map((name, i) => [name, values[i]])));
    rows.splice(0, rows.length - stats.kept);
    setLive("on", "Live");
    await refresh();
  } catch (error) {
    if (error.status !== 401) setLive("off", "No answer");
  }
  polling = false;
  if (document.body.dataset.state !== "in") return;
  timer = setTimeout(poll, Math.max(100, PERIOD - (performance.now() - begun)));
}

document.addEventListener("visibilitychange", poll);

// -- coming in and going out

function enter(insecure) {
  document.body.dataset.state = "in";
  $("#login").hidden = true;
  $("#bar").hidden = false;
  $("#sign-out").hidden = insecure;
  $("#warning").hidden = !insecure;
  setLive("off", "Connecting");
  show();
  poll();
}

function leave() {
  if (document.body.dataset.state === "out") return;
  document.body.dataset.state = "out";
  clearTimeout(timer);
  view = null;
  stats = null;
  rows = [];
  $("#main").replaceChildren();
  $("#bar").hidden = true;
  $("#confirm").close();
  $("#login").hidden = false;
  document.title = "Sign in · fastws admin";
  $("#password").focus();
}

onSignedOut(leave);

$("#login").addEventListener("submit", async (event) => {
  event.preventDefault();
  setText($("#login-error"), "");
  try {
    await post("login", { password: $("#password").value });
    $("#password").value = "";
    enter(false);
  } catch (error) {
    const text = error.message;
    setText($("#login-error"), `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`);
    $("#password").select();
  }
});

$("#sign-out").addEventListener("click", async () => {
  await post("logout").catch(() => {});
  leave();
});

try {
  const session = await get("session");
  if (session.signed_in) enter(session.insecure);
  else leave();
} catch (error) {
  $("#main").replaceChildren(h("p", { class: "empty" }, error.message));
}
