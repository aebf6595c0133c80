"""Who chooses a program's children, where each is a random variable.

`RNP.unroll` predicts the next child of N programs of one level, a guide chooses it: the prediction
itself, a draw from it, what an image shows there, or what is given.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from rnp_lib.model.chance import Chance, Mixture, draw, kl, merge
from rnp_lib.model.reader import Reader
from rnp_lib.model.transforms import place, zoom


@dataclass
class Chosen:
    """The next child of each of N programs.

    Attributes:
        z: (N, |z|); u: (N, 6), its action before squashing.
        posterior, kl: what z and u were drawn from where an image is seen, and its KL from the
            prior, nats, (N,); else None.
    """

    z: Tensor
    u: Tensor
    posterior: Chance | None = None
    kl: Tensor | None = None


class Guide:
    """Chooses children from the prior: their means, or draws.

    Attributes:
        looks: whether it wants to `see` what is chosen.

    Args:
        noise: from N(0, I), of every level from the children of where unrolling starts down,
            (B, programs of the level, |z| + 6 + 1): for z, for u, for the part of a mixture. Means
            are chosen unless it is given.
    """

    looks = False

    def __init__(self, noise: list[Tensor] | None = None):
        self.noise = noise

    def noise_of(self, t: int, prior: Chance) -> list[Tensor | None]:
        """The noise of the child t of N programs: (N, |z|), (N, 6) and (N,)."""
        if self.noise is None:
            return [None] * 3
        noise, size = self.noise[0], prior.u.mean.shape[1]
        of_t = noise.reshape(len(prior.u.mean), -1, noise.shape[-1])[:, t]
        return [of_t[:, : -size - 1], of_t[:, -size - 1 : -1], of_t[:, -1]]

    def choose(self, t: int, prior: Chance, window: Callable[[Tensor], Tensor]) -> Chosen:
        """The child t of N programs.

        Args:
            prior: the prediction.
            window: u (N, 6) -> where the child lies, (N, 2, 3).
        """
        noise_z, noise_u, pick = self.noise_of(t, prior)
        return Chosen(draw(prior.z, noise_z, pick), draw(prior.u, noise_u))

    def see(self, patch: Tensor, window: Tensor) -> None:
        """Sees the child just chosen: its patch (N, C, P, P), and where it lies, (N, 2, 3)."""

    def below(self) -> "Guide":
        """The guide for the children of all children chosen."""
        return Guide(self.noise and self.noise[1:])


class Given(Guide):
    """Chooses what is given, and from the prior where nothing is.

    Args:
        values: z (B, n, |z|) and u (B, n, 6) of the n programs of each level, from the children of
            where unrolling starts down, for as many levels as are given; None for either where it
            is not.
        noise: as of `Guide`.
        free: the number of a child of every program that is not given but drawn.
    """

    def __init__(
        self,
        values: list[tuple[Tensor | None, Tensor | None]],
        noise: list[Tensor] | None = None,
        free: int | None = None,
    ):
        super().__init__(noise)
        self.values, self.free = values, free

    def choose(self, t, prior, window):
        drawn = super().choose(t, prior, window)
        if t == self.free or not self.values:
            return drawn
        n = len(prior.u.mean)
        z, u = (
            other if value is None else value.reshape(n, -1, value.shape[-1])[:, t]
            for value, other in zip(self.values[0], (drawn.z, drawn.u), strict=True)
        )
        return Chosen(z, u)

    def below(self):
        return Given(self.values[1:], self.noise and self.noise[1:])


class Reading(Guide):
    """Chooses children from the posterior: the prediction, corrected by what an image shows.

    Args:
        reader: one for all children, or one for each turn.
        x: the images (N, C, H, W) less their paper, in the frames of the programs to unroll.
        noise: as of `Guide`.
        seen: (N,), 0 for images that are not looked at, whose children keep their prior, else 1.
        without: as of the config.
    """

    looks = True

    def __init__(
        self,
        reader: Reader | nn.ModuleList,
        x: Tensor,
        noise: list[Tensor] | None = None,
        seen: Tensor | None = None,
        without: str = "",
    ):
        super().__init__(noise)
        self.reader, self.x, self.left, self.without = reader, x, x, without
        self.seen = torch.ones_like(x[:, 0, 0, 0]) if seen is None else seen
        self.frames: list[Tensor] = []

    def choose(self, t, prior, window):
        noise_z, noise_u, pick = self.noise_of(t, prior)
        reader = self.reader[t] if isinstance(self.reader, nn.ModuleList) else self.reader
        left = self.x if self.without == "residual" else self.left
        look, u = torch.cat([self.x, left], 1), prior.u.mean
        message = reader.where(look, window(u), draw(prior.z, None), u)
        u, q_u, kl_u = self._read(prior.u, message, noise_u)
        message = reader.what(look, window(u))
        z, q_z, kl_z = self._read(prior.z, message, noise_z, pick)
        return Chosen(z, u, Chance(q_z, q_u), kl_z + kl_u)

    def _read(
        self,
        prior: Normal | Mixture,
        message: Normal,
        noise: Tensor | None,
        pick: Tensor | None = None,
    ) -> tuple[Tensor, Normal, Tensor]:
        """A value, its posterior, and the KL of that, nats."""
        if isinstance(prior, Normal) and self.without != "merging":
            q = merge(prior, message, self.seen)
            return draw(q, noise), q, kl(q, prior)
        # A message's product with a mixture is no Gaussian: it is merged with what the parent
        # predicts, if that is a part of it, and where nothing is seen the prior is drawn from.
        q = message
        if isinstance(prior, Mixture) and prior.predicted and self.without != "merging":
            q = merge(prior.prediction, message, torch.ones_like(self.seen))
        blind = draw(prior, noise, pick)
        value = torch.where(self.seen[:, None] > 0, draw(q, noise), blind)
        return value, q, self.seen * kl(q, prior)

    def see(self, patch, window):
        self.frames.append(zoom(self.left, window, patch.shape[-1]))
        self.left = self.left - place(patch, window, self.x.shape[-1])

    def below(self):
        frames = torch.stack(self.frames, 1).flatten(0, 1)
        noise = self.noise and self.noise[1:]
        seen = self.seen.repeat_interleave(len(self.frames))
        return Reading(self.reader, frames, noise, seen, self.without)
