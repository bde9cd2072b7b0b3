/** Round-trip times of the last minute, as a line and as figures. */

const KEPT = 60; // one a second
const WIDTH = 120;
const HEIGHT = 24;

export function milliseconds(value) {
  return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
}

export class Meter {
  #samples = []; // ms; null where there was no answer
  #line;

  /** @param {SVGPathElement} line In a view box of 120 by 24. */
  constructor(line) {
    this.#line = line;
  }

  /** Add a round-trip time in ms, or null when there was none. */
  add(sample) {
    this.#samples.push(sample);
    if (this.#samples.length > KEPT) this.#samples.shift();
    this.#draw();
  }

  get median() {
    const sorted = this.#answered.sort((a, b) => a - b);
    return sorted.length ? sorted[sorted.length >> 1] : null;
  }

  get slowest() {
    return this.#answered.length ? Math.max(...this.#answered) : null;
  }

  get #answered() {
    return this.#samples.filter((sample) => sample !== null);
  }

  #draw() {
    // The scale starts at 2 ms, so that a quiet line is quiet, and ends at the slowest.
    const scale = Math.max(2, this.slowest ?? 0);
    const first = KEPT - this.#samples.length;
    let pen = "M";
    let path = "";
    this.#samples.forEach((sample, index) => {
      if (sample !== null) {
        const x = ((first + index) * WIDTH) / (KEPT - 1);
        const y = HEIGHT - 2 - (sample / scale) * (HEIGHT - 4);
        path += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
      }
      pen = sample === null ? "M" : "L";
    });
    this.#line.setAttribute("d", path);
  }
}
