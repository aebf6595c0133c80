"""The site that `make docs` builds: README, notebooks with their outputs, pages, and the API.

Sphinx with MyST-NB: one Python package reads Markdown, notebooks and docstrings, and says of every
link that leads nowhere.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
os.environ["RNP_OFFLINE"] = "1"

project = "Recursive Neural Programs in PyTorch"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = project
root_doc = "docs/site/index"
html_additional_pages = {"index": "to_index.html"}  # the site opens at its top
templates_path = ["."]
include_patterns = ["README.md", "data/README.md", "docs/*.md", "docs/site/*.md"]
include_patterns += ["notebooks/*.ipynb"]
exclude_patterns = [".venv", "build", "runs", ".git", "rnp_lib", "tests", "workflow"]

nb_execution_mode = "off"  # what full mode left is shown
nb_merge_streams = True
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# A folder, or a file that is no page, is shown in the repository and not here.
suppress_warnings = ["myst.xref_missing", "mystnb.unknown_mime_type"]
suppress_warnings += ["misc.highlighting_failure"]  # of Mermaid, shown as it is written

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
napoleon_use_rtype = False


def _escape(app, what, name, obj, options, lines):
    """Docstrings are plain text: what only looks like a mark stays as it is."""
    lines[:] = [line.replace("|", "\\|").replace("`_", "`\\ _") for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", _escape)
