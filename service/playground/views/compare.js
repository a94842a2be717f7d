// The view “Compare”: one seed under several samplers, side by side.

import { AskingView } from "./asking.js";
import { copyOf, part, plural, seconds, whole } from "../parts/dom.js";
import { JobPanel } from "../parts/job.js";
import { cardOf } from "../parts/models.js";
import { SamplerForm } from "../parts/samplers.js";

const STORY = ["follow_scores", "langevin", "annealed_langevin", "heun"];

export class CompareView extends AskingView {
  constructor(on) {
    super("compare", on);
    this.sides = [];
    this.fields.sides.addEventListener("change", () => this.#arrange(Number(this.fields.sides.value)));
    part(this.root, "cancel").addEventListener("click", () => {
      for (const { panel } of this.sides) if (panel.running) panel.cancel();
    });
  }

  choose() {
    this.#arrange(0);
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
    part(this.root, "sides").append(root);
    const sampler = new SamplerForm(part(root, "sampler-form"), { label: `Sampler ${this.sides.length + 1}` });
    sampler.offer(this.samplers, this.card, name);
    const panel = new JobPanel(part(root, "job"), {
      onChoose: (index) => this.on.onChoose(panel, index),
      onState: () => this.busy(),
    });
    panel.root.classList.add("compact");
    this.sides.push({ root, sampler, panel, cost: part(root, "cost") });
  }

  async submit() {
    const asked = await Promise.allSettled(
      this.sides.map(({ sampler }) => this.ask("samples", { ...this.wanted, sampler: sampler.value })),
    );
    asked.forEach(({ value }, i) => value && this.sides[i].panel.show(value, this.card.image));
    this.on.onJob(this.#ids);
    const refused = asked.find(({ reason }) => reason);
    if (refused) throw refused.reason;
  }

  async find(ids) {
    if (ids === this.#ids) return;
    const jobs = await Promise.all(ids.split(",").slice(0, STORY.length).map((id) => this.adopt(id)));
    this.fields.sides.value = Math.max(2, jobs.length);
    await this.pick(jobs[0].model);
    const card = await cardOf(jobs[0].model, jobs[0].version);
    jobs.forEach((job, i) => {
      this.sides[i].sampler.offer(this.samplers, this.card, job.sampler);
      this.sides[i].panel.show(job, card.image);
    });
    this.on.onJob(ids);
  }

  get #ids() {
    const jobs = this.sides.map(({ panel }) => panel.job?.id);
    return jobs.filter(Boolean).join(",");
  }

  /** What can be pressed; and the costs, beside each other. */
  busy() {
    const running = this.sides.some(({ panel }) => panel.running);
    this.go.disabled = running;
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
