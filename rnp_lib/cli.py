"""The command line: `rnp` and `data`, `train`, `transfer`, `evaluate`, `figures`, …"""

import json
from pathlib import Path

import click
import torch
from matplotlib.figure import Figure

from rnp_lib import checkpoints, data, plots
from rnp_lib.analysis import classifier, controls, metrics
from rnp_lib.analysis.transfer import TASKS
from rnp_lib.bench import run as bench
from rnp_lib.config import PRESETS
from rnp_lib.explorer import maps
from rnp_lib.files import replacing
from rnp_lib.repro import notebooks as figures
from rnp_lib.repro import recipe, records
from rnp_lib.training import loop as training


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def commands():
    """Recursive Neural Programs: images as trees of programs."""


@commands.command("data")
@click.argument("names", nargs=-1, metavar="[NAME]...")
def data_command(names):
    """Fetch data sets (all of them unless named) and say where each came from."""
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
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a setting.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the run; runs/PRESET if not given."
)
@click.option("--resume", is_flag=True, help="Go on with the run in that folder.")
@click.option("--device", help="cpu, cuda, ...; the GPU if there is one unless told.")
def train_command(preset, settings, out, resume, device):
    """Train a model. Under `torchrun -m rnp_lib train PRESET`, with all its processes.

    `--set dataset=FOLDER` trains on your own PNG images.
    """
    config = PRESETS[preset].override(list(settings))
    training.train(config, out or Path("runs") / preset, resume, _usable(device))


def _usable(device: str | None) -> str | None:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    usable = ["cpu", accelerator.type] if accelerator else ["cpu"]
    if device and device.split(":")[0] not in usable:
        raise ValueError(f"device {device!r} cannot be used: this machine has {', '.join(usable)}.")
    return device


@commands.command("transfer")
@click.argument("task", type=click.Choice(list(TASKS)))
@click.option("--model", type=click.Choice(list(controls.MODELS)), default="rnp")
@click.option(
    "--condition",
    type=click.Choice(controls.TRIED["rnp"]),
    default="encoder",
    help="What may adapt to the new characters.",
)
@click.option("--seed", default=0, help="Of the model that starts, and of what follows.")
@click.option("--shots", type=click.IntRange(1), help="Learn from so few images of the digit.")
@click.option("--draw", default=0, help="Number that settles which these are.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change the recipe.")
@click.option("--base", help="Model that starts, a name or a path; the committed one of seed 0.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The trial's record, .json, or its encoder; runs/encoder-TASK.safetensors if not given.",
)
@click.option("--device", help="cpu, cuda, ...; the GPU if there is one unless told.")
def transfer_command(task, model, condition, seed, shots, draw, settings, base, out, device):
    """Run one trial of transfer: unless told, retrain the image encoder of a committed model for
    characters that it has not seen."""
    device = torch.device(_usable(device) or ("cuda" if torch.cuda.is_available() else "cpu"))
    out = out or Path("runs") / f"encoder-{task}.safetensors"
    trial = controls.Trial(model, condition, seed, shots, draw)
    if out.suffix == ".json":
        _write_json(out, controls.run(task, trial, device, base, settings)[0])
    else:
        controls.save_encoder(out, task, trial, device, base, settings)
    click.echo(out)


@commands.command("collect")
@click.argument("task", type=click.Choice(list(TASKS)))
@click.argument("trials", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="figures/transfer_TASK.json")
def collect_command(task, trials, out):
    """Put records of a task's trials, as `rnp transfer` writes them, into one record."""
    record = controls.collect(task, trials)
    _write_json(out or Path("figures") / f"transfer_{task}.json", record)
    click.echo(controls.table(record))


@commands.command("classifier")
@click.argument("dataset", type=click.Choice(["mnist", "fashion", "omniglot"]))
@click.option("--out", type=click.Path(path_type=Path), help="runs/classifier-DATASET.safetensors")
def classifier_command(dataset, out):
    """Train the small classifier that judges samples: some minutes on one CPU core."""
    path = out or Path("runs") / f"classifier-{dataset}.safetensors"
    accuracy = classifier.train_classifier(dataset, path)
    click.echo(f"{path}: {accuracy:.2%} of the validation images")


def _json_option(text: str):
    return click.option("--json", "path", type=click.Path(path_type=Path), help=text)


def _plot_option(text: str):
    return click.option("--plot", type=click.Path(path_type=Path), help=text)


def _write_json(path: Path, values: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n")


def _write_plot(path: Path, figure: Figure) -> None:
    with replacing(path) as temporary:
        figure.savefig(
            temporary, format=path.suffix[1:] or "png", dpi=records.DPI, bbox_inches="tight"
        )


@commands.command("evaluate")
@click.argument("checkpoint")
@click.option("--data", "dataset", help="Data set or folder; what it was trained on if not given.")
@_json_option("Also write the scores and the model's history here.")
@_plot_option("Also draw the parses of four test images here.")
def evaluate_command(checkpoint, dataset, path, plot):
    """Score a model (a name in checkpoints/, or a path) on all test images of a data set."""
    model = checkpoints.load(checkpoint)
    dataset = dataset or model.config.dataset
    images, _ = data.load(dataset, "test", model.config.image_size)
    scores = {"data": dataset, **metrics.evaluate(model, images)}
    click.echo(json.dumps(scores, indent=1))
    if path:
        _write_json(path, {"numbers": scores, "model": checkpoints.metadata(checkpoint)})
    if plot:
        spread = images[len(images) // 8 :: -(-len(images) // 4)]  # as in notebook 01
        with torch.no_grad():
            _write_plot(plot, plots.parsing(spread, model.parse(spread)))


@commands.command("map")
@click.argument("checkpoint")
def map_command(checkpoint):
    """Map a model's programs of test images for the explorer: a minute or two on one CPU core."""
    click.echo(maps.make(checkpoint))


@commands.command("bench")
@click.option("--device", default="cpu", help="cpu, cuda, ...")
@click.option("--learn", is_flag=True, help="Also time training to given errors on MNIST.")
@_json_option("Also write all of it here.")
@_plot_option("Also draw it here.")
def bench_command(device, learn, path, plot):
    """Measure training and parsing beside a naive port and a plain VAE; takes two minutes or so."""
    device = torch.device(_usable(device))
    result = bench.run(device)
    if learn:
        result["learn"] = bench.learn(device)
    click.echo(bench.report(result))
    if path:
        _write_json(path, result)
    if plot:
        _write_plot(plot, plots.speed(result))


@commands.command("figures")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--mode", type=click.Choice(["quick", "full", "paper"]), default="full")
@click.option("-p", "--parameter", "parameters", nargs=2, multiple=True, metavar="NAME VALUE")
def figures_command(names, mode, parameters):
    """Run the notebooks (all unless named, as 01, parsing or 01_parsing) and make their figures."""
    figures.run_notebooks(names, mode, dict(parameters))


@commands.command("recipe")
@click.argument("runs", type=click.Path(path_type=Path, file_okay=False, exists=True))
def recipe_command(runs):
    """Fill docs/recipe.json with the numbers of the runs in a folder, as workflow/ leaves them."""
    record = json.loads(recipe.PATH.read_text(encoding="utf-8"))
    _write_json(recipe.PATH, recipe.collect(record, runs))


def main():
    """Run a command; an expected error is one sentence and exit status 1."""
    expected = (
        ValueError,
        FileNotFoundError,
        FileExistsError,
        checkpoints.CheckpointError,
        data.DataUnavailable,
        figures.FigureError,
        training.TrainingStopped,
    )
    try:
        commands()
    except expected as error:
        raise SystemExit(f"rnp: {error}") from None
