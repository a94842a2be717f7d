// The view “Upscale”: a picture made small, and enlargements of it side by side.

import { AskingView } from "./asking.js";
import { ClassForm } from "../parts/classes.js";
import { make, part } from "../parts/dom.js";
import { JobPanel } from "../parts/job.js";
import { cardOf } from "../parts/models.js";
import { fitted, inImage } from "../picture/pictures.js";
import { SamplerForm } from "../parts/samplers.js";
import { first, offerPictures } from "../picture/source.js";

export class UpscaleView extends AskingView {
  constructor(on) {
    super("upscale", on);
    this.classes = new ClassForm(part(this.root, "class-form"), true);
    this.sampler = new SamplerForm(part(this.root, "sampler-form"), { known: true });
    this.small = part(this.root, "picture").getContext("2d", { willReadFrequently: true });
    this.panel = new JobPanel(part(this.root, "job"), {
      onChoose: (index) => on.onChoose(this.panel, index),
      onState: on.onState,
    });
    offerPictures(part(this.root, "drop"), this.trouble, (source, ofFile) => {
      this.source = source;
      this.fields.negative.checked &&= ofFile;
      this.#put();
    });
    this.fields.negative.addEventListener("change", () => this.#put());
    this.fields.factor.addEventListener("change", () => this.#put());
  }

  async choose() {
    this.classes.offer(this.card);
    this.sampler.offer(this.samplers, this.card);
    const { width, height } = this.card.image;
    const factors = [];
    for (let k = 2; k <= Math.min(width, height); k++) if (width % k === 0 && height % k === 0) factors.push(k);
    this.fields.factor.replaceChildren(
      ...factors.map((k) => make("option", { value: k, textContent: `${k} times, from ${width / k} x ${height / k}` })),
    );
    if (factors.includes(4)) this.fields.factor.value = 4;
    this.source ??= await first();
    this.#put();
  }

  /** Puts the picture on the canvas, as small as it is sent. */
  #put() {
    const { width, height, channels } = this.card.image;
    const factor = Number(this.fields.factor.value);
    this.busy();
    if (!factor) return;
    const shape = { width: width / factor, height: height / factor, channels };
    [this.small.canvas.width, this.small.canvas.height] = [shape.width, shape.height];
    this.small.drawImage(fitted(this.source, shape, this.fields.negative.checked).picture, 0, 0);
  }

  async submit() {
    const pictures = { image: inImage(this.small.canvas) };
    this.#show(await this.ask("upscale", { ...this.wanted, sampler: this.sampler.value, ...pictures }), this.card, pictures);
  }

  async find(id) {
    if (id === this.panel.job?.id) return;
    const job = await this.adopt(id);
    this.classes.offer(this.card, job);
    this.sampler.offer(this.samplers, this.card, job.sampler);
    this.#show(job, await cardOf(job.model, job.version), {});
  }

  #show(job, card, pictures) {
    this.begin(job.id);
    this.panel.show(job, card.image, pictures);
  }

  busy() {
    this.go.disabled = !this.fields.factor.value;
  }
}
