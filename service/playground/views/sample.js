// The view “Sample”: a grid out of the noise.

import { AskingView, drawnSeed } from "./asking.js";
import { ClassForm } from "../parts/classes.js";
import { part } from "../parts/dom.js";
import { cardOf, showCard } from "../parts/models.js";
import { SamplerForm } from "../parts/samplers.js";

export class SampleView extends AskingView {
  constructor(on) {
    super("sample", on);
    this.classes = new ClassForm(part(this.root, "class-form"));
    this.sampler = new SamplerForm(part(this.root, "sampler-form"));
    part(this.root, "dice").addEventListener("click", () => {
      this.fields.seed.value = drawnSeed();
    });
  }

  choose() {
    showCard(part(this.root, "card"), this.card, this.models);
  }

  async find(id) {
    if (id === this.panel.job?.id) return;
    const job = await this.adopt(id);
    this.show(job, await cardOf(job.model, job.version));
  }

  async submit() {
    this.show(await this.ask("samples", { ...this.wanted, sampler: this.sampler.value }), this.card);
  }
}
