"""Peers: recipes that differ in what they are named for, and measures worked out by hand."""

import json

import pytest
import tiny
import torch
from click.testing import CliRunner

from rnp_lib import data
from rnp_lib.analysis import parsing, peers
from rnp_lib.analysis.classifier import Classifier
from rnp_lib.analysis.controls import latents
from rnp_lib.analysis.peers import BUDGETS, PEERS
from rnp_lib.cli import commands
from rnp_lib.data.combinations import KINDS, combinations
from rnp_lib.model import build
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.tree import ProgramTree
from rnp_lib.presets import PRESETS


def of(dataset, **changes):
    return tiny.config(image_size=28, dataset=dataset, **changes)


@pytest.mark.parametrize(("dataset", "name"), peers.recipes())
def test_a_peer_differs_from_the_tree_in_what_it_is_named_for(dataset, name):
    own = peers.recipes()[dataset, name].config.to_dict()
    tree = PRESETS[dataset].to_dict() | {"images": (BUDGETS[dataset],)}
    # Of a tree that draws nothing below its root, and of how AIR's objects come to cost something.
    follows = {"posterior", "drop", "extent", "kl_warmup"}
    changes = {*PEERS[name].changes}
    assert {key for key in own if own[key] != tree[key]} - (follows - changes) == changes
    assert own["z_dim"] == tree["z_dim"]
    assert own["images"] == tree["images"]


def test_the_hierarchical_vae_draws_as_many_numbers_as_the_tree():
    drawn = {name: latents(peers.recipes()["mnist", name].config) for name in PEERS}
    assert drawn["tree"] == drawn["hvae"] == 32 + 4 * (32 + 6)
    assert drawn["vae"] == 32


@pytest.fixture
def few(monkeypatch):
    """Test sets of few images, and a classifier that knows nothing."""
    generator = torch.Generator().manual_seed(0)
    digits = torch.rand(40, 1, 28, 28, generator=generator), torch.arange(40) % 10
    sets = dict.fromkeys(("mnist", "omniglot"), digits)
    monkeypatch.setattr(data, "COMBINATIONS", {"test": (60, 2, KINDS)})
    sets["combinations"] = combinations(60, 2)[:2]
    monkeypatch.setattr(data, "load", lambda name, *_: sets[name])
    monkeypatch.setattr(peers, "load_classifier", lambda name: Classifier(10).eval())
    return sets


@pytest.mark.parametrize(
    "kind", [{"posterior": "tree"}, {"model": "vae"}, {"model": "hvae", "posterior": "tree"}]
)
def test_scores_of_digits_are_those_of_the_parts_of_the_library(few, kind):
    model = build(of("mnist", **kind), 0).eval()
    found = peers.digits(model, samples=30, iwae=2)
    images, _ = few["mnist"]
    expected = parsing.evaluate(model, images, iwae=2)
    for name in ("n", "sse", "sse_stderr", "nats", "iwae_nats", "iwae_stderr"):
        assert found[name] == expected[name]
    assert found["kl_root"] + found["kl_below"] == pytest.approx(expected["kl"])
    assert (found["kl_below"] > 0) == ("posterior" in kind)
    assert ("sse_root" in found) == ("posterior" in kind)
    assert found["sse_omniglot"] == pytest.approx(expected["sse"])  # of the same images here
    z = model.encode(images).mean
    assert found["active"] == int((z.double().var(0) > 0.01).sum())
    assert 0 <= found["probe"] <= 1
    assert {"acc", "nmi", "knn", "legible", "fid", "kid", "recall", "coverage"} <= found.keys()


@torch.no_grad()
def test_combinations_are_scored_by_kind(few):
    model = build(of("combinations", posterior="tree", sigma2=0.2), 0).eval()
    found = peers.combined(model)
    images, labels = few["combinations"]
    sse = (model.parse(images).canvas - images).square().flatten(1).sum(1).double()
    for i, kind in enumerate(("seen", "pair", "place")):
        own = sse[labels == i]
        assert found[f"n_{kind}"] == 20
        assert found[f"sse_{kind}"] == pytest.approx(float(own.mean()))
        assert found[f"sse_{kind}_stderr"] == pytest.approx(float(own.std() / 20**0.5))
    rise = float(sse[labels == 1].mean() - sse[labels == 0].mean())
    assert found["rise_sse_pair"] == pytest.approx(rise)
    error = sum(float(sse[labels == i].var()) / 20 for i in (0, 1)) ** 0.5
    assert found["rise_sse_pair_stderr"] == pytest.approx(error)
    nats = sum(found[f"nats_{kind}"] for kind in ("seen", "pair", "place")) / 3
    assert nats == pytest.approx(parsing.evaluate(model, images)["nats"], rel=0.05)


@torch.no_grad()
def test_of_air_there_are_errors_and_programs_but_no_nats(few):
    settings = {"model": "air", "tau": (4,), "extent": ((0.2, 0.5),)}
    model = build(of("mnist", **settings), 0).eval()
    found = peers.digits(model)
    images, _ = few["mnist"]
    sse = (model.parse(images).canvas - images).square().flatten(1).sum(1).double()
    assert found["n"] == len(images)
    assert found["sse"] == found["sse_omniglot"] == pytest.approx(float(sse.mean()))  # same images
    assert not {"nats", "legible", "acc"} & found.keys()
    of_strokes = peers.combined(build(of("combinations", **settings), 0).eval())
    assert {"sse_seen", "rise_sse_pair", "rise_sse_place", "retrieved"} <= of_strokes.keys()
    assert not [name for name in of_strokes if "nats" in name]
    record = {"peers": {"mnist": {"air": {"numbers": found}}}}
    assert peers.numbers(record)["mnist_sse_air"] == found["sse"]
    assert f"{found['sse']:.3f}" in peers.table(record)


class Telling(ImageModel):
    """Has a part for every quarter; a part's program is what `told` says of the stroke there."""

    def __init__(self, drawn, told):
        super().__init__(of("combinations"))
        self.drawn, self.told, self.at = drawn, told, 0

    def parse(self, images):
        rows, columns = torch.arange(28)[:, None] // 14, torch.arange(28) // 14
        pictures = torch.stack([images * (rows * 2 + columns == q) for q in range(4)], 1)
        mine = slice(self.at, self.at + len(images))
        self.at += len(images)
        z = torch.zeros(len(images), 4, 1)
        z.scatter_(1, self.drawn.quarters[mine, :, None], self.told[mine, :, None])
        children = [ProgramTree(z[:, t], pictures[:, t]) for t in range(4)]
        return ProgramTree(z[:, 0], images, children=children, parts=pictures)


def test_strokes_are_retrieved_by_their_programs():
    drawn = combinations(240, 2)
    knows = peers.retrieved(Telling(drawn, drawn.shapes.float()), drawn)
    assert knows["retrieved"] == 1
    assert knows["retrieved_chance"] == pytest.approx(1 / 12, abs=0.02)
    where = drawn.quarters.float() + drawn.shapes % 2 / 10  # where it is, and nearly nothing else
    blind = peers.retrieved(Telling(drawn, where), drawn)
    assert blind["retrieved"] < 0.4
    assert blind["retrieved_stderr"] > 0


def test_evaluate_trains_the_peers_that_are_missing_and_scores_all(few, monkeypatch, tmp_path):
    monkeypatch.setitem(PRESETS, "combinations", of("combinations", batch_size=16))
    monkeypatch.setattr(peers, "BUDGETS", {"combinations": 160})
    monkeypatch.setattr(peers, "PEERS", {name: PEERS[name] for name in ("tree", "iwae")})
    arguments = ["evaluate", "--peers", str(tmp_path), "--json", str(tmp_path / "peers.json")]
    first, again = (CliRunner().invoke(commands, arguments) for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output
    record = json.loads((tmp_path / "peers.json").read_text())
    assert [*record["peers"]["combinations"]] == ["tree", "iwae"]
    assert peers.table(record) in again.output
    assert "plain VAE, trained as IWAE, k = 5" in again.output
    named, own = peers.numbers(record), record["peers"]["combinations"]["iwae"]["numbers"]
    assert named["combinations_sse_pair_iwae"] == own["sse_pair"]
    assert named["combinations_sse_pair_iwae_stderr"] == own["sse_pair_stderr"]
    assert len(named) == sum(
        len(row["numbers"]) for row in record["peers"]["combinations"].values()
    )
    assert "step" not in again.output  # nothing is trained twice
