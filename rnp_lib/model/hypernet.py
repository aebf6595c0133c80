"""The hypernetwork H: a program z becomes the weights of a small recurrent network (section 2.1).

A generated layer multiplies its input v by a matrix that depends on z. `FullLinear` generates every
entry of that matrix, as the paper does; `FactorisedLinear` generates its r factors only.
Inputs of generated layers are (B, T, n): B programs, T vectors for each of them.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rnp_lib.config import Config

# Two widths that the paper does not state, as the authors' code has them.
E_DIM = 32  # what the generated encoder hands to the recurrent networks
ACTION_HIDDEN = 32  # hidden units of the action decoder

# What a bound layer is called with: (v, norm) -> y, the normalisation going before the bias.
Bound = Callable[..., Tensor]


class FullLinear(nn.Module):
    """y = W(h) v + b(h), with every entry of W and b an affine function of the trunk's output h.

    The constant of that function, what all programs have in common of W, is itself a matrix for the
    optimiser.
    """

    def __init__(self, width: int, n_in: int, n_out: int, bias: bool, rank: int):
        super().__init__()
        self.n_in, self.n_out = n_in, n_out
        self.head = nn.Linear(width, n_out * n_in, bias=False)
        self.common = nn.Linear(n_in, n_out, bias=False)
        self.bias = nn.Linear(width, n_out) if bias else None
        self.generated = n_out * (n_in + bias)
        self.initialise(self.generated)

    def initialise(self, outputs: int) -> None:
        """Glorot's start for a head that emits `outputs` numbers, those of other layers included.

        The more a head emits, the weaker its network starts: with weights of the usual variance
        1/n_in, unnormalised recurrent networks start out chaotic and training diverges.
        """
        std = (2 / (self.head.in_features + outputs)) ** 0.5
        nn.init.normal_(self.head.weight, std=std)
        nn.init.zeros_(self.common.weight)
        if self.bias:
            nn.init.normal_(self.bias.weight, std=std)
            nn.init.zeros_(self.bias.bias)

    def forward(self, h: Tensor) -> Bound:
        weight = F.linear(h, self.head.weight, self.common.weight.flatten())
        weight = weight.view(-1, self.n_out, self.n_in)
        bias = self.bias(h).unsqueeze(1) if self.bias else None
        # Generated weights are the bulk of all memory traffic: autograd would write their gradient
        # once for each use and add it up. Instead every use leaves its factors in a list, and the
        # token, on which all uses depend, makes one batched product of them when the last one has
        # been differentiated.
        uses: list[tuple[Tensor, Tensor]] = []
        token = _CollectUses.apply(weight, uses)
        return partial(self._apply_to, weight.detach(), uses, token, bias)

    def _apply_to(self, weight, uses, token, bias: Tensor | None, v: Tensor, norm=None) -> Tensor:
        y = _Use.apply(v.to(weight.dtype), token, weight, uses)
        y = norm(y) if norm else y
        return y if bias is None else y + bias


class _CollectUses(torch.autograd.Function):
    """weight (B, out, in) -> the token of its uses."""

    @staticmethod
    def forward(ctx, weight, uses):
        ctx.uses = uses
        return weight.new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx, _):
        v, dy = (torch.cat(tensors, 1) for tensors in zip(*ctx.uses, strict=True))
        ctx.uses.clear()
        return torch.bmm(dy.mT, v), None


class _Use(torch.autograd.Function):
    """v (B, T, in), weight (B, out, in) -> (B, T, out)."""

    @staticmethod
    def forward(ctx, v, token, weight, uses):
        ctx.save_for_backward(v, token, weight)
        ctx.uses = uses
        return torch.bmm(v, weight.mT)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy):
        v, token, weight = ctx.saved_tensors
        ctx.uses.append((v, dy))
        return torch.bmm(dy, weight), torch.zeros_like(token), None, None


class FactorisedLinear(nn.Module):
    """y = U (s(h) * V v) + b(h): the same bilinear form with its tensor in rank-r (CP) factors."""

    def __init__(self, width: int, n_in: int, n_out: int, bias: bool, rank: int):
        super().__init__()
        self.rank = rank
        self.v = nn.Linear(n_in, rank, bias=False)
        self.u = nn.Linear(rank, n_out, bias=False)
        self.head = nn.Linear(width, rank + bias * n_out)
        nn.init.normal_(self.v.weight, std=n_in**-0.5)
        nn.init.normal_(self.u.weight, std=rank**-0.5)
        nn.init.zeros_(self.head.bias)
        nn.init.ones_(self.head.bias[:rank])

    def forward(self, h: Tensor) -> Bound:
        scale, bias = self.head(h).unsqueeze(1).tensor_split([self.rank], -1)
        return partial(self._apply_to, scale, bias)

    def _apply_to(self, scale: Tensor, bias: Tensor, v: Tensor, norm=None) -> Tensor:
        y = self.u(scale * self.v(v))
        y = norm(y) if norm else y
        return y + bias if bias.shape[-1] else y


def _layer_norm(y: Tensor) -> Tensor:
    return F.layer_norm(y, y.shape[-1:])


ACTIVATIONS = {f.__name__: f for f in (torch.tanh, torch.sin, torch.sigmoid, F.elu, F.relu)}


class HyperNetwork(nn.Module):
    """z (B, |z|) -> `Program`: one trunk and seven heads, shared by all levels of the tree."""

    def __init__(self, config: Config):
        super().__init__()
        c = self.config = config
        pixels = c.patch_size**2
        seen = c.channels * pixels  # numbers of a patch as it is seen
        trunk, size = [], c.z_dim
        for _ in range(c.trunk_depth):
            trunk += [nn.Linear(size, c.trunk_width), nn.LayerNorm(c.trunk_width), nn.ELU()]
            size = c.trunk_width
        self.trunk = nn.Sequential(*trunk)

        self.layers = nn.ModuleDict()
        self._add_layers(encode_a=(6, c.hidden), encode_1=(c.hidden, c.hidden))
        if c.feedback != "none":
            self._add_layers(encode_x=(seen, c.hidden), encode_1=(2 * c.hidden, c.hidden))
        self._add_layers(encode_2=(c.hidden, c.hidden), encode_3=(c.hidden, E_DIM))
        self._add_layers(state_e=(E_DIM, c.z_dim), policy_e=(E_DIM, c.z_dim))
        self._add_layers(bias=False, state_h=(c.z_dim, c.z_dim), policy_h=(c.z_dim, c.z_dim))
        self._add_layers(patch_1=(c.z_dim, c.hidden))
        self._add_layers(patch_2=(c.hidden, c.hidden), patch_3=(c.hidden, c.hidden))
        self._add_layers(bias=False, patch_4=(c.hidden, pixels))
        self._add_layers(action_1=(c.z_dim, ACTION_HIDDEN))
        self._add_layers(action_2=(ACTION_HIDDEN,) * 2, action_3=(ACTION_HIDDEN,) * 2)
        self._add_layers(bias=False, action_4=(ACTION_HIDDEN, 6))
        if c.hypernet == "full":
            self._initialise_networks()

        self.state_0 = nn.Linear(c.trunk_width, c.z_dim)
        self.policy_0 = nn.Linear(c.trunk_width, c.z_dim)
        self.action_0 = self._start_head(6)
        if c.feedback != "none":
            self.patch_0 = self._start_head(seen)
        if c.dabs:
            self.register_buffer("dab", _dab(c.patch_size), persistent=False)
            self.register_buffer("dab_share", torch.zeros(()), persistent=False)
        if c.channels == 3:
            self.ink = nn.Linear(c.z_dim, c.channels)
        # A dark patch to begin with: most of an image is background, and the canvas is a sum.
        dark = -2.0 if c.patch_activation == "sigmoid" else 0.0
        self.patch_bias = nn.Parameter(torch.full((1,), dark))

    def mix_in_dabs(self, images_seen: int) -> None:
        """What patches are after so many images of training: dabs, a mixture, or what is decoded.

        Alone a patch can draw whatever lies in its window, so windows hardly learn to move; a dab
        draws nothing unless it lies where the ink is.
        """
        self.dab_share.fill_(min(1.0, max(0.0, 2 - images_seen / self.config.dabs)))

    def _add_layers(self, bias: bool = True, **shapes: tuple[int, int]) -> None:
        c = self.config
        kind = FullLinear if c.hypernet == "full" else FactorisedLinear
        for name, (n_in, n_out) in shapes.items():
            self.layers[name] = kind(c.trunk_width, n_in, n_out, bias, c.rank)

    def _initialise_networks(self) -> None:
        """As the authors' code does it: one head emits all weights of a generated network."""
        for network in ("encode", "state", "policy", "patch", "action"):
            layers = [layer for name, layer in self.layers.items() if name.startswith(network)]
            for layer in layers:
                layer.initialise(sum(layer.generated for layer in layers))

    def _start_head(self, n_out: int) -> nn.Sequential:
        width = self.config.trunk_width
        return nn.Sequential(nn.Linear(width, width), nn.ELU(), nn.Linear(width, n_out))

    def forward(self, z: Tensor) -> "Program":
        return Program(self, self.trunk(z))


def _dab(size: int) -> Tensor:
    """A round spot, 1 in its middle, whose standard deviation is a fifth of its side: (size²,)."""
    line = torch.linspace(-1, 1, size)
    return torch.exp(-(line[:, None].square() + line.square()) / (2 * 0.4**2)).flatten()


class Program:
    """The generated networks of a batch of B programs, their weights bound to z.

    Attributes:
        state_0, policy_0: initial hidden states (B, 1, |z|).
        action_0: (B, 1, 6); patch_0: (B, 1, C · pixels), or None without feedback.
    """

    def __init__(self, net: HyperNetwork, h: Tensor):
        self.net, c = net, net.config
        self.layers = {name: layer(h) for name, layer in net.layers.items()}
        self.norm = _layer_norm if c.normalise else None
        self.state_activation = ACTIVATIONS[c.state_activation]
        self.patch_activation = ACTIVATIONS[c.patch_activation]
        self.action_activation = ACTIVATIONS[c.action_activation]
        h = h.unsqueeze(1)
        self.state_0 = self.state_activation(net.state_0(h))
        self.policy_0 = self.state_activation(net.policy_0(h))
        self.action_0 = self.action_activation(net.action_0(h))
        self.patch_0 = None
        if c.feedback != "none":
            self.patch_0 = self.patch_activation(net.patch_0(h) + net.patch_bias)

    def _hidden(self, name: str, v: Tensor) -> Tensor:
        return F.elu(self.layers[name](v, self.norm))

    def _network(self, name: str, layers: int, v: Tensor) -> Tensor:
        for i in range(1, layers):
            v = self._hidden(f"{name}_{i}", v)
        return self.layers[f"{name}_{layers}"](v)

    def encode(self, patch: Tensor | None, action: Tensor) -> Tensor:
        """E: what the last step drew (B, T, C · pixels), or None, and its action (B, T, 6) -> e."""
        seen = self._hidden("encode_a", action)
        if patch is not None:
            seen = torch.cat([self._hidden("encode_x", patch), seen], -1)
        return self._network("encode", 3, seen)

    def next_state(self, state: Tensor, e: Tensor) -> Tensor:
        """f_state: (B, T, |z|), (B, T, e) -> (B, T, |z|), which is the child program."""
        return self.state_activation(self.layers["state_h"](state) + self.layers["state_e"](e))

    def next_policy(self, policy: Tensor, e: Tensor) -> Tensor:
        """f_policy: as `next_state`, for the hidden state behind the action."""
        return self.state_activation(self.layers["policy_h"](policy) + self.layers["policy_e"](e))

    def place(self, policy: Tensor) -> Tensor:
        """T but for its last activation: (B, T, |z|) -> u (B, T, 6)."""
        return self._network("action", 4, policy)

    def squash(self, u: Tensor) -> Tensor:
        """The action of u, (..., 6): each in [-1, 1]."""
        return self.action_activation(u)

    def patch(self, state: Tensor) -> Tensor:
        """D: (B, T, |z|) -> (B, T, C · pixels), what the child looks like.

        In colour each child has an ink, what its full strength adds to the paper, from -1 to 1.
        """
        net = self.net
        patch = self.patch_activation(self._network("patch", 4, state) + net.patch_bias)
        if net.config.dabs:
            patch = patch + net.dab_share * (net.dab - patch)
        if net.config.channels == 1:
            return patch
        ink = net.ink(state).tanh()
        return (ink.unsqueeze(-1) * patch.unsqueeze(-2)).flatten(-2)
