/** One channel: who is in it, what was said in it, and something to say. */

import { call, get } from "./api.js";
import { confirm, h, name, setText, toast } from "./dom.js";
import { count, duration, plural, who } from "./format.js";
import { toClient } from "./links.js";
import { Pager, Table } from "./table.js";

const PERIOD = 2; // seconds
const MEMBERS = 20;
const PAGE = 20; // publications
const MOST = 200; // publications on the page

export class Channel {
  #at = 0;
  #older = null; // the offset before which one would read on
  #epoch = "";
  #top = -1; // the newest offset that is shown

  constructor(channel) {
    this.name = channel;
    this.about = h("p", { class: "about", role: "status" });
    this.pager = new Pager(MEMBERS, 1000, () => this.refresh());
    this.members = new Table(
      "Who is in the channel",
      [
        { label: "User", class: "name", text: (row) => who(row), href: (row) => toClient(row.client) },
        { label: "Info", class: "code", text: (row) => row.info ?? "" },
      ],
      (row) => row.client,
      "Nobody is here.",
    );
    this.who = h("h2", {}, "Who is here");
    this.data = h("textarea", { id: "data", rows: 4, spellcheck: "false", required: true });
    this.data.value = '{"text": "Hello"}';
    this.fault = h("p", { class: "fault", role: "alert" });
    this.log = h("ol", { class: "log" });
    this.state = h("p", { class: "empty" });
    this.more = h("button", { type: "button", hidden: true, onclick: () => this.#read(true) }, "Older");
    this.clear = h("button", { type: "button", class: "small danger", hidden: true, onclick: () => this.#clear() }, "Clear");
    this.element = h(
      "div",
      { class: "view" },
      h("p", { class: "path" }, h("a", { href: "#/channels" }, "Channels"), " /"),
      h("div", { class: "top" }, h("h1", { dir: "auto" }, channel), this.about),
      h(
        "div",
        { class: "two" },
        h(
          "div",
          {},
          h(
            "section",
            { class: "card" },
            h("h2", {}, h("label", { for: "data" }, "Publish JSON")),
            h(
              "form",
              { class: "publish", onsubmit: (event) => this.#publish(event) },
              this.data,
              this.fault,
              h("button", { class: "main" }, "Publish"),
            ),
          ),
          h("section", { class: "card" }, this.who, this.members.element, this.pager.element),
        ),
        h("section", { class: "card history" }, h("div", { class: "head" }, h("h2", {}, "History"), this.clear), this.state, this.log, this.more),
      ),
    );
    this.#read();
  }

  async update(stats) {
    if (stats.time - this.#at < PERIOD) return;
    this.#at = stats.time;
    await this.refresh();
  }

  async refresh() {
    try {
      const page = await get("channel", { channel: this.name, offset: this.pager.offset, limit: MEMBERS });
      const kept = page.kept ? `keeps ${plural(page.kept, "publication")} for ${duration(page.history_ttl)}` : "keeps no history";
      setText(this.about, `${plural(page.subscribers, "subscriber")} · ${kept}`);
      setText(this.who, page.presence ? "Who is here" : "Who is here, on this node");
      this.members.update(page.members);
      if (this.pager.update(page.members.length, page.total)) await this.refresh();
      if (page.kept) await this.#follow();
    } catch (error) {
      setText(this.about, error.message);
    }
  }

  /** Put what is new on top. */
  async #follow() {
    const page = await get("history", { channel: this.name, limit: PAGE });
    if (page.epoch !== this.#epoch || page.offset !== this.#top) this.#show(page, false);
  }

  async #read(older = false) {
    try {
      const query = { channel: this.name, limit: PAGE };
      if (older) Object.assign(query, { before: this.#older, epoch: this.#epoch });
      this.#show(await get("history", query), older);
    } catch (error) {
      if (error.code === 112) return void this.#read(); // the history has begun anew
      setText(this.state, error.code === 108 ? "This channel keeps no history." : error.message);
      this.state.hidden = false;
    }
  }

  #show(page, older) {
    const items = page.rows.map((row) => this.#item(row));
    const overlaps = page.epoch === this.#epoch && page.rows.some((row) => row.offset <= this.#top);
    if (older) {
      this.log.append(...items);
      this.#older = page.rows.at(-1)?.offset ?? null;
    } else if (overlaps && page.rows.length) {
      this.log.prepend(...items.filter((_, number) => page.rows[number].offset > this.#top));
    } else {
      this.log.replaceChildren(...items);
      this.#older = page.rows.at(-1)?.offset ?? null;
    }
    if (!older) this.#top = page.offset;
    this.#epoch = page.epoch;
    while (!older && this.log.children.length > MOST) {
      this.log.lastElementChild.remove();
      this.#older = Number(this.log.lastElementChild.dataset.offset);
    }
    const full = this.log.children.length >= MOST;
    this.more.hidden = full || !this.#older || this.#older <= 1 || (older && page.rows.length < PAGE) || this.log.children.length < PAGE;
    this.clear.hidden = this.log.children.length === 0;
    this.state.hidden = this.log.children.length > 0;
    setText(this.state, "Nothing is kept.");
  }

  #item(row) {
    const cut = row.size > row.data.length ? h("small", {}, `… and ${count(row.size - row.data.length)} characters more`) : null;
    const publisher = row.client ? h("a", { href: toClient(row.client), dir: "auto" }, who(row)) : "the backend";
    const tags = row.tags ? h("small", { dir: "auto" }, Object.entries(row.tags).map((pair) => pair.join("=")).join(" ")) : null;
    return h(
      "li",
      { "data-offset": row.offset },
      h("p", { class: "who" }, h("b", {}, `#${row.offset}`), " ", publisher, " ", tags),
      h("pre", { dir: "auto" }, row.data),
      cut,
    );
  }

  async #publish(event) {
    event.preventDefault();
    setText(this.fault, "");
    const text = this.data.value;
    try {
      JSON.parse(text);
    } catch (error) {
      return void setText(this.fault, `This is not JSON: ${error.message}`);
    }
    try {
      // As it was written: numbers that JavaScript would round stay what they are.
      await call("publish", `{"channel":${JSON.stringify(this.name)},"data":${text}}`);
      toast("It is published.");
      await this.refresh();
    } catch (error) {
      setText(this.fault, error.message);
    }
  }

  async #clear() {
    if (!(await confirm(["Clear the history of ", name(this.name), "?"], "Who recovers later will miss what is in it.", "Clear"))) return;
    try {
      await call("history_remove", { channel: this.name });
      this.#top = -1;
      await this.#read();
    } catch (error) {
      toast(error.message, true);
    }
  }
}
