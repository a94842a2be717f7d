// The score of a model of the plane, known on grids at some noise levels, and samplers that follow it.

/** Scores between the levels and the points at which the service tells them. */
export class Field {
  /** @param {{sigmas, half_widths, scores}} told of `GET /models/{name}/scores`. */
  constructor({ sigmas, half_widths: widths, scores }) {
    this.logs = sigmas.map(Math.log);
    this.sigmas = sigmas;
    this.widths = widths;
    this.side = scores[0].length;
    this.grids = scores.map((rows) => Float32Array.from(rows.flat(2)));
  }

  /** A function that writes the score of a noise level at (x, y) into `out`. */
  at(sigma) {
    const log = Math.log(sigma);
    let upper = this.logs.findIndex((other) => other <= log);
    if (upper < 0) upper = this.logs.length - 1;
    const lower = Math.max(0, upper - 1);
    const span = this.logs[lower] - this.logs[upper];
    const share = span ? Math.min(1, Math.max(0, (this.logs[lower] - log) / span)) : 1;
    const other = [0, 0];
    return (x, y, out) => {
      this.#read(upper, x, y, out);
      this.#read(lower, x, y, other);
      out[0] = share * out[0] + (1 - share) * other[0];
      out[1] = share * out[1] + (1 - share) * other[1];
    };
  }

  /** Bilinear on the grid of a level; outside of it as at its edge, further out. */
  #read(level, x, y, out) {
    const { side } = this;
    const [grid, width] = [this.grids[level], this.widths[level]];
    const scale = (side - 1) / (2 * width);
    const [u, v] = [(x - 0.5 + width) * scale, (y - 0.5 + width) * scale];
    const column = Math.min(side - 2, Math.max(0, Math.floor(u)));
    const row = Math.min(side - 2, Math.max(0, Math.floor(v)));
    const [a, b] = [u - column, v - row];
    const first = 2 * (row * side + column);
    for (let i = 0; i < 2; i++) {
      const below = grid[first + i] * (1 - a) + grid[first + 2 + i] * a;
      const above = grid[first + 2 * side + i] * (1 - a) + grid[first + 2 * side + 2 + i] * a;
      out[i] = below * (1 - b) + above * b;
    }
  }
}

/** A number from the standard normal distribution (Box-Muller). */
export const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());

/**
 * One step of x += a/2 score + sqrt(a) z for every point.
 *
 * @param {Float64Array} points x and y of each.
 * @param {(x, y, out) => void} score of the noise level.
 * @param {number} size a, the step size.
 * @param {boolean} noisy whether z is added: without, it is gradient ascent.
 */
export function step(points, score, size, noisy) {
  const gradient = [0, 0];
  const noise = noisy ? Math.sqrt(size) : 0;
  for (let i = 0; i < points.length; i += 2) {
    score(points[i], points[i + 1], gradient);
    points[i] += (size / 2) * gradient[0] + (noise && noise * normal());
    points[i + 1] += (size / 2) * gradient[1] + (noise && noise * normal());
  }
}

/** Noise levels from one to another, in equal ratios of at most `ratio` (Song & Ermon 2019, section 4.3). */
export function levels(from, to, ratio) {
  const count = Math.max(1, Math.ceil(Math.log(from / to) / Math.log(ratio)));
  return Array.from({ length: count + 1 }, (_, i) => from * (to / from) ** (i / count));
}
