// The mask as it is painted: which pixels of a picture are to be repainted, and how it came to that.

const KEPT_STATES = 100;

export class Mask {
  constructor(width, height, marked = null) {
    this.width = width;
    this.height = height;
    this.pixels = marked ?? new Uint8Array(width * height);
    this.past = [];
  }

  get empty() {
    return !this.pixels.includes(1);
  }

  /** Remembers how it is, before something is done. */
  remember() {
    this.past.push(this.pixels.slice());
    if (this.past.length > KEPT_STATES) this.past.shift();
  }

  undo() {
    this.pixels = this.past.pop() ?? this.pixels;
  }

  /** Sets all pixels whose centre is within half of `size` of a point, or that it is in. */
  dab(x, y, size, value) {
    const radius = size / 2;
    this.#each(Math.floor(x - radius), Math.floor(y - radius), Math.ceil(x + radius), Math.ceil(y + radius), (i, px, py) => {
      const inside = (px === Math.floor(x) && py === Math.floor(y)) || Math.hypot(px + 0.5 - x, py + 0.5 - y) <= radius;
      if (inside) this.pixels[i] = value;
    });
  }

  /** Dabs from one point to another, without gaps. */
  stroke(from, to, size, value) {
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(to.x - from.x, to.y - from.y)));
    for (let i = 0; i <= steps; i++) {
      this.dab(from.x + ((to.x - from.x) * i) / steps, from.y + ((to.y - from.y) * i) / steps, size, value);
    }
  }

  /** Marks all pixels that a rectangle between two points touches. */
  rectangle(from, to) {
    const [left, right] = [Math.min(from.x, to.x), Math.max(from.x, to.x)].map(Math.floor);
    const [top, bottom] = [Math.min(from.y, to.y), Math.max(from.y, to.y)].map(Math.floor);
    this.#each(left, top, right, bottom, (i) => {
      this.pixels[i] = 1;
    });
  }

  invert() {
    this.pixels = this.pixels.map((value) => 1 - value);
  }

  clear() {
    this.pixels = new Uint8Array(this.width * this.height);
  }

  #each(left, top, right, bottom, act) {
    for (let y = Math.max(0, top); y <= Math.min(this.height - 1, bottom); y++) {
      for (let x = Math.max(0, left); x <= Math.min(this.width - 1, right); x++) act(y * this.width + x, x, y);
    }
  }

  /** Draws it on a canvas of its size, in one colour, transparent elsewhere. */
  draw(context, [red, green, blue, alpha]) {
    const image = context.createImageData(this.width, this.height);
    this.pixels.forEach((value, i) => image.data.set(value ? [red, green, blue, alpha] : [0, 0, 0, 0], 4 * i));
    context.putImageData(image, 0, 0);
  }

  /** As the service takes it: white is repainted, black kept. */
  toCanvas() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.width, this.height];
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const image = context.createImageData(this.width, this.height);
    this.pixels.forEach((value, i) => image.data.set([255 * value, 255 * value, 255 * value, 255], 4 * i));
    context.putImageData(image, 0, 0);
    return canvas;
  }
}
