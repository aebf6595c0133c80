"""Trees edited by hand: what changes, what is shared, what is refused; trees as JSON."""

import copy
import json

import pytest
import tiny
import torch

from rnp_lib.explorer import edits
from rnp_lib.model.rnp import RNP
from rnp_lib.model.transforms import affine, place
from rnp_lib.model.tree import ProgramTree

LEAF, PART = (1, 0), (0,)


MODELS = [(tau, posterior) for tau in ((2, 2), (2, 3, 2)) for posterior in ("root", "tree")]


def make(tau, posterior):
    torch.manual_seed(1)
    return RNP(tiny.config(tau=tau, posterior=posterior)).eval().requires_grad_(False)


@pytest.fixture(scope="module", params=MODELS, ids=lambda made: f"{len(made[0])} levels, {made[1]}")
def model(request):
    return make(*request.param)


@pytest.fixture(scope="module")
def chancy():
    """Three levels, every program above the leaves drawn."""
    return make((2, 3, 2), "tree")


@pytest.fixture
def tree(model):
    return model.sample(2, seed=3)


@pytest.fixture
def other(model):
    return model.sample(2, seed=4)


def redrawn(before, after):
    """The paths whose programs are other objects than before."""
    old = dict(edits.walk(before))
    return {path for path, node in edits.walk(after) if old.get(path) is not node}


def tensors(tree):
    found = []
    tree.map(lambda tensor: found.append(tensor) or tensor)
    return found


def assert_equal(first, second):
    for a, b in zip(tensors(first), tensors(second), strict=True):
        assert torch.equal(a, b)


def assert_composed(tree):
    """Every canvas is the sum of the visible children's, each drawn where its action says."""
    for _, node in edits.walk(tree):
        if node.children:
            drawn = [
                place(c.canvas, c.affine, node.canvas.shape[-1]) * (not isinstance(c, edits.Hidden))
                for c in node.children
            ]
            assert len(node.placed) == len(drawn)
            for placed, expected in zip(node.placed, drawn, strict=True):
                torch.testing.assert_close(placed, expected)
            torch.testing.assert_close(node.canvas, sum(drawn))


def assert_lies_where_u_says(model, tree):
    """Every action is its u squashed, and every window follows from its action."""
    for path, node in edits.walk(tree):
        if path:
            torch.testing.assert_close(torch.tanh(node.u), node.action, atol=2e-6, rtol=0)
            c = model.config
            extent = c.extent[c.depth - node.level - 1]
            expected = affine(node.action, extent, c.rotation, c.shear, c.centre)
            torch.testing.assert_close(node.affine, expected)


def told(tree):
    """The paths of the programs that an image told something about."""
    return {path for path, node in edits.walk(tree) if node.kl is not None}


def below(tree, path):
    return {p for p, _ in edits.walk(tree) if p[: len(path)] == path}


def above(path):
    return {path[:i] for i in range(len(path))}


def test_move_changes_an_action_and_what_lies_above(model, tree):
    moved = edits.move(model, tree, LEAF, rotation=0.5, centre_x=-1)
    assert redrawn(tree, moved) == above(LEAF) | {LEAF}
    action = tree.at(LEAF).action.clone()
    action[:, 2], action[:, 4] = 0.5, -1
    node, c = moved.at(LEAF), model.config
    assert torch.equal(node.action, action)
    extent = c.extent[1]  # of the second level
    assert torch.equal(node.affine, affine(action, extent, c.rotation, c.shear, c.centre))
    assert_composed(moved)
    back = edits.move(model, moved, LEAF, rotation=tree.at(LEAF).action[0, 2].item(), centre_x=0.0)
    assert_composed(back)


def test_hide_and_show(tree):
    hidden = edits.hide(tree, PART)
    assert not hidden.placed[0].any()
    torch.testing.assert_close(hidden.canvas, sum(tree.placed[1:]))
    assert_equal(edits.hide(hidden, PART, hidden=False), tree)
    blank = edits.hide(edits.hide(tree, (0,)), (1,))
    assert not blank.cut(1).any()


def test_a_place_stays_hidden_whatever_is_put_there(model, tree, other):
    def hidden(tree):
        return {path for path, node in edits.walk(tree) if isinstance(node, edits.Hidden)}

    tree = edits.hide(edits.hide(tree, PART), LEAF)
    for edited in (
        edits.move(model, tree, PART, rotation=0.4),
        edits.resample(model, tree, PART, seed=5),
        edits.transplant(tree, PART, other.children[0]),
        edits.move(model, tree, (0, 1), shear=0.5),
    ):
        assert hidden(edited) == {PART, LEAF}
        assert_composed(edited)
    # What is hidden below a program goes with it, and what is drawn anew is all shown.
    assert hidden(edits.swap(tree, (0,), (1,))) == {PART, (0, 0)}
    assert hidden(edits.duplicate(model, tree, (1,))) == {PART, LEAF, (2, 0)}
    assert hidden(edits.duplicate(model, tree, PART)) == {PART, LEAF, (2,)}
    assert hidden(edits.resample(model, tree, (1,), seed=5)) == {PART}
    assert hidden(edits.resample(model, tree, (), seed=5)) == set()
    assert hidden(edits.transplant(other, LEAF, tree.at(LEAF))) == set()
    assert hidden(tree[:1]) == hidden(tree)


@pytest.mark.parametrize("path", [(), PART, LEAF])
def test_rewrite_runs_only_the_subtree(model, tree, other, path):
    z = other.at(path).z
    new = edits.rewrite(model, tree, path, z)
    assert redrawn(tree, new) == above(path) | below(tree, path)
    assert torch.equal(new.at(path).z, z)
    assert_composed(new)
    # What it says already leaves a tree as it is; in double, since float32's rounding adds up.
    exact = copy.deepcopy(model).double()
    tree = exact.decode(tree.z.double())
    same = edits.rewrite(exact, tree, path, tree.at(path).z)
    for a, b in zip(tensors(same), tensors(tree), strict=True):
        torch.testing.assert_close(a, b)


def test_steer_goes_along_a_direction_only(model, tree):
    direction, mean = torch.randn(8) * 0.3, torch.randn(8)
    other = torch.randn(8)
    other -= (other @ direction) / (direction @ direction) * direction
    ways = torch.stack([direction, other])
    before = edits.coordinates(tree.at(PART).z, ways, mean)
    steered = edits.steer(model, tree, PART, direction, 1.5, mean)
    after = edits.coordinates(steered.at(PART).z, ways, mean)
    torch.testing.assert_close(after[:, 0], torch.full((2,), 1.5))
    torch.testing.assert_close(after[:, 1], before[:, 1], atol=1e-4, rtol=1e-4)


def test_what_has_no_prior_is_resampled_where_it_is_from_another_tree(model, tree):
    tried = (PART, LEAF, (0,) * model.config.depth)
    for path in (path for path in tried if edits.drawn_from(model, tree, path) == "dream"):
        new = edits.resample(model, tree, path, seed=9, temperature=0.5)
        dream = model.sample(2, seed=9, temperature=0.5).at(path)
        node = new.at(path)
        assert torch.equal(node.z, dream.z)
        assert node.action is tree.at(path).action
        for a, b in zip(node.children, dream.children, strict=True):
            assert torch.equal(a.z, b.z)
        assert_composed(new)


def test_a_resampled_root_is_a_sample(model, tree):
    new = edits.resample(model, tree, (), seed=9, temperature=0.5)
    dream = model.sample(2, seed=9, temperature=0.5)
    for path, node in edits.walk(new):
        assert torch.equal(node.z, dream.at(path).z)
        assert torch.equal(node.canvas, dream.at(path).canvas)


def test_a_program_with_a_prior_is_drawn_from_it(chancy):
    tree = chancy.parse(torch.rand(2, 1, 16, 16))
    for path in (PART, (0, 1)):
        new = edits.resample(chancy, tree, path, seed=9)
        expected = chancy.resample(tree, path, seed=9)
        assert_equal(new, expected)
        assert redrawn(tree, new) == above(path) | below(tree, path)
        assert not torch.equal(new.at(path).action, tree.at(path).action)  # it is drawn as well
        assert told(new) == told(tree) - below(tree, path)
        assert_composed(new)
        assert_lies_where_u_says(chancy, new)
        assert_equal(edits.resample(chancy, tree, path, seed=9), new)
        other = edits.resample(chancy, tree, path, seed=10)
        assert not torch.equal(other.at(path).z, new.at(path).z)
        cold = edits.resample(chancy, tree, path, seed=9, temperature=0)
        node = cold.at(path)
        torch.testing.assert_close(node.z, node.prior.z.mean)
        torch.testing.assert_close(node.u, node.prior.u.mean)


def test_a_later_sibling_is_predicted_from_what_was_done_to_earlier_ones(chancy):
    tree, later = chancy.sample(2, seed=3), (1,)
    plain = edits.resample(chancy, tree, later, seed=9)
    for edited in (
        edits.move(chancy, tree, PART, centre_x=0.9, rotation=-0.8),
        edits.transplant(tree, PART, chancy.sample(2, seed=4).children[1]),
        edits.resample(chancy, tree, PART, seed=5),
    ):
        new = edits.resample(chancy, edited, later, seed=9)
        assert new.children[0] is edited.children[0]
        assert not torch.equal(new.at(later).prior.z.mean, plain.at(later).prior.z.mean)
    # What is hidden is predicted from all the same, and a copy has no turn to be predicted from.
    for edited in (edits.hide(tree, PART), edits.duplicate(chancy, tree, PART)):
        new = edits.resample(chancy, edited, later, seed=9)
        assert_equal(new.at(later), plain.at(later))


def test_what_a_program_is_drawn_from(chancy):
    tree = chancy.sample(2, seed=3)
    twice = edits.duplicate(chancy, edits.duplicate(chancy, tree, (0, 1)), PART)
    part = chancy.decode(tree.children[0].z, level=2)
    paper = make((2, 3, 2), "root")
    for model, found, path, source in (
        (chancy, tree, (), "root"),
        (chancy, tree, (0,), "parent"),
        (chancy, tree, (0, 2), "parent"),
        (chancy, tree, (0, 2, 1), "dream"),
        (chancy, twice, (2,), "dream"),
        (chancy, twice, (0, 3), "dream"),
        (chancy, twice, (2, 1), "parent"),
        (chancy, part, (), "dream"),
        (chancy, part, (2,), "parent"),
        (chancy, part, (2, 1), "dream"),
        (paper, paper.sample(2), (), "root"),
        (paper, paper.sample(2), (0,), "dream"),
    ):
        assert edits.drawn_from(model, found, path) == source
        new = edits.resample(model, found, path, seed=9)
        assert not torch.equal(new.at(path).z, found.at(path).z)
        assert redrawn(found, new) == above(path) | below(new, path)
        if source == "dream" and path:
            assert new.at(path).affine is found.at(path).affine
        assert_composed(new)
        assert_lies_where_u_says(model, new)


def test_the_tree_of_a_part_is_resampled_at_every_level(chancy):
    part = chancy.decode(chancy.sample(2, seed=3).children[0].z, level=2)
    new = edits.resample(chancy, part, (), seed=9)
    dream = chancy.sample(2, seed=9).children[0]
    for path, node in edits.walk(dream):
        assert torch.equal(new.at(path).z, node.z)
    for name in ("action", "affine", "u", "patch"):
        assert getattr(new, name) is None  # as of any root
    assert_equal(ProgramTree.from_json(new.to_json()), new)


def test_edits_leave_u_and_what_the_image_told_in_order(chancy):
    tree, other = (chancy.parse(torch.rand(2, 1, 16, 16)) for _ in range(2))
    assert told(tree) == {path for path, node in edits.walk(tree) if node.children}
    part, sub = below(tree, PART), (0, 1)
    for edited, silent in (
        (edits.move(chancy, tree, PART, scale_x=1, rotation=-1, shear=0.25), {PART}),
        (edits.move(chancy, tree, sub, centre_y=0.5), {sub}),
        (edits.hide(tree, PART), set()),
        (edits.rewrite(chancy, tree, PART, other.at(PART).z), part),
        (edits.transplant(tree, PART, other.at(PART)), part),
        (edits.swap(tree, PART, (1,)), part | below(tree, (1,))),
        (edits.duplicate(chancy, tree, PART), set()),
        (edits.resample(chancy, tree, sub, seed=1), {sub}),
        (edits.resample(chancy, tree, (), seed=1), told(tree)),
    ):
        assert told(edited) == told(tree) - silent
        assert_composed(edited)
        assert_lies_where_u_says(chancy, edited)
        for path, node in edits.walk(edited):
            assert (node.posterior is None) == (path not in told(edited))
        assert_equal(ProgramTree.from_json(edited.to_json()), edited)


def test_a_copy_is_drawn_beside_the_original(model, tree):
    twice = edits.duplicate(model, tree, PART)
    assert len(twice.children) == 3
    copy = twice.children[2]
    assert copy.canvas is tree.children[0].canvas
    assert not torch.equal(copy.action, tree.children[0].action)
    assert_composed(twice)
    assert_composed(edits.resample(model, twice, (2, 0), seed=1))


def test_swap_and_transplant_exchange_what_is_drawn_not_where(tree, other):
    swapped = edits.swap(tree, (0,), (1,))
    for t in (0, 1):
        assert swapped.children[t].canvas is tree.children[1 - t].canvas
        assert swapped.children[t].affine is tree.children[t].affine
    assert_equal(edits.swap(swapped, (0,), (1,)), tree)
    new = edits.transplant(tree, LEAF, other.at((0, 1)))
    assert new.at(LEAF).canvas is other.at((0, 1)).canvas
    assert new.at(LEAF).affine is tree.at(LEAF).affine
    for edited in (swapped, new):
        assert_composed(edited)


def test_what_cannot_be_done_is_one_sentence(model, tree):
    impossible = [
        (lambda: tree.at((7,)), r"no program at \(7,\)"),
        (lambda: tree.at((-1,)), r"no program at \(-1,\)"),
        (lambda: edits.hide(tree, ()), "root lies in no other program"),
        (lambda: edits.move(model, tree, (), rotation=0), "root lies in no other"),
        (lambda: edits.move(model, tree, PART, size=0), "got 'size'"),
        (lambda: edits.move(model, tree, PART, shear=1.5), "shear must be from -1 to 1"),
        (lambda: edits.move(model, tree, PART, shear=float("nan")), "shear must be"),
        (lambda: edits.swap(tree, PART, PART), "with itself"),
        (lambda: edits.swap(tree, PART, LEAF), "one level"),
        (lambda: edits.transplant(tree, PART, model.sample(1).children[0]), "different"),
    ]
    for call, words in impossible:
        with pytest.raises(ValueError, match=words):
            call()


# Trees as JSON


def test_json_round_trip_is_exact(model, tree, other):
    edited = edits.hide(edits.move(model, tree, LEAF, rotation=0.123), PART)
    edited = edits.duplicate(model, edits.transplant(edited, (1,), other.children[0]), (1,))
    for original in (tree, edited, tree.children[0], model.parse(torch.rand(2, 1, 16, 16))):
        copy = ProgramTree.from_json(original.to_json())
        assert_equal(copy, original)
        assert copy.to_json() == original.to_json()


def test_json_of_a_tree_with_a_hidden_program_is_of_the_same_picture(tree):
    hidden = edits.hide(tree, PART)
    plain = json.loads(tree.to_json())
    assert not plain["tree"]["children"][0]["hidden"]
    plain["tree"]["children"][0]["hidden"] = True
    assert json.dumps(plain) == hidden.to_json()
    assert_equal(ProgramTree.from_json(hidden.to_json()), hidden)


def test_json_that_is_no_tree_is_refused_in_one_sentence(tree):
    plain = json.loads(tree.to_json())
    child = plain["tree"]["children"][0]
    for text in (
        "",
        "[]",
        "{}",
        "3",
        json.dumps(plain | {"format": "rnp-tree-0"}),
        json.dumps(plain | {"tree": plain["tree"] | {"side": 10**9}}),
        json.dumps(plain | {"tree": plain["tree"] | {"z": [["a"]]}}),
        json.dumps(plain | {"tree": plain["tree"] | {"z": [1.0, 2.0]}}),
        json.dumps(plain | {"tree": plain["tree"] | {"children": [child | {"affine": [[1]]}]}}),
        json.dumps(plain | {"tree": plain["tree"] | {"children": [child, 4]}}),
        "[" * 100_000,
    ):
        with pytest.raises(ValueError, match=r"^this is no tree that `to_json` wrote \(.*\)\.$"):
            ProgramTree.from_json(text)
    tree.z[0, 0] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        tree.to_json()
