// Models: choosing one, and its card.

import { getJson, send } from "../wire/api.js";
import { make, part, seconds, short, whole } from "./dom.js";

let cards = null;

/** The cards of all models, asked for once. */
export async function models() {
  cards ??= getJson("models").catch((error) => {
    cards = null;
    throw error;
  });
  return cards;
}

/** The card of one version, which need not be the newest. */
export async function cardOf(name, version) {
  const newest = (await models()).find((card) => card.name === name);
  return newest?.version === version ? newest : getJson(`models/${name}?version=${version}`);
}

/** Fills a select with the models, the default one first. */
export function offerModels(select, all) {
  select.replaceChildren(...all.map(({ name }) => make("option", { value: name, textContent: name })));
  if (all.some(({ name }) => name === "mnist")) select.value = "mnist";
}

/** Shows a card in an element with the parts short, description, picture and facts. */
export async function showCard(root, card) {
  part(root, "short").textContent = `${card.image.width} × ${card.image.height}, σ ${short(card.sigma_max)} to ${short(card.sigma_min)}`;
  part(root, "facts").replaceChildren(
    ...facts(card).flatMap(([term, text]) => [
      make("dt", { textContent: term }),
      make("dd", { textContent: text }),
    ]),
  );
  part(root, "description").textContent = card.description;
  await showPicture(part(root, "picture"), card);
}

function facts(card) {
  const { image, provenance, metrics } = card;
  const list = [
    ["Images", `${image.width} × ${image.height}, ${["", "grey", "grey + alpha", "colour", "colour + alpha"][image.channels]}`],
    ["Noise levels σ", `${short(card.sigma_max)} down to ${short(card.sigma_min)}${card.sigmas ? `, ${card.sigmas.length} of them` : ""}`],
    ["Version", String(card.version)],
  ];
  if (card.classes) list.splice(2, 0, ["Classes", few(card.classes)]);
  const trained = [
    provenance.images && `${whole(provenance.images)} images`,
    provenance.steps && `${whole(provenance.steps)} steps`,
    provenance.wall_seconds && `${seconds(provenance.wall_seconds)}`,
    provenance.parameters && `${whole(provenance.parameters)} parameters`,
    provenance.guidance && "guided by a smaller model",
  ].filter(Boolean);
  if (trained.length) list.push(["Training", trained.join(", ")]);
  const best = metrics.quality?.samplers?.[0];
  if (best) {
    const text = `Fréchet distance ${best.distance.toFixed(2)}, ${(100 * best.recognised).toFixed(0)} % recognised, recall ${best.recall.toFixed(2)}`;
    list.push(["Quality", `${text} (${best.sampler.name.replaceAll("_", " ")}, ${best.evaluations} evaluations an image)`]);
  }
  return list;
}

/** A list of names, cut where it grows long. */
function few(names, most = 20) {
  return names.length > most ? `${names.slice(0, most).join(", ")}, … (${names.length})` : names.join(", ");
}

/** The model's own picture, where its card's Link header says that there is one. */
async function showPicture(picture, card) {
  picture.hidden = true;
  const { headers } = await send(`models/${card.name}?version=${card.version}`);
  if (!/rel="preview"/.test(headers.get("Link") ?? "")) return;
  const blob = await (await send(`models/${card.name}/preview.png?version=${card.version}`)).blob();
  URL.revokeObjectURL(picture.src);
  picture.src = URL.createObjectURL(blob);
  picture.alt = `Samples of ${card.name}`;
  picture.hidden = false;
}
