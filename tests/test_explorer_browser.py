"""The explorer as people meet it: in JupyterLab and as a Voilà page, in a real browser.

Screenshots are kept in runs/screenshots/.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import nbformat
import pytest
import tiny
import torch

from rnp_lib import checkpoints
from rnp_lib.files import ROOT
from rnp_lib.model.rnp import RNP

pytestmark = [
    pytest.mark.needs_command("chromium", "chromium-browser"),
    pytest.mark.full_data("mnist"),
]
SHOTS = ROOT / "runs" / "screenshots"
PATIENCE = 120_000  # ms, for what starts a kernel; else playwright's own 30 s
THREE = [(0.3, 0.25), (0.45, 0.15), (0.65, 0.2), (0.68, 0.35), (0.5, 0.48)]
THREE += [(0.68, 0.58), (0.7, 0.75), (0.5, 0.87), (0.3, 0.8)]
SERVERS = {
    "lab": ["-m", "jupyter", "lab", "--no-browser", "--IdentityProvider.token=", "--allow-root"],
    "voila": ["-m", "voila", "06_explore.ipynb", "--no-browser"],
}


@pytest.fixture(scope="module", params=list(SERVERS))
def server(request, tmp_path_factory):
    """(kind, address, log file) of a server on a copy of the notebook."""
    tmp_path = tmp_path_factory.mktemp(request.param)
    shutil.copy(ROOT / "notebooks" / "06_explore.ipynb", tmp_path)
    with serving(request.param, tmp_path) as (address, log):
        yield request.param, address, log


@contextlib.contextmanager
def serving(kind, tmp_path):
    """(address, log file) of a server on the notebook in a folder; ended whatever happens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Settings, workspaces and kernels' files of whoever runs the tests are left alone.
    home = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "RUNTIME", "DATA")}
    lab = {f"JUPYTERLAB_{name}_DIR": str(tmp_path / name) for name in ("SETTINGS", "WORKSPACES")}
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | home | lab | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    log = tmp_path / "server.log"
    command = [sys.executable, *SERVERS[kind], f"--port={port}"]
    if kind == "voila":
        environment["JUPYTER_PATH"] = str(ROOT / "rnp_lib" / "explorer" / "jupyter")
        command += ["--template=offline", "--TagRemovePreprocessor.enabled=True"]
        command += ["--TagRemovePreprocessor.remove_cell_tags=notebook-only"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,  # so that its kernels end with it
        )
    try:
        _wait_for(port, process, log)
        yield f"http://127.0.0.1:{port}", log
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(port, process, log):
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not start: {log.read_text()[-500:]}")


@pytest.fixture(scope="module")
def page(server, browser):
    """The explorer's page, open and ready, and what went wrong in it so far."""
    kind, address, _ = server
    with opened(browser, kind, address) as found:
        yield found


@contextlib.contextmanager
def opened(browser, kind, address):
    """(page, errors so far) of the explorer at the address of a server."""
    errors = []
    page = browser.new_page(viewport={"width": 1400, "height": 1600})
    page.on("pageerror", lambda error: errors.append(str(error)))

    def answer(route):
        if "//127.0.0.1" in route.request.url:
            route.continue_()
            return
        route.abort()  # nothing outside this machine is needed
        if kind == "voila":  # nor asked for; what JupyterLab asks for is its own affair
            errors.append(f"asks for {route.request.url}")

    page.route("**/*", answer)
    try:
        if kind == "lab":
            page.goto(f"{address}/lab/tree/06_explore.ipynb?reset", timeout=PATIENCE)
            page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell", timeout=PATIENCE)
            _run_until_explorer(page)
        else:
            page.goto(address, timeout=PATIENCE)
        page.wait_for_selector(".rnp [role=treeitem]", timeout=PATIENCE)
        yield page, errors
    finally:
        page.close()


def _run_until_explorer(page):
    """Run the cells up to the one that shows the explorer, as a reader does: Shift-Enter."""
    page.wait_for_selector("#jp-main-statusbar >> text=Idle", timeout=PATIENCE)
    page.click(".jp-NotebookPanel .jp-Cell >> nth=0")
    cells = nbformat.read(ROOT / "notebooks" / "06_explore.ipynb", as_version=4).cells
    for _ in range([cell.source.startswith("app =") for cell in cells].index(True) + 1):
        page.keyboard.press("Shift+Enter")
        page.wait_for_timeout(200)  # the next cell is selected a moment later


def settled(page, do):
    """Do something, and wait until the page has been answered."""
    root = page.locator(".rnp")
    before = int(root.get_attribute("data-answers") or 0)
    do()
    page.wait_for_function(
        """before => { const root = document.querySelector(".rnp");
            return root.dataset.answers > before && !root.hasAttribute("aria-busy"); }""",
        arg=before,
    )


def shown(page, selector):
    """The pixels of a canvas."""
    return page.locator(selector).first.evaluate("canvas => canvas.toDataURL()")


def test_a_stroke_a_slider_and_the_keyboard(server, page):
    kind, _, log = server
    page, errors = page
    canvas, part = ".rnp .big canvas", '.rnp [data-path="1"] canvas'
    status = page.locator(".rnp .status")
    untouched = shown(page, canvas)

    def draw():
        page.click("text=Clear")
        page.locator(".rnp .pad").scroll_into_view_if_needed()
        box = page.locator(".rnp .pad").bounding_box()
        for i, (x, y) in enumerate(THREE):
            at = box["x"] + x * box["width"], box["y"] + y * box["height"]
            page.mouse.move(*at, steps=4)
            if i == 0:
                page.mouse.down()
        page.mouse.up()

    settled(page, draw)
    assert "drawing" in status.inner_text()
    drawn = shown(page, canvas)
    assert drawn != untouched
    error = float(page.locator(".rnp .number").inner_text().split()[0])
    assert 0 < error < 20

    settled(page, lambda: page.click('.rnp [data-path="1"]'))
    assert page.locator('.rnp [data-path="1"]').get_attribute("aria-selected") == "true"
    slider = page.locator('.rnp input[aria-label="rotation"]')
    before = slider.input_value()
    settled(page, lambda: slider.press("PageUp"))
    assert float(slider.input_value()) != float(before)
    turned = shown(page, canvas)
    assert turned != drawn
    code, of_part = page.locator('.rnp input[aria-label="direction 1"]'), shown(page, part)
    settled(page, lambda: code.press("Home"))
    assert shown(page, part) != of_part

    node = page.locator('.rnp [data-path="1"]')
    for key, text in (("Control+z", "1 edit"), ("Control+z", "Undone"), ("d", "Selected: part 5")):
        node = page.locator(".rnp [role=treeitem][aria-selected=true]")
        settled(page, lambda node=node, key=key: node.press(key))
        assert text in status.inner_text()
    settled(page, lambda: page.click("text=Reset"))
    assert shown(page, canvas) == drawn

    page.locator(".rnp input[type=file]").set_input_files(
        {"name": "no.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    page.wait_for_selector(".rnp .status.wrong")
    assert status.inner_text() == "The picture is not a PNG: make it one, or leave it out."
    chart = page.locator(".rnp .map")
    settled(page, lambda: chart.click(position={"x": 150, "y": 200}))
    page.wait_for_function(
        "() => document.querySelector('.rnp .status').textContent.includes('test image')"
    )
    chart.drag_to(chart, source_position={"x": 140, "y": 180}, target_position={"x": 270, "y": 200})
    page.wait_for_selector(".rnp .strip button")
    settled(page, draw)
    settled(page, lambda: page.click('.rnp [data-path="2"]'))
    settled(page, lambda: page.locator('.rnp input[aria-label="rotation"]').press("PageUp"))
    page.wait_for_function(
        "() => document.querySelector('.rnp .status').textContent.includes('1 edit')"
    )

    SHOTS.mkdir(parents=True, exist_ok=True)
    page.locator(".rnp").screenshot(path=SHOTS / f"{kind}.png")
    assert not errors
    assert page.locator(".jp-RenderedText[data-mime-type*=error]").count() == 0
    assert "Traceback" not in log.read_text()


def test_it_is_readable_at_twice_the_size(server, page):
    kind, _, _ = server
    page, errors = page
    page.set_viewport_size({"width": 700, "height": 2600})  # half of 1400, and no need to scroll
    page.wait_for_timeout(500)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.locator(".rnp").screenshot(path=SHOTS / f"{kind}-200.png")
    overflow = page.locator(".rnp").evaluate("e => e.scrollWidth - e.clientWidth")
    assert overflow <= 1  # the tree alone scrolls sideways
    assert not errors


@pytest.fixture(scope="module")
def chancy(tmp_path_factory, browser):
    """A page, as `page`, whose model has the posterior "tree"."""
    folder = tmp_path_factory.mktemp("chancy")
    torch.manual_seed(1)
    model = RNP(tiny.config(dataset="strokes", posterior="tree"))
    for layers in (model.reader.where_layers, model.reader.what_layers):
        layers[-1].weight.data *= 20  # as after training, messages are far from predictions
    checkpoint = folder / "chancy.safetensors"
    checkpoints.save(checkpoint, model, {})
    lines = [
        "from rnp_lib.explorer.app import Explorer",
        "from rnp_lib.explorer.states import State, TestImage",
        f"Explorer(State({str(checkpoint)!r}, 'strokes', TestImage(3)))",
    ]
    covered = [
        "import torch",
        "from rnp_lib import checkpoints",
        "from rnp_lib.explorer.completions import Completions",
        f"Completions(checkpoints.load({str(checkpoint)!r}), torch.rand(3, 1, 16, 16))",
    ]
    cells = [nbformat.v4.new_code_cell("\n".join(cell)) for cell in (lines, covered)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "06_explore.ipynb")
    with serving("voila", folder) as (address, _), opened(browser, "voila", address) as found:
        yield found


def test_predicted_or_corrected_and_the_nats_of_every_program(chancy):
    page, errors = chancy
    canvas, status = ".rnp .big canvas", page.locator(".rnp .status")
    shows = page.locator(".rnp .tree .nats:not([hidden])")
    corrected = shown(page, canvas)
    assert shows.count() == 3  # the root's and the parts'
    assert all(re.fullmatch(r"\d+\.\d nats", text) for text in shows.all_inner_texts())
    settled(page, lambda: page.click('.rnp [data-path="1"]'))
    told = page.locator(".rnp .editor p").first
    assert told.inner_text() == f"The image told {shows.all_inner_texts()[2]} about it."
    settled(page, lambda: page.click("text=predicted by the parent"))
    predicted = shown(page, canvas)
    assert predicted != corrected
    assert shows.count() == 0
    assert not told.is_visible()
    assert "predicted by the parent" in status.inner_text()
    for key, picture in (("p", corrected), ("p", predicted), ("Control+z", corrected)):
        node = page.locator(".rnp [role=treeitem][aria-selected=true]")
        settled(page, lambda node=node, key=key: node.press(key))
        assert shown(page, canvas) == picture
    pressed = page.locator('.rnp .switch [aria-pressed="true"]')
    assert pressed.all_inner_texts() == ["corrected by the image"]
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.locator(".rnp").screenshot(path=SHOTS / "chancy.png")
    overflow = page.locator(".rnp .switch").evaluate("e => e.scrollWidth - e.clientWidth")
    assert overflow <= 1

    hints = []
    for path in ("", "1", "1.0"):
        settled(page, lambda path=path: page.click(f'.rnp [data-path="{path}"]'))
        hints.append(page.locator(".rnp [data-act=resample]").get_attribute("title"))
    assert [hint.split()[0] for hint in hints] == ["Draws", "Draws", "It"]
    settled(page, lambda: page.click('.rnp [data-path="1"]'))
    settled(page, lambda: page.click(".rnp [data-act=resample]"))
    assert shows.count() == 3  # the line of one is empty, so that nothing below it moves
    assert shows.nth(2).inner_text() == ""
    settled(page, lambda: page.click("text=Another"))
    assert not page.locator(".rnp .switch").is_visible()
    assert not errors


def test_a_cover_drawn_with_the_pointer_changes_the_completions(chancy):
    page, errors = chancy
    sheet = page.locator(".rnp-completions .rnp-sheet")
    said = page.locator(".rnp-completions .rnp-said")
    said.get_by_text("8 completions").wait_for(timeout=PATIENCE)

    def completed(act):
        before = sheet.get_attribute("src")
        act()
        page.wait_for_function(
            "([e, old]) => e.getAttribute('src') !== old", arg=[sheet.element_handle(), before]
        )
        said.get_by_text("8 completions").wait_for()
        page.wait_for_function("e => e.naturalWidth > 300", arg=sheet.element_handle())

    stage = page.locator(".rnp-completions .rnp-stage")
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()

    def drag():
        page.mouse.move(box["x"] + 2, box["y"] + 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=4)
        page.mouse.up()

    completed(drag)
    cover = page.locator(".rnp-completions .rnp-cover").bounding_box()
    assert cover["width"] == pytest.approx(box["width"] / 2, abs=12)
    assert cover["x"] == pytest.approx(box["x"], abs=12)
    number = page.locator(".rnp-completions input")
    completed(lambda: (number.fill("2"), number.press("Tab")))
    with page.expect_download() as kept:
        page.click(".rnp-completions >> text=Keep as PNG")
    assert kept.value.suggested_filename == "completions-2.png"
    number.fill("7")
    number.press("Tab")
    said.get_by_text("There are 3 images: choose a number from 0 to 2, not 7.").wait_for()
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.locator(".rnp-completions").screenshot(path=SHOTS / "completions.png")
    assert not errors
