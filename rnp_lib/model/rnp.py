"""The model: an image encoder, one hypernetwork, and the unrolling of programs into a tree."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from rnp_lib.config import Config
from rnp_lib.model.chance import Chance, draw, kl, normal
from rnp_lib.model.encoder import ENCODERS
from rnp_lib.model.grammar import Grammar
from rnp_lib.model.guide import Given, Guide, Reading
from rnp_lib.model.hypernet import ACTIVATIONS, E_DIM, HyperNetwork
from rnp_lib.model.reader import Reader
from rnp_lib.model.transforms import affine
from rnp_lib.model.tree import ProgramTree, assemble


class ImageModel(nn.Module):
    """An image encoder, and below it whatever `unroll` of a subclass draws a program with."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        encoder = ENCODERS[config.encoder]
        self.encoder = encoder(config.image_size, 2 * config.z_dim, config.channels)

    @property
    def inference(self) -> nn.ModuleDict:
        """What looks at images, by name: the encoder and, of a tree, the reader. All else draws."""
        parts = {"encoder": self.encoder}
        if self.config.posterior == "tree":
            parts["reader"] = self.reader
        return nn.ModuleDict(parts)

    def images(self, x: Tensor | np.ndarray) -> Tensor:
        """Images as the model takes them: (B, C, H, W) of its type, on its device, in [0, 1].

        Args:
            x: of that shape, grey with ink bright (C = 1) or red, green and blue (3), as the model
                is: numbers in [0, 1], or whole ones from 0 to 255 (uint8).

        Raises ValueError for anything else, numbers that are not finite among them.
        """
        x, side, channels = torch.as_tensor(x), self.config.image_size, self.config.channels
        if x.ndim != 4 or x.shape[1:] != (channels, side, side):
            kind = "greyscale" if channels == 1 else "RGB"
            raise ValueError(
                f"images must be (B, {channels}, {side}, {side}) for this model: got "
                f"{tuple(x.shape)}; make them square and {kind} and resize them to {side} pixels."
            )
        if x.dtype == torch.uint8:
            x = x / 255
        if not x.is_floating_point():
            raise ValueError(f"images must be floating point or uint8: got {x.dtype}.")
        low, high = x.aminmax() if len(x) else (0, 1)
        if not (low >= 0 and high <= 1):  # which also catches what is no number
            raise ValueError(
                f"images must be in [0, 1]: got numbers from {low:.4g} to {high:.4g}; "
                "divide by the value of white, and leave out what is not finite."
            )
        return x.to(next(self.parameters()))

    @torch.no_grad()
    def encode(self, x: Tensor | np.ndarray) -> Normal:
        """q(z | x): images, see `images` -> Normal over root programs, batch (B, |z|)."""
        return self.root(self.images(x))

    def root(self, x: Tensor) -> Normal:
        """`encode` with gradients, for images as the model takes them."""
        return normal(*self.encoder(x).chunk(2, -1))

    def unroll(
        self, z: Tensor, level: int, until: int = 0, guide: Guide | None = None
    ) -> ProgramTree:
        """z (B, |z|), programs of `level`, run down to programs of the level `until`."""
        raise NotImplementedError

    def split(self, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Noise (B, `config.noise`) of the root, (B, |z|), and of the levels below: see `Guide`."""
        c = self.config
        sizes = [count * c.noise_each for count in c.drawn_below(c.depth)]
        root, *below = noise.split([c.z_dim, *sizes], -1)
        return root, [level.unflatten(-1, (-1, c.noise_each)) for level in below]

    def paper(self, z: Tensor) -> Tensor | None:
        """What root programs z (B, |z|) draw on, (B, C, 1, 1), or None where that is black."""
        return None

    def reading(
        self,
        x: Tensor,
        z: Tensor,
        noise: list[Tensor] | None = None,
        seen: Tensor | None = None,
    ) -> Guide:
        """The guide for the tree of images x (B, C, H, W) and root programs z: see `Reading`."""
        if self.config.posterior == "root":
            return Guide()
        paper = self.paper(z)
        x = x if paper is None else x - paper
        return Reading(self.reader, x, noise, seen, self.config.reader_without)

    @torch.no_grad()
    def decode(self, z: Tensor, level: int | None = None) -> ProgramTree:
        """Run programs z (B, |z|) of a level (K, the root's, unless told) down to the leaves."""
        level = self.config.depth if level is None else level
        if not 1 <= level <= self.config.depth:
            raise ValueError(f"level must be from 1 to {self.config.depth}: got {level}.")
        if z.ndim != 2 or z.shape[1] != self.config.z_dim:
            raise ValueError(f"z must be (B, {self.config.z_dim}): got {tuple(z.shape)}.")
        return self.unroll(z, level)

    def infer(
        self,
        x: Tensor,
        noise: Tensor | None = None,
        until: int = 0,
        seen: Tensor | None = None,
        root: Normal | None = None,
    ) -> ProgramTree:
        """A draw from the posterior of images x (B, C, H, W), every program with its prior and KL,
        with gradients. Images are as `images` leaves them.

        Args:
            noise: (B, `config.noise`) from N(0, I); posterior means are taken unless it is given.
            until: the level that is decoded directly.
            seen: (B,), 0 for images that nothing but the root is told of: below it their programs
                keep their prior.
            root: `self.root(x)`, where it is known already: many draws of an image need it once.
        """
        q = self.root(x) if root is None else root
        of_root, below = (None, None) if noise is None else self.split(noise)
        z = draw(q, of_root)
        tree = self.unroll(z, self.config.depth, until, self.reading(x, z, below, seen))
        prior = Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean), validate_args=False)
        return replace(tree, prior=Chance(prior), posterior=Chance(q), kl=kl(q, prior))

    @torch.no_grad()
    def parse(self, x: Tensor | np.ndarray) -> ProgramTree:
        """The tree of the posterior means of images, see `images`, at every level."""
        return self.infer(self.images(x))

    @torch.no_grad()
    def sample(self, n: int, seed: int = 0, temperature: float = 1.0) -> ProgramTree:
        """The trees of n programs drawn from the prior, every level of it.

        Args:
            temperature: what all standard deviations of the prior are multiplied by.
        """
        return self.expand(self.noise(n, seed, temperature))

    def expand(self, noise: Tensor) -> ProgramTree:
        """The trees of noise (B, `config.noise`): its first |z| numbers are the root's program,
        with the others every level below is drawn from its prior."""
        root, below = self.split(noise)
        return self.unroll(root, self.config.depth, guide=Guide(below))

    def noise(self, n: int, seed: int, temperature: float = 1.0) -> Tensor:
        """What n trees are drawn with, (n, `config.noise`) from N(0, I), times `temperature`."""
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(n, self.config.noise, generator=generator)
        return temperature * noise.to(next(self.parameters()))


class RNP(ImageModel):
    """A Recursive Neural Program of any depth (Fisher & Rao 2022, section 2)."""

    def __init__(self, config: Config):
        super().__init__(config)
        count = 1 if config.hypernets == "one" else config.depth
        nets = [HyperNetwork(config) for _ in range(count)]
        self.hypernet = nets[0] if count == 1 else nn.ModuleList(nets)
        steps = max(config.tau) if config.step_vector else 0
        vectors = 0.1 * torch.randn(steps, E_DIM)
        self.step = nn.Parameter(vectors, requires_grad=config.step_vector)
        if config.channels == 3:
            self.paper_colour = nn.Linear(config.z_dim, config.channels)
        if config.posterior == "tree":
            apart = max(config.tau) if config.reader_without == "sharing" else 1
            readers = [
                Reader(config.z_dim, config.reader_units, config.channels) for _ in range(apart)
            ]
            self.reader = readers[0] if apart == 1 else nn.ModuleList(readers)
            self.grammar = Grammar(config)

    def network(self, level: int) -> HyperNetwork:
        """What makes the programs of a level, which is above 0, run."""
        several = isinstance(self.hypernet, nn.ModuleList)
        return self.hypernet[level - 1] if several else self.hypernet

    def paper(self, z: Tensor) -> Tensor | None:
        if self.config.channels == 1:
            return None
        return self.paper_colour(z).sigmoid()[..., None, None]

    def unroll(
        self, z: Tensor, level: int, until: int = 0, guide: Guide | None = None
    ) -> ProgramTree:
        """Algorithm 1: z (B, |z|), programs of `level`, run down to programs of the level `until`.

        Those are decoded directly: leaves (0), or where training cuts the tree.
        """
        c = self.config
        if not 0 <= until < level:
            raise ValueError(f"until must be from 0 to {level - 1}: got {until}.")
        tau = c.tau[c.depth - level]
        waits_for_child = c.feedback == "child" and level - 1 > until
        chancy = c.posterior == "tree" and level > 1  # leaves follow from their parents
        guide = guide or Guide()
        looks = chancy and guide.looks
        program = self.network(level)(z)
        x, a = program.patch_0, program.action_0  # (B, 1, P²), (B, 1, 6)
        state, policy = program.state_0, program.policy_0  # (B, 1, |z|)
        states, places, patches, children, chances = [], [], [], [], []
        for t in range(tau):
            e = program.encode(x, a)
            if c.step_vector:
                e = e + self.step[t]
            state, policy = program.next_state(state, e), program.next_policy(policy, e)
            u = program.place(policy)
            if chancy:
                prior = self.grammar(z, state.squeeze(1), u.squeeze(1))
                chosen = guide.choose(t, prior, partial(self.window, level))
                state, u = chosen.z.unsqueeze(1), chosen.u.unsqueeze(1)
                chances.append({"prior": prior, "posterior": chosen.posterior, "kl": chosen.kl})
            a = program.squash(u)
            if waits_for_child:
                children.append(self.unroll(state.squeeze(1), level - 1, until))
                x = children[-1].canvas.flatten(1).unsqueeze(1)
            elif c.feedback != "none" or looks:
                patches.append(program.patch(state))
                x = patches[-1] if c.feedback != "none" else None
            if looks:
                picture = patches[-1].squeeze(1).unflatten(-1, c.patch_shape)
                guide.see(picture, self.window(level, u)[:, 0])
            states.append(state)
            places.append(u)

        # Whatever no step waited for is computed here for all steps at once.
        states, places = torch.cat(states, 1), torch.cat(places, 1)  # (B, τ, |z|), (B, τ, 6)
        patch = torch.cat(patches, 1) if patches else program.patch(states)
        patch = patch.unflatten(-1, c.patch_shape)  # (B, τ, C, P, P)
        lies = {"u": places, "action": program.squash(places)}
        lies["affine"] = self.window(level, places)
        if level - 1 == until:
            children = [ProgramTree(z=states[:, t], canvas=patch[:, t]) for t in range(tau)]
        elif not children:
            batch = self.unroll(states.flatten(0, 1), level - 1, until, guide.below())
            children = [batch[t::tau] for t in range(tau)]
        for t, child in enumerate(children):
            known = {name: value[:, t] for name, value in lies.items()}
            known |= chances[t] if chances else {}
            children[t] = replace(child, patch=patch[:, t], **known)
        if level < c.depth:
            return assemble(z, children, c.patch_size)
        return assemble(z, children, c.image_size, self.paper(z))

    def window(self, level: int, u: Tensor) -> Tensor:
        """Where a child of a program of `level` lies: u (..., 6) -> its map, (..., 2, 3)."""
        c = self.config
        action = ACTIVATIONS[c.action_activation](u)
        return affine(action, c.extent[c.depth - level], c.rotation, c.shear, c.centre)

    def unsquash(self, action: Tensor) -> Tensor:
        """A u whose action is the given one, (..., 6)."""
        inverse = {"tanh": torch.atanh, "sin": torch.asin}[self.config.action_activation]
        return inverse(action.clamp(-1 + 1e-6, 1 - 1e-6))

    @torch.no_grad()
    def resample(
        self, tree: ProgramTree, path: Sequence[int], seed: int = 0, temperature: float = 1.0
    ) -> ProgramTree:
        """The tree with a program and all below it drawn anew from the prior.

        The prior is that of its parent, after the siblings before it; later siblings stay, with
        the prior and the KL that they had.

        Args:
            tree: of this model, whole or of a lower level.
            path: the numbers of the children that lead to the program: () is the root, (0, 2) the
                third child of the first child.

        Raises ValueError for a program that follows from its parent (a leaf, and with posterior
        "root" every program but the root), and for one that the tree does not have.
        """
        if not path:
            return self.sample(len(tree), seed, temperature)
        *above, t = path
        parent = tree.at(above)
        tree.at(path)
        if self.config.posterior == "root" or parent.level == 1:
            raise ValueError(
                f"the program at {tuple(path)} is not drawn but follows from its parent: choose "
                "one that has children, of a model with posterior=tree."
            )
        generator = torch.Generator().manual_seed(seed)
        counts = self.config.drawn_below(parent.level)
        noise = [
            temperature * torch.randn(len(tree), count, self.config.noise_each, generator=generator)
            for count in counts
        ]
        z, u = (
            torch.stack([getattr(child, name) for child in parent.children], 1)
            for name in ("z", "u")
        )
        guide = Given([(z, u)], [level.to(z) for level in noise], free=t)
        drawn = self.unroll(parent.z, parent.level, guide=guide).children[t]
        return tree.put(path, drawn)
