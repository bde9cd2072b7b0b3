/** Tables that are filled again and again: a row that stays keeps its elements, and with them the focus. */

import { h, setText } from "./dom.js";
import { count } from "./format.js";

export class Table {
  #columns;
  #key;
  #rows = new Map(); // key -> { tr, cells }
  #body = h("tbody");

  /**
   * @param {string} caption For screen readers.
   * @param {object[]} columns `label`, `text` of a row; may have `href` of a row, `class`, `button` (a row's action).
   */
  constructor(caption, columns, key, empty) {
    this.#columns = columns;
    this.#key = key;
    this.empty = h("p", { class: "empty" }, empty);
    const heads = columns.map((column) => h("th", { scope: "col", class: column.class ?? "" }, column.label));
    this.table = h(
      "table",
      {},
      h("caption", { class: "away" }, caption),
      h("thead", {}, h("tr", {}, ...heads)),
      this.#body,
    );
    this.element = h("div", { class: "table" }, this.table, this.empty);
  }

  update(rows) {
    const kept = new Map();
    for (const row of rows) {
      const key = this.#key(row);
      const entry = this.#rows.get(key) ?? this.#make();
      entry.row = row;
      this.#columns.forEach((column, number) => {
        const cell = entry.cells[number];
        setText(cell, column.text(row));
        if (column.href && cell.getAttribute("href") !== column.href(row)) cell.setAttribute("href", column.href(row));
        if (column.title) cell.title = column.title(row);
      });
      kept.set(key, entry);
    }
    for (const [key, { tr }] of this.#rows) if (!kept.has(key)) tr.remove();
    this.#rows = kept;
    let place = this.#body.firstElementChild;
    for (const { tr } of kept.values()) {
      if (tr === place) place = place.nextElementSibling;
      else this.#body.insertBefore(tr, place);
    }
    this.table.hidden = rows.length === 0;
    this.empty.hidden = rows.length > 0;
  }

  #make() {
    const entry = { row: null };
    entry.cells = this.#columns.map((column) => {
      if (column.button) return h("button", { type: "button", class: "small", onclick: () => column.button(entry.row) });
      return column.href ? h("a", { dir: "auto" }) : h("span", { dir: "auto" });
    });
    const cells = entry.cells.map((cell, number) =>
      h("td", { class: this.#columns[number].class ?? "", "data-label": this.#columns[number].label }, cell),
    );
    entry.tr = h("tr", {}, ...cells);
    return entry;
  }
}

/** Buttons and a line such as "51–100 of 2,340". */
export class Pager {
  offset = 0;

  constructor(limit, most, onmove) {
    this.limit = limit;
    this.most = most;
    this.text = h("span", {});
    this.back = h("button", { type: "button", onclick: () => this.#move(-1, onmove) }, "Previous");
    this.next = h("button", { type: "button", onclick: () => this.#move(1, onmove) }, "Next");
    this.element = h("p", { class: "pager" }, this.text, this.back, this.next);
  }

  #move(way, onmove) {
    this.offset = Math.min(Math.max(0, this.offset + way * this.limit), this.most);
    onmove();
  }

  /** @returns {boolean} Whether there is nothing at this place any more: it has gone to the first page. */
  update(shown, total) {
    const last = this.offset + shown;
    const beyond = this.offset + this.limit > this.most && last < total;
    const range = total ? `${count(this.offset + 1)}–${count(last)} of ${count(total)}` : "";
    setText(this.text, shown ? range + (beyond ? ": search for the others" : "") : "");
    this.back.disabled = this.offset === 0;
    this.next.disabled = last >= total || beyond;
    this.element.hidden = total <= this.limit && this.offset === 0;
    if (shown || !this.offset) return false;
    this.offset = 0;
    return true;
  }
}
