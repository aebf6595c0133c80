"""The model again, slowly: numpy, float64, one program and one step at a time.

It shares nothing with rnp_lib but settings and parameters, which it reads by name.
"""

import math
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from rnp_lib.config import Config

# A model small enough to be computed this way, none of whose numbers is a default.
SMALL = Config(
    posterior="root",
    image_size=12,
    patch_size=8,
    extent=(0.3, 0.6),
    rotation=60.0,
    shear=0.2,
    centre=0.5,
    z_dim=5,
    feedback="child",
    hypernet="factorised",
    rank=3,
    trunk_depth=2,
    trunk_width=6,
    hidden=7,
    sigma2=0.07,
    images=(100,),
)
# The same with every program below the root a random variable.
TREE = replace(SMALL, posterior="tree", feedback="none", symbols=3, reader_units=8)

ACTIVATIONS = {
    "tanh": np.tanh,
    "sin": np.sin,
    "elu": lambda v: np.where(v > 0, v, np.exp(np.minimum(v, 0)) - 1),
    "relu": lambda v: np.maximum(v, 0),
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)),
}
elu = ACTIVATIONS["elu"]


def numbers(tensor):
    return tensor.detach().double().numpy()


# Transforms


def affine(action, extent, rotation, shear, centre):
    """(2, 3): rotation · shear · scale, then the centre."""
    low, high = extent
    sides = [low ** ((1 - a) / 2) * high ** ((1 + a) / 2) for a in action[:2]]
    angle = action[2] * rotation * math.pi / 180
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    slant = np.array([[1, shear * action[3]], [0, 1]])
    return np.column_stack([turn @ slant @ np.diag(sides), centre * np.asarray(action[4:])])


def sample(image, matrix, size):
    """Bilinear, align_corners=True, zero outside: (H, W) drawn on a grid of size × size, or so many
    planes of colour, each by itself."""
    if image.ndim == 3:
        return np.stack([sample(plane, matrix, size) for plane in image])
    height, width = image.shape

    def pixel(row, column):
        inside = 0 <= row < height and 0 <= column < width
        return image[row, column] if inside else 0.0

    result = np.zeros((size, size))
    for i in range(size):
        for j in range(size):
            x, y = matrix @ np.array([2 * j / (size - 1) - 1, 2 * i / (size - 1) - 1, 1.0])
            column, row = (x + 1) / 2 * (width - 1), (y + 1) / 2 * (height - 1)
            left, top = math.floor(column), math.floor(row)
            right_share, lower_share = column - left, row - top
            result[i, j] = (
                (1 - lower_share) * (1 - right_share) * pixel(top, left)
                + (1 - lower_share) * right_share * pixel(top, left + 1)
                + lower_share * (1 - right_share) * pixel(top + 1, left)
                + lower_share * right_share * pixel(top + 1, left + 1)
            )
    return result


def place(picture, matrix, size):
    """g: the child drawn in its parent's frame."""
    return sample(picture, np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2], size)


# The hypernetwork


def linear(layer, v):
    return numbers(layer.weight) @ v + (0 if layer.bias is None else numbers(layer.bias))


def layer_norm(v):
    return (v - v.mean()) / np.sqrt(((v - v.mean()) ** 2).mean() + 1e-5)


class Networks:
    """The generated networks of one program z (|z|,)."""

    def __init__(self, net, z):
        self.net, self.config = net, net.config
        h = z
        for i in range(self.config.trunk_depth):
            norm = net.trunk[3 * i + 1]
            h = layer_norm(linear(net.trunk[3 * i], h))
            h = elu(h * numbers(norm.weight) + numbers(norm.bias))
        self.h = h
        state, action = (
            ACTIVATIONS[self.config.state_activation],
            ACTIVATIONS[self.config.action_activation],
        )
        self.state_0, self.policy_0 = state(linear(net.state_0, h)), state(linear(net.policy_0, h))
        self.action_0 = action(linear(net.action_0[2], elu(linear(net.action_0[0], h))))
        if self.config.feedback != "none":
            start = linear(net.patch_0[2], elu(linear(net.patch_0[0], h)))
            self.patch_0 = self._patch_activation(start)

    def _patch_activation(self, v):
        return ACTIVATIONS[self.config.patch_activation](v + numbers(self.net.patch_bias))

    def layer(self, name, v, hidden=False):
        """One generated layer; hidden ones are normalised before their bias and end in an ELU."""
        layer = self.net.layers[name]
        if self.config.hypernet == "full":
            weight = (numbers(layer.head.weight) @ self.h).reshape(layer.n_out, layer.n_in)
            weight = weight + numbers(layer.common.weight)
            bias = linear(layer.bias, self.h) if layer.bias else 0
        else:
            head = linear(layer.head, self.h)
            scale = np.diag(head[: layer.rank])
            weight = numbers(layer.u.weight) @ scale @ numbers(layer.v.weight)
            bias = head[layer.rank :] if len(head) > layer.rank else 0
        y = weight @ v
        if hidden and self.config.normalise:
            y = layer_norm(y)
        return elu(y + bias) if hidden else y + bias

    def encode(self, patch, action):
        seen = self.layer("encode_a", action, hidden=True)
        if self.config.feedback != "none":
            seen = np.concatenate([self.layer("encode_x", patch, hidden=True), seen])
        for name in ("encode_1", "encode_2"):
            seen = self.layer(name, seen, hidden=True)
        return self.layer("encode_3", seen)

    def recur(self, kind, state, e):
        """kind "state" or "policy": one step of the Elman network."""
        new = self.layer(f"{kind}_h", state) + self.layer(f"{kind}_e", e)
        return ACTIVATIONS[self.config.state_activation](new)

    def place(self, policy):
        for name in ("action_1", "action_2", "action_3"):
            policy = self.layer(name, policy, hidden=True)
        return self.layer("action_4", policy)

    def squash(self, u):
        return ACTIVATIONS[self.config.action_activation](u)

    def patch(self, state):
        v = state
        for name in ("patch_1", "patch_2", "patch_3"):
            v = self.layer(name, v, hidden=True)
        patch = self._patch_activation(self.layer("patch_4", v))
        if self.config.channels == 1:
            return patch
        ink = np.tanh(linear(self.net.ink, state))
        return np.concatenate([strength * patch for strength in ink])


# Chances


class Gaussian(NamedTuple):
    mean: np.ndarray
    std: np.ndarray

    def draw(self, noise):
        return self.mean if noise is None else self.mean + self.std * noise

    def log_density(self, value):
        return sum(
            -(((v - m) / s) ** 2) / 2 - math.log(s) - math.log(2 * math.pi) / 2
            for v, m, s in zip(value, *self, strict=True)
        )

    def kl(self, prior):
        return sum(
            math.log(p / s) + (s**2 + (m - n) ** 2) / (2 * p**2) - 0.5
            for m, s, n, p in zip(*self, *prior, strict=True)
        )

    def times(self, other):
        """The product of both densities, normalised."""
        pairs = zip(*self, *other, strict=True)
        found = [((m / s**2 + n / p**2) / (1 / s**2 + 1 / p**2), s, p) for m, s, n, p in pairs]
        std = [(s**2 * p**2 / (s**2 + p**2)) ** 0.5 for _, s, p in found]
        return Gaussian(np.array([mean for mean, _, _ in found]), np.array(std))


class Mixed(list):
    """Gaussians with their weights: [(weight, Gaussian), …]."""

    def part(self, pick=None):
        """The likeliest one, or where the weights' sum reaches Φ(pick)."""
        if pick is None:
            return max(self, key=lambda pair: pair[0])[1]
        left = (1 + math.erf(pick / math.sqrt(2))) / 2
        for weight, part in self:
            left -= weight
            if left <= 0:
                return part
        return self[-1][1]

    def log_density(self, value):
        return self.log_mean_exp(part.log_density(value) for _, part in self)

    def kl_of(self, q):
        return -self.log_mean_exp(-q.kl(part) for _, part in self)

    def log_mean_exp(self, values):
        values = list(values)
        most = max(values)  # without which all might be too small
        pairs = zip(self, values, strict=True)
        return most + math.log(sum(w * math.exp(value - most) for (w, _), value in pairs))


def grammar(model, parent, state, u):
    """What a child of the program `parent` may be: z, a Mixed, and u, a Gaussian."""
    rules, kind, n = model.grammar, model.config.prior_z, len(parent)
    spread = np.exp(linear(rules.spread, state))
    predicted, around_u = Gaussian(state, spread[:n]), Gaussian(u, spread[-6:])
    if kind == "prediction":
        return Mixed([(1.0, predicted)]), around_u
    moved, stds = linear(rules.shift, parent), np.exp(numbers(rules.log_std))
    parts = [Gaussian(s + moved, std) for s, std in zip(numbers(rules.symbols), stds, strict=True)]
    parts += [predicted] if kind == "both" else []
    weights = np.exp(linear(rules.choice, state))
    return Mixed(zip(weights / weights.sum(), parts, strict=True)), around_u


def message(layers, *seen):
    """What two hidden layers of a reader say, as two rows of numbers."""
    v = np.concatenate([np.ravel(part) for part in seen])
    for i in (0, 3):
        v = layer_norm(linear(layers[i], v))
        v = elu(v * numbers(layers[i + 1].weight) + numbers(layers[i + 1].bias))
    return np.split(linear(layers[6], v), 2)


class Chooser:
    """Says what the children of one program are: what is likeliest, a draw, or what an image shows.

    noise: by the path of a program, for its z, its u and the part of a mixture (|z| + 6 + 1,).
    image: in the program's own frame, or None.
    """

    def __init__(self, model, noise=None, image=None, path=()):
        self.model, self.noise, self.image, self.path = model, noise, image, path
        self.left = image

    def choose(self, t, prior_z, prior_u, window):
        n, below = self.model.config.z_dim, (*self.path, t)
        noise_z = noise_u = pick = None
        if self.noise is not None:
            noise_z, noise_u, pick = np.split(self.noise[below], [n, n + 6])
            pick = pick.item()
        if self.image is None:
            return prior_z.part(pick).draw(noise_z), prior_u.draw(noise_u), None, None
        without, reader = self.model.config.reader_without, self.model.reader
        reader = reader[t] if without == "sharing" else reader
        pictures = (self.image, self.image if without == "residual" else self.left)
        wide = window(prior_u.mean) @ np.diag([1.5, 1.5, 1])
        look = [sample(picture, wide, 16) for picture in pictures]
        shift, log_std = message(reader.where_layers, *look, prior_z.part().mean, prior_u.mean)
        q_u = Gaussian(prior_u.mean + shift, np.exp(log_std - 1))
        q_u = q_u if without == "merging" else prior_u.times(q_u)
        u = q_u.draw(noise_u)
        look = [sample(picture, window(u), 16) for picture in pictures]
        mean, log_std = message(reader.what_layers, *look)
        q_z = Gaussian(mean, np.exp(log_std))
        if self.model.config.prior_z != "symbols" and without != "merging":
            q_z = q_z.times(prior_z[-1][1])  # what the parent predicts
        kl = prior_z.kl_of(q_z) + q_u.kl(prior_u)
        return q_z.draw(noise_z), u, (q_z, q_u), kl

    def child(self, t, patch, matrix):
        """Who chooses the child's own children; what it draws itself is left to see no more."""
        frame = None
        if self.image is not None:
            frame = sample(self.left, matrix, patch.shape[-1])
            self.left = self.left - place(patch, matrix, self.image.shape[-1])
        return Chooser(self.model, self.noise, frame, (*self.path, t))


def split(config, noise):
    """Noise (config.noise,) of a tree: the root's, and by path that of all programs below."""
    root, noise = noise[: config.z_dim], noise[config.z_dim :]
    found, row, each = {}, [()], config.z_dim + 7
    for tau in config.tau[:-1]:
        row = [(*path, t) for path in row for t in range(tau)]
        for path in row:
            found[path], noise = noise[:each], noise[each:]
    assert not len(noise)
    return root, found


def infer(model, image, noise=None, seen=1, until=0):
    """A draw from the posterior of an image (H, W), or (3, H, W), or its means."""
    size = image.shape[-1]
    x = next(model.parameters()).new_tensor(image).view(1, -1, size, size)
    q = Gaussian(*np.split(numbers(model.encoder(x))[0], 2))
    q = Gaussian(q.mean, np.exp(q.std))
    root, below = (None, None) if noise is None else split(model.config, noise)
    z = q.draw(root)
    chooser = Chooser(model, below, image - paper(model, z) if seen else None)
    tree = unroll(model, z, until=until, chooser=chooser)
    prior = Gaussian(np.zeros_like(q.mean), np.ones_like(q.mean))
    tree.prior, tree.posterior, tree.kl = (Mixed([(1.0, prior)]), None), (q, None), q.kl(prior)
    return tree


# The tree


@dataclass
class Node:
    """One program of one image, its fields named as in ProgramTree."""

    z: np.ndarray
    canvas: np.ndarray = None
    action: np.ndarray = None
    affine: np.ndarray = None
    patch: np.ndarray = None
    children: list = field(default_factory=list)
    placed: list = field(default_factory=list)
    u: np.ndarray = None
    prior: tuple = None
    posterior: tuple = None
    kl: float = None
    paper: np.ndarray = 0.0


def paper(model, z):
    """What the program z of a root draws on: black, or a colour."""
    if model.config.channels == 1:
        return 0.0
    return ACTIVATIONS["sigmoid"](linear(model.paper_colour, z))[:, None, None]


def unroll(model, z, level=None, until=0, chooser=None):
    """Section 2.1's recursion for one program z (|z|,) of a level, cut at the level `until`."""
    c = model.config
    level = len(c.tau) if level is None else level
    row = len(c.tau) - level  # settings are listed from the root down
    size = c.image_size if row == 0 else c.patch_size
    networks, chooser = Networks(model.hypernet, z), chooser or Chooser(model)
    state, policy, a = networks.state_0, networks.policy_0, networks.action_0
    x = None if c.feedback == "none" else networks.patch_0
    root = Node(z=z, paper=paper(model, z) if row == 0 else 0.0)
    root.canvas = root.paper + np.zeros((size, size))
    for t in range(c.tau[row]):
        e = networks.encode(x, a)
        if c.step_vector:
            e = e + numbers(model.step)[t]
        state, policy = networks.recur("state", state, e), networks.recur("policy", policy, e)
        u, prior, posterior, kl = networks.place(policy), None, None, None

        def window(u, networks=networks):
            return affine(networks.squash(u), c.extent[row], c.rotation, c.shear, c.centre)

        if c.posterior == "tree" and level > 1:  # leaves follow from their parents
            prior = grammar(model, z, state, u)
            state, u, posterior, kl = chooser.choose(t, *prior, window)
        a, matrix = networks.squash(u), window(u)
        patch = networks.patch(state)
        picture = patch.reshape(c.patch_shape[c.channels == 1 :])
        cut_here, below = level - 1 == until, chooser.child(t, picture, matrix)
        child = Node(z=state) if cut_here else unroll(model, state, level - 1, until, below)
        child.patch, child.action, child.affine, child.u = picture, a, matrix, u
        child.prior, child.posterior, child.kl = prior, posterior, kl
        if cut_here:
            child.canvas = child.patch
        x = {"child": child.canvas.ravel(), "own": patch, "none": None}[c.feedback]
        root.children.append(child)
        root.placed.append(place(child.canvas, child.affine, size))
        root.canvas = root.canvas + root.placed[-1]
    return root


def cut(node, steps):
    """The canvas when the tree ends so many levels below `node`."""
    if steps == 0:
        return node.patch
    size = node.canvas.shape[-1]
    return node.paper + sum(place(cut(c, steps - 1), c.affine, size) for c in node.children)
