"""Model files: what comes back, and the one sentence with which a bad one is refused."""

import json
import os
import platform
import struct
import subprocess

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from rnp_lib import checkpoints
from rnp_lib.checkpoints import CheckpointError
from rnp_lib.files import replacing
from rnp_lib.model.rnp import RNP

TREE = {"posterior": "tree", "prior_z": "both", "symbols": 3, "reader_units": 8}


@pytest.fixture
def model():
    return RNP(tiny.config()).eval()


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "runs" / "tiny.safetensors"
    checkpoints.save(path, model, {"data_sha256": "0123", "test_sse": 4.5})
    return path


def rewrite(path, tensors=None, drop=("sha256",), **changes):
    """Change what is in a model's file: its tensors, or entries of its metadata. Unless told, it
    has no hash then, as files of older versions."""
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        about = json.loads(file.read(size))["__metadata__"]
    about = {key: value for key, value in (about | changes).items() if key not in drop}
    save_file(load_file(path) if tensors is None else tensors, path, about)


def rewrite_config(path, **changes):
    metadata = checkpoints.metadata(path)
    metadata["config"] |= changes
    rewrite(path, metadata=json.dumps(metadata))


def refused(path, *words, error=CheckpointError):
    """`load` refuses the file in one line that names it and holds the words."""
    with pytest.raises(error) as caught:
        checkpoints.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    for word in (str(path), *words):
        assert word in message


def test_round_trip(model, path):
    loaded = checkpoints.load(path)
    assert loaded.config == model.config
    assert not loaded.training
    x = torch.rand(5, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded.encode(x).mean, model.encode(x).mean, atol=0.01, rtol=0)
        torch.testing.assert_close(loaded.parse(x).canvas, model.parse(x).canvas, atol=0.01, rtol=0)
    for name, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, model.state_dict()[name].half().float()), name


def test_round_trip_of_random_programs(tmp_path):
    model, path = RNP(tiny.config(**TREE)).eval(), tmp_path / "tree.safetensors"
    checkpoints.save(path, model, {})
    loaded = checkpoints.load(path)
    assert loaded.config == model.config
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name].half().float()), name
    assert {name.split(".")[0] for name in load_file(path)} >= {"reader", "grammar"}
    x = torch.rand(5, 1, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(loaded.parse(x).canvas, model.parse(x).canvas, atol=0.02, rtol=0)


def test_a_file_of_before_programs_were_random_is_read(model, path):
    metadata = checkpoints.metadata(path)
    for name in ("posterior", "prior_z", "symbols", "reader_units", "drop"):
        del metadata["config"][name]
    rewrite(path, metadata=json.dumps(metadata))
    loaded = checkpoints.load(path)
    assert loaded.config.posterior == "root"
    assert loaded.config == model.config
    assert loaded.state_dict().keys() == model.state_dict().keys()


def test_the_file_holds_float16_weights_and_their_history(model, path):
    tensors = load_file(path)
    assert tensors.keys() == model.state_dict().keys()
    assert {value.dtype for value in tensors.values()} == {torch.float16}
    assert path.stat().st_size < 2.2 * sum(p.numel() for p in model.parameters()) + 20_000
    about = checkpoints.metadata(path)
    assert about["data_sha256"] == "0123"
    assert about["test_sse"] == 4.5
    assert about["config"]["tau"] == [2, 2]


def test_counters_of_batch_normalisation_stay_whole_numbers(tmp_path):
    model = RNP(tiny.config(encoder="resnet", hypernet="full", step_vector=False))
    model.encode(torch.rand(8, 1, 16, 16))
    checkpoints.save(tmp_path / "bn.safetensors", model, {})
    loaded = checkpoints.load(tmp_path / "bn.safetensors").state_dict()
    counters = [name for name in loaded if name.endswith("num_batches_tracked")]
    assert counters
    assert all(loaded[name].item() == 1 for name in counters)
    assert all(loaded[name].dtype == torch.int64 for name in counters)


def test_nothing_is_unpickled(path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a model file was unpickled")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.Unpickler", refuse)
    monkeypatch.setattr("torch.load", refuse)
    checkpoints.load(path)
    header = path.read_bytes()[8:9]
    assert header == b"{"  # safetensors: eight bytes of length, then JSON


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path, "not a whole safetensors file")


@pytest.mark.parametrize("garbage", [b"garbage", b"<html>not found</html>" * 50, bytes(1000)])
def test_garbage_is_refused(path, garbage):
    path.write_bytes(garbage)
    refused(path, "not a whole safetensors file")


def test_a_pickled_file_is_refused(path):
    torch.save({"weights": torch.zeros(3)}, path)
    refused(path, "not a whole safetensors file")


def test_another_format_version_is_refused(path):
    rewrite(path, format="rnp-model-2")
    refused(path, "rnp-model-2", checkpoints.FORMAT)


def test_a_safetensors_file_of_somebody_else_is_refused(path):
    save_file({"weight": torch.zeros(3)}, path)
    refused(path, "has format None")


def test_a_config_that_does_not_fit_the_weights_is_refused(path):
    rewrite_config(path, z_dim=9)
    refused(path, "does not fit its weights", "size mismatch")


def test_missing_weights_are_refused(path):
    tensors = load_file(path)
    del tensors["step"]
    rewrite(path, tensors=tensors)
    refused(path, "does not fit its weights", '"step"')


def test_what_is_wrong_with_a_model_is_said_in_few_words(path):
    rewrite(path, tensors={"other": torch.zeros(3)})  # every weight is missing
    refused(path, "does not fit its weights", " …")
    rewrite(path, metadata="[" * 100_000)
    refused(path, "not a whole safetensors file")
    rewrite(path, metadata=json.dumps({"config": {"x" * 5_000: 1}}))
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert len(str(caught.value)) < 600


def test_a_changed_byte_is_found(path):
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # of a weight
    path.write_bytes(content)
    refused(path, "damaged")
    content[-100] ^= 1
    start = content.index(b"0123")  # of the metadata
    content[start : start + 4] = b"0124"
    path.write_bytes(content)
    refused(path, "damaged")


def test_a_number_that_is_not_finite_is_neither_read_nor_written(model, path):
    before = path.read_bytes()
    with torch.no_grad():
        model.step[0, 0] = torch.nan
    with pytest.raises(CheckpointError, match="not finite, in step"):
        checkpoints.save(path, model, {})
    assert path.read_bytes() == before
    rewrite(path, tensors=load_file(path) | {"step": torch.full((2, 32), torch.inf).half()})
    refused(path, "not finite, in step")


@pytest.mark.parametrize(
    ("kind", "word"), [("encoder", "image encoder"), ("map", "map"), ("training", "--resume")]
)
def test_a_file_of_another_kind_is_named(path, kind, word):
    rewrite(path, format=f"rnp-{kind}-1")
    refused(path, f"holds {'a' if kind == 'encoder' else 'the'}", word, "the kind 'model'")


def test_a_full_disk_is_said_in_one_sentence(path, model, monkeypatch):
    def full(*arguments):
        raise checkpoints.SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(OSError, match=f"{path} cannot be written: No space left"):
        checkpoints.save(path, model, {})


def test_an_unknown_setting_is_refused(path):
    rewrite_config(path, colour="red")
    refused(path, "unknown setting colour")


def test_a_setting_that_cannot_work_is_refused(path):
    rewrite_config(path, tau=[0, 2])
    refused(path, "tau")


@pytest.mark.parametrize("text", ["{}", "[1, 2]", "null", "not JSON"])
def test_metadata_without_a_config_is_refused(path, text):
    rewrite(path, metadata=text)
    refused(path)


def test_a_file_without_metadata_is_refused(path):
    rewrite(path, drop=["metadata", "sha256"])
    refused(path)


def test_an_unknown_name_lists_the_known_ones(path, monkeypatch):
    monkeypatch.setattr(checkpoints, "DIRECTORY", path.parent)
    assert checkpoints.load("tiny").config == tiny.config()
    refused("huge", "(tiny)", error=FileNotFoundError)
    refused(path.parent / "none.safetensors", "(tiny)", error=FileNotFoundError)
    monkeypatch.setattr(checkpoints, "DIRECTORY", path.parent / "nowhere")
    refused("tiny", "(none yet)", error=FileNotFoundError)


def test_a_failing_write_leaves_the_old_file_and_nothing_else(path, model, monkeypatch):
    before = path.read_bytes()

    def fail(tensors, temporary, text):
        temporary.write_bytes(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        checkpoints.save(path, model, {"test_sse": 3.0})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_metadata_that_cannot_be_written_leaves_the_old_file(path, model):
    before = path.read_bytes()
    with pytest.raises(TypeError):
        checkpoints.save(path, model, {"test_sse": torch.zeros(1)})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def write_half(path):
    with replacing(path) as temporary:
        temporary.write_text("ha")
        raise KeyboardInterrupt


def test_what_a_killed_process_left_is_cleaned_up(tmp_path):
    path = tmp_path / "file.txt"
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = tmp_path / f".file.{platform.node()}-{dead.pid}.txt"
    others = [
        tmp_path / f".file.{platform.node()}-{os.getppid()}.txt",  # which is alive
        tmp_path / f".file.elsewhere-{dead.pid}.txt",  # of another machine
        tmp_path / f".other.{platform.node()}-{dead.pid}.txt",
    ]
    for leftover in (left, *others):
        leftover.touch()
    with replacing(path) as temporary:
        temporary.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, *others])


def test_a_file_takes_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert temporary.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "whole"
    with pytest.raises(KeyboardInterrupt):
        write_half(path)
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(ZeroDivisionError), replacing(path):
        _ = 1 / 0  # before anything is written
    assert list(path.parent.iterdir()) == [path]


def test_the_code_version_can_be_told_without_an_installed_package(monkeypatch):
    from rnp_lib import files

    def missing(name):
        raise files.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(files.metadata, "version", missing)
    assert files.code_version().startswith("uninstalled ")
