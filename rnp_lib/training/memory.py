"""How much memory a training step will take."""

import copy

import psutil
import torch
from torch import Tensor

from rnp_lib.training.trainer import Objective, Trainer

TRIED = 2  # images that the estimate is made from
MORE = 1.3  # than what the graph holds: gradients on their way back


def check(trainer: Trainer) -> None:
    """Raises ValueError, before the first step, where a step takes more memory than is free."""
    device, batch = trainer.device, trainer.config.batch_size // trainer.world
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
    else:
        free = psutil.virtual_memory().available
    needed = MORE * batch * held_by_an_image(trainer)
    if needed > free:
        raise ValueError(
            f"a step takes about {needed / 1e9:.1f} GB with batch_size {trainer.config.batch_size} "
            f"and {free / 1e9:.1f} GB are free: set a smaller batch_size."
        )


def held_by_an_image(trainer: Trainer) -> float:
    """Bytes that one more image of a batch adds to the graph of the deepest step."""
    model, update = copy.deepcopy(trainer.model), trainer.update  # BatchNorm keeps statistics
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    x, noise, seen = (torch.zeros_like(t[:TRIED]) for t in (update.x, update.noise, update.seen))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = Objective(model)(x, noise, seen, 0, update.kl_weight)  # holds the graph
    del loss
    return sum(held.values()) / len(x)
