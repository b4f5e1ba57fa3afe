"""BilinearUpsample against TensorFlow's own resize."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmodels.checkpoints import load_model, save_model
from segmodels.layers import BilinearUpsample
from segmodels.quiet import keras

SHAPES = ((1, 1, 1, 1), (2, 1, 5, 3), (1, 8, 6, 2), (2, 16, 16, 8))


def picture(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(1).uniform(-3, 300, shape).astype(np.float32)


def resized(x: Any) -> Any:
    import tensorflow as tf

    return tf.image.resize(x, (2 * x.shape[1], 2 * x.shape[2]), "bilinear")


@pytest.mark.parametrize("shape", SHAPES)
def test_it_equals_tensorflows_resize(shape: tuple[int, ...]) -> None:
    x = picture(shape)
    np.testing.assert_allclose(BilinearUpsample()(x), resized(x), rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_does_where_sizes_are_unknown_forwards_and_backwards(shape: tuple[int, ...]) -> None:
    import tensorflow as tf

    layer, x = BilinearUpsample(), picture(shape)
    weights = picture((shape[0], 2 * shape[1], 2 * shape[2], shape[3]))

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, shape[3]))])  # type: ignore[untyped-decorator]
    def ours(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y * weights)
        return y, tape.gradient(loss, x)

    with tf.GradientTape() as tape:
        theirs_in = tf.constant(x)
        tape.watch(theirs_in)
        theirs = resized(theirs_in)
        loss = tf.reduce_sum(theirs * weights)
    found, gradient = ours(tf.constant(x))
    np.testing.assert_allclose(found, theirs, rtol=1e-6)
    np.testing.assert_allclose(gradient, tape.gradient(loss, theirs_in), rtol=1e-4, atol=1e-2)


def test_one_model_takes_two_shapes_where_keras_own_does_not(tmp_path: Path) -> None:
    def model(layer: Any) -> Any:
        inputs = keras.Input((None, None, 2))
        return keras.Model(inputs, layer(inputs))

    ours = model(BilinearUpsample(name="enlarge"))
    save_model(ours, tmp_path / "ours.keras")
    for each in (ours, load_model(tmp_path / "ours.keras")):
        for shape in ((1, 4, 6, 2), (3, 7, 5, 2)):
            np.testing.assert_allclose(each.predict(picture(shape), verbose=0), resized(picture(shape)), rtol=1e-6)
    theirs = model(keras.layers.UpSampling2D(interpolation="bilinear"))
    theirs.predict(picture((1, 4, 6, 2)), verbose=0)
    with pytest.raises(Exception, match="symbolic"):  # the day this passes, our layer has done its work
        theirs.predict(picture((3, 7, 5, 2)), verbose=0)


def test_shapes_and_types_are_kept() -> None:
    assert BilinearUpsample().compute_output_shape((None, None, 4, 3)) == (None, None, 8, 3)
    half = BilinearUpsample(dtype="float16")(picture((1, 4, 4, 1)).astype(np.float16))
    assert keras.backend.standardize_dtype(half.dtype) == "float16"
