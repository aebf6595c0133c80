"""Speed, as ratios within one run on one machine: models beside what they are measured against."""

import dataclasses
import multiprocessing
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist

from rnp_lib import data
from rnp_lib.baselines import NaivePort, build
from rnp_lib.config import PRESETS
from rnp_lib.flops import counted_flops, flops_per_image
from rnp_lib.model import ImageModel
from rnp_lib.step import Step
from rnp_lib.trainer import Objective, Trainer, make_optimisers

GOALS = (20, 10, 7)  # validation SSE per image; a blank canvas scores 89

# All rows have the light image encoder and Adam, at a rate that lets no weight grow.
PAPER = dataclasses.replace(PRESETS["paper-mnist"], encoder="light", lr=1e-5)
OURS = dataclasses.replace(PRESETS["mnist"], optimiser="adam", lr=1e-5)
CONFIGS = {
    "naive_full": dataclasses.replace(PAPER, precision="float32"),
    "full_float32": dataclasses.replace(PAPER, precision="float32"),
    "full": PAPER,
    "factorised_float32": dataclasses.replace(OURS, precision="float32"),
    "factorised": OURS,
    "vae": dataclasses.replace(OURS, model="vae"),
}


def make(name: str) -> ImageModel:
    """The model of a row of the benchmark."""
    model = build(CONFIGS[name])
    return NaivePort(model) if name.startswith("naive") else model


def limits(device: torch.device) -> dict[str, float]:
    """What the machine can do: matrix products (GFLOP/s) and memory copies (GB/s moved)."""
    big = torch.empty(2**26, device=device)
    target = torch.empty_like(big)
    copy = min(_seconds(lambda: target.copy_(big), device) for _ in range(5))
    moved = 2 * big.numel() * big.element_size()
    return {
        "matmul_gflops": _matmul_gflops(device, torch.float32),
        "matmul_bfloat16_gflops": _matmul_gflops(device, torch.bfloat16),
        "copy_gb_s": moved / copy / 1e9,
    }


def _matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    n = 2048 if device.type == "cpu" else 8192
    a = torch.randn(n, n, device=device).to(dtype)
    return 2 * n**3 / min(_seconds(lambda: a @ a, device) for _ in range(5)) / 1e9


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


class Row:
    """One model with its training step, as the trainer takes it, and its parse in float32."""

    def __init__(self, model: ImageModel, batch: int, device: torch.device):
        c = model.config
        self.model, self.device = model.to(device).train(), device
        self.x = torch.rand(batch, 1, c.image_size, c.image_size, device=device)
        replay = device.type == "cuda" and not isinstance(model, NaivePort)
        self.step = Step(Objective(model), make_optimisers(model), c, self.x, replay)
        self.step.x.copy_(self.x)
        self.step.noise.normal_()
        self.train_times, self.parse_times = [], []

    def train_step(self) -> None:
        self.step(self.model.config.depth)

    @torch.no_grad()
    def parse(self) -> None:
        self.model.parse(self.x)

    def measure(self) -> None:
        self.train_times.append(_seconds(self.train_step, self.device))
        self.parse_times.append(_seconds(self.parse, self.device))


def measure(rows: dict[str, Row], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Images per second, median and quartiles, the rows taking turns after a warm-up."""
    for number in range(rounds + 2):
        for row in rows.values():
            row.measure()
            if number < 2:
                row.train_times.clear()
                row.parse_times.clear()

    def speed(row, times):
        low, middle, high = statistics.quantiles(times, n=4)
        batch = len(row.x)
        return {"median": batch / middle, "low": batch / high, "high": batch / low}

    return {
        "train": {name: speed(row, row.train_times) for name, row in rows.items()},
        "parse": {name: speed(row, row.parse_times) for name, row in rows.items()},
    }


def peak_memory_mb(name: str, batch: int, device: torch.device) -> float:
    """Most memory that training steps of a row need, weights and all; on a CPU in a new process."""
    if device.type == "cuda":
        return _grown_by_training(name, batch, device)
    with _new_processes(1) as process:
        return process.submit(_grown_by_training, name, batch, device).result()


def _new_processes(number: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(number, mp_context=multiprocessing.get_context("spawn"))


def _grown_by_training(name: str, batch: int, device: torch.device) -> float:
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if on_gpu else _most_resident()
    row = Row(make(name), batch, device)
    for _ in range(4):  # on a GPU the fourth is a replay
        row.train_step()
    after = torch.cuda.max_memory_allocated(device) if on_gpu else _most_resident()
    return (after - before) / 1e6


def _most_resident() -> int:
    """Bytes that this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where ru_maxrss includes what the parent held
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS, in bytes


def run(device: torch.device, batch: int = 128, rounds: int = 9) -> dict:
    """The whole benchmark, every row with the same batch."""
    memory = {name: peak_memory_mb(name, batch, device) for name in CONFIGS}
    rows = {name: Row(make(name), batch, device) for name in CONFIGS}
    flops = {name: flops_per_image(row.model.cpu()) for name, row in rows.items()}
    for row in rows.values():
        row.model.to(device)
    speeds = measure(rows, rounds)
    machine = limits(device)
    result = {
        "machine": {
            "device": str(device),
            "chip": _chip(device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "batch": batch,
        "precision": {name: str(row.step.dtype).split(".")[1] for name, row in rows.items()},
        "limits": machine,
        "flops_per_image": flops,
        "counted_flops_per_image": {n: counted_flops(r.model, r.x) for n, r in rows.items()},
        "peak_memory_mb": memory,
    }
    for work in ("train", "parse"):
        result[f"{work}_images_per_s"] = {n: s["median"] for n, s in speeds[work].items()}
        result[f"{work}_spread"] = speeds[work]
    # A training step costs about three times its forward pass.
    result["train_share_of_matmul"] = {
        n: 3 * flops[n] * speeds["train"][n]["median"] / machine["matmul_gflops"] / 1e9
        for n in rows
    }
    result["growth_ms"] = growth(device, rounds)
    if device.type == "cpu":
        result["time_shares"] = {name: time_shares(name, batch) for name in CONFIGS}
        result["processes_images_per_s"] = processes()
    return result


def _chip(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return getattr(torch.cpu, "get_capabilities", dict)().get("cpu_name") or platform.machine()


# What names of operations contain, for `time_shares`; the first that fits counts.
KINDS = {
    "convolutions": ("convolution",),
    "matrix_products": ("mm", "_Use", "CollectUses"),
    "sampling": ("grid_sampler",),
    "update": ("adam", "lerp", "foreach", "zero_grad", "vector_norm"),
}


def time_shares(name: str, batch: int) -> dict[str, float]:
    """Where a training step of a row spends its time on a CPU: shares of each of KINDS and `rest`.

    The rest is elementwise work, copies and the cost of calling many small operations.
    """
    with _new_processes(1) as process:
        times = process.submit(_profiled, name, batch, torch.get_num_threads()).result()
    shares = dict.fromkeys([*KINDS, "rest"], 0.0)
    for operation, seconds in times.items():
        fitting = (kind for kind, words in KINDS.items() if any(w in operation for w in words))
        shares[next(fitting, "rest")] += seconds / sum(times.values())
    return shares


def _profiled(name: str, batch: int, threads: int) -> dict[str, float]:
    """Time of each operation itself, in a process of its own: the profiler writes to stderr."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(threads)
    row = Row(make(name), batch, torch.device("cpu"))
    for _ in range(3):
        row.train_step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        row.train_step()
    return {event.key: event.self_cpu_time_total for event in profile.key_averages()}


def processes() -> dict[str, float]:
    """Images per second of `rnp train mnist` by processes x threads, on CPU cores."""
    cores = torch.get_num_threads()
    return {
        f"{number}x{threads}": _speed_of_processes(number, threads)
        for number, threads in dict.fromkeys([(1, 1), (1, cores), (cores, 1)])
    }


def _speed_of_processes(number: int, threads: int) -> float:
    with tempfile.TemporaryDirectory() as folder, _new_processes(number) as pool:
        place = f"file://{folder}/meeting"
        shares = [pool.submit(_train_share, r, number, threads, place) for r in range(number)]
        return min(share.result() for share in shares)


def _train_share(rank: int, world: int, threads: int, place: str) -> float:
    torch.set_num_threads(threads)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=world)
    side = PRESETS["mnist"].image_size
    trainer = Trainer(
        PRESETS["mnist"], torch.rand(3000, 1, side, side), Path(), torch.device("cpu")
    )
    times = [_seconds(trainer.train_step, trainer.device) for _ in range(25)]
    dist.destroy_process_group()
    return trainer.config.batch_size / statistics.median(times[5:])


def learn(device: torch.device) -> dict[str, dict[str, dict[str, float]]]:
    """Minutes and images of training until the validation SSE on MNIST is down to each of GOALS.

    The recipe and the plain VAE trained by it. Only training is timed; both are validated every 50
    steps, on their averaged weights.
    """
    images, _ = data.load("mnist", "train")
    found = {}
    for model in ("rnp", "vae"):
        trainer = Trainer(PRESETS["mnist"].override([f"model={model}"]), images, Path(), device)
        seconds, found[model] = 0.0, {}
        while trainer.step < trainer.total and len(found[model]) < len(GOALS):
            seconds += _seconds(lambda t=trainer: [t.train_step() for _ in range(50)], device)
            sse, seen = trainer.validate(), trainer.step * trainer.config.batch_size
            for goal in GOALS:
                if sse <= goal:
                    reached = {"minutes": seconds / 60, "images": seen}
                    found[model].setdefault(f"sse_{goal}", reached)
    return found


def growth(device: torch.device, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a training step of the factorised model as batch, depth and τ grow."""
    sizes = {
        **{f"batch_{b}": (OURS, b) for b in (32, 128, 512)},
        **{f"depth_{k}": (dataclasses.replace(OURS, tau=(4,) * k), 64) for k in (1, 2, 3)},
        **{f"tau_{t}": (dataclasses.replace(OURS, tau=(t, t)), 64) for t in (2, 4, 8)},
    }
    found = {}
    for name, (config, batch) in sizes.items():
        row = Row(build(config), batch, device)
        speeds = measure({name: row}, rounds)
        found[name] = 1000 * batch / speeds["train"][name]["median"]
    return found


def report(result: dict) -> str:
    """The benchmark as a table for people."""
    machine, flops = result["limits"], result["flops_per_image"]
    lines = [
        f"{result['machine']['chip']} ({result['machine']['device']}), "
        f"{result['machine']['threads']} threads, batch {result['batch']}; matrix product "
        f"{machine['matmul_gflops']:.0f} GFLOP/s (bfloat16 "
        f"{machine['matmul_bfloat16_gflops']:.0f}), memory copy {machine['copy_gb_s']:.0f} GB/s",
        "",
        f"{'':19}{'':9}{'train/s':>9}{'(quartiles)':>14}{'parse/s':>9}{'MFLOP/image':>13}"
        f"{'counted':>9}{'of limit':>10}{'MB':>7}",
    ]
    for name, spread in result["train_spread"].items():
        quartiles = f"({spread['low']:.0f}-{spread['high']:.0f})"
        lines.append(
            f"{name:19}{result['precision'][name]:9}{spread['median']:9.0f}{quartiles:>14}"
            f"{result['parse_images_per_s'][name]:9.0f}{flops[name] / 1e6:13.1f}"
            f"{result['counted_flops_per_image'][name] / 1e6:9.1f}"
            f"{result['train_share_of_matmul'][name]:10.0%}{result['peak_memory_mb'][name]:7.0f}"
        )
    train = result["train_images_per_s"]
    pairs = [("full", "naive_full"), ("full_float32", "naive_full"), ("factorised", "naive_full")]
    pairs += [("factorised", "vae")]
    lines += [
        "",
        "MFLOP of a forward pass; 'of limit' is the share of the float32 matrix-product rate that",
        "training reaches, at three times as many; MB is the most memory a training step needs.",
        "",
        *(f"training, {a} / {b}: {train[a] / train[b]:.2f}" for a, b in pairs),
        "",
        "milliseconds of a training step of the factorised model:",
        *(f"{name:>12}{milliseconds:9.1f}" for name, milliseconds in result["growth_ms"].items()),
    ]
    if "time_shares" in result:
        kinds = result["time_shares"]["full"]
        lines += ["", "share of a training step's time:", f"{'':19}" + "".join(map(_cell, kinds))]
        lines += [
            f"{name:19}" + "".join(_cell(f"{share:.0%}") for share in shares.values())
            for name, shares in result["time_shares"].items()
        ]
    if "processes_images_per_s" in result:
        lines += ["", "images per second of `rnp train mnist`, processes x threads:"]
        lines += [f"{name:>12}{v:9.0f}" for name, v in result["processes_images_per_s"].items()]
    if "learn" in result:
        lines += ["", "training until the validation SSE on MNIST is down to:"]
        lines += [
            f"{model:>8}, {goal}: {reached['minutes']:.1f} minutes, {reached['images']:,} images"
            for model, goals in result["learn"].items()
            for goal, reached in goals.items()
        ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return f"{text:>17}"
