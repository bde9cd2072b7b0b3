// The npm package `ws` as the client of an echo server; its address is in FASTWS_URL.
// The server also understands "close CODE REASON".

import assert from "node:assert/strict";
import { once } from "node:events";
import { test } from "node:test";

import WebSocket from "ws";

const MIB = 2 ** 20;

async function open(options) {
  const ws = new WebSocket(process.env.FASTWS_URL, options);
  await once(ws, "open");
  return ws;
}

async function answer(ws, message, options = {}) {
  ws.send(message, options);
  const [data, isBinary] = await once(ws, "message");
  return isBinary ? data : data.toString();
}

async function closed(ws) {
  const [code, reason] = await once(ws, "close");
  return [code, reason.toString()];
}

async function close(ws, ...args) {
  ws.close(...args);
  return closed(ws);
}

test("text and binary come back as they went", async () => {
  const ws = await open();
  for (const text of ["", "a", "grüß ☃ 😀", "x".repeat(125), "x".repeat(126), "é".repeat(65536)]) {
    assert.equal(await answer(ws, text), text);
  }
  for (const size of [0, 1, 125, 126, 65535, 65536]) {
    const bytes = Buffer.alloc(size, "0123456789");
    assert.deepEqual(await answer(ws, bytes), bytes);
  }
  assert.deepEqual(await close(ws, 1000), [1000, ""]);
});

test("messages of 1 MiB, and not a byte more", async () => {
  const ws = await open();
  const bytes = Buffer.from(Uint32Array.from({ length: MIB / 4 }, (_, n) => n * 2654435761).buffer);
  assert.ok(bytes.equals(await answer(ws, bytes)));
  const text = "☃".repeat(Math.floor(MIB / 3));
  assert.equal(await answer(ws, text), text);
  ws.on("error", () => {}); // the server may stop reading before we have written it all
  ws.send(Buffer.alloc(MIB + 1));
  const [code] = await closed(ws);
  assert.equal(code, 1009);
});

test("fragments are put together, with pings between them", async () => {
  const ws = await open();
  const pongs = [];
  ws.on("pong", (data) => pongs.push(data.toString()));
  const parts = ["gr", Buffer.from([0xc3]), Buffer.from([0xbc]), "", "ß"];
  const reply = once(ws, "message");
  parts.forEach((part, n) => {
    ws.send(part, { fin: n === parts.length - 1, binary: false });
    ws.ping(`p${n}`);
  });
  const [data, isBinary] = await reply;
  assert.equal(isBinary, false);
  assert.equal(data.toString(), "grüß");
  await answer(ws, "and then");
  assert.deepEqual(pongs, ["p0", "p1", "p2", "p3", "p4"]);
  await close(ws);
});

test("ten thousand messages sent at once come back in order", async () => {
  const ws = await open();
  const count = 10_000;
  let next = 0;
  const done = new Promise((resolve, reject) => {
    ws.on("message", (data) => {
      if (data.toString() !== `message ${next}`) reject(new Error(`${data} where ${next} was due`));
      next += 1;
      if (next === count) resolve();
    });
  });
  for (let n = 0; n < count; n += 1) ws.send(`message ${n}`);
  await done;
  await close(ws);
});

test("close codes and reasons go both ways", async () => {
  for (const [code, reason] of [[1000, ""], [1001, "leaving"], [3000, "grüß"], [4999, "x".repeat(123)]]) {
    const ours = await open();
    assert.deepEqual(await close(ours, code, reason), [code, reason]);
    const theirs = await open();
    theirs.send(`close ${code} ${reason}`);
    assert.deepEqual(await closed(theirs), [code, reason]);
  }
  assert.deepEqual(await close(await open()), [1005, ""]);
});

test("broken frames are answered with the code that names the fault", async () => {
  // A short frame, masked with a key of zeros.
  const masked = (head, ...payload) => Buffer.from([head, 0x80 | payload.length, 0, 0, 0, 0, ...payload]);
  for (const [bytes, expected] of [
    [Buffer.from([0x81, 0x01, 0x41]), 1002], // not masked
    [masked(0xc1, 0x41), 1002], // RSV1 without an extension
    [masked(0x83, 0x41), 1002], // reserved opcode
    [masked(0x80, 0x41), 1002], // nothing to continue
    [masked(0x81, 0xff), 1007], // not UTF-8
    [masked(0x88, 0x03), 1002], // half a close code
  ]) {
    const ws = await open({ perMessageDeflate: false });
    ws._socket.write(bytes);
    const [code] = await closed(ws);
    assert.equal(code, expected, bytes.toString("hex"));
  }
});
