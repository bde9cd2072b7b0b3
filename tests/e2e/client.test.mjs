// client.js on a clock and a WebSocket of our own: when it comes back, and when it gives up.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import * as centrifuge from "../../gateway/static/client.js";

const { Client, CommandError, backoff, mayReconnect } = centrifuge;

// Time stands still until a test moves it.
const clock = {
  now: 0,
  timers: new Map(),
  next: 1,
  real: { setTimeout, clearTimeout },
  install() {
    this.now = 0;
    this.timers.clear();
    globalThis.setTimeout = (run, delay = 0) => {
      this.timers.set(this.next, { at: this.now + delay, run });
      return this.next++;
    };
    globalThis.clearTimeout = (id) => this.timers.delete(id);
  },
  remove() {
    Object.assign(globalThis, this.real);
  },
  advance(ms) {
    const end = this.now + ms;
    for (;;) {
      const due = [...this.timers].filter(([, timer]) => timer.at <= end);
      if (!due.length) break;
      const [id, timer] = due.reduce((a, b) => (b[1].at < a[1].at ? b : a));
      this.timers.delete(id);
      this.now = timer.at;
      timer.run();
    }
    this.now = end;
  },
};

class FakeSocket {
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }
  static get alive() {
    return FakeSocket.all.filter((socket) => socket.readyState < 2).length;
  }

  readyState = 0;
  sent = [];

  constructor(url) {
    this.url = url;
    FakeSocket.all.push(this);
    assert.equal(FakeSocket.alive, 1, "two sockets at once");
  }

  send(frame) {
    assert.equal(this.readyState, 1, "send on a socket that is not open");
    this.sent.push(JSON.parse(frame));
  }

  close() {
    this.readyState = Math.max(this.readyState, 2); // the close event may come much later
  }

  // What the other side does.

  open() {
    this.readyState = 1;
    this.onopen?.({});
    return this;
  }

  receive(...messages) {
    this.onmessage?.({ data: messages.map((message) => JSON.stringify(message)).join("\n") });
    return this;
  }

  /** Answer the last command of a kind. */
  reply(method, result = {}) {
    return this.receive({ id: this.command(method).id, [method]: result });
  }

  fail(method, error) {
    return this.receive({ id: this.command(method).id, error });
  }

  end(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  command(method) {
    const command = this.sent.findLast((each) => method in each);
    assert.ok(command, `no ${method} was sent`);
    return command;
  }

  count(method) {
    return this.sent.filter((each) => method in each).length;
  }
}

let states;
let online;

beforeEach(() => {
  clock.install();
  FakeSocket.all = [];
  states = [];
  online = new Set();
  globalThis.addEventListener = (type, listener) => type === "online" && online.add(listener);
  globalThis.removeEventListener = (type, listener) => online.delete(listener);
});

afterEach(() => clock.remove());

function makeClient(options = {}) {
  const onstate = (state, why) => states.push([state, why]);
  return new Client("ws://gateway/", { WebSocket: FakeSocket, onstate, ...options });
}

const HELLO = { client: "c1", version: "1", ping: 25, pong: true };

/** A client that has connected. */
function connected(options) {
  const client = makeClient(options);
  client.connect();
  FakeSocket.last.open().reply("connect", HELLO);
  assert.equal(client.state, "connected");
  return client;
}

const codeOf = (promise) => promise.then(() => 0, (error) => error.code);

test("delays are between 0.5 s and a bound that doubles up to 20 s", () => {
  const bounds = [1000, 2000, 4000, 8000, 16000, 20000, 20000];
  bounds.forEach((bound, attempt) => {
    assert.equal(backoff(attempt, 500, 20000, () => 0), 500);
    assert.equal(backoff(attempt, 500, 20000, () => 1), bound);
  });
  assert.equal(backoff(10_000, 500, 20000, () => 1), 20000);
  const delays = Array.from({ length: 1000 }, () => backoff(9, 500, 20000));
  assert.ok(Math.min(...delays) < 2000 && Math.max(...delays) > 18000, "spread over the whole range");
});

test("close codes tell whether to come back", () => {
  for (const code of [1000, 1001, 1006, 1011, 1012, 3000, 3001, 3012, 3499, 4000, 4499]) {
    assert.equal(mayReconnect(code), true, code);
  }
  for (const code of [1009, 3500, 3501, 3999, 4500, 4999]) {
    assert.equal(mayReconnect(code), false, code);
  }
});

test("it connects, says who it is, and answers pings if it has to", () => {
  const client = makeClient({ data: { name: "ann" } });
  client.connect();
  const socket = FakeSocket.last.open();
  assert.deepEqual(socket.sent, [{ id: 1, connect: { data: { name: "ann" } } }]);
  assert.equal(client.state, "connecting");
  socket.reply("connect", HELLO);
  assert.deepEqual([client.state, client.id], ["connected", "c1"]);
  socket.receive({});
  assert.deepEqual(socket.sent.at(-1), {});


  socket.end(3001);
  clock.advance(1000);
  const other = FakeSocket.last.open().reply("connect", { client: "c2", ping: 25 });
  other.receive({});
  assert.equal(other.sent.length, 1, "no pong was asked for");
  client.disconnect();
});

test("whatever happens, there is one socket", () => {
  const client = makeClient();
  client.connect();
  client.connect();
  assert.equal(FakeSocket.all.length, 1);
  FakeSocket.last.open();
  client.connect();
  FakeSocket.last.end();
  client.connect(); // instead of waiting
  client.connect();
  assert.equal(FakeSocket.all.length, 2);
  const old = FakeSocket.all[0];
  old.onclose?.({ code: 1006 });
  old.onopen?.({});
  clock.advance(1000);
  assert.equal(FakeSocket.all.length, 2, "the timer of the first loss is gone");
  for (const listener of online) listener();
  assert.equal(FakeSocket.all.length, 2, "it is trying already");
  FakeSocket.last.open().reply("connect", HELLO);
  client.reconnect();
  client.reconnect();
  for (const listener of online) listener();
  for (const listener of online) listener();
  assert.equal(FakeSocket.all.length, 3);
  // An hour in which servers do all they can think of; FakeSocket counts.
  const hello = () => FakeSocket.last.reply("connect", HELLO);
  const deeds = [
    () => FakeSocket.last.end(),
    () => FakeSocket.last.end(3001),
    () => FakeSocket.last.readyState === 0 && FakeSocket.last.open(),
    () => FakeSocket.last.readyState === 1 && FakeSocket.last.command("connect") && hello(),
    () => FakeSocket.last.readyState === 1 && FakeSocket.last.onmessage?.({ data: "garbage" }),
    () => client.state === "connecting" && client.connect(),
    () => client.reconnect(),
    () => online.forEach((listener) => listener()),
  ];
  for (let second = 0; second < 3600; second += 1) {
    deeds[Math.floor(Math.random() * deeds.length)]();
    clock.advance(Math.random() * 2000);
  }
  assert.ok(FakeSocket.all.length > 100);
});

test("it comes back later and later, and starts anew after a success", (context) => {
  context.mock.method(Math, "random", () => 0.5);
  const client = connected();
  const waits = [];
  for (let attempt = 0; attempt < 9; attempt += 1) {
    FakeSocket.last.end();
    const { delay } = states.at(-1)[1];
    waits.push(delay);
    const before = FakeSocket.all.length;
    clock.advance(delay - 1);
    assert.equal(FakeSocket.all.length, before);
    clock.advance(1);
    assert.equal(FakeSocket.all.length, before + 1);
  }
  waits.forEach((wait, attempt) => {
    assert.equal(wait, (500 + Math.min(20_000, 500 * 2 ** (attempt + 1))) / 2);
  });
  FakeSocket.last.open().reply("connect", HELLO);
  FakeSocket.last.end();
  assert.equal(states.at(-1)[1].delay, 750);
  client.disconnect();
});

test("a close code that says so is the end, until connect() is called", () => {
  for (const code of [3500, 3999, 4500, 4999, 1009]) {
    const client = connected();
    FakeSocket.last.end(code, "go away");
    assert.equal(client.state, "disconnected");
    assert.deepEqual(states.at(-1), ["disconnected", { code, reason: "go away" }]);
    assert.equal(clock.timers.size, 0);
    for (const listener of online) listener();
    clock.advance(60_000);
    assert.equal(FakeSocket.alive, 0);
    client.connect();
    assert.equal(FakeSocket.last.readyState, 0);
    client.disconnect();
  }
});

test("a connection without pings is given up, 10 s after one was due", () => {
  const client = connected(); // pings every 25 s
  clock.advance(34_999);
  assert.equal(client.state, "connected");
  FakeSocket.last.receive({});
  clock.advance(34_999);
  assert.equal(client.state, "connected");
  clock.advance(1);
  assert.equal(client.state, "connecting");
  assert.equal(FakeSocket.last.readyState, 2, "closed, and not waited for");
  clock.advance(1000);
  assert.equal(FakeSocket.all.length, 2);
  client.disconnect();
});

test("any message is a sign of life, and a server without pings is never given up", () => {
  const client = connected();
  for (let n = 0; n < 10; n += 1) {
    clock.advance(30_000);
    FakeSocket.last.receive({ push: { channel: "x", pub: { data: n } } });
  }
  assert.equal(client.state, "connected");
  client.disconnect();

  const other = makeClient();
  other.connect();
  FakeSocket.last.open().reply("connect", { client: "c" });
  clock.advance(3_600_000);
  assert.equal(other.state, "connected");
  other.disconnect();
});

test("a server that does not answer is given up as well", () => {
  const client = makeClient();
  client.connect();
  clock.advance(5000); // never opened
  assert.equal(client.state, "connecting");
  clock.advance(1000);
  assert.equal(FakeSocket.all.length, 2);
  FakeSocket.last.open(); // never answers
  clock.advance(5000);
  clock.advance(2000);
  assert.equal(FakeSocket.all.length, 3);
  client.disconnect();
  assert.equal(clock.timers.size, 0);
});

test("when the browser is online again it tries at once, or asks whether it is still connected", () => {
  const client = connected();
  FakeSocket.last.end();
  for (const listener of online) listener();
  assert.equal(FakeSocket.all.length, 2);
  FakeSocket.last.open().reply("connect", HELLO);

  for (const listener of online) listener();
  FakeSocket.last.reply("ping");
  clock.advance(6000);
  assert.equal(client.state, "connected");
  for (const listener of online) listener();
  clock.advance(5000); // no answer: this socket belonged to another network
  assert.equal(client.state, "connecting");
  client.disconnect();
  assert.equal(online.size, 0);
});

test("subscriptions are made again on each connection", () => {
  const client = makeClient();
  const seen = [];
  client.subscribe("a", {
    onsubscribed: () => seen.push("subscribed"),
    onpublication: ({ data }) => seen.push(data),
    onjoin: ({ client: id }) => seen.push(`+${id}`),
    onleave: ({ client: id }) => seen.push(`-${id}`),
  });
  client.subscribe("b");
  assert.throws(() => client.subscribe("a"), /already subscribed/);
  client.connect();
  for (let n = 0; n < 2; n += 1) {
    const socket = FakeSocket.last.open().reply("connect", HELLO);
    assert.deepEqual(
      socket.sent.slice(1).map((command) => command.subscribe),
      [{ channel: "a", join_leave: true }, { channel: "b", join_leave: true }],
    );
    const [, { id }] = socket.sent;
    const push = (what) => ({ push: { channel: "a", ...what } });
    const info = { client: "x", user: "" };
    // One frame: what follows the reply must not come before it.
    const rest = [push({ join: { info } }), push({ pub: { data: n } }), push({ leave: { info } })];
    socket.receive({ id, subscribe: {} }, ...rest);
    socket.end();
    clock.advance(1000);
  }
  assert.deepEqual(seen, ["subscribed", "+x", 0, "-x", "subscribed", "+x", 1, "-x"]);
  client.unsubscribe("b");
  const socket = FakeSocket.last.open().reply("connect", HELLO);
  assert.equal(socket.count("subscribe"), 1);
  client.unsubscribe("a");
  assert.deepEqual(socket.command("unsubscribe").unsubscribe, { channel: "a" });
  client.disconnect();
});

test("a subscription that fails for now is tried again, one that is refused ends", () => {
  const client = connected();
  const ended = [];
  client.subscribe("a", { onend: (error) => ended.push(error.code) });
  const socket = FakeSocket.last;
  socket.fail("subscribe", { code: 100, message: "internal", temporary: true });
  clock.advance(1000);
  assert.equal(socket.count("subscribe"), 2);
  socket.reply("subscribe");
  socket.receive({ push: { channel: "a", unsubscribe: { code: 2500, reason: "insufficient" } } });
  assert.equal(socket.count("subscribe"), 3);
  socket.fail("subscribe", { code: 103, message: "permission denied" });
  assert.deepEqual(ended, [103]);
  client.subscribe("a", { onend: (error) => ended.push(error.code) });
  socket.reply("subscribe");
  socket.receive({ push: { channel: "a", unsubscribe: { code: 2000, reason: "server" } } });
  assert.deepEqual(ended, [103, 2000]);
  client.disconnect();
});

test("commands wait for a connection, and keep their order", async () => {
  const client = makeClient();
  const first = client.publish("a", 1);
  client.connect();
  const second = client.publish("a", 2);
  const socket = FakeSocket.last.open().reply("connect", HELLO);
  assert.deepEqual(socket.sent.slice(1), [
    { id: 2, publish: { channel: "a", data: 1 } },
    { id: 3, publish: { channel: "a", data: 2 } },
  ]);
  socket.receive({ id: 3, publish: {} }, { id: 2, publish: {} });
  await Promise.all([first, second]);
  client.disconnect();
});

test("a command that was under way when the connection ended is rejected as lost", async () => {
  const client = connected();
  const failed = codeOf(client.publish("a", 1));
  client.subscribe("a");
  FakeSocket.last.end();
  assert.equal(await failed, centrifuge.LOST);
  assert.equal(clock.timers.size, 1, "only that of the next try");
  const again = client.publish("a", 1);
  clock.advance(1000);
  FakeSocket.last.open().reply("connect", HELLO).reply("publish");
  await again;
  client.disconnect();
});

test("commands fail with the server's error, without a reply in time, and at the end", async () => {
  const client = connected();
  const refused = client.publish("a", 1);
  FakeSocket.last.fail("publish", { code: 103, message: "permission denied" });
  await assert.rejects(refused, new CommandError(103, "permission denied"));

  const slow = codeOf(client.presence("a"));
  clock.advance(5000);
  assert.equal(await slow, centrifuge.TIMEOUT);
  FakeSocket.last.reply("presence", { presence: {} }); // too late, and no harm
  assert.equal(client.state, "connected");

  const sent = codeOf(client.publish("a", 1));
  client.reconnect();
  const queued = codeOf(client.publish("a", 1));
  client.disconnect();
  assert.deepEqual(await Promise.all([sent, queued]), [centrifuge.LOST, centrifuge.DISCONNECTED]);
  assert.equal(await codeOf(client.rtt()), centrifuge.LOST);
});

test("presence, history and round-trip time", async () => {
  const client = connected();
  const room = client.subscribe("a");
  const presence = room.presence();
  FakeSocket.last.reply("presence", { presence: { c1: { client: "c1" } } });
  assert.deepEqual(await presence, { c1: { client: "c1" } });
  const history = room.history({ limit: 5 });
  assert.deepEqual(FakeSocket.last.command("history").history, { channel: "a", limit: 5 });
  FakeSocket.last.reply("history", { publications: [], offset: 3, epoch: "e" });
  assert.equal((await history).offset, 3);
  const rtt = client.rtt();
  FakeSocket.last.reply("ping");
  assert.ok((await rtt) >= 0);
  client.disconnect();
});

test("a refused connect is the end, a failed one is not", () => {
  const client = makeClient();
  client.connect();
  FakeSocket.last.open().fail("connect", { code: 100, message: "internal", temporary: true });
  assert.equal(client.state, "connecting");
  clock.advance(1000);
  FakeSocket.last.open().fail("connect", { code: 101, message: "unauthorized" });
  assert.equal(client.state, "disconnected");
  assert.deepEqual(states.at(-1), ["disconnected", { code: 101, reason: "unauthorized" }]);
  assert.equal(clock.timers.size, 0);
});

test("a handler may disconnect, and one that fails does no harm", () => {
  const client = connected();
  const seen = [];
  client.subscribe("a", {
    onpublication: ({ data }) => {
      seen.push(data);
      if (data === 1) throw new Error("handler");
      if (data === 2) client.disconnect();
    },
  });
  const reported = [];
  const real = globalThis.queueMicrotask;
  globalThis.queueMicrotask = (task) => reported.push(task);
  const socket = FakeSocket.last.reply("subscribe");
  socket.receive(...[1, 2, 3].map((data) => ({ push: { channel: "a", pub: { data } } })));
  globalThis.queueMicrotask = real;
  assert.deepEqual(seen, [1, 2]);
  assert.equal(reported.length, 1);
  assert.throws(reported[0], /handler/);
  assert.equal(client.state, "disconnected");
  assert.equal(clock.timers.size, 0);
});
