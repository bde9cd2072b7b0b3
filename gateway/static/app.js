/** The demo page: rooms to talk in, who is there, and how the connection is doing. */

import { Client } from "./client.js";
import { Meter, milliseconds } from "./meter.js";
import { randomId, randomName } from "./names.js";
import { Room } from "./room.js";

const ROOMS = ["lobby", "workshop", "night-shift"];
const RTT_PERIOD = 1000; // ms

const $ = (selector) => document.querySelector(selector);

// A tab is a person, so that two tabs are two; a tab that is reloaded stays the same one. Storage
// alone would not do: it is copied when a tab is duplicated.
const reloaded = performance.getEntriesByType("navigation")[0]?.type === "reload";
const me = (reloaded && JSON.parse(sessionStorage.getItem("me"))) || {
  id: randomId(),
  name: randomName(),
};

function remember() {
  sessionStorage.setItem("me", JSON.stringify(me));
}

// Relative to the page, so that a proxy may put the gateway under a path of its own.
const url = new URL("connection/websocket", document.baseURI);
url.protocol = url.protocol === "https:" ? "wss:" : "ws:";

const client = new Client(url, { data: { ...me }, onstate: showState });

// -- the connection

const LABELS = { connected: "Connected", connecting: "Connecting", disconnected: "Disconnected" };
const meter = new Meter($("#spark path"));
let connectedAt = 0;
let returns = -1;
let tryAt = 0;
let renaming = false;

function showState(state, { code, reason, delay }) {
  const label = delay === undefined ? LABELS[state] : "Reconnecting";
  if ($("#state").textContent !== label) $("#state").textContent = label;
  document.documentElement.dataset.state = state;
  tryAt = delay === undefined ? 0 : performance.now() + delay;
  if (state === "connected") {
    connectedAt = performance.now();
    if (!renaming) returns += 1;
    renaming = false;
    $("#banner").hidden = true;
    measure();
  } else if (code !== undefined && !renaming) {
    for (const room of rooms.values()) room.lost();
    $("#banner").hidden = false;
    console.info(`connection ended: ${code} ${reason}`);
  }
  $("#client").textContent = client.id ?? "–";
  $("#returns").textContent = returns > 0 ? `${returns} ×` : "never";
  showWait();
}

function showWait() {
  if ($("#banner").hidden) return;
  const seconds = Math.ceil((tryAt - performance.now()) / 1000);
  $("#banner span").textContent =
    client.state === "disconnected"
      ? "The gateway has ended this connection."
      : seconds > 0 && tryAt
        ? `Connection lost. Trying again in ${seconds} s.`
        : "Connection lost. Trying again…";
}

function showAge() {
  const seconds = Math.round((performance.now() - connectedAt) / 1000);
  const minutes = Math.floor(seconds / 60);
  const age = minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
  $("#age").textContent = client.state === "connected" ? age : "–";
}

let measuring = false;

async function measure() {
  if (measuring) return;
  measuring = true;
  let rtt = null;
  try {
    rtt = await client.rtt();
  } catch {
    // Not connected, or no answer: the line shows a gap.
  }
  measuring = false;
  meter.add(rtt);
  $("#rtt output").textContent = rtt === null ? "–" : milliseconds(rtt);
  $("#median").textContent = meter.median === null ? "–" : milliseconds(meter.median);
  $("#slowest").textContent = meter.slowest === null ? "–" : milliseconds(meter.slowest);
}

setInterval(() => {
  showWait();
  showAge();
  if (!document.hidden) measure();
}, RTT_PERIOD);

$("#drop").onclick = () => client.reconnect();
document.addEventListener("click", ({ target }) => {
  if (!$("#link").contains(target)) $("#link").open = false;
});
document.addEventListener("keydown", ({ key }) => {
  if (key === "Escape") $("#link").open = false;
});
$("#now").onclick = () => client.connect();

// -- rooms

const rooms = new Map();
let current = null;

function enter(name) {
  const room = new Room(client, name, me, changed);
  const link = document.createElement("a");
  link.href = `#${encodeURIComponent(name)}`;
  link.append(name, document.createElement("span"));
  const item = document.createElement("li");
  item.append(link);
  $("#rooms").append(item);
  room.link = link;
  rooms.set(name, room);
  return room;
}

function show(room) {
  current?.link.removeAttribute("aria-current");
  current = room;
  room.link.setAttribute("aria-current", "page");
  room.unread = 0;
  $("#room-title").textContent = room.name;
  $("#text").placeholder = `Message ${room.name}`;
  $("#log").replaceChildren(room.log);
  $("#present").replaceChildren(room.list);
  showCounts(room);
  scrollToEnd();
}

function changed(room, what) {
  if (what === "people") {
    showCounts(room);
  } else if (room !== current || document.hidden) {
    if (what === "message") room.unread += 1;
    showCounts(room);
    if (room === current) follow();
  } else if (what === "own") {
    scrollToEnd();
  } else {
    follow();
  }
}

function showCounts(room) {
  const badge = room.link?.querySelector("span");
  if (badge) {
    badge.textContent = room.unread || "";
    badge.setAttribute("aria-label", room.unread ? `, ${room.unread} unread` : "");
  }
  if (room === current) $("#who").textContent = `${room.present} here`;
  let unread = 0;
  for (const each of rooms.values()) unread += each.unread;
  document.title = `${unread ? `(${unread}) ` : ""}${current?.name ?? ""} · fastws gateway`;
}

/** A name that goes well in a link: "My Room!" becomes "my-room". */
function tidy(name) {
  const words = name.toLowerCase().match(/[\p{Letter}\p{Number}_]+/gu) ?? [];
  return words.join("-").slice(0, 32);
}

function showFromLink() {
  let name = "";
  try {
    name = tidy(decodeURIComponent(location.hash.slice(1)));
  } catch {
    // Not something that encodeURIComponent wrote.
  }
  name ||= ROOMS[0];
  show(rooms.get(name) ?? enter(name));
}

$("#new-room").onsubmit = (event) => {
  event.preventDefault();
  const name = tidy($("#room-name").value);
  $("#room-name").value = "";
  if (name) location.hash = encodeURIComponent(name);
};

$("#who").onclick = () => {
  const open = document.body.classList.toggle("people");
  $("#who").setAttribute("aria-expanded", open);
};

document.addEventListener("visibilitychange", () => {
  if (document.hidden || current === null) return;
  current.unread = 0;
  showCounts(current);
});

// -- the log follows what is said, unless one has scrolled back to read

let following = true;

function scrollToEnd() {
  following = true;
  $("#log").scrollTop = $("#log").scrollHeight;
  $("#newer").hidden = true;
}

function follow() {
  if (following) scrollToEnd();
  else $("#newer").hidden = false;
}

$("#log").onscroll = () => {
  const { scrollHeight, scrollTop, clientHeight } = $("#log");
  following = scrollHeight - scrollTop - clientHeight < 48;
  if (following) $("#newer").hidden = true;
};
$("#newer").onclick = scrollToEnd;
new ResizeObserver(() => following && scrollToEnd()).observe($("#log"));

// -- writing

$("#composer").onsubmit = (event) => {
  event.preventDefault();
  const text = $("#text").value.trim();
  if (text) current.send(text);
  $("#text").value = "";
  $("#text").focus();
};

$("#text").onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("#composer").requestSubmit();
};

$("#identity").onsubmit = (event) => {
  event.preventDefault();
  $("#name").blur(); // which fires "change" if there is one
};

$("#name").onchange = () => {
  const name = $("#name").value.trim() || me.name;
  $("#name").value = name;
  if (name === me.name) return;
  me.name = name;
  remember();
  client.data = { ...me }; // the gateway reads it when we connect
  renaming = client.state === "connected";
  client.reconnect();
  client.connect();
};

remember();
$("#name").value = me.name;
for (const name of ROOMS) enter(name);
window.addEventListener("hashchange", showFromLink);
showFromLink();
client.connect();
