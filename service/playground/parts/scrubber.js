// Back and forth through the frames of a job.

import { part } from "./dom.js";

const FRAME_MS = 90;
const REST_MS = 1200; // on the result, before it begins again

export class Scrubber {
  /** @param {(frame: number) => void} draw one frame. */
  constructor(root, draw) {
    this.root = root;
    this.draw = draw;
    this.slider = part(root, "slider");
    this.button = part(root, "play");
    this.label = part(root, "frame");
    this.timer = 0;
    this.slider.addEventListener("input", () => {
      this.stop();
      this.#go(this.slider.valueAsNumber);
    });
    this.button.addEventListener("click", () => (this.timer ? this.stop() : this.#play()));
  }

  show(frames) {
    this.slider.max = frames - 1;
    this.slider.value = frames - 1;
    this.root.hidden = false;
    this.#tell();
  }

  hide() {
    this.stop();
    this.root.hidden = true;
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.button.textContent = "Play";
  }

  #play() {
    this.button.textContent = "Pause";
    const last = Number(this.slider.max);
    const next = () => {
      const frame = this.slider.valueAsNumber >= last ? 0 : this.slider.valueAsNumber + 1;
      this.slider.value = frame;
      this.#go(frame);
      this.timer = setTimeout(next, frame === last ? REST_MS : FRAME_MS);
    };
    next();
  }

  #go(frame) {
    this.draw(frame);
    this.#tell();
  }

  #tell() {
    const [frame, frames] = [this.slider.valueAsNumber + 1, Number(this.slider.max) + 1];
    this.label.textContent = `${frame} / ${frames}`;
    this.slider.setAttribute("aria-valuetext", `frame ${frame} of ${frames}`);
  }
}
