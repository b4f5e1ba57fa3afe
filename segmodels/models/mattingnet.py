"""The big MattingNet of Portrait-segmentation: residual blocks of separable convolutions, and a boundary beside the
mask.
"""

from __future__ import annotations

from typing import Any

from segmodels.quiet import keras

layers = keras.layers

ENCODER = ((8, 1), (32, 1), (64, 1), (128, 2))  # filters, blocks
DEEPEST, DEEPEST_BLOCKS, DECODER_BLOCKS = 128, 6, 3


def build(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """From (B, H, W, channels) of 0...255 to logits of "mask" (B, H, W, classes), of one channel for two classes, and
    "boundary" (B, H, W, 1); H and W are multiples of 16, from 32 on.
    """
    inputs = keras.Input((height, width, channels), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="around_zero")(inputs)  # (B, H, W, channels), -1...1
    levels = []
    for i, (filters, blocks) in enumerate(ENCODER):
        x = _convolution(layers.Conv2D, filters, f"down{i}", strides=2 if i else 1)(x)
        x = _residual_blocks(x, blocks, f"down{i}")  # (B, H / 2**i, W / 2**i, filters)
        levels.append(x)
    x = _convolution(layers.Conv2D, DEEPEST, "down4", strides=2, padding="valid")(x)
    x = _residual_blocks(x, DEEPEST_BLOCKS, "down4")  # (B, H / 16 - 1, W / 16 - 1, 128)
    x = layers.Identity(name="encoder_end")(x)
    for i in range(3, -1, -1):
        x = _convolution(layers.Conv2DTranspose, ENCODER[i][0], f"up{i}", strides=2)(x)
        x = layers.ZeroPadding2D(1, name="up3_pad")(x) if i == 3 else x  # what the valid convolution took
        x = layers.Add(name=f"up{i}_join")([levels[i], x])
        x = _residual_blocks(x, DECODER_BLOCKS, f"up{i}")  # (B, H / 2**i, W / 2**i, filters)
    boundary = layers.Conv2D(1, 1, kernel_initializer="he_normal", dtype="float32", name="boundary")(x)  # (B, H, W, 1)
    mask = _mask_head(x, boundary, 1 if classes == 2 else classes)  # (B, H, W, C)
    return keras.Model(inputs, {"mask": mask, "boundary": boundary}, name="mattingnet")


def _mask_head(x: Any, boundary: Any, channels: int) -> Any:
    """Three maps of -1...1 and the boundary's probability, refined by a residual block of their own."""
    maps = layers.Conv2D(3, 1, activation="tanh", name="mask_maps")(x)
    probability = layers.Activation("sigmoid", name="boundary_probability")(boundary)
    x = layers.Concatenate(name="mask_join")([maps, probability])  # (B, H, W, 4)
    y = _separable(3, "mask_first")(x)
    y = _prelu("mask_first")(y)
    y = _separable(4, "mask_second")(y)
    y = _prelu("mask_second")(y)
    x = layers.Add(name="mask_add")([x, y])
    return layers.Conv2D(channels, 1, dtype="float32", name="mask")(x)


def _residual_blocks(x: Any, blocks: int, name: str) -> Any:
    """PReLU and a separable convolution, twice, added to the input; so many times; the shape stays."""
    for k in range(1, blocks + 1):
        y = x
        for part in ("first", "second"):
            y = _prelu(f"{name}_block{k}_{part}")(y)
            y = _separable(x.shape[-1], f"{name}_block{k}_{part}")(y)
        x = layers.Add(name=f"{name}_block{k}_add")([x, y])
    return x


def _prelu(name: str) -> Any:
    return layers.PReLU(shared_axes=[1, 2], name=f"{name}_prelu")


def _separable(filters: int, name: str) -> Any:
    return layers.SeparableConv2D(filters, 3, padding="same", depthwise_initializer="he_normal", name=name)


def _convolution(kind: Any, filters: int, name: str, strides: int, padding: str = "same") -> Any:
    return kind(filters, 3, strides, padding=padding, kernel_initializer="he_normal", name=name)
