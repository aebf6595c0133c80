"""The three lists of dependencies agree, and the set-up files say what they should."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from rnp_lib.files import ROOT

CONDA_NAMES = {"pytorch": "torch", "snakemake-minimal": "snakemake"}  # where not PyPI's
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What torch pins exactly by itself, and what a new environment brings.
NOT_LOCKED = re.compile(r"nvidia-|cuda-|triton$|pip$")


def required() -> dict[str, SpecifierSet]:
    lines = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    requirements = [Requirement(line) for line in itertools.chain(*lines)]
    assert len(requirements) == len({item.name for item in requirements})
    return {item.name: item.specifier for item in requirements}


def locked() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    requirements = [Requirement(line) for line in lines if not line.startswith("#")]
    return {item.name: item for item in requirements}


def test_conda_and_pip_users_get_the_same_dependencies():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = [Requirement(item) for item in conda["dependencies"] if isinstance(item, str)]
    ranges = {CONDA_NAMES.get(item.name, item.name): item.specifier for item in listed}
    assert ranges.pop("python") == SpecifierSet(PROJECT["requires-python"])
    assert ranges.pop("pip") == SpecifierSet()
    assert ranges == required()
    assert conda["dependencies"][-1] == {"pip": ["-e ."]}


def test_the_lock_has_names_and_versions_only_in_order():
    names = list(locked())
    assert names == sorted(names) == [canonicalize_name(name) for name in names]
    for item in locked().values():
        assert re.fullmatch(r"==[\w.]+", str(item.specifier)), item
        assert item.url is None
        assert not NOT_LOCKED.match(item.name)


def test_the_lock_is_within_the_declared_ranges():
    for name, ranges in required().items():
        (pin,) = locked()[name].specifier
        assert pin.version in ranges, name


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize(("system", "platform"), [("Linux", "linux"), ("Darwin", "darwin")])
def test_the_lock_leaves_nothing_open(python, system, platform):
    """Whatever a locked package asks for on this Python and system is locked too, in its range."""
    here = {"python_version": python, "python_full_version": f"{python}.0", "os_name": "posix"}
    here = default_environment() | here | {"platform_system": system, "sys_platform": platform}
    pins = {n: r for n, r in locked().items() if r.marker is None or r.marker.evaluate(here)}
    for name in pins:
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # locked for another Python or system
            continue
        supported = SpecifierSet(distribution.metadata["Requires-Python"] or "")
        assert f"{python}.9" in supported, name
        for line in distribution.requires or ():
            need = Requirement(line)
            if need.marker and not need.marker.evaluate(here | {"extra": ""}):
                continue
            if NOT_LOCKED.match(need.name):
                continue
            (pin,) = pins[canonicalize_name(need.name)].specifier
            assert need.specifier.contains(pin.version, prereleases=True), f"{name}: {line}"


def test_ci_runs_the_tests_and_is_executable():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert "export CI=true" in lines
    assert lines[-1] == "make test"


def test_make_test_fetches_the_data_before_it_tests():
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").split("\ntest:")[1]
    assert recipe.index("rnp data") < recipe.index("pytest")


def test_the_citation_names_the_software_and_both_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert str(citation["version"]) == PROJECT["version"]
    assert citation["license"] == PROJECT["license"]
    assert citation["preferred-citation"]["doi"] == "10.1093/pnasnexus/pgad337"
    assert citation["references"][0]["doi"] == "10.48550/arXiv.2206.08462"


def test_a_wheel_works_outside_the_repository(tmp_path):
    """All but what is no package: dependencies, checkpoints and data sets."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "rnp_lib", source / "rnp_lib")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, source]
    subprocess.run([*pip, *build], check=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    site, work = tmp_path / "site", tmp_path / "work"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True)
    work.mkdir()
    script = """
import rnp_lib as rnp
from pathlib import Path
from rnp_lib.explorer.app import script
from rnp_lib.model import build
print(Path(rnp.__file__).parents[1], rnp.__version__)
print(len(script()) > 10_000, build(rnp.PRESETS["mnist"]).sample(1).canvas.shape)
try:
    rnp.load("mnist")
except FileNotFoundError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": str(site)}
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=work, env=environment, capture_output=True, text=True
    )
    assert result.stderr == ""
    where, works, missing = result.stdout.splitlines()
    assert where == f"{site} {PROJECT['version']}"
    assert works == "True torch.Size([1, 1, 28, 28])"
    assert f"{work}/checkpoints" in missing
