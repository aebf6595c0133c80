"""`make docs`: the site is built without a warning, and its links lead somewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urldefrag

import pytest

from rnp_lib.files import ROOT

FORMULAS = "https://cdn.jsdelivr.net/npm/mathjax"  # Sphinx's default; without it they stand as TeX
FOLDERS = re.compile(r"(?:\.\./)?(checkpoints|figures|notebooks|runs|data|workflow|rnp_lib)/")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    options = ["-q", "-W", "--keep-going", "-b", "html", "-c", "docs/site", "-d", out / "trees"]
    command = [sys.executable, "-m", "sphinx", *options, ".", out / "html"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out / "html"


class Page(HTMLParser):
    """The links and pictures of a page, and the names that others may point at."""

    def __init__(self, path):
        super().__init__()
        self.links, self.names = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names |= {found[key] for key in ("id", "name") if found.get(key)}
        self.links += [found[key] for key in ("href", "src") if found.get(key)]


def test_links_and_pictures_of_the_site_are_there(site):
    pages = {path: Page(path) for path in site.rglob("*.html") if "_modules" not in path.parts}
    assert len(pages) > 12
    for path, page in pages.items():
        for link in page.links:
            target, part = urldefrag(unquote(link))
            if re.match(r"\w+:", target) or FOLDERS.fullmatch(part):  # elsewhere, or a folder
                continue
            where = (path.parent / target.partition("?")[0]).resolve() if target else path
            assert where.is_file(), f"{path.relative_to(site)} links to {link}"
            if part and where in pages:
                assert part in pages[where].names, f"{path.relative_to(site)} links to {link}"


@pytest.mark.needs_command("chromium", "chromium-browser")
@pytest.mark.parametrize("name", ["README", "notebooks/01_parsing", "docs/recipe", "docs/site/api"])
def test_a_browser_shows_a_page_whole_and_asks_for_formulas_at_most(site, browser, name):
    page, asked, wrong = browser.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: wrong.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((site / f"{name}.html").as_uri(), wait_until="load")
    assert [what for what in wrong if not what.startswith(FORMULAS)] == []
    assert [url for url in asked if not url.startswith(("file:", "data:", FORMULAS))] == []
    assert page.locator("h1").first.is_visible()
    broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
    assert broken == []
    page.close()


def test_the_reference_has_what_the_readme_names(site):
    text = (site / "docs" / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("checkpoints.load", "model.rnp.RNP.resample", "model.tree.ProgramTree"):
        assert f'id="rnp_lib.{name}"' in text
