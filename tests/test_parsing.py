"""Measures of parts: on pictures and trees made by hand, and against slow ways to the same."""

import dataclasses
import itertools
import json
from types import SimpleNamespace

import pytest
import tiny
import torch

from rnp_lib.analysis import parsing, segmentation
from rnp_lib.analysis.parsing import evaluate_parts, pieces
from rnp_lib.analysis.segmentation import evaluate_segmentation, foreground_ari
from rnp_lib.data.strokes import strokes
from rnp_lib.model.rnp import RNP
from rnp_lib.model.transforms import affine, place
from rnp_lib.model.tree import ProgramTree

IDENTITY = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
ONE_PIXEL_RIGHT = ((1.0, 0.0, 0.5), (0.0, 1.0, 0.0))  # in a frame of 5 pixels


def picture(*points, side=5, ink=1.0):
    canvas = torch.zeros(1, 1, side, side)
    for point in points:
        canvas[(0, 0, *point)] = ink
    return canvas


def program(children, canvas=None, placed=None, matrix=IDENTITY):
    """A program for one image; `placed` is told, not computed."""
    return ProgramTree(
        z=torch.zeros(1, 2),
        canvas=sum(placed) if placed else canvas,
        affine=torch.tensor([matrix]),
        children=children,
        parts=torch.stack(placed, 1) if placed else None,
    )


@pytest.fixture
def tree():
    """Two parts of two sub-parts: a bar of three pixels, moved by one, and two pixels apart."""
    bar = [picture((0, 0)), picture((0, 1), (0, 2))]
    dots = [picture((4, 4)), picture((3, 3))]
    leaves = [[program([], canvas=canvas) for canvas in half] for half in (bar, dots)]
    children = [
        program(leaves[0], placed=bar, matrix=ONE_PIXEL_RIGHT),
        program(leaves[1], placed=dots),
    ]
    return program(children, placed=[picture((0, 1), (0, 2), (0, 3)), picture((4, 4), (3, 3))])


@pytest.fixture(
    params=[((3,), "root"), ((2, 3), "root"), ((2, 2, 2), "root"), ((2, 3), "tree")],
    ids=["one level", "two", "three", "two, all random"],
)
def model(request):
    tau, posterior = request.param
    return RNP(tiny.config(tau=tau, images=(160,) * len(tau), posterior=posterior)).eval()


# ---- pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("canvas", "share", "ink"),
    [
        (picture((0, 0), (0, 1), (0, 2), (4, 4)), 0.75, 4),
        (picture((0, 0), (1, 1), (2, 0), (3, 1)), 1, 4),  # joined at corners
        (picture((0, 0), (0, 4), (4, 0), (4, 4)), 0.25, 4),  # edges do not wrap around
        (picture((2, 2), ink=0.15), 1, 0.15),
        (picture((2, 2), ink=0.14), 0, 0),
        (picture(), 0, 0),
        (picture((0, 0)) + picture((4, 0), (4, 1), ink=0.25), 2 / 3, 1.5),  # by ink, not by pixels
        (picture((0, 0), (0, 2)) + picture((0, 1), ink=0.1), 0.5, 2),  # too faint to join them
    ],
)
def test_pieces_by_hand(canvas, share, ink):
    found = pieces(canvas)
    expected = (torch.tensor([value], dtype=torch.float64) for value in (share, ink))
    torch.testing.assert_close(found, tuple(expected), rtol=1e-6, atol=1e-6)


def test_pieces_do_not_join_across_the_batch():
    corner, middle = picture((0, 0), (4, 4)), picture((2, 2))
    share, ink = pieces(torch.cat([corner, corner, picture(), middle, middle]))
    assert share.tolist() == [0.5, 0.5, 0, 1, 1]
    assert ink.tolist() == [2, 2, 0, 1, 1]


def flood_fill(canvas, threshold):
    """The ink of every piece of one picture (H, W), by growing each from a pixel."""
    left = {tuple(at) for at in (canvas >= threshold).nonzero().tolist()}
    inks = []
    while left:
        edge, ink = [left.pop()], 0.0
        while edge:
            row, column = edge.pop()
            ink += canvas[row, column].item()
            for step in itertools.product((-1, 0, 1), repeat=2):
                near = (row + step[0], column + step[1])
                if near in left:
                    left.remove(near)
                    edge.append(near)
        inks.append(ink)
    return inks


@pytest.mark.parametrize("threshold", [0.15, 0.7, 0.9])
def test_pieces_are_those_of_a_flood_fill(threshold):
    pictures = torch.rand(40, 1, 11, 13) * torch.rand(40, 1, 1, 1)
    share, ink = pieces(pictures, threshold)
    for i, canvas in enumerate(pictures[:, 0]):
        inks = flood_fill(canvas, threshold)
        assert ink[i].item() == pytest.approx(sum(inks), abs=1e-9)
        assert share[i].item() == pytest.approx(max(inks) / sum(inks) if inks else 0, abs=1e-9)


# ---- shares, removal, windows --------------------------------------------------------------------


def test_a_hand_made_tree(tree):
    # Drawn too much: the bar's last pixel and the second dot.
    x = picture((0, 1), (0, 2), (4, 4))
    rise, sub_rise = parsing.removal_rise(tree, x), parsing.removal_rise(tree, x, 0)
    torch.testing.assert_close(rise, torch.tensor([[2.0 - 1.0, 1.0 - 1.0]]))
    torch.testing.assert_close(sub_rise, torch.tensor([[[1.0, 1.0 - 1.0], [1.0, -1.0]]]))

    labels = torch.full((1, 5, 5), -1)
    labels[0, 0, 1:4], labels[0, 3, 3], labels[0, 4, 4] = 0, 1, 1
    assert torch.equal(segmentation.found_labels(tree), labels)
    labels[0, 0, 1:4], labels[0, 3, 3], labels[0, 4, 4] = torch.tensor([0, 1, 1]), 3, 2
    assert torch.equal(segmentation.found_labels(tree, 0), labels)
    assert parsing.windows(tree, 0).shape == (1, 4, 2)


def test_a_pixel_goes_to_whatever_draws_most_there():
    placed = [picture((0, 0), ink=0.6) + picture((1, 1), ink=0.4), picture((0, 0), (1, 1), ink=0.5)]
    leaves = [program([], canvas=canvas) for canvas in placed]
    labels = segmentation.found_labels(program(leaves, placed=placed))
    assert labels[0, 0, 0] == 0
    assert labels[0, 1, 1] == 1


def recompose(tree, left_out):
    """The canvas of a tree without one program, named by its steps from the root, slowly."""
    size = tree.canvas.shape[-1]
    canvas = torch.zeros_like(tree.canvas)
    for t, child in enumerate(tree.children):
        if left_out[:1] != (t,):
            canvas += place(child.canvas, child.affine, size)
        elif len(left_out) > 1:
            canvas += place(recompose(child, left_out[1:]), child.affine, size)
    return canvas


@torch.no_grad()
def test_removal_is_that_of_canvases_composed_again(model):
    x = torch.rand(5, 1, 16, 16)
    tree = model.parse(x)
    sse = ((tree.canvas - x) ** 2).sum((1, 2, 3))
    for level in range(model.config.depth):
        rise = parsing.removal_rise(tree, x, level)
        tau = model.config.tau[: model.config.depth - level]
        assert rise.shape == (5, *tau)
        for steps in itertools.product(*map(range, tau)):
            without = ((recompose(tree, steps) - x) ** 2).sum((1, 2, 3))
            torch.testing.assert_close(rise[:, *steps], without - sse, rtol=1e-4, atol=1e-4)


def test_drawings_of_a_level_add_up_to_the_canvas(model):
    tree = model.sample(3)
    for level in range(model.config.depth):
        canvas = parsing.drawn(tree, level).flatten(1, -4).sum(1)
        torch.testing.assert_close(canvas, tree.canvas, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(parsing.drawn(tree), tree.parts)
    for level in (-1, model.config.depth):
        with pytest.raises(ValueError, match=f"from 0 to {model.config.depth - 1} .*got {level}"):
            parsing.drawn(tree, level)


def test_windows_are_the_sides_of_a_child():
    action = torch.tensor([[-1.0, 1.0, 0.4, 0.0, 0.3, -0.9]])
    leaf = dataclasses.replace(program([], canvas=picture()), affine=affine(action, (0.2, 0.5)))
    sheared = affine(action + torch.tensor([0, 0, 0, 1.0, 0, 0]), (0.2, 0.5), shear=0.75)
    tree = program([leaf, dataclasses.replace(leaf, affine=sheared)], canvas=picture())
    expected = torch.tensor([[[0.2, 0.5], [0.2, 0.5 * 1.25]]])
    torch.testing.assert_close(parsing.windows(tree, 0), expected)


# ---- segmentation --------------------------------------------------------------------------------


def test_ari_of_known_cases():
    true = torch.tensor([[[0, 0, 1], [1, -1, -1]]])
    cases = {
        1.0: [[5, 5, 2], [2, 7, -1]],  # other numbers; the background does not count
        0.0: [[3, 3, 3], [3, 0, 1]],
        4 / 7: [[0, 0, 1], [2, 0, 0]],
        -0.5: [[0, 1, 0], [1, 9, 9]],
    }
    for expected, found in cases.items():
        found = torch.tensor([found])
        assert foreground_ari(true, found).tolist() == pytest.approx([expected])
    undrawn = torch.tensor([[[0, 0, -1], [-1, 0, 0]]])
    assert foreground_ari(true, undrawn).tolist() == [1]


def test_ari_counts_pairs_of_pixels():
    true, found = torch.randint(-1, 3, (6, 7, 7)), torch.randint(0, 4, (6, 7, 7))
    for i, ari in enumerate(foreground_ari(true, found).tolist()):
        at = (true[i] >= 0).nonzero().T
        pixels = torch.stack([true[i][*at], found[i][*at]], 1).tolist()
        pairs = list(itertools.combinations(pixels, 2))
        together = [[a[side] == b[side] for a, b in pairs] for side in (0, 1)]
        both = sum(a and b for a, b in zip(*together, strict=True))
        chance = sum(together[0]) * sum(together[1]) / len(pairs)
        most = (sum(together[0]) + sum(together[1])) / 2
        assert ari == pytest.approx((both - chance) / (most - chance))


def test_positions_alone_tell_distant_clumps_apart():
    true = torch.full((3, 12, 12), -1)
    true[0, :3, :3], true[0, 8:, 8:] = 0, 1
    true[1, 2, 2] = true[1, 5, 5] = 0
    found = segmentation.position_labels(true, 2)
    assert torch.equal(found >= 0, true >= 0)
    assert foreground_ari(true, found)[0] == 1
    assert sorted(segmentation.position_labels(true, 5)[1][true[1] >= 0].tolist()) == [0, 1]


class Oracle(torch.nn.Module):
    """Draws every true stroke as a part and every true line or arc as a sub-part."""

    def __init__(self, truth, size):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.config = SimpleNamespace(image_size=size, tau=(4, 4))
        self.truth = truth

    def parse(self, x):
        ink, _, stroke_at, piece_at = self.truth
        torch.testing.assert_close(x, ink)
        children, placed = [], []
        for stroke in range(4):
            own = stroke_at == stroke
            number = piece_at - piece_at.masked_fill(~own, 99).amin((1, 2), keepdim=True)
            drawn = [ink * (own & (number == i))[:, None] for i in range(4)]
            child = program([program([], canvas=canvas) for canvas in drawn], placed=drawn)
            children.append(dataclasses.replace(child, affine=child.affine.expand(len(x), 2, 3)))
            placed.append(ink * own[:, None])
        return program(children, placed=placed)


def test_the_true_parse_scores_one_and_positions_less():
    scores = evaluate_segmentation(Oracle(strokes(20, 7, 24), 24), 20, seed=7)
    assert scores["ari_parts"] == scores["ari_sub_parts"] == 1
    assert scores["ari_parts_stderr"] == scores["ari_sub_parts_stderr"] == 0
    assert 0.2 < scores["ari_parts_kmeans"] < 0.8
    assert 0.2 < scores["ari_sub_parts_kmeans"] < 0.8
    # By how much, image by image: what is found is always 1, so that both errors are the same.
    for name in ("ari_parts", "ari_sub_parts"):
        assert scores[f"{name}_less_kmeans"] == pytest.approx(1 - scores[f"{name}_kmeans"])
        error = scores[f"{name}_kmeans_stderr"]
        assert scores[f"{name}_less_kmeans_stderr"] == pytest.approx(error) != 0


def test_the_difference_from_positions_is_taken_image_by_image(model):
    scores, truth = evaluate_segmentation(model, 30, seed=3), strokes(30, 3, 16)
    with torch.no_grad():
        found = segmentation.found_labels(model.parse(truth.images))
    clumps = segmentation.position_labels(truth.parts, model.config.tau[0])
    pairs = zip(truth.parts, found, clumps, strict=True)
    less = torch.cat(
        [foreground_ari(t[None], f[None]) - foreground_ari(t[None], c[None]) for t, f, c in pairs]
    )
    assert scores["ari_parts_less_kmeans"] == pytest.approx(less.mean().item())
    assert scores["ari_parts_less_kmeans_stderr"] == pytest.approx(less.std().item() / 30**0.5)


# ---- a whole model -------------------------------------------------------------------------------


def expected_keys(tau):
    keys = {"n", "pieces"} | {f"window_max_level_{level + 1}" for level in range(len(tau))}
    for t in range(1, tau[0] + 1):
        keys |= {f"part_{t}_pieces", f"ink_part_{t}", f"removal_rise_part_{t}"}
        for s in range(1, tau[1] + 1 if len(tau) > 1 else 0):
            keys |= {f"ink_sub_part_{t}_{s}", f"removal_rise_sub_part_{t}_{s}"}
    for part in ("part", "sub_part")[: len(tau)]:
        keys |= {f"ink_{part}_min", f"removal_rise_min_{part}"}
    return keys


def test_evaluate_parts_of_an_untrained_model(model):
    images, tau = torch.rand(25, 1, 16, 16), model.config.tau
    scores = evaluate_parts(model, images)
    assert scores.keys() == expected_keys(tau)
    assert scores["n"] == 25
    assert json.loads(json.dumps(scores)) == scores

    assert all(0 <= scores[name] <= 1 for name in scores if "pieces" in name or "ink" in name)
    shares = [scores[f"ink_part_{t + 1}"] for t in range(tau[0])]
    assert sum(shares) == pytest.approx(1, abs=1e-5)
    assert scores["ink_part_min"] == min(shares)
    rises = [scores[f"removal_rise_part_{t + 1}"] for t in range(tau[0])]
    assert scores["removal_rise_min_part"] == min(rises)
    with torch.no_grad():
        tree = model.parse(images)
        assert rises == pytest.approx(parsing.removal_rise(tree, images).mean(0).tolist(), rel=1e-4)
        share, ink = pieces(torch.cat(tree.placed))
    assert scores["pieces"] == pytest.approx(((share * ink).sum() / ink.sum()).item(), rel=1e-5)
    last = slice(-25, None)
    mean = (share * ink)[last].sum() / ink[last].sum()
    assert scores[f"part_{tau[0]}_pieces"] == pytest.approx(mean.item(), rel=1e-5)
    for level in range(1, len(tau) + 1):  # 1.05: what shear adds
        assert 0.3 < scores[f"window_max_level_{level}"] < 0.6 * 1.05
    if len(tau) > 1:
        rows = [[scores[f"ink_sub_part_{t + 1}_{s + 1}"] for s in range(tau[1])] for t in range(2)]
        assert [sum(row) for row in rows] == pytest.approx([1, 1], abs=1e-5)
        assert scores["ink_sub_part_min"] == min(map(min, rows))


def test_evaluate_segmentation_of_an_untrained_model(model):
    scores = evaluate_segmentation(model, 12, seed=3)
    names = ["ari_parts", "ari_sub_parts"][: model.config.depth]
    names = [name + end for name in names for end in ("", "_kmeans", "_grid", "_less_kmeans")]
    assert scores.keys() == {"n", *names, *(f"{name}_stderr" for name in names)}
    assert scores["n"] == 12
    assert all(-0.5 < scores[name] < 1 for name in names)
    assert all(0 < scores[f"{name}_stderr"] < 0.2 for name in names if "kmeans" in name)
    assert scores == evaluate_segmentation(model, 12, seed=3)
    with pytest.raises(ValueError, match="at least 2"):
        evaluate_segmentation(model, 1)


def test_a_grid_has_k_equal_boxes_on_the_ink_alone():
    ink = torch.zeros(2, 12, 12, dtype=torch.int64)
    assert segmentation.grid_labels(ink, 4)[0, ::6, ::6].tolist() == [[0, 1], [2, 3]]
    assert segmentation.grid_labels(ink, 6)[1, ::6, ::4].tolist() == [[0, 1, 2], [3, 4, 5]]
    for k in (1, 2, 4, 6, 16):
        counts = segmentation.grid_labels(ink, k)[0].unique(return_counts=True)[1]
        assert len(counts) == k
        assert counts.max() - counts.min() <= 12  # boxes differ by a line at most
    ink[0, 3] = -1
    assert (segmentation.grid_labels(ink, 4) == -1).nonzero()[:, :2].unique(dim=0).tolist() == [
        [0, 3]
    ]


def test_found_segments_take_the_names_of_true_ones_they_cover():
    true = torch.tensor([[[0, 0, 1, 1, 1, -1]], [[-1] * 6]])
    found = torch.tensor([[[2, 2, 0, 0, 5, 7]], [[3] * 6]])
    # 2 covers stroke 0, and 0 most of stroke 1; 5 is left over and gets a name of its own.
    assert segmentation.matched(true, found).tolist() == [[[0, 0, 1, 1, 2, -1]], [[-1] * 6]]
    unseen = torch.tensor([[[-1, 4, 4, 4, 4, 4]], [[0] * 6]])
    assert segmentation.matched(true, unseen).tolist() == [[[-1, 1, 1, 1, 1, -1]], [[-1] * 6]]


def test_renaming_changes_no_partition():
    generator = torch.Generator().manual_seed(0)
    true, found = torch.randint(0, 5, (2, 20, 8, 8), generator=generator)
    renamed = segmentation.matched(true, found)
    assert (foreground_ari(renamed, found) == 1).all()
    shared = [
        ((a == b).sum(), (a == c).sum()) for a, b, c in zip(true, renamed, found, strict=True)
    ]
    assert all(after >= before for after, before in shared)
