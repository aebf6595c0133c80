// Keep: the tree as Python to copy, or as a file among the downloads.

import { button, make } from "./dom.js";

export class Keep {
  constructor(page) {
    this.page = page;
    this.text = make("textarea", { readonly: true, "aria-label": "Python for this tree" });
    this.copied = make("span", { class: "soft", role: "status" });
    this.element = make("dialog", { "aria-label": "Copy as code" },
      make("h3", {}, "Python for this tree"), this.text,
      make("div", { class: "row" }, button("Copy", () => this.copy()),
        button("Close", () => this.element.close()), this.copied));
  }

  showCode(code) {
    this.text.value = code;
    this.copied.textContent = "";
    if (!this.element.open) this.element.showModal();
    this.text.focus();
    this.text.select();
    this.page.say("Python that makes this tree is ready to copy.");
  }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.text.value);
      this.copied.textContent = "Copied.";
    } catch {  // browsers allow it on https and on localhost only
      this.text.select();
      this.copied.textContent = "Press Ctrl-C to copy.";
    }
  }

  download(name, data) {
    const link = make("a", { href: URL.createObjectURL(new Blob([data])), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    this.page.say(`Saved as ${name} among your downloads.`);
  }
}
