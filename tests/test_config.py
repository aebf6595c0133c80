"""Config: what it refuses and how it says so, how it is written down and read back, the presets."""

import dataclasses
import json

import pytest

from rnp_lib.config import RETIRED, Config
from rnp_lib.presets import PRESETS

TWO = Config(tau=(4, 4), images=(8, 9))
THREE = Config(tau=(4, 3, 2), extent=((0.2, 0.5), (0.3, 0.4), (0.1, 0.6)), images=(10, 0, 30))


def test_frozen_and_hashable():
    config = Config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.z_dim = 16
    assert hash(config) == hash(Config())
    assert config == Config()
    assert config != Config(z_dim=16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(image_size=(28, 32)),
            r"^image_size must be a valid integer: got \(28, 32\); images are square.* crop or pad",
        ),
        (dict(image_size=28.0), "image_size must be a valid integer: got 28.0"),
        (dict(image_size=7), "image_size must be greater than or equal to 8: got 7"),
        (dict(patch_size=7), "patch_size must be greater than or equal to 8"),
        (dict(tau=()), "tau must have at least 1 item"),
        (dict(tau=(4, 0)), r"every entry of tau must be .* equal to 1: got \(4, 0\)"),
        (dict(tau=(4, 2.5)), r"every entry of tau must be a valid integer: got \(4, 2.5\)"),
        (dict(tau=0), "tau must"),
        (dict(tau=(True, 4)), "tau must be a valid integer"),
        (
            dict(extent=((0.2, 0.4), (0.2, 0.5), (0.3, 0.4))),
            "one for each of the 2 levels of tau: got 3",
        ),
        (dict(extent=(0.2, 1.0), shear=0), r"a child must be smaller than its parent: .*< 1\.000"),
        (dict(extent=(0.2, 0.8), shear=1.0), r"a child must be smaller .* shear 1.0 .*< 0\.707"),
        (dict(extent=((0.2, 0.4), (0.2, 1.1))), r"smaller than its parent: extent \(0.2, 1.1\)"),
        (dict(extent=(0, 0.4)), "every entry of extent must be greater than 0"),
        (dict(extent=(0.1, 0.2, 0.3)), "extent must have at most 2 items"),
        (dict(extent=()), "every entry of extent must have at least 2 items"),
        (dict(extent=(0.5, 0.4)), "min <= max"),
        (dict(rotation=-1.0), "rotation must be greater than or equal to 0: got -1.0"),
        (dict(rotation=181), "rotation must be less than or equal to 180: got 181"),
        (dict(shear=-0.1), "shear must be greater than or equal to 0"),
        (dict(shear=float("inf")), "shear must be a finite number"),
        (dict(centre=-0.1), "centre must be greater than or equal to 0"),
        (dict(centre=2.5), "centre must be less than or equal to 2: got 2.5"),
        (dict(part_weight=-1.0), "part_weight must be greater than or equal to 0"),
        (dict(jitter=-0.1), "jitter must be greater than or equal to 0"),
        (dict(jitter=1.1), "jitter must be less than or equal to 1"),
        (dict(sigma2=0.0), "sigma2 must be greater than 0: got 0.0"),
        (dict(sigma2=float("nan")), "sigma2 must be a finite number: got nan"),
        (dict(sigma2=1e4), "sigma2 must be less than or equal to 1000"),
        (dict(lr=0.0), "^lr must be greater than 0"),
        (dict(adam_lr=-1e-3), "adam_lr must be greater than 0"),
        (dict(z_dim=0), "z_dim must be greater than or equal to 1: got 0"),
        (dict(z_dim=1.5), "z_dim must be a valid integer: got 1.5"),
        (dict(rank=0), "rank must"),
        (dict(trunk_depth=0), "trunk_depth must"),
        (dict(trunk_width=0), "trunk_width must"),
        (dict(hidden=0), "^hidden must"),
        (dict(batch_size=0), "batch_size must"),
        (dict(warmup=-1), "^warmup must be greater than or equal to 0"),
        (dict(kl_warmup=0.5), "kl_warmup must be a valid integer"),
        (dict(kl_warmup=18), "kl_warmup must end before training does: got 18 of 17"),
        (dict(seed=-1), "seed must be greater than or equal to 0"),
        (dict(seed=2**63), "seed must be less than or equal to 9223372036854775807"),
        (dict(ema=1.0), "ema must be less than 1: got 1.0"),
        (dict(ema=-0.1), "ema must be greater than or equal to 0"),
        (dict(images=()), "images must list"),
        (dict(images=(1, 0)), r"the last one \(the whole tree\) above 0"),
        (dict(images=(-1, 1)), "every entry of images must be greater than or equal to 0"),
        (dict(feedback="self"), "feedback must be 'child', 'own' or 'none': got 'self'"),
        (dict(hypernet="half"), "hypernet must be 'factorised' or 'full'"),
        (dict(state_activation="relu"), "state_activation must be 'tanh' or 'elu'"),
        (dict(patch_activation="tanh"), "patch_activation must be 'sigmoid' or 'relu'"),
        (dict(action_activation="elu"), "action_activation must be 'tanh' or 'sin'"),
        (dict(encoder="vit"), "encoder must be 'light' or 'resnet'"),
        (dict(part_term="patch"), "part_term must be 'canvas' or 'zoom'"),
        (dict(optimiser="sgd"), "optimiser must be 'muon' or 'adam'"),
        (dict(decay="linear"), "decay must be 'cosine' or 'none'"),
        # Wrong types are refused in one sentence as well; "false" would otherwise be true.
        (dict(normalise="false"), "normalise must"),
        (dict(step_vector="no"), "step_vector must"),
        (dict(lr="fast"), "^lr must be"),
        (dict(rotation=None), "rotation must"),
        (dict(ema="a"), "ema must"),
        (dict(tau=2.5), "tau must"),
        (dict(dabs=-1), "dabs must be greater than or equal to 0"),
        (dict(dabs=9, images=(17,)), "dabs must end before training .* got 9 of 17"),
        (dict(dabs=9, model="vae"), "dabs stand in for the patches of programs"),
        (dict(dabs=9, model="hvae"), "dabs stand in for the patches of programs"),
        (dict(model="hvae", posterior="root"), "a hierarchical VAE draws two vectors: set post"),
        (dict(samples=5), "several samples an image train a plain VAE alone"),
        (dict(samples=0), "samples must be greater than or equal to 1: got 0"),
        (dict(hypernets="two"), "hypernets must be 'one' or 'levels': got 'two'"),
        (dict(without="seven"), "every entry of without must be a valid integer: got 'seven'"),
        (dict(without=(-1,)), r"entry of without must be .* equal to 0: got \(-1,\)"),
        (dict(images=1.5), "images must"),
        (dict(posterior="both"), "posterior must be 'tree' or 'root'"),
        (dict(prior_z="none"), "prior_z must be 'prediction', 'symbols' or 'both'"),
        (dict(symbols=0), "symbols must be greater than or equal to 1: got 0"),
        (dict(reader_units=0), "reader_units must be greater than or equal to 1: got 0"),
        (dict(channels=2), "channels must be 1 or 3: got 2"),
        (dict(channels=3, jitter=0.1), "jitter brings in black from outside.* set jitter=0"),
        (dict(drop=1.0), "drop must be less than 1: got 1.0"),
        (dict(drop=-0.1), "drop must be greater than or equal to 0"),
        (
            dict(posterior="tree", feedback="child"),
            "posterior=tree unrolls siblings together: set feedback to none or own",
        ),
        (dict(extent=0.3), "extent"),
        (dict(extent=("a", "b")), "extent"),
    ],
    ids=str,
)
def test_says_what_cannot_work(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        dataclasses.replace(TWO, **changes)
    assert "\n" not in str(error.value)


def test_a_sheared_window_still_fits_just_below_the_limit():
    Config(shear=0.75, extent=(0.2, 0.799))  # the shear lengthens one side by 1.25
    with pytest.raises(ValueError, match="smaller than its parent"):
        Config(shear=0.75, extent=(0.2, 0.8))


def test_one_number_or_one_pair_serves_all_levels():
    assert Config(tau=(4,), images=(1, 2)).images == (2,), "no level is left for the first entry"
    config = Config(tau=[4, 3], extent=[0.2, 0.4], images=[5])
    assert config.tau == (4, 3)
    assert config.images == (5,)
    assert config.extent == ((0.2, 0.4), (0.2, 0.4))
    assert Config(tau=3, images=7).tau == (3,)
    assert Config(tau=3, images=7).images == (7,)


@pytest.mark.parametrize("config", [THREE, *PRESETS.values()], ids=["three", *PRESETS])
def test_round_trip_through_json(config):
    again = Config.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_settings_without_a_posterior_are_of_before_it_and_mean_the_root():
    new = ("posterior", "prior_z", "symbols", "reader_units", "drop")
    for config in (TWO, THREE, PRESETS["paper-mnist"]):
        old = {name: value for name, value in config.to_dict().items() if name not in new}
        assert Config.from_dict(old) == dataclasses.replace(config, posterior="root")
    tree = dataclasses.replace(TWO, posterior="tree")
    assert tree.posterior == Config.from_dict(tree.to_dict()).posterior == "tree"
    assert tree.override(["z_dim=8"]).posterior == "tree"
    root = dataclasses.replace(tree, drop=0.3).override(["posterior=root"])
    assert (root.posterior, root.drop) == ("root", 0.0)  # there is nothing to drop


def test_where_nothing_is_drawn_below_the_root_the_posterior_is_the_root_s():
    for changes in ({"model": "vae"}, {"tau": (4,), "images": (9,)}):
        config = dataclasses.replace(TWO, posterior="tree", **changes)
        assert config.posterior == "root"
        assert config.noise == config.z_dim
    assert Config(posterior="tree", tau=3, feedback="child").posterior == "root"


def test_the_numbers_a_tree_is_drawn_with():
    tree = dataclasses.replace(THREE, posterior="tree", z_dim=10)
    assert tree.noise_each == 10 + 6 + 1  # a program, its action, and the part of a mixture
    assert tree.drawn_below(3) == [4, 12]  # the leaves follow from their parents
    assert tree.drawn_below(2) == [3]
    assert tree.drawn_below(1) == []
    assert tree.noise == 10 + 16 * 17
    root = dataclasses.replace(tree, posterior="root")
    assert root.noise == 10
    assert root.drawn_below(3) == []


def test_unknown_settings_are_named():
    with pytest.raises(ValueError, match="unknown setting taus, zdim: .*z_dim"):
        Config.from_dict({"zdim": 3, "taus": 2, "rank": 4})


def test_settings_that_became_constants_are_read_at_their_value_alone():
    config = Config.from_dict({**TWO.to_dict(), **RETIRED})
    assert config == TWO
    assert not RETIRED.keys() & config.to_dict().keys()
    for name in RETIRED:
        with pytest.raises(
            ValueError, match=f"{name} is no setting any more, but .*: got 7; leave"
        ):
            Config.from_dict({name: 7})


def test_whole_numbers_serve_as_numbers():
    assert Config(rotation=45, lr=1, extent=(0.2, 0.5)) == Config(
        rotation=45.0, lr=1.0, extent=[0.2, 0.5]
    )


def test_override():
    config = Config().override(["z_dim=16", "tau=(2, 3)", "feedback=own", "lr = 2e-3", "seed=5"])
    expected = Config(z_dim=16, tau=(2, 3), feedback="own", lr=2e-3, seed=5)
    assert config == expected
    assert Config().override(["normalise=False"]).normalise is False
    assert Config().override(["dataset=a=b"]).dataset == "a=b"
    assert Config().override([]) == Config()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("z_dim", "cannot read the setting 'z_dim': write it as key=value"),
        ("z=3", "unknown setting z"),
        ("z_dim=big", "z_dim must be a valid integer: got 'big'"),
        ("lr=fast", "^lr must be"),
        ("normalise=no", "normalise must"),
        ("clip=2.0", "clip is no setting any more, but 1.0 in every model: got 2.0"),
    ],
)
def test_override_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        Config().override([text])


def test_override_of_the_depth_keeps_the_extent_of_all_levels():
    config = Config(tau=(4, 4), extent=(0.2, 0.4), images=(8, 9))
    assert config.override(["tau=(4, 3, 2)"]).extent == ((0.2, 0.4),) * 3


def test_depth_and_stages():
    assert THREE.depth == 3
    assert THREE.stages() == [(1, 10), (3, 30)]  # a depth that sees no images is skipped
    assert TWO.depth == 2
    assert TWO.stages() == [(1, 8), (2, 9)]
    # The last entry is the whole tree.
    assert dataclasses.replace(TWO, images=(9,)).stages() == [(2, 9)]
    assert Config(tau=(4, 4, 4), images=(8, 9)).stages() == [(2, 8), (3, 9)]
    assert Config(tau=4, images=9).stages() == [(1, 9)]


def test_presets_are_valid():
    for name, config in PRESETS.items():
        assert config == dataclasses.replace(config)  # which validates once more
        assert name.removeprefix("paper-").startswith(config.dataset)
    for digit in (7, 8):  # transfer: the same recipe but for the class
        changed = dataclasses.replace(PRESETS[f"mnist-no{digit}"], without=())
        assert changed == dataclasses.replace(PRESETS["mnist-alphabet"], images=(200_000,))


@pytest.mark.parametrize(
    ("name", "dataset", "z_dim", "epochs", "train"),
    [
        ("paper-mnist", "mnist", 32, 200, 55_000),
        ("paper-fashion", "fashion", 32, 200, 55_000),
        ("paper-omniglot", "omniglot", 96, 400, 17_352),
    ],
)
def test_paper_presets_have_the_paper_s_values(name, dataset, z_dim, epochs, train):
    config = PRESETS[name]
    expected = dict(
        dataset=dataset,
        z_dim=z_dim,
        patch_size=28,
        images=(epochs * train,),
        tau=(4, 4),
        extent=((1 / 4.3, 1 / 2.3),) * 2,
        hidden=64,
        trunk_depth=6,
        trunk_width=64,
        hypernet="full",
        feedback="child",
        normalise=False,
        step_vector=False,
        state_activation="elu",
        patch_activation="relu",
        action_activation="sin",
        encoder="resnet",
        part_term="zoom",
        part_weight=1.0,
        kl_warmup=0,
        batch_size=64,
        optimiser="adam",
        lr=4e-5,
        warmup=0,
        decay="none",
        ema=0.0,
    )
    assert {key: getattr(config, key) for key in expected} == expected
    assert config.stages() == [(2, epochs * train)]
