"""Section 2 of the paper again, slowly: numpy, float64, one program and one step at a time.

It shares nothing with rnp_lib but settings and parameters, which it reads by name.
"""

import math
from dataclasses import dataclass, field

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
    """Bilinear, align_corners=True, zero outside: (H, W) drawn on a grid of size × size."""
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
        for name in ("patch_1", "patch_2", "patch_3"):
            state = self.layer(name, state, hidden=True)
        return self._patch_activation(self.layer("patch_4", state))


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


def unroll(model, z, level=None, until=0):
    """Section 2.1's recursion for one program z (|z|,) of a level, cut at the level `until`."""
    c = model.config
    level = len(c.tau) if level is None else level
    row = len(c.tau) - level  # settings are listed from the root down
    size = c.image_size if row == 0 else c.patch_size
    networks = Networks(model.hypernet, z)
    state, policy, a = networks.state_0, networks.policy_0, networks.action_0
    x = None if c.feedback == "none" else networks.patch_0
    root = Node(z=z, canvas=np.zeros((size, size)))
    for t in range(c.tau[row]):
        e = networks.encode(x, a)
        if c.step_vector:
            e = e + numbers(model.step)[t]
        state, policy = networks.recur("state", state, e), networks.recur("policy", policy, e)
        a = networks.squash(networks.place(policy))
        patch = networks.patch(state)
        cut_here = level - 1 == until
        child = Node(z=state) if cut_here else unroll(model, state, level - 1, until)
        child.patch, child.action = patch.reshape(c.patch_size, c.patch_size), a
        child.affine = affine(a, c.extent[row], c.rotation, c.shear, c.centre)
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
    return sum(place(cut(c, steps - 1), c.affine, len(node.canvas)) for c in node.children)
