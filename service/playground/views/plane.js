// The view “The plane”: the scores that a model has learnt of two Gaussians, and chains that follow them.

import { getJson } from "../wire/api.js";
import { byId, copyOf, part, plural, short } from "../parts/dom.js";
import { models, ofPlane } from "../parts/models.js";
import { samplers, titleOf } from "../parts/samplers.js";
import { still } from "../parts/scrubber.js";
import { Trouble } from "../parts/trouble.js";
import { Field, levels, step } from "../picture/field.js";

const MODES = [[0.25, "1/5 of the data"], [0.75, "4/5 of the data"]]; // where they are, in both coordinates
const SPREAD = 0.05; // standard deviation of a mode
const CHAINS = 300;
const MARGIN = 0.08; // around the square from 0 to 1 that all chains start in
const ARROWS = 22; // along a side
const RATIO = 1.8; // between two levels of the annealing
const STEPS = 40; // at each of them
const PERIOD_MS = 16; // of a step
const MOST_STEPS = 4; // at once, where frames come late
const TELL_MS = 250;

const PANELS = [
  {
    name: "follow_scores",
    look: "No noise: each chain goes uphill to the nearest mode, and all of them end on two points.",
  },
  {
    name: "langevin",
    look: "Noise at one level: the modes get their width. How many chains each has, the start has decided.",
  },
  {
    name: "annealed_langevin",
    look: "From large noise to small: while the hills are one, chains find their share of each.",
  },
];

export class PlaneView {
  constructor() {
    this.root = byId("plane");
    this.form = part(this.root, "form");
    this.trouble = new Trouble(part(this.root, "trouble"), this.form);
    this.slider = this.form.elements.sigma;
    this.frame = 0;
    this.slider.addEventListener("input", () => this.#turn());
    part(this.root, "play").addEventListener("click", () => (this.frame ? this.#pause() : this.#play()));
    part(this.root, "again").addEventListener("click", () => {
      this.#begin();
      this.#play();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
    new MutationObserver(() => this.#paint()).observe(document.documentElement, { attributeFilter: ["data-theme"] });
    addEventListener("resize", () => this.#paint());
  }

  async open() {
    await this.trouble.around(async () => {
      await this.#load();
      this.#paint();
      if (!still()) this.#play();
    });
  }

  close() {
    this.#pause();
  }

  async #load() {
    if (this.field) return;
    const [all] = await Promise.all([models(), samplers()]);
    const card = all.find(ofPlane);
    if (!card) {
      throw new Error("No model of the plane is served here. Train one in a minute: scoreserve train toy2d --out runs/toy2d");
    }
    const field = new Field(await getJson(`models/${card.name}/scores?version=${card.version}`));
    part(this.root, "model").textContent = `${card.name}, version ${card.version}`;
    this.panels = PANELS.map(({ name, look }) => {
      const root = copyOf("plane-panel");
      part(root, "title").textContent = titleOf(name);
      part(root, "look").textContent = look;
      const canvas = part(root, "canvas");
      canvas.setAttribute("aria-label", `Arrows of the score, and ${CHAINS} chains under ${titleOf(name)}`);
      const [below, above] = [canvas, part(root, "chains")].map((each) => each.getContext("2d"));
      return { name, root, below, above, tell: part(root, "tell"), points: new Float64Array(2 * CHAINS) };
    });
    part(this.root, "panels").replaceChildren(...this.panels.map(({ root }) => root));
    this.field = field;
    this.#begin();
  }

  /** The noise level of the slider, whose places are equal ratios. */
  get #sigma() {
    const { sigmas } = this.field;
    const [high, low] = [sigmas[0], sigmas.at(-1)];
    return low * (high / low) ** (this.slider.valueAsNumber / Number(this.slider.max));
  }

  /** Puts all chains back to one start, the same in every panel. */
  #begin() {
    const starts = Float64Array.from({ length: 2 * CHAINS }, Math.random);
    for (const panel of this.panels) panel.points.set(starts);
    this.steps = 0;
    this.#turn();
  }

  /** The slider stands elsewhere: what goes on at one level goes on there, and what is annealed begins again. */
  #turn() {
    const sigma = this.#sigma;
    this.slider.setAttribute("aria-valuetext", `σ ${short(sigma)}`);
    part(this.root, "sigma").textContent = short(sigma);
    const annealing = this.panels.at(-1);
    this.ladder = levels(Math.max(sigma, this.field.sigmas[0]), sigma, RATIO);
    this.rung = 0;
    if (this.steps) annealing.points.set(Float64Array.from(annealing.points, Math.random));
    for (const panel of this.panels) this.#level(panel, panel === annealing ? this.ladder[0] : sigma);
    this.rested = 0;
    this.#paint();
  }

  #level(panel, sigma) {
    panel.sigma = sigma;
    panel.score = this.field.at(sigma);
    // The step of Song & Ermon 2019, Algorithm 1, grows as sigma^2; at one small level a mode's own width bounds it.
    panel.size = panel.name === "annealed_langevin" ? sigma ** 2 : 0.1 * (sigma ** 2 + SPREAD ** 2);
    panel.stale = true;
  }

  #play() {
    if (this.frame || !this.field) return;
    part(this.root, "play").textContent = "Pause";
    let [before, told] = [performance.now(), 0];
    let owed = 0;
    const next = (now) => {
      owed = Math.min(MOST_STEPS, owed + (now - before) / PERIOD_MS);
      before = now;
      for (; owed >= 1; owed--) this.#step();
      const begun = performance.now();
      this.#draw();
      this.root.dataset.frames = Number(this.root.dataset.frames ?? 0) + 1;
      this.root.dataset.milliseconds = performance.now() - begun;
      if (now - told > TELL_MS) {
        told = now;
        this.#tell();
      }
      this.frame = requestAnimationFrame(next);
    };
    this.frame = requestAnimationFrame(next);
  }

  #pause() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    part(this.root, "play").textContent = "Play";
  }

  #step() {
    this.steps += 1;
    for (const panel of this.panels) step(panel.points, panel.score, panel.size, panel.name !== "follow_scores");
    this.rested += 1;
    if (this.rested >= STEPS && this.rung < this.ladder.length - 1) {
      this.rested = 0;
      this.rung += 1;
      this.#level(this.panels.at(-1), this.ladder[this.rung]);
    }
  }

  /** Draws everything anew: another level, size or theme. */
  #paint() {
    if (!this.field || this.root.hidden) return;
    for (const panel of this.panels) panel.stale = true;
    this.#draw();
    this.#tell();
  }

  #draw() {
    for (const panel of this.panels) {
      if (panel.stale) this.#arrows(panel);
      panel.stale = false;
      this.#chains(panel);
    }
  }

  /** Where the model's score points, and how strongly; and the modes of the data. */
  #arrows({ below, score }) {
    const size = fit(below.canvas);
    const style = getComputedStyle(this.root);
    const [line, mode, ground] = ["--soft", "--warm", "--ground"].map((name) => style.getPropertyValue(name));
    below.clearRect(0, 0, size, size);
    const scale = size / (1 + 2 * MARGIN);
    const place = (x, y) => [(x + MARGIN) * scale, size - (y + MARGIN) * scale];
    below.lineWidth = Math.max(1, size / 500);
    below.strokeStyle = mode;
    for (const [middle] of MODES) {
      for (const radius of [1, 2]) {
        below.globalAlpha = radius === 1 ? 0.9 : 0.45;
        below.beginPath();
        below.arc(...place(middle, middle), radius * SPREAD * scale, 0, 2 * Math.PI);
        below.stroke();
      }
    }
    below.strokeStyle = line;
    below.globalAlpha = 0.8;
    below.beginPath();
    const gap = (1 + 2 * MARGIN) / ARROWS;
    const gradient = [0, 0];
    for (let i = 0; i < ARROWS; i++) {
      for (let j = 0; j < ARROWS; j++) {
        const [x, y] = [(i + 0.5) * gap - MARGIN, (j + 0.5) * gap - MARGIN];
        score(x, y, gradient);
        const strength = Math.hypot(...gradient);
        const length = (0.85 * gap * Math.min(1, 0.25 + 0.16 * Math.log1p(strength))) / (strength || 1);
        arrow(below, place(x, y), place(x + length * gradient[0], y + length * gradient[1]));
      }
    }
    below.stroke();
    below.globalAlpha = 1;
    below.font = `600 ${Math.round(size / 26)}px system-ui, sans-serif`;
    below.textAlign = "center";
    below.fillStyle = mode;
    below.strokeStyle = ground;
    below.lineWidth = size / 60;
    for (const [middle, words] of MODES) {
      const [x, y] = place(middle, middle - 4 * SPREAD);
      below.strokeText(words, x, y);
      below.fillText(words, x, y);
    }
  }

  #chains({ above, points }) {
    const size = fit(above.canvas);
    const scale = size / (1 + 2 * MARGIN);
    const radius = Math.max(1.5, size / 170);
    above.clearRect(0, 0, size, size);
    above.fillStyle = getComputedStyle(this.root).getPropertyValue("--accent");
    above.beginPath();
    for (let i = 0; i < points.length; i += 2) {
      const [x, y] = [(points[i] + MARGIN) * scale, size - (points[i + 1] + MARGIN) * scale];
      above.moveTo(x + radius, y);
      above.arc(x, y, radius, 0, 2 * Math.PI);
    }
    above.fill();
  }

  /** In words: the noise level, and how many chains are on the side of the mode that has four fifths of the data. */
  #tell() {
    for (const { tell, sigma, points } of this.panels) {
      let upper = 0;
      for (let i = 0; i < points.length; i += 2) upper += points[i] + points[i + 1] > 1;
      tell.textContent = `σ ${short(sigma)} · ${Math.round((100 * upper) / CHAINS)} % are above (data: 80 %)`;
    }
    part(this.root, "steps").textContent = plural(this.steps, "step");
  }
}

/** Gives a canvas as many pixels as it covers, and says how many to a side. */
function fit(canvas) {
  const size = Math.max(1, Math.round(canvas.clientWidth * Math.min(2, devicePixelRatio)));
  if (canvas.width !== size) canvas.width = canvas.height = size;
  return size;
}

function arrow(context, [x0, y0], [x1, y1]) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.lineTo(x1 - 0.35 * dx + 0.2 * dy, y1 - 0.35 * dy - 0.2 * dx);
  context.moveTo(x1, y1);
  context.lineTo(x1 - 0.35 * dx - 0.2 * dy, y1 - 0.35 * dy + 0.2 * dx);
}
