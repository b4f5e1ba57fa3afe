"""Sizes: nearest neighbour for masks, smooth for images and mattes, and the letterbox."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused, OptionError
from segdata.records import Geometry, Sample

FITS = ("letterbox", "stretch", "none")


def resize_nearest(mask: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """(height, width): each pixel takes the source pixel that holds its centre, ``floor((i + 1/2) * source / target)``.

    In whole numbers, so exact; no id comes in that was not there.
    """
    rows = (2 * np.arange(height) + 1) * mask.shape[0] // (2 * height)
    columns = (2 * np.arange(width) + 1) * mask.shape[1] // (2 * width)
    resized: npt.NDArray[Any] = mask.take(rows, axis=0).take(columns, axis=1)
    return resized


def resize_smooth(pixels: npt.NDArray[Any], height: int, width: int) -> npt.NDArray[Any]:
    """(height, width[, C]): area average where it shrinks, bilinear where it grows (half-pixel centres both)."""
    import cv2  # not loaded where nothing is resized

    shrinks = height * width < pixels.shape[0] * pixels.shape[1]
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized: npt.NDArray[Any] = cv2.resize(pixels, (width, height), interpolation=interpolation)
    return resized


def letterbox_box(height: int, width: int, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where a picture of ``height`` x ``width`` lies in one of ``size`` (height, width): box (x, y, w, h) in pixels.

    The largest size of the same shape (rounded half up, at least 1), centred; an odd pixel of bar goes below or right.
    """
    tall, wide = size
    if height * wide >= width * tall:  # limited by the height
        h, w = tall, max(1, (2 * width * tall + height) // (2 * height))
    else:
        h, w = max(1, (2 * height * wide + width) // (2 * width)), wide
    return (wide - w) // 2, (tall - h) // 2, w, h


def fit_box(height: int, width: int, geometry: Geometry) -> tuple[int, int, int, int]:
    """Where the picture lies after ``geometry``: box (x, y, w, h); the whole for ``stretch`` and ``none``."""
    if geometry.size is None:
        return 0, 0, width, height
    if geometry.fit == "letterbox":
        return letterbox_box(height, width, geometry.size)
    return 0, 0, geometry.size[1], geometry.size[0]


@dataclass(frozen=True)
class Resize:
    """Fit samples to a geometry: ``letterbox`` keeps the shape and adds bars, ``stretch`` does not, ``none`` changes
    nothing.
    """

    geometry: Geometry

    def __post_init__(self) -> None:
        size, fit = self.geometry.size, self.geometry.fit
        if fit not in FITS:
            raise OptionError(f"--fit {fit!r}: expected one of {', '.join(FITS)}.")
        if (size is None) != (fit == "none"):
            raise OptionError(f"--fit {fit} {'needs a --size' if size is None else 'takes no --size'}.")
        if size is not None and not all(1 <= side <= 16384 for side in size):
            raise OptionError(f"--size {size[0]}x{size[1]}: expected sides of 1 to 16384 pixels.")

    def __call__(self, sample: Sample) -> Sample:
        """The sample at the geometry's size; bars are mid-grey in the image, 255 in the mask, 0 in the matte."""
        height, width = sample.image.shape[:2]
        return fit_sample(sample, height, width, self.geometry)


def fit_sample(sample: Sample, height: int, width: int, geometry: Geometry, matte_padding: float = 0) -> Sample:
    """A sample, whose photo has the shape of ``height`` x ``width``, at the geometry's size.

    Bars are mid-grey in the image, 255 in the mask, ``matte_padding`` in the matte.
    """
    size = geometry.size
    if size is None:
        return sample
    box = fit_box(height, width, geometry)
    mask, matte = sample.mask, sample.matte
    if mask is not None:
        mask = _place(resize_nearest(mask, box[3], box[2]), box, size, geometry.mask_padding)
    if matte is not None:
        matte = _place(np.clip(resize_smooth(matte, box[3], box[2]), 0, 1), box, size, matte_padding)
    image = _place(resize_smooth(sample.image, box[3], box[2]), box, size, geometry.image_padding)
    return replace(sample, image=image, mask=mask, matte=matte)


def _place(
    pixels: npt.NDArray[Any], box: tuple[int, int, int, int], size: tuple[int, int], padding: float
) -> npt.NDArray[Any]:
    x, y, w, h = box
    if (h, w) == size:
        return pixels
    canvas = np.full(size + pixels.shape[2:], padding, pixels.dtype)
    canvas[y : y + h, x : x + w] = pixels
    return canvas


@dataclass(frozen=True)
class FitToPhoto:
    """Masks must have their photo's size. With ``resize`` one of another size is resized where the aspect ratios
    agree within 1 %.
    """

    resize: bool = False
    max_aspect_difference: float = 0.01

    def __call__(
        self, values: npt.NDArray[Any], height: int, width: int, orientation: int, smooth: bool
    ) -> npt.NDArray[Any]:
        """``values`` at (height, width), the photo's size after its EXIF turn; ImageRefused(``size-mismatch``)
        otherwise.
        """
        h, w = values.shape
        if (h, w) == (height, width):
            return values
        found = f"the mask is {w}x{h}, the photo {width}x{height}"
        if orientation >= 5 and (w, h) == (height, width):
            raise ImageRefused(
                "size-mismatch",
                f"{found} after its EXIF turn; the mask fits only the stored pixels, expected the turned photo",
            )
        if abs(w * height / (h * width) - 1) > self.max_aspect_difference:
            raise ImageRefused("size-mismatch", f"{found}, expected one size (the shapes differ too)")
        if not self.resize:
            raise ImageRefused(
                "size-mismatch",
                f"{found}, expected one size; `convert pairs --resize-masks` resizes masks of the photo's shape",
            )
        return resize_smooth(values, height, width) if smooth else resize_nearest(values, height, width)
