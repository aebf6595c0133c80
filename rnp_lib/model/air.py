"""Attend, infer, repeat (Eslami et al. 2016), in Pyro: objects are found one after another until no
more is there, each with a place and a vector of its own, and none has parts.

Sizes are the paper's where this library has none of its own: vectors, patches, windows, image
encoder and pixels are as of trees.
"""

import math
from collections.abc import Callable

import pyro
import torch
import torch.nn.functional as F
from pyro import distributions as dist
from pyro.infer import TraceGraph_ELBO
from torch import Tensor, nn

from rnp_lib.config import Config
from rnp_lib.model.objective import constant, squared_error
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.transforms import place, zoom
from rnp_lib.model.tree import ProgramTree, assemble

UNITS = 200  # of hidden layers
STATE = 256  # units of recurrent networks
WHERE = 3  # log side in sides of the canvas, middle x and y as in `transforms.affine`
# Prior probability of each further object at the end of kl_warmup, 1 at its start. Above it objects
# share a digit, which while they are drawn badly is worth their nats; below it the last are lost.
PRESENT = 1e-14
WORTH = 100.0  # nats, the unit in which the outcome of a choice is predicted

LIKELIEST = "of AIR there are the likeliest objects of an image, no bounds and no samples."

Take = Callable[..., Tensor]  # (name, distribution, infer) -> a value, as `pyro.sample`


def _layers(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, UNITS), nn.ELU(), nn.Linear(UNITS, outputs))


def window(where: Tensor) -> Tensor:
    """Places (..., WHERE) as maps from an object's frame to the canvas, (..., 2, 3)."""
    side, across, down = where.unbind(-1)
    side, none = side.exp(), torch.zeros_like(side)
    rows = [torch.stack([side, none, across], -1), torch.stack([none, side, down], -1)]
    return torch.stack(rows, -2)


def likeliest(name: str, of: dist.Distribution, infer: dict | None = None) -> Tensor:
    """In the place of `pyro.sample`: means, and whether an object is there."""
    return (of.mean > 0.5).to(of.mean) if name.startswith("present") else of.mean


class AIR(ImageModel):
    """As many objects at most as the tree has parts, tau[0]."""

    def __init__(self, config: Config):
        super().__init__(config)
        features, pixels = 2 * config.z_dim, math.prod(config.patch_shape)
        seen = features + 1 + WHERE + config.z_dim  # the image, and the object before
        self.rnn, self.attend = nn.LSTMCell(seen, STATE), _layers(STATE, 1 + 2 * WHERE)
        self.look, self.draw = _layers(pixels, features), _layers(config.z_dim, pixels)
        self.judge_rnn, self.judge = nn.LSTMCell(seen, STATE), _layers(STATE, 1)
        low, high = map(math.log, config.extent[0])
        self.register_buffer("middle", torch.tensor([(low + high) / 2, 0, 0]))
        self.register_buffer("spread", torch.tensor([(high - low) / 2, *2 * [config.centre]]))

    def patch(self, what: Tensor) -> Tensor:
        """What objects (B, |z|) look like, (B, C, P, P) in (0, 1): dark when training starts."""
        return torch.sigmoid(self.draw(what).float() - 4).unflatten(-1, self.config.patch_shape)

    def find(self, x: Tensor, take: Take) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The objects of images x, in turn: whether it is there (B,), its place (B, WHERE) and
        vector (B, |z|), taken by `take` from what the image says of them."""
        features, found = self.encoder(x).float(), []
        present, last = x.new_ones(len(x)), x.new_zeros(len(x), 1 + WHERE + self.config.z_dim)
        state, judged = None, None
        for t in range(self.config.tau[0]):
            seen = torch.cat([features, last], 1)
            state, judged = self.rnn(seen, state), self.judge_rnn(seen.detach(), judged)
            worth = WORTH * self.judge(judged[0]).float().squeeze(1) * present
            there, mean, deviation = self.attend(state[0]).float().split([1, WHERE, WHERE], 1)
            share = torch.sigmoid(there.squeeze(1) + 2)  # likely when training starts
            present = take(
                f"present_{t}",
                dist.Bernoulli(share * present),
                infer={"baseline": {"baseline_value": worth}},
            )
            mask, spread = present.bool(), self.spread * F.softplus(deviation - 2)
            of_where = dist.Normal(self.middle + self.spread * mean, spread).to_event(1)
            where = take(f"where_{t}", of_where.mask(mask))
            glimpse = zoom(x, window(where), self.config.patch_size).flatten(1)
            mean, deviation = self.look(glimpse).float().chunk(2, 1)
            of_what = dist.Normal(mean, F.softplus(deviation) + 1e-4).to_event(1)
            what = take(f"what_{t}", of_what.mask(mask))
            last = torch.cat([present[:, None], where, what], 1)
            found.append((present, where, what))
        return found

    def guide(self, x: Tensor, share: Tensor) -> None:
        """q(objects | x), for Pyro."""
        with pyro.plate("images", len(x)):
            self.find(x, pyro.sample)

    def model(self, x: Tensor, share: Tensor) -> Tensor:
        """p(objects, x), for Pyro; `share` is the probability of each further object. Returns what
        is drawn, (B, C, H, W)."""
        c, canvas, present = self.config, torch.zeros_like(x), x.new_ones(len(x))
        of_where = dist.Normal(self.middle.expand(len(x), -1), self.spread).to_event(1)
        of_what = dist.Normal(x.new_zeros(len(x), c.z_dim), 1.0).to_event(1)
        with pyro.plate("images", len(x)):
            for t in range(c.tau[0]):
                present = pyro.sample(f"present_{t}", dist.Bernoulli(share * present))
                where = pyro.sample(f"where_{t}", of_where.mask(present.bool()))
                what = pyro.sample(f"what_{t}", of_what.mask(present.bool()))
                drawn = place(self.patch(what), window(where), c.image_size)
                canvas = canvas + present[:, None, None, None] * drawn
            of_pixels = dist.Normal(canvas.flatten(1), c.sigma2**0.5).to_event(1)
            pyro.sample("x", of_pixels, obs=x.flatten(1))
        return canvas

    def loss(self, x: Tensor, noise: Tensor, kl_weight: Tensor) -> tuple[Tensor, Tensor]:
        """What to descend for images x (B, C, H, W), and values to report.

        Args:
            noise: numbers of a training step: the draws are seeded by the first.
            kl_weight: 0 where each further object costs nothing yet, 1 at its full price.

        Returns:
            () with the gradient of the negative ELBO, that of whether objects are there by
            REINFORCE with a baseline; and (4,): the negative ELBO without the constant of the
            pixels' Gaussian, nats, the squared error, the difference of both, and 0.
        """
        elbo, given = TraceGraph_ELBO(max_plate_nesting=1), (x, PRESENT**kl_weight)
        with torch.random.fork_rng([x.device] if x.is_cuda else []):
            torch.manual_seed(int(noise[0, 0].view(torch.int32)) & 0xFFFFFFFF)
            # Its checks of every distribution take a third of the time.
            with pyro.validation_enabled(False):
                # What `loss_and_grads` does, less the backward pass, which the trainer does.
                traces = elbo._get_trace(self.model, self.guide, given, {})
                gain, surrogate = elbo._loss_and_surrogate_loss_particle(*traces)
        nats = -gain / len(x) - constant(self.config, x[0].numel())
        sse = squared_error(traces[0].nodes["_RETURN"]["value"], x).mean()
        values = [nats, sse, nats - sse / (2 * self.config.sigma2), torch.zeros_like(sse)]
        return surrogate / len(x), torch.stack(values).detach()

    def infer(self, x, noise=None, until=0, seen=None, root=None):
        """Objects as the parts of a tree of one level, those that are not there blank; its root's
        program is which are there, (B, tau[0]). They are the likeliest: draws are Pyro's alone."""
        if noise is not None:
            raise ValueError(LIKELIEST)
        children = []
        found = self.find(x, likeliest)
        for present, where, what in found:
            patch = present[:, None, None, None] * self.patch(what)
            children.append(ProgramTree(what, patch, affine=window(where), patch=patch))
        there = torch.stack([present for present, _, _ in found], 1)
        return assemble(there, children, self.config.image_size)

    def unroll(self, z, level, until=0, guide=None):
        raise ValueError(LIKELIEST)
