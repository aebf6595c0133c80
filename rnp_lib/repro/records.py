"""Figures with their records: beside NAME.png and NAME.pdf, a NAME.json says how they were made.

A notebook opens one run, notes through it what goes in, and saves through it what comes out:

    run = records.start("01_parsing", mode=mode, seed=seed, parameters={"digits": digits})
    images, labels = run.data("mnist", split="test")
    model = run.model("mnist")
    run.save(figure, "fig3a_mnist", numbers={"sse": 4.05}, uses=["mnist", "mnist/test"])

Only a full figure of real data is written to figures/ itself. Those of a paper run, whose models
follow the paper's recipe, go to figures/paper/; those of a quick run, or any made of stand-in data,
to figures/quick/ with a stamp on the picture. Neither can overwrite a full figure.
"""

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from rnp_lib import checkpoints
from rnp_lib import data as datasets
from rnp_lib.files import ROOT, git_state, project_path, read_json, replacing, sha256
from rnp_lib.machine import machine, pick_device
from rnp_lib.model.rnp import ImageModel
from rnp_lib.presets import PRESETS

MODES = ("quick", "full", "paper")
DPI = 200
STAMP = {"ha": "center", "va": "top", "fontsize": 8, "color": "crimson"}


def folder(mode: str, stand_in: bool = False) -> Path:
    """Where a run of this mode writes; the environment's RNP_FIGURES moves figures/ elsewhere."""
    root = Path(os.environ.get("RNP_FIGURES") or ROOT / "figures")
    if stand_in or mode == "quick":
        return root / "quick"
    return root / "paper" if mode == "paper" else root


def read(name: str) -> dict[str, Any]:
    """The committed record `name` of figures/, as `Run.save` wrote it, wherever runs write now.

    Raises FileNotFoundError, saying which command makes it, where there is none.
    """
    path = ROOT / "figures" / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `rnp figures --mode full` makes it.")
    return read_json(path)


def paper_model(name: str) -> Path | None:
    """Where mode "paper" has its model `name`: what `rnp train paper-NAME` writes; None where the
    paper has no such model."""
    preset = f"paper-{name}"
    return ROOT / "runs" / preset / "model.safetensors" if preset in PRESETS else None


def start(
    notebook: str,
    mode: str,
    seed: int,
    parameters: dict[str, Any],
    limits: dict[str, tuple[int, int]] | None = None,
) -> "Run":
    """Open one notebook's run: settle its mode, pick the device, start the clock.

    notebook    its file name without .ipynb, "01_parsing"
    mode        "quick", "full", "paper", or "auto": what RNP_MODE says, else "quick"
    seed        of the notebook's generators; noted here, no global generator is seeded
    parameters  what the notebook was given (its tagged cell), as JSON can hold it
    limits      for whole numbers among them the smallest and the largest that make sense

    The device is RNP_DEVICE where that is set ("cpu", "cuda:1", ...), else the GPU if there is
    one, else the CPU. Raises ValueError for any other mode, and for a number out of its limits.
    """
    if mode == "auto":
        mode = os.environ.get("RNP_MODE") or "quick"
    if mode not in MODES:
        raise ValueError(f"mode must be auto, quick, full or paper, not {mode!r}.")
    for name, (low, high) in {"seed": (0, 2**63 - 1), **(limits or {})}.items():
        value = {"seed": seed, **parameters}[name]
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number from {low} to {high}: got {value!r}.")
    device = pick_device(os.environ.get("RNP_DEVICE"))
    return Run(notebook, mode, seed, dict(parameters), device)


@dataclass
class Run:
    """One notebook's run, made by `start`."""

    notebook: str
    mode: str
    seed: int
    parameters: dict[str, Any]
    device: torch.device
    # What was loaded: the name that `save` knows it by -> its name in a record, and a digest.
    _data: dict[str, tuple[str, str]] = field(default_factory=dict)
    _files: dict[str, tuple[str, str]] = field(default_factory=dict)
    # Asked at the start: by the time a figure is saved, another commit may be checked out.
    _git: dict[str, Any] = field(default_factory=git_state)
    _started: float = field(default_factory=time.perf_counter)

    @property
    def quick(self) -> bool:
        """Whether to make do with fewer items."""
        return self.mode == "quick"

    def pick(self, *, quick: Any, full: Any) -> Any:
        """`quick` in quick mode, `full` in full and paper mode: for numbers of items, mostly."""
        return quick if self.quick else full

    @property
    def stand_ins(self) -> dict[str, str]:
        """The data sets asked for so far that could not be had, and what took their places."""
        return self._inputs(None)["stand_ins"]

    def data(self, name: str, split: str, size: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
        """Load a data set, or its stand-in where it cannot be had, and note which bytes were used.

        Returns images float32 [N, 1, size, size] in [0, 1] and labels int64 [N].
        """
        images, labels, used = datasets.load_or_stand_in(name, split, size)
        self.note(f"{name}/{split}", f"{used}/{split}", images, labels)
        return images, labels

    def note(self, name: str, used: str, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Note the digest of data that were loaded otherwise: `name` as SET/SPLIT, and `used`, the
        same unless a stand-in takes its place; images (N, C, H, W), labels integers."""
        self._data[name] = used, datasets.digest(images, labels)

    def model(self, name: str) -> ImageModel:
        """The committed model `name`, in eval mode on the run's device; in paper mode the one that
        was trained by the paper's recipe, where the paper has such a model."""
        path = paper_model(name) if self.mode == "paper" else None
        path = path or checkpoints.find(name)
        if not path.is_file():
            raise FileNotFoundError(
                f"{project_path(path)} does not exist: `rnp train paper-{name}` makes it, and "
                f"`rnp figures {self.notebook} --mode paper` trains all that the notebook needs."
            )
        return checkpoints.load(self._noted(name, path), self.device)

    def file(self, name: str) -> Path:
        """Note the SHA-256 of another file that this run reads, and return where it is.

        name    of a file in checkpoints/ ("encoder-7"), or a path in the project with its suffix
        """
        return self._noted(name, ROOT / name if Path(name).suffix else checkpoints.find(name))

    def _noted(self, name: str, path: Path) -> Path:
        self._files[name] = project_path(path), sha256(path)
        return path

    def save(
        self,
        figure: Figure,
        name: str,
        numbers: dict[str, Any],
        uses: Iterable[str] | None = None,
    ) -> Path:
        """Write NAME.png, NAME.pdf and the record NAME.json; returns the PNG's path.

        figure   left as it was: the stamp is drawn on the files only
        numbers  the headline numbers: finite floats, ints, strings, or arrays of one number
        uses     what of all that the run loaded went into it: models and files by the name they
                 were asked for by, data as "mnist/test"; everything if not given

        Raises ValueError for a number that is not finite, for a name that is no plain file name
        and for a use of what was not loaded, TypeError for a number of another type; nothing is
        written then.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"a figure's name is letters, digits, _ and - only, not {name!r}.")
        inputs = self._inputs(uses)
        record = json.dumps(self._record(name, numbers, inputs), indent=2, allow_nan=False) + "\n"
        png = folder(self.mode, stand_in=bool(inputs["stand_ins"])) / f"{name}.png"
        words = ["quick"] if self.quick else []
        words += [f"stand-in: {used} instead of {n}" for n, used in inputs["stand_ins"].items()]
        # Files take their names in the reverse order, the record last: where it is new, all are.
        with (
            replacing(png.with_suffix(".json")) as json_file,
            replacing(png.with_suffix(".pdf")) as pdf_file,
            replacing(png) as png_file,
            contextlib.ExitStack() as drawn,
        ):
            if words:
                label = figure.text(0.5, -0.01, " · ".join(words), **STAMP)
                drawn.callback(label.remove)
            # No dates and no library versions in the files: the same figure is the same bytes.
            layout = {"dpi": DPI, "bbox_inches": "tight"}
            figure.savefig(png_file, metadata={"Software": None}, **layout)
            clean = dict.fromkeys(("CreationDate", "Producer", "Creator"))
            figure.savefig(pdf_file, metadata=clean, **layout)
            json_file.write_text(record, encoding="utf-8")
        return png

    def _inputs(self, uses: Iterable[str] | None) -> dict[str, dict[str, str]]:
        """What a record says of what went in, by its field."""
        known = [*self._files, *self._data]
        uses = known if uses is None else list(uses)
        if unknown := [use for use in uses if use not in known]:
            raise ValueError(f"a figure cannot use {unknown[0]!r}: the run has loaded {known}.")
        data = {use: self._data[use] for use in uses if use in self._data}
        return {
            "checkpoints": dict(self._files[use] for use in uses if use in self._files),
            "data": dict(data.values()),
            "stand_ins": {
                wanted.rpartition("/")[0]: used.rpartition("/")[0]
                for wanted, (used, _) in data.items()
                if used != wanted
            },
        }

    def _record(self, name: str, numbers: dict[str, Any], inputs: dict) -> dict[str, Any]:
        # Only the driver knows which parameters it was told to change.
        by_hand = f"rnp figures {self.notebook} --mode {self.mode}"
        return {
            "figure": name,
            "notebook": f"notebooks/{self.notebook}.ipynb",
            "command": os.environ.get("RNP_COMMAND", by_hand),
            "mode": self.mode,
            "seed": self.seed,
            "parameters": self.parameters,
            "numbers": {key: _scalar(key, value) for key, value in numbers.items()},
            **inputs,
            "git": self._git,
            **machine(self.device),
            "wall_time_s": round(time.perf_counter() - self._started, 1),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def _scalar(key: str, value: Any) -> float | int | str:
    """`value` as JSON holds it, scalar arrays and tensors unpacked."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and math.prod(value.shape) == 1:
        value = value.item()
    if not isinstance(value, float | int | str):
        raise TypeError(f"number {key!r} must be a float, int or string, not {type(value)}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"number {key!r} is {value}: only finite numbers are saved.")
    return value
