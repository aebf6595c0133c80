"""The command line: `rnp` and `data`, `train`, `transfer`, `evaluate`, `figures`, …"""

import json
from pathlib import Path

import click
import torch
from matplotlib.figure import Figure

from rnp_lib import checkpoints, data, plots
from rnp_lib.analysis import classifier, parsing
from rnp_lib.analysis import controls as transfer_controls
from rnp_lib.analysis import transfer as transfers
from rnp_lib.bench import run as bench
from rnp_lib.config import PRESETS
from rnp_lib.explorer import maps
from rnp_lib.files import replacing
from rnp_lib.repro import notebooks as figures
from rnp_lib.repro import records
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

    `--set dataset=FOLDER` trains on your own PNG images. Test images are not looked at: `rnp
    evaluate` scores the model on them.
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
@click.argument("task", type=click.Choice(list(transfers.TASKS)))
@click.option("--seed", default=0, help="Of the retraining.")
@click.option(
    "--controls", is_flag=True, help="Run what is missing of the task's controls instead."
)
@click.option(
    "--models",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    help="With --controls: folder of the runs of models that are not committed.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="runs/encoder-TASK.safetensors or, with --controls, figures/transfer_TASK.json",
)
@click.option("--device", help="cpu, cuda, ...; the GPU if there is one unless told.")
def transfer_command(task, seed, controls, models, out, device):
    """Retrain the image encoder of a committed model for characters that it has not seen."""
    device = torch.device(_usable(device) or ("cuda" if torch.cuda.is_available() else "cpu"))
    if controls:
        out = out or Path("figures") / f"transfer_{task}.json"
        record = transfer_controls.run(task, models, out, device)
        click.echo(transfer_controls.table(record))
    else:
        out = out or Path("runs") / f"encoder-{task}.safetensors"
        about = transfers.retrain_encoder(task, out, seed, device)
        click.echo(json.dumps({"encoder": str(out), **about}, indent=1))


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
@click.option(
    "--iwae", type=click.IntRange(0), default=0, help="Also the bound of so many samples."
)
@_json_option("Also write the scores and the model's history here.")
@_plot_option("Also draw the parses of four test images here.")
def evaluate_command(checkpoint, dataset, iwae, path, plot):
    """Score a model (a name in checkpoints/, or a path) on all test images of a data set."""
    model = checkpoints.load(checkpoint)
    dataset = dataset or model.config.dataset
    images, _ = data.load(dataset, "test", model.config.image_size)
    scores = {"data": dataset, **parsing.evaluate(model, images, iwae=iwae)}
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
