"""Studies: each model is trained by its recipe, and measured once."""

import json

import pytest
import tiny

from rnp_lib import checkpoints
from rnp_lib.analysis.study import Recipe
from rnp_lib.model import build
from rnp_lib.presets import PRESETS


@pytest.fixture
def recipe(monkeypatch, tmp_path):
    """That of a tiny model."""
    pictures = tiny.write_pngs(tmp_path / "pictures")
    monkeypatch.setitem(PRESETS, "strokes", tiny.config(dataset=str(pictures)))
    return Recipe("strokes", {"images": 160, "tau": (4,), "model": "vae"})


def test_a_run_is_named_by_what_makes_it(recipe):
    assert recipe.run == "strokes,images=160,tau=(4,),model=vae"
    made = recipe.config
    assert (made.images, made.tau, made.model) == ((160,), (4,), "vae")
    assert Recipe("strokes", {}).config == PRESETS["strokes"]


def test_it_is_trained_once(recipe, tmp_path, capsys):
    recipe.train(tmp_path)
    assert checkpoints.load(tmp_path / recipe.run / "model.safetensors").config == recipe.config
    assert "step 20 of 20" in capsys.readouterr().out
    recipe.train(tmp_path)
    assert capsys.readouterr().out == ""


def test_a_model_is_measured_once(recipe, tmp_path):
    path = tmp_path / recipe.run / "model.safetensors"
    path.parent.mkdir()
    about = {"validation_sse": 1.5, "minutes": 2.0}
    about["run"] = {"git": {"commit": "0123456789abcdef"}, "device": "cpu (a chip)"}
    checkpoints.save(path, build(recipe.config, 0), about)

    def measure(model):
        return {"z": model.config.z_dim}

    found = recipe.measured(tmp_path, measure)
    assert found["numbers"] == {"z": 8}
    assert (found["validation_sse"], found["minutes"]) == (1.5, 2.0)
    assert (found["code"], found["device"]) == ("0123456789ab", "cpu (a chip)")
    assert (found["run"], found["weights"] > 1_000) == (recipe.run, True)
    kept = path.with_name("test_study.measure.json")
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"minutes": 7.0}))
    assert recipe.measured(tmp_path, measure)["minutes"] == 7.0

    def measure_otherwise(model):
        return {"weights": 1}

    assert recipe.measured(tmp_path, measure_otherwise)["numbers"] == {"weights": 1}
    assert recipe.measured(tmp_path, measure)["minutes"] == 7.0  # studies share models
    other = build(Recipe("strokes", {}).config, 0)
    checkpoints.save(path, other, about)
    with pytest.raises(ValueError, match="another recipe than now: delete its folder"):
        recipe.measured(tmp_path, measure)
