"""A model and a data set so small that training them takes a second or two."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from rnp_lib.config import Config
from rnp_lib.model.rnp import RNP
from rnp_lib.presets import PRESETS

SETTINGS = {
    "posterior": "root",
    "drop": 0.0,
    "image_size": 16,
    "patch_size": 8,
    "tau": (2, 2),
    "extent": (0.3, 0.6),
    "z_dim": 8,
    "rank": 8,
    "trunk_depth": 2,
    "trunk_width": 16,
    "hidden": 16,
    "images": (160, 160),
    "batch_size": 8,
    "warmup": 2,
    "ema": 0.9,
}


def config(**changes) -> Config:
    return Config(**SETTINGS | changes)


def tree(**changes) -> RNP:
    """A model whose programs are all random variables, every weight of it random."""
    return disturbed(config(posterior="tree", reader_units=8, **changes), torch.float32, 0.03)


def pictures(n: int) -> torch.Tensor:
    """Images of nothing, (n, 1, 16, 16)."""
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def disturbed(config: Config, dtype: torch.dtype = torch.float64, amount: float = 0.1) -> RNP:
    """A model of it in eval mode, everything in it random, what starts at zero too."""
    model = RNP(config).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += amount * torch.randn_like(parameter)
    return model


def write_pngs(folder: Path, count: int = 120) -> Path:
    """Images of a bright L on black, 16 × 16 pixels, each at one of nine places."""
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.zeros((16, 16), np.uint8)
        top, left = 4 + i % 3, 4 + i // 3 % 3
        pixels[top : top + 6, left : left + 2] = 255
        pixels[top + 4 : top + 6, left : left + 5] = 255
        Image.fromarray(pixels).save(folder / f"{i:03}.png")
    return folder


def arguments(config: Config) -> list[str]:
    """The --set options that turn the preset `mnist` into `config`."""
    plain = PRESETS["mnist"].to_dict()
    changed = {key: value for key, value in config.to_dict().items() if value != plain[key]}
    return [text for key, value in changed.items() for text in ("--set", f"{key}={value}")]
