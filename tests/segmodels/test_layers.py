"""Our layers against what Keras and TensorFlow have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmodels.checkpoints import load_model, save_model
from segmodels.layers import BilinearKernel, BilinearLike, BilinearUpsample, BinPooling, CaffeColors
from segmodels.quiet import keras

TRACED = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="only TensorFlow traces unknown sizes")
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


@TRACED
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


@TRACED
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


# ---- BilinearLike, BinPooling, CaffeColors, BilinearKernel -----------------------------------------------------------


RESIZED = (((1, 1), (4, 3)), ((5, 3), (20, 12)), ((4, 6), (9, 6)), ((8, 8), (3, 5)))  # from, to


@pytest.mark.parametrize(("old", "new"), RESIZED)
def test_bilinear_like_equals_tensorflows_resize(old: tuple[int, int], new: tuple[int, int]) -> None:
    import tensorflow as tf

    x, like = picture((2, *old, 3)), picture((2, *new, 1))
    np.testing.assert_allclose(BilinearLike()([x, like]), tf.image.resize(x, new, "bilinear"), rtol=1e-5, atol=1e-3)


@TRACED
@pytest.mark.parametrize(("old", "new"), RESIZED)
def test_it_does_too_where_sizes_are_unknown(old: tuple[int, int], new: tuple[int, int]) -> None:
    import tensorflow as tf

    x, like = picture((2, *old, 3)), picture((2, *new, 1))
    layer = BilinearLike()
    signature = [tf.TensorSpec((None, None, None, channels)) for channels in (3, 1)]
    found = tf.function(lambda *both: layer(list(both)), input_signature=signature)(x, like)
    np.testing.assert_allclose(found, tf.image.resize(x, new, "bilinear"), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("size", "bins"), [((12, 6), 1), ((12, 6), 2), ((12, 6), 3), ((12, 6), 6)])
def test_bin_pooling_is_average_pooling_where_parts_are_whole_pixels(size: tuple[int, int], bins: int) -> None:
    x = picture((2, *size, 3))
    window = (size[0] // bins, size[1] // bins)
    np.testing.assert_allclose(BinPooling(bins)(x), keras.layers.AveragePooling2D(window)(x), rtol=1e-4)


def test_bin_pooling_shares_out_pixels_by_area() -> None:
    x = np.array([1.0, 2.0, 4.0], np.float32).reshape(1, 1, 3, 1)
    np.testing.assert_allclose(BinPooling(2)(x)[0, 0, :, 0], [(1 + 2 / 2) / 1.5, (2 / 2 + 4) / 1.5], rtol=1e-6)
    np.testing.assert_allclose(BinPooling(6)(x)[0, 5, :, 0], [1, 1, 2, 2, 4, 4], rtol=1e-6)


def test_the_resizing_layers_are_saved_and_take_several_sizes(tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, BilinearLike()([BinPooling(3)(inputs), inputs]))
    save_model(model, tmp_path / "model.keras")
    for each in (model, load_model(tmp_path / "model.keras")):
        for shape in ((1, 4, 6, 2), (3, 7, 5, 2)):
            found = each.predict(picture(shape), verbose=0)
            assert found.shape == shape
            np.testing.assert_allclose(found.mean((1, 2)), picture(shape).mean((1, 2)), rtol=0.2)


@pytest.mark.parametrize("layer", [BilinearLike(dtype="float16"), BinPooling(2, dtype="float16")])
def test_they_compute_in_half_precision(layer: Any) -> None:
    x = picture((1, 4, 4, 1)).astype(np.float16)
    found = layer([x, x]) if isinstance(layer, BilinearLike) else layer(x)
    assert keras.backend.standardize_dtype(found.dtype) == "float16"


def test_caffe_colors_are_those_of_keras() -> None:
    x = np.random.default_rng(0).uniform(0, 255, (2, 3, 4, 3)).astype(np.float32)
    expected = keras.applications.imagenet_utils.preprocess_input(x.copy(), mode="caffe")
    np.testing.assert_allclose(CaffeColors()(x), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("times", [2, 4, 8])
def test_the_bilinear_kernel_enlarges_each_channel_by_itself(times: int) -> None:
    layer = keras.layers.Conv2DTranspose(
        3, 2 * times, times, padding="same", use_bias=False, kernel_initializer=BilinearKernel()
    )
    x = picture((1, 6, 5, 3))
    found, border = np.asarray(layer(x)), times  # at the border it lacks neighbours
    expected = np.asarray(keras.ops.image.resize(x, (6 * times, 5 * times), "bilinear"))
    inner = (slice(None), slice(border, -border), slice(border, -border))
    np.testing.assert_allclose(found[inner], expected[inner], rtol=1e-4, atol=1e-3)
