// Elements, pictures and shapes, and what programs are called.

const SVG = "http://www.w3.org/2000/svg";

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function button(text, click, attributes = {}) {
  return make("button", { type: "button", onclick: click, ...attributes }, text);
}

/** Bytes RGB -> a canvas of `h` × `w` pixels. */
export function paint(canvas, bytes, start, h, w) {
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

export function key(path) {
  return path.join(".");
}

export function same(a, b) {
  return key(a) === key(b);
}

/** The nodes of a view that the program at `path` calls. */
export function childrenOf(view, path) {
  return view.nodes.filter((n) => n.path.length === path.length + 1 && same(n.path.slice(0, -1), path));
}

/** What a program is called: "the whole", "part 2", "part 2, sub-part 1". */
export function title(path) {
  if (!path.length) return "the whole";
  return path.map((t, i) => `${"sub-".repeat(i)}part ${t + 1}`).join(", ");
}

/** How much an image told about a node of a view, in words; nothing if it told nothing. */
export function told({ nats }) {
  return nats == null ? "" : `The image told ${nats.toFixed(1)} nats about it.`;
}

export function polygon(corners, colour, kind) {
  const shape = document.createElementNS(SVG, "polygon");
  shape.setAttribute("points", corners.map((c) => c.join(",")).join(" "));
  if (colour) shape.style.stroke = colour;
  shape.setAttribute("class", kind);
  return shape;
}

/** The selected program's window, on a pale line that sets it off from any ground. */
export function chosenPolygons(corners, colour) {
  return [polygon(corners, null, "under"), polygon(corners, colour, "chosen")];
}

export function overlay() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 1 1");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

export function inside([x, y], corners) {
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
export function where(event, element) {
  const box = element.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}
