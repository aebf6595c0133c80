"""Recipes by name: ours for each data set, with chance in the root alone, and the paper's."""

import dataclasses

from rnp_lib import alphabets
from rnp_lib.config import Config

# Sizes and training of the paper (Supplementary Material) and, where it is silent, of the authors'
# code: plain ELU networks, every weight generated, the zoomed part target, the whole tree at once.
_PAPER = Config(
    posterior="root",
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
    sigma2=0.25,  # theirs: 1e5 · mean squared error against 0.5 · 2 KL of a batch of 64, 784 pixels
    batch_size=64,
    images=(200 * 55_000,),  # 200 epochs
    optimiser="adam",
    lr=4e-5,
    warmup=0,
    decay="none",
    ema=0.0,
)

_MNIST = Config()
# Parts are one of 64 symbols that all turns share: what a part is does not tell its turn.
_ALPHABET = dataclasses.replace(_MNIST, prior_z="symbols", drop=0.1, images=(300_000,))
# Garments fill the frame, and crowded characters need long strokes: wider windows.
_FASHION = Config(dataset="fashion", extent=(0.25, 0.6), images=(500_000,))
_OMNIGLOT = Config(
    dataset="omniglot",
    z_dim=96,
    extent=(0.25, 0.6),
    sigma2=0.03,
    kl_warmup=60_000,  # without it the posterior can collapse
    images=(450_000,),
)
# Three levels: four digits, their strokes, pieces of strokes; trained a level at a time.
_SCENES = Config(
    dataset="scenes",
    image_size=56,
    patch_size=24,
    tau=(4, 4, 4),
    extent=((0.4, 0.62), (1 / 4.3, 1 / 2.3), (1 / 4.3, 1 / 2.3)),
    z_dim=64,
    drop=0.0,  # trees of three levels lose too much by it
    images=(50_000, 100_000, 200_000),
)
# Up to three digits, anywhere, and their strokes.
_COUNTING = Config(
    dataset="counting",
    without=(4,),
    image_size=56,
    patch_size=24,
    extent=((0.4, 0.62), (1 / 4.3, 1 / 2.3)),
    z_dim=64,
    images=(50_000, 150_000),
)


def _root(config: Config, **changes) -> Config:
    """A recipe in which every program follows from the root, as in the paper."""
    return dataclasses.replace(config, posterior="root", batch_size=128, **changes)


PRESETS: dict[str, Config] = {
    "mnist": _MNIST,
    "mnist-alphabet": _ALPHABET,
    # Black or white, each pixel drawn once: by which published models are compared.
    "mnist-binary": dataclasses.replace(
        _MNIST, dataset="mnist-binary", likelihood="bernoulli", images=(200_000,)
    ),
    # Digits painted with an ink and on a paper of their own.
    "mnist-colour": dataclasses.replace(_MNIST, channels=3, images=(400_000,)),
    # For transfer: a digit the model has never seen.
    "mnist-no7": dataclasses.replace(_ALPHABET, without=(7,), images=(200_000,)),
    "mnist-no8": dataclasses.replace(_ALPHABET, without=(8,), images=(200_000,)),
    # No programs: what the tree is measured against.
    "mnist-vae": dataclasses.replace(_MNIST, model="vae"),
    "fashion": _FASHION,
    "omniglot": dataclasses.replace(_OMNIGLOT, reader_units=512),
    # Without the alphabets whose pen strokes are known: to compare parts with people's strokes.
    "omniglot-nopens": dataclasses.replace(
        _OMNIGLOT, reader_units=512, without=alphabets.labels(*alphabets.WITH_STROKES)
    ),
    "scenes": _SCENES,
    "counting": _COUNTING,
    "mnist-root": _root(_MNIST, images=(700_000,)),
    "fashion-root": _root(_FASHION),
    "omniglot-root": _root(_OMNIGLOT),
    "scenes-root": _root(_SCENES, images=(100_000, 100_000, 150_000)),
    # Characters whose true strokes are known.
    "strokes": Config(
        dataset="strokes", extent=((0.35, 0.55), (0.2, 0.6)), drop=0.0, images=(60_000, 140_000)
    ),
    # Characters of known strokes, some of which never come together in training.
    "combinations": Config(dataset="combinations", images=(60_000,)),
    # Without dabs its parts are the four quarters.
    "strokes-root": Config(
        dataset="strokes",
        posterior="root",
        z_dim=96,
        extent=((0.12, 0.45), (0.15, 0.5)),
        sigma2=0.03,
        kl_warmup=60_000,
        dabs=300_000,
        batch_size=128,
        images=(800_000,),
    ),
    "paper-mnist": _PAPER,
    "paper-fashion": dataclasses.replace(_PAPER, dataset="fashion"),
    "paper-omniglot": dataclasses.replace(
        _PAPER, dataset="omniglot", z_dim=96, images=(400 * 17_352,)
    ),
}
