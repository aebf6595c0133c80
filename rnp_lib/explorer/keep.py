"""What is kept of a state: Python that makes its tree, or the tree as a file."""

import base64
import io
import json
import zlib
from dataclasses import replace

import matplotlib.pyplot as plt

from rnp_lib import plots
from rnp_lib.explorer import edits, trees
from rnp_lib.explorer.states import GivenProgram, Picture, Sample, Saved, State, TestImage

KINDS = ("png", "svg", "json")


def code(state: State) -> str:
    """Python that makes the tree of a state with `rnp_lib`, in a variable `tree`."""
    lines = _code(state, "tree")
    imports = ["import torch", "", "import rnp_lib as rnp"]
    if any("zlib." in line for line in lines):
        imports = ["import base64", "import zlib", "", *imports]
    start = [f"model = rnp.load({json.dumps(state.model)})", "torch.set_grad_enabled(False)"]
    if any("guide." in line for line in lines):
        imports.append("from rnp_lib.explorer import edits, maps")
        name = json.dumps(state.model)
        start.append(f"guide = maps.map_of({name})  # directions to steer along")
    elif any("edits." in line for line in lines):
        imports.append("from rnp_lib.explorer import edits")
    return "\n".join([*imports, "", *start, *lines]) + "\n"


def _code(state: State, variable: str) -> list[str]:
    root = trees.tree(replace(state, edits=()))
    _, channels, side, _ = root.canvas.shape
    match state.source:
        case TestImage(index):
            name, x = json.dumps(state.dataset), f"images[{index}:{index + 1}]"
            shape = side if channels == 1 else f"{side}, {channels}"
            lines = [f'images, _ = rnp.data.load({name}, "test", {shape})']
        case Picture(pixels):
            packed, x = base64.b64encode(zlib.compress(pixels, 9)).decode(), "image"
            lines = [
                f'pixels = zlib.decompress(base64.b64decode("{packed}"))',
                f"image = torch.tensor(list(pixels)).view(1, {channels}, {side}, {side}) / 255",
            ]
        case Sample(seed, temperature):
            lines = [f"{variable} = model.sample(1, seed={seed}, temperature={temperature})"]
        case Saved():
            lines = [
                'with open("tree.json") as file:  # the file that was opened',
                f"    {variable} = rnp.ProgramTree.from_json(file.read())",
            ]
        case GivenProgram(_, level):
            numbers = ", ".join(f"{value:.9g}" for value in root.z[0].tolist())
            lines = [
                f"z = torch.tensor([[{numbers}]])",
                f"{variable} = model.decode(z, level={level})",
            ]
    if isinstance(state.source, TestImage | Picture):
        of_root = state.predicted and trees.corrects(state)
        made = f"decode(model.encode({x}).mean)" if of_root else f"parse({x})"
        lines.append(f"{variable} = model.{made}")
    donors = 0
    for edit in state.edits:
        arguments = dict(edit.arguments)
        given = [f"{name}={value!r}" for name, value in arguments.items()]
        if edit.what == "steer":
            level = root.level - len(edit.path)  # which edits leave as it is
            way, to = arguments["direction"], arguments["to"]
            given = [f"guide.directions[{level}, {way}]", f"to={to!r}", f"mean=guide.mean[{level}]"]
        elif edit.what == "transplant":
            donors += 1
            donor = f"{variable}_donor_{donors}"
            lines += _code(arguments["donor"], donor)
            given = [f"{donor}.at({arguments['donor_path']})"]
        first = ["model"] if edit.what in trees.BY_MODEL else []
        call = ", ".join([*first, variable, repr(edit.path), *given])
        lines.append(f"{variable} = edits.{edit.what}({call})")
    return lines


def export(state: State, kind: str, dpi: int = 200) -> bytes:
    """The tree as a file: a figure ("png" or "svg", outlines as vectors), or "json".

    `ProgramTree.from_json` reads the last; `dpi` is the resolution of the figures. Raises
    ValueError for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"a tree is saved as one of {', '.join(KINDS)}: got {kind!r}.")
    tree = trees.tree(state)
    if kind == "json":
        return tree.to_json().encode()
    hidden = {path for path, node in edits.walk(tree) if isinstance(node, edits.Hidden)}
    colours = plots.PALETTES[state.colours]
    figure = plots.tree(trees.image(state), tree, until=0, colours=colours, hidden=hidden)
    file = io.BytesIO()
    # No date and no version: the same tree is the same file.
    clean = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with plt.rc_context({"svg.hashsalt": "rnp"}):  # else the names of outlines are random
        figure.savefig(file, format=kind, dpi=dpi, bbox_inches="tight", metadata=clean)
    plt.close(figure)
    return file.getvalue()
