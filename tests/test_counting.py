"""Counting and naming digits: the canvases, and how parsers of them are scored."""

import itertools
import json

import pytest
import tiny
import torch
from click.testing import CliRunner

from rnp_lib import data
from rnp_lib.analysis import counting
from rnp_lib.cli import commands
from rnp_lib.data.counting import APART, INK, MOST, Counted
from rnp_lib.data.counting import counting as draw
from rnp_lib.presets import PRESETS

# A digit is a square in the middle of its image, the brighter the higher.
DIGITS = torch.zeros(10, 1, 28, 28, dtype=torch.uint8)
DIGITS[:, 0, 6:22, 6:22] = (100 + 10 * torch.arange(10, dtype=torch.uint8))[:, None, None]
LABELS = torch.arange(10)


class Brightness:
    """Reads the squares."""

    def read(self, pictures):
        label = ((pictures.amax((1, 2, 3)) * 255 - 100) / 10).round().long().clamp(0, 9)
        return torch.ones(len(label)), label


def test_canvases_hold_as_many_digits_as_they_say_and_these_hardly_overlap():
    made = draw(DIGITS, LABELS, 50, seed=0)
    assert made.images.shape == (50, 1, 56, 56)
    assert made.counts.tolist() == [0, 1, 2, 3, 4] * 10
    for image, count, digits, owners in zip(*made, strict=True):
        assert ((digits >= 0) == (torch.arange(MOST) < count)).all()
        assert torch.equal(owners >= 0, image[0] >= INK)
        assert set(owners.unique().tolist()) - {-1} <= set(range(int(count)))
        middles = []
        for i in range(int(count)):
            own = owners == i
            assert (image[0][own] == 100 + 10 * digits[i]).all()
            middles.append(own.nonzero().double().mean(0))
        # A corner of a square may be under another, which moves what is seen of it.
        for one, other in itertools.combinations(middles, 2):
            assert torch.dist(one, other) > APART - 3


def test_canvases_are_drawn_by_seed_and_of_the_counts_asked_for():
    one, again, other = (draw(DIGITS, LABELS, 12, seed, (1, 3)) for seed in (0, 0, 1))
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.images, other.images)
    assert one.counts.tolist() == [1, 3] * 6


def pictures(truth: Counted) -> torch.Tensor:
    """What a parser without fault finds: each digit by itself."""
    own = truth.owners[:, None] == torch.arange(MOST)[:, None, None]
    return (own * truth.images / 255).unsqueeze(2)


def test_a_parser_without_fault_gets_all_right():
    truth = draw(DIGITS, LABELS, 40, seed=0)
    found = counting.scores(pictures(truth), truth, 1.0, Brightness())
    assert [*found] == ["0", "1", "2", "3", "4"]
    for count, row in found.items():
        expected = {"counted", "named"} | ({"known"} if int(count) else set())
        expected |= {"ari"} if int(count) > 1 else set()
        assert expected == {name for name in row if not name.endswith("_stderr")}
        assert all(row[name] == 1 for name in expected)


def test_a_part_too_many_or_too_few_is_a_wrong_count_and_a_wrong_name():
    truth = draw(DIGITS, LABELS, 40, seed=0, counts=(2,))
    parts = pictures(truth)
    parts[:, 1] = 0
    found = counting.scores(parts, truth, 1.0, Brightness())["2"]
    assert (found["counted"], found["known"], found["named"]) == (0, 0.5, 0)
    parts[:, 2] = parts[:, 1] = pictures(truth)[:, 1]
    found = counting.scores(parts, truth, 1.0, Brightness())["2"]
    assert (found["counted"], found["known"], found["named"]) == (0, 1, 0)
    parts = pictures(truth).sum(1, keepdim=True)
    found = counting.scores(parts, truth, 1.0, Brightness())["2"]
    assert (found["counted"], found["ari"]) == (0, 0)


def test_a_cut_gives_each_pixel_to_the_part_that_draws_most_there():
    truth = draw(DIGITS, LABELS, 10, seed=0)
    found = counting.cut(pictures(truth), 1.0)
    assert torch.equal(found, truth.owners)
    assert (counting.cut(pictures(truth), 1e9) == -1).all()
    found[found == 0] = -1  # a digit that no part draws
    words = counting.as_text(found, truth.owners)
    assert [len(word) for word in words] == (truth.owners >= 0).flatten(1).sum(1).tolist()
    assert set(words[1]) == {"."}
    assert torch.equal(counting.from_text(words, truth.owners), found)


def test_the_least_ink_is_what_gets_most_counts_right():
    sizes = torch.tensor([[5.0, 1.0, 0.2], [6.0, 4.0, 0.5], [0.1, 0.3, 0.0]])
    parts = sizes[:, :, None, None, None]
    least = counting.least_ink(parts, torch.tensor([1, 2, 0]))
    assert 1.0 <= least < 4.0


def test_pieces_are_the_largest_that_hang_together():
    image = torch.zeros(1, 1, 20, 20)
    for i in range(counting.LARGEST + 1):
        row, column = divmod(i, 3)
        image[0, 0, 6 * row : 6 * row + 2, 6 * column : 6 * column + 1 + (i > 0)] = 0.5
    found = counting.pieces(image)
    assert found.shape == (1, counting.LARGEST, 1, 20, 20)
    assert found.flatten(2).sum(2).tolist() == [[2.0] * counting.LARGEST]
    assert counting.pieces(torch.zeros(2, 1, 20, 20)).sum() == 0


@pytest.fixture
def few(monkeypatch):
    """Few canvases of squares, and recipes of few steps."""
    seeds = {"train": (400, 0), "test": (50, 1)}
    monkeypatch.setattr(data, "counted", lambda split: draw(DIGITS, LABELS, *seeds[split]))
    monkeypatch.setattr(counting, "CHOSEN", 20)
    monkeypatch.setattr(counting, "load_classifier", lambda name: Brightness())
    made = tiny.config(
        dataset="counting", without=(4,), image_size=56, posterior="tree", batch_size=16
    )
    monkeypatch.setitem(PRESETS, "counting", made)
    brief = {"one": {"tau": (4,)}, "air": {"model": "air", "tau": (4,)}}
    brief["longer"] = brief["air"] | {"images": 320}
    for name, changes in brief.items():
        monkeypatch.setitem(counting.MODELS, name, (counting.MODELS[name][0], changes))


def test_what_is_chosen_is_chosen_on_validation_canvases_of_known_counts(few):
    validation, test = counting.canvases((4,))
    assert validation.counts.unique().tolist() == [0, 1, 2, 3]
    assert len(validation.counts) == 20
    assert test.counts.unique().tolist() == [0, 1, 2, 3, 4]
    train = data.counted("train")
    split = data.splits.validation("counting", train.images, train.counts)
    held = {image.numpy().tobytes() for image in train.images[split.validation]}
    assert all(image.numpy().tobytes() in held for image in validation.images)
    assert set(counting.canvases(())[0].counts.tolist()) == {0, 1, 2, 3, 4}


def test_models_differ_in_what_they_are_named_for():
    found = {name: recipe.config for name, recipe in counting.recipes().items()}
    assert sum(found["longer"].images) == 400_000
    brief = {"images": (200_000,), "kl_warmup": 100_000}
    assert found["longer"].to_dict() | brief == found["air"].to_dict()
    assert {sum(config.images) for name, config in found.items() if name != "longer"} == {200_000}
    assert {config.without for name, config in found.items() if name != "saw"} == {(4,)}
    assert found["saw"].without == ()
    assert found["one"].tau == (4,)
    assert found["air"].tau == (4,)
    assert found["one"].extent == found["air"].extent == found["tree"].extent[:1]
    assert (found["root"].posterior, found["vae"].model) == ("root", "vae")


def test_evaluate_counts_with_models_that_have_not_seen_four(few, tmp_path):
    arguments = ["evaluate", "--peers", str(tmp_path), "--study", "counting", "--json"]
    result = CliRunner().invoke(commands, [*arguments, str(tmp_path / "found.json")])
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "found.json").read_text())
    assert [*record] == [*counting.MODELS]
    assert {*record["vae"]["numbers"]["3"]} == {"sse", "sse_stderr"}
    assert {"counted", "ari", "sse"} < {*record["air"]["numbers"]["3"]}
    table = counting.table(record)
    assert table in result.output
    of_pieces = record["tree"]["numbers"]["pieces"]["4"]["counted"]
    numbers = counting.numbers(record)
    assert numbers["counted_4_pieces"] == of_pieces
    assert numbers["sse_2_vae_stderr"] == record["vae"]["numbers"]["2"]["sse_stderr"]
    assert "known_0_tree" not in numbers
    kept = record["tree"]["numbers"]["pieces"]["cuts"]
    owners = data.counted("test").owners[: counting.SHOWN]
    assert counting.from_text(kept, owners).shape == owners.shape
    lines = [line for line in table.splitlines() if counting.PIECES in line]
    assert len(lines) == 4
    assert f"{of_pieces:.3f} ± " in lines[0].rsplit("  ", 1)[1]
