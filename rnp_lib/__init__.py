"""Recursive Neural Programs (Fisher & Rao, 2022) in PyTorch.

    import rnp_lib as rnp
    model = rnp.load("mnist")
    tree = model.parse(images)

What stands beside the paper is `rnp_lib.model`: transforms, hypernet and encoder → rnp → objective.
"""

from rnp_lib import data, plots
from rnp_lib.checkpoints import load
from rnp_lib.config import Config
from rnp_lib.model.rnp import RNP
from rnp_lib.model.tree import ProgramTree
from rnp_lib.presets import PRESETS

ProgramTree._repr_png_ = plots.png  # what a notebook shows of a tree

__all__ = [
    "PRESETS",
    "RNP",
    "Config",
    "ProgramTree",
    "data",
    "load",
    "plots",
]
