"""What the explorer is in: where its tree came from, and what was done to it since.

    state = State(source=TestImage(18))
    state = edited(state, "move", (0,), rotation=0.5)  # of `trees`, as the next
    tree(state)  # a ProgramTree; only what an edit changed is computed
    code(state)  # of `keep`: Python that makes the same tree

A state is small, frozen and holds no tensors: one state always gives one tree.
"""

import base64
import json
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

from rnp_lib.explorer.edits import TreePath

MOST_EDITS = 100
KEPT = 20  # steps back that a page keeps


@dataclass(frozen=True)
class TestImage:
    """An image of the state's data set, by its number in the test split."""

    __test__ = False  # pytest takes it for a test by its name
    index: int = 18


@dataclass(frozen=True)
class Picture:
    """A drawing or an upload, framed: its pixels row by row, 0 to 255."""

    pixels: bytes


@dataclass(frozen=True)
class Sample:
    """A tree from the prior, all of whose standard deviations are times the temperature."""

    seed: int = 0
    temperature: float = 1.0


@dataclass(frozen=True)
class GivenProgram:
    """A program given by its numbers, run at a level: what a point between two others is."""

    z: tuple[float, ...]
    level: int


@dataclass(frozen=True)
class Saved:
    """A tree as `ProgramTree.to_json` wrote it, compressed with zlib."""

    packed: bytes


Source = TestImage | Picture | Sample | GivenProgram | Saved


@dataclass(frozen=True)
class Edit:
    """A call of `explorer.edits`: its name, the program it concerns, and its other arguments."""

    what: str
    path: TreePath
    arguments: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class State:
    """All that the explorer shows follows from this.

    Attributes:
        model: a name in checkpoints/, or a path.
        dataset: whose test images can be picked.
        source: what the tree was before it was edited.
        edits: what was done to it, in order.
        selected: the program whose sliders are shown.
        colours: a name in `plots.PALETTES`.
        predicted: whether of an image only the root is read, every other program being what its
            parent predicts. It tells for models with posterior "tree": see `trees.corrects`.
    """

    model: str = "mnist"
    dataset: str = "mnist"
    source: Source = TestImage()
    edits: tuple[Edit, ...] = ()
    selected: TreePath = ()
    colours: str = "paper"
    predicted: bool = False


def opened(state: State, source: Source, selected: TreePath = ()) -> State:
    """The state with another tree, not yet edited."""
    return replace(state, source=source, edits=(), selected=selected)


@dataclass(frozen=True)
class History:
    """A state with those before it and those undone, the nearest ones last."""

    now: State = State()
    past: tuple[State, ...] = ()
    future: tuple[State, ...] = ()

    def then(self, state: State, merge: bool = False) -> "History":
        """After a change; with `merge` it is one step with the last, as while a slider moves."""
        if merge:
            return replace(self, now=state, future=())
        return History(state, (*self.past, self.now)[-MOST_EDITS:])

    def undo(self) -> "History":
        if not self.past:
            raise ValueError("there is nothing to undo.")
        return History(self.past[-1], self.past[:-1], (*self.future, self.now))

    def redo(self) -> "History":
        if not self.future:
            raise ValueError("there is nothing to redo.")
        return History(self.future[-1], (*self.past, self.now), self.future[:-1])

    def kept(self) -> str:
        """All but its oldest states as text, for a page to keep."""
        return json.dumps(_packed(replace(self, past=self.past[-KEPT:], future=())))

    @classmethod
    def taken_up(cls, text: str) -> "History":
        """Inverse of `kept`. Raises ValueError for what is no history."""
        try:
            found = _unpacked(json.loads(text))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"what the page kept cannot be read ({error}).") from None
        if not isinstance(found, cls):
            raise ValueError("what the page kept is no history.")
        return found


_KINDS = (TestImage, Picture, Sample, GivenProgram, Saved, Edit, State, History)
_KINDS = {kind.__name__: kind for kind in _KINDS}


def _packed(value: Any) -> Any:
    """Frozen values as JSON has them: lists for tuples, and what they are beside all others."""
    if is_dataclass(value):
        return {"is": type(value).__name__} | {k: _packed(v) for k, v in vars(value).items()}
    if isinstance(value, bytes):
        return {"is": "bytes", "base64": base64.b64encode(value).decode()}
    return [_packed(item) for item in value] if isinstance(value, tuple) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_unpacked(item) for item in value)
    if not isinstance(value, dict):
        return value
    if value["is"] == "bytes":
        return base64.b64decode(value["base64"])
    fields = {name: _unpacked(item) for name, item in value.items() if name != "is"}
    return _KINDS[value["is"]](**fields)
