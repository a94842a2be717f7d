// The view “Queue”: your jobs, and the workers with their slots, as the public API tells.

import { cancelJob, getJson } from "../wire/api.js";
import { arrange, byId, make, part, plural, seconds, whole } from "../parts/dom.js";
import { addressOf, wanted } from "../parts/job.js";
import { samplers } from "../parts/samplers.js";
import { Trouble } from "../parts/trouble.js";

const LOOK_MS = 2000;
const LIMIT = 20;

export class QueueView {
  constructor() {
    this.root = byId("queue");
    this.form = part(this.root, "form");
    this.trouble = new Trouble(part(this.root, "trouble"), this.form);
    this.cursors = []; // of the pages before this one
    this.timer = 0;
    this.form.elements.state.addEventListener("change", () => this.#turn([]));
    part(this.root, "newer").addEventListener("click", () => this.#turn(this.cursors.slice(0, -1)));
    part(this.root, "older").addEventListener("click", () => this.#turn([...this.cursors, this.next]));
    document.addEventListener("visibilitychange", () => !this.root.hidden && this.#look());
  }

  open() {
    this.#look();
  }

  close() {
    clearTimeout(this.timer);
  }

  #turn(cursors) {
    this.cursors = cursors;
    this.#look();
  }

  /** Looks, and again after a while, as long as somebody sees it. */
  async #look() {
    clearTimeout(this.timer);
    let pause = LOOK_MS;
    try {
      const [jobs, house] = await Promise.all([getJson(this.#address()), getJson("workers"), samplers()]);
      this.trouble.clear();
      this.#jobs(jobs);
      this.#house(house);
    } catch (error) {
      this.trouble.say(error);
      if (error.status === 401) return; // the dialog for the key is open; a key looks again
      pause = Math.max(pause, (error.retryAfter ?? 0) * 1000);
    }
    clearTimeout(this.timer);
    if (!this.root.hidden && !document.hidden) this.timer = setTimeout(() => this.#look(), pause);
  }

  #address() {
    const query = new URLSearchParams({ limit: LIMIT });
    if (this.form.elements.state.value) query.set("state", this.form.elements.state.value);
    if (this.cursors.length) query.set("cursor", this.cursors.at(-1));
    return `jobs?${query}`;
  }

  #jobs({ jobs, next }) {
    this.next = next;
    part(this.root, "none").hidden = jobs.length > 0;
    part(this.root, "newer").disabled = this.cursors.length === 0;
    part(this.root, "older").disabled = !next;
    const body = part(this.root, "jobs");
    const old = new Map([...body.children].map((row) => [row.dataset.id, row]));
    const rows = jobs.map((job) => {
      const row = old.get(job.id) ?? this.#row(job);
      this.#fill(row, job);
      return row;
    });
    arrange(body, rows);
  }

  #row(job) {
    const link = make("a", { href: addressOf(job), textContent: job.id.slice(0, 8) });
    const cancel = make("button", { type: "button", textContent: "Cancel", "aria-label": `Cancel job ${job.id}` });
    cancel.addEventListener("click", () => this.#cancel(job.id));
    const bar = make("progress", { "aria-label": `Progress of job ${job.id}` });
    const texts = ["what", "state", "progress", "when"].map((name) => make("td", { "data-part": name }));
    texts[1].append(make("span", { className: "state" }));
    texts[2].append(bar, make("span", { className: "hint" }));
    const row = make("tr", {}, make("th", { scope: "row" }, link), ...texts, make("td", {}, cancel));
    row.dataset.id = job.id;
    return row;
  }

  #fill(row, job) {
    const { image_steps_done: done, image_steps: all } = job.progress;
    row.dataset.state = job.state;
    part(row, "what").textContent = wanted(job);
    row.querySelector(".state").textContent = job.state;
    const bar = row.querySelector("progress");
    bar.max = all;
    bar.value = done;
    row.querySelector("progress + span").textContent = `${whole(done)} of ${whole(all)} image-steps`;
    part(row, "when").textContent = when(job);
    row.querySelector("button").hidden = Boolean(job.ended_at);
  }

  async #cancel(id) {
    await this.trouble.around(() => cancelJob(id));
    this.#look();
  }

  #house({ workers, queue }) {
    const rate = workers.reduce((sum, worker) => sum + worker.image_steps_per_second, 0);
    part(this.root, "summary").textContent = workers.length
      ? `${plural(workers.length, "worker")}, ${rate ? `${whole(rate)} image-steps a second` : "idle"}. ` +
        (queue.jobs
          ? `All clients together: ${plural(queue.jobs, "job")} with ${plural(queue.image_steps, "image-step")} to do, the oldest ${seconds(queue.oldest_age_seconds)} old.`
          : "Nobody waits.")
      : "No worker is alive: jobs wait. Start one with `scoreserve worker`.";
    part(this.root, "workers").replaceChildren(...workers.map(workerOf));
  }
}

/** "2 jobs before it", "about 12 s to go", "took 3.1 s". */
function when(job) {
  if (job.state === "queued") {
    const place = job.queue_position ? `${plural(job.queue_position, "job")} before it` : "next";
    return job.eta_seconds === null ? place : `${place}, done in about ${seconds(job.eta_seconds)}`;
  }
  if (!job.ended_at) return job.eta_seconds === null ? "" : `about ${seconds(job.eta_seconds)} to go`;
  const at = new Date(job.ended_at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return job.run_seconds ? `${at}, after ${seconds(job.run_seconds)}` : at;
}

function workerOf(worker) {
  const { slots, slots_active: active } = worker;
  const shown = Math.min(slots, 256);
  const squares = Array.from({ length: shown }, (_, i) => make("i", { className: i < (active * shown) / slots ? "on" : "" }));
  const text = `${active} of ${slots} slots occupied`;
  return make(
    "li",
    { className: "panel" },
    make("h2", { textContent: `Worker ${worker.name.slice(0, 8)}` }),
    make("div", { className: "slots", role: "img", "aria-label": text }, ...squares),
    make("p", { textContent: text }),
    make("p", {
      className: "hint",
      textContent: [worker.device, worker.models.join(", ") || "no model loaded", `${whole(worker.image_steps_per_second)} image-steps/s`].join(" · "),
    }),
  );
}
