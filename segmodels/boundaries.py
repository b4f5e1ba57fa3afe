"""Where a person ends: the target of a boundary head, and the band along a contour that boundary IoU is counted in.

NumPy and OpenCV, one picture at a time, no Keras: it runs where shards are read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.labels import IGNORE_INDEX

Bools = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

MIN_WIDTH_PX = 5
WIDTH_PX_PER_SHARE = 40
PERSON_FROM = 0.5  # of a matte


def boundary_of(target: npt.NDArray[Any]) -> Pixels:
    """``boundary_target`` of a mask or a matte, (H, W).

    A mask holds ids, of which every one but 0 is the person and 255 is ignored; a matte holds floats, of which those
    from 0.5 on are the person and negative ones are ignored.
    """
    if np.issubdtype(target.dtype, np.floating):
        return boundary_target(target >= PERSON_FROM, target < 0)
    return boundary_target(target != 0, target == IGNORE_INDEX)


def boundary_target(person: npt.NDArray[Any], ignored: Bools | None = None) -> Pixels:
    """(H, W) uint8: 1 near the person's contour, 0 elsewhere, 255 where ``ignored``. ``person`` is 0/1 or bool.

    The contour is what Canny (50, 100) finds in the mask as 0 and 255. It is dilated by an ellipse of
    max(5, 40 x the person's share of the pixels that count) px from side to side, cut to a whole number. That is what
    minus31/Portrait-segmentation trains with (``get_edge`` in data_generator.py), even sizes included: Canny marks the
    pixel left of or above a step, and OpenCV's even ellipses reach one pixel further to the right and down.

    Neither the picture's border nor that of an ignored area is a contour: before Canny looks, each ignored pixel is
    given what the nearest pixel is that counts. Where an ignored area parts person and background, as the void contours
    of Pascal VOC do, the contour is found in its middle.
    """
    import cv2

    person = person.astype(bool)
    ignored = np.zeros(person.shape, bool) if ignored is None else ignored
    share = (person & ~ignored).sum() / max((~ignored).sum(), 1)
    edges = cv2.Canny(fill_from_nearest(person, ignored).astype(np.uint8) * 255, 50, 100)
    width_px = max(MIN_WIDTH_PX, int(WIDTH_PX_PER_SHARE * share))
    band = cv2.dilate(edges, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width_px, width_px)))
    return np.where(ignored, IGNORE_INDEX, band > 0).astype(np.uint8)


def boundary_region(mask: Bools, distance_px: int) -> Bools:
    """(H, W) bool: the pixels of a mask that are within ``distance_px`` of its contour, diagonals counting as one.

    The picture's border is contour: what lies outside is not the mask. In Cheng et al. 2021 this is the part of G_d
    that is in G. Their own code (bowenc0221/boundary-iou-api, ``mask_to_boundary``) puts a frame of zeros around the
    mask, erodes by 3x3 as often as the distance says, which once by (2d+1)x(2d+1) equals, and takes away what is left.
    """
    import cv2

    window = np.ones((2 * distance_px + 1,) * 2, np.uint8)
    inner = cv2.erode(mask.astype(np.uint8), window, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    found: Bools = mask & (inner == 0)
    return found


def fill_from_nearest(values: npt.NDArray[Any], ignored: Bools) -> npt.NDArray[Any]:
    """``values`` (H, W) with each ignored pixel taken from the nearest one that is not; as they are where all are.

    Of a letterbox bar that makes what repeating the picture's border would.
    """
    import cv2

    if not ignored.any() or ignored.all():
        return values
    _, nearest = cv2.distanceTransformWithLabels(
        ignored.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )  # (H, W) int32: a number of its own for each pixel that counts, and that of the nearest one for the others
    by_number = np.zeros(nearest.max() + 1, values.dtype)
    by_number[nearest[~ignored]] = values[~ignored]
    filled: npt.NDArray[Any] = by_number[nearest]
    return filled
