"""Recursive Neural Programs (Fisher & Rao, 2022) in PyTorch.

    import rnp_lib as rnp
    model = rnp.load("mnist")
    tree = model.parse(images)

What stands beside the paper is `rnp_lib.model`: transforms, hypernet and encoder → rnp → objective.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rnp_lib.files import version

if TYPE_CHECKING:
    from rnp_lib import data, model, plots
    from rnp_lib.analysis.transformer import RNPTransformer
    from rnp_lib.checkpoints import load, load_encoder
    from rnp_lib.config import Config
    from rnp_lib.explorer import edits
    from rnp_lib.model.rnp import RNP
    from rnp_lib.model.tree import ProgramTree
    from rnp_lib.presets import PRESETS

# Where they are: imported when they are first used, as torch takes seconds.
_MODULES = {name: name for name in ("data", "model", "plots")} | {"edits": "explorer.edits"}
_NAMES = {
    **{"PRESETS": "presets", "Config": "config", "RNP": "model.rnp", "ProgramTree": "model.tree"},
    **{"load": "checkpoints", "load_encoder": "checkpoints"},
    "RNPTransformer": "analysis.transformer",
}

__all__ = [
    "PRESETS",
    "RNP",
    "Config",
    "ProgramTree",
    "RNPTransformer",
    "data",
    "edits",
    "load",
    "load_encoder",
    "model",
    "plots",
]
__version__ = version("rnp-lib")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"{__name__}.{_MODULES[name]}")
    if name in _NAMES:
        return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
