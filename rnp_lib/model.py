"""The model: an image encoder, one hypernetwork, and the unrolling of programs into a tree."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from rnp_lib.config import Config
from rnp_lib.encoder import ENCODERS
from rnp_lib.hypernet import HyperNetwork
from rnp_lib.transforms import affine, place


@dataclass
class ProgramTree:
    """A program and everything below it, for a batch of B images.

    Attributes:
        z: (B, |z|), the program.
        canvas: (B, 1, H, W), the program's picture: the sum of `placed`. At a leaf it is `patch`.
        action: (B, 6) in [-1, 1], where the program lies in its parent's frame; None at the root.
        affine: (B, 2, 3), the same as a map from its own frame to its parent's; None at the root.
        patch: (B, 1, P, P), the program decoded directly, without its children; None at the root.
        children: the tau programs it calls, in order.
        placed: each child's canvas drawn in this frame, (B, 1, H, W).
    """

    z: Tensor
    canvas: Tensor
    action: Tensor | None = None
    affine: Tensor | None = None
    patch: Tensor | None = None
    children: list["ProgramTree"] = field(default_factory=list)
    placed: list[Tensor] = field(default_factory=list)

    @property
    def depth(self) -> int:
        """Levels below this program: 0 at a leaf."""
        return 1 + self.children[0].depth if self.children else 0

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


def _compose(pictures: list[Tensor], children: list[ProgramTree], like: Tensor) -> Tensor:
    """Each child's picture drawn in the frame of `like`, (B, tau, 1, H, W)."""
    size = like.shape[-1]
    maps = torch.stack([child.affine for child in children], 1)
    drawn = place(torch.stack(pictures, 1).flatten(0, 1), maps.flatten(0, 1), size)
    return drawn.unflatten(0, (-1, len(children)))


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

    def sample(self, n: int, seed: int = 0) -> ProgramTree:
        """The trees of n programs drawn from the prior N(0, I)."""
        noise = torch.randn(n, self.config.z_dim, generator=torch.Generator().manual_seed(seed))
        return self.decode(noise.to(next(self.parameters())))


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
        size = c.image_size if level == c.depth else c.patch_size
        like = z.new_empty(0, 1, size, size)
        placed = _compose([child.canvas for child in children], children, like)
        return ProgramTree(
            z=z, canvas=placed.sum(1), children=children, placed=list(placed.unbind(1))
        )
