"""Files that are either whole or not there."""

import glob
import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from filelock import FileLock, Timeout

ROOT = Path(__file__).resolve().parents[1]  # the repository
if not (ROOT / "pyproject.toml").is_file():  # installed without it: what is where one works
    ROOT = Path.cwd()

# What results depend on beside seeds, data and a notebook.
CODE = ("rnp_lib", "pyproject.toml", "requirements.lock", "workflow")


class Expected(RuntimeError):
    """What can go wrong, and what to do about it, in one sentence: all that a command answers."""


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes that name if the block succeeds.

    Its suffix is that of `path`, since many writers choose the format by it. What processes that
    were killed have left of the same file is removed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    start = f".{path.stem}.{platform.node()}-"
    for left in path.parent.glob(f"{glob.escape(start)}*{path.suffix}"):
        if not _alive(left.name.removeprefix(start).removesuffix(path.suffix)):
            left.unlink(missing_ok=True)
    temporary = path.with_name(f"{start}{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raises ValueError, before the work for it is done, if a file cannot be written there."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file in it.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, and {path} needs a folder there: choose another.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{folder} cannot be written to, so {path} cannot be: choose another.")


def _alive(pid: str) -> bool:
    """Whether a process of this machine runs; yes where that cannot be said."""
    if os.name != "posix" or not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made, until the block or this process ends.

    Raises FileExistsError, which names the other, where one is in it already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "in-use.lock"
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f"{folder} is in use by {path.read_text() or 'another process'}: wait until that has "
            "ended, or choose another folder."
        ) from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        path.write_text(f"process {os.getpid()} on {platform.node()} since {since}")
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


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
