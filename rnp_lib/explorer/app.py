"""The explorer's page: one widget for JupyterLab and Voilà, thin around states and `views`.

The page (page/*.js) sends events as JSON and draws what comes back: pictures as raw bytes,
outlines and sliders as numbers. Events are handled one at a time; whatever goes wrong is a sentence
in the page, and the state stays as it was.
"""

import io
import json
import logging
import re
import threading
import zlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import anywidget
import numpy as np

from rnp_lib import checkpoints, data, plots
from rnp_lib.explorer import drawings, keep, states, trees, views
from rnp_lib.explorer.edits import TreePath
from rnp_lib.explorer.states import GivenProgram, History, Source, State, TestImage, opened
from rnp_lib.explorer.views import View

PAGE = Path(__file__).parent / "page"
EXPECTED = (ValueError, FileNotFoundError, checkpoints.CheckpointError)


def model_names() -> list[str]:
    """The models of checkpoints/ that have programs."""
    names = []
    for path in checkpoints.DIRECTORY.glob("*.safetensors"):
        # A map or a classifier; a file without a config, which no model is loaded from.
        with suppress(checkpoints.CheckpointError, KeyError, TypeError, AttributeError):
            if checkpoints.metadata(path)["config"].get("model", "rnp") == "rnp":
                names.append(path.stem)
    return sorted(names)


def script() -> str:
    """The modules of page/ as one, which is all that a widget can carry.

    Their imports of one another go, and so does the word `export` but for the default's.
    """
    text = "\n".join(path.read_text("utf-8") for path in sorted(PAGE.glob("*.js")))
    text = re.sub(r'^import \{[^}]*\} from "\./\w+\.js";\n', "", text, flags=re.MULTILINE)
    return re.sub(r"^export (?!default)", "", text, flags=re.MULTILINE)


class Explorer(anywidget.AnyWidget):
    """Programs drawn, picked, edited and kept by hand. Display it; `state` is what it shows.

    Attributes:
        history: the state, those before it and those undone.
        error: what the page says went wrong with the last event, or "".
    """

    _esm = script()
    _css = PAGE / "page.css"

    def __init__(self, state: State | None = None):
        super().__init__()
        self._lock = threading.RLock()
        self.history = History(state or State())
        self._start = self.state
        self.error = ""
        self._gesture: Any = None  # of the slider or window being moved
        self._copied: tuple[State, TreePath] | None = None
        self._strip: list[tuple[GivenProgram, np.ndarray]] = []
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
        content, about = super()._repr_mimebundle_(**options)
        return content | {"image/png": keep.export(self.state, "png", dpi=70)}, about

    def handle(self, event: dict[str, Any], buffers: list = ()) -> tuple[dict[str, Any], list]:
        """What the page is told after an event {"do": name, ...}, and the bytes that go with it.

        Never raises: `error` in the answer is one sentence, or "".
        """
        with self._lock:
            answer, out, self.error = {}, [], ""
            before = self.history
            try:
                do = getattr(self, f"_do_{event.get('do')}", None)
                if do is None:
                    raise ValueError(f"the explorer knows no event {event.get('do')!r}.")
                arguments = {k: v for k, v in event.items() if k not in ("do", "id")}
                if buffers:
                    arguments["content"] = bytes(buffers[0])
                if event["do"] != "edit":
                    self._gesture = None
                answer, out = do(**arguments) or self._packed()
            except data.DataUnavailable:
                self.error = "These images are not on this machine: `rnp data` fetches them."
            except EXPECTED as error:
                self.error = " ".join(str(error).split())
            except Exception:  # an event that no page sends, or a mistake in here
                logging.getLogger(__name__).exception("event %r", event.get("do"))
                self.error = f"the request {event.get('do')!r} cannot be understood like this."
            if self.error:
                self.history = before
                self.error = self.error[:1].upper() + self.error[1:]
            return answer | {"error": self.error, "did": event.get("do")}, out

    def _receive(self, _, content, buffers) -> None:
        answer, out = self.handle(content, buffers)
        self.send(answer | {"id": content.get("id")}, out)

    def _packed(self) -> tuple[dict[str, Any], list[bytes]]:
        """What is on show as JSON, with its pictures one after the other in a buffer."""
        view, state = self.view, self.state
        config, pictures = trees.model(state.model).config, io.BytesIO()

        def put(picture):
            start = pictures.tell()
            pictures.write(picture.tobytes())
            return [start, *picture.shape[:2]]

        # A source's numbers, without long lists.
        source = {k: v for k, v in vars(state.source).items() if isinstance(v, (int, float))}
        parent = config.depth - view.nodes[0].level + len(state.selected) - 1
        packed = vars(view) | {
            "nodes": [vars(node) | {"picture": put(node.picture)} for node in view.nodes],
            "image": None if view.image is None else put(view.image),
            "drawing": put(view.drawing),
            "source": {"kind": type(state.source).__name__} | source,
            "edits": len(state.edits),
            "undo": len(self.history.past),
            "redo": len(self.history.future),
            "copied": self._copied is not None,
            "palette": plots.PALETTES[state.colours],
            "posterior": config.posterior,
            "count": len(trees.images(state)[0]),
            "ranges": {name: getattr(config, name) for name in ("rotation", "shear", "centre")}
            | {"extent": config.extent[parent] if view.action else None},
        }
        packed |= {k: getattr(state, k) for k in ("selected", "model", "dataset", "colours")}
        kept = json.dumps({"start": History(self._start).kept(), "history": self.history.kept()})
        return {"view": packed, "kept": kept}, [pictures.getvalue()]

    # What the page can ask for. Each changes the history, or returns what to tell the page and the
    # pictures or files that go with it.

    def _go(self, state: State) -> None:
        self.history = self.history.then(state)

    def _open(self, source: Source) -> None:
        self._go(opened(self.state, source))

    def _do_hello(self, kept=None) -> tuple[dict, list]:
        """Everything a new page needs; it takes up again what it had `kept` of the same start."""
        if kept and self.history == History(self._start):
            with suppress(ValueError, KeyError, TypeError, FileNotFoundError):
                found = json.loads(kept)
                if found["start"] == History(self._start).kept():
                    history = History.taken_up(found["history"])
                    views.render(history.now)  # which the models may not allow any more
                    self.history = history
        answer, out = self._packed()
        choices = {
            "models": list(dict.fromkeys([*model_names(), self.state.model])),
            "datasets": list(dict.fromkeys([*data.NAMES, self.state.dataset])),
            "palettes": list(plots.PALETTES),
            "limit": drawings.MAX_BYTES,
        }
        return answer | {"choices": choices}, out

    def _do_map(self) -> tuple[dict, list]:
        found = trees.guide(self.state.model)
        points = {name: getattr(found, name).tolist() for name in ("at", "turn", "label")}
        return {"map": points | {"dataset": found.dataset}}, []

    def _do_draw(self, strokes) -> None:
        self._open_drawing(drawings.from_strokes, strokes)

    def _do_upload(self, size, content=b"") -> None:
        drawings.check_size(int(size))
        if content[:1] == b"{":  # JSON
            self._open(states.Saved(zlib.compress(content)))
            trees.tree(self.state)  # ValueError if it is none
        else:
            self._open_drawing(drawings.from_png, content)

    def _open_drawing(self, framed, drawing) -> None:
        # As the images that the model knows are, whatever is picked from.
        config = trees.model(self.state.model).config
        image = framed(drawing, config.dataset, config.image_size, config.channels)
        self._open(states.Picture((image * 255).round().byte().numpy().tobytes()))

    def _do_pick(self, index) -> None:
        self._open(TestImage(int(index)))

    def _do_sample(self, seed, temperature) -> None:
        seed, temperature = int(seed), float(temperature)
        if not (0 <= seed < 2**31 and 0 <= temperature <= 3):
            raise ValueError("a seed is a whole number from 0, a temperature is from 0 to 3.")
        self._open(states.Sample(seed, temperature))

    def _do_model(self, name) -> None:
        dataset = trees.model(name).config.dataset
        self._go(State(name, dataset, TestImage(0), colours=self.state.colours))

    def _do_dataset(self, name) -> None:
        self._go(opened(replace(self.state, dataset=name), TestImage(0)))

    def _do_colours(self, name) -> None:
        if name not in plots.PALETTES:
            raise ValueError(f"colours are one of {', '.join(plots.PALETTES)}: got {name!r}.")
        self.history = replace(self.history, now=replace(self.state, colours=name))

    def _do_predict(self, predicted) -> None:
        if not trees.corrects(self.state):
            raise ValueError(
                "only a model with posterior=tree, of an image, tells what is predicted from what "
                "is corrected: choose such a model, then draw or pick an image."
            )
        if bool(predicted) != self.state.predicted:
            self._go(replace(self.state, predicted=bool(predicted)))

    def _do_select(self, path) -> None:
        self.history = replace(self.history, now=replace(self.state, selected=tuple(path)))

    def _do_edit(self, what, path, arguments, gesture=None) -> None:
        merge = gesture is not None and gesture == self._gesture
        arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
        new = trees.edited(self.state, what, tuple(path), again=merge, **arguments)
        self.history, self._gesture = self.history.then(new, merge), gesture

    def _do_copy(self, path) -> tuple[dict, list]:
        trees.tree(self.state).at(path)  # ValueError if it is not there
        self._copied = self.state, tuple(path)
        return {"copied": True}, []

    def _do_paste(self, path) -> None:
        if self._copied is None:
            raise ValueError("nothing is copied yet: select a part of any tree and copy it first.")
        donor, there = self._copied
        self._go(trees.edited(self.state, "transplant", path, donor=donor, donor_path=there))

    def _do_undo(self) -> None:
        self.history = self.history.undo()

    def _do_redo(self) -> None:
        self.history = self.history.redo()

    def _do_reset(self) -> None:
        self._open(self.state.source)

    def _do_open(self, point) -> None:
        self._go(views.at_point(self.state, int(point)))

    def _do_peek(self, point) -> tuple[dict, list]:
        found = views.point(self.state, int(point))
        shown = views.picture(found, plots.PALETTES[self.state.colours])
        return {"peek": {"point": point, "side": len(shown)}}, [shown.tobytes()]

    def _do_line(self, a, b) -> tuple[dict, list]:
        self._strip = views.strip(self.state, int(a), int(b))
        pictures = [picture for _, picture in self._strip]
        about = {"side": len(pictures[0]), "count": len(pictures)}
        return {"strip": about}, [np.stack(pictures).tobytes()]

    def _do_step(self, index) -> None:
        if not 0 <= index < len(self._strip):
            raise ValueError("that strip is gone: drag another line on the map.")
        self._open(self._strip[index][0])

    def _do_code(self) -> tuple[dict, list]:
        return {"text": keep.code(self.state)}, []

    def _do_save(self, kind) -> tuple[dict, list]:
        return {"file": f"tree.{kind}"}, [keep.export(self.state, kind)]
