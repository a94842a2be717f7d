// What the views have in common that ask for images: a form about a model, and the way to a job.

import { ask } from "../wire/api.js";
import { byId, copyOf, part } from "../parts/dom.js";
import { findJob, JobPanel } from "../parts/job.js";
import { models, ofPlane, offerModels, showFirst } from "../parts/models.js";
import { samplers } from "../parts/samplers.js";
import { Trouble } from "../parts/trouble.js";

const FRAMES = 32; // kept of each image, to be scrubbed through; the service keeps fewer of fewer evaluations
const WEAK = "Fast at images out of noise, bad at this: another model does better.";

/** Views give it `choose()`: another model; `submit()`: ask; and `find(argument)`: show what the address names. */
export class AskingView {
  /** @param {{onJob, onChoose}} on what is on the page has another address; an image of a panel was chosen. */
  constructor(name, on) {
    this.root = byId(name);
    this.form = part(this.root, "form");
    const place = part(this.root, "how-many");
    if (place) {
      const fields = copyOf("how-many");
      part(fields, "what").textContent = place.dataset.what;
      place.replaceWith(fields);
    }
    this.fields = this.form.elements;
    this.go = part(this.root, "go");
    this.trouble = new Trouble(part(this.root, "trouble"), this.form);
    this.on = on;
    const panel = part(this.root, "job");
    if (panel) this.panel = new JobPanel(panel, { onChoose: (i) => on.onChoose(this.panel, i), onState: on.onState });
    this.fields.model.addEventListener("change", () => this.trouble.around(() => this.pick()));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.trouble.around(async () => {
        this.#check();
        reveal(part(this.root, "result"));
        this.go.disabled = true;
        try {
          await this.submit();
          reveal(part(this.root, "result")); // which has become longer
        } finally {
          this.go.disabled = false;
          this.busy?.();
        }
      });
    });
  }

  /** Shows the view, and what `argument` names, if anything. */
  async open(argument = null) {
    await this.trouble.around(async () => {
      await this.load();
      if (argument) await this.find(argument);
    });
  }

  /** Fills the form, once. */
  async load() {
    this.loaded ??= (async () => {
      const [all, known] = await Promise.all([models(), samplers()]);
      this.samplers = known;
      this.models = all.filter((card) => !ofPlane(card));
      if (!this.models.length) throw new Error("No model of pictures is served here: publish one, or see the documentation.");
      offerModels(this.fields.model, this.models);
      await this.pick();
    })();
    await this.loaded.catch((error) => {
      this.loaded = null;
      throw error;
    });
  }

  async pick(name = this.fields.model.value) {
    this.fields.model.value = name;
    this.card = this.models.find((card) => card.name === name);
    if (!this.card) throw new Error(`The model ${name} is not served any more.`);
    const weak = part(this.root, "weak");
    if (weak) weak.textContent = this.card.sampler.name === "multistep_consistency" ? WEAK : "";
    this.classes.offer(this.card);
    this.sampler?.offer(this.samplers, this.card);
    const chosen = this.choose();
    this.busy?.(); // a picture may be on its way
    await chosen;
    const first = part(this.root, "first");
    if (first && !first.hidden) await showFirst(first, this.card, first.dataset.how);
  }

  /** A job takes the place of what the model has made before. */
  begin(job) {
    const first = part(this.root, "first");
    if (first) first.hidden = true;
    this.on.onJob(job);
  }

  /** Shows a job of a model, and the pictures that it was asked with. */
  show(job, card, pictures) {
    this.begin(job.id);
    this.panel.show(job, card.image, pictures);
  }

  /** What is asked for, without the sampler. */
  get wanted() {
    const { count, seed } = this.fields;
    const body = { model: this.card.name, count: count.valueAsNumber, frames: FRAMES };
    body.seed = seed.value === "" ? drawnSeed() : seed.valueAsNumber;
    return { ...body, ...this.classes.value(body.count) };
  }

  /** Asks, without frames where they would be too many bytes. */
  async ask(path, body) {
    try {
      return await ask(path, body);
    } catch (error) {
      if (!error.errors?.some(({ pointer }) => pointer === "/frames")) throw error;
      return ask(path, { ...body, frames: 0 });
    }
  }

  /** A job by its id, with the form put where it was when it was asked for. */
  async adopt(id) {
    const job = await findJob(id);
    if (!job) throw new Error(`There is no job ${id}, or its images have been forgotten. Ask for new ones.`);
    await this.pick(job.model);
    this.fields.count.value = job.count;
    this.fields.seed.value = job.seed;
    this.classes.offer(this.card, job);
    this.sampler?.offer(this.samplers, this.card, job.sampler);
    return job;
  }

  /** Says what is wrong with the numbers that the page itself bounds. */
  #check() {
    for (const name of ["count", "seed"]) {
      const { validity, labels, min, max, value } = this.fields[name];
      if (validity.valid && (value !== "" || name === "seed")) continue;
      const range = max ? `from ${min} to ${max}` : `from ${min} on`;
      const many = name === "count" && Number(value) > Number(max) ? " More at a time can be asked for over the API." : "";
      const wrong = new Error(`${labels[0].textContent.trim()}: choose a whole number ${range}.${many}`);
      throw Object.assign(wrong, { errors: [{ pointer: `/${name}` }] });
    }
  }
}

/** A seed of few digits, which a person can read and repeat; the service would draw one of sixteen. */
export const drawnSeed = () => Math.floor(Math.random() * 1_000_000);

/** Brings an element into view at once, where it is not: its head, where it has no room. */
function reveal(element) {
  const { top, bottom } = element.getBoundingClientRect();
  const inView = top >= 0 && (bottom <= innerHeight || top < innerHeight / 4);
  if (!inView) element.scrollIntoView({ block: "start" });
}
