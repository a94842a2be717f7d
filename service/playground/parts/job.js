// A job on the page: how far it is, its images as they come out of the noise, and what can be done with them.

import { Problem, cancelJob, getJson, getPicture } from "../wire/api.js";
import { announce, copyOf, make, part, plural, seconds, short, whole } from "./dom.js";
import { copy, download } from "../wire/downloads.js";
import { follow } from "../wire/events.js";
import { ImageGrid } from "./grid.js";
import { beginning, instant } from "../picture/noise.js";
import { titleOf } from "./samplers.js";
import { Scrubber, still } from "./scrubber.js";
import { bodyOf, curl, python } from "../wire/snippets.js";

// What can be downloaded: its name, the view, how the file ends, and whether frames are needed for it.
const FILES = [
  ["PNG", "grid.png?scale=4", "png", false],
  ["npz", "samples.npz", "npz", false],
  ["zip", "images.zip", "zip", false],
  ["WebP animation", "animation.webp?scale=4", "webp", true],
  ["GIF", "animation.gif?scale=4", "gif", true],
  ["Filmstrip", "filmstrip.png?scale=2", "filmstrip.png", true],
];

const LOOK = "look"; // which of the two looks at a job on its way was chosen
const FADE_MS = 220; // about as long as from one preview to the next

export class JobPanel {
  /**
   * @param {Element} root is replaced by the panel.
   * @param {{onChoose, onState, compact}} options `onChoose(index)`: an image was chosen; `onState(job)`: the job's state
   *   is new; `compact`: others are beside it, and who has them plays them all.
   */
  constructor(root, { onChoose = null, onState = () => {}, compact = false } = {}) {
    this.root = copyOf("job-panel");
    root.replaceWith(this.root);
    this.root.classList.toggle("compact", compact);
    this.compact = compact;
    this.onState = onState;
    this.grid = new ImageGrid(part(this.root, "grid"), (index) => {
      this.scrubber.rest();
      onChoose?.(index);
    });
    this.estimates = new ImageGrid(part(this.root, "estimates"));
    this.scrubber = new Scrubber(part(this.root, "scrubber"), (frame) => this.go(frame));
    this.job = null;
    this.pictures = {};
    this.ended = new AbortController();
    part(this.root, "cancel").addEventListener("click", () => this.cancel());
    part(this.root, "curl").addEventListener("click", (e) => copy(curl(this.path, this.body), e.currentTarget));
    part(this.root, "python").addEventListener("click", (e) => copy(python(this.path, this.body), e.currentTarget));
    this.files = FILES.map(([textContent, view, ending, moving]) => {
      const button = make("button", { type: "button", textContent, onclick: () => this.#save(view, ending) });
      return { button, moving };
    });
    part(this.root, "downloads").append(...this.files.map(({ button }) => button));
    for (const button of this.root.querySelectorAll("[data-look]")) {
      button.addEventListener("click", () => {
        localStorage.setItem(LOOK, button.dataset.look);
        this.#look(button.dataset.look);
      });
    }
    this.#look(localStorage.getItem(LOOK) ?? "chains");
  }

  get path() {
    return this.job.kind === "sample" ? "samples" : this.job.kind;
  }

  get body() {
    return bodyOf(this.job, this.pictures);
  }

  /** Whether a job is on its way here. */
  get running() {
    return Boolean(this.job) && !this.job.ended_at;
  }

  /** How many frames there are to go through; none before the job is done. */
  get frames() {
    return this.strip ? this.job.frames + (this.start ? 1 : 0) : 0;
  }

  /** Shows a frame of a finished job, and says which it is. */
  go(frame) {
    const kept = frame - (this.start ? 1 : 0);
    if (kept < 0) this.grid.put(this.start);
    else this.grid.drawFrame(this.strip, kept);
    const { evaluations, frames } = this.plan;
    return this.#level(kept < 0 ? { evaluations: 0, sigma: this.plan.start.sigma } : frames[kept], evaluations);
  }

  /** Forgets the job, which goes on without being watched. */
  clear() {
    this.ended.abort();
    this.scrubber.hide();
    this.job = null;
    this.root.hidden = true;
  }

  /**
   * Shows a job and follows it to its end.
   *
   * @param {object} job as the service describes it.
   * @param {{width, height, channels}} shape of its images.
   * @param {object} pictures that it was asked with.
   * @returns {Promise<object|null>} the job when it has ended; null if another took its place.
   */
  async show(job, shape, pictures = {}) {
    this.ended.abort();
    this.ended = new AbortController();
    const { signal } = this.ended;
    Object.assign(this, { job, shape, pictures, strip: null, start: null, plan: null, seen: false });
    this.scrubber.hide();
    this.#say("");
    this.root.hidden = false;
    this.root.dataset.previews = 0;
    for (const grid of [this.grid, this.estimates]) grid.reset(job.count, shape);
    part(this.root, "level").textContent = "";
    this.#state(job);
    this.#progress({ ...job.progress, ...job, sigma: null });
    const begun = this.#begin(signal);
    const watched = !job.ended_at;
    try {
      if (watched) {
        announce(`The job of ${plural(job.count, "image")} is accepted.`);
        job = await follow(job.id, this.#listeners(), signal);
      }
      this.job = job;
      this.#say(job.error ? `${job.state === "failed" ? "The job failed" : "The job was stopped"}: ${job.error}.` : "");
      if (job.state === "finished") {
        await begun;
        await this.#finish(signal);
      }
      signal.throwIfAborted();
      this.#state(this.job);
      announce(`The job is ${job.state}.`);
      if (watched && this.strip && !this.compact && !still()) this.scrubber.play();
      return this.job;
    } catch (error) {
      if (signal.aborted) return null;
      this.#say(error.message);
      if (error instanceof Problem) return null;
      throw error;
    }
  }

  async cancel() {
    try {
      await cancelJob(this.job.id);
    } catch (error) {
      if (error.code !== "already-ended") this.#say(error.message);
    }
  }

  /** Learns what the frames of the job will show, and draws the noise that its images begin with. */
  async #begin(signal) {
    const { id, seed, count, frames } = this.job;
    if (!frames) return;
    try {
      this.plan = await getJson(`jobs/${id}/frames`, { signal });
    } catch {
      return; // of a model that is gone, or of a service that is away: then there is less to be told
    }
    if (signal.aborted || !instant(count, this.shape)) return;
    this.start = Array.from({ length: count }, (_, i) => beginning(seed, i, this.shape, this.plan.start));
    if (!this.seen && this.running) {
      this.grid.put(this.start);
      this.#level({ evaluations: 0, sigma: this.plan.start.sigma }, this.plan.evaluations);
    }
  }

  #listeners() {
    return {
      progress: (data) => {
        if (data.state !== this.job.state) {
          this.job = { ...this.job, state: data.state };
          this.#state(this.job);
          announce(`The job is ${data.state}.`);
        }
        this.#progress(data);
      },
      preview: (data) => this.#preview(data),
      lost: (problem, wait) => {
        const why = problem?.message ?? "The connection was lost.";
        this.#say(`${why} The job goes on; the page connects again in ${seconds(wait)}.`);
      },
      found: () => this.#say(""),
    };
  }

  #look(look) {
    this.root.dataset.look = look;
    for (const button of this.root.querySelectorAll("[data-look]")) {
      button.setAttribute("aria-pressed", String(button.dataset.look === look));
    }
  }

  #state(job) {
    this.root.dataset.state = job.state;
    part(this.root, "state").textContent = job.state;
    part(this.root, "cancel").hidden = Boolean(job.ended_at);
    part(this.root, "files").hidden = job.state !== "finished";
    for (const { button, moving } of this.files) button.hidden = moving && !job.frames;
    const seed = `${job.model}, version ${job.version}, ${titleOf(job.sampler.name)}, seed ${job.seed}`;
    part(this.root, "what").textContent = `${plural(job.count, "image")} of ${seed}${told(job)}`;
    if (job.ended_at) this.#progress({ ...job.progress, ...job, sigma: null });
    this.onState(job);
  }

  #progress({ state, image_steps_done: done, image_steps: all, queue_position: before, eta_seconds: eta }) {
    const bar = part(this.root, "bar");
    bar.max = all;
    bar.value = done;
    const words = [];
    if (state === "queued") words.push(before ? `${plural(before, "job")} before it` : "next in the queue");
    words.push(done < all ? `${whole(done)} of ${whole(all)} image-steps` : `${whole(all)} image-steps`);
    if (eta && !this.job.ended_at) words.push(`about ${seconds(eta)} to go`);
    if (this.job.ended_at && this.job.run_seconds) words.push(`${seconds(this.job.run_seconds)} of work`);
    if (this.job.ended_at && this.job.queue_seconds >= 0.1) words.push(`${seconds(this.job.queue_seconds)} in the queue`);
    part(this.root, "progress").textContent = words.join(" · ");
  }

  /** Says how far the images are that are shown. */
  #level({ evaluations, sigma }, all) {
    const level = sigma === null ? "no noise left" : `σ ${short(sigma)}`;
    return (part(this.root, "level").textContent = `${level} · ${whole(evaluations)} of ${plural(all, "evaluation")}`);
  }

  async #preview({ png, chains, columns, sigma, image_steps_done: done }) {
    const { signal } = this.ended;
    const [expected, now] = await Promise.all([decoded(png), decoded(chains)]);
    if (signal.aborted || this.grid.root.classList.contains("ready")) return;
    const milliseconds = still() ? 0 : FADE_MS;
    this.seen = true;
    this.grid.fade(now, columns, milliseconds);
    this.estimates.fade(expected, columns, milliseconds);
    if (this.plan && sigma) {
      const { evaluations } = this.plan;
      this.#level({ evaluations: Math.floor((evaluations * done) / this.job.progress.image_steps), sigma }, evaluations);
    }
    this.root.dataset.previews = Number(this.root.dataset.previews) + 1;
  }

  async #finish(signal) {
    const { id, count, frames } = this.job;
    const across = Math.ceil(Math.sqrt(count));
    const [picture, strip] = await Promise.all([
      getPicture(`jobs/${id}/grid.png?scale=1&padding=0&columns=${across}`, { signal }),
      frames > 1 && this.plan && getPicture(`jobs/${id}/filmstrip.png?scale=1&padding=0`, { signal }).catch(() => null),
    ]);
    signal.throwIfAborted();
    this.grid.draw(picture, across);
    this.grid.ready();
    part(this.root, "level").textContent = "";
    if (strip) {
      this.strip = strip;
      this.scrubber.show(this.frames);
    }
  }

  #say(sentence) {
    const place = part(this.root, "trouble");
    place.textContent = sentence;
    place.hidden = !sentence;
  }

  async #save(view, ending) {
    try {
      await download(`jobs/${this.job.id}/${view}`, `${this.job.model}-seed-${this.job.seed}.${ending}`);
    } catch (error) {
      this.#say(error.message);
    }
  }
}

/** The labels and the guidance of a job, in words. */
function told({ labels, guidance }) {
  if (!labels) return "";
  const of = `, label${labels.length > 1 ? "s" : ""} ${labels.slice(0, 10).join(", ")}${labels.length > 10 ? ", …" : ""}`;
  return guidance === null ? of : `${of}, guidance ${short(guidance)}`;
}

async function decoded(base64) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: "image/png" }));
}

const VIEWS = { inpaint: "inpaint", upscale: "upscale", colorize: "upscale" }; // by kind; others are shown as samples
const KINDS = { inpaint: "completion", upscale: "enlargement", colorize: "colouring" };

/** Where a job is looked at. */
export const addressOf = ({ id, kind }) => `#${VIEWS[kind] ?? "sample"}/${id}`;

/** What a job asks for, in words. */
export const wanted = ({ count, kind, model, sampler }) =>
  `${plural(count, KINDS[kind] ?? "image")}, ${model}, ${titleOf(sampler.name)}`;

/** A job by its id; null if it is no more. */
export async function findJob(id) {
  try {
    return await getJson(`jobs/${id}`);
  } catch (error) {
    if (error.code === "not-found" || error.code === "invalid") return null;
    throw error;
  }
}
