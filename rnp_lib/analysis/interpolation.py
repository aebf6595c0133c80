"""Figure 4c: paths between programs, and what the trees on them draw.

A path has `steps` points, both its ends among them, at evenly spaced positions from 0 to 1. Three
kinds are compared: "straight" and "spherical" move the program, "pixels" (the control) leaves the
programs alone and fades the drawing at one end into the drawing at the other.
"""

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from rnp_lib.analysis.classifier import Classifier
from rnp_lib.model.batched import batched
from rnp_lib.model.rnp import ImageModel

KINDS = ("straight", "spherical", "pixels")


def straight(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """Evenly spaced points on the line from a (..., D) to b (..., D): (..., steps, D).

    Raises ValueError for fewer than 2 steps.
    """
    if steps < 2:
        raise ValueError(f"a path has 2 points or more: got {steps}.")
    s = torch.linspace(0, 1, steps, dtype=a.dtype, device=a.device).unsqueeze(1)
    return torch.lerp(a.unsqueeze(-2), b.unsqueeze(-2), s)


def spherical(a: Tensor, b: Tensor, steps: int) -> Tensor:
    """From a (..., D) to b (..., D) by the shorter arc at constant angular speed: (..., steps, D).

    The direction turns in the plane of a and b (slerp, Shoemake 1985; for latent spaces, White
    2016) while the norm grows or shrinks linearly. Parallel vectors: the direction stays, and the
    path is the straight one. Antiparallel vectors have no plane of their own: the path takes the
    one with the axis on which a has its smallest component. A zero vector has the direction of the
    other end. Raises ValueError for fewer than 2 steps.
    """
    ends = a.double(), b.double()
    norms = [end.norm(dim=-1, keepdim=True) for end in ends]
    u, v = (F.normalize(end, dim=-1, eps=torch.finfo(end.dtype).tiny) for end in ends)
    u, v = torch.where(norms[0] > 0, u, v), torch.where(norms[1] > 0, v, u)

    def across(x: Tensor) -> Tensor:
        return x - (x * u).sum(-1, keepdim=True) * u

    sine, cosine = across(v).norm(dim=-1, keepdim=True), (u * v).sum(-1, keepdim=True)
    axis = F.one_hot(u.abs().argmin(-1), u.shape[-1]).to(u)
    # Below this, what is left of v across u is rounding.
    w = F.normalize(torch.where(sine > 1e-7, across(v), across(axis)), dim=-1)
    angle = straight(torch.zeros_like(sine), torch.atan2(sine, cosine), steps)
    turned = angle.cos() * u.unsqueeze(-2) + angle.sin() * w.unsqueeze(-2)
    return (turned * straight(*norms, steps)).to(a.dtype)


def cluster_centres(z: Tensor, k: int, seed: int = 0) -> Tensor:
    """The centres of k clusters of programs (N, |z|), N >= k, by k-means: (k, |z|)."""
    means = KMeans(k, n_init=1, random_state=seed).fit(z.cpu().double().numpy())
    return torch.from_numpy(means.cluster_centers_).to(z)


def distinct_pairs(centres: Tensor, count: int) -> Tensor:
    """The two centres (k, |z|) farthest apart, then pairs that are far from these as well.

    Each further pair makes the smallest distance, of its two centres from each other and from those
    already taken, as large as it can be. Returns indices int64 (count, 2). Raises ValueError for
    fewer than 2·count centres.
    """
    if 2 * count > len(centres):
        raise ValueError(f"{count} pairs take {2 * count} centres: got {len(centres)}.")
    distance, pairs = torch.cdist(centres, centres), []
    from_taken = torch.full_like(distance[0], torch.inf)
    for _ in range(count):
        score = distance.minimum(from_taken).minimum(from_taken.unsqueeze(1))
        pair = list(divmod(int(score.argmax()), len(centres)))
        from_taken = from_taken.minimum(distance[pair].min(0).values)
        pairs.append(pair)
    return torch.tensor(pairs)


def unlike_pairs(labels: Tensor, count: int, seed: int) -> Tensor:
    """Disjoint random pairs of images of different classes, int64 (at most `count`, 2).

    Of `count` pairs drawn at random from labels (N,) those of one class are left out.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    pairs = order[: 2 * min(count, len(labels) // 2)].view(-1, 2)
    return pairs[labels[pairs[:, 0]] != labels[pairs[:, 1]]]


@torch.no_grad()
def along(
    model: ImageModel, a: Tensor, b: Tensor, steps: int, level: int | None = None
) -> dict[str, Tensor]:
    """What each part draws along the paths from programs a (B, |z|) to b (B, |z|) of a level.

    Returns:
        (B, steps, τ, 1, H, W) by kind of path, on the CPU. Ink above 1 counts as 1: the sum over
        the parts is the canvas and at most 1.
    """
    device, layers = next(model.parameters()).device, {}
    for kind, path in (("straight", straight(a, b, steps)), ("spherical", spherical(a, b, steps))):
        tree = model.decode(path.flatten(0, 1).to(device), level)
        drawn = tree.parts / tree.canvas.unsqueeze(1).clamp_min(1)
        layers[kind] = drawn.cpu().unflatten(0, path.shape[:2])
    ends = (layers["straight"][:, end].flatten(1) for end in (0, -1))
    return layers | {"pixels": straight(*ends, steps).view_as(layers["straight"])}


def measure(
    model: ImageModel, classifier: Classifier, a: Tensor, b: Tensor, steps: int
) -> dict[str, dict[str, Tensor]]:
    """Can drawings between root programs a (B, |z|) and b (B, |z|) be read, how do they change?

    Returns:
        By kind of path, float64: read (B, steps), 1 where the classifier reads the drawing
        (`Classifier.read`); end (B, steps), 1 where it reads the class that it sees in the drawing
        at one end of the path; change (B, steps - 1), squared difference of successive drawings,
        summed over pixels.
    """

    def follow(pairs: Tensor) -> tuple[Tensor, ...]:
        layers = torch.stack([*along(model, *pairs.unbind(1), steps).values()], 1)
        canvas = layers.sum(3)  # (B, kinds, steps, 1, H, W)
        read, label = (x.view(canvas.shape[:3]) for x in classifier.read(canvas.flatten(0, 2)))
        is_end = (label == label[..., :1]) | (label == label[..., -1:])
        change = canvas.diff(dim=2).square().sum((3, 4, 5))
        return read.double(), (read & is_end).double(), change.double()

    found = batched(follow, torch.stack([a, b], 1), size=100)
    named = [*zip(("read", "end", "change"), found, strict=True)]
    return {kind: {name: every[:, i] for name, every in named} for i, kind in enumerate(KINDS)}


def jackknife(values: Tensor, units: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over pairs and its standard error, where pairs that share a unit are not independent.

    Each unit is left out in turn, with all pairs that it is in. For independent pairs, one unit a
    pair, this is the usual standard error of a mean.

    Args:
        values: (B, ...), one row a pair.
        units: int64 (B, U), what each pair is made of: its two cluster centres, or its own number.

    Returns:
        mean and standard error, (...), float64. Raises ValueError if one unit is in every pair.
    """
    values, (names, units) = values.double(), units.unique(return_inverse=True)
    rest = len(values) - units.flatten().bincount()
    if (rest == 0).any():
        raise ValueError("a unit that is in every pair cannot be left out: take more pairs.")
    sums = values.sum(0).repeat(len(names), *[1] * (values.ndim - 1))
    for unit in units.T:
        sums.index_add_(0, unit, values, alpha=-1)
    means = sums / rest.view(-1, *[1] * (values.ndim - 1))
    return values.mean(0), (means.var(0, correction=0) * (len(names) - 1)).sqrt()


def by_quantity(
    measured: dict[str, dict[str, Tensor]], units: Tensor
) -> dict[str, dict[str, tuple[Tensor, Tensor]]]:
    """Mean and standard error (`jackknife`) of what `measure` found: by quantity, then by kind."""
    kinds, names = measured.items(), measured["straight"]
    return {name: {kind: jackknife(found[name], units) for kind, found in kinds} for name in names}


def halfway(measured: dict[str, dict[str, Tensor]], units: Tensor) -> dict[str, float]:
    """What `measure` found at the middle of paths of an odd number of points, and on the way there.

    Returns:
        n: pairs; for every KIND of path KIND_read and KIND_end, shares of the drawings in the
        middle, with _stderr; KIND_evenness, the smallest mean change of a step over the largest;
        KIND_travel, the mean change of a step over that of pixels; arc_gain and arc_gain_stderr,
        spherical_end less straight_end.
    """

    def middle(name: str, values: Tensor) -> dict[str, float]:
        mean, stderr = jackknife(values[:, values.shape[1] // 2], units)
        return {name: float(mean), f"{name}_stderr": float(stderr)}

    numbers = {"n": len(units)}
    for kind, found in measured.items():
        change = found["change"].mean(0)
        numbers |= middle(f"{kind}_read", found["read"]) | middle(f"{kind}_end", found["end"])
        numbers[f"{kind}_evenness"] = float(change.min() / change.max())
        numbers[f"{kind}_travel"] = float(change.mean() / measured["pixels"]["change"].mean())
    gain = measured["spherical"]["end"] - measured["straight"]["end"]
    return numbers | middle("arc_gain", gain)
