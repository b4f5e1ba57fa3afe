"""From the probability of a person, or a predicted matte, to a clean mask and alpha, at the photo's own size.

NumPy and OpenCV, one picture at a time, no Keras. Alpha is (H, W) float32 in [0, 1]; the area of an alpha is where it
is 0.5 or more, and what is returned as mask is always that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import OptionError
from segdata.formats.images import Pixels
from segdata.transforms.resize import resize_smooth

Alpha = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

CUT = 0.5
GUIDED_RADIUS_SHARE = 0.005  # of the picture's diagonal: some two pixels of a network of 256x256, whose edges these are
GUIDED_EPS = 1e-4  # colours in [0, 1]: steps smaller than sqrt(eps), 2.6 of 255 levels, are taken for noise
MAX_FEATHER_PX = 500
_BELOW = np.nextafter(np.float32(CUT), np.float32(0))
_FLAT = 1e-6  # a pixel: a slope that rounding can make
_HAZE = np.float32(0.1)  # what the guided filter spreads over textures that resemble the person
_GUIDED_PIXELS = 250_000  # the guided filter's model is fitted on about so many
_GUIDED_LEAST_PX = 3  # its radius there
_SIGMA_PX = 4  # a Gaussian that is this wide is as good at half the size


@dataclass(frozen=True)
class Refine:
    """What is done to a prediction: the options of `segdata predict` by these names. OptionError for wrong ones.

    ``threshold``, in (0, 1), is where a person begins; None is 0.5 for networks that learned masks and no cut for
    those that learned mattes. ``feather_px`` softens the edge over about so many pixels of the photo to either side.
    """

    threshold: float | None = None
    keep_largest: bool = False
    fill_holes: bool = False
    feather_px: float = 0
    guided: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise OptionError(f"--threshold {self.threshold}: expected a number above 0 and below 1.")
        if not 0 <= self.feather_px <= MAX_FEATHER_PX:
            raise OptionError(f"--feather {self.feather_px}: expected 0 to {MAX_FEATHER_PX} pixels.")

    def recorded(self) -> dict[str, str | int | float | bool | None]:
        """Each option by its name, as a JSON holds it."""
        return {
            "threshold": self.threshold,
            "keep_largest": self.keep_largest,
            "fill_holes": self.fill_holes,
            "feather": self.feather_px,
            "refine": "guided" if self.guided else None,
        }


def refined(refine: Refine, person: Alpha, photo: Pixels) -> tuple[Bools, Alpha]:
    """The mask (H, W) and the alpha of a network that learned masks; the mask is where alpha is 0.5 or more.

    ``person`` (H, W) float32 is the probability, smoothly resized to the photo's size. It is cut with an edge of one
    pixel, then the largest part is kept and holes are filled, then the guided filter looks at the photo, then the edge
    is feathered, which does not move it. What the guided filter splits off or leaves open is kept and filled anew.
    """
    return _finished(refine, edge_alpha(person, CUT if refine.threshold is None else refine.threshold), photo)


def refined_matte(refine: Refine, alpha: Alpha, photo: Pixels) -> tuple[Bools, Alpha]:
    """The same of a network that learned mattes: alpha is as predicted, unless a threshold cuts it.

    The parts kept and the holes filled are those of the area, each with the soft edge that belongs to it.
    """
    return _finished(refine, alpha if refine.threshold is None else edge_alpha(alpha, refine.threshold), photo)


def _finished(refine: Refine, alpha: Alpha, photo: Pixels) -> tuple[Bools, Alpha]:
    alpha = _tidied(refine, alpha)
    if refine.guided:
        radius_px = max(2, round(GUIDED_RADIUS_SHARE * math.hypot(*alpha.shape)))
        alpha = _tidied(refine, guided(photo, alpha, radius_px, GUIDED_EPS))
    return alpha >= CUT, feather(alpha, refine.feather_px)


# ---- the cut -------------------------------------------------------------------------------------------------------


def edge_alpha(person: Alpha, cut: float) -> Alpha:
    """Alpha of the area where ``person`` (H, W) float32 is ``cut`` or more, with an edge of one pixel.

    clip(1/2 + (person - cut) / slope): to first order, the signed distance to the contour in pixels. Alpha is 0.5 or
    more exactly where ``person >= cut``; where there is no slope it is 0 or 1.
    """
    inside = person >= cut
    slope = _slope(person)
    steep = slope > _FLAT
    alpha = np.divide(person - np.float32(cut), slope, out=inside.astype(np.float32) - np.float32(CUT), where=steep)
    alpha += np.float32(CUT)
    return _same_area(np.clip(alpha, 0, 1, out=alpha), inside)


def _slope(values: Alpha) -> Alpha:
    """Length of the gradient by central differences, one-sided ones at the border; (H, W), a pixel."""
    import cv2

    across = cv2.Sobel(values, cv2.CV_32F, 1, 0, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    down = cv2.Sobel(values, cv2.CV_32F, 0, 1, ksize=1, scale=0.5, borderType=cv2.BORDER_REPLICATE)
    across[:, [0, -1]] *= 2
    down[[0, -1]] *= 2
    slope: Alpha = np.asarray(cv2.magnitude(across, down), np.float32)
    return slope


def _same_area(alpha: Alpha, area: Bools) -> Alpha:
    """``alpha``, changed in place where needed, so that it is 0.5 or more exactly in ``area``."""
    np.maximum(alpha, np.float32(CUT), out=alpha, where=area)
    np.minimum(alpha, _BELOW, out=alpha, where=~area)
    return alpha


def feather(alpha: Alpha, radius_px: float) -> Alpha:
    """The edge softened over about ``radius_px`` to either side; 0 changes nothing.

    A Gaussian of sigma radius/2, so that 95 % of a hard step's rise lie within the radius. Its area stays what it was
    to the pixel: where the Gaussian would move the contour (corners, what is thinner than the radius) alpha is held at
    0.5.
    """
    if radius_px == 0:
        return alpha
    return _same_area(np.clip(blurred(alpha, radius_px / 2), 0, 1), alpha >= CUT)


def blurred(values: Array, sigma_px: float) -> Array:
    """(H, W[, C]) float32 blurred by a Gaussian, the border repeated; wide ones at a smaller size, as exact by eye."""
    import cv2

    step = max(1, int(sigma_px / _SIGMA_PX))
    height, width = values.shape[:2]
    small = resize_smooth(values, -(-height // step), -(-width // step)) if step > 1 else values
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / step, borderType=cv2.BORDER_REPLICATE)
    return resize_smooth(small, height, width) if step > 1 else small


# ---- parts and holes -----------------------------------------------------------------------------------------------


def keep_largest(mask: Bools) -> Bools:
    """The largest part of a mask (H, W), diagonals connecting; of equal ones the first in reading order."""
    import cv2

    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    sizes = np.bincount(parts.reshape(-1))
    sizes[0] = 0  # the background
    largest = (sizes == sizes.max()) & (sizes > 0)
    kept: Bools = largest[parts]
    if largest.sum() > 1:
        kept = np.asarray(parts == parts.flat[kept.argmax()])
    return kept


def fill_holes(mask: Bools) -> Bools:
    """A mask (H, W) with the background that does not reach the picture's border, diagonals not connecting, in it."""
    import cv2

    count, parts = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    outside = np.zeros(count, bool)
    for side in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        outside[side] = True
    outside[0] = False  # the mask itself
    filled: Bools = ~outside[parts]
    return filled


def _tidied(refine: Refine, alpha: Alpha) -> Alpha:
    if refine.keep_largest:
        area = alpha >= CUT
        kept = keep_largest(area)
        alpha = np.where(_with_soft_edge(kept, area & ~kept, alpha > 0), alpha, np.float32(0))
    if refine.fill_holes:
        area = alpha >= CUT
        filled = fill_holes(area)
        alpha = np.where(_with_soft_edge(filled & ~area, ~filled, alpha < 1), np.float32(1), alpha)
    return alpha


def _with_soft_edge(area: Bools, rival: Bools, edge: Bools) -> Bools:
    """``area`` and what of ``edge`` belongs to it: connected with it, and not nearer to ``rival``, a part of edge."""
    if not area.any():
        return area
    found = _connected(area, edge)
    if (found & rival).any():  # distances take long, and are needed only where an edge joins both
        found = _connected(area, found & ~rival & (_distance(area) <= _distance(rival)))
    return found


def _connected(area: Bools, edge: Bools) -> Bools:
    """``area`` and what of ``edge`` is connected with it, diagonals connecting."""
    import cv2

    count, parts = cv2.connectedComponents((area | edge).astype(np.uint8), connectivity=8)
    touched = np.zeros(count, bool)
    touched[parts[area]] = True
    found: Bools = touched[parts]
    return found


def _distance(area: Bools) -> Array:
    """(H, W) float32 distance to ``area`` in pixels."""
    import cv2

    return cv2.distanceTransform((~area).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)


# ---- guided by the photo -------------------------------------------------------------------------------------------


def guided(photo: Pixels, alpha: Alpha, radius_px: int, eps: float) -> Alpha:
    """Alpha whose edge follows the photo's (hair), within ``radius_px`` of the edge it had; elsewhere as it was.

    ``guided_filter`` in full where at least a quarter of the window around a pixel is on the other side of the edge
    (to radius/2 from a straight one), faded out to where there is none. Of what it finds the lowest and the highest
    tenth become 0 and 1: haze, which would show on a white background.
    """
    import cv2

    side = 2 * radius_px + 1
    area = (alpha >= CUT).astype(np.uint8)
    count = cv2.boxFilter(area, cv2.CV_32F, (side, side), normalize=False, borderType=cv2.BORDER_REPLICATE)
    share = np.minimum(count, side**2 - count)  # whole numbers, so exactly 0 far from any edge
    weight = np.minimum(share * np.float32(4 / side**2), np.float32(1))
    if not weight.any():
        return alpha
    step = max(1, min(radius_px // _GUIDED_LEAST_PX, round(math.sqrt(alpha.size / _GUIDED_PIXELS))))
    found = np.clip((guided_filter(photo, alpha, radius_px, eps, step) - _HAZE) / (1 - 2 * _HAZE), 0, 1)
    return np.where(weight > 0, alpha + weight * (found - alpha), alpha)


def guided_filter(photo: Pixels, alpha: Alpha, radius_px: int, eps: float, step: int = 1) -> Alpha:
    """The guided filter of He, Sun, Tang (PAMI 2013) with a colour guide, eq. 19 to 21: (H, W) float32, not clipped.

    In each window of 2 radius + 1 pixels, cut off at the picture's border, alpha is fitted by a linear function of the
    colours (in [0, 1]), with ``eps`` on its slopes; a pixel gets the mean of all functions whose window it is in. With
    ``step`` they are fitted on a picture that many times smaller and enlarged (He and Sun 2015, "Fast Guided Filter").
    """
    height, width = alpha.shape
    small = (-(-height // step), -(-width // step))
    guide, target = resize_smooth(photo, *small) / 255, resize_smooth(alpha, *small).astype(np.float64)
    *slopes, offset = _linear_model(guide, target, max(1, round(radius_px / step)), eps)
    result: Alpha = resize_smooth(offset.astype(np.float32), height, width)
    for channel, slope in enumerate(slopes):
        result += photo[:, :, channel] * resize_smooth((slope / 255).astype(np.float32), height, width)
    return result


def _linear_model(guide: Array, target: Array, radius_px: int, eps: float) -> tuple[Array, Array, Array, Array]:
    """Slopes by red, green and blue, and the offset, averaged over windows: (H, W) float64 each.

    In 64 bits: of a grey photo the covariance has a determinant that 32 bits lose.
    """
    mean = _Mean(radius_px, target.shape)
    r, g, b = (np.ascontiguousarray(guide[:, :, i]) for i in range(3))
    mr, mg, mb, mt = mean(r), mean(g), mean(b), mean(target)
    tr, tg, tb = mean(r * target) - mr * mt, mean(g * target) - mg * mt, mean(b * target) - mb * mt
    rr, gg, bb = (mean(x * x) - mx * mx + eps for x, mx in ((r, mr), (g, mg), (b, mb)))
    rg, rb, gb = mean(r * g) - mr * mg, mean(r * b) - mr * mb, mean(g * b) - mg * mb
    c_rr, c_rg, c_rb = gg * bb - gb * gb, gb * rb - rg * bb, rg * gb - gg * rb  # cofactors of the covariance
    c_gg, c_gb, c_bb = rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg
    determinant = rr * c_rr + rg * c_rg + rb * c_rb
    ar = (c_rr * tr + c_rg * tg + c_rb * tb) / determinant
    ag = (c_rg * tr + c_gg * tg + c_gb * tb) / determinant
    ab = (c_rb * tr + c_gb * tg + c_bb * tb) / determinant
    return mean(ar), mean(ag), mean(ab), mean(mt - ar * mr - ag * mg - ab * mb)


class _Mean:
    """Means over square windows, of the pixels that are in the picture."""

    def __init__(self, radius_px: int, shape: tuple[int, ...]) -> None:
        self.side = 2 * radius_px + 1
        self.share = 1 / self._sum(np.ones(shape))

    def __call__(self, values: Array) -> Array:
        return self._sum(values) * self.share

    def _sum(self, values: Array) -> Array:
        import cv2

        window = (self.side, self.side)
        return cv2.boxFilter(values, cv2.CV_64F, window, normalize=False, borderType=cv2.BORDER_CONSTANT)
