"""A tree of random programs as a container: paths, its nats, its slices, and its JSON."""

import dataclasses
import json

import pytest
import tiny
import torch
from torch.distributions import Normal

from rnp_lib.model.chance import Chance, Mixture
from rnp_lib.model.tree import ProgramTree

PRIORS = pytest.mark.parametrize("prior_z", ["prediction", "symbols", "both"])


def make(**changes):
    config = tiny.config(posterior="tree", tau=(2, 3, 2), symbols=3, reader_units=8, **changes)
    return tiny.disturbed(config, torch.float32).requires_grad_(False)


def inferred(n=3, **changes):
    model = make(**changes)
    return model.infer(torch.rand(n, 1, 16, 16), model.noise(n, seed=0))


def nodes(tree):
    return [tree, *(node for child in tree.children for node in nodes(child))]


def tensors(tree):
    found = []
    tree.map(lambda tensor: found.append(tensor) or tensor)
    return found


def assert_equal(first, second):
    for a, b in zip(tensors(first), tensors(second), strict=True):
        assert torch.equal(a, b)


def test_nats_are_those_of_all_programs():
    tree = inferred()
    drawn = [node for node in nodes(tree) if node.kl is not None]
    assert len(drawn) == 1 + 2 + 6
    torch.testing.assert_close(tree.nats, torch.stack([node.kl for node in drawn]).sum(0))
    part = tree.children[1]
    torch.testing.assert_close(part.nats, part.kl + sum(child.kl for child in part.children))
    assert tree.children[0].children[0].children[0].nats == 0
    assert make().sample(2).nats == 0, "nothing was seen"


@PRIORS
def test_map_reaches_every_tensor_and_a_slice_cuts_it(prior_z):
    tree = inferred(5, prior_z=prior_z)
    # Six fields of 20 programs but z and canvas alone of the root, and parts of the nine above.
    plain = 2 + 20 * 6 + 9
    each = 5 if prior_z == "prediction" else 6  # numbers of a prior's z and u, and the kl
    assert len(tensors(tree)) == plain + (2 + 2 + 1) + 8 * (each + 4)
    for index in (slice(1, 3), torch.tensor([4, 0])):
        part = tree[index]
        for whole, taken in zip(tensors(tree), tensors(part), strict=True):
            assert torch.equal(whole[index], taken)
        for node, cut in zip(nodes(tree), nodes(part), strict=True):
            assert type(cut.prior) is type(node.prior)
            if node.prior:
                assert type(cut.prior.z) is type(node.prior.z)
                assert (cut.prior.u is None) == (node.prior.u is None)


def test_programs_are_named_by_their_paths():
    tree = inferred()
    assert tree.at(()) is tree
    assert tree.at((1, 2, 0)) is tree.children[1].children[2].children[0]
    for path in ((2,), (-1,), (0, 3), (0, 0, 0, 0)):
        with pytest.raises(ValueError, match="there is no program at") as error:
            tree.at(path)
        assert str(path) in str(error.value)


def test_putting_a_program_changes_it_and_the_pictures_above_it():
    tree, other = inferred(), inferred()
    for path in ((1,), (0, 2), (1, 0, 1)):
        before = [tensor.clone() for tensor in tensors(tree)]
        new = other.at(path)
        found = tree.put(path, new)
        assert all(map(torch.equal, before, tensors(tree)))
        assert found.at(path) is new
        for length in range(len(path)):
            above, old = found.at(path[:length]), tree.at(path[:length])
            torch.testing.assert_close(above.canvas, sum(above.placed))
            assert not torch.allclose(above.canvas, old.canvas)
            assert above.z is old.z
            assert above.kl is old.kl
            for t, child in enumerate(above.children):
                assert (child is old.children[t]) == (t != path[length])
        torch.testing.assert_close(found.put(path, tree.at(path)).canvas, tree.canvas)
    assert tree.put((), other) is other
    assert_equal(tree.of(tree.children), tree)


# JSON


@PRIORS
def test_json_round_trip_is_exact(prior_z):
    model = make(prior_z=prior_z)
    x = torch.rand(2, 1, 16, 16)
    tree = model.infer(x, model.noise(2, seed=0))
    every = (
        *(tree, model.parse(x), model.sample(2), model.decode(tree.z), tree.children[1]),
        *(model.resample(tree, (0,)), model.resample(tree, (1, 2)), model.infer(x, until=1)),
        model.infer(x, seen=torch.tensor([0.0, 1.0])),
    )
    for original in every:
        copy = ProgramTree.from_json(original.to_json())
        assert_equal(copy, original)
        assert copy.to_json() == original.to_json()
        for node, found in zip(nodes(original), nodes(copy), strict=True):
            for name in ("u", "prior", "posterior", "kl"):
                assert (getattr(found, name) is None) == (getattr(node, name) is None), name
            for name in ("prior", "posterior"):
                chance, again = getattr(node, name), getattr(found, name)
                if chance:
                    assert isinstance(again, Chance)
                    assert isinstance(again.z, Mixture | Normal)
                    assert type(again.z) is type(chance.z)
                    assert (again.u is None) == (chance.u is None)
    # What was read is a tree to go on with.
    copy = ProgramTree.from_json(tree.to_json())
    torch.testing.assert_close(
        model.resample(copy, (1,), seed=3).canvas, model.resample(tree, (1,), seed=3).canvas
    )


def test_a_tree_written_before_programs_were_random_is_read():
    tree = inferred()

    def old(plain):
        new = ("u", "prior", "posterior", "kl")
        kept = {name: value for name, value in plain.items() if name not in new}
        return kept | {"children": [old(child) for child in plain["children"]]}

    plain = json.loads(tree.to_json())
    copy = ProgramTree.from_json(json.dumps(plain | {"tree": old(plain["tree"])}))
    bare = [
        dataclasses.replace(node, u=None, prior=None, posterior=None, kl=None, children=[])
        for node in nodes(tree)
    ]
    for node, found in zip(bare, nodes(copy), strict=True):
        assert found.u is found.prior is found.posterior is found.kl is None
        assert_equal(dataclasses.replace(found, children=[]), node)
    assert copy.nats == 0


def test_json_of_no_distribution_is_refused_in_one_sentence():
    plain = json.loads(inferred().to_json())
    child = plain["tree"]["children"][0]
    for change in (
        {"prior": 3},
        {"prior": [1.0]},
        {"prior": {"v": {"mean": [[0.0]], "scale": [[1.0]]}}},
        {"prior": {"z": {"mean": [[0.0]]}}},
        {"posterior": {"z": {"mean": [["a"]], "scale": [[1.0]]}}},
        {"posterior": {"z": {"log_weights": [[0.0]], "mean": [[[0.0]]]}}},
        {"u": [[1.0, 2.0]]},
        {"kl": [[1.0]]},
    ):
        tree = plain["tree"] | {"children": [child | change, child]}
        with pytest.raises(ValueError, match=r"^this is no tree that `to_json` wrote \(.*\)\.$"):
            ProgramTree.from_json(json.dumps(plain | {"tree": tree}))
