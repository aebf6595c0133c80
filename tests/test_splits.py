"""Which images validate: of a folder some of every class, of Omniglot whole alphabets."""

import pytest
import torch

from rnp_lib import data
from rnp_lib.data import splits


def split(name: str, labels: torch.Tensor) -> splits.Split:
    found = splits.validation(name, labels[:, None], labels)
    together = torch.cat([found.train, found.validation])
    assert torch.equal(together.sort().values, torch.arange(len(labels)))
    return found


@pytest.mark.parametrize("name", ["mnist", "fashion", "strokes", "scenes"])
def test_sets_in_random_order_hold_back_their_end(name: str) -> None:
    found = split(name, torch.zeros(60_000, dtype=torch.int64))
    assert found.validation.tolist() == list(range(55_000, 60_000))
    assert found.what == "the last 5,000"
    found = split(name, torch.zeros(108, dtype=torch.int64))
    assert found.validation.tolist() == list(range(98, 108))
    assert found.what == "the last tenth"


def test_a_folder_holds_back_some_of_every_class_though_it_is_in_their_order() -> None:
    labels = torch.arange(10).repeat_interleave(30)
    found = split("my/pictures", labels)
    assert labels[found.validation].bincount().tolist() == [3] * 10
    assert found.what == "a tenth, drawn by seed, stratified by label"
    assert torch.equal(found.validation, split("my/pictures", labels).validation)
    assert found.validation.remainder(30).unique().numel() > 5  # not always the same places


@pytest.mark.parametrize(
    ("sizes", "held"),
    [
        ([50, 100, 150], [5, 10, 15]),
        ([4, 96], [0, 10]),
        ([2, 2], [1, 0]),  # which class it is, the seed says
        ([1] * 9 + [11], [0] * 9 + [2]),
        ([20], [2]),
    ],
)
def test_classes_share_the_tenth_as_their_sizes(sizes: list[int], held: list[int]) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    found = split("my/pictures", labels)
    counts = labels[found.validation].bincount(minlength=len(sizes)).tolist()
    assert counts == held if sizes != [2, 2] else sorted(counts) == sorted(held)
    kept = labels[found.train].bincount(minlength=len(sizes))
    assert all(left for left, size in zip(kept, sizes, strict=True) if size > 1)


def test_folders_without_classes_or_with_one_image_in_each_are_split_too() -> None:
    assert split("my/pictures", torch.zeros(30, dtype=torch.int64)).what == "a tenth, drawn by seed"
    assert len(split("my/pictures", torch.arange(30)).validation) == 3


@pytest.mark.full_data("omniglot")
def test_omniglot_holds_back_its_last_four_alphabets() -> None:
    images, labels = data.load("omniglot")
    found = splits.validation("omniglot", images, labels)
    assert (len(found.train), len(found.validation)) == (16_540, 2_740)
    assert found.what == "the alphabets Sanskrit, Syriac (Estrangelo), Tagalog and Tifinagh"
    assert not set(labels[found.train].tolist()) & set(labels[found.validation].tolist())
    kept = data.leave_out(images, labels, (0, 900))
    fewer = splits.validation("omniglot", *kept)
    assert (len(fewer.train), len(fewer.validation)) == (16_520, 2_720)


def test_omniglot_by_drawer_knows_every_character() -> None:
    found = splits.by_drawer(torch.arange(3).repeat_interleave(20))
    assert found.validation.tolist() == [9, 19, 29, 39, 49, 59]
    assert len(found.train) == 54
    assert found.what == "2 of 20 drawers"


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="mnist has 1 training images: give it at least two"):
        split("mnist", torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="0 to validate on .*leave out fewer classes"):
        split("omniglot", torch.arange(800))
