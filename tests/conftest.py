"""What every test gets: one thread, a fixed seed, no settings from outside, no windows."""

import functools
import os
import random
import shutil
from collections.abc import Iterator
from typing import NoReturn

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

matplotlib.use("Agg")
# Models this small are no faster on several threads, and sums come out the same on every machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_start(monkeypatch: pytest.MonkeyPatch) -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - whatever a library draws from the global generator
    torch.manual_seed(0)
    for name in ("RNP_MODE", "RNP_FIGURES", "RNP_DEVICE", "RNP_COMMAND"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _no_open_figures() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def browser():
    """Playwright's handle of the Chromium on the PATH; a test says that it needs the command."""
    from playwright import sync_api

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("full_data"):
        for name in mark.args or ("mnist",):
            if not _on_this_machine(name):
                _missing(f"the full {name} is neither in RNP_DATA nor in data/: `rnp data {name}`")
    for mark in item.iter_markers("needs_command"):
        if not any(map(shutil.which, mark.args)):
            _missing(f"there is no {' or '.join(mark.args)} on the PATH: install one of them")


def _missing(what: str) -> NoReturn:
    """Skip a test on a user's machine; in CI fail it, where a skip would pass for a check."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}; in CI no test may be skipped for want of it", pytrace=False)
    pytest.skip(what)


@functools.cache
def _on_this_machine(name: str) -> bool:
    from rnp_lib import data

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RNP_OFFLINE", "1")
        try:
            data.load(name, "test")
        except data.DataUnavailable:
            return False
    return True
