"""From states to trees. What is read from files is kept, a few of each, and trees while in use."""

import math
import zlib
from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rnp_lib import checkpoints, data
from rnp_lib.explorer import edits, maps, states
from rnp_lib.explorer.edits import TreePath
from rnp_lib.explorer.states import Edit, State
from rnp_lib.model.rnp import RNP
from rnp_lib.model.tree import ProgramTree

BY_MODEL = ("move", "steer", "resample", "duplicate")  # functions of `edits` that run the model
EDITS = (*BY_MODEL, "hide", "swap", "transplant")


def edited(state: State, what: str, path: TreePath, again: bool = False, **arguments) -> State:
    """The state after one more edit, which must be possible.

    Args:
        what: a function of `explorer.edits`, called with the path and `arguments`; "steer" takes
            the number of one of the map's directions and the coordinate `to`, "transplant" the
            `donor`, a State, and `donor_path`.
        again: the edit takes the place of the last one, as while a slider is being moved.

    Raises ValueError, in one sentence, for what cannot be done.
    """
    if what not in EDITS:
        raise ValueError(f"an edit is one of {', '.join(EDITS)}: got {what!r}.")
    before, most = state.edits[:-1] if again else state.edits, states.MOST_EDITS
    if len(before) >= most:
        raise ValueError(f"a tree takes {most} edits: save it, or start from another one.")
    path = tuple(path)
    new = replace(state, edits=(*before, Edit(what, path, tuple(arguments.items()))))
    after = tree(new)  # now, not when it is drawn, so that what cannot be done changes nothing
    if what != "duplicate":
        return new
    siblings = after.at(path[:-1]).children
    return replace(new, selected=(*path[:-1], len(siblings) - 1))


@lru_cache(4)
def model(name: str) -> RNP:
    """The model of a state. Raises ValueError for one without programs."""
    found = checkpoints.load(name)
    if not isinstance(found, RNP):
        raise ValueError(f"{name} has no programs to explore: choose another model.")
    return found.requires_grad_(False)


def images(state: State) -> tuple[Tensor, Tensor]:
    """The test images (N, 1, S, S) and labels (N,) that can be picked."""
    c = model(state.model).config
    return _images(state.dataset, "test", c.image_size, c.channels)


_images = lru_cache(4)(data.load)
guide = lru_cache(4)(maps.map_of)  # the map of a model; raises what `map_of` raises


def image(state: State) -> Tensor | None:
    """The image (1, C, S, S) that the tree was parsed from, or None if it was dreamt."""
    match state.source:
        case states.TestImage(index):
            found, _ = images(state)
            if not 0 <= index < len(found):
                raise ValueError(
                    f"{state.dataset} has the test images 0 to {len(found) - 1:,}: got {index:,}."
                )
            return found[index : index + 1]
        case states.Picture(pixels):
            c = model(state.model).config
            shape = c.channels, c.image_size, c.image_size
            if len(pixels) != math.prod(shape):
                raise ValueError(
                    f"the drawing was made for another model, not for {c.image_size} pixels in "
                    f"{'grey' if c.channels == 1 else 'colour'}."
                )
            ink = np.frombuffer(pixels, np.uint8).astype(np.float32) / 255
            return torch.from_numpy(ink).view(1, *shape)
    return None


def corrects(state: State) -> bool:
    """Whether there is an image that corrects what programs predict of their children."""
    parsed = isinstance(state.source, states.TestImage | states.Picture)
    return parsed and model(state.model).config.posterior == "tree"


def tree(state: State) -> ProgramTree:
    """The tree of a state, a batch of one. Raises ValueError for edits that cannot be made."""
    predicted = state.predicted and corrects(state)
    return _tree(state.model, state.dataset, state.source, predicted, state.edits)


@lru_cache(512)
@torch.no_grad()
def _tree(
    name: str, dataset: str, source: states.Source, predicted: bool, done: tuple[Edit, ...]
) -> ProgramTree:
    if done:
        *before, last = done
        return _after(name, _tree(name, dataset, source, predicted, tuple(before)), last)
    match source:
        case states.Sample(seed, temperature):
            return model(name).sample(1, seed, temperature)
        case states.GivenProgram(z, level):
            return model(name).decode(torch.tensor([z]), level)
        case states.Saved(packed):
            return saved(model(name), packed)
        case _:
            found, x = model(name), image(State(name, dataset, source))
            return found.decode(found.encode(x).mean) if predicted else found.parse(x)


def saved(model: RNP, packed: bytes) -> ProgramTree:
    """The tree of `states.Saved`, which must be one that the model could have made."""
    found = ProgramTree.from_json(zlib.decompress(packed).decode())
    c = model.config
    shapes = (len(found), found.level, found.z.shape[1], *found.canvas.shape[1::2])
    if shapes != (1, c.depth, c.z_dim, c.channels, c.image_size):
        raise ValueError(
            f"that file holds a tree of another kind: this model's have {c.depth} levels, programs "
            f"of {c.z_dim} numbers and {c.image_size} pixels a side in "
            f"{'grey' if c.channels == 1 else 'colour'}; choose the model first."
        )
    return found


def _after(name: str, before: ProgramTree, edit: Edit) -> ProgramTree:
    """A tree of the model `name` after one edit."""
    arguments = dict(edit.arguments)
    match edit.what:
        case "steer":
            found, number = guide(name), arguments["direction"]
            level = before.at(edit.path).level
            count = found.directions.shape[1]
            if not 0 <= number < count:
                raise ValueError(f"there are {count} directions: got {number}.")
            arguments |= {"direction": found.directions[level, number], "mean": found.mean[level]}
        case "transplant":
            donor = arguments["donor"]
            if donor.model != name:
                raise ValueError(f"a part of a tree of {donor.model} cannot be drawn by {name}.")
            arguments = {"donor": tree(donor).at(arguments["donor_path"])}
    first = (model(name),) if edit.what in BY_MODEL else ()
    return getattr(edits, edit.what)(*first, before, edit.path, **arguments)
