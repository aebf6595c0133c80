"""How good the samples of a prior are: can they be read, and are they distributed as real images?

All of it rests on the frozen features of `analysis.classifier`, so numbers compare with
one another but not with those of Inception's features in other work.
"""

import warnings
from collections.abc import Callable

import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from rnp_lib.analysis.classifier import Classifier
from rnp_lib.analysis.programs import posteriors
from rnp_lib.model.batched import batched
from rnp_lib.model.rnp import ImageModel


def legibility(classifier: Classifier, images: Tensor) -> dict:
    """How many images (N, 1, 28, 28), clamped to [0, 1], a classifier reads.

    A network that has seen nothing but digits is sure of most scribbles too: what this says is how
    it compares with the same share of real images and of images that show no digit.

    Returns:
        n: images; legible: share that `Classifier.read` counts as read; classes: share of all
        images, read or not, by most probable class, a list that sums to 1.
    """
    read, label = classifier.read(images)
    shares = label.bincount(minlength=classifier.head.out_features).double() / len(images)
    legible = float(read.double().mean())
    return {"n": len(images), "legible": legible, "classes": shares.tolist()}


def fid_kid(classifier: Classifier, real: Tensor, generated: Tensor, seed: int = 0) -> dict:
    """Fréchet and kernel distance of two sets of images (N, 1, 28, 28) and (M, 1, 28, 28).

    FID (Heusel et al. 2017) compares means and covariances of the features and is biased upwards by
    few images: compare scores of the same N and M only. KID (Bińkowski et al. 2018), the squared
    maximum mean discrepancy for a cubic kernel, is unbiased: around 0 for sets that do not differ.

    Args:
        seed: draws KID's 100 pairs of subsets, of up to 1,000 images each.

    Returns:
        fid; kid and kid_std: mean and standard deviation over the subsets.
    """
    smallest = min(len(real), len(generated))
    if smallest < 2:
        raise ValueError(f"FID and KID need at least 2 images a set: got {smallest}.")
    given = nn.Identity()  # the metrics want a network: features are computed once, for both
    given.num_features = classifier.head.in_features
    fid = FrechetInceptionDistance(given)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*save all extracted features", UserWarning)
        kid = KernelInceptionDistance(given, subset_size=min(1_000, smallest))
    for images, is_real in ((real, True), (generated, False)):
        features = classifier.features(images).cpu().double()
        fid.update(features, real=is_real)
        kid.update(features, real=is_real)
    with torch.random.fork_rng(devices=[]):  # the subsets: the metric takes no generator
        torch.manual_seed(seed)
        mean, std = kid.compute()
    return {"fid": float(fid.compute()), "kid": float(mean), "kid_std": float(std)}


def _radii(features: Tensor, k: int) -> Tensor:
    """Distance of every point to its k-th nearest neighbour: (N, D) -> (N,)."""
    if len(features) <= k:
        raise ValueError(f"k = {k} neighbours take over {k} points: got {len(features)}.")
    # Of k + 1, as the nearest point is the point itself.
    return batched(
        lambda rows: torch.cdist(rows, features).topk(k + 1, largest=False).values[:, k],
        features,
        size=1_000,
    )


def precision_recall_density_coverage(real: Tensor, generated: Tensor, k: int = 5) -> dict:
    """Quality and variety of samples from balls around features (N, D) and (M, D).

    A point's ball reaches to, and leaves out, its k-th nearest neighbour of the same set.

    Returns:
        precision: share of generated points in some real point's ball, recall: share of real points
        in some generated point's ball (Kynkäänniemi et al. 2019); density: real points' balls that
        a generated point lies in, mean over k, 1 for sets that do not differ, coverage: share of
        real points' balls that hold a generated point (Naeem et al. 2020).

    Raises:
        ValueError: a set has no more than k points.
    """
    real, generated = real.double(), generated.double()
    real_radii, generated_radii = _radii(real, k), _radii(generated, k)

    def balls(rows: Tensor) -> tuple[Tensor, Tensor]:
        distance = torch.cdist(real[rows], generated)
        return distance < real_radii[rows, None], (distance < generated_radii).any(1)

    inside, recalled = batched(balls, torch.arange(len(real)), size=1_000)
    found = {"precision": inside.any(0), "recall": recalled}
    found |= {"density": inside.sum(0).double() / k, "coverage": inside.any(1)}
    return {name: float(values.double().mean()) for name, values in found.items()}


def nearest(train: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """The training image (N, 1, H, W) nearest to each image (M, 1, H, W), in pixels.

    Returns:
        indices int64 (M,) into `train`, and squared distances (M,), summed over the pixels.
    """
    train, images = train.flatten(1), images.flatten(1)
    # |t - x|² without |x|², which does not change which t is nearest.
    squares = train.square().sum(1)
    indices = batched(lambda x: (squares - 2 * x @ train.T).argmin(1), images)
    return indices, (train[indices] - images).square().sum(1)


def gaussian_mixture(
    model: ImageModel, images: Tensor, components: int, seed: int = 0
) -> Callable[[int, int], Tensor]:
    """Ex-post density estimation (Ghosh et al. 2020): a prior fitted after training.

    A mixture of Gaussians with full covariances is fitted to the posterior means of training
    images (N, 1, H, W); `seed` settles where its fit starts.

    Returns:
        sample(n, seed): n root programs (n, |z|) from that mixture, for `model.decode`.
    """
    means, _ = posteriors(model, images)
    mixture = GaussianMixture(components, max_iter=500, random_state=seed)
    mixture.fit(means.cpu().double().numpy())
    weights, centres = torch.from_numpy(mixture.weights_), torch.from_numpy(mixture.means_)
    factors = torch.linalg.cholesky(torch.from_numpy(mixture.covariances_))

    def sample(n: int, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.multinomial(weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, centres.shape[1], 1, generator=generator, dtype=centres.dtype)
        return (centres[chosen] + (factors[chosen] @ noise).squeeze(2)).to(means)

    return sample
