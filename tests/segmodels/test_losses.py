"""The loss against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from segmodels.losses import SparseCrossEntropy
from segmodels.quiet import keras


def example(classes: int = 3, ignored: float = 0.3) -> tuple[Any, Any]:
    """Ids (2, 5, 4) with a share of 255, and logits."""
    dice = np.random.default_rng(classes)
    ids = dice.integers(0, classes, (2, 5, 4)).astype(np.uint8)
    ids[dice.random(ids.shape) < ignored] = 255
    return ids, dice.normal(0, 4, (*ids.shape, classes)).astype(np.float32)


def reference(ids: Any, logits: Any) -> float:
    logits = logits.astype(np.float64)
    each = np.log(np.exp(logits).sum(axis=-1)) - np.take_along_axis(logits, np.minimum(ids, 2)[..., None], -1)[..., 0]
    return float(each[ids != 255].mean())


@pytest.mark.parametrize("ignored", [0, 0.3, 0.9])
def test_it_is_the_mean_over_the_pixels_that_count(ignored: float) -> None:
    ids, logits = example(ignored=ignored)
    assert float(SparseCrossEntropy()(ids, logits)) == pytest.approx(reference(ids, logits), rel=1e-5)


def test_what_is_predicted_at_ignored_pixels_does_not_matter_nor_gets_a_gradient() -> None:
    import tensorflow as tf

    ids, logits = example()
    wild = np.where((ids == 255)[..., None], 1e4, logits)
    assert float(SparseCrossEntropy()(ids, wild)) == pytest.approx(float(SparseCrossEntropy()(ids, logits)))
    x = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = SparseCrossEntropy()(ids, x)
    gradient = tape.gradient(loss, x).numpy()
    assert not gradient[ids == 255].any()
    assert gradient[ids != 255].all()


def test_a_batch_of_ignored_pixels_costs_nothing_and_is_a_number() -> None:
    import tensorflow as tf

    ids, logits = np.full((1, 4, 4), 255, np.uint8), tf.zeros((1, 4, 4, 2))
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = SparseCrossEntropy()(ids, logits)
    assert float(loss) == 0
    assert not tape.gradient(loss, logits).numpy().any()


def test_half_precision_logits_are_summed_in_single_precision() -> None:
    ids, logits = np.zeros((1, 512, 512), np.uint8), np.zeros((1, 512, 512, 2), np.float16)
    loss = SparseCrossEntropy()(ids, logits)  # a sum of 262,144 * 0.69 is beyond float16's 65,504
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"
    assert float(loss) == pytest.approx(np.log(2), rel=1e-5)


def test_it_is_made_again_from_its_config() -> None:
    loss = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(SparseCrossEntropy()))
    assert isinstance(loss, SparseCrossEntropy)
