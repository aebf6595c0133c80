"""What a training run is made of, and its state on disk."""

import bisect
import itertools
import math
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from rnp_lib import checkpoints
from rnp_lib.checkpoints import CheckpointError
from rnp_lib.config import Config
from rnp_lib.model import build
from rnp_lib.model.encoder import MatrixConv2d
from rnp_lib.model.objective import reconstruction_error, terms
from rnp_lib.model.rnp import ImageModel
from rnp_lib.training.batches import Batches
from rnp_lib.training.muon import Muon
from rnp_lib.training.step import Step, precision

STATE = "state.safetensors"
STATE_FORMAT = "rnp-training-3"  # 1 went with other random numbers, 2 held no `values`


class Objective(nn.Module):
    """The loss as a module's forward: what DistributedDataParallel averages gradients of."""

    def __init__(self, model: ImageModel):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Tensor, seen: Tensor, until: int, kl_weight: Tensor):
        c = self.model.config
        if c.model == "air":
            return self.model.loss(x, noise, kl_weight)
        t = terms(self.model, x, noise, until, seen)
        loss = t.loss(c.sigma2, c.part_weight, kl_weight)
        return loss, torch.stack([loss, t.sse.mean(), t.kl.mean(), t.part.mean()]).detach()


def make_optimisers(model: ImageModel, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """Adam on everything (the paper), or Muon, its products in `dtype`, on weight matrices and
    Adam on the rest.
    """
    c = model.config
    on_gpu = next(model.parameters()).is_cuda
    adam = partial(torch.optim.Adam, fused=True, capturable=on_gpu)
    if c.optimiser == "adam":
        return [adam(model.parameters(), lr=c.lr)]
    layers = (m for m in model.modules() if isinstance(m, (nn.Linear, MatrixConv2d)))
    matrices = [layer.weight for layer in layers]
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in taken]
    return [Muon(matrices, dtype=dtype, lr=c.lr), adam(rest, lr=c.adam_lr)]


class Trainer:
    """One training run: its model, optimisers, average of weights, and place in the schedule.

    It neither reads nor sets torch's global generator.

    Attributes:
        step, seconds: so far.
        values: what `train_step` returned in the steps since it was last written down.
    """

    def __init__(
        self,
        config: Config,
        images: Tensor,
        validation: Tensor,
        out: Path,
        device: torch.device,
        model: ImageModel | None = None,
    ):
        """
        Args:
            images, validation: what is learned from and what `validate` measures, (N, 1, H, W).
            out: folder of the state.
            model: what training starts from, in place of a new model of `config`; it is changed,
                but for parameters that require no gradient.

        Raises ValueError where `Batches` does.
        """
        self.config, self.out, self.device = config, out, device
        self.rank, self.world = 0, 1
        if dist.is_initialized():
            self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.batches = Batches(images.to(device), config, self.rank, self.world)
        self.validation = validation.to(device)
        self.depths, stages = zip(*config.stages(), strict=True)
        steps = (max(1, n // config.batch_size) for n in stages)
        self.stage_ends = list(itertools.accumulate(steps))
        self.total = self.stage_ends[-1]

        self.model = (model or build(config, config.seed)).to(device).train()
        self.objective = Objective(self.model)
        if self.world > 1:
            self.objective = DistributedDataParallel(self.objective)
        self.precision = precision(config, device)
        self.optimisers = make_optimisers(self.model, self.precision)
        # Pyro draws as it goes, which a recorded step could not.
        replay = device.type == "cuda" and self.world == 1 and config.model != "air"
        share = self.batches.images[: config.batch_size // self.world]
        self.update = Step(self.objective, self.optimisers, config, share, self.precision, replay)
        self.average = AveragedModel(self.model)
        self.step, self.seconds = 0, 0.0
        self.values: list[Tensor] = []

    def depth(self, step: int) -> int:
        """Levels unrolled in a step."""
        return self.depths[bisect.bisect(self.stage_ends, step)]

    def rate(self, step: int) -> float:
        """What the learning rates of the config are multiplied by in a step: a linear warm-up in
        every stage, and half a cosine down to 0 at the end (or no decay).

        A stage begins gently because programs of its new level run untrained at first.
        """
        c, start = self.config, [0, *self.stage_ends][bisect.bisect(self.stage_ends, step)]
        warm = min(1.0, (step - start + 1) / c.warmup) if c.warmup else 1.0
        cosine = 0.5 * (1 + math.cos(math.pi * step / self.total))
        return warm * (cosine if c.decay == "cosine" else 1)

    def train_step(self) -> Tensor:
        """One step: loss, sse, KL, part term and gradient norm, (5,)."""
        c, step, update = self.config, self.step, self.update
        batch = self.batches(step)
        for kept, value in zip((update.x, update.noise, update.seen), batch, strict=True):
            kept.copy_(value)
        update.kl_weight.fill_(min(1.0, step * c.batch_size / c.kl_warmup) if c.kl_warmup else 1.0)
        update.rate.fill_(self.rate(step))
        if c.dabs:
            for level in range(1, c.depth + 1):
                self.model.network(level).mix_in_dabs(step * c.batch_size)
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
        parts = {"model": self.model.state_dict(), "average": self.average.state_dict()}
        for i, optimiser in enumerate(self.optimisers):
            for j, state in optimiser.state_dict()["state"].items():
                parts[f"optimiser.{i}.{j}"] = state
        tensors = {f"{part}.{k}": v for part, state in parts.items() for k, v in state.items()}
        if self.values:
            tensors["values"] = torch.stack(self.values)
        about = {"step": self.step, "seconds": self.seconds}
        checkpoints.write(self.out / STATE, STATE_FORMAT, tensors, about)

    def load_state(self) -> None:
        """Go on from `save_state` of the same configuration.

        Raises CheckpointError for a file that is not whole, of another format or another model.
        """
        path = self.out / STATE
        tensors, about = checkpoints.read(path, STATE_FORMAT)
        try:
            self._load(tensors, about)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{path} is not a state of this run ({checkpoints.brief(error)}): restore it, or "
                "delete it to begin again."
            ) from None

    def _load(self, tensors: dict[str, Tensor], about: dict) -> None:
        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

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
        self.values = list(tensors.get("values", ()))
