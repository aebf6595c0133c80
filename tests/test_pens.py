"""Parts against all of people's strokes: which models, and how they are measured."""

import json

import pytest
import tiny
from click.testing import CliRunner

from rnp_lib import alphabets
from rnp_lib.analysis import pens, people
from rnp_lib.cli import commands
from rnp_lib.presets import PRESETS


@pytest.fixture
def few(monkeypatch):
    """Some generated characters for people's, and a recipe of few steps."""
    drawings = people.generated(30, seed=0)
    monkeypatch.setattr(people, "by_people", lambda size: drawings)
    config = tiny.config(dataset="strokes", posterior="tree", image_size=28, batch_size=16)
    monkeypatch.setitem(PRESETS, "omniglot-nopens", config)
    return drawings.where(drawings.counts > 1)


def test_models_are_those_of_omniglot_without_the_eight_alphabets():
    recipes = pens.recipes()
    air = recipes.pop("air").config
    assert (air.model, air.tau, air.images) == ("air", (4,), (450_000,))
    assert air.without == alphabets.labels(*alphabets.WITH_STROKES)
    for name, recipe in recipes.items():
        own = recipe.config.to_dict()
        assert own["without"] == alphabets.labels(*alphabets.WITH_STROKES)
        like = PRESETS["omniglot" if name == "tree" else "omniglot-root"].to_dict()
        changed = {key for key in own if own[key] != like[key]}
        assert changed <= {"without", "images", "reader_units"}
        assert own["images"] == (450_000,)


def test_models_are_trained_and_shown_beside_what_learns_nothing(few, tmp_path):
    arguments = ["evaluate", "--peers", str(tmp_path), "--study", "pens", "--json"]
    result = CliRunner().invoke(commands, [*arguments, str(tmp_path / "pens.json")])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "pens.json").read_text())
    assert pens.table(record) in result.output
    found = pens.numbers(record)
    assert found["n"] == len(few.images)
    skeleton = people.agreement(few.strokes, people.skeleton_pieces(few.ink))["ari"]
    assert found["ari_skeleton"] == pytest.approx(float(skeleton.mean()))
    assert found["less_skeleton"] == pytest.approx(found["ari_tree"] - found["ari_skeleton"])
    lines = pens.table(record).splitlines()
    assert len(lines) == 2 + len(pens.WORDS)
    assert f"{found['ari_root']:.3f}" in lines[2 + [*pens.WORDS].index("root")]
