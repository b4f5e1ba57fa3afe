"""What a network says of a photo, brought back from the network's size to the photo's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.formats.images import Pixels
from segdata.records import Geometry
from segdata.transforms.resize import fit_box, resize_smooth

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


def at_photo_size(shares: Array, original: tuple[int, int], geometry: Geometry, target: str) -> Array:
    """What a network says of a photo at that one's own (height, width) ``original``: the fit to ``geometry`` undone.

    ``shares`` (h, w, classes) float32 are probabilities at the network's size. Bars are cut off and the rest is resized
    smoothly, before the highest is chosen, the first of equals: ids (H, W) uint8; for the target ``matte`` the alpha of
    class 1, float32 in [0, 1].
    """
    if target == "matte":
        return enlarged(shares, 1, original, geometry)
    return _highest(shares, 0, original, geometry)[0]


def person_at_photo_size(
    shares: Array, original: tuple[int, int], geometry: Geometry, is_summed: bool = False
) -> tuple[Floats, Pixels | None]:
    """How much of each pixel is person, (H, W) float32 in [0, 1], and which class but the background is its highest,
    (H, W) uint8; None where there is but one. The fit is undone as in ``at_photo_size``.

    A pixel of 0.5 or more is where the background is not the highest: of several classes the share is that of the
    highest against the background alone. With ``is_summed`` it is that of all classes but the background together.
    """
    if shares.shape[-1] == 2:
        return enlarged(shares, 1, original, geometry), None
    ids, highest = _highest(shares, 1, original, geometry)
    background = enlarged(shares, 0, original, geometry)
    if is_summed:
        return np.clip(1 - background, 0, 1), ids
    return highest / np.maximum(highest + background, np.finfo(np.float32).tiny), ids


def enlarged(shares: Array, k: int, original: tuple[int, int], geometry: Geometry) -> Floats:
    """The probability of class ``k``, (H, W) float32 in [0, 1], at the photo's (height, width) ``original``."""
    x, y, w, h = fit_box(*original, geometry)
    inside = np.ascontiguousarray(shares[y : y + h, x : x + w, k], np.float32)
    found: Floats = np.clip(resize_smooth(inside, *original), 0, 1)
    return found


def _highest(shares: Array, first: int, original: tuple[int, int], geometry: Geometry) -> tuple[Pixels, Floats]:
    """Of the classes from ``first`` on, the id of the highest and its probability; the first of equals."""
    highest = enlarged(shares, first, original, geometry)
    ids: Pixels = np.full(original, first, np.uint8)
    for k in range(first + 1, shares.shape[-1]):  # one class at a time: all those of a large photo would not fit in
        share = enlarged(shares, k, original, geometry)
        ids[share > highest] = k
        np.maximum(highest, share, out=highest)
    return ids, highest
