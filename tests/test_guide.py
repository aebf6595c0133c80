"""Trees of random programs, inferred, sampled, given and drawn anew, beside a slow version."""

import dataclasses

import numpy as np
import pytest
import slow_reference as slow
import tiny
import torch
from torch.distributions import Normal

from rnp_lib.model.chance import Mixture, kl
from rnp_lib.model.guide import Given, Guide, Reading
from rnp_lib.model.objective import terms
from rnp_lib.model.transforms import affine, place, zoom

TAUS = {2: (3, 2), 3: (2, 3, 1)}
PRIORS = ("prediction", "symbols", "both")
ANY_PRIOR = pytest.mark.parametrize("prior_z", PRIORS)
DEPTHS = pytest.mark.parametrize("k", [2, 3])


def make(k=2, dtype=torch.float64, **changes):
    extent = [(0.3 + 0.1 * i, 0.5 + 0.1 * i) for i in range(k)]
    settings = dict(tau=TAUS[k], extent=extent) | changes
    return tiny.disturbed(dataclasses.replace(slow.TREE, **settings), dtype).requires_grad_(False)


def pictures(n, channels=1):
    return torch.rand(n, channels, 12, 12, dtype=torch.float64)


def below(tree, level=1):
    """The programs of a tree below its root that are drawn, by level from the top."""
    return [list(tree.programs(n)) for n in range(tree.level - 1, level - 1, -1)]


def values(tree):
    """z and u of all programs below the root that are drawn, as `Given` wants them."""
    return [
        tuple(torch.stack([getattr(node, name) for node in row], 1) for name in ("z", "u"))
        for row in below(tree)
    ]


def tensors(tree):
    found = []
    tree.map(lambda tensor: found.append(tensor) or tensor)
    return found


def assert_same(first, second, exact=True):
    for a, b in zip(tensors(first), tensors(second), strict=True):
        torch.testing.assert_close(a, b, **(dict(rtol=0, atol=0) if exact else {}))


# Against a slow version


def assert_close(found, expected, name):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9, err_msg=name)


def assert_chance(found, expected, b, mixed):
    """Image b of a distribution is a slow one."""
    if mixed:
        assert isinstance(found, Mixture)
        assert found.log_weights.shape[1] == len(expected)
        for m, (weight, part) in enumerate(expected):
            assert_close(found.log_weights[b, m].exp(), weight, "weight")
            assert_close(found.mean[b, m], part.mean, "mean of a part")
            assert_close(found.scale[b, m], part.std, "std of a part")
    else:
        assert isinstance(found, Normal)
        expected = expected.part() if isinstance(expected, slow.Mixed) else expected
        assert_close(found.mean[b], expected.mean, "mean")
        assert_close(found.scale[b], expected.std, "std")


def assert_node(tree, node, b, mixed, seen=True):
    """Image b of a ProgramTree is the slow tree `node`, in every field."""
    for name in ("z", "canvas", "action", "affine", "patch", "u"):
        value, expected = getattr(tree, name), getattr(node, name)
        assert (value is None) == (expected is None), name
        if value is not None:
            value = value[b].squeeze(0) if name in ("canvas", "patch") else value[b]
            assert_close(value, expected, name)
    drawn = tree.prior is not None
    root = tree.action is None
    assert drawn == (node.prior is not None)
    if drawn:
        assert_chance(tree.prior.z, node.prior[0], b, mixed and not root)
    if drawn and not root:
        assert_chance(tree.prior.u, node.prior[1], b, False)
    if node.kl is not None:
        assert_close(tree.kl[b], node.kl, "kl")
        assert_chance(tree.posterior.z, node.posterior[0], b, False)
        if not root:
            assert_chance(tree.posterior.u, node.posterior[1], b, False)
    elif seen:
        assert tree.kl is tree.posterior is None
    elif drawn:
        assert tree.kl[b] == 0
    assert len(tree.children) == len(node.children)
    for child, expected in zip(tree.children, node.children, strict=True):
        assert_node(child, expected, b, mixed, seen)


def every(node):
    return [node, *(below for child in node.children for below in every(child))]


@ANY_PRIOR
@pytest.mark.parametrize(("k", "until"), [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("noisy", [True, False], ids=["draws", "means"])
def test_infer_against_one_program_and_one_step_at_a_time(k, until, prior_z, noisy):
    model, x = make(k, prior_z=prior_z), pictures(3)
    noise = torch.randn(3, model.config.noise, dtype=torch.float64) if noisy else None
    seen = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    tree = model.infer(x, noise, until, seen)
    mixed = prior_z != "prediction"
    for b in range(3):
        one = None if noise is None else noise[b].numpy()
        node = slow.infer(model, x[b, 0].numpy(), one, bool(seen[b]), until)
        assert_node(tree, node, b, mixed, bool(seen[b]))
        nats = sum(n.kl for n in every(node) if n.kl is not None)
        assert_close(tree.nats[b], nats, "nats")
        assert (sum(n.kl is not None for n in every(node)) > 1) == bool(seen[b])
    everything = model.infer(x, noise, until)
    assert_same(everything[:1], tree[:1], exact=False)
    assert not torch.allclose(everything.canvas[1], tree.canvas[1])


@pytest.mark.parametrize(
    "style",
    [
        dict(feedback="own"),
        dict(hypernet="full", normalise=False, state_activation="elu", patch_activation="relu"),
        dict(action_activation="sin", step_vector=False, feedback="own", prior_z="both"),
        dict(reader_without="merging"),
        dict(reader_without="merging", prior_z="both"),
        dict(reader_without="residual"),
        dict(reader_without="sharing"),
        dict(channels=3),
        dict(channels=3, feedback="own", tau=(3, 2, 2), extent=(0.3, 0.6)),
        dict(channels=3, posterior="root", feedback="child"),
    ],
    ids=[
        *("own", "full", "sin", "merging", "merging with symbols", "residual", "sharing"),
        *("colour", "deep and in colour", "all from the root, in colour"),
    ],
)
def test_infer_of_other_architectures_against_the_slow_one(style):
    model, x = make(**style), pictures(2, style.get("channels", 1))
    noise = torch.randn(2, model.config.noise, dtype=torch.float64)
    tree = model.infer(x, noise)
    for b in range(2):
        node = slow.infer(model, x[b].squeeze(0).numpy(), noise[b].numpy())
        assert_node(tree, node, b, "prior_z" in style)
        for level in range(tree.level):
            picture = slow.cut(node, tree.level - level)
            assert_close(tree.cut(level)[b].squeeze(0), picture, "cut")


def test_what_is_drawn_in_colour_is_drawn_on_paper():
    model = make(channels=3)
    tree = model.decode(torch.randn(2, 5, dtype=torch.float64))
    assert tree.paper.shape == (2, 3, 1, 1)
    torch.testing.assert_close(tree.canvas - tree.paper, tree.parts.sum(1))
    assert (tree.children[0].patch < 0).any(), "ink may be darker than its paper"
    assert all(node.paper is None for node in tree.programs(1))
    again = tree.put((1,), tree.at((1,)))
    torch.testing.assert_close(again.canvas, tree.canvas)
    read = type(tree).from_json(tree.map(torch.Tensor.float).to_json())
    assert_same(read, tree.map(torch.Tensor.float), exact=False)
    assert make().decode(torch.randn(2, 5, dtype=torch.float64)).paper is None


@ANY_PRIOR
@DEPTHS
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_sample_draws_every_level_as_the_slow_one(k, prior_z, temperature):
    model = make(k, prior_z=prior_z)
    noise = model.noise(2, seed=3, temperature=temperature)
    assert noise.shape == (2, model.config.noise)
    assert noise.dtype == torch.float64
    tree = model.sample(2, seed=3, temperature=temperature)
    for b in range(2):
        root, others = slow.split(model.config, noise[b].numpy())
        node = slow.unroll(model, root, chooser=slow.Chooser(model, others))
        assert_node(tree, node, b, prior_z != "prediction")


@ANY_PRIOR
@pytest.mark.parametrize(("k", "level"), [(2, 2), (2, 1), (3, 3), (3, 2)])
def test_decode_is_what_the_slow_prior_expects(k, level, prior_z):
    model = make(k, prior_z=prior_z)
    z = torch.randn(2, 5, dtype=torch.float64)
    tree = model.decode(z, level)
    for b in range(2):
        assert_node(tree, slow.unroll(model, z[b].numpy(), level), b, prior_z != "prediction")


# What is seen


@ANY_PRIOR
@DEPTHS
def test_where_nothing_is_seen_programs_keep_their_prior(k, prior_z):
    model, x = make(k, prior_z=prior_z), pictures(4)
    blind = torch.zeros(4, dtype=torch.float64)
    means = model.infer(x, seen=blind)
    decoded = model.decode(model.encode(x).mean)
    for found, expected in zip(below(means), below(decoded), strict=True):
        for node, other in zip(found, expected, strict=True):
            torch.testing.assert_close(node.z, other.z)
            torch.testing.assert_close(node.u, other.u)
            assert torch.equal(node.kl, torch.zeros_like(node.kl))
            if prior_z == "prediction":
                torch.testing.assert_close(node.posterior.z.scale, node.prior.z.scale)
                torch.testing.assert_close(node.posterior.z.mean, node.prior.z.mean)
    torch.testing.assert_close(means.canvas, decoded.canvas)
    assert torch.equal(means.nats, means.kl), "the root alone costs nats"
    noise = model.noise(4, seed=1)
    _, others = model.split(noise)
    drawn = model.infer(x, noise, seen=blind)
    expected = model.unroll(drawn.z, k, guide=Guide(others))
    torch.testing.assert_close(drawn.canvas, expected.canvas)
    assert torch.equal(drawn.nats, drawn.kl)


def test_a_reader_that_says_nothing_leaves_the_prior():
    """With no evidence there is no KL, for messages are merged by their precision."""
    model, x = make(3), pictures(3)
    for layers, n in ((model.reader.where_layers, 6), (model.reader.what_layers, 5)):
        layers[-1].weight[n:] = 0
        layers[-1].bias[n:] = 6  # no message is wider
    tree, decoded = model.infer(x), model.decode(model.encode(x).mean)
    assert (tree.nats - tree.kl).abs().max() < 0.02
    torch.testing.assert_close(tree.canvas, decoded.canvas, rtol=0.02, atol=0.02)
    model.reader.what_layers[-1].bias[5:] = -1
    assert (model.infer(x).nats - tree.kl).min() > 1


def test_images_are_inferred_whatever_stands_beside_them():
    for prior_z in PRIORS:
        model, x = make(3, prior_z=prior_z), pictures(4)
        noise, seen = model.noise(4, seed=2), torch.tensor([1.0, 0, 1, 0], dtype=torch.float64)
        tree = model.infer(x, noise, seen=seen)
        for b in range(4):
            one = slice(b, b + 1)
            assert_same(tree[one], model.infer(x[one], noise[one], seen=seen[one]), exact=False)


def test_parse_is_infer_at_the_means_and_the_root_s_mean_is_the_encoder_s():
    model, x = make(3), pictures(2)
    tree = model.parse(x)
    still = model.infer(x, torch.zeros(2, model.config.noise, dtype=torch.float64))
    assert_same(tree, still, exact=False)
    torch.testing.assert_close(tree.z, model.encode(x).mean)
    for row in below(tree):
        for node in row:
            torch.testing.assert_close(node.z, node.posterior.z.mean)
            torch.testing.assert_close(node.u, node.posterior.u.mean)
            torch.testing.assert_close(node.action, node.u.tanh())
            parts = kl(node.posterior.z, node.prior.z) + kl(node.posterior.u, node.prior.u)
            torch.testing.assert_close(node.kl, parts)
            assert (node.kl > 0).all()
    for leaf in tree.programs(0):
        assert leaf.prior is leaf.posterior is leaf.kl is None
    # The root alone says what its children may be, not what an image says they are.
    assert not torch.allclose(tree.canvas, model.decode(tree.z).canvas)


def test_a_child_sees_what_earlier_siblings_left():
    model, x = make(2, tau=(3, 1)), pictures(1)
    guide = Reading(model.reader, x)
    tree = model.unroll(model.encode(x).mean, 2, guide=guide)
    left = x
    assert len(guide.frames) == 3
    for child, frame in zip(tree.children, guide.frames, strict=True):
        assert frame.shape == (1, 1, 8, 8)
        torch.testing.assert_close(frame, zoom(left, child.affine, 8))
        left = left - place(child.patch, child.affine, 12)
    torch.testing.assert_close(guide.left, left)


def test_the_reader_looks_in_the_predicted_window_and_then_in_the_one_chosen():
    model, x = make(2, tau=(3, 2)), pictures(1)
    windows = []

    def spy(read):
        def reading(seen, window, *rest):
            windows.append(window)
            return read(seen, window, *rest)

        return reading

    model.reader.where, model.reader.what = spy(model.reader.where), spy(model.reader.what)
    tree = model.infer(x, model.noise(1, seed=0))
    assert len(windows) == 6  # of three children, and of no leaf
    c = model.config
    for t, child in enumerate(tree.children):
        predicted = child.prior.u.mean.tanh()
        matrix = affine(predicted, c.extent[0], c.rotation, c.shear, c.centre)
        torch.testing.assert_close(windows[2 * t], matrix)
        torch.testing.assert_close(windows[2 * t + 1], child.affine)


def test_gradients_reach_the_reader_the_grammar_and_all_else():
    for prior_z in PRIORS:
        model = make(3, prior_z=prior_z).requires_grad_()
        noise = model.noise(4, seed=0)
        terms(model, pictures(4), noise).loss(0.05).backward()
        idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert idle == []
        assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("until", [0, 1, 2])
def test_gradients_are_finite_wherever_the_tree_is_cut_and_whatever_is_seen(until):
    for prior_z in PRIORS:
        model = make(3, torch.float32, prior_z=prior_z).requires_grad_()
        seen = torch.tensor([1.0, 0.0])
        terms(model, pictures(2).float(), model.noise(2, 0), until, seen).loss(0.05).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


def test_the_reader_is_told_nothing_where_nothing_is_seen():
    for prior_z in PRIORS:
        model = make(3, prior_z=prior_z).requires_grad_()
        blind = torch.zeros(2, dtype=torch.float64)
        terms(model, pictures(2), model.noise(2, 0), 0, blind).loss(0.05).backward()
        assert not any(p.grad.any() for p in model.reader.parameters())
        assert all(p.grad.any() for p in model.hypernet.trunk.parameters())


def test_gradient_of_the_loss_against_finite_differences():
    for prior_z in PRIORS:
        model, x = make(2, prior_z=prior_z).requires_grad_(), pictures(2)
        noise = model.noise(2, seed=0)
        chosen = [model.reader.where_layers[0].weight, model.reader.what_layers[-1].bias]
        chosen += [*model.grammar.parameters(), model.hypernet.trunk[0].weight]

        def loss(model=model, x=x, noise=noise):
            return terms(model, x, noise).loss(model.config.sigma2)

        gradients = torch.autograd.grad(loss(), chosen)
        for parameter, gradient in zip(chosen, gradients, strict=True):
            direction, found = torch.randn_like(parameter), []
            for step in (1e-7, -2e-7):
                with torch.no_grad():
                    parameter += step * direction
                    found.append(loss().item())
            with torch.no_grad():
                parameter += 1e-7 * direction
            slope = (found[0] - found[1]) / 2e-7
            assert (gradient * direction).sum().item() == pytest.approx(slope, rel=2e-3, abs=1e-5)


# What is given


@ANY_PRIOR
@DEPTHS
def test_given_gives_back_what_it_is_given(k, prior_z):
    model, x = make(k, prior_z=prior_z), pictures(3)
    tree = model.infer(x, model.noise(3, seed=1))
    again = model.unroll(tree.z, k, guide=Given(values(tree)))
    for row, other in zip(below(tree, 0), below(again, 0), strict=True):
        for node, found in zip(row, other, strict=True):
            bare = dataclasses.replace(node, posterior=None, kl=None, children=[], parts=None)
            assert_same(bare, dataclasses.replace(found, children=[], parts=None), exact=False)
    torch.testing.assert_close(tree.canvas, again.canvas)
    assert all(node.kl is None for row in below(again) for node in row)


def test_below_what_is_given_the_prior_is_taken():
    model = make(3)
    tree = model.sample(2, seed=1)
    means = model.unroll(tree.z, 3, guide=Given(values(tree)[:1]))
    for found, child in zip(means.children, tree.children, strict=True):
        torch.testing.assert_close(found.z, child.z)
        torch.testing.assert_close(found.canvas, model.decode(child.z, 2).canvas)
    _, noise = model.split(model.noise(2, seed=1))
    drawn = model.unroll(tree.z, 3, guide=Given(values(tree)[:1], noise))
    assert_same(drawn, tree, exact=False)  # whose lower level was drawn by the same noise


@pytest.mark.parametrize("free", [0, 1, 2])
def test_what_is_free_is_drawn_after_the_siblings_before_it(free):
    model = make(2, tau=(3, 2))
    tree, other = model.sample(2, seed=1), model.sample(2, seed=2)
    _, noise = model.split(model.noise(2, seed=2))
    found = model.unroll(tree.z, 2, guide=Given(values(tree), noise, free))
    for t, (child, given) in enumerate(zip(found.children, tree.children, strict=True)):
        same = [torch.equal(getattr(child, n), getattr(given, n)) for n in ("z", "u")]
        assert same == [t != free] * 2
        if t <= free:
            torch.testing.assert_close(child.prior.z.mean, given.prior.z.mean)
    assert not torch.equal(found.children[free].z, other.children[free].z)


# Drawn anew


@pytest.mark.parametrize(("k", "path"), [(2, (0,)), (2, (2,)), (3, (1,)), (3, (0, 1)), (3, (1, 2))])
@ANY_PRIOR
def test_resample_changes_a_program_and_all_below_it_and_nothing_else(k, path, prior_z):
    model = make(k, prior_z=prior_z)
    for tree in (model.sample(3, seed=1), model.parse(pictures(3))):
        before = [tensor.clone() for tensor in tensors(tree)]
        found = model.resample(tree, path, seed=5)
        assert all(map(torch.equal, before, tensors(tree))), "the tree itself has changed"
        for length in range(len(path) + 1):
            above = path[:length]
            for t, child in enumerate(tree.at(above).children):
                here = (*above, t)
                if here != path[: length + 1] and length < len(path):
                    assert found.at(here) is child, "a sibling has changed"
            if length < len(path):
                for name in ("z", "u"):
                    value, other = getattr(tree.at(above), name), getattr(found.at(above), name)
                    assert value is other
        node, old = found.at(path), tree.at(path)
        for name in ("z", "u", "action", "affine", "patch", "canvas"):
            assert not torch.allclose(getattr(node, name), getattr(old, name)), name
        for new, one in zip(node.children, old.children, strict=True):
            assert not torch.allclose(new.z, one.z)
        # Its prior is that of its parent, after the siblings before it.
        for name in ("mean", "scale"):
            for which in ("z", "u"):
                mine, theirs = (getattr(n.prior, which) for n in (node, old))
                torch.testing.assert_close(getattr(mine, name), getattr(theirs, name))
        assert node.posterior is node.kl is None
        # And the pictures above it are added up again.
        for length in range(len(path)):
            above = found.at(path[:length])
            torch.testing.assert_close(above.canvas, above.of(above.children).canvas)
            torch.testing.assert_close(above.canvas, sum(above.placed))
            assert not torch.allclose(above.canvas, tree.at(path[:length]).canvas)
        # What is drawn is a program as any: its subtree is what it draws by itself.
        again = model.unroll(node.z, node.level, guide=Given(values(node)))
        torch.testing.assert_close(node.canvas, again.canvas)


def test_resample_repeats_itself_by_its_seed_and_leaves_the_generator_alone():
    model = make(3)
    tree = model.sample(2, seed=1)
    state = torch.get_rng_state()
    one = model.resample(tree, (1,), seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert_same(one, model.resample(tree, (1,), seed=4))
    assert not torch.equal(one.at((1,)).z, model.resample(tree, (1,), seed=3).at((1,)).z)
    cold = model.resample(tree, (1,), seed=4, temperature=0.0).at((1,))
    torch.testing.assert_close(cold.z, cold.prior.z.mean)
    torch.testing.assert_close(cold.u, cold.prior.u.mean)
    half = model.resample(tree, (1,), seed=4, temperature=0.5).at((1,))
    torch.testing.assert_close(2 * (half.z - cold.z), one.at((1,)).z - cold.z)


def test_resampling_the_root_is_sampling():
    model = make(3)
    tree = model.sample(4, seed=1)
    assert_same(model.resample(tree, (), seed=7), model.sample(4, seed=7))
    found = model.resample(tree, (), seed=7, temperature=0.3)
    assert_same(found, model.sample(4, seed=7, temperature=0.3))
    root = make(2, posterior="root")
    assert_same(root.resample(root.sample(2), (), seed=7), root.sample(2, seed=7))


@pytest.mark.parametrize("path", [(1,), (0, 2)])
def test_what_is_drawn_anew_follows_its_prior(path):
    model = make(3)
    one, n = model.sample(1, seed=1), 4000
    many = one.map(lambda tensor: tensor.expand(n, *tensor.shape[1:]))
    drawn, prior = model.resample(many, path, seed=3).at(path), one.at(path).prior
    for found, expected in ((drawn.z, prior.z), (drawn.u, prior.u)):
        mean, scale = expected.mean[0], expected.scale[0]
        assert ((found.mean(0) - mean).abs() < 5 * scale / n**0.5).all()
        assert ((found.std(0) / scale - 1).abs() < 5 / (2 * n) ** 0.5).all()
        assert ((found - mean) / scale).mT.corrcoef().fill_diagonal_(0).abs().max() < 5 / n**0.5
    # So do its children, whose prior each draw has of its own.
    if drawn.level > 1:
        child = drawn.children[0]
        off = (child.z - child.prior.z.mean) / child.prior.z.scale
        assert off.mean(0).abs().max() < 5 / n**0.5
        assert (off.std(0) - 1).abs().max() < 5 / (2 * n) ** 0.5


def test_resample_with_symbols_takes_each_as_often_as_the_prior_says():
    model = make(2, prior_z="both")
    model.grammar.log_std.fill_(-5.0)  # so that a draw tells its symbol
    one, n = model.sample(1, seed=1), 4000
    many = one.map(lambda tensor: tensor.expand(n, *tensor.shape[1:]))
    node = model.resample(many, (1,), seed=3).at((1,))
    prior = one.at((1,)).prior.z
    weights = prior.log_weights[0].exp()
    apart = (node.z[:, None] - prior.mean).norm(dim=2)
    nearest = apart[:, :-1].amin(1) < 0.1
    shares = apart[nearest][:, :-1].argmin(1).bincount(minlength=3) / n
    assert ((shares - weights[:-1]).abs() < 5 * (weights[:-1] / n).sqrt()).all()


def test_resample_says_what_it_cannot_draw():
    model = make(3)
    tree = model.sample(2)
    for path in ((0, 0, 0), (1, 2, 0)):
        with pytest.raises(ValueError, match=r"program at \(\d, \d, 0\) is not drawn but follows"):
            model.resample(tree, path)
    for path in ((2,), (0, 3), (0, 0, 1), (0, 0, 0, 0), (-1,)):
        with pytest.raises(ValueError, match="there is no program at"):
            model.resample(tree, path)
    root = make(2, posterior="root")
    with pytest.raises(ValueError, match=r"at \(0,\) is not drawn but follows from its parent"):
        root.resample(root.sample(2), (0,))
    leaf = model.decode(torch.randn(2, 5, dtype=torch.float64), 1)
    with pytest.raises(ValueError, match="is not drawn"):
        model.resample(leaf, (0,))


def test_a_tree_of_a_lower_level_is_drawn_anew_as_well():
    model = make(3)
    part = model.sample(2, seed=1).children[0]
    found = model.resample(part, (1,), seed=2)
    assert found.children[0] is part.children[0]
    assert not torch.allclose(found.children[1].z, part.children[1].z)
    assert found.canvas.shape == part.canvas.shape
    torch.testing.assert_close(found.canvas, sum(found.placed))
