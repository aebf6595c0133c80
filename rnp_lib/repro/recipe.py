"""What each choice of the recipe is worth: docs/recipe.json, a row for each run, and its numbers.

The rows and their commands are written by hand; `collect` fills in what the runs came to.
"""

import re
import shlex
from pathlib import Path
from typing import Any

from rnp_lib import checkpoints, data
from rnp_lib.analysis import classifier, parsing, sampling, segmentation
from rnp_lib.data import splits
from rnp_lib.files import ROOT, read_json, sha256

PATH = ROOT / "docs" / "recipe.json"
SAMPLES = 4_000  # of the prior, for the classifier to read


def rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a command makes, of all sections of the record."""
    sections = (record, record["strokes"], record["transfer"])
    found = [*record["seeds"], *(row for section in sections for row in section["runs"])]
    return [row for row in found if "command" in row]


def folder(row: dict[str, Any]) -> str:
    """Where a row's run goes, named by its command: "train/mnist,sigma2=0.05", say."""
    _, verb, what, *options = shlex.split(row["command"])
    settings = [text for text in options if text not in ("--set", "seed=0")]
    return f"{verb}/{','.join([what, *settings])}"


def command(name: str) -> str:
    """Inverse of `folder`, less the verb: "mnist --set sigma2=0.05"."""
    what, *settings = re.split(r",(?=\w+=)", name)
    return shlex.join([what, *(word for text in settings for word in ("--set", text))])


def collect(record: dict[str, Any], runs: Path) -> dict[str, Any]:
    """The record with the numbers of all rows whose runs are in the folder `runs`; others stay."""
    for row in rows(record):
        path = runs / folder(row) / "model.safetensors"
        if path.is_file() and row.get("sha256") != sha256(path):
            row |= _numbers(row, path) | {"sha256": sha256(path)}
    return record


def _numbers(row: dict[str, Any], path: Path) -> dict[str, Any]:
    encoder = row["command"].startswith("rnp transfer")
    form = checkpoints.ENCODER_FORMAT if encoder else checkpoints.FORMAT
    about = checkpoints.metadata(path, form)
    found = {"validation_sse": about["validation_sse"]}
    if "code" in row:
        found["code"] = about["code"] if encoder else about["run"]["git"]["commit"][:12]
    if "test_sse" in row:
        found["test_sse"] = read_json(path.with_name("scores.json"))["numbers"]["sse"]
    if "samples_legible" in row:
        model = checkpoints.load(path)
        images, labels = data.load(model.config.dataset, "train", model.config.image_size)
        held = splits.validation(model.config.dataset, images, labels).validation
        reader = classifier.load_classifier(model.config.dataset)
        read = sampling.legibility(reader, model.sample(SAMPLES, seed=0).canvas)
        parts = parsing.evaluate_parts(model, images[held])
        found |= {"samples_legible": read["legible"], "smallest_class": min(read["classes"])}
        found |= {"smallest_part": parts["ink_part_min"], "pieces": parts["pieces"]}
        found["smallest_sub_part"] = parts["ink_sub_part_min"]
    if "ari_parts" in row:
        scores = segmentation.evaluate_segmentation(checkpoints.load(path), n=500, seed=2)
        found |= {key: scores[key] for key in ("ari_parts", "ari_sub_parts")}
    return found
