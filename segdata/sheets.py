"""Contact sheets: samples in a grid, with ids, class names and the label map's colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segdata.formats.images import Pixels, count_values
from segdata.labels import LabelMap, palette

_GAP = 6
_TEXT_PX = 12
_LINE = _TEXT_PX + 5
_INK, _PAPER = (30, 30, 30), (250, 250, 250)


@dataclass(frozen=True)
class Cell:
    """One sample on a sheet: pictures side by side, each (H, W, 3) uint8 RGB of any size, and a line of text."""

    caption: str
    panels: tuple[Pixels, ...]


def colored(mask: Pixels, labels: LabelMap) -> Pixels:
    """(H, W, 3) uint8 RGB: each id in its colour, the ignore index light grey."""
    return palette(labels)[mask]


def overlay(image: Pixels, mask: Pixels, labels: LabelMap, strength: float = 0.55) -> Pixels:
    """The image with classes other than 0 tinted in their colours; the ignore index whitened."""
    import cv2

    mixed, levels = image.copy(), np.arange(256)[:, None]
    for k in np.flatnonzero(count_values(mask)[1:]) + 1:
        tinted = np.rint(levels * (1 - strength) + palette(labels)[k] * strength).astype(np.uint8)
        there = (mask == k).view(np.uint8)
        x, y, w, h = cv2.boundingRect(there)
        box = np.s_[y : y + h, x : x + w]
        # By a table of levels: arithmetic takes ten times as long.
        cv2.copyTo(cv2.LUT(np.ascontiguousarray(image[box]), tinted[:, None]), there[box], mixed[box])
    return mixed


def cutout(image: Pixels, matte: npt.NDArray[np.float32]) -> Pixels:
    """The image by its alpha (H, W) in [0, 1] over a grey checkerboard of 8 px squares."""
    rows, columns = np.indices(matte.shape) // 8
    board = np.where((rows + columns) % 2, 160, 220)[:, :, None]
    mixed: Pixels = np.rint(image * matte[:, :, None] + board * (1 - matte[:, :, None])).astype(np.uint8)
    return mixed


def grey(matte: npt.NDArray[np.float32]) -> Pixels:
    """Alpha (H, W) in [0, 1] as (H, W, 3) uint8 grey."""
    return np.repeat(np.rint(matte * 255).astype(np.uint8)[:, :, None], 3, axis=2)


def contact_sheet(
    cells: Sequence[Cell], headings: Sequence[str], labels: LabelMap | None, panel_px: int = 176, columns: int = 0
) -> Pixels:
    """All cells in a grid, ``headings`` over each cell's panels, and a legend of the label map at the bottom.

    Panels keep their shape inside ``panel_px`` squares. ``columns`` 0 makes the sheet about as wide as it is high.
    """
    width = len(headings) * (panel_px + 2) + _GAP
    height = panel_px + _LINE + _GAP
    columns = columns or max(1, min(len(cells), round(math.sqrt(len(cells) * height / width * 1.4))))
    rows = math.ceil(len(cells) / columns)
    legend = _legend_lines(labels, columns * width - _GAP)
    size = (columns * width + _GAP, _GAP + _LINE + rows * height + len(legend) * _LINE + _GAP)
    picture = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(_TEXT_PX)
    for i, cell in enumerate(cells):
        x, y = _GAP + i % columns * width, _GAP + _LINE + i // columns * height
        _draw_cell(picture, draw, font, cell, x, y, panel_px)
    for column in range(columns):
        for i, heading in enumerate(headings):
            draw.text((_GAP + column * width + i * (panel_px + 2), _GAP - 2), heading, _INK, font)
    for i, line in enumerate(legend):
        _draw_legend(draw, font, line, size[1] - (len(legend) - i) * _LINE - 2)
    return np.asarray(picture)


def _draw_cell(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    cell: Cell,
    x: int,
    y: int,
    panel_px: int,
) -> None:
    for i, panel in enumerate(cell.panels):
        picture.paste(Image.fromarray(_fitted(panel, panel_px)), (x + i * (panel_px + 2), y))
    room = len(cell.panels) * (panel_px + 2)
    caption = " ".join(cell.caption.splitlines()).encode("ascii", "backslashreplace").decode("ascii")
    while caption and draw.textlength(caption, font) > room:
        caption = caption[:-4] + "..." if len(caption) > 4 else ""
    draw.text((x, y + panel_px + 1), caption, _INK, font)


def _fitted(panel: Pixels, side: int) -> Pixels:
    """The panel inside a square: shrunk smoothly, or enlarged by nearest neighbour so that single pixels show."""
    scale = side / max(panel.shape[:2])
    size = (max(1, round(panel.shape[1] * scale)), max(1, round(panel.shape[0] * scale)))
    method = Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST
    canvas = Image.new("RGB", (side, side), (235, 235, 235))
    canvas.paste(Image.fromarray(panel).resize(size, method), ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.asarray(canvas)


def _legend_lines(labels: LabelMap | None, width: int) -> list[list[tuple[str, tuple[int, int, int]]]]:
    """Class names with their colours, broken into lines of at most ``width`` pixels."""
    if labels is None:
        return []
    entries = [(f"{i} {name}", color) for i, (name, color) in enumerate(zip(labels.names, labels.colors, strict=True))]
    lines: list[list[tuple[str, tuple[int, int, int]]]] = [[]]
    used = 0.0
    for text, color in [*entries, (f"{labels.ignore_index} ignore", (200, 200, 200))]:
        needed = _entry_width(text)
        if lines[-1] and used + needed > width:
            lines.append([])
            used = 0
        lines[-1].append((text, color))
        used += needed
    return lines


def _entry_width(text: str) -> float:
    return ImageFont.load_default(_TEXT_PX).getlength(text) + _TEXT_PX + 18


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    line: list[tuple[str, tuple[int, int, int]]],
    y: int,
) -> None:
    x = float(_GAP)
    for text, color in line:
        draw.rectangle((x, y + 1, x + _TEXT_PX, y + 1 + _TEXT_PX), color, (120, 120, 120))
        draw.text((x + _TEXT_PX + 4, y), text, _INK, font)
        x += _entry_width(text)
