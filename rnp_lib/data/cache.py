"""A set as it was built before, in one file: decoding Omniglot's 32,460 PNGs takes seconds."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from rnp_lib.data.images import SPLITS, Arrays, digest
from rnp_lib.files import replacing


def read(path: Path, key: str) -> Arrays | None:
    """The stored arrays, or None if there are none, or they are stale or damaged."""
    try:
        with safe_open(path, framework="pt") as stored:
            about = stored.metadata()
            arrays = {
                split: (stored.get_tensor(f"{split}.images"), stored.get_tensor(f"{split}.labels"))
                for split in SPLITS
            }
    except (OSError, SafetensorError):
        return None
    return arrays if about == _about(key, arrays) else None


def write(path: Path, key: str, arrays: Arrays) -> None:
    """Store arrays under a key that says what they were made of."""
    tensors = {f"{split}.images": images for split, (images, _) in arrays.items()}
    tensors |= {f"{split}.labels": labels for split, (_, labels) in arrays.items()}
    try:
        with replacing(path) as new:
            save_file(tensors, new, metadata=_about(key, arrays))
            new.chmod(0o644)  # safetensors lets nobody else read it
    except OSError as error:  # a read-only checkout still works, only more slowly
        print(f"{path} was not written: {error}", flush=True)


def _about(key: str, arrays: Arrays) -> dict[str, str]:
    return {"key": key, **{split: digest(*pair) for split, pair in arrays.items()}}
