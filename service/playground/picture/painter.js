// The canvas on which a mask is painted: with mouse, pen, finger, or the arrow keys and the space bar.

import { announce, part } from "../parts/dom.js";
import { Mask } from "./mask.js";

const MARK = [244, 63, 94, 150]; // seen on black, on white and on grey

export class Painter {
  /**
   * @param {Element} root with the parts picture, overlay, cursor (canvases), tools and size.
   * @param {() => void} onChange the mask is another.
   */
  constructor(root, onChange) {
    this.root = root;
    this.onChange = onChange;
    this.picture = part(root, "picture").getContext("2d", { willReadFrequently: true });
    this.overlay = part(root, "overlay").getContext("2d", { willReadFrequently: true });
    this.cursor = part(root, "cursor");
    this.surface = part(root, "surface");
    this.size = part(root, "size");
    this.tool = "brush";
    this.point = { x: 0.5, y: 0.5 };
    this.from = null;
    for (const button of root.querySelectorAll("[data-tool]")) {
      button.addEventListener("click", () => this.#choose(button.dataset.tool));
    }
    for (const act of ["invert", "clear", "undo"]) {
      part(root, act).addEventListener("click", () => this.#act(act));
    }
    this.surface.addEventListener("pointerdown", (event) => this.#down(event));
    this.surface.addEventListener("pointermove", (event) => this.#moved(event));
    this.surface.addEventListener("pointerup", () => this.#up());
    this.surface.addEventListener("pointercancel", () => this.#up());
    this.surface.addEventListener("keydown", (event) => this.#key(event));
    this.size.addEventListener("input", () => this.#place());
  }

  /** Puts a picture on it, of the model's size, and which of its pixels are marked to begin with. */
  load(picture, { width, height }, marked = null) {
    for (const { canvas } of [this.picture, this.overlay]) [canvas.width, canvas.height] = [width, height];
    this.surface.style.setProperty("--ratio", width / height);
    this.picture.drawImage(picture, 0, 0, width, height);
    this.mask = new Mask(width, height, marked);
    this.point = { x: width / 2, y: height / 2 };
    this.size.max = Math.max(2, Math.round(Math.min(width, height) / 2));
    this.#changed();
  }

  #choose(tool) {
    this.tool = tool;
    for (const button of this.root.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
    }
  }

  #act(name) {
    if (!this.mask) return;
    if (name === "invert" || name === "clear") this.mask.remember();
    this.mask[name]();
    this.#changed();
    announce(`${this.mask.pixels.reduce((sum, value) => sum + value, 0)} pixels are marked.`);
  }

  #at(event) {
    const box = this.surface.getBoundingClientRect();
    return {
      x: ((event.clientX - box.left) / box.width) * this.mask.width,
      y: ((event.clientY - box.top) / box.height) * this.mask.height,
    };
  }

  #down(event) {
    if (!this.mask || event.button) return;
    this.surface.setPointerCapture(event.pointerId);
    this.#begin(this.#at(event));
  }

  #moved(event) {
    if (!this.mask) return;
    const points = event.getCoalescedEvents?.() ?? [];
    for (const each of points.length ? points : [event]) this.#continue(this.#at(each));
  }

  #begin(point) {
    this.mask.remember();
    this.from = point;
    this.before = this.mask.pixels;
    this.mask.pixels = this.before.slice();
    this.point = point;
    this.#continue(point);
  }

  #continue(point) {
    const last = this.point;
    this.point = point;
    this.#place();
    if (!this.from) return;
    if (this.tool === "rectangle") {
      this.mask.pixels = this.before.slice();
      this.mask.rectangle(this.from, point);
    } else {
      this.mask.stroke(last, point, this.size.valueAsNumber, this.tool === "brush" ? 1 : 0);
    }
    this.#changed();
  }

  #up() {
    this.from = null;
  }

  #key(event) {
    if (!this.mask) return;
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (dx !== undefined) {
      const x = Math.min(this.mask.width - 0.5, Math.max(0.5, Math.floor(this.point.x) + 0.5 + dx));
      const y = Math.min(this.mask.height - 0.5, Math.max(0.5, Math.floor(this.point.y) + 0.5 + dy));
      this.#continue({ x, y });
      announce(`Column ${Math.ceil(x)}, row ${Math.ceil(y)}`);
    } else if (event.key === " ") {
      if (this.from) this.#up();
      else {
        this.#begin(this.point);
        if (this.tool !== "rectangle") this.#up();
      }
      announce(this.from ? "A rectangle begins here; move, and press space again." : "Done.");
    } else if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z") {
      this.#act("undo");
    } else {
      return;
    }
    event.preventDefault();
  }

  /** The ring that shows where the brush is. */
  #place() {
    if (!this.mask) return;
    const { width, height } = this.mask;
    const size = this.tool === "rectangle" ? 1 : this.size.valueAsNumber;
    Object.assign(this.cursor.style, {
      left: `${(100 * this.point.x) / width}%`,
      top: `${(100 * this.point.y) / height}%`,
      width: `${(100 * size) / width}%`,
      height: `${(100 * size) / height}%`,
    });
  }

  #changed() {
    this.mask.draw(this.overlay, MARK);
    part(this.root, "undo").disabled = !this.mask.past.length;
    this.#place();
    this.onChange();
  }
}
