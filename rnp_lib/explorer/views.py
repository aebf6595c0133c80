"""What the explorer shows: a pure function from its state to pictures, outlines and sliders.

Pictures are arrays, drawn by `rnp_lib.plots` without figures: a view takes milliseconds.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from rnp_lib import plots
from rnp_lib.analysis import interpolation
from rnp_lib.checkpoints import CheckpointError
from rnp_lib.explorer import edits
from rnp_lib.explorer import state as explorer
from rnp_lib.explorer.edits import Path
from rnp_lib.explorer.state import Program, State
from rnp_lib.model.tree import ProgramTree

STEPS = 9  # of a strip between two programs, its ends among them


@dataclass(frozen=True)
class Node:
    """A program of the tree on show.

    Attributes:
        path: where it is in the tree.
        level: K at the root, 0 at a leaf.
        picture: uint8 (H, W, 3), in its own frame: its children coloured, or a leaf in dark ink.
        window: (4, 2), its corners in its parent's picture, as shares of the side; None at a root.
        outline: (4, 2), the same in the root's picture.
        hidden: whether its parent leaves it out.
    """

    path: Path
    level: int
    picture: np.ndarray
    window: np.ndarray | None
    outline: np.ndarray | None
    hidden: bool


@dataclass(frozen=True)
class View:
    """What is on show.

    Attributes:
        image: uint8 (S, S, 3), what was parsed, or None where the tree was dreamt.
        drawing: uint8 (S, S, 3), what the leaves draw together.
        nodes: the programs, each before its children; the root's picture is the coloured canvas.
        error: squared error of the drawing, summed over pixels, and `blank`, that of an empty
            canvas; None without an image.
        action: the selected program's six numbers by name; empty at the root.
        code: its coordinates along the map's directions, in standard deviations; empty where the
            model has no map.
    """

    image: np.ndarray | None
    drawing: np.ndarray
    nodes: tuple[Node, ...]
    error: float | None
    blank: float | None
    action: dict[str, float]
    code: tuple[float, ...]


def render(state: State) -> View:
    """The pictures of a state. Raises ValueError, in one sentence, for one that has no tree."""
    tree = explorer.tree(state)
    x = explorer.image(state)
    selected = edits.at(tree, state.selected)
    action = {} if selected.action is None else _named(selected.action)
    return View(
        image=None if x is None else _bytes(plots.grey(x)[0]),
        drawing=_bytes(plots.grey(tree.canvas)[0]),
        nodes=tuple(_nodes(tree, plots.PALETTES[state.colours])),
        error=None if x is None else (tree.canvas - x).square().sum().item(),
        blank=None if x is None else x.square().sum().item(),
        action=action,
        code=_coordinates(state, selected),
    )


def strip(state: State, a: int, b: int) -> list[tuple[Program, np.ndarray]]:
    """Programs on the straight line between two points of the map, and the picture of each.

    Raises ValueError for points of different levels, and what `maps.load` raises without a map.
    """
    ends = [point(state, k) for k in (a, b)]
    if ends[0].level != ends[1].level:
        raise ValueError("a line needs two programs of one level: two wholes or two parts.")
    level = ends[0].level
    line = interpolation.straight(ends[0].z[0], ends[1].z[0], STEPS)
    with torch.no_grad():
        trees = explorer.model(state.model).decode(line, level)
    pictures = plots.coloured(trees.parts, plots.PALETTES[state.colours])
    programs = [Program(tuple(z.tolist()), level) for z in line]
    return list(zip(programs, map(_bytes, pictures), strict=True))


def at_point(state: State, number: int) -> State:
    """The state opened at a point of the model's map, with the program that it stands for."""
    found = explorer.guide(state.model)
    index, path = found.program(number)
    there = explorer.opened(state, explorer.TestImage(index), path)
    return replace(there, dataset=found.dataset)


def point(state: State, number: int) -> ProgramTree:
    """The program at a point of the map."""
    there = at_point(state, number)
    return edits.at(explorer.tree(there), there.selected)


def picture(tree: ProgramTree, colours: tuple[str, ...]) -> np.ndarray:
    """A program in its own frame, uint8 (H, W, 3): its children coloured, a leaf in dark ink."""
    shown = plots.coloured(tree.parts, colours) if tree.children else plots.grey(tree.canvas)
    return _bytes(shown[0])


def _nodes(tree, colours, path=(), to_root=None):
    """A program and those below it; `to_root` (3, 3) maps its parent's frame to the root's."""
    window = outline = None
    if path:
        below = torch.eye(3)
        below[:2] = tree.affine[0]
        window = _corners(below)
        to_root = below if to_root is None else to_root @ below
        outline = _corners(to_root)
    yield Node(path, tree.level, picture(tree, colours), window, outline, tree.hidden)
    for t, child in enumerate(tree.children):
        yield from _nodes(child, colours, (*path, t), to_root)


def _corners(matrix: Tensor) -> np.ndarray:
    """Where a map (3, 3) to another frame takes the corners of a frame, in shares of its side."""
    corners = torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]])
    return ((matrix @ corners)[:2].T.add(1) / 2).numpy()


def _named(action: Tensor) -> dict[str, float]:
    return dict(zip(edits.ACTION, action[0].tolist(), strict=True))


def _coordinates(state: State, selected: ProgramTree) -> tuple[float, ...]:
    try:
        guide = explorer.guide(state.model)
    except (CheckpointError, FileNotFoundError):
        return ()
    directions, mean = guide.directions[selected.level], guide.mean[selected.level]
    return tuple(edits.coordinates(selected.z, directions, mean)[0].tolist())


def _bytes(picture: np.ndarray) -> np.ndarray:
    return (picture * 255).round().astype(np.uint8)
