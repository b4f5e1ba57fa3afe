"""A run's history as a picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, float]
MEAN = "val_mean_iou"
ERRORS = ("val_mae", "val_mse")  # of mattes


def draw_curves(rows: Sequence[Row]) -> bytes:
    """A PNG of history.csv's rows: losses, and beside them, where the run was validated, IoU. NaN leaves a gap."""
    from matplotlib.figure import Figure  # not pyplot: no window system, nothing global

    losses = [name for name in rows[0] if name in ("loss", "val_loss")]
    shares = [name for name in rows[0] if name == MEAN or name.startswith("val_iou_")]
    errors = [name for name in rows[0] if name in ERRORS]
    panels = [names for names in (losses, shares, errors) if names]
    figure = Figure(figsize=(6 * len(panels), 4), dpi=100, layout="constrained")
    for axes, names in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw(axes, rows, names)
        if names is shares:
            axes.set_ylim(0, 1)
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})  # else matplotlib writes its version there
    return file.getvalue()


def _draw(axes: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    epochs = [int(row["epoch"]) for row in rows]
    for name in names:
        label = name.encode("ascii", "backslashreplace").decode().replace("$", r"\$")  # glyphs it has, no formulas
        axes.plot(epochs, [row[name] for row in rows], marker=".", label=label, linewidth=2.5 if name == MEAN else 1)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", ncols=1 + len(names) // 10)
