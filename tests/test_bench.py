"""The benchmark compares like with like: same results, honest counts."""

import dataclasses
import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch
from click.testing import CliRunner

import rnp_lib as rnp
from rnp_lib import checkpoints, data, plots
from rnp_lib.bench import gpu
from rnp_lib.bench import isolated as bench_isolated
from rnp_lib.bench import run as bench
from rnp_lib.bench.naive import NaivePort
from rnp_lib.bench.report import ratios, report
from rnp_lib.cli import commands
from rnp_lib.model.objective import terms

CPU = torch.device("cpu")
PARTS = ("head", "bias")  # of a generated layer: its matrix and, for most, its bias
PAPER = dataclasses.replace(rnp.PRESETS["paper-mnist"], encoder="light")


def batch(config, dtype, n=3):
    x = torch.rand(n, 1, config.image_size, config.image_size, dtype=dtype)
    return x, torch.randn(n, config.z_dim, dtype=dtype)


@pytest.mark.parametrize("changes", [{}, {"tau": (2, 3), "patch_size": 14}])
def test_the_naive_port_computes_what_the_model_computes(changes):
    model = rnp.RNP(dataclasses.replace(PAPER, **changes)).double()
    naive = NaivePort(model).double()
    x, noise = batch(model.config, torch.float64)
    ours, theirs = terms(model, x, noise), terms(naive, x, noise)
    for name in ours._fields:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=0)
    torch.testing.assert_close(model.parse(x).canvas, naive.parse(x).canvas, rtol=1e-5, atol=1e-8)


def gradients(model, x, noise, bfloat16=False):
    """The terms of the objective and their gradient by parameter name."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, bfloat16):
        computed = terms(model, x, noise)
    computed.loss(model.config.sigma2, model.config.part_weight).backward()
    return computed, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def relative_error(a, b):
    return ((a - b).norm() / b.norm()).item()


def test_and_so_do_its_gradients_in_float32():
    model = rnp.RNP(PAPER)
    with torch.no_grad():  # untrained recurrences amplify any difference; smaller ones do not
        for layer in model.hypernet.layers.values():
            layer.head.weight.mul_(0.5)
    naive = NaivePort(model)
    x, noise = batch(model.config, torch.float32)
    (_, ours), (_, theirs) = gradients(model, x, noise), gradients(naive, x, noise)
    heads = [f"hypernet.layers.{name}.{part}.weight" for name in naive.shapes for part in PARTS]
    ours = torch.cat([ours[name] for name in heads if name in ours])
    assert relative_error(ours, theirs["head.weight"]) < 1e-4


def test_bfloat16_keeps_outputs_to_two_percent():
    model = rnp.RNP(PAPER)
    x, noise = batch(model.config, torch.float32, n=16)
    with torch.autocast("cpu", torch.bfloat16):
        ours = terms(model, x, noise)
    theirs = terms(NaivePort(model), x, noise)
    for name in ours._fields:
        assert relative_error(getattr(ours, name), getattr(theirs, name)) < 0.02


@pytest.mark.full_data
@pytest.mark.parametrize(("name", "most"), [("mnist-root", 0.25), ("mnist", 0.5)])
def test_bfloat16_disturbs_gradients_less_than_sampling_z_does(name, most):
    """In a trained model; an untrained one amplifies any difference, as reading what earlier parts
    left of the image does a little."""
    model = rnp.load(name).train()
    x = rnp.data.load("mnist", "test")[0][:64]
    noise, other = torch.randn(2, 64, model.config.noise)

    def flat(noise, bfloat16=False):
        found = gradients(model, x, noise, bfloat16)[1].values()
        return torch.cat([gradient.flatten().clone() for gradient in found])

    exact = flat(noise)
    error = relative_error(flat(noise, bfloat16=True), exact)
    assert error < most
    assert error < relative_error(flat(other), exact)


def test_the_paper_s_model_needs_what_its_layers_need():
    """Two for every weight wherever it is used; trunk and initial states are a hundredth."""
    generated = sum(layer.generated for layer in rnp.RNP(PAPER).hypernet.layers.values())
    program = 64 * generated + 4 * generated  # the heads, and four steps
    convolutions = 14**2 * (16 * 32 + 2 * 9 * 32**2) + 7**2 * (16 + 2 * 9) * 32**2
    encoder = convolutions + 7**2 * 32 * 256 + 256 * 64
    for name in ("naive_full", "full"):
        flops = bench.Row(bench.make(name), 2, CPU).flops()
        assert flops == pytest.approx(2 * (5 * program + encoder), rel=0.01)


def test_a_tree_also_needs_what_reading_and_the_grammar_need():
    """Four times, for every child of the root; that the leaves follow costs nothing."""
    look, z, u = 2 * 16**2, 32, 6  # the image and what is left of it
    where = (look + z + u) * 128 + 128**2 + 128 * 2 * u
    what = look * 256 + 256**2 + 256 * 2 * z
    grammar = z * (z + u)
    root, tree = (bench.Row(bench.make(name), 2, CPU) for name in ("factorised", "tree"))
    assert tree.flops() - root.flops() == 2 * 4 * (where + what + grammar)


def test_a_tree_s_step_learns_from_images_that_are_seen_and_not():
    row = bench.Row(bench.make("tree"), 10, CPU)
    assert row.step.seen.tolist() == [0] * 2 + [1] * 8
    parts = {"reader": row.model.reader, "grammar": row.model.grammar}
    before = {name: [p.clone() for p in part.parameters()] for name, part in parts.items()}
    row.train_step()
    for name, part in parts.items():
        assert all(
            not torch.equal(b, p) for b, p in zip(before[name], part.parameters(), strict=True)
        )
    root = bench.Row(bench.make("factorised"), 10, CPU)
    assert root.step.seen.all()


def test_rows_of_a_tree_and_of_its_root_differ_in_nothing_else():
    for kind in ("", "_float32"):
        tree, root = (bench.CONFIGS[name + kind] for name in ("tree", "factorised"))
        assert (tree.posterior, root.posterior) == ("tree", "root")
        same = {"batch_size": root.batch_size, "images": root.images}  # rows set their own
        assert dataclasses.replace(tree, posterior="root", **same) == root


def test_a_vae_is_trained_by_its_step():
    row = bench.Row(bench.make("vae"), 2, CPU)
    decoder = list(row.model.decoder.parameters())
    before = [p.clone() for p in decoder]
    row.train_step()
    assert all(not torch.equal(b, p) for b, p in zip(before, decoder, strict=True))


def test_peak_memory_grows_with_the_batch():
    small, large = (bench.peak_memory_mb("vae", size, CPU) for size in (2, 512))
    assert 0 <= small < large


@pytest.mark.full_data
def test_learning_is_timed_until_each_goal(monkeypatch):
    monkeypatch.setattr(bench, "GOALS", (300, 200))  # any model is there at once
    for name in ("mnist", "mnist-root"):
        small = bench.PRESETS[name].override(["batch_size=8"])
        monkeypatch.setitem(bench.PRESETS, name, small)
    found = bench.learn(CPU)
    assert found.keys() == {"rnp", "tree", "vae"}
    for reached in found.values():
        assert reached.keys() == {"sse_300", "sse_200"}
        assert all(goal["images"] == 400 and goal["minutes"] > 0 for goal in reached.values())


def test_learning_that_misses_a_goal_ends_with_its_recipe(monkeypatch):
    monkeypatch.setattr(bench, "GOALS", (300, 0))
    for name in ("mnist", "mnist-root"):
        small = bench.PRESETS[name].override(["batch_size=8", "images=480"])  # 60 steps
        monkeypatch.setitem(bench.PRESETS, name, small)
    assert {tuple(reached) for reached in bench.learn(CPU).values()} == {("sse_300",)}


def test_the_record_the_table_and_the_plot_have_every_row(monkeypatch):
    monkeypatch.setattr(bench, "growth", lambda device, rounds: {"batch_32": 1.0, "depth_2": 2.0})
    monkeypatch.setattr(bench, "peak_memory_mb", lambda name, batch, device: 1.0)
    monkeypatch.setattr(bench_isolated, "_train_share", lambda rank, world, threads, place: 1.0)
    times = {"aten::addmm": 3.0, "autograd::evaluate: ConvolutionBackward": 0.0, "aten::elu": 1.0}
    monkeypatch.setattr(bench_isolated, "_profiled", lambda name, batch, threads: times)
    monkeypatch.setattr(bench_isolated, "_new_processes", ThreadPoolExecutor)
    result = json.loads(json.dumps(bench.run(CPU, batch=2, rounds=2)))
    for key in ("train_images_per_s", "parse_images_per_s", "flops_per_image", "peak_memory_mb"):
        assert result[key].keys() >= {"naive_full", "full", "factorised", "tree", "vae"}
        assert all(value > 0 for value in result[key].values())
    assert result["limits"].keys() >= {"matmul_gflops", "copy_gb_s"}
    assert result["precision"]["naive_full"] == "float32"
    assert result["processes_images_per_s"].keys() >= {"1x1"}
    shares = result["time_shares"]["full"]
    assert (shares["matrix_products"], shares["rest"], sum(shares.values())) == (0.75, 0.25, 1)
    result["learn"] = {"rnp": {"sse_7": {"minutes": 1.5, "images": 128_000}}, "vae": {}}
    table = report(result)
    assert bench.CONFIGS.keys() <= set(table.split())
    assert re.search("rnp +sse_7 +1.5 minutes +128,000 images", table)
    assert all(name in table for name in ratios(result))
    bars, growth = plots.speed(result).axes
    assert [label.get_text() for label in bars.get_yticklabels()] == list(bench.CONFIGS)
    assert len(growth.lines) == 2


def test_a_ratio_names_the_types_of_both_rows():
    speeds = dict(naive_full=10, full_float32=20, full=30, factorised_float32=40, factorised=50)
    speeds |= dict(tree_float32=32, tree=40)
    types = dict.fromkeys((*speeds, "vae"), "float32") | dict.fromkeys(
        ("full", "factorised", "tree", "vae"), "bfloat16"
    )
    found = ratios({"train_images_per_s": {**speeds, "vae": 100}, "precision": types})
    assert found == {
        "full_float32 (float32) / naive_full (float32)": 2,
        "full (bfloat16) / naive_full (float32)": 3,
        "factorised_float32 (float32) / naive_full (float32)": 4,
        "factorised (bfloat16) / naive_full (float32)": 5,
        "factorised_float32 (float32) / tree_float32 (float32)": 1.25,
        "factorised (bfloat16) / tree (bfloat16)": 1.25,
        "factorised (bfloat16) / vae (bfloat16)": 0.5,
    }


def test_the_profile_of_a_step_has_its_products():
    assert bench.time_shares("vae", 2)["convolutions"] > 0


def test_two_processes_measure_one_training():
    assert bench_isolated._speed_of_processes(2, 1) > 0


def test_all_that_waits_for_a_gpu_can_be_tried_on_a_cpu(monkeypatch, tmp_path):
    small = {"images": (80, 80), "batch_size": 8, "image_size": 28, "warmup": 2}
    config = tiny.config(**small)
    monkeypatch.setattr(gpu, "PRESETS", {"mnist": config, "paper-mnist": config})
    monkeypatch.setattr(gpu, "AT_ONCE", 3)
    monkeypatch.setattr(gpu.bench, "run", lambda device: {"device": str(device)})
    digits = torch.rand(60, 1, 28, 28), torch.arange(60) % 10
    monkeypatch.setattr(data, "load", lambda *_: digits)
    arguments = ["gpu", "--device", "cpu", "--share", "0.5", "--out", str(tmp_path)]
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "gpu.json").read_text())
    skipped = not torch.cuda.is_available()
    assert ("skipped" in record["tests"][0]) == skipped
    assert record["bench"] == {"device": "cpu"}
    assert record["paper"]["epochs"] == pytest.approx(20 * 8 / 54)  # time for all of it
    model = checkpoints.load(tmp_path / "mnist" / "model.safetensors")
    assert model.config.images == (40, 40)
    monkeypatch.setattr(gpu, "MINUTES", 0.0)
    late = gpu.run(CPU, tmp_path / "late")
    assert late["paper"]["epochs"] == pytest.approx(3 * 8 / 54)  # once round in any case
