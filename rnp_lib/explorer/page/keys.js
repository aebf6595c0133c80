// The keyboard.

import { make } from "./dom.js";

const HELP = [["arrows", "walk the tree"], ["H", "hide"], ["D", "duplicate"], ["R", "resample"],
  ["S", "swap"], ["Ctrl-C", "copy"], ["Ctrl-V", "paste"], ["Ctrl-Z", "undo"], ["Ctrl-Y", "redo"],
  ["P", "predicted or corrected"]];
const ACTS = { h: "hide", d: "duplicate", r: "resample", s: "swap" };

export function help() {
  return make("p", { class: "soft" }, "Keys: ",
    ...HELP.flatMap(([pressed, what]) => [make("kbd", {}, pressed), ` ${what}  `]));
}

export function onKey(page, event) {
  event.stopPropagation();
  if (!page.view || page.keep.element.open) return;
  if (event.key === "Escape" && page.swapping) {
    page.swapping = null;
    page.say("Nothing is exchanged.");
    return;
  }
  const done = event.ctrlKey || event.metaKey ? withControl(page, event)
    : !event.altKey && !event.target.matches("input, select, textarea") && alone(page, event);
  if (done) event.preventDefault();
}

function withControl(page, event) {
  const letter = event.key.toLowerCase();
  const does = { z: event.shiftKey ? "redo" : "undo", y: "redo", c: "copy", v: "paste" }[letter];
  if (!does || event.target.matches("input[type=number], textarea")) return false;
  if (does === "copy" || does === "paste") page.act(does);
  else page.ask({ do: does });
  return true;
}

function alone(page, event) {
  const { wander, tree, view } = page;
  if (event.target === wander.map.map && wander.map.pressKey(event)) return true;
  const does = ACTS[event.key.toLowerCase()];
  if (does && (view.selected.length || does === "resample")) {
    page.act(does);
    return true;
  }
  if (event.key.toLowerCase() === "p" && view.predicted != null) {
    page.predict(!view.predicted);
    return true;
  }
  return tree.tree.contains(event.target) && tree.walk(event.key);
}
