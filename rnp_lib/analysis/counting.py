"""How many digits are there, and which? Parts are counted and read where digits lie anywhere, by
models that saw up to three at once, on canvases of up to four. The protocol is in
docs/evaluation.md.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rnp_lib import data
from rnp_lib.analysis import people
from rnp_lib.analysis.classifier import Classifier, load_classifier
from rnp_lib.analysis.parsing import mean_and_error
from rnp_lib.analysis.scores import centred
from rnp_lib.analysis.segmentation import foreground_ari
from rnp_lib.analysis.study import Recipe
from rnp_lib.data import splits
from rnp_lib.data.counting import MOST, Counted
from rnp_lib.model.batched import batched
from rnp_lib.model.objective import reconstruction_error
from rnp_lib.model.rnp import ImageModel

ONE_LEVEL = {"tau": (4,), "extent": "(0.4,0.62)"}
AIR = {"model": "air", **ONE_LEVEL, "optimiser": "adam", "lr": 1e-3}
# In words, and what differs from the tree.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "tree": ("tree", {}),
    "root": ("all chance in the root", {"posterior": "root"}),
    "one": ("one level of four parts", {**ONE_LEVEL, "images": 200_000}),
    "air": ("AIR", {**AIR, "images": 200_000, "kl_warmup": 100_000}),
    "longer": ("AIR, twice as long", {**AIR, "images": 400_000, "kl_warmup": 200_000}),
    "vae": ("plain VAE", {"model": "vae"}),
    "saw": ("tree that saw four", {"without": ()}),
}
PIECES = "connected pieces"  # in words: what is counted beside parts
CHOSEN = 2_000  # validation canvases on which it is chosen how much ink makes a part
COUNTS = tuple(map(str, range(MOST + 1)))  # as records name them
LARGEST = 8  # pieces that are looked at
SHOWN = 10  # test canvases whose cuts are kept: two of each count
LETTERS = ".abcdefgh"  # no part, the first, the second, …

Parser = Callable[[Tensor], Tensor]  # images (N, 1, H, W) -> their parts (N, k, 1, H, W)


def recipes() -> dict[str, Recipe]:
    """By the kind of model."""
    return {name: Recipe("counting", changes) for name, (_, changes) in MODELS.items()}


def parts(model: ImageModel) -> Parser:
    """The root's parts, each where it lies; of AIR its objects."""
    return lambda images: batched(lambda x: model.parse(x).parts, images)


def pieces(images: Tensor) -> Tensor:
    """The LARGEST connected pieces of ink: a parser that knows nothing."""
    labels = people.components(images[:, 0] > people.INK)
    one_each = F.one_hot(labels + 1)[..., 1:].movedim(-1, 1).to(images)  # (N, pieces, H, W)
    found = F.pad(one_each, (0, 0, 0, 0, 0, LARGEST)) * images
    order = found.sum((2, 3)).argsort(1, descending=True)[:, :LARGEST]
    return found[torch.arange(len(found))[:, None], order].unsqueeze(2)


def ink(parts: Tensor) -> Tensor:
    """How much each part (N, k, 1, H, W) draws, summed over pixels: (N, k)."""
    return parts.clamp_min(0).flatten(2).sum(2)


def least_ink(parts: Tensor, counts: Tensor) -> float:
    """From how much ink on a part counts: what gets most counts (N,) of canvases right."""
    each = ink(parts)
    tried = each.flatten().quantile(torch.linspace(0, 1, 201).to(each)).tolist()
    right = [((each > level).sum(1) == counts).double().mean() for level in tried]
    return tried[int(torch.stack(right).argmax())]


def cut(parts: Tensor, least: float) -> Tensor:
    """Of parts (N, k, 1, H, W) that count, which draws most at a pixel, -1 where none does: int64
    (N, H, W)."""
    most, label = (parts[:, :, 0] * (ink(parts) > least)[..., None, None]).max(1)
    return label.masked_fill(most <= 0, -1)


def as_text(labels: Tensor, owners: Tensor) -> list[str]:
    """What `cut` finds where there is ink, owners (N, H, W) being -1 elsewhere: a word for each
    canvas, of a letter for each pixel."""
    inked = (each[own >= 0].tolist() for each, own in zip(labels, owners, strict=True))
    return ["".join(LETTERS[label + 1] for label in each) for each in inked]


def from_text(words: list[str], owners: Tensor) -> Tensor:
    """The labels (N, H, W) of which `as_text` made words, -1 where there is no ink."""
    labels = torch.full_like(owners, -1)
    labels[owners >= 0] = torch.tensor([LETTERS.index(letter) - 1 for letter in "".join(words)])
    return labels


def scores(
    parts: Tensor, truth: Counted, least: float, reader: Classifier
) -> dict[str, dict[str, float]]:
    """How well parts (N, k, 1, H, W) that draw more than the `least` ink stand for digits.

    Returns:
        By count, "0" to "4": counted, share of canvases of which as many parts are counted as there
        are digits; known, share of digits that some part is read as, each part counting for one;
        named, share of canvases whose parts are read as their digits and nothing else; ari,
        adjusted Rand index of ink, where there are two digits or more. Each with its standard
        error over canvases, `_stderr`.
    """
    inked = ink(parts) > least
    read = reader.read(centred(parts.flatten(0, 1), 28))[1].view(inked.shape)
    found = (F.one_hot(read, 10) * inked[..., None].cpu()).sum(1)
    there = F.one_hot(truth.digits + 1, 11)[..., 1:].sum(1)
    of_each = {
        "counted": inked.sum(1).cpu() == truth.counts,
        "known": torch.minimum(found, there).sum(1) / truth.counts,
        "named": (found == there).all(1),
    }
    aris = foreground_ari(truth.owners, cut(parts, least))
    by_count: dict[str, dict[str, float]] = {}
    for count in truth.counts.unique().tolist():
        which, row = truth.counts == count, {}
        for name, values in of_each.items():
            if count or name != "known":
                row |= mean_and_error(name, values[which].double())
        if count > 1:
            row |= mean_and_error("ari", aris[which])
        by_count[str(count)] = row
    return by_count


def judged(parse: Parser, reader: Classifier, validation: Counted, test: Counted) -> dict[str, Any]:
    """`scores` of a parser; the ink from which on a part counts, chosen on the validation canvases;
    and how the ink of the first SHOWN test canvases is `cut`, as text."""
    least = least_ink(parse(_floats(validation)), validation.counts)
    found = parse(_floats(test))
    shown = as_text(cut(found[:SHOWN], least), test.owners[:SHOWN])
    return {"least_ink": least, "cuts": shown, **scores(found, test, least, reader)}


def _floats(canvases: Counted) -> Tensor:
    return canvases.images.float() / 255


def canvases(without: tuple[int, ...]) -> tuple[Counted, Counted]:
    """CHOSEN validation canvases, of the counts that training has, and all test ones."""
    train, test = (data.counted(split) for split in data.SPLITS)
    held = splits.validation("counting", train.images, train.counts).validation
    held = held[~torch.isin(train.counts[held], torch.tensor(without))][:CHOSEN]
    return Counted(*(each[held] for each in train)), test


@torch.no_grad()
def measure(model: ImageModel) -> dict[str, Any]:
    """Of a model, by count, the squared error of test canvases, sse; of one with parts also what
    `judged` has, and the same of connected pieces, "pieces"."""
    validation, test = canvases(model.config.without)
    found: dict[str, Any] = {}
    if model.config.model != "vae":
        reader = load_classifier("mnist")
        found = judged(parts(model), reader, validation, test)
        found |= {"pieces": judged(pieces, reader, validation, test)}
    errors = reconstruction_error(model, _floats(test))
    for count in COUNTS:
        of_count = mean_and_error("sse", errors[test.counts == int(count)])
        found[count] = found.get(count, {}) | of_count
    return found


def collect(folder: Path) -> dict[str, Any]:
    """The record, of runs in `folder`: by model what `Recipe.measured` has."""
    return {name: recipe.measured(folder, measure) for name, recipe in recipes().items()}


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """All scores of a record as `collect` has it, SCORE_COUNT_PARSER and their standard errors,
    _stderr; the parsers are MODELS and "pieces"."""
    found: dict[str, float] = {}
    of_parsers = {name: record[name]["numbers"] for name in MODELS}
    for name, row in {**of_parsers, "pieces": of_parsers["tree"]["pieces"]}.items():
        for count in COUNTS:
            for score, value in row[count].items():
                score, *error = score.split("_", 1)
                found["_".join([score, count, name, *error])] = value
    return found


def rows(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What a record as `collect` has it says of each parser, in words."""
    found = {words: record[name]["numbers"] for name, (words, _) in MODELS.items()}
    return found | {PIECES: record["tree"]["numbers"]["pieces"]}


def table(record: dict[str, Any]) -> str:
    """A record as `collect` has it, as lines of text: a column for every count."""
    heads = {
        "counted": "counted right",
        "known": "digits known",
        "named": "all named right",
        "ari": "ARI of ink",
        "sse": "SSE",
    }
    lines = [f"{'by how many digits there are':32}" + "".join(f"{n:>16}" for n in COUNTS)]
    for score, head in heads.items():
        lines.append(head)
        for words, found in rows(record).items():
            row = [_cell(found[count], score) for count in COUNTS]
            if any(cell != "-" for cell in row):
                lines.append(f"  {words:30}" + "".join(f"{cell:>16}" for cell in row))
    return "\n".join(lines)


def _cell(found: dict[str, float], score: str) -> str:
    if score not in found:
        return "-"
    form = ".2f" if score == "sse" else ".3f"
    return f"{found[score]:{form}} ± {found[f'{score}_stderr']:{form}}"
