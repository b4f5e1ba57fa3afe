"""Metrics. Pixels of the ignore index, and those of a matte below 0, do not count.

Those of masks come from confusion matrices in whole numbers. One is (C, C): rows are the truth, columns the prediction,
entries numbers of pixels. ``mean_iou`` and ``mean_image_iou`` are two numbers: the first is over all pixels of a split
taken as one picture, the second over the pictures' own IoU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import RecordError
from segdata.labels import IGNORE_INDEX
from segmodels.boundaries import boundary_region, fill_from_nearest
from segmodels.config import Scores
from segmodels.quiet import keras

ops = keras.ops
Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.integer[Any]]

BOUNDARY_SHARE = 0.02  # of the picture's diagonal: Cheng et al. 2021, section 5
GRADIENT_SIGMA_PX = 1.4  # Rhemann et al. 2009


def confusion_matrix(truth: Ids, prediction: Ids, classes: int) -> Counts:
    """(classes, classes) int64, from ids in two arrays of one shape. RecordError for a true id beyond the classes."""
    counts = truth != IGNORE_INDEX
    true, predicted = truth[counts].astype(np.int64), prediction[counts].astype(np.int64)
    if true.size and true.max() >= classes:
        raise RecordError(f"a mask holds id {true.max()}, expected 0 to {classes - 1}, or 255. Run `segdata verify`.")
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def iou(confusion: Counts) -> Floats:
    """(C,) intersection over union by class; NaN for a class in neither truth nor prediction."""
    hits = np.diagonal(confusion)
    return _shares(hits, confusion.sum(axis=0) + confusion.sum(axis=1) - hits)


def mean_iou(confusion: Counts) -> float:
    """The mean over the classes that are there; NaN where none is."""
    return _mean(iou(confusion))


def pixel_accuracy(confusion: Counts) -> float:
    """The share of pixels whose class is right; NaN where no pixel counts."""
    pixels = confusion.sum()
    return float(np.diagonal(confusion).sum() / pixels) if pixels else float("nan")


def scores(confusion: Counts, names: Sequence[str], samples: int) -> Scores:
    """All of the above with class names, rounded; NaN becomes None."""
    by_class = dict(zip(names, map(rounded, iou(confusion)), strict=True))
    return Scores(
        mean_iou=rounded(mean_iou(confusion)),
        iou=by_class,
        pixel_accuracy=rounded(pixel_accuracy(confusion)),
        samples=samples,
        absent=tuple(name for name, value in by_class.items() if value is None),
    )


def rounded(value: float) -> float | None:
    """As metrics.json has it: 6 digits, and None for NaN."""
    return None if np.isnan(value) else round(float(value), 6)


def _shares(parts: npt.NDArray[Any], wholes: npt.NDArray[Any]) -> Floats:
    """NaN where the whole is 0."""
    shares: Floats = np.divide(parts, wholes, out=np.full(len(parts), np.nan), where=wholes > 0)
    return shares


def _mean(values: Floats) -> float:
    """Over those that are numbers; NaN where none is. (nanmean warns of that.)"""
    found = values[~np.isnan(values)]
    return float(found.mean()) if found.size else float("nan")


# ---- a whole split, picture by picture -------------------------------------------------------------------------------


class SegmentationTally:
    """Masks of a split and what was predicted for them, added up picture by picture; pictures may differ in size."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.samples = 0
        self.confusion: Counts = np.zeros((classes, classes), np.int64)
        self._image_iou = np.zeros((2, classes))  # the sum over the samples that have the class, and their number
        self._boundary: Counts = np.zeros((2, classes), np.int64)  # intersections, unions

    def add(self, truth: Ids, prediction: Ids) -> float:
        """Count a sample, (H, W) ids each, and give its own mean IoU: NaN where none of its pixels counts.

        RecordError for a true id beyond the classes.
        """
        confusion = confusion_matrix(truth, prediction, self.classes)
        found = iou(confusion)
        self.confusion += confusion
        self._image_iou += np.nan_to_num(found), ~np.isnan(found)
        self._boundary += boundary_counts(truth, prediction, self.classes)
        self.samples += 1
        return _mean(found)

    def image_iou(self) -> Floats:
        """(C,) the mean IoU of a class over the samples that have it in truth or prediction; NaN where none has."""
        return _shares(*self._image_iou)

    def mean_image_iou(self) -> float:
        """The mean of ``image_iou`` over the classes but the first, the background: NaN where none is there.

        This is how Person-Segmentation-Keras comes to its mIoU (eval_segmentation.py, at 256x256, where its letterbox
        bars count as background), so that 0.8918 for persons there is the IoU of the person alone.
        """
        return _mean(self.image_iou()[1:])

    def boundary_iou(self) -> Floats:
        """(C,) the intersections of all samples over their unions; NaN for a class in neither truth nor prediction."""
        return _shares(*self._boundary)

    def mean_boundary_iou(self) -> float:
        """The mean over the classes that are there, as ``mean_iou``; NaN where none is."""
        return _mean(self.boundary_iou())


def boundary_counts(truth: Ids, prediction: Ids, classes: int, distance_px: int | None = None) -> Counts:
    """(2, classes): pixels in the intersection and in the union of the two boundary regions of each class.

    Boundary IoU (Cheng et al. 2021, equation 2) of one sample or, summed up, of many. The distance is 2 % of the
    picture's diagonal, at least 1 px. An ignored area is left out as what lies outside the picture is: its border is a
    contour of truth and prediction alike.
    """
    if distance_px is None:
        distance_px = max(1, round(BOUNDARY_SHARE * math.hypot(*truth.shape)))
    counted = truth != IGNORE_INDEX
    found = np.zeros((2, classes), np.int64)
    for k in range(classes):
        true, predicted = counted & (truth == k), counted & (prediction == k)
        either = true | predicted
        rows, columns = either.any(axis=1).nonzero()[0], either.any(axis=0).nonzero()[0]
        if rows.size:  # a class of many is nowhere in most pictures, and small in others
            box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            first, second = (boundary_region(mask[box], distance_px) for mask in (true, predicted))
            found[:, k] = (first & second).sum(), (first | second).sum()
    return found


class MatteTally:
    """Mattes of a split and what was predicted for them, added up picture by picture; pictures may differ in size."""

    def __init__(self) -> None:
        self.samples = 0
        self._pixels = self._absolute = self._squared = 0.0
        self._gradient: list[float] = []

    def add(self, truth: npt.NDArray[np.floating[Any]], prediction: npt.NDArray[np.floating[Any]]) -> float:
        """Count a sample, (H, W) alphas in [0, 1], and give its own MAE: NaN where none of its pixels counts.

        A pixel where ``truth`` is below 0 does not count.
        """
        counts = truth >= 0
        error = (prediction[counts].astype(np.float64) - truth[counts]).ravel()
        self.samples += 1
        if not error.size:
            return float("nan")
        self._pixels += error.size
        self._absolute += float(np.abs(error).sum())
        self._squared += float(error @ error)
        self._gradient.append(gradient_error(truth, prediction))
        return float(np.abs(error).mean())

    def mae(self) -> float:
        """The mean absolute error over all pixels of the split; NaN where none counts."""
        return self._absolute / self._pixels if self._pixels else float("nan")

    def mse(self) -> float:
        """The mean squared error over all pixels of the split; NaN where none counts."""
        return self._squared / self._pixels if self._pixels else float("nan")

    def gradient(self) -> float:
        """The mean of ``gradient_error`` over the samples that have a pixel that counts; NaN where none has."""
        return _mean(np.array(self._gradient))


def gradient_error(truth: npt.NDArray[np.floating[Any]], prediction: npt.NDArray[np.floating[Any]]) -> float:
    """The sum over pixels of (|grad prediction| - |grad truth|)^2, divided by 1000, of alphas in [0, 1] (H, W).

    Rhemann et al. 2009 with q = 2. Gradients are convolutions with derivatives of a Gaussian of 1.4 px. Their size,
    9x9, their scale, where squares sum to 1, and the repeated border are those of the code that papers report by
    (gaussgradient in the evaluation code of Deep Image Matting, Xu et al. 2017). A pixel where truth is below 0 does
    not count: it is given what the nearest pixel has that does, in truth and prediction, as pixels outside the picture
    are.
    """
    ignored = truth < 0
    steps = [_steepness(fill_from_nearest(alpha.astype(np.float64), ignored)) for alpha in (truth, prediction)]
    return float(np.square(steps[1] - steps[0])[~ignored].sum() / 1000)


def _steepness(alpha: Floats) -> Floats:
    """The length of the gradient."""
    import cv2

    # Where the Gaussian itself, not the weight in the window, falls below 0.01.
    radius_px = math.ceil(
        GRADIENT_SIGMA_PX * math.sqrt(-2 * math.log(math.sqrt(2 * math.pi) * GRADIENT_SIGMA_PX * 0.01))
    )
    x = np.arange(-radius_px, radius_px + 1)
    bell = np.exp(-(x**2) / (2 * GRADIENT_SIGMA_PX**2))
    slope = -x * bell
    bell, slope = bell / np.linalg.norm(bell), slope / np.linalg.norm(slope)
    along_x = cv2.sepFilter2D(alpha, cv2.CV_64F, slope, bell, borderType=cv2.BORDER_REPLICATE)
    along_y = cv2.sepFilter2D(alpha, cv2.CV_64F, bell, slope, borderType=cv2.BORDER_REPLICATE)
    return np.hypot(along_x, along_y)


# ---- on the device ---------------------------------------------------------------------------------------------------


def probabilities(logits: Any) -> Any:
    """(B, H, W, classes) float32 of logits (B, H, W, C); for C = 1, the person's channel, (1 - p, p)."""
    logits = ops.cast(logits, "float32")
    if logits.shape[-1] == 1:  # the softmax of (0, logit), which int8 keeps in steps of 1/256 too
        logits = ops.pad(logits, [(0, 0), (0, 0), (0, 0), (1, 0)])
    return ops.softmax(logits, axis=-1)


def with_probabilities(model: Any, size: tuple[int, int], channels: int) -> Any:
    """A network that gives ``probabilities`` alone of pictures (B, height, width, channels) of one ``size``.

    Known sizes let upsampling run as the backend's own, which is twice as fast on a CPU.
    """
    image = keras.Input((*size, channels), name="image")
    outputs = model(image, training=False)
    logits = outputs["mask"] if isinstance(outputs, dict) else outputs
    return keras.Model(image, probabilities(logits), name=model.name)


def predicted_ids(logits: Any) -> Any:
    """(B, H, W) uint8: the class of the highest logit, the first of equals; for C = 1 the person where it is above 0.

    There are at most 255 classes.
    """
    if logits.shape[-1] == 1:
        return ops.cast(logits[..., 0] > 0, "uint8")
    return ops.cast(ops.argmax(logits, axis=-1), "uint8")


def confusion_on_device(truth: Any, logits: Any, classes: int) -> Any:
    """(classes, classes) int32, exact, of ids (B, H, W) and logits (B, H, W, C), C = classes, or 1 for two classes.

    A true id beyond the classes does not count, nor does 255; ``confusion_matrix`` tells them apart.
    """
    truth, predicted = (ops.reshape(ops.cast(ids, "int32"), (-1,)) for ids in (truth, predicted_ids(logits)))
    cells = classes * classes  # one more takes the pixels that do not count
    cell = ops.where(truth < classes, truth * classes + predicted, cells)
    # Not bincount: under JAX its length is unknown while tracing.
    counts = ops.segment_sum(ops.ones_like(cell), cell, num_segments=cells + 1)[:cells]
    return ops.reshape(counts, (classes, classes))


@keras.saving.register_keras_serializable(package="segmodels")
class MeanIoU(keras.metrics.Metric):  # type: ignore[misc]
    """The mean IoU of class ids (B, H, W) and logits (B, H, W, C) over all batches since the last reset.

    ``counts()`` is the confusion matrix behind it, for ``scores``. Under JAX, which has no int64 unless told so, an
    entry holds up to 2**31 - 1 pixels.
    """

    def __init__(self, classes: int, name: str = "mean_iou", **keywords: Any) -> None:
        super().__init__(name=name, **keywords)
        self.classes = classes
        dtype = "int32" if keras.backend.backend() == "jax" else "int64"
        self.confusion = self.add_variable((classes, classes), "zeros", dtype=dtype, name="confusion")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch. Weights are not used: every pixel counts once."""
        self.confusion.assign_add(ops.cast(confusion_on_device(y_true, y_pred, self.classes), self.confusion.dtype))

    def result(self) -> Any:
        """A scalar; NaN where no pixel counted."""
        confusion = ops.cast(self.confusion, "float32")
        hits = ops.diagonal(confusion)
        union = ops.sum(confusion, axis=0) + ops.sum(confusion, axis=1) - hits
        there = ops.cast(union > 0, "float32")
        return ops.sum(hits / ops.maximum(union, 1.0)) / ops.sum(there)

    def counts(self) -> Counts:
        """(C, C) int64 since the last reset."""
        found: Counts = np.asarray(ops.convert_to_numpy(ops.copy(self.confusion))).astype(np.int64)
        return found

    def get_config(self) -> dict[str, Any]:
        """What the metric is made again from."""
        return {**super().get_config(), "classes": self.classes}
