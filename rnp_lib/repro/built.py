"""What counts as built: the times of files, set by their content.

A build engine compares the times of files, and a clone's are those of the download. `settle` gives
all committed files one time, the commit's, as they belong together; whatever was changed since is
newer. But a file that says of what it was made is dated back if that is not what is there now, so
that it is made again.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from safetensors import safe_open

from rnp_lib import checkpoints
from rnp_lib.config import Config
from rnp_lib.files import git, read_json, sha256, write_json

STALE = 1  # seconds after the epoch: older than whatever it was made of


def inputs(path: Path) -> dict[str, str]:
    """What a record, an encoder or a map says it was made of: file -> SHA-256."""
    if path.suffix == ".json":
        record = read_json(path)
        bases = (trial["base"] for trial in record.get("trials", ()))
        return record.get("checkpoints", {}) | {base["path"]: base["sha256"] for base in bases}
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["metadata"])
    folder = path.parent
    if "base_sha256" in about:
        return {f"{folder}/{about['base']}.safetensors": about["base_sha256"]}
    if "checkpoint_sha256" in about:
        return {f"{folder}/{path.name.removeprefix('map-')}": about["checkpoint_sha256"]}
    return {}


def trained_by(path: Path, config: Config) -> bool:
    """Whether a checkpoint is of a model of this config."""
    found = Config.from_dict(checkpoints.metadata(path)["config"])
    if found.model != "rnp":  # which has no windows
        found = dataclasses.replace(found, extent=config.extent)
    return found == config


def settle(
    files: Iterable[str],
    records: Mapping[str, Mapping[str, dict]],
    fresh: Callable[[dict], bool],
    outdated: Iterable[str] = (),
) -> None:
    """Set the times of files that are there; paths are those of the working folder.

    Args:
        files: what is committed.
        records: of transfer, and for each the files of its trials with what tells the trial. Those
            that the record holds are put there, as if they had been run.
        fresh: whether the trials of such a record would be run with the same settings now.
        outdated: files to make again, whatever they say.
    """
    digest = functools.cache(sha256)

    def stands(path: Path) -> bool:
        known = inputs(path).items()
        return all(digest(name) == found for name, found in known if Path(name).is_file())

    def date(path: Path, good: bool, time: float = 0) -> None:
        newest = [Path(name).stat().st_mtime for name in inputs(path) if Path(name).is_file()]
        time = max(time or path.stat().st_mtime, *newest, STALE) if good else STALE
        os.utime(path, (time, time))

    files = [path for path in files if Path(path).is_file()]
    changed = git("diff", "--name-only", "--relative", "HEAD")
    committed = float(next(iter(git("log", "-1", "--format=%ct")), 0))
    for path in {*git("ls-files", "--", *files)} - {*changed}:
        os.utime(path, (committed, committed))
    for path in map(Path, files):
        date(path, str(path) not in outdated and stands(path))
    for path, trials in records.items():
        record = read_json(path) if Path(path).is_file() else {}
        for trial, wanted in trials.items():
            trial = Path(trial)
            held = [one for one in record.get("trials", ()) if wanted.items() <= one.items()]
            if trial.is_file() and fresh(read_json(trial)) and stands(trial):
                continue
            if held:
                write_json(trial, {**record, "trials": held})
                date(trial, fresh(record) and stands(trial), Path(path).stat().st_mtime)
            elif record:
                date(Path(path), False)
