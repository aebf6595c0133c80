"""Characters of known strokes, some of which never come together in training: does a model that has
seen every stroke draw a combination that it has not?

A character is three of twelve strokes, in three of the four quarters of the canvas. In training no
stroke comes with the one after it in SHAPES, the last with the first, and no stroke in one of the
quarters.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rnp_lib.data.strokes import CHUNK, MOST, PEN, STRAIGHT, Arcs, StrokeSet, render

# Two lines or arcs joined end to end: direction of the first, how much it turns, the corner between
# them, how much the second turns, degrees.
SHAPES = (
    (90, 0, -90, 0),  # L
    (0, 0, 135, 0),  # 7
    (200, -110, 0, -110),  # C
    (-160, -150, 0, 150),  # S
    (90, 0, 0, 180),  # J
    (-60, 0, 120, 0),  # caret
    (0, 0, 0, 0),  # bar
    (-45, 90, 0, -90),  # wave
    (90, 0, 0, 0),  # post
    (-90, 180, 0, 0),  # cane
    (45, 0, 0, 0),  # slash
    (-20, 160, -140, 160),  # 3
)
STROKES = 3  # of a character
QUARTERS = 4
SIZE = 0.6  # of a stroke, half canvases
WANDER, TURN, GROW = 0.06, 12.0, 0.15  # at most: of a place, half canvases; degrees; share of size
KINDS = ("seen", "pair", "place")  # what is new about a test character: its label


class Combinations(NamedTuple):
    """n characters and what they are made of.

    images: float32 (n, 1, S, S) in [0, 1], ink bright.
    labels: int64 (n,), what is new about them, by its number in KINDS.
    shapes, quarters: int64 (n, 3), of their strokes, which shape, and where, row by row.
    parts: int64 (n, S, S), the stroke that each pixel belongs to, from 0; -1 without ink.
    """

    images: Tensor
    labels: Tensor
    shapes: Tensor
    quarters: Tensor
    parts: Tensor


def held_pair(one: Tensor, other: Tensor) -> Tensor:
    """Whether two strokes, by their numbers, never come together in training."""
    apart = (one - other) % len(SHAPES)
    return (apart == 1) | (apart == len(SHAPES) - 1)


def held_place(shape: Tensor, quarter: Tensor) -> Tensor:
    """Whether a stroke never comes in that quarter in training; quarters row by row."""
    return shape % QUARTERS == quarter


def combinations(n: int, seed: int, kinds: tuple[str, ...] = KINDS, size: int = 28) -> Combinations:
    """n characters, the kinds in turn.

    "pair": some two strokes that never come together in training, all in quarters where they do
    come. "place": some stroke in the quarter where it never comes, no two strokes that never come
    together. "seen": neither.
    """
    generator = torch.Generator().manual_seed(seed)
    wanted = torch.tensor([KINDS.index(kind) for kind in kinds])
    pools = [torch.empty(0, STROKES, 2, dtype=torch.int64) for _ in KINDS]
    labels = wanted[torch.arange(n) % len(wanted)]
    counts = labels.bincount(minlength=len(KINDS))
    while any(len(pool) < count for pool, count in zip(pools, counts.tolist(), strict=True)):
        chosen = _draw(4 * CHUNK, generator)
        shape, quarter = chosen.unbind(2)
        pair = held_pair(shape[:, :, None], shape[:, None]).any((1, 2))
        place = held_place(shape, quarter).any(1)
        for i, keep in enumerate((~pair & ~place, pair & ~place, place & ~pair)):
            pools[i] = torch.cat([pools[i], chosen[keep]])
    chosen = torch.empty(n, STROKES, 2, dtype=torch.int64)
    for i, count in enumerate(counts.tolist()):
        chosen[labels == i] = pools[i][:count]
    drawn = [_picture(part, generator, size) for part in chosen.split(CHUNK)]
    images, parts = (torch.cat([getattr(d, name) for d in drawn]) for name in ("images", "parts"))
    return Combinations(images, labels, *chosen.unbind(2), parts)


def _draw(n: int, generator: torch.Generator) -> Tensor:
    """Different strokes in different quarters, by lot: int64 (n, STROKES, 2)."""
    kinds = [len(SHAPES), QUARTERS]
    orders = [torch.rand(n, count, generator=generator).argsort(1)[:, :STROKES] for count in kinds]
    return torch.stack(orders, 2)


def _picture(chosen: Tensor, generator: torch.Generator, size: int) -> StrokeSet:
    """Strokes in quarters (n, STROKES, 2), each a little moved, turned and resized."""
    n = len(chosen)

    def play(*shape: int) -> Tensor:
        return 2 * torch.rand(shape, generator=generator) - 1

    shape, quarter = chosen.unbind(2)
    table = torch.tensor(SHAPES) * math.pi / 180
    first, turn_1, corner, turn_2 = table[shape].unbind(2)  # (n, STROKES)
    first = first + math.radians(TURN) * play(n, STROKES)
    turns = torch.stack([turn_1, turn_2], 2)
    turns = torch.where(turns == 0, STRAIGHT, turns)
    one = torch.ones_like(first)
    start = Arcs(0 * one, 0 * one, first, one, turns[..., 0])
    x, y = start.at(1.0)
    second = Arcs(x, y, first + turns[..., 0] + corner, one, turns[..., 1])
    arcs = Arcs(*(torch.stack(pair, 2) for pair in zip(start, second, strict=True)))

    along = torch.stack([torch.stack(arcs.at(s), -1) for s in torch.linspace(0, 1, 9)], 3)
    low, high = along.flatten(2, 3).aminmax(dim=2)  # (n, STROKES, 2)
    scale = SIZE / (high - low).amax(2) * (1 + GROW * play(n, STROKES))
    row, column = quarter // 2, quarter % 2
    middle = torch.stack([column, row], 2) - 0.5 + WANDER * play(n, STROKES, 2)
    move = middle * 0.9 - (low + high) / 2 * scale[..., None]
    arcs = arcs._replace(
        x=arcs.x * scale[..., None] + move[..., :1],
        y=arcs.y * scale[..., None] + move[..., 1:],
        length=arcs.length * scale[..., None],
    )
    room = torch.zeros(n, MOST, MOST, dtype=torch.bool)
    room[:, :STROKES, :2] = True
    padded = Arcs(*(torch.zeros(n, MOST, MOST).masked_scatter(room, field) for field in arcs))
    pens = PEN[0] + (PEN[1] - PEN[0]) * (play(n) + 1) / 2
    return render(padded, room, pens, size)
