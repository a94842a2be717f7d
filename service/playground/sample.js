// The view “Sample”: a grid out of the noise.

import { ask } from "./api.js";
import { byId, part } from "./dom.js";
import { JobPanel, findJob } from "./job.js";
import { cardOf, models, offerModels, showCard } from "./models.js";
import { SamplerForm, samplers } from "./samplers.js";
import { Trouble } from "./trouble.js";

const FRAMES = 32;

export class SampleView {
  /** @param {{onJob, onChoose}} on a job is on the page; an image of it was chosen. */
  constructor(on) {
    this.root = byId("sample");
    this.form = part(this.root, "form");
    this.fields = this.form.elements;
    this.trouble = new Trouble(part(this.root, "trouble"), this.form);
    this.sampler = new SamplerForm(this.form);
    this.on = on;
    this.panel = new JobPanel(part(this.root, "job"), {
      onChoose: (index) => on.onChoose(this.panel, index),
      onState: () => this.#busy(),
    });
    this.fields.model.addEventListener("change", () => this.#choose());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    part(this.root, "dice").addEventListener("click", () => {
      this.fields.seed.value = Math.floor(Math.random() * 100_000);
    });
  }

  /** Shows the view, with a job if its id is given. */
  async open(id = null) {
    await this.trouble.around(async () => {
      this.ready ??= this.#load();
      await this.ready.catch((error) => {
        this.ready = null;
        throw error;
      });
      if (!id || id === this.panel.job?.id) return;
      const job = await findJob(id);
      if (!job) throw new Error(`There is no job ${id}, or its images have been forgotten. Ask for new ones.`);
      const card = await this.#adopt(job);
      this.#show(job, card);
    });
  }

  async #load() {
    [this.models, this.samplers] = await Promise.all([models(), samplers()]);
    offerModels(this.fields.model, this.models);
    await this.#choose();
  }

  async #choose() {
    this.card = this.models.find(({ name }) => name === this.fields.model.value);
    this.sampler.offer(this.samplers, this.card);
    await showCard(part(this.root, "card"), this.card);
  }

  /** Puts the form where it was when a job was asked for. */
  async #adopt(job) {
    const card = await cardOf(job.model, job.version);
    if (this.fields.model.value !== job.model) {
      this.fields.model.value = job.model;
      await this.#choose();
    }
    this.fields.count.value = job.count;
    this.fields.seed.value = job.seed;
    this.sampler.offer(this.samplers, this.card, job.sampler);
    return card;
  }

  async #submit() {
    await this.trouble.around(async () => {
      const { count, seed } = this.fields;
      const body = { model: this.card.name, count: count.valueAsNumber, sampler: this.sampler.value, frames: FRAMES };
      if (seed.value !== "") body.seed = seed.valueAsNumber;
      part(this.root, "go").disabled = true;
      try {
        this.#show(await ask("samples", body), this.card);
      } finally {
        this.#busy();
      }
    });
  }

  #show(job, card) {
    part(this.root, "empty").hidden = true;
    this.on.onJob(job);
    this.panel.show(job, card.image);
  }

  #busy() {
    part(this.root, "go").disabled = this.panel.running;
  }
}
