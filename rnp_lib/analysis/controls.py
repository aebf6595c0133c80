"""The controls of transfer: every condition with the same budget, one record for each task.

A record is written anew after every trial, and a trial that it holds already is not run again.
"""

import dataclasses
import json
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rnp_lib import checkpoints
from rnp_lib.analysis.transfer import (
    CODE_RATE,
    CODE_STEPS,
    DRAWERS,
    RECIPE,
    SHOT_RECIPE,
    SHOT_STEPS,
    TASKS,
    Images,
    Task,
    code_error,
    load,
    random_decoder,
    retrain,
    retrain_few,
    scores,
    summary,
)
from rnp_lib.files import code_version, project_path, replacing, sha256
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
TRIED = {
    "rnp": ("none", "encoder", "everything", "random", "codes"),  # "encoder" measures "both"
    "vae": ("none", "encoder", "everything", "random", "codes"),
    "reference": ("none", "codes"),
}
SHOTS = (1, 20)  # images of a digit
DRAWS = 5  # of so few images
CODE_IMAGES = 500  # about so many held-out images get their codes adjusted
SETTINGS = {
    "drawers": DRAWERS,
    "shots": {"steps": list(SHOT_STEPS), **SHOT_RECIPE},
    "codes": {"steps": CODE_STEPS, "rate": CODE_RATE},
}


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

    def __str__(self) -> str:
        few = f", {self.shots} images, draw {self.draw}" if self.shots else ""
        return f"{MODELS[self.model]} {self.seed}, {CONDITIONS[self.condition]}{few}"


def plan(task: Task) -> list[Trial]:
    """All trials of a task; few images only of digits, as Omniglot's characters are many."""
    trials = [
        Trial(model, condition, seed)
        for seed in range(task.seeds)
        for model, conditions in TRIED.items()
        for condition in conditions
        if model != "reference" or task.reference
    ]
    if task.digit is not None:
        trials += [
            Trial("rnp", "encoder", shots=shots, draw=draw)
            for shots in SHOTS
            for draw in range(DRAWS)
        ]
    return trials


def base_path(task: Task, trial: Trial, models: Path) -> Path:
    """The model that a trial starts from: the committed one, or a run in the folder `models`.

    Raises FileNotFoundError, naming the command that trains it, where there is none.
    """
    is_vae = trial.model == "vae"
    preset = task.reference if trial.model == "reference" else task.base
    if trial.seed == 0 and not is_vae:
        return checkpoints.find(preset)
    path = models / f"{task.vae if is_vae else preset}-{trial.seed}" / "model.safetensors"
    if not path.is_file():
        kind = "vae" if is_vae else "rnp"
        command = f"rnp train {preset} --set model={kind} --set seed={trial.seed}"
        raise FileNotFoundError(f"{path} does not exist: `{command} --out {path.parent}` makes it.")
    return path


def run_trial(task: Task, trial: Trial, base: ImageModel, images: Images) -> dict[str, Any]:
    """Adapt a base model and measure it: `new`, `old` and, after retraining, `validation_sse`.

    An encoder retrained on all images is measured once more, `then_codes`: with the codes that
    descent makes of its own.
    """
    if trial.condition == "none":
        return scores(base, images)
    if trial.condition == "codes":  # which forgets nothing
        return {"new": _codes(base, images)}
    if trial.shots:
        adapted, validation = retrain_few(base, images.learn, trial.shots, trial.draw)
    else:
        if trial.condition == "random":
            base = random_decoder(base, 1_000 + trial.seed)  # not where its own training began
        everything = trial.condition == "everything"
        settings = {"seed": trial.seed, "everything": everything, "jitter": task.jitter}
        adapted, validation = retrain(base, images.learn, task.images, **settings)
    result = {**scores(adapted, images), "validation_sse": validation}
    if trial.condition == "encoder" and not trial.shots:
        result["then_codes"] = _codes(adapted, images)
    return result


def _codes(model: ImageModel, images: Images) -> dict[str, float]:
    stride = len(images.new) // CODE_IMAGES or 1
    return summary(code_error(model, images.new[::stride], CODE_STEPS))


def run(name: str, models: Path, out: Path, device: torch.device) -> dict[str, Any]:
    """Run all trials of a task that its record `out` does not hold yet, and return the record.

    Args:
        name: of the task.
        models: folder of the runs that trained the base models which are not committed.
        out: the record, JSON; trials in it count if data, settings and base model were the same.

    Raises:
        FileNotFoundError: a base model is missing; nothing has been run then.
        ValueError: `out` is there but is no record.
    """
    task, code = TASKS[name], code_version()  # now: files may change while it runs
    bases = {trial: base_path(task, trial, models) for trial in plan(task)}
    hashes = {path: sha256(path) for path in bases.values()}
    images, digests = load(task)
    images = Images(*(x.to(device) for x in images))
    record = {
        "task": name,
        "command": shlex.join(["rnp", "transfer", name, "--controls"]),
        **machine(device),
        "inputs": {
            "data": digests,
            "images": {kind: len(x) for kind, x in images._asdict().items()},
            "budget": task.images,
            **SETTINGS,
            "recipe": {**RECIPE, "jitter": task.jitter},
        },
        "trials": [],
    }

    entries = {
        trial: {**dataclasses.asdict(trial), "base": _file(path, hashes[path])}
        for trial, path in bases.items()
    }
    kept = _recorded(out, record["inputs"])
    found = {
        trial: held
        for trial, entry in entries.items()
        for held in kept
        if entry.items() <= held.items()
    }
    for trial, entry in entries.items():
        if trial not in found:
            started = time.perf_counter()
            result = run_trial(task, trial, checkpoints.load(bases[trial], device), images)
            minutes = round((time.perf_counter() - started) / 60, 2)
            found[trial] = {**entry, **result, "minutes": minutes, "code": code}
            print(f"{trial}: SSE {result['new']['sse']:.2f}, {minutes:.1f} min", flush=True)
        record["trials"] = [found[t] for t in entries if t in found]
        with replacing(out) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


def _file(path: Path, sha256: str) -> dict[str, str]:
    return {"path": project_path(path), "sha256": sha256}


def _recorded(path: Path, inputs: dict) -> list[dict]:
    """The trials that a record holds, if they were run on the same inputs."""
    if not path.exists():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        trials, same = record["trials"], record["inputs"] == inputs
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is no record of transfer: choose another --out.") from None
    return trials if same else []


def of_seed(record: dict, seed: int) -> dict:
    """A record with the trials of one seed alone."""
    return {**record, "trials": [trial for trial in record["trials"] if trial["seed"] == seed]}


def chosen(record: dict, model: str, condition: str, shots: int | None = None) -> list[dict]:
    """The trials of a record, of whatever seeds and draws, of one model and condition."""
    if condition == "both":
        return [{"new": trial["then_codes"]} for trial in chosen(record, model, "encoder")]
    wanted = {"model": model, "condition": condition, "shots": shots}
    return [trial for trial in record["trials"] if wanted.items() <= trial.items()]


def mean(trials: list[dict], which: str = "new") -> tuple[float, float]:
    """The SSE of the `new` or the `old` characters and its standard error: over the trials or, if
    there is one only, over its images."""
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
            if "old" in trials[0]:
                found[f"{key}_old"] = mean(trials, "old")[0]
    return found


def table(record: dict) -> str:
    """The conditions of a record side by side, for people."""
    unit = yardstick(record)
    name = "that saw every class" if chosen(record, "reference", "none") else "without retraining"
    lines = [
        f"{'SSE per image, mean ± s.e.':42}{'new':>15}{'old':>16}"
        f"{'n new':>8}{'seeds':>7}{'ratio':>8}"
    ]
    for model, model_name in MODELS.items():
        for condition, words in CONDITIONS.items():
            trials = chosen(record, model, condition)
            if not trials:
                continue
            sse, stderr = mean(trials)
            old = "{:9.2f} ± {:.2f}".format(*mean(trials, "old")) if "old" in trials[0] else "-"
            lines.append(
                f"{model_name + ', ' + words:42}{sse:8.2f} ± {stderr:4.2f}{old:>16}"
                f"{trials[0]['new']['n']:8,}{len(trials):7}"
                f"{sse / unit:8.2f}"
            )
    lines.append(f"ratio: to the SSE of the RNP {name}, {unit:.2f}")
    return "\n".join(lines)
