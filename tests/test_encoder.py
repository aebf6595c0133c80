"""The image encoders."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rnp_lib.model.encoder import ENCODERS, MatrixConv2d, PreActivationBlock, ResNetBlock
from rnp_lib.model.rnp import RNP
from rnp_lib.presets import PRESETS

BOTH = pytest.mark.parametrize("name", list(ENCODERS))


def excite(encoder):
    """Give convolutions that start at zero random kernels, so that nothing is idle."""
    for module in encoder.modules():
        if isinstance(module, MatrixConv2d) and not module.weight.any():
            nn.init.normal_(module.weight, std=0.1)
    return encoder


@BOTH
@pytest.mark.parametrize("size", [8, 9, 11, 28, 30, 33])
def test_any_image_size(name, size):
    encoder = ENCODERS[name](size, 10)
    assert encoder(torch.rand(3, 1, size, size)).shape == (3, 10)


@pytest.mark.parametrize(
    "options",
    [dict(padding=1), dict(stride=2, padding=1, bias=False), dict(groups=2), dict(dilation=2)],
    ids=str,
)
def test_a_convolution_with_its_kernel_as_a_matrix(options):
    torch.manual_seed(3)
    matrix = MatrixConv2d(4, 6, 3, **options)
    torch.manual_seed(3)
    usual = nn.Conv2d(4, 6, 3, **options)
    x = torch.rand(2, 4, 8, 8)
    assert matrix.weight.ndim == 2
    assert matrix.weight.is_leaf
    torch.testing.assert_close(matrix(x), usual(x))
    matrix(x).square().sum().backward()
    usual(x).square().sum().backward()
    torch.testing.assert_close(matrix.weight.grad, usual.weight.grad.flatten(1))


@BOTH
def test_every_weight_but_the_gains_is_a_matrix(name):
    for module in ENCODERS[name](28, 10).modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            assert module.weight.ndim == 2


def test_residual_block_starts_as_the_identity():
    block = PreActivationBlock(32)
    x = torch.randn(2, 32, 7, 7)
    assert torch.equal(block(x), x)
    first, second = excite(block).convs
    hidden = F.elu(F.group_norm(x, 8))
    hidden = F.conv2d(hidden, first.weight.view(32, 32, 3, 3), padding=1)
    hidden = F.elu(F.group_norm(hidden, 8))
    expected = x + F.conv2d(hidden, second.weight.view(32, 32, 3, 3), padding=1)
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n_in", "stride"), [(4, 1), (4, 2), (1, 1), (1, 2)])
def test_resnet_block(n_in, stride):
    block = ResNetBlock(n_in, 4, stride).eval()
    x = torch.randn(2, n_in, 9, 9)
    first, second = (m for m in block.body if isinstance(m, MatrixConv2d))
    # Running statistics of a new block are 0 and 1: its normalisation divides by √(1 + ε).
    scale = (1 + block.body[1].eps) ** -0.5
    y = F.conv2d(x, first.weight.view(4, n_in, 3, 3), stride=stride, padding=1) * scale
    y = F.conv2d(F.relu(y), second.weight.view(4, 4, 3, 3), padding=1) * scale
    if n_in == 4 and stride == 1:
        shortcut = x
    else:
        shortcut = F.conv2d(x, block.shortcut.weight.view(4, n_in, 1, 1), stride=stride)
    torch.testing.assert_close(block(x), F.relu(y + shortcut))


def test_the_paper_s_encoder():
    model = RNP(PRESETS["paper-mnist"])
    blocks = [m for m in model.encoder if isinstance(m, ResNetBlock)]
    layers = [m for m in model.encoder if isinstance(m, nn.Linear)]
    convolutions = [m for m in model.encoder.modules() if isinstance(m, nn.Conv2d)]
    assert len(blocks) == 5
    assert {conv.out_channels for conv in convolutions} == {32}
    # Three hidden layers of 64 units, then mean and log standard deviation of z.
    assert [layer.out_features for layer in layers] == [64, 64, 64, 2 * 32]
    # LayerNorm inside H's trunk only.
    norms = [name for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 6
    assert all(name.startswith("hypernet.trunk") for name in norms)


@BOTH
def test_gradients_reach_every_parameter(name):
    encoder = excite(ENCODERS[name](12, 6))
    encoder(torch.rand(4, 1, 12, 12)).square().sum().backward()
    idle = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


@BOTH
def test_an_image_is_encoded_whatever_stands_beside_it(name):
    encoder = excite(ENCODERS[name](12, 6)).eval().double()
    x = torch.rand(5, 1, 12, 12, dtype=torch.float64)
    alone = torch.cat([encoder(image) for image in x.split(1)])
    torch.testing.assert_close(encoder(x), alone)
    assert not torch.allclose(alone[0], alone[1])


def test_the_light_encoder_is_the_same_in_training():
    encoder = excite(ENCODERS["light"](12, 6))
    x = torch.rand(5, 1, 12, 12)
    assert torch.equal(encoder.train()(x), encoder.eval()(x))
