// Pictures of any size, made into what a model takes.

import { make } from "../parts/dom.js";

/** The picture at an address. */
export async function load(address) {
  const picture = new Image();
  picture.src = address;
  await picture.decode();
  return picture;
}

/**
 * A picture brought to a model's size and channels, cropped to its proportions around the centre.
 *
 * @param source anything that can be drawn.
 * @param {{width, height, channels}} shape of the model's images.
 * @param {boolean} negative whether black and white change places.
 * @param {boolean} byLight whether light pixels are marked, not transparent ones.
 * @returns {{picture: HTMLCanvasElement, marked: Uint8Array}} marked: 1 where the picture was transparent.
 */
export function fitted(source, { width, height, channels }, negative, byLight = false) {
  const canvas = make("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const [w, h] = [source.naturalWidth ?? source.width, source.naturalHeight ?? source.height];
  const scale = Math.min(w / width, h / height);
  const [sw, sh] = [scale * width, scale * height];
  context.imageSmoothingQuality = "high";
  context.imageSmoothingEnabled = w !== width || h !== height;
  context.drawImage(source, (w - sw) / 2, (h - sh) / 2, sw, sh, 0, 0, width, height);
  const image = context.getImageData(0, 0, width, height);
  const marked = new Uint8Array(width * height);
  for (let i = 0; i < marked.length; i++) {
    const pixel = image.data.subarray(4 * i, 4 * i + 4);
    marked[i] = byLight ? pixel[0] >= 128 : pixel[3] < 128;
    const light = Math.round((pixel[0] * 299 + pixel[1] * 587 + pixel[2] * 114) / 1000);
    for (let channel = 0; channel < 3; channel++) {
      const value = channels < 3 ? light : pixel[channel];
      pixel[channel] = negative ? 255 - value : value;
    }
    pixel[3] = 255;
  }
  context.putImageData(image, 0, 0);
  return { picture: canvas, marked };
}

/** A canvas as a base64 PNG. */
export const inImage = (canvas) => canvas.toDataURL("image/png").split(",")[1];
