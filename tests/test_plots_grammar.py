"""What the figures of a grammar hold."""

import pytest
import tiny
import torch

from rnp_lib.analysis import alphabet, likelihood, variation
from rnp_lib.plots import grammar


@pytest.fixture(scope="module")
def model():
    return tiny.tree()


@pytest.fixture(scope="module")
def images():
    return tiny.pictures(12)


def test_an_alphabet_shows_every_symbol_its_share_and_its_turns(images):
    words = torch.tensor([[0, 1], [0, 0], [1, 2], [0, 0]])
    figure = grammar.alphabet(images[:3, :, :8, :8], words, torch.tensor([5, 5, 6, 6]))
    figure.canvas.draw()
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["62.5%", "25.0%", "12.5%"]
    bars = [[bar.get_height() for bar in axes.patches] for axes in figure.axes if axes.patches]
    assert bars == [[3 / 8, 2 / 8], [1 / 8, 1 / 8], [0, 1 / 8]]
    table = figure.axes[-1].images[0].get_array()
    assert table.tolist() == [[0.75, 0.25, 0], [0.5, 0.25, 0.25]]


@torch.no_grad()
def test_words_show_their_rules_and_what_they_draw(model, images):
    parts = alphabet.parts_of(model, images)
    letters = alphabet.symbols(parts.z, 3)
    words = alphabet.spell(parts.z, letters)
    rules = [alphabet.production(words[:6], parts.u[:6]), alphabet.production(words, parts.u)]
    figure = grammar.words(model, rules, letters, {"dictated": images[:4]})
    figure.canvas.draw()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert texts == [f"{100 * rule.share:.1f}%\n→" for rule in rules]
    assert sum(bool(axes.images) for axes in figure.axes) == 2 * (1 + 2 * 2) + 4


def test_variations_stand_beside_what_they_are_of(model, images):
    tree = model.parse(images[:2])
    varied = {
        title: [tree, *(variation.vary(model, tree, kind, seed) for seed in range(3))]
        for kind, title in variation.KINDS.items()
    }
    figure = grammar.variations(varied)
    figure.canvas.draw()
    assert len(figure.axes) == 3 * 2 * 4
    assert [block.get_suptitle() for block in figure.subfigs] == list(varied)


def test_surprise_shows_each_part_with_its_nats(model, images):
    picked = model.parse(images[:2])
    spent = likelihood.costs(model, images)
    totals = {"known": spent.sum(1)}
    figure = grammar.surprise(images[:2], picked, ["a 3", "a 3"], spent[:2], totals)
    figure.canvas.draw()
    labels = [axes.get_xlabel() for axes in figure.axes]
    for b in range(2):
        assert f"root {float(picked.kl[b]):.0f}" in labels
        for child in picked.children:
            assert f"{float(child.kl[b]):.0f}" in labels
    totals = [text.get_text().strip() for axes in figure.axes for text in axes.texts]
    assert totals == [f"{float(total):.0f}" for total in spent[:2].sum(1)]
