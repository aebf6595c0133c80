"""Files that are either whole or not there."""

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # the repository

# What results depend on beside seeds, data and a notebook.
CODE = ("rnp_lib", "pyproject.toml", "requirements.lock", "workflow")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes that name if the block succeeds.

    Its suffix is that of `path`, since many writers choose the format by it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: str | Path) -> dict:
    """What a JSON file holds."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: str | Path, values: dict) -> None:
    """Write a JSON file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def project_path(path: str | Path) -> str:
    """A file's path inside the project, or else its bare name: a record says nothing about the
    machine's folders."""
    path = Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def git_state() -> dict:
    """The commit, and whether any code differs from it; None where git cannot say."""
    commit = next(iter(git("rev-parse", "HEAD", folder=ROOT)), None)
    # What runs write, and pages, do not change what comes out.
    changes = git("status", "--porcelain", "--", *CODE, folder=ROOT)
    return {"commit": commit, "dirty": bool(changes) if commit else None}


def git(*words: str, folder: Path = Path()) -> list[str]:
    """The lines that git answers in a folder; none where there is no git or no repository."""
    with suppress(OSError, subprocess.CalledProcessError):
        command = ["git", "-C", folder, *words]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()
    return []


def code_version() -> str:
    """Version of the package and commit it was run from, "+" marking changes since."""
    state = git_state()
    commit = (state["commit"] or "unknown")[:12]
    return f"{version('rnp-lib') or 'uninstalled'} {commit}{'+' if state['dirty'] else ''}"


def version(package: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
