// The map of programs: a point for every test image as a whole, and one for a part of each.

import { make, where } from "./dom.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class ProgramMap {
  constructor(page) {
    this.page = page;
    this.chart = null;  // what Python knows of the points; while it is asked for, the model's name
    this.cursor = this.from = this.to = null;  // points, by number
    this.map = make("canvas", { class: "map", width: 768, height: 768, tabindex: 0,
      role: "application",
      "aria-label": "Map of programs. Arrow keys move from program to program, Enter opens one, L "
        + "marks one end of a line and then the other." });
    this.map.addEventListener("pointerdown", (event) => this.press(event));
    this.map.addEventListener("pointermove", (event) => this.hover(event));
    this.map.addEventListener("pointerup", (event) => this.release(event));
  }

  set(found) {
    this.chart = { ...found, model: this.page.view.model, n: found.turn.length };
    this.cursor = this.from = this.to = null;
    this.draw();
  }

  spot(i) {
    return this.chart.at[i].map((x) => 24 + x * (this.map.width - 48));
  }

  draw() {
    const { chart, map, page } = this, brush = map.getContext("2d");
    const style = getComputedStyle(page.root);
    brush.clearRect(0, 0, map.width, map.height);
    if (!chart?.at) return;
    const { palette } = page.view;
    for (let i = 0; i < chart.at.length; i++) {
      const whole = i < chart.n;
      brush.fillStyle = whole ? style.color : palette[chart.turn[i - chart.n] % palette.length];
      brush.globalAlpha = whole ? 0.75 : 0.85;
      brush.beginPath();
      brush.arc(...this.spot(i), 4, 0, 7);
      brush.fill();
    }
    brush.globalAlpha = 1;
    brush.strokeStyle = style.getPropertyValue("--accent");
    brush.lineWidth = 5;
    this.drawMarks(brush);
  }

  drawMarks(brush) {
    const { from, to, cursor } = this;
    const ring = (i, r) => {
      brush.beginPath();
      brush.arc(...this.spot(i), r, 0, 7);
      brush.stroke();
    };
    if (from != null) ring(from, 12);
    if (to != null && from != null) {
      ring(to, 12);
      brush.beginPath();
      brush.moveTo(...this.spot(from));
      brush.lineTo(...this.spot(to));
      brush.stroke();
    }
    if (cursor != null) ring(cursor, 16);
  }

  /** The point of the least cost of those that have one. */
  best(cost) {
    let best = null, least = Infinity;
    for (let i = 0; i < this.chart.at.length; i++) {
      const c = cost(i);
      if (c < least) [best, least] = [i, c];
    }
    return best;
  }

  nearest(event, among = () => true) {
    const [x, y] = where(event, this.map);
    return this.best((i) => {
      const [px, py] = this.spot(i);
      return among(i) ? Math.hypot(px - x * this.map.width, py - y * this.map.height) : Infinity;
    });
  }

  point(i) {
    if (i === this.cursor) return;
    this.cursor = i;
    this.draw();
    this.page.ask({ do: "peek", point: i }, { merge: "peek" });
  }

  open(i) {
    this.from = this.to = null;
    this.page.input.empty();
    this.draw();
    this.page.ask({ do: "open", point: i });
  }

  press(event) {
    if (!this.chart?.at || event.button) return;
    this.map.setPointerCapture(event.pointerId);
    this.from = this.nearest(event);
    this.to = null;
  }

  hover(event) {
    const { chart } = this;
    if (!chart?.at) return;
    if (!this.map.hasPointerCapture(event.pointerId)) {
      this.point(this.nearest(event));
      return;
    }
    const whole = this.from < chart.n;
    this.to = this.nearest(event, (i) => (i < chart.n) === whole);
    this.draw();
  }

  release(event) {
    if (!this.map.hasPointerCapture(event.pointerId)) return;
    this.map.releasePointerCapture(event.pointerId);
    const { from, to } = this;
    if (to != null && to !== from) this.page.ask({ do: "line", a: from, b: to });
    else this.open(from);
  }

  /** Do what a key is for; whether it was one for the map. */
  pressKey(event) {
    const { chart, cursor, page } = this;
    if (!chart?.at) return false;
    const step = STEPS[event.key];
    if (step) this.point(this.toward(step) ?? cursor ?? 0);
    else if (event.key === "Enter" && cursor != null) this.open(cursor);
    else if (event.key.toLowerCase() === "l" && cursor != null) {
      if (this.from == null || this.to != null) {
        [this.from, this.to] = [cursor, null];
        page.say("Line from here: go to its other end and press L again.");
      } else {
        this.to = cursor;
        page.ask({ do: "line", a: this.from, b: cursor });
      }
      this.draw();
    } else return false;
    return true;
  }

  /** The next point in a direction, straight ahead rather than near. */
  toward([right, down]) {
    const { at } = this.chart, here = at[this.cursor ?? 0];
    return this.best((i) => {
      const dx = at[i][0] - here[0], dy = at[i][1] - here[1];
      const along = dx * right + dy * down, across = Math.abs(dx * down) + Math.abs(dy * right);
      return along > 0.01 ? along + 2 * across : Infinity;
    });
  }
}
