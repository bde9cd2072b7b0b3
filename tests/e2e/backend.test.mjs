// The npm package `centrifuge` in front of a gateway that asks a backend.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { startGateway } from "./support.mjs";

const answers = {
  connect: ({ token }) => (token === "ann's" ? { result: { user: "ann" } } : { disconnect: { code: 4500, reason: "who?" } }),
  rpc: ({ method, data }) => {
    if (method === "double") return { result: { data: data * 2 } };
    return { error: { code: 1000, message: "no such question", temporary: true } };
  },
};

let backend;
let gateway;

before(async () => {
  backend = createServer(async (request, response) => {
    const chunks = await request.toArray();
    const asked = { token: request.headers["x-token"], ...JSON.parse(Buffer.concat(chunks)) };
    response.end(JSON.stringify(answers[request.url.slice(1)](asked)));
  });
  backend.listen(0, "127.0.0.1");
  await once(backend, "listening");
  const address = `http://127.0.0.1:${backend.address().port}`;
  gateway = await startGateway({
    FASTWS_DEV: "false",
    FASTWS_CLIENT_PROXY_CONNECT_ENABLED: "true",
    FASTWS_CLIENT_PROXY_CONNECT_ENDPOINT: `${address}/connect`,
    FASTWS_CLIENT_PROXY_CONNECT_EMULATED_HEADERS: "X-Token",
    FASTWS_RPC_PROXY_ENABLED: "true",
    FASTWS_RPC_PROXY_ENDPOINT: `${address}/rpc`,
  });
});

after(async () => {
  await gateway.stop();
  backend.closeAllConnections();
  backend.close();
});

function client(token) {
  const url = `ws://127.0.0.1:${gateway.port}/connection/websocket`;
  return new Centrifuge(url, { websocket: WebSocket, headers: { "X-Token": token } });
}

test("it is let in by a header of its connect command, and asks", async () => {
  const ann = client("ann's");
  ann.connect();
  await ann.ready();
  assert.deepEqual(await ann.rpc("double", 21), { data: 42 });
  await assert.rejects(ann.rpc("half", 1), { code: 1000, message: "no such question" });
  assert.equal(ann.state, "connected");
  ann.disconnect();
});

test("it is closed as the backend wants it", async () => {
  const nobody = client("somebody else's");
  const gone = new Promise((resolve) => nobody.once("disconnected", resolve));
  nobody.connect();
  assert.deepEqual(await gone, { code: 4500, reason: "who?" });
});
