"""Flicker of masks from frame to frame of a video: its figure and its cure.

NumPy and OpenCV at the network's size, frame by frame; what is kept is one frame, however long the video. Letterbox
bars are to be cut off first: they stand still while the picture moves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import OptionError, did_you_mean

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.uint8]

# On portraits panned and zoomed over, still to fast: of ema the lowest whose mean IoU against the truth fell nowhere
# by more than 0.0001; it mixes places where something moves, and from 0.6 on it costs. flow gains down to 0.3, but
# those portraits did not change shape, as people do.
WEIGHTS = {"ema": 0.7, "flow": 0.6}
KINDS = ("none", *WEIGHTS)

RELIABLE_ERROR = 15.0  # grey levels, the mean over a window; from 10 to 25 smoothing comes out nearly the same
ERROR_WINDOW_PX = 5
CUT_SHARE = 0.4  # 600 cuts from one portrait to another: at most 0.36, 99 % below 0.24; moving by 6 px a frame: 0.64
MAX_CHANNELS = 64  # at a time: OpenCV 5.0 ends the process where an array of more than 128 is warped


@dataclass(frozen=True)
class Smooth:
    """How masks are smoothed over time: ``none``, ``ema`` (in place) or ``flow`` (along the motion).

    ``weight`` is the share of the new frame, above 0 and at most 1, which is no smoothing; ``none`` has 1.
    """

    kind: str
    weight: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"--smooth {self.kind!r}: expected one of them.{did_you_mean(self.kind, KINDS)}")
        if not 0 < self.weight <= 1:  # NaN neither
            raise OptionError(
                f"--smooth {self.kind}:{self.weight:g}: expected a weight above 0 and at most 1, the new frame's share."
            )
        if self.kind == "none" and self.weight != 1:
            raise OptionError(f"--smooth none:{self.weight:g}: none takes no weight.")


NOT_SMOOTHED = Smooth("none", 1.0)


def smooth_option(text: str | None) -> Smooth:
    """What ``ema``, ``ema:0.6``, ``flow``, ``flow:0.6``, ``none`` and None ask for; OptionError for anything else."""
    if text is None or text == "none":
        return NOT_SMOOTHED
    kind, colon, number = text.partition(":")
    if kind not in WEIGHTS:
        raise OptionError(f"--smooth {text!r}: expected a kind, or KIND:WEIGHT.{did_you_mean(kind, KINDS)}")
    if not colon:
        return Smooth(kind, WEIGHTS[kind])
    try:
        return Smooth(kind, float(number))
    except ValueError as error:
        raise OptionError(f"--smooth {text!r}: {number!r} is no number. Write it as in {kind}:0.6.") from error


# ---- motion ----------------------------------------------------------------------------------------------------------


class Flow:
    """The motion from each frame to the next, by Farneback 2003.

    After ``step``, ``reliable`` (h, w) bool says of each pixel whether the flow is to be believed: it leads to a place
    inside the previous frame where, on average over 5x5 pixels, the grey is within 15 levels of what is here. None
    where the flow is None.

    It is a cut where less than 0.4 of the pixels are reliable: from one scene to another there is nothing to follow,
    and where a flash or a jerk leaves as little, the previous mask is no help either. Two scenes that are both nearly
    black, or both of one grey, are not told apart.
    """

    def __init__(self) -> None:
        self.reliable: Bools | None = None
        self._previous: Grey | None = None

    def step(self, grey: Grey) -> Floats | None:
        """Where each pixel of this frame, (h, w) uint8, was in the previous one.

        (h, w, 2) float32: pixels to the right and down, to be added to the pixel's own place. None on the first frame,
        after a cut, and where the size changes.
        """
        previous, self._previous, self.reliable = self._previous, grey.copy(), None
        if previous is None or previous.shape != grey.shape:
            return None
        flow = _farneback(grey, previous)
        reliable = _reliable(grey, previous, flow)
        if reliable.mean() < CUT_SHARE:
            return None
        self.reliable = reliable
        return flow


def _farneback(grey: Grey, previous: Grey) -> Floats:
    import cv2

    # 3 levels of halves, windows of 15 px, 3 rounds: larger windows found no more, 2 rounds less, and 10 rounds little
    # more in three times the time.
    flow: Floats = cv2.calcOpticalFlowFarneback(grey, previous, None, 0.5, 3, 15, 3, 5, 1.1, 0)  # type: ignore[call-overload]
    return flow


def _reliable(grey: Grey, previous: Grey, flow: Floats) -> Bools:
    import cv2

    height, width = grey.shape
    x, y = _places(flow)
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)  # to the edges of the last pixels
    error = cv2.absdiff(warp(previous, flow), grey).astype(np.float32)
    error = np.asarray(cv2.blur(error, (ERROR_WINDOW_PX, ERROR_WINDOW_PX), borderType=cv2.BORDER_REPLICATE))
    found: Bools = inside & (error <= RELIABLE_ERROR)
    return found


def _places(flow: Floats) -> tuple[Array, Array]:
    """The columns x and rows y, (h, w) float32, that a flow leads to."""
    height, width = flow.shape[:2]
    columns, rows = (np.arange(length, dtype=np.float32) for length in (width, height))
    return flow[..., 0] + columns, flow[..., 1] + rows[:, None]


def warp(previous: Array, flow: Floats, nearest: bool = False) -> Array:
    """``previous`` (h, w[, C]) as it lies in the frame that ``flow`` starts from; the border is repeated.

    Bilinear, places rounded to 1/32 px as OpenCV does; ids want ``nearest``.
    """
    import cv2

    x, y = _places(flow)
    interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    channels = previous.reshape(*previous.shape[:2], -1)
    warped = np.empty_like(channels)
    for k in range(0, channels.shape[2], MAX_CHANNELS):
        part = np.ascontiguousarray(channels[..., k : k + MAX_CHANNELS])
        found = cv2.remap(part, x, y, interpolation, borderMode=cv2.BORDER_REPLICATE)
        warped[..., k : k + MAX_CHANNELS] = found.reshape(part.shape)  # OpenCV drops a last axis of 1
    return warped.reshape(previous.shape)


# ---- the cure --------------------------------------------------------------------------------------------------------


class Smoother:
    """Probabilities of each frame, mixed with what came out for the one before.

    ``ema``: weight * new + (1 - weight) * old. ``flow``: the same, old being warped to where the new frame has it;
    where the flow is not reliable the new is taken as it is.
    """

    def __init__(self, smooth: Smooth) -> None:
        self.smooth = smooth
        self._old: Floats | None = None

    def step(self, shares: Floats, flow: Floats | None, reliable: Bools | None) -> Floats:
        """``shares`` (h, w, classes) float32 of a frame, smoothed; what sums to 1 still does.

        ``flow`` and ``reliable`` are those of ``Flow``; where they are None, on the first frame and after a cut, and
        for ``none`` always, the very array comes back. What comes back is kept for the next frame: do not write to it.
        """
        if self.smooth.kind == "none":
            return shares
        if self._old is None or flow is None or reliable is None:
            self._old = shares.copy()  # it may be a view of a whole batch
            return shares
        kept: float | Floats = 1 - self.smooth.weight
        old = self._old
        if self.smooth.kind == "flow":
            old, kept = warp(old, flow), (reliable * np.float32(kept))[..., None]
        mixed = old - shares  # new + (1 - weight) * (old - new): where nothing is kept, the new to the last bit
        mixed *= kept
        mixed += shares
        self._old = mixed
        return mixed


# ---- the figure ------------------------------------------------------------------------------------------------------


class Flicker:
    """How steady masks are: the mean over pairs of consecutive frames of the mean IoU of the two masks.

    The previous mask is warped to the frame (nearest). A class in neither mask does not count, nor do pixels where the
    flow is not reliable, which include those that were not in the picture; nor pairs that this leaves without a pixel.
    A mask that follows its person perfectly comes to about 0.99, since the flow is not perfect.
    """

    def __init__(self) -> None:
        self.pairs = 0
        self._sum = 0.0
        self._previous: Ids | None = None

    def step(self, ids: Ids, flow: Floats | None, reliable: Bools | None) -> None:
        """Count a frame's mask (h, w) uint8; with the previous one only where there is a flow, which a cut has not."""
        previous, self._previous = self._previous, ids.copy()
        if previous is None or flow is None or reliable is None:
            return
        found = _mean_iou(warp(previous, flow, nearest=True)[reliable], ids[reliable])
        if not math.isnan(found):
            self.pairs += 1
            self._sum += found

    def mean_iou(self) -> float:
        """In [0, 1]; NaN where there were no two frames to compare."""
        return self._sum / self.pairs if self.pairs else math.nan


def _mean_iou(first: Ids, second: Ids) -> float:
    """Over the classes that are in either (N,); NaN for N = 0."""
    sizes = np.bincount(first, minlength=256) + np.bincount(second, minlength=256)
    hits = np.bincount(first[first == second], minlength=256)
    there = sizes > 0
    return float((hits[there] / (sizes - hits)[there]).mean()) if there.any() else math.nan


# ---- both, with one flow ---------------------------------------------------------------------------------------------


class Tracker:
    """Smooths a video's probabilities and measures the flicker before, ``raw``, and after, ``smoothed``.

    Farneback runs once a frame, for ``none`` too. ``person_from`` is for networks of two classes: a pixel is the person
    where the share of class 1 is at least that (mattes: 0.5). For None it is of the class with the highest share, the
    first of equals.
    """

    def __init__(self, smooth: Smooth = NOT_SMOOTHED, person_from: float | None = None) -> None:
        self.smooth = smooth
        self.person_from = person_from
        self.raw = Flicker()
        self.smoothed = self.raw if smooth.kind == "none" else Flicker()
        self._flow = Flow()
        self._smoother = Smoother(smooth)

    def step(self, shares: Floats, grey: Grey) -> Floats:
        """The smoothed probabilities of the next frame: ``shares`` (h, w, classes) float32, ``grey`` (h, w) uint8.

        Both without letterbox bars. The first frame and one after a cut come back as they are. Do not write to what
        comes back.
        """
        flow = self._flow.step(grey)
        reliable = self._flow.reliable
        smoothed = self._smoother.step(shares, flow, reliable)
        self.raw.step(self._ids(shares), flow, reliable)
        if self.smoothed is not self.raw:
            self.smoothed.step(self._ids(smoothed), flow, reliable)
        return smoothed

    def _ids(self, shares: Floats) -> Ids:
        if self.person_from is not None:
            return (shares[..., 1] >= self.person_from).astype(np.uint8)
        if shares.shape[-1] == 2:  # a tenth of argmax's time
            return (shares[..., 1] > shares[..., 0]).astype(np.uint8)
        return np.asarray(shares.argmax(axis=-1), np.uint8)
