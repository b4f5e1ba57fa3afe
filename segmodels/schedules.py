"""The learning rate and the end of a run, as pure functions of what has happened: a resumed run goes on the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, float]  # of history.csv

WARM_UP_STEPS = 50
PLATEAU_EPOCHS, PLATEAU_FACTOR = 5, 0.5  # epochs without a better one after which the rate is lowered, and to what


@dataclass(frozen=True)
class Best:
    """The best epoch so far by the column ``name`` of history.csv; epochs count from 1, 0 is none yet."""

    name: str
    epoch: int = 0
    value: float = math.nan


def best(rows: Sequence[Row], name: str) -> Best:
    """The first of the best: the highest value, or of a loss or an error the lowest; NaN is never the best."""
    found = Best(name)
    for row in rows:
        found = _better(found, row)
    return found


def _better(found: Best, row: Row) -> Best:
    """The row's, where it is better than what was found before it."""
    sign = -1 if found.name.endswith(("loss", "mae")) else 1
    value = row[found.name]
    if math.isnan(value) or (found.epoch and sign * value <= sign * found.value):
        return found
    return Best(found.name, int(row["epoch"]), value)


def epochs_without_better(rows: Sequence[Row], name: str) -> int:
    """How many epochs have ended since the best one."""
    return len(rows) - best(rows, name).epoch


def learning_rate(
    schedule: str, highest: float, step: int, steps: int, rows: Sequence[Row] = (), name: str = "loss"
) -> float:
    """The rate of training step ``step`` (from 0) of ``steps``, after the epochs ``rows``.

    Every schedule begins with a short linear warm-up from a tenth. ``constant`` then stays, ``cosine`` goes down to 0
    after the last step (Loshchilov and Hutter 2017, without restarts), ``plateau`` is halved after 5 epochs without a
    better one by the column ``name``, and again after the next 5.
    """
    warm_up = min(WARM_UP_STEPS, steps // 10)
    if step < warm_up:
        return highest * (0.1 + 0.9 * step / warm_up)
    if schedule == "cosine":
        return highest * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))
    if schedule == "plateau":
        lowered: float = highest * PLATEAU_FACTOR ** _plateaus(rows, name)
        return lowered
    return highest


def _plateaus(rows: Sequence[Row], name: str) -> int:
    """How often ``PLATEAU_EPOCHS`` in a row had nothing better."""
    plateaus = since = 0
    found = Best(name)
    for row in rows:
        better = _better(found, row)
        found, since = better, 0 if better is not found else since + 1
        if since == PLATEAU_EPOCHS:
            plateaus, since = plateaus + 1, 0
    return plateaus
