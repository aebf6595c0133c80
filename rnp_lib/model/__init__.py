"""The model of the paper: programs that draw images as trees of programs."""

import torch

from rnp_lib.config import Config
from rnp_lib.model.rnp import RNP, ImageModel
from rnp_lib.model.vae import HierarchicalVAE, PlainVAE

MODELS = {"rnp": RNP, "vae": PlainVAE, "hvae": HierarchicalVAE}


def _kind(name: str) -> type[ImageModel]:
    if name != "air":
        return MODELS[name]
    try:
        from rnp_lib.model.air import AIR
    except ModuleNotFoundError as error:
        if error.name != "pyro":
            raise
        raise ValueError(
            "AIR is written in Pyro, which is not installed: `pip install -e '.[peers]'`."
        ) from None
    return AIR


def build(config: Config, seed: int | None = None) -> ImageModel:
    """A new, untrained model of the kind that its configuration names.

    Args:
        seed: of the weights, which are then the same in every process, the caller's generator left
            as it was; unless given, they are drawn from that generator.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.default_generator.manual_seed(seed)  # weights are drawn on the CPU
        return _kind(config.model)(config)
