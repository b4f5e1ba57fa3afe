"""Metrics, all from one confusion matrix in whole numbers. Pixels of the ignore index do not count.

A confusion matrix is (C, C): rows are the truth, columns the prediction, entries numbers of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import RecordError
from segdata.labels import IGNORE_INDEX
from segmodels.config import Scores
from segmodels.quiet import keras

ops = keras.ops
Counts = npt.NDArray[np.int64]
Ids = npt.NDArray[np.integer[Any]]


def confusion_matrix(truth: Ids, prediction: Ids, classes: int) -> Counts:
    """(classes, classes) int64, from ids in two arrays of one shape. RecordError for a true id beyond the classes."""
    counts = truth != IGNORE_INDEX
    true, predicted = truth[counts].astype(np.int64), prediction[counts].astype(np.int64)
    if true.size and true.max() >= classes:
        raise RecordError(f"a mask holds id {true.max()}, expected 0 to {classes - 1}, or 255. Run `segdata verify`.")
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def iou(confusion: Counts) -> npt.NDArray[np.float64]:
    """(C,) intersection over union by class; NaN for a class in neither truth nor prediction."""
    hits = np.diagonal(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    shares: npt.NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
    return shares


def mean_iou(confusion: Counts) -> float:
    """The mean over the classes that are there; NaN where none is."""
    found = iou(confusion)
    return float(found[~np.isnan(found)].mean()) if not np.isnan(found).all() else float("nan")


def pixel_accuracy(confusion: Counts) -> float:
    """The share of pixels whose class is right; NaN where no pixel counts."""
    pixels = confusion.sum()
    return float(np.diagonal(confusion).sum() / pixels) if pixels else float("nan")


def scores(confusion: Counts, names: Sequence[str], samples: int) -> Scores:
    """All of the above with class names, rounded; NaN becomes None."""
    by_class = dict(zip(names, map(_rounded, iou(confusion)), strict=True))
    return Scores(
        mean_iou=_rounded(mean_iou(confusion)),
        iou=by_class,
        pixel_accuracy=_rounded(pixel_accuracy(confusion)),
        samples=samples,
        absent=tuple(name for name, value in by_class.items() if value is None),
    )


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)


@keras.saving.register_keras_serializable(package="segmodels")
class MeanIoU(keras.metrics.Metric):  # type: ignore[misc]
    """The mean IoU of class ids (B, H, W) and logits (B, H, W, C) over all batches since the last reset.

    ``counts()`` is the confusion matrix behind it, for ``scores``.
    """

    def __init__(self, classes: int, name: str = "mean_iou", **keywords: Any) -> None:
        super().__init__(name=name, **keywords)
        self.classes = classes
        self.confusion = self.add_variable((classes, classes), "zeros", dtype="int64", name="confusion")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch. Weights are not used: every pixel counts once."""
        truth = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        predicted = ops.reshape(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), (-1,))
        cells = self.classes * self.classes  # one more bin, cut off below, takes the pixels that do not count
        bins = ops.where(ops.equal(truth, IGNORE_INDEX), cells, truth * self.classes + predicted)
        counts = ops.bincount(bins, minlength=cells + 1)[:cells]
        self.confusion.assign_add(ops.cast(ops.reshape(counts, (self.classes, self.classes)), "int64"))

    def result(self) -> Any:
        """A scalar; NaN where no pixel counted."""
        confusion = ops.cast(self.confusion, "float32")
        hits = ops.diagonal(confusion)
        union = ops.sum(confusion, axis=0) + ops.sum(confusion, axis=1) - hits
        there = ops.cast(union > 0, "float32")
        return ops.sum(hits / ops.maximum(union, 1.0)) / ops.sum(there)

    def counts(self) -> Counts:
        """(C, C) int64 since the last reset."""
        found: Counts = np.asarray(ops.convert_to_numpy(ops.copy(self.confusion)))
        return found

    def get_config(self) -> dict[str, Any]:
        """What the metric is made again from."""
        return {**super().get_config(), "classes": self.classes}
