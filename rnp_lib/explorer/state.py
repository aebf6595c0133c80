"""The explorer without its widgets: a state, the edits that lead from one to the next, its tree.

    state = State(source=TestImage(18))
    state = edited(state, "move", (0,), rotation=0.5)
    tree(state)  # a ProgramTree; only what an edit changed is computed
    code(state)  # Python that makes the same tree

A state is small, frozen and holds no tensors. It says where its tree came from and what was done to
it since, so that one state always gives one tree; trees are kept for as long as they are in use.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from rnp_lib import checkpoints, data, plots
from rnp_lib.explorer import edits, maps
from rnp_lib.explorer.edits import Path
from rnp_lib.model.rnp import RNP
from rnp_lib.model.tree import ProgramTree

MOST_EDITS = 100
KINDS = ("png", "svg", "json")


# Where a tree comes from


@dataclass(frozen=True)
class TestImage:
    """An image of the state's data set, by its number in the test split."""

    __test__ = False  # pytest takes it for a test by its name
    index: int = 18


@dataclass(frozen=True)
class Picture:
    """A drawing or an upload, framed: its pixels row by row, 0 to 255."""

    pixels: bytes


@dataclass(frozen=True)
class Sample:
    """A root program from the prior, N(0, I) times the temperature."""

    seed: int = 0
    temperature: float = 1.0


@dataclass(frozen=True)
class Program:
    """A program given by its numbers, run at a level: what a point between two others is."""

    z: tuple[float, ...]
    level: int


Source = TestImage | Picture | Sample | Program


@dataclass(frozen=True)
class Edit:
    """A call of `explorer.edits`: its name, the program it concerns, and its other arguments."""

    what: str
    path: Path
    arguments: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class State:
    """All that the explorer shows follows from this.

    Attributes:
        model: a name in checkpoints/, or a path.
        dataset: whose test images can be picked.
        source: what the tree was before it was edited.
        edits: what was done to it, in order.
        selected: the program whose sliders are shown.
        colours: a name in `plots.PALETTES`.
    """

    model: str = "mnist"
    dataset: str = "mnist"
    source: Source = TestImage()
    edits: tuple[Edit, ...] = ()
    selected: Path = ()
    colours: str = "paper"


def opened(state: State, source: Source, selected: Path = ()) -> State:
    """The state with another tree, not yet edited."""
    return replace(state, source=source, edits=(), selected=selected)


def edited(state: State, what: str, path: Path, again: bool = False, **arguments) -> State:
    """The state after one more edit, which must be possible.

    Args:
        what: a function of `explorer.edits`, called with the path and `arguments`; "steer" takes
            the number of one of the map's directions and the coordinate `to`, "transplant" the
            `donor`, a State, and `donor_path`.
        again: the edit takes the place of the last one, as while a slider is being moved.

    Raises ValueError, in one sentence, for what cannot be done.
    """
    if what not in _EDITS:
        raise ValueError(f"an edit is one of {', '.join(_EDITS)}: got {what!r}.")
    before = state.edits[:-1] if again else state.edits
    if len(before) >= MOST_EDITS:
        raise ValueError(f"a tree takes {MOST_EDITS} edits: save it, or start from another one.")
    edit = Edit(what, tuple(path), tuple(arguments.items()))
    new = replace(state, edits=(*before, edit))
    selected = new.selected
    if what == "duplicate":
        selected = (*edit.path[:-1], len(edits.at(tree(new), edit.path[:-1]).children) - 1)
    tree(new)  # now, not when it is drawn, so that what cannot be done leaves the state alone
    return replace(new, selected=selected)


@dataclass(frozen=True)
class History:
    """A state with those before it and those undone, the nearest ones last."""

    now: State = State()
    past: tuple[State, ...] = ()
    future: tuple[State, ...] = ()

    def then(self, state: State, merge: bool = False) -> "History":
        """After a change; with `merge` it is one step with the last, as while a slider moves."""
        if merge:
            return replace(self, now=state, future=())
        return History(state, (*self.past, self.now)[-MOST_EDITS:])

    def undo(self) -> "History":
        if not self.past:
            raise ValueError("there is nothing to undo.")
        return History(self.past[-1], self.past[:-1], (*self.future, self.now))

    def redo(self) -> "History":
        if not self.future:
            raise ValueError("there is nothing to redo.")
        return History(self.future[-1], (*self.past, self.now), self.future[:-1])


# From states to trees. What is read from files is kept, a few of each.


@lru_cache(4)
def model(name: str) -> RNP:
    """The model of a state. Raises ValueError for one without programs."""
    found = checkpoints.load(name)
    if not isinstance(found, RNP):
        raise ValueError(f"{name} has no programs to explore: choose another model.")
    return found.requires_grad_(False)


@lru_cache(4)
def _images(dataset: str, size: int) -> tuple[Tensor, Tensor]:
    return data.load(dataset, "test", size)


def images(state: State) -> tuple[Tensor, Tensor]:
    """The test images (N, 1, S, S) and labels (N,) that can be picked."""
    return _images(state.dataset, model(state.model).config.image_size)


@lru_cache(4)
def guide(name: str) -> maps.Map:
    """The map of a model; what `maps.load` raises where it has none that fits."""
    return maps.load(name)


def image(state: State) -> Tensor | None:
    """The image (1, 1, S, S) that the tree was parsed from, or None if it was dreamt."""
    if isinstance(state.source, TestImage):
        index, (all_images, _) = state.source.index, images(state)
        if not 0 <= index < len(all_images):
            raise ValueError(
                f"{state.dataset} has the test images 0 to {len(all_images) - 1:,}: got {index:,}."
            )
        return all_images[index : index + 1]
    if isinstance(state.source, Picture):
        size = model(state.model).config.image_size
        pixels = np.frombuffer(state.source.pixels, np.uint8)
        if len(pixels) != size**2:
            raise ValueError(f"the drawing was made for another model, not for {size} pixels.")
        return torch.from_numpy(pixels.astype(np.float32) / 255).view(1, 1, size, size)
    return None


def tree(state: State) -> ProgramTree:
    """The tree of a state, a batch of one. Raises ValueError for edits that cannot be made."""
    return _tree(state.model, state.dataset, state.source, state.edits)


@lru_cache(512)
@torch.no_grad()
def _tree(name: str, dataset: str, source: Source, done: tuple[Edit, ...]) -> ProgramTree:
    if done:
        *_, last = done
        before = _tree(name, dataset, source, done[:-1])
        return _EDITS[last.what](name, before, last.path, **dict(last.arguments))
    run = model(name)
    match source:
        case Sample(seed, temperature):
            return run.sample(1, seed, temperature)
        case Program(z, level):
            return run.decode(torch.tensor([z]), level)
        case _:
            return run.parse(image(State(name, dataset, source)))


def level(state: State, path: Path) -> int:
    """K at the root of a whole tree, 0 at its leaves."""
    return edits.at(tree(state), path).level


def _hide(name, before, path, hidden):
    return edits.hide(before, path, hidden)


def _swap(name, before, path, other):
    return edits.swap(before, path, other)


def _steer(name, before, path, direction, to):
    way, mean = _direction(name, edits.at(before, path).level, direction)
    return edits.steer(model(name), before, path, way, to, mean)


def _direction(name: str, level: int, number: int) -> tuple[Tensor, Tensor]:
    found = guide(name)
    if not 0 <= number < found.directions.shape[1]:
        raise ValueError(f"there are {found.directions.shape[1]} directions: got {number}.")
    return found.directions[level, number], found.mean[level]


def _transplant(name, before, path, donor, donor_path):
    if donor.model != name:
        raise ValueError(f"a part of a tree of {donor.model} cannot be drawn by {name}.")
    return edits.transplant(before, path, edits.at(tree(donor), donor_path))


def _by_model(function: Callable) -> Callable:
    return lambda name, before, path, **arguments: function(model(name), before, path, **arguments)


# All that can be done to a tree by hand; each is given the model's name, the tree and the path.
_EDITS: dict[str, Callable[..., ProgramTree]] = {
    "move": _by_model(edits.move),
    "steer": _steer,
    "resample": _by_model(edits.resample),
    "duplicate": _by_model(edits.duplicate),
    "hide": _hide,
    "swap": _swap,
    "transplant": _transplant,
}


# To keep


def code(state: State) -> str:
    """Python that makes the tree of a state with `rnp_lib`, in a variable `tree`."""
    lines = _code(state, "tree")
    imports = ["import torch", "", "import rnp_lib as rnp"]
    if any("edits." in line for line in lines):
        imports.append("from rnp_lib.explorer import edits")
    start = [f"model = rnp.load({_quoted(state.model)})", "torch.set_grad_enabled(False)"]
    if any("guide." in line for line in lines):
        start.append(f"guide = rnp.maps.load({_quoted(state.model)})  # directions to steer along")
    return "\n".join([*imports, "", *start, *lines]) + "\n"


def _code(state: State, variable: str) -> list[str]:
    lines, donors = [], 0
    match state.source:
        case TestImage(index):
            size = model(state.model).config.image_size
            lines.append(f'images, _ = rnp.data.load({_quoted(state.dataset)}, "test", {size})')
            lines.append(f"{variable} = model.parse(images[{index}:{index + 1}])")
        case Sample(seed, temperature):
            lines.append(f"{variable} = model.sample(1, seed={seed}, temperature={temperature})")
        case _:  # a program is shorter than the drawing that it was parsed from
            root = _root(state)
            numbers = ", ".join(f"{value:.9g}" for value in root.z[0].tolist())
            lines.append(f"z = torch.tensor([[{numbers}]])")
            lines.append(f"{variable} = model.decode(z, level={root.level})")
    for edit in state.edits:
        first = "" if edit.what in ("hide", "swap", "transplant") else "model, "
        arguments = dict(edit.arguments)
        given = [f"{name}={value!r}" for name, value in arguments.items()]
        if edit.what == "steer":
            at = _level_before(state, edit)
            given = [
                f"guide.directions[{at}, {arguments['direction']}]",
                f"to={arguments['to']!r}",
                f"mean=guide.mean[{at}]",
            ]
        elif edit.what == "transplant":
            donors += 1
            donor = f"{variable}_donor_{donors}"
            lines += _code(arguments["donor"], donor)
            given = [f"edits.at({donor}, {arguments['donor_path']})"]
        call = ", ".join([f"{first}{variable}", repr(edit.path), *given])
        lines.append(f"{variable} = edits.{edit.what}({call})")
    return lines


def _quoted(text: str) -> str:
    return json.dumps(text)


def _root(state: State) -> ProgramTree:
    return tree(replace(state, edits=()))


def _level_before(state: State, edit: Edit) -> int:
    """The level of the program that an edit concerns: edits leave it as it is."""
    return _root(state).level - len(edit.path)


def export(state: State, kind: str, dpi: int = 200) -> bytes:
    """The tree as a file: a figure ("png" or "svg", outlines as vectors), or "json".

    `ProgramTree.from_json` reads the last; `dpi` is the resolution of the figures. Raises
    ValueError for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"a tree is saved as one of {', '.join(KINDS)}: got {kind!r}.")
    found = tree(state)
    if kind == "json":
        return found.to_json().encode()
    figure = plots.tree(image(state), found, found.level, plots.PALETTES[state.colours])
    file = io.BytesIO()
    # No date and no version: the same tree is the same file.
    clean = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with plt.rc_context({"svg.hashsalt": "rnp"}):  # else the names of outlines are random
        figure.savefig(file, format=kind, dpi=dpi, bbox_inches="tight", metadata=clean)
    plt.close(figure)
    return file.getvalue()
