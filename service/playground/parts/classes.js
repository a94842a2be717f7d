// Choosing the classes of images, and how far they are led there; for models that know any.

import { copyOf, make, part, short } from "./dom.js";

let forms = 0; // every field needs an id of its own

export class ClassForm {
  /**
   * @param {Element} place is replaced by the form.
   * @param {boolean} known whether something is known of the images that are asked for.
   */
  constructor(place, known = false) {
    this.known = known;
    this.root = copyOf("class-form");
    place.replaceWith(this.root);
    const id = `class-form-${++forms}`;
    for (const name of ["weight", "lowest", "highest"]) {
      part(this.root, name).id = part(this.root, `${name}-label`).htmlFor = `${id}-${name}`;
    }
    part(this.root, "choices").setAttribute("aria-labelledby", (part(this.root, "label").id = `${id}-label`));
    this.choices = part(this.root, "choices");
    this.guidance = part(this.root, "guidance");
    this.weight = part(this.root, "weight");
    this.slider = part(this.root, "slider");
    this.weight.setAttribute("aria-describedby", (part(this.root, "cost").id = `${id}-cost`));
    this.slider.addEventListener("input", () => {
      this.weight.value = this.slider.value;
      this.#tell();
    });
    this.weight.addEventListener("input", () => this.#tell());
  }

  /** Offers the classes of a model; `job` is one to be asked for again. */
  offer(card, job = null) {
    this.card = card;
    this.pressed = job?.labels ?? [];
    this.root.hidden = !card.classes;
    this.guidance.hidden = Boolean(card.abilities.guidance.why_not);
    this.choices.replaceChildren(...(card.classes ?? []).map((name, label) => this.#choice(name, label)));
    this.weight.value = job?.guidance ?? "";
    this.weight.placeholder = short(this.#usual);
    [part(this.root, "lowest").value, part(this.root, "highest").value] = job?.guidance_interval ?? ["", ""];
    part(this.root, "highest").placeholder = short(card.sigma_max);
    this.#tell();
  }

  /** What is asked for, as the service takes it; nothing that is left as it is. */
  value(count) {
    const { pressed } = this;
    if (!this.card.classes || !this.#led) return {};
    const body = pressed.length > 1 ? { labels: pressed.slice(0, count) } : pressed.length ? { label: pressed[0] } : {};
    if (this.guidance.hidden) return body;
    if (this.weight.value !== "" && this.weight.valueAsNumber !== this.#usual) body.guidance = this.weight.valueAsNumber;
    if (!this.guided) return body;
    const [lowest, highest] = ["lowest", "highest"].map((name) => part(this.root, name));
    if (lowest.value !== "" || highest.value !== "") {
      const least = lowest.value === "" ? 0 : lowest.valueAsNumber;
      body.guidance_interval = [least, highest.value === "" ? this.card.sigma_max : highest.valueAsNumber];
    }
    return body;
  }

  /** Whether each image is of a class: one that is pressed, or one that the seed draws. */
  get #led() {
    return this.pressed.length > 0 || (this.card.draws_labels && !this.known);
  }

  get guided() {
    return !this.guidance.hidden && this.#led && this.#weight !== 1;
  }

  /** How far images are led. */
  get #weight() {
    return this.weight.value === "" ? this.#usual : this.weight.valueAsNumber;
  }

  /** The same where nothing is said of it. */
  get #usual() {
    return this.known ? 1 : (this.card.guidance ?? 1);
  }

  #choice(name, label) {
    const button = make("button", { type: "button", textContent: name, "aria-pressed": String(this.pressed.includes(label)) });
    button.addEventListener("click", () => {
      const on = !this.pressed.includes(label);
      button.setAttribute("aria-pressed", String(on));
      this.pressed = on ? [...this.pressed, label] : this.pressed.filter((other) => other !== label);
      this.#tell();
    });
    return button;
  }

  /** Says what will come of it. */
  #tell() {
    const { pressed, slider } = this;
    const names = [...new Set(pressed)].map((label) => this.card.classes[label]);
    const none = this.#led
      ? "Images of classes that the seed draws."
      : this.card.needs_label
        ? "Images of one class after another."
        : "Images of no class in particular.";
    part(this.root, "turns").textContent =
      names.length > 1 ? `In turn: ${names.join(", ")}.` : names.length ? `All images: ${names[0]}.` : `${none} Press one, or several.`;
    for (const input of this.guidance.querySelectorAll("input")) input.disabled = !this.#led;
    slider.value = this.#weight;
    slider.setAttribute("aria-valuetext", slider.value);
    part(this.root, "cost").textContent = !this.#led
      ? "Choose a class to be led to."
      : this.guided
        ? "Plainer images of the class, more alike; a guided step costs twice."
        : "1 is none; more leads further to the class.";
  }
}
