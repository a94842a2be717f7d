// Where a picture comes from: a file that is chosen or dropped, or an example.

import { copyOf, make, part } from "../parts/dom.js";
import { load } from "./pictures.js";

const EXAMPLES = {
  grey: { "two.png": "Handwritten two", "three.png": "Handwritten three", "four.png": "Handwritten four", "five.png": "Handwritten five", "eight.png": "Handwritten eight", "nine.png": "Handwritten nine" },
  colour: { "automobile.webp": "A red car", "ship.webp": "A ship at sea", "horse.webp": "A horse", "truck.webp": "A truck", "deer.webp": "A deer", "airplane.webp": "An airplane" },
};

const addressOf = (name) => new URL(`../examples/${name}`, import.meta.url);

/** The fields that a picture comes from, and the picture. */
export class PictureForm {
  /**
   * @param {Element} place is replaced by the fields.
   * @param {{around}} trouble says what goes wrong.
   * @param {(ofFile: boolean) => void} onPicture there is another picture.
   */
  constructor(place, trouble, onPicture) {
    const zone = copyOf("picture-fields");
    place.replaceWith(zone);
    [this.trouble, this.onPicture, this.examples] = [trouble, onPicture, part(zone, "examples")];
    const input = zone.querySelector("[type=file]");
    const take = (file) => file && trouble.around(async () => this.#choose(await decoded(file), true));
    const leave = () => zone.classList.remove("over");
    input.addEventListener("change", () => take(input.files[0]));
    zone.addEventListener("dragover", (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
    zone.addEventListener("dragleave", leave);
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      leave();
      take(event.dataTransfer.files[0]);
    });
  }

  /** Takes anything that can be drawn as the picture, whatever model is chosen next. */
  take(source) {
    [this.source, this.own] = [source, true];
  }

  /** Offers examples of what a model's images are like; the first is the picture, unless somebody has brought one. */
  async offer({ channels }) {
    const kind = channels < 3 ? "grey" : "colour";
    if (kind === this.kind && this.source) return; // without one it could not be loaded before
    this.kind = kind;
    if (!this.own) this.source = null; // it is of the other kind
    const names = Object.entries(EXAMPLES[kind]);
    this.examples.replaceChildren(
      ...names.map(([name, told]) => {
        const picture = make("img", { src: addressOf(name).href, alt: "", width: 44, height: 44 });
        const onclick = () => this.trouble.around(async () => this.#choose(await load(addressOf(name)), false));
        return make("button", { type: "button", "aria-label": told, onclick }, picture);
      }),
    );
    if (this.own) return;
    const example = await load(addressOf(names[0][0]));
    if (!this.own && this.kind === kind) this.source = example; // or there was another meanwhile
  }

  #choose(source, ofFile) {
    [this.source, this.own] = [source, ofFile];
    this.onPicture(ofFile);
  }
}

async function decoded(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error(`“${file.name}” is no picture that the browser can read. Choose a PNG, JPEG, WebP or GIF.`);
  }
}
