"""A model's scores on test images, all that make sense for its data set: `rnp evaluate`."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rnp_lib import data
from rnp_lib.analysis import likelihood, parsing, programs, sampling, segmentation
from rnp_lib.analysis.classifier import Classifier, load_classifier
from rnp_lib.data.scenes import DIGITS
from rnp_lib.model import objective
from rnp_lib.model.batched import batched
from rnp_lib.model.rnp import RNP, ImageModel

READ = ("mnist", "fashion")  # few classes, and a classifier that knows them


def on_test_images(model: ImageModel, dataset: str, iwae: int = 0) -> dict[str, float]:
    """All of `parsing.evaluate` on the test split of a data set; of grey models of this set also
    `samples_read` (MNIST and Fashion-MNIST), and of those with parts `evaluate_digits`
    (scenes) and `segmentation.evaluate_segmentation` (strokes).

    iwae: samples of the importance-weighted bound, which is left out at 0.
    """
    c = model.config
    images, labels = data.load(dataset, "test", c.image_size, c.channels)
    found = parsing.evaluate(model, images, iwae=iwae)
    if dataset != c.dataset or c.channels > 1:
        return found
    if dataset in READ:
        found |= samples_read(model)
    if c.model == "rnp":
        if dataset == "scenes":
            found |= evaluate_digits(model, load_classifier("mnist"), images, labels)
        if dataset == "strokes":
            found |= segmentation.evaluate_segmentation(model, *data.STROKES["test"])
    return found


def compare(one: ImageModel, other: ImageModel, images: Tensor, seed: int = 0) -> dict[str, float]:
    """Two models on the same held-out images (N, 1, H, W).

    Returns:
        n: images; sse and nats (the negative ELBO of one sample, constants included: models may
        differ in σ²) of `one`, `_other` of the other, and `_less`, the mean difference over images,
        one less other, with its standard error over these pairs, `_stderr`.
    """
    found = {"n": len(images)}
    rows = []
    for model in (one, other):
        generator = torch.Generator().manual_seed(seed)
        weights = likelihood.log_weights(model, images, 1, generator)
        sse = objective.reconstruction_error(model, images).double()
        rows.append({"sse": sse, "nats": -likelihood.elbo(weights)})
    for name in ("sse", "nats"):
        first, second = (row[name] for row in rows)
        found |= {name: float(first.mean()), f"{name}_other": float(second.mean())}
        found |= parsing.mean_and_error(f"{name}_less", first - second)
    return found


def samples_read(model: ImageModel, n: int = 4_000) -> dict[str, float]:
    """n samples of the prior, seed 0: samples_legible, the share that the classifier of the model's
    data set reads, and smallest_class, the share of the class least often drawn."""
    reader = load_classifier(model.config.dataset)
    read = sampling.legibility(reader, programs.expand(model, model.noise(n, seed=0)))
    return {"samples_legible": read["legible"], "smallest_class": min(read["classes"])}


def evaluate_digits(
    model: RNP, reader: Classifier, scenes: Tensor, labels: Tensor
) -> dict[str, float]:
    """Are the parts of scenes digits? Each part, where it lies, is read by a classifier of digits.

    Args:
        reader: of MNIST.
        scenes: (N, 1, 56, 56), on the model's device; labels: int64 (N,), of `data.scenes`.

    Returns:
        n: scenes; digits_read: share of their digits that some part was read as, each part counting
        for one digit, with its standard error, `_stderr`.
    """
    parts = batched(lambda x: model.parse(x).parts, scenes)  # (N, τ, 1, 56, 56)
    _, read = reader.read(centred(parts.flatten(0, 1), 28))
    found = F.one_hot(read.view(len(scenes), -1), 10).sum(1)
    there = labels[:, None] // 10 ** torch.arange(DIGITS) % 10
    right = torch.minimum(found, F.one_hot(there, 10).sum(1).to(found)).sum(1)
    return {"n": len(scenes), **parsing.mean_and_error("digits_read", right / DIGITS)}


def centred(pictures: Tensor, side: int) -> Tensor:
    """Pictures (N, 1, H, W) cut out around the middle of their ink, (N, 1, side, side), as MNIST's
    are; to the pixel, and what a picture has no room for is blank."""
    size = pictures.shape[-1]
    padded = F.pad(pictures, [side // 2] * 4)
    ink = pictures.clamp_min(0).squeeze(1)
    at = torch.arange(size).to(ink)
    middles = (
        (ink.sum(other) * at).sum(1) / ink.sum((1, 2)).clamp_min(1e-6) for other in (2, 1)
    )  # rows, then columns: their means, weighted by ink
    rows, columns = (m.round().long()[:, None] + torch.arange(side).to(m.device) for m in middles)
    picture = torch.arange(len(pictures)).to(rows)
    return padded[picture[:, None, None], 0, rows[:, :, None], columns[:, None]].unsqueeze(1)
