"""The controls of transfer: what else may adapt, and what else may start, with the same budget.

A trial is one model under one condition. Each is run by itself and leaves a record of its own;
`collect` makes one record of those of a task.
"""

import dataclasses
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rnp_lib import checkpoints
from rnp_lib.analysis import fewshot, transfer
from rnp_lib.analysis.transfer import TASKS, Images, Task
from rnp_lib.config import Config
from rnp_lib.files import code_version, project_path, sha256
from rnp_lib.machine import machine
from rnp_lib.model.rnp import ImageModel
from rnp_lib.presets import PRESETS

# What adapts.
CONDITIONS = {
    "none": "nothing retrained",
    "inference": "inference retrained",
    "error": "the same, by error alone",
    "codes": "codes by descent",
    "everything": "everything retrained",
    "random": "inference, random decoder",
}
# The models that adapt, all with the same image encoder, by what their run's settings change.
MODELS = {
    "tree": "tree",
    "root": "all from the root",
    "vae": "plain VAE",
    "wide": "plain VAE, wide",  # as many latent numbers as the tree has in all
}
SAW = ("none", "codes")  # how a model that saw every class is measured
# What adapts to few images.
FEW = {"inference": "its reader", **fewshot.KINDS}
ADAPTING = {**CONDITIONS, **FEW}
SHOTS = tuple(transfer.SHOT_STEPS)  # images of a digit
DRAWS = 5  # of so few images
CODE_IMAGES = 500  # about so many held-out images get their codes adjusted


@dataclass(frozen=True)
class Trial:
    """One model under one condition; its seed is that of the base model and of what follows.

    `saw` a model that saw every class. `shots` images of the new class, drawn by number `draw`, are
    learned from; None is all of them.
    """

    model: str
    condition: str
    saw: bool = False
    seed: int = 0
    shots: int | None = None
    draw: int = 0

    def __post_init__(self):
        if self.shots and self.condition not in FEW:
            raise ValueError(
                f"of few images only {', '.join(FEW)} learn: got {self.condition!r} with shots."
            )
        if self.condition in fewshot.KINDS and not self.shots:
            raise ValueError(f"{self.condition!r} learns from few images: say how many shots.")
        if self.shots and self.shots not in SHOTS:
            raise ValueError(f"shots must be one of {SHOTS}: got {self.shots}.")
        if self.saw and self.condition not in SAW:
            raise ValueError(
                f"a model that saw every class need not be retrained: got {self.condition!r}."
            )

    @property
    def name(self) -> str:
        """What names the trial among files."""
        few = f"-{self.shots}-{self.draw}" if self.shots else ""
        return f"{self.model}{'-saw' * self.saw}-{self.condition}-{self.seed}{few}"

    def start(self, task: Task) -> str:
        """The run of `rnp train` that it starts from: a preset, and settings that differ."""
        preset = (task.saw if self.saw else task.base) or ""
        settings = []
        if self.model == "root" and task.root:
            preset = task.root
        elif self.model == "root":
            settings = ["posterior=root"]
        elif self.model in ("vae", "wide"):
            settings = ["model=vae"]
        if self.model == "wide":
            settings += [f"z_dim={latents(PRESETS[task.base])}"]
        return ",".join([preset, *settings, *([f"seed={self.seed}"] if self.seed else [])])


def latents(config: Config) -> int:
    """How many numbers the programs of a tree that are drawn have in all, places included."""
    return config.z_dim + (config.z_dim + 6) * sum(config.drawn_below(config.depth))


def plan(task: Task) -> list[Trial]:
    """All trials of a task; few images only of digits, as Omniglot's characters are many."""
    trials = [
        Trial(model, condition, saw, seed)
        for seed in range(max(task.models.values()))
        for model, seeds in task.models.items()
        if seed < seeds
        for saw, conditions in ((False, CONDITIONS), (True, SAW if task.saw else ()))
        for condition in conditions
    ]
    few = itertools.product(FEW, SHOTS, range(DRAWS)) if task.digit is not None else ()
    return trials + [Trial("tree", what, shots=shots, draw=draw) for what, shots, draw in few]


def run(
    name: str,
    trial: Trial,
    device: torch.device,
    base: str | Path | None = None,
    changed: Sequence[str] = (),
) -> tuple[dict[str, Any], ImageModel]:
    """Run one trial of a task.

    Args:
        base: the model it starts from; that of checkpoints/ unless told.
        changed: settings of the recipe, as "key=value".

    Returns:
        A record of this trial alone, and the model as it was adapted.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is another than the trial asks for, or a setting that cannot work.
    """
    task, code, started = TASKS[name], code_version(), time.perf_counter()
    path = checkpoints.find(base or trial.start(task))
    model = checkpoints.load(path, device)
    _check(path, model.config, trial, task)
    override = model.config.override(list(changed)).to_dict()
    recipe = {key: override[key] for key in (text.partition("=")[0].strip() for text in changed)}
    inputs = settings(task, **recipe)
    images, digests = transfer.load(task)
    images = Images(*(x.to(device) for x in images))
    result, adapted = _adapt(trial, task, model, images, inputs["recipe"])
    about = {
        **dataclasses.asdict(trial),
        "base": {"path": project_path(path), "sha256": sha256(path)},
        **result,
        "minutes": round((time.perf_counter() - started) / 60, 2),
        "code": code,
    }
    counts = {kind: len(x) for kind, x in images._asdict().items()}
    inputs = {"data": digests, "images": counts, **inputs}
    return {"task": name, **machine(device), "inputs": inputs, "trials": [about]}, adapted


def _check(path: Path, config: Config, trial: Trial, task: Task) -> None:
    """Raises ValueError unless a trial of the task starts from a model of this config."""
    kind = "vae" if trial.model in ("vae", "wide") else trial.model
    z_dim = PRESETS[task.base].z_dim
    wanted = {
        "kind": kind,
        "seed": trial.seed,
        "|z|": latents(PRESETS[task.base]) if trial.model == "wide" else z_dim,
        "saw the new characters": trial.saw,
    }
    found = {
        "kind": config.posterior if config.model == "rnp" else config.model,
        "seed": config.seed,
        "|z|": config.z_dim,
        "saw the new characters": task.digit not in (None, *config.without),
    }
    if found != wanted:
        raise ValueError(
            f"{path} is not the model that the trial starts from: it has {found}, and should have "
            f"{wanted}: choose another --base."
        )


def settings(task: Task, **recipe: Any) -> dict[str, Any]:
    """What the trials of a task have in common, but for its data: with another recipe, if told."""
    recipe = {**transfer.RECIPE, **recipe}
    return {
        "drawers": transfer.DRAWERS,
        "shots": {**transfer.SHOT_RECIPE, "steps": list(transfer.SHOT_STEPS.values())},
        "codes": {"steps": transfer.CODE_STEPS, "rate": transfer.CODE_RATE},
        "error_sigma2": transfer.ERROR_SIGMA2,
        "expected": {"symbols": fewshot.SHARE, "rules": fewshot.RULES},
        "recipe": recipe | {"images": list(recipe["images"])},
        "old": task.old,
    }


def _adapt(
    trial: Trial, task: Task, model: ImageModel, images: Images, recipe: dict[str, Any]
) -> tuple[dict[str, Any], ImageModel]:
    """Adapt a model and measure it: `new`, `old` and, after retraining, `validation_sse`; where its
    prior is what adapts also what it draws then, `drawn`."""
    if trial.condition in fewshot.KINDS:
        few, _ = transfer.few(images.learn, trial.shots, trial.draw)
        expectation = fewshot.expect(model, few, trial.condition)
        return fewshot.scores(expectation, images, task.digit), expectation.model
    if trial.condition == "none":
        return transfer.scores(model, images), model
    if trial.condition == "codes":  # which forgets nothing
        stride = len(images.new) // CODE_IMAGES or 1
        errors = transfer.code_error(model, images.new[::stride], transfer.CODE_STEPS)
        return {"new": transfer.summary(errors)}, model
    if trial.shots:
        adapted, validation = transfer.retrain_few(model, images.learn, trial.shots, trial.draw)
    else:
        if trial.condition == "random":
            # Not where its own training began.
            model = transfer.random_decoder(model, 1_000 + trial.seed)
        changes = {"seed": trial.seed, "everything": trial.condition == "everything", **recipe}
        if trial.condition == "error":
            changes["sigma2"] = transfer.ERROR_SIGMA2
        adapted, validation = transfer.retrain(model, images.learn, **changes)
    return {**transfer.scores(adapted, images), "validation_sse": validation}, adapted


def save_encoder(
    out: Path, name: str, trial: Trial, device: torch.device, base: str | None, changed: Sequence
) -> None:
    """Run a trial, as `run` does, and save the retrained encoder, and of a tree the reader, with
    what its record says."""
    if trial.condition not in ("inference", "error"):
        raise ValueError(f"no encoder comes out of {trial.condition!r}: give an --out of .json.")
    record, adapted = run(name, trial, device, base, changed)
    (found,), inputs = record["trials"], record["inputs"]
    about = {"task": name, "data_sha256": inputs["data"], "device": str(device)}
    about |= {"condition": trial.condition, "recipe": inputs["recipe"]}
    about |= {key: found[key] for key in ("seed", "code", "minutes", "validation_sse")}
    about["after"] = {key: found[key] for key in ("new", "old")}
    checkpoints.save_encoder(out, adapted, base or trial.start(TASKS[name]), about)


def collect(name: str, paths: Sequence[str | Path]) -> dict[str, Any]:
    """One record of a task, from records of its trials; of what these say differently, all.

    Raises ValueError for a file that is no such record, or was made with other data or settings.
    """
    shared: dict[str, list] = {}
    inputs, trials, keys = {}, {}, [field.name for field in dataclasses.fields(Trial)]
    for path in paths:
        try:
            record = json.loads(Path(path).read_text(encoding="utf-8"))
            task, said, held = (record.pop(key) for key in ("task", "inputs", "trials"))
            trials |= {Trial(**{key: trial[key] for key in keys}): trial for trial in held}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(f"{path} is no record of transfer: `rnp transfer` makes it.") from None
        if task != name or any(inputs.setdefault(key, said[key]) != said[key] for key in said):
            raise ValueError(f"{path} is of another task, or of other data or settings: redo it.")
        for key, value in record.items():
            values = value if isinstance(value, list) else [value]
            shared[key] = [*(known := shared.get(key, [])), *(v for v in values if v not in known)]
    order = [*plan(TASKS[name]), *trials]
    return {
        "task": name,
        **{key: values[0] if len(values) == 1 else values for key, values in shared.items()},
        "command": f"rnp collect {name}",
        "inputs": inputs,
        "trials": [trials[trial] for trial in sorted(trials, key=order.index)],
    }
