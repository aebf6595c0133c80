// The tree: every program in its own frame, the windows of its children outlined.

import { childrenOf, chosenPolygons, key, make, overlay, polygon, same, title, told } from "./dom.js";

export class Tree {
  constructor(page) {
    this.page = page;
    this.structure = "";
    this.tree = make("div", { class: "tree", role: "tree", "aria-label": "Tree of programs" });
    this.element = make("section", {},
      make("h3", {}, "The tree: every program in its own frame"), this.tree);
  }

  get focused() {
    return this.tree.contains(document.activeElement);
  }

  show(view) {
    const { page, tree, focused } = this;
    const structure = view.nodes.map((n) => key(n.path)).join(" ") + view.model;
    if (structure !== this.structure) {
      this.structure = structure;
      this.build(view);
    }
    // A line of nats below the programs of a level that has any: it stays where one loses its own.
    const levels = new Set(view.nodes.filter((n) => n.nats != null).map((n) => n.level));
    for (const node of view.nodes) {
      const item = tree.querySelector(`[data-path="${key(node.path)}"]`);
      const chosen = same(node.path, view.selected);
      page.put(item.querySelector("canvas"), node.picture);
      item.classList.toggle("chosen", chosen);
      item.classList.toggle("hidden", node.hidden);
      item.setAttribute("aria-selected", chosen);
      item.title = [title(node.path), told(node)].filter(Boolean).join(". ");
      item.setAttribute("aria-label", [called(node), told(node)].filter(Boolean).join(". "));
      const nats = item.nextSibling;
      nats.hidden = !levels.has(node.level);
      nats.textContent = node.nats == null ? "" : `${node.nats.toFixed(1)} nats`;
      item.tabIndex = chosen ? 0 : -1;
      item.style.setProperty("--turn", node.path.length ? page.colour(node.path) : "var(--soft)");
      const shapes = childrenOf(view, node.path).filter((n) => !n.hidden)
        .flatMap((n) => same(n.path, view.selected) ? chosenPolygons(n.window, page.colour(n.path))
          : [polygon(n.window, page.colour(n.path), "window")]);
      item.querySelector("svg").replaceChildren(...shapes);
    }
    if (focused) tree.querySelector("[aria-selected=true]").focus();
  }

  build(view) {
    const leaves = view.nodes.filter((n) => n.level === 0).length;
    // From the leaves up, shrinking with the page; many leaves stand in pairs, to be large enough.
    const many = leaves > 30;
    const sides = many
      ? ["clamp(1.6rem, 2.5cqw, 2.4rem)", "clamp(3.2rem, 5cqw, 4.8rem)", "6rem"]
      : ["clamp(1.5rem, 4.6cqw, 3rem)", "clamp(3rem, 15cqw, 6rem)"];
    const kids = (node) => many && node.level === 1 ? "kids pairs" : "kids";
    const build = (node) => {
      const item = make("button", { type: "button", class: "item picture", role: "treeitem",
        "data-path": key(node.path), "aria-level": node.path.length + 1,
        onclick: () => this.page.choose(node.path) },
        make("canvas"), overlay());
      item.style.setProperty("--side", sides[node.level] ?? "7rem");
      const below = childrenOf(view, node.path).map(build);
      const nats = make("span", { class: "nats", "aria-hidden": "true" });
      return make("div", { class: "node" }, item, nats,
        below.length ? make("div", { class: kids(node), role: "group" }, ...below) : null);
    };
    this.tree.replaceChildren(build(view.nodes[0]));
  }

  /** Choose the program that an arrow key leads to; whether it was such a key. */
  walk(pressed) {
    const { nodes, selected: path } = this.page.view;
    const sibling = (by) => path.length ? [...path.slice(0, -1), path.at(-1) + by] : path;
    const goal = { ArrowUp: path.slice(0, -1), ArrowDown: [...path, 0], ArrowLeft: sibling(-1),
      ArrowRight: sibling(1), Home: [] }[pressed];
    if (goal && nodes.some((n) => same(n.path, goal))) this.page.choose(goal);
    return Boolean(goal);
  }
}

function called({ path, level }) {
  return `${title(path)}, z${"⁰¹²³⁴"[level] ?? ""}`;
}
