"""Speed, as ratios within one run on one machine: models beside what they are measured against."""

import dataclasses
import platform
from pathlib import Path

import torch

from rnp_lib import data
from rnp_lib.bench.flops import counted_flops, flops_per_image
from rnp_lib.bench.isolated import peak_memory_mb, processes, time_shares
from rnp_lib.bench.rows import CONFIGS, OURS, Row, make, measure, seconds
from rnp_lib.config import PRESETS
from rnp_lib.data import splits
from rnp_lib.model import build
from rnp_lib.training.trainer import Trainer

GOALS = (20, 10, 7)  # validation SSE per image; a blank canvas scores 89


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

    The recipe and the plain VAE trained by it. Only training is timed; both are validated every 50
    steps, on their averaged weights.
    """
    images, labels = data.load("mnist", "train")
    split = splits.validation("mnist", images, labels)
    known, held_out = images[split.train], images[split.validation]
    found = {}
    for model in ("rnp", "vae"):
        config = PRESETS["mnist"].override([f"model={model}"])
        trainer = Trainer(config, known, held_out, Path(), device)
        spent, found[model] = 0.0, {}
        while trainer.step < trainer.total and len(found[model]) < len(GOALS):
            spent += seconds(lambda t=trainer: [t.train_step() for _ in range(50)], device)
            sse, seen = trainer.validate(), trainer.step * trainer.config.batch_size
            for goal in GOALS:
                if sse <= goal:
                    reached = {"minutes": spent / 60, "images": seen}
                    found[model].setdefault(f"sse_{goal}", reached)
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
