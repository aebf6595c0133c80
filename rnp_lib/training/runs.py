"""run.json: what a run was started with, and whether what there is now can go on with it."""

import re
import shlex
from datetime import UTC, datetime

from rnp_lib.checkpoints import CheckpointError
from rnp_lib.config import Config
from rnp_lib.files import git_state, read_json
from rnp_lib.machine import machine
from rnp_lib.training.trainer import Trainer

FILE = "run.json"


def describe(trainer: Trainer, data_sha256: str, validation: str) -> dict:
    """What a run starts with.

    Args:
        data_sha256: of the training data, validation images and all.
        validation: which of them validate, in words.
    """
    return {
        "config": trainer.config.to_dict(),
        "precision": str(trainer.precision).removeprefix("torch."),
        "data_sha256": data_sha256,
        "validation": validation,
        "validation_images": len(trainer.validation),
        "processes": trainer.world,
        **machine(trainer.device),
        "git": git_state(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def go_on(trainer: Trainer, now: dict) -> dict:
    """The description of the run in the trainer's folder, if it can go on as `now` describes.

    Other code, packages, chips or numbers of threads and processes may round differently, and the
    last stage may see more images than was planned: both are printed, and noted in the description.

    Raises:
        CheckpointError: it would become another run, by other settings, precision, kind of device,
            data or validation images; or an older version started it, and nothing says how.
    """
    path = trainer.out / FILE
    try:
        then = read_json(path)
        decisive, incidental = _decisive(then), _incidental(then)
    except FileNotFoundError:
        raise CheckpointError(
            f"the run in {trainer.out} was started by an older version of rnp_lib, which drew "
            "other random numbers: go on with it by that version, or choose another --out."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} does not describe a run ({error}): restore it, or choose another --out."
        ) from None
    changed = _changes(decisive, _decisive(now))
    longer = changed.pop("images", None) if _is_longer(*changed.get("images", ())) else None
    if changed:
        back = " and ".join(_way_back(name, was) for name, (was, _) in changed.items())
        raise CheckpointError(
            f"the run in {trainer.out} was started otherwise ({_words(changed)}): resume with "
            f"{back}, or choose another --out."
        )
    changed = _changes(incidental, _incidental(now))
    says = [f"{_words(changed)}: numbers may round differently"] if changed else []
    if longer:
        then["config"]["images"] = now["config"]["images"]
        rate = "" if trainer.config.decay == "none" else ", and its learning rate is higher again"
        says += [f"{_words({'images': longer})}: it goes on for longer{rate}"]
        changed["images"] = longer
    if says and trainer.rank == 0:
        print(f"resumed with {'; '.join(says)}", flush=True)
    if changed:
        entry = {"started": now["started"], "changed": changed}
        then["resumed"] = [*then.get("resumed", []), entry]
    return then


def _is_longer(then: tuple = (), now: tuple = ()) -> bool:
    """Whether only the last stage differs, by more images."""
    same = len(then) == len(now) > 0 and then[:-1] == now[:-1]
    return same and now[-1] > then[-1]


def _decisive(run: dict) -> dict:
    """What the outcome of a run depends on; of the setting `precision` it is what became of it."""
    return {
        **Config.from_dict(run["config"]).to_dict(),
        "precision": run["precision"],
        "device": re.split("[: ]", run["device"])[0],
        "data": run["data_sha256"][:12],
        "validation": run["validation"],
    }


def _incidental(run: dict) -> dict:
    """What may change by how much numbers are rounded, and no more."""
    names = ("device", "threads", "platform", "processes")
    return {
        "commit": run["git"]["commit"],
        "uncommitted changes": run["git"]["dirty"],
        **{name: run[name] for name in names},
        **run["packages"],
    }


def _changes(then: dict, now: dict) -> dict[str, tuple]:
    pairs = {name: (then.get(name), now.get(name)) for name in then | now}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _words(changes: dict[str, tuple]) -> str:
    return ", ".join(f"{name} {was} → {now}" for name, (was, now) in changes.items())


def _way_back(name: str, was: object) -> str:
    ways = {
        "data": "the training images of then",
        "validation": "the version of rnp_lib that chose those validation images",
        "device": f"--device {was}",
    }
    return ways.get(name, f"--set {shlex.quote(f'{name}={was}')}")
