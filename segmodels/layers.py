"""Layers that Keras lacks, or that it has with a trap."""

from __future__ import annotations

from typing import Any

from segmodels.quiet import keras

ops = keras.ops

# Of Keras's 0.99 (MobileNetV2: 0.999) small data sees too few steps: after 100 of them a third of the moving average is
# still what it began with, and validation, which uses it, measures another network than the one in training.
BATCH_NORM_MOMENTUM = 0.9

_registered = keras.saving.register_keras_serializable(package="segmodels")


@_registered
class BilinearUpsample(keras.layers.Layer):  # type: ignore[misc]
    """(B, H, W, C) to (B, 2H, 2W, C): bilinear, half-pixel centres, edges repeated, as ``tf.image.resize`` does it.

    ``UpSampling2D(interpolation="bilinear")`` built with H, W = None works for one shape only; this one for any.
    """

    def call(self, inputs: Any) -> Any:
        """The enlarged pictures, of the inputs' type."""
        height, width = inputs.shape[1:3]
        if height is None or width is None:
            return _doubled(_doubled(inputs, 1), 2)
        # The backend's own needs numbers for the size. On a CPU, forwards and backwards, it is twice as fast.
        return ops.image.resize(inputs, (2 * height, 2 * width), "bilinear", data_format="channels_last")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """None stays None."""
        batch, height, width, channels = input_shape
        return batch, height and 2 * height, width and 2 * width, channels


def _doubled(x: Any, axis: int) -> Any:
    """Twice as long along ``axis`` (1 or 2): each new pixel is 3/4 of the one it lies in, 1/4 of its neighbour."""
    first, last = (x[:, :1], x[:, -1:]) if axis == 1 else (x[:, :, :1], x[:, :, -1:])
    rest, start = (x[:, 1:], x[:, :-1]) if axis == 1 else (x[:, :, 1:], x[:, :, :-1])
    before, after = ops.concatenate([first, start], axis), ops.concatenate([rest, last], axis)
    pairs = ops.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
    shape = list(ops.shape(x))
    shape[axis] *= 2
    return ops.reshape(pairs, shape)


@_registered
class BilinearLike(keras.layers.Layer):  # type: ignore[misc]
    """[(B, h, w, C), (B, H, W, any)] to (B, H, W, C): the first, bilinear, at the size of the second.

    Half-pixel centres, edges repeated, as ``tf.image.resize`` does it; the sizes may differ from call to call.
    """

    def call(self, inputs: Any) -> Any:
        """The resized pictures, of the inputs' type."""
        x, like = inputs
        size = like.shape[1:3]
        if None not in (*size, *x.shape[1:3]):
            return ops.image.resize(x, size, "bilinear", data_format="channels_last")
        height, width = ops.shape(like)[1:3]
        return _stretched(_stretched(x, 1, height), 2, width)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """None stays None."""
        (batch, _, _, channels), like = input_shape
        return batch, like[1], like[2], channels


def _stretched(x: Any, axis: int, length: Any) -> Any:
    """``length`` pixels along ``axis`` (1 or 2), each between the two whose centres are nearest."""
    old = ops.shape(x)[axis]
    at = (ops.arange(length, dtype="float32") + 0.5) * ops.cast(old, "float32") / ops.cast(length, "float32") - 0.5
    at = ops.clip(at, 0, ops.cast(old - 1, "float32"))
    low = ops.floor(at)
    share = ops.reshape(ops.cast(at - low, x.dtype), (-1, 1, 1) if axis == 1 else (-1, 1))
    low = ops.cast(low, "int32")
    high = ops.minimum(low + 1, old - 1)
    return ops.take(x, low, axis) * (1 - share) + ops.take(x, high, axis) * share


@_registered
class BinPooling(keras.layers.Layer):  # type: ignore[misc]
    """(B, H, W, C) to (B, bins, bins, C): the mean of each of ``bins`` x ``bins`` equal parts of the picture.

    A pixel that lies in two parts counts in both by area, so any H and W will do, ones smaller than ``bins`` too.
    """

    def __init__(self, bins: int, **options: Any) -> None:
        super().__init__(**options)
        self.bins = bins

    def call(self, inputs: Any) -> Any:
        """The means, of the inputs' type."""
        height, width = (self._shares(n, inputs.dtype) for n in ops.shape(inputs)[1:3])
        return ops.einsum("ih,bhwc,jw->bijc", height, inputs, width)

    def _shares(self, length: Any, dtype: Any) -> Any:
        """(bins, length): how much of each part's mean comes from each pixel; rows add up to 1."""
        part = ops.cast(length, "float32") / self.bins
        starts = ops.expand_dims(ops.arange(self.bins, dtype="float32") * part, 1)  # (bins, 1)
        pixels = ops.arange(length, dtype="float32")  # (length,)
        overlap = ops.minimum(starts + part, pixels + 1) - ops.maximum(starts, pixels)  # (bins, length)
        return ops.cast(ops.maximum(overlap, 0.0) / part, dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """H and W become ``bins``."""
        return input_shape[0], self.bins, self.bins, input_shape[3]

    def get_config(self) -> dict[str, Any]:
        """With the number of bins."""
        return {**super().get_config(), "bins": self.bins}


@_registered
class CaffeColors(keras.layers.Layer):  # type: ignore[misc]
    """(B, H, W, 3), RGB of 0...255, to BGR less ImageNet's mean colour: what weights that come from Caffe expect.

    The figures are those of ``keras.applications.imagenet_utils.preprocess_input(mode="caffe")``.
    """

    def call(self, inputs: Any) -> Any:
        """About -124...152, of the inputs' type."""
        return ops.flip(inputs, -1) - ops.convert_to_tensor([103.939, 116.779, 123.68], inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The same."""
        return input_shape


@_registered
class BilinearKernel(keras.initializers.Initializer):  # type: ignore[misc]
    """Weights of a transposed convolution that enlarges each channel by itself, bilinear (Long et al. 2015)."""

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """(side, side, C, C) of 0...1, zero between different channels; the stride is half the side."""
        side, _, outputs, inputs = shape
        line = 1 - ops.abs(ops.arange(side, dtype="float32") - (side - 1) / 2) / (side / 2)  # (side,)
        kernel = ops.outer(line, line)[:, :, None, None] * ops.eye(outputs, inputs)
        return ops.cast(kernel, dtype or keras.backend.floatx())
