"""The files of one video: which kind of picture becomes which, and what is left when the writing ends otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segdata.errors import OptionError
from segdata.formats.videos import Frame, VideoInfo, VideoWriter
from segmodels.predicting.rendering import SAVES, Look, Segmented
from segmodels.predicting.sinks import ALPHA_VIDEOS, Sinks, check_alpha_video, kind_of
from tests.material import frames_of, info_of
from tests.segmodels.material import BINARY

pytest.importorskip("av")

Pixels = npt.NDArray[np.uint8]
HEIGHT, WIDTH = 20, 30
INFO = VideoInfo(WIDTH, HEIGHT, Fraction(10), time_base=Fraction(1, 10_000), steady=True)


def segmented(number: int, height: int = HEIGHT, width: int = WIDTH) -> Segmented:
    """A grey frame, brighter with its number, with a person on the left."""
    photo = np.full((height, width, 3), 20 + 10 * number, np.uint8)
    alpha = np.zeros((height, width), np.float32)
    alpha[:, : width // 2] = 1
    return Segmented(photo, alpha.astype(np.uint8), alpha, BINARY, 0.5, Fraction(number, 10))


def sinks_of(out: Path, saves: Sequence[str] = SAVES, background: str = "white", alpha_video: str = "webm") -> Sinks:
    for save in saves:
        (out / save).mkdir(parents=True, exist_ok=True)
    return Sinks(out, "n", Look(tuple(saves), background), INFO, alpha_video)


def write(sinks: Sinks, numbers: Sequence[int]) -> None:
    for number in numbers:
        found = segmented(number)
        sinks.write(sinks.pictures(found), Frame(found.photo, found.time))


def below(out: Path) -> set[str]:
    return {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}


KINDS_BY_SAVE = [
    ("white", "webm", ("png", "png", "mp4", "webm", "mp4", "mp4", "gif")),
    ("blur", "prores", ("png", "png", "mp4", "prores", "mp4", "mp4", "gif")),
    ("transparent", "webm", ("png", "png", "mp4", "webm", "webm", "mp4", "gif")),
    ("transparent", "prores", ("png", "png", "mp4", "prores", "prores", "mp4", "gif")),
    ("transparent", "png", ("png", "png", "mp4", "png", "png", "mp4", "gif")),
]


@pytest.mark.parametrize(("background", "alpha_video", "expected"), KINDS_BY_SAVE)
def test_what_is_transparent_becomes_what_can_be(background: str, alpha_video: str, expected: tuple[str, ...]) -> None:
    look = Look(SAVES, background)
    assert tuple(kind_of(save, look, alpha_video) for save in SAVES) == expected


def test_alpha_videos_are_known() -> None:
    for kind in ALPHA_VIDEOS:
        check_alpha_video(kind)
    with pytest.raises(OptionError, match="--alpha-video 'mp4': expected one of webm, prores, png"):
        check_alpha_video("mp4")


@pytest.mark.parametrize("background", ["white", "transparent"])
@pytest.mark.parametrize("alpha_video", ALPHA_VIDEOS)
def test_the_files_are_those_it_names(tmp_path: Path, background: str, alpha_video: str) -> None:
    sinks = sinks_of(tmp_path, SAVES, background, alpha_video)
    with sinks:
        write(sinks, range(3))
    assert (sinks.frames, sinks.audio) == (3, None)
    assert [file.partition("/")[0] for file in sinks.files] == list(SAVES)
    for file in sinks.files:
        path = tmp_path / file
        assert path.is_dir() == (path.suffix == "")
        if path.is_dir():
            assert sorted(one.name for one in path.iterdir()) == [f"{number:06}.png" for number in range(3)]
        elif path.suffix != ".gif":  # has a slower clock
            assert [frame.time for frame in frames_of(path)] == [Fraction(number, 10) for number in range(3)]
    there = {file.partition("/")[2].partition("/")[0] for file in below(tmp_path)}
    assert there == {Path(file).name for file in sinks.files}


def test_masks_and_alpha_are_exact(tmp_path: Path) -> None:
    sinks = sinks_of(tmp_path, ("mask", "alpha"))
    with sinks:
        write(sinks, range(2))
    for save, level in (("mask", 1), ("alpha", 255)):
        for path in (tmp_path / save / "n").iterdir():
            with Image.open(path) as picture:
                assert picture.mode == "L"
                pixels = np.asarray(picture)
            assert (pixels[:, : WIDTH // 2] == level).all()
            assert (pixels[:, WIDTH // 2 :] == 0).all()


def test_a_file_is_as_large_as_its_pictures(tmp_path: Path) -> None:
    sinks = sinks_of(tmp_path, ("overlay", "collage", "cutout"))
    with sinks:
        write(sinks, range(2))
    sizes = [frames_of(tmp_path / file)[0].pixels.shape[:2] for file in sinks.files]
    assert sizes == [(HEIGHT, WIDTH), (HEIGHT, 3 * WIDTH + 16), (HEIGHT, WIDTH)]


def test_pictures_of_a_run_that_was_stopped_are_gone(tmp_path: Path) -> None:
    folder = tmp_path / "mask" / "n"
    folder.mkdir(parents=True)
    for name in ("000001.png", "000777.png"):
        (folder / name).write_bytes(b"old")
    sinks = sinks_of(tmp_path, ("mask", "overlay"))
    with sinks:
        write(sinks, range(2))
    assert sorted(path.name for path in folder.iterdir()) == ["000000.png", "000001.png"]
    assert (folder / "000001.png").read_bytes() != b"old"


def test_other_inputs_pictures_stay(tmp_path: Path) -> None:
    (tmp_path / "mask" / "m").mkdir(parents=True)
    (tmp_path / "mask" / "m" / "000000.png").write_bytes(b"other")
    (tmp_path / "mask" / "n.png").write_bytes(b"a photo's")
    with sinks_of(tmp_path, ("mask",)) as sinks:
        write(sinks, range(1))
    assert below(tmp_path) == {"mask/m/000000.png", "mask/n.png", "mask/n/000000.png"}


def write_and_raise(sinks: Sinks, error: type[BaseException]) -> None:
    with sinks:
        write(sinks, range(5))
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_a_block_that_ends_by_an_error_leaves_what_plays_and_nothing_whole(
    tmp_path: Path, error: type[BaseException]
) -> None:
    saves = ("mask", "overlay", "cutout", "collage", "gif")
    sinks = sinks_of(tmp_path, saves)
    with pytest.raises(error):
        write_and_raise(sinks, error)
    videos = {"overlay/n.part.mp4", "cutout/n.part.webm", "collage/n.part.mp4", "gif/n.part.gif"}
    assert below(tmp_path) == videos | {f"mask/n/{number:06}.png" for number in range(5)}
    for file in videos:
        assert len(frames_of(tmp_path / file)) == 5


def test_one_file_that_cannot_be_opened_ends_all(tmp_path: Path) -> None:
    sinks = sinks_of(tmp_path, ("overlay", "collage"))
    (tmp_path / "collage").rmdir()
    with pytest.raises(FileNotFoundError, match=r"n\.part\.mp4"), sinks:
        write(sinks, range(3))
    assert below(tmp_path) == {"overlay/n.part.mp4"}
    assert len(frames_of(tmp_path / "overlay/n.part.mp4")) == 1


def test_one_file_that_cannot_be_finished_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finish = VideoWriter._finish

    def full(writer: VideoWriter) -> None:
        finish(writer)
        if writer.path.parent.name == "collage":
            raise OSError(28, "No space left on device", str(writer.part))

    monkeypatch.setattr(VideoWriter, "_finish", full)
    sinks = sinks_of(tmp_path, ("overlay", "collage"))
    with pytest.raises(OSError, match="No space left"), sinks:
        write(sinks, range(3))
    assert not [name for name in below(tmp_path) if name.startswith("collage/") and ".part." not in name]
    assert len(frames_of(tmp_path / "overlay" / "n.part.mp4")) == 3


def test_nothing_written_leaves_no_file(tmp_path: Path) -> None:
    sinks = sinks_of(tmp_path)
    with sinks:
        pass
    assert below(tmp_path) == set()
    assert (sinks.frames, sinks.audio) == (0, None)


def humming(path: Path) -> VideoInfo:
    """A film with sound; what it says of itself."""
    import av

    with av.open(str(path), "w") as container:
        video, audio = container.add_stream("mpeg4", rate=10), container.add_stream("aac", rate=48_000, layout="mono")
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(3):
            container.mux(video.encode(av.VideoFrame.from_ndarray(segmented(number).photo, "rgb24")))
        piece: Any = av.AudioFrame.from_ndarray(np.zeros((1, 14_400), np.float32), "fltp", "mono")
        piece.sample_rate = 48_000
        container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return info_of(path)


@pytest.mark.parametrize(
    ("saves", "expected"),
    [
        (("overlay",), "copied"),
        (("overlay", "cutout"), "the sound was re-encoded from aac to opus"),
        (("gif", "overlay"), "copied"),
        (("gif",), None),
        (("mask", "alpha"), None),
    ],
)
def test_sound_is_said_of_what_can_hold_it(tmp_path: Path, saves: tuple[str, ...], expected: str | None) -> None:
    info = humming(tmp_path / "source.mp4")
    for save in saves:
        (tmp_path / save).mkdir()
    sinks = Sinks(tmp_path, "n", Look(saves), info, "webm", tmp_path / "source.mp4")
    with sinks:
        write(sinks, range(3))
    assert sinks.audio == expected
