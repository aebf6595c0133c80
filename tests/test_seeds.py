"""One shot by models of other seeds: which models, and how their errors are put together."""

import pytest
import tiny
import torch
from test_onevector import drawn, few  # noqa: F401  fixtures: few images, two runs of characters

from rnp_lib import data
from rnp_lib.analysis import oneshot, seeds
from rnp_lib.data import runs
from rnp_lib.model import build
from rnp_lib.presets import PRESETS


def test_recipes_differ_from_the_committed_ones_by_their_seed():
    found = seeds.recipes()
    assert len(found) == len(seeds.KINDS) * len(seeds.SEEDS)
    for name, recipe in found.items():
        kind, seed = name.split("_")
        own = recipe.config.to_dict() | {"seed": 0}
        like = PRESETS["omniglot-root" if kind == "root" else "omniglot"]
        like = like.override(["model=vae"] if kind == "vae" else [])
        assert own == like.to_dict()
        assert recipe.config.seed == int(seed)


@pytest.mark.parametrize("changes", [{"posterior": "tree"}, {"model": "vae"}])
@torch.no_grad()
def test_errors_are_those_of_one_shot(drawn, few, changes):  # noqa: F811
    model = build(tiny.config(image_size=28, **changes), 0).eval()
    found = seeds.measure(model)
    code = oneshot.root(model) if "model" in changes else oneshot.code(model)
    background = oneshot.background(data.load("omniglot", "train", 28)[0])
    official = runs.official(28)
    by_nats, _ = oneshot.answers(official, oneshot.learned(background, code), code)
    expected = oneshot.errors({"nats": by_nats}, official, against="nats")
    assert found["error_nats"] == expected["error_nats"]
    assert found["n"] == 10


def test_errors_of_all_seeds_are_put_together():
    record = {
        name: {"numbers": {"error_nats": 0.2, "error_distance": 0.5}} for name in seeds.recipes()
    }
    record["tree_2"]["numbers"]["error_nats"] = 0.3
    first = {f"error_{kind}{way}": 0.1 for kind in seeds.KINDS for way in ("", "_distance")}
    found = seeds.of_all(record, first)
    assert found["seeds_tree"] == pytest.approx(0.2)
    assert found["seeds_tree_stderr"] == pytest.approx(0.1 / 3**0.5)
    assert (found["seeds_tree_least"], found["seeds_tree_most"]) == (0.1, 0.3)
    assert found["seeds_vae_distance"] == pytest.approx(1.1 / 3)


def test_a_record_is_told_as_a_table():
    scores = {"error_nats": 0.25, "error_nats_stderr": 0.01}
    scores |= {"error_distance": 0.5, "error_distance_stderr": 0.02}
    lines = seeds.table({name: {"numbers": scores} for name in seeds.recipes()}).splitlines()
    assert len(lines) == 1 + len(seeds.recipes())
    assert all("25.0% ± 1.0%" in line and "50.0% ± 2.0%" in line for line in lines[1:])
