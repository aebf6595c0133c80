"""Figure records: what is written, where, and what is refused."""

import hashlib
import json
import random
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from matplotlib.figure import Figure

from rnp_lib import checkpoints, files
from rnp_lib.model.rnp import RNP
from rnp_lib.repro import records

WEIGHTS_SHA256 = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"  # of b"weights"
PARAMETERS = {"digits": [3, 1, 4], "checkpoint": "mnist"}


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("RNP_FIGURES", str(tmp_path))
    return tmp_path


@pytest.fixture
def figure():
    figure = Figure(figsize=(2, 1.5))
    figure.subplots().plot([0, 1], [1, 0])
    return figure


def start(mode="full", **changes):
    return records.start(
        "01_parsing", **{"mode": mode, "seed": 7, "parameters": PARAMETERS} | changes
    )


def fake_data(monkeypatch, missing=()):
    """A data module whose sets are all three blank images; `strokes` stands for those missing."""
    images, labels = torch.zeros(3, 1, 28, 28), torch.zeros(3, dtype=torch.int64)
    fake = SimpleNamespace(
        load_or_stand_in=lambda name, split, size: (
            images,
            labels,
            "strokes" if name in missing else name,
        ),
        digest=lambda images, labels: "0123",
    )
    monkeypatch.setattr(records, "datasets", fake)
    return images


def stamp_of(run, figure, name="fig"):
    """The text that `save` puts on the picture, caught while it is there."""
    seen = []
    draw = figure.savefig

    def savefig(*args, **options):
        seen.append([text.get_text() for text in figure.texts])
        draw(*args, **options)

    figure.savefig = savefig
    run.save(figure, name, numbers={})
    assert seen[0] == seen[1], "the PNG and the PDF carry the same stamp"
    return seen[0]


@pytest.mark.parametrize(
    ("given", "environment", "expected"),
    [
        ("auto", None, "quick"),
        ("auto", "full", "full"),
        ("auto", "paper", "paper"),
        ("full", "quick", "full"),
    ],
)
def test_mode_is_the_given_one_or_else_the_environments(monkeypatch, given, environment, expected):
    if environment:
        monkeypatch.setenv("RNP_MODE", environment)
    run = start(given)
    assert run.mode == expected
    assert run.quick == (expected == "quick")
    assert run.pick(quick=1, full=2) == (1 if run.quick else 2)


@pytest.mark.parametrize("where", ["argument", "environment"])
def test_an_unknown_mode_is_refused(monkeypatch, where):
    monkeypatch.setenv("RNP_MODE", "fast")
    with pytest.raises(ValueError, match=r"auto, quick, full or paper, not 'fast'"):
        start("fast" if where == "argument" else "auto")


@pytest.mark.parametrize(
    ("name", "value"), [("shown", 0), ("shown", 41), ("shown", 2.0), ("shown", True), ("seed", -1)]
)
def test_a_number_out_of_its_limits_is_refused(name, value):
    assert start(parameters={"shown": 40}, limits={"shown": (1, 40)})
    changed = {"seed": value} if name == "seed" else {"parameters": {"shown": value}}
    with pytest.raises(ValueError, match=rf"{name} must be a whole number from \d+ to \d+: got"):
        start(limits={} if name == "seed" else {"shown": (1, 40)}, **changed)


def test_a_run_leaves_the_global_generators_alone():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    start()
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()  # noqa: NPY002
    assert after == before


def test_the_device_can_be_chosen(monkeypatch):
    monkeypatch.setenv("RNP_DEVICE", "meta")
    assert start().device == torch.device("meta")


def test_a_full_run_writes_picture_print_and_record(root, figure, tmp_path, monkeypatch):
    images = fake_data(monkeypatch)
    checkpoint = tmp_path / "some.safetensors"
    checkpoint.write_bytes(b"weights")
    run = start()
    assert run.data("mnist", split="test")[0] is images
    assert run.file(checkpoint) == checkpoint
    numbers = {"sse": np.float32(6.5), "kl": torch.tensor(40.25), "images": 10_000, "note": "test"}
    png = run.save(figure, "fig3a_mnist", numbers=numbers)

    assert png == root / "fig3a_mnist.png"
    assert png.read_bytes().startswith(b"\x89PNG")
    assert (root / "fig3a_mnist.pdf").read_bytes().startswith(b"%PDF")
    assert sorted(path.suffix for path in root.glob("*fig3a*")) == [".json", ".pdf", ".png"]
    record = json.loads((root / "fig3a_mnist.json").read_text())
    assert record["numbers"] == {"sse": 6.5, "kl": 40.25, "images": 10_000, "note": "test"}
    assert record["data"] == {"mnist/test": "0123"}
    assert record["stand_ins"] == {}
    # a file outside the project goes by its name alone
    assert record["checkpoints"] == {"some.safetensors": WEIGHTS_SHA256}
    assert record["notebook"] == "notebooks/01_parsing.ipynb"
    assert record["command"] == "rnp figures 01_parsing --mode full"
    assert (record["mode"], record["seed"], record["parameters"]) == ("full", 7, PARAMETERS)
    assert record["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert record["packages"]["python"] == sys.version.split()[0]
    assert record["wall_time_s"] >= 0
    assert set(record["git"]) == {"commit", "dirty"}
    assert record["device"].startswith(run.device.type)


@pytest.mark.parametrize(
    ("mode", "folder"), [("quick", "quick"), ("full", "."), ("paper", "paper")]
)
def test_each_mode_has_its_folder(root, figure, mode, folder):
    assert start(mode).save(figure, "fig", numbers={}).parent == root / folder


def test_a_quick_run_is_stamped_and_the_figure_is_left_as_it_was(root, figure):
    assert stamp_of(start("quick"), figure) == ["quick"]
    assert figure.texts == []
    assert (root / "quick" / "fig.json").is_file()


@pytest.mark.parametrize("mode", ["full", "paper"])
def test_a_run_on_stand_in_data_overwrites_nothing_and_says_so(root, figure, monkeypatch, mode):
    fake_data(monkeypatch, missing=["omniglot"])
    run = start(mode)
    run.data("omniglot", split="test")
    assert run.stand_ins == {"omniglot": "strokes"}
    assert stamp_of(run, figure) == ["stand-in: strokes instead of omniglot"]
    assert [path.name for path in root.iterdir()] == ["quick"]
    record = json.loads((root / "quick" / "fig.json").read_text())
    assert record["stand_ins"] == {"omniglot": "strokes"}
    assert record["data"] == {"strokes/test": "0123"}


def test_a_figure_that_does_not_use_the_missing_set_is_a_full_figure(root, figure, monkeypatch):
    fake_data(monkeypatch, missing=["omniglot"])
    run = start()
    for name in ("mnist", "omniglot"):
        run.data(name, "test")
        run.model(name)
        png = run.save(figure, name, numbers={}, uses=[name, f"{name}/test"])
        found = json.loads(png.with_suffix(".json").read_text())
        assert list(found["checkpoints"]) == [f"checkpoints/{name}.safetensors"]
        used, folder = ("strokes", root / "quick") if name == "omniglot" else (name, root)
        assert found["data"] == {f"{used}/test": "0123"}
        assert found["stand_ins"] == ({"omniglot": "strokes"} if name == "omniglot" else {})
        assert png.parent == folder
    assert run.save(figure, "both", numbers={}).parent == root / "quick"


def test_a_use_of_what_was_not_loaded_is_refused(root, figure, monkeypatch):
    fake_data(monkeypatch)
    run = start()
    run.data("mnist", "test")
    with pytest.raises(ValueError, match=r"cannot use 'mnist/train'.*loaded \['mnist/test'\]"):
        run.save(figure, "fig", numbers={}, uses=["mnist/train"])
    assert list(root.iterdir()) == []


def test_a_file_goes_by_its_name_in_checkpoints_or_its_path_in_the_project(root, figure):
    run = start()
    assert run.file("classifier-mnist") == checkpoints.find("classifier-mnist")
    assert run.file("figures/paper_mnist.csv") == files.ROOT / "figures" / "paper_mnist.csv"
    png = run.save(figure, "fig", numbers={}, uses=["figures/paper_mnist.csv"])
    found = json.loads(png.with_suffix(".json").read_text())
    assert list(found["checkpoints"]) == ["figures/paper_mnist.csv"]


def test_a_full_run_has_no_stamp(root, figure):
    assert stamp_of(start(), figure) == []


def test_the_same_figure_is_the_same_bytes(root, figure):
    run = start()
    for name in ("one", "two"):
        run.save(figure, name, numbers={})
    for suffix in ("png", "pdf"):
        assert (root / f"one.{suffix}").read_bytes() == (root / f"two.{suffix}").read_bytes()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(float("nan"))])
def test_a_number_that_is_not_finite_is_refused(root, figure, value):
    with pytest.raises(ValueError, match="'sse' is (nan|inf)"):
        start().save(figure, "fig", numbers={"sse": value})
    assert list(root.iterdir()) == []


@pytest.mark.parametrize("value", [None, [1.0], torch.zeros(2)])
def test_a_number_that_is_no_number_is_refused(root, figure, value):
    with pytest.raises(TypeError, match="'sse' must be a float"):
        start().save(figure, "fig", numbers={"sse": value})
    assert list(root.iterdir()) == []


def test_a_name_with_a_folder_is_refused(root, figure):
    with pytest.raises(ValueError, match="letters"):
        start().save(figure, "../fig", numbers={})


def test_a_failure_while_drawing_leaves_the_old_figure_whole(root, figure, monkeypatch):
    run = start()
    run.save(figure, "fig", numbers={"sse": 1.0})
    before = {path.name: path.read_bytes() for path in root.iterdir()}
    draw = figure.savefig

    def fail_on_pdf(path, **options):
        if path.suffix == ".pdf":
            raise OSError("disk full")
        draw(path, **options)

    monkeypatch.setattr(figure, "savefig", fail_on_pdf)
    with pytest.raises(OSError, match="disk full"):
        run.save(figure, "fig", numbers={"sse": 2.0})
    assert {path.name: path.read_bytes() for path in root.iterdir()} == before


def test_without_git_the_record_says_none(root, figure, monkeypatch):
    monkeypatch.setattr(files, "ROOT", root)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(root.parent))
    start().save(figure, "fig", numbers={})
    record = json.loads((root / "fig.json").read_text())
    assert record["git"] == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("path", "dirty"),
    [
        ("rnp_lib/new.py", True),
        ("rnp_lib/old.py", True),
        ("pyproject.toml", True),
        ("requirements.lock", True),
        ("workflow/Snakefile", True),
        ("README.md", False),
        ("docs/recipe.json", False),
        ("figures/fig.json", False),
        ("notebooks/01.ipynb", False),
        ("tests/test.py", False),
    ],
)
def test_only_code_makes_a_working_tree_dirty(tmp_path, monkeypatch, path, dirty):
    (tmp_path / "rnp_lib").mkdir()
    (tmp_path / "rnp_lib" / "old.py").touch()
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", tmp_path, *command], check=True)
    monkeypatch.setattr(files, "ROOT", tmp_path)
    assert files.git_state()["dirty"] is False
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text("changed")
    assert files.git_state()["dirty"] is dirty


def test_the_committed_record_is_loaded_wherever_figures_are_written(root):
    assert records.read("fig3a_mnist")["figure"] == "fig3a_mnist"
    assert not list(root.iterdir())


def test_loading_a_record_that_is_not_there_says_how_to_make_it():
    with pytest.raises(FileNotFoundError, match="rnp figures --mode full"):
        records.read("fig9_nothing")


def test_a_run_takes_the_committed_model_and_notes_its_hash(root, figure):
    run = start()
    model = run.model("mnist")
    assert not model.training
    record = json.loads(run.save(figure, "fig", numbers={}).with_suffix(".json").read_text())
    digest = hashlib.sha256(checkpoints.find("mnist").read_bytes()).hexdigest()
    assert record["checkpoints"] == {"checkpoints/mnist.safetensors": digest}


def test_in_paper_mode_the_model_is_the_one_trained_by_the_papers_recipe(
    root, tmp_path, monkeypatch
):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    run = start(mode="paper")
    with pytest.raises(FileNotFoundError, match=r"rnp figures 01_parsing --mode paper"):
        run.model("mnist")
    path = tmp_path / "runs" / "paper-mnist" / "model.safetensors"
    model = RNP(tiny.config()).eval()
    checkpoints.save(path, model, {})
    assert run.model("mnist").config == model.config
    assert run.model("scenes").config.depth == 3  # the paper has none: the committed one
    assert list(run._files) == ["mnist", "scenes"]
    assert run._files["mnist"][1] == files.sha256(path)


def test_nothing_of_training_is_imported():
    code = "import sys, rnp_lib.repro.records, rnp_lib.repro.notebooks, rnp_lib.repro.readme\n"
    code += "print([name for name in sys.modules if name.startswith('rnp_lib.training')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
