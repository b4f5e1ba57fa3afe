"""Videos through networks whose answer is known: each frame's mask at its place and time, whole files or none, and
nothing left running.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segdata.errors import JobFailed, Stopped
from segdata.formats import videos
from segdata.formats.videos import KINDS, Frame, VideoInfo, VideoReader, VideoWriter
from segdata.labels import LabelMap, distinct_colors
from segdata.records import Geometry
from segmodels import predict
from segmodels.networks import Network
from segmodels.predict import PredictOptions, PredictReport
from segmodels.predicting import clips, rendering
from segmodels.predicting.clips import ClipOptions, predict_clip
from segmodels.predicting.media import Item
from segmodels.predicting.rendering import Look
from segmodels.predicting.results import ResultLine
from segmodels.smoothing import smooth_option
from tests.folders import lines, tree
from tests.material import frames_of, info_of
from tests.segmodels.material import BINARY

av = pytest.importorskip("av")

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Runtime = Callable[[Any], Floats]
NTSC = Fraction(30_000, 1001)
HEIGHT, WIDTH, BITS = 48, 64, 8
SEEN = ("overlay", "mask")
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")


# ---- networks --------------------------------------------------------------------------------------------------------


def of_red(images: Pixels) -> Floats:
    """A pixel is as surely a person as it is red."""
    person = images[..., 0].astype(np.float32) / np.float32(255)
    return np.stack([1 - person, person], axis=-1)


def network(runtime: Runtime = of_red, **changes: Any) -> Network:
    """One without Keras, whose size is that of the films."""
    geometry = Geometry(size=(HEIGHT, WIDTH), fit="letterbox")
    made = Network(Path("run"), "none", "mask", BINARY, geometry, 3, runtime, "0" * 64, None)
    return replace(made, **changes)


class Failing:
    """Raises when it is asked once more than ``after`` times."""

    def __init__(self, error: BaseException, after: int) -> None:
        self.error, self.left = error, after

    def __call__(self, images: Pixels) -> Floats:
        self.left -= 1
        if self.left < 0:
            raise self.error
        return of_red(images)


# ---- films -----------------------------------------------------------------------------------------------------------


def numbered(number: int, height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """A picture that says its number: eight columns, red where the bit is set."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 1] = 60
    for bit in range(BITS):
        if number >> bit & 1:
            pixels[:, bit * width // BITS : (bit + 1) * width // BITS, 0] = 255
    return pixels


def number_in(mask: Any) -> int:
    """The number that a mask (h, w) of such a picture says."""
    height, width = mask.shape
    middles = [(2 * bit + 1) * width // BITS // 2 for bit in range(BITS)]
    return sum(int(mask[height // 2, column] != 0) << bit for bit, column in enumerate(middles))


def red_number(pixels: Any) -> int:
    """The number that a frame of such a film says, also under an overlay."""
    return number_in(pixels[..., 0].astype(int) - pixels[..., 1] > 60)


def film(
    path: Path,
    frames: Sequence[Pixels] | int = 20,
    rate: Fraction = NTSC,
    times: Sequence[Fraction] | None = None,
    sound: Path | None = None,
) -> Path:
    """A film of pictures, or of so many numbered ones; the kind by its suffix."""
    shown = [numbered(number) for number in range(frames)] if isinstance(frames, int) else frames
    height, width = shown[0].shape[:2]
    kind = next(name for name, kind in KINDS.items() if kind.suffix == path.suffix)
    path.parent.mkdir(exist_ok=True)
    unit = Fraction(1, 24_000 if times is None and rate.numerator == 24_000 else 30_000)
    info = VideoInfo(width, height, rate, time_base=unit, steady=times is None)
    made = path.with_name(f"being-made{path.suffix}")  # a writer's own name for it may be another film's here
    with VideoWriter(made, height, width, info, kind, sound) as writer:
        for number, pixels in enumerate(shown):
            writer.write(pixels, times[number] if times else number / rate)
    return made.replace(path)


def sounding(path: Path, codec: str = "aac", seconds: float = 1) -> Path:
    """A film that hums, by PyAV alone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=NTSC)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        audio = container.add_stream(codec, rate=48_000, layout="mono")
        audio.format = audio.codec_context.codec.audio_formats[0]
        for number in range(int(seconds * NTSC)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(numbered(number), "rgb24")))
        for at in range(0, int(seconds * 48_000), 960):
            wave = np.sin((at + np.arange(960)) / 48_000 * 6283) * 20_000
            piece = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", "mono")
            piece.sample_rate, piece.pts, piece.time_base = 48_000, at, Fraction(1, 48_000)
            container.mux(audio.encode(piece))
        container.mux(audio.encode(None))
        container.mux(video.encode(None))
    return path


def pictures(folder: Path) -> list[Any]:
    """The pictures of a folder by their number, which has no gaps."""
    paths = sorted(folder.iterdir())
    assert [path.name for path in paths] == [f"{number:06}.png" for number in range(len(paths))]
    return [np.asarray(Image.open(path)) for path in paths]


def numbers_in(folder: Path) -> list[int]:
    return [number_in(mask) for mask in pictures(folder)]


# ---- running ---------------------------------------------------------------------------------------------------------


def run_clip(
    path: Path,
    out: Path,
    here: Network | None = None,
    saves: Sequence[str] = SEEN,
    background: str = "white",
    smooth: str = "none",
    **changes: Any,
) -> ResultLine:
    """One film, called ``clip``, into a new folder."""
    for save in saves:
        (out / save).mkdir(parents=True)
    options = ClipOptions(Look(tuple(saves), background), smooth_option(smooth), "webm", 8, None)
    return predict_clip(here or network(), Item(path, "clip", "video"), replace(options, **changes), out)


def delayed(call: Any, seconds: float = 0.005) -> Any:
    """``call``, which takes so long before it begins."""

    def late(*given: Any, **more: Any) -> Any:
        time.sleep(seconds)
        return call(*given, **more)

    return late


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PredictReport]:
    """``job(inputs, out, network)``: the whole of predict, with that network for the run's."""

    def run(
        inputs: Sequence[str | Path], out: Path, here: Network | None = None, saves: Sequence[str] = SEEN, **more: Any
    ) -> PredictReport:
        monkeypatch.setattr(predict, "open_network", lambda path: here or network())
        return predict.predict(Path("run"), list(map(str, inputs)), out, PredictOptions(Look(tuple(saves)), **more))

    return run


def running() -> list[str]:
    """The names of segdata's threads."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("segdata-")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert running() == []


# ---- each frame at its place -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 8, 64])
def test_picture_i_is_the_mask_of_frame_i_however_long_each_takes_to_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    dice, draw = random.Random(batch_size), rendering.segmented

    def slow(*given: Any) -> Any:
        time.sleep(dice.random() / 100)
        return draw(*given)

    monkeypatch.setattr(clips, "segmented", slow)
    monkeypatch.setattr(clips, "_PAINTERS", 4)
    saves = ("mask", "alpha", "overlay", "cutout")
    line = run_clip(film(tmp_path / "a.mp4", 41), tmp_path / "out", saves=saves, batch_size=batch_size)
    assert line.frames == 41
    for save in ("mask", "alpha"):
        assert numbers_in(tmp_path / "out" / save / "clip") == list(range(41))
    for file in ("overlay/clip.mp4", "cutout/clip.webm"):
        assert [red_number(frame.pixels) for frame in frames_of(tmp_path / "out" / file)] == list(range(41))


@pytest.mark.parametrize("batch_size", [1, 3, 8, 1024])
def test_files_do_not_depend_on_the_batch_size(tmp_path: Path, batch_size: int) -> None:
    source = film(tmp_path / "a.mp4", 10)
    for name, size in (("one", 2), ("other", batch_size)):
        run_clip(source, tmp_path / name, saves=(*SEEN, "composite", "gif"), smooth="flow", batch_size=size)
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def test_the_network_sees_whole_batches(tmp_path: Path) -> None:
    sizes: list[int] = []

    def counting(images: Pixels) -> Floats:
        sizes.append(len(images))
        return of_red(images)

    run_clip(film(tmp_path / "a.mp4", 20), tmp_path / "out", network(counting), batch_size=8)
    assert sizes == [8, 8, 4]


RATES = {"29.97": NTSC, "23.976": Fraction(24_000, 1001), "25": Fraction(25), "60": Fraction(60)}
VARIABLE = [Fraction(time) for time in ("0", "1/25", "1/10", "1/2", "51/100", "3", "7", "71/10")]
FILES = ("overlay/clip.mp4", "collage/clip.mp4", "composite/clip.mp4", "cutout/clip.webm")
WRITTEN = tuple(file.partition("/")[0] for file in FILES)


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_count_rate_and_every_time_are_the_sources(tmp_path: Path, rate: Fraction) -> None:
    source = film(tmp_path / "a.mp4", 24, rate)
    line = run_clip(source, tmp_path / "out", saves=WRITTEN)
    assert (line.frames, line.rate, line.files) == (24, str(rate), FILES)
    for file in FILES:
        frames = frames_of(tmp_path / "out" / file)
        off = Fraction(1, 2000) if file.endswith("webm") else 0  # which counts milliseconds
        assert [abs(frame.time - number / rate) <= off for number, frame in enumerate(frames)] == [True] * 24
        found = info_of(tmp_path / "out" / file)
        assert (found.rate, found.steady) == (rate, True)
        assert found.seconds == pytest.approx(float(24 / rate), abs=0.001)


def test_a_variable_rate_stays_variable(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", 8, Fraction(10), VARIABLE)
    assert run_clip(source, tmp_path / "out", saves=WRITTEN).frames == 8
    for file in FILES:
        assert [frame.time for frame in frames_of(tmp_path / "out" / file)] == VARIABLE
        assert info_of(tmp_path / "out" / file).rate == info_of(source).rate


def test_prores_and_pictures_for_what_is_cut_out(tmp_path: Path) -> None:
    source = film(tmp_path / "a.mp4", 5)
    saves = ("cutout", "composite")
    line = run_clip(source, tmp_path / "prores", saves=saves, background="transparent", alpha_video="prores")
    assert line.files == ("cutout/clip.mov", "composite/clip.mov")
    assert [frame.time for frame in frames_of(tmp_path / "prores/cutout/clip.mov")] == [i / NTSC for i in range(5)]
    line = run_clip(source, tmp_path / "png", saves=saves, alpha_video="png")
    assert line.files == ("cutout/clip", "composite/clip.mp4")  # nothing is transparent before white
    cut = pictures(tmp_path / "png/cutout/clip")
    assert [number_in(rgba[..., 3]) for rgba in cut] == list(range(5))
    assert {rgba.shape for rgba in cut} == {(HEIGHT, WIDTH, 4)}


def alpha_of(path: Path) -> list[Any]:
    """The alpha of each frame of a webm, which PyAV's own choice of decoder leaves out."""
    with av.open(str(path)) as container:
        context = av.CodecContext.create("libvpx-vp9", "r")
        packets = [packet for packet in container.demux(video=0) if packet.size]
        found = [frame for packet in [*packets, None] for frame in context.decode(packet)]
    return [frame.to_ndarray(format="rgba")[..., 3] for frame in found]


def test_a_transparent_composite_holds_the_alpha_of_each_frame(tmp_path: Path) -> None:
    saves = ("composite", "collage", "gif")
    line = run_clip(film(tmp_path / "a.mp4", 12), tmp_path / "out", saves=saves, background="transparent")
    assert line.files == ("composite/clip.webm", "collage/clip.mp4", "gif/clip.gif")
    alphas = alpha_of(tmp_path / "out/composite/clip.webm")
    assert [number_in(alpha > 128) for alpha in alphas] == list(range(12))
    assert alphas[0].max() <= 1


@pytest.mark.parametrize("size", [(49, 65), (3, 9), (97, 33)], ids=str)
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    height, width = size
    frames = [numbered(255 if number % 2 else 0, height, width) for number in range(6)]
    line = run_clip(film(tmp_path / "a.mov", frames), tmp_path / "out", saves=(*SEEN, "cutout"))
    assert (line.height, line.width, line.frames) == (height, width, 6)
    assert [mask.all() for mask in pictures(tmp_path / "out/mask/clip")] == [False, True] * 3
    assert {mask.shape for mask in pictures(tmp_path / "out/mask/clip")} == {size}
    assert frames_of(tmp_path / "out/overlay/clip.mp4")[0].pixels.shape == (height + height % 2, width + width % 2, 3)
    assert frames_of(tmp_path / "out/cutout/clip.webm")[0].pixels.shape == (height, width, 3)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_film_gives_masks_that_stand_upright(tmp_path: Path, degrees: int) -> None:
    stored = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    stored[:10, :20, 0] = 255
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        stream.set_display_rotation(degrees)
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, "rgb24")))
        container.mux(stream.encode(None))
    line = run_clip(tmp_path / "a.mp4", tmp_path / "out")
    upright = np.rot90(stored, degrees // 90)
    assert (line.height, line.width) == upright.shape[:2]
    for mask in pictures(tmp_path / "out/mask/clip"):
        assert mask.shape == upright.shape[:2]
        assert (mask == (upright[..., 0] > 0)).mean() > 0.98
    assert info_of(tmp_path / "out/overlay/clip.mp4").width == upright.shape[1]


def test_networks_of_other_channels_classes_and_targets(tmp_path: Path) -> None:
    labels = LabelMap(
        name="three", names=("background", "head", "body"), colors=distinct_colors(3), from_ids=((0,), (1,), (2,))
    )

    def of_three(images: Pixels) -> Floats:
        assert images.shape[3] == 1
        person = images[..., :1].astype(np.float32) / np.float32(255)
        return np.concatenate([1 - person, person * 0.25, person * 0.75], axis=3)

    bright = film(tmp_path / "a.mp4", [np.full((HEIGHT, WIDTH, 3), level, np.uint8) for level in (0, 255, 255, 0)])
    line = run_clip(bright, tmp_path / "three", network(of_three, label_map=labels, channels=1))
    assert line.class_shares == {"background": 0.5, "head": 0, "body": 0.5}
    assert line.person_share == 0.5

    def of_rgba(images: Pixels) -> Floats:
        assert images.shape[3] == 4
        return of_red(images)

    matte = network(of_rgba, target="matte", label_map=None, channels=4)
    line = run_clip(bright, tmp_path / "matte", matte, saves=("alpha",))
    assert line.person_share == pytest.approx(0.5, abs=0.01)
    assert line.class_shares is None


def test_the_line_of_a_film(tmp_path: Path) -> None:
    line = run_clip(film(tmp_path / "a.mp4", 30), tmp_path / "out")
    assert (line.input, line.name, line.kind) == ("../a.mp4", "clip", "video")
    assert (line.height, line.width, line.frames, line.rate) == (HEIGHT, WIDTH, 30, "30000/1001")
    assert line.seconds == pytest.approx(1.001)
    expected = np.mean([bin(number).count("1") / BITS for number in range(30)])
    assert line.person_share == pytest.approx(expected, abs=0.01)
    assert min(line.read_ms or 0, line.network_ms or 0, line.write_ms or 0) > 0
    assert line.consecutive_iou == line.smoothed_consecutive_iou
    assert (line.audio, line.damaged_packets, line.reason) == (None, None, None)


def test_the_time_to_make_and_write_is_that_of_drawing_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "segmented", delayed(rendering.segmented, 0.02))
    line = run_clip(film(tmp_path / "a.mp4", 8), tmp_path / "out", saves=("mask",))
    assert (line.write_ms or 0) >= 20


# ---- sound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "suffix", "saves", "expected", "codecs"),
    [
        ("aac", ".mp4", ("overlay",), "copied", ["aac"]),
        ("aac", ".mp4", ("mask", "overlay", "gif"), "copied", ["aac"]),
        ("libopus", ".mkv", ("cutout", "overlay"), "copied", ["opus", "opus"]),
        ("pcm_s16le", ".mov", ("overlay",), "the sound was re-encoded from pcm_s16le to aac", ["aac"]),
        ("aac", ".mp4", ("cutout", "overlay"), "the sound was re-encoded from aac to opus", ["opus", "aac"]),
        ("aac", ".mp4", ("mask",), None, []),
        ("aac", ".mp4", ("gif",), None, []),
    ],
)
def test_sound_is_what_the_line_says(
    tmp_path: Path, codec: str, suffix: str, saves: tuple[str, ...], expected: str | None, codecs: list[str]
) -> None:
    line = run_clip(sounding(tmp_path / f"a{suffix}", codec), tmp_path / "out", saves=saves)
    assert line.audio == expected
    files = [tmp_path / "out" / file for file in line.files if Path(file).suffix in (".mp4", ".webm")]
    assert [info_of(file).audio for file in files] == codecs
    for file in files:
        with av.open(str(file)) as container:
            end = max(frame.pts * frame.time_base for frame in container.decode(audio=0))
        assert float(end) == pytest.approx(1, abs=0.1)


def test_sound_that_ffmpeg_does_not_know_is_said(tmp_path: Path) -> None:
    source = sounding(tmp_path / "a.mov", "pcm_s16le")
    source.write_bytes(source.read_bytes().replace(b"sowt", b"zzzz"))
    line = run_clip(source, tmp_path / "out", saves=("overlay",))
    assert (line.audio or "").startswith("the sound could not be carried over because")
    assert info_of(tmp_path / "out/overlay/clip.mp4").audio is None


# ---- seconds ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "frames"), [(0.001, 1), (0.5, 15), (0.5005, 15), (0.51, 16), (9, 40)])
def test_so_many_seconds_are_taken(tmp_path: Path, seconds: float, frames: int) -> None:
    line = run_clip(film(tmp_path / "a.mp4", 40), tmp_path / "out", seconds=seconds)
    assert line.frames == frames
    assert numbers_in(tmp_path / "out/mask/clip") == list(range(frames))
    assert len(frames_of(tmp_path / "out/overlay/clip.mp4")) == frames


@pytest.mark.parametrize("seconds", [0.04, 0.2, 0.4])
def test_a_frame_that_begins_when_the_seconds_are_over_is_not_taken(tmp_path: Path, seconds: float) -> None:
    line = run_clip(film(tmp_path / "a.mp4", 40, Fraction(25)), tmp_path / "out", seconds=seconds)
    assert line.frames == round(seconds * 25)


def test_sound_ends_with_the_seconds_taken(tmp_path: Path) -> None:
    run_clip(sounding(tmp_path / "a.mp4", seconds=3), tmp_path / "out", saves=("overlay",), seconds=1)
    with av.open(str(tmp_path / "out/overlay/clip.mp4")) as container:
        end = max(frame.pts * frame.time_base for frame in container.decode(audio=0))
    assert float(end) == pytest.approx(1, abs=0.1)


# ---- smoothing -------------------------------------------------------------------------------------------------------


def texture(height: int, width: int, seed: int = 5) -> Pixels:
    """A soft grey-green pattern, which a flow can follow."""
    import cv2

    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 3)
    level = (soft - soft.min()) / (soft.max() - soft.min()) * 140
    return np.stack([level * 0.2, level, level], axis=2).astype(np.uint8)


def panned(count: int) -> tuple[list[Pixels], list[Any]]:
    """A pan over a picture with a red disc, two pixels a frame; the frames and where the disc is in each."""
    height, width = 96, 128
    picture = texture(height, width + 2 * count)
    y, x = np.mgrid[:height, : width + 2 * count]
    disc = np.hypot(y - height / 2, x - (width + 2 * count) / 2) < 26
    picture[disc, 0] = 200 + picture[disc, 1] // 4
    views = [np.s_[:, 2 * number : 2 * number + width] for number in range(count)]
    return [np.ascontiguousarray(picture[view]) for view in views], [disc[view] for view in views]


class Noisy:
    """Sure within 0.5 +- 0.25 of what is red, with soft noise of its own in every frame."""

    def __init__(self) -> None:
        self.frame = 0

    def __call__(self, images: Pixels) -> Floats:
        import cv2

        person = 0.25 + 0.5 * (images[..., 0] > 150).astype(np.float32)
        for one in person:
            noise = np.random.default_rng(self.frame).normal(0, 1, one.shape).astype(np.float32)
            one += 0.9 * cv2.GaussianBlur(noise, (0, 0), 2)
            self.frame += 1
        person = np.clip(person, 0, 1)
        return np.stack([1 - person, person], axis=-1)


def iou(first: Any, second: Any) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("size", [(96, 128), (128, 128)], ids=["same", "bars"])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_smoothing_steadies_masks_and_brings_them_no_further_from_the_truth(
    tmp_path: Path, size: tuple[int, int], batch_size: int
) -> None:
    frames, truth = panned(16)
    source = film(tmp_path / "a.mov", frames)
    found = {}
    for smooth in ("none", "ema", "flow"):
        here = network(Noisy(), geometry=Geometry(size=size, fit="letterbox"))
        line = run_clip(source, tmp_path / smooth, here, ("mask",), smooth=smooth, batch_size=batch_size)
        masks = pictures(tmp_path / smooth / "mask/clip")
        against = float(np.mean([iou(mask > 0, disc) for mask, disc in zip(masks, truth, strict=True)]))
        assert line.consecutive_iou is not None
        assert line.smoothed_consecutive_iou is not None
        found[smooth] = line.consecutive_iou, line.smoothed_consecutive_iou, against
    raw, same, plain = found["none"]
    assert raw == same < 0.95
    for smooth in ("ema", "flow"):
        before, after, against = found[smooth]
        assert before == pytest.approx(raw, abs=1e-6)
        assert after > before + 0.01
        assert against >= plain
    assert found["flow"][1] > found["ema"][1]


def test_letterbox_bars_do_not_count_as_steady(tmp_path: Path) -> None:
    """Nor does a motion of theirs: the figure is that of a network without bars."""

    def flickering(images: Pixels) -> Floats:
        shares = of_red(images)
        shares[1::2, :, : images.shape[2] // 2] = (1, 0)
        return shares

    source, found = film(tmp_path / "a.mov", panned(8)[0]), []
    for name, size in (("bars", (200, 128)), ("none", (96, 128))):
        here = network(flickering, geometry=Geometry(size=size, fit="letterbox"))
        found.append(run_clip(source, tmp_path / name, here).consecutive_iou or 1)
    assert found[0] == found[1] < 0.9


@pytest.mark.parametrize("smooth", ["ema:0.3", "flow:0.3"])
def test_nothing_of_a_scene_gets_into_the_next(tmp_path: Path, smooth: str) -> None:
    scenes = [texture(HEIGHT, WIDTH, seed) for seed in (1, 2)]
    scenes[1] = 255 - scenes[1]
    scenes[0][:, :, 0], scenes[1][:, :, 0] = 0, 0
    scenes[0][:, : WIDTH // 2, 0] = 255
    frames = [scenes[number // 6] for number in range(12)]
    source = film(tmp_path / "a.mov", frames)
    line = run_clip(source, tmp_path / "out", saves=("alpha",), smooth=smooth)
    alphas = pictures(tmp_path / "out/alpha/clip")
    assert alphas[5][:, : WIDTH // 2 - 2].min() == 255
    assert max(alpha.max() for alpha in alphas[6:]) == 0
    assert line.consecutive_iou == pytest.approx(1, abs=0.01)


def test_a_film_of_one_frame_has_no_figure(tmp_path: Path) -> None:
    line = run_clip(film(tmp_path / "a.mp4", 1), tmp_path / "out", smooth="flow")
    assert (line.frames, line.consecutive_iou, line.smoothed_consecutive_iou) == (1, None, None)


# ---- films behind the person -----------------------------------------------------------------------------------------

BEHIND_RATES = {
    "shorter": [Fraction(number, 10) for number in range(5)],
    "longer": [Fraction(number, 10) for number in range(12)],
    "faster": [Fraction(number, 40) for number in range(12)],
    "variable": [Fraction(time) for time in ("0", "3/100", "1/4", "3/10", "7/10", "3/4", "1")],
}


def behind_at(time: Fraction, times: Sequence[Fraction], length: Fraction) -> int:
    """Which frame of the background is shown then, by definition."""
    return max(number for number, begun in enumerate(times) if begun <= time % length)


@pytest.mark.parametrize("times", BEHIND_RATES.values(), ids=BEHIND_RATES)
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("own_times", [None, VARIABLE[:6]], ids=["steady", "variable"])
def test_a_film_behind_the_person_shows_what_it_shows_at_that_time(
    tmp_path: Path, times: list[Fraction], batch_size: int, own_times: list[Fraction] | None
) -> None:
    levels = [np.full((HEIGHT, WIDTH, 3), 20 + 20 * number, np.uint8) for number in range(len(times))]
    behind = film(tmp_path / "behind.mp4", levels, Fraction(10), times)
    length = Fraction(info_of(behind).seconds or 0).limit_denominator(30_000)
    source = film(tmp_path / "a.mp4", 6 if own_times else 18, Fraction(12), own_times)
    saves = ("composite", "gif", "collage")
    run_clip(source, tmp_path / "out", saves=saves, background=str(behind), batch_size=batch_size)
    frames = frames_of(tmp_path / "out/composite/clip.mp4")
    assert len(frames) == (6 if own_times else 18)
    for number, frame in enumerate(frames):
        free = [bit for bit in range(BITS) if not number >> bit & 1]
        columns = [(2 * bit + 1) * WIDTH // BITS // 2 for bit in free]
        level = np.median(frame.pixels[:, columns])
        assert round((level - 20) / 20) == behind_at(frame.time, times, length), (number, level)


def test_the_film_behind_begins_anew_with_every_input(
    tmp_path: Path, job: Callable[..., PredictReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    levels = [np.full((HEIGHT, WIDTH, 3), 20 + 20 * number, np.uint8) for number in range(10)]
    behind = film(tmp_path / "behind.mp4", levels, Fraction(10))
    sources = [film(tmp_path / f"{name}.mp4", 8, Fraction(10)) for name in "ab"]
    monkeypatch.setattr(predict, "open_network", lambda path: network())
    look = Look(("composite",), str(behind))
    predict.predict(Path("run"), list(map(str, sources)), tmp_path / "out", PredictOptions(look))
    one, other = (tmp_path / f"out/composite/{name}.mp4" for name in "ab")
    assert one.read_bytes() == other.read_bytes()
    assert frames_of(one)[0].pixels[:, -4:].mean() == pytest.approx(20, abs=4)
    assert frames_of(one)[7].pixels[:, -4:].mean() == pytest.approx(160, abs=4)


# ---- inputs that are no whole films ----------------------------------------------------------------------------------


def test_two_films_of_one_stem(tmp_path: Path, job: Callable[..., PredictReport]) -> None:
    sources = [film(tmp_path / "a/clip.mp4", 4), film(tmp_path / "b/clip.mp4", 7), film(tmp_path / "a/clip.webm", 9)]
    report = job(sources, tmp_path / "out")
    files = [clip.files for clip in report.clips]
    assert len({file for some in files for file in some}) == 6
    for clip, count in zip(report.clips, (4, 7, 9), strict=True):
        overlay, masks = clip.files
        assert len(frames_of(tmp_path / "out" / overlay)) == count
        assert numbers_in(tmp_path / "out" / masks) == list(range(count))


@pytest.mark.parametrize(
    "names", [("clip.mp4", "clip.part.mp4"), ("clip.part.mp4", "clip.mp4")], ids=["after", "before"]
)
def test_a_film_that_a_stopped_run_left_is_an_input_like_any_other(
    tmp_path: Path, job: Callable[..., PredictReport], names: tuple[str, str]
) -> None:
    counts = {"clip.mp4": 9, "clip.part.mp4": 4}
    sources = [film(tmp_path / "in" / name, counts[name]) for name in names]
    report = job(sources, tmp_path / "out")
    for clip, name in zip(report.clips, names, strict=True):
        assert len(frames_of(tmp_path / "out" / clip.files[0])) == counts[name]


def bad_films(folder: Path) -> dict[str, str]:
    """Files that are no films, and what is said of them."""
    whole = film(folder / "cut.mp4", 9)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("hello\n" * 99, encoding="ascii")
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        piece = av.AudioFrame.from_ndarray(np.zeros((2, 4800), np.float32), "fltp", "stereo")
        piece.sample_rate = 48_000
        container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    said = dict.fromkeys(("cut", "text"), "no video file that FFmpeg reads")
    return said | {"empty": "is empty (0 bytes)", "sound": "has no picture track"}


def test_bad_films_between_others_are_skipped_and_said(tmp_path: Path, job: Callable[..., PredictReport]) -> None:
    said = bad_films(tmp_path / "bad")
    good = [film(tmp_path / f"{name}.mp4", 3) for name in ("first", "last")]
    Image.fromarray(numbered(5)).save(tmp_path / "photo.png")
    inputs = [good[0], *(tmp_path / "bad" / f"{name}.mp4" for name in said), tmp_path / "photo.png", good[1]]
    report = job(inputs, tmp_path / "out")
    found = lines(tmp_path / "out/results.jsonl")
    assert [line["name"] for line in found] == ["first", *said, "photo", "last"]
    assert [line["name"] for line in found if "reason" in line] == list(said)
    assert report.skipped == {"unreadable": 4}
    for name, text in said.items():
        note = next(note for note in report.notes() if note.startswith(f"{name}: unreadable:"))
        assert text in note
    assert (report.photos, report.frames) == (1, 6)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.stem in said]


def test_bad_films_alone_are_an_error(tmp_path: Path, job: Callable[..., PredictReport]) -> None:
    bad_films(tmp_path / "bad")
    with pytest.raises(JobFailed, match="none of 4 inputs can be used"):
        job([tmp_path / "bad"], tmp_path / "out")


def damaged(path: Path) -> Path:
    """A film with two packets of junk among twelve."""
    film(path, 12)
    with av.open(str(path)) as container:
        places = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for at, size in (places[4], places[7]):
        data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    return path


def test_damaged_packets_are_passed_over_and_said(tmp_path: Path) -> None:
    line = run_clip(damaged(tmp_path / "a.mov"), tmp_path / "out")
    assert (line.frames, line.damaged_packets) == (10, 2)
    left = [0, 1, 2, 3, 5, 6, 8, 9, 10, 11]
    assert numbers_in(tmp_path / "out/mask/clip") == left
    assert [frame.time * NTSC for frame in frames_of(tmp_path / "out/overlay/clip.mp4")] == left


def test_a_film_cut_short_is_used_as_far_as_it_goes(tmp_path: Path) -> None:
    path = film(tmp_path / "a.webm", 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    line = run_clip(path, tmp_path / "out")
    assert 5 < (line.frames or 0) < 55
    assert numbers_in(tmp_path / "out/mask/clip") == list(range(line.frames or 0))


# ---- errors in every stage -------------------------------------------------------------------------------------------


def fail_at(call: Any, count: int, error: BaseException) -> Any:
    """``call``, which raises when it is called for the ``count``-th time and after."""
    calls = iter(range(1, 10**9))

    def failing(*given: Any, **more: Any) -> Any:
        if next(calls) >= count:
            raise error
        return call(*given, **more)

    return failing


def reader_fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Network:
    monkeypatch.setattr(VideoReader, "_upright", fail_at(VideoReader._upright, 20, error))
    return network()


def network_fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Network:
    return network(Failing(error, 5))


def painter_fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Network:
    monkeypatch.setattr(clips, "segmented", fail_at(rendering.segmented, 20, error))
    return network()


def encoder_fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> Network:
    monkeypatch.setattr(VideoWriter, "write", fail_at(VideoWriter.write, 20, error))
    return network()


STAGES = {"reader": reader_fails, "network": network_fails, "painter": painter_fails, "encoder": encoder_fails}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("error", [MemoryError("too much"), OSError(28, "No space left", "f"), KeyboardInterrupt()])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_error_in_any_stage_is_raised_and_leaves_films_that_play(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Any, error: BaseException, batch_size: int
) -> None:
    source = film(tmp_path / "a.mp4", 60)
    here = stage(monkeypatch, error)
    with pytest.raises(type(error)) as caught:
        run_clip(source, tmp_path / "out", here, saves=("mask", "overlay", "cutout"), batch_size=batch_size)
    assert caught.value is error
    monkeypatch.undo()
    assert not (tmp_path / "out/overlay/clip.mp4").exists()
    for file in ("overlay/clip.part.mp4", "cutout/clip.part.webm"):
        shown = [red_number(frame.pixels) for frame in frames_of(tmp_path / "out" / file)]
        assert shown == list(range(len(shown)))
        assert shown


def test_after_a_frame_that_cannot_be_drawn_no_other_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a mask would have its number, and the film that is left a gap."""
    draw, calls = rendering.segmented, iter(range(100))

    def seventh_fails(*given: Any) -> Any:
        if next(calls) == 6:
            raise ValueError("here")
        return draw(*given)

    monkeypatch.setattr(clips, "segmented", seventh_fails)
    monkeypatch.setattr(clips, "_PAINTERS", 1)
    with pytest.raises(ValueError, match="here"):
        run_clip(film(tmp_path / "a.mp4", 20), tmp_path / "out", batch_size=8)
    assert numbers_in(tmp_path / "out/mask/clip") == list(range(6))


@POSIX
def test_a_second_ctrl_c_closes_no_file_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFmpeg may hang or crash where one thread encodes and another closes."""
    write, leave = VideoWriter.write, VideoWriter.__exit__
    writing, pressed, torn = threading.Event(), threading.Event(), []

    def slowly(this: VideoWriter, *given: Any) -> None:
        write(this, *given)
        writing.set()  # only now: FFmpeg itself would hang here
        pressed.wait(5)
        time.sleep(0.2)
        writing.clear()

    def watched(this: VideoWriter, *given: Any) -> None:
        torn.append(writing.is_set())
        leave(this, *given)

    def press() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        pressed.set()

    calls = iter(range(100))

    def twice(images: Pixels) -> Floats:
        if next(calls) == 0:
            return of_red(images)
        assert writing.wait(5)
        threading.Timer(0.1, press).start()
        raise KeyboardInterrupt

    source = film(tmp_path / "a.mp4", 60)
    monkeypatch.setattr(VideoWriter, "write", slowly)
    monkeypatch.setattr(VideoWriter, "__exit__", watched)
    with pytest.raises(KeyboardInterrupt):
        run_clip(source, tmp_path / "out", network(twice), saves=("overlay",), batch_size=2)
    for _ in range(100):  # join does not wait for a thread of which a Ctrl-C ended another join, in Python 3.11
        time.sleep(0.02 * (running() != []))
    assert torn == [False]


DRIVER = """
import sys
import time
from segmodels import predict
from segmodels.predicting import clips
from segdata.cli import main
from tests.segmodels.predicting.test_clips import network

draw = clips.segmented

def slow(*given):
    time.sleep(float(sys.argv[1]))
    return draw(*given)

clips.segmented = slow
predict.open_network = lambda path: network()
main(sys.argv[2:])
"""


def command(out: Path, *inputs: Path, frame_seconds: float = 0.0, limit: int | None = None) -> list[str]:
    """A whole process of predict with a network without Keras; ``limit`` in bytes of a file."""
    program = DRIVER
    if limit is not None:
        program = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n{DRIVER}"
    given = ["predict", "run", *map(str, inputs), "--out", str(out), "--save", ",".join(SAVED)]
    return [sys.executable, "-c", program, str(frame_seconds), *given]


def done(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=100)


SAVED = ("mask", "overlay", "cutout")


def no_rest(out: Path) -> bool:
    """Whether nothing of what is there for the making alone is left."""
    return not [path for path in out.rglob("*") if ".part" in path.name or path.name.startswith(".segdata")]


@POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGKILL"])
def test_a_run_that_is_stopped_is_gone_on_with(tmp_path: Path, job: Callable[..., PredictReport], name: str) -> None:
    """Films that were done are not made again, and what is made then is what a run in one go makes."""
    sources = [film(tmp_path / "first.mp4", 4), film(tmp_path / "second.mp4", 90)]
    out, part = tmp_path / "out", tmp_path / "out/overlay/second.part.mp4"
    with subprocess.Popen(
        command(out, *sources, frame_seconds=0.04), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (out / "mask/second/000070.png").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(getattr(signal, name))
        said = process.communicate(timeout=60)[1]
    if name == "SIGINT":
        assert process.returncode == 130
        assert said.startswith(f"segdata: stopped. {part}, {out}/cutout/second.part.webm: what there is of it so far")
        assert "1 of 2 inputs are done. Run the same command again to go on:" in said
        assert "Traceback" not in said
    assert not (out / "predictions.json").exists()
    assert [path.name for path in sorted((out / "overlay").iterdir())] == ["first.mp4", "second.part.mp4"]
    shown = [red_number(frame.pixels) for frame in frames_of(part)]
    if name == "SIGINT":
        assert shown == list(range(len(shown)))
        assert len(shown) > 60
    assert shown[:20] == list(range(20))  # a killed run may lose two seconds, and its last frames are in coded order
    first = (out / "overlay/first.mp4").stat()
    (out / "mask/second/000777.png").touch()  # of a run that came further
    assert job(sources, out, saves=SAVED).resumed == 1
    assert (out / "overlay/first.mp4").stat() == first
    assert numbers_in(out / "mask/second") == list(range(90))
    assert no_rest(out)
    job(sources, tmp_path / "whole", saves=SAVED)
    timed = {"results.jsonl", "predictions.json"}  # of which one has the other's sha256
    one, other = ({k: v for k, v in tree(folder).items() if k not in timed} for folder in (out, tmp_path / "whole"))
    assert one == other


@POSIX
def test_a_full_disk_is_one_line_and_the_run_is_gone_on_with(tmp_path: Path, job: Callable[..., PredictReport]) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    rolled = [np.roll(noise, number, 1) for number in range(90)]
    sources = [film(tmp_path / "first.mp4", 3), film(tmp_path / "second.mp4", rolled)]
    out = tmp_path / "out"
    full = done(command(out, *sources, limit=100_000))
    assert full.returncode == 1
    assert full.stderr.count("\n") == 1
    assert full.stderr.startswith(f"segdata: error: {out}/")
    assert "second.part." in full.stderr
    assert "File too large. Check that there is space" in full.stderr
    assert not (out / "overlay/second.mp4").exists()
    assert frames_of(out / "overlay/second.part.mp4")
    assert job(sources, out, saves=SAVED).resumed == 1
    assert len(frames_of(out / "overlay/second.mp4")) == 90
    assert no_rest(out)


@pytest.mark.parametrize(
    "what",
    ["files", "folders"],
)
@pytest.mark.parametrize("then", ["not given again", "damaged"])
def test_a_finished_folder_holds_what_its_lines_name_and_no_more(
    tmp_path: Path, job: Callable[..., PredictReport], then: str, what: str
) -> None:
    sources = [film(tmp_path / f"{name}.mp4", 30) for name in ("first", "second")]
    with pytest.raises(Stopped):
        job(sources, tmp_path / "out", network(Failing(KeyboardInterrupt(), 6)))
    if then == "damaged":
        sources[1].write_bytes(b"no film any more")
    job(sources if then == "damaged" else sources[:1], tmp_path / "out")
    assert (tmp_path / "out/predictions.json").exists()
    left = [path for path in (tmp_path / "out").rglob("*") if "second" in path.as_posix().partition("/out/")[2]]
    assert [path for path in left if path.is_dir() == (what == "folders")] == []


def test_a_film_that_has_changed_is_made_again(tmp_path: Path, job: Callable[..., PredictReport]) -> None:
    sources = [film(tmp_path / f"{name}.mp4", count) for name, count in (("first", 12), ("second", 30))]
    with pytest.raises(Stopped, match="1 of 2 inputs are done"):
        job(sources, tmp_path / "out", network(Failing(KeyboardInterrupt(), 4)))
    film(sources[0], 5)
    assert job(sources, tmp_path / "out").resumed == 0
    assert numbers_in(tmp_path / "out/mask/first") == list(range(5))


# ---- memory ----------------------------------------------------------------------------------------------------------


def count_frames(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The most frames that have been alive at once."""
    alive: weakref.WeakSet[Frame] = weakref.WeakSet()
    most = 0

    def counted(*given: Any) -> Frame:
        nonlocal most
        frame = Frame(*given)
        alive.add(frame)
        most = max(most, len(alive))
        return frame

    monkeypatch.setattr(videos, "Frame", counted)
    return lambda: most


@pytest.mark.parametrize("slow", ["network", "painter", "encoder"])
def test_few_frames_are_in_memory_whoever_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str) -> None:
    source = film(tmp_path / "a.mp4", 100)
    most = count_frames(monkeypatch)

    here = network(delayed(of_red) if slow == "network" else of_red)
    if slow == "painter":
        monkeypatch.setattr(clips, "segmented", delayed(rendering.segmented))
    if slow == "encoder":
        monkeypatch.setattr(VideoWriter, "write", delayed(VideoWriter.write))
    gc.collect()
    run_clip(source, tmp_path / "out", here, batch_size=4)
    assert 4 <= most() <= 4 * clips._STAGES + 2


@pytest.mark.parametrize(("held_frames", "largest"), [(0, 1), (15, 1), (16, 2), (32, 4), (1000, 6)])
def test_batches_are_small_where_frames_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held_frames: int, largest: int
) -> None:
    monkeypatch.setattr(clips, "HELD_PIXELS", held_frames * HEIGHT * WIDTH)
    source = film(tmp_path / "a.mp4", 20)
    most, sizes = count_frames(monkeypatch), []

    def counting(images: Pixels) -> Floats:
        sizes.append(len(images))
        return of_red(images)

    run_clip(source, tmp_path / "out", network(counting), batch_size=6)
    assert max(sizes) == largest
    assert most() <= clips._STAGES * largest + 2


def test_the_threads_of_a_film_are_gone_when_its_line_is_there(tmp_path: Path) -> None:
    names: set[str] = set()

    def looking(images: Pixels) -> Floats:
        names.update(name.rpartition("_")[0] for name in running())
        return of_red(images)

    run_clip(film(tmp_path / "a.mp4", 30), tmp_path / "out", network(looking))
    assert {"segdata-decode", "segdata-draw", "segdata-encode"} <= names  # and ``no_thread_is_left`` can fail


# ---- the command line ------------------------------------------------------------------------------------------------


def test_the_command_says_what_became_of_each_film(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    sounding(tmp_path / "in/hum.mp4")
    damaged(tmp_path / "in/worn.mov")
    (tmp_path / "in/text.mp4").write_text("hello", encoding="ascii")
    found = done(command(tmp_path / "out", tmp_path / "in"))
    assert found.returncode == 0
    assert f"{tmp_path}/out: 2 videos, person " in found.stdout
    assert "hum: 29 frames, 29.97 a second; IoU of consecutive masks " in found.stdout
    assert "the sound was re-encoded from aac to opus" in found.stdout
    assert "worn: 10 frames" in found.stdout
    assert "2 packets or frames are damaged" in found.stdout
    assert "note: 1 inputs were skipped" in found.stderr
    assert "note: text: unreadable: 'text.mp4'" in found.stderr
    shown = done([*command(tmp_path / "json", tmp_path / "in"), "--json"])
    assert [clip["frames"] for clip in json.loads(shown.stdout)["clips"]] == [29, 10]
