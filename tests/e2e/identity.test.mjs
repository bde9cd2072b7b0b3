// The npm package `centrifuge` with tokens, permissions and recovery.

import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, test } from "node:test";

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { Network, startGateway, until } from "./support.mjs";

const SECRET = "a secret of at least thirty-two bytes";
const KEY = "the key of the API";

let gateway;
let network;

before(async () => {
  const options = {
    allow_subscribe_for_client: true,
    allow_publish_for_subscriber: true,
    allow_history_for_subscriber: true,
    history_size: 100,
    history_ttl: "1m",
    allow_tags_filter: true,
  };
  gateway = await startGateway({
    FASTWS_DEV: "false",
    FASTWS_CLIENT_TOKEN_HMAC_SECRET_KEY: SECRET,
    FASTWS_CLIENT_EXPIRED_CLOSE_DELAY: "500ms",
    FASTWS_CLIENT_EXPIRED_SUB_CLOSE_DELAY: "500ms",
    FASTWS_HTTP_API_KEY: KEY,
    FASTWS_CHANNEL_NAMESPACES: JSON.stringify([
      { name: "chat", ...options, force_recovery: true },
      { name: "state", ...options, force_recovery: true, force_recovery_mode: "cache" },
    ]),
  });
  network = await Network.to(gateway.port);
});

after(async () => {
  network.stop();
  assert.equal(await gateway.stop(), 0);
});

const base64 = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
const event = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));

function token(sub, claims = {}) {
  const content = `${base64({ alg: "HS256", typ: "JWT" })}.${base64({ sub, ...claims })}`;
  return `${content}.${createHmac("sha256", SECRET).update(content).digest("base64url")}`;
}

const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;

function client(options, port = gateway.port) {
  return new Centrifuge(`ws://127.0.0.1:${port}/connection/websocket`, {
    websocket: WebSocket,
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
    ...options,
  });
}

async function connected(user, claims, port) {
  const made = client({ token: token(user, claims) }, port);
  made.connect();
  await made.ready();
  return made;
}

async function api(method, request) {
  const response = await fetch(`http://127.0.0.1:${gateway.port}/api/${method}`, {
    method: "POST",
    headers: { "X-API-Key": KEY },
    body: JSON.stringify(request),
  });
  const reply = await response.json();
  assert.ok("result" in reply, JSON.stringify(reply));
  return reply.result;
}

async function subscribed(who, channel, options) {
  const subscription = who.newSubscription(channel, options);
  subscription.heard = [];
  subscription.on("publication", ({ data }) => subscription.heard.push(data));
  subscription.subscribe();
  await subscription.ready();
  return subscription;
}

test("a token that is not believed ends it", async () => {
  for (const wrong of ["garbage", `${token("ann")}x`]) {
    const made = client({ token: wrong });
    const ended = event(made, "disconnected");
    made.connect();
    assert.equal((await ended).code, 3500);
  }
});

test("without a token nobody comes in", async () => {
  const made = client({});
  const ended = event(made, "disconnected");
  made.connect();
  assert.equal((await ended).code, 3501);
});

test("an expired token is asked for anew, and an expiring one is refreshed in time", async () => {
  let asked = 0;
  const made = client({
    token: token("ann", { exp: inSeconds(-5) }),
    getToken: async () => {
      asked += 1;
      return token("ann", { exp: inSeconds(2) });
    },
  });
  made.connect();
  await made.ready();
  assert.equal(asked, 1);
  await until(() => asked >= 3);
  assert.equal(made.state, "connected");
  made.disconnect();
});

test("a subscription token opens a private channel, and is refreshed in time", async () => {
  const ann = await connected("ann");
  const denied = ann.newSubscription("$chat:1");
  const ended = event(denied, "unsubscribed");
  denied.subscribe();
  assert.equal((await ended).code, 103);
  let asked = 0;
  const allowed = await subscribed(ann, "$chat:2", {
    getToken: async ({ channel }) => {
      asked += 1;
      return token("ann", { channel, exp: inSeconds(2) });
    },
  });
  await until(() => asked >= 2);
  assert.equal(allowed.state, "subscribed");
  ann.disconnect();
});

test("what is not allowed is denied, and what is allowed is not", async () => {
  const ann = await connected("ann");
  await assert.rejects(ann.publish("chat:room", 1), { code: 103 });
  await assert.rejects(ann.publish("nowhere:room", 1), { code: 102 });
  const room = await subscribed(ann, "chat:room");
  await room.publish(1);
  await until(() => room.heard.length === 1);
  assert.equal((await room.history({ limit: 1 })).publications.length, 1);
  await assert.rejects(room.presence(), { code: 108 });
  ann.disconnect();
});

test("what was missed comes back, in order", async () => {
  const ann = await connected("ann", {}, network.port);
  const room = await subscribed(ann, "chat:missed");
  await api("publish", { channel: "chat:missed", data: 1 });
  await until(() => room.heard.length === 1);
  const connecting = event(ann, "connecting");
  network.cut();
  await connecting;
  for (const data of [2, 3, 4]) await api("publish", { channel: "chat:missed", data });
  const again = event(room, "subscribed");
  network.restore();
  const { wasRecovering, recovered } = await again;
  assert.deepEqual([wasRecovering, recovered], [true, true]);
  await until(() => room.heard.length === 4);
  assert.deepEqual(room.heard, [1, 2, 3, 4]);
  await api("publish", { channel: "chat:missed", data: 5 });
  await until(() => room.heard.length === 5);
  ann.disconnect();
});

test("cache mode gives the newest", async () => {
  for (const data of [1, 2]) await api("publish", { channel: "state:a", data });
  const ann = await connected("ann");
  const state = await subscribed(ann, "state:a", { since: { offset: 0, epoch: "" } });
  await until(() => state.heard.length === 1);
  assert.deepEqual(state.heard, [2]);
  ann.disconnect();
});

test("channels of the token are there at once, and are recovered", async () => {
  const ann = client({ token: token("ann", { channels: ["chat:mine"] }) }, network.port);
  const heard = [];
  ann.on("publication", ({ channel, data }) => heard.push([channel, data]));
  const first = event(ann, "subscribed");
  ann.connect();
  assert.equal((await first).channel, "chat:mine");
  await api("publish", { channel: "chat:mine", data: 1 });
  await until(() => heard.length === 1);
  const connecting = event(ann, "connecting");
  network.cut();
  await connecting;
  await api("publish", { channel: "chat:mine", data: 2 });
  network.restore();
  await until(() => heard.length === 2);
  assert.deepEqual(heard, [["chat:mine", 1], ["chat:mine", 2]]);
  ann.disconnect();
});

test("a filter lets through what it accepts", async () => {
  const ann = await connected("ann");
  const room = await subscribed(ann, "chat:tags", {
    tagsFilter: { key: "n", cmp: "gt", val: "1" },
  });
  for (const n of ["1", "2", "3"]) {
    await api("publish", { channel: "chat:tags", data: Number(n), tags: { n } });
  }
  await until(() => room.heard.length === 2);
  assert.deepEqual(room.heard, [2, 3]);
  ann.disconnect();
});

test("a backend subscribes, unsubscribes, refreshes and disconnects", async () => {
  const ann = await connected("ann", { exp: inSeconds(3600) });
  const added = event(ann, "subscribed");
  await api("subscribe", { user: "ann", channel: "chat:given", data: { hello: 1 } });
  assert.deepEqual((await added).data, { hello: 1 });
  const removed = event(ann, "unsubscribed");
  await api("unsubscribe", { user: "ann", channel: "chat:given" });
  assert.equal((await removed).channel, "chat:given");
  const room = await subscribed(ann, "chat:room");
  const thrown = event(room, "unsubscribed");
  await api("unsubscribe", { user: "ann", channel: "chat:room" });
  assert.equal((await thrown).code, 2000);
  const ended = event(ann, "disconnected");
  await api("disconnect", { user: "ann", disconnect: { code: 4500, reason: "enough" } });
  const { code, reason } = await ended;
  assert.deepEqual([code, reason], [4500, "enough"]);
});
