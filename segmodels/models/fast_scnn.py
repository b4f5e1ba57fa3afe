"""Fast-SCNN (Poudel et al. 2019) as Portrait-segmentation has it: with a boundary beside the mask, that the mask sees.

The pyramid's parts are the paper's 1, 2, 3 and 6 to a side of the picture, so that it works at any size; in
Portrait-segmentation they are 1, 2, 3 and 4 pixels wide, which has as many parameters.
"""

from __future__ import annotations

from typing import Any

from segmodels.layers import BATCH_NORM_MOMENTUM, BilinearLike, BinPooling
from segmodels.quiet import keras

layers = keras.layers

DOWN, BOTTLENECKS, EXPANSION = (32, 48, 64), ((64, 2), (96, 2), (128, 1)), 6
BINS, FUSED, REFINED, DROPOUT = (1, 2, 3, 6), 128, 8, 0.1


def build(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """From (B, H, W, channels) of 0...255 to logits of "mask" (B, H, W, classes), of one channel for two classes, and
    "boundary" (B, H, W, 1), at any H and W; halves are rounded up where those are no multiples of 32.
    """
    inputs = keras.Input((height, width, channels), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1, name="around_zero")(inputs)  # (B, H, W, channels), -1...1
    x = _convolution(x, DOWN[0], "down1", 3, strides=2)  # (B, H / 2, W / 2, 32)
    x = _separable(x, DOWN[1], "down2", strides=2)  # (B, H / 4, W / 4, 48)
    fine = _separable(x, DOWN[2], "down3", strides=2)  # (B, H / 8, W / 8, 64)
    x = fine
    for i, (filters, strides) in enumerate(BOTTLENECKS, 1):
        for k in range(1, 4):
            x = _bottleneck(x, filters, strides if k == 1 else 1, f"bottleneck{i}_{k}")
    x = _pyramid(layers.Identity(name="encoder_end")(x))  # (B, H / 32, W / 32, 128)
    x = _fuse(fine, x)  # (B, H / 8, W / 8, 128)
    mask, boundary = _classify(x, 1 if classes == 2 else classes)  # (B, H / 8, W / 8, C), (B, H / 8, W / 8, 1)
    mask = BilinearLike(name="mask_enlarge")([mask, inputs])  # (B, H, W, C)
    boundary = BilinearLike(name="boundary_enlarge")([boundary, inputs])  # (B, H, W, 1)
    mask = _separable(mask, REFINED, "refine")  # (B, H, W, 8)
    mask = layers.Conv2D(1 if classes == 2 else classes, 3, padding="same", dtype="float32", name="mask")(mask)
    boundary = layers.Conv2D(1, 3, padding="same", dtype="float32", name="boundary")(boundary)
    return keras.Model(inputs, {"mask": mask, "boundary": boundary}, name="fast_scnn")


def _classify(x: Any, channels: int) -> tuple[Any, Any]:
    """Shares of 0...1 for the mask and its boundary; the mask is made with the boundary at hand."""
    for i in (1, 2):
        x = _separable(x, FUSED, f"classify{i}")
    boundary = layers.Conv2D(1, 1, activation="sigmoid", name="boundary_small")(x)
    x = _separable(x, 3, "classify3")
    x = layers.Concatenate(name="classify_join")([x, boundary])
    x = _separable(x, FUSED // 4, "classify4")
    x = layers.Dropout(DROPOUT, name="classify_dropout")(x)
    return layers.Conv2D(channels, 1, activation="sigmoid", name="mask_small")(x), boundary


def _bottleneck(x: Any, filters: int, strides: int, name: str) -> Any:
    """Wider, depthwise, narrower without relu; added to its input where that has the same shape."""
    y = _convolution(x, EXPANSION * x.shape[-1], f"{name}_expand")
    y = _depthwise(y, f"{name}_depthwise", strides)
    y = _convolution(y, filters, f"{name}_project", use_bias=False, relu=False)
    return layers.Add(name=f"{name}_add")([x, y]) if strides == 1 and x.shape[-1] == filters else y


def _pyramid(x: Any) -> Any:
    """Joined with means over larger and larger parts of the picture; H, W and channels stay."""
    levels = [x]
    for bins in BINS:
        level = BinPooling(bins, name=f"pyramid{bins}_pool")(x)  # (B, bins, bins, channels)
        level = _convolution(level, x.shape[-1] // len(BINS), f"pyramid{bins}")
        levels.append(BilinearLike(name=f"pyramid{bins}_enlarge")([level, x]))
    return _convolution(layers.Concatenate(name="pyramid_join")(levels), x.shape[-1], "pyramid")


def _fuse(fine: Any, coarse: Any) -> Any:
    """Of the size of ``fine``."""
    coarse = BilinearLike(name="fuse_enlarge")([coarse, fine])
    coarse = _depthwise(coarse, "fuse_coarse_depthwise")
    coarse = _convolution(coarse, FUSED, "fuse_coarse", relu=False)
    fine = _convolution(fine, FUSED, "fuse_fine", relu=False)
    return layers.ReLU(name="fuse_relu")(layers.Add(name="fuse_add")([fine, coarse]))


def _separable(x: Any, filters: int, name: str, strides: int = 1) -> Any:
    """A depthwise and a pointwise convolution, each with batch norm and relu."""
    return _convolution(_depthwise(x, f"{name}_depthwise", strides), filters, name)


def _depthwise(x: Any, name: str, strides: int = 1) -> Any:
    x = layers.DepthwiseConv2D(3, strides, padding="same", depthwise_initializer="he_normal", name=name)(x)
    return layers.ReLU(name=f"{name}_relu")(_norm(name)(x))


def _convolution(
    x: Any, filters: int, name: str, side: int = 1, strides: int = 1, use_bias: bool = True, relu: bool = True
) -> Any:
    x = layers.Conv2D(
        filters, side, strides, padding="same", use_bias=use_bias, kernel_initializer="he_normal", name=name
    )(x)
    x = _norm(name)(x)
    return layers.ReLU(name=f"{name}_relu")(x) if relu else x


def _norm(name: str) -> Any:
    return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{name}_norm")
