// The noise that images begin with, made here as workers make it, so that it is seen before a worker is heard of.
// It is a function of seed, image and pixel: Philox-4x32-10 (Salmon 2011) and Box-Muller, as models/sampling/noise.py.

const MULTIPLIERS = [0xd2511f53, 0xcd9e8d57];
const WEYL = [0x9e3779b9, 0xbb67ae85];
const ROUNDS = 10;
const INITIAL = 0; // the stream of draws that images begin with
const MOST = 2 ** 21; // numbers that are made in an instant

/** Whether the noise of so many images is made in an instant. */
export const instant = (count, { width, height, channels }) => count * width * height * channels <= MOST;

/**
 * Image `index` of a job at its very beginning.
 *
 * @param {number} seed of the job.
 * @param {number} index of the image.
 * @param {{width, height, channels}} shape of it.
 * @param {{mean: number, std: number|null}} start a normal distribution; uniform from 0 to 1 where `std` is null.
 * @returns {ImageData} clamped to what can be seen.
 */
export function beginning(seed, index, shape, { mean, std }) {
  const { width, height, channels } = shape;
  const pixels = width * height;
  const numbers = drawn(seed, index, pixels * channels, std === null);
  const image = new ImageData(width, height);
  const grey = channels < 3;
  for (let i = 0; i < pixels; i++) {
    for (let channel = 0; channel < 4; channel++) {
      const own = channel === 3 ? channels - 1 : grey ? 0 : channel;
      const opaque = channel === 3 && channels % 2 === 1;
      const number = numbers[own * pixels + i];
      image.data[4 * i + channel] = opaque ? 255 : 255 * (std === null ? number : mean + std * number);
    }
  }
  return image;
}

/** Standard normal numbers, or uniform ones in (0, 1). */
function drawn(seed, index, size, uniform) {
  const blocks = Math.ceil(size / 16) * 4;
  const words = new Uint32Array(4 * blocks); // all first words, then all second ones, ...
  const key = [seed >>> 0, Math.floor(seed / 2 ** 32)];
  for (let block = 0; block < blocks; block++) {
    philox([block, 0, index, INITIAL], key).forEach((word, i) => {
      words[i * blocks + block] = word;
    });
  }
  const out = new Float64Array(size);
  for (let i = 0; i < size; i++) {
    if (uniform) {
      out[i] = ((words[i] >>> 8) + 0.5) * 2 ** -24;
      continue;
    }
    const pair = i % (2 * blocks);
    const radius = Math.sqrt(-2 * Math.log((words[pair] + 0.5) * 2 ** -32));
    const angle = 2 * Math.PI * (words[pair + 2 * blocks] + 0.5) * 2 ** -32;
    out[i] = radius * (i < 2 * blocks ? Math.cos(angle) : Math.sin(angle));
  }
  return out;
}

function philox([c0, c1, c2, c3], [k0, k1]) {
  for (let round = 0; round < ROUNDS; round++) {
    const [high0, high1] = [high(c0, MULTIPLIERS[0]), high(c2, MULTIPLIERS[1])];
    const [low0, low1] = [Math.imul(c0, MULTIPLIERS[0]), Math.imul(c2, MULTIPLIERS[1])];
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1 >>> 0, (high0 ^ c3 ^ k1) >>> 0, low0 >>> 0];
    [k0, k1] = [(k0 + WEYL[0]) >>> 0, (k1 + WEYL[1]) >>> 0];
  }
  return [c0, c1, c2, c3];
}

/** The high word of the product of two words of 32 bits. */
function high(a, b) {
  const [a0, a1, b0, b1] = [a & 0xffff, a >>> 16, b & 0xffff, b >>> 16];
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const carry = a0 * b1 + (middle & 0xffff);
  return (a1 * b1 + Math.floor(middle / 65536) + Math.floor(carry / 65536)) >>> 0;
}
