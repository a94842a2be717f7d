// A job on the page: how far it is, its images as they come out of the noise, and what can be done with them.

import { Problem, cancelJob, getJson, getPicture } from "../wire/api.js";
import { announce, copyOf, part, plural, seconds, short, whole } from "./dom.js";
import { copy, download } from "../wire/downloads.js";
import { follow } from "../wire/events.js";
import { ImageGrid } from "./grid.js";
import { Scrubber } from "./scrubber.js";
import { bodyOf, curl, python } from "../wire/snippets.js";

const FILES = {
  png: ["grid.png?scale=4", "png"],
  npz: ["samples.npz", "npz"],
  zip: ["images.zip", "zip"],
  webp: ["animation.webp?scale=4", "webp"],
  gif: ["animation.gif?scale=4", "gif"],
  filmstrip: ["filmstrip.png?scale=2", "filmstrip.png"],
};

const LEGENDS = {
  running: "What the model expects to see by now: the denoised estimate of each image.",
  finished: "The slider leads back through the annealing: the chains themselves, noise and all.",
};

export class JobPanel {
  /**
   * @param {Element} root is replaced by the panel.
   * @param {{onChoose, onState}} options `onChoose(index)`: an image was chosen; `onState(job)`: the job's state is new.
   */
  constructor(root, { onChoose = null, onState = () => {} } = {}) {
    this.root = copyOf("job-panel");
    root.replaceWith(this.root);
    this.onState = onState;
    this.grid = new ImageGrid(part(this.root, "grid"), onChoose && ((index) => onChoose(index)));
    this.scrubber = new Scrubber(part(this.root, "scrubber"), (frame) => this.grid.drawFrame(this.strip, frame));
    this.job = null;
    this.pictures = {};
    this.ended = new AbortController();
    part(this.root, "cancel").addEventListener("click", () => this.cancel());
    part(this.root, "curl").addEventListener("click", (e) => copy(curl(this.path, this.body), e.currentTarget));
    part(this.root, "python").addEventListener("click", (e) => copy(python(this.path, this.body), e.currentTarget));
    for (const name of Object.keys(FILES)) part(this.root, name).addEventListener("click", () => this.#save(name));
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

  /** Forgets the job, which goes on without being watched. */
  clear() {
    this.ended.abort();
    this.job = null;
    this.root.hidden = true;
  }

  /**
   * Shows a job and follows it to its end.
   *
   * @param {object} job as the service describes it.
   * @param {{width, height}} shape of its images.
   * @param {object} pictures that it was asked with.
   * @returns {Promise<object|null>} the job when it has ended; null if another took its place.
   */
  async show(job, shape, pictures = {}) {
    this.ended.abort();
    this.ended = new AbortController();
    const { signal } = this.ended;
    this.job = job;
    this.shape = shape;
    this.pictures = pictures;
    this.strip = null;
    this.scrubber.hide();
    this.#say("");
    this.root.hidden = false;
    this.grid.reset(job.count, shape);
    this.#state(job);
    this.#progress({ ...job.progress, ...job, sigma: null });
    try {
      if (!job.ended_at) {
        announce(`The job of ${plural(job.count, "image")} is accepted.`);
        job = await follow(job.id, this.#listeners(), signal);
      }
      this.job = job;
      this.#say(job.error ? `${job.state === "failed" ? "The job failed" : "The job was stopped"}: ${job.error}.` : "");
      if (job.state === "finished") await this.#finish(signal);
      signal.throwIfAborted();
      this.#state(this.job);
      announce(`The job is ${job.state}.`);
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

  #state(job) {
    this.root.dataset.state = job.state;
    part(this.root, "state").textContent = job.state;
    part(this.root, "cancel").hidden = Boolean(job.ended_at);
    part(this.root, "files").hidden = job.state !== "finished";
    part(this.root, "frames").hidden = !job.frames;
    part(this.root, "legend").textContent = job.frames > 1 ? (LEGENDS[job.state] ?? "") : "";
    const seed = `${job.model} ${job.version}, ${job.sampler.name.replaceAll("_", " ")}, seed ${job.seed}`;
    part(this.root, "what").textContent = `${plural(job.count, "image")} of ${seed}${told(job)}`;
    if (job.ended_at) this.#progress({ ...job.progress, ...job, sigma: null });
    this.onState(job);
  }

  #progress({ state, image_steps_done: done, image_steps: all, sigma, queue_position: before, eta_seconds: eta }) {
    const bar = part(this.root, "bar");
    bar.max = all;
    bar.value = done;
    const words = [];
    if (state === "queued") words.push(before ? `${plural(before, "job")} before it` : "next in the queue");
    if (sigma) words.push(`σ ${short(sigma)}`);
    words.push(done < all ? `${whole(done)} of ${whole(all)} image-steps` : `${whole(all)} image-steps`);
    if (eta && !this.job.ended_at) words.push(`about ${seconds(eta)} to go`);
    if (this.job.ended_at && this.job.run_seconds) words.push(`${seconds(this.job.run_seconds)} of work`);
    if (this.job.ended_at && this.job.queue_seconds >= 0.1) words.push(`${seconds(this.job.queue_seconds)} in the queue`);
    part(this.root, "progress").textContent = words.join(" · ");
  }

  async #preview({ png, columns }) {
    const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
    const { signal } = this.ended;
    const picture = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
    if (signal.aborted || this.grid.root.classList.contains("ready")) return;
    this.grid.draw(picture, columns);
    this.root.dataset.previews = Number(this.root.dataset.previews ?? 0) + 1;
  }

  async #finish(signal) {
    const { id, count, frames } = this.job;
    const across = Math.ceil(Math.sqrt(count));
    const picture = await getPicture(`jobs/${id}/grid.png?scale=1&padding=0&columns=${across}`, { signal });
    this.grid.draw(picture, across);
    this.grid.ready();
    if (frames > 1) {
      this.strip = await getPicture(`jobs/${id}/filmstrip.png?scale=1&padding=0`, { signal });
      this.scrubber.show(frames);
    }
  }

  #say(sentence) {
    const place = part(this.root, "trouble");
    place.textContent = sentence;
    place.hidden = !sentence;
  }

  async #save(name) {
    const [view, ending] = FILES[name];
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

/** A job by its id; null if it is no more. */
export async function findJob(id) {
  try {
    return await getJson(`jobs/${id}`);
  } catch (error) {
    if (error.code === "not-found" || error.code === "invalid") return null;
    throw error;
  }
}
