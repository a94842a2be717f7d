// What went wrong, as a sentence beside the form that it is about.

import { make } from "./dom.js";

export class Trouble {
  constructor(root, form) {
    this.root = root;
    this.form = form;
  }

  /** Runs what may fail, and says why if it does. */
  async around(work) {
    this.clear();
    try {
      await work();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.say(error);
    }
  }

  clear() {
    this.root.hidden = true;
    for (const input of this.form.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
  }

  say(error) {
    this.root.replaceChildren(make("span", { textContent: error.message }));
    if (error.page) this.root.append(" ", make("a", { href: error.page, target: "_blank", textContent: "What is that?" }));
    this.root.hidden = false;
    for (const { pointer } of error.errors ?? []) {
      const input = this.form.elements[pointer.split("/").at(-1)];
      if (input instanceof Element) input.setAttribute("aria-invalid", "true");
    }
  }
}
