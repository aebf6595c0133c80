"""A widget: cover a part of an image with the pointer, and see what a model expects there."""

import io
import threading
from pathlib import Path

import anywidget
import matplotlib.pyplot as plt
import torch
import traitlets
from torch import Tensor

from rnp_lib.analysis import completion
from rnp_lib.model.rnp import ImageModel
from rnp_lib.plots import completion as plots
from rnp_lib.plots.base import grey

PAGE = Path(__file__).parent / "cover"
SHOWN = 8  # completions


class Completions(anywidget.AnyWidget):
    """Completions of one of many grey images, a rectangle of which is covered. Display it.

    Attributes:
        number: of the image; where: the cover's top, bottom, left and right, in shares of a side.
            Set either, here or in the page, and `sheet` follows.
        sheet: a PNG of the image, what is seen of it, and completions, the likeliest first.
        message: what is wrong with a number or a cover, else how the sheet came about.
    """

    _esm = PAGE / "cover.js"
    _css = PAGE / "cover.css"

    number = traitlets.Int().tag(sync=True)
    where = traitlets.List(traitlets.Float(), minlen=4, maxlen=4).tag(sync=True)
    side = traitlets.Int().tag(sync=True)
    count = traitlets.Int().tag(sync=True)
    pixels = traitlets.Bytes().tag(sync=True)
    sheet = traitlets.Bytes().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)

    def __init__(self, model: ImageModel, images: Tensor, number: int = 0, seed: int = 0):
        """
        Args:
            images: (N, 1, H, W) as the model takes them, on its device.
            seed: of the chains: the same cover of the same image has the same completions.

        Raises ValueError for images in colour, and for a number that there is no image of.
        """
        if model.config.channels != 1:
            raise ValueError("only grey images are covered here: take a model with channels=1.")
        self._model, self._images, self._seed = model, model.images(images), seed
        self._lock = threading.Lock()
        lower = [0.5, 1.0, 0.0, 1.0]
        super().__init__(number=number, where=lower, side=images.shape[-1], count=len(images))
        self._complete()
        if not self.sheet:
            raise ValueError(self.message)
        self.observe(lambda _: self._complete(), ["number", "where"])

    def _complete(self) -> None:
        """Bring the sheet up to date; what cannot be done is a sentence, and the sheet stays."""
        with self._lock:
            try:
                if not 0 <= self.number < self.count:
                    raise ValueError(
                        f"there are {self.count:,} images: choose a number from 0 to "
                        f"{self.count - 1:,}, not {self.number}."
                    )
                top, bottom, left, right = self.where
                mask = completion.cover(((top, bottom), (left, right)), self.side)
                x = self._images[self.number : self.number + 1]
                drawn = completion.complete(self._model, x, mask, SHOWN, self._seed).images[0]
            except ValueError as error:
                self.message = str(error)[:1].upper() + str(error)[1:]
            else:
                self.pixels = (255 * torch.as_tensor(grey(x))[0, ..., 0]).byte().numpy().tobytes()
                self.sheet = _sheet(x, mask, drawn)
                self.message = f"{SHOWN} completions, the likeliest first."
        self.send({})

    def _repr_mimebundle_(self, **options):
        """The live widget, and a still picture for where nothing can be live."""
        content, about = super()._repr_mimebundle_(**options)
        return content | {"image/png": self.sheet}, about


def _sheet(x: Tensor, mask: Tensor, drawn: Tensor) -> bytes:
    figure = plots.completions([x], [mask], [{"completions": drawn}])
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120)
    plt.close(figure)
    return picture.getvalue()
