"""What pictures are drawn with: dice, cloth, shapes and paint. Knows nothing of people or places.

A shape is a signed distance, negative inside: its sign at a pixel's centre decides the label, its value blends the edge
of the photo over one pixel. x runs to the right, y down, in whatever the canvas measures in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]  # float32 throughout; numpy's own types lose that beside a Python float
Labels = npt.NDArray[np.uint8]
Point = tuple[float, float]
Rgb = tuple[float, float, float]  # 0...1
T = TypeVar("T")

ROUND = 0.3  # the depth of a rounded part


@dataclass(frozen=True)
class Dice:
    """Chance by name: with one key, ``what`` always falls the same way, whatever else is drawn."""

    key: str

    def number(self, what: str, low: float, high: float) -> float:
        """A number from ``low`` to ``high``."""
        word = hashlib.shake_256(f"{self.key}/{what}".encode()).digest(4)
        return low + (high - low) * (int.from_bytes(word, "little") / 2**32)

    def pick(self, what: str, options: Sequence[T]) -> T:
        """One of ``options``."""
        return options[int(self.number(what, 0, len(options)))]

    def noise(self, what: str, *shape: int) -> Floats:
        """Independent numbers from -1 to 1."""
        raw = hashlib.shake_256(f"{self.key}/{what}".encode()).digest(math.prod(shape))
        return (np.frombuffer(raw, np.uint8).reshape(shape).astype(np.float32) - 127.5) / 127.5


# --- colours and cloth


def rgbs(codes: str) -> list[Rgb]:
    """Colours from hexadecimal codes with spaces between."""
    return [(int(c[:2], 16) / 255, int(c[2:4], 16) / 255, int(c[4:], 16) / 255) for c in codes.split()]


def mix(first: Rgb, second: Rgb, share: float) -> Rgb:
    """``first`` with ``share`` of ``second`` in it."""
    r, g, b = (a + share * (z - a) for a, z in zip(first, second, strict=True))
    return r, g, b


WHITE, BLACK = rgbs("fffdf8 1c1a20")
CLOTHS = rgbs(
    "d8433c f08a3c f4c344 4aa564 2b8288 3f77c2 2a4473 7d55a8 e880a4 f3ecdc 34343c 8e9ba8 a5653f bfd4c0 d9b48f"
)


@dataclass(frozen=True)
class Cloth:
    """Two colours in a pattern that repeats every ``pitch``."""

    color: Rgb
    pattern: str
    second: Rgb = WHITE
    pitch: float = 1.0


def clamp(t: Floats) -> Floats:
    """Cut off at 0 and 1."""
    clamped: Floats = np.minimum(np.maximum(t, 0.0), 1.0)
    return clamped


def _cover(distance_px: Floats) -> Floats:
    """How much of a pixel lies inside: 1 from half a pixel inside the edge, 0 from half a pixel outside."""
    return clamp(0.5 - distance_px)


def _off(t: Floats) -> Floats:
    """Distance from the middle of the repeat, 0...0.5."""
    off: Floats = np.abs(t - np.floor(t) - 0.5)
    return off


# Repeats to the right, repeats down, pixels per repeat -> share of the second colour.
PATTERNS: dict[str, Callable[[Floats, Floats, float], Floats]] = {
    "checks": lambda x, y, px: (_cover((_off(x) - 0.25) * px) + _cover((_off(y) - 0.25) * px)) / 2,
    "dots": lambda x, y, px: _cover((np.sqrt(_off(x) * _off(x) + _off(y) * _off(y)) - 0.25) * px),
    "fade": lambda x, y, px: np.minimum(y, 1.0),
    "pinstripes": lambda x, y, px: _cover((_off(x) - 0.14) * px),
    "plain": lambda x, y, px: np.zeros((1, 1), np.float32),
    "stripes": lambda x, y, px: _cover((_off(y) - 0.22) * px),
    "windows": lambda x, y, px: _cover(np.maximum(_off(x) - 0.27, _off(y) - 0.32) * px),
}


def _dye(cloth: Cloth, x: Floats, y: Floats, scale: float) -> Floats:
    """The cloth's colour at every point: (3, h, w), or what broadcasts to it."""
    share = PATTERNS[cloth.pattern](x / cloth.pitch, y / cloth.pitch, cloth.pitch * scale)
    color, second = (np.array(rgb, np.float32)[:, None, None] for rgb in (cloth.color, cloth.second))
    return color + share * (second - color)


# --- shapes


def between(a: Point, b: Point, share: float) -> Point:
    """The point ``share`` of the way from a to b; beyond b where that is more than 1."""
    return a[0] + share * (b[0] - a[0]), a[1] + share * (b[1] - a[1])


@dataclass(frozen=True)
class Shape:
    """``distance(x, y)`` is how far the edge is, negative inside; the inside lies within ``box``."""

    box: tuple[float, float, float, float]  # left, top, right, bottom
    distance: Callable[[Floats, Floats], Floats]

    def __and__(self, other: Shape) -> Shape:
        return Shape(self.box, lambda x, y: np.maximum(self.distance(x, y), other.distance(x, y)))

    def __sub__(self, other: Shape) -> Shape:
        return Shape(self.box, lambda x, y: np.maximum(self.distance(x, y), -other.distance(x, y)))

    def above(self, bottom: float) -> Shape:
        """Cut off at a height."""
        return Shape((*self.box[:3], bottom), lambda x, y: np.maximum(self.distance(x, y), y - bottom))


def ellipse(cx: float, cy: float, rx: float, ry: float) -> Shape:
    """An ellipse by its centre and half axes."""

    def distance(x: Floats, y: Floats) -> Floats:
        u, v = (x - cx) / rx, (y - cy) / ry
        radius: Floats = np.sqrt(u * u + v * v)
        slope = np.sqrt(u * u / (rx * rx) + v * v / (ry * ry))
        return radius * (radius - 1.0) / (slope + 1e-6)  # to first order

    return Shape((cx - rx, cy - ry, cx + rx, cy + ry), distance)


def limb(a: Point, b: Point, ra: float, rb: float, flat: bool = False) -> Shape:
    """What is nearer to the line from a to b than ``ra`` at a, ``rb`` at b; ``flat`` cuts it off at b."""
    dx, dy, r = b[0] - a[0], b[1] - a[1], max(ra, rb)
    length = math.sqrt(dx * dx + dy * dy)

    def distance(x: Floats, y: Floats) -> Floats:
        u, v = x - a[0], y - a[1]
        along = (u * dx + v * dy) / (length * length)
        near = clamp(along)
        u, v = u - near * dx, v - near * dy
        side: Floats = np.sqrt(u * u + v * v) - (ra + near * (rb - ra))
        return np.maximum(side, (along - 1.0) * length) if flat else side

    return Shape((min(a[0], b[0]) - r, min(a[1], b[1]) - r, max(a[0], b[0]) + r, max(a[1], b[1]) + r), distance)


def column(profile: Sequence[Point], cx: float = 0.0, corner: float = 0.06, sag: float = 0.0) -> Shape:
    """``profile`` is (y, half width) from top to bottom; the hem is lower in its middle by ``sag``."""
    top, bottom, widest = profile[0][0], profile[-1][0], max(half for _, half in profile)

    def distance(x: Floats, y: Floats) -> Floats:
        x, half = x - cx, np.full_like(y, profile[0][1])
        for (y0, w0), (y1, w1) in pairwise(profile):
            half = half + (w1 - w0) * clamp((y - y0) / (y1 - y0))
        ends = np.minimum(y - top, bottom - y - sag * (x * x) / (widest * widest))
        return -_smaller(half - np.abs(x), ends, corner)

    return Shape((cx - widest, top, cx + widest, bottom), distance)


def block(left: float, top: float, right: float, bottom: float, corner: float = 0.001) -> Shape:
    """A rectangle, its corners rounded over ``corner``."""
    half = (right - left) / 2
    return column(((top, half), (bottom, half)), left + half, corner)


def _smaller(a: Floats, b: Floats, blend: float) -> Floats:
    """The smaller of two, the kink between them rounded over ``blend``."""
    near = np.maximum(blend - np.abs(a - b), 0.0)
    return np.minimum(a, b) - near * near / (4 * blend)


def union(first: Shape, *others: Shape, blend: float = 0.02) -> Shape:
    """All of them as one, the seams rounded over ``blend``."""

    def distance(x: Floats, y: Floats) -> Floats:
        result = first.distance(x, y)
        for shape in others:
            result = _smaller(result, shape.distance(x, y), blend)
        return result

    left, top, right, bottom = zip(*(shape.box for shape in (first, *others)), strict=True)
    return Shape((min(left) - blend, min(top) - blend, max(right) + blend, max(bottom) + blend), distance)


# --- paint


@dataclass(frozen=True)
class Part:
    """A shape and its paint. ``depth`` rounds it by light and shadows what is labelled behind it; 0 is flat."""

    shape: Shape
    cloth: Cloth | Rgb
    label: int = 0  # 0 is the background's
    depth: float = 0.0
    soft_px: float = 1.0  # width of the edge
    opacity: float = 1.0


@dataclass(frozen=True)
class Canvas:
    """Pixels, and a measure to draw in: (x, y) lies at column x0 + scale * (x + sway), row y0 + scale * y."""

    image: Floats  # (3, H, W), 0...1, painted in place
    labels: Labels  # (H, W), painted in place
    light: Point  # where it comes from
    scale: float
    x0: float = 0.0
    y0: float = 0.0
    lean: float = 0.0  # sway per height above lean_y
    lean_y: float = 0.0
    tilt: float = 0.0  # more of it above tilt_y
    tilt_y: float = 0.0


def _crop(canvas: Canvas, shape: Shape, margin_px: float) -> tuple[slice, slice, Floats, Floats]:
    """Rows and columns that hold the shape, and the x (h, w) and y (h, 1) of their pixels' centres."""
    left, top, right, bottom = (canvas.scale * edge for edge in shape.box)
    rows = _span(canvas.y0 + top - margin_px, canvas.y0 + bottom + margin_px, canvas.labels.shape[0])
    y = ((np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5 - canvas.y0) / canvas.scale)[:, None]
    sway = canvas.lean * (canvas.lean_y - y) + canvas.tilt * np.maximum(canvas.tilt_y - y, 0.0)
    sway_px = [canvas.scale * float(edge) for edge in (sway.min(initial=9.0), sway.max(initial=-9.0))]
    start, stop = canvas.x0 + left + sway_px[0] - margin_px, canvas.x0 + right + sway_px[1] + margin_px
    cols = _span(start, stop, canvas.labels.shape[1])
    x = (np.arange(cols.start, cols.stop, dtype=np.float32) + 0.5 - canvas.x0) / canvas.scale
    return rows, cols, x - sway, y


def _span(start: float, stop: float, size: int) -> slice:
    return slice(min(max(math.floor(start), 0), size), min(max(math.ceil(stop), 0), size))


def paint(canvas: Canvas, part: Part) -> None:
    """Paint the part over what the canvas holds, and its label where it lies."""
    reach_px = 0.2 * canvas.scale if part.label and part.depth else part.soft_px
    rows, cols, x, y = _crop(canvas, part.shape, reach_px)
    if not x.size:
        return
    distance_px = part.shape.distance(x, y) * canvas.scale
    image, labels = canvas.image[:, rows, cols], canvas.labels[rows, cols]
    cloth = part.cloth if isinstance(part.cloth, Cloth) else Cloth(part.cloth, "plain")
    color = _dye(cloth, x, y, canvas.scale)
    if part.depth:
        near = clamp(1.0 - distance_px / reach_px)
        image *= 1.0 - part.depth * (near * near) * (labels != 0)
        color = color * _roundness(distance_px, canvas, part.depth)
    image += part.opacity * _cover(distance_px / part.soft_px) * (color - image)
    labels[distance_px < 0.0] = part.label


def _roundness(distance_px: Floats, canvas: Canvas, depth: float) -> Floats:
    """Brightness of a rounded body, about 1: its rim is turned towards the light or away from it."""
    across, down = np.zeros_like(distance_px), np.zeros_like(distance_px)
    across[:, 1:] = distance_px[:, 1:] - distance_px[:, :-1]
    down[1:] = distance_px[1:] - distance_px[:-1]
    width_px = max(1.0, min(-float(distance_px.min()), 0.3 * canvas.scale))
    rim = clamp(1.0 + distance_px / width_px)
    return 1.0 + depth * rim * rim * (across * canvas.light[0] + down * canvas.light[1] - 0.25)
