// Small helpers for elements and numbers.

export const byId = (id) => document.getElementById(id);

/** An element; `on...` properties are listeners, `data-*` and `aria-*` attributes, all others properties. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "for" || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** A copy of a template's one element. */
export const copyOf = (id) => byId(id).content.firstElementChild.cloneNode(true);

/** Puts items into a list, those that stay untouched, so that the focus stays too. */
export function arrange(list, items) {
  if (items.length !== list.children.length || items.some((item, i) => item !== list.children[i])) list.replaceChildren(...items);
}

/** The element with `data-part="name"`. */
export const part = (root, name) => root.querySelector(`[data-part="${name}"]`);

export const whole = (number) => Math.round(number).toLocaleString("en");

export const short = (number) => String(Number(Number(number).toPrecision(3)));

export function seconds(value) {
  if (value < 10) return `${value.toFixed(1)} s`;
  if (value < 90) return `${Math.round(value)} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

export const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;

/** Reads out a sentence to who does not see the page. */
export function announce(sentence) {
  byId("announcer").textContent = sentence;
}
