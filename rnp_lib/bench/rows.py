"""The rows of the benchmark: which models, with their training step and their parse."""

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from rnp_lib.bench.naive import NaivePort
from rnp_lib.model import build
from rnp_lib.model.rnp import ImageModel
from rnp_lib.presets import PRESETS
from rnp_lib.training.step import Step, precision
from rnp_lib.training.trainer import Objective, make_optimisers

# All rows have the light image encoder and Adam, at a rate that lets no weight grow.
PAPER = dataclasses.replace(PRESETS["paper-mnist"], encoder="light", lr=1e-5)
OURS = dataclasses.replace(PRESETS["mnist-root"], optimiser="adam", lr=1e-5)
TREE = dataclasses.replace(PRESETS["mnist"], optimiser="adam", lr=1e-5)
CONFIGS = {
    "naive_full": dataclasses.replace(PAPER, precision="float32"),
    "full_float32": dataclasses.replace(PAPER, precision="float32"),
    "full": PAPER,
    "factorised_float32": dataclasses.replace(OURS, precision="float32"),
    "factorised": OURS,
    "tree_float32": dataclasses.replace(TREE, precision="float32"),
    "tree": TREE,
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
        self.model = model.to(device).train()
        self.x = torch.rand(batch, c.channels, c.image_size, c.image_size, device=device)
        replay = device.type == "cuda" and not isinstance(model, NaivePort)
        dtype = precision(c, device)
        self.step = Step(Objective(model), make_optimisers(model, dtype), c, self.x, dtype, replay)
        self.step.x.copy_(self.x)
        self.step.noise.normal_()
        self.step.seen[: round(c.drop * batch)] = 0

    def train_step(self) -> None:
        self.step(until=0)

    @torch.no_grad()
    def parse(self) -> None:
        self.model.parse(self.x)

    def flops(self) -> int:
        """Floating-point operations of one image forward: matrix products and convolutions."""
        with FlopCounterMode(display=False) as counter:
            self.parse()
        return counter.get_total_flops() // len(self.x)


def measure(rows: dict[str, Row], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Images per second of every kind of work and row, median and quartiles, the rows taking turns
    after two rounds of warm-up."""
    works = {"train": Row.train_step, "parse": Row.parse}
    found: dict[str, dict] = {work: {} for work in works}
    turns = list(itertools.product(rows.items(), works.items()))
    times = [
        [seconds(partial(do, row), row.x.device) for (_, row), (_, do) in turns]
        for _ in range(rounds + 2)
    ]
    for ((name, row), (work, _)), spent in zip(turns, zip(*times[2:], strict=True), strict=True):
        fast, middle, slow = (len(row.x) / each for each in statistics.quantiles(spent, n=4))
        found[work][name] = {"median": middle, "low": slow, "high": fast}
    return found
