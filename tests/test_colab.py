"""Every notebook's first cell: it fetches the repository on Colab and does nothing elsewhere."""

import json
import os
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

from rnp_lib.repro.notebooks import NOTEBOOKS


def first_cell(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))


CELL = first_cell(NOTEBOOKS / "00_start_here.ipynb")


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """A machine like Colab's in an empty folder: what was run there, and whether widgets work."""
    found = SimpleNamespace(commands=[], widgets=[])

    def run(command, check):
        found.commands.append(command)
        if command[0] == "git":
            (tmp_path / command[-1] / "notebooks").mkdir(parents=True)
            (tmp_path / command[-1] / "rnp_lib").mkdir()

    output = SimpleNamespace(enable_custom_widget_manager=lambda: found.widgets.append("enabled"))
    module = ModuleType("google.colab")
    module.output = output
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    return found


def test_all_notebooks_begin_with_the_same_cell():
    assert {first_cell(path) for path in NOTEBOOKS.glob("*.ipynb")} == {CELL}


def test_elsewhere_nothing_is_done(colab, monkeypatch):
    monkeypatch.delenv("COLAB_RELEASE_TAG")
    here = os.getcwd()
    exec(CELL, {})
    assert (colab.commands, os.getcwd()) == ([], here)


def test_on_colab_the_address_is_asked_for(colab):
    with pytest.raises(ValueError, match="`repository` must be the address"):
        exec(CELL, {})
    assert colab.commands == []


def test_on_colab_the_repository_is_fetched_and_installed_once(colab, tmp_path):
    cell = CELL.replace('repository = ""', 'repository = "https://example.org/rnp"')
    for _ in range(2):  # a cell may be run again
        exec(cell, {})
    clone, install = colab.commands
    assert clone[:2] == ["git", "clone"]
    assert clone[-2:] == ["https://example.org/rnp", "rnp"]
    assert install[1:] == ["-m", "pip", "install", "-q", "-e", "rnp"]
    assert os.getcwd() == str(tmp_path / "rnp" / "notebooks")
    assert sys.path[0] == str(tmp_path / "rnp")
    assert colab.widgets == ["enabled"]
