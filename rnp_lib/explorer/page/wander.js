// Wander: the map, a look at the program under the pointer, what lies between two, and dreams.

import { button, make, paint } from "./dom.js";
import { ProgramMap } from "./map.js";

export class Wander {
  constructor(page) {
    this.page = page;
    this.map = new ProgramMap(page);
    this.text = make("p", { class: "soft" });
    this.picture = make("canvas", { class: "peek", hidden: true });
    this.caption = make("figcaption", {}, "");
    this.dreams = make("p", { class: "soft" });
    this.strip = make("div", { class: "strip", role: "group", "aria-label": "Between two programs" });
    const sample = () => this.sample();
    this.seed = make("input", { type: "number", min: 0, value: 0, onchange: sample });
    this.heat = make("input", { type: "number", min: 0, max: 3, step: 0.1, value: 1, onchange: sample });
    this.element = make("section", { "aria-label": "Wander" }, make("h3", {}, "Wander"),
      make("div", { class: "wander" },
        make("div", {}, this.map.map),
        make("div", {}, this.text,
          make("figure", {}, this.picture, this.caption),
          this.strip,
          make("h3", { style: "margin-top:1rem" }, "Dream"),
          make("div", { class: "row" }, make("label", {}, "Seed", this.seed),
            make("label", {}, "Temperature", this.heat), button("Sample", sample),
            button("Another", () => { this.seed.value = Number(this.seed.value) + 1; sample(); })),
          this.dreams)));
  }

  get temperature() {
    return Number(this.heat.value);
  }

  sample() {
    this.page.ask({ do: "sample", seed: Number(this.seed.value), temperature: this.temperature });
  }

  /** Ask for the map where another model is on show; `mine`: the one who asked for the model. */
  show(view, mine) {
    const drawn = view.posterior === "tree" ? "A tree" : "A root program";
    this.dreams.textContent = `${drawn} drawn from the prior, whose standard deviations are times `
      + "the temperature.";
    if (this.map.chart?.model !== view.model) {
      this.map.chart = { model: view.model };
      if (mine) this.page.ask({ do: "map" });
    }
    this.map.draw();  // whose colours may have changed
  }

  setMap(found) {
    this.strip.replaceChildren();
    this.text.textContent = "Every test image is here twice: as a whole, z of the root (dark), and "
      + "by one of its parts (in the colour of its turn). Click: open the nearest program. Drag "
      + "from one to another: what lies between them.";
    this.map.set(found);
  }

  peek({ point, side }, data) {
    const { n, turn, label, dataset } = this.map.chart;
    this.picture.hidden = false;
    paint(this.picture, data, 0, side, side);
    const part = point < n ? "the whole" : `part ${turn[point - n] + 1}`;
    this.caption.textContent = `${part} of a ${dataset} image of class ${label[point % n]}`;
  }

  showStrip({ side, count }, data) {
    const frames = Array.from({ length: count }, (_, i) => {
      const frame = paint(make("canvas"), data, i * side * side * 3, side, side);
      return button(frame, () => this.page.ask({ do: "step", index: i }),
        { "aria-label": `Open step ${i + 1} of ${count}` });
    });
    this.strip.replaceChildren(...frames);
    this.page.say("Between two programs: click a step to open it.");
  }
}
