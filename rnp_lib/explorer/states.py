"""What the explorer is in: where its tree came from, and what was done to it since.

    state = State(source=TestImage(18))
    state = edited(state, "move", (0,), rotation=0.5)  # of `trees`, as the next
    tree(state)  # a ProgramTree; only what an edit changed is computed
    code(state)  # of `keep`: Python that makes the same tree

A state is small, frozen and holds no tensors: one state always gives one tree.
"""

from dataclasses import dataclass, replace
from typing import Any

from rnp_lib.explorer.edits import TreePath

MOST_EDITS = 100


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


Source = TestImage | Picture | Sample | GivenProgram


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
