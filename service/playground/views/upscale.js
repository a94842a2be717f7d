// The view “Upscale”: a picture made small, or grey, and what it might have been side by side.

import { AskingView } from "./asking.js";
import { ClassForm } from "../parts/classes.js";
import { make, part } from "../parts/dom.js";
import { cardOf } from "../parts/models.js";
import { fitted, inImage } from "../picture/pictures.js";
import { SamplerForm } from "../parts/samplers.js";
import { PictureForm } from "../picture/source.js";

const GREY = "grey"; // what is sent, in place of how many times smaller it is

export class UpscaleView extends AskingView {
  constructor(on) {
    super("upscale", on);
    this.classes = new ClassForm(part(this.root, "class-form"), true);
    this.sampler = new SamplerForm(part(this.root, "sampler-form"), { known: true });
    this.small = part(this.root, "picture").getContext("2d", { willReadFrequently: true });
    this.pictures = new PictureForm(part(this.root, "drop"), this.trouble, (ofFile) => {
      this.fields.negative.checked &&= ofFile;
      this.#put();
    });
    this.fields.negative.addEventListener("change", () => this.#put());
    this.fields.factor.addEventListener("change", () => this.#put());
  }

  async choose() {
    const { width, height, channels } = this.card.image;
    const factors = [];
    for (let k = 2; k <= Math.min(width, height); k++) if (width % k === 0 && height % k === 0) factors.push(k);
    this.fields.factor.replaceChildren(
      ...factors.map((k) => make("option", { value: k, textContent: `${k} times, from ${width / k} x ${height / k}` })),
    );
    if (channels === 3) this.fields.factor.prepend(make("option", { value: GREY, textContent: `in colours, from ${width} x ${height} in grey` }));
    if (factors.includes(4)) this.fields.factor.value = 4;
    await this.pictures.offer(this.card.image);
    this.#put();
  }

  /** Puts the picture on the canvas, as small or as grey as it is sent. */
  #put() {
    const { width, height, channels } = this.card.image;
    const factor = this.grey ? 1 : Number(this.fields.factor.value);
    this.go.textContent = this.grey ? "Colour" : "Enlarge";
    this.busy();
    if (!factor || !this.pictures.source) return;
    const shape = { width: width / factor, height: height / factor, channels: this.grey ? 1 : channels };
    [this.small.canvas.width, this.small.canvas.height] = [shape.width, shape.height];
    this.small.drawImage(fitted(this.pictures.source, shape, this.fields.negative.checked).picture, 0, 0);
  }

  async submit() {
    const pictures = { image: inImage(this.small.canvas) };
    const body = { ...this.wanted, sampler: this.sampler.value, ...pictures };
    this.show(await this.ask(this.grey ? "colorize" : "upscale", body), this.card, pictures);
  }

  async find(id) {
    if (id === this.panel.job?.id) return;
    const job = await this.adopt(id);
    if (job.kind === "colorize") {
      this.fields.factor.value = GREY;
      this.#put();
    }
    this.show(job, await cardOf(job.model, job.version), {});
  }

  /** Whether a grey picture is to be coloured. */
  get grey() {
    return this.fields.factor.value === GREY;
  }

  busy() {
    this.go.disabled = !this.fields.factor.value || !this.pictures.source;
  }
}
