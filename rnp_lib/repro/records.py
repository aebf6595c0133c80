"""Figures with their records: beside NAME.png and NAME.pdf, a NAME.json says how they were made.

A notebook opens one run, notes through it what goes in, and saves through it what comes out:

    run = records.start("01_parsing", mode=mode, seed=seed, parameters={"digits": digits})
    images, labels = run.data("mnist", split="test")
    run.checkpoint("checkpoints/mnist.safetensors")
    run.save(figure, "fig3a_mnist", numbers={"test_sse": 6.9})

Only a full run on the real data writes to figures/ itself. A paper run (which retrains) writes to
figures/paper/; a quick run, or any run on stand-in data, to figures/quick/ with a stamp on the
picture. Neither can overwrite a full figure.
"""

import contextlib
import json
import math
import os
import random
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from rnp_lib import checkpoints
from rnp_lib import data as datasets
from rnp_lib.config import PRESETS
from rnp_lib.files import ROOT, git_state, project_path, replacing, sha256
from rnp_lib.machine import machine
from rnp_lib.model.rnp import ImageModel
from rnp_lib.training import loop as train

MODES = ("quick", "full", "paper")
DPI = 200


def folder(mode: str, stand_in: bool = False) -> Path:
    """Where a run of this mode writes; the environment's RNP_FIGURES moves figures/ elsewhere."""
    root = Path(os.environ.get("RNP_FIGURES") or ROOT / "figures")
    if stand_in or mode == "quick":
        return root / "quick"
    return root / "paper" if mode == "paper" else root


def load(name: str) -> dict[str, Any]:
    """The committed record `name` of figures/, as `Run.save` wrote it, wherever runs write now.

    Raises FileNotFoundError, saying which command makes it, where there is none.
    """
    path = ROOT / "figures" / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: `rnp figures --mode full` makes it.")
    return json.loads(path.read_text(encoding="utf-8"))


def start(notebook: str, mode: str, seed: int, parameters: dict[str, Any]) -> "Run":
    """Open one notebook's run: settle its mode, seed, pick the device, start the clock.

    notebook    its file name without .ipynb, "01_parsing"
    mode        "quick", "full", "paper", or "auto": what RNP_MODE says, else "quick"
    seed        seeds random, numpy and torch
    parameters  what the notebook was given (its tagged cell), as JSON can hold it

    The device is RNP_DEVICE where that is set ("cpu", "cuda:1", ...), else the GPU if there is
    one, else the CPU. Raises ValueError for any other mode.
    """
    if mode == "auto":
        mode = os.environ.get("RNP_MODE") or "quick"
    if mode not in MODES:
        raise ValueError(f"mode must be auto, quick, full or paper, not {mode!r}.")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries called here draw from the global generator
    torch.manual_seed(seed)
    device = os.environ.get("RNP_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    return Run(notebook, mode, seed, dict(parameters), torch.device(device))


@dataclass
class Run:
    """One notebook's run, made by `start`; `stand_ins` maps a data set to what took its place."""

    notebook: str
    mode: str
    seed: int
    parameters: dict[str, Any]
    device: torch.device
    stand_ins: dict[str, str] = field(default_factory=dict)
    _data: dict[str, str] = field(default_factory=dict)
    _checkpoints: dict[str, str] = field(default_factory=dict)
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

    def data(self, name: str, split: str, size: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
        """Load a data set, or its stand-in where it cannot be had, and note which bytes were used.

        Returns images float32 [N, 1, size, size] in [0, 1] and labels int64 [N]. A stand-in is
        named in `stand_ins`, and on every figure saved from here on.
        """
        images, labels, used = datasets.load_or_stand_in(name, split, size)
        if used != name:
            self.stand_ins[name] = used
        self._data[f"{used}/{split}"] = datasets.digest(images, labels)
        return images, labels

    def model(self, name: str) -> ImageModel:
        """The committed model `name`, in eval mode on the run's device; in paper mode, one trained
        first with the preset paper-NAME (or the rest of such a training that was interrupted),
        where the paper has such a model."""
        preset = f"paper-{name}"
        if self.mode == "paper" and preset in PRESETS:
            path = train.train(PRESETS[preset], ROOT / "runs" / preset, resume=True)
        else:
            path = checkpoints.find(name)
        self.checkpoint(path)
        return checkpoints.load(path, self.device)

    def checkpoint(self, path: str | Path) -> None:
        """Note the SHA-256 of a checkpoint file that this run loads."""
        self._checkpoints[project_path(path)] = sha256(path)

    def save(self, figure: Figure, name: str, numbers: dict[str, Any]) -> Path:
        """Write NAME.png, NAME.pdf and the record NAME.json; returns the PNG's path.

        figure   left as it was: the stamp is drawn on the files only
        numbers  the headline numbers: finite floats, ints, strings, or arrays of one number

        Raises ValueError for a number that is not finite and for a name that is no plain file
        name, TypeError for a number of another type; nothing is written then.
        """
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError(f"a figure's name is letters, digits, _ and - only, not {name!r}.")
        record = json.dumps(self._record(name, numbers), indent=2, allow_nan=False) + "\n"
        png = folder(self.mode, stand_in=bool(self.stand_ins)) / f"{name}.png"
        # Files take their names in the reverse order, the record last: where it is new, all are.
        with (
            replacing(png.with_suffix(".json")) as json_file,
            replacing(png.with_suffix(".pdf")) as pdf_file,
            replacing(png) as png_file,
            _stamped(figure, self._stamp()),
        ):
            # No dates and no library versions in the files: the same figure is the same bytes.
            layout = {"dpi": DPI, "bbox_inches": "tight"}
            figure.savefig(png_file, metadata={"Software": None}, **layout)
            clean = dict.fromkeys(("CreationDate", "Producer", "Creator"))
            figure.savefig(pdf_file, metadata=clean, **layout)
            json_file.write_text(record, encoding="utf-8")
        return png

    def _stamp(self) -> str:
        words = ["quick"] if self.quick else []
        words += [f"stand-in: {used} instead of {name}" for name, used in self.stand_ins.items()]
        return " · ".join(words)

    def _record(self, name: str, numbers: dict[str, Any]) -> dict[str, Any]:
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
            "checkpoints": self._checkpoints,
            "data": self._data,
            "stand_ins": self.stand_ins,
            "git": self._git,
            **machine(self.device),
            "wall_time_s": round(time.perf_counter() - self._started, 1),
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
        }


@contextlib.contextmanager
def _stamped(figure: Figure, text: str) -> Iterator[None]:
    """`figure` with a small line below everything else; nothing where there is nothing to say."""
    if not text:
        yield
        return
    label = figure.text(0.5, -0.01, text, ha="center", va="top", fontsize=8, color="crimson")
    try:
        yield
    finally:
        label.remove()


def _scalar(key: str, value: Any) -> float | int | str:
    """`value` as JSON holds it, scalar arrays and tensors unpacked."""
    if isinstance(value, np.generic | np.ndarray | torch.Tensor) and math.prod(value.shape) == 1:
        value = value.item()
    if not isinstance(value, float | int | str):
        raise TypeError(f"number {key!r} must be a float, int or string, not {type(value)}.")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"number {key!r} is {value}: only finite numbers are saved.")
    return value
