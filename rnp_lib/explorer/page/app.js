// The explorer's page. It keeps no state of its own but what the pointer is doing: every event goes
// to Python as {do: name, ...}, and what comes back is drawn.

import { Bar } from "./bar.js";
import { Canvas } from "./canvas.js";
import { make, paint, same, title } from "./dom.js";
import { Editor } from "./editor.js";
import { Input } from "./input.js";
import { Keep } from "./keep.js";
import { help, onKey } from "./keys.js";
import { Link } from "./link.js";
import { Tree } from "./tree.js";
import { Wander } from "./wander.js";

class Page {
  constructor(model, el) {
    this.view = this.choices = this.bytes = null;  // the last that Python sent
    this.swapping = null;  // the path of a program that waits for another to be exchanged with
    this.gestures = 0;
    this.late = [];
    this.status = make("p", { class: "status", role: "status", "aria-live": "polite" });
    this.bar = new Bar(this);
    this.input = new Input(this);
    this.canvas = new Canvas(this);
    this.editor = new Editor(this);
    this.tree = new Tree(this);
    this.wander = new Wander(this);
    this.keep = new Keep(this);
    const columns = make("div", { class: "columns" },
      this.input.element, this.canvas.element, this.editor.element);
    // JupyterLab must not take a key pressed in here for a command of its own.
    this.root = make("div", { class: "rnp", "data-lm-suppress-shortcuts": "true",
      onkeydown: (event) => onKey(this, event) },
      this.bar.element, this.status, columns, this.tree.element, help(), this.wander.element,
      this.keep.element);
    el.append(this.root);
    this.themes = new MutationObserver(() => this.wander.map.draw());
    this.themes.observe(document.body, { attributes: true });
    this.link = new Link(model, this);
    this.ask({ do: "hello", kept: recall() });
  }

  close() {
    this.link.close();
    this.themes.disconnect();
  }

  // ---- what Python is asked, and what it answers

  ask(event, how) {
    this.link.ask(event, how);
  }

  started() {
    this.root.setAttribute("aria-busy", "true");
    this.late = [
      setTimeout(() => this.say("Working…"), 400),
      setTimeout(() => this.say("No answer for five seconds: what draws is busy, or has ended. " +
        "What you did is kept in this browser: wait, or reload the page.", true), 5000),
    ];
  }

  answered(answer, data, mine) {
    if (mine) {
      this.late.forEach(clearTimeout);
      this.root.removeAttribute("aria-busy");
      if (answer.error) {
        this.say(answer.error, true);
        if (this.view) this.input.show(this.view, true);
      }
      if (answer.kept) remember(answer.kept);
    }
    this.choices = answer.choices ?? this.choices;
    if (answer.view && this.choices) {
      this.view = answer.view;
      this.bytes = data;
      if (mine && !answer.error) this.say(onShow(this.view, answer.did));
      this.show(mine);
    }
    if (mine) {
      this.showMore(answer, data);
      this.root.dataset.answers = Number(this.root.dataset.answers ?? 0) + 1;
    }
  }

  show(mine) {
    const { view } = this;
    this.bar.show(view, this.choices);
    for (const part of [this.input, this.canvas, this.editor, this.tree]) part.show(view);
    this.wander.show(view, mine);
  }

  showMore({ map, peek, strip, text, copied, file }, data) {
    if (map) this.wander.setMap(map);
    if (peek) this.wander.peek(peek, data);
    if (strip) this.wander.showStrip(strip, data);
    if (text) this.keep.showCode(text);
    if (file) this.keep.download(file, data);
    if (copied) {
      this.view.copied = true;
      this.say("Copied. Select a program of the same level, in this tree or another, and paste.");
      this.editor.show(this.view);
    }
  }

  say(text, wrong = false) {
    this.status.textContent = text;
    this.status.classList.toggle("wrong", wrong);
    this.status.setAttribute("role", wrong ? "alert" : "status");
  }

  // ---- what is on show

  get selected() {
    return this.view.nodes.find((node) => same(node.path, this.view.selected));
  }

  colour(path) {
    return this.view.palette[path.at(-1) % this.view.palette.length];
  }

  put(canvas, [start, h, w]) {
    return paint(canvas, this.bytes, start, h, w);
  }

  // ---- what is done to it

  /** A name for one movement of the hand, whose edits are undone together. */
  newGesture() {
    this.gestures += 1;
    return `${this.link.me}${this.gestures}`;
  }

  edit(what, path, given = {}, gesture = null) {
    this.ask({ do: "edit", what, path, arguments: given, gesture },
      gesture ? { merge: `${what}${Object.keys(given)}${gesture}` } : {});
  }

  choose(path) {
    if (this.swapping && !same(this.swapping, path)) {
      const first = this.swapping;
      this.swapping = null;
      this.edit("swap", first, { other: path });
    } else this.ask({ do: "select", path });
  }

  predict(predicted) {
    this.ask({ do: "predict", predicted });
  }

  act(what) {
    const path = this.view.selected;
    if (what === "hide") this.edit("hide", path, { hidden: !this.selected.hidden });
    else if (what === "resample") this.edit("resample", path,
      { seed: Math.floor(Math.random() * 2 ** 31), temperature: this.wander.temperature });
    else if (what === "copy" || what === "paste") this.ask({ do: what, path });
    else if (what === "swap") {
      this.swapping = path;
      this.say(`Now choose what to exchange ${title(path)} with, in the tree.`);
    } else this.edit(what, path);
  }
}

/** What is on show, in words, after an event. */
function onShow(view, did) {
  const { kind, index, seed } = view.source;
  const of = {
    TestImage: `${view.dataset} test image ${index}`, Picture: "drawing or upload",
    Sample: `a sample from the prior, seed ${seed}`, GivenProgram: "a program between two others",
    Saved: "a tree from a file",
  }[kind];
  const how = view.predicted ? ", predicted by the parent" : "";
  const edits = view.edits ? `, ${view.edits} ${view.edits > 1 ? "edits" : "edit"}` : "";
  const verb = { undo: "Undone: ", redo: "Done again: ", reset: "Reset: " }[did] ?? "On show: ";
  return `${verb}${of}${how}${edits}. Selected: ${title(view.selected)}.`;
}

// What was done, as Python tells it, outlives the page; a browser may forbid that.

const KEPT = `rnp-explorer ${location.pathname}`;

function recall() {
  try { return localStorage.getItem(KEPT); } catch { return null; }
}

function remember(text) {
  try { localStorage.setItem(KEPT, text); } catch { /* it is not kept, then */ }
}

function render({ model, el }) {
  const page = new Page(model, el);
  return () => page.close();
}

export default { render };
