"""The tree of programs that an image is drawn by, its pictures, and its JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.distributions import Normal

from rnp_lib.model.chance import Chance, Mixture
from rnp_lib.model.transforms import place

FORMAT = "rnp-tree-1"  # of `ProgramTree.to_json`


@dataclass(repr=False)
class ProgramTree:
    """A program and everything below it, for a batch of B images.

    Attributes:
        z: (B, |z|), the program.
        canvas: (B, C, H, W), the program's picture: the sum of `parts`, at the root of a tree in
            colour on its `paper`. At a leaf it is `patch`.
        action: (B, 6) in [-1, 1], where the program lies in its parent's frame; None at the root.
        affine: (B, 2, 3), the same as a map from its own frame to its parent's; None at the root.
        patch: (B, C, P, P), the program decoded directly, without its children; None at the root.
        children: the tau programs it calls, in order.
        parts: (B, tau, C, H, W), each child's canvas drawn in this frame; None at a leaf.
        u: (B, 6), the action before squashing; None at the root.
        prior: what z and u might have been, given the parent; None where they follow from it.
        posterior: what an image says of z and u, and kl: how far that is from the prior, nats,
            (B,); None without an image.
        paper: (B, C, 1, 1), the colour that a root draws on: what programs draw is added to it, or
            taken from it. None in a grey tree, whose paper is black, and below the root.
    """

    z: Tensor
    canvas: Tensor
    action: Tensor | None = None
    affine: Tensor | None = None
    patch: Tensor | None = None
    children: list["ProgramTree"] = field(default_factory=list)
    parts: Tensor | None = None
    u: Tensor | None = None
    prior: Chance | None = None
    posterior: Chance | None = None
    kl: Tensor | None = None
    paper: Tensor | None = None

    hidden: ClassVar[bool] = False  # whether its parent's picture leaves it out

    @property
    def level(self) -> int:
        """0 at a leaf, K at the root of a whole tree: the superscript of z in the paper, less 1."""
        return 1 + self.children[0].level if self.children else 0

    @property
    def placed(self) -> list[Tensor]:
        """Each child's canvas drawn in this frame, (B, C, H, W)."""
        return [] if self.parts is None else list(self.parts.unbind(1))

    @property
    def nats(self) -> Tensor:
        """The KL of this program and of all below it, nats, (B,)."""
        return sum(child.nats for child in self.children) + (0 if self.kl is None else self.kl)

    def __len__(self) -> int:
        return len(self.z)

    def __repr__(self) -> str:
        """One line, and one for each level."""
        lines = [f"ProgramTree of {len(self)} images, {self.level} levels below the root's"]
        for level in range(self.level, -1, -1):
            count, node = len(list(self.programs(level))), next(self.programs(level))
            size = "×".join(map(str, node.canvas.shape[2:]))
            lines.append(f"  level {level}: {count} × z of {node.z.shape[1]}, canvas {size}")
        return "\n".join(lines)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the first tree of the batch."""
        from rnp_lib import plots  # which draws trees, and needs them: only when asked to

        return plots.png(self)

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
            if isinstance(value, Chance | Mixture):
                return replace(value, **{name: walk(part) for name, part in vars(value).items()})
            if isinstance(value, Normal):
                return Normal(walk(value.mean), walk(value.scale), validate_args=False)
            return [walk(item) for item in value] if isinstance(value, list) else value

        return replace(self, **{f.name: walk(getattr(self, f.name)) for f in fields(self)})

    def at(self, path: Sequence[int]) -> "ProgramTree":
        """The program at a path, the numbers of the children that lead to it: (0, 2) is the third
        child of the first child, () this program. Raises ValueError if there is none.
        """
        node = self
        for t in path:
            if not 0 <= t < len(node.children):
                raise ValueError(f"there is no program at {tuple(path)} in this tree.")
            node = node.children[t]
        return node

    def put(self, path: Sequence[int], node: "ProgramTree") -> "ProgramTree":
        """The tree with another program at a path, and the pictures above it added up again."""
        if not path:
            return node
        t, *rest = path
        children = list(self.children)
        children[t] = children[t].put(rest, node)
        return self.of(children)

    def of(self, children: list["ProgramTree"]) -> "ProgramTree":
        """The program with other children."""
        shown = torch.stack([child.canvas * (not child.hidden) for child in children], 1)
        parts = compose(shown, children, self.canvas.shape[-1])
        return replace(self, children=children, parts=parts, canvas=self.on_paper(parts.sum(1)))

    def on_paper(self, picture: Tensor) -> Tensor:
        """What programs below draw, (B, C, ...), as it is seen on the paper of this tree."""
        return picture if self.paper is None else self.paper + picture

    def programs(self, level: int) -> Iterator["ProgramTree"]:
        """The programs of a level, in drawing order: this one at its own, none above it."""
        if level == self.level:
            yield self
        for child in self.children if level < self.level else ():
            yield from child.programs(level)

    def cut(self, level: int) -> Tensor:
        """The canvas with all programs of `level` decoded directly, (B, C, H, W).

        `cut(0)` is the canvas itself; `cut(self.level - 1)` is the sum of directly decoded parts;
        `cut(self.level)` is the program's own `patch`, which a root does not have.
        """
        if level == self.level:
            return self.patch
        pictures = torch.stack([child.cut(level) for child in self.children], 1)
        return self.on_paper(compose(pictures, self.children, self.canvas.shape[-1]).sum(1))

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


def ink(pictures: Tensor) -> Tensor:
    """How much is drawn, (..., 1, H, W): grey pictures (..., C, H, W) themselves, and of what is
    added to coloured paper its size, the mean over channels."""
    return pictures if pictures.shape[-3] == 1 else pictures.abs().mean(-3, keepdim=True)


def assemble(
    z: Tensor, children: list[ProgramTree], size: int, paper: Tensor | None = None
) -> ProgramTree:
    """The program z (B, |z|) with these children, drawn on a canvas of `size` pixels a side.

    paper: as of `ProgramTree`.
    """
    parts = compose(torch.stack([child.canvas for child in children], 1), children, size)
    canvas = parts.sum(1) if paper is None else paper + parts.sum(1)
    return ProgramTree(z=z, canvas=canvas, children=children, parts=parts, paper=paper)


def _numbers(tensor: Tensor | None) -> list | None:
    """A tensor as nested lists."""
    if tensor is None:
        return None
    values = tensor.detach().cpu().float()
    if not values.isfinite().all():
        raise ValueError("a tree with numbers that are not finite cannot be written.")
    # Nine digits tell every float32 from its neighbours.
    nine = [float(f"{value:.9g}") for value in values.flatten().tolist()]
    return torch.tensor(nine, dtype=torch.float64).view(values.shape).tolist()


def _plain(tree: ProgramTree, shown: bool = True) -> dict[str, Any]:
    """A tree as JSON holds it; not `shown` if its parent's picture has nothing of it."""
    names = ["z", "action", "affine", "u", "kl", "paper", "patch" if tree.children else "canvas"]
    plain = {name: _numbers(getattr(tree, name)) for name in names}
    plain |= {name: _plain_chance(getattr(tree, name)) for name in ("prior", "posterior")}
    seen = [bool(part.any()) for part in tree.placed]
    children = [_plain(*below) for below in zip(tree.children, seen, strict=True)]
    plain |= {"hidden": not shown, "children": children}
    return plain | ({"side": tree.canvas.shape[-1]} if tree.children else {})


def _plain_chance(chance: Chance | None) -> dict[str, Any] | None:
    """Distributions as JSON holds them: their parameters by name."""
    found = {} if chance is None else {k: v for k, v in vars(chance).items() if v is not None}
    names = ("log_weights", "mean", "scale")
    return {
        which: {n: _numbers(getattr(of, n)) for n in names if hasattr(of, n)}
        | ({"predicted": of.predicted} if isinstance(of, Mixture) else {})
        for which, of in found.items()
    } or None


def _unplain_chance(plain: dict[str, Any] | None) -> Chance | None:
    """Inverse of `_plain_chance`."""
    if plain is None:
        return None
    found = {}
    for which, numbers in plain.items():
        predicted = numbers.pop("predicted", None)
        values = {name: torch.tensor(value) for name, value in numbers.items()}
        if predicted is None:
            found[which] = Normal(values["mean"], values["scale"])
        else:
            found[which] = Mixture(**values, predicted=predicted)
    return Chance(**found)


def _unplain(plain: dict[str, Any]) -> ProgramTree:
    """Inverse of `_plain`; one of several errors where it is not such a dict."""
    tail = {
        "z": (-1,),
        "action": (6,),
        "affine": (2, 3),
        "patch": (-1, -1, -1),
        "u": (6,),
        "kl": (),
    }
    tail |= {"canvas": tail["patch"], "paper": (-1, 1, 1)}  # sizes after the batch's, -1 for any
    found = {}
    for name, sizes in tail.items():
        if plain.get(name) is None:
            continue
        found[name] = value = torch.tensor(plain[name], dtype=torch.float32)
        if value.ndim != 1 + len(sizes) or any(
            size not in (-1, given) for size, given in zip(sizes, value.shape[1:], strict=True)
        ):
            raise ValueError(f"{name} has the shape {tuple(value.shape)}")
    for name in ("prior", "posterior"):
        found[name] = _unplain_chance(plain.get(name))
    children = [_unplain(child) for child in plain["children"]]
    if children:
        side = plain["side"]
        if not isinstance(side, int) or not 1 <= side <= 4096:
            raise ValueError(f"side is {side!r}")
        tree = replace(assemble(found.pop("z"), children, side), **found)
        shown = torch.tensor([not child["hidden"] for child in plain["children"]])
        parts = tree.parts * shown[:, None, None, None]
        return replace(tree, parts=parts, canvas=tree.on_paper(parts.sum(1)))
    if "affine" in found:
        found["patch"] = found["canvas"]
    return ProgramTree(**found)
