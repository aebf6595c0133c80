"""Scores of programs on vectors whose answers are known; maps and clusters on a small model."""

import matplotlib.colors
import matplotlib.pyplot as plt
import numpy as np
import pytest
import tiny
import torch

from rnp_lib import plots
from rnp_lib.analysis import topography
from rnp_lib.analysis.programs import draw
from rnp_lib.analysis.topography import separation
from rnp_lib.model.rnp import RNP
from rnp_lib.plots import topography as plots_topography


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return RNP(tiny.config()).eval()


def blob(centre, n=50, scale=1.0, seed=0):
    noise = torch.randn(n, len(centre), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(centre) + scale * noise


def test_separation_by_hand():
    groups = [torch.tensor([[1.0], [2], [3]]), torch.tensor([[11.0], [12], [13]])]
    silhouette = np.mean([1 - 1.5 / 11, 1 - 1 / 10, 1 - 1.5 / 9])
    scores = separation(groups)
    assert scores == pytest.approx(
        {
            "n": 6,
            "raw_silhouette": silhouette,
            "raw_norm": silhouette,
            "raw_neighbours": 0.4,
            "std_silhouette": silhouette,
            "std_norm": -1 / 3,  # lengths 6, 5, 4 and 4, 5, 6, in units
            "std_neighbours": 0.4,
            "chance": 0.4,
        },
        abs=1e-5,
    )


def test_length_alone_tells_shells_apart_but_not_opposite_clusters():
    directions = torch.nn.functional.normalize(blob([0.0] * 8, 200), dim=1)
    shells = separation([directions[:100], 5 * directions[100:]])
    assert shells["raw_norm"] > 0.99 > 0.3 > shells["raw_silhouette"]

    one = blob([3.0] * 8, 100, 0.1)
    opposite = separation([one, -one])
    assert opposite["raw_silhouette"] > 0.9
    assert abs(opposite["raw_norm"]) < 0.02
    assert opposite["raw_neighbours"] == 1


def test_standardising_each_group_leaves_only_what_mean_and_scale_do_not_tell():
    a, b = blob([0.0] * 6, 300), blob([9.0] * 6, 300, 0.1, seed=1)
    together, each = separation([a, b]), separation([a, b], each=True)
    assert together["raw_silhouette"] == each["raw_silhouette"] > 0.7
    assert together["std_neighbours"] == 1
    assert abs(each["std_silhouette"]) < 0.01
    assert abs(each["std_neighbours"] - each["chance"]) < 0.05

    signs = b.sign() * (blob([0.0] * 6, 300, seed=2) > 0).float().mul(2).sub(1)  # of another shape
    assert separation([a, signs], each=True)["std_neighbours"] > 0.6


@pytest.mark.parametrize(
    "groups", [[blob([0.0, 0])], [blob([0.0], 1), blob([1.0], 1)], [blob([0.0], 2), blob([1.0], 3)]]
)
def test_separation_needs_groups_and_vectors(groups):
    with pytest.raises(ValueError, match="Number of labels|n_neighbors"):
        separation(groups)


def test_by_label_keeps_every_vector_with_its_label():
    z = torch.arange(5.0)[:, None]
    groups = topography.by_label(z, torch.tensor([7, 2, 7, 2, 9]))
    assert [group.flatten().tolist() for group in groups] == [[1, 3], [0, 2], [4]]


def test_readout_of_separable_and_of_meaningless_labels():
    z = torch.cat([blob([-4.0, 0, 0], 100), blob([4.0, 0, 0], 100, seed=1)])
    labels = torch.arange(2).repeat_interleave(100)
    test = (z + 0.01, labels)
    assert topography.readout((z, labels), test) == {
        "n_train": 200,
        "n_test": 200,
        "probe": 1,
        "knn": 1,
    }
    # Rings need more than a plane to tell them apart.
    ring = torch.nn.functional.normalize(z, dim=1) * (1 + 4 * (torch.arange(200) % 2))[:, None]
    scores = topography.readout((ring, torch.arange(200) % 2), (ring, torch.arange(200) % 2))
    assert scores["probe"] < 0.7 < 0.95 < scores["knn"]


def test_programs_are_those_of_the_parse(model):
    images = torch.rand(520, 1, 16, 16)  # more than are parsed at a time
    found = topography.roots_and_parts(model, images)
    with torch.no_grad():
        tree = model.parse(images)
    torch.testing.assert_close(found.roots, tree.z)
    assert set(found.turns.tolist()) == {0, 1}
    for turn, child in enumerate(tree.children):
        mine = found.turns == turn
        torch.testing.assert_close(found.parts[mine], child.z[mine])
    assert torch.equal(topography.roots_and_parts(model, images).turns, found.turns)
    assert not torch.equal(topography.roots_and_parts(model, images, 1).turns, found.turns)


def test_topography_has_a_row_for_levels_turns_and_classes(model):
    found = topography.roots_and_parts(model, torch.rand(60, 1, 16, 16))
    labels = torch.arange(60) % 3
    scores = topography.topography(found, labels)
    assert {what: row["n"] for what, row in scores.items()} == {
        "level": 120,
        "turn": 60,
        "class": 60,
    }
    assert scores["level"] == separation([found.roots, found.parts], each=True)
    lines = topography.table({"tiny": scores}).splitlines()
    assert len(lines) == 4
    for line, (what, row) in zip(lines[1:], scores.items(), strict=True):
        who, kind, *numbers, n = line.split()
        assert (who, kind, int(n)) == ("tiny", what, row["n"])
        np.testing.assert_allclose([float(v) for v in numbers], list(row.values())[1:], atol=6e-4)
    assert len({len(line) for line in lines}) == 1


def test_of_classes_takes_whole_classes_from_the_first_to_the_last():
    labels = torch.tensor([5, 1, 9, 1, 5, 7, 9])
    assert topography.of_classes(labels, 2).tolist() == [1, 2, 3, 6]
    assert topography.of_classes(labels, 99).tolist() == list(range(7))
    assert topography.spaced(np.arange(10, 15), 3).tolist() == [10, 12, 14]


def test_clusters_are_those_that_were_made_the_tightest_first():
    sizes, scales = (30, 20, 50), (0.5, 0.1, 0.2)
    centres = ([0.0, 0], [20.0, 0], [0.0, 20])
    z = torch.cat([blob(c, n, s) for c, n, s in zip(centres, sizes, scales, strict=True)])
    found = topography.clusters(z, 3)

    made = np.repeat([2, 0, 1], sizes)
    np.testing.assert_array_equal(found.labels, made)
    for cluster in range(3):
        mine = z[made == cluster]
        distance = (mine - mine.mean(0)).norm(dim=1)
        assert found.spread[cluster] == pytest.approx(distance.square().mean().sqrt().item(), 1e-4)
        assert found.nearest[cluster] == np.flatnonzero(made == cluster)[distance.argmin()]
    few, everyone = found.members(0, 5), found.members(0, 99)
    assert len(set(few)) == 5
    assert set(few) < set(everyone) == set(np.flatnonzero(made == 0))
    assert found.members(0, 5, seed=1).tolist() != few.tolist()
    groups = torch.from_numpy(made) + 4
    groups[:3] = 0
    assert found.majority(groups).tolist() == [4, 5, 6]


def test_tsne_keeps_neighbours_and_is_repeatable():
    z = torch.cat([blob([0.0] * 5, 30), blob([30.0] * 5, 30, seed=1)])
    at = topography.tsne(z)
    assert at.shape == (60, 2)
    assert separation([torch.from_numpy(at[:30]), torch.from_numpy(at[30:])])["raw_neighbours"] == 1
    np.testing.assert_array_equal(topography.tsne(z), at)


@pytest.fixture
def levels(model):
    found = topography.roots_and_parts(model, torch.rand(300, 1, 16, 16))
    at = np.random.default_rng(0).normal(size=(2, 300, 2)) + [[[0, 0]], [[1, 5]]]
    groups = (np.arange(300) % 3, found.turns.numpy())
    names = (["a", "b", "c"], ["part 1", "part 2"])
    shown = np.arange(12)
    return [
        plots_topography.Level(at[i], groups[i], names[i], shown, draw(model, z[shown], 2 - i))
        for i, z in enumerate((found.roots, found.parts))
    ]


def test_the_map_shows_every_picture_apart_from_the_others_in_its_groups_colour(levels):
    figure = plots_topography.topography(*levels)
    figure.canvas.draw()
    for axes, level in zip(figure.axes, (levels[1], levels[0]), strict=True):
        cells = axes.child_axes
        assert len(cells) == 12
        boxes = [cell.get_window_extent() for cell in cells]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        panel = axes.get_window_extent()
        assert all(panel.contains(*corner) for box in boxes for corner in box.corners())
        pictures = plots.grey(level.pictures)
        for cell, picture, group in zip(cells, pictures, level.groups[level.shown], strict=True):
            np.testing.assert_allclose(cell.images[0].get_array(), picture)
            frame = matplotlib.colors.to_hex(cell.spines["left"].get_edgecolor())
            assert frame == plots_topography.GROUPS[group]
    legends = [[t.get_text() for t in axes.get_legend().get_texts()] for axes in figure.axes]
    assert legends == [["whole", "part 1", "part 2"], ["a", "b", "c"]]


def test_blocks_hold_all_members_of_each_cluster():
    pictures = torch.rand(7, 1, 8, 8)
    figure = plots_topography.blocks([pictures, pictures[:4]], [[pictures[:5]], []])
    shown = [len(axes.images) for axes in figure.axes]
    assert shown == [1, 1, 0, 1, 0, 0]  # row by row: the second turn has no cluster
    block = figure.axes[0].images[0].get_array()
    side = block.shape[1] // 4
    assert block.shape == (2 * side, 4 * side, 3)
    for i, picture in enumerate(plots.grey(pictures)):
        middle = side * (i // 4) + side // 2, side * (i % 4) + side // 2
        np.testing.assert_allclose(block[middle], picture[4, 4])
    np.testing.assert_allclose(block[side + side // 2, 3 * side + side // 2], 1)  # none there
    assert plt.get_fignums()


def test_clusters_are_matched_to_labels_whatever_their_numbers():
    torch.manual_seed(0)
    middles = torch.tensor([[0.0, 0], [10, 0], [0, 10]])
    z = torch.cat([middle + torch.randn(20, 2) for middle in middles])
    labels = torch.tensor([7, 3, 5]).repeat_interleave(20)
    assert topography.cluster_scores(z, labels) == {"acc": 1, "nmi": pytest.approx(1)}
    labels[0] = 3
    assert topography.cluster_scores(z, labels)["acc"] == pytest.approx(59 / 60)
