"""Parts that move and are shared, beside sums over one part at a time."""

import pytest
import tiny
import torch

from rnp_lib.analysis.mobility import evaluate_mobility
from rnp_lib.model import build
from rnp_lib.model.objective import reconstruction_error
from rnp_lib.model.transforms import affine, place


@pytest.fixture(scope="module", params=["root", "tree"])
def model(request):
    config = tiny.config(posterior=request.param, tau=(3, 2), images=(160, 160))
    return tiny.disturbed(config, torch.float32).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def images():
    return torch.rand(40, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def test_what_stays_is_what_parses_show(model, images):
    found = evaluate_mobility(model, images, images[:20])
    assert (found["n"], found["known"]) == (40, 20)
    expected = reconstruction_error(model, images).double().mean().item()
    assert found["sse"] == pytest.approx(expected, rel=1e-5)
    tree = model.parse(images)
    for t, part in enumerate(tree.children):
        pixels = part.affine[:, :, 2] * 15 / 2  # a frame is 2 wide between its border pixels
        spread = max(pixels[:, 0].std(), pixels[:, 1].std()).item()
        assert found[f"centre_sd_part_{t + 1}"] == pytest.approx(spread, rel=1e-4)
    spreads = [found[f"centre_sd_part_{t}"] for t in (1, 2, 3)]
    assert found["centre_sd_min"] == min(spreads)


def test_windows_that_do_not_move_are_those_of_the_mean_action(model, images):
    c, tree = model.config, model.parse(images)
    drawn = torch.zeros_like(images)
    for part in tree.children:
        action = part.action.mean(0, keepdim=True).expand_as(part.action)
        window = affine(action, c.extent[0], c.rotation, c.shear, c.centre)
        # what the part draws, in its own frame, without what the image says of its children
        drawn = drawn + place(model.decode(part.z, 1).canvas, window, 16)
    expected = (drawn - images).square().sum((1, 2, 3)).double().mean().item()
    found = evaluate_mobility(model, images, images[:10])
    assert found["sse_fixed_windows"] == pytest.approx(expected, rel=1e-4)


def test_parts_that_are_known_are_their_own_nearest(model, images):
    found = evaluate_mobility(model, images[:10], images)
    assert found["sse_same_turn"] <= found["sse"] * (1 + 1e-5)  # fitting starts there
    assert 0 <= found["turn_read"] <= 1


def test_a_turn_with_a_code_of_its_own_is_read(images):
    config = tiny.config(posterior="tree", tau=(3, 2), images=(160, 160))
    model = build(config, 0).requires_grad_(False).eval()
    layers = model.reader.what_layers[-1]
    layers.weight.zero_()
    layers.bias[config.z_dim :] = 6.0  # messages that say nothing: what is predicted stays
    model.step.mul_(100)  # and differs from turn to turn
    assert evaluate_mobility(model, images, images)["turn_read"] == 1.0
