/** The process as a whole: charts of the last minutes, and where to look next. */

import { get } from "./api.js";
import { Chart, makeCursor } from "./charts.js";
import { h, setText } from "./dom.js";
import { bytes, count, duration, milliseconds, percent, plural, rate, who } from "./format.js";
import { toChannel, toClient } from "./links.js";
import { Table } from "./table.js";

const SPANS = [60, 300, 600]; // seconds
const LISTED = 8;
const LIST_PERIOD = 2; // seconds

const CHARTS = [
  {
    title: "Messages per second",
    series: [
      { column: "sent", label: "to clients" },
      { column: "received", label: "from clients" },
    ],
    format: rate,
    floor: 5,
    wide: true,
  },
  { title: "Connections", series: [{ column: "connections" }], format: count, floor: 5 },
  {
    title: "CPU",
    series: [{ column: "cpu" }],
    format: percent,
    floor: 0.1,
    hint: "Of one core, which is what the loop can use",
  },
  { title: "Memory", series: [{ column: "memory" }], format: bytes, floor: 2 ** 20, base: 1024, hint: "Resident" },
  {
    title: "Loop lag",
    series: [{ column: "lag" }],
    format: milliseconds,
    floor: 0.01,
    hint: "The longest that a timer was late in each second",
  },
  { title: "Channels", series: [{ column: "channels" }], format: count, floor: 5 },
  { title: "Subscriptions", series: [{ column: "subscriptions" }], format: count, floor: 5 },
  {
    title: "Waiting to be sent",
    series: [{ column: "queued" }],
    format: bytes,
    floor: 1024,
    base: 1024,
    hint: "Bytes in the queues of all clients",
  },
];

let span = 300;

export class Overview {
  #cursor = makeCursor();
  #charts = CHARTS.map((options) => new Chart(options, this.#cursor));
  #stats = null;
  #rows = [];
  #listed = 0;

  constructor() {
    this.about = h("p", { class: "about" });
    this.spans = SPANS.map((seconds) =>
      h("button", { type: "button", "aria-pressed": String(seconds === span), onclick: () => this.#show(seconds) }, `${seconds / 60} min`),
    );
    this.channels = new Table(
      "Busiest channels",
      [
        { label: "Channel", class: "name", text: (row) => row.name, href: (row) => toChannel(row.name) },
        { label: "Subscribers", class: "number", text: (row) => count(row.subscribers) },
      ],
      (row) => row.name,
      "No channel has a subscriber.",
    );
    this.slowest = new Table(
      "Longest queues",
      [
        { label: "User", class: "name", text: (row) => who(row), href: (row) => toClient(row.client) },
        { label: "Waiting", class: "number", text: (row) => bytes(row.queued) },
      ],
      (row) => row.client,
      "Nobody is behind.",
    );
    this.ended = new Table(
      "Ended connections by close code",
      [
        { label: "Code", class: "name", text: (row) => row[0] },
        { label: "Connections", class: "number", text: (row) => count(row[1]) },
      ],
      (row) => row[0],
      "None has ended yet.",
    );
    this.element = h(
      "div",
      { class: "view overview" },
      h("div", { class: "top" }, h("h1", {}, "Overview"), this.about, h("div", { class: "spans", role: "group", "aria-label": "Time shown" }, ...this.spans)),
      h("div", { class: "charts" }, ...this.#charts.map((chart) => chart.element)),
      h(
        "div",
        { class: "lists" },
        h("section", { class: "card" }, h("h2", {}, "Busiest channels"), this.channels.element),
        h("section", { class: "card" }, h("h2", {}, "Longest queues"), this.slowest.element),
        h("section", { class: "card" }, h("h2", {}, "Ended connections by code"), this.ended.element),
      ),
    );
  }

  #show(seconds) {
    span = seconds;
    this.spans.forEach((button, number) => button.setAttribute("aria-pressed", String(SPANS[number] === seconds)));
    this.#draw();
  }

  #draw() {
    if (this.#stats) for (const chart of this.#charts) chart.update(this.#rows, this.#stats.time, span);
  }

  /** Called once a second. */
  async update(stats, rows) {
    this.#stats = stats;
    this.#rows = rows;
    this.#draw();
    const { totals } = stats;
    const parts = [
      `version ${stats.version}`,
      `up ${duration(stats.uptime)}`,
      plural(totals.publications, "publication"),
      plural(totals.deliveries, "delivery", "deliveries"),
    ];
    if (totals.dropped) parts.push(`${count(totals.dropped)} dropped for slow readers`);
    setText(this.about, parts.join(" · "));
    this.slowest.update(stats.slowest.slice(0, LISTED));
    this.ended.update(Object.entries(totals.disconnects).slice(0, LISTED));
    if (stats.time - this.#listed < LIST_PERIOD) return;
    this.#listed = stats.time;
    this.channels.update((await get("channels", { limit: LISTED })).rows);
  }
}
