"""Pages say what records say, records are whole and of the committed models, and Python runs."""

import csv
import dataclasses
import hashlib
import json
import re

import pytest

from rnp_lib import checkpoints, data
from rnp_lib.analysis import controls as transfer_controls
from rnp_lib.analysis import parsing, transfer
from rnp_lib.analysis.controls import Trial
from rnp_lib.config import Config
from rnp_lib.files import ROOT
from rnp_lib.presets import PRESETS
from rnp_lib.repro import notebooks as figures
from rnp_lib.repro import readme, records

README = (ROOT / "README.md").read_text(encoding="utf-8")
FIGURES = [name for made in figures.FIGURES.values() for name in made]


# ---- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", readme.pages(), ids=lambda page: page.name)
def test_writing_a_page_anew_changes_nothing(page):
    text = page.read_text(encoding="utf-8")
    assert readme.filled(text) == text, "a number is not its record's: `rnp readme --write`"


def test_the_headline_numbers_are_among_those_written():
    marked = {(source, key) for _, source, key in readme.NUMBER.findall(README)}
    assert {("fig3a_mnist", "sse"), ("checkpoints/mnist", "validation_sse")} <= marked


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A project with a record and a recipe of round numbers."""
    (tmp_path / "figures").mkdir()
    (tmp_path / "docs").mkdir()
    record = {"wall_time_s": 61.26, "numbers": {"sse": 4.0461, "n": 10_000, "7_rnp": 8.0, "d": -2}}
    (tmp_path / "figures" / "fig.json").write_text(json.dumps(record))
    runs = [
        {"what": "plain", "command": "rnp train mnist", "validation_sse": 7.66},
        {"what": "fast", "command": 'rnp train mnist --set "lr=1"', "validation_sse": 12.04},
    ]
    recipe = {
        "runs": runs,
        "transfer": {
            "runs": [
                {"what": "none", "images": 0, "validation_sse": 6.9},
                {
                    "what": "much",
                    "images": 30_000,
                    "command": "rnp transfer 7 --set images=30000 --set jitter=0.5",
                    "validation_sse": 5.1,
                },
            ]
        },
    }
    (tmp_path / "docs" / "recipe.json").write_text(json.dumps(recipe))
    for module in (readme, records):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    readme._source.cache_clear()
    yield tmp_path
    readme._source.cache_clear()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("SSE 9.99<!-- fig:sse -->.", "SSE 4.05<!-- fig:sse -->."),
        ("(9<!-- fig:sse -->)", "(4<!-- fig:sse -->)"),
        ("n = 1,000<!-- fig:n -->", "n = 10,000<!-- fig:n -->"),
        ("300<!-- fig:n/1e3 --> thousand", "10<!-- fig:n/1e3 --> thousand"),
        ("9.9<!-- fig:n/7_rnp --> times", "1,250.0<!-- fig:n/7_rnp --> times"),
        ("9<!-- fig:wall_time_s --> s", "61<!-- fig:wall_time_s --> s"),
        ("4-9.0<!-- fig:d -->", "4--2.0<!-- fig:d -->"),
        ("-9.0<!-- fig:sse -->", "4.0<!-- fig:sse -->"),
        ("<!-- fig:sse -->", "4<!-- fig:sse -->"),
        (
            "8.0<!-- docs/recipe:runs.1.validation_sse -->",
            "12.0<!-- docs/recipe:runs.1.validation_sse -->",
        ),
        ("7.3 <!-- a remark --> 8<!-- another: one -->", None),
    ],
)
def test_a_marked_number_becomes_the_recorded_one_with_its_decimals(sources, before, after):
    assert readme.filled(before) == (before if after is None else after)


def test_the_rows_of_a_table_are_written_below_its_head(sources):
    text = "<!-- table: {} -->\n| a | b |\n|---|---|\n{}<!-- end -->\nand text\n"
    rows = '| plain | 7.7 | no change |\n| fast | 12.0 | `--set "lr=1"` |\n'
    for before in ("", "| old | 1 |\n"):
        assert readme.filled(text.format("ablations", before)) == text.format("ablations", rows)
    call = "`--set images=30000 --set jitter=0.5`"
    rows = f"| none | 0 | 6.90 |  |\n| much | 30,000 | 5.10 | {call} |\n"
    assert readme.filled(text.format("retrainings", "")) == text.format("retrainings", rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1<!-- fig:mse -->", "fig:mse --> names no number"),
        ("1<!-- gif:sse -->", "gif:sse --> names no number"),
        ("1<!-- fig:sse/kl -->", "fig:sse/kl --> names no number"),
        ("1<!-- docs/recipe:runs.7.what -->", "names no number"),
        ("1<!-- docs/recipe:runs.0.what -->", "names no number"),
        ("1<!-- checkpoints/none:minutes -->", "names no number"),
        (
            "<!-- table: seed -->\n| a |\n|---|\n<!-- end -->\n",
            "only ablations, tree, models, seeds",
        ),
        ("<!-- table: seeds -->\n| a |\n|---|\n", "belong together"),
    ],
)
def test_a_marker_that_names_nothing_is_refused(sources, text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        readme.filled(text)


@pytest.mark.parametrize("page", readme.pages(), ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.full_data("mnist")
def test_the_python_in_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "parse.png").stat().st_size > 10_000


# ---- records -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FIGURES)
def test_committed_figures_come_from_the_committed_checkpoints(name):
    record = records.read(name)
    assert record["mode"] == "full"
    assert not record["stand_ins"]
    assert not record["git"]["dirty"]
    assert record["checkpoints"]
    for path, digest in record["checkpoints"].items():
        assert hashlib.sha256((ROOT / path).read_bytes()).hexdigest() == digest, path


@pytest.mark.parametrize("name", FIGURES)
def test_no_recorded_error_is_above_that_of_a_blank_canvas(name):
    """The error of a single image, which has no n, says little without it."""
    numbers = records.read(name)["numbers"]
    if "sse" in numbers and "n" not in numbers:
        assert "sse_blank" in numbers
    assert numbers.get("sse", 0) <= numbers.get("sse_blank", float("inf"))


SCORED = {"mnist": "fig3a_mnist", "omniglot": "fig3b_omniglot", "fashion": "fig3c_fashion"}
CURVES = [*SCORED, *(f"{name}-root" for name in SCORED), "scenes", "strokes"]
CURVES += ["mnist-alphabet", "mnist-colour"]


@pytest.mark.parametrize(
    ("name", "n"),
    [("mnist", 10_000), ("omniglot", 13_180), ("fashion", 10_000)],
)
def test_a_figure_and_the_table_of_models_score_a_model_alike_on_all_test_images(name, n):
    numbers = records.read(SCORED[name])["numbers"]
    assert numbers["n"] == n
    rows = json.loads((ROOT / "docs" / "recipe.json").read_text())["models"]
    for prefix, preset in (("", name), ("rooted_", f"{name}-root")):
        (row,) = [row for row in rows if row["command"] == f"rnp train {preset}"]
        assert numbers[f"{prefix}sse"] == pytest.approx(row["test"]["sse"], rel=1e-3)
        digest = hashlib.sha256(checkpoints.find(preset).read_bytes()).hexdigest()
        assert row["sha256"] == digest


@pytest.mark.parametrize("name", ["strokes", "scenes"])
def test_a_model_of_drawn_images_is_scored_on_all_of_them(name):
    figure = {"strokes": "true_strokes", "scenes": "three_levels"}[name]
    assert records.read(figure)["numbers"]["n"] == getattr(data, name.upper())["test"][0]


@pytest.mark.full_data("mnist", "omniglot", "fashion")
@pytest.mark.parametrize("name", SCORED)
def test_the_record_is_what_the_checkpoint_scores(name):
    images, labels = data.load(name, "test")
    record = records.read(SCORED[name])
    assert record["data"][f"{name}/test"] == data.digest(images, labels)
    scores = parsing.evaluate(checkpoints.load(name), images)
    for key, value in scores.items():
        assert value == pytest.approx(record["numbers"][key], rel=1e-3), key


@pytest.mark.parametrize("name", CURVES)
def test_a_learning_curve_lies_beside_the_checkpoint_it_led_to(name):
    about = checkpoints.metadata(name)
    with open(checkpoints.find(name).with_suffix(".csv"), newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["validation_sse"]) == pytest.approx(about["validation_sse"], rel=1e-6)
    assert int(last["images"]) >= 0.999 * sum(about["config"]["images"]) - 128


# As the pages say: epochs, and what else differs from the preset.
PAPER = {
    "paper_mnist": ("paper-mnist", 8 * 55_000, {}),
    "paper_fashion": ("paper-fashion", 3 * 55_000, {}),
    "paper_omniglot": ("paper-omniglot", 10 * 17_352, {}),
    "paper_sharp": ("paper-mnist", 24 * 55_000, {"sigma2": 0.05}),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_recipes_have_their_records_and_curves(name):
    record = records.read(name)
    with open(ROOT / "figures" / f"{name}.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    about = record["model"]
    assert float(last["validation_sse"]) == pytest.approx(about["validation_sse"], rel=1e-6)
    if "test_sse" in about:  # of runs that were measured as they ended
        assert record["numbers"]["sse"] == pytest.approx(about["test_sse"], rel=1e-3)
    preset, images, changes = PAPER[name]
    expected = dataclasses.replace(PRESETS[preset], images=(images,), **changes)
    assert Config.from_dict(about["config"]) == expected


def test_the_recipe_of_retraining_is_the_last_that_was_tried():
    *_, smallest, last = json.loads((ROOT / "docs" / "recipe.json").read_text())["transfer"]["runs"]
    assert (last["images"], last["settings"]) == (transfer.RECIPE["images"][0], {})
    assert smallest["settings"] == {"sigma2": transfer.ERROR_SIGMA2}


@pytest.mark.parametrize("name", transfer.TASKS)
def test_the_controls_of_transfer_are_complete_and_of_the_committed_models(name):
    record, task = records.read(f"transfer_{name}"), transfer.TASKS[name]
    keys = [field.name for field in dataclasses.fields(Trial)]
    trials = {Trial(**{key: t[key] for key in keys}): t for t in record["trials"]}
    assert list(trials) == transfer_controls.plan(task)
    for trial, found in trials.items():
        start = trial.start(task)
        if (path := checkpoints.DIRECTORY / f"{start}.safetensors").is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert found["base"] == {"path": f"checkpoints/{path.name}", "sha256": digest}
    encoder = checkpoints.metadata(checkpoints.find(f"encoder-{name}"), checkpoints.ENCODER_FORMAT)
    assert record["inputs"]["recipe"] == encoder["recipe"]
    assert encoder["condition"] == "inference"
    found = trials[Trial("tree", "inference")]["new"]["sse"]
    assert encoder["after"]["new"]["sse"] == pytest.approx(found, rel=1e-3)
