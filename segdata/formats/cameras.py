"""Cameras, and a window to watch in: OpenCV's, both loaded in the bodies that need them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Self

import numpy as np

from segdata.errors import ImageRefused
from segdata.formats.images import Pixels
from segdata.formats.videos import Frame

_TRIES = 5  # some cameras give nothing at first
_QUIT = (ord("q"), ord("Q"), 27)  # 27 is Esc


class Camera:
    """OpenCV's camera ``number``, whose frames come until it gives no more; ``height`` and ``width`` in pixels.

    A frame's time is when it was read, from the first one's on. A slow reader gets the newest frame, and misses others,
    where the camera's driver can do that. ImageRefused(``unreadable``) where there is no such camera, or it gives no
    frame.
    """

    def __init__(self, number: int) -> None:
        import cv2

        with _quiet():
            self._capture = cv2.VideoCapture(number)
            if not self._capture.isOpened():
                self._capture.release()
                raise ImageRefused("unreadable", f"camera:{number}: OpenCV finds no such camera, or it is in use")
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            tries = (self._read() for _ in range(_TRIES))
            first = next((pixels for pixels in tries if pixels is not None), None)
        if first is None:
            self._capture.release()
            raise ImageRefused("unreadable", f"camera:{number}: it is there and gives no frame, expected one")
        self.height, self.width = first.shape[:2]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        start = None
        while (pixels := self._read()) is not None:
            now = time.monotonic_ns()
            start = now if start is None else start
            yield Frame(pixels, Fraction(now - start, 1_000_000_000))

    def _read(self) -> Pixels | None:
        import cv2

        done, pixels = self._capture.read()
        if not done or pixels is None:
            return None
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


@contextmanager
def _quiet() -> Iterator[None]:
    """OpenCV says of a camera that is missing what it tried, in many lines on stderr."""
    from cv2.utils import logging

    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


class Window:
    """A window on the screen, of one title, to be closed at the end of its block."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._is_open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def show(self, pixels: Pixels) -> bool:
        """Show (H, W, 3) RGB. False when q or Esc was pressed, or the window was closed."""
        import cv2

        if self._is_open and not self._is_visible():
            return False
        cv2.imshow(self.title, np.ascontiguousarray(pixels[:, :, ::-1]))
        self._is_open = True
        return cv2.waitKey(1) & 0xFF not in _QUIT and self._is_visible()

    def _is_visible(self) -> bool:
        import cv2

        try:
            return cv2.getWindowProperty(self.title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # some systems know no such window any more
            return False

    def close(self) -> None:
        """Close it, where it was shown and nobody has closed it yet."""
        import cv2

        if self._is_open and self._is_visible():
            cv2.destroyWindow(self.title)
            cv2.waitKey(1)  # without it the window stays
        self._is_open = False


def has_screen() -> bool:
    """Whether there is a screen, and an OpenCV that can show something on it."""
    if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    import cv2

    try:
        return bool(cv2.currentUIFramework())
    except cv2.error:  # the build without windows
        return False
