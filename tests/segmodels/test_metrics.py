"""Metrics against naive references, absent classes and ignored pixels included; under TensorFlow or JAX, as
KERAS_BACKEND says.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from segdata.errors import RecordError
from segmodels.metrics import (
    MatteTally,
    MeanIoU,
    SegmentationTally,
    boundary_counts,
    confusion_matrix,
    confusion_on_device,
    gradient_error,
    iou,
    mean_iou,
    pixel_accuracy,
    predicted_ids,
    probabilities,
    scores,
)
from segmodels.quiet import keras
from tests.segmodels import references

ops = keras.ops
NAN = float("nan")


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
    confusion, expected = confusion_matrix(truth, prediction, 5), references.iou(truth, prediction, 5)
    np.testing.assert_allclose(iou(confusion), expected, rtol=1e-12)
    assert mean_iou(confusion) == pytest.approx(np.nanmean(expected), nan_ok=True)
    right = (truth == prediction)[truth != 255]
    assert pixel_accuracy(confusion) == pytest.approx(right.mean() if right.size else NAN, nan_ok=True)
    logits = np.eye(5, dtype=np.float32)[prediction]
    np.testing.assert_array_equal(ops.convert_to_numpy(confusion_on_device(truth, logits, 5)), confusion)
    metric = MeanIoU(5)
    for t, p in zip(truth, logits, strict=True):
        metric.update_state(t[None], p[None])
    np.testing.assert_array_equal(metric.counts(), confusion)
    assert float(metric.result()) == pytest.approx(mean_iou(confusion), nan_ok=True)


def test_a_class_that_is_nowhere_is_said_to_be_absent() -> None:
    truth, prediction = np.array([0, 0, 2, 255]), np.array([0, 2, 2, 1])
    found = scores(confusion_matrix(truth, prediction, 3), ("a", "b", "c"), samples=1)
    assert found.iou == {"a": 0.5, "b": None, "c": 0.5}
    assert (found.absent, found.mean_iou, found.pixel_accuracy) == (("b",), 0.5, round(2 / 3, 6))
    nothing = scores(np.zeros((2, 2), np.int64), ("a", "b"), samples=0)
    assert (nothing.mean_iou, nothing.pixel_accuracy, nothing.absent) == (None, None, ("a", "b"))


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no int64 unless it is told so")
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
    with pytest.raises(RecordError, match="holds id 7"):
        SegmentationTally(2).add(np.array([[0, 7]]), np.array([[0, 1]]))


def test_the_metric_is_made_again_from_its_config() -> None:
    metric = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(MeanIoU(4)))
    assert metric.confusion.shape == (4, 4)


# ---- on the device ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["float32", "float16"])
def test_one_channel_is_the_person_s(type_: str) -> None:
    logits = ops.cast(np.array([[[[-1e4], [-2.0], [0.0], [1e-3], [3.0], [1e4]]]]), type_)
    assert ops.convert_to_numpy(predicted_ids(logits)).tolist() == [[[0, 0, 0, 1, 1, 1]]]
    found = ops.convert_to_numpy(probabilities(logits))
    expected = 1 / (1 + np.exp(-np.array([-500, -2, 0, 1e-3, 3, 500])))
    assert (found.dtype, found.shape) == (np.float32, (1, 1, 6, 2))
    np.testing.assert_allclose(found[0, 0, :, 1], expected, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(found[0, 0, :, 0], 1 - expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_class_is_the_most_probable_one(channels: int) -> None:
    _, logits = references.case("ids", channels)
    ids, found = ops.convert_to_numpy(predicted_ids(logits)), ops.convert_to_numpy(probabilities(logits))
    assert ids.dtype == np.uint8
    np.testing.assert_array_equal(ids, found.argmax(axis=-1))
    _, expected, _ = references.pixels(np.zeros(logits.shape[:3], np.uint8), logits)
    np.testing.assert_allclose(found.reshape(-1, max(channels, 2)), expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_batch_is_counted_on_the_device_as_in_numpy(channels: int) -> None:
    truth, logits = references.case("ids", channels)
    classes = max(channels, 2)
    found = confusion_on_device(truth, logits, classes)
    assert keras.backend.standardize_dtype(found.dtype) == "int32"
    prediction = logits.argmax(axis=-1) if channels > 1 else logits[..., 0] > 0
    np.testing.assert_array_equal(ops.convert_to_numpy(found), confusion_matrix(truth, prediction, classes))
    if channels == 1:
        metric = MeanIoU(2)
        metric.update_state(truth, logits)
        np.testing.assert_array_equal(metric.counts(), ops.convert_to_numpy(found))


def test_batches_are_counted_exactly_where_float32_cannot_count() -> None:
    truth, logits = np.zeros((1, 4200, 4200), np.uint8), np.zeros((1, 4200, 4200, 1), np.float32)
    assert ops.convert_to_numpy(confusion_on_device(truth, logits, 2)).tolist() == [[4200**2, 0], [0, 0]]  # > 2**24


def test_counting_is_compiled() -> None:
    truth, logits = references.case("ids", 5)
    if keras.backend.backend() == "jax":
        import jax

        count = jax.jit(lambda truth, logits: confusion_on_device(truth, logits, 5))
    else:
        import tensorflow as tf

        specs = [tf.TensorSpec((None, None, None), tf.uint8), tf.TensorSpec((None, None, None, 5), tf.float32)]
        count = tf.function(lambda truth, logits: confusion_on_device(truth, logits, 5), input_signature=specs)
    expected = confusion_matrix(truth, logits.argmax(axis=-1), 5)
    np.testing.assert_array_equal(ops.convert_to_numpy(count(truth, logits)), expected)


# ---- a split of masks ------------------------------------------------------------------------------------------------


def test_the_two_means_of_iou_are_told_apart() -> None:
    """A big photo that is right and a small one that is half wrong."""
    tally = SegmentationTally(3)
    big, small = np.ones((10, 10), np.uint8), np.ones((2, 2), np.uint8)
    big[:5], small[:, 0] = 0, 0
    assert tally.add(big, big) == 1
    assert tally.add(small, np.ones_like(small)) == 0.25  # person 2 of 4, background 0 of 2
    assert mean_iou(tally.confusion) == pytest.approx((50 / 52 + 52 / 54) / 2)
    np.testing.assert_allclose(tally.image_iou(), [(1 + 0) / 2, (1 + 0.5) / 2, NAN])
    assert tally.mean_image_iou() == 0.75, "without the background"
    assert tally.samples == 2


def test_a_photo_without_a_class_is_not_in_the_class_s_mean() -> None:
    tally = SegmentationTally(3)
    tally.add(np.array([[0, 1]]), np.array([[0, 1]]))
    tally.add(np.array([[0, 2]]), np.array([[0, 1]]))  # 1 is predicted, so it is there
    tally.add(np.array([[0, 255]]), np.array([[0, 2]]))  # 2 is predicted where nothing counts
    np.testing.assert_allclose(tally.image_iou(), [1, 0.5, 0])
    assert tally.mean_image_iou() == 0.25


def test_the_mean_over_images_is_person_segmentation_keras_s() -> None:
    """As its evaluation counts: per class but the first, over the photos that have it in truth or prediction."""
    truths, predictions = case("everything")
    tally = SegmentationTally(5)
    by_photo = [references.iou(t, p, 5) for t, p in zip(truths, predictions, strict=True)]
    own = [tally.add(t, p) for t, p in zip(truths, predictions, strict=True)]
    assert own == pytest.approx([float(np.nanmean(found)) for found in by_photo])
    assert tally.mean_image_iou() == pytest.approx(np.nanmean(np.nanmean(by_photo, axis=0)[1:]))
    np.testing.assert_array_equal(tally.confusion, confusion_matrix(truths, predictions, 5))


def test_a_split_without_a_pixel_that_counts_has_no_scores() -> None:
    tally = SegmentationTally(2)
    assert math.isnan(tally.add(np.full((3, 3), 255), np.ones((3, 3), np.uint8)))
    found = mean_iou(tally.confusion), tally.mean_image_iou(), tally.mean_boundary_iou()
    assert all(math.isnan(value) for value in found)


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_boundary_iou_equals_the_naive_reference(distance: int) -> None:
    y, x = np.mgrid[0:24, 0:30]
    truth = (np.hypot(y - 14, x - 10) < 9) + (np.hypot(y - 4, x - 24) < 8) * 2  # both are cut by the border
    prediction = np.roll(truth, (1, 2), axis=(0, 1))
    truth[:, 15:17] = 255
    found = boundary_counts(truth, prediction, 4, distance)
    for k in range(4):
        sides = [references.near_contour((ids == k) & (truth != 255), distance) for ids in (truth, prediction)]
        assert found[:, k].tolist() == [(sides[0] & sides[1]).sum(), (sides[0] | sides[1]).sum()]
    assert found[0, :3].all()
    assert not found[:, 3].any()


def test_the_distance_is_2_percent_of_the_diagonal() -> None:
    truth, prediction = np.zeros((300, 400), np.uint8), np.zeros((300, 400), np.uint8)
    truth[50:250, 50:350], prediction[60:250, 50:350] = 1, 1
    np.testing.assert_array_equal(boundary_counts(truth, prediction, 2), boundary_counts(truth, prediction, 2, 10))
    tiny = np.eye(4, dtype=np.uint8)
    np.testing.assert_array_equal(boundary_counts(tiny, tiny, 2), boundary_counts(tiny, tiny, 2, 1))


def test_bars_change_nothing_but_the_diagonal() -> None:
    y, x = np.mgrid[0:40, 0:30]
    truth, prediction = ((np.hypot(y - 30, x - c) < 14).astype(np.uint8) for c in (14, 17))
    beside = ((0, 0), (9, 12))
    padded = np.pad(truth, beside, constant_values=255), np.pad(prediction, beside, constant_values=1)
    np.testing.assert_array_equal(boundary_counts(*padded, 2, 3), boundary_counts(truth, prediction, 2, 3))


def test_boundary_iou_is_added_up_over_the_split() -> None:
    tally, total = SegmentationTally(3), np.zeros((2, 3))
    for shift, side in ((0, 30), (3, 50)):
        truth = np.zeros((side, side), np.uint8)
        truth[10:25, 10:25] = 1
        prediction = np.roll(truth, shift, axis=0)
        tally.add(truth, prediction)
        total += boundary_counts(truth, prediction, 3)
    np.testing.assert_allclose(tally.boundary_iou(), [*(total[0] / np.maximum(total[1], 1))[:2], NAN])
    assert tally.mean_boundary_iou() == pytest.approx(np.nanmean(tally.boundary_iou()))
    assert tally.boundary_iou()[1] < iou(tally.confusion)[1] < 1


# ---- a split of mattes -----------------------------------------------------------------------------------------------


def mattes(height: int, width: int) -> tuple[Any, Any]:
    dice = np.random.default_rng([height, width])
    return dice.random((height, width), np.float32), dice.random((height, width), np.float32)


def test_the_gradient_error_equals_the_naive_reference() -> None:
    truth, prediction = mattes(13, 17)
    assert gradient_error(truth, prediction) == pytest.approx(references.gradient_error(truth, prediction), rel=1e-9)


def test_the_gradient_error_of_a_step_is_known() -> None:
    """Along a straight edge of height 1 each row adds the squares of the bell's sums: worked out by hand."""
    truth, prediction = np.zeros((10, 30)), np.zeros((10, 30))
    prediction[:, 15:] = 1
    x = np.arange(-4, 5)
    bell, slope = np.exp(-(x**2) / 3.92), x * np.exp(-(x**2) / 3.92)
    scale = bell.sum() / math.sqrt((bell**2).sum() * (slope**2).sum())
    row = sum((slope[k:].sum() * scale) ** 2 for k in range(1, 9))
    assert gradient_error(truth, prediction) == pytest.approx(10 * row / 1000)
    assert gradient_error(prediction, prediction) == 0


def test_a_split_of_mattes() -> None:
    tally, parts = MatteTally(), [mattes(12, 9), mattes(20, 30)]
    own = [tally.add(*part) for part in parts]
    errors = [(p.astype(np.float64) - t).ravel() for t, p in parts]
    assert own == pytest.approx([np.abs(error).mean() for error in errors])
    assert tally.mae() == pytest.approx(np.abs(np.concatenate(errors)).mean())
    assert tally.mse() == pytest.approx(np.square(np.concatenate(errors)).mean())
    assert tally.gradient() == pytest.approx(np.mean([gradient_error(*part) for part in parts]))
    assert tally.samples == 2


def test_ignored_pixels_of_a_matte_do_not_count() -> None:
    """A matte in bars measures as it does without them, whatever is predicted there."""
    truth, prediction = mattes(12, 16)
    bars = ((5, 7), (0, 0))
    tally, alone = MatteTally(), MatteTally()
    tally.add(np.pad(truth, bars, constant_values=-1), np.pad(prediction, bars, constant_values=0.7))
    alone.add(truth, prediction)
    assert (tally.mae(), tally.mse()) == pytest.approx((alone.mae(), alone.mse()))
    assert tally.gradient() == pytest.approx(alone.gradient(), rel=1e-9)
    assert math.isnan(tally.add(np.full((4, 4), -1.0), np.ones((4, 4))))
    assert tally.gradient() == pytest.approx(alone.gradient(), rel=1e-9), "nothing was measured there"


def test_no_matte_no_scores() -> None:
    tally = MatteTally()
    assert all(math.isnan(value) for value in (tally.mae(), tally.mse(), tally.gradient()))
