// The same image of neighbouring seeds, all else equal.

import { ask, cancelJob, getPicture } from "../wire/api.js";
import { make } from "./dom.js";
import { follow } from "../wire/events.js";
import { bodyOf } from "../wire/snippets.js";

const AROUND = 8;
const LARGEST_SEED = Number.MAX_SAFE_INTEGER;

export class Neighbours {
  constructor(root) {
    this.root = root;
    this.ended = new AbortController();
  }

  /** Forgets them; jobs that are under way are cancelled. */
  clear() {
    this.ended.abort();
    this.root.replaceChildren();
    this.root.hidden = true;
  }

  /** Samples image `index` of the seeds around a job's own, and shows each when it is there. */
  async begin(job, index, { width, height }) {
    this.clear();
    this.ended = new AbortController();
    const { signal } = this.ended;
    const first = Math.max(0, Math.min(job.seed - AROUND / 2, LARGEST_SEED - AROUND));
    const seeds = Array.from({ length: AROUND + 1 }, (_, i) => first + i);
    const note = make("p", {
      className: "hint",
      textContent:
        "Neighbouring seeds are no more alike than any others: the noise is a hash of seed, image and pixel. " +
        "What they share is the model and the settings.",
    });
    const figures = seeds.map((seed) => {
      const canvas = make("canvas", { width, height, role: "img", "aria-label": `Seed ${seed}` });
      const caption = make("figcaption", { textContent: `seed ${seed}` });
      return make("figure", { className: seed === job.seed ? "own" : "" }, canvas, caption);
    });
    this.root.replaceChildren(make("div", { className: "figures" }, ...figures), note);
    this.root.hidden = false;
    await Promise.all(seeds.map((seed, i) => this.#one(job, seed, index, figures[i], signal)));
  }

  async #one(job, seed, index, figure, signal) {
    const caption = figure.querySelector("figcaption");
    let asked = job;
    try {
      if (seed !== job.seed) {
        const body = { ...bodyOf(job), seed, count: index + 1 };
        body.labels &&= body.labels.slice(0, body.count);
        asked = await ask("samples", body);
        if (signal.aborted) await cancelJob(asked.id);
        const nothing = () => {};
        asked = await follow(asked.id, { lost: nothing, found: nothing }, signal);
      }
      if (asked.state !== "finished") throw new Error(asked.error ?? asked.state);
      const picture = await getPicture(`jobs/${asked.id}/images/${index}.png`, { signal });
      figure.querySelector("canvas").getContext("2d", { willReadFrequently: true }).drawImage(picture, 0, 0);
      caption.textContent = `seed ${seed}`;
    } catch (error) {
      if (signal.aborted) {
        if (asked.id !== job.id && !asked.ended_at) await cancelJob(asked.id).catch(() => {});
      } else {
        caption.textContent = `seed ${seed}: ${error.message}`;
      }
    }
  }
}
