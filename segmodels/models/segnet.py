"""SegNet as in Person-Segmentation-Keras: five levels, nothing handed across from the encoder to the decoder."""

from __future__ import annotations

from typing import Any

from segmodels.layers import BATCH_NORM_MOMENTUM
from segmodels.quiet import keras

layers = keras.layers

ENCODER, DECODER = (64, 128, 256, 512, 512), (512, 512, 256, 128, 64)


def build(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """From (B, H, W, channels) of 0...255 to logits (B, H, W, classes); H and W are multiples of 32."""
    inputs = keras.Input((height, width, channels), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="around_zero")(inputs)  # (B, H, W, channels), -1...1
    for i, filters in enumerate(ENCODER, 1):
        x = _normed_convolution(x, filters, f"down{i}")  # (B, H / 2**(i-1), W / 2**(i-1), filters)
        x = layers.ReLU(name=f"down{i}_relu")(x)
        x = layers.MaxPooling2D(name=f"down{i}_pool")(x)  # (B, H / 2**i, W / 2**i, filters)
    x = layers.Identity(name="encoder_end")(x)  # (B, H / 32, W / 32, 512)
    for i, filters in zip(range(5, 0, -1), DECODER, strict=True):
        x = layers.UpSampling2D(name=f"up{i}_enlarge")(x)  # (B, H / 2**(i-1), W / 2**(i-1), before)
        x = _normed_convolution(x, filters, f"up{i}")  # (B, H / 2**(i-1), W / 2**(i-1), filters)
    x = layers.Conv2D(classes, 1, dtype="float32", name="logits")(x)  # (B, H, W, classes)
    return keras.Model(inputs, x, name="segnet")


def _normed_convolution(x: Any, filters: int, name: str) -> Any:
    """A convolution and batch norm; H and W stay."""
    x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", name=name)(x)
    return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
