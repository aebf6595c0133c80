"""What the records of transfer's trials say: scores by model and condition, and tables of them.

A record is what `controls.collect` makes of the trials of a task.
"""

import itertools

import numpy as np

from rnp_lib.analysis.controls import CONDITIONS, FEW, MODELS, SAW, SHOTS
from rnp_lib.analysis.likelihood import COSTS


def chosen(
    record: dict,
    model: str,
    condition: str,
    saw: bool = False,
    shots: int | None = None,
    seed: int | None = None,
) -> list[dict]:
    """The trials of a record of one model and condition, of whatever draws and, unless told, of
    whatever seeds."""
    wanted = {"model": model, "condition": condition, "saw": saw, "shots": shots}
    wanted |= {} if seed is None else {"seed": seed}
    return [trial for trial in record["trials"] if wanted.items() <= trial.items()]


def mean(trials: list[dict], what: str = "sse", which: str = "new") -> tuple[float, float] | None:
    """The mean of a score of the `new` or the `old` characters, or of those `drawn`, and its
    standard error: over the trials or, if there is one only, over its images. None unless all
    trials have it."""
    if not trials or not all(what in trial.get(which, {}) for trial in trials):
        return None
    values = [trial[which][what] for trial in trials]
    if len(values) == 1:
        return values[0], trials[0][which].get(f"{what}_stderr", float("nan"))
    return float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)


def yardstick(record: dict, seed: int | None = None) -> float:
    """The SSE of the new characters that the tree's is compared with: of the tree that saw every
    class or, where there is none, of the tree without retraining; of a seed, or the mean of all."""
    saw = chosen(record, "tree", "none", saw=True, seed=seed)
    return mean(saw or chosen(record, "tree", "none", seed=seed))[0]


def groups(record: dict) -> dict[str, list[dict]]:
    """The trials of a record by MODEL_CONDITION, MODEL_saw_CONDITION, shots_N and, where not its
    reader adapts but its prior, shots_N_CONDITION."""
    found = {f"{m}_{c}": chosen(record, m, c) for m in MODELS for c in CONDITIONS}
    found |= {f"{m}_saw_{c}": chosen(record, m, c, saw=True) for m in MODELS for c in SAW}
    for condition, n in itertools.product(FEW, SHOTS):
        name = f"shots_{n}" if condition == "inference" else f"shots_{n}_{condition}"
        found[name] = chosen(record, "tree", condition, shots=n)
    return {key: trials for key, trials in found.items() if trials}


def numbers(record: dict) -> dict[str, float]:
    """What a figure's record keeps of this one: for each of `groups` the mean SSE of the new
    characters, with _stderr, _ratio (to `yardstick`), _nats and each of COSTS where they were
    measured, _old of the old characters, and _read of what was drawn."""
    found = {}
    for key, trials in groups(record).items():
        sse, stderr = mean(trials)
        few = bool(trials[0]["shots"])  # which only the tree of seed 0 learns from
        ratio = sse / yardstick(record, seed=0 if few else None)
        found |= {key: sse, f"{key}_stderr": stderr, f"{key}_ratio": ratio}
        for what in ("nats", *COSTS):
            if cost := mean(trials, what):
                found[f"{key}_{what}"] = cost[0]
        if old := mean(trials, which="old"):
            found[f"{key}_old"] = old[0]
        if read := mean(trials, "read", "drawn"):
            found |= {f"{key}_read": read[0], f"{key}_read_stderr": read[1]}
    return found


def table(records: dict[str, dict]) -> str:
    """By title, what new characters cost in error and nats under every condition, for people.

    A star marks the least of a column in each condition.
    """
    lines = ["SSE per image and -ELBO (nats) of new characters, mean ± s.e.; *: the least"]
    lines.append(f"s.e.: over seeds where there are several ({_seeds(records)}), else over images")
    lines.append(f"{'':20}" + "".join(f"{title:>28}" for title in records))
    rows = [(condition, what, False) for condition, what in CONDITIONS.items()]
    rows += [(condition, f"saw them, {CONDITIONS[condition]}", True) for condition in SAW]
    for condition, what, saw in rows:
        cells = {
            (model, title, score): mean(chosen(record, model, condition, saw), score)
            for model in MODELS
            for title, record in records.items()
            for score in ("sse", "nats")
        }
        lines.append(what)
        for model, who in MODELS.items():
            if not any(cells[model, title, "sse"] for title in records):
                continue
            line = f"  {who:18}"
            for title in records:
                for score, width in (("sse", 14), ("nats", 14)):
                    found = cells[model, title, score]
                    others = (cells[m, title, score] for m in MODELS)
                    least = found and found[0] == min(o[0] for o in others if o)
                    decimals = 2 if score == "sse" else 1
                    text = f"{found[0]:.{decimals}f} ± {found[1]:.{decimals}f}" if found else "-"
                    line += f"{text}{'*' if least else ' '}".rjust(width)
            lines.append(line)
    return "\n".join(line.rstrip() for line in lines)


def _seeds(records: dict[str, dict]) -> str:
    """How many seeds of each model the records have trials of, in words."""
    trials = [trial for record in records.values() for trial in record["trials"]]
    found = {m: {t["seed"] for t in trials if t["model"] == m} for m in MODELS}
    several = (f"{MODELS[m]} {len(seeds)}" for m, seeds in found.items() if len(seeds) > 1)
    return ", ".join(several) or "none"


def terms(record: dict) -> str:
    """What an image of the new and of the old characters costs the tree and the plain VAE by term,
    nats, without and with retraining of inference: where the difference lies."""
    row = "{:42}{:>10}{:>10}{:>10}{:>10}{:>10}".format
    lines = [row("nats an image, by term", *COSTS, "in all")]
    for model, condition, which in itertools.product(
        ("tree", "vae"), ("none", "inference"), ("new", "old")
    ):
        trials = chosen(record, model, condition)
        if all(found := [mean(trials, what, which) for what in (*COSTS, "nats")]):
            name = f"{MODELS[model]}, {CONDITIONS[condition]}, {which}"
            lines.append(row(name, *(f"{value:.1f}" for value, _ in found)))
    return "\n".join(lines)
