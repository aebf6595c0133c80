"""Symbols and words by hand, and a grammar that says nothing that it has not counted."""

import pytest
import tiny
import torch

from rnp_lib.analysis import alphabet


@pytest.fixture(scope="module")
def model():
    return tiny.tree()


@pytest.fixture(scope="module")
def images():
    return tiny.pictures(12)


def test_symbols_are_the_clusters_there_are_the_most_frequent_first():
    generator = torch.Generator().manual_seed(1)
    centres = torch.tensor([[0.0, 0], [9, 0], [0, 9]])
    which = torch.tensor([2, 2, 2, 2, 0, 0, 0, 1]).view(4, 2)
    z = centres[which] + 0.01 * torch.randn(4, 2, 2, generator=generator)
    found = alphabet.symbols(z, 3)
    torch.testing.assert_close(found, centres[[2, 0, 1]], atol=0.05, rtol=0)
    renamed = torch.tensor([1, 2, 0])  # of the centres, in the order of the symbols
    assert torch.equal(alphabet.spell(z, found), renamed[which])
    assert alphabet.explained(z, found) == pytest.approx(1, abs=1e-3)
    mean = z.flatten(0, 1).mean(0, keepdim=True)
    assert alphabet.explained(z, mean) == pytest.approx(0, abs=1e-6)


def test_how_many_symbols_cover_a_share():
    words = torch.tensor([[3, 3, 3, 3], [3, 3, 1, 1], [1, 3, 0, 2]])  # 7, 3, 1 and 1 of 12
    assert [alphabet.covering(words, share) for share in (0.5, 0.8, 0.9, 1.0)] == [1, 2, 3, 4]


def test_entropies_by_hand():
    # The second symbol follows from the first, the third is a coin by itself.
    words = torch.tensor([[0, 3, 0], [0, 3, 1], [1, 2, 0], [1, 2, 1]])
    found = alphabet.entropies(words, 4)
    assert found["alone"] == pytest.approx([1, 1, 1])
    assert found["given_before"] == pytest.approx([1, 0, 1], abs=1e-9)


def test_the_most_frequent_word_and_where_its_parts_lie():
    words = torch.tensor([[0, 1], [2, 2], [0, 1], [0, 1], [2, 2]])
    u = torch.arange(60.0).view(5, 2, 6)
    found = alphabet.production(words, u)
    assert (found.word, found.share) == ((0, 1), 0.6)
    torch.testing.assert_close(found.u, u[[0, 2, 3]].mean(0))


def test_places_have_names(model):
    names = {
        (0.0, 0.0): "middle",
        (-0.6, -0.6): "top left",
        (0.6, 0.0): "middle right",
        (0.0, 0.6): "bottom middle",
    }
    centre = model.config.centre
    for (across, down), name in names.items():
        action = torch.zeros(6)
        for middle in torch.eye(6):  # whichever two numbers of an action are its middle
            window = model.window(2, model.unsquash(0.5 * middle))
            if window[0, 2].abs() > 0.1:
                action += across / centre * middle
            if window[1, 2].abs() > 0.1:
                action += down / centre * middle
        assert alphabet.where(model, model.unsquash(action)) == name


def test_new_words_are_of_rules_that_were_counted_and_lie_where_these_did():
    words = torch.tensor([[0, 1, 2], [0, 2, 1], [1, 2, 2], [1, 1, 0]])
    u = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(2))
    new, places = alphabet.compose_words(words, u, 3, 200, torch.Generator().manual_seed(3))
    follows = [{tuple(pair) for pair in words[:, t : t + 2].tolist()} for t in (0, 1)]
    for t in (0, 1):
        assert {tuple(pair) for pair in new[:, t : t + 2].tolist()} == follows[t]
    assert len(new.unique(dim=0)) > len(words)  # and words that were not counted are among them
    begins = new[:, 0] == 0
    torch.testing.assert_close(places[begins, 0], u[:2, 0].mean(0).expand(int(begins.sum()), -1))
    ends = (new[:, 1] == 2) & (new[:, 2] == 1)
    torch.testing.assert_close(places[ends, 2], u[1, 2].expand(int(ends.sum()), -1))


@torch.no_grad()
def test_parts_draw_the_image_that_they_are_of(model, images):
    parts = alphabet.parts_of(model, images)
    tree = model.parse(images)
    assert parts.z.shape == (12, 2, 8)
    assert parts.u.shape == (12, 2, 6)
    torch.testing.assert_close(alphabet.draw(model, *parts), tree.canvas)


@pytest.mark.parametrize("prior_z", ["symbols", "both"])
def test_the_chosen_symbol_is_the_one_that_is_likeliest(prior_z, images):
    model = tiny.tree(prior_z=prior_z, symbols=3)
    found = alphabet.chosen(model, images)
    assert found.shape == (12, 2)
    assert int(found.max()) < 3 + (prior_z == "both")
    with torch.no_grad():  # a prior with one likely part alone
        model.grammar.choice.bias[1] += 1_000
    assert (alphabet.chosen(model, images) == 1).all()
