/** Line charts of the last minutes, as SVG. All charts of a page share one cursor. */

import { h, setText, svg } from "./dom.js";
import { clock } from "./format.js";

const LEFT = 0;
const RIGHT = 5; // room for the dots
const TOP = 8;
const BOTTOM = 18; // room for the times
const GAP = 4; // seconds without a row after which a line is broken

/** The least of 1, 2, 5 times a power of ten that is not below. */
function ceiling(value, base = 10) {
  const power = base ** Math.floor(Math.log(value) / Math.log(base));
  const steps = base === 10 ? [1, 2, 5, 10] : [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
  return power * steps.find((step) => step * power >= value * 0.999);
}

/** What time the pointer, or the arrow keys, are at; null: now. */
class Cursor {
  #charts = new Set();
  at = null; // Unix time

  add(chart) {
    this.#charts.add(chart);
  }

  move(at) {
    this.at = at;
    for (const chart of this.#charts) chart.point();
  }
}

export const makeCursor = () => new Cursor();

export class Chart {
  #rows = [];
  #span = 600;
  #now = 0;
  #top = 1;
  #width = 0;
  #height = 0;
  #cursor;
  #options;

  /**
   * @param {object} options `title`; `series`: `{ column, label }`, one or two; `format`: a figure as text;
   *   `floor`: the least that the scale ends at; `base`: 1024 for bytes; `wide`; `hint`.
   */
  constructor(options, cursor) {
    this.#options = { floor: 1, base: 10, hint: "", ...options };
    this.#cursor = cursor;
    cursor.add(this);
    const { title, series, wide, hint } = this.#options;
    this.values = series.map(() => h("output", { class: "value" }));
    this.when = h("span", { class: "when" });
    this.top = svg("text", { class: "tick" });
    this.middle = svg("text", { class: "tick" });
    this.times = [0, 1, 2].map((which) =>
      svg("text", { class: "tick", "text-anchor": ["start", "middle", "end"][which] }),
    );
    this.grid = [0, 1, 2].map(() => svg("line", { class: "grid" }));
    this.fills = series.map((_, number) => svg("path", { class: `fill s${number}` }));
    this.lines = series.map((_, number) => svg("path", { class: `line s${number}` }));
    this.hair = svg("line", { class: "hair", visibility: "hidden" });
    this.dots = series.map((_, number) => svg("circle", { class: `dot s${number}`, r: 3.5 }));
    this.picture = svg(
      "svg",
      { class: "plot", role: "img", tabindex: 0 },
      ...this.grid,
      ...this.fills,
      ...this.lines,
      this.hair,
      ...this.dots,
      this.top,
      this.middle,
      ...this.times,
    );
    const figures = series.map(({ label }, number) =>
      h("span", { class: "figure" }, this.values[number], label ? h("small", { class: `key s${number}` }, label) : null),
    );
    this.element = h(
      "section",
      { class: wide ? "card chart wide" : "card chart" },
      h("div", { class: "head" }, h("h2", { title: hint }, title), this.when),
      h("p", { class: "figures" }, ...figures),
      this.picture,
    );
    this.picture.addEventListener("pointermove", (event) => this.#pointAt(event.offsetX));
    this.picture.addEventListener("pointerleave", () => cursor.move(null));
    this.picture.addEventListener("blur", () => cursor.move(null));
    this.picture.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(() => this.#resize()).observe(this.picture);
  }

  /** @param {object[]} rows Oldest first. @param {number} now Unix time. @param {number} span Seconds. */
  update(rows, now, span) {
    this.#rows = rows;
    this.#now = now;
    this.#span = span;
    this.#draw();
  }

  #resize() {
    const { clientWidth, clientHeight } = this.picture;
    if (clientWidth === this.#width && clientHeight === this.#height) return;
    this.#width = clientWidth;
    this.#height = clientHeight;
    this.picture.setAttribute("viewBox", `0 0 ${clientWidth} ${clientHeight}`);
    this.#draw();
  }

  #x(time) {
    return LEFT + (1 - (this.#now - time) / this.#span) * (this.#width - LEFT - RIGHT);
  }

  #y(value) {
    return TOP + (1 - value / this.#top) * (this.#height - TOP - BOTTOM);
  }

  get #visible() {
    const first = this.#now - this.#span;
    return this.#rows.filter((row) => row.time >= first);
  }

  #draw() {
    if (!this.#width) return;
    const { series, floor, base, format } = this.#options;
    const rows = this.#visible;
    let most = floor;
    for (const row of rows) for (const { column } of series) most = Math.max(most, row[column]);
    this.#top = ceiling(most, base);
    const bottom = this.#y(0);
    [this.#top, this.#top / 2, 0].forEach((value, number) => {
      const y = this.#y(value).toFixed(1);
      const line = this.grid[number];
      for (const [name, at] of Object.entries({ x1: LEFT, x2: this.#width, y1: y, y2: y })) line.setAttribute(name, at);
    });
    [this.top, this.middle].forEach((text, number) => {
      const value = number ? this.#top / 2 : this.#top;
      text.setAttribute("x", LEFT + 2);
      text.setAttribute("y", this.#y(value) + 11);
      setText(text, format(value));
    });
    this.times.forEach((text, number) => {
      text.setAttribute("x", [LEFT + 2, LEFT + (this.#width - LEFT) / 2, this.#width - 2][number]);
      text.setAttribute("y", this.#height - 4);
      const back = (this.#span * (2 - number)) / 2;
      setText(text, back === 0 ? "now" : back >= 60 ? `−${back / 60} min` : `−${back} s`);
    });
    series.forEach(({ column }, number) => {
      let line = "";
      let area = "";
      let begun = null;
      let last = null;
      const close = () => {
        if (begun !== null) area += `L${this.#x(last).toFixed(1)} ${bottom.toFixed(1)}L${begun} ${bottom.toFixed(1)}Z`;
      };
      for (const row of rows) {
        const x = this.#x(row.time).toFixed(1);
        const y = this.#y(row[column]).toFixed(1);
        const goesOn = last !== null && row.time - last <= GAP;
        if (!goesOn) {
          close();
          begun = x;
        }
        line += `${goesOn ? "L" : "M"}${x} ${y}`;
        area += `${goesOn ? "L" : "M"}${x} ${y}`;
        last = row.time;
      }
      close();
      this.lines[number].setAttribute("d", line);
      this.fills[number].setAttribute("d", area);
    });
    this.point();
  }

  /** Show the figures at the cursor. */
  point() {
    const { series, format, title } = this.#options;
    const rows = this.#visible;
    const at = this.#cursor.at;
    let row = rows.at(-1);
    if (at !== null) {
      for (const each of rows) if (Math.abs(each.time - at) < Math.abs(row.time - at)) row = each;
    }
    series.forEach(({ column }, number) => setText(this.values[number], row ? format(row[column]) : "–"));
    setText(this.when, at !== null && row ? clock(row.time) : "");
    const shown = at !== null && row;
    this.hair.setAttribute("visibility", shown ? "visible" : "hidden");
    if (row) {
      const x = this.#x(row.time).toFixed(1);
      for (const [name, value] of Object.entries({ x1: x, x2: x, y1: TOP, y2: this.#height - BOTTOM })) {
        this.hair.setAttribute(name, value);
      }
      series.forEach(({ column }, number) => {
        this.dots[number].setAttribute("cx", x);
        this.dots[number].setAttribute("cy", this.#y(row[column]).toFixed(1));
      });
    }
    for (const dot of this.dots) dot.setAttribute("visibility", row ? "visible" : "hidden");
    const said = series.map(({ label }, number) => `${label ?? ""} ${this.values[number].textContent}`.trim());
    this.picture.setAttribute("aria-label", `${title}: ${said.join(", ")}${shown ? ` at ${clock(row.time)}` : ""}`);
  }

  #pointAt(x) {
    const share = Math.min(1, Math.max(0, (x - LEFT) / (this.#width - LEFT - RIGHT)));
    this.#cursor.move(this.#now - (1 - share) * this.#span);
  }

  #onKey(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 }[event.key];
    if (event.key === "Escape") this.#cursor.move(null);
    if (!step) return;
    event.preventDefault();
    const at = (this.#cursor.at ?? this.#now) + step;
    this.#cursor.move(at >= this.#now ? null : Math.max(at, this.#now - this.#span));
  }
}
