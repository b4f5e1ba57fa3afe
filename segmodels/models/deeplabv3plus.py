"""DeepLabv3+ (Chen et al. 2018): an encoder of keras.applications at output stride 16, atrous spatial pyramid pooling,
and a decoder that joins features of a quarter of the size. Its 3x3 convolutions are separable, as in the paper's title.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segmodels.encoders import build_encoder
from segmodels.layers import BATCH_NORM_MOMENTUM, BilinearLike, BinPooling
from segmodels.quiet import keras

layers = keras.layers

WIDTH, LOW_WIDTH, RATES, DROPOUT = 256, 48, (6, 12, 18), 0.1


@dataclass(frozen=True)
class _Features:
    """Names of an encoder's layers: at a quarter of the size, and the deepest one.

    ``changes`` brings the output stride from 32 to 16: the last halving is left out, and the convolutions behind it
    look at every second pixel instead, so that weights of the encoder still mean the same. The deepest features are
    those before the 1x1 convolution that widens them for a classifier, where there is one.
    """

    low: str
    deep: str
    changes: Mapping[str, Mapping[str, Any]]


_STRIDE_1, _DILATED = {"strides": (1, 1)}, {"dilation_rate": (2, 2)}
FEATURES = {
    "efficientnetv2b0": _Features(
        "block2b_add",
        "block6h_add",
        {"block6a_dwconv2": _STRIDE_1, **{f"block6{letter}_dwconv2": _DILATED for letter in "bcdefgh"}},
    ),
    "mobilenetv2": _Features(
        "block_2_add",
        "block_16_project_BN",
        {
            "block_13_pad": {"padding": ((1, 1), (1, 1))},
            "block_13_depthwise": _STRIDE_1,
            **{f"block_{i}_depthwise": _DILATED for i in (14, 15, 16)},
        },
    ),
    "resnet50": _Features(
        "conv2_block3_out",
        "conv5_block3_out",
        {
            **{f"conv5_block1_{i}_conv": _STRIDE_1 for i in (0, 1)},
            **{f"conv5_block{i}_2_conv": _DILATED for i in (1, 2, 3)},
        },
    ),
}


def build(
    classes: int,
    channels: int = 3,
    height: int | None = None,
    width: int | None = None,
    encoder_weights: str | None = None,
    encoder: str = "mobilenetv2",
) -> Any:
    """From (B, H, W, channels) of 0...255 to logits (B, H, W, classes) at any H and W; halves are rounded up where
    those are no multiples of 16. ``encoder`` is a key of FEATURES.
    """
    features = FEATURES[encoder]
    network = build_encoder(encoder, (height, width, channels), encoder_weights, features.changes)
    low = network.get_layer(features.low).output  # (B, H / 4, W / 4, some)
    deep = network.get_layer(features.deep).output  # (B, H / 16, W / 16, many)
    x = _pyramid(layers.Identity(name="encoder_end")(deep))  # (B, H / 16, W / 16, 256)
    x = BilinearLike(name="decoder_enlarge")([x, low])  # (B, H / 4, W / 4, 256)
    low = _normed(low, LOW_WIDTH, "decoder_low")  # (B, H / 4, W / 4, 48)
    x = layers.Concatenate(name="decoder_join")([x, low])  # (B, H / 4, W / 4, 304)
    for i in (1, 2):
        x = _separable(x, 1, f"decoder{i}")  # (B, H / 4, W / 4, 256)
    x = layers.Conv2D(classes, 1, dtype="float32", name="logits_small")(x)  # (B, H / 4, W / 4, classes)
    x = BilinearLike(dtype="float32", name="logits")([x, network.input])  # (B, H, W, classes)
    return keras.Model(network.input, x, name="deeplabv3plus")


def _pyramid(x: Any) -> Any:
    """Looked at with five fields of view, the widest the whole picture; H and W stay."""
    views = [_normed(x, WIDTH, "pyramid1"), *(_separable(x, rate, f"pyramid{rate}") for rate in RATES)]
    whole = _normed(BinPooling(1, name="pyramid_whole_pool")(x), WIDTH, "pyramid_whole")  # (B, 1, 1, 256)
    views.append(BilinearLike(name="pyramid_whole_enlarge")([whole, x]))
    x = _normed(layers.Concatenate(name="pyramid_join")(views), WIDTH, "pyramid")
    return layers.Dropout(DROPOUT, name="pyramid_dropout")(x)


def _separable(x: Any, rate: int, name: str) -> Any:
    """A depthwise 3x3 convolution over every ``rate``-th pixel and a pointwise one, each with norm and relu."""
    x = layers.DepthwiseConv2D(
        3,
        padding="same",
        dilation_rate=rate,
        use_bias=False,
        depthwise_initializer="he_normal",
        name=f"{name}_depthwise",
    )(x)
    return _normed(_norm_relu(x, f"{name}_depthwise"), WIDTH, name)


def _normed(x: Any, filters: int, name: str) -> Any:
    x = layers.Conv2D(filters, 1, use_bias=False, kernel_initializer="he_normal", name=name)(x)
    return _norm_relu(x, name)


def _norm_relu(x: Any, name: str) -> Any:
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
