"""Models of other seeds: which, what is measured of them, and how it is put together."""

import pytest
import tiny
import torch
from test_onevector import drawn, few  # noqa: F401  fixtures: few images, two runs of characters

from rnp_lib import data
from rnp_lib.analysis import oneshot, peers, seeds
from rnp_lib.data import runs
from rnp_lib.model import build
from rnp_lib.presets import PRESETS


def test_recipes_differ_from_those_of_seed_0_by_their_seed():
    found = seeds.recipes()
    assert len(found) == 5 * 2 + 3 * (3 + 4)
    for (dataset, kind, seed), recipe in found.items():
        own, first = recipe.config.to_dict(), found[dataset, kind, 0].config.to_dict()
        assert own | {"seed": 0} == first
        assert recipe.config.seed == seed


def test_those_of_seed_0_are_the_committed_models_and_the_peers():
    found = seeds.recipes()
    assert found["omniglot", "tree", 0].config == PRESETS["omniglot"]
    assert found["omniglot", "root", 0].config == PRESETS["omniglot-root"]
    for dataset in ("mnist", "combinations"):
        for kind in seeds.KINDS[dataset]:
            assert found[dataset, kind, 0] == peers.recipes()[dataset, kind]


@pytest.mark.parametrize("changes", [{"posterior": "tree"}, {"model": "vae"}])
@torch.no_grad()
def test_errors_are_those_of_one_shot(drawn, few, changes):  # noqa: F811
    model = build(tiny.config(image_size=28, **changes), 0).eval()
    found = seeds.one_shot(model)
    code = oneshot.root(model) if "model" in changes else oneshot.code(model)
    background = oneshot.background(data.load("omniglot", "train", 28)[0])
    official = runs.official(28)
    by_nats, _ = oneshot.answers(official, oneshot.learned(background, code), code)
    expected = oneshot.errors({"nats": by_nats}, official, against="nats")
    assert found["error_nats"] == expected["error_nats"]
    assert found["n"] == 10


@pytest.fixture
def record():
    """Of models that differ in nothing but the tree of seed 2, in one score, and VAEs in parts."""
    record = {dataset: {} for dataset in seeds.KINDS}
    for dataset, kind, seed in seeds.recipes():
        row = dict.fromkeys(seeds.SCORES[dataset], 0.2)
        if kind == "vae":
            row.pop("retrieved", None)  # it has no parts
        record[dataset][f"{kind}_{seed}"] = {"numbers": row}
    record["omniglot"]["tree_2"]["numbers"]["error_nats"] = 0.35
    return record


def test_what_seeds_say_is_put_together(record):
    found = seeds.numbers(record)
    assert found["error_nats_tree"] == pytest.approx(0.25)
    assert found["error_nats_tree_stderr"] == pytest.approx(0.05)
    assert (found["error_nats_tree_least"], found["error_nats_tree_most"]) == (0.2, 0.35)
    assert found["sse_pair_levels"] == pytest.approx(0.2)
    assert found["sse_pair_levels_stderr"] == pytest.approx(0, abs=1e-9)
    assert "retrieved_vae" not in found


def test_a_record_is_told_as_a_table(record):
    lines = seeds.table(record).splitlines()
    assert len(lines) == sum(1 + len(scores) for scores in seeds.SCORES.values()) + 4
    line = lines[lines.index(next(line for line in lines if line.startswith("omniglot"))) + 1]
    assert line.startswith("error, nats ")
    assert line.split()[2:5] == ["0.250", "±", "0.050"]
    assert line.split()[5:8] == ["0.200", "±", "0.000"]
