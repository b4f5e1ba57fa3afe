"""U-Net with VGG16 as its encoder, as in UnetVGG16_Person_Segmentation."""

from __future__ import annotations

from typing import Any

from segmodels.encoders import build_encoder
from segmodels.layers import BATCH_NORM_MOMENTUM
from segmodels.quiet import keras

layers = keras.layers

LEVELS, BRIDGE = ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3"), "block5_conv3"
DECODER = (512, 256, 128, 64)


def build(
    classes: int,
    channels: int = 3,
    height: int | None = None,
    width: int | None = None,
    encoder_weights: str | None = None,
) -> Any:
    """From (B, H, W, channels) of 0...255 to logits (B, H, W, classes), of one channel for two classes; H and W are
    multiples of 16.
    """
    vgg = build_encoder("vgg16", (height, width, channels), encoder_weights)
    x = layers.Identity(name="encoder_end")(vgg.get_layer(BRIDGE).output)  # (B, H / 16, W / 16, 512)
    for i, filters in zip(range(4, 0, -1), DECODER, strict=True):
        x = layers.Conv2DTranspose(filters, 2, 2, padding="same", name=f"up{i}_enlarge")(x)
        level = vgg.get_layer(LEVELS[i - 1]).output  # (B, H / 2**(i-1), W / 2**(i-1), filters)
        x = layers.Concatenate(name=f"up{i}_join")([x, level])  # (B, H / 2**(i-1), W / 2**(i-1), 2 * filters)
        x = _normed(x, filters, f"up{i}_first")  # (B, H / 2**(i-1), W / 2**(i-1), filters)
        x = _normed(x, filters, f"up{i}_second")
    x = layers.Conv2D(1 if classes == 2 else classes, 1, dtype="float32", name="logits")(x)  # (B, H, W, C)
    return keras.Model(vgg.input, x, name="vgg16_unet")


def _normed(x: Any, filters: int, name: str) -> Any:
    """A convolution, batch norm and relu; H and W stay."""
    x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", name=name)(x)
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
