"""The command line: what it does, and the one line it answers a mistake with."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import rnp_lib
from rnp_lib import checkpoints, cli, data
from rnp_lib.analysis import parsing
from rnp_lib.files import ROOT, version
from rnp_lib.model import build
from rnp_lib.repro import readme
from rnp_lib.training import loop


@pytest.fixture
def rnp(monkeypatch, capsys):
    """Run a command in this process: its exit status and what it wrote, as a shell would see it."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rnp", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        out, err = capsys.readouterr()
        code = exit.value.code
        return (1, out, f"{err}{code}\n") if isinstance(code, str) else (code or 0, out, err)

    return run


def failed(outcome, *words):
    """The command failed, and the last line on stderr, the only one of its kind, says why."""
    code, _, err = outcome
    assert code != 0
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith(("rnp: ", "Error: "))]
    assert err.endswith(f"{line}\n")
    for word in words:
        assert word in line
    return line


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """An empty working folder, so that a run that should not start would be seen."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["data", "train", "evaluate", "figures"]),
        (["-h"], ["data", "train", "figures"]),
        (["train", "--help"], ["--set", "--resume", "--out", "--device", "torchrun", "mnist"]),
        (["data", "--help"], ["NAME"]),
        (["figures", "--help"], ["quick", "full", "paper"]),
    ],
)
def test_help(rnp, arguments, words):
    code, out, err = rnp(*arguments)
    assert (code, err) == (0, "")
    for word in words:
        assert word in out


def test_help_is_there_at_once():
    """torch takes seconds to import."""
    code = "import sys; from rnp_lib import cli; sys.argv = ['rnp', '--help']\n"
    code += "try: cli.main()\n"
    code += "finally: assert not {'torch', 'matplotlib', 'numpy'} & {*sys.modules}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "figures" in done.stdout


def test_the_package_has_what_it_names():
    assert {name for name in rnp_lib.__all__ if hasattr(rnp_lib, name)} == {*rnp_lib.__all__}
    assert {*rnp_lib.__all__, "__version__"} <= {*dir(rnp_lib)}
    assert rnp_lib.load is checkpoints.load
    assert rnp_lib.__version__ == version("rnp-lib")
    assert (ROOT / "rnp_lib" / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rnp_lib.nothing


def test_unknown_names_are_refused_with_the_known_ones(rnp, nowhere):
    failed(rnp("train", "mnits"), "mnits", *rnp_lib.PRESETS)
    failed(rnp("data", "mnits"), "mnits", *data.NAMES)
    failed(rnp("trian"), "trian")
    failed(rnp("train", "mnist", "--colour", "red"), "--colour")
    assert not list(nowhere.iterdir())


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("lr", ["'lr'", "key=value"]),
        ("learning_rate=0.1", ["unknown setting learning_rate", "adam_lr"]),
        ("optimiser=sgd", ["optimiser", "'muon' or 'adam'", "sgd"]),
        ("tau=0", ["tau", "equal to 1"]),
        ("extent=(0.5, 1.5)", ["a child must be smaller than its parent"]),
        ("image_size=(28, 32)", ["image_size", "square"]),
        ("batch_size=2.5", ["batch_size", "2.5"]),
        ("images=(0, 0)", ["images"]),
        ("ema=1", ["ema"]),
        ("lr=-1", ["lr", "greater than 0"]),
        ("lr=fast", ["lr", "fast"]),
        ("tau=None", ["tau"]),
    ],
)
def test_a_bad_setting_is_one_line(rnp, nowhere, setting, words):
    failed(rnp("train", "mnist", "--set", setting), *words)
    assert not list(nowhere.iterdir())


def test_a_device_that_is_not_there(rnp, nowhere):
    for device in ("gpu", "xla", "cuda:x" if not torch.cuda.is_available() else "mps"):
        failed(rnp("train", "mnist", "--device", device), repr(device), "cpu")
    assert not list(nowhere.iterdir())


def test_what_cannot_be_written_is_refused_before_the_work(rnp, nowhere, monkeypatch):
    """Of models and data there are none here: they would be missed later."""
    (nowhere / "file").touch()
    (nowhere / "folder").mkdir()
    for option, place, words in (
        (["evaluate", "none", "--json"], "folder", ["folder is a folder"]),
        (["evaluate", "none", "--plot"], "scores.text", [".text", "png"]),
        (["evaluate", "none", "--plot"], "file/plot.png", ["file is a file"]),
        (["bench", "--json"], "file/more/bench.json", ["file is a file"]),
        (["classifier", "mnist", "--out"], "folder", ["folder is a folder"]),
        (["train", "mnist", "--out"], "file", ["file is a file"]),
        (["train", "mnist", "--out"], "file/run", ["file is a file"]),
    ):
        failed(rnp(*option, str(nowhere / place)), *words)
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    failed(rnp("train", "mnist", "--out", str(nowhere / "run")), "cannot be written to")
    assert sorted(path.name for path in nowhere.iterdir()) == ["file", "folder"]


def test_trouble_with_a_disk_is_one_line(rnp, nowhere, monkeypatch):
    tiny.write_pngs(nowhere / "pictures", 40)
    monkeypatch.chdir(nowhere)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device", "runs/mnist/metrics.csv")

    monkeypatch.setattr(loop, "Log", full)
    settings = tiny.arguments(tiny.config(dataset="pictures", images=(16, 16)))
    failed(rnp("train", "mnist", *settings), "runs/mnist/metrics.csv", "No space left on device")


def test_data_that_is_not_there_or_cannot_be_used(rnp, nowhere):
    settings = tiny.arguments(tiny.config(dataset="pictures"))
    failed(rnp("train", "mnist", *settings), "'pictures'", "nor a folder of PNGs")
    (nowhere / "pictures").mkdir()
    failed(rnp("train", "mnist", *settings), "pictures", "no PNG")
    tiny.write_pngs(nowhere / "pictures" / "few", 6)
    failed(rnp("train", "mnist", *settings), "do not fill one batch of 8")
    Image.new("L", (16, 20)).save(nowhere / "pictures" / "oblong.png")
    failed(rnp("train", "mnist", *settings), "oblong.png", "square")
    (nowhere / "pictures" / "oblong.png").write_bytes(b"no picture")
    failed(rnp("train", "mnist", *settings), "oblong.png")
    assert [path.name for path in nowhere.iterdir()] == ["pictures"]


def test_a_run_through_the_command_line(rnp, nowhere, monkeypatch, capsys):
    tiny.write_pngs(nowhere / "pictures", 40)
    settings = tiny.arguments(tiny.config(dataset="pictures", images=(16, 16)))
    monkeypatch.chdir(nowhere)
    code, out, err = rnp("train", "mnist", *settings)
    assert (code, err) == (0, "")
    run = nowhere / "runs" / "mnist"
    assert '"validation_sse"' in out
    assert "test" not in out
    assert "step 4 of 4" in out
    model = rnp_lib.load(run / "model.safetensors")
    assert model.config == tiny.config(dataset="pictures", images=(16, 16))
    before = (run / "state.safetensors").read_bytes()
    failed(rnp("train", "mnist", *settings), "runs/mnist", "--resume", "--out")
    failed(rnp("train", "mnist", *settings, "--set", "seed=1", "--resume"), "seed 0 → 1", "--out")
    (run / "state.safetensors").write_bytes(before[:1000])
    failed(rnp("train", "mnist", *settings, "--resume"), "not a whole safetensors file")


def test_a_folder_is_trained_on_in_its_colours(rnp, nowhere):
    tiny.write_pngs(nowhere / "pictures", 40)
    settings = tiny.arguments(tiny.config(dataset="pictures", images=(16, 16)))

    def channels(out, *more):
        code, said, err = rnp("train", "mnist", *settings, *more, "--out", str(nowhere / out))
        assert (code, err) == (0, "")
        assert ("in colour" in said) == (out == "colour")
        return rnp_lib.load(nowhere / out / "model.safetensors").config.channels

    assert channels("grey") == 1
    pixels = np.full((16, 16, 3), (200, 60, 60), np.uint8)
    pixels[4:9, 6:8] = 0
    Image.fromarray(pixels).save(nowhere / "pictures" / "red.png")
    assert channels("colour") == 3
    assert channels("told", "--set", "channels=1") == 1


def test_a_mistake_in_a_real_process(nowhere):
    done = subprocess.run(
        [sys.executable, "-m", "rnp_lib", "train", "mnist", "--set", "dataset=pictures"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    failed((done.returncode, done.stdout, done.stderr), "'pictures'")
    assert len(done.stderr.splitlines()) == 1


def test_evaluate_scores_a_checkpoint_on_the_test_images(rnp, nowhere):
    folder = tiny.write_pngs(nowhere / "pictures")
    model = rnp_lib.RNP(tiny.config(dataset=str(folder))).eval()
    checkpoints.save("untrained.safetensors", model, {})

    code, out, err = rnp("evaluate", "untrained.safetensors")

    assert (code, err) == (0, "")
    scores = json.loads(out)
    images, _ = data.load(folder, "test", 16)
    expected = parsing.evaluate(checkpoints.load("untrained.safetensors"), images)
    assert scores == {"data": str(folder), **expected}
    failed(rnp("evaluate", "nothing"), "no checkpoint 'nothing'")
    failed(rnp("evaluate"), "name a model to score", "--peers FOLDER")
    failed(rnp("evaluate", "mnist", "--peers", "runs"), "--peers has models and data of its own")
    _, bounds, _ = rnp("evaluate", "untrained.safetensors", "--iwae", "3")
    expected = parsing.evaluate(checkpoints.load("untrained.safetensors"), images, iwae=3)
    assert json.loads(bounds) == {"data": str(folder), **expected}

    code, again, err = rnp(
        "evaluate", "untrained.safetensors", "--json", "out/scores.json", "--plot", "out/parses.png"
    )
    assert (code, err, again) == (0, "", out)
    written = json.loads((nowhere / "out/scores.json").read_text())
    assert written == {"numbers": scores, "model": checkpoints.metadata("untrained.safetensors")}
    with Image.open(nowhere / "out/parses.png") as picture:
        assert min(picture.size) > 200


def test_compare_pairs_two_models_image_by_image(rnp, nowhere):
    folder = tiny.write_pngs(nowhere / "pictures")
    for name, changes in (("one", {"posterior": "tree"}), ("other", {"model": "vae"})):
        torch.manual_seed(0)
        model = build(tiny.config(dataset=str(folder), **changes)).eval()
        checkpoints.save(f"{name}.safetensors", model, {})
    code, out, err = rnp("compare", "one.safetensors", "other.safetensors", "--plot", "both.png")
    assert (code, err) == (0, "")
    images, _ = data.load(folder, "test", 16)
    found = [
        parsing.evaluate(checkpoints.load(f"{n}.safetensors"), images) for n in ("one", "other")
    ]
    head, error, nats = out.splitlines()
    assert head == f"{len(images)} test images of {folder}"
    less = found[0]["sse"] - found[1]["sse"]
    assert f"{found[0]['sse']:.2f}, " in error
    assert f"difference {less:+.3f} ± " in error
    for each in found:
        assert f"{-each['elbo']:.2f}, " in nats
    with Image.open(nowhere / "both.png") as picture:
        assert min(picture.size) > 200
    failed(rnp("compare", "one.safetensors", "one.safetensors"), "two different models")


def test_readme_says_what_differs_and_writes_it_when_told(rnp, tmp_path, monkeypatch):
    page = tmp_path / "README.md"
    page.write_text("n = 9,999<!-- fig3a_mnist:n -->\n")
    monkeypatch.setattr(readme, "pages", lambda: [page])
    failed(rnp("readme"), "rnp readme --write")
    assert page.read_text().startswith("n = 9,999")
    code, out, _ = rnp("readme", "--write")
    assert code == 0
    assert "-n = 9,999<!--" in out
    assert "+n = 10,000<!--" in out
    assert page.read_text() == "n = 10,000<!-- fig3a_mnist:n -->\n"
    assert rnp("readme") == (0, "", "")
