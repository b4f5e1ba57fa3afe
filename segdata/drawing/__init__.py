"""Sample people for ``segdata demo``: drawn pictures whose HumanParsing labels are exact.

A picture is a stack of parts, each painted over those before it: a background, then a person. Only sums, products,
quotients, square roots and SHAKE-256 are used, which every machine computes alike; sines, powers and sums over whole
arrays are left out because their last bit differs.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from segdata.drawing.backgrounds import background_parts
from segdata.drawing.people import NECK, SOLE, person_parts, random_person
from segdata.drawing.shapes import BLACK, WHITE, Canvas, Dice, Labels, Part, clamp, ellipse, paint

__all__ = ["draw_person"]


def draw_person(seed: int, number: int) -> tuple[Labels, Labels]:
    """Picture ``number`` of the endless series ``seed``.

    Returns the image, (H, W, 3) uint8 RGB, and its labels, (H, W) uint8 HumanParsing ids 0...17; H is 220...340, W is
    180...300, and at least 5 % of the pixels are the person's. The same two numbers give the same bytes everywhere.
    """
    dice = Dice(f"{seed}/{number}")
    canvas = _empty_canvas(dice)
    view = _frame(dice, canvas)
    for part in background_parts(dice, canvas.labels.shape[1] / canvas.scale):
        paint(canvas, part)
    haze = np.float32(dice.number("haze", 0.6, 0.75))  # the air before what is far away
    canvas.image[:] = canvas.image * (1 - haze) + haze * np.array(WHITE, np.float32)[:, None, None]
    paint(view, Part(ellipse(0, SOLE, 1.0, 0.22), BLACK, soft_px=10, opacity=0.4))  # the shadow on the ground
    for part in person_parts(random_person(dice)):
        paint(view, part)
    _ink_outline(canvas)
    return _develop(dice, canvas), canvas.labels


def _ink_outline(canvas: Canvas) -> None:
    """Darken the person's outermost two pixels, as an illustrator would: pale clothes stand out from a pale sky."""
    person = canvas.labels > 0
    inner = person
    for _ in range(2):
        padded = np.pad(inner, 1, mode="edge")
        inner = inner & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
    canvas.image[:, person & ~inner] *= np.float32(0.5)


def _empty_canvas(dice: Dice) -> Canvas:
    portrait, square, landscape = ((180, 230), (1.25, 1.6)), ((230, 250), (0.97, 1.03)), ((285, 300), (0.78, 0.85))
    widths, ratios = dice.pick("format", (portrait,) * 7 + (square, landscape))
    width = int(dice.number("width", *widths))
    height = min(max(int(width * dice.number("ratio", *ratios)), 220), 340)
    image, labels = np.zeros((3, height, width), np.float32), np.zeros((height, width), np.uint8)
    return Canvas(image, labels, (dice.pick("light", (-0.8, -0.5, 0.5, 0.8)), -0.7), scale=float(height))


def _frame(dice: Dice, canvas: Canvas) -> Canvas:
    """The same canvas in head heights: the person whole, to the knees, to the chest, or cut by the side."""
    height, width = canvas.labels.shape
    whole, knees, chest, aside = (7.0, 7.6), (4.6, 5.4), (2.6, 3.3), (5.0, 6.5)
    shot = dice.pick("shot", (whole,) * 8 + (knees,) * 5 + (chest,) * 6 + (aside,))
    scale = height / dice.number("heads", *shot)
    x0 = width * (dice.pick("edge", (0.06, 0.94)) if shot == aside else dice.number("x", 0.44, 0.56))
    y0 = height - 6.5 * scale if shot == whole else dice.number("y", 0.35, 0.6) * scale
    lean, tilt = dice.number("lean", -0.04, 0.04), dice.number("tilt", -0.15, 0.15)
    return replace(
        canvas, scale=scale, x0=x0 - lean * 3.0 * scale, y0=y0, lean=lean, lean_y=SOLE, tilt=tilt, tilt_y=NECK
    )


def _develop(dice: Dice, canvas: Canvas) -> Labels:
    """(H, W, 3) uint8: the picture with a light from one side, darker corners and grain."""
    height, width = canvas.labels.shape
    u = ((np.arange(width, dtype=np.float32) + 0.5) / width - 0.5)[None, :]
    v = ((np.arange(height, dtype=np.float32) + 0.5) / height - 0.5)[:, None]
    light = 1.04 + 0.12 * (canvas.light[0] * u + canvas.light[1] * v) - 0.3 * (u * u + v * v)
    grain = dice.noise("grain", 4, height, width)
    image = canvas.image * light + 0.022 * grain[0] + 0.012 * grain[1:]
    return np.ascontiguousarray((clamp(image) * 255.0 + 0.5).astype(np.uint8).transpose(1, 2, 0))
