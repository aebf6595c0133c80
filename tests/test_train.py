"""Training: what a run leaves behind, going on after any end, many processes, and its parts."""

import contextlib
import csv
import dataclasses
import functools
import gc
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
import torch.distributed as dist
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rnp_lib import checkpoints, cli, data
from rnp_lib.checkpoints import CheckpointError
from rnp_lib.config import Config
from rnp_lib.data import splits
from rnp_lib.model.encoder import MatrixConv2d
from rnp_lib.training import loop, memory
from rnp_lib.training import step as step_module
from rnp_lib.training import trainer as trainer_module
from rnp_lib.training.batches import JITTER, jitter
from rnp_lib.training.loop import Trainer, TrainingStopped
from rnp_lib.training.muon import Muon

CPU = torch.device("cpu")
EVERY = {"log_every": 10, "save_every": 0, "validate_every": 50}
LONG = (320, 320)  # 40 steps at each depth: long enough to be interrupted half way
RECIPES = [("adam", 6e-3), ("muon", 2e-2)]
SHORT = (120, 120)  # 15 steps at each depth
TREE = {"posterior": "tree", "reader_units": 16}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.write_pngs(tmp_path_factory.mktemp("data") / "pictures")


@pytest.fixture(scope="module")
def config(folder):
    return functools.partial(tiny.config, dataset=str(folder), images=SHORT)


@pytest.fixture(scope="module")
def images(folder):
    return data.load(str(folder), "train", 16)[0]


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    """Folder of a run of a configuration from beginning to end, trained once."""

    @functools.cache
    def run(configuration):
        out = tmp_path_factory.mktemp("finished") / "run"
        train(configuration, out, **EVERY)
        return out

    return run


@pytest.fixture
def trainer(config, images, tmp_path):
    return lambda **changes: Trainer(config(**changes), *halves(images), tmp_path, CPU)


def halves(images):
    """Images to train on, and 10 to validate on."""
    return images[:-10], images[-10:]


def train(*arguments, log_every=50, validate_every=1000, **options):
    """`loop.train` with so many steps between rows and validations."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "LOG_EVERY", log_every)
        patch.setattr(loop, "VALIDATE_EVERY", validate_every)
        return loop.train(*arguments, **options)


def rows(out):
    with open(out / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def steps(out):
    return [int(row["step"]) for row in rows(out)]


def timeless(out):
    """The log but for its clock."""
    return [row | {"minutes": ""} for row in rows(out)]


def described(out):
    return json.loads((out / "run.json").read_text())


def state(out):
    return checkpoints.read(out / "state.safetensors", trainer_module.STATE_FORMAT)


def assert_same_tensors(one, other):
    one, other = load_file(one), load_file(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert torch.equal(value, other[name]), name


def assert_same_run(one, other):
    """Bit for bit: the published weights, and all there is to a state but the clock."""
    assert_same_tensors(one / "model.safetensors", other / "model.safetensors")
    assert_same_tensors(one / "state.safetensors", other / "state.safetensors")
    assert state(one)[1]["step"] == state(other)[1]["step"]


def assert_sound(out, step):
    """The state was written after `step` steps and holds finite numbers only."""
    tensors, about = state(out)
    assert about["step"] == step
    assert all(value.isfinite().all() for value in tensors.values())
    assert not list(out.glob(".*")), "temporary files"


@contextlib.contextmanager
def float64():
    """New tensors are float64, so that only a mistake can make a difference, and not rounding."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def one_sentence(error):
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def wait_until(condition, process, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "the process did not get there in time"
        time.sleep(0.01)


def last_step(out):
    """The last step in metrics.csv while another process writes it."""
    path = out / "metrics.csv"
    lines = path.read_text().splitlines()[1:] if path.exists() else []
    return int(lines[-1].split(",")[0]) if lines else 0


def start(*command, **options):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **options,
    )


def torchrun(*command, **options):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1")
    return start(*launcher, "--nproc_per_node", 2, *command, start_new_session=True, **options)


def end_group(process):
    """Whatever a failed test left of a process and its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate(timeout=60)


# ---- a run ---------------------------------------------------------------------------------------


def test_tensorboard_shows_what_the_log_says(config, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(config(images=(80, 80)), tmp_path / "run", log_every=4, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    for name in ("lr", "sse", "validation_sse"):
        written = {int(r["step"]): float(r[name]) for r in rows(tmp_path / "run") if r[name]}
        shown = {event.step: event.value for event in events.Scalars(name)}
        assert shown == pytest.approx(written)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ValueError, match="pip install tensorboard"):
        train(config(), tmp_path / "other", tensorboard=True)


def test_a_run_leaves_a_model_a_state_and_a_log(config, finished, trainer):
    out, scheduled = finished(config(images=LONG, optimiser="adam", lr=6e-3)), trainer(images=LONG)
    assert {path.name for path in out.iterdir()} == {
        "model.safetensors",
        "state.safetensors",
        "metrics.csv",
        "run.json",
    }
    assert_sound(out, 80)
    log = rows(out)
    assert (out / "metrics.csv").read_text().splitlines()[0] == (
        "step,images,depth,minutes,lr,loss,sse,kl,part,gradient_norm,validation_sse"
    )
    assert steps(out) == list(range(10, 81, 10))
    assert [int(row["images"]) for row in log] == [8 * step for step in steps(out)]
    assert [int(row["depth"]) for row in log] == [1] * 4 + [2] * 4
    assert [step for step, row in zip(steps(out), log, strict=True) if row["validation_sse"]] == [
        *(40, 50, 80)  # every 50, and the end of each stage
    ]
    minutes = [float(row["minutes"]) for row in log]
    assert minutes == sorted(minutes)
    for row in log:
        c, step = config(images=LONG), int(row["step"])
        assert float(row["lr"]) == pytest.approx(6e-3 * scheduled.rate(step - 1))
        squared = float(row["sse"]) + c.part_weight * float(row["part"])
        loss = squared / (2 * c.sigma2) + float(row["kl"])
        assert float(row["loss"]) == pytest.approx(loss, rel=1e-4)
        assert float(row["gradient_norm"]) > 0
        assert (float(row["part"]) > 0) == (row["depth"] == "2")


@pytest.mark.parametrize(("optimiser", "lr"), RECIPES)
def test_the_error_goes_down(config, images, finished, optimiser, lr):
    out = finished(config(images=LONG, optimiser=optimiser, lr=lr))
    sse = [float(row["sse"]) for row in rows(out)]
    blank = images.square().flatten(1).sum(1).mean()
    assert sse[3] < 0.85 * sse[0], "the parts alone"
    assert sse[7] < 0.92 * sse[4], "the whole tree"
    assert sse[7] < 0.7 * blank


def test_random_programs_learn_as_well(trainer):
    t = trainer(images=LONG, lr=2e-2, prior_z="both", symbols=8, drop=0.2, **TREE)
    before = {name: value.clone() for name, value in t.model.state_dict().items()}
    values = torch.stack([t.train_step() for _ in range(t.total)])
    assert values.isfinite().all()
    sse, kl = values[:, 1], values[:, 2]
    assert sse[30:40].mean() < 0.85 * sse[:10].mean(), "the parts alone"
    assert sse[-10:].mean() < 0.9 * sse[40:50].mean(), "the whole tree"
    assert (kl > 0).all()
    changed = {n for n, v in t.model.state_dict().items() if not torch.equal(v, before[n])}
    assert changed == {name for name, _ in t.model.named_parameters()}


def test_the_model_carries_its_history(config, folder, images, finished):
    c = config(images=LONG, optimiser="adam", lr=6e-3)
    out = finished(c)
    about = checkpoints.metadata(out / "model.safetensors")
    assert checkpoints.load(out / "model.safetensors").config == c
    assert about["validation_sse"] == pytest.approx(float(rows(out)[-1]["validation_sse"]))
    assert about["minutes"] >= 0
    run = described(out)
    assert about["run"] | {"config": about["config"]} == run
    assert Config.from_dict(run["config"]) == c
    assert run["data_sha256"] == data.digest(*data.load(str(folder), "train", 16))
    assert run["validation_images"] == 10
    assert run["validation"] == splits.validation(c.dataset, images, torch.zeros(108)).what
    assert run["precision"] in ("float32", "bfloat16")
    assert run["device"].startswith("cpu (")
    assert run["processes"] == 1
    assert run["packages"]["torch"]
    assert {"commit", "dirty"} == run["git"].keys()
    averaged = {name[15:]: value for name, value in state(out)[0].items() if "module" in name}
    for name, value in load_file(out / "model.safetensors").items():
        assert torch.equal(value, averaged[name].half()), name


def test_training_does_not_look_at_test_images(config, tmp_path, monkeypatch):
    load = data.load

    def guarded(name, split="train", *form):
        assert split == "train"
        return load(name, split, *form)

    monkeypatch.setattr(data, "load", guarded)
    about = checkpoints.metadata(train(config(images=(16,)), tmp_path))
    assert not [name for name in about if "test" in name]


def test_a_run_says_how_it_was_started_before_its_first_step(config, tmp_path, monkeypatch):
    def first_step(self):
        assert described(tmp_path)["config"]["lr"] == 0.25
        raise ZeroDivisionError

    monkeypatch.setattr(Trainer, "train_step", first_step)
    with pytest.raises(ZeroDivisionError):
        train(config(lr=0.25), tmp_path)


def test_the_data_room_says_which_images_validate(config, images, tmp_path, monkeypatch):
    odd = torch.arange(108) % 2 == 1
    seen = []

    def every_other(name, given, labels):
        seen.append((name, given, len(labels)))
        index = torch.arange(len(given))
        return splits.Split(index[odd], index[~odd], "every other image")

    class Watched(Trainer):
        def __init__(self, config, images, validation, out, device):
            seen.append((images, validation))
            super().__init__(config, images, validation, out, device)

    monkeypatch.setattr(splits, "validation", every_other)
    monkeypatch.setattr("rnp_lib.training.loop.Trainer", Watched)
    c = config(images=(16,))
    path = train(c, tmp_path)
    (name, given, count), (learned, held_out) = seen
    assert (name, count) == (c.dataset, 108)
    assert torch.equal(given, images)
    assert torch.equal(learned, images[odd])
    assert torch.equal(held_out, images[~odd])
    assert described(tmp_path)["validation"] == "every other image"
    assert checkpoints.metadata(path)["run"]["validation"] == "every other image"


def test_a_class_left_out_is_nowhere_in_a_run(tmp_path):
    """Neither in training nor in validation: its images alone hold ink of this brightness."""
    folder = tiny.write_pngs(tmp_path / "pictures" / "a", count=60).parent
    tiny.write_pngs(folder / "b", count=60)
    for path in (folder / "b").iterdir():
        pixels = np.array(Image.open(path))
        Image.fromarray(pixels // 255 * 200).save(path)  # less bright than those of a
    c = tiny.config(dataset=str(folder), images=(16,), without=1)
    out = tmp_path / "run"
    seen = []

    class Watched(Trainer):
        def __init__(self, config, images, validation, out, device):
            seen.extend((images, validation))
            super().__init__(config, images, validation, out, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rnp_lib.training.loop.Trainer", Watched)
        train(c, out)
    images, labels = data.load(str(folder), "train", 16)
    seen = torch.cat(seen)
    assert len(seen) == (labels == 0).sum() < len(images)
    assert (seen.amax((1, 2, 3)) == 1).all()
    assert described(out)["data_sha256"] == data.digest(images[labels == 0], labels[labels == 0])
    with pytest.raises(ValueError, match="no image has that label"):
        train(dataclasses.replace(c, without=(0, 5)), tmp_path / "other")
    with pytest.raises(ValueError, match="leave out fewer"):
        train(dataclasses.replace(c, without=(0, 1)), tmp_path / "other")


def test_dabs_are_gone_when_training_ends_and_validation_sees_them(config, images, tmp_path):
    trainer = Trainer(config(images=(160,), dabs=40), *halves(images), tmp_path, CPU)
    shares = []
    for _ in range(trainer.total):
        trainer.train_step()
        shares.append(float(trainer.model.hypernet.dab_share))
        assert trainer.average.module.hypernet.dab_share == shares[-1]
    assert shares == pytest.approx([1] * 6 + [0.8, 0.6, 0.4, 0.2] + [0] * 10)


def test_jitter_is_an_affine_map_of_each_image_for_itself():
    x = torch.zeros(200, 1, 15, 15)
    x[:, :, 6:9, 6:9] = 1
    seeded = torch.Generator().manual_seed
    moved = jitter(x, 0.2, seeded(1))
    assert torch.equal(moved, jitter(x, 0.2, seeded(1)))
    assert not torch.equal(moved, jitter(x, 0.2, seeded(2)))
    assert not torch.equal(moved[0], moved[1])
    assert moved.min() >= 0
    assert moved.max() <= 1
    torch.testing.assert_close(jitter(x, 0.0, seeded(1)), x, rtol=0, atol=1e-5)
    # The square's centre moves by the map's shift alone: 0.2 half sides of 7.5 pixels at most.
    pixels = torch.arange(15.0) - 7
    mass = moved.sum((1, 2, 3))
    centres = torch.stack([(moved.sum((1, d)) @ pixels) / mass for d in (3, 2)])
    assert 1.2 < centres.abs().max() < 1.5 / 0.8 + 0.1
    assert centres.mean().abs() < 0.2
    areas = mass / 9
    assert 0.5 < areas.min() < 0.85
    assert 1.2 < areas.max() < 1.7


def test_batches_are_jittered_alike_by_one_process_and_by_two(config, images, tmp_path):
    plain, shaken = (Trainer(config(jitter=j), *halves(images), tmp_path, CPU) for j in (0.0, 0.1))
    (x, *rest), (y, *rest_of_shaken) = plain.batches(3), shaken.batches(3)
    assert all(map(torch.equal, rest, rest_of_shaken))
    assert not torch.equal(x, y)
    assert torch.equal(y, jitter(x, 0.1, shaken.batches.generator(JITTER, 3)))
    second = Trainer(config(jitter=0.1), *halves(images), tmp_path, CPU)
    second.batches.rank, second.batches.world = 1, 2
    assert torch.equal(second.batches(3)[0], y[len(y) // 2 :])


def test_an_existing_run_is_not_overwritten(config, finished):
    c = config(images=LONG, optimiser="adam", lr=6e-3)
    out = finished(c)
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(FileExistsError) as caught:
        train(c, out)
    assert "--resume" in one_sentence(caught.value)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_too_few_images_are_refused(config, images, tmp_path):
    with pytest.raises(ValueError, match="do not fill one batch of 8") as caught:
        Trainer(config(), images[:7], images, tmp_path, CPU)
    one_sentence(caught.value)


def test_a_batch_beyond_the_memory_is_refused_before_the_first_step(trainer, monkeypatch):
    t = trainer()
    an_image = memory.held_by_an_image(t)
    assert an_image > 4 * 16 * 16 * 10  # ten of its canvases at the least
    for free, enough in ((7 * an_image, False), (20 * an_image, True)):
        monkeypatch.setattr(
            memory.psutil, "virtual_memory", lambda f=free: SimpleNamespace(available=f)
        )
        if enough:
            memory.check(t)
            continue
        with pytest.raises(ValueError, match="batch_size 8 and 0.0 GB are free") as caught:
            memory.check(t)
        one_sentence(caught.value)


def test_the_first_line_says_what_is_trained_on_what(config, images, tmp_path, capsys):
    train(config(), tmp_path / "run", **EVERY)
    first, *_ = capsys.readouterr().out.splitlines()
    n = len(images) - len(images) // 10
    ink = images[splits.validation("pictures", images, torch.zeros(len(images))).train].mean()
    assert first.startswith(f"{n:,} images of mean ink {ink:.3f}, {len(images) // 10} to validate")
    assert first.endswith("; cpu, float32; steps 0 to 30 of 8 images") or "bfloat16" in first


def test_the_same_seed_gives_the_same_weights(config, finished, tmp_path):
    c = config(optimiser="muon")
    torch.rand(100)  # whatever a notebook drew before
    train(c, tmp_path / "again", log_every=7)
    assert_same_run(tmp_path / "again", finished(c))
    train(config(optimiser="muon", seed=1), tmp_path / "other")
    one, other = (load_file(out / "model.safetensors") for out in (finished(c), tmp_path / "other"))
    different = [name for name, value in one.items() if not torch.equal(value, other[name])]
    assert set(different) >= {"encoder.0.weight", "hypernet.trunk.0.weight", "step"}


# ---- going on ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("optimiser", "lr"), RECIPES)
def test_a_killed_run_goes_on_bit_for_bit(config, finished, tmp_path, optimiser, lr):
    c, out = config(images=LONG, optimiser=optimiser, lr=lr), tmp_path / "run"
    process = start(__file__, "run_alone", json.dumps(c.to_dict()), out)
    try:
        wait_until(lambda: last_step(out) >= 30, process)
    finally:
        process.kill()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert 29 <= state(out)[1]["step"] < 80
    assert not (out / "model.safetensors").exists()
    train(c, out, resume=True, **EVERY)
    whole = finished(c)
    assert_same_run(out, whole)
    assert timeless(out) == timeless(whole)


@pytest.mark.parametrize("stop", [10, 22], ids=["before the whole tree", "within it"])
def test_random_programs_go_on_bit_for_bit(trainer, stop):
    """With `drop`, too: which images are seen in a step comes from its number."""
    settings = {**TREE, "prior_z": "both", "symbols": 3, "drop": 0.4, "jitter": 0.05}
    whole, first, second = (trainer(**settings) for _ in range(3))
    rows = [whole.train_step() for _ in range(whole.total)]
    for row in rows[:stop]:
        assert torch.equal(first.train_step(), row)
    first.save_state()
    second.load_state()
    for row in rows[stop:]:
        assert torch.equal(second.train_step(), row)
    for one, other in ((whole.model, second.model), (whole.average, second.average)):
        expected, found = one.state_dict(), other.state_dict()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert whole.validate() == second.validate()


def test_ctrl_c_saves_and_the_same_command_goes_on(config, finished, tmp_path, monkeypatch, capsys):
    c, out = config(images=LONG, optimiser="adam", lr=6e-3), tmp_path / "run"
    command = ["train", "mnist", *tiny.arguments(c), "--out", str(out)]
    process = start("-m", "rnp_lib", *command)
    try:
        wait_until(lambda: last_step(out) >= 40, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    step = state(out)[1]["step"]
    assert process.returncode == 1
    assert err == (
        f"rnp: stopped at step {step} of 80; the same command with --resume goes on from there.\n"
    )
    assert 40 <= step < 80
    assert_sound(out, step)
    monkeypatch.setattr(sys, "argv", ["rnp", *command, "--resume"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    assert '"validation_sse"' in capsys.readouterr().out
    assert_same_run(out, finished(c))
    assert steps(out) == [40, 50, 80]


@pytest.mark.parametrize(
    ("number", "when"),
    [(signal.SIGINT, 1), (signal.SIGTERM, 15), (signal.SIGINT, 22)],
    ids=["first step", "end of a stage", "later"],
)
def test_a_signal_in_any_step_changes_nothing(
    config, finished, tmp_path, monkeypatch, number, when
):
    c, out, step = config(), tmp_path / "run", Trainer.train_step

    def signalled(self):
        values = step(self)
        if self.step == when:
            signal.raise_signal(number)
        return values

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Trainer, "train_step", signalled)
    with pytest.raises(TrainingStopped, match=f"stopped at step {when} of 30") as caught:
        train(c, out, **EVERY)
    assert "--resume" in one_sentence(caught.value)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert_sound(out, when)
    monkeypatch.setattr(Trainer, "train_step", step)
    train(c, out, resume=True, **EVERY)
    assert_same_run(out, finished(c))
    assert timeless(out) == timeless(finished(c))


def test_a_second_ctrl_c_ends_at_once(config, tmp_path, monkeypatch):
    def signalled(self):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "train_step", signalled)
    # A job in the background of a shell starts with Ctrl-C ignored; this is about one that is not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(config(), tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_finished_run_resumed_is_published_again(config, finished, tmp_path):
    c, out = config(), tmp_path / "run"
    train(c, out, resume=True, **EVERY)  # nothing to go on from yet: it starts
    (out / "model.safetensors").unlink()
    train(c, out, resume=True, **EVERY)
    assert_same_run(out, finished(c))
    assert steps(out) == steps(finished(c))


@pytest.fixture
def begun(config, finished, tmp_path):
    """A copy of a run, and how to change its description."""
    out = shutil.copytree(finished(config()), tmp_path / "run")

    def rewrite(**changes):
        (out / "run.json").write_text(json.dumps(described(out) | changes))

    return out, rewrite


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 3}, ["seed 0 → 3", "--set seed=0"]),
        ({"images": (80, 80)}, ["images (120, 120) → (80, 80)", "--set 'images=(120, 120)'"]),
        ({"lr": 0.5, "ema": 0.5}, ["lr 0.003 → 0.5", "ema 0.9 → 0.5", "--set lr=0.003 and"]),
    ],
)
def test_a_run_goes_on_with_no_other_settings(config, finished, change, said):
    out = finished(config())
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(CheckpointError) as caught:
        train(config(**change), out, resume=True)
    for words in [*said, "another --out"]:
        assert words in one_sentence(caught.value)
    assert {path: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cuda:1 (some GPU)"}, ["device cuda → cpu", "--device cuda"]),
        ({"data_sha256": "0123456789abcdef"}, ["data 0123456789ab → ", "training images"]),
        ({"validation": "the first ten"}, ["validation the first ten → ", "version"]),
    ],
)
def test_a_run_goes_on_with_nothing_that_makes_it_another(config, begun, change, said):
    out, rewrite = begun
    rewrite(**change)
    with pytest.raises(CheckpointError) as caught:
        train(config(), out, resume=True)
    for words in [*said, "another --out"]:
        assert words in one_sentence(caught.value)


def test_a_run_does_not_go_on_with_other_images(tmp_path):
    folder, out = tiny.write_pngs(tmp_path / "pictures"), tmp_path / "run"
    c = tiny.config(dataset=str(folder), images=SHORT)
    train(c, out, **EVERY)
    changed = folder / "001.png"
    before = changed.stat()
    shutil.copy(folder / "003.png", changed)
    os.utime(changed, (before.st_atime, before.st_mtime))
    with pytest.raises(CheckpointError, match=r"data \w+ → \w+") as caught:
        train(c, out, resume=True)
    assert "training images" in one_sentence(caught.value)


def test_a_run_goes_on_in_the_precision_it_was_started_in(config, begun, monkeypatch):
    """Which `auto` means on one machine and not on another; set by name, it is the same run."""
    out, rewrite = begun
    used = described(out)["precision"]
    other = {"float32": "bfloat16", "bfloat16": "float32"}[used]
    rewrite(precision=other)
    with pytest.raises(CheckpointError, match=f"precision {other} → {used}") as caught:
        train(config(), out, resume=True)
    assert f"--set precision={other}" in one_sentence(caught.value)
    rewrite(precision=used)
    path = train(config(precision=used), out, resume=True)
    assert checkpoints.metadata(path)["run"]["precision"] == used


def test_a_run_goes_on_on_another_machine_and_says_so(config, begun, finished, capsys):
    out, rewrite = begun
    now = described(out)
    other = {"packages": now["packages"] | {"torch": "1.0"}, "device": "cpu (some chip)"}
    rewrite(**other, git={"commit": "0123", "dirty": False})
    (out / "model.safetensors").unlink()
    train(config(), out, resume=True, **EVERY)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("resumed with")]
    changed = {
        "torch": ["1.0", now["packages"]["torch"]],
        "device": ["cpu (some chip)", now["device"]],
        "commit": ["0123", now["git"]["commit"]],
    }
    for name, (then, there) in changed.items():
        assert f"{name} {then} → {there}" in line
    (entry,) = checkpoints.metadata(out / "model.safetensors")["run"]["resumed"]
    assert changed.items() <= entry["changed"].items()
    assert described(out)["packages"]["torch"] == "1.0", "what it was started with stays"
    assert_same_run(out, finished(config()))


def test_a_run_of_an_older_version_does_not_go_on(config, begun):
    out, _ = begun
    (out / "run.json").unlink()
    with pytest.raises(CheckpointError, match="started by an older version") as caught:
        train(config(), out, resume=True)
    assert "another --out" in one_sentence(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"config": {"colour": "red"}}'])
def test_a_description_of_no_run_is_refused(config, begun, text):
    out, _ = begun
    (out / "run.json").write_text(text)
    with pytest.raises(CheckpointError, match="does not describe a run") as caught:
        train(config(), out, resume=True)
    one_sentence(caught.value)


def test_a_damaged_state_is_refused(config, begun):
    out, _ = begun
    (out / "state.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CheckpointError, match="not a whole safetensors file") as caught:
        train(config(), out, resume=True)
    one_sentence(caught.value)


@pytest.mark.parametrize(
    "entry", ["optimiser.0.0.momentum_buffer", "average.n_averaged", "model.step"]
)
def test_a_state_that_is_not_whole_is_refused(config, begun, entry):
    out, _ = begun
    path = out / "state.safetensors"
    tensors, about = state(out)
    with safe_open(path, "pt") as file:
        kept = file.metadata()
    del tensors[entry]
    save_file(tensors, path, kept)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        train(config(), out, resume=True)
    one_sentence(caught.value)
    checkpoints.write(
        path, trainer_module.STATE_FORMAT, {"values": tensors["model.encoder.0.bias"]}, about
    )
    with pytest.raises(CheckpointError, match="not a state of this run") as caught:
        train(config(), out, resume=True)
    one_sentence(caught.value)


@pytest.mark.parametrize(
    "damage", [b"", b"\0" * 50, b"\xff" * 50, b"step\n", b"x," * 10], ids=range(5)
)
def test_a_damaged_log_is_refused(config, begun, damage):
    out, _ = begun
    (out / "metrics.csv").write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"metrics.csv is not the log of this run") as caught:
        train(config(), out, resume=True)
    one_sentence(caught.value)


def test_a_torn_row_of_the_log_is_written_again(config, finished, tmp_path):
    c, out = config(), tmp_path / "run"
    train(c, out, **EVERY)
    with open(out / "metrics.csv", "a") as file:
        file.write("1")  # of 130: what a failing machine may leave
    train(c, out, resume=True, **EVERY)
    assert steps(out) == steps(finished(c))


def test_rows_beyond_the_state_are_written_again(config, finished, tmp_path, monkeypatch):
    """What a killed run leaves that had logged since it saved."""
    c, out = config(), tmp_path / "run"
    true = Trainer.train_step

    def stopped(self):
        if self.step == 12:
            signal.raise_signal(signal.SIGTERM)
        return true(self)

    monkeypatch.setattr(Trainer, "train_step", stopped)
    with pytest.raises(TrainingStopped):
        train(c, out, **EVERY)
    monkeypatch.setattr(Trainer, "train_step", true)
    with open(out / "metrics.csv", "a", newline="") as file:
        csv.writer(file).writerow([20, *[0.0] * 10])
    train(c, out, resume=True, **EVERY)
    assert timeless(out) == timeless(finished(c))


@pytest.mark.parametrize(("minutes", "states"), [(2.0, [2, 4, 6, 8]), (5.0, [5, 8])])
def test_states_are_saved_by_the_clock(trainer, monkeypatch, minutes, states):
    """A minute a step, on a clock that a look at it moves on."""
    t, saved = trainer(images=(0, 64)), []
    monkeypatch.setattr(loop.time, "monotonic", lambda: 60.0 * t.step)
    monkeypatch.setattr(Trainer, "save_state", lambda self: saved.append(self.step))
    loop.train_to_end(t, minutes)
    assert saved == states


def test_a_run_can_be_made_longer(config, finished, tmp_path, capsys):
    """Where the schedule does not end, to what a longer run from the start comes to."""
    fixed = functools.partial(config, decay="none")
    out, short = tmp_path / "run", fixed(images=(120, 120))
    train(short, out, **EVERY)
    capsys.readouterr()
    train(fixed(images=(120, 200)), out, resume=True, **EVERY)
    (line,) = [x for x in capsys.readouterr().out.splitlines() if x.startswith("resumed with")]
    assert line == "resumed with images (120, 120) → (120, 200): it goes on for longer"
    whole = finished(fixed(images=(120, 200)))
    assert_same_run(out, whole)
    about = checkpoints.metadata(out / "model.safetensors")
    assert about["config"]["images"] == described(out)["config"]["images"] == [120, 200]
    assert about["run"]["resumed"][0]["changed"] == {"images": [[120, 120], [120, 200]]}
    with pytest.raises(CheckpointError, match="started otherwise"):  # nor can one be made shorter
        train(short, out, resume=True, **EVERY)


def test_a_longer_run_says_that_its_rate_rises_again(config, begun, capsys):
    out, _ = begun
    train(config(images=(120, 200)), out, resume=True, **EVERY)
    assert "its learning rate is higher again" in capsys.readouterr().out
    with pytest.raises(CheckpointError, match="started otherwise"):  # an earlier stage
        train(config(images=(200, 200)), out, resume=True, **EVERY)


def test_two_trainings_do_not_share_a_folder(config, tmp_path):
    c, out = config(images=LONG), tmp_path / "run"
    process = start(__file__, "run_alone", json.dumps(c.to_dict()), out)
    try:
        wait_until(lambda: last_step(out) >= 10, process)
        for resume in (False, True):
            with pytest.raises(FileExistsError) as caught:
                train(config(images=LONG, seed=5), out, resume=resume)
            assert f"in use by process {process.pid} on" in one_sentence(caught.value)
    finally:
        process.kill()
        process.communicate(timeout=60)
    train(c, out, resume=True, **EVERY)  # held by nobody any more
    assert not (out / "in-use.lock").exists()


# ---- when training goes wrong --------------------------------------------------------------------


def poison(monkeypatch, step):
    """Make the KL of one image of a step (counted from 1) not a number."""
    true, count = trainer_module.terms, itertools.count()  # at 0 memory is estimated

    def poisoned(*arguments):
        terms = true(*arguments)
        if next(count) != step:
            return terms
        return terms._replace(kl=terms.kl * torch.tensor([math.nan] + [1.0] * 7))

    monkeypatch.setattr(trainer_module, "terms", poisoned)


@pytest.mark.parametrize("step", [21, 30])
def test_a_loss_that_is_not_finite_stops_with_the_last_good_state(
    config, finished, tmp_path, monkeypatch, step
):
    c, out = config(), tmp_path / "run"
    with monkeypatch.context() as patch:
        poison(patch, step)
        with pytest.raises(TrainingStopped, match=f"finite by step {step}") as caught:
            train(c, out, **EVERY)
    assert f"kept in {out}" in one_sentence(caught.value)
    assert_sound(out, step - 1)
    assert steps(out) == [10, 15, 20]
    assert not (out / "model.safetensors").exists()
    train(c, out, resume=True, **EVERY)
    assert_same_run(out, finished(c))


def test_a_loss_that_is_not_finite_from_the_start_promises_no_state(config, tmp_path, monkeypatch):
    poison(monkeypatch, 1)
    with pytest.raises(TrainingStopped, match="no state had been saved yet") as caught:
        train(config(), tmp_path, **EVERY)
    one_sentence(caught.value)
    assert not (tmp_path / "state.safetensors").exists()


def test_a_far_too_large_rate_is_stopped(config, tmp_path):
    c = config(
        optimiser="adam", lr=1e12, patch_activation="relu", state_activation="elu", normalise=False
    )
    with pytest.raises(TrainingStopped, match="smaller lr"):
        train(c, tmp_path, log_every=1, save_every=0)
    step = state(tmp_path)[1]["step"]
    assert_sound(tmp_path, step)
    trainer = Trainer(c, *halves(data.load(c.dataset, "train", 16)[0]), tmp_path, CPU)
    trainer.load_state()
    assert trainer.step == step


def test_a_state_that_cannot_be_written_leaves_the_one_before(config, tmp_path, monkeypatch):
    c, out = config(), tmp_path / "run"
    true, count = checkpoints.save_file, itertools.count(1)

    def fails_the_second_time(tensors, path, about):
        if next(count) == 2:
            Path(path).write_bytes(b"half")
            raise OSError("disk full")
        true(tensors, path, about)

    monkeypatch.setattr(checkpoints, "save_file", fails_the_second_time)
    with pytest.raises(OSError, match="disk full"):
        train(c, out, log_every=5, save_every=0)
    assert_sound(out, 1)
    assert {p.name for p in out.iterdir()} == {"state.safetensors", "metrics.csv", "run.json"}


# ---- several processes ---------------------------------------------------------------------------


def test_two_processes_do_what_one_does(config, images, tmp_path):
    c = config(images=(24, 24), optimiser="adam", lr=1e-3)
    process = torchrun(__file__, "run_among_others", json.dumps(c.to_dict()), tmp_path)
    try:
        out, err = process.communicate(timeout=400)
    finally:
        end_group(process)
    assert process.returncode == 0, err

    # Gradients, averaged over the processes' shares of a batch, are those of the batch; and so
    # are the weights after six steps at both depths.
    with float64():
        expected = results_in_float64(Trainer(c, *halves(images.double()), tmp_path, CPU))
    for rank in (0, 1):
        found = load_file(tmp_path / f"float64-{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-8, msg=name)

    # A run of six steps, logged and published once: losses of the whole batch, not of a share.
    train(c, tmp_path / "alone", log_every=2, save_every=0, validate_every=4)
    assert steps(tmp_path / "run") == steps(tmp_path / "alone") == [2, 3, 4, 6]
    shared, alone = rows(tmp_path / "run"), rows(tmp_path / "alone")
    for name in ("loss", "sse", "kl", "part"):  # later, Adam has blown up differences in rounding
        assert float(shared[0][name]) == pytest.approx(float(alone[0][name]), rel=1e-3), name
    for one, other in zip(shared, alone, strict=True):
        assert (one["validation_sse"] == "") == (other["validation_sse"] == "")
    assert out.count('run/model.safetensors"') == 1
    assert checkpoints.metadata(tmp_path / "run" / "model.safetensors")["run"]["processes"] == 2

    for rank in (0, 1):
        text = (tmp_path / f"uneven-{rank}.txt").read_text()
        assert text.startswith("batch_size 7 cannot be shared by 2 processes")
        assert "\n" not in text
        # One process was told to stop: both did, in the step in which all meet.
        assert (tmp_path / f"stopped-{rank}.txt").read_text().startswith("stopped at step 3 of 6")
    assert_sound(tmp_path / "stopped", 3)


def test_ctrl_c_ends_all_processes_of_the_command(config, tmp_path):
    out = tmp_path / "run"
    c = config(images=(16, 160_000), optimiser="adam", lr=1e-3)
    process = torchrun("-m", "rnp_lib", "train", "mnist", *tiny.arguments(c), "--out", out)
    try:
        wait_until(lambda: last_step(out) >= 2, process)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        end_group(process)
    step = state(out)[1]["step"]
    assert process.returncode != 0
    assert f"rnp: stopped at step {step} of 20002" in err
    assert step % 50 == 0
    assert_sound(out, step)


@pytest.mark.parametrize("world", [2, 4])
def test_processes_share_a_batch(trainer, world):
    alone = trainer(posterior="tree", drop=0.5)
    for step in (0, 5, 12, 13):  # the second epoch starts at 12
        x, noise, seen = batch = alone.batches(step)
        assert x.shape == (8, 1, 16, 16)
        assert noise.shape == (8, 8 + 2 * (8 + 6 + 1))  # of the root and its two children
        assert seen.shape == (8,)
        shares = []
        for rank in range(world):
            one = trainer(posterior="tree", drop=0.5)
            one.batches.rank, one.batches.world = rank, world
            shares.append(one.batches(step))
        for whole, parts in zip(batch, zip(*shares, strict=True), strict=True):
            assert all(len(part) == 8 // world for part in parts)
            assert torch.equal(torch.cat(parts), whole)


def test_some_images_are_not_seen_below_the_root(trainer):
    assert all(trainer().batches(step)[2].all() for step in range(20))
    plain, dropped = trainer(posterior="tree"), trainer(posterior="tree", drop=0.3)
    seen = torch.cat([dropped.batches(step)[2] for step in range(500)])
    assert set(seen.tolist()) == {0.0, 1.0}
    assert abs(seen.mean() - 0.7) < 0.04
    for step in (0, 3):  # the same images and noise otherwise
        assert all(map(torch.equal, plain.batches(step)[:2], dropped.batches(step)[:2]))
    # A share as large shows less of it: who is dropped at 0.3 is dropped at 0.6.
    more = torch.cat([trainer(posterior="tree", drop=0.6).batches(s)[2] for s in range(20)])
    assert (more <= seen[: len(more)]).all()


# ---- the parts -----------------------------------------------------------------------------------


def test_an_epoch_shows_every_image_once(trainer):
    t = trainer()
    assert t.batches.an_epoch == 12  # 98 images in batches of 8
    t.batches.images = torch.arange(98.0)
    epochs = [[t.batches(12 * epoch + step)[0] for step in range(12)] for epoch in (0, 1)]
    one, two = (torch.cat(epoch) for epoch in epochs)
    assert len(one.unique()) == len(two.unique()) == 96
    assert not torch.equal(one, two)
    noises = [t.batches(step)[1] for step in range(20)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(noises, 2))
    noise = torch.cat([t.batches(step)[1] for step in range(500)])
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1) < 0.03
    again = trainer()
    assert torch.equal(again.batches(15)[1], t.batches(15)[1]), "a batch depends on its step only"
    other = trainer(seed=1)
    assert not torch.equal(other.batches(15)[0], again.batches(15)[0])
    assert not torch.equal(other.batches(15)[1], again.batches(15)[1])


def test_the_global_generator_is_neither_read_nor_set(trainer):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = trainer(jitter=0.1)
    values = [one.train_step() for _ in range(3)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    other = trainer(jitter=0.1)
    for value in values:
        assert torch.equal(other.train_step(), value)


def test_seeds_are_the_same_on_every_machine(trainer):
    """They are not made by Python's `hash`, which the language leaves open."""
    t = trainer(seed=7)
    seeds = {
        (stream, index): t.batches.generator(stream, index).initial_seed()
        for stream in range(4)
        for index in range(100)
    }
    assert seeds[0, 0] == 16920295385781661272
    assert seeds[2, 99] == 10768258079645176047
    assert len(set(seeds.values())) == 400


def test_learning_rates(trainer):
    def rates(**changes):
        t = trainer(images=(64, 96), **changes)  # stages of 8 and of 12 steps
        return [t.rate(step) for step in range(21)]

    cosine = [0.5 * (1 + math.cos(math.pi * step / 20)) for step in range(21)]
    warm = [0.25, 0.5, 0.75, *[1] * 5, 0.25, 0.5, 0.75, *[1] * 9]
    decayed = [w * c for w, c in zip(warm, cosine, strict=False)]
    assert rates(warmup=4)[:20] == pytest.approx(decayed)
    assert rates(warmup=4, decay="none")[:20] == warm
    assert rates(warmup=0) == pytest.approx(cosine)


@pytest.mark.parametrize("optimiser", ["muon", "adam"])
def test_every_update_follows_the_schedule(trainer, optimiser):
    whole = trainer(optimiser=optimiser, warmup=0, decay="none")
    third = trainer(optimiser=optimiser, warmup=3, decay="none")
    start = [p.detach().clone() for p in whole.model.parameters()]
    moved = []
    for t in (whole, third):
        t.train_step()
        moved.append([p.detach() - s for p, s in zip(t.model.parameters(), start, strict=True)])
    assert (whole.rate(0), third.rate(0)) == (1, 1 / 3)
    for full, small in zip(*moved, strict=True):
        torch.testing.assert_close(3 * small, full, rtol=1e-3, atol=1e-6)


def test_stages_grow_deeper_and_the_kl_warms_up(trainer):
    t = trainer(tau=(2, 2, 2), images=(16, 0, 24), kl_warmup=32)
    assert t.total == 5
    assert [t.depth(step) for step in range(5)] == [1, 1, 3, 3, 3]
    objective, seen = t.objective, []

    def spy(x, noise, shown, until, kl_weight):
        seen.append((until, kl_weight.item()))
        return objective(x, noise, shown, until, kl_weight)

    t.update.objective = spy
    for _ in range(5):
        t.train_step()
    assert seen == [(2, 0.0), (2, 0.25), (0, 0.5), (0, 0.75), (0, 1.0)]


def test_the_average_follows_the_weights(trainer):
    t = trainer(ema=0.7)
    expected, decays = None, []
    for n in range(12):
        t.train_step()
        weights = {name: p.detach().double().clone() for name, p in t.model.named_parameters()}
        if expected is None:
            expected = weights
            continue
        decays.append(min(0.7, (1 + n) / (10 + n)))
        for name, weight in weights.items():
            expected[name] = decays[-1] * expected[name] + (1 - decays[-1]) * weight
    assert decays[0] == 2 / 11  # soon forgets where it started
    for name, value in t.average.module.named_parameters():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_without_averaging_the_weights_themselves_are_published(trainer):
    t = trainer(ema=0.0, encoder="resnet")
    for _ in range(3):
        t.train_step()
    for name, value in t.average.module.state_dict().items():
        assert torch.equal(value, t.model.state_dict()[name]), name


def test_a_dropped_trainer_is_gone_at_once(trainer):
    # One that waited for the garbage collector kept the threads of its process group alive, and a
    # process that ends with them aborts.
    t = trainer()
    t.train_step()
    kept = weakref.ref(t), weakref.ref(t.update), weakref.ref(t.average)
    gc.disable()
    try:
        del t
        assert [reference() for reference in kept] == [None] * 3
    finally:
        gc.enable()


@pytest.mark.parametrize("encoder", ["light", "resnet"])
@pytest.mark.parametrize("hypernet", ["factorised", "full"])
def test_muon_gets_the_weight_matrices_and_adam_the_rest(trainer, encoder, hypernet):
    t = trainer(optimiser="muon", encoder=encoder, hypernet=hypernet)
    muon, adam = t.optimisers
    assert isinstance(muon, torch.optim.Muon)
    assert isinstance(adam, torch.optim.Adam)
    names = {parameter: name for name, parameter in t.model.named_parameters()}
    taken = [[names[p] for g in o.param_groups for p in g["params"]] for o in (muon, adam)]
    assert sorted(taken[0] + taken[1]) == sorted(names.values()), "every parameter, once"
    matrices = {
        f"{name}.weight"
        for name, module in t.model.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    }
    assert set(taken[0]) == matrices
    assert all(t.model.get_parameter(name).ndim == 2 for name in taken[0])
    # What is left are vectors: biases, gains, and one learned vector for each step t.
    assert {n for n in taken[1] if t.model.get_parameter(n).ndim > 1} == {"step"}
    convolutions = [m for m in t.model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(isinstance(m, MatrixConv2d) for m in convolutions)
    assert muon.param_groups[0]["weight_decay"] == 0
    assert [o.param_groups[0]["lr"] for o in t.optimisers] == [t.config.lr, t.config.adam_lr]


def test_of_random_programs_the_symbols_are_left_to_adam(trainer):
    t = trainer(optimiser="muon", prior_z="both", symbols=3, **TREE)
    names = {parameter: name for name, parameter in t.model.named_parameters()}
    taken = [[names[p] for g in o.param_groups for p in g["params"]] for o in t.optimisers]
    assert sorted(taken[0] + taken[1]) == sorted(names.values()), "every parameter, once"
    tables = {n for n in taken[1] if t.model.get_parameter(n).ndim > 1}
    assert tables == {"step", "grammar.symbols", "grammar.log_std"}  # a row each for itself
    read = {f"reader.{look}_layers.{i}.weight" for look in ("where", "what") for i in (0, 3, 6)}
    assert set(taken[0]) >= read | {"grammar.spread.weight", "grammar.choice.weight"}


def test_muon_does_what_torchs_does_in_whatever_type():
    generator = torch.Generator().manual_seed(0)
    shapes = [(6, 4), (4, 6), (4, 6), (5, 5), (7, 3)]
    start = [torch.randn(shape, generator=generator) for shape in shapes]

    def trained(optimiser, **settings):
        matrices = [matrix.clone().requires_grad_() for matrix in start]
        optimiser = optimiser(matrices, lr=0.1, **settings)
        for step in range(3):
            for i, matrix in enumerate(matrices):
                matrix.grad = torch.roll(start[i], step, 0) + matrix.detach()
            optimiser.step()
        return torch.cat([(a - b).detach().flatten() for a, b in zip(matrices, start, strict=True)])

    theirs = trained(torch.optim.Muon, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    exact = trained(Muon, dtype=torch.float64)
    assert (trained(Muon, dtype=torch.float32) - exact).abs().max() < 1e-5
    half = trained(Muon, dtype=torch.bfloat16)
    for one in (theirs, half):  # bfloat16 has two to three digits
        assert (one - exact).norm() < 0.03 * exact.norm()


def test_adam_alone_gets_everything(trainer):
    t = trainer(optimiser="adam", lr=4e-5)
    (adam,) = t.optimisers
    assert isinstance(adam, torch.optim.Adam)
    assert {id(p) for p in adam.param_groups[0]["params"]} == {id(p) for p in t.model.parameters()}
    assert adam.param_groups[0]["lr"] == 4e-5


def test_gradients_are_clipped_and_their_norm_is_logged_before(trainer, monkeypatch):
    def norms(clip):
        monkeypatch.setattr(step_module, "CLIP", clip)
        t = trainer()
        logged = t.train_step()[4]
        left = torch.nn.utils.get_total_norm([p.grad for p in t.model.parameters()])
        return logged.item(), left.item()

    logged, left = norms(0.5)
    assert logged > 5
    assert left == pytest.approx(0.5, rel=1e-4)
    assert norms(1e9) == pytest.approx((logged, logged), rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"posterior": "tree", "drop": 0.5}], ids=["root", "tree"])
def test_a_step_reports_the_objective_it_took(trainer, settings):
    t = trainer(precision="float32", **settings)
    x, noise, seen = t.batches(0)
    assert seen.all() == (not settings)
    terms = trainer_module.terms(t.model, x, noise, 1, seen)
    loss, sse, kl, part, _ = t.train_step().tolist()
    assert sse == pytest.approx(terms.sse.mean().item(), rel=1e-5)
    assert kl == pytest.approx(terms.kl.mean().item(), rel=1e-5)
    assert part == 0
    assert loss == pytest.approx(terms.loss(t.config.sigma2).item(), rel=1e-5)


# ---- what this file does in other processes ------------------------------------------------------


def run_alone(config, out):
    train(config, out, **EVERY)


def run_among_others(config, out):
    """Every check that needs several processes, in one start of them."""
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    images, _ = data.load(config.dataset, "train", config.image_size)
    with float64():
        results = results_in_float64(Trainer(config, *halves(images.double()), out, CPU))
    save_file(results, out / f"float64-{rank}.safetensors")

    for changes in (
        {"step_vector": False, "encoder": "resnet"},  # as in the paper
        {**TREE, "prior_z": "both", "symbols": 3, "drop": 0.4},
    ):
        trainer = Trainer(dataclasses.replace(config, **changes), *halves(images), out, CPU)
        for _ in range(4):
            assert trainer.train_step().isfinite().all()

    try:
        Trainer(dataclasses.replace(config, batch_size=7), *halves(images), out, CPU)
    except ValueError as error:
        (out / f"uneven-{rank}.txt").write_text(str(error))

    train(config, out / "run", log_every=2, save_every=0, validate_every=4)

    true = Trainer.train_step

    def signalled(self):  # only one process is told to stop, and twice
        if rank == 1 and self.step == 2:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)
        return true(self)

    Trainer.train_step = signalled
    try:
        train(config, out / "stopped", log_every=2)
    except TrainingStopped as error:
        (out / f"stopped-{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


def results_in_float64(trainer):
    """Gradients of a first batch at both depths, and the weights at the end of the schedule."""
    results = {}
    for until in (1, 0):
        trainer.model.zero_grad()
        trainer.objective(*trainer.batches(0), until, 1.0)[0].backward()
        for name, parameter in trainer.model.named_parameters():
            results[f"gradient {until} {name}"] = parameter.grad.clone()
    while trainer.step < trainer.total:
        trainer.train_step()
    return results | trainer.model.state_dict()


if __name__ == "__main__":
    {"run_alone": run_alone, "run_among_others": run_among_others}[sys.argv[1]](
        Config.from_dict(json.loads(sys.argv[2])), Path(sys.argv[3])
    )
