// The dialog for an API key. It is kept until the tab is closed, and sent to this service only.

import { key, whenUnauthorized } from "../wire/api.js";
import { byId, part } from "./dom.js";

export class KeyDialog {
  /** @param {() => void} onKey is called when another key holds. */
  constructor(onKey) {
    this.dialog = byId("key-dialog");
    const form = part(this.dialog, "form");
    const input = form.elements.key;
    const open = (sentence = "") => {
      part(this.dialog, "why").textContent = sentence;
      input.value = key.get();
      if (!this.dialog.open) this.dialog.showModal();
    };
    byId("key").addEventListener("click", () => open());
    part(this.dialog, "cancel").addEventListener("click", () => this.dialog.close());
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      key.set(input.value.trim());
      this.dialog.close();
      onKey();
    });
    whenUnauthorized((problem) => open(problem.message.replace(/ Enter a key.*/, "")));
  }
}
