"""Studies of several models: each is trained by a recipe, measured once, and kept in a folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from rnp_lib import checkpoints
from rnp_lib.config import Config
from rnp_lib.files import read_json, sha256, write_json
from rnp_lib.model.rnp import ImageModel
from rnp_lib.presets import PRESETS
from rnp_lib.training import loop

# Modules of this package, each with `recipes`, `collect` and `table`; their records are
# figures/NAME.json.
STUDIES = ("peers", "heldout", "onevector", "pens", "seeds", "counting", "bounds")


class Recipe(NamedTuple):
    """A preset, and the settings that differ from it."""

    preset: str
    changes: dict[str, Any]

    @property
    def settings(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.changes.items()]

    @property
    def config(self) -> Config:
        return PRESETS[self.preset].override(self.settings)

    @property
    def run(self) -> str:
        """The folder of its run, below that of all: "mnist,images=200000,without=7" is
        `rnp train mnist --set images=200000 --set without=7`."""
        return ",".join([self.preset, *self.settings])

    def train(self, folder: Path) -> None:
        """Train it, or go on, unless its run in `folder` has ended."""
        out = folder / self.run
        if not (out / "model.safetensors").is_file():
            loop.train(self.config, out, resume=True)

    def measured(
        self, folder: Path, measure: Callable[[ImageModel], dict[str, Any]]
    ) -> dict[str, Any]:
        """How its model in `folder` came about, and as `numbers` what `measure` finds: measured
        once, and kept beside the model by the name of the measure, as studies share models.

        Raises ValueError for a model of another recipe.
        """
        path = folder / self.run / "model.safetensors"
        module = measure.__module__.rpartition(".")[2]
        kept, digest = path.with_name(f"{module}.{measure.__name__}.json"), sha256(path)
        if kept.is_file() and (found := read_json(kept))["sha256"] == digest:
            return found
        model, about = checkpoints.load(path), checkpoints.metadata(path)
        if model.config != self.config:
            raise ValueError(f"{path} is of another recipe than now: delete its folder.")
        found = {
            "run": self.run,
            "code": str(about["run"]["git"]["commit"])[:12],
            "device": about["run"]["device"],
            "sha256": digest,
            "validation_sse": about["validation_sse"],
            "minutes": about["minutes"],
            "weights": sum(parameter.numel() for parameter in model.parameters()),
            "numbers": measure(model),
        }
        write_json(kept, found)
        return found
