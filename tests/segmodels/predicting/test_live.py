"""Cameras, with an OpenCV that has one and a screen: what is shown, what is written, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segdata.errors import JobFailed, OptionError, Stopped
from segdata.formats.videos import VideoWriter
from segdata.records import Geometry
from segmodels import predict
from segmodels.networks import Network
from segmodels.predict import PredictOptions, PredictReport
from segmodels.predicting import live
from segmodels.predicting.clips import ClipOptions
from segmodels.predicting.live import watch_camera
from segmodels.predicting.media import Item
from segmodels.predicting.rendering import SAVES, Look
from segmodels.predicting.results import ResultLine
from segmodels.smoothing import smooth_option
from tests.folders import lines
from tests.material import frames_of
from tests.segmodels.material import BINARY

pytest.importorskip("av")

Pixels = npt.NDArray[np.uint8]
HEIGHT, WIDTH = 24, 32
TIMES = [Fraction(milliseconds, 1000) for milliseconds in (0, 40, 90, 400, 410, 700, 720, 1500)]
CAMERA = Item(Path("camera:0"), "camera-0", "camera")


def of_red(images: Pixels) -> npt.NDArray[np.float32]:
    """A pixel is as surely a person as it is red."""
    person = images[..., 0].astype(np.float32) / np.float32(255)
    return np.stack([1 - person, person], axis=-1)


def network(runtime: Callable[[Any], Any] = of_red) -> Network:
    geometry = Geometry(size=(HEIGHT, WIDTH), fit="letterbox")
    return Network(Path("run"), "none", "mask", BINARY, geometry, 3, runtime, "0" * 64, None)


def seen(number: int) -> Pixels:
    """What the camera gives, blue first: the left ``number`` + 1 eighths are red."""
    pixels = np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    pixels[:, : (number + 1) * WIDTH // 8] = (0, 0, 255)
    return pixels


class Capture:
    """OpenCV's camera: gives what it was made with, then nothing; an exception is raised."""

    def __init__(self, given: list[Any]) -> None:
        self.given, self.released = given, False

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def set(self, name: int, value: float) -> bool:
        return True

    def read(self) -> tuple[bool, Any]:
        one = self.given.pop(0) if self.given else None
        if isinstance(one, BaseException):
            raise one
        return one is not None, one

    def release(self) -> None:
        self.released = True


class Screen:
    """OpenCV's window: what was shown in it; q is pressed when it has shown ``until`` pictures."""

    def __init__(self, until: int = 10**9) -> None:
        self.until = until
        self.shown: list[Any] = []
        self.is_open = False

    def imshow(self, title: str, pixels: Any) -> None:
        self.shown.append(pixels[:, :, ::-1].copy())
        self.is_open = True

    def waitKey(self, _: int) -> int:  # noqa: N802
        return ord("q") if len(self.shown) >= self.until else -1

    def getWindowProperty(self, title: str, _: int) -> float:  # noqa: N802
        return float(self.is_open)

    def destroyWindow(self, title: str) -> None:  # noqa: N802
        self.is_open = False


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Capture]:
    """``plug(frames)``: a camera that gives a first frame to be measured by, then those, at TIMES."""

    def plugged(given: list[Any] | int = 8) -> Capture:
        frames = [seen(number) for number in range(given)] if isinstance(given, int) else given
        capture = Capture([seen(0), *frames])
        monkeypatch.setattr(cv2, "VideoCapture", lambda number: capture)
        clock = iter(range(10**6)) if len(frames) > len(TIMES) else iter(5 + int(time * 10**9) for time in TIMES)
        monkeypatch.setattr(time, "monotonic_ns", lambda: next(clock))
        return capture

    monkeypatch.setattr(live, "has_screen", lambda: False)
    return plugged


@pytest.fixture
def show(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Screen]:
    """``show(until=3)``: a screen, before which somebody presses q at the third picture."""

    def with_screen(until: int = 10**9) -> Screen:
        screen = Screen(until)
        monkeypatch.setattr(live, "has_screen", lambda: True)
        for name in ("imshow", "waitKey", "getWindowProperty", "destroyWindow"):
            monkeypatch.setattr(cv2, name, getattr(screen, name))
        return screen

    return with_screen


def watched(out: Path | None, here: Network | None = None, **changes: Any) -> ResultLine:
    options = ClipOptions(Look(("overlay", "mask", "cutout")), smooth_option(None), "webm", 8, None)
    options = replace(options, **changes)
    for save in options.look.saves if out else ():
        assert out is not None
        (out / save).mkdir(parents=True)
    return watch_camera(here or network(), CAMERA, options, out)


def eighths(out: Path) -> list[int]:
    """How wide the person is in each mask."""
    paths = sorted((out / "mask/camera-0").iterdir())
    return [round(float((np.asarray(Image.open(path)) == 1).mean()) * 8) for path in paths]


def whole(out: Path, frames: int) -> bool:
    """Whether each file is there under its name, with so many frames at their times."""
    assert not list(out.rglob("*.part.*"))
    assert eighths(out) == [number + 1 for number in range(frames)]
    assert [frame.time for frame in frames_of(out / "cutout/camera-0.webm")] == TIMES[:frames]
    return [frame.time for frame in frames_of(out / "overlay/camera-0.mp4")] == TIMES[:frames]


# ---- files -----------------------------------------------------------------------------------------------------------


def test_each_frame_keeps_the_time_at_which_it_was_seen(tmp_path: Path, plug: Callable[..., Capture]) -> None:
    capture = plug()
    line = watched(tmp_path / "out")
    assert whole(tmp_path / "out", 8)
    assert (line.input, line.name, line.kind, line.reason) == ("camera:0", "camera-0", "camera", None)
    assert (line.height, line.width, line.frames, line.seconds) == (HEIGHT, WIDTH, 8, 1.5)
    assert Fraction(line.rate or 0) == pytest.approx(7 / 1.5, abs=0.01)
    assert line.files == ("overlay/camera-0.mp4", "mask/camera-0", "cutout/camera-0.webm")
    assert line.person_share == pytest.approx(np.mean([(number + 1) / 8 for number in range(8)]), abs=0.01)
    assert line.audio is None
    assert capture.released


@pytest.mark.parametrize(("seconds", "frames"), [(0.01, 1), (0.4, 3), (0.401, 4), (99, 8)])
def test_so_many_seconds_are_taken(tmp_path: Path, plug: Callable[..., Capture], seconds: float, frames: int) -> None:
    plug()
    assert watched(tmp_path / "out", seconds=seconds).frames == frames
    assert whole(tmp_path / "out", frames)


def test_ctrl_c_ends_it_with_whole_files(tmp_path: Path, plug: Callable[..., Capture]) -> None:
    capture = plug([seen(0), seen(1), seen(2), KeyboardInterrupt(), seen(3)])
    assert watched(tmp_path / "out").frames == 3
    assert whole(tmp_path / "out", 3)
    assert capture.released


@pytest.mark.parametrize("where", [Network.shares, VideoWriter.write], ids=["network", "encoder"])
@pytest.mark.parametrize("save", ["overlay", "cutout"])
def test_ctrl_c_at_any_moment_leaves_all_files_with_the_same_frames(
    tmp_path: Path,
    plug: Callable[..., Capture],
    monkeypatch: pytest.MonkeyPatch,
    where: Any,
    save: str,
) -> None:
    plug()
    calls = 0

    def interrupted(this: Any, *given: Any) -> Any:
        nonlocal calls
        calls += isinstance(this, Network) or this.path.parent.name == save
        if calls == 4:
            calls += 1
            os.kill(os.getpid(), signal.SIGINT)  # Python brings it to the main thread, whoever is at work
        return where(this, *given)

    monkeypatch.setattr(Network if where is Network.shares else VideoWriter, where.__name__, interrupted)
    line = watched(tmp_path / "out")
    frames = 3 if where.__name__ == "shares" else 4  # what is being written is written whole
    assert line.frames == frames
    assert whole(tmp_path / "out", frames)


def test_an_error_leaves_what_plays(tmp_path: Path, plug: Callable[..., Capture]) -> None:
    capture = plug([seen(0), seen(1), OSError("pulled")])
    with pytest.raises(OSError, match="pulled"):
        watched(tmp_path / "out")
    assert len(frames_of(tmp_path / "out/overlay/camera-0.part.mp4")) == 2
    assert not (tmp_path / "out/overlay/camera-0.mp4").exists()
    assert capture.released


def test_what_is_seen_is_smoothed(tmp_path: Path, plug: Callable[..., Capture]) -> None:
    flips = iter([0.9, 0.2] * 4)

    def unsteady(images: Pixels) -> npt.NDArray[np.float32]:
        person = np.full(images.shape[:3], next(flips), np.float32)
        return np.stack([1 - person, person], axis=-1)

    dice = np.random.default_rng(0).integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    still = np.asarray(Image.fromarray(dice).resize((WIDTH, HEIGHT)))
    plug([still] * 8)
    line = watched(tmp_path / "out", network(unsteady), smooth=smooth_option("ema:0.3"), look=Look(("mask",)))
    assert line.consecutive_iou == 0
    assert (line.smoothed_consecutive_iou or 0) > 0.5


# ---- a window --------------------------------------------------------------------------------------------------------


def test_q_ends_it_with_whole_files(tmp_path: Path, plug: Callable[..., Capture], show: Callable[..., Screen]) -> None:
    capture, screen = plug(), show(until=5)
    assert watched(tmp_path / "out").frames == 5
    assert len(screen.shown) == 5
    assert whole(tmp_path / "out", 5)
    assert capture.released
    assert not screen.is_open


def test_a_window_without_files(plug: Callable[..., Capture], show: Callable[..., Screen]) -> None:
    plug()
    screen = show(until=3)
    line = watched(None)
    assert (line.frames, line.files, line.input) == (3, (), "camera:0")
    assert len(screen.shown) == 3
    assert not screen.is_open


@pytest.mark.parametrize("background", ["white", "transparent"])
@pytest.mark.parametrize("save", SAVES)
def test_whatever_is_saved_first_can_be_shown(
    plug: Callable[..., Capture], show: Callable[..., Screen], save: str, background: str
) -> None:
    plug()
    screen = show(until=2)
    watched(None, look=Look((save,), background))
    assert {picture.dtype for picture in screen.shown} == {np.dtype(np.uint8)}
    assert {picture.shape for picture in screen.shown} == {
        (HEIGHT, 3 * WIDTH + 16 if save == "collage" else WIDTH, 3),
    }
    first = screen.shown[0]
    left, right = first[:, : WIDTH // 8 - 1], first[:, WIDTH // 8 + 1 : WIDTH]
    assert np.abs(left.mean((0, 1)) - right.mean((0, 1))).max() > 20  # the person is told from the rest


def test_a_window_is_closed_after_an_error(plug: Callable[..., Capture], show: Callable[..., Screen]) -> None:
    capture, screen = plug([seen(0), OSError("pulled")]), show()
    with pytest.raises(OSError, match="pulled"):
        watched(None)
    assert not screen.is_open
    assert capture.released


# ---- as a command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PredictReport]:
    def run(out: Path, *inputs: str, **more: Any) -> PredictReport:
        options = PredictOptions(Look(("overlay", "mask")), **more)
        return predict.predict(Path("run"), inputs or ["camera:0"], out, options)

    monkeypatch.setattr(predict, "open_network", lambda path: network())
    return run


def test_the_whole_job(tmp_path: Path, plug: Callable[..., Capture], job: Callable[..., PredictReport]) -> None:
    plug([seen(0), seen(1), KeyboardInterrupt()])
    report = job(tmp_path / "out")
    assert (report.frames, report.skipped, len(report.clips)) == (2, {}, 1)
    assert lines(tmp_path / "out/results.jsonl")[0]["files"] == ["overlay/camera-0.mp4", "mask/camera-0"]
    assert (tmp_path / "out/predictions.json").exists()


def test_a_camera_that_gives_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: Callable[..., PredictReport]
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Capture([]))
    with pytest.raises(JobFailed, match="camera:0: it is there and gives no frame"):
        job(tmp_path / "out")
    monkeypatch.setattr(live, "has_screen", lambda: True)
    with pytest.raises(JobFailed, match="camera:0: unreadable: camera:0: it is there and gives no frame"):
        predict.watch(Path("run"), ["camera:0"], PredictOptions())


def test_a_camera_that_gives_one_frame_to_be_measured_by_and_no_more_is_an_error(
    tmp_path: Path, plug: Callable[..., Capture], job: Callable[..., PredictReport]
) -> None:
    plug(0)
    with pytest.raises(JobFailed):
        job(tmp_path / "out")


def test_without_a_screen_files_must_be_asked_for(plug: Callable[..., Capture], job: Callable[..., Any]) -> None:
    plug()
    with pytest.raises(OptionError, match=r"camera:0: there is no screen to show it on\. Give --out DIR\."):
        predict.watch(Path("run"), ["camera:0"], PredictOptions())


def test_a_camera_is_looked_at_alone(tmp_path: Path, plug: Callable[..., Capture], job: Callable[..., Any]) -> None:
    capture = plug()
    Image.fromarray(seen(1)).save(tmp_path / "a.png")
    for inputs in (["camera:0", str(tmp_path / "a.png")], ["camera:0", "camera:1"]):
        with pytest.raises(OptionError, match="a camera is looked at alone"):
            job(tmp_path / "out", *inputs)
        with pytest.raises(OptionError, match="a camera is looked at alone"):
            predict.watch(Path("run"), inputs, PredictOptions())
    with pytest.raises(OptionError, match="--out is missing"):
        predict.watch(Path("run"), [str(tmp_path / "a.png")], PredictOptions())
    assert not capture.released
    assert not (tmp_path / "out").exists()


def test_ctrl_c_before_the_first_frame_is_a_run_that_was_stopped(
    tmp_path: Path, plug: Callable[..., Capture], job: Callable[..., PredictReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Capture([KeyboardInterrupt()]))
    with pytest.raises(Stopped, match="0 of 1 inputs are done"):
        job(tmp_path / "out")
    plug()
    assert job(tmp_path / "out").frames == 8


DRIVER = """
import os
import signal
import sys
import cv2
from segdata.cli import main
from segmodels import predict
from tests.segmodels.predicting.test_live import Capture, network, seen

class Real(Capture):
    def read(self):
        if len(self.given) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return super().read()

cv2.VideoCapture = lambda number: Real([seen(0)] * 12)
predict.open_network = lambda path: network()
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="no signals of POSIX")
def test_ctrl_c_is_no_error_of_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DRIVER, "predict", "run", "camera:0"]
    dark = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    given = {"capture_output": True, "text": True, "check": False, "env": dark}
    done: Any = subprocess.run([*command, "--out", str(tmp_path / "out")], **given)  # type: ignore[call-overload]
    assert (done.returncode, done.stderr) == (0, "")
    assert "camera-0: 6 frames, " in done.stdout
    assert len(frames_of(tmp_path / "out/overlay/camera-0.mp4")) == 6
    blind: Any = subprocess.run(command, **given)  # type: ignore[call-overload]
    assert blind.returncode == 2
    assert blind.stderr.startswith("segdata: error: camera:0: there is no screen to show it on.")
