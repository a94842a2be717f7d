// Back and forth through the frames of a job, or of several at once; slowly, for a class.

import { part } from "./dom.js";

const FRAME_MS = 90;
const SLOW_MS = 700;

/** Whether who looks wants nothing to move by itself. */
export const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export class Scrubber {
  /**
   * @param {Element} root with the parts play, slow and slider.
   * @param {(frame: number) => string} draw shows a frame, and says which it is.
   */
  constructor(root, draw) {
    this.root = root;
    this.draw = draw;
    this.slider = part(root, "slider");
    this.button = part(root, "play");
    this.slow = part(root, "slow");
    this.timer = 0;
    this.slider.addEventListener("input", () => {
      this.stop();
      this.#go(this.slider.valueAsNumber);
    });
    this.button.addEventListener("click", () => (this.timer ? this.stop() : this.play()));
    this.slow.addEventListener("click", () => {
      this.slow.setAttribute("aria-pressed", String(!this.slowly));
      this.play();
    });
  }

  get slowly() {
    return this.slow.getAttribute("aria-pressed") === "true";
  }

  get last() {
    return Number(this.slider.max);
  }

  /** Offers so many frames, and shows the last. */
  show(frames) {
    this.slider.max = frames - 1;
    this.root.hidden = false;
    this.rest();
  }

  hide() {
    this.stop();
    this.root.hidden = true;
  }

  /** Plays once: from here to the end, or from the beginning if it is at the end. */
  play() {
    this.stop();
    this.button.textContent = "Pause";
    const next = (frame) => {
      this.#go(frame);
      if (frame === this.last) this.stop();
      else this.timer = setTimeout(() => next(frame + 1), this.slowly ? SLOW_MS : FRAME_MS);
    };
    const here = this.slider.valueAsNumber;
    next(here >= this.last ? 0 : here);
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = 0;
    this.button.textContent = "Play";
  }

  /** Goes to the last frame, if it is not there. */
  rest() {
    this.stop();
    this.#go(this.last);
  }

  #go(frame) {
    this.slider.value = frame;
    this.slider.setAttribute("aria-valuetext", this.draw(frame));
  }
}
