// Files of a job, fetched with the key and handed to the browser; and text for the clipboard.

import { send } from "./api.js";
import { announce } from "../parts/dom.js";

/** Saves what is at a path of the service. */
export async function download(path, name) {
  const blob = await (await send(path)).blob();
  save(blob, name);
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Copies text, and says so on the button for a moment. */
export async function copy(text, button) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = copyTheOldWay(text);
  }
  const label = button.dataset.label ?? button.textContent;
  button.dataset.label = label;
  button.textContent = done ? "Copied" : "Cannot copy";
  announce(done ? "Copied." : "The browser does not let the page copy.");
  setTimeout(() => {
    button.textContent = label;
  }, 1500);
}

/** Over plain HTTP on another host than this one there is no clipboard API. */
function copyTheOldWay(text) {
  const area = document.createElement("textarea");
  area.value = text;
  const dialog = document.querySelector("dialog[open]") ?? document.body;
  dialog.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}
