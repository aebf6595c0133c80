"""Models on disk: safetensors with the configuration and the history of the weights beside them."""

import hashlib
import json
import textwrap
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rnp_lib.config import Config
from rnp_lib.files import ROOT, Expected, replacing, sha256
from rnp_lib.model import build
from rnp_lib.model.rnp import ImageModel

FORMAT = "rnp-model-1"  # changes whenever an older reader could not make sense of a newer file
ENCODER_FORMAT = "rnp-encoder-3"  # 1 held no reader, 2 was of float16
SCALE = ".scale"  # what the name of a weight stored as int8 gets for that of its scale
DIRECTORY = ROOT / "checkpoints"
# What files of other formats hold, by the word in their format's name.
KINDS = {
    "model": "a model",
    "encoder": "a retrained image encoder, which goes with the model that it was retrained for",
    "classifier": "a classifier",
    "map": "the explorer's map of a model",
    "training": "the state of a training run, which `rnp train --resume` goes on from",
}


class CheckpointError(Expected):
    """A file that cannot be used, and why."""


def write(path: str | Path, format: str, tensors: Mapping[str, Tensor], metadata: dict) -> None:
    """Write tensors and JSON-serialisable metadata to one file, and a hash of both, whole or not.

    Raises OSError where the file cannot be written, CheckpointError for numbers not finite.
    """
    text = {"format": format, "metadata": json.dumps(metadata)}
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text["sha256"] = _digest(tensors, text["metadata"])
    _check_finite(path, tensors)
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, text)
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from None
        temporary.chmod(0o644)  # safetensors lets nobody else read it


def _digest(tensors: Mapping[str, Tensor], metadata: str) -> str:
    digest = hashlib.sha256(metadata.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def read(path: str | Path, format: str) -> tuple[dict[str, Tensor], dict]:
    """Inverse of `write`.

    Raises CheckpointError for a file that is not whole, of another format, changed since it was
    written, or with a number that is not finite.
    """
    try:
        with safe_open(path, "pt") as file:
            text = file.metadata() or {}
            _check_format(path, text.get("format"), format)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads(text["metadata"])
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({brief(error)}): copy or download it again."
        ) from None
    if "sha256" in text and text["sha256"] != _digest(tensors, text["metadata"]):  # older: none
        raise CheckpointError(
            f"{path} is damaged, it is not what was written: copy or download it again."
        )
    _check_finite(path, tensors)
    return tensors, about


def _check_format(path: str | Path, found: str | None, wanted: str) -> None:
    kind, wanted_kind = (str(name).removeprefix("rnp-").split("-")[0] for name in (found, wanted))
    if kind in KINDS and kind != wanted_kind:
        raise CheckpointError(
            f"{path} holds {KINDS[kind]}: what is wanted is of the kind {wanted_kind!r}."
        )
    if found != wanted:
        raise CheckpointError(
            f"{path} has format {found}, but this version of rnp_lib reads {wanted}: "
            "use the version that wrote it, or train the model again."
        )


def _check_finite(path: str | Path, tensors: Mapping[str, Tensor]) -> None:
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise CheckpointError(
            f"{path}: numbers that are not finite, in {brief(', '.join(bad))}: take another copy, "
            "or train again."
        )


def brief(text: object) -> str:
    """A few words of an error that may be pages long."""
    return textwrap.shorten(str(text), 200, placeholder=" …")


def save(path: str | Path, model: ImageModel, metadata: dict) -> None:
    """Save a model for use: weights as float16, its config, and `metadata` (data hash, scores…)."""
    about = {"config": model.config.to_dict(), **metadata}
    write(path, FORMAT, deepcopy(model).half().state_dict(), about)


def save_encoder(path: str | Path, model: ImageModel, base: str | Path, metadata: dict) -> None:
    """Save what looks at images in `model`, its encoder and its reader, for use with the rest of
    the model `base`: matrices as int8 with a scale for each row, half of float16."""
    about = {"base": Path(base).stem, "base_sha256": sha256(find(base)), **metadata}
    write(path, ENCODER_FORMAT, _as_int8(model.inference.state_dict()), about)


def _as_int8(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of each tensor of two dimensions or more, int8 and, under its name and SCALE, the float32
    that each of its rows is in units of; other tensors as they are."""
    stored = {}
    for name, weight in weights.items():
        if weight.dim() < 2:
            stored[name] = weight
            continue
        scale = weight.abs().flatten(1).amax(1).clamp_min(torch.finfo(weight.dtype).tiny) / 127
        scale = scale.reshape(-1, *[1] * (weight.dim() - 1))
        stored[name], stored[name + SCALE] = (weight / scale).round().to(torch.int8), scale
    return stored


def _from_int8(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inverse of `_as_int8`, but for what rounding took."""
    return {
        name: tensor * stored[name + SCALE] if name + SCALE in stored else tensor
        for name, tensor in stored.items()
        if not name.endswith(SCALE)
    }


def find(name: str | Path) -> Path:
    """The file of a checkpoint given by name (of those in checkpoints/) or by path."""
    path = Path(name)
    if path.suffix != ".safetensors":
        path = DIRECTORY / f"{name}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in DIRECTORY.glob("*.safetensors"))) or "none yet"
        raise FileNotFoundError(
            f"no checkpoint {str(name)!r}: expected one of the names in {DIRECTORY} ({known}) or "
            "the path of a .safetensors file; the repository comes with some, `rnp train` makes "
            "one, `rnp transfer` an encoder."
        )
    return path


def metadata(name: str | Path, format: str = FORMAT) -> dict:
    """What is written beside the weights: config, data hash, code version, scores."""
    return read(find(name), format)[1]


def load(name: str | Path, device: str | torch.device = "cpu") -> ImageModel:
    """A trained model, in eval mode and float32.

    Args:
        name: a name in checkpoints/ such as "mnist", or a path.

    Raises:
        FileNotFoundError: no such checkpoint.
        CheckpointError: the file is damaged, of another format, or its config and weights differ.
    """
    path = find(name)
    tensors, about = read(path, FORMAT)
    try:
        model = build(Config.from_dict(about["config"]))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: its config does not fit its weights or this version of rnp_lib "
            f"({brief(error)}): "
            "use the version that wrote it, or train the model again."
        ) from None
    return model.to(device).eval()


def load_encoder(
    name: str | Path, base: str | Path, device: str | torch.device = "cpu"
) -> ImageModel:
    """The model `base` with a retrained image encoder and reader, in eval mode and float32.

    Args:
        name, base: names in checkpoints/ such as "encoder-7" and "mnist-no7", or paths.

    Raises:
        FileNotFoundError: no such checkpoint.
        CheckpointError: the file is damaged, no encoder, or one for another model than `base`.
    """
    path = find(name)
    tensors, about = read(path, ENCODER_FORMAT)
    if about.get("base_sha256") != sha256(find(base)):
        raise CheckpointError(
            f"{path} was retrained for the model {about.get('base')!r}, and {find(base)} holds "
            "other weights: `rnp transfer` retrains an encoder."
        )
    model = load(base, device)
    model.inference.load_state_dict(_from_int8(tensors))
    return model
