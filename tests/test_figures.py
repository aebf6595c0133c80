"""The notebook driver, on throw-away notebooks, and that its table leaves nothing out."""

import json
import os
import re
from pathlib import Path

import nbformat
import pytest

from rnp_lib.files import ROOT
from rnp_lib.repro import notebooks as figures
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
    "06_stands_in": "save('stands_in', 'quick', {'omniglot': 'strokes'})",
}
PARAMETERS = 'mode = "auto"  # a mode\ncount = 3\nword = "x"'
TABLE = {name: (name.split("_", 1)[1],) for name in CELLS}


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
        before = dict(os.environ)
        with pytest.raises(FigureError) as caught:
            run_notebooks(
                parameters={"count": "5", "word": "a b"},
                out=root / "out",
                notebooks=root / "notebooks",
                table=TABLE,
            )
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
        ("04_old", r"old is not new: .*old\.png"),
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
def test_names_may_be_short_and_keep_the_tables_order(names, expected):
    table = {"01_parsing": (), "02_topography": ()}
    assert figures._choose(names, table) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": ["99"]},
            r"no notebook '99': there are 01_parsing, 02_bare, 03_modeless, 04_gone",
        ),
        ({"mode": "fast"}, r"quick, full, paper, not 'fast'"),
        (
            {"parameters": {"cuont": 1}},
            r"01_parsing has no parameter 'cuont', only mode, count, word\.",
        ),
        ({"parameters": {"mode": "quick"}}, r"by --mode"),
        ({"names": ["bare"]}, r"02_bare has no cell tagged `parameters`"),
        ({"names": ["modeless"]}, r"03_modeless has no parameter 'mode'"),
        ({"names": ["gone"]}, r"04_gone\.ipynb does not exist"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(tmp_path, options, message):
    write(tmp_path / "01_parsing.ipynb", "pass")
    write(tmp_path / "02_bare.ipynb", "pass", parameters=None)
    write(tmp_path / "03_modeless.ipynb", "pass", parameters="count = 3")
    table = dict.fromkeys(("01_parsing", "02_bare", "03_modeless", "04_gone"), ())
    chosen = {"names": ["01"]} | options
    with pytest.raises(FigureError, match=message):
        run_notebooks(**chosen, out=tmp_path / "out", notebooks=tmp_path, table=table)
    assert not (tmp_path / "out").exists()


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
