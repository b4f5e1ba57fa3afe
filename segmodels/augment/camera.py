"""What a lens and a file do to a picture: blur, JPEG."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]


def blurred(image: Array, kind: str, size_px: int) -> Array:
    """A mean, median or Gaussian over windows of ``size_px`` (odd).

    The Gaussian's sigma is what OpenCV chooses for a window: 0.3 * ((size - 1) / 2 - 1) + 0.8.
    """
    import cv2

    if kind == "mean":
        return cv2.blur(image, (size_px, size_px))
    if kind == "median":
        return cv2.medianBlur(image, size_px)
    return cv2.GaussianBlur(image, (size_px, size_px), 0)


def through_jpeg(image: Array, quality: int) -> Array:
    """Encoded and decoded again; colours at half the resolution, as in most photos."""
    import simplejpeg  # takes RGB as it is

    decoded: Array = simplejpeg.decode_jpeg(simplejpeg.encode_jpeg(image, quality, "RGB", "420"), "RGB")
    return decoded
