"""Pictures made of a photo and its alpha: the person before another background, cut out, and side by side.

Photos are (H, W, 3) uint8 RGB, alpha is (H, W) float32 in [0, 1] of the same size. NumPy and OpenCV, no Keras.
"""

from __future__ import annotations

import difflib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused, OptionError
from segdata.formats.files import read_regular
from segdata.formats.images import Pixels
from segdata.transforms.resize import resize_smooth

Alpha = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

FAR_SHARE, NEAR_SHARE = 0.07, 0.005  # radii of the two passes of blur fusion, of the longer side: 90 and 6 px of 1280
BLUR_SHARE = 0.025  # of the longer side
MAX_BLUR_PX = 1000
GAP_PX = 8
_FUSION_PX = 480  # the longer side of the picture that blur fusion blurs; at full size its colours are 5 % nearer
_AT_ONCE = 1 << 20  # pixels of the soft edge: memory stays small where all of a large photo is soft
_TINY = np.float32(1e-6)
_SIGMA_PX = 4  # a Gaussian that is this wide is as good at half the size
_KNOWN = ("blur", "blur:PX", "transparent", "#RRGGBB")


# ---- the person's colours --------------------------------------------------------------------------------------------


def foreground(photo: Pixels, alpha: Alpha) -> Pixels:
    """(H, W, 3) uint8: the person's own colours where 0 < alpha < 1, without the old background; elsewhere the photo.

    Blur fusion of Forte and Pitie 2021, "Approximate Fast Foreground Colour Estimation", in two passes.
    """
    found = photo.copy()
    flat = found.reshape(-1, 3)
    for soft, colors in _soft_colors(photo, alpha):
        flat[soft] = np.rint(colors)
    return found


def composite(photo: Pixels, alpha: Alpha, behind: Pixels) -> Pixels:
    """The person before ``behind`` (H, W, 3): alpha times the person's own colours, and the rest from ``behind``."""
    import cv2

    found: Pixels = behind.copy()
    cv2.copyTo(photo, (alpha >= 1).astype(np.uint8), found)
    flat = found.reshape(-1, 3)
    for soft, colors in _soft_colors(photo, alpha):
        share = alpha.reshape(-1)[soft, None]
        flat[soft] = np.rint(share * colors + (1 - share) * flat[soft])
    return found


def cutout(photo: Pixels, alpha: Alpha) -> Pixels:
    """(H, W, 4) uint8 RGBA, colours not multiplied by alpha, and black where the rounded alpha is 0: nothing of the
    background leaks.
    """
    import cv2

    opacity = np.rint(alpha * 255).astype(np.uint8)
    colors = cv2.copyTo(foreground(photo, alpha), opacity, np.zeros_like(photo))
    found: Pixels = np.asarray(cv2.merge([*cv2.split(colors), opacity]), np.uint8)
    return found


def _soft_colors(photo: Pixels, alpha: Alpha) -> Iterator[tuple[Array, Array]]:
    """Where the edge is soft: numbers of pixels in reading order, and the person's colours there, (N, 3) float32.

    The last step of blur fusion: F = f + a (I - a f - (1 - a) b), of f and b, the blurred colours of person and
    background, which are smooth and therefore made of a smaller picture.
    """
    soft = np.flatnonzero((alpha > 0) & (alpha < 1))
    if not soft.size:
        return
    person, rest = (resize_smooth(x, *alpha.shape).reshape(-1, 3) for x in _blur_fusion(photo, alpha))
    pixels, shares = photo.reshape(-1, 3), alpha.reshape(-1)
    for start in range(0, soft.size, _AT_ONCE):
        at = soft[start : start + _AT_ONCE]
        yield at, _fused(pixels[at], shares[at, None], person[at], rest[at])


def _fused(pixels: Array, alpha: Array, person: Array, rest: Array) -> Array:
    """Eq. 7 of Forte and Pitie: blurred colours of the person, and what they leave unexplained of a pixel, by alpha."""
    person = person.astype(np.float32, copy=False)
    found: Array = np.clip(person + alpha * (pixels - alpha * person - (1 - alpha) * rest), 0, 255)
    return found


def _blur_fusion(photo: Pixels, alpha: Alpha) -> tuple[Pixels, Pixels]:
    """Blurred colours of the person and of the background, (h, w, 3) uint8, at a smaller size."""
    height, width = alpha.shape
    scale = min(1.0, _FUSION_PX / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = resize_smooth(photo, *size).astype(np.float32)
    share = resize_smooth(alpha, *size)[:, :, None]
    person = rest = small
    for radius_share in (FAR_SHARE, NEAR_SHARE):
        radius_px = max(1, round(radius_share * max(size)))
        blurred_person, rest = _mean(person, share, radius_px), _mean(rest, 1 - share, radius_px)
        person = _fused(small, share, blurred_person, rest)
    return np.rint(blurred_person).astype(np.uint8), np.rint(rest).astype(np.uint8)


def _mean(colors: Array, weights: Array, radius_px: int) -> Array:
    """Means (H, W, 3) over windows, by weights (H, W, 1); black where all of them are 0."""
    import cv2

    window = (2 * radius_px + 1,) * 2
    total = cv2.boxFilter(weights, cv2.CV_32F, window)[:, :, None]
    found: Array = cv2.boxFilter(colors * weights, cv2.CV_32F, window) / np.maximum(total, _TINY)
    return found


# ---- backgrounds -----------------------------------------------------------------------------------------------------


class Background(Protocol):
    """What stands behind the person: (H, W, 3) uint8 of the photo's size.

    ``time`` is the photo's in its video, in seconds. What is returned may be used again: it is not to be written to.
    """

    def __call__(self, photo: Pixels, alpha: Alpha, time: Fraction) -> Pixels:
        """The background of one photo."""


def background(text: str) -> Background | None:
    """The background that ``--background`` names; None for ``transparent``.

    A CSS colour name, #RRGGBB, #RGB, blur, blur:PX, transparent, or the path of a picture or video (./red for a file of
    a colour's name). OptionError for anything else, and for a file that cannot be read.
    """
    word = text.strip().lower()
    if word == "transparent":
        return None
    if word == "blur":
        return Blurred()
    if word.startswith("blur:"):
        return Blurred(_blur_px(text))
    color = _color(word)
    return _file(text) if color is None else Plain(color)


def _color(word: str) -> tuple[int, int, int] | None:
    from PIL import ImageColor

    named = ImageColor.colormap.get(word, word)
    if not isinstance(named, str) or not re.fullmatch("#([0-9a-f]{3}|[0-9a-f]{6})", named):
        return None
    digits = named[1:] if len(named) == 7 else "".join(2 * digit for digit in named[1:])
    return int(digits[:2], 16), int(digits[2:4], 16), int(digits[4:], 16)


def _blur_px(text: str) -> float:
    try:
        radius_px = float(text.partition(":")[2])
    except ValueError:
        radius_px = 0
    if not 0 < radius_px <= MAX_BLUR_PX:
        raise OptionError(f"--background {text!r}: expected blur:PX with pixels above 0 and at most {MAX_BLUR_PX}.")
    return radius_px


def _file(text: str) -> Background:
    from segdata.formats.videos import is_video

    path = Path(text)
    if not text or not os.path.exists(path):  # Path.exists raises for names that are too long
        from PIL import ImageColor

        close = difflib.get_close_matches(text.lower(), [*_KNOWN, *ImageColor.colormap], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise OptionError(
            f"--background {text!r}: no colour and no file of that name, expected white, black or another CSS colour, "
            f"#RRGGBB, blur, blur:PX, transparent, or the path of a picture or video.{hint}"
        )
    try:
        return Video(path) if is_video(path) else Picture(read_picture(path))
    except ImageRefused as error:
        raise OptionError(f"--background {text!r}: {error}. Expected a picture or video that can be read.") from error


def read_picture(path: Path) -> Pixels:
    """(H, W, 3) uint8 RGB, turned by its EXIF orientation. ImageRefused for what does not decode fully."""
    from segdata.formats.raw_pictures import read_rgb

    return read_rgb(read_regular(path))


@dataclass(frozen=True)
class Plain:
    """One colour, RGB."""

    color: tuple[int, int, int]

    def __call__(self, photo: Pixels, alpha: Alpha, time: Fraction) -> Pixels:
        """The colour, everywhere."""
        found = np.empty_like(photo)
        found.reshape(photo.shape[0], -1)[:] = np.tile(np.array(self.color, np.uint8), photo.shape[1])
        return found


@dataclass(frozen=True)
class Blurred:
    """The photo's own background, blurred over about ``radius_px`` to either side; None is 2.5 % of the longer side.

    A Gaussian of sigma radius/2 over the background alone: the person leaves no ghost in it.
    """

    radius_px: float | None = None

    def __call__(self, photo: Pixels, alpha: Alpha, time: Fraction) -> Pixels:
        """Made at a smaller size where the blur is wide; behind a person wider than the blur, the mean colour."""
        import cv2

        height, width = alpha.shape
        sigma_px = (BLUR_SHARE * max(height, width) if self.radius_px is None else self.radius_px) / 2
        step = max(1, int(sigma_px / _SIGMA_PX))
        size = -(-height // step), -(-width // step)
        weights = np.rint((1 - alpha) * 255).astype(np.uint8)
        of_background = cv2.multiply(photo, cv2.merge([weights] * 3), scale=1 / 255)
        # a pixel that is the person's in part is left out: where alpha is off by a little, its colours bleed
        share = resize_smooth(weights, *size).astype(np.float32) / 255
        inner = cv2.erode(share, np.ones((3, 3), np.uint8)) ** 2
        colors = resize_smooth(of_background, *size) / np.maximum(share, _TINY)[:, :, None] * inner[:, :, None]
        return _grown(_normalised(colors, inner, sigma_px / step), height, width)


def _normalised(colors: Array, weights: Array, sigma_px: float) -> Array:
    """Blurred colours (h, w, 3), already multiplied by their weights, over blurred weights; the mean where none are."""
    import cv2

    total = weights.sum()
    mean = colors.sum((0, 1)) / total if total else np.full(3, 128, np.float32)
    blurred = cv2.GaussianBlur(np.dstack([colors, weights]), (0, 0), sigma_px, borderType=cv2.BORDER_REPLICATE)
    little = np.float32(1e-3)
    found: Array = (blurred[:, :, :3] + little * mean) / (blurred[:, :, 3:] + little)
    return found


def _grown(colors: Array, height: int, width: int) -> Pixels:
    return resize_smooth(np.rint(np.clip(colors, 0, 255)).astype(np.uint8), height, width)


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture (H, W, 3) uint8 that covers the photo's size: what juts out is cut off, the same on both sides."""

    pixels: Pixels
    last: dict[tuple[int, int], Pixels] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, photo: Pixels, alpha: Alpha, time: Fraction) -> Pixels:
        """The picture at the photo's size, made anew only where that is not the last photo's."""
        size = alpha.shape[0], alpha.shape[1]
        found = self.last.get(size)
        if found is None:
            found = covering(self.pixels, *size)
            self.last.clear()
            self.last[size] = found
        return found


def covering(pixels: Pixels, height: int, width: int) -> Pixels:
    """The middle of ``pixels`` that has the shape of ``height`` x ``width``, at that size."""
    h, w = pixels.shape[:2]
    inner_h, inner_w = max(1, min(h, round(w * height / width))), max(1, min(w, round(h * width / height)))
    y, x = (h - inner_h) // 2, (w - inner_w) // 2
    return resize_smooth(np.ascontiguousarray(pixels[y : y + inner_h, x : x + inner_w]), height, width)


class Video:
    """A video's frames by their time, from its beginning again after its end.

    It keeps its place between calls, of one thread at a time; times that go back cost reading the video anew.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._one_caller = threading.Lock()
        self._length: Fraction | None = None  # known once its end was seen
        self._shown: Pixels | None = None  # the frame at the size that was asked for last
        self._begin()

    def __call__(self, photo: Pixels, alpha: Alpha, time: Fraction) -> Pixels:
        """The last frame that had begun by ``time``, covering the photo's size."""
        size = alpha.shape[0], alpha.shape[1]
        with self._one_caller:
            self._go_to(time)
            if self._shown is None or self._shown.shape[:2] != size:
                self._shown = covering(self._frame.pixels, *size)
            return self._shown

    def _begin(self) -> None:
        self._frames = _frames(self._path)
        self._frame = next(self._frames)
        self._next = next(self._frames, None)
        self._gap = Fraction(1, 25)  # of a video of one frame
        self._shown = None

    def _go_to(self, time: Fraction) -> None:
        at = time if self._length is None else time % self._length
        if at < self._frame.time:
            self._begin()
        while self._next is not None and self._next.time <= at:
            self._gap = self._next.time - self._frame.time
            self._frame, self._next, self._shown = self._next, next(self._frames, None), None
        if self._next is None and self._length is None:
            self._length = self._frame.time + (self._frame.duration or self._gap)
            self._go_to(time)


def _frames(path: Path) -> Iterator[Any]:
    from segdata.formats.videos import VideoReader

    with VideoReader(path) as reader:
        yield from reader


# ---- side by side ----------------------------------------------------------------------------------------------------


def collage(panels: Sequence[Pixels]) -> Pixels:
    """Pictures (H, W, 3) uint8 side by side at the first one's height, with 8 px of white between them."""
    height = panels[0].shape[0]
    gap = np.full((height, GAP_PX, 3), 255, np.uint8)
    row = [gap]
    for panel in panels:
        h, w = panel.shape[:2]
        row += [panel if h == height else resize_smooth(panel, height, max(1, round(w * height / h))), gap]
    return np.hstack(row[1:-1])
