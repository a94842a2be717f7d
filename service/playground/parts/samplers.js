// Choosing a sampler and its settings. What is left empty comes from the model's card.

import { getJson } from "../wire/api.js";
import { copyOf, make, part, short } from "./dom.js";
import { sensible, toPlace, toValue, told } from "./ranges.js";

const DISAGREES = "It does not go back: what it makes agrees less with what is kept.";

let known = null;
let titles = new Map();

/** All samplers, asked for once. */
export async function samplers() {
  known ??= getJson("samplers").then(
    (all) => {
      titles = new Map(all.map(({ name, title }) => [name, title]));
      return all;
    },
    (error) => {
      known = null;
      throw error;
    },
  );
  return known;
}

/** What a sampler is called everywhere on the page. */
export const titleOf = (name) => titles.get(name) ?? name.replaceAll("_", " ");

let fields = 0; // every field needs an id of its own

export class SamplerForm {
  /**
   * @param {Element} place is replaced by the form.
   * @param {boolean} known whether something is known of the images that are asked for.
   */
  constructor(place, { label = "Sampler", known = false } = {}) {
    this.known = known;
    const root = copyOf("sampler-form");
    place.replaceWith(root);
    const id = `field-${++fields}`;
    Object.assign(part(root, "label"), { htmlFor: id, textContent: label });
    part(root, "sampler").id = id;
    this.select = part(root, "sampler");
    this.about = part(root, "about");
    this.settings = part(root, "settings");
    this.inputs = new Map();
    this.select.addEventListener("change", () => this.#draw({}));
  }

  /** Offers the samplers that a model can do; `chosen` is a sampler's settings or name, else the card's own. */
  offer(all, card, chosen = null) {
    const can = card.abilities.samplers.filter(({ why_not }) => why_not === null).map(({ name }) => name);
    this.all = all.filter(({ name, needs_known }) => can.includes(name) && (this.known || !needs_known));
    this.card = card;
    const options = this.all.map(({ name, title }) => make("option", { value: name, textContent: title }));
    this.select.replaceChildren(...options);
    this.select.value = chosen?.name ?? chosen ?? this.#usual;
    if (this.select.value === "") this.select.value = this.#usual;
    this.#draw(typeof chosen === "string" ? {} : (chosen ?? {}));
  }

  /** The settings as the service takes them; those of empty fields are left out. */
  get value() {
    const settings = { name: this.select.value };
    for (const [name, read] of this.inputs) {
      const value = read();
      if (value !== null) settings[name] = value;
    }
    return settings;
  }

  get title() {
    return this.select.selectedOptions[0]?.textContent ?? "";
  }

  /** The sampler by default: where something is known the card's own for that, or else the one that needs it. */
  get #usual() {
    const knowing = this.all.find(({ needs_known }) => needs_known);
    return (this.known && (this.card.inpainting ?? knowing)?.name) || this.card.sampler.name;
  }

  #draw(values) {
    const sampler = this.all.find(({ name }) => name === this.select.value);
    const ofCard = [this.card.sampler, ...this.card.samplers, ...(this.card.inpainting ? [this.card.inpainting] : [])];
    const own = ofCard.find(({ name }) => name === sampler.name) ?? {};
    const agrees = !this.known || sampler.needs_known || !this.all.some(({ needs_known }) => needs_known);
    this.about.textContent = agrees ? sampler.description : `${sampler.description} ${DISAGREES}`;
    this.inputs.clear();
    this.settings.replaceChildren(
      ...sampler.parameters.map((parameter) => {
        const { name, description } = parameter;
        if (Number.isFinite(own[name])) {
          const other = description.replace(/[,:;] (all|none|\d+|the model's own) by default/, "");
          parameter = { ...parameter, description: `${other} ${this.card.name} has ${short(own[name])} by default.` };
        }
        const fallback = own[name] ?? parameter.default ?? this.#ofCard(name);
        return this.#field(parameter, fallback, values[name] ?? null);
      }),
    );
  }

  #ofCard(name) {
    return name === "sigma_max" || name === "sigma_min" ? this.card[name] : null;
  }

  #field(parameter, fallback, value) {
    const id = `field-${++fields}`;
    const label = make("label", { htmlFor: id, textContent: parameter.name.replaceAll("_", " ") });
    const hint = make("p", { id: `${id}-hint`, className: "hint", textContent: parameter.description });
    const control =
      parameter.type === "boolean"
        ? this.#choice(parameter, fallback, value)
        : parameter.type === "array"
          ? this.#list(parameter, fallback, value)
          : this.#number(parameter, fallback, value, label.textContent, hint);
    const input = control.querySelector("input:not([type=range]), select");
    input.id = id;
    input.name = parameter.name;
    input.setAttribute("aria-describedby", hint.id);
    return make("div", { className: "field" }, label, control, hint);
  }

  #choice(parameter, fallback, value) {
    const usual = fallback === null ? "as the model's card says" : `usual (${fallback ? "yes" : "no"})`;
    const options = [["", usual], ["true", "yes"], ["false", "no"]];
    const select = make("select", {}, ...options.map(([v, t]) => make("option", { value: v, textContent: t })));
    select.value = value === null ? "" : String(value);
    this.inputs.set(parameter.name, () => (select.value ? select.value === "true" : null));
    return make("div", { className: "control" }, select);
  }

  /** Numbers, with spaces or commas between them. */
  #list(parameter, fallback, value) {
    const input = make("input", { type: "text", inputMode: "decimal", autocomplete: "off" });
    input.placeholder = fallback === null ? "none" : fallback.map(short).join(", ");
    input.value = value?.join(", ") ?? "";
    const numbers = () =>
      (input.value.match(/[^\s,;]+/g) ?? []).map((text) => (Number.isFinite(Number(text)) ? Number(text) : text));
    input.addEventListener("input", () => {
      const valid = numbers().every(Number.isFinite);
      input.setCustomValidity(valid ? "" : "Numbers, with commas between them.");
    });
    this.inputs.set(parameter.name, () => (numbers().length ? numbers() : null));
    return make("div", { className: "control" }, input);
  }

  #number(parameter, fallback, value, name, hint) {
    const integer = parameter.type === "integer";
    const input = make("input", { type: "number", step: integer ? "1" : "any" });
    input.placeholder = fallback === null ? "auto" : short(fallback);
    if (parameter.minimum !== null) input.min = parameter.minimum;
    if (parameter.maximum !== null) input.max = parameter.maximum;
    input.value = value ?? "";
    this.inputs.set(parameter.name, () => (input.value === "" ? null : input.valueAsNumber));
    const range = sensible(parameter, this.card, fallback);
    if (!range) return make("div", { className: "control" }, input);
    hint.textContent += ` Sensible: ${told(range)}.${fallback === null ? " Auto: the service chooses." : ""}`;
    const step = integer && !range.logarithmic ? 1000 / (range.high - range.low) : 1; // of a key: at least to the next
    const slider = make("input", { type: "range", min: 0, max: 1000, step, "aria-label": `${name}, slider` });
    const follow = () => {
      const current = input.value === "" ? fallback : input.valueAsNumber;
      const auto = current === null; // in the middle and pale: it is at no value
      slider.value = auto ? 500 : current > 0 ? toPlace(range, current) : 0;
      slider.classList.toggle("auto", auto);
      slider.setAttribute("aria-valuetext", auto ? "auto" : short(current));
    };
    const [stem, end] = [parameter.name.slice(0, -3), parameter.name.slice(-3)];
    slider.addEventListener("input", () => {
      // The highest stays above the lowest.
      const other = this.settings.querySelector(`[name=${stem}${{ max: "min", min: "max" }[end]}]`)?.previousSibling;
      if (other && !other.matches(".auto")) slider.value = Math[end](slider.value, +other.value + (end === "max" ? 10 : -10));
      input.value = toValue(range, slider.valueAsNumber, integer);
      slider.classList.remove("auto");
      slider.setAttribute("aria-valuetext", input.value);
    });
    input.addEventListener("input", follow);
    follow();
    return make("div", { className: "control" }, slider, input);
  }
}
