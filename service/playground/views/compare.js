// The view “Compare”: one seed under several samplers, side by side, and all of them played at once.

import { AskingView } from "./asking.js";
import { ClassForm } from "../parts/classes.js";
import { copyOf, part, plural, seconds, whole } from "../parts/dom.js";
import { JobPanel } from "../parts/job.js";
import { cardOf } from "../parts/models.js";
import { SamplerForm } from "../parts/samplers.js";
import { Scrubber, still } from "../parts/scrubber.js";

const STORY = ["follow_scores", "langevin", "annealed_langevin", "heun"];

// What to look at; of a sampler that is not named here there is its own description.
const LOOK = {
  follow_scores:
    "Look at how alike the images are, and how smooth: without noise every chain climbs to a peak nearby and stays there.",
  langevin:
    "Look at what never becomes an image: at one small noise level a chain hears nothing of the data until it is near.",
  annealed_langevin:
    "Look at the order of things: large noise decides what an image becomes, small noise only how sharp it is.",
  heun: "Look at how few evaluations there are: no noise is added on the way, so that each step can be long.",
  euler: "Look at how early each image is decided: no noise is added on the way, so that nothing turns it aside.",
  ancestral: "Look at how images change their mind: noise is added at every step, of which less is left each time.",
};

export class CompareView extends AskingView {
  constructor(on) {
    super("compare", on);
    this.sides = [];
    this.classes = new ClassForm(part(this.root, "class-form"));
    this.scrubber = new Scrubber(part(this.root, "scrubber"), (frame) => this.#go(frame));
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
    part(this.root, "result").style.setProperty("--sides", count);
    this.#tell();
  }

  #add(name) {
    const root = copyOf("compare-side");
    part(this.root, "result").append(root);
    const onState = () => this.#tell();
    const sampler = new SamplerForm(part(root, "sampler-form"), { label: `Sampler ${this.sides.length + 1}` });
    sampler.offer(this.samplers, this.card, name);
    const panel = new JobPanel(part(root, "job"), {
      onChoose: (index) => {
        this.scrubber.rest();
        this.on.onChoose(panel, index);
      },
      onState,
      compact: true,
    });
    this.sides.push({ root, sampler, panel, cost: part(root, "cost"), look: part(root, "look") });
    sampler.select.addEventListener("change", onState);
  }

  async submit() {
    this.scrubber.hide();
    const asked = await Promise.allSettled(
      this.sides.map(({ sampler }) => this.ask("samples", { ...this.wanted, sampler: sampler.value })),
    );
    this.#watch(
      asked.flatMap(({ value }, i) => (value ? [this.sides[i].panel.show(value, this.card.image)] : [])),
      !still(),
    );
    this.begin(this.#ids);
    const refused = asked.find(({ reason }) => reason);
    if (refused) throw refused.reason;
  }

  async find(ids) {
    if (ids === this.#ids) return;
    const jobs = await Promise.all(ids.split(",").slice(0, STORY.length).map((id) => this.adopt(id)));
    this.fields.sides.value = Math.max(2, jobs.length);
    await this.pick(jobs[0].model);
    this.classes.offer(this.card, jobs[0]);
    const card = await cardOf(jobs[0].model, jobs[0].version);
    const watched = jobs.some((job) => !job.ended_at);
    jobs.forEach((job, i) => this.sides[i].sampler.offer(this.samplers, this.card, job.sampler));
    this.#watch(
      jobs.map((job, i) => this.sides[i].panel.show(job, card.image)),
      watched && !still(),
    );
    this.begin(ids);
  }

  /** Offers to play all sides together once all have ended, and does if they were waited for. */
  async #watch(shown, play) {
    const ids = this.#ids;
    await Promise.allSettled(shown);
    if (ids !== this.#ids || !this.#frames) return;
    this.scrubber.show(this.#frames);
    if (play) this.scrubber.play();
  }

  get #frames() {
    return Math.max(0, ...this.sides.map(({ panel }) => panel.frames));
  }

  /** Each side as far on its way as the others. */
  #go(frame) {
    const share = frame / Math.max(1, this.scrubber.last);
    for (const { panel } of this.sides) if (panel.frames) panel.go(Math.round(share * (panel.frames - 1)));
    return `${Math.round(100 * share)} % of the way`;
  }

  get #ids() {
    const jobs = this.sides.map(({ panel }) => panel.job?.id);
    return jobs.filter(Boolean).join(",");
  }

  /** What to look at, and what each costs. */
  #tell() {
    part(this.root, "cancel").hidden = !this.sides.some(({ panel }) => panel.running);
    for (const { panel, sampler, cost, look } of this.sides) {
      const { job } = panel;
      const name = job?.sampler.name ?? sampler.value.name;
      look.textContent = LOOK[name] ?? this.samplers.find((one) => one.name === name).description;
      if (!job) continue;
      const steps = job.progress.image_steps;
      const words = [`${plural(steps / job.count, "evaluation")} an image`, `${whole(steps)} image-steps`];
      if (job.run_seconds) words.push(seconds(job.run_seconds));
      cost.textContent = words.join(", ");
    }
  }
}
