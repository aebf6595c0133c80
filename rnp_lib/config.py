"""Every choice of a model and its training in one frozen, validated dataclass."""

import ast
import contextlib
import dataclasses
import functools
import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass

# Settings of older models that nothing varied: constants now, beside the code that uses them.
RETIRED = {"e_dim": 32, "action_hidden": 32, "clip": 1.0}


def _is_row(value: Any) -> bool:
    return isinstance(value, (list, tuple))


# What settings may be. Lists, as JSON has them, become tuples, and one value stands for a row.
LIST = Field(strict=False)
ONE_OR_ROW = BeforeValidator(lambda value: value if _is_row(value) else (value,))
PAIR_OR_ROW = BeforeValidator(
    lambda value: (value,) if _is_row(value) and not any(map(_is_row, value)) else value
)
SQUARE = "images are square, so crop or pad others to a square first"
Count = Annotated[int, Field(ge=0)]
Size = Annotated[int, Field(ge=1)]
Side = Annotated[int, Field(ge=8, description=SQUARE)]
Positive = Annotated[float, Field(gt=0)]
Counts = Annotated[tuple[Count, ...], LIST, ONE_OR_ROW]
Sizes = Annotated[tuple[Size, ...], Field(min_length=1), LIST, ONE_OR_ROW]
Pair = Annotated[tuple[Positive, ...], Field(min_length=2, max_length=2), LIST]
Pairs = Annotated[tuple[Pair, ...], LIST, PAIR_OR_ROW]


@dataclass(
    frozen=True,
    kw_only=True,
    config=ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, validate_default=True),
)
class Config:
    """A model and its training recipe. Levels are listed from the root down.

    Raises ValueError, in one sentence, for a setting that cannot work.
    Defaults are the recommended recipe; `presets.PRESETS["paper-mnist"]` has the paper's sizes.
    """

    # To compare with, a plain decoder in place of the programs. vae: of one vector; hvae: of two,
    # with as many numbers in all as a tree is drawn with. air: objects without parts, by Pyro.
    model: Literal["rnp", "vae", "hvae", "air"] = "rnp"

    # What the image says about: every program of the tree, or the root alone, all others following
    # from it (the paper).
    posterior: Literal["tree", "root"] = "tree"
    # A program is what its parent predicts, or one of some symbols shared by all, or either.
    prior_z: Literal["prediction", "symbols", "both"] = "prediction"
    symbols: Size = 64
    reader_units: Size = 256
    # What the reader does without, to measure what it is worth: the parent's prediction, what is
    # left of the image, being one for all turns.
    reader_without: Literal["", "merging", "residual", "sharing"] = ""
    # Share of the training images whose programs below the root keep their prior, so that the root
    # stays in use.
    drop: Annotated[float, Field(ge=0, lt=1)] = 0.2

    # What is drawn
    dataset: Annotated[str, Field(min_length=1)] = (
        "mnist"  # a name that rnp_lib.data knows, or a folder of PNG files
    )
    without: Counts = ()  # classes (labels) left out of training, validation and test
    # 1: grey, ink bright on black. 3: red, green and blue; grey sets are painted.
    channels: Literal[1, 3] = 1
    image_size: Side = 28  # side of the root canvas, pixels
    patch_size: Side = 14  # side of every decoded patch and of every canvas below the root, pixels

    # The tree
    # Children per program, one entry a level: its length is the depth K.
    tau: Sizes = (4, 4)
    # Smallest and largest side of a child, in sides of its parent: one pair, or one for each level.
    extent: Pairs = (1 / 4.3, 1 / 2.3)
    rotation: Annotated[float, Field(ge=0, le=180)] = 90.0  # largest rotation of a child, degrees
    shear: Annotated[float, Field(ge=0)] = 0.3  # largest shear of a child (tangent)
    # Largest offset of a child's centre; 1 is the parent's border.
    centre: Annotated[float, Field(ge=0, le=2)] = 0.7

    # Programs and the hypernetwork that makes them
    z_dim: Size = 32  # |z|, at every level
    # What a step sees of the one before: its child's canvas, its own patch or no picture.
    feedback: Literal["child", "own", "none"] = "none"
    hypernet: Literal["factorised", "full"] = "factorised"
    hypernets: Literal["one", "levels"] = "one"  # for all levels, or one for each
    rank: Size = 128  # of the factorised weights
    trunk_depth: Size = 5
    trunk_width: Size = 128
    hidden: Size = 64  # units of the generated hidden layers
    normalise: bool = True  # LayerNorm without gain in generated hidden layers
    step_vector: bool = True  # a learned vector for every step t, added to e_t
    state_activation: Literal["tanh", "elu"] = "tanh"
    patch_activation: Literal["sigmoid", "relu"] = "sigmoid"
    action_activation: Literal["tanh", "sin"] = "tanh"
    encoder: Literal["light", "resnet"] = "light"

    # Objective
    # Of a pixel, given what is drawn: bernoulli is for images of nothing but black and white, and
    # leaves sigma2 to the part term.
    likelihood: Literal["gaussian", "bernoulli"] = "gaussian"
    sigma2: Annotated[float, Field(gt=0, le=1e3)] = 0.1  # variance of a pixel
    part_term: Literal["canvas", "zoom"] = "canvas"
    part_weight: Annotated[float, Field(ge=0)] = 1.0  # lambda_part
    kl_warmup: Count = 0  # images over which the weight of the KL grows from 0 to 1
    # Draws an image of the importance-weighted bound, by which a plain VAE can learn: see `terms`.
    samples: Size = 1

    # Training
    # Images seen with the tree cut at each depth: the last entry is for all K levels, the one
    # before for K - 1, and so on (entries for which no level is left do not count).
    images: Counts = (1_000_000,)
    # Images at the start in which every patch is a dab, the same round spot, so that windows learn
    # to find the ink before patches learn to draw; over as many again the patches take over.
    dabs: Count = 0
    # Training images are distorted by affine maps drawn at random, whose numbers differ from the
    # identity's by this at most (of half an image's side, for shifts).
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.0
    batch_size: Size = 64
    optimiser: Literal["muon", "adam"] = "muon"
    lr: Positive = 3e-3
    adam_lr: Positive = 1e-3  # with Muon: for what is not a weight matrix
    warmup: Count = 300  # steps, at the start of every stage
    decay: Literal["cosine", "none"] = "cosine"
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999  # of the weights, per step
    # Of matrix products; auto is bfloat16 where the machine has it, else float32.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] = 0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """What concerns several settings; one pair or list serves trees of fewer or more levels."""
        object.__setattr__(self, "images", self.images[-self.depth :])
        if self.model == "vae" or self.depth == 1:  # nothing is drawn below the root
            object.__setattr__(self, "posterior", "root")
        if self.posterior == "root":
            object.__setattr__(self, "drop", 0.0)
        if len(set(self.extent)) == 1:
            object.__setattr__(self, "extent", self.extent[:1] * self.depth)
        stretch = math.sqrt(1 + self.shear**2)  # shear lengthens one side of a window by this
        wide = [str(pair) for pair in self.extent if not pair[0] <= pair[1] < 1 / stretch]
        total = sum(self.images)
        problems = {
            f"extent must be one (min, max) pair or one for each of the {self.depth} levels "
            f"of tau: got {len(self.extent)}.": len(self.extent) != self.depth,
            f"a child must be smaller than its parent: extent {', '.join(wide)} with shear "
            f"{self.shear} needs 0 < min <= max < {1 / stretch:.3f}.": wide,
            f"image_size must be a multiple of 4 for the plain VAE: got {self.image_size}.": (
                self.model in ("vae", "hvae") and self.image_size % 4
            ),
            "AIR finds objects without parts, grey ones by a Gaussian: give tau one entry, and "
            "leave channels=1 and likelihood=gaussian.": (
                self.model == "air"
                and (self.depth, self.channels, self.likelihood) != (1, 1, "gaussian")
            ),
            "dabs stand in for the patches of programs, which a plain VAE has not: set dabs=0.": (
                self.model != "rnp" and self.dabs
            ),
            "a hierarchical VAE draws two vectors: set posterior=tree, and two levels or more.": (
                self.model == "hvae" and self.posterior == "root"
            ),
            "several samples an image train a plain VAE alone: set samples=1, or model=vae.": (
                self.model != "vae" and self.samples > 1
            ),
            "images must list how many images each depth sees, the last one (the whole tree) "
            f"above 0: got {self.images}.": not any(self.images[-1:]),
            "posterior=tree unrolls siblings together: set feedback to none or own.": (
                self.posterior == "tree" and self.feedback == "child"
            ),
            "jitter brings in black from outside, which is no paper of images in colour: set "
            "jitter=0.": self.channels == 3 and self.jitter,
            "dabs must end before training does, and they take twice as many images as they "
            f"are set to: got {self.dabs:,} of {total:,}.": 2 * self.dabs > total,
            f"kl_warmup must end before training does: got {self.kl_warmup:,} of {total:,}.": (
                self.kl_warmup > total
            ),
        }
        for sentence, found in problems.items():
            if found:
                raise ValueError(sentence)
        return self

    @property
    def depth(self) -> int:
        """K, the number of levels."""
        return len(self.tau)

    def drawn_below(self, level: int) -> list[int]:
        """How many programs of each level, from the children down, a program of `level` draws."""
        if self.posterior == "root":
            return []
        tau = self.tau[self.depth - level :]
        return [math.prod(tau[: i + 1]) for i in range(level - 1)]

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Of a decoded patch: channels, pixels down and across."""
        return self.channels, self.patch_size, self.patch_size

    @property
    def noise_each(self) -> int:
        """How many numbers a program below the root is drawn with: see `Guide`."""
        return self.z_dim + 6 + 1

    @property
    def noise(self) -> int:
        """How many numbers a whole tree is drawn with."""
        return self.z_dim + self.noise_each * sum(self.drawn_below(self.depth))

    def stages(self) -> list[tuple[int, int]]:
        """Training stages as (depth, images): the tree is unrolled one level deeper in each."""
        first = self.depth - len(self.images) + 1
        return [(first + i, n) for i, n in enumerate(self.images) if n]

    def to_dict(self) -> dict:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Config":
        """Inverse of `to_dict`, also through JSON. Raises ValueError for unknown names.

        Without a posterior it is "root", which models were before the setting.
        """
        for name in RETIRED.keys() & values:
            if values[name] != RETIRED[name]:
                raise ValueError(
                    f"{name} is no setting any more, but {RETIRED[name]} in every model: got "
                    f"{values[name]!r}; leave it out, or use the version that had it."
                )
        kept = {name: value for name, value in values.items() if name not in RETIRED}
        return cls(**{"posterior": "root"} | kept)

    def override(self, assignments: list[str]) -> "Config":
        """A copy with `key=value` strings applied: Python values, and bare words as text."""
        texts = {f.name for f in dataclasses.fields(self) if isinstance(f.default, str)}
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


def _sentence(error: ValidationError, settings: dict) -> str:
    known = Config.__pydantic_fields__
    unknown = sorted(settings.keys() - known)
    if unknown:
        return f"unknown setting {', '.join(unknown)}: choose from {', '.join(sorted(known))}."
    first = error.errors()[0]
    if first["type"] == "value_error":  # of several settings
        return str(first["ctx"]["error"])
    name, *entry = first["loc"]
    expected = re.sub(r"^\w+ should", f"{'every entry of ' * bool(entry)}{name} must", first["msg"])
    hint = f"; {known[name].description}" if known[name].description else ""
    return f"{expected}: got {settings[name]!r}{hint}."


_pydantic_init = Config.__init__


@functools.wraps(_pydantic_init)
def _checked_init(self, **settings):
    """With a ValueError of one sentence for all that pydantic finds wrong."""
    try:
        _pydantic_init(self, **settings)
    except ValidationError as error:
        raise ValueError(_sentence(error, settings)) from None


Config.__init__ = _checked_init
