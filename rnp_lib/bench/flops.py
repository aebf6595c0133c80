"""Floating-point operations of an image, by formula and as they are counted while they run."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from rnp_lib.bench.naive import NaivePort
from rnp_lib.model.hypernet import FullLinear
from rnp_lib.model.rnp import ImageModel
from rnp_lib.model.vae import PlainVAE


def flops_per_image(model: ImageModel) -> int:
    """Floating-point operations of one image forward, by formula: matrix products and convolutions.

    A program counts its trunk and heads once and its generated layers once for each of its τ steps.
    """
    c = model.config
    total = _layer_flops(model.encoder, torch.zeros(1, 1, c.image_size, c.image_size))
    if isinstance(model, PlainVAE):
        return total + _layer_flops(model.decoder, torch.zeros(1, c.z_dim))
    if isinstance(model, NaivePort):
        net, starts = model, model.starts
        generated, multiplied = model.head.out_features, sum(i * o for i, o in net.shapes.values())
    else:
        net = model.hypernet
        starts = [net.state_0, net.policy_0, net.action_0]
        starts += [net.patch_0] if c.feedback != "none" else []
        generated = sum(layer.generated for layer in net.layers.values())
        multiplied = sum(_multiplied(layer) for layer in net.layers.values())
    once = _layer_flops(net.trunk, torch.zeros(1, c.z_dim)) + 2 * c.trunk_width * generated
    once += sum(_layer_flops(start, torch.zeros(1, c.trunk_width)) for start in starts)
    programs = 1
    for tau in c.tau:
        total += programs * (once + 2 * tau * multiplied)
        programs *= tau
    return total


def _multiplied(layer: nn.Module) -> int:
    """Entries of the matrices that one vector meets in a generated layer."""
    if isinstance(layer, FullLinear):
        return layer.n_in * layer.n_out
    return layer.v.weight.numel() + layer.u.weight.numel()


def _layer_flops(module: nn.Module, x: torch.Tensor) -> int:
    """2 × weights × places where they are used, for the linear layers and convolutions run on x."""
    total = 0

    def count(layer, inputs, output):
        nonlocal total
        transposed = isinstance(layer, nn.ConvTranspose2d)
        places = (inputs[0] if transposed else output)[0, 0].numel() if output.ndim == 4 else 1
        total += 2 * layer.weight.numel() * places

    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [m.register_forward_hook(count) for m in module.modules() if isinstance(m, kinds)]
    training = module.training
    with torch.no_grad():
        module.eval()(x)
    module.train(training)
    for hook in hooks:
        hook.remove()
    return total


@torch.no_grad()
def counted_flops(model: ImageModel, x: Tensor) -> float:
    """The same for images x (B, 1, H, W), as torch.utils.flop_counter sees them."""
    with FlopCounterMode(display=False) as counter:
        model.parse(x)
    return counter.get_total_flops() / len(x)
