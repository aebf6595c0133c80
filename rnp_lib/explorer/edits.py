"""Trees edited by hand: a part is moved, left out, doubled, exchanged or drawn by another program.

Every function takes a tree and returns another, which shares with it all that did not change: only
the subtree that an edit concerns is run again, and only the pictures above it are added up again.
A *path* names a program by its children's numbers from the root down: () is the root, (0, 2) the
third child of the first child. Run them without gradients, as in `with torch.no_grad():`.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from rnp_lib.model.rnp import RNP
from rnp_lib.model.transforms import affine
from rnp_lib.model.tree import ProgramTree

TreePath = tuple[int, ...]
ACTION = ("scale_x", "scale_y", "rotation", "shear", "centre_x", "centre_y")  # in their order
COPY_SHIFT = 0.3  # how far a copy's centre is from the original's, as an action


class Hidden(ProgramTree):
    """A program that its parent's picture leaves out, whatever is put in its place."""

    hidden = True

    def cut(self, level: int) -> Tensor:
        return torch.zeros_like(super().cut(level))


def walk(tree: ProgramTree, path: TreePath = ()) -> Iterator[tuple[TreePath, ProgramTree]]:
    """The programs of a tree with their paths, each before its children."""
    yield path, tree
    for t, child in enumerate(tree.children):
        yield from walk(child, (*path, t))


def hide(tree: ProgramTree, path: TreePath, hidden: bool = True) -> ProgramTree:
    """Leave a program out of the drawing, or (hidden=False) take it in again."""
    node = _below_root(tree, path)
    return tree.put(path, (Hidden if hidden else ProgramTree)(**vars(node)))


def move(model: RNP, tree: ProgramTree, path: TreePath, **changes: float) -> ProgramTree:
    """Change some of the numbers of a program's action, by their names in ACTION.

    Raises ValueError for another name or a number outside [-1, 1].
    """
    node = _below_root(tree, path)
    action = node.action.clone()
    for name, value in changes.items():
        if name not in ACTION:
            raise ValueError(f"an action has {', '.join(ACTION)}: got {name!r}.")
        if not -1 <= value <= 1:
            raise ValueError(f"{name} must be from -1 to 1: got {value}.")
        action[:, ACTION.index(name)] = value
    c = model.config
    matrix = affine(action, c.extent[c.depth - node.level - 1], c.rotation, c.shear, c.centre)
    place = {"action": action, "affine": matrix, "u": model.unsquash(action)}
    return tree.put(path, replace(node, posterior=None, kl=None, **place))


def rewrite(model: RNP, tree: ProgramTree, path: TreePath, z: Tensor) -> ProgramTree:
    """Put other programs z (B, |z|), one for each of the batch, in a program's place."""
    node = tree.at(path)
    if not path:
        return model.decode(z, tree.level)
    new = model.decode(z, node.level) if node.children else ProgramTree(z=z, canvas=node.canvas)
    return _adopt(model, tree, path, new)


def _adopt(model: RNP, tree: ProgramTree, path: TreePath, new: ProgramTree) -> ProgramTree:
    """`transplant`, after which a part of `tree` looks as its parent there decodes it."""
    if not path:
        return transplant(tree, path, new)
    # A program's own patch is decoded by its parent: so is all that a leaf draws.
    above = tree.at(path[:-1])
    parent = model.network(above.level)(above.z)
    patch = parent.patch(new.z.unsqueeze(1)).view_as(tree.at(path).patch)
    canvas = new.canvas if new.children else patch
    return transplant(tree, path, replace(new, patch=patch, canvas=canvas))


def steer(
    model: RNP, tree: ProgramTree, path: TreePath, direction: Tensor, to: float, mean: Tensor
) -> ProgramTree:
    """Move a program along a line through its space.

    Args:
        direction: (|z|), as long as one unit of `to`, and `mean` (|z|), where `to` is 0.
        to: the coordinate along the direction that the program will have; what is across it stays.
    """
    node = tree.at(path)
    direction, mean = direction.to(node.z), mean.to(node.z)
    now = coordinates(node.z, direction.unsqueeze(0), mean)  # (B, 1)
    return rewrite(model, tree, path, node.z + (to - now) * direction)


def coordinates(z: Tensor, directions: Tensor, mean: Tensor) -> Tensor:
    """Coordinates (B, k) of programs z (B, |z|) along directions (k, |z|), in their lengths."""
    return (z - mean) @ directions.T / directions.square().sum(1)


def drawn_from(model: RNP, tree: ProgramTree, path: TreePath) -> str:
    """What `resample` draws a program from.

    Returns:
        "root": N(0, I), and with posterior "tree" the priors of all programs below it. "parent":
        its own prior, which is what its parent predicts of it, its place included. "dream": it has
        no prior, so it becomes what lies at the same place in a tree drawn from the prior, and
        stays where it is. Such are leaves, copies added by hand, a part whose tree is on show by
        itself and, with posterior "root", every program below the root.
    """
    node, c = tree.at(path), model.config
    if not path:
        return "root" if tree.level == c.depth else "dream"
    copied = path[-1] >= c.tau[c.depth - node.level - 1]
    return "parent" if c.posterior == "tree" and node.children and not copied else "dream"


def resample(
    model: RNP, tree: ProgramTree, path: TreePath, seed: int, temperature: float = 1.0
) -> ProgramTree:
    """Draw a program and all below it anew: see `drawn_from`. What was hidden stays hidden, but
    what is drawn below it is all shown.
    """
    if drawn_from(model, tree, path) == "parent":
        drawn = model.resample(tree, path, seed, temperature).at(path)
        return tree.put(path, type(tree.at(path))(**vars(drawn)))
    dream = model.sample(len(tree), seed, temperature)
    above = (0,) * (model.config.depth - tree.level)  # for the tree of a part
    for t in above + path:
        dream = dream.children[t % len(dream.children)]
    return _adopt(model, tree, path, dream)


def duplicate(model: RNP, tree: ProgramTree, path: TreePath) -> ProgramTree:
    """Draw a program once more, a little to the side, as the last child of its parent."""
    node = _below_root(tree, path)
    parent = tree.at(path[:-1])
    twin = replace(_untold(node), prior=None)  # its parent predicts no more than it calls
    tree = tree.put(path[:-1], parent.of([*parent.children, twin]))
    copy = (*path[:-1], len(parent.children))
    centre = node.action[0, ACTION.index("centre_x")].item()
    shift = COPY_SHIFT if centre < 0 else -COPY_SHIFT
    return move(model, tree, copy, centre_x=centre + shift)


def swap(tree: ProgramTree, path: TreePath, other: TreePath) -> ProgramTree:
    """Exchange two programs of one level: each is drawn where the other was."""
    if path == other:
        raise ValueError("a program cannot be exchanged with itself: choose another one.")
    first, second = _below_root(tree, path), _below_root(tree, other)
    return transplant(transplant(tree, path, second), other, first)


def transplant(tree: ProgramTree, path: TreePath, donor: ProgramTree) -> ProgramTree:
    """Put a program of this or another tree, with all below it, in the place of one of its level.

    Raises ValueError if their levels or their sizes differ.
    """
    node = tree.at(path)
    if donor.level != node.level:
        raise ValueError(
            f"only programs of one level can take each other's place: this one is of level "
            f"{node.level}, the other of level {donor.level}."
        )
    if (donor.z.shape, donor.canvas.shape[1:]) != (node.z.shape, node.canvas.shape[1:]):
        raise ValueError("the two programs are of different models or batches.")
    # Where the other lay, with the same prior there, and hidden if it was.
    place = {name: getattr(node, name) for name in ("action", "affine", "u", "prior")}
    if not path:
        place["patch"] = None
    return tree.put(path, type(node)(**vars(_untold(donor)) | place))


def _untold(tree: ProgramTree) -> ProgramTree:
    """The tree without what an image told of it, for where that image is not looked at."""
    children = [_untold(child) for child in tree.children]
    return replace(tree, children=children, posterior=None, kl=None)


def _below_root(tree: ProgramTree, path: TreePath) -> ProgramTree:
    if not path:
        raise ValueError("the root lies in no other program: choose one of its parts.")
    return tree.at(path)
