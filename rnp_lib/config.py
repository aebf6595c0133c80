"""Every choice of a model and its training in one frozen, validated dataclass, and presets."""

import ast
import contextlib
import dataclasses
import math
from dataclasses import dataclass

CHOICES = {
    "model": ("rnp", "vae"),
    "feedback": ("child", "own", "none"),
    "hypernet": ("factorised", "full"),
    "state_activation": ("tanh", "elu"),
    "patch_activation": ("sigmoid", "relu"),
    "action_activation": ("tanh", "sin"),
    "encoder": ("light", "resnet"),
    "part_term": ("canvas", "zoom"),
    "optimiser": ("muon", "adam"),
    "decay": ("cosine", "none"),
    "precision": ("auto", "float32", "bfloat16"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """A model and its training recipe. Levels are listed from the root down.

    Raises ValueError, in one sentence, for a setting that cannot work.
    Defaults are the recommended recipe; `PRESETS["paper-mnist"]` has the paper's sizes.
    """

    model: str = "rnp"  # or vae: a plain decoder in place of the programs, to compare with

    # What is drawn
    dataset: str = "mnist"  # a name that rnp_lib.data knows, or a folder of PNG files
    without: tuple[int, ...] = ()  # classes (labels) left out of training, validation and test
    image_size: int = 28  # side of the root canvas, pixels
    patch_size: int = 14  # side of every decoded patch and of every canvas below the root, pixels

    # The tree
    # Children per program, one entry a level: its length is the depth K.
    tau: tuple[int, ...] = (4, 4)
    # Smallest and largest side of a child, in sides of its parent: one pair, or one for each level.
    extent: tuple = (1 / 4.3, 1 / 2.3)
    rotation: float = 90.0  # largest rotation of a child, degrees
    shear: float = 0.3  # largest shear of a child (tangent)
    centre: float = 0.7  # largest offset of a child's centre; 1 is the parent's border

    # Programs and the hypernetwork that makes them
    z_dim: int = 32  # |z|, at every level
    e_dim: int = 32  # what the generated encoder hands to the recurrent networks
    feedback: str = "none"  # what a step sees of the one before: child's canvas, own patch or none
    hypernet: str = "factorised"
    rank: int = 128  # of the factorised weights
    trunk_depth: int = 5
    trunk_width: int = 128
    hidden: int = 64  # units of the generated hidden layers
    action_hidden: int = 32  # the same in the action decoder
    normalise: bool = True  # LayerNorm without gain in generated hidden layers
    step_vector: bool = True  # a learned vector for every step t, added to e_t
    state_activation: str = "tanh"
    patch_activation: str = "sigmoid"
    action_activation: str = "tanh"
    encoder: str = "light"

    # Objective
    sigma2: float = 0.1  # variance of a pixel
    part_term: str = "canvas"
    part_weight: float = 1.0  # lambda_part
    kl_warmup: int = 0  # images over which the weight of the KL grows from 0 to 1

    # Training
    # Images seen with the tree cut at each depth: the last entry is for all K levels, the one
    # before for K - 1, and so on (entries for which no level is left do not count).
    images: tuple[int, ...] = (700_000,)
    # Images at the start in which every patch is a dab, the same round spot, so that windows learn
    # to find the ink before patches learn to draw; over as many again the patches take over.
    dabs: int = 0
    # Training images are distorted by affine maps drawn at random, whose numbers differ from the
    # identity's by this at most (of half an image's side, for shifts).
    jitter: float = 0.0
    batch_size: int = 128
    optimiser: str = "muon"
    lr: float = 3e-3
    adam_lr: float = 1e-3  # with Muon: for what is not a weight matrix
    warmup: int = 300  # steps, at the start of every stage
    decay: str = "cosine"
    clip: float = 1.0  # largest norm of the gradient
    ema: float = 0.999  # of the weights, per step
    precision: str = "auto"  # of matrix products: bfloat16 where the machine has it, else float32
    seed: int = 0

    def __post_init__(self):
        _normalise_types(self)
        _check(self)

    @property
    def depth(self) -> int:
        """K, the number of levels."""
        return len(self.tau)

    def stages(self) -> list[tuple[int, int]]:
        """Training stages as (depth, images): the tree is unrolled one level deeper in each."""
        first = self.depth - len(self.images) + 1
        return [(first + i, n) for i, n in enumerate(self.images) if n]

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Config":
        """Inverse of `to_dict`, also through JSON. Raises ValueError for unknown names."""
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(
                f"unknown setting {', '.join(unknown)}: choose from {', '.join(sorted(known))}."
            )
        return cls(**values)

    def override(self, assignments: list[str]) -> "Config":
        """A copy with `key=value` strings applied: Python values, and bare words as text."""
        texts = {f.name for f in dataclasses.fields(self) if f.type is str}
        changes = {}
        for text in assignments:
            key, equals, value = (word.strip() for word in text.partition("="))
            if not equals:
                raise ValueError(f"cannot read the setting {text!r}: write it as key=value.")
            changes[key] = value
            if key not in texts:
                with contextlib.suppress(ValueError, SyntaxError):
                    changes[key] = ast.literal_eval(value)
        return self.from_dict({**self.to_dict(), **changes})


def _normalise_types(config: Config) -> None:
    """Lists (from JSON) become tuples; one number is one level, one pair stands for all."""

    def put(name, value):
        object.__setattr__(config, name, value)

    for name, each in (("tau", "one a level"), ("images", "one a level"), ("without", "labels")):
        value = getattr(config, name)
        if not isinstance(value, (int, list, tuple)):
            raise ValueError(f"{name} must be whole numbers, {each}: got {value!r}.")
        put(name, (value,) if isinstance(value, int) else tuple(value))
    if not isinstance(config.extent, (list, tuple)):
        raise ValueError(f"extent must be pairs of numbers: got {config.extent!r}.")
    put("images", config.images[-len(config.tau) :])
    extent = tuple(config.extent)
    if extent and not isinstance(extent[0], (tuple, list)):
        extent = (extent,) * len(config.tau)
    extent = tuple(tuple(pair) for pair in extent)
    if len(set(extent)) == 1:  # one pair for all levels, however many there are now
        extent = extent[:1] * len(config.tau)
    put("extent", extent)


def _check(c: Config) -> None:
    def need(ok, message):
        if not ok:
            raise ValueError(message)

    def is_int(value, least):
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    kinds = {bool: (bool, "True or False"), float: ((int, float), "a number"), str: (str, "text")}
    for f in dataclasses.fields(c):
        kind, words = kinds.get(f.type, (object, ""))
        value = getattr(c, f.name)
        need(isinstance(value, kind), f"{f.name} must be {words}: got {value!r}.")
    need(
        all(isinstance(v, (int, float)) for p in c.extent for v in p),
        f"extent must be numbers: got {c.extent!r}.",
    )
    for side in ("image_size", "patch_size"):
        need(
            is_int(getattr(c, side), 8),
            f"{side} must be one whole number of pixels, 8 or more, since images are square: "
            f"got {getattr(c, side)!r}; crop or pad other images to a square first.",
        )
    need(
        c.model != "vae" or c.image_size % 4 == 0,
        f"image_size must be a multiple of 4 for the plain VAE: got {c.image_size}.",
    )
    need(
        all(is_int(label, 0) for label in c.without),
        f"without must hold the labels of classes, whole numbers: got {c.without!r}.",
    )
    need(
        c.model != "vae" or not c.dabs,
        "dabs stand in for the patches of programs, which a plain VAE has not: set dabs=0.",
    )
    need(
        c.tau and all(is_int(t, 1) for t in c.tau),
        f"tau must hold a whole number of children, 1 or more, for every level: got {c.tau!r}.",
    )
    need(
        len(c.extent) == c.depth,
        f"extent must be one (min, max) pair or one for each of the {c.depth} levels of tau: "
        f"got {len(c.extent)}.",
    )
    stretch = math.sqrt(1 + c.shear**2)  # shear lengthens one side of a window by this factor
    for pair in c.extent:
        need(
            len(pair) == 2 and 0 < pair[0] <= pair[1] and pair[1] * stretch < 1,
            f"a child must be smaller than its parent: extent {pair!r} with shear {c.shear} needs "
            f"0 < min <= max < {1 / stretch:.3f}.",
        )
    for name in ("rotation", "shear", "centre", "part_weight", "jitter"):
        need(getattr(c, name) >= 0, f"{name} must not be negative: got {getattr(c, name)!r}.")
    for name in ("sigma2", "lr", "adam_lr", "clip"):
        need(getattr(c, name) > 0, f"{name} must be positive: got {getattr(c, name)!r}.")
    positive = "z_dim e_dim rank trunk_depth trunk_width hidden action_hidden batch_size".split()
    for name in positive:
        need(
            is_int(getattr(c, name), 1),
            f"{name} must be a whole number, 1 or more: got {getattr(c, name)!r}.",
        )
    for name in ("warmup", "kl_warmup", "dabs", "seed"):
        need(
            is_int(getattr(c, name), 0),
            f"{name} must be a whole number, 0 or more: got {getattr(c, name)!r}.",
        )
    need(0 <= c.ema < 1, f"ema must be at least 0 and below 1: got {c.ema!r}.")
    need(
        c.images and all(is_int(n, 0) for n in c.images) and c.images[-1] > 0,
        "images must list how many images each depth sees, the last one (the whole tree) above 0: "
        f"got {c.images!r}.",
    )
    need(
        2 * c.dabs <= sum(c.images),
        f"dabs must end before training does, and they take twice as many images as they are set "
        f"to: got {c.dabs:,} of {sum(c.images):,}.",
    )
    for name, allowed in CHOICES.items():
        need(
            getattr(c, name) in allowed,
            f"{name} must be one of {', '.join(allowed)}: got {getattr(c, name)!r}.",
        )


# Sizes and training of the paper (Supplementary Material) and, where it is silent, of the authors'
# code: plain ELU networks, every weight generated, the zoomed part target, the whole tree at once.
_PAPER = Config(
    patch_size=28,
    feedback="child",
    hypernet="full",
    trunk_depth=6,
    trunk_width=64,
    normalise=False,
    step_vector=False,
    state_activation="elu",
    patch_activation="relu",
    action_activation="sin",
    encoder="resnet",
    part_term="zoom",
    sigma2=0.05,
    batch_size=64,
    images=(200 * 55_000,),  # 200 epochs
    optimiser="adam",
    lr=4e-5,
    warmup=0,
    decay="none",
    ema=0.0,
)

PRESETS: dict[str, Config] = {
    "mnist": Config(),
    # For transfer: a digit the model has never seen.
    "mnist-no7": Config(without=(7,)),
    "mnist-no8": Config(without=(8,)),
    # Garments fill the frame, and crowded characters need long strokes: wider windows.
    "fashion": Config(dataset="fashion", extent=(0.25, 0.6), images=(500_000,)),
    "omniglot": Config(
        dataset="omniglot",
        z_dim=96,
        extent=(0.25, 0.6),
        sigma2=0.03,
        kl_warmup=60_000,  # without it the posterior can collapse
        images=(450_000,),
    ),
    # Characters whose true strokes are known. Without dabs their parts are the four quarters.
    "strokes": Config(
        dataset="strokes",
        z_dim=96,
        extent=((0.12, 0.45), (0.15, 0.5)),
        sigma2=0.03,
        kl_warmup=60_000,
        dabs=300_000,
        images=(800_000,),
    ),
    # Three levels: four digits, their strokes, pieces of strokes; trained a level at a time.
    "scenes": Config(
        dataset="scenes",
        image_size=56,
        patch_size=24,
        tau=(4, 4, 4),
        extent=((0.4, 0.62), (1 / 4.3, 1 / 2.3), (1 / 4.3, 1 / 2.3)),
        z_dim=64,
        images=(100_000, 100_000, 150_000),
    ),
    "paper-mnist": _PAPER,
    "paper-fashion": dataclasses.replace(_PAPER, dataset="fashion"),
    "paper-omniglot": dataclasses.replace(
        _PAPER, dataset="omniglot", z_dim=96, images=(400 * 17_352,)
    ),
}
