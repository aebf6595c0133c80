"""Recipes by name: ours for each data set, and the paper's."""

import dataclasses

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
