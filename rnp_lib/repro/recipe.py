"""What each choice of the recipe is worth: docs/recipe.json, a row for each run, and its numbers.

The rows and their commands are written by hand; `collect` fills in what the runs came to.
"""

import re
import shlex
from pathlib import Path
from typing import Any

from torch import Tensor

from rnp_lib import checkpoints, data
from rnp_lib.analysis import mobility, parsing, scores, segmentation
from rnp_lib.data import splits
from rnp_lib.files import ROOT, read_json, sha256
from rnp_lib.model.rnp import ImageModel

PATH = ROOT / "docs" / "recipe.json"
MOVED, KNOWN = 250, 2_000  # images whose parts are exchanged, and those that they come from


def rows(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows that a command makes, of all sections of the record."""
    sections = (record, *(record[name] for name in ("tree", "strokes", "transfer")))
    found = [*record["models"], *record["seeds"]]
    found += [row for section in sections for row in section["runs"]]
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
    if "test" in row:
        found["test"] = read_json(path.with_name("scores.json"))["numbers"]
    if "samples_legible" in row:
        model = checkpoints.load(path)
        found |= scores.samples_read(model)
        images, labels = data.load(model.config.dataset, "train", model.config.image_size)
        split = splits.validation(model.config.dataset, images, labels)
        measure = _of_the_tree if "nats" in row else _of_the_parts
        found |= measure(model, images[split.train], images[split.validation])
    if "ari_parts" in row:
        aris = segmentation.evaluate_segmentation(checkpoints.load(path), n=500, seed=2)
        found |= {key: aris[key] for key in aris if re.fullmatch(r"ari_.*parts(_less_\w+)?", key)}
    return found


def _of_the_parts(model: ImageModel, _: Tensor, held: Tensor) -> dict[str, float]:
    parts = parsing.evaluate_parts(model, held)
    found = {"smallest_part": parts["ink_part_min"], "pieces": parts["pieces"]}
    return found | {"smallest_sub_part": parts["ink_sub_part_min"]}


def _of_the_tree(model: ImageModel, train: Tensor, held: Tensor) -> dict[str, float]:
    """What images and samples cost and who says it, and whether parts are shared and mobile; nats
    are those of the negative ELBO, without its constant."""
    measured = parsing.evaluate(model, held)
    found = {"nats": measured["nats"], "kl_root": measured.get("kl_root", measured["kl"])}
    found |= {"sse_root": measured.get("sse_root", measured["sse"])}
    if model.config.model == "rnp":
        moved = mobility.evaluate_mobility(model, held[:MOVED], train[:KNOWN])
        found |= {name: moved[name] for name in ("turn_read", "centre_sd_min")}
        found["other_turn"] = moved["sse_other_turn"] / moved["sse_same_turn"]
        found["fixed_windows"] = moved["sse_fixed_windows"] / moved["sse"]
    return found
