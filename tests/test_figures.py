"""The notebook driver, on throw-away notebooks, and that its table leaves nothing out."""

import ast
import json
import os
import re
from collections import Counter
from pathlib import Path

import nbformat
import pytest

from rnp_lib.files import ROOT
from rnp_lib.presets import PRESETS
from rnp_lib.repro import notebooks as figures
from rnp_lib.repro import records
from rnp_lib.repro.notebooks import FigureError, run_notebooks

SAVE = """
import json, os, pathlib
def save(name, folder=".", stand_ins={}):
    target = pathlib.Path(os.environ["RNP_FIGURES"]) / folder
    target.mkdir(exist_ok=True)
    for suffix in ("png", "pdf"):
        (target / f"{name}.{suffix}").write_text(mode)
    record = {"stand_ins": stand_ins, "command": os.environ["RNP_COMMAND"]}
    record |= {"count": count, "word": word}
    (target / f"{name}.json").write_text(json.dumps(record))
"""
# One notebook per way to end; "old" finds its figure already there and does not save it again.
CELLS = {
    "01_good": "save('good'); assert pathlib.Path('01_good.ipynb').exists()",
    "02_raises": "save('raises'); 1 / 0",
    "03_hides": "import ipywidgets\nwith ipywidgets.Output():\n    1 / 0\nsave('hides')",
    "04_old": "pass",
    "05_dies": "os._exit(1)",
    "06_stands_in": "save('stands_in', 'quick', {'omniglot': 'strokes'}); save('whole')",
}
PARAMETERS = 'mode = "auto"  # a mode\ncount = 3\nword = "x"'
TABLE = {name: (name.split("_", 1)[1],) for name in CELLS}
TABLE["06_stands_in"] += ("whole",)


def write(path: Path, cell: str, parameters: str | None = PARAMETERS):
    cells = [nbformat.v4.new_code_cell(SAVE + cell)]
    if parameters is not None:
        tagged = nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})
        cells.insert(0, tagged)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """All throw-away notebooks, run once: the folder, what was printed, and the error."""
    root = tmp_path_factory.mktemp("driver")
    (root / "notebooks").mkdir()
    (root / "figures").mkdir()
    for name, cell in CELLS.items():
        write(root / "notebooks" / f"{name}.ipynb", cell)
    for suffix in ("png", "pdf", "json"):
        (root / "figures" / f"old.{suffix}").write_text("{}")
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RNP_FIGURES", os.path.relpath(root / "figures"))
        patch.setattr(figures, "REPORT_EVERY", 0.1)
        patch.setattr("builtins.print", lambda *words, **options: lines.append(" ".join(words)))
        for name, value in (("OUT", root / "out"), ("NOTEBOOKS", root / "notebooks")):
            patch.setattr(figures, name, value)
        patch.setattr(figures, "FIGURES", TABLE)
        before = dict(os.environ)
        with pytest.raises(FigureError) as caught:
            run_notebooks(parameters={"count": "5", "word": "a b"})
        assert dict(os.environ) == before
    return root, "\n".join(lines), str(caught.value)


def test_a_good_notebook_runs_in_its_folder_with_its_parameters(ran):
    root, printed, error = ran
    record = json.loads((root / "figures" / "good.json").read_text())
    assert record["command"] == "rnp figures 01_good --mode full -p count 5 -p word 'a b'"
    assert (record["count"], record["word"]) == (5, "a b")
    assert (root / "figures" / "good.png").read_text() == "full"
    assert re.search(r"\[1/6\] 01_good, mode full\n(.*\n)* +\d+ s, wrote .*good\.png", printed)
    assert "01_good" not in error


def test_every_failure_is_reported_and_stops_no_other(ran):
    _, printed, error = ran
    summary, *failures = error.splitlines()
    assert summary == "4 of 6 notebooks failed."
    assert [line.split(":")[0] for line in failures] == [
        "02_raises",
        "03_hides",
        "04_old",
        "05_dies",
    ]
    assert "[6/6] 06_stands_in" in printed


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (
            "02_raises",
            r"cell 3 raised ZeroDivisionError: division by zero \(see .*02_raises.failed",
        ),
        ("03_hides", r"hidden in its output: ZeroDivisionError: division by zero"),
        ("04_old", r"old is not new: .*old\.json"),
        ("05_dies", r"its kernel stopped"),
    ],
)
def test_each_kind_of_failure_says_what_is_wrong(ran, name, reason):
    (line,) = [line for line in ran[2].splitlines() if line.startswith(name)]
    assert re.search(reason, line)


def test_executed_copies_are_kept_apart_from_failed_ones(ran):
    copies = {path.name for path in (ran[0] / "out").iterdir()}
    assert {"01_good.ipynb", "06_stands_in.ipynb"} <= copies
    assert {"02_raises.failed.ipynb", "03_hides.failed.ipynb", "04_old.failed.ipynb"} <= copies
    assert not any("running" in name for name in copies)
    assert {path.stem for path in (ran[0] / "notebooks").iterdir()} == set(CELLS)


def test_stand_in_data_is_named_at_the_end(ran):
    last = ran[1].splitlines()[-1]
    assert last == "Stand-in data: strokes instead of omniglot in stands_in."
    assert re.search(r"wrote .*quick/stands_in\.png, .*figures/whole\.png", ran[1])


def test_signs_of_life_without_a_terminal(ran):
    assert re.search(r"still running, \d+ s", ran[1])


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_traceback_in_a_stream_counts_as_an_error(stream):
    text = "Exception in thread 1\nTraceback (most recent call last):\n  ...\nKeyError: 'x'\n"
    output = nbformat.v4.new_output("stream", name=stream, text=text)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=[output])])
    assert list(figures._errors_in_outputs(notebook)) == ["KeyError: 'x'"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), ["01_parsing", "02_topography"]),
        (("02", "parsing"), ["01_parsing", "02_topography"]),
        (("02_topography", "02"), ["02_topography"]),
    ],
)
def test_names_may_be_short_and_keep_the_tables_order(monkeypatch, names, expected):
    monkeypatch.setattr(figures, "FIGURES", {"01_parsing": (), "02_topography": ()})
    assert figures._choose(names) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": ["99"]},
            r"no notebook '99': there are 01_parsing, 02_bare, 03_modeless, 04_gone",
        ),
        (
            {"parameters": {"cuont": 1}},
            r"01_parsing has no parameter 'cuont': .* `parameters` has mode, count, word\.",
        ),
        ({"parameters": {"mode": "quick"}}, r"by --mode"),
        (
            {"names": ["bare"]},
            r"02_bare has no parameter 'mode': its cell tagged `parameters` has nothing",
        ),
        ({"names": ["modeless"]}, r"03_modeless has no parameter 'mode'"),
        ({"names": ["gone"]}, r"04_gone\.ipynb does not exist"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(tmp_path, monkeypatch, options, message):
    write(tmp_path / "01_parsing.ipynb", "pass")
    write(tmp_path / "02_bare.ipynb", "pass", parameters=None)
    write(tmp_path / "03_modeless.ipynb", "pass", parameters="count = 3")
    table = dict.fromkeys(("01_parsing", "02_bare", "03_modeless", "04_gone"), ())
    for name, value in (("OUT", tmp_path / "out"), ("NOTEBOOKS", tmp_path), ("FIGURES", table)):
        monkeypatch.setattr(figures, name, value)
    trained = []
    with pytest.raises(FigureError, match=message):
        run_notebooks(**{"names": ["01"]} | options, mode="paper", prepare=trained.append)
    assert not (tmp_path / "out").exists()
    assert not trained


def test_paper_mode_trains_each_model_that_is_missing_once_before_the_notebooks(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(records, "ROOT", tmp_path)
    monkeypatch.setattr(figures, "OUT", tmp_path / "out")
    there = tmp_path / "runs" / "paper-omniglot" / "model.safetensors"
    there.parent.mkdir(parents=True)
    there.touch()
    events = []
    monkeypatch.setattr(figures, "_run_one", lambda *which: events.append(which) or {})
    run_notebooks(["00", "01"], "paper", prepare=events.append)
    ran = [("00_start_here", "paper", {}), ("01_parsing", "paper", {})]
    assert events == ["paper-mnist", "paper-fashion", *ran]
    events.clear()
    run_notebooks(["00", "01"], "full", prepare=events.append)
    assert [mode for _, mode, _ in events] == ["full", "full"]


def _code(path: Path) -> list[ast.Module]:
    cells = nbformat.read(path, as_version=4).cells
    return [ast.parse(cell.source) for cell in cells if cell.cell_type == "code"]


def test_the_models_of_paper_mode_are_those_that_notebooks_take_from_their_run():
    for path in figures.NOTEBOOKS.glob("*.ipynb"):
        nodes = [node for cell in _code(path) for node in ast.walk(cell)]
        asks = any(isinstance(n, ast.Attribute) and n.attr == "model" and _is_run(n) for n in nodes)
        named = {node.value for node in nodes if isinstance(node, ast.Constant)}
        needed = {name for name in PAPER_NAMES if asks and name in named}
        assert needed == set(figures.PAPER_MODELS.get(path.stem, ())), path.stem


PAPER_NAMES = {name.removeprefix("paper-") for name in PRESETS if name.startswith("paper-")}


def _is_run(attribute: ast.Attribute) -> bool:
    return isinstance(attribute.value, ast.Name) and attribute.value.id == "run"


def _names(node: ast.AST, context: type) -> list[str]:
    """Names that `node` reads (ast.Load) or binds (ast.Store), but for those of its comprehensions,
    which live and die in them."""
    own = [c.target for c in ast.walk(node) if isinstance(c, ast.comprehension)]
    inner = {name.id for target in own for name in ast.walk(target) if isinstance(name, ast.Name)}
    found = [n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)]
    targets = {id(name) for target in own for name in ast.walk(target)}
    grown = {id(n.target) for n in ast.walk(node) if isinstance(n, ast.AugAssign)}
    if context is ast.Store:  # `x |= more` adds to what x is
        return [n.id for n in found if id(n) not in targets | grown]
    return [n.id for n in found if n.id not in inner]


def _saved_names(cell: ast.Module) -> set[str]:
    """The names of a cell's `run.save(...)` calls, and those from which the cell makes them, but
    for the variables of its loops."""
    calls = [n for n in ast.walk(cell) if isinstance(n, ast.Call)]
    saves = [n for n in calls if isinstance(n.func, ast.Attribute) and n.func.attr == "save"]
    found, left = set(), [name for save in saves for name in _names(save, ast.Load)]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            for node in ast.walk(cell):
                if isinstance(node, ast.Assign | ast.AugAssign):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    if any(name in _names(target, ast.Store) for target in targets):
                        left += _names(node.value, ast.Load)
    loops = [n.target for n in ast.walk(cell) if isinstance(n, ast.For)]
    return found - {name for target in loops for name in _names(target, ast.Store)}


def _bound_again(cells: list[ast.Module]) -> dict[str, int]:
    """Names of saved results that a notebook binds more than once, and how often."""
    bound = Counter(name for cell in cells for name in _names(cell, ast.Store))
    saved = {name for cell in cells for name in _saved_names(cell)}
    return {name: bound[name] for name in sorted(saved) if bound[name] > 1}


@pytest.mark.parametrize("notebook", [name for name, made in figures.FIGURES.items() if made])
def test_what_a_notebook_records_is_bound_once(notebook):
    cells = _code(figures.NOTEBOOKS / f"{notebook}.ipynb")
    assert any(_saved_names(cell) for cell in cells)
    assert not _bound_again(cells)


@pytest.mark.parametrize(
    ("cells", "again"),
    [
        (["x = 1", "x = 2", "run.save(f, 'a', numbers={'sse': x})"], {"x": 2}),
        (["x = 1", "for x in y: pass", "run.save(f, 'a', numbers={'sse': x.sum()})"], {"x": 2}),
        (["x = 1\nx = 2", "z = x + 1\nrun.save(f, 'a', numbers={'sse': z})"], {"x": 2}),
        (["x, y = 1, 2", "run.save(f, 'a', {k: v for k, v in x.items()})", "v = k = 1"], {}),
        (["x = {}", "x |= {'a': 1}", "x['b'] = 2", "run.save(f, 'a', numbers=x)"], {}),
        (["n = 1", "n = 2", "for n in x: run.save(f[n], n, numbers=x[n])"], {}),
    ],
)
def test_a_recorded_name_that_is_bound_twice_is_seen(cells, again):
    assert _bound_again([ast.parse(cell) for cell in cells]) == again


def test_every_notebook_is_in_the_table_and_the_reverse():
    assert {path.stem for path in figures.NOTEBOOKS.glob("*.ipynb")} == set(figures.FIGURES)
    assert list(figures.FIGURES) == sorted(figures.FIGURES), (
        "they run in the order of their numbers"
    )


def test_no_figure_has_two_notebooks():
    names = [name for made in figures.FIGURES.values() for name in made]
    assert len(names) == len(set(names))


def test_the_readme_has_a_row_for_every_notebook_and_figure():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = [line for line in readme.splitlines() if line.startswith("|") and ".ipynb" in line]
    for notebook, names in figures.FIGURES.items():
        for name in names:
            assert any(f"{notebook}.ipynb" in row and name in row for row in rows), name
    named = {match for row in rows for match in re.findall(r"(\w+)\.ipynb", row)}
    assert named == set(figures.FIGURES)
