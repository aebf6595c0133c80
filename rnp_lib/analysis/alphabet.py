"""The alphabet of parts: symbols that many images share, and the words that they make.

A symbol is a cluster of programs of the root's parts, whatever their turn. The word of an image is
the symbols of its τ parts in order; a grammar counts which symbol follows which, and where it lies.
"""

from typing import NamedTuple

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from rnp_lib.model.batched import batched
from rnp_lib.model.chance import kl, normal
from rnp_lib.model.rnp import RNP
from rnp_lib.model.transforms import place

# Of where a part lies: the middle of its window is central within this share of half a canvas.
CENTRAL = 0.25
DOWN, ACROSS = ("top", "middle", "bottom"), ("left", "middle", "right")


class Parts(NamedTuple):
    """The parts of the roots of N images: z (N, τ, |z|), their programs, and u (N, τ, 6), where
    they lie before squashing."""

    z: Tensor
    u: Tensor


def parts_of(model: RNP, images: Tensor) -> Parts:
    """The parts in the parses of images (N, C, H, W), on the images' device."""

    def parse(x: Tensor) -> tuple[Tensor, Tensor]:
        children = model.parse(x).children
        return tuple(torch.stack([getattr(c, name) for c in children], 1) for name in ("z", "u"))

    return Parts(*batched(parse, images))


def symbols(z: Tensor, count: int, seed: int = 0) -> Tensor:
    """`count` symbols of programs z (N, τ, |z|), the most frequent first: k-means' centres,
    (count, |z|)."""
    found = KMeans(count, n_init=1, random_state=seed).fit(z.flatten(0, 1).cpu().numpy())
    uses = torch.from_numpy(found.labels_).long().bincount(minlength=count)
    return torch.from_numpy(found.cluster_centers_).to(z)[uses.argsort(descending=True)]


def spell(z: Tensor, alphabet: Tensor) -> Tensor:
    """The symbol of an alphabet (M, |z|) nearest to each program, z (N, τ, |z|): int64 (N, τ)."""
    return batched(lambda part: torch.cdist(part, alphabet).argmin(-1), z)


def draw(model: RNP, z: Tensor, u: Tensor) -> Tensor:
    """What parts z (N, τ, |z|) draw at places u (N, τ, 6): (N, C, H, W)."""

    def pictures(rows: Tensor) -> Tensor:
        parts = model.decode(z[rows].flatten(0, 1), model.config.depth - 1).canvas
        windows = model.window(model.config.depth, u[rows])
        return place(parts.unflatten(0, windows.shape[:2]), windows, model.config.image_size).sum(1)

    return batched(pictures, torch.arange(len(z), device=z.device))


def explained(z: Tensor, alphabet: Tensor) -> float:
    """The share of the variance of programs z (N, τ, |z|) that their symbols explain."""
    flat, nearest = z.flatten(0, 1), alphabet[spell(z, alphabet)].flatten(0, 1)
    return 1 - float((flat - nearest).square().sum() / (flat - flat.mean(0)).square().sum())


def covering(words: Tensor, share: float) -> int:
    """How many of the most frequent symbols make up a share of the parts in words (N, τ)."""
    counts = words.flatten().bincount().sort(descending=True).values.double()
    reached = (counts.cumsum(0) / counts.sum()) < share
    return int(reached.sum()) + 1


def entropies(words: Tensor, count: int) -> dict[str, list[float]]:
    """How open the choice of a symbol is in each turn, in bits, of words (N, τ) of `count` symbols.

    Returns:
        alone: of the symbol of each turn, τ numbers; given_before: the same where the symbol of the
        turn before is known (at the first turn as alone).
    """
    alone = [_bits(words[:, t].bincount(minlength=count)) for t in range(words.shape[1])]
    given = alone[:1]
    for t in range(1, words.shape[1]):
        pairs = (words[:, t - 1] * count + words[:, t]).bincount(minlength=count**2)
        given.append(_bits(pairs) - alone[t - 1])
    return {"alone": alone, "given_before": given}


def _bits(counts: Tensor) -> float:
    p = counts[counts > 0].double() / counts.sum()
    return float(-(p * p.log2()).sum())


class Production(NamedTuple):
    """A word and how often it is used: its τ symbols, the share of the images it is the word of,
    and the mean places of its parts, u (τ, 6)."""

    word: tuple[int, ...]
    share: float
    u: Tensor


def production(words: Tensor, u: Tensor) -> Production:
    """The most frequent of words (N, τ), with the mean of its places u (N, τ, 6)."""
    found, index, counts = words.unique(dim=0, return_inverse=True, return_counts=True)
    most = int(counts.argmax())
    share = float(counts[most]) / len(words)
    return Production(tuple(found[most].tolist()), share, u[index == most].mean(0))


def where(model: RNP, u: Tensor) -> str:
    """In words, where a part of the root with place u (6,) lies: "top left", say."""
    across, down = model.window(model.config.depth, u)[:, 2].tolist()

    def third(value: float) -> int:
        return (value > -CENTRAL) + (value > CENTRAL)

    words = DOWN[third(down)], ACROSS[third(across)]
    return words[0] if words[0] == words[1] else " ".join(words)


def compose_words(
    words: Tensor, u: Tensor, count: int, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """New words that the grammar of words (N, τ) of `count` symbols allows, and places for them.

    The first symbol is drawn as often as it begins a word, every other as often as it follows the
    one before it in its turn. A part lies where, on average, it lies after that symbol.

    Returns:
        words int64 (n, τ); places (n, τ, 6), of u (N, τ, 6).
    """
    first = words[:, 0].bincount(minlength=count).double()
    drawn = [torch.multinomial(first, n, replacement=True, generator=generator)]
    places = [_means(u[:, 0], words[:, 0], count)[drawn[0]]]
    for t in range(1, words.shape[1]):
        pairs = words[:, t - 1] * count + words[:, t]
        rules = pairs.bincount(minlength=count**2).view(count, count).double()
        drawn.append(torch.multinomial(rules[drawn[-1]], 1, generator=generator).squeeze(1))
        used = drawn[-2] * count + drawn[-1]
        places.append(_means(u[:, t], pairs, count**2)[used])
    return torch.stack(drawn, 1), torch.stack(places, 1)


def _means(values: Tensor, index: Tensor, count: int) -> Tensor:
    """Means of values (N, 6) over those of one index of (N,): (count, 6), 0 where there is none."""
    sums = torch.zeros(count, values.shape[1], dtype=values.dtype).index_add(0, index, values)
    return sums / index.bincount(minlength=count).clamp_min(1)[:, None]


def chosen(model: RNP, images: Tensor) -> Tensor:
    """Of a model whose prior is a mixture, the part of it that each part of the root is most
    probably of: int64 (N, τ), a symbol's number, or the number of symbols for the prediction."""

    def choose(x: Tensor) -> Tensor:
        found = []
        for child in model.parse(x).children:
            mixture, q = child.prior.z, child.posterior.z
            each = normal(mixture.mean, mixture.scale.log())
            apart = kl(normal(q.mean[:, None], q.scale[:, None].log()), each)
            found.append((mixture.log_weights - apart).argmax(1))
        return torch.stack(found, 1)

    return batched(choose, images)
