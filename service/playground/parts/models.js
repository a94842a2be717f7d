// Models: choosing one, and its card.

import { getJson, send } from "../wire/api.js";
import { make, part, seconds, short, whole } from "./dom.js";
import { titleOf } from "./samplers.js";

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

/** Whether a model's images are points of the plane, and no pictures. */
export const ofPlane = ({ image }) => image.width * image.height === 1;

/** Fills a select with the models, the default one first. */
export function offerModels(select, all) {
  select.replaceChildren(...all.map(({ name }) => make("option", { value: name, textContent: name })));
  if (all.some(({ name }) => name === "mnist")) select.value = "mnist";
}

/** Shows a card in an element with the parts short, description and facts. */
export function showCard(root, card, all) {
  part(root, "short").textContent = `${card.image.width} × ${card.image.height}, σ ${short(card.sigma_max)} to ${short(card.sigma_min)}`;
  part(root, "facts").replaceChildren(
    ...facts(card, all).flatMap(([term, text]) => [
      make("dt", { textContent: term }),
      make("dd", { textContent: text }),
    ]),
  );
  part(root, "description").textContent = card.description;
}

function facts(card, all) {
  const { image, metrics, provenance: made } = card;
  const list = [
    ["Images", `${image.width} × ${image.height}, ${["", "grey", "grey + alpha", "colour", "colour + alpha"][image.channels]}`],
    ["Noise levels σ", `${short(card.sigma_max)} down to ${short(card.sigma_min)}${card.sigmas ? `, ${card.sigmas.length} of them` : ""}`],
    ["Version", String(card.version)],
  ];
  if (card.classes) list.splice(2, 0, ["Classes", few(card.classes)]);
  const trained = [
    made.images && `${whole(made.images)} images`,
    made.steps && `${whole(made.steps)} steps`,
    made.wall_seconds && seconds(made.wall_seconds),
    made.images_per_second && `${whole(made.images_per_second)} images/s`,
    made.parameters && `${whole(made.parameters)} parameters`,
    made.guidance && "guided by a smaller model",
  ].filter(Boolean);
  if (trained.length) list.push(["Training", trained.join(", ")]);
  const teacher = made.flows?.teacher;
  if (teacher) {
    const here = all.find(({ name }) => teacher.startsWith(`${name} `))?.version;
    const other = teacher.endsWith(` ${here}`) ? "" : ` (served here: ${here ? `version ${here}` : "none"})`;
    list.push(["Distilled from", teacher + other]);
  }
  const best = metrics.quality?.samplers?.[0];
  if (best) {
    const text = `Fréchet distance ${best.distance.toFixed(2)}, ${(100 * best.recognised).toFixed(0)} % recognised, recall ${best.recall.toFixed(2)}`;
    list.push(["Quality", `${text} (${titleOf(best.sampler.name)}, ${best.evaluations} evaluations an image)`]);
  }
  return list;
}

/** A list of names, cut where it grows long. */
function few(names, most = 20) {
  return names.length > most ? `${names.slice(0, most).join(", ")}, … (${names.length})` : names.join(", ");
}

/** Shows in a figure what a model has made before, and says how to get images of one's own. */
export async function showFirst(figure, card, how) {
  const address = `models/${card.name}`;
  figure.shown = card; // until another is chosen meanwhile, whatever comes first
  const { headers } = await send(`${address}?version=${card.version}`);
  if (figure.shown !== card) return;
  if (!/rel="preview"/.test(headers.get("Link") ?? "")) {
    figure.replaceChildren(make("figcaption", { textContent: how }));
    return;
  }
  const blob = await (await send(`${address}/preview.png?version=${card.version}`)).blob();
  if (figure.shown !== card) return;
  const picture = make("img", { src: URL.createObjectURL(blob), alt: `A grid of images of ${card.name}` });
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src));
  figure.replaceChildren(picture, make("figcaption", { textContent: `What ${card.name} has made before. ${how}` }));
}
