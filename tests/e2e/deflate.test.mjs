// The npm package `ws` and permessage-deflate: a client of the echo server at FASTWS_URL, with all that can be
// negotiated.

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";

import WebSocket from "ws";

const rows = (count) => JSON.stringify(Array.from({ length: count }, (_, n) => ({ id: n, text: "naïve 日本語 😀" })));
const MESSAGES = ["", "a", ...[1, 3, 10, 100, 5000].map(rows), Buffer.alloc(500_000, "0123456789")];

const OFFERS = [
  {},
  { serverNoContextTakeover: true },
  { clientNoContextTakeover: true },
  { serverNoContextTakeover: true, clientNoContextTakeover: true },
  { serverMaxWindowBits: 9 },
  { clientMaxWindowBits: 9 },
  { serverMaxWindowBits: 10, clientMaxWindowBits: 11 },
];

for (const offer of OFFERS) {
  test(`messages come back whatever is offered: ${JSON.stringify(offer)}`, async () => {
    const ws = new WebSocket(process.env.FASTWS_URL, { perMessageDeflate: { threshold: 0, ...offer } });
    await once(ws, "open");
    assert.match(ws.extensions, /permessage-deflate/);
    for (const message of [...MESSAGES, ...MESSAGES]) {
      ws.send(message);
      const [data, isBinary] = await once(ws, "message");
      if (typeof message === "string") assert.equal(data.toString(), message);
      else assert.ok(isBinary && message.equals(data));
    }
    ws.close(1000);
    assert.equal((await once(ws, "close"))[0], 1000);
  });
}

test("a stream that is none is answered with 1007", async () => {
  const ws = new WebSocket(process.env.FASTWS_URL, { perMessageDeflate: true });
  await once(ws, "open");
  ws._socket.write(Buffer.from([0xc1, 0x82, 0, 0, 0, 0, 0xff, 0xff]));
  assert.equal((await once(ws, "close"))[0], 1007);
});
