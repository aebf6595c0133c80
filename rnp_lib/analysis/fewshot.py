"""One shot by what is expected: a tree's prior takes in a few images of a class it has not seen.

No weight is trained. What the model reads in the images changes what it expects: of the root its
mean, of the parts how often each symbol is used, the rules, or which symbols there are.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from rnp_lib.analysis import transfer
from rnp_lib.analysis.classifier import load_classifier
from rnp_lib.analysis.likelihood import costs
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.analysis.transfer import Images
from rnp_lib.model.batched import batched
from rnp_lib.model.chance import Chance, Mixture, kl, log_density
from rnp_lib.model.grammar import SYMBOL_STD, Grammar
from rnp_lib.model.guide import Guide
from rnp_lib.model.objective import reconstruction_error
from rnp_lib.model.rnp import ImageModel

# What may take the images in.
KINDS = {
    "root": "a root mean",
    "symbols": "new symbols",
    "rules": "rules",
    "prior": "all three",
}
# Chosen, as RECIPE of `transfer`, on validation images of the digit 7.
SHARE = 0.2  # of the choice, which new symbols have together
RULES = 1.0  # choices that the old rules count as much as
DRAWN = 1_000  # drawings that a classifier reads


class Expecting(nn.Module):
    """A grammar whose choice is biased, and with symbols more.

    Args:
        bias: (M,), added to the log weights of the choice.
        symbols: (K, |z|), which all turns share alike.
    """

    def __init__(self, grammar: Grammar, bias: Tensor | None, symbols: Tensor | None):
        super().__init__()
        self.grammar, self.bias, self.symbols = grammar, bias, symbols

    def forward(self, parent: Tensor, state: Tensor, u: Tensor) -> Chance:
        """As `Grammar.forward`."""
        found = self.grammar(parent, state, u)
        z, log_weights = found.z, found.z.log_weights
        if self.bias is not None:
            log_weights = (log_weights + self.bias).log_softmax(-1)
        if self.symbols is None:
            return Chance(Mixture(log_weights, z.mean, z.scale, z.predicted), found.u)
        new = self.symbols.to(z.mean).expand(len(parent), -1, -1)
        count = torch.full_like(new[..., 0], SHARE / new.shape[1]).log()
        # Before the others: the last part may be what the parent predicts.
        log_weights = torch.cat([count, log_weights + torch.tensor(1 - SHARE).log()], 1)
        scale = torch.cat([torch.full_like(new, SYMBOL_STD), z.scale], 1)
        return Chance(
            Mixture(log_weights, torch.cat([new, z.mean], 1), scale, z.predicted), found.u
        )


class Expectation(NamedTuple):
    """What is drawn, and what the root is expected to be.

    Attributes:
        model: one whose parts, if it has any, are as expected.
        mean: (|z|,), around which roots of the new class lie, or None where they lie as all do.
    """

    model: ImageModel
    mean: Tensor | None

    def root(self, n: int) -> Normal | Mixture:
        """The prior of n roots: as before or, as often, of the new class."""
        z = torch.zeros(n, 1, self.model.config.z_dim, device=next(self.model.parameters()).device)
        if self.mean is None:
            return Normal(z[:, 0], torch.ones_like(z[:, 0]), validate_args=False)
        means = torch.cat([z, z + self.mean], 1)
        return Mixture(torch.full_like(means[..., 0], 0.5).log(), means, torch.ones_like(means))

    def costs(self, images: Tensor) -> Tensor:
        """`likelihood.costs` of images (N, 1, H, W), (N, 4)."""
        spent = costs(self.model, images)

        def root(x: Tensor) -> Tensor:
            return kl(self.model.root(x), self.root(len(x)))

        spent[:, 1] = batched(root, images).to(spent)
        return spent

    def draw(self, n: int, seed: int) -> Tensor:
        """n drawings of the new class, (n, 1, H, W)."""
        root, below = self.model.split(self.model.noise(n, seed))
        root = root if self.mean is None else root + self.mean
        return self.model.unroll(root, self.model.config.depth, guide=Guide(below)).canvas


@torch.no_grad()
def expect(model: ImageModel, images: Tensor, kind: str) -> Expectation:
    """What a model expects after n images (n, 1, H, W) of a new class.

    Args:
        kind: one of KINDS. The root's mean is that of the images' roots, times n / (n + 1): of
            roots around a mean that is itself N(0, I), the posterior's. Rules count the symbols
            that parts are, beside those that were expected of them. New symbols are the parts.

    Raises ValueError for a kind there is not, and for symbols and rules of a model without symbols.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}: got {kind!r}.")
    model, tree, n = copy.deepcopy(model), model.parse(images), len(images)
    mean = tree.z.mean(0) * n / (n + 1) if kind in ("root", "prior") else None
    if kind == "root":
        return Expectation(model, mean)
    if model.config.posterior == "root" or model.config.prior_z == "prediction":
        raise ValueError(f"{kind} needs a model whose parts are symbols, as of mnist-alphabet.")
    levels = range(model.config.depth - 1, 0, -1)
    parts = [program for level in levels for program in tree.programs(level)]
    bias = _rules(parts) if kind in ("rules", "prior") else None
    symbols = torch.cat([part.z for part in parts]) if kind in ("symbols", "prior") else None
    model.grammar = Expecting(model.grammar, bias, symbols)
    return Expectation(model, mean)


def _rules(parts: list) -> Tensor:
    """log of how much more often than expected parts are each symbol, (M,)."""
    found, expected = [], []
    for part in parts:
        z = part.prior.z
        each = Normal(z.mean, z.scale, validate_args=False)
        joint = z.log_weights + log_density(each, part.z.unsqueeze(1)).to(z.log_weights)
        found.append(joint.softmax(1))
        expected.append(z.log_weights.exp())
    share = torch.cat(expected).mean(0)
    count = torch.cat(found)
    return ((count.sum(0) + RULES * share) / (len(count) + RULES) / share).log()


@torch.no_grad()
def scores(expectation: Expectation, images: Images, digit: int) -> dict[str, dict[str, float]]:
    """As `transfer.scores`, of about as many old images as new ones; and `read` of drawings."""
    old = images.old[:: max(1, len(images.old) // len(images.new))]
    found: dict[str, dict[str, Any]] = {
        which: transfer.summary(reconstruction_error(expectation.model, x), expectation.costs(x))
        for which, x in (("new", images.new), ("old", old))
    }
    return found | {"drawn": read(expectation.draw(DRAWN, seed=0), digit)}


def read(drawings: Tensor, digit: int) -> dict[str, float]:
    """The share of drawings (n, 1, H, W) that a classifier of all digits reads as one: n, `read`,
    and its standard error."""
    right = load_classifier("mnist").read(drawings.clamp(0, 1).cpu())[1] == digit
    return {"n": len(drawings), **mean_and_error("read", right.double())}
