"""Synthetic characters whose true parse tree is known: strokes (parts) of lines and arcs."""

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

MOST = 4  # strokes a character may have, and sub-parts a stroke may have; the fewest is 2
PEN = (0.065, 0.085)  # half the pen's width; lengths are in half canvases: 1 is 14 of 28 pixels
STRAIGHT = 0.02  # radians a "line" turns by, to be an arc too: 0.03 of 28 pixels off at most
CANDIDATES = 8  # strokes tried for each one that is kept
SAMPLES = 5  # points along a sub-part, where only its rough place matters
CHUNK = 256  # characters drawn at a time: fits a processor's cache


class StrokeSet(NamedTuple):
    """Images and their true parse trees.

    images: float32 [n, 1, S, S] in [0, 1], ink bright.
    labels: int64 [n], the number of strokes: 2, 3 or 4.
    parts: int64 [n, S, S], the stroke each pixel belongs to, in drawing order; -1 without ink.
    subparts: int64 [n, S, S], the line or arc each pixel belongs to, numbered through the whole
        character in drawing order, so that each lies in one stroke; -1 without ink.
    """

    images: Tensor
    labels: Tensor
    parts: Tensor
    subparts: Tensor


class Arcs(NamedTuple):
    """Lines and arcs: start, direction there (radians), length, and turning (radians, signed)."""

    x: Tensor
    y: Tensor
    heading: Tensor
    length: Tensor
    turn: Tensor

    def at(self, share: Tensor | float) -> tuple[Tensor, Tensor]:
        """The point after `share` of the length: the chord leaves at half the angle turned."""
        half = self.turn * share / 2
        chord = self.length * share * torch.sinc(half / math.pi)
        along = self.heading + half
        return self.x + chord * torch.cos(along), self.y + chord * torch.sin(along)

    def pick(self, index) -> "Arcs":
        return Arcs(*(field[index] for field in self))


def strokes(n: int, seed: int = 0, size: int = 28) -> StrokeSet:
    """n characters of 2 to 4 strokes, each of 2 to 4 lines and arcs joined end to end.

    The pen is about 2 pixels wide at size 28 and scales with the canvas. A seed always gives the
    same characters, and fewer of them are the first of more. A pixel belongs to the nearest
    sub-part. Characters in which a sub-part is all but hidden are left out.
    """
    if n < 1 or size < 8:
        raise ValueError(f"cannot draw {n} characters of {size} pixels: at least 1 of at least 8")
    generator = torch.Generator().manual_seed(seed)
    chunks, drawn = [], 0
    while drawn < n:
        arcs, exists, pen = _characters(generator)
        chunk = render(arcs, exists, pen, 28)
        keep = _all_visible(chunk)  # judged at one size, so that every size has the same characters
        if size != 28:
            chunk = render(arcs, exists, pen, size)
        chunks.append(StrokeSet(*(field[keep] for field in chunk)))
        drawn += len(chunks[-1].labels)
    return StrokeSet(*(torch.cat(field)[:n] for field in zip(*chunks, strict=True)))


def _uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _characters(generator: torch.Generator) -> tuple[Arcs, Tensor, Tensor]:
    """A chunk of n characters: arcs [n, stroke, sub-part], which of them exist, pens [n]."""
    n = CHUNK
    slots = torch.arange(MOST)
    count = torch.randint(2, MOST + 1, (n, 1, 1), generator=generator)
    pieces = torch.randint(2, MOST + 1, (n, MOST, 1), generator=generator)
    exists = (slots[:, None] < count) & (slots < pieces)

    # Much the same ink whatever the number of sub-parts: crowded characters have shorter ones.
    ink = _uniform(generator, 3.2, 4.4, n)
    typical = (ink / exists.sum((1, 2))).clamp(0.3, 0.75)
    tried = _chains(generator, typical)
    x, y = tried.at(torch.linspace(0, 1, SAMPLES)[:, None, None, None, None])
    points = torch.stack([x, y], -1).permute(1, 2, 3, 4, 0, 5).flatten(3, 4)  # [n, stroke, C, P, 2]
    missing = ~exists.repeat_interleave(SAMPLES, 2)  # [n, stroke, P]
    best, points = _arrange(points.masked_fill(missing[:, :, None, :, None], math.nan))
    arcs = tried.pick((torch.arange(n)[:, None], slots, best))
    return _fit(arcs, points, generator), exists, _uniform(generator, *PEN, n)


def _chains(generator: torch.Generator, typical: Tensor) -> Arcs:
    """Random strokes, every sub-part starting where the last one ended.

    typical: [n], length of a sub-part; returns arcs [n, stroke, candidate, sub-part].
    """
    shape = (len(typical), MOST, CANDIDATES)
    x, y = _uniform(generator, -0.75, 0.75, 2, *shape)
    heading = _uniform(generator, 0, 2 * math.pi, *shape)
    kind = torch.zeros(shape, dtype=torch.int64)  # line, left bend, right bend
    pieces = []
    for _ in range(MOST):
        # Where no corner tells two sub-parts apart, their kind must. (At the start it is all one.)
        smooth = torch.rand(shape, generator=generator) < 0.4
        other = torch.randint(0, 3, shape, generator=generator)
        kind = torch.where(smooth, (kind + 1 + other % 2) % 3, other)
        corner = _uniform(generator, math.radians(50), math.radians(120), *shape)
        corner *= torch.randint(0, 2, shape, generator=generator) * 2 - 1
        bend = _uniform(generator, math.radians(60), math.radians(150), *shape)
        arc = Arcs(
            x,
            y,
            heading=heading + torch.where(smooth, 0.0, corner),
            length=typical[:, None, None] * _uniform(generator, 0.75, 1.25, *shape),
            turn=torch.where(kind == 0, STRAIGHT, torch.where(kind == 1, bend, -bend)),
        )
        pieces.append(arc)
        (x, y), heading = arc.at(1.0), arc.heading + arc.turn
    return Arcs(*(torch.stack(field, -1) for field in zip(*pieces, strict=True)))


def _arrange(points: Tensor) -> tuple[Tensor, Tensor]:
    """Choose strokes one after the other: on the canvas, off themselves and off earlier strokes.

    points: [n, stroke, candidate, P, 2], NaN where a sub-part does not exist.
    Returns the choice [n, stroke] and its points [n, stroke, P, 2].
    """
    n, most, _, count, _ = points.shape
    near = 0.2  # 3 of 28 pixels: closer, and two pens of 2 pixels run into each other
    order = torch.arange(count)
    apart = (order[:, None] - order).abs() >= SAMPLES  # neighbours along the stroke may be near
    # Not by matrix products, whose rounding would let another machine choose other strokes.
    distances = partial(torch.cdist, compute_mode="donot_use_mm_for_euclid_dist")
    best, chosen = [], []
    for stroke in range(most):
        tried = points[:, stroke]
        outside = (tried.abs() - 0.75).clamp(min=0).nansum((2, 3))
        total = tried[..., 0].isfinite().sum(-1)
        itself = ((distances(tried, tried) < near) & apart).any(-1).sum(-1) / total
        penalty = outside + itself
        if chosen:
            earlier = torch.cat(chosen, 1)
            touching = (distances(tried.flatten(1, 2), earlier) < near).any(-1)
            # A quarter of a stroke may touch: crossings and joints are part of handwriting.
            penalty += (touching.view(n, -1, count).sum(-1) / total - 0.25).clamp(min=0) * 2
        best.append(penalty.argmin(1))
        chosen.append(tried[torch.arange(n), best[-1]])
    return torch.stack(best, 1), torch.stack(chosen, 1)


def _fit(arcs: Arcs, points: Tensor, generator: torch.Generator) -> Arcs:
    """Centre the characters with some play; two thirds of the canvas in size, as handwriting is.

    arcs: [n, stroke, sub-part]; points: [n, stroke, P, 2] on them, NaN where there is no sub-part.
    """
    n = len(points)
    low = points.nan_to_num(math.inf).amin((1, 2))
    high = points.nan_to_num(-math.inf).amax((1, 2))
    extent = (high - low).amax(1)
    scale = (_uniform(generator, 1.25, 1.55, n) / extent).clamp(0.75, 1.4)
    scale = torch.minimum(scale, 1.6 / extent)[:, None, None]
    centre = ((low + high) / 2)[:, :, None, None]  # [n, 2, 1, 1]
    play = _uniform(generator, -0.1, 0.1, n, 2)[:, :, None, None]
    return arcs._replace(
        x=(arcs.x - centre[:, 0]) * scale + play[:, 0],
        y=(arcs.y - centre[:, 1]) * scale + play[:, 1],
        length=arcs.length * scale,
    )


def render(arcs: Arcs, exists: Tensor, pen: Tensor, size: int) -> StrokeSet:
    """Draw arcs [n, stroke, sub-part] with pens [n]: one pixel of blur at the edge of the ink."""
    n = len(pen)
    distance = torch.full((n, MOST * MOST, size * size), math.inf)
    distance[exists.flatten(1)] = _distance(arcs.pick(exists), size)
    nearest, slot = distance.min(1)  # [n, size²]
    ink = ((pen[:, None] - nearest) * size / 2 + 0.5).clamp(0, 1)
    blank = ink == 0
    number = exists.flatten(1).cumsum(1) - 1  # drawing order, without the slots left empty
    return StrokeSet(
        images=ink.view(n, 1, size, size),
        labels=exists[:, :, 0].sum(1),
        parts=(slot // MOST).masked_fill(blank, -1).view(n, size, size),
        subparts=number.gather(1, slot).masked_fill(blank, -1).view(n, size, size),
    )


def _distance(arcs: Arcs, size: int) -> Tensor:
    """From m arcs [m] to every pixel's centre, in half canvases: [m, size²]."""
    across = (torch.arange(size) + 0.5) * 2 / size - 1  # x of a column, and y of a row
    down = across[:, None]
    arcs = arcs.pick((slice(None), None, None))  # [m, 1, 1]
    radius = arcs.length / arcs.turn
    x = arcs.x - radius * torch.sin(arcs.heading)  # the circle's centre
    y = arcs.y + radius * torch.cos(arcs.heading)
    radius = radius.abs()

    def squared(x: Tensor, y: Tensor) -> Tensor:
        return (across - x) ** 2 + (down - y) ** 2  # [m, size, size]

    # Within the arc's opening, which lies around its middle, the distance is to the circle;
    # elsewhere to the nearer end.
    middle_x, middle_y = arcs.at(0.5)
    along = (across - x) * (middle_x - x) + (down - y) * (middle_y - y)
    reach = squared(x, y).sqrt()
    within = along >= reach * (radius * torch.cos(arcs.turn / 2))
    ends = torch.minimum(squared(arcs.x, arcs.y), squared(*arcs.at(1.0))).sqrt()
    return torch.where(within, (reach - radius).abs(), ends).flatten(1)


def _all_visible(drawn: StrokeSet) -> Tensor:
    """Whether all sub-parts of a character keep 1/150 of the canvas (5 of 28² pixels): bool [n]."""
    owned = torch.stack([(drawn.subparts == i).sum((1, 2)) for i in range(MOST * MOST)], 1)
    exists = torch.arange(MOST * MOST) <= drawn.subparts.amax((1, 2))[:, None]
    return ((owned >= drawn.parts[0].numel() / 150) | ~exists).all(1)
