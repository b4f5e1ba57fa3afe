"""The small MattingNet of Portrait-segmentation: half the size from the first layer on, one block a level; the mask's
head sees the picture and the boundary.
"""

from __future__ import annotations

from typing import Any

from segmodels.quiet import keras

layers = keras.layers

FILTERS, MASK, MASK_MIDDLE = (8, 16, 32, 64, 128), 8, 16


def build(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """From (B, H, W, channels) of 0...255 to logits of "mask" (B, H, W, classes), of one channel for two classes, and
    "boundary" (B, H, W, 1); H and W are multiples of 32.
    """
    inputs = keras.Input((height, width, channels), name="image")
    x = picture = layers.Rescaling(1 / 127.5, offset=-1, name="around_zero")(inputs)  # (B, H, W, channels), -1...1
    levels = []
    for i, filters in enumerate(FILTERS, 1):
        x = _halve(x, filters, f"down{i}")  # (B, H / 2**i, W / 2**i, filters)
        levels.append(x)
    x = layers.Identity(name="encoder_end")(x)  # (B, H / 32, W / 32, 128)
    for i in range(4, 0, -1):
        x = _double(FILTERS[i - 1], f"up{i}")(x)
        x = layers.Add(name=f"up{i}_join")([levels[i - 1], x])
        x = _residual_block(x, f"up{i}")  # (B, H / 2**i, W / 2**i, filters)
    boundary = layers.Conv2D(1, 1, kernel_initializer="he_normal", name="boundary_small")(x)  # (B, H / 2, W / 2, 1)
    boundary = _double(1, "boundary", dtype="float32")(boundary)  # (B, H, W, 1)
    mask = _double(MASK, "mask_enlarge")(x)  # (B, H, W, 8)
    mask = _mask_head(mask, picture, boundary, 1 if classes == 2 else classes)  # (B, H, W, C)
    return keras.Model(inputs, {"mask": mask, "boundary": boundary}, name="mattingnet_small")


def _mask_head(x: Any, picture: Any, boundary: Any, channels: int) -> Any:
    """Features, picture and the boundary's probability, refined by a residual block of their own."""
    probability = layers.Activation("sigmoid", name="boundary_probability")(boundary)
    x = layers.Concatenate(name="mask_join")([x, picture, probability])  # (B, H, W, 9 + channels of the picture)
    y = _separable(MASK_MIDDLE, "mask_first")(x)
    y = _prelu("mask_first")(y)
    y = _separable(x.shape[-1], "mask_second")(y)
    y = _prelu("mask_second")(y)
    x = layers.Add(name="mask_add")([x, y])
    return layers.Conv2D(channels, 1, dtype="float32", name="mask")(x)


def _halve(x: Any, filters: int, name: str) -> Any:
    """Half the height and width, and a residual block."""
    x = layers.Conv2D(filters, 3, 2, padding="same", kernel_initializer="he_normal", name=name)(x)
    return _residual_block(x, name)


def _double(filters: int, name: str, dtype: str | None = None) -> Any:
    return layers.Conv2DTranspose(filters, 3, 2, padding="same", kernel_initializer="he_normal", dtype=dtype, name=name)


def _residual_block(x: Any, name: str) -> Any:
    """PReLU and a separable convolution, twice, added to the input; the shape stays."""
    y = x
    for part in ("first", "second"):
        y = _prelu(f"{name}_block_{part}")(y)
        y = _separable(x.shape[-1], f"{name}_block_{part}")(y)
    return layers.Add(name=f"{name}_block_add")([x, y])


def _prelu(name: str) -> Any:
    return layers.PReLU(shared_axes=[1, 2], name=f"{name}_prelu")


def _separable(filters: int, name: str) -> Any:
    return layers.SeparableConv2D(filters, 3, padding="same", depthwise_initializer="he_normal", name=name)
