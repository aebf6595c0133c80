"""Speed, as ratios within one run on one machine: models beside what they are measured against."""

import dataclasses
import platform
from pathlib import Path

import torch

from rnp_lib import data
from rnp_lib.bench.isolated import peak_memory_mb, processes, time_shares
from rnp_lib.bench.rows import CONFIGS, OURS, Row, make, measure, seconds
from rnp_lib.data import splits
from rnp_lib.model import build
from rnp_lib.presets import PRESETS
from rnp_lib.training.step import precision
from rnp_lib.training.trainer import Trainer

GOALS = (20, 10, 7, 4)  # validation SSE per image; a blank canvas scores 89


def run(device: torch.device, batch: int = 128, rounds: int = 9) -> dict:
    """The whole benchmark, every row with the same batch."""
    memory = {name: peak_memory_mb(name, batch, device) for name in CONFIGS}
    rows = {name: Row(make(name), batch, device) for name in CONFIGS}
    speeds, machine = measure(rows, rounds), limits(device)
    flops = {name: row.flops() for name, row in rows.items()}
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
        "peak_memory_mb": memory,
    }
    for work, found in speeds.items():
        result[f"{work}_images_per_s"] = {n: s["median"] for n, s in found.items()}
        result[f"{work}_spread"] = found
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


def limits(device: torch.device) -> dict[str, float]:
    """What the machine can do: matrix products (GFLOP/s) and memory copies (GB/s moved)."""
    big = torch.empty(2**26, device=device)
    target = torch.empty_like(big)
    copy = min(seconds(lambda: target.copy_(big), device) for _ in range(5))
    moved = 2 * big.numel() * big.element_size()
    return {
        "matmul_gflops": _matmul_gflops(device, torch.float32),
        "matmul_bfloat16_gflops": _matmul_gflops(device, torch.bfloat16),
        "copy_gb_s": moved / copy / 1e9,
    }


def _matmul_gflops(device: torch.device, dtype: torch.dtype) -> float:
    n = 2048 if device.type == "cpu" else 8192
    if dtype not in (torch.float32, precision(PRESETS["mnist"], device)):
        n = 256  # emulated: a large product would take minutes
    a = torch.randn(n, n, device=device).to(dtype)
    return 2 * n**3 / min(seconds(lambda: a @ a, device) for _ in range(5)) / 1e9


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


def learn(device: torch.device) -> dict[str, dict[str, dict[str, float]]]:
    """Minutes and images of training until the validation SSE on MNIST is down to each of GOALS.

    The recipes with the posterior of the root alone (`rnp`) and of the whole tree (`tree`), and the
    plain VAE trained by the latter, each to its last goal or to the end. Only training is timed;
    all are validated every 50 steps, on their averaged weights.
    """
    images, labels = data.load("mnist", "train")
    split = splits.validation("mnist", images, labels)
    known, held_out = images[split.train], images[split.validation]
    found = {}
    recipes = {"rnp": PRESETS["mnist-root"], "tree": PRESETS["mnist"]}
    recipes["vae"] = dataclasses.replace(recipes["tree"], model="vae")
    for name, config in recipes.items():
        trainer = Trainer(config, known, held_out, Path(), device)
        spent, found[name] = 0.0, {}
        while trainer.step < trainer.total and len(found[name]) < len(GOALS):
            steps = range(min(50, trainer.total - trainer.step))
            spent += seconds(lambda t=trainer, n=steps: [t.train_step() for _ in n], device)
            sse, seen = trainer.validate(), trainer.step * trainer.config.batch_size
            for goal in GOALS:
                if sse <= goal:
                    reached = {"minutes": spent / 60, "images": seen}
                    found[name].setdefault(f"sse_{goal}", reached)
    return found
