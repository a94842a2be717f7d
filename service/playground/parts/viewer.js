// One image, enlarged, and what can be done with it.

import { byId, make, part, plural } from "./dom.js";
import { save } from "../wire/downloads.js";
import { Neighbours } from "./neighbours.js";
import { titleOf } from "./samplers.js";

export class Viewer {
  /** @param {(canvas: HTMLCanvasElement, job: object) => void} onInpaint takes an image to the inpainting view. */
  constructor(onInpaint) {
    this.dialog = byId("viewer");
    this.large = part(this.dialog, "large");
    this.neighbours = new Neighbours(part(this.dialog, "neighbours"));
    part(this.dialog, "close").addEventListener("click", () => this.dialog.close());
    part(this.dialog, "before").addEventListener("click", () => this.#go(-1));
    part(this.dialog, "after").addEventListener("click", () => this.#go(1));
    part(this.dialog, "save").addEventListener("click", () => this.#save());
    part(this.dialog, "inpaint").addEventListener("click", () => {
      const { job, grid } = this.panel;
      this.dialog.close();
      onInpaint(grid.canvas(this.index), job);
    });
    part(this.dialog, "neighbours-begin").addEventListener("click", () => {
      this.neighbours.begin(this.panel.job, this.index, this.panel.shape);
    });
    this.dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step && event.target.tagName !== "INPUT") this.#go(step);
    });
    this.dialog.addEventListener("close", () => {
      this.neighbours.clear();
      this.panel.grid.focus(this.index);
    });
  }

  /** Opens it on an image of a panel's finished job. */
  open(panel, index) {
    this.panel = panel;
    this.index = index;
    this.#draw();
    this.dialog.showModal();
  }

  #go(step) {
    const { count } = this.panel.job;
    this.index = (this.index + step + count) % count;
    this.neighbours.clear();
    this.#draw();
  }

  #draw() {
    const { job, grid } = this.panel;
    const small = grid.canvas(this.index);
    const title = `Image ${this.index + 1} of ${job.count}`;
    this.large.replaceChildren(make("canvas", { width: small.width, height: small.height, role: "img", "aria-label": title }));
    this.large.firstChild.getContext("2d", { willReadFrequently: true }).drawImage(small, 0, 0);
    part(this.dialog, "title").textContent = title;
    part(this.dialog, "origin").textContent = `Seed ${job.seed}, ${titleOf(job.sampler.name)}, model ${job.model}, version ${job.version}`;
    const begin = part(this.dialog, "neighbours-begin");
    begin.hidden = job.kind !== "sample";
    part(this.dialog, "before").hidden = part(this.dialog, "after").hidden = job.count < 2;
    part(this.dialog, "neighbours-cost").textContent = begin.hidden
      ? ""
      : `Eight more jobs of ${plural(this.index + 1, "image")}: the same settings with the nearest seeds, of which image ${this.index + 1} is shown.`;
  }

  #save() {
    const { job, grid } = this.panel;
    grid.canvas(this.index).toBlob((blob) => save(blob, `${job.model}-seed-${job.seed}-image-${this.index}.png`));
  }
}
