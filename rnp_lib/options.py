"""Kinds of arguments and options that commands share, each checked before anything is done."""

import functools
from importlib import import_module
from pathlib import Path

import click

from rnp_lib.files import check_writable

# torch is imported by what needs it: it takes seconds.


class OneOf(click.ParamType):
    """One of names that a module knows."""

    def __init__(self, name: str, module: str, names: str):
        self.name, self.module, self.names = name, module, names

    def convert(self, value: str, parameter, context) -> str:
        known = list(getattr(import_module(f"rnp_lib.{self.module}"), self.names))
        if value not in known:
            self.fail(f"{value!r} is not one of {', '.join(known)}.", parameter, context)
        return value


def as_device(context: click.Context, option: click.Option, name: str | None):
    """The device, if this machine has it."""
    import torch

    from rnp_lib.machine import pick_device

    accelerator = torch.accelerator.current_accelerator(check_available=True)
    usable = ["cpu", accelerator.type] if accelerator else ["cpu"]
    if name and name.split(":")[0] not in usable:
        raise ValueError(f"device {name!r} cannot be used: this machine has {', '.join(usable)}.")
    return pick_device(name)


def as_file(context: click.Context, option: click.Option, path: Path | None) -> Path | None:
    """A path that can be written to."""
    if path:
        check_writable(path)
    return path


def as_picture(context: click.Context, option: click.Option, path: Path | None) -> Path | None:
    """A path with the ending of a kind of picture."""
    if path is None:
        return None
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:] not in kinds:
        raise ValueError(f"{path} cannot be drawn: its ending must be one of {', '.join(kinds)}.")
    return as_file(context, option, path)


def as_folder(context: click.Context, option: click.Option, path: Path | None) -> Path | None:
    """A folder that can be written to, there or not."""
    if path:
        check_writable(path / "any")
    return path


path_option = functools.partial(click.option, type=click.Path(path_type=Path), callback=as_file)
settings_option = functools.partial(
    click.option, "--set", "settings", multiple=True, metavar="KEY=VALUE"
)
device_option = functools.partial(
    click.option,
    "--device",
    callback=as_device,
    help="cpu, cuda, ...; the GPU if there is one unless told.",
)
