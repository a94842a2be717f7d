// The view “Compare”: one seed under several samplers, side by side.

import { ask } from "./api.js";
import { byId, copyOf, part, plural, seconds, whole } from "./dom.js";
import { JobPanel, findJob } from "./job.js";
import { cardOf, models, offerModels } from "./models.js";
import { SamplerForm, samplers } from "./samplers.js";
import { Trouble } from "./trouble.js";

const STORY = ["follow_scores", "langevin", "annealed_langevin", "heun"];
const FRAMES = 32;

export class CompareView {
  /** @param {{onJobs, onChoose}} on jobs are on the page, as their ids with commas; an image was chosen. */
  constructor(on) {
    this.root = byId("compare");
    this.form = part(this.root, "form");
    this.fields = this.form.elements;
    this.trouble = new Trouble(part(this.root, "trouble"), this.form);
    this.on = on;
    this.sides = [];
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.fields.model.addEventListener("change", () => this.#choose());
    this.fields.sides.addEventListener("change", () => this.#arrange(Number(this.fields.sides.value)));
    part(this.root, "cancel").addEventListener("click", () => {
      for (const { panel } of this.sides) if (panel.running) panel.cancel();
    });
  }

  async open(ids = null) {
    await this.trouble.around(async () => {
      this.ready ??= this.#load();
      await this.ready.catch((error) => {
        this.ready = null;
        throw error;
      });
      if (ids && ids !== this.#ids()) await this.#find(ids.split(",").slice(0, STORY.length));
    });
  }

  async #load() {
    [this.models, this.samplers] = await Promise.all([models(), samplers()]);
    offerModels(this.fields.model, this.models);
    this.#choose();
  }

  #choose() {
    this.card = this.models.find(({ name }) => name === this.fields.model.value);
    this.sides = [];
    part(this.root, "sides").replaceChildren();
    this.#arrange(Number(this.fields.sides.value));
  }

  /** Adds or removes sides, so that there are so many. */
  #arrange(count) {
    for (const { root, panel } of this.sides.splice(count)) {
      panel.clear();
      root.remove();
    }
    while (this.sides.length < count) this.#add(STORY[this.sides.length]);
    part(this.root, "sides").style.setProperty("--sides", count);
  }

  #add(name) {
    const root = copyOf("compare-side");
    const number = this.sides.length + 1;
    const select = part(root, "sampler");
    select.id = `compare-sampler-${number}`;
    part(root, "label").htmlFor = select.id;
    part(root, "label").textContent = `Sampler ${number}`;
    part(this.root, "sides").append(root);
    const sampler = new SamplerForm(root);
    sampler.offer(this.samplers, this.card, name);
    const panel = new JobPanel(part(root, "job"), {
      onChoose: (index) => this.on.onChoose(panel, index),
      onState: () => this.#tell(),
    });
    panel.root.classList.add("compact");
    this.sides.push({ root, sampler, panel, cost: part(root, "cost") });
  }

  async #submit() {
    await this.trouble.around(async () => {
      const count = this.fields.count.valueAsNumber;
      const seed = this.fields.seed.valueAsNumber;
      const body = { model: this.card.name, count, seed, frames: FRAMES };
      part(this.root, "go").disabled = true;
      const asked = await Promise.allSettled(
        this.sides.map(({ sampler }) => ask("samples", { ...body, sampler: sampler.value })),
      );
      asked.forEach(({ value }, i) => value && this.sides[i].panel.show(value, this.card.image));
      const refused = asked.find(({ reason }) => reason);
      this.on.onJobs(this.#ids());
      this.#tell();
      if (refused) throw refused.reason;
    });
    this.#tell();
  }

  async #find(ids) {
    const jobs = (await Promise.all(ids.map(findJob))).filter(Boolean);
    if (!jobs.length) throw new Error("These jobs have been forgotten. Compare again.");
    const card = await cardOf(jobs[0].model, jobs[0].version);
    this.fields.model.value = jobs[0].model;
    this.fields.count.value = jobs[0].count;
    this.fields.seed.value = jobs[0].seed;
    this.fields.sides.value = Math.max(2, jobs.length);
    this.#choose();
    jobs.forEach((job, i) => {
      this.sides[i].sampler.offer(this.samplers, this.card, job.sampler);
      this.sides[i].panel.show(job, card.image);
    });
  }

  #ids() {
    return this.sides
      .map(({ panel }) => panel.job?.id)
      .filter(Boolean)
      .join(",");
  }

  /** The costs, beside each other. */
  #tell() {
    const running = this.sides.some(({ panel }) => panel.running);
    part(this.root, "go").disabled = running;
    part(this.root, "cancel").hidden = !running;
    for (const { panel, cost } of this.sides) {
      const { job } = panel;
      if (!job) continue;
      const steps = job.progress.image_steps;
      const words = [`${plural(steps / job.count, "evaluation")} an image`, `${whole(steps)} image-steps`];
      if (job.run_seconds) words.push(seconds(job.run_seconds));
      cost.textContent = words.join(", ");
    }
  }
}
