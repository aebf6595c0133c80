"""Transfer: what may change does and nothing else, and trials add up to a record."""

import copy
import dataclasses
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch

from rnp_lib import checkpoints, cli, data, plots
from rnp_lib.analysis import controls, fewshot, reuse, transfer, trials
from rnp_lib.analysis.controls import CONDITIONS, FEW, MODELS, SAW, SHOTS, Trial
from rnp_lib.analysis.likelihood import COSTS, log_prior
from rnp_lib.analysis.programs import of_level
from rnp_lib.analysis.transfer import TASKS, Task
from rnp_lib.checkpoints import CheckpointError
from rnp_lib.files import sha256
from rnp_lib.model import build
from rnp_lib.model.guide import Given
from rnp_lib.model.objective import reconstruction_error, squared_error
from rnp_lib.plots import transfer as plots_transfer
from rnp_lib.presets import PRESETS
from rnp_lib.training.trainer import Trainer

CPU = torch.device("cpu")
TASK = Task("tiny-no1", digit=1, saw="tiny", models=dict.fromkeys(MODELS, 2))


@pytest.fixture(scope="module")
def images():
    """Bright bars on black, each at a place and of a length of its own."""
    x = torch.zeros(120, 1, 16, 16)
    for i, picture in enumerate(x[:, 0]):
        picture[3 + i % 8 : 5 + i % 8, 2 + i % 5 : 8 + i % 7] = 1
    return x


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return build(tiny.config()).eval()


def parameters(model, looking):
    """Copies of the weights of what looks at images, or of everything else."""
    state, looks = model.state_dict(), ("encoder.", "reader.")
    return {k: v.clone() for k, v in state.items() if k.startswith(looks) == looking}


def same(one, other):
    assert one.keys() == other.keys()
    return all(torch.equal(value, other[name]) for name, value in one.items())


# ---- what is learned from, and what is measured --------------------------------------------------


def numbered(n):
    """Images that hold their own number."""
    return torch.arange(float(n)).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def numbers(images):
    return images[:, 0, 0, 0].int().tolist()


def test_a_digit_is_learned_from_training_images_and_measured_on_test_images():
    labels = torch.tensor([7, 1, 7, 8, 7, 0, 7, 9])
    held_labels = torch.tensor([1, 7, 7, 3])
    parts = transfer.split(TASKS["7"], (numbered(8), labels), (100 + numbered(4), held_labels))
    assert numbers(parts.learn) == [0, 2, 4, 6]
    assert numbers(parts.new) == [101, 102]
    assert numbers(parts.old) == [100, 103]
    with pytest.raises(ValueError, match="no image of the digit 8"):
        transfer.split(TASKS["8"], (numbered(8), labels), (numbered(4), held_labels))


def test_drawers_are_disjoint_and_complete_and_the_last_are_for_validation():
    drawers, characters = 20, 6
    labels = torch.arange(characters).repeat_interleave(drawers)
    background = numbered(80), torch.arange(4).repeat_interleave(drawers) + 825
    found = transfer.split(TASKS["omniglot"], background, (numbered(len(labels)), labels))
    learn, new = numbers(found.learn), numbers(found.new)
    assert sorted(learn + new) == list(range(len(labels)))
    # Every character's drawers 1-14 in the order of drawers, 15-20 held out.
    assert learn == [c * drawers + d for d in range(14) for c in range(characters)]
    assert new == [c * drawers + d for c in range(characters) for d in range(14, drawers)]
    # Drawer 20 of each character that was trained on.
    assert numbers(found.old) == [19, 39]
    validation = numbers(transfer.hold_back(found.learn)[1])
    assert {n % drawers for n in validation} == {12, 13}


@pytest.mark.full_data("mnist", "omniglot")
def test_the_images_of_the_real_tasks():
    seven, _ = transfer.load(TASKS["7"])
    assert [len(x) for x in seven] == [6_265, 1_028, 8_972]
    omniglot, digests = transfer.load(TASKS["omniglot"])
    assert [len(x) for x in omniglot] == [14 * 659, 6 * 659, 827]
    assert digests.keys() == {"omniglot/train", "omniglot/test"}


@pytest.mark.full_data("omniglot")
def test_what_omniglots_model_may_forget_is_what_it_was_trained_on():
    images, _ = data.load("omniglot", "train")
    trained_on = {x.numpy().tobytes() for x in transfer.hold_back(images)[0]}
    old = transfer.load(TASKS["omniglot"])[0].old
    assert all(x.numpy().tobytes() in trained_on for x in old)


@pytest.mark.parametrize("name", ["7", "8"])
def test_no_model_of_a_digits_task_has_seen_the_digit(name):
    assert PRESETS[TASKS[name].base].without == (TASKS[name].digit,)


# ---- retraining ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"encoder": "resnet"}, {"model": "vae"}, {"posterior": "tree"}]
)
def test_only_what_looks_at_images_learns_unless_everything_may(images, settings):
    model = build(tiny.config(**settings)).eval()
    before = copy.deepcopy(model.state_dict())
    looking, drawing = parameters(model, True), parameters(model, False)
    adapted, _ = transfer.retrain(model, images, images=(64,))
    assert same(parameters(adapted, False), drawing)
    assert not same(parameters(adapted, True), looking)
    for part in model.inference:
        assert any(
            not torch.equal(old, new)
            for old, new in zip(
                getattr(model, part).parameters(), getattr(adapted, part).parameters(), strict=True
            )
        )
    assert adapted.config == model.config
    free, _ = transfer.retrain(model, images, images=(64,), everything=True)
    assert not same(parameters(free, False), drawing)
    assert same(model.state_dict(), before), "the model that starts has changed"
    assert all(p.requires_grad or p.numel() == 0 for p in model.parameters())
    assert not adapted.training


def test_a_retraining_sees_its_budget_and_helps(model, images, monkeypatch):
    seen = []
    step = Trainer.train_step

    def counted(self):
        values = step(self)
        seen.append(self.update.x.clone())
        return values

    monkeypatch.setattr(Trainer, "train_step", counted)
    before = reconstruction_error(model, images).mean()
    changes = {"batch_size": 8, "warmup": 2, "lr": 2e-2, "jitter": 0.0, "sigma2": 0.02}
    adapted, validation = transfer.retrain(model, images, images=(2_000,), **changes)
    assert sum(map(len, seen)) == 2_000
    known, held_back = transfer.hold_back(images)
    known = {x.numpy().tobytes() for x in known}
    assert all(x.numpy().tobytes() in known for batch in seen for x in batch)
    assert validation == pytest.approx(float(reconstruction_error(adapted, held_back).mean()))
    assert reconstruction_error(adapted, images).mean() < 0.9 * before


def test_a_retraining_repeats_itself_by_its_seed(model, images):
    results = [transfer.retrain(model, images, images=(64,), seed=seed)[0] for seed in (1, 1, 2)]
    first, again, other = (parameters(result, True) for result in results)
    assert same(first, again)
    assert not same(first, other)


def test_training_from_a_given_model_is_training(images, tmp_path):
    config = tiny.config(images=(64,))
    torch.manual_seed(config.seed)
    given = build(config)
    plain = Trainer(config, images, images, tmp_path, CPU)
    started = Trainer(config, images, images, tmp_path, CPU, given)
    for trainer in (plain, started):
        for _ in range(3):
            trainer.train_step()
    assert same(plain.model.state_dict(), started.model.state_dict())
    assert started.model is given


def test_a_loss_that_is_not_finite_is_one_sentence(model, images):
    broken = copy.deepcopy(model)
    next(broken.encoder.parameters()).data.fill_(float("nan"))
    with pytest.raises(transfer.TrainingStopped, match="finite"):
        transfer.retrain(broken, images, images=(64,))


@pytest.mark.parametrize("shots", SHOTS)
def test_few_shots_are_few_and_not_for_validation(model, images, shots, monkeypatch):
    given = []

    def retrain(model, few, **settings):
        given.append((few, settings))
        return model, 0.0

    monkeypatch.setattr(transfer, "retrain", retrain)
    distinct = images + torch.linspace(0, 0.1, 120).view(-1, 1, 1, 1)
    known, validation = transfer.hold_back(distinct)
    _, error = transfer.retrain_few(model, distinct, shots, draw=1)
    ((few, settings),) = given
    assert settings["images"] == (64 * transfer.SHOT_STEPS[shots],)
    assert settings["seed"] == 1
    assert len(few.flatten(1).unique(dim=0)) == shots
    assert all((x == known).flatten(1).all(1).any() for x in few)
    assert error == pytest.approx(float(reconstruction_error(model, validation).mean()))
    transfer.retrain_few(model, distinct, shots, draw=2)
    assert not torch.equal(given[-1][0], few)


def test_few_shots_run_for_real(model, images, monkeypatch):
    monkeypatch.setitem(transfer.SHOT_STEPS, 1, 2)
    adapted, error = transfer.retrain_few(model, images, 1, draw=0)
    assert same(parameters(adapted, False), parameters(model, False))
    held_back = transfer.hold_back(images)[1]
    assert error == pytest.approx(float(reconstruction_error(adapted, held_back).mean()))


def test_a_random_decoder_is_random_and_the_encoder_is_kept(model):
    state = torch.get_rng_state()
    one, again, other = (transfer.random_decoder(model, seed) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    decoders = [parameters(m, False) for m in (model, one, again, other)]
    assert same(decoders[1], decoders[2])
    assert not same(decoders[0], decoders[1])
    assert not same(decoders[1], decoders[3])
    assert same(parameters(one, True), parameters(model, True))


# ---- codes ---------------------------------------------------------------------------------------


def test_descent_on_codes_explains_better_and_leaves_the_model_alone(model, images):
    before = copy.deepcopy(model.state_dict())
    x = images[:10]

    def objective(tree):
        sse = squared_error(tree.canvas, x)
        return sse / (2 * transfer.ERROR_SIGMA2) + tree.z.square().sum(1) / 2, sse

    with torch.no_grad():
        start, start_sse = objective(model.parse(x))
        tree = transfer.adjust_codes(model, x, steps=40)
        end, end_sse = objective(tree)
        torch.testing.assert_close(tree.canvas, model.decode(tree.z).canvas)
    assert (end < start).sum() >= 9  # Adam may step over a narrow valley
    assert end_sse.mean() < 0.95 * start_sse.mean()
    assert same(model.state_dict(), before)
    assert all(p.grad is None for p in model.parameters())
    # In double, as rounding errors grow about twofold with every step in so narrow a valley.
    exact, x64 = copy.deepcopy(model).double(), x.double()
    every = transfer.adjust_codes(exact, x64, steps=20).z
    alone = transfer.adjust_codes(exact, x64[3:4], steps=20).z
    torch.testing.assert_close(alone, every[3:4], rtol=1e-5, atol=1e-5)
    assert torch.equal(transfer.adjust_codes(model, x, steps=0).z, model.encode(x).mean)


@pytest.mark.parametrize("prior_z", ["prediction", "both"])
def test_descent_on_the_codes_of_all_programs(images, prior_z):
    """Where every program is random, the codes are all of theirs, not the root's alone."""
    settings = dict(posterior="tree", tau=(2, 2, 2), prior_z=prior_z, symbols=3, reader_units=8)
    model, x = tiny.disturbed(tiny.config(**settings), amount=0.03), images[:6].double()
    before = copy.deepcopy(model.state_dict())

    def objective(tree):
        sse = squared_error(tree.canvas, x)
        return sse / (2 * transfer.ERROR_SIGMA2) - log_prior(tree), sse

    with torch.no_grad():
        start = model.parse(x)
        found = transfer.adjust_codes(model, x, steps=30)
        still = transfer.adjust_codes(model, x, steps=0)
    (first, first_sse), (last, last_sse) = objective(start), objective(found)
    assert (last < first).all()
    assert (last_sse < first_sse).all()
    torch.testing.assert_close(still.canvas, start.canvas)
    assert same(model.state_dict(), before)
    assert all(p.grad is None for p in model.parameters())
    assert not found.canvas.requires_grad
    for level in (3, 2, 1):
        for old, new in zip(start.programs(level), found.programs(level), strict=True):
            for name in ("z", "u") if level < 3 else ("z",):
                assert not torch.allclose(getattr(old, name), getattr(new, name))
    # The codes are what the picture is drawn from, and each image has its own.
    row = [list(found.programs(level)) for level in (2, 1)]
    given = [[torch.stack([getattr(p, n) for p in of], 1) for n in ("z", "u")] for of in row]
    again = model.unroll(found.z, 3, guide=Given(given))
    torch.testing.assert_close(again.canvas, found.canvas)
    alone = transfer.adjust_codes(model, x[3:4], steps=4)
    every = transfer.adjust_codes(model, x, steps=4)
    torch.testing.assert_close(alone.canvas, every.canvas[3:4], rtol=1e-5, atol=1e-5)


def test_the_error_of_codes_does_not_depend_on_the_chunks(model, images):
    many = images.repeat(3, 1, 1, 1)[:260]
    errors = transfer.code_error(model, many, steps=2)
    assert errors.shape == (260,)
    torch.testing.assert_close(errors[:20], transfer.code_error(model, images[:20], steps=2))


def test_a_summary_by_hand():
    errors = torch.tensor([1.0, 2.0, 3.0])
    found = transfer.summary(errors)
    assert found == {"n": 3, "sse": 2.0, "sse_stderr": pytest.approx(1 / 3**0.5)}
    spent = torch.tensor([[1.0, 0, 0, 2], [2, 0, 0, 2], [3, 1, 2, 3]]).double()
    found = transfer.summary(errors, spent)
    assert found["nats"] == pytest.approx(16 / 3)
    assert [found[name] for name in COSTS] == pytest.approx([2, 1 / 3, 2 / 3, 7 / 3])


# ---- encoders on disk ----------------------------------------------------------------------------


@pytest.mark.parametrize("posterior", ["root", "tree"])
def test_an_encoder_comes_back_with_its_base_and_with_no_other(posterior, images, tmp_path):
    model = build(tiny.config(posterior=posterior))
    base, path = tmp_path / "base.safetensors", tmp_path / "encoder.safetensors"
    checkpoints.save(base, model, {})
    start = checkpoints.load(base)
    adapted, _ = transfer.retrain(start, images, images=(64,))
    checkpoints.save_encoder(path, adapted, base, {"task": "7"})
    assert path.stat().st_size < base.stat().st_size

    loaded = checkpoints.load_encoder(path, base)
    assert same(parameters(loaded, False), parameters(start, False))
    for name, weight in parameters(adapted, True).items():
        off = (parameters(loaded, True)[name] - weight).abs()
        if weight.dim() < 2:
            assert not off.any(), name
        else:  # at most half of what a row is in units of
            largest, worst = (x.abs().flatten(1).amax(1) for x in (weight, off))
            assert (worst <= largest * (0.51 / 127)).all(), name
    assert not loaded.training
    about = checkpoints.metadata(path, checkpoints.ENCODER_FORMAT)
    assert (about["base"], about["task"]) == ("base", "7")

    other = tmp_path / "other.safetensors"
    checkpoints.save(other, adapted, {})
    with pytest.raises(CheckpointError, match=r"'base', and .*other.* holds other weights"):
        checkpoints.load_encoder(path, other)
    with pytest.raises(CheckpointError, match="holds a model: .* of the kind 'encoder'"):
        checkpoints.load_encoder(base, base)
    with pytest.raises(FileNotFoundError, match="rnp transfer"):
        checkpoints.load_encoder("encoder-of-nothing", base)


# ---- controls ------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A tiny task in the place of digit 7, its data, its models, and where its records go."""
    for label in "01":
        tiny.write_pngs(tmp_path / "pictures" / label, 100)
    settings = {"posterior": "tree", "reader_units": 8, "drop": 0.2, "prior_z": "symbols"}
    config = tiny.config(dataset=str(tmp_path / "pictures"), images=(16, 16), **settings)
    unseen = dataclasses.replace(config, without=(1,))
    monkeypatch.setitem(PRESETS, "tiny-no1", unseen)
    monkeypatch.setitem(TASKS, "7", TASK)
    monkeypatch.setattr(checkpoints, "DIRECTORY", tmp_path / "checkpoints")
    monkeypatch.setattr(controls, "CODE_IMAGES", 5)
    monkeypatch.setattr(controls, "DRAWS", 1)
    monkeypatch.setattr(fewshot, "DRAWN", 3)
    reads = SimpleNamespace(read=lambda x: (x[:, 0, 0, 0] > 0, torch.ones(len(x))))
    monkeypatch.setattr(fewshot, "load_classifier", lambda name: reads)
    monkeypatch.setitem(transfer.RECIPE, "images", (64,))
    for shots in SHOTS:
        monkeypatch.setitem(transfer.SHOT_STEPS, shots, 1)
    monkeypatch.setattr(transfer, "CODE_STEPS", 2)
    monkeypatch.chdir(tmp_path)
    for trial in controls.plan(TASK):
        preset, *changes = trial.start(TASK).split(",")
        made = dataclasses.replace(unseen, without=() if preset == "tiny" else (1,))
        path = checkpoints.DIRECTORY / f"{trial.start(TASK)}.safetensors"
        if not path.exists():
            checkpoints.save(path, build(made.override(changes)), {})
    return tmp_path


def rnp(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["rnp", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    return exit.value.code


def test_every_trial_of_the_plan_is_run_by_itself_and_all_make_a_record(world):
    plan = controls.plan(TASK)
    planned, paths = [t for t in plan if not t.seed or t.condition == "none"], []
    for trial in planned:
        record, adapted = controls.run("7", trial, CPU)
        assert not adapted.training
        (found,) = record["trials"]
        assert np.isfinite(found["new"]["sse"])
        for which in ("new", "old"):
            assert (which in found and "nats" in found[which]) == (trial.condition != "codes")
        trained = trial.condition not in ("none", "codes", *fewshot.KINDS)
        assert ("validation_sse" in found) == trained
        assert ("drawn" in found) == (trial.condition in fewshot.KINDS)
        paths.append(world / f"{trial.name}.json")
        paths[-1].write_text(json.dumps(record))
    few = len(FEW) * len(SHOTS) * controls.DRAWS
    assert len(plan) == 2 * len(MODELS) * (len(CONDITIONS) + len(SAW)) + few
    assert len(set(paths)) == len(paths) == len(plan) - len(MODELS) * (len(CONDITIONS))

    record = controls.collect("7", paths[::-1])
    assert [f["condition"] for f in record["trials"]] == [t.condition for t in planned]
    assert record["inputs"]["images"] == {"learn": 90, "new": 10, "old": 10}
    assert record["inputs"]["old"] == TASK.old
    bases = [trial["base"] for trial in trials.chosen(record, "tree", "none", saw=True)]
    for base, name in zip(bases, ("tiny", "tiny,seed=1"), strict=True):
        assert base["path"] == f"{name}.safetensors"
        assert base["sha256"] == sha256(checkpoints.find(name))


def test_the_models_of_a_task_differ_in_what_they_say():
    task = dataclasses.replace(TASKS["7"], models=dict.fromkeys(MODELS, 1))
    starts = [trial.start(task) for trial in controls.plan(task) if not trial.seed]
    assert len(set(starts)) == 2 * len(MODELS)
    for start in starts:
        preset, *changes = start.split(",")
        assert PRESETS[preset].override(changes).posterior == (
            "tree" if start in (task.base, task.saw) else "root"
        )
    of_omniglot = dataclasses.replace(TASKS["omniglot"], models=dict.fromkeys(MODELS, 1))
    omniglot = {trial.model: trial.start(of_omniglot) for trial in controls.plan(of_omniglot)}
    assert omniglot["root"] == "omniglot-root"
    # A root of 96 numbers and four parts of 96 with a place of 6 each.
    assert omniglot["wide"] == "omniglot,model=vae,z_dim=504"
    # What saw the digit is the same recipe but for the class.
    preset, *changes = TASKS["7"].saw.split(",")
    saw = PRESETS[preset].override(changes)
    assert dataclasses.replace(PRESETS["mnist-no7"], without=()) == saw


def sse(value):
    costs = dict(zip(COSTS, (value, 1.0, 2.0, 3.0), strict=True))
    nats = {"nats": 6 + value, "nats_stderr": 0.2}
    return {"n": 5, "sse": value, "sse_stderr": 0.5, **nats, **costs}


@pytest.fixture
def record():
    """A whole record of digit 7, with two seeds, whose SSEs are made up."""
    task = dataclasses.replace(TASKS["7"], models=dict.fromkeys(MODELS, 2))
    made = []
    for i, trial in enumerate(controls.plan(task)):
        found = {"new": sse(1.0 + i)} | ({"old": sse(90.0 + i)} if trial.model == "tree" else {})
        found |= {"drawn": {"read": 0.25}} if trial.condition in fewshot.KINDS else {}
        made.append({**dataclasses.asdict(trial), **found})
    return {"task": "7", "trials": made}


def test_numbers_are_means_over_seeds_and_draws(record):
    found = trials.numbers(record)

    def mean(*wanted, **more):
        return np.mean([t["new"]["sse"] for t in trials.chosen(record, *wanted, **more)])

    of_seeds = [mean("vae", "inference", seed=seed) for seed in (0, 1)]
    assert found["vae_inference"] == mean("vae", "inference") == np.mean(of_seeds)
    assert of_seeds[0] != of_seeds[1]
    assert trials.yardstick(record, seed=1) == mean("tree", "none", saw=True, seed=1)
    assert found["vae_inference_nats"] == pytest.approx(mean("vae", "inference") + 6)
    assert found["shots_20"] == mean("tree", "inference", shots=20)
    saw = mean("tree", "none", saw=True, seed=0)
    assert found["shots_20_ratio"] == pytest.approx(found["shots_20"] / saw)
    assert found["shots_5_rules"] == mean("tree", "rules", shots=5)
    assert found["shots_5_rules_read"] == 0.25
    assert "shots_5_read" not in found
    assert found["tree_none_old"] == pytest.approx(found["tree_none"] + 89)
    assert found["tree_saw_none_ratio"] == 1
    assert found["vae_inference_ratio"] == pytest.approx(
        found["vae_inference"] / mean("tree", "none", saw=True)
    )
    assert not [key for key in found if key.startswith("vae") and key.endswith("old")]
    table = trials.table({"digit 7": record})
    assert "there are several (tree 2, all from the root 2, plain VAE 2, " in table
    assert len(table.splitlines()) == 3 + (1 + len(MODELS)) * (len(CONDITIONS) + len(SAW))
    # The least of every row of models is starred, in SSE and in nats.
    assert table.count("*") == 1 + 2 * (len(CONDITIONS) + len(SAW))
    terms = trials.terms(record).splitlines()
    assert len(terms) == 1 + 4 + 2  # of the old characters of the VAE nothing is known
    assert terms[1].split()[-4:] == ["1.0", "2.0", "3.0", f"{found['tree_none_nats']:.1f}"]


def test_old_characters_are_shown_where_they_were_measured(record):
    def hollow(record):
        figure = plots_transfer.controls({"digit 7": record})
        figure.canvas.draw()
        lines = [line for line in figure.axes[0].lines if line.get_marker() in "osD^"]
        return [line.get_marker() for line in lines if line.get_markerfacecolor() == "white"]

    assert set(hollow(record)) == {"o"}  # no plain VAE was
    for trial in record["trials"]:
        trial.pop("old", None)
    assert hollow(record) == []
    pictures = {"input": torch.rand(3, 1, 16, 16)}
    plots_transfer.shots(pictures, {"digit 7": record}).canvas.draw()


def test_what_a_prior_makes_of_few_images_is_drawn(record):
    drawn = {"shown": torch.rand(2, 1, 16, 16), "before": torch.rand(3, 1, 16, 16)}
    figure = plots_transfer.expected(drawn, {"digit 7": record}, {"digit 7": 0.1})
    figure.canvas.draw()
    cost, read = figure.axes[-2:]
    assert len(cost.lines) >= len(fewshot.KINDS)
    shares = [line.get_ydata() for line in read.lines if len(line.get_ydata()) == 1 + len(SHOTS)]
    assert [list(share) for share in shares[:1]] == [[0.1, 0.25, 0.25, 0.25]]


def test_trials_of_several_machines_and_nothing_that_does_not_compare(world):
    def write(name, seed, inputs=None, task="7", **about):
        trial = {**dataclasses.asdict(Trial("tree", "none", seed=seed)), "new": sse(1.0)}
        inputs = {"drawers": 0.7, **(inputs or {})}
        text = json.dumps({"task": task, **about, "inputs": inputs, "trials": [trial]})
        (world / name).write_text(text)
        return world / name

    one = write("one", 1, device="cpu", note="the first")
    two = write("two", 0, {"old": "digits"}, device="cuda")
    record = controls.collect("7", [one, two])
    assert (record["device"], record["note"]) == (["cpu", "cuda"], "the first")
    assert [trial["seed"] for trial in record["trials"]] == [0, 1]
    assert record["inputs"] == {"drawers": 0.7, "old": "digits"}
    (world / "both").write_text(json.dumps(record))
    assert controls.collect("7", [world / "both"]) == record
    for other in (write("three", 2, {"drawers": 0.8}), write("four", 2, task="8")):
        with pytest.raises(ValueError, match="of another task, or of other data or settings"):
            controls.collect("7", [one, other])
    for text in ("no json", "[1]", '{"inputs": 1}', '{"task": "7", "inputs": {}, "trials": [{}]}'):
        (world / "broken").write_text(text)
        with pytest.raises(ValueError, match="broken is no record of transfer"):
            controls.collect("7", [world / "broken"])


@pytest.mark.parametrize(
    ("trial", "base"),
    [
        (Trial("tree", "none", seed=1), "tiny-no1"),
        (Trial("vae", "none"), "tiny-no1"),
        (Trial("root", "none"), "tiny-no1"),
        (Trial("wide", "none"), "tiny-no1,model=vae"),
        (Trial("tree", "none"), "tiny"),
        (Trial("tree", "none", saw=True), "tiny-no1"),
    ],
)
def test_a_trial_starts_from_the_model_it_says(world, trial, base):
    with pytest.raises(ValueError, match="is not the model that the trial starts from"):
        controls.run("7", trial, CPU, base)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"condition": "everything", "shots": 1}, "of few images only inference, root, "),
        ({"condition": "rules"}, "'rules' learns from few images: say how many shots"),
        ({"condition": "inference", "shots": 2}, "shots must be one of"),
        ({"condition": "error", "saw": True}, "need not be retrained: got 'error'"),
    ],
)
def test_a_trial_that_makes_no_sense_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Trial("tree", **settings)


def test_means_over_trials_and_over_images():
    three = [{"new": {"sse": sse, "sse_stderr": 0.5}} for sse in (1.0, 2.0, 3.0)]
    assert trials.mean(three) == pytest.approx((2, 1 / 3**0.5))
    assert trials.mean(three[2:]) == (3, 0.5)
    assert trials.mean(three, which="old") is None
    assert trials.mean(three, "nats") is None
    assert trials.mean([]) is None


# ---- the command line ----------------------------------------------------------------------------


def test_the_command_retrains_an_encoder(world, monkeypatch):
    assert not rnp(monkeypatch, "transfer", "7", "--device", "cpu", "--set", "jitter=0.2")
    path = "runs/encoder-7.safetensors"
    about = checkpoints.metadata(path, checkpoints.ENCODER_FORMAT)
    assert (about["task"], about["condition"], about["seed"]) == ("7", "inference", 0)
    assert about["recipe"] == {**transfer.RECIPE, "images": [64], "jitter": 0.2}
    adapted = checkpoints.load_encoder(path, "tiny-no1")
    images, digests = transfer.load(TASK)
    assert about["data_sha256"] == digests
    found = transfer.scores(adapted, images)
    assert found["new"]["sse"] == pytest.approx(about["after"]["new"]["sse"], rel=1e-2)


def test_the_commands_run_a_trial_and_collect_it(world, monkeypatch, capsys):
    options = [
        "--model",
        "vae",
        "--seed",
        1,
        "--base",
        "checkpoints/tiny-no1,model=vae,seed=1.safetensors",
    ]
    settings = ["--set", "images=128", "--device", "cpu", "--out", "one.json"]
    assert not rnp(monkeypatch, "transfer", "7", *options, *settings)
    (trial,) = json.loads((world / "one.json").read_text())["trials"]
    assert (trial["model"], trial["condition"], trial["seed"]) == ("vae", "inference", 1)
    none = ["--condition", "none", "--saw", "--set", "images=128", "--out", "two.json"]
    assert not rnp(monkeypatch, "transfer", "7", *none)
    assert not rnp(monkeypatch, "collect", "7", "one.json", "two.json")
    assert "inference retrained" in capsys.readouterr().out
    record = json.loads((world / "figures" / "transfer_7.json").read_text())
    assert record["inputs"]["recipe"]["images"] == [128]
    assert record["trials"][1] == trial


def test_the_command_answers_a_mistake_in_one_line(world, monkeypatch):
    assert rnp(monkeypatch, "transfer", "9") != 0
    wrong = {
        ("--condition", "none"): "rnp: no encoder comes out of 'none'",
        ("--set", "sigma=1"): "rnp: unknown setting sigma",
        ("--base", "nothing"): "rnp: no checkpoint 'nothing'",
    }
    for options, start in wrong.items():
        message = rnp(monkeypatch, "transfer", "7", "--device", "cpu", *options)
        assert message.startswith(start)
        assert "\n" not in message


# ---- old parts in new digits ---------------------------------------------------------------------


def test_the_nearest_part_is_found():
    generator = torch.Generator().manual_seed(0)
    known, parts = (torch.randn(n, 4, 5, generator=generator) for n in (90, 70))
    indices, distances = reuse.nearest_parts(known, parts)
    for m, t in ((0, 0), (13, 2), (69, 3)):
        every = [(float((parts[m, t] - z).norm()), i) for i, z in enumerate(known.flatten(0, 1))]
        assert (float(distances[m, t]), int(indices[m, t])) == pytest.approx(min(every))
    indices, distances = reuse.nearest_parts(known, known[5:6])
    assert indices.tolist() == [[20, 21, 22, 23]]


@torch.no_grad()
def test_a_tree_with_its_own_parts_is_itself_and_with_others_is_not(model, images):
    tree = model.parse(images[:6])
    parts = of_level(model, images[:6], 1)
    assert parts.shape == (6, 2, 8)
    torch.testing.assert_close(reuse.with_parts(model, tree, parts), tree.parts)
    other = reuse.with_parts(model, tree, parts.flip(0))
    assert (other.sum(1) - tree.canvas).abs().max() > 1e-4
    found = reuse.borrow(model, images[2:4], parts)
    assert found.nearest.tolist() == [[4, 5], [6, 7]]
    torch.testing.assert_close(found.drawn, tree[2:4].parts)


def test_scores_of_reuse_by_hand(model, images):
    """Images among the known ones borrow their own parts; others lose by it, and by chance more."""
    known = of_level(model, images[:40], 1)
    labels = torch.arange(40) % 2 * 3
    scores = reuse.reuse_scores(model, images[:40:2], known, labels)
    assert scores["sse_borrowed"] == pytest.approx(scores["sse"], rel=1e-5)
    assert scores["distance"] == pytest.approx(0, abs=1e-3)
    assert scores["share_0"] + scores["share_3"] == pytest.approx(1)
    few = reuse.reuse_scores(model, images[:40], known[:1], labels[:1])
    assert few["sse_borrowed"] == pytest.approx(few["sse_random"], rel=0.5)
    assert few["share_0"] == 1
    assert few["distance"] > scores["distance"]


@torch.no_grad()
def test_figures_of_transfer_show_what_they_should(model, images):
    x, tree = images[:2], model.parse(images[:2])
    turns = torch.tensor([1, 0])
    donors = [(model.parse(images[t : t + 2]), turns, torch.tensor([3, 9])) for t in range(2)]
    figure = plots_transfer.reuse(x, tree, donors, tree.parts)
    assert len(figure.axes) == 2 * (3 + 2 * 2)
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert sorted(labels) == ["3", "3", "9", "9"]
    plain = plots.parsing(x, tree)
    with_before = plots.parsing(x, tree, before=tree.canvas)
    assert len(with_before.axes) == len(plain.axes) + 2
    assert [a.get_ylabel() for a in with_before.axes[:3]] == ["input", "before", "after"]
