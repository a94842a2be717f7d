// The same request outside the browser.

import { BASE, key } from "./api.js";

const address = (path) => new URL(path, BASE).href;

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** What gives the same images again: every setting in full, and the seed. */
export function bodyOf(job, pictures = {}) {
  const { model, version, count, seed, sampler, labels, guidance, guidance_interval } = job;
  const { name, ...settings } = sampler;
  const of = Object.entries({ labels, guidance, guidance_interval }).filter(([, value]) => value !== null);
  return { model, version, count, seed, sampler: { name, ...settings }, ...Object.fromEntries(of), ...pictures };
}

export function curl(path, body) {
  const lines = [
    `curl -s ${address(path)}`,
    "-H 'Content-Type: application/json' -H 'Accept: image/png'",
    ...(key.get() ? ['-H "Authorization: Bearer $SCORESERVE_KEY"'] : []),
    `-d ${quoted(JSON.stringify(body))} -o grid.png`,
  ];
  return `${lines.join(" \\\n  ")}\n`;
}

export function python(path, body) {
  const withKey = Boolean(key.get());
  const headers = `"Accept": "application/x-npz"${withKey ? ', "Authorization": f"Bearer {os.environ[\'SCORESERVE_KEY\']}"' : ""}`;
  return `import io
${withKey ? "import os\n" : ""}
import httpx
import numpy as np

body = ${literal(body)}
answer = httpx.post("${address(path)}", json=body, headers={${headers}}, timeout=600)
answer.raise_for_status()
images = np.load(io.BytesIO(answer.content))["images"]  # uint8 [count, height, width, channels]
`;
}

/** JSON as Python writes it. */
function literal(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  return `{${Object.entries(value)
    .map(([name, item]) => `${JSON.stringify(name)}: ${literal(item)}`)
    .join(", ")}}`;
}
