// What is sensible for a sampler's setting: narrower than what the service takes.

import { short } from "./dom.js";

const SENSIBLE = {
  levels: [5, 100],
  steps_per_level: [1, 20],
  steps: [10, 500],
  rho: [1, 10],
  eta: [0.05, 1.5],
};

/**
 * @returns {{low, high, logarithmic}|null} for a setting of a sampler; null where the range cannot be told.
 */
export function sensible(name, card) {
  if (SENSIBLE[name]) {
    const [low, high] = SENSIBLE[name];
    return { low, high, logarithmic: high / low > 30 };
  }
  if (name.startsWith("sigma")) return { low: card.sigma_min, high: card.sigma_max, logarithmic: true };
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
