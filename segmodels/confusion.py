"""A confusion matrix as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_LABEL = 24  # characters
MAX_NUMBERED = 40  # classes; with more, a number in each cell would make the picture larger than a screen shows


def draw_confusion(confusion: npt.NDArray[np.int64], names: Sequence[str]) -> bytes:
    """A PNG of a confusion matrix (C, C), rows the truth and columns the prediction.

    Each row is in per cent of its class's true pixels; the row of a class without any is grey. A cell without a number
    is 0, but for more than 40 classes none has one.
    """
    from matplotlib.figure import Figure  # not pyplot: no window system, nothing global

    classes = len(names)
    cell_inch = 0.5 if classes <= MAX_NUMBERED else 0.14
    figure = Figure(figsize=(3.4 + classes * cell_inch, 2.6 + classes * cell_inch), dpi=100, layout="constrained")
    axes = figure.subplots()
    shares = row_shares(confusion)
    _draw(axes, shares, names)
    if classes <= MAX_NUMBERED:
        _number(axes, shares)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})  # else matplotlib writes its version there
    return file.getvalue()


def row_shares(confusion: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """(C, C) entries over the sums of their rows; NaN in a row that sums to 0."""
    totals = confusion.sum(axis=1, keepdims=True)
    shares: npt.NDArray[Any] = np.divide(
        confusion, totals, out=np.full(confusion.shape, np.nan), where=np.broadcast_to(totals > 0, confusion.shape)
    )
    return shares


def _draw(axes: Axes, shares: npt.NDArray[np.float64], names: Sequence[str]) -> None:
    small = 9 if len(names) <= MAX_NUMBERED else 6
    axes.set_facecolor("lightgrey")  # shows through where a row is NaN
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    labels = [_label(i, name) for i, name in enumerate(names)]
    axes.set_xticks(range(len(names)), labels, rotation=90, fontsize=small)
    axes.set_yticks(range(len(names)), labels, fontsize=small)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    axes.set_title("% of the true class's pixels,\nat the network's size", fontsize=10)


def _label(number: int, name: str) -> str:
    """Of a class, at most so long that room is left for the matrix; glyphs that matplotlib has, and no formulas."""
    label = f"{number} {name}".encode("ascii", "backslashreplace").decode()
    short = label if len(label) <= MAX_LABEL else f"{label[: MAX_LABEL - 3]}..."
    return short.replace("$", r"\$")


def _number(axes: Axes, shares: npt.NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(shares):
        if share > 0:  # not for NaN either
            color = "white" if share > 0.5 else "black"
            axes.text(column, row, percent(share), color=color, fontsize=8, ha="center", va="center")


def percent(share: float) -> str:
    """``"97.3"``; what is not 100 or 0 is never rounded to it."""
    return f"{min(max(100 * share, 0.1), 99.9) if share < 1 else 100:.1f}"
