"""Labels beside points that overlap neither each other nor the points."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

Extents = NDArray[np.float64]

# Names are text: between two dollar signs matplotlib would read a formula, and may fail to.
matplotlib.rcParams["text.parse_math"] = False

DISTANCES_PT = (8, 14, 22, 32, 44, 58, 74, 92, 112, 134)
DIRECTIONS = 16
POINT_RADIUS_PT = 5.0
PADDING_PT = 0.6


def place_labels(
    axes: Axes, points: Sequence[tuple[float, float]], texts: Sequence[str],
    colours: Sequence[str], obstacles: Sequence[tuple[float, float]], fontsize: float,
) -> list[Annotation]:  # fmt: skip
    """Write each text near its point, at the nearest free place, with a line to the point.

    `obstacles` are the other points of the chart. Call it when limits and layout are final. A text
    for which there is no free place keeps the place with the least overlap.
    """
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]  # the Agg canvas has one
    scale = axes.figure.dpi / 72
    radius = POINT_RADIUS_PT * scale
    taken = [_around(axes, point, radius) for point in (*points, *obstacles)]
    frame = axes.get_window_extent(renderer)
    made = []
    for point, text, colour in zip(points, texts, colours, strict=True):
        label = axes.annotate(
            text, point, (0, 0), textcoords="offset points", fontsize=fontsize, ha="center",
            va="center", annotation_clip=False, zorder=5, color=colour,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": PADDING_PT},
        )  # fmt: skip
        size = label.get_window_extent(renderer).padded(PADDING_PT * scale)
        offset = _choose_offset(axes, point, size, taken, frame, scale)
        label.set_position(offset)
        box = _box(axes, point, offset, size, scale)
        taken.append(box)
        made.append(label)
        _draw_leader(axes, point, box)
    return made


def _draw_leader(axes: Axes, point: tuple[float, float], box: Bbox) -> None:
    """Draw a thin line from the point to the nearest edge of its label."""
    x, y = axes.transData.transform(point)
    edge = (min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1))
    ends = axes.transData.inverted().transform([(x, y), edge])
    axes.plot(*ends.T, color="0.6", linewidth=0.6, zorder=2, scalex=False, scaley=False)


def _choose_offset(
    axes: Axes, point: tuple[float, float], size: Bbox, taken: list[Bbox], frame: Bbox, scale: float
) -> tuple[float, float]:
    best, least = (0.0, 0.0), float("inf")
    boxes = np.array([box.extents for box in taken])
    for distance in DISTANCES_PT:
        for step in range(DIRECTIONS):
            angle = pi / 4 + 2 * pi * step / DIRECTIONS
            # From the label's edge, not its centre: wide texts need more room sideways.
            offset = (
                cos(angle) * (distance + size.width / scale / 2),
                sin(angle) * (distance + size.height / scale / 2),
            )
            box = _box(axes, point, offset, size, scale)
            if not (frame.x0 <= box.x0 and box.x1 <= frame.x1):
                continue
            if not (frame.y0 <= box.y0 and box.y1 <= frame.y1):
                continue
            overlap = _overlap(np.array(box.extents), boxes)
            if overlap == 0:
                return offset
            if overlap < least:
                best, least = offset, overlap
    return best


def _around(axes: Axes, point: tuple[float, float], radius: float) -> Bbox:
    x, y = axes.transData.transform(point)
    return Bbox.from_extents(x - radius, y - radius, x + radius, y + radius)


def _box(
    axes: Axes, point: tuple[float, float], offset: tuple[float, float], size: Bbox, scale: float
) -> Bbox:
    x, y = axes.transData.transform(point)
    x, y = x + offset[0] * scale, y + offset[1] * scale
    return Bbox.from_bounds(x - size.width / 2, y - size.height / 2, size.width, size.height)


def _overlap(one: Extents, others: Extents) -> float:
    """The area that a box shares with others, each x0, y0, x1, y1."""
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    return float(np.prod(np.maximum(sides, 0), axis=1).sum())
