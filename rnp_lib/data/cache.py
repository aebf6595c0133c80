"""A set as it was built before, in one file: decoding Omniglot's 32,460 PNGs takes seconds."""

from pathlib import Path

from rnp_lib import checkpoints
from rnp_lib.data.images import SPLITS, Arrays, digest


def read(path: Path, key: str) -> Arrays | None:
    """The stored arrays, or None if there are none, or they are stale or damaged."""
    try:
        tensors, digests = checkpoints.read(path, key)
    except (FileNotFoundError, checkpoints.CheckpointError):
        return None
    arrays = {split: (tensors[f"{split}.images"], tensors[f"{split}.labels"]) for split in SPLITS}
    return arrays if digests == _digests(arrays) else None


def write(path: Path, key: str, arrays: Arrays) -> None:
    """Store arrays under a key that says what they were made of."""
    tensors = {f"{split}.images": images for split, (images, _) in arrays.items()}
    tensors |= {f"{split}.labels": labels for split, (_, labels) in arrays.items()}
    try:
        checkpoints.write(path, key, tensors, _digests(arrays))
    except OSError as error:  # a read-only checkout still works, only more slowly
        print(f"{path} was not written: {error}", flush=True)


def _digests(arrays: Arrays) -> dict[str, str]:
    return {split: digest(*pair) for split, pair in arrays.items()}
