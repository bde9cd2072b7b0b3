/** A room: what was said in it, who is in it, and the elements that show both. */

import { LOST, TIMEOUT } from "./client.js";
import { milliseconds } from "./meter.js";
import { hue, initials, randomId } from "./names.js";

const KEPT = 200; // messages on the page
const LISTED = 100; // people
const GRACE = 4000; // ms: who comes back within it was not away
const TOGETHER = 120_000; // ms: messages of one person within it share a heading
const NOT_AVAILABLE = 108; // the gateway's error: the channel keeps no history

function make(template) {
  return document.getElementById(template).content.firstElementChild.cloneNode(true);
}

function paint(avatar, { id, name }) {
  avatar.textContent = initials(name);
  avatar.style.setProperty("--hue", hue(id));
}

/** Who a client is. Anybody can claim anything here: dev mode checks no one. */
function person(info) {
  if (!info) return { id: "", name: "gateway" };
  const { id, name } = Object(info.conn_info);
  const given = typeof name === "string" ? name.trim().slice(0, 32) : "";
  return {
    id: typeof id === "string" && id ? id : info.client,
    name: given || `guest ${info.client.slice(0, 4)}`,
  };
}

export class Room {
  unread = 0;
  log = document.createElement("ol"); // messages and events
  list = document.createElement("ul"); // people

  #client;
  #me;
  #subscription;
  #onchange;
  #messages = new Map(); // by author and the author's number for it, oldest first
  #people = new Map(); // id -> {id, name, clients, timer}
  #position = { offset: 0, epoch: "" }; // what we have seen of the channel's history
  #held = null; // publications that came while older ones were being fetched
  #isAway = false;

  /**
   * @param {Client} client
   * @param {{id: string, name: string}} me
   * @param {(room: Room, what: "message" | "people") => void} onchange
   */
  constructor(client, name, me, onchange) {
    this.name = name;
    this.#client = client;
    this.#me = me;
    this.#onchange = onchange;
    this.log.append(make("welcome"));
    this.#subscription = client.subscribe(name, {
      onsubscribed: () => this.#enter(),
      onpublication: (publication) => this.#take(publication),
      onjoin: (info) => this.#join(info),
      onleave: (info) => this.#leave(info.client),
      onend: (error) => this.#event(`The gateway has closed this room: ${error.message}.`),
    });
  }

  /** How many people are here. */
  get present() {
    return [...this.#people.values()].filter(({ clients }) => clients.size).length;
  }

  /** The connection is gone. */
  lost() {
    this.#isAway = true;
  }

  /** Say something. It shows at once, and is sent as soon as there is a connection. */
  send(text) {
    const data = { id: randomId(), text, at: Date.now() };
    const message = this.#show(this.#me, data, "sending…");
    message.isPlaced = false; // others may see it further down
    message.waited = this.#client.state !== "connected";
    message.since = performance.now();
    message.element.classList.add("pending");
    this.#publish(message, data);
  }

  // What is said

  async #publish(message, data) {
    for (;;) {
      try {
        await this.#subscription.publish(data);
        return this.#confirm(message);
      } catch (error) {
        // Nobody knows whether it got there. Readers ignore the second of two with one id.
        if (error.code !== LOST && error.code !== TIMEOUT) return this.#failed(message, data, error);
        message.waited = true;
      }
    }
  }

  #confirm(message) {
    if (message.since === undefined) return;
    message.element.classList.remove("pending");
    const passed = performance.now() - message.since;
    message.note.textContent = message.waited
      ? `sent when the connection was back, ${(passed / 1000).toFixed(1)} s later`
      : `round trip ${milliseconds(passed)}`;
    message.since = undefined;
  }

  #failed(message, data, error) {
    if (message.since === undefined) return; // we have read it: only the reply went astray
    const retry = document.createElement("button");
    retry.type = "button";
    retry.textContent = "Try again";
    retry.onclick = () => {
      message.note.textContent = "sending…";
      this.#publish(message, data);
    };
    message.note.replaceChildren(`Not sent: ${error.message}. `, retry);
  }

  #take(publication) {
    if (this.#held !== null) {
      this.#held.push(publication);
      return;
    }
    const { offset = 0, info } = publication;
    if (offset) {
      if (offset <= this.#position.offset) return; // the history had it
      this.#position.offset = offset;
    }
    const data = Object(publication.data);
    const author = person(info);
    const known = this.#messages.get(`${author.id} ${data.id}`);
    if (known === undefined || data.id === undefined) {
      const text = typeof data.text === "string" ? data.text : JSON.stringify(publication.data);
      this.#show(author, { ...data, text });
    } else if (known.isPlaced === false) {
      known.isPlaced = true;
      this.#confirm(known);
      this.#place(known.element);
    }
  }

  #show(author, { id, text, at }, note = "") {
    this.log.querySelector(".welcome")?.remove();
    const element = make("message");
    const time = new Date(Number.isFinite(at) ? at : Date.now());
    paint(element.querySelector(".avatar"), author);
    element.querySelector("bdi").textContent = author.name;
    element.querySelector("time").dateTime = time.toISOString();
    element.querySelector("time").textContent = time.toLocaleTimeString([], {
      hour: "2-digit",
      minute: "2-digit",
    });
    element.querySelector(".text").textContent = text;
    element.classList.toggle("mine", author.id === this.#me.id);
    element.dataset.author = author.id;
    element.dataset.at = time.getTime();
    this.#place(element);

    const message = { element, note: element.querySelector(".note") };
    message.note.textContent = note;
    this.#messages.set(`${author.id} ${id ?? randomId()}`, message);
    if (this.#messages.size > KEPT) {
      const [oldest, { element: old }] = this.#messages.entries().next().value;
      this.#messages.delete(oldest);
      while (old.previousElementSibling) old.previousElementSibling.remove();
      old.remove();
    }
    this.#onchange(this, author.id === this.#me.id ? "own" : "message");
    return message;
  }

  /** Put a message at the end. One that goes on where its author left off needs no heading. */
  #place(element) {
    const after = element.nextElementSibling;
    this.log.append(element);
    for (const each of [element, after]) {
      const before = each?.previousElementSibling?.dataset;
      const goesOn =
        each?.dataset.author === before?.author && each?.dataset.at - before?.at < TOGETHER;
      each?.classList.toggle("more", goesOn);
    }
  }

  #event(text) {
    if (this.log.querySelector(".welcome")) return;
    const element = document.createElement("li");
    element.className = "event";
    element.textContent = text;
    this.log.append(element);
    this.#onchange(this, "event");
  }

  // Coming and coming back

  async #enter() {
    const wasAway = this.#isAway;
    this.#isAway = false;
    this.#held = [];
    const [missed] = await Promise.allSettled([this.#catchUp(wasAway), this.#lookAround()]);
    const held = this.#held;
    this.#held = null;
    if (wasAway && missed.reason?.code === NOT_AVAILABLE) {
      this.#event("You were away. What others said meanwhile is not kept.");
    }
    for (const publication of held) this.#take(publication);
  }

  /** Show what we have not seen of what the channel keeps. */
  async #catchUp(wasAway) {
    const kept = await this.#subscription.history({ limit: 100, reverse: true });
    const held = this.#held;
    this.#held = null;
    const seen = this.#position;
    if (seen.epoch !== kept.epoch) this.#position = { offset: 0, epoch: kept.epoch };
    const missed = kept.publications.reverse().filter(({ offset }) => offset > this.#position.offset);
    const oldest = missed[0]?.offset ?? kept.offset + 1;
    if (wasAway && (seen.epoch !== kept.epoch || oldest > seen.offset + 1)) {
      this.#event("You were away. Some of what others said is not kept.");
    }
    for (const publication of missed) this.#take(publication);
    this.#position.offset = kept.offset;
    this.#held = held;
  }

  // Who is here

  /** Compare the list with the gateway's: joins and leaves may be lost, this makes up for it. */
  async #lookAround() {
    const present = await this.#subscription.presence();
    for (const { clients } of [...this.#people.values()]) {
      for (const client of clients) if (!(client in present)) this.#leave(client);
    }
    for (const info of Object.values(present)) this.#join(info, true);
  }

  #join(info, quietly = false) {
    const { id, name } = person(info);
    let known = this.#people.get(id);
    if (known === undefined) {
      known = { id, name, clients: new Set() };
      this.#people.set(id, known);
      if (!quietly && id !== this.#me.id) this.#event(`${name} came in`);
    } else if (known.name !== name) {
      this.#event(`${known.name} is now ${name}`);
      known.name = name;
    }
    clearTimeout(known.timer);
    known.clients.add(info.client);
    this.#listPeople();
  }

  #leave(client) {
    for (const known of this.#people.values()) {
      if (!known.clients.delete(client) || known.clients.size) continue;
      clearTimeout(known.timer);
      known.timer = setTimeout(() => {
        this.#people.delete(known.id);
        if (known.id !== this.#me.id) this.#event(`${known.name} went away`);
        this.#listPeople();
      }, GRACE);
    }
    this.#listPeople();
  }

  #listPeople() {
    const mine = this.#me.id;
    const people = [...this.#people.values()].sort(
      (a, b) => (b.id === mine) - (a.id === mine) || a.name.localeCompare(b.name),
    );
    const items = people.slice(0, LISTED).map((one) => {
      const item = make("person");
      paint(item.querySelector(".avatar"), one);
      item.querySelector("bdi").textContent = one.name;
      item.classList.toggle("gone", one.clients.size === 0);
      item.querySelector("small").textContent = one.id === mine ? "you" : one.clients.size ? "" : "away";
      return item;
    });
    if (people.length > LISTED) items.push(`and ${people.length - LISTED} more`);
    this.list.replaceChildren(...items);
    this.#onchange(this, "people");
  }
}
