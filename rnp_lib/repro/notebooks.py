"""The driver: run the notebooks with papermill and make sure that each one made its figures.

papermill alone is not enough. It exits 0 over an error inside a widget callback, ignores a
parameter that the notebook does not have, and knows nothing of figures; all are errors here.
"""

import ast
import contextlib
import json
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from rnp_lib.files import ROOT
from rnp_lib.repro import records

# Notebook -> the figures it makes, in the order in which the notebooks run.
FIGURES: dict[str, tuple[str, ...]] = {
    "00_start_here": (),
    "01_parsing": (
        "fig1a_reuse",
        "fig1b_tree",
        "fig3a_mnist",
        "fig3b_omniglot",
        "fig3c_fashion",
        "learning_curves",
        "true_strokes",
        "three_levels",
    ),
    "02_topography": ("fig4a_tsne", "fig4b_clusters"),
    "03_interpolation": ("fig4c_interpolation",),
    "04_prior_sampling": ("fig5_samples",),
    "05_transfer": (
        "fig6a_seven",
        "fig6b_eight",
        "fig6c_omniglot",
        "fig6d_controls",
        "fig6e_reuse",
        "fig6f_shots",
    ),
    "06_explore": (),
}
NOTEBOOKS = ROOT / "notebooks"
OUT = ROOT / "runs" / "notebooks"
REPORT_EVERY = 30.0  # seconds between signs of life where there is no terminal to draw a bar in
_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


class FigureError(RuntimeError):
    """A notebook or a figure is not as it should be; the message says which and why."""


@dataclass(frozen=True)
class Result:
    """One notebook that ran: wall time in seconds, PNGs written, and what stood in for what."""

    name: str
    seconds: float
    figures: tuple[Path, ...]
    stand_ins: Mapping[str, str]


def run_notebooks(
    names: Sequence[str] = (),
    mode: str = "full",
    parameters: Mapping[str, Any] | None = None,
    out: Path = OUT,
    *,
    notebooks: Path = NOTEBOOKS,
    table: Mapping[str, tuple[str, ...]] | None = None,
) -> list[Result]:
    """Run notebooks in the table's order, each in a fresh kernel, and check their figures.

    names       "01_parsing", "01" or "parsing"; none means all of them
    mode        "quick", "full" or "paper", handed to every notebook as its parameter `mode`
    parameters  more parameters for every notebook: each must be in its cell tagged `parameters`;
                a string that reads as a Python literal is one ("4", "[1, 2]", "True")
    out         for the executed copies: NAME.ipynb, or NAME.failed.ipynb for one that failed
    notebooks, table   where the notebooks are, and what each makes

    A notebook that fails does not stop the others. Raises FigureError before anything runs for an
    unknown mode, name or parameter, and at the end, one line a notebook, for a cell that failed,
    an error hidden in an output or a widget, or a figure that is missing or not new.
    """
    table = FIGURES if table is None else table
    if mode not in records.MODES:
        raise FigureError(f"mode must be one of {', '.join(records.MODES)}, not {mode!r}.")
    chosen = _choose(names, table)
    parameters = {key: _literal(value) for key, value in (parameters or {}).items()}
    for name in chosen:
        _check_parameters(notebooks / f"{name}.ipynb", parameters)

    out.mkdir(parents=True, exist_ok=True)
    results, failures = [], []
    for number, name in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {name}, mode {mode}", flush=True)
        try:
            result = _run_one(notebooks / f"{name}.ipynb", table[name], mode, parameters, out)
        except FigureError as error:
            print(f"      failed: {error}", flush=True)
            failures.append(f"{name}: {error}")
        else:
            wrote = ", ".join(map(os.path.relpath, result.figures)) or "nothing: it has no figures"
            print(f"      {result.seconds:.0f} s, wrote {wrote}", flush=True)
            results.append(result)
    for result in results:
        for wanted, used in result.stand_ins.items():
            made = ", ".join(path.stem for path in result.figures)
            print(f"Stand-in data: {used} instead of {wanted} in {made}.")
    if failures:
        summary = f"{len(failures)} of {len(chosen)} notebooks failed."
        raise FigureError("\n".join([summary, *failures]))
    return results


def _choose(names: Sequence[str], table: Mapping[str, Any]) -> list[str]:
    """The notebooks that `names` mean, in the table's order."""
    short = {alias: name for name in table for alias in (name, *name.split("_", 1))}
    unknown = [name for name in names if name not in short]
    if unknown:
        raise FigureError(f"no notebook {unknown[0]!r}: there are {', '.join(table)}.")
    wanted = {short[name] for name in names} or set(table)
    return [name for name in table if name in wanted]


def _literal(value: Any) -> Any:
    """What the command line's strings stand for."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (SyntaxError, ValueError):
        return value


def _check_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """FigureError unless the notebook is there and its `parameters` cell has these and `mode`."""
    if not path.is_file():
        raise FigureError(f"{path} does not exist.")
    cells = nbformat.read(path, as_version=4).cells
    if not any("parameters" in cell.metadata.get("tags", ()) for cell in cells):
        raise FigureError(f"{path.stem} has no cell tagged `parameters`.")
    if "mode" in parameters:
        raise FigureError("mode is not set as a parameter but by --mode.")
    known = papermill.inspect_notebook(str(path))
    unknown = [key for key in ("mode", *parameters) if key not in known]
    if unknown:
        raise FigureError(f"{path.stem} has no parameter {unknown[0]!r}, only {', '.join(known)}.")


def _run_one(
    path: Path, figures: Sequence[str], mode: str, parameters: Mapping[str, Any], out: Path
) -> Result:
    """Execute one notebook and check everything that it should have left behind."""
    running, failed = out / f"{path.stem}.running.ipynb", out / f"{path.stem}.failed.ipynb"
    failed.unlink(missing_ok=True)
    before = {name: _files(name, mode) for name in figures}
    started = time.perf_counter()
    try:
        with _environment(path.stem, mode, parameters), _signs_of_life(started) as bar:
            _execute(path, running, {**parameters, "mode": mode}, bar)
        written = tuple(_new_figure(name, mode, before[name]) for name in figures)
        running.replace(out / path.name)
    except FigureError as error:
        if not running.exists():  # no kernel, so no copy
            raise
        running.replace(failed)
        raise FigureError(f"{error} (see {os.path.relpath(failed)})") from error
    finally:
        running.unlink(missing_ok=True)
    made = [json.loads(png.with_suffix(".json").read_text(encoding="utf-8")) for png in written]
    stand_ins = {wanted: used for record in made for wanted, used in record["stand_ins"].items()}
    return Result(path.stem, time.perf_counter() - started, written, stand_ins)


def _execute(path: Path, copy: Path, parameters: Mapping[str, Any], bar: bool) -> None:
    """Run the notebook in its own folder, writing `copy` as it goes; FigureError for any error."""
    try:
        executed = papermill.execute_notebook(
            str(path),
            str(copy),
            dict(parameters),
            kernel_name="python3",
            cwd=str(path.parent),
            progress_bar=bar,
            # Else each kernel warns that it talks over TCP, which stays within this machine.
            extra_arguments=["--IPKernelApp.log_level=ERROR"],
        )
    except PapermillExecutionError as error:
        where = f"cell {error.exec_count} raised"
        raise FigureError(f"{where} {error.ename}: {error.evalue}") from error
    except RuntimeError as error:  # the kernel did not start, or was killed
        raise FigureError(f"its kernel stopped: {error}") from error
    if hidden := next(_errors_in_outputs(executed), None):
        raise FigureError(f"an error is hidden in its output: {hidden}")


def _errors_in_outputs(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """Errors that stopped no cell: in outputs, in `Output` widgets, as tracebacks in a stream."""
    widgets = notebook.metadata.get("widgets", {}).get(_WIDGET_STATE, {}).get("state", {})
    holders = [*notebook.cells]
    holders += [w["state"] for w in widgets.values() if w["model_name"] == "OutputModel"]
    for output in (output for holder in holders for output in holder.get("outputs", ())):
        if output["output_type"] == "error":
            yield f"{output['ename']}: {output['evalue']}"
        elif output["output_type"] == "stream" and "Traceback (most recent" in output["text"]:
            yield output["text"].strip().splitlines()[-1]


def _files(name: str, mode: str) -> dict[Path, tuple[int, int] | None]:
    """A figure's files, in its mode's folder and where stand-in data sends them, each with what
    changes whenever it is replaced, or None where there is none."""
    folders = (records.folder(mode), records.folder(mode, stand_in=True))
    files = [folder / f"{name}.{kind}" for folder in folders for kind in ("png", "pdf", "json")]
    return {f: (f.stat().st_mtime_ns, f.stat().st_ino) if f.is_file() else None for f in files}


def _new_figure(name: str, mode: str, before: Mapping[Path, tuple[int, int] | None]) -> Path:
    """The PNG of a figure whose three files are all new since `before`; else FigureError."""
    files = _files(name, mode)
    stale = [file for file, state in files.items() if state in (None, before[file])]
    for png in (file for file in files if file.suffix == ".png"):
        if not any(file.parent == png.parent for file in stale):
            return png
    what = "not new" if files[stale[0]] else "missing"
    raise FigureError(f"{name} is {what}: {os.path.relpath(stale[0])}")


@contextlib.contextmanager
def _environment(name: str, mode: str, parameters: Mapping[str, Any]) -> Iterator[None]:
    """What the kernel inherits: mode, command to record, folders that hold from notebooks/ too."""
    given = [word for key, value in parameters.items() for word in ("-p", key, str(value))]
    command = shlex.join(["rnp", "figures", name, "--mode", mode, *given])
    ours = {"RNP_MODE": mode, "RNP_COMMAND": command}
    for key in ("RNP_DATA", "RNP_FIGURES"):
        if os.environ.get(key):
            ours[key] = str(Path(os.environ[key]).expanduser().absolute())
    saved = dict(os.environ)
    os.environ.update(ours)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


@contextlib.contextmanager
def _signs_of_life(started: float) -> Iterator[bool]:
    """Yields whether a terminal can show papermill's bar; if not, prints a line now and then."""
    if sys.stderr.isatty():
        yield True
        return
    done = threading.Event()

    def report() -> None:
        while not done.wait(REPORT_EVERY):
            print(f"      still running, {time.perf_counter() - started:.0f} s", flush=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield False
    finally:
        done.set()
        thread.join()
