// The view “Inpaint”: a picture, a mask painted on it, and completions side by side.

import { AskingView } from "./asking.js";
import { ClassForm } from "../parts/classes.js";
import { part } from "../parts/dom.js";
import { cardOf } from "../parts/models.js";
import { Painter } from "../picture/painter.js";
import { fitted, inImage, load } from "../picture/pictures.js";
import { SamplerForm } from "../parts/samplers.js";
import { PictureForm } from "../picture/source.js";

const KEPT = "inpaint"; // the picture and mask of the last request, so that a reload finds them again

export class InpaintView extends AskingView {
  constructor(on) {
    super("inpaint", on);
    this.classes = new ClassForm(part(this.root, "class-form"), true);
    this.sampler = new SamplerForm(part(this.root, "sampler-form"), { known: true });
    this.painter = new Painter(part(this.root, "editor"), () => this.busy());
    this.pictures = new PictureForm(part(this.root, "drop"), this.trouble, (ofFile) => {
      this.fields.negative.checked &&= ofFile;
      this.#put();
    });
    this.fields.negative.addEventListener("change", () => this.#put());
  }

  async choose() {
    await this.pictures.offer(this.card.image);
    this.#put();
  }

  /** Takes an image of a model's job as the picture. */
  async take(canvas, model) {
    await this.trouble.around(async () => {
      await this.load();
      this.pictures.take(canvas);
      this.fields.negative.checked = false;
      await this.pick(model);
      part(this.root, "surface").focus();
    });
  }

  /** Puts the picture on the canvas, as the model's images are; what is transparent in it is marked. */
  #put() {
    if (!this.pictures.source) return;
    const { picture, marked } = fitted(this.pictures.source, this.card.image, this.fields.negative.checked);
    this.painter.load(picture, this.card.image, marked);
  }

  async submit() {
    const pictures = { image: inImage(this.painter.picture.canvas), mask: inImage(this.painter.mask.toCanvas()) };
    const job = await this.ask("inpaint", { ...this.wanted, sampler: this.sampler.value, ...pictures });
    remember({ id: job.id, ...pictures });
    this.show(job, this.card, pictures);
  }

  async find(id) {
    if (id === this.panel.job?.id) return;
    const job = await this.adopt(id);
    const card = await cardOf(job.model, job.version);
    const { id: kept, ...pictures } = remembered();
    if (kept === id) {
      const [picture, mask] = await Promise.all([pictures.image, pictures.mask].map((text) => load(toAddress(text))));
      this.pictures.take(picture);
      this.painter.load(picture, card.image, fitted(mask, card.image, false, true).marked);
    }
    this.show(job, card, kept === id ? pictures : {});
  }

  busy() {
    const marked = this.painter.mask && !this.painter.mask.empty;
    this.go.disabled = !marked || !this.pictures.source;
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
