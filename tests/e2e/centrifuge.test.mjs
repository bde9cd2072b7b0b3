// The npm package `centrifuge`, the official client of the protocol, against our gateway.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Centrifuge } from "centrifuge";
import WebSocket from "ws";

import { Network, startGateway, until } from "./support.mjs";

let gateway;
let network;

before(async () => {
  gateway = await startGateway({
    FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_SIZE: "10",
    FASTWS_CHANNEL_WITHOUT_NAMESPACE_HISTORY_TTL: "1m",
    FASTWS_CLIENT_PING_INTERVAL: "1s",
    FASTWS_CLIENT_PONG_TIMEOUT: "500ms",
  });
  network = await Network.to(gateway.port);
});

after(async () => {
  network.stop();
  assert.equal(await gateway.stop(), 0);
});

const event = (emitter, name) => new Promise((resolve) => emitter.once(name, resolve));

async function connect(name, port = gateway.port) {
  const client = new Centrifuge(`ws://127.0.0.1:${port}/connection/websocket`, {
    websocket: WebSocket,
    data: { name },
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
  });
  client.connect();
  await client.ready();
  return client;
}

async function subscribe(client, channel) {
  const subscription = client.newSubscription(channel, { joinLeave: true });
  subscription.heard = [];
  subscription.on("publication", ({ data }) => subscription.heard.push(data));
  subscription.subscribe();
  await subscription.ready();
  return subscription;
}

test("connect, subscribe, publish", async () => {
  const [ann, bob] = [await connect("ann"), await connect("bob")];
  const room = await subscribe(ann, "room");
  const got = event(room, "publication");
  await bob.publish("room", { text: "grüß ☃" });
  const { data, info, channel } = await got;
  assert.deepEqual(data, { text: "grüß ☃" });
  assert.equal(channel, "room");
  assert.deepEqual(info.connInfo, { name: "bob" });

  await Promise.all(Array.from({ length: 200 }, (_, n) => bob.publish("room", n)));
  await until(() => room.heard.length === 201);
  assert.deepEqual(room.heard.slice(1), Array.from({ length: 200 }, (_, n) => n), "in order");

  room.unsubscribe();
  await bob.publish("room", "nobody hears this");
  await ann.publish("room", "nor this");
  assert.equal(room.heard.length, 201);
  ann.disconnect();
  bob.disconnect();
});

test("presence, join and leave", async () => {
  const ann = await connect("ann");
  const room = await subscribe(ann, "presence");
  const joined = [];
  room.on("join", ({ info }) => joined.push(info.connInfo.name));
  const bob = await connect("bob");
  await subscribe(bob, "presence");
  await until(() => joined.includes("bob"));
  const { clients } = await room.presence();
  const names = Object.values(clients).map(({ connInfo }) => connInfo.name);
  assert.deepEqual(names.sort(), ["ann", "bob"]);
  assert.equal((await room.presenceStats()).numClients, 2);

  const left = event(room, "leave");
  bob.disconnect();
  assert.deepEqual((await left).info.connInfo, { name: "bob" });
  assert.equal((await room.presenceStats()).numClients, 1);
  ann.disconnect();
});

test("history", async () => {
  const client = await connect("ann");
  const room = await subscribe(client, "history");
  for (let n = 0; n < 15; n += 1) await room.publish(n);
  const kept = await room.history({ limit: 100 });
  assert.deepEqual(kept.publications.map(({ data }) => data), [5, 6, 7, 8, 9, 10, 11, 12, 13, 14]);
  const since = { offset: kept.offset - 2, epoch: kept.epoch };
  const rest = await room.history({ limit: 100, since });
  assert.deepEqual(rest.publications.map(({ data }) => data), [13, 14]);
  client.disconnect();
});

test("errors come as errors, and the connection goes on", async () => {
  const client = await connect("ann");
  await assert.rejects(client.rpc("nothing", {}), { code: 104, message: "method not found" });
  await assert.rejects(client.publish("x".repeat(256), 1), { code: 107 });
  await client.publish("x".repeat(255), 1);
  assert.equal(client.state, "connected");
  client.disconnect();
});

test("it disconnects and connects again", async () => {
  const client = await connect("ann");
  const room = await subscribe(client, "again");
  const first = (await room.presence()).clients;
  client.disconnect();
  assert.equal(client.state, "disconnected");
  client.connect();
  await room.ready();
  const second = (await room.presence()).clients;
  assert.notDeepEqual(Object.keys(first), Object.keys(second), "a new client id");
  await client.publish("again", "hello");
  await until(() => room.heard.length === 1);
  client.disconnect();
});

test("a cut connection comes back, subscribed", async () => {
  const bob = await connect("bob");
  const ann = await connect("ann", network.port);
  const room = await subscribe(ann, "cut");
  await bob.publish("cut", 1);
  await until(() => room.heard.length === 1);

  const connecting = event(ann, "connecting");
  network.cut();
  await connecting;
  network.restore();
  await room.ready();
  await bob.publish("cut", 2);
  await until(() => room.heard.length === 2);
  assert.deepEqual(room.heard, [1, 2]);
  ann.disconnect();
  bob.disconnect();
});

test("a client that is pinged stays; one behind a dead network is gone", async () => {
  const bob = await connect("bob");
  const theirs = await subscribe(bob, "pings");
  const ann = await connect("ann", network.port);
  await subscribe(ann, "pings");
  await new Promise((resolve) => setTimeout(resolve, 2500)); // two pings
  assert.equal(ann.state, "connected");
  assert.equal(bob.state, "connected");
  const left = event(theirs, "leave");
  network.stall();
  assert.deepEqual((await left).info.connInfo, { name: "ann" });
  network.restore();
  ann.disconnect();
  bob.disconnect();
});

test("a gateway that stops says so, and its clients go to the next one", async () => {
  const first = await startGateway();
  const client = await connect("ann", first.port);
  const room = await subscribe(client, "restart");
  const connecting = event(client, "connecting");
  assert.equal(await first.stop(), 0);
  assert.equal((await connecting).code, 3001);
  const second = await startGateway({}, first.port);
  await room.ready();
  await client.publish("restart", "hello again");
  await until(() => room.heard.length === 1);
  client.disconnect();
  assert.equal(await second.stop(), 0);
});
