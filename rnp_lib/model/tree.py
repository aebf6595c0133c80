"""The tree of programs that an image is drawn by, its pictures, and its JSON."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from rnp_lib.model.transforms import place

FORMAT = "rnp-tree-1"  # of `ProgramTree.to_json`


@dataclass
class ProgramTree:
    """A program and everything below it, for a batch of B images.

    Attributes:
        z: (B, |z|), the program.
        canvas: (B, 1, H, W), the program's picture: the sum of `parts`. At a leaf it is `patch`.
        action: (B, 6) in [-1, 1], where the program lies in its parent's frame; None at the root.
        affine: (B, 2, 3), the same as a map from its own frame to its parent's; None at the root.
        patch: (B, 1, P, P), the program decoded directly, without its children; None at the root.
        children: the tau programs it calls, in order.
        parts: (B, tau, 1, H, W), each child's canvas drawn in this frame; None at a leaf.
    """

    z: Tensor
    canvas: Tensor
    action: Tensor | None = None
    affine: Tensor | None = None
    patch: Tensor | None = None
    children: list["ProgramTree"] = field(default_factory=list)
    parts: Tensor | None = None

    @property
    def level(self) -> int:
        """0 at a leaf, K at the root of a whole tree: the superscript of z in the paper, less 1."""
        return 1 + self.children[0].level if self.children else 0

    @property
    def placed(self) -> list[Tensor]:
        """Each child's canvas drawn in this frame, (B, 1, H, W)."""
        return [] if self.parts is None else list(self.parts.unbind(1))

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: slice | Tensor) -> "ProgramTree":
        """The same tree for some of the batch; `index` must keep the batch dimension."""
        if not isinstance(index, (slice, Tensor)):
            raise TypeError(f"index a tree by a slice or a tensor, not by {index!r}.")
        return self.map(lambda tensor: tensor[index])

    def map(self, function) -> "ProgramTree":
        """The tree with `function` applied to every tensor in it."""

        def walk(value):
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, ProgramTree):
                return value.map(function)
            return [walk(item) for item in value] if isinstance(value, list) else value

        return replace(self, **{f.name: walk(getattr(self, f.name)) for f in fields(self)})

    def programs(self, level: int) -> Iterator["ProgramTree"]:
        """The programs of a level, in drawing order: this one at its own, none above it."""
        if level == self.level:
            yield self
        for child in self.children if level < self.level else ():
            yield from child.programs(level)

    def cut(self, level: int) -> Tensor:
        """The canvas with all programs of `level` decoded directly, (B, 1, H, W).

        `cut(0)` is the canvas itself; `cut(self.level - 1)` is the sum of directly decoded parts;
        `cut(self.level)` is the program's own `patch`, which a root does not have.
        """
        if level == self.level:
            return self.patch
        pictures = torch.stack([child.cut(level) for child in self.children], 1)
        return compose(pictures, self.children, self.canvas.shape[-1]).sum(1)

    def to_json(self) -> str:
        """The tree as text, exactly, for `from_json`: no model is needed to draw it again.

        Numbers are float32 with nine digits. Of a leaf its picture is written, of a program with
        children its own `patch` and the side of its canvas, which is composed again; `hidden` are
        those whose part is blank, as where one was left out by hand.
        """
        return json.dumps({"format": FORMAT, "tree": _plain(self)})

    @classmethod
    def from_json(cls, text: str) -> "ProgramTree":
        """Inverse of `to_json`. Raises ValueError, in one sentence, for any other text."""
        try:
            value = json.loads(text)
            if value["format"] != FORMAT:
                raise ValueError(f"its format is {value['format']}")
            return _unplain(value["tree"])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"this is no tree that `to_json` wrote ({reason}).") from None


def compose(pictures: Tensor, children: list[ProgramTree], size: int) -> Tensor:
    """Pictures (B, tau, C, P, P) drawn where the children lie, (B, tau, C, size, size)."""
    maps = torch.stack([child.affine for child in children], 1)
    return place(pictures, maps, size)


def assemble(z: Tensor, children: list[ProgramTree], size: int) -> ProgramTree:
    """The program z (B, |z|) with these children, drawn on a canvas of `size` pixels a side."""
    parts = compose(torch.stack([child.canvas for child in children], 1), children, size)
    return ProgramTree(z=z, canvas=parts.sum(1), children=children, parts=parts)


def _plain(tree: ProgramTree, shown: bool = True) -> dict[str, Any]:
    """A tree as JSON holds it; not `shown` if its parent's picture has nothing of it."""

    def numbers(tensor: Tensor | None) -> list | None:
        if tensor is None:
            return None
        values = tensor.detach().cpu().float()
        if not values.isfinite().all():
            raise ValueError("a tree with numbers that are not finite cannot be written.")
        # Nine digits tell every float32 from its neighbours.
        nine = [float(f"{value:.9g}") for value in values.flatten().tolist()]
        return torch.tensor(nine, dtype=torch.float64).view(values.shape).tolist()

    plain = {name: numbers(getattr(tree, name)) for name in ("z", "action", "affine")}
    seen = [bool(part.any()) for part in tree.placed]
    children = [_plain(*below) for below in zip(tree.children, seen, strict=True)]
    plain |= {"hidden": not shown, "children": children}
    if tree.children:
        return plain | {"patch": numbers(tree.patch), "side": tree.canvas.shape[-1]}
    return plain | {"canvas": numbers(tree.canvas)}


def _unplain(plain: dict[str, Any]) -> ProgramTree:
    """Inverse of `_plain`; one of several errors where it is not such a dict."""
    tail = {"z": (-1,), "action": (6,), "affine": (2, 3), "patch": (1, -1, -1)}
    tail["canvas"] = tail["patch"]  # sizes after the batch's, -1 for any
    found = {}
    for name, sizes in tail.items():
        if plain.get(name) is None:
            continue
        found[name] = value = torch.tensor(plain[name], dtype=torch.float32)
        if value.ndim != 1 + len(sizes) or any(
            size not in (-1, given) for size, given in zip(sizes, value.shape[1:], strict=True)
        ):
            raise ValueError(f"{name} has the shape {tuple(value.shape)}")
    children = [_unplain(child) for child in plain["children"]]
    if children:
        side = plain["side"]
        if not isinstance(side, int) or not 1 <= side <= 4096:
            raise ValueError(f"side is {side!r}")
        tree = assemble(found.pop("z"), children, side)
        shown = torch.tensor([not child["hidden"] for child in plain["children"]])
        parts = tree.parts * shown[:, None, None, None]
        return replace(tree, parts=parts, canvas=parts.sum(1), **found)
    if "affine" in found:
        found["patch"] = found["canvas"]
    return ProgramTree(**found)
