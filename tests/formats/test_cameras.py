"""Cameras and windows, with an OpenCV that has both."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pytest

from segdata.errors import ImageRefused
from segdata.formats import cameras
from segdata.formats.cameras import Camera, Window, has_screen


class Capture:
    """OpenCV's camera: gives what it was made with, blue first, then nothing."""

    def __init__(self, frames: list[Any], there: bool = True) -> None:
        self.frames, self.there, self.released, self.settings = frames, there, False, {}

    def isOpened(self) -> bool:  # noqa: N802
        return self.there

    def set(self, name: int, value: float) -> bool:
        self.settings[name] = value
        return True

    def read(self) -> tuple[bool, Any]:
        frame = self.frames.pop(0) if self.frames else None
        return frame is not None, frame

    def release(self) -> None:
        self.released = True


def plugged(monkeypatch: pytest.MonkeyPatch, frames: list[Any], there: bool = True) -> Capture:
    capture = Capture(frames, there)
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture)
    return capture


def blue(level: int) -> Any:
    frame = np.zeros((4, 6, 3), np.uint8)
    frame[:, :, 0] = level
    return frame


def test_a_camera_gives_rgb_frames_and_the_time_since_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = plugged(monkeypatch, [blue(level) for level in (1, 2, 3)])
    clock = iter([5_000_000_000, 5_040_000_000])
    monkeypatch.setattr(cameras.time, "monotonic_ns", lambda: next(clock))
    with Camera(0) as camera:
        assert (camera.height, camera.width) == (4, 6)
        frames = list(camera)
    assert [float(frame.time) for frame in frames] == [0, 0.04]
    assert [frame.pixels[0, 0].tolist() for frame in frames] == [[0, 0, 2], [0, 0, 3]]  # 1 was read to see its size
    assert capture.settings == {cv2.CAP_PROP_BUFFERSIZE: 1}
    assert capture.released


def test_a_camera_may_need_a_moment_and_may_be_grey(monkeypatch: pytest.MonkeyPatch) -> None:
    plugged(monkeypatch, [None, None, np.full((4, 6), 9, np.uint8), np.full((4, 6), 9, np.uint8)])
    with Camera(0) as camera:
        assert next(iter(camera)).pixels.tolist() == np.full((4, 6, 3), 9).tolist()


def test_a_camera_that_is_not_there_or_gives_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    capture = plugged(monkeypatch, [], there=False)
    with pytest.raises(ImageRefused, match="camera:3: OpenCV finds no such camera"):
        Camera(3)
    assert capture.released
    capture = plugged(monkeypatch, [None] * 9)
    with pytest.raises(ImageRefused, match="camera:3: it is there and gives no frame"):
        Camera(3)
    assert capture.released


def test_opencv_is_quiet_about_a_camera_that_is_not_there(capfd: pytest.CaptureFixture[str]) -> None:
    level = cv2.utils.logging.getLogLevel()
    with pytest.raises(ImageRefused):
        Camera(97)
    assert capfd.readouterr() == ("", "")
    assert cv2.utils.logging.getLogLevel() == level


# ---- windows


class Screen:
    """OpenCV's windows: what is shown, what is pressed, what was closed."""

    def __init__(self) -> None:
        self.shown: dict[str, Any] = {}
        self.key = -1

    def imshow(self, title: str, pixels: Any) -> None:
        self.shown[title] = pixels.copy()

    def waitKey(self, _: int) -> int:  # noqa: N802
        return self.key

    def getWindowProperty(self, title: str, _: int) -> float:  # noqa: N802
        if title not in self.shown:
            raise cv2.error("NULL window")
        return 1.0

    def destroyWindow(self, title: str) -> None:  # noqa: N802
        del self.shown[title]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    screen = Screen()
    for name in ("imshow", "waitKey", "getWindowProperty", "destroyWindow"):
        monkeypatch.setattr(cv2, name, getattr(screen, name))
    yield screen
    assert screen.shown == {}


def test_a_window_shows_rgb_and_closes_at_the_end(screen: Screen) -> None:
    red = np.zeros((2, 2, 3), np.uint8)
    red[:, :, 0] = 200
    with Window("people") as window:
        assert window.show(red)
        assert screen.shown["people"][0, 0].tolist() == [0, 0, 200]  # blue, green, red


@pytest.mark.parametrize(("key", "goes_on"), [(-1, True), (ord("x"), True), (ord("q"), False), (27, False)])
def test_q_and_esc_end_it(screen: Screen, key: int, goes_on: bool) -> None:
    screen.key = key
    with Window("people") as window:
        assert window.show(np.zeros((2, 2, 3), np.uint8)) is goes_on


def test_a_window_that_was_closed_stays_closed(screen: Screen) -> None:
    with Window("people") as window:
        assert window.show(np.zeros((2, 2, 3), np.uint8))
        screen.shown.clear()
        assert not window.show(np.zeros((2, 2, 3), np.uint8))
        assert screen.shown == {}


@pytest.mark.parametrize(
    ("system", "display", "framework", "expected"),
    [
        ("linux", "", "QT", False),
        ("linux", "DISPLAY", "QT", True),
        ("linux", "WAYLAND_DISPLAY", "GTK3", True),
        ("linux", "DISPLAY", "", False),
        ("darwin", "", "COCOA", True),
        ("win32", "", "", False),
    ],
)
def test_where_there_is_a_screen(
    monkeypatch: pytest.MonkeyPatch, system: str, display: str, framework: str, expected: bool
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv(display, ":0")
    monkeypatch.setattr(cameras.sys, "platform", system)
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: framework)
    assert has_screen() is expected


def test_frames_stop_when_the_camera_is_pulled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plugged(monkeypatch, [blue(1), blue(2), None, blue(3)])
    with Camera(0) as camera:
        assert len(list(islice(camera, 5))) == 1
