/**
 * A client of the gateway: the Centrifuge protocol in JSON over one WebSocket. Needs nothing else.
 *
 *     const client = new Client("wss://example.org/connection/websocket", { data: { name: "ann" } });
 *     const room = client.subscribe("room", { onpublication: (pub) => console.log(pub.data) });
 *     client.connect();
 *     await room.publish({ text: "hello" });
 *
 * - It comes back by itself. Each delay is drawn at random between `minDelay` and a bound that doubles
 *   from attempt to attempt up to `maxDelay`, so that clients that were cut together do not return
 *   together. When the browser is online again it tries at once.
 * - It never has two connections: a new one is opened only after the last one was given up.
 * - A connection that has gone silent is given up. The server says how often it pings; when nothing
 *   has come for that long and `maxPingDelay` more, nothing will.
 * - Subscriptions last until `unsubscribe()`: they are made again on each connection. Commands wait
 *   until there is a connection. One that was sent and not answered when its connection ended is
 *   rejected as `LOST`, since nobody knows whether it was carried out; ask again if that is safe.
 */

/** Codes of a `CommandError` that this side made; those of the server are 100 and above. */
export const TIMEOUT = 1;
export const LOST = 2;
export const DISCONNECTED = 3;

/** A command that failed. After a `temporary` error the same command may succeed later. */
export class CommandError extends Error {
  constructor(code, message, temporary = false) {
    super(message);
    this.name = "CommandError";
    this.code = code;
    this.temporary = temporary;
  }
}

/** Whether to come back after a close code. Codes from 3000 are the gateway's and its applications'. */
export function mayReconnect(code) {
  if (code >= 3000 && code < 5000) return code % 1000 < 500;
  return code !== 1009; // what we sent was too big, and would be again
}

/** Milliseconds before attempt number `attempt`, counted from 0. */
export function backoff(attempt, min, max, random = Math.random) {
  const bound = Math.min(max, min * 2 ** (attempt + 1));
  return min + random() * (bound - min);
}

export class Client {
  /** "disconnected", "connecting" (trying, or waiting for the next try) or "connected". */
  state = "disconnected";
  /** The server's name for this connection; null while there is none. */
  id = null;

  #url;
  #options;
  #socket = null; // the only one that we listen to
  #attempt = 0;
  #retry = null; // timer of the next attempt
  #silence = 0; // ms without a message after which the connection is given up; 0: never
  #watchdog = null;
  #answersPings = false;
  #lastId = 0;
  #sent = new Map(); // commands waiting for their reply, by id
  #queue = []; // commands waiting for a connection
  #subscriptions = new Map(); // by channel

  /**
   * @param {string | URL} url Of the gateway's `/connection/websocket`, with `ws:` or `wss:`.
   * @param {object} [options]
   * @param {*} [options.data] Sent with each connect; in dev mode it is what others see of us.
   * @param {(state: string, why: object) => void} [options.onstate] Called after each change. `why` has
   *     the `code` and `reason` of the end before it, and `delay` (ms) when the next try has to wait.
   * @param {number} [options.minDelay] [options.maxDelay] Between tries, in ms.
   * @param {number} [options.timeout] For the reply to a command, and to get a connection, in ms.
   * @param {number} [options.maxPingDelay] How late a ping of the server may be, in ms.
   * @param {typeof WebSocket} [options.WebSocket] To use in the place of the global one.
   */
  constructor(url, options = {}) {
    this.#url = url;
    const defaults = { minDelay: 500, maxDelay: 20_000, timeout: 5_000, maxPingDelay: 10_000 };
    this.#options = { ...defaults, WebSocket: globalThis.WebSocket, ...options };
  }

  /** What goes with the next connect. */
  set data(value) {
    this.#options.data = value;
  }

  /** Connect. While waiting for the next try: try now. */
  connect() {
    if (this.#socket !== null) return;
    globalThis.addEventListener?.("online", this.#online);
    this.#open();
  }

  /** Stay away until `connect()`. Commands that wait are rejected, subscriptions are kept. */
  disconnect() {
    if (this.state !== "disconnected") this.#end(1000, "disconnect called");
  }

  /** Give up the connection, as if it had been lost, and come back. */
  reconnect() {
    if (this.#socket !== null) this.#lost(1000, "reconnect called");
  }

  /**
   * Get what is published in a channel, now and after each reconnect. The handlers are all optional:
   * `onsubscribed()` each time the server has confirmed it, `onpublication({data, info, offset, tags})`,
   * `onjoin(info)`, `onleave(info)`, and `onend(error)` when the server has refused or ended it.
   */
  subscribe(channel, handlers = {}) {
    if (this.#subscriptions.has(channel)) throw new Error(`already subscribed to ${channel}`);
    const subscription = new Subscription(this, channel, handlers);
    this.#subscriptions.set(channel, subscription);
    if (this.state === "connected") this.#subscribe(subscription);
    return subscription;
  }

  unsubscribe(channel) {
    if (this.#subscriptions.delete(channel) && this.state === "connected") {
      this.#send("unsubscribe", { channel });
    }
  }

  /** Publish a JSON value. */
  async publish(channel, data) {
    await this.#ask("publish", { channel, data });
  }

  /** Who is subscribed to a channel: an object of `{client, user, conn_info}` by client id. */
  async presence(channel) {
    return (await this.#ask("presence", { channel })).presence;
  }

  /** `{publications, offset, epoch}`; `request` may have `limit`, `since: {offset, epoch}`, `reverse`. */
  async history(channel, request) {
    return this.#ask("history", { channel, ...request });
  }

  /** Round-trip time to the gateway in ms. Rejected while there is no connection. */
  rtt() {
    return new Promise((resolve, reject) => {
      if (this.state !== "connected") return reject(new CommandError(LOST, "not connected", true));
      const start = performance.now();
      return this.#send("ping", {}, () => resolve(performance.now() - start), reject);
    });
  }

  // Commands

  #ask(method, request) {
    return new Promise((resolve, reject) => {
      if (this.state === "connected") this.#send(method, request, resolve, reject);
      else this.#queue.push([method, request, resolve, reject]);
    });
  }

  #send(method, request, resolve = () => {}, reject = () => {}) {
    const id = ++this.#lastId;
    const timer = setTimeout(() => {
      this.#sent.delete(id);
      reject(new CommandError(TIMEOUT, `${method}: no reply in time`, true));
    }, this.#options.timeout);
    this.#sent.set(id, { method, resolve, reject, timer });
    this.#socket.send(JSON.stringify({ id, [method]: request }));
  }

  #reply({ id, error, ...results }) {
    const command = this.#sent.get(id);
    if (command === undefined) return; // too late
    this.#sent.delete(id);
    clearTimeout(command.timer);
    if (error) command.reject(new CommandError(error.code, error.message, error.temporary));
    else command.resolve(results[command.method] ?? {});
  }

  #subscribe(subscription, attempt = 0) {
    const { channel, handlers } = subscription;
    const socket = this.#socket;
    const isWanted = () => socket === this.#socket && this.#subscriptions.get(channel) === subscription;
    const onerror = (error) => {
      if (!isWanted()) return;
      if (error.code === TIMEOUT) {
        this.#lost(1006, error.message);
      } else if (error.temporary) {
        const { minDelay, maxDelay } = this.#options;
        const again = () => isWanted() && this.#subscribe(subscription, attempt + 1);
        setTimeout(again, backoff(attempt, minDelay, maxDelay));
      } else {
        this.#subscriptions.delete(channel);
        call(handlers.onend, error);
      }
    };
    const onreply = () => isWanted() && call(handlers.onsubscribed);
    this.#send("subscribe", { channel, join_leave: true }, onreply, onerror);
  }

  // The connection

  #setState(state, why = {}) {
    this.state = state;
    call(this.#options.onstate, state, why);
  }

  #open() {
    clearTimeout(this.#retry);
    this.#retry = null;
    const socket = new this.#options.WebSocket(this.#url);
    this.#socket = socket;
    socket.onopen = () => this.#introduce();
    socket.onmessage = ({ data }) => this.#receive(socket, data);
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#expect(this.#options.timeout); // to open, then for each message until the reply to connect
    this.#setState("connecting");
  }

  #introduce() {
    const { data } = this.#options;
    const socket = this.#socket;
    const onreply = ({ client, ping = 0, pong = false }) => {
      this.id = client;
      this.#attempt = 0;
      this.#answersPings = pong;
      this.#silence = ping && ping * 1000 + this.#options.maxPingDelay;
      this.#expect(this.#silence);
      this.#setState("connected");
      if (this.state !== "connected") return; // whoever heard that changed it
      for (const subscription of this.#subscriptions.values()) this.#subscribe(subscription);
      for (const command of this.#queue.splice(0)) this.#send(...command);
    };
    const onerror = (error) => {
      if (socket !== this.#socket) return; // given up already
      if (error.temporary) this.#lost(1006, error.message);
      else this.#end(error.code, error.message);
    };
    this.#send("connect", data === undefined ? {} : { data }, onreply, onerror);
  }

  #receive(socket, frame) {
    this.#expect(this.state === "connected" ? this.#silence : this.#options.timeout);
    for (const line of String(frame).split("\n")) {
      if (socket !== this.#socket) return; // a handler has disconnected
      let message;
      try {
        message = JSON.parse(line);
      } catch {
        return void this.#lost(1007, "not JSON");
      }
      if (message?.id) this.#reply(message);
      else if (message?.push) this.#push(message.push);
      else if (this.#answersPings) socket.send("{}");
    }
  }

  #push({ channel, pub, join, leave, unsubscribe }) {
    const subscription = this.#subscriptions.get(channel);
    if (subscription === undefined) return; // unsubscribed a moment ago
    const { handlers } = subscription;
    if (pub) call(handlers.onpublication, pub);
    else if (join) call(handlers.onjoin, join.info);
    else if (leave) call(handlers.onleave, leave.info);
    else if (unsubscribe?.code >= 2500) this.#subscribe(subscription);
    else if (unsubscribe) {
      this.#subscriptions.delete(channel);
      call(handlers.onend, new CommandError(unsubscribe.code, unsubscribe.reason));
    }
  }

  /** Give the connection up unless a message comes within so many ms; 0: wait for ever. */
  #expect(ms) {
    clearTimeout(this.#watchdog);
    if (ms) this.#watchdog = setTimeout(() => this.#lost(1006, "no sign of life"), ms);
  }

  #online = () => {
    if (this.#socket === null) {
      this.#attempt = 0;
      this.#open();
    } else if (this.state === "connected") {
      // Perhaps on another network, where this connection leads nowhere. Ask, rather than wait.
      this.#expect(this.#options.timeout);
      this.#send("ping", {});
    }
  };

  /** The connection is no more: come back, unless the code says not to. */
  #lost(code, reason) {
    if (!mayReconnect(code)) return void this.#end(code, reason);
    const { minDelay, maxDelay } = this.#options;
    const delay = backoff(this.#attempt++, minDelay, maxDelay);
    this.#retry = setTimeout(() => this.#open(), delay);
    this.#abandon(new CommandError(LOST, "connection lost", true));
    this.#setState("connecting", { code, reason, delay });
  }

  /** The end, until the next `connect()`. */
  #end(code, reason) {
    globalThis.removeEventListener?.("online", this.#online);
    clearTimeout(this.#retry);
    this.#retry = null;
    this.#attempt = 0;
    const error = new CommandError(DISCONNECTED, `disconnected: ${reason}`);
    this.#abandon(error);
    for (const [, , , reject] of this.#queue.splice(0)) reject(error);
    this.#setState("disconnected", { code, reason });
  }

  /** Let go of the socket. A close handshake may never end, so nobody waits for it. */
  #abandon(error) {
    const socket = this.#socket;
    this.#socket = null;
    this.id = null;
    clearTimeout(this.#watchdog);
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    const lost = [...this.#sent.values()];
    this.#sent.clear();
    for (const { reject, timer } of lost) {
      clearTimeout(timer);
      reject(error);
    }
  }
}

/** One channel of a client; made by `Client.subscribe`. */
export class Subscription {
  constructor(client, channel, handlers) {
    this.client = client;
    this.channel = channel;
    this.handlers = handlers;
  }

  publish(data) {
    return this.client.publish(this.channel, data);
  }

  presence() {
    return this.client.presence(this.channel);
  }

  history(request) {
    return this.client.history(this.channel, request);
  }

  unsubscribe() {
    this.client.unsubscribe(this.channel);
  }
}

/** A handler that fails must not take the connection with it; the error is still reported. */
function call(handler, ...values) {
  try {
    handler?.(...values);
  } catch (error) {
    queueMicrotask(() => {
      throw error;
    });
  }
}
