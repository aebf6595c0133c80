"""Numbers in README.md and docs/ come from records: `rnp readme --write` puts them there.

A number is followed by a comment that names its source and key, and keeps its decimals:
4.05<!-- fig3a_mnist:sse -->. What follows a slash divides it, a unit or another key:
82<!-- fig5_samples:mnist_legible/0.01 --> %. The source is a record of figures/, checkpoints/NAME
(what is stored beside the weights) or docs/NAME (a JSON file there), the key a path in it such as
runs.0.validation_sse. Between <!-- table: NAME --> and <!-- end --> the rows below a table's head
are those of TABLES.
"""

import functools
import re
from pathlib import Path
from typing import Any

from rnp_lib import checkpoints
from rnp_lib.files import ROOT, read_json
from rnp_lib.repro import records

NUMBER = re.compile(r"((?:(?<!\w)-)?\d[\d,]*(?:\.\d+)?|)<!-- (\S+?):(\S+) -->")
TABLE = re.compile(r"(<!-- table: (\S+) -->\n.*\n.*\n)(?:.*\n)*?(<!-- end -->)")


def pages() -> list[Path]:
    """The pages whose numbers come from records."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def filled(text: str) -> str:
    """`text` with every marked number and table as the records have it now.

    Raises ValueError for a marker that names no source, no number in it, or no whole table.
    """
    if text.count("<!-- table: ") != len(TABLE.findall(text)):
        raise ValueError("<!-- table: NAME -->, the table's head and <!-- end --> belong together.")
    text = TABLE.sub(lambda found: f"{found[1]}{_rows(found[2])}{found[3]}", text)
    return NUMBER.sub(
        lambda found: f"{_number(*found.groups())}<!-- {found[2]}:{found[3]} -->", text
    )


def _number(shown: str, name: str, key: str) -> str:
    """The number of `<!-- name:key -->`, with as many decimals as `shown` has."""
    dividend, _, divisor = key.partition("/")
    try:
        value = _entry(name, dividend)
        if divisor:
            unit = re.fullmatch(r"[\d.e]+", divisor)
            value /= float(divisor) if unit else _entry(name, divisor)
        return f"{value:,.{len(shown.partition('.')[2])}f}"
    except (LookupError, TypeError, ValueError, FileNotFoundError):
        raise ValueError(
            f"<!-- {name}:{key} --> names no number: expected a record of figures/, "
            "checkpoints/NAME or docs/NAME, and a key in it."
        ) from None


def _entry(name: str, key: str) -> Any:
    found = _source(name)
    for part in key.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


@functools.cache
def _source(name: str) -> dict[str, Any]:
    folder, _, stem = name.rpartition("/")
    if folder == "checkpoints":
        return checkpoints.metadata(stem)
    if folder:
        return read_json(ROOT / f"{name}.json")
    record = records.read(name)
    return record.get("numbers", {}) | record


def _rows(name: str) -> str:
    if name not in TABLES:
        raise ValueError(f"<!-- table: {name} -->: there are only {', '.join(TABLES)}.")
    key, row = TABLES[name]
    runs = _entry("docs/recipe", key)
    return "".join(f"| {row.format_map(_Measured(run, **_typed(run)))} |\n" for run in runs)


class _Measured(dict):
    """What is known of a run; what was not measured shows as a dash."""

    def __init__(self, found: dict, **more: Any):
        inner = ((k, _Measured(v) if isinstance(v, dict) else v) for k, v in found.items())
        super().__init__(inner, **more)

    def __missing__(self, key: str) -> "_Unmeasured":
        return _Unmeasured()


class _Unmeasured:
    def __format__(self, spec: str) -> str:
        return "–"


def _typed(run: dict[str, Any]) -> dict[str, str]:
    """What a reader types for a run: all of it, and what follows `rnp train PRESET` or the like."""
    if "command" not in run:  # nothing is trained
        return {"typed": "", "options": ""}
    options = run["command"].split(" ", 3)[3:]
    return {
        "typed": f"`{run['command']}`",
        "options": f"`{options[0]}`" if options else "no change",
    }


# Name -> key of its list in docs/recipe.json, and the cells of a row.
TABLES = {
    "ablations": ("runs", "{what} | {validation_sse:.1f} | {options}"),
    "tree": (
        "tree.runs",
        "{what} | {validation_sse:.2f} | {sse_root:.1f} | {nats:.1f} | {kl_root:.0f} "
        "| {samples_legible:.0%} | {turn_read:.0%} | {options}",
    ),
    "models": (
        "models",
        "{data} | {what} | {test[sse]:.2f} | {test[sse_root]:.1f} | {test[nats]:.1f} "
        "| {test[iwae_nats]:.1f} | {test[samples_legible]:.0%} | {test[smallest_class]:.1%} "
        "| {typed}",
    ),
    "seeds": (
        "seeds",
        "{seed} | {validation_sse:.2f} | {test[sse]:.2f} | {samples_legible:.1%} "
        "| {smallest_class:.1%} | {smallest_part:.1%} | {smallest_sub_part:.1%} | {pieces:.1%}",
    ),
    "strokes": (
        "strokes.runs",
        "{what} | {ari_parts:.3f} | {ari_parts_less_kmeans:+.3f} | {ari_sub_parts:.3f} "
        "| {ari_sub_parts_less_kmeans:+.3f} | {typed}",
    ),
    "retrainings": ("transfer.runs", "{what} | {images:,} | {validation_sse:.2f} | {options}"),
}
