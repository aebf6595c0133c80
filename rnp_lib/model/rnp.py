"""The model: an image encoder, one hypernetwork, and the unrolling of programs into a tree."""

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from rnp_lib.config import Config
from rnp_lib.model.encoder import ENCODERS
from rnp_lib.model.hypernet import E_DIM, HyperNetwork
from rnp_lib.model.transforms import affine
from rnp_lib.model.tree import ProgramTree, assemble


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

    def unroll(self, z: Tensor, level: int, until: int = 0) -> ProgramTree:
        """z (B, |z|), programs of `level`, run down to programs of the level `until`."""
        raise NotImplementedError

    def decode(self, z: Tensor, level: int | None = None) -> ProgramTree:
        """Run programs z (B, |z|) of a level (K, the root's, unless told) down to the leaves."""
        level = self.config.depth if level is None else level
        if not 1 <= level <= self.config.depth:
            raise ValueError(f"level must be from 1 to {self.config.depth}: got {level}.")
        if z.ndim != 2 or z.shape[1] != self.config.z_dim:
            raise ValueError(f"z must be (B, {self.config.z_dim}): got {tuple(z.shape)}.")
        return self.unroll(z, level)

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
        vectors = 0.1 * torch.randn(steps, E_DIM)
        self.step = nn.Parameter(vectors, requires_grad=config.step_vector)

    def unroll(self, z: Tensor, level: int, until: int = 0) -> ProgramTree:
        """Algorithm 1: z (B, |z|), programs of `level`, run down to programs of the level `until`.

        Those are decoded directly: leaves (0), or where training cuts the tree.
        """
        c = self.config
        if not 0 <= until < level:
            raise ValueError(f"until must be from 0 to {level - 1}: got {until}.")
        tau = c.tau[c.depth - level]
        waits_for_child = c.feedback == "child" and level - 1 > until
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
                children.append(self.unroll(state.squeeze(1), level - 1, until))
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
        if level - 1 == until:
            children = [ProgramTree(z=states[:, t], canvas=patch[:, t]) for t in range(tau)]
        elif not children:
            batch = self.unroll(states.flatten(0, 1), level - 1, until)
            children = [batch[t::tau] for t in range(tau)]
        children = [
            replace(child, action=actions[:, t], affine=maps[:, t], patch=patch[:, t])
            for t, child in enumerate(children)
        ]
        return assemble(z, children, c.image_size if level == c.depth else c.patch_size)
