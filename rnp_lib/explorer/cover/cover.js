// An image, a part of which the pointer covers; below it what the model makes of that.

const CELL = 10; // CSS pixels of a pixel of the image

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

function render({ model, el }) {
  const side = model.get("side"), size = side * (side > 28 ? CELL / 2 : CELL);
  const image = make("canvas", { width: side, height: side });
  const cover = make("div", { className: "rnp-cover" });
  const stage = make("div", { className: "rnp-stage", tabIndex: 0 }, image, cover);
  stage.setAttribute("aria-label", "The image. Drag over the part that is to be covered.");
  stage.style.width = stage.style.height = `${size}px`;
  const number = make("input", { type: "number", min: 0, max: model.get("count") - 1, step: 1 });
  const said = make("p", { className: "rnp-said" });
  said.setAttribute("role", "status");
  const sheet = make("img", { className: "rnp-sheet", alt: "The image, what is seen of it, and completions" });
  const keep = make("button", { type: "button" }, "Keep as PNG");
  el.append(make("div", { className: "rnp-completions" },
    make("div", {}, make("label", {}, "image number ", number), stage,
      make("p", {}, "Drag over the part that is to be covered.")),
    make("div", {}, sheet, make("div", {}, keep), said)));

  const bytes = (name) => { const view = model.get(name); return new Uint8Array(view.buffer, view.byteOffset, view.byteLength); };
  const paint = () => {
    const grey = bytes("pixels"), data = new ImageData(side, side);
    for (let i = 0; i < grey.length; i += 1) data.data.set([grey[i], grey[i], grey[i], 255], 4 * i);
    image.getContext("2d").putImageData(data, 0, 0);
    number.value = model.get("number");
  };
  const place = ([top, bottom, left, right]) => Object.assign(cover.style, {
    top: `${top * size}px`, height: `${(bottom - top) * size}px`,
    left: `${left * size}px`, width: `${(right - left) * size}px` });
  const tell = () => { said.textContent = model.get("message"); };
  const show = () => {
    if (sheet.src) URL.revokeObjectURL(sheet.src);
    sheet.src = URL.createObjectURL(new Blob([bytes("sheet")], { type: "image/png" }));
  };
  const ask = (name, value) => {
    said.textContent = "Completing…";
    model.set(name, value);
    model.save_changes();
  };

  let start = null, drawn = null;
  const at = (event) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top]
      .map((v) => Math.min(side, Math.max(0, Math.round(v * side / size))) / side);
  };
  stage.addEventListener("pointerdown", (event) => {
    start = at(event);
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!start) return;
    const end = at(event), [x, y] = [0, 1].map((i) => [start[i], end[i]].sort((a, b) => a - b));
    drawn = [...y, ...x];
    place(drawn);
  });
  stage.addEventListener("pointerup", () => {
    if (drawn) ask("where", drawn);
    start = drawn = null;
  });
  number.addEventListener("change", () => ask("number", Math.round(Number(number.value))));
  keep.addEventListener("click", () =>
    make("a", { href: sheet.src, download: `completions-${model.get("number")}.png` }).click());
  model.on("change:pixels", paint);
  model.on("change:where", () => place(model.get("where")));
  model.on("change:sheet", show);
  model.on("change:message", tell);
  model.on("msg:custom", tell); // an answer, even where nothing has changed
  paint();
  place(model.get("where"));
  show();
  tell();
}

export default { render };
