"""Training: stages of growing depth, resumable bit for bit, on one device or on several."""

import csv
import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from tqdm import tqdm

from rnp_lib import checkpoints, data
from rnp_lib.config import Config
from rnp_lib.files import code_version, replacing
from rnp_lib.model.objective import reconstruction_error
from rnp_lib.training.trainer import Trainer

COLUMNS = "step images depth minutes lr loss sse kl part gradient_norm validation_sse".split()


class TrainingStopped(RuntimeError):
    """Training ended early, and how to go on."""


class Log:
    """metrics.csv, and progress: a bar in a terminal, lines elsewhere."""

    def __init__(self, trainer: Trainer):
        self.path = trainer.out / "metrics.csv"
        self.printed = 0.0  # minutes into the run
        rows = self._rows_before(trainer.step)
        with replacing(self.path) as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        self.bar = tqdm(
            total=trainer.total,
            initial=trainer.step,
            unit="step",
            disable=not sys.stderr.isatty() or trainer.rank > 0,
        )

    def _rows_before(self, step: int) -> list[list[str]]:
        # Rows later than the resumed state will be written again.
        if not step or not self.path.exists():
            return []
        with open(self.path, newline="") as file:
            rows = list(csv.reader(file))[1:]
        return [row for row in rows if len(row) == len(COLUMNS) and int(row[0]) <= step]

    def write(self, row: dict) -> None:
        with open(self.path, "a", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(row)
        text = f"sse {row['sse']:.2f} kl {row['kl']:.1f}"
        validated = row["validation_sse"] != ""
        if validated:
            text += f" validation sse {row['validation_sse']:.2f}"
        self.bar.set_postfix_str(text, refresh=False)
        if self.bar.disable and (validated or row["minutes"] - self.printed >= 0.5):
            self.printed = row["minutes"]
            print(
                f"step {row['step']} of {self.bar.total}, {row['minutes']:.1f} min, "
                f"depth {row['depth']}: {text}",
                flush=True,
            )


def run(trainer: Trainer, log_every: int, save_every: int, validate_every: int) -> None:
    """Train to the end of the schedule, logging, saving and validating every so many steps.

    Raises:
        TrainingStopped: on Ctrl-C or SIGTERM (after saving) and on a loss that is not finite
            (the last good state is kept).
    """
    log = Log(trainer) if trainer.rank == 0 else None
    stop = _StopOnSignal()
    started = time.monotonic() - trainer.seconds
    gathered = []
    with stop:
        while trainer.step < trainer.total:
            gathered.append(trainer.train_step())
            step, last = trainer.step, trainer.step == trainer.total
            validating = step % validate_every == 0 or step in trainer.stage_ends
            stopping = stop.agreed(trainer, step % log_every == 0)
            saving = step % save_every == 0 or last or stopping
            if step % log_every == 0 or validating or saving:
                values = torch.stack(gathered).mean(0)
                gathered.clear()
                if trainer.world > 1:  # each process saw its share of the images
                    dist.all_reduce(values)
                    values /= trainer.world
                trainer.seconds = time.monotonic() - started
                if not values.isfinite().all():
                    raise TrainingStopped(
                        f"the loss or its gradient stopped being finite by step {step}: try a "
                        f"smaller lr, or normalise=True if it is off; {trainer.last_state()}."
                    )
                if log:
                    row = dict(zip(COLUMNS[5:], values.tolist(), strict=False))
                    row |= {"step": step, "images": step * trainer.config.batch_size}
                    row |= {"depth": trainer.depth(step - 1), "minutes": trainer.seconds / 60}
                    row["lr"] = trainer.config.lr * trainer.rate(step - 1)
                    row["validation_sse"] = trainer.validate() if validating else ""
                    log.write(row)
                    log.bar.update(step - log.bar.n)
            if saving and trainer.rank == 0:
                trainer.save_state()
            if stopping and not last:
                raise TrainingStopped(
                    f"stopped at step {step} of {trainer.total}; the same command with --resume "
                    "goes on from there."
                )


class _StopOnSignal:
    """Turns the first Ctrl-C or SIGTERM into a request, so that no step is left half done."""

    def __enter__(self):
        self.requested = False
        self.previous = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            self.previous[number] = signal.signal(number, self._request)
        return self

    def _request(self, number, frame):
        self.requested = True
        if not dist.is_initialized():  # torchrun may pass on what its processes got already
            signal.signal(number, self.previous[number])  # a second one ends at once

    def agreed(self, trainer: "Trainer", meeting: bool) -> bool:
        """Whether to stop now: several processes ask each other, in steps where all meet."""
        if trainer.world == 1 or not meeting:
            return self.requested and trainer.world == 1
        asked = torch.tensor(float(self.requested), device=trainer.device)
        dist.all_reduce(asked)
        return bool(asked)

    def __exit__(self, *error):
        for number, handler in self.previous.items():
            signal.signal(number, handler)


def train(
    config: Config,
    out: str | Path,
    resume: bool = False,
    device: str | None = None,
    log_every: int = 50,
    save_every: int = 500,
    validate_every: int = 1000,
) -> Path:
    """Train a model; under `torchrun`, with all its processes.

    Args:
        config: the recipe.
        out: folder for state.safetensors, metrics.csv and, at the end, model.safetensors.
        resume: go on from the state in `out`, if there is one.
        device: "cpu", "cuda", …; the GPU if there is one unless told.
        log_every, save_every, validate_every: steps between rows, states and validations.

    Returns:
        The path of the trained model, weights averaged, its test SSE in the metadata.

    Raises:
        TrainingStopped: see `run`.
        FileExistsError: `out` holds a run already and `resume` is False.
    """
    out = Path(out)
    if not resume and (out / "state.safetensors").exists():
        raise FileExistsError(
            f"{out} holds a run already: go on with it by --resume, or choose another --out."
        )
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    distributed = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized()
    if distributed:
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        code = code_version()  # now: files may change while it trains
        images, labels = _load(config, "train")
        trainer = Trainer(config, images, out, device)
        if resume and (out / "state.safetensors").exists():
            trainer.load_state()
        run(trainer, log_every, save_every, validate_every)
        path = out / "model.safetensors"
        if trainer.rank == 0:
            _publish(trainer, path, data_sha256=data.digest(images, labels), code=code)
        return path
    finally:
        if distributed:
            dist.destroy_process_group()


def _load(config: Config, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = data.load(config.dataset, split, config.image_size)
    return data.leave_out(images, labels, config.without)


def _publish(trainer: Trainer, path: Path, **history: str) -> None:
    """Write the averaged model with its history; the test set is measured here and only here."""
    c = trainer.config
    model = trainer.average.module.eval()
    test, _ = _load(c, "test")
    sse = reconstruction_error(model, test.to(trainer.device))
    about = {
        "data": c.dataset,
        **history,
        "device": str(trainer.device),
        "minutes": round(trainer.seconds / 60, 2),
        "processes": trainer.world,
        "validation_sse": trainer.validate(),
        "test_sse": float(sse.mean()),
        "test_images": len(sse),
    }
    checkpoints.save(path, model, about)
    print(json.dumps({"checkpoint": str(path), **about}, indent=1), flush=True)
