"""The hypernetwork H: a program z becomes the weights of a small recurrent network (section 2.1).

A generated layer multiplies its input v by a matrix that depends on z. `FullLinear` generates every
entry of that matrix, as the paper does; `FactorisedLinear` generates its r factors only.
Inputs of generated layers are (B, T, n): B programs, T vectors for each of them.
"""

from collections import defaultdict
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
        self.initialise(self.generated)

    @property
    def generated(self) -> int:
        return self.head.out_features + (self.bias.out_features if self.bias else 0)

    def initialise(self, outputs: int) -> None:
        """Glorot's start for a head that emits `outputs` numbers, those of other layers included.

        The more a head emits, the weaker its network starts: with weights of the usual variance
        1/n_in, unnormalised recurrent networks start out chaotic and training diverges.
        """
        for head in (self.head, self.bias) if self.bias else (self.head,):
            nn.init.normal_(head.weight, std=(2 / (head.in_features + outputs)) ** 0.5)
        nn.init.zeros_(self.common.weight)
        if self.bias:
            nn.init.zeros_(self.bias.bias)

    def forward(self, h: Tensor) -> Bound:
        weight = F.linear(h, self.head.weight, self.common.weight.flatten())
        weight = weight.view(-1, self.n_out, self.n_in)
        bias = self.bias(h).unsqueeze(1) if self.bias else None
        return partial(self._apply_to, *_shared_weight(weight), bias)

    def _apply_to(self, weight, uses, token, bias: Tensor | None, v: Tensor, norm=None) -> Tensor:
        y = _Use.apply(v.to(weight.dtype), token, weight, uses)
        y = norm(y) if norm else y
        return y if bias is None else y + bias


def _shared_weight(weight: Tensor) -> tuple[Tensor, list, Tensor]:
    """What `_Use` needs of generated weights (B, out, in) that are used once in every step.

    They are the bulk of all memory traffic: autograd would write their gradient once for each use
    and add it up. Instead every use leaves its factors in a list, and the token, on which all uses
    depend, makes one batched product of them when the last one has been differentiated.
    """
    uses: list[tuple[Tensor, Tensor]] = []
    return weight.detach(), uses, _CollectUses.apply(weight, uses)


class _CollectUses(torch.autograd.Function):
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


GENERATED_LAYERS = {"full": FullLinear, "factorised": FactorisedLinear}

STATE_ACTIVATIONS = {"tanh": torch.tanh, "elu": F.elu}
PATCH_ACTIVATIONS = {"sigmoid": torch.sigmoid, "relu": F.relu}
ACTION_ACTIVATIONS = {"tanh": torch.tanh, "sin": torch.sin}


class HyperNetwork(nn.Module):
    """z (B, |z|) -> `Program`: one trunk and seven heads, shared by all levels of the tree."""

    def __init__(self, config: Config):
        super().__init__()
        c = self.config = config
        pixels = c.patch_size**2
        trunk, size = [], c.z_dim
        for _ in range(c.trunk_depth):
            trunk += [nn.Linear(size, c.trunk_width), nn.LayerNorm(c.trunk_width), nn.ELU()]
            size = c.trunk_width
        self.trunk = nn.Sequential(*trunk)

        self.layers = nn.ModuleDict()
        self._add_layers(encode_a=(6, c.hidden), encode_1=(c.hidden, c.hidden))
        if c.feedback != "none":
            self._add_layers(encode_x=(pixels, c.hidden), encode_1=(2 * c.hidden, c.hidden))
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
            self.patch_0 = self._start_head(pixels)
        if c.dabs:
            self.register_buffer("dab", _dab(c.patch_size), persistent=False)
            self.register_buffer("dab_share", torch.zeros(()), persistent=False)
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
        kind = GENERATED_LAYERS[c.hypernet]
        for name, (n_in, n_out) in shapes.items():
            self.layers[name] = kind(c.trunk_width, n_in, n_out, bias, c.rank)

    def _initialise_networks(self) -> None:
        """As the authors' code does it: one head emits all weights of a generated network."""
        networks = defaultdict(list)
        for name, layer in self.layers.items():
            networks[name.split("_")[0]].append(layer)
        for layers in networks.values():
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
        action_0: (B, 1, 6); patch_0: (B, 1, pixels), or None without feedback.
    """

    def __init__(self, net: HyperNetwork, h: Tensor):
        c = net.config
        self.layers = {name: layer(h) for name, layer in net.layers.items()}
        self.norm = _layer_norm if c.normalise else None
        self.state_activation = STATE_ACTIVATIONS[c.state_activation]
        self.patch_activation = PATCH_ACTIVATIONS[c.patch_activation]
        self.action_activation = ACTION_ACTIVATIONS[c.action_activation]
        self.patch_bias = net.patch_bias
        self.dab, self.dab_share = (net.dab, net.dab_share) if c.dabs else (None, None)
        h = h.unsqueeze(1)
        self.state_0 = self.state_activation(net.state_0(h))
        self.policy_0 = self.state_activation(net.policy_0(h))
        self.action_0 = self.action_activation(net.action_0(h))
        self.patch_0 = None
        if c.feedback != "none":
            self.patch_0 = self.patch_activation(net.patch_0(h) + net.patch_bias)

    def _hidden(self, name: str, v: Tensor) -> Tensor:
        return F.elu(self.layers[name](v, self.norm))

    def encode(self, patch: Tensor | None, action: Tensor) -> Tensor:
        """E: what the last step drew (B, T, pixels), or None, and its action (B, T, 6) -> e."""
        seen = self._hidden("encode_a", action)
        if patch is not None:
            seen = torch.cat([self._hidden("encode_x", patch), seen], -1)
        return self.layers["encode_3"](self._hidden("encode_2", self._hidden("encode_1", seen)))

    def next_state(self, state: Tensor, e: Tensor) -> Tensor:
        """f_state: (B, T, |z|), (B, T, e) -> (B, T, |z|), which is the child program."""
        return self.state_activation(self.layers["state_h"](state) + self.layers["state_e"](e))

    def next_policy(self, policy: Tensor, e: Tensor) -> Tensor:
        """f_policy: as `next_state`, for the hidden state behind the action."""
        return self.state_activation(self.layers["policy_h"](policy) + self.layers["policy_e"](e))

    def action(self, policy: Tensor) -> Tensor:
        """T: (B, T, |z|) -> (B, T, 6), each in [-1, 1]."""
        for name in ("action_1", "action_2", "action_3"):
            policy = self._hidden(name, policy)
        return self.action_activation(self.layers["action_4"](policy))

    def patch(self, state: Tensor) -> Tensor:
        """D: (B, T, |z|) -> (B, T, pixels), what the child looks like."""
        for name in ("patch_1", "patch_2", "patch_3"):
            state = self._hidden(name, state)
        patch = self.patch_activation(self.layers["patch_4"](state) + self.patch_bias)
        return patch if self.dab is None else patch + self.dab_share * (self.dab - patch)
