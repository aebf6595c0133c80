"""A naive port of the paper: what the speed of the model is measured against."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnp_lib.model.hypernet import ACTION_ACTIVATIONS, PATCH_ACTIVATIONS, STATE_ACTIVATIONS
from rnp_lib.model.rnp import RNP, ImageModel
from rnp_lib.model.transforms import affine, place
from rnp_lib.model.tree import ProgramTree


class NaivePort(ImageModel):
    """The paper's algorithm written down directly, for a two-level model with `full` weights.

    All weights of a program come out of one matrix product and are sliced; every generated layer
    is a batched product of one vector per program, every child is drawn by itself. It takes the
    weights of a model, so that both can be compared, and is kept for that comparison only.
    """

    def __init__(self, model: RNP):
        super().__init__(model.config)
        self.encoder, net = model.encoder, model.hypernet
        self.trunk, self.patch_bias, self.step = net.trunk, net.patch_bias, model.step
        self.starts = nn.ModuleList([net.state_0, net.policy_0, net.action_0, net.patch_0])
        self.shapes = {name: (layer.n_in, layer.n_out) for name, layer in net.layers.items()}
        self.sizes = {name: layer.generated for name, layer in net.layers.items()}
        self.head = nn.Linear(model.config.trunk_width, sum(self.sizes.values()))
        weights, biases = [], []
        for layer in net.layers.values():
            weights.append(layer.head.weight)
            biases.append(layer.common.weight.flatten())
            if layer.bias:
                weights.append(layer.bias.weight)
                biases.append(layer.bias.bias)
        with torch.no_grad():
            self.head.weight.copy_(torch.cat(weights))
            self.head.bias.copy_(torch.cat(biases))

    def unroll(self, z: Tensor, level: int, until: int = 0) -> ProgramTree:
        """As in `RNP`, with feedback `child`."""
        c = self.config
        h = self.trunk(z)
        numbers = dict(
            zip(self.sizes, self.head(h).split(list(self.sizes.values()), 1), strict=True)
        )

        def layer(name, v, hidden=True):
            n_in, n_out = self.shapes[name]
            weight, bias = numbers[name][:, : n_in * n_out], numbers[name][:, n_in * n_out :]
            y = torch.bmm(weight.reshape(-1, n_out, n_in), v.unsqueeze(-1)).squeeze(-1)
            if hidden and c.normalise:
                y = F.layer_norm(y, (n_out,))
            y = y + bias if bias.shape[1] else y
            return F.elu(y) if hidden else y

        recur = STATE_ACTIVATIONS[c.state_activation]
        look = PATCH_ACTIVATIONS[c.patch_activation]
        act = ACTION_ACTIVATIONS[c.action_activation]
        state, policy, a, x = (start(h) for start in self.starts)
        state, policy, a, x = recur(state), recur(policy), act(a), look(x + self.patch_bias)
        side = c.image_size if level == c.depth else c.patch_size
        children, placed = [], []
        for t in range(c.tau[c.depth - level]):
            seen = torch.cat([layer("encode_x", x), layer("encode_a", a)], 1)
            e = layer("encode_3", layer("encode_2", layer("encode_1", seen)), hidden=False)
            e = e + self.step[t] if c.step_vector else e
            state = recur(layer("state_h", state, False) + layer("state_e", e, False))
            policy = recur(layer("policy_h", policy, False) + layer("policy_e", e, False))
            a = layer("action_3", layer("action_2", layer("action_1", policy)))
            a = act(layer("action_4", a, False))
            patch = layer("patch_3", layer("patch_2", layer("patch_1", state)))
            patch = look(layer("patch_4", patch, False) + self.patch_bias)
            patch = patch.view(-1, 1, c.patch_size, c.patch_size)
            matrix = affine(a, c.extent[c.depth - level], c.rotation, c.shear, c.centre)
            child = ProgramTree(z=state, canvas=patch)
            if level - 1 > until:
                child = self.unroll(state, level - 1, until)
            placed.append(place(child.canvas, matrix, side))
            children.append(replace(child, action=a, affine=matrix, patch=patch))
            x = child.canvas.flatten(1)
        parts = torch.stack(placed, 1)
        return ProgramTree(z=z, canvas=parts.sum(1), children=children, parts=parts)
