"""FCN-8s (Long et al. 2015) on VGG16, as in humanMatting's notebook: three levels are scored and added while the scores
are enlarged. Its fully connected layers are convolutions here, of padding same.
"""

from __future__ import annotations

from typing import Any

from segmodels.encoders import build_encoder
from segmodels.layers import BilinearKernel
from segmodels.quiet import keras

layers = keras.layers

FULLY_CONNECTED, DROPOUT = 4096, 0.5


def build(
    classes: int,
    channels: int = 3,
    height: int | None = None,
    width: int | None = None,
    encoder_weights: str | None = None,
) -> Any:
    """From (B, H, W, channels) of 0...255 to logits (B, H, W, classes); H and W are multiples of 32."""
    vgg = build_encoder("vgg16", (height, width, channels), encoder_weights)
    pool3, pool4 = (vgg.get_layer(f"block{i}_pool").output for i in (3, 4))  # (B, H / 8, …, 256), (B, H / 16, …, 512)
    x = layers.Identity(name="encoder_end")(vgg.output)  # (B, H / 32, W / 32, 512)
    for side, name in ((7, "fc6"), (1, "fc7")):
        x = layers.Conv2D(FULLY_CONNECTED, side, padding="same", activation="relu", name=name)(x)
        x = layers.Dropout(DROPOUT, name=f"{name}_dropout")(x)  # (B, H / 32, W / 32, 4096)
    x = _score(x, classes, "fc7")  # (B, H / 32, W / 32, classes)
    x = _enlarge(x, classes, 2, "up4")  # (B, H / 16, W / 16, classes)
    x = layers.Add(name="up4_join")([x, _score(pool4, classes, "pool4")])
    x = _enlarge(x, classes, 2, "up3")  # (B, H / 8, W / 8, classes)
    x = layers.Add(name="up3_join")([x, _score(pool3, classes, "pool3")])
    x = _enlarge(x, classes, 8, "logits", dtype="float32")  # (B, H, W, classes)
    return keras.Model(vgg.input, x, name="fcn8s")


def _score(x: Any, classes: int, name: str) -> Any:
    return layers.Conv2D(classes, 1, name=f"{name}_score")(x)


def _enlarge(x: Any, classes: int, times: int, name: str, dtype: str | None = None) -> Any:
    """``times`` the height and width, at first bilinear."""
    return layers.Conv2DTranspose(
        classes,
        2 * times,
        times,
        padding="same",
        use_bias=False,
        kernel_initializer=BilinearKernel(),
        dtype=dtype,
        name=name,
    )(x)
