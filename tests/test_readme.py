"""Numbers in the README are those of the records, and its Python runs."""

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
from rnp_lib.config import PRESETS, Config
from rnp_lib.files import ROOT
from rnp_lib.repro import notebooks as figures
from rnp_lib.repro import records

README = (ROOT / "README.md").read_text(encoding="utf-8")
PERFORMANCE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
RECIPE = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8")
# A number is followed by a comment that names its record, and its unit if that is not 1:
# 5.12<!-- fig3a_mnist:sse -->, 103<!-- performance:flops_per_image.full/1e6 -->
NUMBERS = re.findall(r"([\d.,]+)<!-- (\S+?):(\S+) -->", README + PERFORMANCE + RECIPE)


def _recorded(record: str, key: str) -> float:
    if record.startswith("checkpoints/"):
        return checkpoints.metadata(record.removeprefix("checkpoints/"))[key]
    found = records.load(record)
    key, _, unit = key.partition("/")
    for part in key.split("."):
        found = found[part] if part in found else found["numbers"][part]
    return found / float(unit or 1)


@pytest.mark.parametrize(("shown", "record", "key"), sorted(set(NUMBERS)))
def test_a_number_is_the_recorded_one_to_the_digits_shown(shown, record, key):
    text = shown.replace(",", "")
    digits = len(text.partition(".")[2])
    assert f"{_recorded(record, key):.{digits}f}" == text


def test_the_headline_numbers_are_among_them():
    assert {("fig3a_mnist", "sse"), ("checkpoints/mnist", "test_sse")} <= {n[1:] for n in NUMBERS}


@pytest.mark.parametrize("name", [name for made in figures.FIGURES.values() for name in made])
def test_committed_figures_come_from_the_committed_checkpoints(name):
    record = records.load(name)
    assert record["mode"] == "full"
    assert not record["stand_ins"]
    assert not record["git"]["dirty"]
    assert record["checkpoints"]
    for path, digest in record["checkpoints"].items():
        assert hashlib.sha256((ROOT / path).read_bytes()).hexdigest() == digest, path


SCORED = {"mnist": "fig3a_mnist", "omniglot": "fig3b_omniglot", "fashion": "fig3c_fashion"}


def test_the_committed_models_are_good_enough():
    numbers = {name: records.load(figure)["numbers"] for name, figure in SCORED.items()}
    assert [found["n"] for found in numbers.values()] == [10_000, 13_180, 10_000]
    assert numbers["mnist"]["sse"] <= 6
    assert numbers["omniglot"]["sse"] <= 15
    assert numbers["fashion"]["sse"] <= 1.25 * numbers["fashion"]["vae_sse"]
    for name, found in numbers.items():
        stored = checkpoints.metadata(name)["test_sse"]  # before weights were made float16
        assert found["sse"] == pytest.approx(stored, rel=1e-3)
        assert found["ink_part_min"] >= 0.08
        assert found["ink_sub_part_min"] >= 0.05
        assert found["removal_rise_min_part"] > 0
        assert found["removal_rise_min_sub_part"] > 0
        assert max(found["window_max_level_1"], found["window_max_level_2"]) < 1
    assert numbers["mnist"]["pieces"] >= 0.93
    assert numbers["omniglot"]["pieces"] >= 0.85
    samples = records.load("fig5_samples")["numbers"]
    assert samples["mnist_legible"] >= 0.75
    assert samples["mnist_class_min"] >= 0.04


@pytest.mark.parametrize("name", [*SCORED, "scenes", "strokes", "vae-fashion"])
def test_a_learning_curve_lies_beside_the_checkpoint_it_led_to(name):
    about = checkpoints.metadata(name)
    with open(checkpoints.find(name).with_suffix(".csv"), newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["validation_sse"]) == pytest.approx(about["validation_sse"], rel=1e-6)
    assert int(last["images"]) >= 0.999 * sum(about["config"]["images"]) - 128


def test_the_paper_s_recipe_has_its_record_and_curve():
    record = records.load("paper_mnist")
    with open(ROOT / "figures" / "paper_mnist.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    about = record["model"]
    assert float(last["validation_sse"]) == pytest.approx(about["validation_sse"], rel=1e-6)
    assert record["numbers"]["sse"] == pytest.approx(about["test_sse"], rel=1e-3)
    preset = dataclasses.replace(PRESETS["paper-mnist"], images=about["config"]["images"])
    assert Config.from_dict(about["config"]) == preset
    assert sum(preset.images) == 24 * 55_000  # as the pages say


@pytest.mark.full_data("mnist", "omniglot", "fashion")
@pytest.mark.parametrize("name", SCORED)
def test_the_record_is_what_the_checkpoint_scores(name):
    images, labels = data.load(name, "test")
    record = records.load(SCORED[name])
    assert record["data"][f"{name}/test"] == data.digest(images, labels)
    for key, value in parsing.evaluate(checkpoints.load(name), images).items():
        assert value == pytest.approx(record["numbers"][key], rel=1e-3), key


@pytest.mark.full_data("mnist")
def test_the_python_in_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "parse.png").stat().st_size > 10_000


@pytest.mark.parametrize("page", ["README.md", "docs/performance.md", "docs/recipe.md"])
def test_what_a_page_links_to_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if not target.startswith("http"):
            assert ((ROOT / page).parent / target).exists(), target


def test_the_speed_that_was_aimed_at_is_reached():
    """Ratios of the committed run of `rnp bench`, on the two cores that its record names."""
    speed = records.load("performance")
    train = speed["train_images_per_s"]
    assert round(train["full"] / train["naive_full"]) == 4  # as the README says, in words
    assert int(train["factorised"] / train["naive_full"]) == 12
    assert train["full"] >= 2.5 * train["naive_full"]
    assert train["factorised"] >= 8 * train["naive_full"]
    assert train["factorised"] >= 0.4 * train["vae"]
    assert speed["train_share_of_matmul"]["full"] >= 0.5


def test_the_recipes_table_is_its_record():
    text = RECIPE
    record = json.loads((ROOT / "docs" / "recipe.json").read_text(encoding="utf-8"))
    runs = record["runs"]
    for seed in record["seeds"]:
        assert f"| {seed['seed']} | {seed['validation_sse']:.2f} | {seed['test_sse']:.2f} |" in text
        assert seed["test_sse"] <= 6
    first, second, third = (f"{seed['test_sse']:.2f}" for seed in record["seeds"])
    assert f"{first}, {second} and {third}" in README
    text = text.partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")][1:]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [
            run["what"],
            f"{run['validation_sse']:.1f}",
            f"`{run['command'].removeprefix('rnp train mnist ')}`",
        ]
        for run in runs
    ]


def test_the_table_of_strokes_is_its_record():
    record = json.loads((ROOT / "docs" / "recipe.json").read_text(encoding="utf-8"))["strokes"]
    section = RECIPE.partition("## Windows that find the ink")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:4] for line in section.splitlines() if line.startswith("| ")][1:]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [run["what"], f"{run['ari_parts']:.3f}", f"{run['ari_sub_parts']:.3f}"]
        for run in record["runs"]
    ]
    found = records.load("true_strokes")["numbers"]
    assert found["n"] == 2000
    assert found["ari_parts"] > found["ari_parts_kmeans"]
    assert found["ari_sub_parts"] > found["ari_sub_parts_kmeans"]


def test_the_table_of_retrainings_is_its_record():
    record = json.loads((ROOT / "docs" / "recipe.json").read_text(encoding="utf-8"))["transfer"]
    section = RECIPE.partition("## Retraining an encoder")[2].partition("\n## ")[0]
    rows = [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("| ")][1:]
    for row, run in zip(rows, record["runs"], strict=True):
        what, images, sse, call = (cell.strip() for cell in row)
        assert (what, images) == (run["what"], f"{run['images']:,}")
        assert sse == f"{run['validation_sse']:.2f}"
        for name, value in run["settings"].items():
            assert f", {name}={value:g}" in call
    assert f"{record['reference_sse']:.2f} on them" in section
    last, task = record["runs"][-1], transfer.TASKS["7"]
    assert (last["images"], last["settings"]) == (task.images, {"jitter": task.jitter})


@pytest.mark.parametrize("name", transfer.TASKS)
def test_the_controls_of_transfer_are_complete_and_of_the_committed_models(name):
    record, task = records.load(f"transfer_{name}"), transfer.TASKS[name]
    keys = [field.name for field in dataclasses.fields(Trial)]
    trials = {Trial(**{key: t[key] for key in keys}): t for t in record["trials"]}
    assert list(trials) == transfer_controls.plan(task)
    committed = {"rnp": task.base, "reference": task.reference}
    for trial, found in trials.items():
        if trial.seed == 0 and trial.model in committed:
            path = checkpoints.find(committed[trial.model])
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert found["base"] == {"path": f"checkpoints/{path.name}", "sha256": digest}
    encoder = checkpoints.metadata(checkpoints.find(f"encoder-{name}"), checkpoints.ENCODER_FORMAT)
    assert record["inputs"]["recipe"] == encoder["recipe"]
    assert record["inputs"]["budget"] == encoder["budget"] == task.images
    found = trials[Trial("rnp", "encoder")]["new"]["sse"]
    assert encoder["after"]["new"]["sse"] == pytest.approx(found, rel=1e-3)


def test_what_the_page_says_of_transfer():
    """What is drawn is the decoder's doing, and so is what an unseen digit lacks."""
    met = set()
    for name, task in transfer.TASKS.items():
        found = transfer_controls.numbers(records.load(f"transfer_{name}"))
        assert found["rnp_encoder"] < found["rnp_none"] < found["rnp_random"]
        assert max(found["rnp_both"], found["rnp_codes"]) < found["rnp_encoder"]
        if name != "8":
            assert found["rnp_codes_ratio"] <= task.target
        if found["rnp_encoder_ratio"] <= task.target:
            met.add(name)
        if task.reference:
            assert found["rnp_both"] / found["reference_codes"] > found["rnp_encoder_ratio"]
    assert met == {"7", "omniglot"}
