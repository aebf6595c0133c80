// The selected program: what can be done to it, and sliders for its action and its code.

import { button, make, title, told } from "./dom.js";

const NAMES = {
  scale_x: "width", scale_y: "height", rotation: "rotation", shear: "shear",
  centre_x: "centre, across", centre_y: "centre, down",
};
const HEADS = {
  move: "Its action: where it lies in its parent",
  steer: "Its code z: what it draws, along the leading directions",
};
// What "resample" does, by what it draws the program from; all at the temperature under Dream.
const RESAMPLES = {
  root: "Draws the whole tree anew, from the prior",
  parent: "Draws this program, where it lies and all below it anew, from what its parent predicts",
  dream: "It has no prior of its own: it stays where it lies and becomes what lies there in a tree "
    + "drawn from the prior",
};

export class Editor {
  constructor(page) {
    this.page = page;
    this.structure = "";
    this.name = make("h3");
    this.nats = make("p", { class: "soft" });
    this.buttons = make("div", { class: "row" });
    this.sliders = make("div", { class: "sliders" });
    this.element = make("section", { class: "editor", "aria-label": "Selected program" },
      this.name, this.nats, this.buttons, this.sliders);
  }

  show(view) {
    const { page } = this, below = view.selected.length > 0;
    this.name.textContent = `Selected: ${title(view.selected)}`;
    this.nats.textContent = told(page.selected);
    this.nats.hidden = page.selected.nats == null;
    const offered = [
      ["hide", page.selected.hidden ? "Show" : "Hide", below], ["duplicate", "Duplicate", below],
      ["swap", "Swap with…", below], ["copy", "Copy part", true],
      ["paste", "Paste here", view.copied], ["resample", "Resample below this node", true]];
    this.buttons.replaceChildren(...offered.map(([what, label, possible]) =>
      button(label, () => page.act(what), { "data-act": what, disabled: !possible,
        title: what === "resample" ? RESAMPLES[view.drawn_from] : null })));
    const rows = [...Object.keys(view.action).map((n) => ["move", n]),
      ...view.code.map((_, i) => ["steer", i])];
    const structure = JSON.stringify([view.model, rows]);
    if (structure !== this.structure) {
      this.structure = structure;
      this.build(rows);
    }
    for (const slider of this.sliders.querySelectorAll("input")) {
      const { what, which } = slider.dataset;
      const value = what === "move" ? view.action[which] : view.code[which];
      // A slider in motion is where the hand wants it, not where Python last saw it.
      if (!slider.moving) slider.value = value;
      slider.nextSibling.textContent = readable(what, which, value, view.ranges);
      slider.setAttribute("aria-valuetext", slider.nextSibling.textContent);
    }
  }

  build(rows) {
    const parts = rows.flatMap(([what, which], i) => {
      const label = what === "move" ? NAMES[which] : `direction ${which + 1}`;
      const head = i && rows[i - 1][0] === what ? [] : [make("span", { class: "head" }, HEADS[what])];
      return [...head, make("span", {}, label), this.slider(what, which, label), make("output")];
    });
    if (!rows.some(([what]) => what === "steer"))
      parts.push(make("span", { class: "head" }, "Sliders for the code z need this model's map."));
    this.sliders.replaceChildren(...parts);
  }

  slider(what, which, label) {
    const { page } = this, most = what === "move" ? 1 : 3;
    const slider = make("input", { type: "range", min: -most, max: most, step: 0.01,
      "data-what": what, "data-which": which, "aria-label": label,
      oninput: () => {
        if (!slider.moving) slider.gesture = page.newGesture();
        slider.moving = true;
        const to = Number(slider.value);
        page.edit(what, page.view.selected,
          what === "move" ? { [which]: to } : { direction: which, to }, slider.gesture);
      },
      onchange: () => { slider.moving = false; } });
    return slider;
  }
}

function readable(what, which, value, { extent, rotation, shear, centre }) {
  const signed = (x, digits = 2) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(digits)}`;
  if (what === "steer") return `${signed(value)} σ`;
  if (which.startsWith("scale"))
    return `${Math.round(100 * extent[0] * (extent[1] / extent[0]) ** ((value + 1) / 2))} %`;
  if (which === "rotation") return `${signed(value * rotation, 0)}°`;
  return signed(value * (which === "shear" ? shear : centre));
}
