"""Training: stages of growing depth, resumable bit for bit, on one device or on several."""

import csv
import itertools
import json
import math
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from rnp_lib import checkpoints, data
from rnp_lib.config import Config
from rnp_lib.encoder import MatrixConv2d
from rnp_lib.files import code_version, replacing
from rnp_lib.model import RNP
from rnp_lib.objective import reconstruction_error, terms

STATE_FORMAT = "rnp-training-1"
COLUMNS = "step images depth minutes lr loss sse kl part gradient_norm validation_sse".split()


class TrainingStopped(RuntimeError):
    """Training ended early, and how to go on."""


class Objective(nn.Module):
    """The loss as a module's forward: what DistributedDataParallel averages gradients of."""

    def __init__(self, model: RNP):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Tensor, depth: int, kl_weight: float):
        c = self.model.config
        t = terms(self.model, x, noise, depth)
        loss = t.loss(c.sigma2, c.part_weight, kl_weight)
        return loss, torch.stack([loss, t.sse.mean(), t.kl.mean(), t.part.mean()]).detach()


def make_optimisers(model: RNP) -> list[torch.optim.Optimizer]:
    """Adam on everything (the paper), or Muon on weight matrices and Adam on the rest."""
    c = model.config
    if c.optimiser == "adam":
        return [torch.optim.Adam(model.parameters(), lr=c.lr)]
    layers = (m for m in model.modules() if isinstance(m, (nn.Linear, MatrixConv2d)))
    matrices = [layer.weight for layer in layers]
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    muon = torch.optim.Muon(
        matrices, lr=c.lr, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.Adam(rest, lr=c.adam_lr)]


def learning_rate_factor(config: Config, step: int, total: int) -> float:
    """Linear warm-up, then half a cosine down to 0 at `total` steps (or no decay)."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return warm * (0.5 * (1 + math.cos(math.pi * step / total)) if config.decay == "cosine" else 1)


def moving_average(decay: float):
    """How `AveragedModel` averages: exponentially, following faster in the first steps."""

    def update(averages, weights, n):
        n = int(n)
        torch._foreach_lerp_(averages, weights, 1 - min(decay, (1 + n) / (10 + n)))

    return update


def split_validation(images: Tensor) -> tuple[Tensor, Tensor]:
    """Training and validation images: the last 5,000, or the last tenth of a small set."""
    n = min(5_000, max(1, len(images) // 10))
    return images[:-n], images[-n:]


class Trainer:
    """One training run: its model, optimisers, average of weights, and place in the schedule.

    Every random number of step s is drawn from a generator seeded by (seed, s), and every process
    draws those of the whole batch and uses its share: (seed, step) is all the random state there
    is, and any number of processes sees the same data and noise.
    """

    def __init__(self, config: Config, images: Tensor, out: Path, device: torch.device):
        self.config, self.out, self.device = config, out, device
        self.rank, self.world = 0, 1
        if dist.is_initialized():
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
        if config.batch_size % self.world:
            raise ValueError(
                f"batch_size {config.batch_size} cannot be shared by {self.world} processes "
                "evenly: choose a multiple."
            )
        train_images, validation = split_validation(images)
        if len(train_images) < config.batch_size:
            raise ValueError(
                f"{len(train_images)} training images do not fill one batch of "
                f"{config.batch_size}: add images or set a smaller batch_size."
            )
        self.images, self.validation = train_images.to(device), validation.to(device)
        self.steps_per_epoch = len(train_images) // config.batch_size
        stage_steps = [(d, max(1, n // config.batch_size)) for d, n in config.stages()]
        self.stages = [d for d, _ in stage_steps]
        self.stage_ends = list(itertools.accumulate(n for _, n in stage_steps))
        self.total = self.stage_ends[-1]

        torch.manual_seed(config.seed)
        self.model = RNP(config).to(device)
        self.model.step.requires_grad_(config.step_vector)  # DDP waits for every gradient
        self.objective = Objective(self.model)
        if self.world > 1:
            self.objective = DistributedDataParallel(self.objective)
        self.optimisers = make_optimisers(self.model)
        self.base_rates = [o.param_groups[0]["lr"] for o in self.optimisers]
        average = moving_average(config.ema)
        self.average = AveragedModel(self.model, multi_avg_fn=average)
        self.step, self.seconds = 0, 0.0
        self._epoch, self._order = -1, None

    def _generator(self, stream: int, index: int) -> torch.Generator:
        generator = torch.Generator(self.device)
        return generator.manual_seed(hash((self.config.seed, stream, index)) % 2**63)

    def depth(self, step: int) -> int:
        """Levels unrolled in a step."""
        return next(d for d, end in zip(self.stages, self.stage_ends, strict=True) if step < end)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of the images and of the noise of a step."""
        size = self.config.batch_size
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = self._generator(0, epoch)
            order = torch.randperm(len(self.images), generator=generator, device=self.device)
            self._epoch, self._order = epoch, order
        chosen = self._order[position * size : (position + 1) * size]
        noise = torch.randn(
            size, self.config.z_dim, generator=self._generator(1, step), device=self.device
        )
        mine = slice(self.rank * size // self.world, (self.rank + 1) * size // self.world)
        return self.images[chosen[mine]], noise[mine]

    def train_step(self) -> Tensor:
        """One step: loss, sse, KL, part term and gradient norm, (5,)."""
        c, step = self.config, self.step
        kl_weight = min(1.0, step * c.batch_size / c.kl_warmup) if c.kl_warmup else 1.0
        factor = learning_rate_factor(c, step, self.total)
        for optimiser, rate in zip(self.optimisers, self.base_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss, values = self.objective(*self.batch(step), self.depth(step), kl_weight)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), c.clip)
        for optimiser in self.optimisers:
            optimiser.step()
        self.average.update_parameters(self.model)
        self.step += 1
        return torch.cat([values, norm.detach().reshape(1)])

    def validate(self) -> float:
        """Mean SSE per validation image, averaged weights, tree as deep as trained so far."""
        model = self.average.module.eval()
        return float(reconstruction_error(model, self.validation, self.depth(self.step - 1)).mean())

    def save_state(self) -> None:
        """All that is needed to go on: weights, their average, optimisers, step, clock."""
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for i, optimiser in enumerate(self.optimisers):
            for j, state in optimiser.state_dict()["state"].items():
                tensors |= {f"optimiser.{i}.{j}.{k}": v for k, v in state.items()}
        about = {"config": self.config.to_dict(), "step": self.step, "seconds": self.seconds}
        checkpoints.write(self.out / "state.safetensors", STATE_FORMAT, tensors, about)

    def last_state(self) -> str:
        if not (self.out / "state.safetensors").exists():
            return "no state had been saved yet"
        return f"the last good state is kept in {self.out}"

    def load_state(self) -> None:
        """Go on from `save_state`. Raises CheckpointError if it was another configuration's."""
        path = self.out / "state.safetensors"
        tensors, about = checkpoints.read(path, STATE_FORMAT)
        if Config.from_dict(about["config"]) != self.config:
            raise checkpoints.CheckpointError(
                f"{path} was written with other settings: resume with the same preset and --set, "
                "or choose another --out."
            )

        def part(prefix):
            n = len(prefix)
            return {k[n:]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(part("model."))
        self.average.load_state_dict(part("average."))
        for i, optimiser in enumerate(self.optimisers):
            states: dict[int, dict] = {}
            for name, value in part(f"optimiser.{i}.").items():
                index, key = name.split(".")
                states.setdefault(int(index), {})[key] = value
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": states, "param_groups": groups})
        self.step, self.seconds = about["step"], about["seconds"]


class Log:
    """metrics.csv, and progress: a bar in a terminal, lines elsewhere."""

    def __init__(self, trainer: Trainer):
        self.path = trainer.out / "metrics.csv"
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
        if row["validation_sse"] != "":
            text += f" validation sse {row['validation_sse']:.2f}"
            if self.bar.disable:
                print(
                    f"step {row['step']} of {self.bar.total}, {row['minutes']:.1f} min, "
                    f"depth {row['depth']}: {text}",
                    flush=True,
                )
        self.bar.set_postfix_str(text, refresh=False)


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
                    row["lr"] = trainer.optimisers[0].param_groups[0]["lr"]
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
        images, labels = data.load(config.dataset, "train", config.image_size)
        trainer = Trainer(config, images, out, device)
        if resume and (out / "state.safetensors").exists():
            trainer.load_state()
        run(trainer, log_every, save_every, validate_every)
        path = out / "model.safetensors"
        if trainer.rank == 0:
            _publish(trainer, path, data.digest(images, labels))
        return path
    finally:
        if distributed:
            dist.destroy_process_group()


def _publish(trainer: Trainer, path: Path, data_hash: str) -> None:
    """Write the averaged model with its history; the test set is measured here and only here."""
    c = trainer.config
    model = trainer.average.module.eval()
    test, _ = data.load(c.dataset, "test", c.image_size)
    sse = reconstruction_error(model, test.to(trainer.device))
    about = {
        "data": c.dataset,
        "data_sha256": data_hash,
        "code": code_version(),
        "device": str(trainer.device),
        "minutes": round(trainer.seconds / 60, 2),
        "processes": trainer.world,
        "validation_sse": trainer.validate(),
        "test_sse": float(sse.mean()),
        "test_images": len(sse),
    }
    checkpoints.save(path, model, about)
    print(json.dumps({"checkpoint": str(path), **about}, indent=1), flush=True)
