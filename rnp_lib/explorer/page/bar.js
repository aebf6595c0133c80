// The row above all: what is chosen from, undone and kept.

import { button, make } from "./dom.js";

export class Bar {
  constructor(page) {
    this.page = page;
    const ask = (event) => () => page.ask(event);
    this.models = this.select("Model", "model");
    this.datasets = this.select("Data set", "dataset");
    this.palettes = this.select("Colours", "colours");
    this.undo = button("Undo", ask({ do: "undo" }), { title: "Ctrl-Z" });
    this.redo = button("Redo", ask({ do: "redo" }), { title: "Ctrl-Shift-Z or Ctrl-Y" });
    this.reset = button("Reset", ask({ do: "reset" }), { title: "Back to the unedited tree" });
    this.element = make("div", { class: "row bar", role: "toolbar", "aria-label": "Explorer" },
      make("div", { class: "row" }, make("label", {}, "Model", this.models),
        make("label", {}, "Data", this.datasets), make("label", {}, "Colours", this.palettes)),
      make("div", { class: "row" }, this.undo, this.redo, this.reset),
      make("div", { class: "row" }, button("Copy as code", ask({ do: "code" })),
        ...["png", "svg", "json"].map((kind) => button(`Save ${kind.toUpperCase()}`,
          ask({ do: "save", kind }), { "data-save": kind }))));
  }

  select(label, does) {
    const list = make("select", { "aria-label": label,
      onchange: () => this.page.ask({ do: does, name: list.value }) });
    return list;
  }

  show(view, choices) {
    fill(this.models, choices.models, view.model);
    fill(this.datasets, choices.datasets, view.dataset);
    fill(this.palettes, choices.palettes, view.colours);
    this.undo.disabled = !view.undo;
    this.redo.disabled = !view.redo;
    this.reset.disabled = !view.edits;
  }
}

function fill(list, names, value) {
  list.replaceChildren(...names.map((n) => make("option", { value: n }, shortName(n))));
  list.value = value;
}

/** A path's last word that says something: the folder of a run, not model.safetensors. */
function shortName(name) {
  return name.replace(/\/model\.safetensors$/, "").split("/").pop();
}
