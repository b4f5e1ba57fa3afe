"""What stands behind and before the person: a plain background, grey patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_PATCH = 128  # as letterbox bars


def on_plain(image: Array, matte: Array, color: Sequence[int]) -> Array:
    """image * alpha + colour * (1 - alpha), rounded; pixels whose matte is -1 stay as they are."""
    import cv2

    alpha = np.where(matte < 0, np.float32(1), matte)
    rest = 1 - alpha
    mixed: list[Array] = [plane * alpha + rest * level for plane, level in zip(cv2.split(image), color, strict=True)]
    return cv2.merge([np.rint(plane).astype(np.uint8) for plane in mixed])


def occluded(image: Array, patches: Sequence[tuple[float, float, float]]) -> Array:
    """A copy with mid-grey patches: (x, y, side) as shares of the width and height, cut at the edges."""
    covered = image.copy()
    height, width = image.shape[:2]
    for x, y, side in patches:
        left, top = round(x * width), round(y * height)
        right, bottom = left + max(1, round(side * width)), top + max(1, round(side * height))
        covered[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = _PATCH
    return covered
