"""A naive port of the paper: what the speed of the model is measured against."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnp_lib.model.guide import Guide
from rnp_lib.model.rnp import RNP, ImageModel
from rnp_lib.model.transforms import affine, place
from rnp_lib.model.tree import ProgramTree


class NaivePort(ImageModel):
    """The paper's algorithm written down directly, for a model of the presets `paper-*`.

    All weights of a program come out of one matrix product and are sliced; every generated layer
    is a batched product of one vector per program, every child is drawn by itself. It takes the
    weights of a model, so that both can be compared, and is kept for that comparison only.
    """

    def __init__(self, model: RNP):
        super().__init__(model.config)
        self.encoder, net = model.encoder, model.hypernet
        self.trunk, self.patch_bias = net.trunk, net.patch_bias
        self.starts = nn.ModuleList([net.state_0, net.policy_0, net.action_0, net.patch_0])
        self.shapes = {name: (layer.n_out, layer.n_in) for name, layer in net.layers.items()}
        self.sizes = [layer.generated for layer in net.layers.values()]
        self.head = nn.Linear(model.config.trunk_width, sum(self.sizes))
        weights, biases = [], []
        for layer in net.layers.values():
            weights += [layer.head.weight, *([layer.bias.weight] if layer.bias else [])]
            biases += [layer.common.weight.flatten(), *([layer.bias.bias] if layer.bias else [])]
        with torch.no_grad():
            self.head.weight.copy_(torch.cat(weights))
            self.head.bias.copy_(torch.cat(biases))

    def unroll(
        self, z: Tensor, level: int, until: int = 0, guide: Guide | None = None
    ) -> ProgramTree:
        """As in `RNP`, with feedback `child` and posterior `root`: no child is chosen."""
        c = self.config
        h = self.trunk(z)
        numbers = dict(zip(self.shapes, self.head(h).split(self.sizes, 1), strict=True))

        def layer(name: str, v: Tensor) -> Tensor:
            shape = self.shapes[name]
            weight, bias = numbers[name].tensor_split([shape[0] * shape[1]], 1)
            y = torch.bmm(weight.reshape(-1, *shape), v.unsqueeze(-1)).squeeze(-1)
            return y + bias if bias.shape[1] else y

        def network(kind: str, v: Tensor, layers: int) -> Tensor:
            for i in range(1, layers):
                v = F.elu(layer(f"{kind}_{i}", v))
            return layer(f"{kind}_{layers}", v)

        state, policy, a, x = (start(h) for start in self.starts)
        state, policy, a, x = F.elu(state), F.elu(policy), a.sin(), F.relu(x + self.patch_bias)
        side = c.image_size if level == c.depth else c.patch_size
        children, placed = [], []
        for _ in range(c.tau[c.depth - level]):
            seen = torch.cat([F.elu(layer("encode_x", x)), F.elu(layer("encode_a", a))], 1)
            e = network("encode", seen, 3)
            state = F.elu(layer("state_h", state) + layer("state_e", e))
            policy = F.elu(layer("policy_h", policy) + layer("policy_e", e))
            a = network("action", policy, 4).sin()
            patch = F.relu(network("patch", state, 4) + self.patch_bias)
            patch = patch.view(-1, *c.patch_shape)
            matrix = affine(a, c.extent[c.depth - level], c.rotation, c.shear, c.centre)
            child = ProgramTree(z=state, canvas=patch)
            if level - 1 > until:
                child = self.unroll(state, level - 1, until)
            placed.append(place(child.canvas, matrix, side))
            children.append(replace(child, action=a, affine=matrix, patch=patch))
            x = child.canvas.flatten(1)
        parts = torch.stack(placed, 1)
        return ProgramTree(z=z, canvas=parts.sum(1), children=children, parts=parts)
