"""The light U-shaped network of humanMatting ("dark-light"): grey, joins pooled levels, batch norm after nearly every
convolution. Its published weights load by ``load_weights``, which goes by the order of the layers.
"""

from __future__ import annotations

from typing import Any

from segmodels.layers import BATCH_NORM_MOMENTUM, BilinearUpsample
from segmodels.quiet import keras

layers = keras.layers

ENCODER, BOTTOM, DECODER, ENDS = (16, 32, 32, 32, 64), 64, (32, 32, 32, 16), 8


def build(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """From (B, H, W, channels) of 0...255, unscaled, to logits (B, H, W, classes); H and W are multiples of 32."""
    inputs = keras.Input((height, width, channels), name="image")
    x = _convolution(layers.Conv2D, ENDS, "first", activation="relu")(inputs)  # (B, H, W, 8)
    levels = []
    for i, filters in enumerate(ENCODER, 1):
        x = _normed(x, layers.Conv2D, filters, f"down{i}")  # (B, H / 2**(i-1), W / 2**(i-1), filters)
        x = layers.MaxPooling2D(name=f"down{i}_pool")(x)  # (B, H / 2**i, W / 2**i, filters)
        levels.append(x)
    x = layers.Identity(name="encoder_end")(x)  # (B, H / 32, W / 32, 64)
    x = _enlarge(x, BOTTOM, "bottom")  # (B, H / 16, W / 16, 64)
    for i, filters in zip(range(4, 0, -1), DECODER, strict=True):
        x = layers.Concatenate(name=f"up{i}_join")([levels[i - 1], x])  # (B, H / 2**i, W / 2**i, pooled + before)
        x = _enlarge(x, filters, f"up{i}")  # (B, H / 2**(i-1), W / 2**(i-1), filters)
    x = _convolution(layers.Conv2D, ENDS, "last", activation="relu")(x)  # (B, H, W, 8)
    x = layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)  # (B, H, W, classes)
    return keras.Model(inputs, x, name="likeunet_light")


def _enlarge(x: Any, filters: int, name: str) -> Any:
    """A convolution, a transposed one of stride 1, then twice the height and width."""
    x = _normed(x, layers.Conv2D, filters, name)
    x = _normed(x, layers.Conv2DTranspose, filters, f"{name}_transposed")
    return BilinearUpsample(name=f"{name}_enlarge")(x)


def _normed(x: Any, kind: Any, filters: int, name: str) -> Any:
    """A convolution of that kind, batch norm and relu; H and W stay."""
    x = _convolution(kind, filters, name)(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, epsilon=1e-3, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _convolution(kind: Any, filters: int, name: str, activation: str | None = None) -> Any:
    return kind(filters, 3, padding="same", activation=activation, kernel_initializer="he_normal", name=name)
