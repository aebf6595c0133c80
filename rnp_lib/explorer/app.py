"""The explorer's page: one widget for JupyterLab and Voilà, thin around `explorer` and `views`.

The page (app.js) sends events as JSON and draws what comes back: pictures as raw bytes,
outlines and sliders as numbers. Events are handled one at a time; whatever goes wrong is a sentence
in the page, and the state stays as it was.
"""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import numpy as np

from rnp_lib import checkpoints, data, plots
from rnp_lib.explorer import drawings, views
from rnp_lib.explorer import state as explorer
from rnp_lib.explorer.state import History, State
from rnp_lib.explorer.views import View

HERE = Path(__file__).parent
EXPECTED = (ValueError, FileNotFoundError, checkpoints.CheckpointError)


def model_names() -> list[str]:
    """The models of checkpoints/ that have programs."""
    found = []
    for path in sorted(checkpoints.DIRECTORY.glob("*.safetensors")):
        try:
            about = checkpoints.metadata(path)
        except checkpoints.CheckpointError:  # a map or a classifier
            continue
        if about["config"].get("model", "rnp") == "rnp":
            found.append(path.stem)
    return found


class Explorer(anywidget.AnyWidget):
    """Programs drawn, picked, edited and kept by hand. Display it; `state` is what it shows.

    Attributes:
        history: the state, those before it and those undone.
        error: what the page says went wrong with the last event, or "".
    """

    _esm = HERE / "app.js"
    _css = HERE / "app.css"

    def __init__(self, state: State | None = None):
        super().__init__()
        self._lock = threading.RLock()
        self.history = History(state or State())
        self.error = ""
        self._gesture: Any = None  # of the slider or window being moved
        self._copied: tuple[State, explorer.Path] | None = None
        self._strip: list = []
        views.render(self.state)  # a state that cannot be shown is refused here
        self.on_msg(self._receive)

    @property
    def state(self) -> State:
        return self.history.now

    @property
    def view(self) -> View:
        """What is on show."""
        return views.render(self.state)

    def _repr_mimebundle_(self, **options):
        """The live widget, and a still picture for where nothing can be live."""
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None:
            return None
        content, about = bundle if isinstance(bundle, tuple) else (bundle, {})
        return content | {"image/png": explorer.export(self.state, "png", dpi=70)}, about

    def handle(self, event: dict[str, Any], buffers: list = ()) -> tuple[dict[str, Any], list]:
        """What the page is told after an event {"do": name, ...}, and the bytes that go with it.

        Never raises: `error` in the answer is one sentence, or "".
        """
        with self._lock:
            answer, out, self.error = {}, [], ""
            before = self.history
            try:
                do = _EVENTS.get(event.get("do"))
                if do is None:
                    raise ValueError(f"the explorer knows no event {event.get('do')!r}.")
                arguments = {k: v for k, v in event.items() if k not in ("do", "id")}
                if buffers:
                    arguments["content"] = bytes(buffers[0])
                if event["do"] != "edit":
                    self._gesture = None
                answer = do(self, **arguments) or {}
                out = answer.pop("buffers", [])
                if not answer:
                    answer["view"], out = self._pack(self.view)
            except data.DataUnavailable:
                self.error = "These images are not on this machine: `rnp data` fetches them."
            except EXPECTED as error:
                self.error = " ".join(str(error).split())
            except Exception as error:
                self.error = f"That did not work ({type(error).__name__}: {error})."
            if self.error:
                self.history = before
                self.error = self.error[:1].upper() + self.error[1:]
            return answer | {"error": self.error, "did": event.get("do")}, out

    def _receive(self, _, content, buffers) -> None:
        answer, out = self.handle(content, buffers)
        self.send(answer | {"id": content.get("id")}, out)

    def _pack(self, view: View) -> tuple[dict[str, Any], list[bytes]]:
        """A view as JSON, with its pictures one after the other in a buffer."""
        pictures, start = [], 0

        def put(picture):
            nonlocal start
            if picture is None:
                return None
            pictures.append(np.ascontiguousarray(picture).tobytes())
            start += len(pictures[-1])
            return [start - len(pictures[-1]), *picture.shape[:2]]

        state, config = self.state, explorer.model(self.state.model).config
        nodes = [
            {
                "path": node.path,
                "level": node.level,
                "picture": put(node.picture),
                "window": None if node.window is None else node.window.tolist(),
                "outline": None if node.outline is None else node.outline.tolist(),
                "hidden": node.hidden,
            }
            for node in view.nodes
        ]
        parent = config.depth - view.nodes[0].level + len(state.selected) - 1
        packed = {
            "nodes": nodes,
            "image": put(view.image),
            "drawing": put(view.drawing),
            "error": view.error,
            "blank": view.blank,
            "action": view.action,
            "code": view.code,
            "selected": state.selected,
            "source": {"kind": type(state.source).__name__} | _plain(state.source),
            "edits": len(state.edits),
            "undo": len(self.history.past),
            "redo": len(self.history.future),
            "copied": self._copied is not None,
            "model": state.model,
            "dataset": state.dataset,
            "colours": state.colours,
            "palette": plots.PALETTES[state.colours],
            "count": len(explorer.images(state)[0]),
            "ranges": {
                "extent": config.extent[parent] if view.action else None,
                "rotation": config.rotation,
                "shear": config.shear,
                "centre": config.centre,
            },
        }
        return packed, [b"".join(pictures)]

    # What the page can ask for. Each changes the history, or returns something to tell the page.

    def _go(self, state: State) -> None:
        self.history = self.history.then(state)

    def _hello(self) -> dict:
        """Everything a new page needs."""
        packed, out = self._pack(self.view)
        choices = {
            "models": list(dict.fromkeys([*model_names(), self.state.model])),
            "datasets": list(dict.fromkeys([*data.NAMES, self.state.dataset])),
            "palettes": list(plots.PALETTES),
            "limit": drawings.MAX_BYTES,
        }
        return {"choices": choices, "view": packed, "buffers": out}

    def _map(self) -> dict:
        found = explorer.guide(self.state.model)
        return {
            "map": {
                "at": found.at.half().tolist(),
                "turn": found.turn.tolist(),
                "label": found.label.tolist(),
                "dataset": found.dataset,
            }
        }

    def _draw(self, strokes) -> None:
        size = explorer.model(self.state.model).config.image_size
        self._show(drawings.from_strokes(strokes, self._trained_on(), size))

    def _upload(self, size, content=b"") -> None:
        drawings.check_size(int(size))
        side = explorer.model(self.state.model).config.image_size
        self._show(drawings.from_png(content, self._trained_on(), side))

    def _trained_on(self) -> str:
        """The data set whose framing the model knows."""
        return explorer.model(self.state.model).config.dataset

    def _show(self, image) -> None:
        pixels = (image * 255).round().byte().numpy().tobytes()
        self._go(explorer.opened(self.state, explorer.Picture(pixels)))

    def _pick(self, index) -> None:
        self._go(explorer.opened(self.state, explorer.TestImage(int(index))))

    def _sample(self, seed, temperature) -> None:
        seed, temperature = int(seed), float(temperature)
        if not (0 <= seed < 2**31 and 0 <= temperature <= 3):
            raise ValueError("a seed is a whole number from 0, a temperature is from 0 to 3.")
        self._go(explorer.opened(self.state, explorer.Sample(seed, temperature)))

    def _model(self, name) -> None:
        dataset = explorer.model(name).config.dataset
        state = State(name, dataset, colours=self.state.colours)
        self._go(replace(state, source=explorer.TestImage(0)))

    def _dataset(self, name) -> None:
        there = replace(self.state, dataset=name)
        self._go(explorer.opened(there, explorer.TestImage(0)))

    def _colours(self, name) -> None:
        if name not in plots.PALETTES:
            raise ValueError(f"colours are one of {', '.join(plots.PALETTES)}: got {name!r}.")
        self.history = replace(self.history, now=replace(self.state, colours=name))

    def _select(self, path) -> None:
        path = tuple(path)
        explorer.level(self.state, path)
        self.history = replace(self.history, now=replace(self.state, selected=path))

    def _edit(self, what, path, arguments, gesture=None) -> None:
        merge = gesture is not None and gesture == self._gesture
        arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
        new = explorer.edited(self.state, what, tuple(path), again=merge, **arguments)
        self.history, self._gesture = self.history.then(new, merge), gesture

    def _copy(self, path) -> dict:
        explorer.level(self.state, tuple(path))
        self._copied = self.state, tuple(path)
        return {"copied": True}

    def _paste(self, path) -> None:
        if self._copied is None:
            raise ValueError("nothing is copied yet: select a part of any tree and copy it first.")
        donor, donor_path = self._copied
        self._go(
            explorer.edited(
                self.state, "transplant", tuple(path), donor=donor, donor_path=donor_path
            )
        )

    def _undo(self) -> None:
        self.history = self.history.undo()

    def _redo(self) -> None:
        self.history = self.history.redo()

    def _reset(self) -> None:
        self._go(explorer.opened(self.state, self.state.source))

    def _open(self, point) -> None:
        self._go(views.at_point(self.state, int(point)))

    def _peek(self, point) -> dict:
        found = views.point(self.state, int(point))
        shown = views.picture(found, plots.PALETTES[self.state.colours])
        return {"peek": {"point": point, "side": len(shown)}, "buffers": [shown.tobytes()]}

    def _line(self, a, b) -> dict:
        self._strip = views.strip(self.state, int(a), int(b))
        pictures = [picture for _, picture in self._strip]
        about = {"side": len(pictures[0]), "count": len(pictures)}
        return {"strip": about, "buffers": [b"".join(p.tobytes() for p in pictures)]}

    def _step(self, index) -> None:
        if not 0 <= index < len(self._strip):
            raise ValueError("that strip is gone: drag another line on the map.")
        self._go(explorer.opened(self.state, self._strip[index][0]))

    def _code(self) -> dict:
        return {"text": explorer.code(self.state)}

    def _save(self, kind) -> dict:
        return {"file": f"tree.{kind}", "buffers": [explorer.export(self.state, kind)]}


_EVENTS = {
    name: getattr(Explorer, f"_{name}")
    for name in (
        "hello map draw upload pick sample model dataset colours select edit copy paste undo redo "
        "reset open peek line step code save"
    ).split()
}


def _plain(source: explorer.Source) -> dict[str, Any]:
    """What the page shows of a source: its numbers, without long lists."""
    return {k: v for k, v in vars(source).items() if isinstance(v, (int, float))}
