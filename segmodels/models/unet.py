"""U-Net with five levels and dropout, as in Person-Segmentation-Keras, but for two faults of its output: there it is
reshaped to (C, H * W) and transposed, which scrambles pixels, and has a relu before the softmax.
"""

from __future__ import annotations

from typing import Any

from segmodels.quiet import keras

layers = keras.layers

ENCODER, DECODER = (64, 128, 256, 256, 256), (256, 256, 256, 128, 64)
DROPOUT, LAST_L2 = 0.2, 0.005


def build(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """From (B, H, W, channels) of 0...255 to logits (B, H, W, classes); H and W are multiples of 32."""
    inputs = keras.Input((height, width, channels), name="image")
    x = layers.Rescaling(1 / 255, name="unit_range")(inputs)  # (B, H, W, channels), 0...1
    levels = []
    for i, filters in enumerate(ENCODER, 1):
        x = _convolve_twice(x, filters, f"down{i}")  # (B, H / 2**(i-1), W / 2**(i-1), filters)
        levels.append(x)
        x = layers.MaxPooling2D(name=f"down{i}_pool")(x)  # (B, H / 2**i, W / 2**i, filters)
    x = layers.Identity(name="encoder_end")(x)  # (B, H / 32, W / 32, 256)
    for i, filters in zip(range(5, 0, -1), DECODER, strict=True):
        x = layers.UpSampling2D(name=f"up{i}_enlarge")(x)  # (B, H / 2**(i-1), W / 2**(i-1), before)
        x = layers.Concatenate(name=f"up{i}_join")([x, levels[i - 1]])  # (B, …, …, before + skipped)
        x = _convolve_twice(x, filters, f"up{i}")  # (B, H / 2**(i-1), W / 2**(i-1), filters)
    last = layers.Conv2D(
        classes,
        1,
        kernel_initializer="he_normal",
        kernel_regularizer=keras.regularizers.L2(LAST_L2),
        dtype="float32",
        name="logits",
    )
    return keras.Model(inputs, last(x), name="unet")  # (B, H, W, classes)


def _convolve_twice(x: Any, filters: int, name: str) -> Any:
    """Two relu convolutions with dropout between them; H and W stay."""
    x = _convolution(filters, f"{name}_first")(x)
    x = layers.Dropout(DROPOUT, name=f"{name}_dropout")(x)
    return _convolution(filters, f"{name}_second")(x)


def _convolution(filters: int, name: str) -> Any:
    return layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="orthogonal", name=name)
