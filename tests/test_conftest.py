"""Where a data set or a program is missing, a user's tests are skipped, and CI's fail."""

import pytest

from rnp_lib.data import sources
from rnp_lib.files import ROOT

pytest_plugins = "pytester"
TESTS = """
import pytest

@pytest.mark.full_data("mnist", "omniglot")
def test_data(): pass

@pytest.mark.needs_command("no-such-program", "nor-this")
def test_command(): pass

@pytest.mark.needs_command("no-such-program", "sh")
def test_one_of_two_is_enough(): pass
"""


@pytest.mark.parametrize(
    ("ci", "outcome"), [("", {"passed": 1, "skipped": 2}), ("true", {"passed": 1, "errors": 2})]
)
def test_what_is_missing_skips_or_fails_and_says_what_to_install(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, ci: str, outcome: dict[str, int]
) -> None:
    monkeypatch.setattr(sources, "DATA", pytester.path / "data")
    monkeypatch.delenv("RNP_DATA", raising=False)
    monkeypatch.setenv("CI", ci)
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text(encoding="utf-8"))
    pytester.makefile(".toml", pyproject=(ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    tests = pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", tests)
    result.assert_outcomes(**outcome)
    result.stdout.fnmatch_lines_random(
        [
            "*the full mnist is neither in RNP_DATA nor in data/: `rnp data mnist`*",
            "*there is no no-such-program or nor-this on the PATH: install one of them*",
        ]
    )
