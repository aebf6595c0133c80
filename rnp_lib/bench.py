"""Speed, as ratios within one run on one machine: models beside what they are measured against."""

import dataclasses
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rnp_lib.baselines import NaivePort, PlainVAE
from rnp_lib.config import PRESETS, Config
from rnp_lib.hypernet import FullLinear
from rnp_lib.model import RNP
from rnp_lib.objective import terms


def flops_per_image(model: RNP | PlainVAE) -> int:
    """Floating-point operations of one image forward, by formula: matrix products and convolutions.

    A program counts its trunk and heads once and its generated layers once for each of its τ steps.
    """
    c = model.config
    total = _layer_flops(model.encoder, torch.zeros(1, 1, c.image_size, c.image_size))
    if isinstance(model, PlainVAE):
        return total + _layer_flops(model.decoder, torch.zeros(1, c.z_dim))
    net, programs = model.hypernet, 1
    for tau in c.tau:
        once = _layer_flops(net.trunk, torch.zeros(1, c.z_dim))
        starts = [net.state_0, net.policy_0, net.action_0]
        starts += [net.patch_0] if c.feedback != "none" else []
        once += sum(_layer_flops(start, torch.zeros(1, c.trunk_width)) for start in starts)
        for layer in net.layers.values():
            once += 2 * c.trunk_width * layer.generated
            once += 2 * tau * _multiplied(layer)
        total += programs * once
        programs *= tau
    return total


def _multiplied(layer: nn.Module) -> int:
    """Entries of the matrices that one vector meets in a generated layer."""
    if isinstance(layer, FullLinear):
        return layer.n_in * layer.n_out + layer.common.weight.numel()
    return layer.v.weight.numel() + layer.u.weight.numel()


def _layer_flops(module: nn.Module, x: torch.Tensor) -> int:
    """2 × weights × places where they are used, for the linear layers and convolutions run on x."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        transposed = isinstance(layer, nn.ConvTranspose2d)
        places = (inputs[0] if transposed else output)[0, 0].numel() if output.ndim == 4 else 1
        total += 2 * layer.weight.numel() * places

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, kinds)]
    training = module.training
    with torch.no_grad():
        module.eval()(x)
    module.train(training)
    for hook in hooks:
        hook.remove()
    return total


def limits(device: torch.device) -> dict[str, float]:
    """What the machine can do: float32 matrix products (GFLOP/s) and memory copies (GB/s moved)."""
    n = 2048
    a, big = torch.randn(n, n, device=device), torch.empty(2**26, device=device)
    target = torch.empty_like(big)
    product = min(_seconds(lambda: a @ a, device) for _ in range(5))
    copy = min(_seconds(lambda: target.copy_(big), device) for _ in range(5))
    moved = 2 * big.numel() * big.element_size()
    return {"matmul_gflops": 2 * n**3 / product / 1e9, "copy_gb_s": moved / copy / 1e9}


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


class Row:
    """One model with its training step and its parse, all with Adam."""

    def __init__(self, model: nn.Module, batch: int, device: torch.device):
        c = model.config
        self.model, self.device = model.to(device), device
        self.x = torch.rand(batch, 1, c.image_size, c.image_size, device=device)
        self.noise = torch.randn(batch, c.z_dim, device=device)
        self.optimiser = torch.optim.Adam(model.parameters(), lr=1e-5)
        self.train_times, self.parse_times = [], []

    def train_step(self) -> None:
        model = self.model
        batch = self.x, self.noise
        values = terms(model, *batch) if isinstance(model, RNP) else model.terms(*batch)
        self.optimiser.zero_grad()
        values.loss(model.config.sigma2, model.config.part_weight).backward()
        self.optimiser.step()

    @torch.no_grad()
    def parse(self) -> None:
        model = self.model
        model.parse(self.x) if isinstance(model, RNP) else model.reconstruct(self.x)

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


def counted_flops(row: Row) -> float:
    """Operations of one image forward as torch.utils.flop_counter sees them."""
    with FlopCounterMode(display=False) as counter:
        row.parse()
    return counter.get_total_flops() / len(row.x)


def run(device: torch.device, batch: int = 64, rounds: int = 7) -> dict:
    """The whole benchmark. All rows have the light image encoder and the same batch."""
    full = RNP(dataclasses.replace(PRESETS["paper-mnist"], encoder="light"))
    ours = PRESETS["mnist"]
    models = {
        "naive_full": NaivePort(full),
        "full": full,
        "factorised": RNP(ours),
        "vae": PlainVAE(ours),
    }
    flops = {name: flops_per_image(m) for name, m in models.items() if name != "naive_full"}
    flops["naive_full"] = flops["full"]
    rows = {name: Row(model.train(), batch, device) for name, model in models.items()}
    speeds = measure(rows, rounds)
    machine = limits(device)
    result = {
        "machine": {
            "device": str(device),
            "chip": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        },
        "batch": batch,
        "limits": machine,
        "flops_per_image": flops,
        "counted_flops_per_image": {name: counted_flops(row) for name, row in rows.items()},
    }
    for work in ("train", "parse"):
        result[f"{work}_images_per_s"] = {n: s["median"] for n, s in speeds[work].items()}
        result[f"{work}_spread"] = speeds[work]
    # A training step costs about three times its forward pass.
    result["train_share_of_matmul"] = {
        n: 3 * flops[n] * speeds["train"][n]["median"] / machine["matmul_gflops"] / 1e9
        for n in rows
    }
    result["growth_ms"] = growth(device, ours, rounds)
    return result


def growth(device: torch.device, base: Config, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a training step of the factorised model as batch, depth and τ grow."""
    sizes = {
        **{f"batch {b}": (base, b) for b in (32, 128, 512)},
        **{f"depth {k}": (dataclasses.replace(base, tau=(4,) * k), 64) for k in (1, 2, 3)},
        **{f"tau {t}": (dataclasses.replace(base, tau=(t, t)), 64) for t in (2, 4, 8)},
    }
    found = {}
    for name, (config, batch) in sizes.items():
        row = Row(RNP(config), batch, device)
        speeds = measure({name: row}, rounds)
        found[name] = 1000 * batch / speeds["train"][name]["median"]
    return found


def report(result: dict) -> str:
    """The benchmark as a table for people."""
    machine, flops = result["limits"], result["flops_per_image"]
    lines = [
        f"{result['machine']['device']}, {result['machine']['threads']} threads, batch "
        f"{result['batch']}; matrix product {machine['matmul_gflops']:.0f} GFLOP/s, memory copy "
        f"{machine['copy_gb_s']:.0f} GB/s",
        "",
        f"{'':12}{'train/s':>9}{'(quartiles)':>16}{'parse/s':>9}{'MFLOP/image':>13}{'counted':>9}"
        f"{'of limit':>10}",
    ]
    for name, spread in result["train_spread"].items():
        quartiles = f"({spread['low']:.0f}-{spread['high']:.0f})"
        lines.append(
            f"{name:12}{spread['median']:9.0f}{quartiles:>16}"
            f"{result['parse_images_per_s'][name]:9.0f}{flops[name] / 1e6:13.1f}"
            f"{result['counted_flops_per_image'][name] / 1e6:9.1f}"
            f"{result['train_share_of_matmul'][name]:10.0%}"
        )
    train = result["train_images_per_s"]
    lines += [
        "",
        f"training, full / naive_full: {train['full'] / train['naive_full']:.1f}",
        f"training, factorised / naive_full: {train['factorised'] / train['naive_full']:.1f}",
        f"training, factorised / vae: {train['factorised'] / train['vae']:.2f}",
        "",
        "milliseconds of a training step of the factorised model:",
        *(f"{name:>12}{milliseconds:9.0f}" for name, milliseconds in result["growth_ms"].items()),
    ]
    return "\n".join(lines)
