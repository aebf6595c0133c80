"""Training: stages of growing depth, resumable bit for bit, on one device or on several."""

import contextlib
import csv
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from rnp_lib import checkpoints, data
from rnp_lib.config import Config
from rnp_lib.data import splits
from rnp_lib.files import Expected, held, replacing, write_json
from rnp_lib.machine import pick_device
from rnp_lib.training import memory, runs
from rnp_lib.training.trainer import STATE, Trainer

COLUMNS = "step images depth minutes lr loss sse kl part gradient_norm validation_sse".split()

LOG_EVERY, VALIDATE_EVERY = 50, 1000  # steps
SAVE_EVERY = 2.0  # minutes


class TrainingStopped(Expected):
    """Training ended early, and how to go on."""


class Log:
    """metrics.csv, and progress: a bar in a terminal, lines elsewhere; TensorBoard's if asked."""

    def __init__(self, trainer: Trainer, tensorboard: bool = False):
        self.path = trainer.out / "metrics.csv"
        self.printed = 0.0  # minutes into the run
        # Rows later than the resumed state will be written again.
        rows = [row for row in self._rows(trainer.step) if int(row[0]) <= trainer.step]
        with replacing(self.path) as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        hidden = not sys.stderr.isatty()
        self.bar = tqdm(total=trainer.total, initial=trainer.step, unit="step", disable=hidden)
        self.board = _board(trainer) if tensorboard else None

    def _rows(self, step: int) -> list[list[str]]:
        """What was written until a step; a last row that was torn is left out."""
        if not step or not self.path.exists():
            return []
        try:
            with open(self.path, newline="") as file:
                head, *rows = csv.reader(file)
            rows = rows[:-1] if rows and len(rows[-1]) < len(COLUMNS) else rows
            if head == COLUMNS and all(len(row) == len(COLUMNS) and int(row[0]) for row in rows):
                return rows
        except (csv.Error, ValueError):
            pass
        raise checkpoints.CheckpointError(
            f"{self.path} is not the log of this run: restore it, or delete it to go on without "
            "the rows so far."
        )

    def write(self, trainer: Trainer, values: Tensor, validation: float | None) -> None:
        """A row of values as `Trainer.train_step` reports them, means since the row before."""
        c, step = trainer.config, trainer.step
        minutes, depth = trainer.seconds / 60, trainer.depth(step - 1)
        place = [step, step * c.batch_size, depth, minutes, c.lr * trainer.rate(step - 1)]
        values = values.tolist()
        with open(self.path, "a", newline="") as file:
            csv.writer(file).writerow([*place, *values, validation])
        if self.board:
            row = dict(zip(COLUMNS, [*place, *values, validation], strict=True))
            for name in COLUMNS[COLUMNS.index("lr") :]:
                if row[name] is not None:
                    self.board.add_scalar(name, row[name], step)
            self.board.flush()
        text = f"sse {values[1]:.2f} kl {values[2]:.1f}"
        if validation is not None:
            text += f" validation sse {validation:.2f}"
        self.bar.set_postfix_str(text, refresh=False)
        if self.bar.disable and (validation is not None or minutes - self.printed >= 0.5):
            self.printed = minutes
            print(
                f"step {step} of {trainer.total}, {minutes:.1f} min, depth {depth}: {text}",
                flush=True,
            )


def _board(trainer: Trainer):
    """A writer of events for TensorBoard, which the extra `tensorboard` installs."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "TensorBoard is not installed: `pip install tensorboard`, or leave out --tensorboard; "
            "metrics.csv has the same numbers."
        ) from None
    return SummaryWriter(trainer.out, purge_step=trainer.step + 1)


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[list[int]]:
    """Turns the first Ctrl-C or SIGTERM into a request, so that no step is left half done.

    Yields the requests so far.
    """
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    requests = []

    def request(number, frame):
        requests.append(number)
        if not dist.is_initialized():  # torchrun may pass on what its processes got already
            signal.signal(number, previous[number])  # a second one ends at once

    try:
        for number in previous:
            signal.signal(number, request)
        yield requests
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _agreed(trainer: Trainer, wishes: list[bool], meeting: bool) -> list[bool]:
    """Which wishes any process has; several processes ask each other in steps where all meet."""
    if trainer.world == 1:
        return wishes
    if not meeting:
        return [False] * len(wishes)
    asked = torch.tensor(wishes, dtype=torch.int, device=trainer.device)
    dist.all_reduce(asked)
    return asked.bool().tolist()


def train_to_end(
    trainer: Trainer, save_every: float = SAVE_EVERY, tensorboard: bool = False
) -> None:
    """Train to the end of the schedule, logging, saving and validating now and then.

    Args:
        save_every: minutes between states.
        tensorboard: whether the log is written for TensorBoard too.

    Raises:
        TrainingStopped: on Ctrl-C or SIGTERM (after saving) and on a loss that is not finite
            (the last good state is kept).
    """
    log = Log(trainer, tensorboard) if trainer.rank == 0 else None
    started = time.monotonic() - trainer.seconds
    saved = time.monotonic()
    with _stop_on_signal() as requests:
        while trainer.step < trainer.total:
            trainer.values.append(trainer.train_step())
            step, last = trainer.step, trainer.step == trainer.total
            if log:
                log.bar.update(step - log.bar.n)
            validating = step % VALIDATE_EVERY == 0 or step in trainer.stage_ends  # the last is one
            logging = step % LOG_EVERY == 0 or validating
            due = time.monotonic() - saved >= 60 * save_every
            stopping, due = _agreed(trainer, [bool(requests), due], logging)
            saving = stopping or due or last
            if logging or saving:
                mean = _mean(trainer)
                trainer.seconds = time.monotonic() - started
            if logging:
                trainer.values.clear()
                if log:
                    log.write(trainer, mean, trainer.validate() if validating else None)
            if saving:
                saved = time.monotonic()
                if trainer.rank == 0:
                    trainer.save_state()
            if stopping and not last:
                raise TrainingStopped(
                    f"stopped at step {step} of {trainer.total}; the same command with --resume "
                    "goes on from there."
                )


def _mean(trainer: Trainer) -> Tensor:
    """The mean of a trainer's values over steps and processes, each of which saw its share of the
    images."""
    mean = torch.stack(trainer.values).mean(0)
    if trainer.world > 1:
        dist.all_reduce(mean)
        mean /= trainer.world
    if not mean.isfinite().all():
        kept = f"the last good state is kept in {trainer.out}"
        if not (trainer.out / STATE).exists():
            kept = "no state had been saved yet"
        raise TrainingStopped(
            f"the loss or its gradient stopped being finite by step {trainer.step}: try a "
            f"smaller lr, or normalise=True if it is off; {kept}."
        )
    return mean


def train(
    config: Config,
    out: str | Path,
    resume: bool = False,
    device: str | torch.device | None = None,
    save_every: float = SAVE_EVERY,
    tensorboard: bool = False,
) -> Path:
    """Train a model; under `torchrun`, with all its processes. Test images are not looked at.

    Args:
        out: folder for run.json (how the run was started), state.safetensors, metrics.csv and, at
            the end, model.safetensors.
        resume: go on from the state in `out`, if there is one.
        device: "cpu", "cuda", …; the GPU if there is one unless told.
        save_every: minutes between states.
        tensorboard: whether to log to `out` for TensorBoard too.

    Returns:
        The path of the trained model, weights averaged; its metadata hold run.json.

    Raises:
        TrainingStopped: see `train_to_end`.
        FileExistsError: `out` holds a run already and `resume` is False, or another process is
            training in it.
        CheckpointError: the run in `out` cannot go on like this, see `runs.go_on`.
    """
    out = Path(out)
    with _processes(device) as device:
        images, labels = data.load(config.dataset, "train", config.image_size, config.channels)
        images, labels = data.leave_out(images, labels, config.without)
        split = splits.validation(config.dataset, images, labels)
        trainer = Trainer(config, images[split.train], images[split.validation], out, device)
        memory.check(trainer)
        run = runs.describe(trainer, data.digest(images, labels), split.what)
        with held(out) if trainer.rank == 0 else contextlib.nullcontext():
            if (out / STATE).exists():
                if not resume:
                    raise FileExistsError(
                        f"{out} holds a run already: go on with it by --resume, or choose another "
                        "--out."
                    )
                run = runs.go_on(trainer, run)
                trainer.load_state()
            if trainer.rank == 0:
                write_json(out / runs.FILE, run)
            if trainer.rank == 0:
                _announce(trainer)
            train_to_end(trainer, save_every, tensorboard)
            if trainer.rank == 0:
                _publish(trainer, run)
        return out / "model.safetensors"


@contextlib.contextmanager
def _processes(device: str | torch.device | None) -> Iterator[torch.device]:
    """The device of this process, which is one of a group where `torchrun` started it."""
    device = pick_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
    finally:
        dist.destroy_process_group()


def _announce(trainer: Trainer) -> None:
    """Say what is about to be trained on what."""
    images = trainer.batches.images
    what = "ink" if trainer.config.channels == 1 else "brightness, in colour,"
    print(
        f"{len(images):,} images of mean {what} {images.mean():.3f}, "
        f"{len(trainer.validation):,} to validate on; {trainer.device}, "
        f"{str(trainer.precision).removeprefix('torch.')}; steps {trainer.step:,} to "
        f"{trainer.total:,} of {trainer.config.batch_size} images",
        flush=True,
    )


def _publish(trainer: Trainer, run: dict) -> None:
    """Write the averaged model and, beside it, how it was trained."""
    path = trainer.out / "model.safetensors"
    scores = {"minutes": round(trainer.seconds / 60, 2), "validation_sse": trainer.validate()}
    run = {name: value for name, value in run.items() if name != "config"}  # stands beside it
    checkpoints.save(path, trainer.average.module.eval(), {**scores, "run": run})
    print(json.dumps({"checkpoint": str(path), **scores}, indent=1), flush=True)
