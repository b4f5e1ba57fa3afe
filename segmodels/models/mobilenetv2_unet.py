"""U-Net with MobileNetV2 as its encoder, as in portrait_segmentation: its decoder is of transposed convolutions."""

from __future__ import annotations

from typing import Any

from segmodels.encoders import build_encoder
from segmodels.quiet import keras

layers = keras.layers

# Per level, from the deepest: filters before the encoder's features join, names of those, filters behind. Between the
# levels height and width double.
DECODER = (
    (320, ("block_16_project_BN",), (320, 192)),
    (192, ("block_12_add", "block_11_add"), (192, 64)),
    (64, ("block_5_add", "block_4_add"), (64, 32)),
    (24, ("block_2_add",), (24, 16)),
    (16, ("expanded_conv_project_BN",), (16, 8)),
)
LAST = (4, 2)


def build(
    classes: int,
    channels: int = 3,
    height: int | None = None,
    width: int | None = None,
    encoder_weights: str | None = None,
) -> Any:
    """From (B, H, W, channels) of 0...255 to logits (B, H, W, classes), of one channel for two classes; H and W are
    multiples of 32.
    """
    mobile = build_encoder("mobilenetv2", (height, width, channels), encoder_weights)
    x = layers.Identity(name="encoder_end")(mobile.output)  # (B, H / 32, W / 32, 1280)
    for i, (before, joined, behind) in zip(range(5, 0, -1), DECODER, strict=True):
        x = layers.UpSampling2D(name=f"up{i}_enlarge")(x) if i < 5 else x  # (B, H / 2**i, W / 2**i, some)
        x = _transposed(before, f"up{i}_before")(x)  # (B, H / 2**i, W / 2**i, before)
        x = layers.Concatenate(name=f"up{i}_join")([*(mobile.get_layer(name).output for name in joined), x])
        x = _transposed(behind[0], f"up{i}_first")(x)
        x = _transposed(behind[1], f"up{i}_second")(x)  # (B, H / 2**i, W / 2**i, behind)
    x = layers.UpSampling2D(name="up0_enlarge")(x)  # (B, H, W, 8)
    for filters, part in zip(LAST, ("first", "second"), strict=True):
        x = _transposed(filters, f"up0_{part}")(x)  # (B, H, W, 4), then 2
    x = layers.Conv2D(1 if classes == 2 else classes, 1, dtype="float32", name="logits")(x)  # (B, H, W, C)
    return keras.Model(mobile.input, x, name="mobilenetv2_unet")


def _transposed(filters: int, name: str) -> Any:
    return layers.Conv2DTranspose(
        filters, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=name
    )
