// The explorer's page. It keeps no state of its own but what the pointer is doing: every event goes
// to Python as {do: name, ...}, and what comes back is drawn. One event is under way at a time, and
// of those that wait, the last move of a slider takes the place of the ones before it.

const NAMES = {
  scale_x: "width", scale_y: "height", rotation: "rotation", shear: "shear",
  centre_x: "centre, across", centre_y: "centre, down",
};
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Bytes RGB -> a canvas of `h` × `w` pixels. */
function paint(canvas, bytes, start, h, w) {
  canvas.width = w;
  canvas.height = h;
  const image = new ImageData(w, h);
  for (let i = 0, j = start; i < image.data.length; i += 4, j += 3) {
    image.data[i] = bytes[j];
    image.data[i + 1] = bytes[j + 1];
    image.data[i + 2] = bytes[j + 2];
    image.data[i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

const key = (path) => path.join(".");
const same = (a, b) => key(a) === key(b);

/** What a program is called: "the whole", "part 2", "part 2, sub-part 1". */
function title(path) {
  if (!path.length) return "the whole";
  return path.map((t, i) => `${"sub-".repeat(i)}part ${t + 1}`).join(", ");
}

function polygon(corners, colour, kind) {
  const shape = document.createElementNS(SVG, "polygon");
  shape.setAttribute("points", corners.map((c) => c.join(",")).join(" "));
  if (colour) shape.style.stroke = colour;
  shape.setAttribute("class", kind);
  return shape;
}

function overlay() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

function inside([x, y], corners) {
  let sign = 0;
  for (let i = 0; i < corners.length; i++) {
    const [ax, ay] = corners[i], [bx, by] = corners[(i + 1) % corners.length];
    const cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax);
    if (sign * cross < 0) return false;
    if (cross !== 0) sign = Math.sign(cross);
  }
  return true;
}

/** Where a pointer is in an element, as shares of its sides. */
function where(event, element) {
  const box = element.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

function render({ model, el }) {
  const me = Math.random().toString(36).slice(2);
  let view = null, choices = null, bytes = null, chart = null;
  let strokes = [], gesture = 0, swapping = null;

  // ---- talking to Python ------------------------------------------------------------------

  const waiting = [];
  let busy = null, late = null;

  function ask(event, { content, merge } = {}) {
    const old = merge ? waiting.findIndex((item) => item.merge === merge) : -1;
    if (old >= 0) waiting.splice(old, 1);
    waiting.push({ event, content, merge });
    pump();
  }

  function pump() {
    if (busy || !waiting.length) return;
    const { event, content } = waiting.shift();
    busy = event.do;
    root.setAttribute("aria-busy", "true");
    late = setTimeout(() => say("Working…"), 400);
    model.send({ ...event, id: me }, undefined, content ? [content] : []);
  }

  function receive(answer, buffers) {
    const mine = answer.id === me;
    if (mine) {
      clearTimeout(late);
      busy = null;
      root.removeAttribute("aria-busy");
    }
    const data = buffers?.length ? new Uint8Array(buffers[0].buffer ?? buffers[0],
      buffers[0].byteOffset ?? 0, buffers[0].byteLength) : null;
    if (answer.choices) choices = answer.choices;
    if (mine && answer.error) say(answer.error, true);
    if (answer.view) {
      view = answer.view;
      bytes = data;
      if (mine && !answer.error) say(told(answer.did));
      show();
      if (chart?.model !== view.model) {
        chart = { model: view.model };
        if (mine) ask({ do: "map" });
      }
    }
    if (mine && answer.map) setMap(answer.map);
    if (mine && answer.peek) showPeek(answer.peek, data);
    if (mine && answer.strip) showStrip(answer.strip, data);
    if (mine && answer.text) showCode(answer.text);
    if (mine && answer.copied) {
      view.copied = true;
      say("Copied. Select a program of the same level, in this tree or another, and paste.");
      showEditor();
    }
    if (mine && answer.file) download(answer.file, data);
    if (mine) {
      root.dataset.answers = Number(root.dataset.answers ?? 0) + 1;
      pump();
    }
  }

  function say(text, wrong = false) {
    status.textContent = text;
    status.classList.toggle("wrong", wrong);
    status.setAttribute("role", wrong ? "alert" : "status");
  }

  function told(did) {
    const { kind, index, seed } = view.source;
    const of = {
      TestImage: `${view.dataset} test image ${index}`, Picture: "drawing or upload",
      Sample: `a sample from the prior, seed ${seed}`, Program: "a program between two others",
    }[kind];
    const edits = view.edits ? `, ${view.edits} ${view.edits > 1 ? "edits" : "edit"}` : "";
    const verb = { undo: "Undone: ", redo: "Done again: ", reset: "Reset: " }[did] ?? "On show: ";
    return `${verb}${of}${edits}. Selected: ${title(view.selected)}.`;
  }

  // ---- the page -----------------------------------------------------------------------------

  const status = make("p", { class: "status", role: "status", "aria-live": "polite" });
  const select = (label, does) => {
    const list = make("select", { "aria-label": label, onchange: () => ask({ do: does, name: list.value }) });
    return list;
  };
  const models = select("Model", "model"), datasets = select("Data set", "dataset");
  const palettes = select("Colours", "colours");
  const button = (text, click, attributes = {}) =>
    make("button", { type: "button", onclick: click, ...attributes }, text);
  const undo = button("Undo", () => ask({ do: "undo" }), { title: "Ctrl-Z" });
  const redo = button("Redo", () => ask({ do: "redo" }), { title: "Ctrl-Shift-Z or Ctrl-Y" });
  const reset = button("Reset", () => ask({ do: "reset" }), { title: "Back to the unedited tree" });
  const bar = make("div", { class: "row bar", role: "toolbar", "aria-label": "Explorer" },
    make("div", { class: "row" }, make("label", {}, "Model", models),
      make("label", {}, "Data", datasets), make("label", {}, "Colours", palettes)),
    make("div", { class: "row" }, undo, redo, reset),
    make("div", { class: "row" }, button("Copy as code", () => ask({ do: "code" })),
      ...["png", "svg", "json"].map((kind) => button(`Save ${kind.toUpperCase()}`,
        () => ask({ do: "save", kind }), { "data-save": kind }))));

  // Draw or pick
  const pad = make("canvas", { class: "pad", width: 480, height: 480, tabindex: 0, role: "img",
    "aria-label": "Drawing pad: draw with a mouse, a pen or a finger" });
  const number = make("input", { type: "number", min: 0, value: 18, "aria-label": "Test image",
    onchange: () => pick(Number(number.value)) });
  const file = make("input", { type: "file", accept: "image/png", "aria-label": "Upload a PNG",
    onchange: upload });
  const input = make("section", { "aria-label": "Draw or pick" }, make("h3", {}, "Draw or pick"),
    pad,
    make("div", { class: "row", style: "margin-top:.4rem" },
      button("Clear", clear), make("span", { class: "file" }, "Upload a PNG", file)),
    make("div", { class: "row", style: "margin-top:.4rem" },
      button("◀", () => pick(Number(number.value) - 1), { "aria-label": "Previous test image" }),
      number,
      button("▶", () => pick(Number(number.value) + 1), { "aria-label": "Next test image" }),
      button("Random", () => pick(Math.floor(Math.random() * view.count)))));

  // The canvas
  const big = make("canvas"), outlines = overlay();
  const stage = make("div", { class: "picture big", role: "img" }, big, outlines);
  const original = make("canvas", { class: "small" }), drawn = make("canvas", { class: "small" });
  const originalFigure = make("figure", {}, original, make("figcaption", {}, "input"));
  const error = make("div");
  const canvas = make("section", { "aria-label": "Canvas" }, make("h3", {}, "The canvas, part by part"),
    stage,
    make("div", { class: "row", style: "margin-top:.5rem; align-items:flex-start; flex-wrap:nowrap; gap:.7rem" },
      originalFigure, make("figure", {}, drawn, make("figcaption", {}, "drawn")), error),
    make("p", { class: "soft" }, "Click a part to select it, drag it to move it."));

  // The editor
  const name = make("h3"), buttons = make("div", { class: "row" });
  const sliders = make("div", { class: "sliders" });
  const editor = make("section", { class: "editor", "aria-label": "Selected program" }, name, buttons, sliders);
  const columns = make("div", { class: "columns" }, input, canvas, editor);

  // The tree
  const tree = make("div", { class: "tree", role: "tree", "aria-label": "Tree of programs" });
  const treeSection = make("section", {}, make("h3", {}, "The tree: every program in its own frame"),
    tree);

  // Wander
  const map = make("canvas", { class: "map", width: 768, height: 768, tabindex: 0, role: "application",
    "aria-label": "Map of programs. Arrow keys move from program to program, Enter opens one, L "
      + "marks one end of a line and then the other." });
  const mapText = make("p", { class: "soft" });
  const peek = make("canvas", { class: "peek", hidden: true });
  const peekText = make("figcaption", {}, "");
  const strip = make("div", { class: "strip", role: "group", "aria-label": "Between two programs" });
  const seed = make("input", { type: "number", min: 0, value: 0, onchange: sample });
  const heat = make("input", { type: "number", min: 0, max: 3, step: 0.1, value: 1, onchange: sample });
  const wander = make("section", { "aria-label": "Wander" }, make("h3", {}, "Wander"),
    make("div", { class: "wander" },
      make("div", {}, map),
      make("div", {}, mapText,
        make("figure", {}, peek, peekText),
        strip,
        make("h3", { style: "margin-top:1rem" }, "Dream"),
        make("div", { class: "row" }, make("label", {}, "Seed", seed),
          make("label", {}, "Temperature", heat), button("Sample", sample),
          button("Another", () => { seed.value = Number(seed.value) + 1; sample(); })),
        make("p", { class: "soft" }, "A root program drawn from the prior, N(0, I) times the temperature."))));

  const text = make("textarea", { readonly: true, "aria-label": "Python for this tree" });
  const copied = make("span", { class: "soft", role: "status" });
  const dialog = make("dialog", { "aria-label": "Copy as code" },
    make("h3", {}, "Python for this tree"), text,
    make("div", { class: "row" }, button("Copy", copyCode),
      button("Close", () => dialog.close()), copied));

  const help = make("p", { class: "soft" },
    "Keys: ", ...[["arrows", "walk the tree"], ["H", "hide"], ["D", "duplicate"], ["R", "resample"],
      ["S", "swap"], ["Ctrl-C", "copy"], ["Ctrl-V", "paste"], ["Ctrl-Z", "undo"],
      ["Ctrl-Y", "redo"]].flatMap(([k, what]) => [make("kbd", {}, k), ` ${what}  `]));
  // JupyterLab must not take a key pressed in here for a command of its own.
  const root = make("div", { class: "rnp", "data-lm-suppress-shortcuts": "true", onkeydown: onKey },
    bar, status, columns, treeSection, help, wander, dialog);
  el.append(root);

  // ---- draw or pick -------------------------------------------------------------------------

  const pen = pad.getContext("2d");
  pad.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pad.setPointerCapture(event.pointerId);
    strokes.push([where(event, pad)]);
    drawPad();
  });
  pad.addEventListener("pointermove", (event) => {
    if (!pad.hasPointerCapture(event.pointerId)) return;
    for (const e of event.getCoalescedEvents?.() ?? [event]) strokes.at(-1).push(where(e, pad));
    drawPad();
  });
  pad.addEventListener("pointerup", (event) => {
    if (!pad.hasPointerCapture(event.pointerId)) return;
    pad.releasePointerCapture(event.pointerId);
    ask({ do: "draw", strokes }, { merge: "draw" });
  });

  function drawPad() {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, pad.width, pad.height);
    pen.strokeStyle = pen.fillStyle = "#111";
    pen.lineWidth = pad.width / 13;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of strokes) {
      pen.beginPath();
      stroke.forEach(([x, y]) => pen.lineTo(x * pad.width, y * pad.height));
      if (stroke.length === 1) pen.lineTo(stroke[0][0] * pad.width, stroke[0][1] * pad.height + 0.1);
      pen.stroke();
    }
    if (strokes.length) return;
    pen.fillStyle = "#767676";
    pen.font = `${pad.width / 17}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.fillText("draw here", pad.width / 2, pad.height / 2);
  }

  function clear() {
    strokes = [];
    drawPad();
    say("The pad is empty: draw on it.");
  }

  function pick(index) {
    strokes = [];
    drawPad();
    ask({ do: "pick", index }, { merge: "pick" });
  }

  async function upload() {
    const [chosen] = file.files;
    file.value = "";
    if (!chosen) return;
    // What is too large for Python is too large to send to it.
    const fits = chosen.size <= choices.limit;
    const content = fits ? await chosen.arrayBuffer() : null;
    strokes = [];
    drawPad();
    ask({ do: "upload", size: chosen.size }, { content });
  }

  function sample() {
    ask({ do: "sample", seed: Number(seed.value), temperature: Number(heat.value) });
  }

  // ---- what is on show ------------------------------------------------------------------------

  const colour = (path) => view.palette[path.at(-1) % view.palette.length];
  const selected = () => view.nodes.find((node) => same(node.path, view.selected));
  const put = (element, [start, h, w]) => paint(element, bytes, start, h, w);

  function fill(list, names, value) {
    list.replaceChildren(...names.map((n) => make("option", { value: n }, n.split("/").pop())));
    list.value = value;
  }

  function show() {
    fill(models, choices.models, view.model);
    fill(datasets, choices.datasets, view.dataset);
    fill(palettes, choices.palettes, view.colours);
    undo.disabled = !view.undo;
    redo.disabled = !view.redo;
    reset.disabled = !view.edits;
    number.max = view.count - 1;
    if (view.source.kind === "TestImage" && document.activeElement !== number)
      number.value = view.source.index;
    const levels = view.nodes[0].level;
    put(big, view.nodes[0].picture);
    put(drawn, view.drawing);
    originalFigure.hidden = !view.image;
    if (view.image) put(original, view.image);
    error.replaceChildren(...(view.image ? [
      make("p", { class: "number" }, view.error.toFixed(2)),
      make("p", { class: "soft" }, "squared error"),
      make("p", { class: "soft" }, `empty canvas: ${view.blank.toFixed(1)}`)] : []));
    stage.setAttribute("aria-label",
      `Canvas of ${view.nodes.filter((n) => n.path.length === 1).length} coloured parts`);
    showOutlines();
    showEditor();
    showTree(levels);
    drawMap();  // whose colours may have changed
  }

  function showOutlines() {
    const shapes = view.nodes.filter((n) => n.path.length === 1 && !n.hidden)
      .map((n) => polygon(n.outline, colour(n.path), "window"));
    const node = selected();
    if (node.outline) shapes.push(polygon(node.outline, null, "under"),
      polygon(node.outline, colour(node.path), "chosen"));
    outlines.replaceChildren(...shapes);
  }

  // The tree

  let treeKey = "";

  function showTree(levels) {
    const structure = view.nodes.map((n) => key(n.path)).join(" ") + view.model;
    if (structure !== treeKey) {
      treeKey = structure;
      buildTree(levels);
    }
    for (const node of view.nodes) {
      const item = tree.querySelector(`[data-path="${key(node.path)}"]`);
      const chosen = same(node.path, view.selected);
      put(item.querySelector("canvas"), node.picture);
      item.classList.toggle("chosen", chosen);
      item.classList.toggle("hidden", node.hidden);
      item.setAttribute("aria-selected", chosen);
      item.tabIndex = chosen ? 0 : -1;
      item.style.setProperty("--turn", node.path.length ? colour(node.path) : "var(--soft)");
      const shapes = view.nodes.filter((n) => n.path.length === node.path.length + 1
        && same(n.path.slice(0, -1), node.path) && !n.hidden)
        .flatMap((n) => same(n.path, view.selected)
          ? [polygon(n.window, null, "under"), polygon(n.window, colour(n.path), "chosen")]
          : [polygon(n.window, colour(n.path), "window")]);
      item.querySelector("svg").replaceChildren(...shapes);
    }
    const focused = tree.contains(document.activeElement);
    if (focused) tree.querySelector("[aria-selected=true]").focus();
  }

  function buildTree(levels) {
    const leaves = view.nodes.filter((n) => n.level === 0).length;
    // From the leaves up; many leaves are smaller, and all shrink with the page.
    const sides = leaves > 30
      ? ["clamp(0.9rem, 1.2cqw, 1.7rem)", "4rem", "6rem"]
      : ["clamp(1.5rem, 4.6cqw, 3rem)", "clamp(3rem, 15cqw, 6rem)"];
    const hadFocus = tree.contains(document.activeElement);
    const build = (node) => {
      const item = make("button", { type: "button", class: "item picture", role: "treeitem",
        "data-path": key(node.path), "aria-level": node.path.length + 1,
        "aria-label": `${title(node.path)}, z${"⁰¹²³⁴"[node.level] ?? ""}`,
        title: title(node.path), onclick: () => choose(node.path) },
        make("canvas"), overlay());
      item.style.setProperty("--side", sides[node.level] ?? "7rem");
      const kids = view.nodes.filter((n) => n.path.length === node.path.length + 1
        && same(n.path.slice(0, -1), node.path));
      return make("div", { class: "node" }, item,
        kids.length ? make("div", { class: "kids", role: "group" }, ...kids.map(build)) : null);
    };
    tree.replaceChildren(build(view.nodes[0]));
    if (hadFocus) tree.querySelector(`[data-path="${key(view.selected)}"]`).focus();
  }

  function choose(path) {
    if (swapping && !same(swapping, path)) {
      const first = swapping;
      swapping = null;
      edit("swap", first, { other: path });
    } else ask({ do: "select", path });
  }

  // The editor

  let editorKey = "";

  function edit(what, path, arguments_ = {}, gesture_ = null) {
    ask({ do: "edit", what, path, arguments: arguments_, gesture: gesture_ },
      gesture_ ? { merge: `${what}${Object.keys(arguments_)}${gesture_}` } : {});
  }

  function newSeed() {
    return Math.floor(Math.random() * 2 ** 31);
  }

  function act(what) {
    const node = selected(), path = view.selected;
    if (what === "hide") edit("hide", path, { hidden: !node.hidden });
    else if (what === "resample") edit("resample", path,
      { seed: newSeed(), temperature: Number(heat.value) });
    else if (what === "copy" || what === "paste") ask({ do: what, path });
    else if (what === "swap") {
      swapping = path;
      say(`Now choose what to exchange ${title(path)} with, in the tree.`);
    } else edit(what, path);
  }

  function showEditor() {
    const node = selected(), below = view.selected.length > 0;
    name.textContent = `Selected: ${title(view.selected)}`;
    const offered = [
      ["hide", node.hidden ? "Show" : "Hide", below], ["duplicate", "Duplicate", below],
      ["swap", "Swap with…", below], ["copy", "Copy part", true],
      ["paste", "Paste here", view.copied], ["resample", "Resample below this node", true]];
    buttons.replaceChildren(...offered.map(([what, label, possible]) =>
      button(label, () => act(what), { "data-act": what, disabled: !possible })));
    const rows = [...Object.keys(view.action).map((n) => ["move", n]),
      ...view.code.map((_, i) => ["steer", i])];
    const structure = JSON.stringify([view.model, rows]);
    if (structure !== editorKey) {
      editorKey = structure;
      buildSliders(rows);
    }
    for (const slider of sliders.querySelectorAll("input")) {
      const { what, which } = slider.dataset;
      const value = what === "move" ? view.action[which] : view.code[which];
      // A slider in motion is where the hand wants it, not where Python last saw it.
      if (!slider.moving) slider.value = value;
      slider.nextSibling.textContent = readable(what, which, value);
      slider.setAttribute("aria-valuetext", slider.nextSibling.textContent);
    }
  }

  function buildSliders(rows) {
    const parts = [];
    rows.forEach(([what, which], i) => {
      if (i === 0 || rows[i - 1][0] !== what)
        parts.push(make("span", { class: "head" }, what === "move"
          ? "Its action: where it lies in its parent" : "Its code z: what it draws, along the leading directions"));
      const label = what === "move" ? NAMES[which] : `direction ${which + 1}`;
      const most = what === "move" ? 1 : 3;
      const slider = make("input", { type: "range", min: -most, max: most, step: 0.01,
        "data-what": what, "data-which": which, "aria-label": label,
        oninput: () => {
          if (!slider.moving) gesture += 1;
          slider.moving = true;
          const to = Number(slider.value);
          edit(what, view.selected, what === "move" ? { [which]: to } : { direction: which, to },
            `${me}${gesture}`);
        },
        onchange: () => { slider.moving = false; } });
      parts.push(make("span", {}, label), slider, make("output"));
    });
    if (!rows.some(([what]) => what === "steer"))
      parts.push(make("span", { class: "head" }, "Sliders for the code z need this model's map."));
    sliders.replaceChildren(...parts);
  }

  function readable(what, which, value) {
    const { extent, rotation, shear, centre } = view.ranges;
    const signed = (x, digits = 2) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(digits)}`;
    if (what === "steer") return `${signed(value)} σ`;
    if (which.startsWith("scale"))
      return `${Math.round(100 * extent[0] * (extent[1] / extent[0]) ** ((value + 1) / 2))} %`;
    if (which === "rotation") return `${signed(value * rotation, 0)}°`;
    return signed(value * (which === "shear" ? shear : centre));
  }

  // Parts are moved with the pointer on the canvas

  let drag = null;
  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const at = where(event, stage), current = selected();
    const hit = current.outline && inside(at, current.outline) ? current
      : view.nodes.findLast((n) => n.path.length === 1 && inside(at, n.outline));
    if (!hit) return choose([]);
    if (!same(hit.path, view.selected) || swapping) choose(hit.path);
    stage.setPointerCapture(event.pointerId);
    const parent = view.nodes.find((n) => same(n.path, hit.path.slice(0, -1)));
    drag = { node: hit, at, gesture: `${me}${++gesture}`, moved: false,
      frame: parent.outline ?? [[0, 0], [1, 0], [1, 1], [0, 1]] };
  });
  stage.addEventListener("pointermove", (event) => {
    if (!drag) return;
    const to = where(event, stage), dx = to[0] - drag.at[0], dy = to[1] - drag.at[1];
    if (!drag.moved && Math.hypot(dx, dy) < 0.01) return;
    drag.moved = true;
    // The way the pointer went, in the parent's frame, whose axes are half its sides.
    const [o, a, , b] = drag.frame;
    const ax = (a[0] - o[0]) / 2, ay = (a[1] - o[1]) / 2;
    const bx = (b[0] - o[0]) / 2, by = (b[1] - o[1]) / 2, det = ax * by - ay * bx;
    const shift = [(dx * by - dy * bx) / det, (ax * dy - ay * dx) / det];
    const w = drag.node.window;  // its centre: the mean of its corners, in the parent's frame
    const centre = [0, 1].map((i) => (w[0][i] + w[2][i]) - 1);
    const [x, y] = centre.map((c, i) =>
      Math.max(-1, Math.min(1, (c + shift[i]) / view.ranges.centre)));
    edit("move", drag.node.path, { centre_x: round(x), centre_y: round(y) }, drag.gesture);
  });
  const round = (x) => Math.round(1000 * x) / 1000;
  for (const end of ["pointerup", "pointercancel"])
    stage.addEventListener(end, () => { drag = null; });

  // ---- the map --------------------------------------------------------------------------------

  let cursor = null, from = null, to = null;
  const brush = map.getContext("2d");
  const spot = ([x, y]) => [24 + x * (map.width - 48), 24 + y * (map.height - 48)];

  function setMap(found) {
    chart = { ...found, model: view.model, n: found.index?.length ?? found.turn.length };
    cursor = from = to = null;
    strip.replaceChildren();
    mapText.textContent = "Every test image is here twice: as a whole, z of the root (dark), and by one "
      + "of its parts (in the colour of its turn). Click: open the nearest program. Drag from one "
      + "to another: what lies between them.";
    drawMap();
  }

  function drawMap() {
    const style = getComputedStyle(root);
    brush.clearRect(0, 0, map.width, map.height);
    if (!chart?.at) return;
    chart.at.forEach((point, i) => {
      const [x, y] = spot(point);
      brush.fillStyle = i < chart.n ? style.color : view.palette[chart.turn[i - chart.n] % view.palette.length];
      brush.globalAlpha = i < chart.n ? 0.75 : 0.85;
      brush.beginPath();
      brush.arc(x, y, 4, 0, 7);
      brush.fill();
    });
    brush.globalAlpha = 1;
    brush.strokeStyle = style.getPropertyValue("--accent");
    brush.lineWidth = 5;
    const ring = (i, r) => {
      brush.beginPath();
      brush.arc(...spot(chart.at[i]), r, 0, 7);
      brush.stroke();
    };
    if (from != null) ring(from, 12);
    if (to != null && from != null) {
      ring(to, 12);
      brush.beginPath();
      brush.moveTo(...spot(chart.at[from]));
      brush.lineTo(...spot(chart.at[to]));
      brush.stroke();
    }
    if (cursor != null) ring(cursor, 16);
  }

  function nearest([x, y], among = () => true) {
    let best = null, least = Infinity;
    chart.at.forEach((point, i) => {
      const [px, py] = spot(point);
      const d = Math.hypot(px - x * map.width, py - y * map.height);
      if (d < least && among(i)) [best, least] = [i, d];
    });
    return best;
  }

  function point(i) {
    if (i === cursor) return;
    cursor = i;
    drawMap();
    ask({ do: "peek", point: i }, { merge: "peek" });
  }

  function showPeek({ point: i, side }, data) {
    peek.hidden = false;
    paint(peek, data, 0, side, side);
    const part = i < chart.n ? "the whole" : `part ${chart.turn[i - chart.n] + 1}`;
    peekText.textContent = `${part} of a ${chart.dataset} image of class ${chart.label[i % chart.n]}`;
  }

  map.addEventListener("pointerdown", (event) => {
    if (!chart?.at || event.button) return;
    map.setPointerCapture(event.pointerId);
    from = nearest(where(event, map));
    to = null;
  });
  map.addEventListener("pointermove", (event) => {
    if (!chart?.at) return;
    if (!map.hasPointerCapture(event.pointerId)) return point(nearest(where(event, map)));
    const level = from < chart.n;
    to = nearest(where(event, map), (i) => (i < chart.n) === level);
    drawMap();
  });
  map.addEventListener("pointerup", (event) => {
    if (!map.hasPointerCapture(event.pointerId)) return;
    map.releasePointerCapture(event.pointerId);
    if (to != null && to !== from) ask({ do: "line", a: from, b: to });
    else openPoint(from);
  });

  function openPoint(i) {
    from = to = null;
    strokes = [];
    drawPad();
    drawMap();
    ask({ do: "open", point: i });
  }

  function mapKey(event) {
    if (!chart?.at) return false;
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step) {
      const here = chart.at[cursor ?? 0];
      let best = cursor ?? 0, least = Infinity;
      chart.at.forEach((p, i) => {
        const d = [p[0] - here[0], p[1] - here[1]];
        const along = d[0] * step[0] + d[1] * step[1], across = Math.abs(d[0] * step[1]) + Math.abs(d[1] * step[0]);
        const cost = along + 2 * across;
        if (along > 0.01 && cost < least) [best, least] = [i, cost];
      });
      point(best);
    } else if (event.key === "Enter" && cursor != null) openPoint(cursor);
    else if (event.key.toLowerCase() === "l" && cursor != null) {
      if (from == null || to != null) {
        [from, to] = [cursor, null];
        say("Line from here: go to its other end and press L again.");
      } else {
        to = cursor;
        ask({ do: "line", a: from, b: to });
      }
      drawMap();
    } else return false;
    return true;
  }

  function showStrip({ side, count }, data) {
    const frames = Array.from({ length: count }, (_, i) => {
      const frame = paint(make("canvas"), data, i * side * side * 3, side, side);
      return make("button", { type: "button", onclick: () => ask({ do: "step", index: i }),
        "aria-label": `Open step ${i + 1} of ${count}` }, frame);
    });
    strip.replaceChildren(...frames);
    say("Between two programs: click a step to open it.");
  }

  // ---- keep -------------------------------------------------------------------------------------

  function showCode(code) {
    text.value = code;
    copied.textContent = "";
    if (!dialog.open) dialog.showModal();
    text.focus();
    text.select();
    say("Python that makes this tree is ready to copy.");
  }

  async function copyCode() {
    try {
      await navigator.clipboard.writeText(text.value);
      copied.textContent = "Copied.";
    } catch {  // browsers allow it on https and on localhost only
      text.select();
      copied.textContent = "Press Ctrl-C to copy.";
    }
  }

  function download(file_, data) {
    const link = make("a", { href: URL.createObjectURL(new Blob([data])), download: file_ });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    say(`Saved as ${file_} among your downloads.`);
  }

  // ---- keys ---------------------------------------------------------------------------------------

  function walk(name_) {
    const path = view.selected, at = (p) => view.nodes.some((n) => same(n.path, p));
    const sibling = (by) => [...path.slice(0, -1), path.at(-1) + by];
    const goal = { ArrowUp: path.slice(0, -1), ArrowDown: [...path, 0],
      ArrowLeft: path.length ? sibling(-1) : path, ArrowRight: path.length ? sibling(1) : path,
      Home: [] }[name_];
    if (goal && at(goal)) choose(goal);
    return Boolean(goal);
  }

  function onKey(event) {
    event.stopPropagation();
    if (!view || dialog.open) return;
    if (event.key === "Escape" && swapping) {
      swapping = null;
      say("Nothing is exchanged.");
      return;
    }
    const typing = event.target.matches("input, select, textarea");
    const letter = event.key.toLowerCase();
    let done = false;
    if (event.ctrlKey || event.metaKey) {
      const typed = event.target.matches("input[type=number], textarea");
      const does = { z: event.shiftKey ? "redo" : "undo", y: "redo", c: "copy", v: "paste" }[letter];
      if (does && !typed) {
        if (does === "copy" || does === "paste") act(does);
        else ask({ do: does });
        done = true;
      }
    } else if (!typing && !event.altKey) {
      const does = { h: "hide", d: "duplicate", r: "resample", s: "swap" }[letter];
      if (event.target === map && mapKey(event)) done = true;
      else if (does && (view.selected.length || does === "resample")) {
        act(does);
        done = true;
      } else if (tree.contains(event.target)) done = walk(event.key);
    }
    if (done) event.preventDefault();
  }

  // ---- start --------------------------------------------------------------------------------------

  const themes = new MutationObserver(() => drawMap());
  themes.observe(document.body, { attributes: true });
  drawPad();
  model.on("msg:custom", receive);
  ask({ do: "hello" });
  return () => {
    model.off("msg:custom", receive);
    themes.disconnect();
  };
}

export default { render };
