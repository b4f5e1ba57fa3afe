"""Videos: times, colours and sound that survive a round trip; files that play however their writing ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from segdata.errors import ImageRefused, OptionError
from segdata.formats.images import Pixels
from segdata.formats.videos import KINDS, VideoInfo, VideoReader, VideoWriter, is_video
from tests.material import frames_of, info_of

av = pytest.importorskip("av")

NTSC = Fraction(30_000, 1001)
TICK = Fraction(1, 30_000)


def drawn(height: int = 48, width: int = 64) -> Pixels:
    """Colours that differ in every corner."""
    y, x = np.mgrid[:height, :width]
    right, down = x * 255 // max(1, width - 1), y * 255 // max(1, height - 1)
    return np.stack([right, down, 255 - (right + down) // 2], 2).astype(np.uint8)


def bar(step: int) -> Pixels:
    """A grey picture with a white bar that moves."""
    pixels = np.full((48, 64, 3), 60, np.uint8)
    pixels[:, step % 60 : step % 60 + 4] = 255
    return pixels


def named(folder: Path, kind: str, stem: str = "out") -> Path:
    return folder / f"{stem}{KINDS[kind].suffix}"


def write(path: Path, kind: str, frames: list[Pixels], info: VideoInfo, sound: Path | None = None) -> VideoWriter:
    height, width = frames[0].shape[:2]
    with VideoWriter(path, height, width, info, kind, sound) as writer:
        for step, pixels in enumerate(frames):
            writer.write(pixels, step / info.rate)
    return writer


def copy(source: Path, path: Path, kind: str, frames: int | None = None) -> VideoWriter:
    with VideoReader(source) as reader:
        writer = VideoWriter(path, reader.info.height, reader.info.width, reader.info, kind, source)
        with writer:
            for number, frame in enumerate(reader):
                if number == frames:
                    break
                writer.write(frame.pixels, frame.time, frame.duration)
    return writer


def clapped(path: Path, codec: str = "aac", count: int = 60, rate: Fraction = NTSC) -> Path:
    """A film that is black and silent up to its second second, then white and loud, by PyAV alone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=rate)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = 1 / rate
        audio = container.add_stream(codec, rate=48_000, layout="mono")
        audio.format = audio.codec_context.codec.audio_formats[0]
        container.start_encoding()
        for step in range(count):
            bright = 255 if step / rate >= 1 else 0
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), bright, np.uint8), "rgb24")
            frame.pts, frame.time_base = step, 1 / rate
            container.mux(video.encode(frame))
        for at in range(0, int(count / rate * 48_000), 960):
            now = np.arange(at, at + 960)
            wave = np.where(now >= 48_000, np.sin(now / 48_000 * 6283), 0) * 20_000
            piece = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            piece.sample_rate, piece.pts, piece.time_base = 48_000, at, Fraction(1, 48_000)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


def flash(path: Path) -> float:
    """When the picture turns white, as the container counts time."""
    return next(float(info_of(path).start + frame.time) for frame in frames_of(path) if frame.pixels.mean() > 128)


def sounding(path: Path) -> Iterator[tuple[float, float]]:
    """The time of each sample of the sound, as the container counts it, and its size."""
    with av.open(str(path)) as container:
        for frame in container.decode(container.streams.audio[0]):
            samples = np.abs(frame.to_ndarray().astype(float)).reshape(-1)
            scale = 1 if frame.format.name.startswith("flt") else 32_768
            for number, size in enumerate(samples[:: 1 if frame.format.is_planar else len(frame.layout.channels)]):
                yield float(frame.pts * frame.time_base) + number / frame.sample_rate, size / scale


def clap(path: Path) -> float:
    return next(time for time, size in sounding(path) if size > 0.3)


def sound_codec(path: Path) -> str | None:
    return info_of(path).audio


# ---- times


def test_29_97_stays_30000_by_1001(tmp_path: Path) -> None:
    import cv2

    info = VideoInfo(64, 48, NTSC, time_base=TICK, steady=True)
    path = tmp_path / "a.mp4"
    write(path, "mp4", [bar(step) for step in range(90)], info)
    found = info_of(path)
    assert (found.rate, found.frames, found.time_base, found.steady) == (NTSC, 90, TICK, True)
    assert found.seconds == float(90 / NTSC)
    assert [frame.time for frame in frames_of(path)] == [step / NTSC for step in range(90)]
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 90
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(float(NTSC))
    assert not list(tmp_path.glob("*.part*"))


@pytest.mark.parametrize("kind", ["mp4", "prores", "webm"])
def test_a_variable_rate_stays_variable(tmp_path: Path, kind: str) -> None:
    times = [Fraction(time) for time in ("0", "1/25", "1/10", "1/2", "51/100", "3", "7", "71/10")]
    path = named(tmp_path, kind)
    with VideoWriter(path, 48, 64, VideoInfo(64, 48, Fraction(10), time_base=Fraction(1, 3000)), kind) as writer:
        for time in times:
            writer.write(bar(int(time * 10)), time, Fraction(1, 5))
    assert [frame.time for frame in frames_of(path)] == times
    assert info_of(path).seconds == pytest.approx(7.3, abs=0.1)  # 1 / rate, where a container asks for no more
    if kind != "webm":
        assert info_of(path).seconds == pytest.approx(7.3, abs=1e-3)


def test_times_that_do_not_grow_are_moved_by_a_unit(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 48, 64, VideoInfo(64, 48, NTSC, time_base=TICK), "mp4") as writer:
        for time in (0, 0, Fraction(1, 10)):
            writer.write(bar(0), Fraction(time))
    assert [frame.time for frame in frames_of(tmp_path / "a.mp4")] == [0, TICK, Fraction(1, 10)]


def test_a_reader_gives_times_that_grow(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, "mp4", [bar(step) for step in range(6)], VideoInfo(64, 48, Fraction(25)))
    with VideoReader(path) as reader:
        frames = list(reader._frames)
        for frame, pts in zip(frames, (None, 3600, 9000, 14_400, 18_000), strict=True):
            frame.pts = pts
        reader._frames = (frame for frame in frames)
        assert [frame.time * 25 for frame in reader] == [0, 1, 2, Fraction(5, 2), 4, 5]


def test_a_frame_is_a_keyframe_every_two_seconds(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, "mp4", [bar(step) for step in range(50)], VideoInfo(64, 48, Fraction(10), steady=True))
    with av.open(str(path)) as container:
        keys = [packet.pts * packet.time_base for packet in container.demux(video=0) if packet.is_keyframe]
    assert max(later - one for one, later in zip(keys, [*keys[1:], 5], strict=True)) <= 2


# ---- pictures


@pytest.mark.parametrize("kind", KINDS)
def test_colours_survive(tmp_path: Path, kind: str) -> None:
    path = named(tmp_path, kind)
    write(path, kind, [drawn(240, 320)] * 3, VideoInfo(320, 240, Fraction(10)))
    frames = frames_of(path)
    assert len(frames) == 3
    for frame in frames:
        difference = frame.pixels.astype(int) - drawn(240, 320)
        assert np.abs(difference.mean((0, 1))).max() < 1
        assert np.abs(difference).mean() < (7 if kind == "gif" else 2)  # the wrong matrix makes an mp4's 7


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.container != "gif"])
def test_the_matrix_is_said(tmp_path: Path, kind: str) -> None:
    write(named(tmp_path, kind), kind, [drawn()], VideoInfo(64, 48, Fraction(10)))
    with av.open(str(named(tmp_path, kind))) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (1, 1)


@pytest.mark.parametrize(("kind", "decoder"), [("prores", "prores"), ("webm", "libvpx-vp9")])
def test_alpha_survives(tmp_path: Path, kind: str, decoder: str) -> None:
    alpha = np.repeat(np.array([255, 0, 128, 255], np.uint8), 16)[None, :, None].repeat(48, 0)
    pixels = np.concatenate([drawn(), alpha], 2)
    write(named(tmp_path, kind), kind, [pixels] * 3, VideoInfo(64, 48, Fraction(10)))
    with av.open(str(named(tmp_path, kind))) as container:
        context = av.CodecContext.create(decoder, "r")
        context.extradata = container.streams.video[0].codec_context.extradata
        context.codec_tag = container.streams.video[0].codec_context.codec_tag
        context.width, context.height = 64, 48
        found = [f for packet in container.demux(video=0) if packet.size for f in context.decode(packet)]
    rgba = found[0].to_ndarray(format="rgba").astype(int)
    assert np.abs(rgba[:, 4:12, 3] - 255).max() <= 1
    assert rgba[:, 20:28, 3].max() <= 1
    assert np.abs(rgba[:, 36:44, 3] - 128).max() <= 4


@pytest.mark.parametrize(("kind", "expected"), [("mp4", (4, 6)), ("webm", (3, 5)), ("prores", (3, 5)), ("gif", (3, 5))])
def test_an_odd_size(tmp_path: Path, kind: str, expected: tuple[int, int]) -> None:
    path = named(tmp_path, kind)
    grey = np.full((3, 5, 3), 90, np.uint8)
    write(path, kind, [grey] * 2, VideoInfo(5, 3, Fraction(10)))
    pixels = frames_of(path)[0].pixels
    assert pixels.shape == (*expected, 3)
    assert np.abs(pixels.astype(int) - 90).max() <= 2  # black where the rest were empty


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_film_is_read_upright(tmp_path: Path, degrees: int, mirrored: bool) -> None:
    path, stored = tmp_path / "a.mp4", drawn()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(degrees, hflip=mirrored)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, "rgb24")))
        container.mux(stream.encode(None))
    turned = np.rot90(stored, degrees // 90)
    expected = turned[:, ::-1] if mirrored else turned
    info, pixels = info_of(path), frames_of(path)[0].pixels
    assert (info.height, info.width) == pixels.shape[:2] == expected.shape[:2]
    assert np.abs(pixels.astype(int) - expected).mean() < 6
    assert info.sample_aspect_ratio == (Fraction(3, 4) if degrees in (90, 270) else Fraction(4, 3))


def test_frames_of_another_size_are_scaled_to_the_first(tmp_path: Path) -> None:
    parts = []
    for number, (height, width) in enumerate([(48, 64), (96, 80)]):
        parts.append(tmp_path / f"{number}.ts")
        with av.open(str(parts[-1]), "w") as container:
            stream = container.add_stream("libx264", rate=25, options={"bf": "0"})
            stream.width, stream.height = width, height
            for _ in range(5):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn(height, width), "rgb24")))
            container.mux(stream.encode(None))
    both = tmp_path / "both.ts"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = frames_of(both)
    assert len(frames) == 10
    assert {frame.pixels.shape for frame in frames} == {(48, 64, 3)}
    assert [frame.time for frame in frames] == sorted({frame.time for frame in frames})


def test_a_gif_is_small_and_slow(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    write(path, "gif", [np.full((500, 250, 3), step * 5, np.uint8) for step in range(30)], VideoInfo(250, 500, NTSC))
    frames = frames_of(path)
    assert frames[0].pixels.shape == (480, 240, 3)
    assert [frame.time for frame in frames] == [Fraction(step, 10) for step in range(10)]
    assert [int(frame.pixels[0, 0, 0]) for frame in frames] == [step * 15 for step in range(10)]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_frames_give_the_same_bytes(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    frames = [np.roll(noise, step, 1) for step in range(20)]
    for stem in "ab":
        write(named(tmp_path, kind, stem), kind, frames, VideoInfo(64, 48, NTSC, time_base=TICK, steady=True))
    assert named(tmp_path, kind, "a").read_bytes() == named(tmp_path, kind, "b").read_bytes()


def test_two_reads_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write(path, "mp4", [bar(step) for step in range(30)], VideoInfo(64, 48, NTSC))
    for one, other in zip(frames_of(path), frames_of(path), strict=True):
        assert one.time == other.time
        assert np.array_equal(one.pixels, other.pixels)


# ---- sound


@pytest.mark.parametrize(
    ("codec", "suffix", "kind", "expected", "note"),
    [
        ("aac", ".mp4", "mp4", "aac", ""),
        ("flac", ".mkv", "mp4", "flac", ""),
        ("pcm_s16le", ".mov", "prores", "pcm_s16le", ""),
        ("libopus", ".mkv", "webm", "opus", ""),
        ("aac", ".mp4", "webm", "opus", "the sound was re-encoded from aac to opus"),
        ("pcm_s16le", ".avi", "mp4", "aac", "the sound was re-encoded from pcm_s16le to aac"),
        ("aac", ".ts", "mp4", "aac", "the sound was re-encoded from aac to aac"),
    ],
)
def test_sound_comes_along_in_step(
    tmp_path: Path, codec: str, suffix: str, kind: str, expected: str, note: str
) -> None:
    source = clapped(tmp_path / f"source{suffix}", codec)
    path = named(tmp_path, kind)
    writer = copy(source, path, kind)
    assert writer.audio_note == note
    assert sound_codec(path) == expected
    assert clap(path) - flash(path) == pytest.approx(clap(source) - flash(source), abs=0.002)


def test_sound_ends_with_the_last_frame(tmp_path: Path) -> None:
    source = clapped(tmp_path / "source.mp4", count=90)
    for kind in ("mp4", "webm"):
        copy(source, named(tmp_path, kind), kind, frames=45)
        end = max(time for time, _ in sounding(named(tmp_path, kind)))
        assert end == pytest.approx(float(45 / NTSC), abs=0.06)
    assert max(time for time, _ in sounding(source)) > 2.9  # and there was more


def test_a_gif_and_a_silent_film_have_no_sound(tmp_path: Path) -> None:
    source = clapped(tmp_path / "source.mp4", count=20)
    assert copy(source, tmp_path / "a.gif", "gif").audio_note == ""
    assert sound_codec(tmp_path / "a.gif") is None
    write(tmp_path / "mute.mp4", "mp4", [bar(0)], VideoInfo(64, 48, NTSC))
    assert copy(tmp_path / "mute.mp4", tmp_path / "b.mp4", "mp4").audio_note == ""
    assert sound_codec(tmp_path / "b.mp4") is None


def test_sound_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"nothing of the kind")
    info = VideoInfo(64, 48, NTSC)
    writer = write(tmp_path / "a.mp4", "mp4", [bar(0)], info, tmp_path / "broken.mp4")
    assert writer.audio_note.startswith("the sound could not be carried over because unreadable: 'broken.mp4'")
    assert len(frames_of(tmp_path / "a.mp4")) == 1


# ---- writing that ends otherwise


def write_and_raise(writer: VideoWriter, error: type[BaseException]) -> None:
    with writer:
        for step in range(7):
            writer.write(bar(step), Fraction(step, 10))
        raise error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_written_plays_after_an_error(tmp_path: Path, kind: str, error: type[BaseException]) -> None:
    path = named(tmp_path, kind)
    path.write_bytes(b"of before")
    writer = VideoWriter(path, 48, 64, VideoInfo(64, 48, Fraction(10)), kind)
    with pytest.raises(error):
        write_and_raise(writer, error)
    assert path.read_bytes() == b"of before"
    assert writer.part.name == f"out.part{KINDS[kind].suffix}"
    assert len(frames_of(writer.part)) == 7


def test_nothing_written_leaves_nothing(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", 48, 64, VideoInfo(64, 48, NTSC), "mp4"):
        assert (tmp_path / "a.part.mp4").exists()
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from segdata.formats.videos import VideoInfo, VideoWriter
noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
with VideoWriter(Path(sys.argv[1]), 48, 64, VideoInfo(64, 48, Fraction(30), steady=True), "mp4") as writer:
    for step in range(150):
        writer.write(np.roll(noise, step, 1), Fraction(step, 30))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_killed_writer_leaves_a_film_up_to_its_last_two_seconds(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.mp4")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "a.mp4").exists()
    assert len(frames_of(tmp_path / "a.part.mp4")) >= 90


@pytest.mark.skipif(os.name == "nt", reason="no limit on file sizes")
@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, kind: str) -> None:
    import resource

    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write(named(tmp_path, kind), kind, [np.roll(noise, 7 * n, 1) for n in range(400)], VideoInfo(64, 48, NTSC))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.filename == str(tmp_path / f"out.part{KINDS[kind].suffix}")
    assert isinstance(caught.value.__cause__, av.FFmpegError)
    assert frames_of(tmp_path / f"out.part{KINDS[kind].suffix}")
    assert not named(tmp_path, kind).exists()


def test_a_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "nowhere" / "a.mp4", 48, 64, VideoInfo(64, 48, NTSC), "mp4")
    with pytest.raises(FileNotFoundError, match=r"a\.part\.mp4"), writer:
        pass


def test_wrong_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'mp5' is not known\. Did you mean 'mp4'"):
        VideoWriter(tmp_path / "a.mp5", 48, 64, VideoInfo(64, 48, NTSC), "mp5")
    with pytest.raises(OptionError, match="rate of a video: 0, expected more than 0"):
        VideoInfo(64, 48, Fraction(0))
    with VideoWriter(tmp_path / "a.mp4", 48, 64, VideoInfo(64, 48, NTSC), "mp4") as writer:
        for shape in ((48, 64), (48, 64, 4), (48, 32, 3)):
            with pytest.raises(ValueError, match=r"expected \(H, W, 3\) with H = 48, W = 64"):
                writer.write(np.zeros(shape, np.uint8), Fraction(0))


# ---- files that are no whole videos


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        piece = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), "fltp", "stereo")
        piece.sample_rate = 48_000
        container.mux(stream.encode(piece))
        container.mux(stream.encode(None))


def refused_files(folder: Path) -> dict[str, str]:
    """Names of files that are no videos, and what is said of them."""
    from PIL import Image

    (folder / "folder.mp4").mkdir()
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("hello\n" * 500)
    write(folder / "real.ts", "mp4", [bar(0)] * 5, VideoInfo(64, 48, NTSC))
    (folder / "list.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nreal.ts\n#EXT-X-ENDLIST\n")
    (folder / "concat.mp4").write_text("ffconcat version 1.0\nfile real.ts\n")
    Image.fromarray(drawn()).save(folder / "picture.png")
    (folder / "picture.png").rename(folder / "picture.mp4")
    sound_only(folder / "sound.mp4")
    said = dict.fromkeys(("text.mp4", "list.mp4", "concat.mp4", "picture.mp4"), "no video file that FFmpeg reads")
    return said | {
        "folder.mp4": "is not a regular file",
        "empty.mp4": "is empty",
        "missing.mp4": "No such file",
        "sound.mp4": "has no picture track",
    }


def test_what_is_no_video_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, said in refused_files(tmp_path).items():
        with pytest.raises(ImageRefused, match=said) as caught:
            VideoReader(tmp_path / name)
        assert caught.value.reason == "unreadable"
        assert name in caught.value.detail
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ImageRefused, match="is not a regular file"):
        VideoReader(tmp_path / "pipe.mp4")


def test_a_cut_file_gives_what_decodes(tmp_path: Path) -> None:
    whole = tmp_path / "a.webm"
    write(whole, "webm", [bar(step) for step in range(60)], VideoInfo(64, 48, Fraction(10)))
    data = whole.read_bytes()
    (tmp_path / "cut.webm").write_bytes(data[: len(data) // 2])
    assert 10 < len(frames_of(tmp_path / "cut.webm")) < 60


def test_damaged_packets_are_counted_and_passed_over(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = named(tmp_path, "prores")
    write(path, "prores", [bar(step) for step in range(12)], VideoInfo(64, 48, Fraction(10)))
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for at, size in (places[4], places[7]):
        data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    with VideoReader(path) as reader:
        times = [frame.time * 10 for frame in reader]
        assert times == [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]
        assert reader.damaged == 2
    assert capfd.readouterr() == ("", "")


def test_a_file_of_which_no_frame_decodes_is_refused(tmp_path: Path) -> None:
    path = named(tmp_path, "prores")
    write(path, "prores", [bar(0)], VideoInfo(64, 48, Fraction(10)))
    with av.open(str(path)) as container:
        packet = next(iter(container.demux(video=0)))
    data = bytearray(path.read_bytes())
    data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    path.write_bytes(data)
    with pytest.raises(ImageRefused, match="no frame decodes"):
        VideoReader(path)


def test_names_with_colons_and_other_letters(tmp_path: Path) -> None:
    if os.name == "nt":
        pytest.skip("no colons in names there")
    path = tmp_path / "http: Grüße%d.mp4"
    write(path, "mp4", [bar(0)] * 2, VideoInfo(64, 48, NTSC))
    assert len(frames_of(path)) == 2


def test_videos_are_known_by_their_suffix() -> None:
    assert all(is_video(Path(name)) for name in ("a.mp4", "b.MOV", "c.x.webm"))
    assert not any(is_video(Path(name)) for name in ("a.gif", "b.png", "mp4", "c.mp4.txt"))


def test_pyav_is_loaded_when_it_is_needed() -> None:
    program = "import sys; import segdata.formats.videos, segdata.formats.cameras; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
