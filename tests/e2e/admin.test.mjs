// Chromium (its path is in CHROMIUM) on the admin page of a gateway, with clients that talk.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import WebSocket from "ws";

import { launch, startGateway, until } from "./support.mjs";

const OUTPUT = fileURLToPath(new URL("output/", import.meta.url));
const PASSWORD = "correct horse";
const SECRET = "a secret of tests, which is long enough to be one";
const HOSTILE = '<img src=x onerror="document.title=\'broken\'">/../?#&\u202e';

const SETTINGS = {
  FASTWS_ADMIN_ENABLED: "true",
  FASTWS_ADMIN_PASSWORD: PASSWORD,
  FASTWS_CLIENT_TOKEN_HMAC_SECRET_KEY: SECRET,
  FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE: "100",
  FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL: "1m",
};

let browser;
let gateway;
let open = []; // pages of a test
let clients = [];

before(async () => {
  gateway = await startGateway(SETTINGS);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  assert.equal(await gateway.stop(), 0);
});

// Nothing may go wrong unseen, and what a person would have seen is kept in output/.
afterEach(async (context) => {
  const name = String(context?.name ?? "test").replace(/\W+/g, "-").slice(0, 60);
  await mkdir(OUTPUT, { recursive: true });
  for (const page of open) {
    await page.screenshot({ path: `${OUTPUT}admin-${name}.png` });
    await page.context().close();
  }
  const errors = open.flatMap((page) => page.faults);
  open = [];
  for (const client of clients) client.end();
  clients = [];
  assert.deepEqual(errors, []);
});

async function openPage(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1180, height: 800 }, ...options });
  const page = await context.newPage();
  page.faults = [];
  open.push(page);
  page.on("pageerror", (error) => page.faults.push(String(error)));
  page.on("console", (message) => {
    // What is refused is part of the game: a wrong password, a client that is gone.
    if (message.type() === "error" && !/status of 40[14]/.test(message.text())) page.faults.push(message.text());
  });
  await page.goto(`http://127.0.0.1:${gateway.port}/admin/`);
  return page;
}

async function signIn(page, password = PASSWORD) {
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

async function admin(options) {
  const page = await openPage(options);
  await signIn(page);
  await page.getByText("Live", { exact: true }).waitFor();
  return page;
}

/** A client of few words: its pushes are in `got`. */
class Client {
  got = [];
  #id = 1;

  static async of(user, ...channels) {
    const client = new Client();
    clients.push(client);
    client.ws = new WebSocket(`ws://127.0.0.1:${gateway.port}/connection/websocket`);
    client.closed = new Promise((resolve) => client.ws.on("close", (code) => resolve(code)));
    await new Promise((resolve, reject) => client.ws.on("open", resolve).on("error", reject));
    client.ws.on("message", (data) => {
      for (const line of String(data).split("\n")) {
        if (line === "{}") client.ws.send("{}");
        else client.got.push(JSON.parse(line));
      }
    });
    await client.ask({ connect: { token: token(user) } });
    for (const channel of channels) await client.ask({ subscribe: { channel } });
    return client;
  }

  async ask(command) {
    this.#id += 1;
    const id = this.#id;
    this.ws.send(JSON.stringify({ id, ...command }));
    await until(() => this.got.some((reply) => reply.id === id), JSON.stringify(command));
    const reply = this.got.find((each) => each.id === id);
    assert.equal(reply.error, undefined);
    return reply;
  }

  talk(channel) {
    this.timer = setInterval(() => this.ws.send(JSON.stringify({ id: 10_000, publish: { channel, data: 1 } })), 20);
  }

  end() {
    clearInterval(this.timer);
    this.ws.terminate();
  }
}

function token(sub) {
  const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const content = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub })}`;
  return `${content}.${createHmac("sha256", SECRET).update(content).digest("base64url")}`;
}

const chart = (page, title) => page.locator(".chart", { has: page.getByRole("heading", { name: title, exact: true }) });

async function figure(page, title, which = 0) {
  const text = await chart(page, title).locator("output").nth(which).textContent();
  return Number(text.replace(/[^\d.]/g, ""));
}

test("only who knows the password sees anything", async () => {
  const page = await openPage();
  await signIn(page, "a wrong one");
  await page.getByText("This is not the password.").waitFor();
  assert.equal(await page.getByRole("heading", { name: "Overview" }).count(), 0);
  await signIn(page);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  assert.equal(await page.evaluate("document.cookie"), "", "no script can read it");
  await page.reload();
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Password").waitFor();
  await page.reload();
  await page.getByLabel("Password").waitFor();
  assert.equal(await page.locator(".chart").count(), 0);
});

test("charts move while messages flow", async () => {
  const reader = await Client.of("ann", "lobby");
  const writer = await Client.of("bob");
  writer.talk("lobby");
  const page = await admin();
  await until(async () => (await figure(page, "Messages per second")) > 1, "messages go out");
  await until(async () => (await figure(page, "Messages per second", 1)) > 1, "and come in");
  await until(async () => (await figure(page, "Connections")) === 2, "there are two connections");
  const line = chart(page, "Messages per second").locator(".line").first();
  const before = await line.getAttribute("d");
  assert.match(before, /^M[\d.]+ [\d.]+L/, "what was before the page was opened is there");
  await until(async () => (await line.getAttribute("d")) !== before, "the line moves");
  assert.ok((await figure(page, "Memory")) > 1);
  await page.getByRole("link", { name: "lobby" }).waitFor();
  const picture = chart(page, "Messages per second").getByRole("img");
  await picture.focus();
  await page.keyboard.press("ArrowLeft");
  assert.match(await picture.getAttribute("aria-label"), /to clients .* at \d\d:\d\d:\d\d$/);
  reader.end();
});

test("a user is found, looked at, sent away, blocked and let in again", async () => {
  await Client.of("someone else", "lobby");
  const first = await Client.of("carla", "lobby", "orders");
  const second = await Client.of("carla");
  const page = await admin();
  await page.getByRole("link", { name: "Connections" }).click();
  await page.getByRole("searchbox").fill("CARL");
  await page.getByText("2 of 3 connections").waitFor();
  assert.deepEqual(await page.locator("tbody td:first-child").allTextContents(), ["carla", "carla"]);
  await page.locator("tbody a").last().click(); // the newest are first
  await page.getByRole("heading", { name: "carla" }).waitFor();
  await page.getByRole("link", { name: "orders" }).waitFor();
  await page.getByRole("button", { name: "Disconnect", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click();
  assert.equal(first.ws.readyState, WebSocket.OPEN);
  await page.getByRole("button", { name: "Disconnect", exact: true }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Disconnect" }).click();
  assert.equal(await first.closed, 3503);
  await page.getByText("This connection has ended.").waitFor();

  await page.getByRole("link", { name: "Connections" }).first().click();
  await page.getByRole("link", { name: "carla" }).click();
  await page.getByRole("button", { name: "Block the user" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Block" }).click();
  assert.equal(await second.closed, 3507);
  await page.getByRole("button", { name: "Unblock" }).click();
  await page.getByText("carla may come in again.").waitFor();
  await Client.of("carla");
});

test("what is published arrives at a subscriber and stands in the history", async () => {
  const reader = await Client.of("dora", "orders");
  const page = await admin();
  await page.getByRole("link", { name: "Channels" }).click();
  await page.getByRole("link", { name: "orders" }).click();
  await page.getByRole("heading", { name: "orders" }).waitFor();
  await page.getByRole("link", { name: "dora" }).waitFor();
  await page.getByLabel("Publish JSON").fill('{"text": ');
  await page.getByRole("button", { name: "Publish" }).click();
  await page.getByText("This is not JSON").waitFor();
  const data = '{"text": "<b>hi</b>", "id": 12345678901234567890}';
  await page.getByLabel("Publish JSON").fill(data);
  await page.getByRole("button", { name: "Publish" }).click();
  await until(() => reader.got.some((push) => push.push?.pub?.data?.text === "<b>hi</b>"));
  await page.locator(".log pre").first().waitFor();
  assert.equal(await page.locator(".log pre").first().textContent(), data, "to the last digit");

  for (let number = 0; number < 45; number += 1) await reader.ask({ publish: { channel: "orders", data: number } });
  await until(async () => (await page.locator(".log pre").first().textContent()) === "44");
  while (await page.getByRole("button", { name: "Older" }).isVisible()) {
    const before = await page.locator(".log li").count();
    await page.getByRole("button", { name: "Older" }).click();
    await until(async () => (await page.locator(".log li").count()) > before);
  }
  assert.equal(await page.locator(".log li").count(), 46);
  assert.equal(await page.locator(".log pre").last().textContent(), data);
  await page.getByRole("button", { name: "Clear" }).click();
  await page.getByRole("dialog").getByRole("button", { name: "Clear" }).click();
  await page.getByText("Nothing is kept.").waitFor();
});

test("names and payloads are text, whatever they look like", async () => {
  const client = await Client.of(HOSTILE, HOSTILE);
  await client.ask({ publish: { channel: HOSTILE, data: HOSTILE } });
  const page = await admin();
  await page.getByRole("link", { name: "Channels" }).click();
  await page.getByRole("link", { name: HOSTILE }).click();
  await page.getByRole("heading", { name: HOSTILE }).waitFor();
  await page.locator(".log pre").waitFor();
  assert.equal(await page.locator(".log pre").textContent(), JSON.stringify(HOSTILE));
  await page.locator("tbody a").click();
  await page.locator("dd").first().waitFor();
  assert.equal(await page.getByRole("heading", { level: 1 }).textContent(), HOSTILE);
  await page.getByRole("button", { name: "Unsubscribe" }).click();
  assert.equal(await page.locator("#confirm-title").textContent(), `Take it out of ${HOSTILE}?`);
  await page.getByRole("dialog").getByRole("button", { name: "Unsubscribe" }).click();
  await page.getByText("It is in no channel.").waitFor();
  assert.equal(await page.locator("main img").count(), 0);
  assert.doesNotMatch(await page.title(), /broken/);
});

test("it goes on after the gateway has not answered", async () => {
  const page = await admin();
  await page.route("**/admin/api/**", (route) => route.abort());
  await page.getByText("No answer").waitFor();
  await page.unroute("**/admin/api/**");
  await page.getByText("Live", { exact: true }).waitFor();
  page.faults = page.faults.filter((fault) => !/ERR_FAILED/.test(fault));
});

test("it fits a phone, in the dark, and can be used by keys alone", async () => {
  await Client.of("emil", "a-name-that-does-not-end-".repeat(8));
  const page = await openPage({ viewport: { width: 360, height: 640 }, colorScheme: "dark" });
  await page.getByLabel("Password").waitFor();
  await until(() => page.evaluate(() => document.activeElement.id === "password"));
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Enter");
  await page.getByText("Live", { exact: true }).waitFor();
  const wider = () => page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  for (const view of ["Overview", "Channels", "Connections"]) {
    await page.getByRole("navigation").getByRole("link", { name: view }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: view, level: 1 }).waitFor();
    assert.ok((await wider()) <= 0, `${view} is wider than the screen`);
  }
  await page.locator("tbody a").first().focus();
  await page.keyboard.press("Enter");
  await page.getByRole("button", { name: "Disconnect" }).focus();
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Cancel");
  await page.keyboard.press("Escape");
  assert.ok((await wider()) <= 0);
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  assert.equal(dark, "rgb(14, 19, 18)");
});
