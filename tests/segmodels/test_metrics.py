"""IoU against a naive reference, absent classes included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segdata.errors import RecordError
from segmodels.metrics import MeanIoU, confusion_matrix, iou, mean_iou, pixel_accuracy, scores
from segmodels.quiet import keras


def naive(truth: Any, prediction: Any, classes: int) -> list[float]:
    """IoU by class, pixel by pixel; NaN where the class is in neither."""
    found = []
    for k in range(classes):
        pairs = [(t == k, p == k) for t, p in zip(truth.flat, prediction.flat, strict=True) if t != 255]
        both, either = sum(t and p for t, p in pairs), sum(t or p for t, p in pairs)
        found.append(both / either if either else float("nan"))
    return found


def case(name: str) -> tuple[Any, Any]:
    dice = np.random.default_rng(5)
    truth, prediction = dice.integers(0, 5, (2, 3, 8, 7)).astype(np.uint8)
    truth[dice.random(truth.shape) < 0.2] = 255
    if "no 3" in name:
        truth[truth == 3] = prediction[prediction == 3] = 1
    if "3 only predicted" in name:
        truth[truth == 3] = 2
    if "3 only in ignored pixels" in name:
        truth[truth == 3], prediction[truth != 255] = 2, 2
    if "all ignored" in name:
        truth[:] = 255
    return truth, prediction


CASES = ["everything", "no 3", "3 only predicted", "3 only in ignored pixels", "all ignored"]


@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.parametrize("name", CASES)
def test_iou_equals_the_naive_reference(name: str) -> None:
    truth, prediction = case(name)
    confusion, expected = confusion_matrix(truth, prediction, 5), naive(truth, prediction, 5)
    np.testing.assert_allclose(iou(confusion), expected, rtol=1e-12)
    assert mean_iou(confusion) == pytest.approx(np.nanmean(expected), nan_ok=True)
    right = (truth == prediction)[truth != 255]
    assert pixel_accuracy(confusion) == pytest.approx(right.mean() if right.size else float("nan"), nan_ok=True)
    metric = MeanIoU(5)
    for t, p in zip(truth, prediction, strict=True):
        metric.update_state(t[None], np.eye(5, dtype=np.float32)[p][None])
    np.testing.assert_array_equal(metric.counts(), confusion)
    assert float(metric.result()) == pytest.approx(mean_iou(confusion), nan_ok=True)


def test_a_class_that_is_nowhere_is_said_to_be_absent() -> None:
    truth, prediction = np.array([0, 0, 2, 255]), np.array([0, 2, 2, 1])
    found = scores(confusion_matrix(truth, prediction, 3), ("a", "b", "c"), samples=1)
    assert found.iou == {"a": 0.5, "b": None, "c": 0.5}
    assert (found.absent, found.mean_iou, found.pixel_accuracy) == (("b",), 0.5, round(2 / 3, 6))
    nothing = scores(np.zeros((2, 2), np.int64), ("a", "b"), samples=0)
    assert (nothing.mean_iou, nothing.pixel_accuracy, nothing.absent) == (None, None, ("a", "b"))


def test_counts_are_exact_where_float32_is_not() -> None:
    metric = MeanIoU(2)
    metric.confusion.assign(np.array([[2**40, 0], [0, 2**24]]))
    metric.update_state(np.zeros((1, 1, 1)), np.array([[[[1.0, 0.0]]]], np.float32))
    metric.update_state(np.ones((1, 1, 1)), np.array([[[[0.0, 1.0]]]], np.float32))
    assert metric.counts().tolist() == [[2**40 + 1, 0], [0, 2**24 + 1]]
    metric.reset_state()
    assert not metric.counts().any()


def test_an_id_beyond_the_classes_is_refused() -> None:
    with pytest.raises(RecordError, match="holds id 7, expected 0 to 1"):
        confusion_matrix(np.array([0, 7]), np.array([0, 1]), 2)


def test_the_metric_is_made_again_from_its_config() -> None:
    metric = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(MeanIoU(4)))
    assert metric.confusion.shape == (4, 4)
