/** Channels and connections: search, and a page of what was found. */

import { call, get } from "./api.js";
import { h, name, setText, toast } from "./dom.js";
import { bytes, count, duration, plural, who } from "./format.js";
import { toChannel, toClient } from "./links.js";
import { Pager, Table } from "./table.js";

const LIMIT = 50;
const MOST = 1000; // beyond it the gateway wants a search
const PERIOD = 2; // seconds between refreshes

class List {
  #at = 0;
  #asked = 0;

  constructor({ title, path, hint, table, search = "", route }) {
    this.path = path;
    this.table = table;
    this.search = search;
    this.pager = new Pager(LIMIT, MOST, () => this.refresh());
    this.input = h("input", { type: "search", placeholder: hint, "aria-label": hint, maxlength: 512, autocomplete: "off", spellcheck: "false", value: search });
    this.input.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.#find(route), 250);
    });
    this.total = h("p", { class: "about", role: "status" });
    this.note = h("p", { class: "note", hidden: true });
    this.element = h(
      "div",
      { class: "view" },
      h("div", { class: "top" }, h("h1", {}, title), this.total),
      h("form", { class: "search", role: "search", onsubmit: (event) => this.#submit(event, route) }, this.input),
      this.note,
      h("section", { class: "card" }, table.element, this.pager.element),
    );
  }

  #submit(event, route) {
    event.preventDefault();
    clearTimeout(this.timer);
    this.#find(route);
  }

  #find(route) {
    this.search = this.input.value.trim();
    this.pager.offset = 0;
    history.replaceState(null, "", this.search ? `${route}/${encodeURIComponent(this.search)}` : route);
    this.refresh();
  }

  async update(stats) {
    if (stats.time - this.#at < PERIOD) return;
    this.#at = stats.time;
    await this.refresh();
  }

  async refresh() {
    this.#asked += 1;
    const asked = this.#asked;
    const query = { search: this.search, offset: this.pager.offset, limit: LIMIT };
    try {
      const found = await get(this.path, query);
      if (asked !== this.#asked) return; // another search has begun meanwhile
      this.table.update(found.rows);
      if (this.pager.update(found.rows.length, found.total)) await this.refresh();
      this.show(found);
    } catch (error) {
      if (asked === this.#asked) setText(this.total, error.message);
    }
  }
}

export class Channels extends List {
  constructor(search) {
    const table = new Table(
      "Channels",
      [
        { label: "Channel", class: "name", text: (row) => row.name, href: (row) => toChannel(row.name) },
        { label: "Subscribers", class: "number", text: (row) => count(row.subscribers) },
      ],
      (row) => row.name,
      "No channel with subscribers matches.",
    );
    super({ title: "Channels", path: "channels", hint: "Part of a channel's name", table, search, route: "#/channels" });
    this.input.addEventListener("keydown", (event) => {
      // A channel without subscribers is in no list, and may still have history.
      if (event.key === "Enter" && event.ctrlKey && this.input.value) location.hash = toChannel(this.input.value);
    });
  }

  show(found) {
    setText(this.total, this.search ? `${count(found.total)} of ${plural(found.all, "channel")}` : plural(found.all, "channel"));
    this.note.hidden = !this.search || found.rows.some((row) => row.name === this.search);
    const open = h("a", { href: toChannel(this.search), dir: "auto" }, this.search);
    if (!this.note.hidden) this.note.replaceChildren("Nobody is in a channel of this very name; its history is at ", open, ".");
  }
}

export class Connections extends List {
  constructor(search) {
    const table = new Table(
      "Connections",
      [
        { label: "User", class: "name", text: (row) => who(row), href: (row) => toClient(row.client) },
        { label: "Address", class: "code", text: (row) => row.address || "–" },
        { label: "Transport", text: (row) => `${row.transport}, ${row.protocol}` },
        { label: "Channels", class: "number", text: (row) => count(row.channels) },
        { label: "Waiting", class: "number", text: (row) => bytes(row.queued) },
        { label: "Connected for", class: "number", text: (row) => duration(this.now - row.since) },
        { label: "Last heard", class: "number", text: (row) => `${duration(row.idle)} ago` },
      ],
      (row) => row.client,
      "No connection matches.",
    );
    super({ title: "Connections", path: "clients", hint: "User, client id or address", table, search, route: "#/connections" });
  }

  async update(stats) {
    this.now = stats.time;
    await super.update(stats);
  }

  show(found) {
    setText(this.total, this.search ? `${count(found.total)} of ${plural(found.all, "connection")}` : plural(found.all, "connection"));
    this.note.hidden = !found.blocked;
    if (!found.blocked || this.blocked === this.search) return;
    this.blocked = this.search;
    const user = this.search;
    const unblock = async () => {
      try {
        await call("unblock_user", { user });
        toast([name(user), " may come in again."]);
      } catch (error) {
        toast(error.message, true);
      }
      this.blocked = null;
      await this.refresh();
    };
    this.note.replaceChildren(name(user), " is blocked. ", h("button", { type: "button", class: "small", onclick: unblock }, "Unblock"));
  }
}
