"""How near an exported network comes to the run's own: the same pictures through both."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segmodels.export_samples import Picture, Seen
from segmodels.inputs import to_grey
from segmodels.metrics import confusion_matrix, iou
from segmodels.runtimes import Runtime, Shares

_WARM_UP, _TIMED = 3, 21


@dataclass(frozen=True)
class Parity:
    """``iou`` by class id, NaN for a class in neither; the differences are between probabilities."""

    iou: tuple[float, ...]
    max_abs_difference: float
    mean_abs_difference: float

    @property
    def mean_iou(self) -> float:
        """Over the classes that are there."""
        return float(np.nanmean(self.iou))


def compare(own: Runtime, exported: Runtime, samples: Iterable[Seen], channels: tuple[int, int], target: str) -> Parity:
    """Two networks, one picture at a time; ``channels`` is how many each takes. The bars of a letterbox do not count.

    Ids are those of the highest probability, the first of equals; for the target ``matte`` 1 where alpha is 0.5 or
    more.
    """
    confusion, largest, total, values = np.zeros((0, 0), np.int64), 0.0, 0.0, 0
    for sample in samples:
        x, y, w, h = sample.box
        first, second = (
            runtime(with_channels(sample.picture, wanted)[None])[0, y : y + h, x : x + w]
            for runtime, wanted in zip((own, exported), channels, strict=True)
        )
        found = confusion_matrix(_ids(first, target), _ids(second, target), first.shape[-1])
        confusion = found if not len(confusion) else confusion + found
        difference = np.abs(first - second)
        largest = max(largest, float(difference.max()))
        total, values = total + float(difference.sum(dtype=np.float64)), values + difference.size
    return Parity(tuple(iou(confusion).tolist()), largest, total / values)


def _ids(shares: Shares, target: str) -> npt.NDArray[np.integer[Any]]:
    found = shares[..., 1] >= 0.5 if target == "matte" else shares.argmax(axis=-1)
    return found.astype(np.int64)


def with_channels(picture: Picture, channels: int) -> Picture:
    """(h, w, 1 or 3) to what a network takes: grey as ``to_grey`` makes it; of RGBA the alpha, which is not looked at,
    is any: red again.
    """
    if channels == 1 and picture.shape[2] == 3:
        return to_grey(picture)
    return np.concatenate([picture, picture[:, :, :1]], axis=2) if channels == 4 else picture


def median_latency_ms(runtime: Runtime, picture: Picture) -> float:
    """Of one picture at a time, after a few that do not count."""
    times = []
    for _ in range(_WARM_UP + _TIMED):
        start = time.perf_counter()
        runtime(picture[None])
        times.append(time.perf_counter() - start)
    return float(np.median(times[_WARM_UP:]) * 1000)
