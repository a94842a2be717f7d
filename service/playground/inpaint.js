// The view “Inpaint”: a picture, a mask painted on it, and completions side by side.

import { ask } from "./api.js";
import { byId, make, part } from "./dom.js";
import { JobPanel, findJob } from "./job.js";
import { cardOf, models, offerModels } from "./models.js";
import { Painter } from "./painter.js";
import { fitted, inImage, load } from "./pictures.js";
import { SamplerForm, samplers } from "./samplers.js";
import { Trouble } from "./trouble.js";

const EXAMPLES = ["two", "three", "four", "five", "eight", "nine"];
const FRAMES = 32;
const KEPT = "inpaint"; // the picture and mask of the last request, so that a reload finds them again

export class InpaintView {
  /** @param {{onJob, onChoose}} on a job is on the page; an image of it was chosen. */
  constructor(on) {
    this.root = byId("inpaint");
    this.form = part(this.root, "form");
    this.fields = this.form.elements;
    this.trouble = new Trouble(part(this.root, "trouble"), this.form);
    this.sampler = new SamplerForm(this.form);
    this.on = on;
    this.painter = new Painter(part(this.root, "editor"), () => this.#busy());
    this.panel = new JobPanel(part(this.root, "job"), {
      onChoose: (index) => on.onChoose(this.panel, index),
      onState: () => this.#busy(),
    });
    this.fields.model.addEventListener("change", () => this.#choose());
    this.fields.fit.addEventListener("change", () => this.#put());
    this.fields.negative.addEventListener("change", () => this.#put());
    this.fields.file.addEventListener("change", () => this.#file(this.fields.file.files[0]));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#drop(part(this.root, "drop"));
    part(this.root, "examples").append(...EXAMPLES.map((name) => this.#example(name)));
  }

  async open(id = null) {
    await this.trouble.around(async () => {
      await this.#load();
      if (!id) return;
      if (id === this.panel.job?.id) return;
      const job = await findJob(id);
      if (!job) throw new Error(`There is no job ${id}, or its images have been forgotten. Ask for new ones.`);
      await this.#adopt(job);
    });
  }

  /** Takes an image of a model's job as the picture. */
  async take(canvas, model) {
    await this.trouble.around(async () => {
      await this.#load();
      this.fields.model.value = model;
      this.fields.negative.checked = false;
      this.#choose();
      await this.#use(canvas);
      part(this.root, "surface").focus();
    });
  }

  async #load() {
    this.ready ??= (async () => {
      [this.models, this.samplers] = await Promise.all([models(), samplers()]);
      offerModels(this.fields.model, this.models);
      this.#choose();
      if (!this.source) await this.#use(await load(new URL(`examples/${EXAMPLES[0]}.png`, import.meta.url)));
    })();
    await this.ready.catch((error) => {
      this.ready = null;
      throw error;
    });
  }

  #choose() {
    this.card = this.models.find(({ name }) => name === this.fields.model.value);
    this.sampler.offer(this.samplers, this.card);
    if (this.source) this.#put();
  }

  #example(name) {
    const address = new URL(`examples/${name}.png`, import.meta.url);
    const picture = make("img", { src: address.href, alt: "", width: 44, height: 44 });
    return make(
      "button",
      {
        type: "button",
        "aria-label": `Handwritten ${name}`,
        onclick: () => {
          this.fields.negative.checked = false;
          return this.trouble.around(async () => this.#use(await load(address)));
        },
      },
      picture,
    );
  }

  #drop(zone) {
    const leave = () => zone.classList.remove("over");
    zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
    zone.addEventListener("dragleave", leave);
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      leave();
      this.#file(event.dataTransfer.files[0]);
    });
  }

  async #file(file) {
    if (!file) return;
    await this.trouble.around(async () => {
      try {
        await this.#use(await createImageBitmap(file));
      } catch {
        throw new Error(`“${file.name}” is no picture that the browser can read. Choose a PNG, JPEG, WebP or GIF.`);
      }
    });
  }

  /** Takes a picture of any size. */
  async #use(source) {
    this.source = source;
    this.#put();
  }

  /** Puts the picture on the canvas, as the model's images are; what is transparent in it is marked. */
  #put() {
    const { picture, marked } = fitted(this.source, this.card.image, this.fields.fit.value, this.fields.negative.checked);
    this.painter.load(picture, this.card.image, marked);
  }

  async #submit() {
    await this.trouble.around(async () => {
      const { count, seed } = this.fields;
      const pictures = {
        image: inImage(this.painter.picture.canvas),
        mask: inImage(this.painter.mask.toCanvas()),
      };
      const body = { model: this.card.name, count: count.valueAsNumber, sampler: this.sampler.value, frames: FRAMES };
      if (seed.value !== "") body.seed = seed.valueAsNumber;
      part(this.root, "go").disabled = true;
      try {
        const job = await ask("inpaint", { ...body, ...pictures });
        remember({ id: job.id, ...pictures });
        this.#show(job, this.card, pictures);
      } finally {
        this.#busy();
      }
    });
  }

  /** Puts the form where it was when a job was asked for; its picture too, if that was in this tab. */
  async #adopt(job) {
    const card = await cardOf(job.model, job.version);
    this.fields.model.value = job.model;
    this.#choose();
    this.fields.count.value = job.count;
    this.fields.seed.value = job.seed;
    this.sampler.offer(this.samplers, this.card, job.sampler);
    const { id, ...pictures } = remembered();
    if (id === job.id) {
      const [picture, mask] = await Promise.all([pictures.image, pictures.mask].map((text) => load(toAddress(text))));
      this.source = picture;
      const { marked } = fitted(mask, { ...card.image, channels: 1 }, "resize", false, true);
      this.painter.load(fitted(picture, card.image, "resize", false).picture, card.image, marked);
    }
    this.#show(job, card, id === job.id ? pictures : {});
  }

  #show(job, card, pictures) {
    part(this.root, "empty").hidden = true;
    this.on.onJob(job);
    this.panel.show(job, card.image, pictures);
  }

  #busy() {
    const marked = this.painter.mask && !this.painter.mask.empty;
    part(this.root, "go").disabled = this.panel?.running || !marked;
    part(this.root, "unmarked").hidden = Boolean(marked);
  }
}

const toAddress = (base64) => `data:image/png;base64,${base64}`;

function remember(request) {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(request));
  } catch {
    // too large to keep: then a reload finds the completions only
  }
}

const remembered = () => JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
