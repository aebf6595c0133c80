"""What the model is measured against: a naive port of the paper, and a plain VAE."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Normal

from rnp_lib.config import Config
from rnp_lib.encoder import ENCODERS, MatrixConv2d
from rnp_lib.hypernet import ACTION_ACTIVATIONS, PATCH_ACTIVATIONS, STATE_ACTIVATIONS
from rnp_lib.model import RNP
from rnp_lib.objective import Terms, kl_to_prior, squared_error
from rnp_lib.transforms import affine, place, zoom


class NaivePort(nn.Module):
    """The paper's algorithm written down directly, for a two-level model with `full` weights.

    All weights of a program come out of one matrix product and are sliced; every generated layer
    is a batched product of one vector per program, every child is drawn by itself. It takes the
    weights of a model, so that both can be compared, and is kept for that comparison only.
    """

    def __init__(self, model: RNP):
        super().__init__()
        self.config, self.encoder, self.encode = model.config, model.encoder, model.encode
        net = model.hypernet
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

    def unroll(self, z: Tensor, level: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """z (B, |z|) -> canvas (B, 1, H, W), and each child's patch and affine map."""
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
        canvas, patches, maps = 0, [], []
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
            y = self.unroll(state, level - 1)[0] if level > 1 else patch
            x = y.flatten(1)
            matrix = affine(a, c.extent[c.depth - level], c.rotation, c.shear, c.centre)
            canvas = canvas + place(y, matrix, side)
            patches.append(patch)
            maps.append(matrix)
        return canvas, patches, maps

    def terms(self, x: Tensor, noise: Tensor) -> Terms:
        """As `objective.terms` with the paper's part term."""
        q = self.encode(x)
        canvas, patches, maps = self.unroll(q.mean + q.scale * noise, self.config.depth)
        parts = [
            squared_error(patch, zoom(x, matrix.detach(), patch.shape[-1]))
            for patch, matrix in zip(patches, maps, strict=True)
        ]
        return Terms(squared_error(canvas, x), kl_to_prior(q), torch.stack(parts).mean(0))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.unroll(self.encode(x).mean, self.config.depth)[0]


class PlainVAE(nn.Module):
    """A VAE with the same image encoder and |z|, and the light encoder turned around as decoder."""

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        self.encoder = ENCODERS[config.encoder](config.image_size, 2 * config.z_dim)
        self.side = config.image_size // 4
        channels, units = 32, 256
        self.decoder = nn.Sequential(
            nn.Linear(config.z_dim, units),
            nn.LayerNorm(units),
            nn.ELU(),
            nn.Linear(units, channels * self.side**2),
            nn.Unflatten(1, (channels, self.side, self.side)),
            nn.ELU(),
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
            nn.GroupNorm(8, channels),
            nn.ELU(),
            nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),
            nn.GroupNorm(8, channels),
            nn.ELU(),
            MatrixConv2d(channels, 1, 3, padding=1),
            nn.Sigmoid(),
        )

    def encode(self, x: Tensor) -> Normal:
        mean, log_std = self.encoder(x).chunk(2, -1)
        return Normal(mean, log_std.exp(), validate_args=False)

    def terms(self, x: Tensor, noise: Tensor) -> Terms:
        q = self.encode(x)
        canvas = self.decoder(q.mean + q.scale * noise)
        return Terms(squared_error(canvas, x), kl_to_prior(q), torch.zeros(len(x), device=x.device))

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.decoder(self.encode(x).mean)
