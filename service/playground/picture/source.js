// Where a picture comes from: a file that is chosen or dropped, or an example.

import { copyOf, make, part } from "../parts/dom.js";
import { load } from "./pictures.js";

const EXAMPLES = ["two", "three", "four", "five", "eight", "nine"];

const addressOf = (name) => new URL(`../examples/${name}.png`, import.meta.url);

/** The picture to begin with. */
export const first = () => load(addressOf(EXAMPLES[0]));

/**
 * Lets a form offer pictures.
 *
 * @param {Element} place is replaced by the fields.
 * @param {{around}} trouble says what goes wrong.
 * @param {(source, ofFile: boolean) => void} onPicture takes anything that can be drawn.
 */
export function offerPictures(place, trouble, onPicture) {
  const zone = copyOf("picture-fields");
  place.replaceWith(zone);
  const [examples, input] = [part(zone, "examples"), zone.querySelector("[type=file]")];
  const take = (file) => file && trouble.around(async () => onPicture(await decoded(file), true));
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
  examples.append(
    ...EXAMPLES.map((name) => {
      const picture = make("img", { src: addressOf(name).href, alt: "", width: 44, height: 44 });
      const onclick = () => trouble.around(async () => onPicture(await load(addressOf(name)), false));
      return make("button", { type: "button", "aria-label": `Handwritten ${name}`, onclick }, picture);
    }),
  );
}

async function decoded(file) {
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Error(`“${file.name}” is no picture that the browser can read. Choose a PNG, JPEG, WebP or GIF.`);
  }
}
