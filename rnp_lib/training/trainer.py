"""One training run: its model, optimisers, average of weights and place in the schedule."""

import itertools
import math
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rnp_lib import checkpoints
from rnp_lib.config import Config
from rnp_lib.model import build
from rnp_lib.model.encoder import MatrixConv2d
from rnp_lib.model.objective import reconstruction_error, terms
from rnp_lib.model.rnp import ImageModel
from rnp_lib.training.step import Step

STATE_FORMAT = "rnp-training-1"


class Objective(nn.Module):
    """The loss as a module's forward: what DistributedDataParallel averages gradients of."""

    def __init__(self, model: ImageModel):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Tensor, until: int, kl_weight: Tensor):
        c = self.model.config
        t = terms(self.model, x, noise, until)
        loss = t.loss(c.sigma2, c.part_weight, kl_weight)
        return loss, torch.stack([loss, t.sse.mean(), t.kl.mean(), t.part.mean()]).detach()


def make_optimisers(model: ImageModel) -> list[torch.optim.Optimizer]:
    """Adam on everything (the paper), or Muon on weight matrices and Adam on the rest."""
    c = model.config
    on_gpu = next(model.parameters()).is_cuda
    adam = partial(torch.optim.Adam, fused=True, capturable=on_gpu)
    if c.optimiser == "adam":
        return [adam(model.parameters(), lr=c.lr)]
    layers = (m for m in model.modules() if isinstance(m, (nn.Linear, MatrixConv2d)))
    matrices = [layer.weight for layer in layers]
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    muon = torch.optim.Muon(
        matrices, lr=c.lr, weight_decay=0.0, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, adam(rest, lr=c.adam_lr)]


def learning_rate_factor(config: Config, step: int, stage_start: int, total: int) -> float:
    """Linear warm-up in every stage, and half a cosine down to 0 at `total` steps (or no decay).

    A stage begins gently because programs of its new level run untrained at first.
    """
    warm = min(1.0, (step - stage_start + 1) / config.warmup) if config.warmup else 1.0
    return warm * (0.5 * (1 + math.cos(math.pi * step / total)) if config.decay == "cosine" else 1)


def jitter(images: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Images (B, 1, H, W), each distorted by an affine map of its own.

    Args:
        amount: by how much the map's six numbers differ from the identity's at most; of shifts it
            is in half sides of an image.
    """
    device = images.device
    distortion = 2 * torch.rand(len(images), 2, 3, generator=generator, device=device) - 1
    maps = torch.eye(2, 3, device=device) + amount * distortion
    grid = F.affine_grid(maps, images.shape, align_corners=False)
    # Bicubic, as bilinear sampling would blur strokes, and the model would learn to.
    return F.grid_sample(images, grid, mode="bicubic", align_corners=False).clamp(0, 1)


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

    def __init__(
        self,
        config: Config,
        images: Tensor,
        out: Path,
        device: torch.device,
        model: ImageModel | None = None,
    ):
        """
        Args:
            model: what training starts from, in place of a new model of `config`; it is changed,
                but for parameters that require no gradient.
        """
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
        self.model = (model or build(config)).to(device).train()
        self.objective = Objective(self.model)
        if self.world > 1:
            self.objective = DistributedDataParallel(self.objective)
        self.optimisers = make_optimisers(self.model)
        replay = device.type == "cuda" and self.world == 1
        share = self.images[: config.batch_size // self.world]
        self.update = Step(self.objective, self.optimisers, config, share, replay)
        self.average = AveragedModel(self.model)
        self.step, self.seconds = 0, 0.0
        self._epoch, self._order = -1, None

    def _generator(self, stream: int, index: int) -> torch.Generator:
        generator = torch.Generator(self.device)
        return generator.manual_seed(hash((self.config.seed, stream, index)) % 2**63)

    def stage(self, step: int) -> tuple[int, int]:
        """Levels unrolled in a step, and the first step of its stage."""
        starts = [0, *self.stage_ends[:-1]]
        return max(
            (first, depth)
            for first, depth in zip(starts, self.stages, strict=True)
            if first <= step
        )[::-1]

    def depth(self, step: int) -> int:
        """Levels unrolled in a step."""
        return self.stage(step)[0]

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's share of the images and of the noise of a step."""
        size = self.config.batch_size
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = self._generator(0, epoch)
            order = torch.randperm(len(self.images), generator=generator, device=self.device)
            self._epoch, self._order = epoch, order
        images = self.images[self._order[position * size : (position + 1) * size]]
        if self.config.jitter:
            images = jitter(images, self.config.jitter, self._generator(2, step))
        noise = torch.randn(
            size, self.config.z_dim, generator=self._generator(1, step), device=self.device
        )
        mine = slice(self.rank * size // self.world, (self.rank + 1) * size // self.world)
        return images[mine], noise[mine]

    def rate(self, step: int) -> float:
        """What the learning rates of the config are multiplied by in a step."""
        _, stage_start = self.stage(step)
        return learning_rate_factor(self.config, step, stage_start, self.total)

    def train_step(self) -> Tensor:
        """One step: loss, sse, KL, part term and gradient norm, (5,)."""
        c, step, update = self.config, self.step, self.update
        for kept, value in zip((update.x, update.noise), self.batch(step), strict=True):
            kept.copy_(value)
        update.kl_weight.fill_(min(1.0, step * c.batch_size / c.kl_warmup) if c.kl_warmup else 1.0)
        update.rate.fill_(self.rate(step))
        if c.dabs:
            self.model.hypernet.mix_in_dabs(step * c.batch_size)
        values = update(c.depth - self.depth(step))
        # The average is exponential, and follows faster in the first steps.
        self.average.multi_avg_fn = get_ema_multi_avg_fn(min(c.ema, (1 + step) / (10 + step)))
        self.average.update_parameters(self.model)
        self.step += 1
        return values

    def validate(self) -> float:
        """Mean SSE per validation image, averaged weights, tree as deep as trained so far."""
        model = self.average.module.eval()
        until = self.config.depth - self.depth(self.step - 1)
        return float(reconstruction_error(model, self.validation, until).mean())

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
