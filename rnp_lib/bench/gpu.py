"""All that waits for a GPU, in one call of under ten minutes: `rnp gpu`."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import torch

from rnp_lib import checkpoints, data
from rnp_lib.bench import run as bench
from rnp_lib.data import splits
from rnp_lib.files import ROOT
from rnp_lib.machine import machine
from rnp_lib.presets import PRESETS
from rnp_lib.training import loop
from rnp_lib.training.trainer import Trainer

MINUTES = 9.0  # of the whole call, which a machine may be lent for ten
AT_ONCE = 100  # steps between two looks at the clock


def run(device: torch.device, out: Path, share: float = 1.0) -> dict:
    """The tests that need CUDA, the benchmark, `rnp train mnist`, and of `paper-mnist` what fits.

    Args:
        out: folder of the model that is trained.
        share: of the time, and of the images of `mnist`, to try it out.

    Returns:
        machine; tests: pytest's last line; bench: as `bench.run` has it; mnist: minutes and
        validation_sse; paper: epochs, minutes and validation_sse of `paper-mnist`.
    """
    until = time.monotonic() + 60 * MINUTES * share
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "tests/test_cuda.py"]
    tests = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    found = {"machine": machine(device), "tests": tests.stdout.strip().splitlines()[-1:]}
    found["bench"] = bench.run(device)
    config = PRESETS["mnist"]
    images = tuple(int(n * share) for n in config.images)
    trained = loop.train(dataclasses.replace(config, images=images), out, device=device)
    about = checkpoints.metadata(trained)
    found["mnist"] = {name: about[name] for name in ("minutes", "validation_sse")}
    found["paper"] = _paper(device, until)
    return found


def _paper(device: torch.device, until: float) -> dict[str, float]:
    """As many steps of `paper-mnist` as end before the time `until` of the monotonic clock."""
    images, labels = data.load("mnist", "train")
    split = splits.validation("mnist", images, labels)
    known, held_out = images[split.train], images[split.validation]
    trainer = Trainer(PRESETS["paper-mnist"], known, held_out, Path(), device)
    started = time.monotonic()
    while trainer.step < trainer.total and (trainer.step == 0 or time.monotonic() < until):
        steps = range(min(AT_ONCE, trainer.total - trainer.step))
        bench.seconds(lambda n=steps: [trainer.train_step() for _ in n], device)
    minutes = (time.monotonic() - started) / 60
    seen = trainer.step * trainer.config.batch_size
    score = {"epochs": seen / len(known), "minutes": minutes}
    return score | {"validation_sse": trainer.validate()}
