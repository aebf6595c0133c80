"""The model: an image encoder, one hypernetwork, and the unrolling of programs into a tree."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from rnp_lib.config import Config
from rnp_lib.model.encoder import ENCODERS
from rnp_lib.model.hypernet import HyperNetwork
from rnp_lib.model.transforms import affine, place

TREE_FORMAT = "rnp-tree-1"  # of `ProgramTree.to_json`


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
        hidden: left out of the parent's picture, where its part is zeros.
    """

    z: Tensor
    canvas: Tensor
    action: Tensor | None = None
    affine: Tensor | None = None
    patch: Tensor | None = None
    children: list["ProgramTree"] = field(default_factory=list)
    parts: Tensor | None = None
    hidden: bool = False

    @property
    def depth(self) -> int:
        """Levels below this program: 0 at a leaf."""
        return 1 + self.children[0].depth if self.children else 0

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

        return ProgramTree(**{f.name: walk(getattr(self, f.name)) for f in fields(self)})

    def level(self, below: int) -> Iterator["ProgramTree"]:
        """The programs `below` levels under this one, in drawing order (0: this one)."""
        if below == 0:
            yield self
        else:
            for child in self.children:
                yield from child.level(below - 1)

    def cut(self, depth: int) -> Tensor:
        """The canvas with the tree cut at `depth`, its ends decoded directly: (B, 1, H, W).

        `cut(self.depth)` is the canvas itself; `cut(1)` is the sum of directly decoded parts;
        `cut(0)` is the program's own `patch`, which a root does not have.
        """
        if not self.children or depth == 0:
            return self.patch
        pictures = [child.cut(depth - 1) for child in self.children]
        return _compose(pictures, self.children, self.canvas).sum(1)

    def to_json(self) -> str:
        """The tree as text, exactly, for `from_json`: no model is needed to draw it again.

        Numbers are float32 with nine digits. Of a leaf its picture is written, of a program with
        children its own `patch` and the side of its canvas, which is composed again.
        """
        return json.dumps({"format": TREE_FORMAT, "tree": _plain(self)})

    @classmethod
    def from_json(cls, text: str) -> "ProgramTree":
        """Inverse of `to_json`. Raises ValueError, in one sentence, for any other text."""
        try:
            value = json.loads(text)
            if value["format"] != TREE_FORMAT:
                raise ValueError(f"its format is {value['format']}")
            return _unplain(value["tree"])
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"this is no tree that `to_json` wrote ({reason}).") from None


def assemble(z: Tensor, children: list[ProgramTree], size: int) -> ProgramTree:
    """The program z (B, |z|) with these children, drawn on a canvas of `size` pixels a side."""
    like = z.new_empty(0, 1, size, size)
    parts = _compose([child.canvas for child in children], children, like)
    return ProgramTree(z=z, canvas=parts.sum(1), children=children, parts=parts)


def _plain(tree: ProgramTree) -> dict[str, Any]:
    """A tree as JSON holds it."""

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
    plain |= {"hidden": tree.hidden, "children": [_plain(child) for child in tree.children]}
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
    found["hidden"] = bool(plain["hidden"])
    children = [_unplain(child) for child in plain["children"]]
    if children:
        side = plain["side"]
        if not isinstance(side, int) or not 1 <= side <= 4096:
            raise ValueError(f"side is {side!r}")
        return replace(assemble(found.pop("z"), children, side), **found)
    if "affine" in found:
        found["patch"] = found["canvas"]
    return ProgramTree(**found)


def _compose(pictures: list[Tensor], children: list[ProgramTree], like: Tensor) -> Tensor:
    """Each child's picture drawn in the frame of `like`, (B, tau, 1, H, W)."""
    size = like.shape[-1]
    maps = torch.stack([child.affine for child in children], 1)
    drawn = place(torch.stack(pictures, 1).flatten(0, 1), maps.flatten(0, 1), size)
    drawn = drawn.unflatten(0, (-1, len(children)))
    if any(child.hidden for child in children):
        shown = torch.tensor([not child.hidden for child in children], device=drawn.device)
        drawn = drawn * shown[:, None, None, None]
    return drawn


class ImageModel(nn.Module):
    """An image encoder, and below it whatever `unroll` of a subclass draws a program with."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.encoder = ENCODERS[config.encoder](config.image_size, 2 * config.z_dim)

    def encode(self, x: Tensor) -> Normal:
        """q(z | x): images (B, 1, H, W) in [0, 1] -> Normal over root programs, batch (B, |z|)."""
        side = self.config.image_size
        if x.ndim != 4 or x.shape[1:] != (1, side, side):
            raise ValueError(
                f"images must be (B, 1, {side}, {side}) for this model: got {tuple(x.shape)}; "
                f"make them square and greyscale and resize them to {side} pixels."
            )
        out = self.encoder(x)
        mean, log_std = out.to(torch.promote_types(out.dtype, torch.float32)).chunk(2, -1)
        # The bounds only guard against overflow: learned values stay far inside them.
        return Normal(mean, log_std.clamp(-10, 5).exp(), validate_args=False)

    def unroll(self, z: Tensor, level: int, depth: int) -> ProgramTree:
        """z (B, |z|), a program of `level`, unrolled `depth` levels deep."""
        raise NotImplementedError

    def decode(self, z: Tensor, level: int | None = None) -> ProgramTree:
        """Run programs z (B, |z|) of a level (K, the root's, unless told) down to the leaves."""
        level = self.config.depth if level is None else level
        if not 1 <= level <= self.config.depth:
            raise ValueError(f"level must be from 1 to {self.config.depth}: got {level}.")
        if z.ndim != 2 or z.shape[1] != self.config.z_dim:
            raise ValueError(f"z must be (B, {self.config.z_dim}): got {tuple(z.shape)}.")
        return self.unroll(z, level, level)

    def parse(self, x: Tensor) -> ProgramTree:
        """The tree of the posterior mean of images (B, 1, H, W)."""
        return self.decode(self.encode(x).mean)

    def sample(self, n: int, seed: int = 0, temperature: float = 1.0) -> ProgramTree:
        """The trees of n programs drawn from the prior N(0, I), times `temperature`."""
        noise = torch.randn(n, self.config.z_dim, generator=torch.Generator().manual_seed(seed))
        return self.decode(temperature * noise.to(next(self.parameters())))


class RNP(ImageModel):
    """A Recursive Neural Program of any depth (Fisher & Rao 2022, section 2)."""

    def __init__(self, config: Config):
        super().__init__(config)
        self.hypernet = HyperNetwork(config)
        steps = max(config.tau) if config.step_vector else 0
        vectors = 0.1 * torch.randn(steps, config.e_dim)
        self.step = nn.Parameter(vectors, requires_grad=config.step_vector)

    def unroll(self, z: Tensor, level: int, depth: int) -> ProgramTree:
        """Algorithm 1: z (B, |z|), a program of `level`, unrolled `depth` levels deep.

        Training one depth at a time cuts the tree (depth < level): then children at the cut are
        their directly decoded patches.
        """
        c = self.config
        if not 1 <= depth <= level:
            raise ValueError(f"depth must be from 1 to {level}: got {depth}.")
        tau = c.tau[c.depth - level]
        waits_for_child = c.feedback == "child" and depth > 1
        program = self.hypernet(z)
        x, a = program.patch_0, program.action_0  # (B, 1, P²), (B, 1, 6)
        state, policy = program.state_0, program.policy_0  # (B, 1, |z|)
        states, actions, patches, children = [], [], [], []
        for t in range(tau):
            e = program.encode(x, a)
            if c.step_vector:
                e = e + self.step[t]
            state, policy = program.next_state(state, e), program.next_policy(policy, e)
            a = program.action(policy)
            if waits_for_child:
                children.append(self.unroll(state.squeeze(1), level - 1, depth - 1))
                x = children[-1].canvas.flatten(1).unsqueeze(1)
            elif c.feedback != "none":
                x = program.patch(state)
                patches.append(x)
            states.append(state)
            actions.append(a)

        # Whatever no step waited for is computed here for all steps at once.
        states, actions = torch.cat(states, 1), torch.cat(actions, 1)  # (B, τ, |z|), (B, τ, 6)
        patch = torch.cat(patches, 1) if patches else program.patch(states)
        patch = patch.unflatten(-1, (1, c.patch_size, c.patch_size))  # (B, τ, 1, P, P)
        maps = affine(actions, c.extent[c.depth - level], c.rotation, c.shear, c.centre)
        if depth == 1:
            children = [ProgramTree(z=states[:, t], canvas=patch[:, t]) for t in range(tau)]
        elif not children:
            batch = self.unroll(states.flatten(0, 1), level - 1, depth - 1)
            children = [batch[t::tau] for t in range(tau)]
        children = [
            replace(child, action=actions[:, t], affine=maps[:, t], patch=patch[:, t])
            for t, child in enumerate(children)
        ]
        return assemble(z, children, c.image_size if level == c.depth else c.patch_size)
