"""The driver: run the notebooks with papermill and make sure that each one made its figures.

papermill alone is not enough. It exits 0 over an error inside a widget callback, ignores a
parameter that the notebook does not have, and knows nothing of figures; all are errors here.
"""

import ast
import contextlib
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from rnp_lib.files import ROOT, Expected, read_json
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
        "fig3d_predicted",
        "mobility",
        "learning_curves",
        "true_strokes",
        "colour",
        "three_levels",
    ),
    "02_topography": ("fig4a_tsne", "fig4a_root", "fig4b_clusters"),
    "03_interpolation": ("fig4c_interpolation",),
    "04_prior_sampling": ("fig5_samples",),
    "05_transfer": (
        "fig6a_seven",
        "fig6b_eight",
        "fig6c_omniglot",
        "fig6d_controls",
        "fig6e_reuse",
        "fig6f_shots",
        "fig6g_expected",
        "fig6h_digits",
    ),
    "06_explore": (),
    "07_grammar": (
        "fig7a_alphabet",
        "fig7a_words",
        "fig7b_variations",
        "fig7c_completion",
        "fig7d_surprise",
    ),
    "08_evaluation": (
        "fig8_peers",
        "fig8a_people",
        "fig8a_drawings",
        "fig8a_eight",
        "fig8b_oneshot",
        "fig8b_runs",
        "fig8b_exemplars",
        "fig8c_equivariance",
        "fig8d_clusters",
        "fig8e_counting",
        "fig8e_canvases",
    ),
}
# Notebook -> the models that mode "paper" takes trained by the paper's recipe.
PAPER_MODELS: dict[str, tuple[str, ...]] = {
    "00_start_here": ("mnist",),
    "01_parsing": ("mnist", "omniglot", "fashion"),
    "02_topography": ("mnist", "omniglot"),
    "03_interpolation": ("mnist", "omniglot"),
    "04_prior_sampling": ("mnist", "omniglot", "fashion"),
}
NOTEBOOKS = ROOT / "notebooks"
OUT = ROOT / "runs" / "notebooks"
REPORT_EVERY = 30.0  # seconds between signs of life where there is no terminal to draw a bar in
_WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


class FigureError(Expected):
    """A notebook or a figure is not as it should be; the message says which and why."""


def run_notebooks(
    names: Sequence[str] = (),
    mode: str = "full",
    parameters: Mapping[str, Any] | None = None,
    prepare: Callable[[str], object] | None = None,
) -> None:
    """Run notebooks in the order of FIGURES, each in a fresh kernel, and check what they made.

    names       "01_parsing", "01" or "parsing"; none means all of them
    mode        "quick", "full" or "paper", handed to every notebook as its parameter `mode`
    parameters  more parameters for every notebook: each must be in its cell tagged `parameters`;
                a string that reads as a Python literal is one ("4", "[1, 2]", "True")
    prepare     called in mode "paper", before any notebook runs, with the preset of every model
                that these notebooks need and that is not there

    Executed copies go to runs/notebooks/NAME.ipynb, or NAME.failed.ipynb for one that failed, which
    does not stop the others. Raises FigureError before anything runs for an
    unknown name or parameter, and at the end, one line a notebook, for a cell that failed, an
    error hidden in an output or a widget, or a figure that is missing or not new.
    """
    chosen = _choose(names)
    parameters = {key: _literal(value) for key, value in (parameters or {}).items()}
    for name in chosen:
        _check_parameters(NOTEBOOKS / f"{name}.ipynb", parameters)
    needed = [model for name in chosen for model in PAPER_MODELS.get(name, ())]
    for model in dict.fromkeys(needed if mode == "paper" and prepare else ()):
        if not records.paper_model(model).is_file():
            prepare(f"paper-{model}")

    OUT.mkdir(parents=True, exist_ok=True)
    stand_ins, failures = {}, []
    for number, name in enumerate(chosen, 1):
        print(f"[{number}/{len(chosen)}] {name}, mode {mode}", flush=True)
        started = time.perf_counter()
        try:
            made = _run_one(name, mode, parameters)
        except FigureError as error:
            print(f"      failed: {error}", flush=True)
            failures.append(f"{name}: {error}")
            continue
        wrote = ", ".join(map(os.path.relpath, made)) or "nothing: it has no figures"
        print(f"      {time.perf_counter() - started:.0f} s, wrote {wrote}", flush=True)
        for png, record in made.items():
            for wanted, used in record["stand_ins"].items():
                stand_ins.setdefault(f"{used} instead of {wanted}", []).append(png.stem)
    for what, figures in stand_ins.items():
        print(f"Stand-in data: {what} in {', '.join(figures)}.")
    if failures:
        summary = f"{len(failures)} of {len(chosen)} notebooks failed."
        raise FigureError("\n".join([summary, *failures]))


def _choose(names: Sequence[str]) -> list[str]:
    """The notebooks that `names` mean, in the order of FIGURES."""
    short = {alias: name for name in FIGURES for alias in (name, *name.split("_", 1))}
    unknown = [name for name in names if name not in short]
    if unknown:
        raise FigureError(f"no notebook {unknown[0]!r}: there are {', '.join(FIGURES)}.")
    wanted = {short[name] for name in names} or set(FIGURES)
    return [name for name in FIGURES if name in wanted]


def _literal(value: Any) -> Any:
    """What the command line's strings stand for."""
    try:
        return ast.literal_eval(value) if isinstance(value, str) else value
    except (SyntaxError, ValueError):
        return value


def _check_parameters(path: Path, parameters: Mapping[str, Any]) -> None:
    """FigureError unless the notebook is there and has these parameters and `mode`."""
    if not path.is_file():
        raise FigureError(f"{path} does not exist.")
    if "mode" in parameters:
        raise FigureError("mode is not set as a parameter but by --mode.")
    known = papermill.inspect_notebook(str(path))
    for key in ("mode", *parameters):
        if key not in known:
            has = ", ".join(known) or "nothing"
            raise FigureError(
                f"{path.stem} has no parameter {key!r}: its cell tagged `parameters` has {has}."
            )


def _run_one(notebook: str, mode: str, parameters: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    """Execute one notebook, check all that it should have left behind: its PNGs and records."""
    running, failed = OUT / f"{notebook}.running.ipynb", OUT / f"{notebook}.failed.ipynb"
    failed.unlink(missing_ok=True)
    before = {name: _states(name, mode) for name in FIGURES[notebook]}
    try:
        with _environment(notebook, mode, parameters), _signs_of_life() as bar:
            _execute(notebook, running, {**parameters, "mode": mode}, bar)
        made = [_new_record(name, mode, state) for name, state in before.items()]
        running.replace(OUT / f"{notebook}.ipynb")
    except FigureError as error:
        if not running.exists():  # no kernel, so no copy
            raise
        running.replace(failed)
        raise FigureError(f"{error} (see {os.path.relpath(failed)})") from error
    finally:
        running.unlink(missing_ok=True)
    return {record.with_suffix(".png"): read_json(record) for record in made}


def _execute(notebook: str, copy: Path, parameters: Mapping[str, Any], bar: bool) -> None:
    """Run a notebook in its own folder, writing `copy` as it goes; FigureError for any error."""
    try:
        executed = papermill.execute_notebook(
            str(NOTEBOOKS / f"{notebook}.ipynb"),
            str(copy),
            dict(parameters),
            kernel_name="python3",
            cwd=str(NOTEBOOKS),
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


def _states(name: str, mode: str) -> dict[Path, tuple[int, int] | None]:
    """A figure's record, in its mode's folder and where stand-in data sends it, each with what
    changes whenever it is replaced, or None where there is none."""
    folders = (records.folder(mode), records.folder(mode, stand_in=True))
    files = [folder / f"{name}.json" for folder in folders]
    return {f: (f.stat().st_mtime_ns, f.stat().st_ino) if f.is_file() else None for f in files}


def _new_record(name: str, mode: str, before: Mapping[Path, tuple[int, int] | None]) -> Path:
    """A figure's record that is new since `before`, and then its pictures are; else FigureError."""
    after = _states(name, mode)
    for record, state in after.items():
        if state not in (None, before[record]):
            return record
    first = next(iter(after))
    what = "not new" if after[first] else "missing"
    raise FigureError(f"{name} is {what}: {os.path.relpath(first)}")


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
def _signs_of_life() -> Iterator[bool]:
    """Yields whether a terminal can show papermill's bar; if not, prints a line now and then."""
    bar, done, started = sys.stderr.isatty(), threading.Event(), time.perf_counter()

    def report() -> None:
        while not bar and not done.wait(REPORT_EVERY):
            print(f"      still running, {time.perf_counter() - started:.0f} s", flush=True)

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield bar
    finally:
        done.set()
        thread.join()
