"""The classifiers that judge samples: training, files, and what the committed ones reach."""

import pytest
import torch
from safetensors.torch import load_file

from rnp_lib import checkpoints, data
from rnp_lib.analysis import classifier
from rnp_lib.analysis.classifier import Classifier, held_out, load_classifier, train_classifier
from rnp_lib.checkpoints import CheckpointError
from rnp_lib.data.strokes import strokes


@pytest.fixture(scope="module")
def drawn():
    """Characters in dark, medium and pale ink, and which it is."""
    labels = torch.arange(720) % 3
    return strokes(720).images * (1 - 0.3 * labels.view(-1, 1, 1, 1)), labels


@pytest.fixture(scope="module")
def trained(drawn, tmp_path_factory):
    """Files and accuracies of three tiny training runs: one seed twice, and another."""
    folder = tmp_path_factory.mktemp("classifiers")
    runs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", lambda *_: drawn)
        patch.setattr(classifier, "BATCH", 32)  # more steps, for the running means to settle
        for i, seed in enumerate((0, 0, 1)):
            torch.rand(i)  # whatever was drawn before must not matter
            path = folder / f"classifier-{i}.safetensors"
            runs.append((path, train_classifier("strokes", path, seed, seen=2_000)))
    return runs


def weights(path):
    return torch.cat([value.flatten().float() for value in load_file(path).values()])


def test_the_seed_settles_the_weights(trained):
    (first, accuracy), (again, same), (other, _) = trained
    torch.testing.assert_close(weights(again), weights(first), rtol=0, atol=0)
    assert accuracy == same
    assert not torch.equal(weights(first), weights(other))


def test_training_draws_nothing_from_the_global_generator(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "load", lambda *_: drawn)
    torch.manual_seed(5)
    train_classifier("strokes", tmp_path / "a.safetensors", seen=1)
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), after)


def test_it_learns_and_is_judged_as_stored(trained, drawn):
    path, accuracy = trained[0]
    images, labels = drawn
    validation = held_out("strokes", images, labels).validation
    assert len(validation) == 72
    guess = load_classifier(path).probabilities(images[validation]).argmax(1)
    assert (guess == labels[validation]).double().mean().item() == accuracy
    assert accuracy > 0.6  # by chance: 0.33


def test_the_file_says_how_it_was_made(trained, drawn):
    path, accuracy = trained[0]
    tensors, about = checkpoints.read(path, classifier.FORMAT)
    assert {value.dtype for value in tensors.values()} == {torch.float16, torch.int64}
    assert about.pop("code")
    assert about == {
        "dataset": "strokes",
        "data_sha256": data.digest(*drawn),
        "validation_accuracy": accuracy,
        "validation": "the last tenth",
        "validation_images": 72,
        "seed": 0,
        "epochs": 3,
    }


def test_round_trip(trained, drawn):
    path, _ = trained[0]
    loaded = load_classifier(path)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, load_file(path)[name].to(value.dtype)), name
        assert value.dtype in (torch.float32, torch.int64)
    images = drawn[0][:600]  # more than are run at a time
    features, probabilities = loaded.features(images), loaded.probabilities(images)
    assert features.shape == (600, classifier.FEATURES)
    assert probabilities.shape == (600, 3)
    torch.testing.assert_close(probabilities, loaded.head(features).softmax(1))
    torch.testing.assert_close(loaded(images[:3]).softmax(1), probabilities[:3])


def test_a_name_is_a_data_set_or_a_path(trained, monkeypatch):
    path, _ = trained[0]
    monkeypatch.setattr(checkpoints, "DIRECTORY", path.parent)
    named, given = (load_classifier(name).state_dict() for name in ("0", str(path)))
    assert all(torch.equal(given[key], value) for key, value in named.items())
    with pytest.raises(FileNotFoundError, match="classifier-digits"):
        load_classifier("digits")


def write(path, tensors):
    checkpoints.write(path, classifier.FORMAT, tensors, {})
    return path


def test_damaged_and_foreign_files_are_refused(trained, tmp_path):
    content = trained[0][0].read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_classifier(cut)
    model = tmp_path / "model.safetensors"
    checkpoints.write(model, checkpoints.FORMAT, {"weight": torch.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="holds a model: .* of the kind 'classifier'"):
        load_classifier(model)
    path = tmp_path / "other.safetensors"
    whole = Classifier(4).state_dict()
    scalar = whole | {"head.bias": torch.tensor(0.0)}
    fewer = {name: value for name, value in whole.items() if name != "body.0.weight"}
    for tensors in ({"weight": torch.zeros(3)}, scalar, fewer):
        with pytest.raises(CheckpointError, match="does not hold the weights") as caught:
            load_classifier(write(path, tensors))
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_omniglot_is_validated_on_two_drawers_of_every_character():
    labels = torch.arange(3).repeat_interleave(20)
    found = held_out("omniglot", torch.zeros(60, 1, 28, 28), labels)
    assert found.validation.tolist() == [9, 19, 29, 39, 49, 59]
    assert sorted([*found.train.tolist(), *found.validation.tolist()]) == list(range(60))
    assert found.what == "2 of 20 drawers"


LEAST = {"mnist": 0.985, "fashion": 0.9, "omniglot": 0.8}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full_data(name)) for name in LEAST]
)
def test_what_the_committed_classifiers_reach(name):
    path = checkpoints.find(f"classifier-{name}")
    assert path.stat().st_size < 600_000
    _, about = checkpoints.read(path, classifier.FORMAT)
    images, labels = data.load(name, "train")
    assert about["data_sha256"] == data.digest(images, labels)
    validation = held_out(name, images, labels).validation
    assert len(validation) == about["validation_images"]
    guess = load_classifier(name).probabilities(images[validation]).argmax(1)
    accuracy = (guess == labels[validation]).double().mean().item()
    assert accuracy == pytest.approx(about["validation_accuracy"], abs=0.001)  # other processors
    assert accuracy >= LEAST[name]
