"""A small classifier for each data set: can a sample be read, and what features does it have?

    classifier = load_classifier("mnist")
    classifier.probabilities(images)  # (N, classes)
    classifier.features(images)  # (N, 64), what FID, KID, precision and recall are computed from

Those scores usually take the features of a network for photographs, which knows little of 28 × 28
strokes. Trained with this project's data by

    train_classifier("mnist", "checkpoints/classifier-mnist.safetensors")
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnp_lib import checkpoints, data
from rnp_lib.checkpoints import CheckpointError
from rnp_lib.data import splits
from rnp_lib.files import code_version
from rnp_lib.model.batched import batched
from rnp_lib.training.batches import jitter

FORMAT = "rnp-classifier-1"  # changes whenever an older reader could not make sense of a newer file
FEATURES = 64
BATCH = 128
SURE = 0.8  # an image counts as read where a class is more probable than this


def _convolution(n_in: int, n_out: int, size: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(n_in, n_out, size, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(n_out), nn.ReLU()


class Classifier(nn.Module):
    """Images (B, 1, 28, 28) in [0, 1] to logits (B, classes): 102,400 weights and the last layer.

    `features`, `probabilities` and `read` take any number of images and keep no gradient.
    """

    def __init__(self, classes: int):
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(1, 32, 4, stride=2),
            *_convolution(32, 32, 3, stride=1),
            *_convolution(32, 64, 3, stride=2),
            *_convolution(64, 64, 3, stride=1),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 3 * 3, FEATURES, bias=False),
            nn.BatchNorm1d(FEATURES),  # no ReLU: half the features would be 0, and none Gaussian
        )
        self.head = nn.Linear(FEATURES, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees: images (N, 1, 28, 28) -> (N, 64)."""
        return batched(self.body, images)

    def probabilities(self, images: Tensor) -> Tensor:
        """Images (N, 1, 28, 28) -> (N, classes), rows sum to 1."""
        return batched(lambda x: self(x).softmax(1), images)

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Which of N images can be read, bool (N,), and their most probable classes, int64 (N,)."""
        probability, label = self.probabilities(images).max(1)
        return probability > SURE, label


def load_classifier(name: str | Path) -> Classifier:
    """A trained classifier, frozen, in eval mode and float32.

    Args:
        name: the data set it was trained on, such as "mnist", of those in checkpoints/; or a path.

    Raises:
        FileNotFoundError: no such classifier.
        CheckpointError: the file is damaged, of another format, or holds other weights.
    """
    path = checkpoints.find(name if Path(name).suffix else f"classifier-{name}")
    tensors, _ = checkpoints.read(path, FORMAT)
    try:
        classifier = Classifier(len(tensors["head.bias"]))
        classifier.load_state_dict(tensors)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} does not hold the weights of this version's classifier ({reason}): "
            "use the version that wrote it, or train the classifier again."
        ) from None
    return classifier.requires_grad_(False).eval()


def held_out(dataset: str, images: Tensor, labels: Tensor) -> splits.Split:
    """The split of a data set's training images that a classifier is trained and judged on.

    That of the models, but for Omniglot: a classifier must know all of its characters.
    """
    if dataset == "omniglot":
        return splits.by_drawer(labels)
    return splits.validation(dataset, images, labels)


def train_classifier(dataset: str, path: str | Path, seed: int = 0, seen: int = 1_000_000) -> float:
    """Train a classifier on the CPU (some minutes), write it to `path`, return its accuracy.

    AdamW and one cycle of the learning rate. The same seed gives the same weights on one machine.

    Args:
        dataset: what `data.load` takes; the labels of its training split are the classes.
        seen: training images in all, rounded to whole epochs.

    Returns:
        share of validation images whose most probable class is right, with the weights as stored.
    """
    code = code_version()  # now: files may change while it trains
    images, labels = data.load(dataset, "train")
    train, validation, what = held_out(dataset, images, labels)
    epochs, steps = max(1, round(seen / len(train))), len(train) // BATCH
    with torch.random.fork_rng(devices=[]):  # the first weights: layers take no generator
        torch.manual_seed(seed)
        classifier = Classifier(int(labels.max()) + 1)
        generator = torch.Generator()
        generator.set_state(torch.get_rng_state())
    optimiser = torch.optim.AdamW(classifier.parameters(), weight_decay=0.02, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, epochs * steps)
    for epoch in range(epochs):
        total = 0.0
        order = train[torch.randperm(len(train), generator=generator)]
        for batch in order[: steps * BATCH].split(BATCH):
            # A little turned, sheared, scaled and moved (by up to 2 of 28 pixels).
            x = jitter(images[batch], 0.15, generator, mode="bilinear")
            loss = F.cross_entropy(classifier(x), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item()
        print(f"{dataset} epoch {epoch + 1} of {epochs}: loss {total / steps:.4f}", flush=True)
    classifier.half().float().eval()  # judged as it is stored
    guess = classifier.probabilities(images[validation]).argmax(1)
    accuracy = float((guess == labels[validation]).double().mean())
    about = {
        "dataset": dataset,
        "data_sha256": data.digest(images, labels),
        "validation_accuracy": accuracy,
        "validation": what,
        "validation_images": len(validation),
        "seed": seed,
        "epochs": epochs,
        "code": code,
    }
    checkpoints.write(path, FORMAT, classifier.half().state_dict(), about)
    return accuracy
