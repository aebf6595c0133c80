"""Paths between programs: where they run, what is measured along them, how they are drawn."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import config

from rnp_lib.analysis import interpolation as paths
from rnp_lib.analysis.classifier import Classifier
from rnp_lib.analysis.sampling import legibility
from rnp_lib.model.rnp import RNP
from rnp_lib.plots import interpolation as plots_interpolation

BOTH = pytest.mark.parametrize("path", [paths.straight, paths.spherical])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return RNP(config(image_size=28)).eval()


def angles(x):
    """Between successive points (steps, D)."""
    x = x.double() / x.double().norm(dim=1, keepdim=True)
    return torch.atan2((x[1:] - x[:-1]).norm(dim=1) / 2, (x[1:] + x[:-1]).norm(dim=1) / 2) * 2


# ---- the paths -----------------------------------------------------------------------------------


@BOTH
def test_a_path_runs_from_one_end_to_the_other_for_any_batch(path):
    a, b = torch.randn(2, 3, 5, 8)
    found = path(a, b, 7)
    assert found.shape == (3, 5, 7, 8)
    assert found.dtype == a.dtype
    torch.testing.assert_close(found[..., 0, :], a)
    torch.testing.assert_close(found[..., -1, :], b)
    torch.testing.assert_close(found[1, 2], path(a[1, 2], b[1, 2], 7))


@BOTH
def test_a_path_has_two_points_or_more(path):
    a, b = torch.randn(2, 4)
    torch.testing.assert_close(path(a, b, 2), torch.stack([a, b]))
    with pytest.raises(ValueError, match="2 points or more: got 1"):
        path(a, b, 1)


def test_the_straight_path_has_even_steps():
    a, b = torch.randn(2, 8)
    steps = paths.straight(a, b, 6).diff(dim=0)
    torch.testing.assert_close(steps, ((b - a) / 5).expand(5, -1))


def test_the_arc_turns_at_constant_speed_while_the_norm_changes_linearly():
    a, b = 2 * torch.randn(8), 0.1 * torch.randn(8)
    found = paths.spherical(a, b, 9)
    torch.testing.assert_close(found.norm(dim=1), torch.linspace(a.norm(), b.norm(), 9))
    whole = torch.arccos(torch.cosine_similarity(a, b, dim=0)).double()
    torch.testing.assert_close(angles(found), (whole / 8).expand(8), rtol=1e-4, atol=1e-6)


def test_the_arc_stays_in_the_plane_of_its_ends_and_takes_the_shorter_way():
    a, b = torch.tensor([3.0, 0, 0]), torch.tensor([0, 2.0, 0])
    middle = paths.spherical(a, b, 3)[1]
    torch.testing.assert_close(middle, 2.5 * torch.tensor([0.5**0.5, 0.5**0.5, 0]))


@pytest.mark.parametrize("bend", [0, 1e-9, 1e-7, 1e-6])
def test_the_arc_between_parallel_vectors_is_the_straight_path(bend):
    a = torch.randn(8)
    b = 3 * a + bend * torch.randn(8)
    torch.testing.assert_close(paths.spherical(a, b, 5), paths.straight(a, b, 5))


@pytest.mark.parametrize("bend", [0, 1e-9, 1e-7, 1e-6, 1e-4])
@pytest.mark.parametrize("a", [torch.ones(8), torch.eye(8)[3], torch.linspace(-1, 2, 8)])
def test_the_arc_between_antiparallel_vectors_is_half_a_circle(a, bend):
    b = -2 * a + bend * torch.linspace(1, -1, 8).square()
    found = paths.spherical(a, b, 5)
    torch.testing.assert_close(found[[0, -1]], torch.stack([a, b]))
    torch.testing.assert_close(found.norm(dim=1), torch.linspace(a.norm(), b.norm(), 5))
    assert angles(found).tolist() == pytest.approx([math.pi / 4] * 4, abs=1e-4)


def test_the_arc_from_or_to_zero_is_the_straight_path():
    a, zero = torch.randn(8), torch.zeros(8)
    for ends in ((a, zero), (zero, a), (zero, zero)):
        torch.testing.assert_close(paths.spherical(*ends, 5), paths.straight(*ends, 5))


# ---- their ends ----------------------------------------------------------------------------------


def test_cluster_centres_are_means_of_clusters():
    at = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    z = (at + torch.tensor([[-1.0, 1], [1, -1]]).unsqueeze(1)).flatten(0, 1)
    found = paths.cluster_centres(z, 3).round(decimals=4)
    assert sorted(found.tolist()) == sorted(at.tolist())


def test_distinct_pairs_are_far_apart_and_far_from_one_another():
    # 0 and 100 are farthest apart, then 1 and 99; but these are nearly the same as the first two.
    centres = torch.tensor([0.0, 1, 30, 70, 99, 100]).unsqueeze(1)
    assert [sorted(pair) for pair in paths.distinct_pairs(centres, 2).tolist()] == [[0, 5], [2, 3]]
    whole = paths.distinct_pairs(centres, 3)
    assert sorted(whole.flatten().tolist()) == list(range(6))
    with pytest.raises(ValueError, match="4 pairs take 8 centres: got 6"):
        paths.distinct_pairs(centres, 4)


def test_unlike_pairs_are_disjoint_and_of_different_classes():
    labels = torch.arange(101) % 3
    pairs = paths.unlike_pairs(labels, 1_000, seed=0)
    assert 20 < len(pairs) < 50
    assert pairs.flatten().unique().numel() == pairs.numel()
    assert (labels[pairs[:, 0]] != labels[pairs[:, 1]]).all()
    assert 5 <= len(paths.unlike_pairs(labels, 12, seed=0)) <= 12
    assert not torch.equal(pairs[:9], paths.unlike_pairs(labels, 1_000, seed=1)[:9])


# ---- what is on them -----------------------------------------------------------------------------


@pytest.mark.parametrize(("level", "side"), [(2, 28), (1, 8)])
def test_along_holds_what_the_parts_draw_at_every_point(model, level, side):
    a, b = torch.randn(2, 3, 8)
    found = paths.along(model, a, b, 4, level)
    assert list(found) == list(plots_interpolation.LINES)
    assert {layers.shape for layers in found.values()} == {(3, 4, 2, 1, side, side)}
    for kind, path in (("straight", paths.straight), ("spherical", paths.spherical)):
        canvas = model.decode(path(a, b, 4)[1], level).canvas.clamp(0, 1)
        torch.testing.assert_close(found[kind][1].sum(1), canvas)
    faded = torch.lerp(found["straight"][:, 0], found["straight"][:, -1], 1 / 3)
    torch.testing.assert_close(found["pixels"][:, 1], faded)


def test_measure_reads_every_drawing_and_compares_it_with_the_ends(model):
    a, b = torch.randn(2, 130, 8)  # more than are decoded at once
    drawn = paths.along(model, a, b, 3)
    classifier = Classifier(10)
    classifier.head.weight.data *= 10  # untrained, it would be sure of nothing
    for layer in classifier.modules():  # and its normalisation would see no difference
        layer.momentum = 1.0
    classifier(drawn["straight"].sum(2).flatten(0, 1))
    found = paths.measure(model, classifier.eval(), a, b, 3)
    for kind, layers in drawn.items():
        canvas = layers.sum(2)
        for k in range(3):
            share = legibility(classifier, canvas[:, k])["legible"]
            assert 0 < share < 1
            assert found[kind]["read"][:, k].mean() == pytest.approx(share, abs=0.01)
        label = classifier(canvas.flatten(0, 1)).argmax(1).view(130, 3)
        is_end = (label[:, 1] == label[:, 0]) | (label[:, 1] == label[:, 2])
        expected = found[kind]["read"][:, 1] * is_end
        torch.testing.assert_close(found[kind]["end"][:, 1], expected)
        change = (canvas[:, 2] - canvas[:, 1]).flatten(1).square().sum(1)
        torch.testing.assert_close(found[kind]["change"][:, 1].float(), change)
    torch.testing.assert_close(*found["pixels"]["change"].float().unbind(1))


def test_the_jackknife_of_independent_values_is_the_usual_standard_error():
    values = torch.rand(40, 3)
    mean, stderr = paths.jackknife(values, torch.arange(40).unsqueeze(1))
    torch.testing.assert_close(mean, values.double().mean(0))
    torch.testing.assert_close(stderr, values.double().std(0) / 40**0.5)


def test_the_jackknife_knows_that_pairs_share_their_ends():
    generator = torch.Generator().manual_seed(0)
    pairs = torch.combinations(torch.arange(20))
    ends = torch.randn(2_000, 20, generator=generator)
    means = ends[:, pairs].sum(2).mean(1)  # 2,000 draws of 20 ends, and all pairs of these
    found = torch.stack([paths.jackknife(e[pairs].sum(1), pairs)[1] for e in ends[:100]])
    assert found.mean().item() == pytest.approx(means.std().item(), rel=0.1)
    with pytest.raises(ValueError, match="in every pair"):
        paths.jackknife(torch.rand(2), torch.tensor([[0, 1], [0, 2]]))


def test_halfway_names_the_middle_of_the_paths():
    generator = torch.Generator().manual_seed(0)
    measured = {
        kind: {
            "read": torch.ones(50, 5).double(),
            "end": (torch.rand(50, 5, generator=generator) < share).double(),
            "change": torch.tensor([[1.0, 2, 4, 1]]).double().expand(50, -1) * scale,
        }
        for kind, share, scale in (("straight", 0.5, 3), ("spherical", 0.8, 2), ("pixels", 0.2, 1))
    }
    units = torch.arange(50).unsqueeze(1)
    found = paths.halfway(measured, units)
    assert (found["n"], found["straight_read"], found["straight_read_stderr"]) == (50, 1, 0)
    mean, stderr = paths.by_quantity(measured, units)["end"]["straight"]
    assert found["straight_end"] == pytest.approx(mean[2].item())
    assert found["straight_end_stderr"] == pytest.approx(stderr[2].item())
    assert found["straight_evenness"] == pytest.approx(1 / 4)
    assert found["straight_travel"] == pytest.approx(3)
    gain = found["spherical_end"] - found["straight_end"]
    assert found["arc_gain"] == pytest.approx(gain)
    assert 0.03 < found["arc_gain_stderr"] < 0.2


# ---- pictures ------------------------------------------------------------------------------------


def test_the_figure_has_a_strip_for_every_path_and_a_panel_for_every_quantity(model):
    a, b = torch.randn(2, 2, 8)
    strips = {level: paths.along(model, a, b, 4, k) for level, k in (("root", 2), ("part", 1))}
    measured = paths.measure(model, Classifier(10).eval(), a, b, 5)
    summary = paths.by_quantity(measured, torch.arange(2).unsqueeze(1))
    figure = plots_interpolation.interpolation(strips, summary, "pairs of noise")
    figure.draw_without_rendering()
    drawn = [axes for axes in figure.axes if axes.images]
    assert [len(axes.images) for axes in drawn] == [4] * (2 * 2 * 3)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["root", "part", *plots_interpolation.TITLES.values()]
    for axes, name in zip(figure.axes[len(drawn) :], plots_interpolation.TITLES, strict=True):
        for line, mean in zip(axes.containers, summary[name].values(), strict=True):
            np.testing.assert_allclose(line.lines[0].get_ydata(), mean[0])


def test_the_animation_moves_there_and_back_and_stays_small(model):
    a, b = torch.randn(2, 8)
    trees = {"straight": model.decode(paths.straight(a, b, 5))}
    trees["spherical"] = model.decode(paths.spherical(a, b, 5))
    with torch.no_grad():
        file = plots_interpolation.animation(trees)
    assert len(file) < 100_000
    with Image.open(io.BytesIO(file)) as image:
        assert image.n_frames == 8
        assert image.info["loop"] == 0
        frames = []
        for k in range(8):
            image.seek(k)
            frames.append(np.array(image.convert("RGB")))
    for k in range(1, 4):
        np.testing.assert_array_equal(frames[k], frames[-k])
        assert (frames[k] != frames[k - 1]).any()
    assert (frames[4] != frames[0]).any()
