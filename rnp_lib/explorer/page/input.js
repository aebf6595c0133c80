// Draw or pick: a pad for the pen, an upload, and the test images.

import { button, make, where } from "./dom.js";

export class Input {
  constructor(page) {
    this.page = page;
    this.strokes = [];
    this.pad = make("canvas", { class: "pad", width: 480, height: 480, tabindex: 0, role: "img",
      "aria-label": "Drawing pad: draw with a mouse, a pen or a finger" });
    this.number = make("input", { type: "number", min: 0, value: 18, "aria-label": "Test image",
      onchange: () => this.pick(this.index) });
    this.file = make("input", { type: "file", accept: "image/png,application/json",
      "aria-label": "Open a PNG or a saved tree",
      onchange: () => this.upload() });
    this.element = make("section", { "aria-label": "Draw or pick" }, make("h3", {}, "Draw or pick"),
      this.pad,
      make("div", { class: "row", style: "margin-top:.4rem" },
        button("Clear", () => this.clear()), make("span", { class: "file" }, "Open a PNG or JSON", this.file)),
      make("div", { class: "row", style: "margin-top:.4rem" },
        button("◀", () => this.pick(this.index - 1), { "aria-label": "Previous test image" }),
        this.number,
        button("▶", () => this.pick(this.index + 1), { "aria-label": "Next test image" }),
        button("Random", () => this.pick(Math.floor(Math.random() * page.view.count)))));
    this.listen();
    this.empty();
  }

  get index() {
    return Number(this.number.value);
  }

  listen() {
    const { pad } = this;
    pad.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      pad.setPointerCapture(event.pointerId);
      this.strokes.push([where(event, pad)]);
      this.draw();
    });
    pad.addEventListener("pointermove", (event) => {
      if (!pad.hasPointerCapture(event.pointerId)) return;
      const points = event.getCoalescedEvents?.() ?? [event];
      this.strokes.at(-1).push(...points.map((e) => where(e, pad)));
      this.draw();
    });
    pad.addEventListener("pointerup", (event) => {
      if (!pad.hasPointerCapture(event.pointerId)) return;
      pad.releasePointerCapture(event.pointerId);
      this.page.ask({ do: "draw", strokes: this.strokes }, { merge: "draw" });
    });
  }

  draw() {
    const { width, height } = this.pad, pen = this.pad.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.strokeStyle = pen.fillStyle = "#111";
    pen.lineWidth = width / 13;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of this.strokes) {
      pen.beginPath();
      stroke.forEach(([x, y]) => pen.lineTo(x * width, y * height));
      if (stroke.length === 1) pen.lineTo(stroke[0][0] * width, stroke[0][1] * height + 0.1);
      pen.stroke();
    }
    if (this.strokes.length) return;
    pen.fillStyle = "#767676";
    pen.font = `${width / 17}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.fillText("draw here", width / 2, height / 2);
  }

  /** Nothing is drawn on the pad, as where another picture is on show. */
  empty() {
    this.strokes = [];
    this.draw();
  }

  clear() {
    this.empty();
    this.page.say("The pad is empty: draw on it.");
  }

  pick(index) {
    this.empty();
    this.number.value = index;  // at once: the next click counts from here
    this.page.ask({ do: "pick", index }, { merge: "pick" });
  }

  async upload() {
    const [chosen] = this.file.files;
    this.file.value = "";
    if (!chosen) return;
    // What is too large for Python is too large to send to it.
    const fits = chosen.size <= this.page.choices.limit;
    const content = fits ? await chosen.arrayBuffer() : null;
    this.empty();
    this.page.ask({ do: "upload", size: chosen.size }, { content });
  }

  /** `refused`: what was asked for last is not on show. */
  show(view, refused = false) {
    this.number.max = view.count - 1;
    if (view.source.kind === "TestImage" && (refused || document.activeElement !== this.number))
      this.number.value = view.source.index;
  }
}
