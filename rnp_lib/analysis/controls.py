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

import numpy as np
import torch

from rnp_lib import checkpoints
from rnp_lib.analysis import transfer
from rnp_lib.analysis.transfer import TASKS, Images, Task
from rnp_lib.files import code_version, project_path, sha256
from rnp_lib.machine import machine
from rnp_lib.model.rnp import ImageModel

# What may adapt.
CONDITIONS = {
    "none": "no retraining",
    "encoder": "encoder retrained",
    "everything": "everything retrained",
    "random": "encoder, random decoder",
    "codes": "codes alone, by descent",
    "both": "encoder retrained, then codes",
}
# The model that adapts, a plain VAE with the same image encoder that is treated alike, and an RNP
# that saw every class and need not adapt.
MODELS = {"rnp": "RNP", "vae": "plain VAE", "reference": "RNP that saw it"}
ALONE = tuple(CONDITIONS)[:-1]  # "both" is measured along with "encoder"
TRIED = {"rnp": ALONE, "vae": ALONE, "reference": ("none", "codes")}
SHOTS = (1, 20)  # images of a digit
DRAWS = 5  # of so few images
CODE_IMAGES = 500  # about so many held-out images get their codes adjusted


@dataclass(frozen=True)
class Trial:
    """One model under one condition; its seed is that of the base model and of what follows.

    `shots` images of the new class, drawn by number `draw`, are learned from; None is all of them.
    """

    model: str
    condition: str
    seed: int = 0
    shots: int | None = None
    draw: int = 0

    def __post_init__(self):
        if self.shots and self.condition != "encoder":
            raise ValueError(f"only encoders learn from few images: got {self.condition!r}.")

    @property
    def name(self) -> str:
        """What names the trial among files."""
        few = f"-{self.shots}-{self.draw}" if self.shots else ""
        return f"{self.model}-{self.condition}-{self.seed}{few}"


def plan(task: Task) -> list[Trial]:
    """All trials of a task; few images only of digits, as Omniglot's characters are many."""
    trials = [
        Trial(model, condition, seed)
        for seed in range(task.seeds)
        for model, conditions in TRIED.items()
        for condition in conditions
        if model != "reference" or task.reference
    ]
    few = itertools.product(SHOTS, range(DRAWS)) if task.digit is not None else ()
    return trials + [Trial("rnp", "encoder", shots=shots, draw=draw) for shots, draw in few]


def run(
    name: str,
    trial: Trial,
    device: torch.device,
    base: str | Path | None = None,
    changed: Sequence[str] = (),
) -> tuple[dict[str, Any], ImageModel]:
    """Run one trial of a task.

    Args:
        base: the model it starts from; the committed one, which is of seed 0, unless told.
        changed: settings of the recipe, as "key=value"; of `images` that is the budget.

    Returns:
        A record of this trial alone, and the model as it was adapted.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is another than the trial asks for, or a setting that cannot work.
    """
    task, code, started = TASKS[name], code_version(), time.perf_counter()
    path = checkpoints.find(base or (task.reference if trial.model == "reference" else task.base))
    model = checkpoints.load(path, device)
    wanted = ("vae" if trial.model == "vae" else "rnp", trial.seed, trial.model == "reference")
    found = model.config.model, model.config.seed, task.digit not in (None, *model.config.without)
    if found != wanted:
        raise ValueError(
            f"{path} is not the model that the trial starts from: its kind, its seed and whether "
            f"it saw the new characters are {found}, and should be {wanted}: choose another --base."
        )
    override = model.config.override(list(changed)).to_dict()
    recipe = {key: override[key] for key in (text.partition("=")[0].strip() for text in changed)}
    inputs = settings(task, **recipe)
    images, digests = transfer.load(task)
    images = Images(*(x.to(device) for x in images))
    result, adapted = _adapt(trial, model, images, inputs["budget"], inputs["recipe"])
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


def settings(task: Task, images: Sequence[int] | None = None, **recipe: Any) -> dict[str, Any]:
    """What the trials of a task have in common, but for its data: with another recipe, if told."""
    return {
        "budget": sum(images or (task.images,)),
        "drawers": transfer.DRAWERS,
        "shots": {"steps": list(transfer.SHOT_STEPS), **transfer.SHOT_RECIPE},
        "codes": {"steps": transfer.CODE_STEPS, "rate": transfer.CODE_RATE},
        "recipe": {**transfer.RECIPE, "jitter": task.jitter, **recipe},
        "old": task.old,
    }


def _adapt(
    trial: Trial, model: ImageModel, images: Images, budget: int, recipe: dict[str, Any]
) -> tuple[dict[str, Any], ImageModel]:
    """Adapt a model and measure it: `new`, `old` and, after retraining, `validation_sse`; an
    encoder retrained on all images once more, `then_codes`, with codes that descend from its own.
    """
    if trial.condition == "none":
        return transfer.scores(model, images), model
    if trial.condition == "codes":  # which forgets nothing
        return {"new": _codes(model, images)}, model
    if trial.shots:
        adapted, validation = transfer.retrain_few(model, images.learn, trial.shots, trial.draw)
    else:
        if trial.condition == "random":
            # Not where its own training began.
            model = transfer.random_decoder(model, 1_000 + trial.seed)
        everything = trial.condition == "everything"
        changes = {"seed": trial.seed, "everything": everything, **recipe}
        adapted, validation = transfer.retrain(model, images.learn, budget, **changes)
    result = {**transfer.scores(adapted, images), "validation_sse": validation}
    if trial.condition == "encoder" and not trial.shots:
        result["then_codes"] = _codes(adapted, images)
    return result, adapted


def _codes(model: ImageModel, images: Images) -> dict[str, float]:
    stride = len(images.new) // CODE_IMAGES or 1
    return transfer.summary(transfer.code_error(model, images.new[::stride], transfer.CODE_STEPS))


def save_encoder(
    out: Path, name: str, trial: Trial, device: torch.device, base: str | None, changed: Sequence
) -> None:
    """Run a trial, as `run` does, and save the retrained encoder with what its record says."""
    if trial.condition != "encoder":
        raise ValueError(f"no encoder comes out of {trial.condition!r}: give an --out of .json.")
    record, adapted = run(name, trial, device, base, changed)
    (found,), inputs = record["trials"], record["inputs"]
    about = {"task": name, "data_sha256": inputs["data"], "device": str(device)}
    about |= {key: inputs[key] for key in ("budget", "recipe")}
    about |= {key: found[key] for key in ("seed", "code", "minutes", "validation_sse")}
    about["after"] = {key: found[key] for key in ("new", "old")}
    checkpoints.save_encoder(out, adapted, base or TASKS[name].base, about)


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


def of_seed(record: dict, seed: int) -> dict:
    """A record with the trials of one seed alone."""
    return {**record, "trials": [trial for trial in record["trials"] if trial["seed"] == seed]}


def chosen(record: dict, model: str, condition: str, shots: int | None = None) -> list[dict]:
    """The trials of a record, of whatever seeds and draws, of one model and condition."""
    if condition == "both":
        return [{"new": trial["then_codes"]} for trial in chosen(record, model, "encoder")]
    wanted = {"model": model, "condition": condition, "shots": shots}
    return [trial for trial in record["trials"] if wanted.items() <= trial.items()]


def mean(trials: list[dict], which: str = "new") -> tuple[float, float] | None:
    """The SSE of the `new` or the `old` characters and its standard error: over the trials or, if
    there is one only, over its images. None unless all trials were measured on them."""
    if not all(which in trial for trial in trials):
        return None
    sses = [trial[which]["sse"] for trial in trials]
    if len(sses) == 1:
        return sses[0], trials[0][which]["sse_stderr"]
    return float(np.mean(sses)), float(np.std(sses, ddof=1) / len(sses) ** 0.5)


def yardstick(record: dict) -> float:
    """The SSE of the new characters that others are compared with: of the RNP that saw every class
    or, where there is none, without retraining."""
    reference = chosen(record, "reference", "none")
    return mean(reference or chosen(record, "rnp", "none"))[0]


def numbers(record: dict) -> dict[str, float]:
    """What a figure's record keeps of this one: MODEL_CONDITION and shots_N, each a mean SSE of the
    new characters, with _stderr, _ratio (to `yardstick`) and, of the old characters, _old."""
    groups = {f"{m}_{c}": chosen(record, m, c) for m in MODELS for c in CONDITIONS}
    groups |= {f"shots_{n}": chosen(record, "rnp", "encoder", n) for n in SHOTS}
    found = {}
    for key, trials in groups.items():
        if trials:
            sse, stderr = mean(trials)
            found |= {key: sse, f"{key}_stderr": stderr, f"{key}_ratio": sse / yardstick(record)}
            if old := mean(trials, "old"):
                found[f"{key}_old"] = old[0]
    return found


def table(record: dict) -> str:
    """The conditions of a record side by side, for people."""
    unit, row = yardstick(record), "{:42}{:>15}{:>16}{:>8}{:>7}{:>8}".format
    lines = [row("SSE per image, mean ± s.e.", "new", "old", "n new", "seeds", "ratio")]
    for (model, who), (condition, what) in itertools.product(MODELS.items(), CONDITIONS.items()):
        if trials := chosen(record, model, condition):
            new, old = mean(trials), mean(trials, "old")
            sses = ("{:.2f} ± {:.2f}".format(*found) if found else "-" for found in (new, old))
            n, ratio = f"{trials[0]['new']['n']:,}", f"{new[0] / unit:.2f}"
            lines.append(row(f"{who}, {what}", *sses, n, len(trials), ratio))
    saw = chosen(record, "reference", "none")
    of = "that saw every class" if saw else "without retraining"
    return "\n".join([*lines, f"ratio: to the SSE of the RNP {of}, {unit:.2f}"])


def beside(records: dict[str, dict]) -> str:
    """For each title the SSE of the new characters, of the RNP and of the plain VAE treated alike,
    and in how many conditions each is ahead."""
    found = {title: numbers(record) for title, record in records.items()}
    row = ("{:34}" + "{:>14}{:>12}" * len(records)).format
    lines = ["{:34}".format("SSE per image of new characters") + "".join(f"{t:>26}" for t in found)]
    lines.append(row("", *["RNP", "plain VAE"] * len(records)))
    for condition, what in CONDITIONS.items():
        keys = f"rnp_{condition}", f"vae_{condition}"
        lines.append(row(what, *(f"{each[key]:.2f}" for each in found.values() for key in keys)))
    for title, each in found.items():
        ahead = [what for c, what in CONDITIONS.items() if each[f"rnp_{c}"] < each[f"vae_{c}"]]
        lines.append(
            f"{title}: the plain VAE is ahead in {len(CONDITIONS) - len(ahead)} of "
            f"{len(CONDITIONS)} conditions, the RNP in: {', '.join(ahead) or 'none'}"
        )
    return "\n".join(lines)
