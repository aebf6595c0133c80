"""The workflow: its graph is whole, what is committed stands, and a stopped build goes on."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tiny

from rnp_lib import checkpoints
from rnp_lib.analysis import controls
from rnp_lib.analysis.study import STUDIES
from rnp_lib.analysis.transfer import TASKS
from rnp_lib.files import ROOT, write_json
from rnp_lib.model import build
from rnp_lib.presets import PRESETS
from rnp_lib.repro import built, recipe

pytest.importorskip("snakemake", reason="pip install 'rnp-lib[reproduce]' brings snakemake")


def start(root, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "snakemake", "--snakefile", "workflow/Snakefile"]
    return subprocess.Popen(
        [*command, "--cores", "1", *map(str, arguments)],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def jobs(root, *arguments):
    """Rule -> how many of its jobs a dry run would do."""
    process = start(root, "--dry-run", "--quiet", "rules", *arguments)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", out, re.MULTILINE)}


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The project as a clone has it, all files of one arbitrary age."""
    root = tmp_path_factory.mktemp("clone") / "project"
    git = {"cwd": ROOT, "check": True, "capture_output": True, "text": True}
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git repository, as clones are")
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], **git).stdout
    for name in listed.splitlines():
        if (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    who = ["-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "as it is"]):
        subprocess.run(["git", *words], **git | {"cwd": root})
    return root


def change(path):
    """Other weights of the same model."""
    tensors, about = checkpoints.read(path, checkpoints.FORMAT)
    tensors[next(iter(tensors))] += 1
    checkpoints.write(path, checkpoints.FORMAT, tensors, about)


def test_nothing_is_to_be_done_in_a_clone_and_all_could_be(clone):
    assert jobs(clone) == {}
    whole = jobs(clone, "--forceall")
    assert whole["trial"] == sum(len(controls.plan(task)) for task in TASKS.values())
    models = len(list((clone / "checkpoints").glob("*.csv")))
    assert whole["checkpoint"] == whole["map"] == models
    assert whole["train"] > models + 15
    made = {"pages", "recipe", "performance", "paper_mnist", "data", *STUDIES}
    assert made <= whole.keys()  # what could not be made is taken as it lies, and not among them


def test_what_a_changed_input_went_into_is_stale_and_nothing_else(clone, request):
    path = clone / "checkpoints" / "mnist-no8.safetensors"
    before = path.read_bytes()
    request.addfinalizer(lambda: path.write_bytes(before))
    change(path)
    stale = jobs(clone)
    task = TASKS["8"]
    start_from_it = [t for t in controls.plan(task) if t.start(task) == task.base]
    assert stale.pop("trial") == len(start_from_it) > 0
    assert stale.pop("total") == len(start_from_it) + 6
    one_each = ("encoder", "map", "transfer", "notebook_05_transfer", "pages", "all")
    assert stale == dict.fromkeys(one_each, 1)


def test_a_checkpoint_of_another_recipe_is_trained_anew(clone):
    stale = jobs(clone, "--config", "settings=sigma2=0.2", "--", "checkpoints/fashion.safetensors")
    assert {name: stale[name] for name in ("train", "checkpoint")} == {"train": 1, "checkpoint": 1}


def test_a_tiny_build_is_stopped_half_way_and_goes_on(tmp_path):
    tiny.write_pngs(tmp_path / "pictures")
    preset = PRESETS["paper-mnist"].to_dict()
    settings = tiny.SETTINGS | {"dataset": "pictures", "images": (2_000,), "encoder": "light"}
    options = " ".join(
        f"{key}={value}".replace(" ", "") for key, value in settings.items() if preset[key] != value
    )
    run = tmp_path / "runs" / "train" / "paper-mnist,images=440000"
    arguments = ["--directory", tmp_path, "--config", "runs=runs", f"settings={options}", "--"]
    arguments.append("figures/paper_mnist.json")

    def rows():
        if not (run / "metrics.csv").is_file():
            return []
        with open(run / "metrics.csv", newline="") as file:
            return list(csv.DictReader(file))

    process = start(ROOT, *arguments)
    until = time.monotonic() + 120
    while not rows() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert rows(), out
    assert process.returncode != 0, out
    assert not (run / "model.safetensors").exists()
    kept = rows()

    process = start(ROOT, *arguments)
    out, _ = process.communicate(timeout=240)
    assert process.returncode == 0, out
    assert rows()[: len(kept)] == kept, "the run began anew"
    assert int(rows()[-1]["step"]) == 250
    record = json.loads((tmp_path / "figures" / "paper_mnist.json").read_text())
    assert record["numbers"]["n"] == 12
    assert record["model"]["config"]["images"] == [2_000]
    assert (tmp_path / "figures" / "paper_mnist.csv").is_file()


# ---- what counts as built ------------------------------------------------------------------------


def age(path, seconds):
    os.utime(path, (seconds, seconds))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A base model, a record of a trial that started from it, both of unlike ages."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.safetensors").write_bytes(b"weights")
    digest = built.sha256("base.safetensors")
    trials = [
        {"seed": seed, "base": {"path": f"{name}.safetensors", "sha256": digest}}
        for seed, name in enumerate(("base", "not_here"))
    ]
    (tmp_path / "record.json").write_text(json.dumps({"task": "7", "trials": trials}))
    age("record.json", 1_000)
    age("base.safetensors", 2_000)
    return tmp_path


def settle(fresh=True, outdated=()):
    trials = {f"runs/{seed}.json": {"seed": seed} for seed in range(2)}
    built.settle(["record.json"], {"record.json": trials}, lambda record: fresh, outdated)


def mtimes(folder):
    names = ("base.safetensors", "runs/0.json", "runs/1.json", "record.json")
    return [(folder / name).stat().st_mtime for name in names]


def test_trials_of_a_record_count_as_run(folder):
    settle()
    base, first, second, record = mtimes(folder)
    assert base <= first <= record
    assert second <= record
    found = json.loads((folder / "runs" / "0.json").read_text())
    assert found["task"] == "7"
    assert [trial["seed"] for trial in found["trials"]] == [0]


def test_trials_from_another_base_or_with_other_settings_do_not(folder):
    (folder / "base.safetensors").write_bytes(b"other weights")
    settle()
    base, first, _, record = mtimes(folder)
    assert first == record == built.STALE < base
    # Run anew, the trial stands, though the record holds another.
    trial = {
        "seed": 0,
        "base": {"path": "base.safetensors", "sha256": built.sha256("base.safetensors")},
    }
    (folder / "runs" / "0.json").write_text(json.dumps({"task": "7", "trials": [trial]}))
    settle()
    _, first, _, record = mtimes(folder)
    assert record == built.STALE < first
    settle(fresh=False)
    _, first, second, _ = mtimes(folder)
    assert first == second == built.STALE


def test_a_planned_trial_that_nobody_ran_makes_its_record_stale(folder):
    built.settle(["record.json"], {"record.json": {"runs/2.json": {"seed": 2}}}, lambda _: True)
    assert (folder / "record.json").stat().st_mtime == built.STALE


def test_what_files_say_they_were_made_of():
    base = f"{checkpoints.DIRECTORY}/mnist-no7.safetensors"
    encoder = built.inputs(checkpoints.find("encoder-7"))
    assert encoder == {base: built.sha256(base)}
    made = built.inputs(checkpoints.find("map-mnist-no7"))
    assert made == encoder
    assert built.inputs(checkpoints.find("mnist-no7")) == {}
    assert "checkpoints/mnist.safetensors" in built.inputs(ROOT / "figures" / "fig3a_mnist.json")


@pytest.mark.parametrize("name", ["mnist", "mnist-root"])
def test_a_model_is_known_by_its_recipe(name):
    config = PRESETS[name]
    assert built.trained_by(checkpoints.find(name), config)
    assert not built.trained_by(checkpoints.find(name), config.override(["z_dim=16"]))


# ---- the recipe's table --------------------------------------------------------------------------


def test_the_name_of_a_run_is_its_recipe():
    for row in recipe.rows(json.loads(recipe.PATH.read_text())):
        verb, _, name = recipe.folder(row).partition("/")
        again = f"rnp {verb} {recipe.command(name)}"
        assert recipe.folder({"command": again}) == recipe.folder(row)
    row = {"command": 'rnp train mnist --set "images=(40_000,80_000)" --set seed=0'}
    assert recipe.folder(row) == "train/mnist,images=(40_000,80_000)"


def test_rows_are_filled_in_from_their_runs_and_others_stay(tmp_path):
    config = tiny.config()
    path = tmp_path / "train" / "mnist,lr=0.01" / "model.safetensors"
    about = {"validation_sse": 5.5, "run": {"git": {"commit": "new"}}}
    checkpoints.save(path, build(config), about)
    rows = [
        {"command": f"rnp train mnist --set lr={lr}", "validation_sse": 7.0, "code": "old"}
        for lr in ("0.01", "0.1")
    ]
    none = {"runs": [{}]}
    model = {"command": "rnp train mnist --set lr=0.01", "validation_sse": None, "test": {}}
    write_json(path.with_name("scores.json"), {"numbers": {"sse": 4.5}})
    record = {"runs": rows, "models": [model], "seeds": []}
    record |= {"tree": none, "strokes": none, "transfer": none}
    recipe.collect(record, tmp_path)
    assert (model["validation_sse"], model["test"]) == (5.5, {"sse": 4.5})
    found, other = record["runs"]
    assert (found["validation_sse"], found["code"]) == (5.5, "new")
    assert found["sha256"] == built.sha256(path)
    assert (other["validation_sse"], other["code"]) == (7.0, "old")
