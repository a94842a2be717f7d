// A grid of small images, each a button: arrow keys move, Enter chooses.

import { make } from "./dom.js";

/** @param {(index: number) => void} onChoose is called with the image that was chosen; null where there is nothing to. */
export class ImageGrid {
  constructor(root, onChoose = null) {
    this.root = root;
    this.onChoose = onChoose;
    this.cells = [];
    root.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Empties it, for so many images of a model. */
  reset(count, { width, height }) {
    this.width = width;
    this.height = height;
    this.columns = Math.ceil(Math.sqrt(count));
    this.root.style.setProperty("--columns", this.columns);
    this.root.style.setProperty("--ratio", width / height);
    this.root.classList.remove("ready");
    this.cells = Array.from({ length: count }, (_, i) => this.#cell(i));
    this.root.replaceChildren(...this.cells.map((cell) => cell.button));
  }

  #cell(index) {
    const canvas = make("canvas", { width: this.width, height: this.height });
    const button = make("button", { type: "button", tabIndex: index ? -1 : 0, disabled: true }, canvas);
    button.setAttribute("aria-label", `Image ${index + 1}`);
    if (this.onChoose) button.addEventListener("click", () => this.onChoose(index));
    return { button, context: canvas.getContext("2d", { willReadFrequently: true }) };
  }

  /** Draws the first images of a picture that has them in rows, with the same gap between them and around them. */
  draw(picture, columns) {
    const gap = Math.max(0, Math.round((picture.width - columns * this.width) / (columns + 1)));
    const rows = Math.floor((picture.height - gap) / (this.height + gap));
    this.cells.slice(0, rows * columns).forEach((cell, i) => {
      const left = gap + (i % columns) * (this.width + gap);
      const top = gap + Math.floor(i / columns) * (this.height + gap);
      this.#paint(cell, picture, left, top);
    });
  }

  /** Draws one column of a filmstrip, which has a row for each image and no gaps. */
  drawFrame(strip, frame) {
    this.cells.forEach((cell, i) => this.#paint(cell, strip, frame * this.width, i * this.height));
  }

  #paint(cell, picture, left, top) {
    const { width, height } = this;
    cell.context.drawImage(picture, left, top, width, height, 0, 0, width, height);
  }

  /** The images are final: they can be chosen. */
  ready() {
    this.root.classList.add("ready");
    for (const { button } of this.cells) button.disabled = !this.onChoose;
  }

  /** The canvas of an image. */
  canvas(index) {
    return this.cells[index].context.canvas;
  }

  focus(index) {
    this.cells.forEach(({ button }, i) => {
      button.tabIndex = i === index ? 0 : -1;
    });
    this.cells[index]?.button.focus();
  }

  #move(event) {
    const here = this.cells.findIndex(({ button }) => button === document.activeElement);
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: this.columns, ArrowUp: -this.columns };
    const goal = { Home: 0, End: this.cells.length - 1 }[event.key] ?? here + (steps[event.key] ?? NaN);
    if (here < 0 || Number.isNaN(goal)) return;
    event.preventDefault();
    if (goal >= 0 && goal < this.cells.length) this.focus(goal);
  }
}
