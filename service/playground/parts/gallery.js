// The last jobs with their pictures: those that go on while another is looked at, too.

import { getJson, getPicture } from "../wire/api.js";
import { arrange, make, part } from "./dom.js";
import { addressOf, wanted } from "./job.js";
import { samplers } from "./samplers.js";

const LIMIT = 12;
const LOOK_MS = 1500; // between two looks while a job is on its way
const MOST = 64; // images on a small picture

export class Gallery {
  constructor(root) {
    this.root = root;
    this.list = part(root, "jobs");
    this.cards = new Map(); // by the job's id
    this.timer = 0;
    document.addEventListener("visibilitychange", () => this.look());
  }

  /** Shows it or hides it. */
  set shown(shown) {
    this.wanted = shown;
    this.root.hidden = !shown || !this.cards.size;
    this.look();
  }

  /** Looks at the last jobs, and again as long as one is on its way and somebody sees it. */
  async look() {
    clearTimeout(this.timer);
    if (!this.wanted || document.hidden) return;
    try {
      const [{ jobs }] = await Promise.all([getJson(`jobs?limit=${LIMIT}`), samplers()]);
      this.#show(jobs);
      if (jobs.every((job) => job.ended_at)) return;
    } catch {
      // The views say what is wrong; here there is nothing new.
    }
    clearTimeout(this.timer);
    if (this.wanted) this.timer = setTimeout(() => this.look(), LOOK_MS);
  }

  #show(jobs) {
    const cards = jobs.map((job) => {
      const card = this.cards.get(job.id) ?? this.#card(job);
      this.#fill(card, job);
      return [job.id, card];
    });
    this.cards = new Map(cards);
    const items = cards.map(([, card]) => card.item);
    arrange(this.list, items);
    this.root.hidden = !this.wanted || !items.length;
  }

  #card(job) {
    const canvas = make("canvas", { hidden: true });
    const state = make("span", { className: "state" });
    const bar = make("progress", { "aria-label": "Image-steps done" });
    const text = make("span", { className: "hint" });
    const link = make("a", { href: addressOf(job) }, canvas, state, bar, text);
    return { item: make("li", {}, link), canvas, state, bar, text, drawn: false };
  }

  #fill(card, job) {
    const { image_steps_done: done, image_steps: all } = job.progress;
    card.item.dataset.state = job.state;
    card.state.textContent = job.state;
    card.state.hidden = job.state === "finished";
    [card.bar.max, card.bar.value] = [all, done];
    card.bar.hidden = Boolean(job.ended_at);
    card.text.replaceChildren(`${wanted(job)}, seed `, make("span", { className: "seed", textContent: job.seed }));
    if (job.state === "finished" && !card.drawn) {
      card.drawn = true;
      this.#draw(card.canvas, job);
    }
  }

  async #draw(canvas, job) {
    const view = job.count > MOST ? "images/0.png" : "grid.png?scale=1&padding=1";
    try {
      const picture = await getPicture(`jobs/${job.id}/${view}`);
      Object.assign(canvas, { width: picture.width, height: picture.height, hidden: false });
      canvas.getContext("2d").drawImage(picture, 0, 0);
    } catch {
      // Its images have just been forgotten: its line says what it was.
    }
  }
}
