// The canvas with its parts in colour, which the pointer selects and moves.

import { button, chosenPolygons, inside, make, overlay, polygon, same, where } from "./dom.js";

const WHOLE = [[0, 0], [1, 0], [1, 1], [0, 1]];

export class Canvas {
  constructor(page) {
    this.page = page;
    this.drag = null;
    this.big = make("canvas");
    this.outlines = overlay();
    this.stage = make("div", { class: "picture big", role: "img" }, this.big, this.outlines);
    this.original = make("canvas", { class: "small" });
    this.drawn = make("canvas", { class: "small" });
    this.input = make("figure", {}, this.original, make("figcaption", {}, "input"));
    this.error = make("div");
    this.switches = [[true, "predicted by the parent"], [false, "corrected by the image"]].map(
      ([predicted, label]) => [predicted, button(label, () => page.predict(predicted), { title:
        predicted ? "What the root alone says: every other program as its parent predicts it"
          : "What the image makes of that, at every program" })]);
    this.switch = make("div", { class: "row switch", role: "group",
      "aria-label": "Programs below the root" }, ...this.switches.map(([, element]) => element));
    this.element = make("section", { "aria-label": "Canvas" },
      make("h3", {}, "The canvas, part by part"),
      this.stage, this.switch,
      make("div", { class: "row", style: "margin-top:.5rem; align-items:flex-start; flex-wrap:nowrap; gap:.7rem" },
        this.input, make("figure", {}, this.drawn, make("figcaption", {}, "drawn")), this.error),
      make("p", { class: "soft" }, "Click a part to select it, drag it to move it."));
    this.stage.addEventListener("pointerdown", (event) => this.grab(event));
    this.stage.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"])
      this.stage.addEventListener(end, () => { this.drag = null; });
  }

  show(view) {
    const { page } = this, parts = view.nodes.filter((n) => n.path.length === 1);
    this.switch.hidden = view.predicted == null;
    for (const [predicted, element] of this.switches)
      element.setAttribute("aria-pressed", predicted === view.predicted);
    page.put(this.big, view.nodes[0].picture);
    page.put(this.drawn, view.drawing);
    this.input.hidden = !view.image;
    if (view.image) page.put(this.original, view.image);
    this.error.replaceChildren(...(view.image ? [
      make("p", { class: "number" }, view.error.toFixed(2)),
      make("p", { class: "soft" }, "squared error"),
      make("p", { class: "soft" }, `empty canvas: ${view.blank.toFixed(1)}`)] : []));
    this.stage.setAttribute("aria-label", `Canvas of ${parts.length} coloured parts`);
    const shapes = parts.filter((n) => !n.hidden)
      .map((n) => polygon(n.outline, page.colour(n.path), "window"));
    const { path, outline } = page.selected;
    if (outline) shapes.push(...chosenPolygons(outline, page.colour(path)));
    this.outlines.replaceChildren(...shapes);
  }

  grab(event) {
    if (event.button) return;
    const { page, stage } = this, { view, selected } = page, at = where(event, stage);
    const hit = selected.outline && inside(at, selected.outline) ? selected
      : view.nodes.findLast((n) => n.path.length === 1 && inside(at, n.outline));
    if (!hit) {
      page.choose([]);
      return;
    }
    if (!same(hit.path, view.selected) || page.swapping) page.choose(hit.path);
    stage.setPointerCapture(event.pointerId);
    const parent = view.nodes.find((n) => same(n.path, hit.path.slice(0, -1)));
    this.drag = { node: hit, at, gesture: page.newGesture(), moved: false,
      frame: parent.outline ?? WHOLE };
  }

  move(event) {
    const { drag } = this;
    if (!drag) return;
    const to = where(event, this.stage), dx = to[0] - drag.at[0], dy = to[1] - drag.at[1];
    if (!drag.moved && Math.hypot(dx, dy) < 0.01) return;
    drag.moved = true;
    // The way the pointer went, in the parent's frame, whose axes are half its sides.
    const [o, a, , b] = drag.frame;
    const ax = (a[0] - o[0]) / 2, ay = (a[1] - o[1]) / 2;
    const bx = (b[0] - o[0]) / 2, by = (b[1] - o[1]) / 2, det = ax * by - ay * bx;
    const shift = [(dx * by - dy * bx) / det, (ax * dy - ay * dx) / det];
    const w = drag.node.window;  // its centre: the mean of its corners, in the parent's frame
    const [x, y] = [0, 1].map((i) => {
      const centre = (w[0][i] + w[2][i] - 1 + shift[i]) / this.page.view.ranges.centre;
      return Math.round(1000 * Math.max(-1, Math.min(1, centre))) / 1000;
    });
    this.page.edit("move", drag.node.path, { centre_x: x, centre_y: y }, drag.gesture);
  }
}
