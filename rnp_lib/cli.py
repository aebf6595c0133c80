"""The command line: `rnp` and `data`, `train`, `transfer`, `evaluate`, `figures`, …"""

import difflib
import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import click

from rnp_lib.files import ROOT, Expected, read_json, replacing, write_json
from rnp_lib.options import (
    OneOf,
    as_folder,
    as_picture,
    device_option,
    path_option,
    settings_option,
)
from rnp_lib.presets import PRESETS

# Everything else is imported by the commands that need it: torch takes seconds.


_TASK = OneOf("task", "analysis.transfer", "TASKS")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def commands():
    """Recursive Neural Programs: images as trees of programs."""


@commands.command("data")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def data_command(names):
    """Fetch data sets (all of them unless named) and say where each came from."""
    from rnp_lib import data

    missing = []
    for name in names or data.NAMES:
        try:
            click.echo(data.fetch(name))
        except data.DataUnavailable as error:
            missing.append(name)
            click.echo(error, err=True)
    if missing:
        raise click.ClickException(
            f"{', '.join(missing)} could not be had; notebooks use the generated strokes instead."
        )


@commands.command("train")
@click.argument("preset", type=click.Choice(sorted(PRESETS)))
@settings_option(help="Change a setting.")
@path_option("--out", callback=as_folder, help="Folder of the run; runs/PRESET if not given.")
@click.option("--resume", is_flag=True, help="Go on with the run in that folder.")
@click.option(
    "--save-every",
    type=click.FloatRange(0),
    default=2.0,  # training.loop.SAVE_EVERY, which takes torch to import
    help="Minutes between states to go on from.",
)
@click.option("--tensorboard", is_flag=True, help="Log for TensorBoard too, to the same folder.")
@device_option()
def train_command(preset, settings, out, resume, save_every, tensorboard, device):
    """Train a model. Under `torchrun -m rnp_lib train PRESET`, with all its processes.

    `--set dataset=FOLDER` trains on your own PNG images, in colour if any of them is, unless
    `--set channels=1` is given. Test images are not looked at: `rnp
    evaluate` scores the model on them.
    """
    from rnp_lib import data
    from rnp_lib.training import loop

    config = PRESETS[preset].override(list(settings))
    folder, told = Path(config.dataset), {text.partition("=")[0].strip() for text in settings}
    if "channels" not in told and folder.is_dir() and data.in_colour(folder):
        config = replace(config, channels=3)
    loop.train(config, out or Path("runs") / preset, resume, device, save_every, tensorboard)


@commands.command("transfer")
@click.argument("task", type=_TASK)
@click.option("--model", type=OneOf("model", "analysis.controls", "MODELS"), default="tree")
@click.option(
    "--condition",
    type=OneOf("condition", "analysis.controls", "ADAPTING"),
    default="inference",
    help="What adapts to the new characters.",
)
@click.option("--saw", is_flag=True, help="Start from a model that saw every character.")
@click.option("--seed", default=0, help="Of the model that starts, and of what follows.")
@click.option("--shots", type=click.IntRange(1), help="Learn from so few images of the digit.")
@click.option("--draw", default=0, help="Number that settles which these are.")
@settings_option(help="Change the recipe.")
@click.option("--base", help="Model that starts, a name or a path; that of checkpoints/.")
@path_option(
    "--out",
    help="The trial's record, .json, or its encoder; runs/encoder-TASK.safetensors if not given.",
)
@device_option()
def transfer_command(task, model, condition, saw, seed, shots, draw, settings, base, out, device):
    """Run one trial of transfer: unless told, retrain what looks at images in a committed tree, its
    encoder and its reader, for characters that it has not seen."""
    from rnp_lib.analysis import controls

    out = out or Path("runs") / f"encoder-{task}.safetensors"
    trial = controls.Trial(model, condition, saw, seed, shots, draw)
    if out.suffix == ".json":
        write_json(out, controls.run(task, trial, device, base, settings)[0])
    else:
        controls.save_encoder(out, task, trial, device, base, settings)
    click.echo(out)


@commands.command("collect")
@click.argument("task", type=_TASK)
@click.argument(
    "paths", metavar="TRIAL...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@path_option("--out", help="figures/transfer_TASK.json")
def collect_command(task, paths, out):
    """Put records of a task's trials, as `rnp transfer` writes them, into one record."""
    from rnp_lib.analysis import controls, trials

    record = controls.collect(task, paths)
    write_json(out or Path("figures") / f"transfer_{task}.json", record)
    click.echo(trials.table({task: record}))


@commands.command("classifier")
@click.argument("dataset", type=click.Choice(["mnist", "fashion", "omniglot"]))
@path_option("--out", help="runs/classifier-DATASET.safetensors")
def classifier_command(dataset, out):
    """Train the small classifier that judges samples: some minutes on one CPU core."""
    from rnp_lib.analysis import classifier

    path = out or Path("runs") / f"classifier-{dataset}.safetensors"
    accuracy = classifier.train_classifier(dataset, path)
    click.echo(f"{path}: {accuracy:.2%} of the validation images")


def _write_plot(path: Path, figure) -> None:
    from rnp_lib.repro import records

    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=records.DPI, bbox_inches="tight")


@commands.command("evaluate")
@click.argument("checkpoint", required=False)
@click.option("--data", "dataset", help="Data set or folder; what it was trained on if not given.")
@click.option(
    "--iwae", type=click.IntRange(0), default=0, help="Also the bound of so many samples."
)
@path_option("--json", "path", help="Also write the scores and the model's history here.")
@path_option("--plot", callback=as_picture, help="Also draw the parses of four test images here.")
@path_option(
    "--peers",
    callback=as_folder,
    metavar="FOLDER",
    help="Score the tree and its peers instead, with runs in this folder: hours if none is there.",
)
@click.option(
    "--study",
    type=OneOf("study", "analysis.study", "STUDIES"),
    default="peers",
    help="With --peers: on every measure, on each digit held out once, a plain VAE on covered "
    "digits and on images of other kinds, parts against people's pen strokes, digits, one "
    "shot and combinations by several seeds, counting digits, or how probable digits are.",
)
def evaluate_command(checkpoint, dataset, iwae, path, plot, peers, study):
    """Score a model (a name in checkpoints/, or a path) on all test images of a data set."""
    from rnp_lib import checkpoints, data, plots
    from rnp_lib.analysis import scores

    if peers:
        if checkpoint or dataset or iwae or plot:
            raise ValueError("--peers has models and data of its own: it goes with --json alone.")
        return _evaluate_study(study, peers, path)
    if not checkpoint:
        raise ValueError("name a model to score, or a folder: `rnp evaluate --peers FOLDER`.")
    model = checkpoints.load(checkpoint)
    if plot and model.config.model in ("vae", "hvae"):
        raise ValueError("a plain VAE has no parts to draw: leave out --plot.")
    dataset = dataset or model.config.dataset
    found = {"data": dataset, **scores.on_test_images(model, dataset, iwae)}
    click.echo(json.dumps(found, indent=1))
    if path:
        write_json(path, {"numbers": found, "model": checkpoints.metadata(checkpoint)})
    if plot:
        images, _ = data.load(dataset, "test", model.config.image_size, model.config.channels)
        spread = images[len(images) // 8 :: -(-len(images) // 4)]  # as in notebook 01
        _write_plot(plot, plots.parsing(spread, model.parse(spread)))


def _evaluate_study(name: str, folder: Path, path: Path | None) -> None:
    from rnp_lib.model import build

    study = import_module(f"rnp_lib.analysis.{name}")
    recipes = study.recipes().values()
    for recipe in recipes:
        build(recipe.config, 0)  # what is not installed is missed before hours of training
    for recipe in recipes:
        recipe.train(folder)
    record = study.collect(folder)
    write_json(path or ROOT / "figures" / f"{name}.json", record)
    click.echo(study.table(record))


@commands.command("compare")
@click.argument("one")
@click.argument("other")
@click.option("--data", "dataset", help="Data set or folder; what ONE was trained on if not given.")
@path_option("--plot", callback=as_picture, help="Also draw what both make of eight test images.")
def compare_command(one, other, dataset, plot):
    """Two models on the same test images, their differences paired image by image."""
    from rnp_lib import checkpoints, data, plots
    from rnp_lib.analysis import scores

    models = {name: checkpoints.load(name) for name in (one, other)}
    kinds = {(model.config.image_size, model.config.channels) for model in models.values()}
    if len(models) < 2 or len(kinds) > 1:
        raise ValueError("compare two different models of images of the same size and channels.")
    dataset = dataset or models[one].config.dataset
    images, _ = data.load(dataset, "test", *kinds.pop())
    found = scores.compare(models[one], models[other], images)
    click.echo(f"{found['n']:,} test images of {dataset}")
    for name, what in (("sse", "squared error"), ("nats", "negative ELBO, nats")):
        click.echo(
            f"{what:20} {one} {found[name]:.2f}, {other} {found[f'{name}_other']:.2f}, difference "
            f"{found[f'{name}_less']:+.3f} ± {found[f'{name}_less_stderr']:.3f}"
        )
    if plot:
        spread = images[len(images) // 16 :: -(-len(images) // 8)]
        rows = {"input": plots.grey(spread)}
        for name, model in models.items():
            tree = model.parse(spread)
            rows[Path(name).stem] = plots.grey(tree.canvas)
            if tree.children:
                rows[f"{Path(name).stem}, by part"] = plots.coloured(tree.parts)
        _write_plot(plot, plots.rows(rows))


@commands.command("map")
@click.argument("checkpoint")
def map_command(checkpoint):
    """Map a model's programs of test images for the explorer: a minute or two on one CPU core."""
    from rnp_lib.explorer import maps

    click.echo(maps.make(checkpoint))


@commands.command("bench")
@device_option(default="cpu", help="cpu, cuda, ...")
@click.option("--learn", is_flag=True, help="Also time training to given errors on MNIST.")
@path_option("--json", "path", help="Also write all of it here.")
@path_option("--plot", callback=as_picture, help="Also draw it here.")
def bench_command(device, learn, path, plot):
    """Measure training and parsing beside a naive port and a plain VAE; takes two minutes or so."""
    from rnp_lib import plots
    from rnp_lib.bench import run as bench
    from rnp_lib.bench.report import report

    result = bench.run(device)
    if learn:
        result["learn"] = bench.learn(device)
    click.echo(report(result))
    if path:
        write_json(path, result)
    if plot:
        _write_plot(plot, plots.speed(result))


@commands.command("gpu")
@device_option(help="cuda, ...; the GPU unless told, or cpu to try this out.")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Of it all.")
@path_option("--out", callback=as_folder, default="runs/gpu", help="Folder of record and model.")
def gpu_command(device, share, out):
    """Do all that waits for a GPU, in less than ten minutes: tests, the benchmark, the recipe of
    MNIST, and of the paper's what fits."""
    from rnp_lib.bench import gpu

    record = gpu.run(device, out / "mnist", share)
    write_json(out / "gpu.json", record)
    click.echo(json.dumps(record, indent=1))


@commands.command("figures")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "--mode",
    type=OneOf("mode", "repro.records", "MODES"),
    default="full",
    help="quick, full or paper.",
)
@click.option("-p", "--parameter", "parameters", nargs=2, multiple=True, metavar="NAME VALUE")
def figures_command(names, mode, parameters):
    """Run the notebooks (all unless named, as 01, parsing or 01_parsing) and make their figures.

    Mode paper first trains, or goes on training, the models that are not in runs/paper-NAME yet.
    """
    from rnp_lib.repro import notebooks

    def train(preset: str) -> None:
        from rnp_lib.training import loop

        loop.train(PRESETS[preset], ROOT / "runs" / preset, resume=True)

    notebooks.run_notebooks(names, mode, dict(parameters), prepare=train)


@commands.command("readme")
@click.option("--write", is_flag=True, help="Change them.")
def readme_command(write):
    """Say where numbers of README and docs/ are not those of the records; exit status 1 if so."""
    from rnp_lib.repro import readme

    stale = False
    for page in readme.pages():
        old = page.read_text(encoding="utf-8")
        new = readme.filled(old)
        stale |= old != new
        for line in difflib.unified_diff(old.splitlines(), new.splitlines(), page.name, n=0):
            click.echo(line.rstrip())
        if write and old != new:
            with replacing(page) as temporary:
                temporary.write_text(new, encoding="utf-8")
    if stale and not write:
        raise click.ClickException("numbers differ from their records: `rnp readme --write`.")


@commands.command("recipe")
@click.argument("runs", type=click.Path(path_type=Path, file_okay=False, exists=True))
def recipe_command(runs):
    """Fill docs/recipe.json with the numbers of the runs in a folder, as workflow/ leaves them."""
    from rnp_lib.repro import recipe

    write_json(recipe.PATH, recipe.collect(read_json(recipe.PATH), runs))


def main():
    """Run a command; an expected error is one sentence and exit status 1."""
    try:
        commands()
    except (ValueError, OSError, Expected) as error:
        if isinstance(error, OSError) and error.strerror:
            error = f"{error.filename or 'a file'} cannot be read or written: {error.strerror}."
        raise SystemExit(f"rnp: {error}") from None
