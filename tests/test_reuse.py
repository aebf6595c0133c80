"""Actions found by gradient descent put copies of a primitive where they belong."""

import torch

from rnp_lib.analysis.reuse import fit_actions
from rnp_lib.model.transforms import affine, place


def test_it_finds_two_copies_that_were_hidden_in_a_target():
    primitive = torch.zeros(1, 1, 14, 14)
    primitive[..., 3:11, 5:9] = 1
    hidden = torch.tensor([[0.2, 0.1, 0.3, 0.0, -0.6, 0.2], [0.0, 0.3, -0.4, 0.0, 0.5, -0.3]])
    maps = affine(hidden, (0.2, 0.8), rotation=180.0)
    target = place(primitive.expand(2, -1, -1, -1), maps, 28).sum(0, keepdim=True)

    with torch.no_grad():  # as in a notebook: the search turns gradients on by itself
        actions, copies = fit_actions(primitive, target, copies=2, extent=(0.2, 0.8))

    assert actions.shape == (2, 6)
    assert actions.abs().max() <= 1
    assert copies.shape == (1, 2, 1, 28, 28)
    error = (copies.sum(1) - target).square().sum()
    assert error < 0.02 * target.square().sum()
