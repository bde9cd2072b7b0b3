/** One connection: who it is, where it is, and an end to it. */

import { call, get } from "./api.js";
import { confirm, h, name, setText, toast } from "./dom.js";
import { bytes, clock, count, duration, who } from "./format.js";
import { toChannel, toUser } from "./links.js";
import { Table } from "./table.js";

const PERIOD = 2; // seconds

export class Connection {
  #at = 0;
  #facts = new Map();

  constructor(client) {
    this.client = client;
    this.title = h("h1", { dir: "auto" }, "…");
    this.state = h("p", { class: "about", role: "status" });
    this.one = h("button", { type: "button", class: "danger", onclick: () => this.#disconnect(false) }, "Disconnect");
    this.all = h("button", { type: "button", class: "danger", onclick: () => this.#disconnect(true) });
    this.block = h("button", { type: "button", class: "danger", onclick: () => this.#block() }, "Block the user");
    this.facts = h("dl", { class: "facts" });
    this.channels = new Table(
      "Channels",
      [
        { label: "Channel", class: "name", text: (row) => row.name, href: (row) => toChannel(row.name) },
        { label: "Subscribed by", text: (row) => (row.server_side ? "the server" : "itself") + (row.slow ? ", reads too slowly" : "") },
        { label: "", class: "number", text: () => "Unsubscribe", button: (row) => this.#unsubscribe(row.name) },
      ],
      (row) => row.name,
      "It is in no channel.",
    );
    this.element = h(
      "div",
      { class: "view" },
      h("p", { class: "path" }, h("a", { href: "#/connections" }, "Connections"), " /"),
      h("div", { class: "top" }, this.title, this.state, h("div", { class: "buttons" }, this.one, this.all, this.block)),
      h("section", { class: "card" }, h("h2", {}, "Connection"), this.facts),
      h("section", { class: "card" }, h("h2", {}, "Channels"), this.channels.element),
    );
    this.all.hidden = true;
  }

  async update(stats) {
    if (stats.time - this.#at < PERIOD || this.gone) return;
    this.#at = stats.time;
    this.now = stats.time;
    await this.refresh();
  }

  async refresh() {
    try {
      this.#show(await get("client", { client: this.client }));
    } catch (error) {
      if (error.status !== 404) return void setText(this.state, error.message);
      this.gone = true;
      for (const button of [this.one, this.all, this.block]) button.disabled = true;
      if (this.title.textContent === "…") setText(this.title, "Connection");
      setText(this.state, "This connection has ended.");
    }
  }

  #fact(label, value, href = null) {
    let cell = this.#facts.get(label);
    if (!cell) {
      cell = href ? h("a", { dir: "auto" }) : h("span", { dir: "auto" });
      this.#facts.set(label, cell);
      this.facts.append(h("div", {}, h("dt", {}, label), h("dd", {}, cell)));
    }
    if (href) cell.setAttribute("href", href);
    setText(cell, value);
  }

  #show(page) {
    const { row } = page;
    this.user = row.user;
    this.number = page.of_user;
    setText(this.title, who(row));
    setText(this.state, page.blocked ? "This user is blocked." : "");
    setText(this.all, `Disconnect all ${page.of_user} of this user`);
    this.all.hidden = page.of_user < 2;
    this.block.hidden = !row.user || page.blocked;
    if (row.user) {
      this.#fact("User", row.user, toUser(row.user));
      this.#fact("Connections of this user", count(page.of_user));
    }
    this.#fact("Client id", row.client);
    this.#fact("Address", row.address || "–");
    this.#fact("Transport", `${row.transport}, ${row.protocol}`);
    this.#fact("Connected for", `${duration(this.now - row.since)}, since ${clock(row.since)}`);
    this.#fact("Last heard", `${duration(row.idle)} ago`);
    this.#fact("Waiting to be sent", bytes(row.queued));
    this.#fact("Expires", page.expire_at ? new Date(page.expire_at * 1000).toLocaleString("en-GB") : "never");
    if (page.token) this.#fact("Token", page.token);
    if (page.info) this.#fact("Info, which others see", page.info);
    if (page.meta) this.#fact("Meta, which they do not", page.meta);
    if (row.channels > page.channels.length) this.#fact("Channels", `${count(row.channels)}, of which ${page.channels.length} are shown`);
    this.channels.update(page.channels);
  }

  async #do(method, body, done) {
    try {
      await call(method, body);
      toast(done);
    } catch (error) {
      toast(error.message, true);
    }
    await this.refresh();
  }

  async #disconnect(all) {
    const whom = name(this.title.textContent);
    const text = "Close code 3503: its SDK does not come back by itself. A new connection is let in.";
    if (all) {
      if (await confirm([`Disconnect all ${this.number} connections of `, whom, "?"], text, "Disconnect all")) {
        await this.#do("disconnect", { user: this.user }, "They are disconnected.");
      }
    } else if (await confirm(["Disconnect ", whom, "?"], text, "Disconnect")) {
      await this.#do("disconnect", { client: this.client }, "It is disconnected.");
    }
  }

  async #block() {
    const text = "All of this user's connections are closed, and the user is kept out for 30 days, or until this process ends.";
    if (await confirm(["Block ", name(this.user), "?"], text, "Block")) {
      await this.#do("block_user", { user: this.user }, [name(this.user), " is blocked."]);
      location.hash = toUser(this.user);
    }
  }

  async #unsubscribe(channel) {
    if (await confirm(["Take it out of ", name(channel), "?"], "The client is told.", "Unsubscribe")) {
      await this.#do("unsubscribe", { client: this.client, channel }, "It is out of the channel.");
    }
  }
}
