"""The model: one recursion, compared with a slow one, and what a ProgramTree promises."""

import copy
import dataclasses
import re

import numpy as np
import pytest
import slow_reference as slow
import torch

from rnp_lib.model import build
from rnp_lib.model.encoder import ENCODERS, MatrixConv2d
from rnp_lib.model.hypernet import E_DIM, HyperNetwork
from rnp_lib.model.rnp import RNP
from rnp_lib.model.transforms import place
from rnp_lib.model.tree import ProgramTree

TAUS = {1: (3,), 2: (2, 3), 3: (2, 3, 1)}
PAPER_LIKE = dict(
    hypernet="full",
    normalise=False,
    step_vector=False,
    state_activation="elu",
    patch_activation="relu",
    action_activation="sin",
    encoder="resnet",
)
FEEDBACKS = ("child", "own", "none")
WITH_FEEDBACK = pytest.mark.parametrize("feedback", FEEDBACKS)
DEPTHS = pytest.mark.parametrize("k", [1, 2, 3])


def make(k=2, dtype=torch.float64, **changes):
    """A small model of k levels; everything in it is random, what starts at zero too."""
    extent = [(0.3 + 0.1 * i, 0.5 + 0.1 * i) for i in range(k)]
    settings = dict(tau=TAUS[k], extent=extent) | changes
    model = RNP(dataclasses.replace(slow.SMALL, **settings)).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.hypernet.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for module in model.encoder.modules():
            if isinstance(module, MatrixConv2d):
                module.weight += 0.1 * torch.randn_like(module.weight)
    return model


def programs(n, dtype=torch.float64):
    return torch.randn(n, 5, dtype=dtype)


def pictures(n, dtype=torch.float64):
    return torch.rand(n, 1, 12, 12, dtype=dtype)


def nodes(tree):
    """Every program of a tree, parents first."""
    return [tree, *(node for child in tree.children for node in nodes(child))]


def tensors(tree):
    found = []
    tree.map(lambda tensor: found.append(tensor) or tensor)
    return found


def assert_same(first, second, **tolerance):
    assert len(tensors(first)) == len(tensors(second))
    for a, b in zip(tensors(first), tensors(second), strict=True):
        torch.testing.assert_close(a, b, **tolerance)


# The recursion


def assert_node(tree, node, b):
    """Image b of a ProgramTree is the slow tree `node`, to 1e-10, in every field."""
    for name in ("z", "canvas", "action", "affine", "patch"):
        value, expected = getattr(tree, name), getattr(node, name)
        if expected is None:
            assert value is None, name
        else:
            value = value[b, 0] if name in ("canvas", "patch") else value[b]
            np.testing.assert_allclose(
                value.detach(), expected, rtol=1e-10, atol=1e-10, err_msg=name
            )
    assert len(tree.children) == len(tree.placed) == len(node.children) == len(node.placed)
    for picture, expected in zip(tree.placed, node.placed, strict=True):
        np.testing.assert_allclose(picture[b, 0].detach(), expected, rtol=1e-10, atol=1e-10)
    for child, expected in zip(tree.children, node.children, strict=True):
        assert_node(child, expected, b)


@WITH_FEEDBACK
@pytest.mark.parametrize("style", [{}, PAPER_LIKE], ids=["ours", "paper"])
@pytest.mark.parametrize(("k", "until"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
def test_unroll_against_one_program_and_one_step_at_a_time(k, until, style, feedback):
    model = make(k, feedback=feedback, **style)
    z = programs(2)
    tree = model.unroll(z, k, until)
    assert tree.level == k - until
    for b in range(2):
        expected = slow.unroll(model, z[b].numpy(), k, until)
        assert_node(tree, expected, b)
        for steps in range(1, tree.level + 1):
            picture = tree.cut(tree.level - steps)[b, 0].detach()
            np.testing.assert_allclose(picture, slow.cut(expected, steps), atol=1e-10)


@WITH_FEEDBACK
@pytest.mark.parametrize("level", [1, 2])
def test_a_lower_level_against_the_slow_one(level, feedback):
    model = make(3, feedback=feedback)
    z = programs(2)
    tree = model.decode(z, level=level)
    assert tree.level == level
    assert tree.canvas.shape == (2, 1, 8, 8)
    for b in range(2):
        assert_node(tree, slow.unroll(model, z[b].numpy(), level), b)


@DEPTHS
@WITH_FEEDBACK
def test_shapes(k, feedback):
    tree = make(k, feedback=feedback).decode(programs(4))
    assert tree.level == k
    assert len(tree) == 4
    assert tree.action is tree.affine is tree.patch is None
    for level in range(k + 1):
        row = list(tree.programs(level))
        assert len(row) == np.prod(TAUS[k][: k - level], dtype=int)
        side = 12 if level == k else 8
        for node in row:
            assert node.level == level
            assert node.z.shape == (4, 5)
            assert node.canvas.shape == (4, 1, side, side)
            steps = TAUS[k][k - level] if level else 0
            assert len(node.children) == len(node.placed) == steps
            if level:
                assert node.parts.shape == (4, steps, 1, side, side)
            else:
                assert node.parts is None
                assert torch.equal(node.canvas, node.patch)
            if level < k:
                assert node.action.shape == (4, 6)
                assert node.affine.shape == (4, 2, 3)
                assert node.patch.shape == (4, 1, 8, 8)


@DEPTHS
@WITH_FEEDBACK
def test_a_canvas_is_the_sum_of_its_placed_children(k, feedback):
    tree = make(k, feedback=feedback).decode(programs(3))
    for node in nodes(tree):
        if node.children:
            torch.testing.assert_close(node.canvas, sum(node.placed))
        for child, placed in zip(node.children, node.placed, strict=True):
            drawn = place(child.canvas, child.affine, node.canvas.shape[-1])
            torch.testing.assert_close(placed, drawn)


@DEPTHS
@WITH_FEEDBACK
def test_a_child_decoded_on_its_own_is_the_same_subtree(k, feedback):
    model = make(k, feedback=feedback)
    tree = model.decode(programs(3))
    for level in range(1, k):
        for node in tree.programs(level):
            again = model.decode(node.z, level=level)
            own = dataclasses.replace(node, action=None, affine=None, patch=None, u=None)
            assert_same(own, again)


@DEPTHS
def test_windows_are_inside_their_level_s_range(k):
    model = make(k)
    tree = model.decode(2 * programs(50))
    for level in range(k):
        low, high = model.config.extent[k - 1 - level]
        for node in tree.programs(level):
            assert node.action.abs().max() <= 1
            width, height = node.affine[..., :2].norm(dim=-2).unbind(-1)
            area = torch.linalg.det(node.affine[..., :2])
            assert low <= width.min()
            assert width.max() <= high
            assert height.max() <= high * (1 + model.config.shear**2) ** 0.5
            assert low**2 <= area.min()
            assert area.max() <= high**2
            assert max(width.max(), height.max()) < 1
            assert node.affine[..., 2].abs().max() <= model.config.centre


# Cutting the tree


@DEPTHS
@WITH_FEEDBACK
def test_cut(k, feedback):
    tree = make(k, feedback=feedback).decode(programs(3))
    torch.testing.assert_close(tree.cut(0), tree.canvas)
    parts = sum(place(c.patch, c.affine, 12) for c in tree.children)
    torch.testing.assert_close(tree.cut(k - 1), parts)
    for child in tree.children:
        assert torch.equal(child.cut(k - 1), child.patch)
        torch.testing.assert_close(child.cut(0), child.canvas)
    pictures = [tree.cut(level) for level in range(k)]
    for first, second in zip(pictures, pictures[1:], strict=False):
        assert not torch.allclose(first, second)


@pytest.mark.parametrize("feedback", ["own", "none"])
def test_without_the_child_s_feedback_cutting_is_unrolling_less(feedback):
    model = make(3, feedback=feedback)
    z = programs(3)
    tree = model.decode(z)
    for until in (1, 2):
        less = model.unroll(z, 3, until)
        assert less.level == 3 - until
        torch.testing.assert_close(less.canvas, tree.cut(until))


def test_the_child_s_feedback_is_its_patch_where_the_tree_is_cut():
    child, own = (make(2, feedback=feedback) for feedback in ("child", "own"))
    own.load_state_dict(child.state_dict())
    z = programs(3)
    assert_same(child.unroll(z, 2, 1), own.unroll(z, 2, 1))
    deep = [model.decode(z) for model in (child, own)]
    first, later = ([tree.children[t].action for tree in deep] for t in (0, 1))
    torch.testing.assert_close(*first)  # step 1 sees x_0 in both
    assert not torch.allclose(*later)


# What feeds back into what


class Meddler(RNP):
    """Replaces the program of one child of the root, after the child was called."""

    meddle = None

    def unroll(self, z, level, until=0, guide=None):
        if level == self.config.depth - 1:
            self.calls += 1
            if self.calls == self.meddle:
                z = z + 1.0
        return super().unroll(z, level, until, guide)

    def run(self, z, meddle=None):
        self.calls, self.meddle = 0, meddle
        return self.decode(z)


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_a_child_s_program_influences_later_steps_only(t):
    model = Meddler(dataclasses.replace(slow.SMALL, tau=(4, 2))).double()
    z = programs(3)
    before, after = model.run(z), model.run(z, meddle=t)
    assert model.calls == 4
    for step, (a, b) in enumerate(zip(before.children, after.children, strict=True), start=1):
        same = [torch.allclose(getattr(a, n), getattr(b, n)) for n in ("action", "patch")]
        assert same == [step <= t] * 2, step
        assert torch.allclose(a.canvas, b.canvas) == (step < t), step


@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_gradients_run_through_the_feedback(feedback):
    tree = make(2, tau=(3, 2), feedback=feedback).unroll(programs(2).requires_grad_(), 2)
    for t, child in enumerate(tree.children):
        for later, other in enumerate(tree.children):
            (gradient,) = torch.autograd.grad(
                other.action.sum(), child.canvas, retain_graph=True, allow_unused=True
            )
            felt = gradient is not None and bool(gradient.any())
            assert felt == (feedback == "child" and later > t)


def test_without_feedback_a_step_still_sees_the_action_before_it():
    models = {feedback: make(2, feedback=feedback) for feedback in FEEDBACKS}
    assert set(models["child"].state_dict()) == set(models["own"].state_dict())
    only_seen = {"patch_0", "encode_x"}  # what a picture is needed for
    used = {
        feedback: {part for name in model.state_dict() for part in name.split(".")}
        for feedback, model in models.items()
    }
    assert only_seen <= used["own"]
    assert not only_seen & used["none"]
    z = programs(2)
    before = models["none"].decode(z).children
    with torch.no_grad():
        models["none"].hypernet.layers["encode_a"].head.weight.mul_(2)
    after = models["none"].decode(z).children
    assert not torch.allclose(before[1].z, after[1].z)


def test_the_step_vector_is_one_per_step():
    model = make(2, tau=(2, 3))
    assert model.step.shape == (3, E_DIM)
    z = programs(2)
    before = model.decode(z)
    with torch.no_grad():
        model.step[2] += 1
    after = model.decode(z)
    # Only the third step of the lower level uses it, and what sees that step's canvas.
    first = [tree.children[0] for tree in (before, after)]
    torch.testing.assert_close(first[0].action, first[1].action)
    assert torch.allclose(first[0].children[1].z, first[1].children[1].z)
    assert not torch.allclose(first[0].children[2].z, first[1].children[2].z)
    assert not torch.allclose(before.children[1].z, after.children[1].z)  # by feedback


# The whole model


@pytest.mark.parametrize("hypernet", ["full", "factorised"])
def test_one_hypernetwork_for_any_depth(hypernet):
    sizes = set()
    for tau in ((3,), (3, 3), (3, 3, 3)):
        model = RNP(dataclasses.replace(slow.SMALL, tau=tau, extent=(0.3, 0.6), hypernet=hypernet))
        assert sum(isinstance(m, HyperNetwork) for m in model.modules()) == 1
        sizes.add(sum(p.numel() for p in model.parameters()))
    assert len(sizes) == 1
    without = dataclasses.replace(slow.SMALL, tau=(3, 5), extent=(0.3, 0.6), step_vector=False)
    assert RNP(without).step.numel() == 0


def test_a_hypernetwork_for_each_level_is_used_at_its_level_alone():
    changes = dict(tau=(3, 3), extent=(0.3, 0.6), feedback="none", hypernets="levels")
    config = dataclasses.replace(slow.SMALL, **changes)
    model, one = RNP(config), RNP(dataclasses.replace(config, hypernets="one"))
    assert sum(isinstance(m, HyperNetwork) for m in model.modules()) == 2
    weights = one.state_dict()
    split = {}
    for name, value in weights.items():
        rest = name.removeprefix("hypernet.")
        names = [name] if rest == name else [f"hypernet.{i}.{rest}" for i in range(2)]
        split |= dict.fromkeys(names, value)
    model.load_state_dict(split)
    z = torch.randn(2, config.z_dim)
    before = model.decode(z)
    assert_same(before, one.decode(z))
    with torch.no_grad():
        model.network(1).patch_bias += 1
    after = model.decode(z)
    for old, new in zip(before.children, after.children, strict=True):
        torch.testing.assert_close(old.patch, new.patch)
        assert (old.children[0].patch != new.children[0].patch).all()


@pytest.mark.parametrize("kind", ["rnp", "vae", "hvae"])
def test_a_seed_makes_the_weights_and_leaves_the_generator_alone(kind):
    changes = {"posterior": "tree", "feedback": "none"} if kind == "hvae" else {}
    config = dataclasses.replace(slow.SMALL, model=kind, **changes)
    torch.manual_seed(5)
    expected = build(config).state_dict()
    state = torch.get_rng_state()
    found = build(config, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)
    other = build(config).state_dict()
    assert not torch.equal(torch.get_rng_state(), state), "without a seed the generator is used"
    assert any(not torch.equal(other[name], found[name]) for name in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_parse_is_the_tree_of_the_posterior_mean(dtype):
    model = make(2, dtype)
    x = pictures(3, dtype)
    q = model.encode(x)
    mean, log_std = model.encoder(x).chunk(2, -1)
    assert isinstance(q, torch.distributions.Normal)
    assert q.batch_shape == (3, 5)
    torch.testing.assert_close(q.mean, mean)
    torch.testing.assert_close(q.scale, log_std.exp())
    tree = model.parse(x)
    torch.testing.assert_close(tree.z, mean)
    torch.testing.assert_close(tree.posterior.z.mean, q.mean)
    torch.testing.assert_close(tree.posterior.z.scale, q.scale)
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    torch.testing.assert_close(tree.prior.z.mean, prior.mean)
    torch.testing.assert_close(tree.prior.z.scale, prior.scale)
    torch.testing.assert_close(tree.kl, torch.distributions.kl_divergence(q, prior).sum(1))
    assert tree.posterior.u is tree.prior.u is None
    # All others follow from it.
    assert all(n.prior is n.posterior is n.kl is None for n in nodes(tree)[1:])
    torch.testing.assert_close(tree.nats, tree.kl)
    assert_same(dataclasses.replace(tree, prior=None, posterior=None, kl=None), model.decode(mean))


def test_the_posterior_survives_extreme_outputs():
    model = make(1, torch.float32)
    with torch.no_grad():
        model.encoder[-1].bias[5:] = torch.tensor([1e4, -1e4, 50, -50, 0])
    scale = model.encode(pictures(2, torch.float32)).scale
    assert scale.isfinite().all()
    assert (scale > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sample_is_the_prior_and_repeats_itself(dtype):
    model = make(2, dtype)
    state = torch.get_rng_state()
    tree = model.sample(4)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert len(tree) == 4
    assert_same(tree, model.sample(4, seed=0), rtol=0, atol=0)
    assert_same(tree, model.decode(tree.z))
    assert not torch.allclose(tree.z, model.sample(4, seed=1).z)
    z = model.sample(2000).z
    assert z.mean(0).abs().max() < 0.1
    assert (z.std(0) - 1).abs().max() < 0.1


@WITH_FEEDBACK
def test_programs_are_decoded_whatever_stands_beside_them(feedback):
    model = make(3, feedback=feedback)
    z = programs(4)
    tree = model.decode(z)
    for b in range(4):
        assert_same(tree[b : b + 1], model.decode(z[b : b + 1]))


@pytest.mark.parametrize("encoder", list(ENCODERS))
@pytest.mark.parametrize("feedback", FEEDBACKS)
def test_images_are_parsed_whatever_stands_beside_them(encoder, feedback):
    model = make(2, encoder=encoder, feedback=feedback)
    x = pictures(4)
    tree = model.parse(x)
    for b in range(4):
        assert_same(tree[b : b + 1], model.parse(x[b : b + 1]))


def test_gradients_reach_every_parameter():
    for feedback in FEEDBACKS:
        model = make(2, torch.float32, tau=(2, 3), feedback=feedback)
        model.infer(pictures(4, torch.float32)).canvas.square().sum().backward()
        idle = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
        # The mean alone is decoded here, so of the last layer only the rows of σ get nothing.
        assert idle == set()
        assert not model.encoder[-1].weight.grad[5:].any()


@pytest.mark.parametrize(
    "shape", [(12, 12), (1, 12, 12), (2, 12, 12), (2, 3, 12, 12), (2, 1, 12, 8), (2, 1, 28, 28)]
)
def test_images_of_another_shape_are_refused(shape):
    model = make(2, torch.float32)
    for use in (model.encode, model.parse):
        with pytest.raises(ValueError, match=r"\(B, 1, 12, 12\).*got .*12|got .*28"):
            use(torch.rand(shape))


@pytest.mark.parametrize("shape", [(5,), (2, 4), (2, 1, 5)])
def test_programs_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"z must be \(B, 5\): got"):
        make(2).decode(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("level", [0, 3, -1])
def test_levels_that_do_not_exist_are_refused(level):
    with pytest.raises(ValueError, match=f"level must be from 1 to 2: got {level}"):
        make(2).decode(programs(2), level=level)


@pytest.mark.parametrize("until", [-1, 2])
def test_levels_to_cut_at_that_do_not_exist_are_refused(until):
    with pytest.raises(ValueError, match=f"until must be from 0 to 1: got {until}"):
        make(2).unroll(programs(2), 2, until)


# The tree as a container


def test_a_slice_of_a_tree():
    tree = make(3).decode(programs(5))
    for index in (slice(1, 3), torch.tensor([4, 0]), torch.tensor([False, True] * 2 + [True])):
        part = tree[index]
        assert isinstance(part, ProgramTree)
        assert len(part) == len(tree.z[index])
        for whole, taken in zip(tensors(tree), tensors(part), strict=True):
            assert torch.equal(whole[index], taken)
        assert part.level == 3
        assert part.patch is None
    for index in (0, [0, 1]):
        with pytest.raises(TypeError, match="slice or a tensor"):
            tree[index]


def test_map_leaves_the_tree_as_it_was():
    tree = make(2).decode(programs(2))
    before = [tensor.clone() for tensor in tensors(tree)]
    halved = tree.map(lambda tensor: tensor.detach() / 2)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors(tree), strict=True))
    assert all(torch.equal(a / 2, b) for a, b in zip(before, tensors(halved), strict=True))
    # z, canvas, six fields of each node but the root's two, and the parts of three programs
    assert len(before) == 2 + 8 * 6 + 3


def test_programs_of_a_level_are_in_drawing_order():
    tree = make(3).decode(programs(1))
    assert [id(node) for node in tree.programs(3)] == [id(tree)]
    assert [id(n) for n in tree.programs(2)] == [id(child) for child in tree.children]
    expected = [id(n) for child in tree.children for n in child.children]
    assert [id(n) for n in tree.programs(1)] == expected
    assert list(tree.programs(4)) == []


# ---- what users give, and what they get ----------------------------------------------------------


def test_images_may_be_of_any_kind_that_says_what_white_is():
    model = make(2, torch.float32)
    whole = (255 * pictures(3, torch.float32)).round()
    expected = model.parse(whole / 255).canvas
    for x in (whole.byte(), whole.byte().numpy(), whole.double() / 255, whole.numpy() / 255):
        torch.testing.assert_close(model.parse(x).canvas, expected)
        assert torch.equal(model.encode(x).mean, model.encode(whole / 255).mean)
    assert len(model.parse(whole[:0])) == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: 255 * x, "numbers from 0 to 255; divide"),
        (lambda x: x - 1, "numbers from -1 to 0"),
        (lambda x: x.clone().index_fill_(0, torch.tensor([1]), torch.nan), "nan"),
        (lambda x: torch.where(x == 1, torch.inf, x), "numbers from 0 to inf"),
        (lambda x: x.long(), "floating point or uint8: got torch.int64"),
        (lambda x: x[0], "must be (B, 1, 12, 12)"),
        (lambda x: x.numpy()[..., :5], "must be (B, 1, 12, 12)"),
    ],
)
def test_other_images_are_refused_in_one_sentence(change, said):
    model = make(2, torch.float32)
    x = pictures(3, torch.float32)
    x[0, 0, 0, :2] = torch.tensor([0.0, 1.0])
    for door in (model.parse, model.encode):
        with pytest.raises(ValueError, match=re.escape(said)) as caught:
            door(change(x))
        assert "\n" not in str(caught.value)
        assert str(caught.value).endswith(".")


def test_no_gradients_are_kept_unless_asked_for():
    model, x = make(2, torch.float32), pictures(2, torch.float32)
    tree = model.parse(x)
    found = [tree.canvas, model.encode(x).mean, model.decode(tree.z).canvas]
    found += [model.sample(1).canvas, model.sample(2).parts]
    assert not any(tensor.requires_grad for tensor in found)
    found[0].numpy()  # as matplotlib does
    assert torch.equal(copy.deepcopy(tree).canvas, tree.canvas)
    assert model.infer(x).canvas.requires_grad


def test_a_tree_is_one_readable_line_a_level_and_a_picture():
    tree = make(2, torch.float32, tau=(2, 3)).sample(4)
    first, *levels = repr(tree).splitlines()
    assert first == "ProgramTree of 4 images, 2 levels below the root's"
    assert [line.split(":")[0] for line in levels] == ["  level 2", "  level 1", "  level 0"]
    assert [line.split()[2] for line in levels] == ["1", "2", "6"]
    assert levels[0].endswith("canvas 12×12")
    assert tree._repr_png_().startswith(b"\x89PNG")
