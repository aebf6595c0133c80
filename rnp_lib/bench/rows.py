"""The rows of the benchmark: which models, with their training step and their parse."""

import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from rnp_lib.bench.naive import NaivePort
from rnp_lib.config import PRESETS
from rnp_lib.model import build
from rnp_lib.model.rnp import ImageModel
from rnp_lib.training.step import Step, precision
from rnp_lib.training.trainer import Objective, make_optimisers

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


def seconds(work: Callable[[], object], device: torch.device) -> float:
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
        dtype = precision(c, device)
        self.step = Step(Objective(model), make_optimisers(model), c, self.x, dtype, replay)
        self.step.x.copy_(self.x)
        self.step.noise.normal_()
        self.train_times, self.parse_times = [], []

    def train_step(self) -> None:
        self.step(until=0)

    @torch.no_grad()
    def parse(self) -> None:
        self.model.parse(self.x)

    def measure(self) -> None:
        self.train_times.append(seconds(self.train_step, self.device))
        self.parse_times.append(seconds(self.parse, self.device))


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
