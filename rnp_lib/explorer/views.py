"""What the explorer shows: a pure function from its state to pictures, outlines and sliders.

Pictures are arrays, drawn by `rnp_lib.plots` without figures: a view takes milliseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from rnp_lib import plots
from rnp_lib.analysis import interpolation
from rnp_lib.checkpoints import CheckpointError
from rnp_lib.explorer import edits, trees
from rnp_lib.explorer.edits import TreePath
from rnp_lib.explorer.states import GivenProgram, State, TestImage, opened
from rnp_lib.model.tree import ProgramTree

STEPS = 9  # of a strip between two programs, its ends among them
Corners = list[list[float]]  # four points (x, y), as shares of a picture's side


@dataclass(frozen=True)
class Node:
    """A program of the tree on show.

    Attributes:
        path: where it is in the tree.
        level: K at the root, 0 at a leaf.
        picture: uint8 (H, W, 3), in its own frame: its children coloured, or a leaf in dark ink.
        window: its corners in its parent's picture; None at a root.
        outline: the same in the root's picture.
        hidden: whether its parent leaves it out.
        nats: how many nats the image told about it; None where nothing is told, as of leaves.
    """

    path: TreePath
    level: int
    picture: np.ndarray
    window: Corners | None
    outline: Corners | None
    hidden: bool
    nats: float | None


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
        predicted: whether the programs below the root are what their parents predict, or else what
            the image makes of that; None where there is no such choice (`trees.corrects`).
        drawn_from: what the selected program is resampled from: see `edits.drawn_from`.
    """

    image: np.ndarray | None
    drawing: np.ndarray
    nodes: tuple[Node, ...]
    error: float | None
    blank: float | None
    action: dict[str, float]
    code: tuple[float, ...]
    predicted: bool | None
    drawn_from: str


def render(state: State) -> View:
    """The pictures of a state. Raises ValueError, in one sentence, for one that has no tree."""
    tree, x = trees.tree(state), trees.image(state)
    selected, corrects = tree.at(state.selected), trees.corrects(state)
    action = [] if selected.action is None else selected.action[0].tolist()
    return View(
        image=None if x is None else _bytes(plots.grey(x)),
        drawing=_bytes(plots.grey(tree.canvas)),
        nodes=tuple(_nodes(tree, plots.PALETTES[state.colours], corrects)),
        error=None if x is None else (tree.canvas - x).square().sum().item(),
        blank=None if x is None else (tree.on_paper(torch.zeros_like(x)) - x).square().sum().item(),
        action=dict(zip(edits.ACTION, action, strict=False)),
        code=_coordinates(state, selected),
        predicted=state.predicted if corrects else None,
        drawn_from=edits.drawn_from(trees.model(state.model), tree, state.selected),
    )


def strip(state: State, a: int, b: int) -> list[tuple[GivenProgram, np.ndarray]]:
    """Programs on the straight line between two points of the map, and the picture of each.

    Raises ValueError for points of different levels, and what `maps.map_of` raises without a map.
    """
    first, last = point(state, a), point(state, b)
    if first.level != last.level:
        raise ValueError("a line needs two programs of one level: two wholes or two parts.")
    line = interpolation.straight(first.z[0], last.z[0], STEPS)
    with torch.no_grad():
        tree = trees.model(state.model).decode(line, first.level)
    programs = [GivenProgram(tuple(z.tolist()), first.level) for z in line]
    shown = [picture(tree[k : k + 1], plots.PALETTES[state.colours]) for k in range(STEPS)]
    return list(zip(programs, shown, strict=True))


def at_point(state: State, number: int) -> State:
    """The state opened at a point of the model's map, with the program that it stands for.

    Those on the map are as their images corrected them.
    """
    found = trees.guide(state.model)
    index, path = found.program(number)
    there = opened(state, TestImage(index), path)
    return replace(there, dataset=found.dataset, predicted=False)


def point(state: State, number: int) -> ProgramTree:
    """The program at a point of the map."""
    there = at_point(state, number)
    return trees.tree(there).at(there.selected)


def picture(
    node: ProgramTree, colours: tuple[str, ...], root: ProgramTree | None = None
) -> np.ndarray:
    """A program in its own frame, uint8 (H, W, 3): its children coloured, a leaf as it is drawn, on
    the paper of its root."""
    if node.children:
        return _bytes(plots.coloured(node.parts, colours))
    return _bytes(plots.grey((root or node).on_paper(node.canvas)))


def _nodes(tree: ProgramTree, colours: tuple[str, ...], told: bool) -> Iterator[Node]:
    """The programs, with what an image `told` about them if any did."""
    to_root = {(): torch.eye(3)}  # from a program's frame to the root's, by its path
    for path, node in edits.walk(tree):
        window = outline = None
        if path:
            to_parent = torch.cat([node.affine[0], torch.eye(3)[2:]])
            to_root[path] = to_root[path[:-1]] @ to_parent
            maps = to_parent, to_root[path]
            window, outline = (plots.corners(matrix[:2]).tolist() for matrix in maps)
        hidden = isinstance(node, edits.Hidden)
        nats = node.kl.item() if told and node.kl is not None else None
        yield Node(path, node.level, picture(node, colours, tree), window, outline, hidden, nats)


def _coordinates(state: State, selected: ProgramTree) -> tuple[float, ...]:
    try:
        guide = trees.guide(state.model)
    except (CheckpointError, FileNotFoundError):
        return ()
    directions, mean = guide.directions[selected.level], guide.mean[selected.level]
    return tuple(edits.coordinates(selected.z, directions, mean)[0].tolist())


def _bytes(pictures: np.ndarray) -> np.ndarray:
    """The first of pictures in [0, 1] as bytes."""
    return (pictures[0] * 255).round().astype(np.uint8)
