// Tabs of Chromium (its path is in CHROMIUM) on the demo page of a gateway.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { Network, launch, startGateway, until } from "./support.mjs";

const OUTPUT = fileURLToPath(new URL("output/", import.meta.url));
const SETTINGS = { FASTWS_CLIENT_PING_INTERVAL: "1s", FASTWS_CLIENT_PONG_TIMEOUT: "500ms" };

let browser;
let gateway;
let network; // to the gateway
let tabs = [];
const extras = []; // what a test has started besides

before(async () => {
  gateway = await startGateway(SETTINGS);
  network = await Network.to(gateway.port);
  browser = await launch();
});

after(async () => {
  await browser?.close();
  network.stop();
  assert.equal(await gateway.stop(), 0);
});

// Nothing may go wrong unseen, and what a person would have seen is kept in output/.
afterEach(async (context) => {
  const name = String(context?.name ?? "test").replace(/\W+/g, "-").slice(0, 60);
  await mkdir(OUTPUT, { recursive: true });
  for (const tab of tabs) {
    await tab.page.screenshot({ path: `${OUTPUT}${name}-${tab.name}.png` });
    await tab.page.context().close();
  }
  const errors = tabs.flatMap((tab) => tab.errors);
  tabs = [];
  network.restore();
  for (const extra of extras.splice(0).reverse()) await extra.stop();
  assert.deepEqual(errors, []);
});

class Tab {
  errors = [];

  static async open(name, port = gateway.port, options = {}) {
    const tab = new Tab();
    tab.name = name;
    const context = await browser.newContext({ viewport: { width: 1180, height: 760 }, ...options });
    tab.page = await context.newPage();
    tabs.push(tab);
    tab.page.on("pageerror", (error) => tab.errors.push(String(error)));
    tab.page.on("console", (message) => {
      // A connection that is refused is part of the game.
      if (message.type() === "error" && !/ERR_|WebSocket connection/.test(message.text())) {
        tab.errors.push(message.text());
      }
    });
    await tab.page.goto(`http://127.0.0.1:${port}/`);
    await tab.until("Connected");
    await tab.rename(name);
    return tab;
  }

  async rename(name) {
    await this.page.getByLabel("You are").fill(name);
    await this.page.getByLabel("You are").press("Enter");
    await until(async () => (await this.people()).includes(`${name} you`), `${name} is in the list`);
  }

  state() {
    return this.page.locator("#state").textContent();
  }

  until(state, seconds) {
    return until(async () => (await this.state()) === state, `${this.name}: ${state}`, seconds);
  }

  async people() {
    const texts = await this.page.locator("#present li").allInnerTexts();
    return texts.map((text) => text.split("\n").slice(1).join(" ").trim());
  }

  /** What the page shows as said, the newest last; with `.pending`, what is not sent yet. */
  said(kind = "") {
    return this.page.locator(`.message${kind} .text`).allTextContents();
  }

  async say(text) {
    await this.page.getByLabel("Message", { exact: true }).fill(text);
    await this.page.getByLabel("Message", { exact: true }).press("Enter");
  }

  hears(...texts) {
    const what = `${this.name} reads ${texts.at(-1)}`;
    return until(async () => String(await this.said()) === String(texts), what);
  }

  async sees(...people) {
    await until(async () => String(await this.people()) === String(people), `${this.name}: ${people}`);
  }
}

test("two tabs chat, see each other, and see how fast it is", async () => {
  const ada = await Tab.open("Ada");
  const bob = await Tab.open("Bob");
  await ada.sees("Ada you", "Bob");
  await bob.sees("Bob you", "Ada");

  await ada.say("Hello, is anybody there?");
  await bob.hears("Hello, is anybody there?");
  await bob.say("Yes.\n<img src=x onerror=alert(1)>");
  await ada.hears("Hello, is anybody there?", "Yes.\n<img src=x onerror=alert(1)>");
  assert.equal(await bob.page.locator(".message .who bdi").first().textContent(), "Ada");
  assert.match(await ada.page.locator(".mine .note").textContent(), /^round trip [\d.]+ ms$/);
  for (const { page } of [ada, bob]) {
    await until(async () => /^\d+(\.\d)? ms$/.test(await page.locator("#rtt output").textContent()));
    const line = await page.locator("#spark path").getAttribute("d");
    assert.match(line, /^M[\d.]+ [\d.]+/);
  }

  await bob.rename("Bert");
  await ada.sees("Ada you", "Bert");
  await bob.page.close();
  tabs.pop();
  await ada.sees("Ada you", "Bert away");
  await ada.sees("Ada you");
});

test("rooms are apart, and tell what one has not read", async () => {
  const ada = await Tab.open("Ada");
  const bob = await Tab.open("Bob");
  await bob.page.getByLabel("Name of another room").fill("Bob's Place!");
  await bob.page.getByLabel("Name of another room").press("Enter");
  await bob.page.getByRole("heading", { name: "bob-s-place" }).waitFor();
  await bob.sees("Bob you");
  await ada.page.goto(`http://127.0.0.1:${gateway.port}/#bob-s-place`); // a link to the room
  await bob.sees("Bob you", "Ada");

  await ada.page.getByRole("link", { name: "workshop" }).click();
  await bob.say("One");
  await bob.say("Two");
  await ada.page.getByRole("link", { name: "bob-s-place , 2 unread" }).click();
  await ada.hears("One", "Two");
  assert.equal(await ada.page.title(), "bob-s-place · fastws gateway");
  await ada.page.getByRole("link", { name: "lobby" }).click();
  await ada.hears(); // nothing
});

test("a tab whose connection is cut comes back and goes on where it was", async () => {
  const kept = await startGateway({
    ...SETTINGS,
    FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE: "100",
    FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL: "1m",
  });
  const wire = await Network.to(kept.port);
  extras.push(kept, wire);
  const ada = await Tab.open("Ada", wire.port);
  const bob = await Tab.open("Bob", kept.port);
  for (const { page } of [ada, bob]) await page.getByRole("link", { name: "workshop" }).click();
  await ada.say("First");
  await bob.hears("First");

  wire.cut();
  await ada.until("Reconnecting");
  await ada.page.getByText("Connection lost.").waitFor();
  await bob.sees("Bob you", "Ada away");
  await bob.say("Are you still there?");
  await ada.say("I am in a tunnel");
  await ada.say("and write anyway");
  await ada.page.getByLabel("Message", { exact: true }).fill("a draft");
  assert.deepEqual(await ada.said(".pending"), ["I am in a tunnel", "and write anyway"]);
  assert.deepEqual(await bob.said(), ["First", "Are you still there?"]);

  wire.restore();
  await ada.until("Connected", 30);
  const all = ["First", "Are you still there?", "I am in a tunnel", "and write anyway"];
  await bob.hears(...all);
  await ada.hears(...all); // what it missed, and in the order that all others see
  assert.deepEqual(await ada.said(".pending"), []);
  await ada.sees("Ada you", "Bob");
  await bob.sees("Bob you", "Ada");
  assert.equal(await ada.page.getByLabel("Message", { exact: true }).inputValue(), "a draft");
  assert.equal(await ada.page.locator("#room-title").textContent(), "workshop");
  assert.equal(await ada.page.locator("#banner").isVisible(), false);
  assert.deepEqual(await ada.page.locator(".event").allTextContents(), [], "nothing is missing");

  await ada.page.getByLabel("Message", { exact: true }).press("Enter");
  await bob.hears(...all, "a draft");
});

test("a connection that has gone silent is noticed and replaced", async () => {
  const ada = await Tab.open("Ada", network.port);
  const bob = await Tab.open("Bob");
  await ada.say("Before");
  await bob.hears("Before");
  network.stall(); // no end, no error: only nothing
  await bob.sees("Bob you"); // the gateway has noticed by its own pings
  await ada.until("Reconnecting", 15); // 1 s between pings and 10 s of patience
  network.restore();
  await ada.until("Connected", 30);
  await ada.page.getByText("You were away. What others said meanwhile is not kept.").waitFor();
  await bob.say("After");
  await ada.hears("Before", "After");
});

test("when the browser is online again it does not wait for the next try", async () => {
  const ada = await Tab.open("Ada", network.port);
  network.cut();
  await ada.until("Reconnecting");
  const wait = ada.page.getByText(/Trying again in ([2-9]|1\d|20) s/);
  await wait.waitFor({ timeout: 60_000 }); // the delays have grown
  network.restore();
  await ada.page.evaluate(() => {
    window.dispatchEvent(new Event("online"));
  });
  await ada.until("Connected", 1.5);
});

test("the button drops the connection, and it comes back", async () => {
  const ada = await Tab.open("Ada");
  await ada.page.locator("summary").click();
  const first = await ada.page.locator("#client").textContent();
  await ada.page.getByRole("button", { name: "Drop the connection" }).click();
  await ada.until("Reconnecting");
  await ada.until("Connected");
  assert.notEqual(await ada.page.locator("#client").textContent(), first);
  assert.equal(await ada.page.locator("#returns").textContent(), "1 ×");
  await ada.page.keyboard.press("Escape");
  assert.equal(await ada.page.getByRole("button", { name: "Drop the connection" }).isVisible(), false);
});

test("it fits a phone, in the dark", async () => {
  const ada = await Tab.open("Ada");
  const options = { viewport: { width: 360, height: 640 }, colorScheme: "dark" };
  const context = await browser.newContext(options);
  const phone = new Tab();
  Object.assign(phone, { name: "Phone", page: await context.newPage() });
  tabs.push(phone);
  await phone.page.goto(`http://127.0.0.1:${gateway.port}/`);
  await phone.until("Connected");
  await ada.say(`A word that does not end: ${"x".repeat(200)}`);
  await until(async () => (await phone.said()).length === 1);
  const overflow = () => document.documentElement.scrollWidth - window.innerWidth;
  assert.ok((await phone.page.evaluate(overflow)) <= 0, "the page is wider than the screen");
  assert.equal(await phone.page.getByLabel("You are").isVisible(), false);
  await phone.page.getByRole("button", { name: "2 here" }).click();
  await phone.rename("Phone");
  await ada.sees("Ada you", "Phone");
  for (const button of ["Send", "2 here"]) {
    const box = await phone.page.getByRole("button", { name: button }).boundingBox();
    assert.ok(box.x >= 0 && box.x + box.width <= 360, button);
    assert.ok(box.height >= 32, `${button} is big enough for a thumb`);
  }
});
