"""Are parts parts? How well a model draws by them; whether each is one piece, inked and needed.

A `level` is K at the root and 0 at the leaves. The root's children are its parts, theirs the
sub-parts; whatever lies deeper is measured only by its windows.
"""

import itertools

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from rnp_lib.analysis import likelihood
from rnp_lib.model import objective
from rnp_lib.model.batched import batched
from rnp_lib.model.objective import squared_error
from rnp_lib.model.rnp import RNP, ImageModel
from rnp_lib.model.tree import ProgramTree, compose, ink

IWAE_IMAGES = 250  # each costs as many parses as the bound has samples


def mean_and_error(name: str, values: Tensor) -> dict[str, float]:
    """The mean of independent values (N,), and under `name`_stderr its standard error."""
    values = values.double()
    return {name: float(values.mean()), f"{name}_stderr": float(values.std() / len(values) ** 0.5)}


def ink_share(tree: ProgramTree) -> Tensor:
    """Each child's share of a program's drawn ink, (B, tau); rows sum to 1, or 0 if blank."""
    drawn = ink(tree.parts).flatten(2).sum(2)
    return drawn / drawn.sum(1, keepdim=True).clamp_min(1e-6)


def pieces(pictures: Tensor, threshold: float = 0.15) -> tuple[Tensor, Tensor]:
    """How much of each picture (N, 1, H, W) is in one piece.

    Ink is the sum of the pixels at or above `threshold`; two of them belong together if they touch
    at a side or a corner. A picture's main piece is the one with the most ink.

    Returns:
        share (N,), the main piece's share of the ink, 0 where there is none; ink (N,), the weights
        with which shares make a mean. Both float64.
    """
    pixels = pictures.squeeze(1).detach().cpu().numpy()
    touching = np.zeros((3, 3, 3), bool)
    touching[1] = True  # within a picture, never from one picture to the next
    labels, count = ndimage.label(pixels >= threshold, touching)
    weight = np.bincount(labels.ravel(), pixels.ravel(), count + 1)
    picture = np.zeros(count + 1, int)  # which one each piece lies in
    picture[labels] = np.arange(len(pixels))[:, None, None]
    ink, main = np.zeros((2, len(pixels)))
    np.add.at(ink, picture[1:], weight[1:])  # label 0 is whatever lies below the threshold
    np.maximum.at(main, picture[1:], weight[1:])
    return torch.from_numpy(main / np.maximum(ink, 1e-6)), torch.from_numpy(ink)


def drawn(tree: ProgramTree, level: int | None = None) -> Tensor:
    """What each program of a level (the root's parts unless told) draws on the canvas of a tree.

    (B, τ_1, …, τ_n, 1, H, W) for the n-th level below the root. Raises ValueError if there is no
    such level.
    """
    level = tree.level - 1 if level is None else level
    if not 0 <= level < tree.level:
        raise ValueError(f"level must be from 0 to {tree.level - 1} in this tree: got {level}.")
    if level == tree.level - 1:
        return tree.parts
    inside = torch.stack([drawn(child, level) for child in tree.children], 1)
    # All that one child draws goes to one place: many channels of one picture.
    found = compose(inside.flatten(2, -3), tree.children, tree.canvas.shape[-1])
    return found.unflatten(2, inside.shape[2:-2])


def removal_rise(tree: ProgramTree, x: Tensor, level: int | None = None) -> Tensor:
    """How the SSE against x (B, 1, H, W) rises as any one program of a level is left out.

    (B, τ_1, …, τ_n), negative where the drawing is better without it; levels as in `drawn`.
    """
    # Placing is linear: a canvas without a program is the canvas less what that program draws.
    out = drawn(tree, level)
    error = (tree.canvas - x).view(len(x), *[1] * (out.ndim - 4), *x.shape[1:])
    return (out * (out - 2 * error)).sum((-3, -2, -1))


def windows(tree: ProgramTree, level: int) -> Tensor:
    """The two sides of every program of a level, in sides of its parent: (B, programs, 2).

    Shear lengthens the second: it keeps the area of a window, not its sides.
    """
    return torch.stack([node.affine[..., :2].norm(dim=-2) for node in tree.programs(level)], 1)


def evaluate(
    model: ImageModel, images: Tensor, samples: int = 1, iwae: int = 0, seed: int = 0
) -> dict[str, float]:
    """Score a model on held-out images (N, 1, H, W), which are on its device.

    Args:
        samples: of the posterior, for the ELBO of each image: over many images, one does.
        iwae: as many for the importance-weighted bound, which is left out at 0; it is that of the
            first IWAE_IMAGES images.
        seed: of the samples.

    Returns:
        n: images; sse: squared error summed over the pixels of an image, mean over images, of the
        canvas composed from the leaves at the posterior mean; mse: per pixel; sse_parts: of the
        canvas of directly decoded parts; sse_blank: of an empty canvas, in colour of its paper; kl:
        of all programs, nats; elbo and elbo_samples: the lower bound of log p(x), nats, constants
        included, mean over images; iwae, iwae_samples and iwae_images: the same of
        `likelihood.iwae`; nats and iwae_nats: what an image costs by either, -elbo and -iwae
        without the constant;
        ink_part_1..τ: each part's share of the drawn ink, mean over images. sse, elbo and iwae with
        the standard error over images, `_stderr`. With posterior "tree" also sse_root: of what the
        root alone predicts, and kl_root: its nats. Of a plain VAE nothing about parts.
    """

    names = ["kl", "sse", "sse_blank"]
    if model.config.model == "rnp":
        names += ["sse_parts"]
    if model.config.posterior == "tree":
        names += ["kl_root", "sse_root"]

    def score(x: Tensor) -> tuple[Tensor, Tensor]:
        tree = model.parse(x)
        found = {"kl": tree.nats, "kl_root": tree.kl, "sse": squared_error(tree.canvas, x)}
        found["sse_blank"] = squared_error(tree.on_paper(torch.zeros_like(x)), x)
        if "sse_parts" in names:
            found["sse_parts"] = squared_error(tree.cut(tree.level - 1), x)
        if "sse_root" in names:
            found["sse_root"] = squared_error(model.decode(tree.z).canvas, x)
        shares = x.new_zeros(len(x), 0) if tree.parts is None else ink_share(tree)
        return torch.stack([found[name] for name in names], 1), shares

    generator = torch.Generator().manual_seed(seed)
    # Before all else: a model that has no bounds says so here.
    weights = likelihood.log_weights(model, images, samples, generator)
    rows, shares = (found.double() for found in batched(score, images))
    means = dict(zip(names, rows.mean(0).tolist(), strict=True))
    scores = {"n": len(images), **mean_and_error("sse", rows[:, names.index("sse")])}
    scores |= {**means, "mse": means["sse"] / images[0].numel()}
    scores |= mean_and_error("elbo", likelihood.elbo(weights)) | {"elbo_samples": samples}
    constant = objective.constant(model.config, images[0].numel())
    scores |= {"nats": -scores["elbo"] - constant}
    if iwae:
        few = images[:IWAE_IMAGES]
        weights = likelihood.log_weights(model, few, iwae, generator)
        scores |= mean_and_error("iwae", likelihood.iwae(weights)) | {"iwae_samples": iwae}
        scores |= {"iwae_images": len(few), "iwae_nats": -scores["iwae"] - constant}
    return scores | {f"ink_part_{t + 1}": s for t, s in enumerate(shares.mean(0).tolist())}


def evaluate_parts(model: RNP, images: Tensor) -> dict[str, float]:
    """Measure the parses of held-out images (N, 1, H, W), which are on the model's device.

    Returns:
        n: images; window_max_level_1..K: the longest side of a window, in sides of the parent, the
        parts' at 1. For every part t: part_t_pieces, its ink in one piece (`pieces`, mean weighted
        by ink); ink_part_t, its share of the drawn ink; removal_rise_part_t, SSE an image gained by
        leaving it out. Over all parts: pieces, ink_part_min, removal_rise_min_part (of the means).
        With two levels or more also ink_sub_part_t_s (share of what its part draws),
        removal_rise_sub_part_t_s, ink_sub_part_min and removal_rise_min_sub_part.
    """
    parts = ("part", "sub_part")[: model.config.depth]

    def measure(x: Tensor) -> tuple[Tensor, ...]:
        tree = model.parse(x)
        share, inked = (found.view(len(x), -1) for found in pieces(ink(tree.parts).flatten(0, 1)))
        inks = [ink_share(tree)]
        if len(parts) > 1:
            inks.append(torch.stack([ink_share(child) for child in tree.children], 1))
        levels = range(tree.level - 1, -1, -1)
        rises = [removal_rise(tree, x, level) for level in levels[: len(parts)]]
        sides = [windows(tree, level).amax((1, 2)) for level in levels]
        pairs = zip(inks, rises, strict=True)
        return share * inked, inked, torch.stack(sides, 1), *itertools.chain(*pairs)

    in_main, inked, sides, *rest = batched(measure, images)
    names = [f"{what}_{part}" for part in parts for what in ("ink", "removal_rise")]
    means = {name: found.double().mean(0) for name, found in zip(names, rest, strict=True)}
    in_main, inked = in_main.mean(0), inked.mean(0)
    scores = {"n": len(images), "pieces": (in_main.sum() / inked.sum().clamp_min(1e-6)).item()}
    for t, share in enumerate((in_main / inked.clamp_min(1e-6)).tolist(), 1):
        scores[f"part_{t}_pieces"] = share
    for name, mean in means.items():
        for index, value in np.ndenumerate(mean.cpu().numpy()):
            scores["_".join([name, *(str(i + 1) for i in index)])] = float(value)
    for part in parts:
        scores[f"ink_{part}_min"] = means[f"ink_{part}"].min().item()
        scores[f"removal_rise_min_{part}"] = means[f"removal_rise_{part}"].min().item()
    longest = enumerate(sides.amax(0).tolist(), 1)
    return scores | {f"window_max_level_{n}": side for n, side in longest}
