"""Image encoders: an image to the mean and log standard deviation of its root program."""

import torch.nn.functional as F
from torch import Tensor, nn


class MatrixConv2d(nn.Conv2d):
    """A convolution whose kernel is a matrix (out, in·k·k), as the Muon optimiser needs."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.kernel_shape = self.weight.shape
        self.weight = nn.Parameter(self.weight.detach().flatten(1))

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight.view(self.kernel_shape), self.bias)


class PreActivationBlock(nn.Module):
    """x + conv(conv(x)), normalisation and ELU before each; the identity when training starts."""

    def __init__(self, channels: int):
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(8, channels) for _ in range(2))
        self.convs = nn.ModuleList(
            MatrixConv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2)
        )
        nn.init.zeros_(self.convs[1].weight)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.elu(norm(y)))
        return x + y


def light_encoder(image_size: int, outputs: int, inputs: int = 1) -> nn.Sequential:
    """Two strided convolutions, each with a residual block, and one hidden layer: ours."""
    channels, units = 32, 256
    side = image_size // 2 // 2
    return nn.Sequential(
        MatrixConv2d(inputs, channels, 4, stride=2, padding=1),
        PreActivationBlock(channels),
        MatrixConv2d(channels, channels, 4, stride=2, padding=1),
        PreActivationBlock(channels),
        nn.Flatten(),
        nn.Linear(channels * side * side, units),
        nn.LayerNorm(units),
        nn.ELU(),
        nn.Linear(units, outputs),
    )


class ResNetBlock(nn.Module):
    """conv-norm-relu-conv-norm plus a shortcut (He et al. 2016), as the paper's encoder uses."""

    def __init__(self, n_in: int, channels: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            MatrixConv2d(n_in, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            MatrixConv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Identity()
        if stride != 1 or n_in != channels:
            self.shortcut = MatrixConv2d(n_in, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


def resnet_encoder(image_size: int, outputs: int, inputs: int = 1) -> nn.Sequential:
    """Five ResNet blocks of 32 channels and four fully connected layers of 64 units (the paper).

    The paper gives no strides: the second and fourth block halve the image here.
    """
    channels, units = 32, 64
    strides = (1, 2, 1, 2, 1)
    before = (inputs, *[channels] * 4)
    side = (image_size + 3) // 4  # two strides of 2, each rounding up
    return nn.Sequential(
        *(ResNetBlock(n, channels, s) for n, s in zip(before, strides, strict=True)),
        nn.Flatten(),
        nn.Linear(channels * side * side, units),
        nn.ELU(),
        nn.Linear(units, units),
        nn.ELU(),
        nn.Linear(units, units),
        nn.ELU(),
        nn.Linear(units, outputs),
    )


ENCODERS = {"light": light_encoder, "resnet": resnet_encoder}
