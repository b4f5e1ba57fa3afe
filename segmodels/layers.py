"""Layers that Keras lacks, or that it has with a trap."""

from __future__ import annotations

from typing import Any

from segmodels.quiet import keras

ops = keras.ops


@keras.saving.register_keras_serializable(package="segmodels")
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
