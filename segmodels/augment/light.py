"""Light and colour: what happens to each pixel by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from segmodels.augment.scratch import scratch

Array = npt.NDArray[Any]


def relit(image: Array, drawn: Mapping[str, Any]) -> Array:
    """Brightness, contrast, gamma, add and add per channel, in this order, each clipped to 0...255.

    All are one table of 256 values, so they are rounded once; but brightness above 1, which depends on the largest
    channel of a pixel, goes before by itself.
    """
    import cv2

    if drawn.get("brightness", 0) > 1:
        image = brightened(image, drawn["brightness"])
        drawn = {name: value for name, value in drawn.items() if name != "brightness"}
    if not drawn.keys() & {"brightness", "contrast", "gamma", "add", "add_per_channel"}:
        return image
    return cv2.LUT(image, _table(drawn))


def brightened(image: Array, factor: float) -> Array:
    """HSV's value V, the largest channel, becomes min(255, ``factor`` * V); all channels grow alike, so that hue and
    saturation stay.
    """
    import cv2

    planes = cv2.split(image)
    value = cv2.max(cv2.max(planes[0], planes[1]), planes[2])
    growth = np.minimum(factor, 255 / np.maximum(np.arange(256), 1)).astype(np.float32)
    by_pixel = cv2.LUT(value, growth, dst=scratch("by_pixel", value.shape, np.float32))
    return cv2.merge([cv2.multiply(plane, by_pixel, dtype=cv2.CV_8U) for plane in planes])


def _table(drawn: Mapping[str, Any]) -> Array:
    """uint8, (256,) or, where the channels differ, (1, 256, 3)."""
    values = np.arange(256) * drawn.get("brightness", 1.0)
    if "contrast" in drawn:
        values = np.clip(127.5 + (values - 127.5) * drawn["contrast"], 0, 255)
    if "gamma" in drawn:
        values = 255 * (values / 255) ** (1 / drawn["gamma"])
    if "add" in drawn:
        values = np.clip(values + drawn["add"], 0, 255)
    if "add_per_channel" in drawn:
        values = values[None, :, None] + np.array(drawn["add_per_channel"])
    table: Array = np.rint(np.clip(values, 0, 255)).astype(np.uint8)
    return table
