// A grid of small images. Where they can be chosen each is a button: arrow keys move, Enter chooses.

import { make } from "./dom.js";

/** @param {(index: number) => void} onChoose is called with the image that was chosen; null where there is nothing to. */
export class ImageGrid {
  constructor(root, onChoose = null) {
    this.root = root;
    this.onChoose = onChoose;
    this.cells = [];
    this.fading = 0;
    if (onChoose) root.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Empties it, for so many images of a model. */
  reset(count, { width, height }) {
    this.stop();
    this.width = width;
    this.height = height;
    this.columns = Math.ceil(Math.sqrt(count));
    this.root.style.setProperty("--columns", this.columns);
    this.root.style.setProperty("--ratio", (width * this.columns) / (height * Math.ceil(count / this.columns)));
    this.root.classList.remove("ready");
    this.cells = Array.from({ length: count }, (_, i) => this.#cell(i));
    this.root.replaceChildren(...this.cells.map((cell) => cell.button));
  }

  #cell(index) {
    const canvas = make("canvas", { width: this.width, height: this.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!this.onChoose) return { button: canvas, context };
    const button = make("button", { type: "button", tabIndex: index ? -1 : 0, disabled: true }, canvas);
    button.setAttribute("aria-label", `Image ${index + 1}`);
    button.addEventListener("click", () => this.onChoose(index));
    return { button, context };
  }

  /** Draws the first images of a picture that has them in rows, with the same gap between them and around them. */
  draw(picture, columns) {
    this.stop();
    for (const [cell, left, top] of this.#places(picture, columns)) this.#paint(cell, picture, left, top);
  }

  /** The same, passing over from what is there; an image that is black in the picture is not begun, and stays. */
  fade(picture, columns, milliseconds) {
    this.stop();
    const places = this.#places(picture, columns).filter(this.#lit(picture));
    let before = performance.now();
    const end = before + milliseconds;
    const step = (now) => {
      // Equal parts of what is left come to a straight way from the one to the other.
      const share = Math.min(1, Math.max(0, (now - before) / Math.max(1, end - before)));
      before = now;
      for (const [cell, left, top] of places) this.#paint(cell, picture, left, top, share);
      this.fading = now < end ? requestAnimationFrame(step) : 0;
    };
    if (milliseconds > 0) this.fading = requestAnimationFrame(step);
    else for (const [cell, left, top] of places) this.#paint(cell, picture, left, top);
  }

  /** Ends what is passing over. */
  stop() {
    cancelAnimationFrame(this.fading);
    this.fading = 0;
  }

  /** Draws one column of a filmstrip, which has a row for each image and no gaps. */
  drawFrame(strip, frame) {
    this.stop();
    this.cells.forEach((cell, i) => this.#paint(cell, strip, frame * this.width, i * this.height));
  }

  /** Draws each image from its own pixels. */
  put(images) {
    this.stop();
    images.forEach((image, i) => this.cells[i].context.putImageData(image, 0, 0));
  }

  /** Where the images are in a picture, as [cell, left, top]. */
  #places(picture, columns) {
    const gap = Math.max(0, Math.round((picture.width - columns * this.width) / (columns + 1)));
    const rows = Math.floor((picture.height - gap) / (this.height + gap));
    return this.cells
      .slice(0, rows * columns)
      .map((cell, i) => [
        cell,
        gap + (i % columns) * (this.width + gap),
        gap + Math.floor(i / columns) * (this.height + gap),
      ]);
  }

  /** Tells of a place whether anything is to be seen there. */
  #lit(picture) {
    const canvas = make("canvas", { width: picture.width, height: picture.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(picture, 0, 0);
    return ([, left, top]) =>
      context.getImageData(left, top, this.width, this.height).data.some((value, i) => i % 4 < 3 && value);
  }

  #paint(cell, picture, left, top, share = 1) {
    const { width, height } = this;
    cell.context.globalAlpha = share;
    cell.context.drawImage(picture, left, top, width, height, 0, 0, width, height);
    cell.context.globalAlpha = 1;
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
