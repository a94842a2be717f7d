// What is sensible for a sampler's setting: narrower than what the service takes.

import { short } from "./dom.js";

const SENSIBLE = {
  levels: [5, 100],
  steps_per_level: [1, 20],
  steps: [10, 500],
  rho: [1, 10],
  eta: [0.05, 1.5],
  churn: [0, 5],
};

/**
 * @param {{name, maximum}} parameter of a sampler.
 * @param {{sigma_min, sigma_max}} card of the model.
 * @param {number|null} fallback what the card has of it; one that has less than others is sensible about that.
 * @returns {{low, high, logarithmic}|null} null where the range cannot be told.
 */
export function sensible({ name, maximum }, card, fallback = null) {
  const range = SENSIBLE[name];
  if (range) {
    const [low, high] = fallback !== null && fallback < range[0] ? [Math.min(1, fallback), 2 * fallback] : range;
    return { low, high: Math.min(high, maximum ?? high), logarithmic: low > 0 && high / low > 30 };
  }
  if (/^sigma|^churn_/.test(name)) return { low: card.sigma_min, high: card.sigma_max, logarithmic: true };
  return null;
}

/** "5 to 100", as a hint. */
export const told = ({ low, high }) => `${short(low)} to ${short(high)}`;

/** A slider's place in 0..1000 for a value, and back. */
export function toPlace({ low, high, logarithmic }, value) {
  const at = logarithmic ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low);
  return Math.round(1000 * Math.min(1, Math.max(0, at)));
}

export function toValue({ low, high, logarithmic }, place, integer) {
  const at = place / 1000;
  const value = logarithmic ? low * (high / low) ** at : low + (high - low) * at;
  return integer ? Math.round(value) : Number(value.toPrecision(3));
}
