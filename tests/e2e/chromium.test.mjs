// A tab of Chromium (its path is in CHROMIUM) as the client of echo servers, whose addresses are in
// FASTWS_URLS; all of them agree to permessage-deflate, which Chromium always offers.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { launch } from "./support.mjs";

let browser;
let page;

before(async () => {
  browser = await launch(["--ignore-certificate-errors"]);
  page = await browser.newPage();
});

after(() => browser?.close());

for (const url of JSON.parse(process.env.FASTWS_URLS)) {
  test(`messages of every kind come back from ${url.replace(/:\d+/, "")}`, async () => {
    const { extensions, wrong, code } = await page.evaluate(talk, url);
    assert.match(extensions, /^permessage-deflate/);
    assert.deepEqual(wrong, []);
    assert.equal(code, 3000);
  });
}

/** Runs in the tab: what the server agreed to, the messages that did not come back, and the close code. */
async function talk(url) {
  const ws = new WebSocket(url);
  ws.binaryType = "arraybuffer";
  const next = (name) => new Promise((resolve, reject) => {
    ws.addEventListener(name, resolve, { once: true });
    ws.addEventListener("error", () => reject(new Error(`${url}: error`)), { once: true });
  });
  await next("open");
  const row = (n) => ({ id: n * 2654435761 % 1e6, user: `user ${n % 7}`, text: "naïve 日本語 😀" });
  const json = (rows) => JSON.stringify(Array.from({ length: rows }, (_, n) => row(n)));
  const noise = crypto.getRandomValues(new Uint8Array(65536));
  const texts = ["", "a", "x".repeat(100_000), ...[1, 2, 5, 20, 100, 2000].map(json)];
  const bytes = [new Uint8Array(), noise, new Uint8Array(900_000)];
  const wrong = [];
  for (const message of [...texts, ...bytes, ...texts]) {
    ws.send(message);
    const { data } = await next("message");
    const same = typeof message === "string"
      ? data === message
      : data.byteLength === message.length && new Uint8Array(data).every((byte, n) => byte === message[n]);
    if (!same) wrong.push(typeof message === "string" ? message.slice(0, 40) : `${message.length} bytes`);
  }
  const closed = next("close");
  ws.close(3000);
  return { extensions: ws.extensions, wrong, code: (await closed).code };
}
