"""Video files: frames with their exact times, read and written, and sound carried over from one file to another.

FFmpeg's libraries do the work, through PyAV, which is loaded in the bodies that need it and tells its log to nobody. A
frame's time is a fraction of seconds, never a float, so that 29.97 frames a second stay 30000/1001.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from segdata.errors import ImageRefused, OptionError, did_you_mean
from segdata.formats.files import sync_folder
from segdata.formats.images import Pixels, check_pixels

if TYPE_CHECKING:
    import av

VIDEO_SUFFIXES = frozenset(
    ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .ogv .ts .webm .wmv".split()
)  # .gif is a picture
KEYFRAME_SECONDS = 2  # a player can jump to any of these, and a reader that found damage goes on at the next
GIF_SIDE_PX = 480
GIF_STEP = 8  # hundredths of a second from one frame to the next, at least: 12.5 frames a second

# Playlists and lists of files would be opened as well, and lead to other files and to the network.
_FORMATS = "asf,avi,dv,flv,gif,h264,hevc,ivf,matroska,webm,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nut,ogg,wtv,yuv4mpegpipe"
_BITEXACT_FILE, _FLUSH_FILE = 0x400, 0x200  # AVFMT_FLAG_*: no dates or random ids; what is written reaches the file
_BITEXACT_CODEC, _KEEP_DURATIONS = 1 << 23, 1 << 8  # AV_CODEC_FLAG_{BITEXACT,FRAME_DURATION}
_UNTAGGED, _BT709, _LIMITED = 2, 1, 1  # AVCOL_SPC_UNSPECIFIED; AVCOL_{SPC,PRI,TRC}_BT709; AVCOL_RANGE_MPEG
_KEYFRAME, _ANY_FRAME = 1, 0  # AV_PICTURE_TYPE_*
_THREADS = 4  # the bytes of x264 depend on their number, so it is not the machine's
_TAG = 1 << 12  # FFmpeg's own error numbers are above, the system's below
# Fragments once a second: a file whose writer was killed plays up to there. At its end it becomes a plain mp4 file.
# Without delay_moov the first frame's time would not be 0.
_FRAGMENTS = {"movflags": "hybrid_fragmented+delay_moov", "frag_duration": "1000000"}


@dataclass(frozen=True)
class Kind:
    """A way to write a video.

    ``alpha``: it takes RGBA. ``copied`` are the sound codecs that its container takes as they are; others are encoded
    by ``sound``, or dropped where that is empty. ``unsteady``: more options, for a variable rate.
    """

    suffix: str
    container: str
    codec: str
    pixel_format: str
    alpha: bool
    options: Mapping[str, str]
    copied: frozenset[str] = frozenset()
    sound: str = ""
    unsteady: Mapping[str, str] = field(default_factory=dict)


KINDS: Mapping[str, Kind] = {
    "gif": Kind(".gif", "gif", "gif", "pal8", False, {}),
    # On 2 cores "veryfast" takes 14 ms for a frame of 1280x720 and "medium" 25 ms; at this crf they look the same. With
    # mbtree the bytes differ from run to run. With B-frames, which halve the file, the container reckons its duration
    # wrong where the rate is variable.
    "mp4": Kind(
        ".mp4",
        "mp4",
        "libx264",
        "yuv420p",
        False,
        {"preset": "veryfast", "crf": "18", "mbtree": "0", "forced-idr": "1"},
        frozenset("aac ac3 alac eac3 flac mp3 opus".split()),
        "aac",
        {"bf": "0"},
    ),
    "prores": Kind(
        ".mov",
        "mov",
        "prores_ks",
        "yuva444p10le",
        True,
        {"profile": "4444", "vendor": "apl0", "alpha_bits": "16"},
        frozenset("aac ac3 alac eac3 mp3 pcm_f32le pcm_s16be pcm_s16le pcm_s24be pcm_s24le pcm_s32le".split()),
        "aac",
    ),
    # libvpx refuses alpha together with alternate reference frames. "realtime" takes a sixth of the time of "good", for
    # files that are half as large again and as close to the frames.
    "webm": Kind(
        ".webm",
        "webm",
        "libvpx-vp9",
        "yuva420p",
        True,
        {"crf": "24", "b": "0", "deadline": "realtime", "cpu-used": "7", "row-mt": "1", "auto-alt-ref": "0"},
        frozenset({"opus", "vorbis"}),
        "libopus",
    ),
}


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself, and what a writer needs to keep its timing.

    ``width`` and ``height`` in pixels, after the turn that the file asks for; ``rate`` in frames a second, the average;
    ``frames`` as the container says; ``seconds`` is the video's duration; ``audio`` the codec of the first sound track;
    ``time_base`` the unit of its times in seconds; ``start`` the first frame's time in the file, which is 0 in frames;
    ``sample_aspect_ratio`` a pixel's width by its height; ``steady``: every frame is shown equally long.

    OptionError for sizes, rates and units that are not above 0.
    """

    width: int
    height: int
    rate: Fraction
    frames: int | None = None
    seconds: float | None = None
    audio: str | None = None
    time_base: Fraction = Fraction(1, 90_000)
    start: Fraction = Fraction(0)
    sample_aspect_ratio: Fraction = Fraction(1)
    steady: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "height", "rate", "time_base", "sample_aspect_ratio"):
            if getattr(self, name) <= 0:
                raise OptionError(f"{name} of a video: {getattr(self, name)}, expected more than 0.")


@dataclass(frozen=True, eq=False)
class Frame:
    """``pixels`` (H, W, 3) uint8 RGB, upright; ``time`` in seconds since the first frame; how long it is shown, 0 where
    the file does not say.
    """

    pixels: Pixels
    time: Fraction
    duration: Fraction = Fraction(0)


def is_video(path: Path) -> bool:
    """Whether a path's suffix is that of a video, in any letter case."""
    return path.suffix.lower() in VIDEO_SUFFIXES


# ---- reading -------------------------------------------------------------------------------------------------------


class VideoReader:
    """The frames of a video file, in the order in which they are shown; to be iterated once.

    ``damaged`` counts packets that did not decode, which are passed over, as the rest behind a place that cannot be
    read is, and frames that a decoder says it made up in part. Decoders hide much damage themselves, and several
    threads decode, so it may be lower than the truth.
    Frames of another size than the first are scaled to it. A frame without a time, or with one that does not grow,
    is shown 1 / rate after the one before. Colours of a file that does not say its matrix are taken for BT.709 in HD
    and BT.601 below, as players do. Interlaced pictures stay as they are.

    ImageRefused(``unreadable``) for what is no video file, has no picture track, or of which no frame decodes, and
    (``too-large``) as for pictures.
    """

    info: VideoInfo

    def __init__(self, path: Path) -> None:
        from av.video.reformatter import VideoReformatter

        self.path = path
        self.damaged = 0
        self._input = _open_input(path)
        self._scaler = VideoReformatter()
        try:
            self._stream = _picture_track(self._input, path)
            self._frames = self._decoded()
            first = next(self._frames, None)
            if first is None:
                raise ImageRefused("unreadable", f"{path.name!r}: no frame decodes, expected a video")
            check_pixels(first.height, first.width)
            self._first: av.VideoFrame | None = first
            self._size = first.width, first.height
            self._turn = _turn(first)
            self.info = self._found()
        except BaseException:
            self._input.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; no frames come after that."""
        self._frames.close()
        self._input.close()

    def __iter__(self) -> Iterator[Frame]:
        pace = 1 / self.info.rate
        last = -pace
        while self._first is not None:
            frame, self._first = self._first, None
            time = last + pace
            if frame.pts is not None and (found := frame.pts * self.info.time_base - self.info.start) > last:
                time = found
            yield Frame(self._upright(frame), time, (frame.duration or 0) * self.info.time_base)
            last = time
            self._first = next(self._frames, None)

    def _decoded(self) -> Generator[av.VideoFrame]:
        import av

        for packet in self._packets():
            try:
                for frame in self._stream.decode(packet):
                    self.damaged += frame.is_corrupt
                    yield frame
            except av.FFmpegError:
                self.damaged += 1

    def _packets(self) -> Iterator[av.Packet | None]:
        """The packets of the picture track, and None at the end, at which the decoder hands out its rest."""
        import av

        try:
            for packet in self._input.demux(self._stream):
                if packet.size:
                    yield packet
        except av.FFmpegError:
            self.damaged += 1
        yield None

    def _found(self) -> VideoInfo:
        stream, first = self._stream, self._first
        seconds = stream.duration * stream.time_base if stream.duration else None
        if seconds is None and self._input.duration:
            seconds = Fraction(self._input.duration, 1_000_000)
        pixel = Fraction(stream.sample_aspect_ratio or 1)
        width, height = self._size[::-1] if self._turn[0] else self._size
        return VideoInfo(
            width,
            height,
            _rate(stream),
            stream.frames or None,
            None if seconds is None else float(seconds),
            _sound_codec(self._input),
            stream.time_base,
            Fraction(0) if first is None or first.pts is None else first.pts * stream.time_base,
            1 / pixel if self._turn[0] else pixel,
            bool(stream.average_rate) and stream.average_rate == stream.base_rate,
        )

    def _upright(self, frame: av.VideoFrame) -> Pixels:
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        matrix = None
        if frame.colorspace == _UNTAGGED and not frame.format.is_rgb:
            matrix = Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601
        # Without the flags every channel comes out darker by 1 in the mean.
        flags = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
        rgb = self._scaler.reformat(
            frame,
            *self._size,
            "rgb24",
            src_colorspace=matrix,
            dst_color_range=ColorRange.JPEG,
            interpolation=int(flags),
        )
        swapped, down, right = self._turn
        pixels: Any = rgb.to_ndarray()
        turned = (pixels.transpose(1, 0, 2) if swapped else pixels)[::down, ::right]
        return np.ascontiguousarray(turned)


def _open_input(path: Path) -> Any:
    """The opened file. ImageRefused as ``read_regular`` does, and for what is no video file."""
    import av

    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # before open: a pipe would hang
            raise ImageRefused("unreadable", f"{path.name!r} is not a regular file")
        if not found.st_size:
            raise ImageRefused("unreadable", f"{path.name!r} is empty (0 bytes)")
        with path.open("rb") as file:
            start = file.read(8)
    except OSError as error:
        raise ImageRefused("unreadable", f"{path.name!r}: {error.strerror or error}") from error
    allowed = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        # With "file:" a colon in the name is no protocol. Names and titles that are not UTF-8 are nobody's business.
        return av.open(f"file:{path}", container_options=allowed, metadata_errors="replace")
    except (av.FFmpegError, ValueError) as error:
        what = f"{path.name!r} starts with {start!r} and is no video file that FFmpeg reads ({_reason(error)})"
        raise ImageRefused("unreadable", f"{what}, expected mp4, mov, mkv, webm, avi or the like") from error


def _picture_track(container: Any, path: Path) -> Any:
    """The best video stream, set to decode in threads; cover pictures of sound files are none."""
    from av.stream import Disposition

    stream = container.streams.best("video")
    if stream is None or stream.disposition & Disposition.attached_pic:
        raise ImageRefused("unreadable", f"{path.name!r} has no picture track, expected a video")
    if stream.codec_context is None:
        raise ImageRefused("unreadable", f"{path.name!r}: its picture track is in a codec that FFmpeg does not know")
    stream.thread_type = "AUTO"
    return stream


def _rate(stream: Any) -> Fraction:
    return next((Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate), Fraction(25))


def _sound_codec(container: Any) -> str | None:
    if not container.streams.audio:
        return None
    context = container.streams.audio[0].codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)


def _turn(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """How to turn a frame upright: whether rows and columns change places first, then the steps down and right.

    A display matrix maps a pixel at (x, y) to (a x + c y, b x + d y); in quarter turns and mirrorings these are 0 or
    +-1. Other turns are not made.
    """
    try:
        found = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV knows no name for another thing that comes with the frame
        return {90: (True, -1, 1), -90: (True, 1, -1), 180: (False, -1, -1)}.get(frame.rotation, (False, 1, 1))
    if found is None:
        return False, 1, 1
    a, b, _, c, d = (round(value / (1 << 16)) for value in np.frombuffer(bytes(found), np.int32)[:5])
    if abs(a) == abs(d) == 1 and not b and not c:
        return False, d, a
    if abs(b) == abs(c) == 1 and not a and not d:
        return True, b, c
    return False, 1, 1


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


# ---- writing -------------------------------------------------------------------------------------------------------


class VideoWriter:
    """A video file of ``height`` x ``width`` pixels in the making, with the timing of ``info``, in a kind of KINDS.

    Until the block ends well it is called ``STEM.part.SUFFIX``; then it takes its name, and what had that name is gone.
    A block that ends by an exception leaves a closed file under the first name, which plays; one whose process is
    killed leaves an mp4 that plays up to about the last two seconds. A block in which no frame was written leaves none.

    The kinds: ``mp4``, H.264, whose sides are even, so that an odd picture gets its last row or column twice; ``webm``,
    VP9 with alpha, its times in milliseconds; ``prores``, ProRes 4444 with alpha; ``gif``, scaled down to 480 pixels on
    its longer side, of at most 12.5 frames a second (others are left out), each with its own palette. Alpha is not
    multiplied into the colours. The same frames give the same bytes.

    ``audio_from`` is the file that ``info`` is of. The sound of its first track comes along in step, and ends with the
    last frame. ``audio_note`` says in one line where it is not simply copied, and is empty otherwise.

    OSError, naming the file, where it cannot be written; OptionError for an unknown kind.
    """

    def __init__(
        self, path: Path, height: int, width: int, info: VideoInfo, kind: str, audio_from: Path | None = None
    ) -> None:
        if kind not in KINDS:
            raise OptionError(f"kind of a video: {kind!r} is not known.{did_you_mean(kind, KINDS)}")
        self.path = path
        self.part = path.with_name(f"{path.stem}.part{path.suffix}")
        self.audio_note = ""
        self._kind = KINDS[kind]
        self._gif = kind == "gif"
        self._info = info
        self._audio_from = audio_from
        self._shape = height, width
        self._size = self._written_size()  # (width, height) in the file
        self._time_base = Fraction(1, 100) if self._gif else info.time_base
        self._pts = -1
        self._end = Fraction(0)
        self._next_key = Fraction(0)
        self._sound: _Sound | None = None
        self._output: Any = None

    def _written_size(self) -> tuple[int, int]:
        height, width = self._shape
        if self._gif:
            scale = min(1, GIF_SIDE_PX / max(height, width))
            return max(1, round(width * scale)), max(1, round(height * scale))
        if self._kind.pixel_format == "yuv420p":
            return width + width % 2, height + height % 2
        return width, height

    def __enter__(self) -> Self:
        from av.video.reformatter import VideoReformatter

        self._scaler = VideoReformatter()
        with _naming(self.part):
            self._open()
        return self

    def _open(self) -> None:
        """Start the file: with the sound copied, else encoded, else without."""
        import av

        sound = self._find_sound()
        if sound is not None:
            for encoder in [""] * sound.fits(self._kind) + [self._kind.sound]:
                try:
                    self._start(sound, encoder)
                except (av.FFmpegError, ValueError) as error:
                    with suppress(av.FFmpegError):
                        if self._output is not None:
                            self._output.close()
                    self.audio_note = f"the sound could not be carried over because {_reason(error)}"
                else:
                    done = f"the sound was re-encoded from {sound.codec} to {encoder.removeprefix('lib')}"
                    self.audio_note = done if encoder else ""
                    return
            sound.close()
        self._start(None, "")

    def _find_sound(self) -> _Sound | None:
        import av

        if self._audio_from is None or not self._kind.sound:
            return None
        try:
            return _Sound.of(self._audio_from, self._info.start)
        except (av.FFmpegError, ImageRefused) as error:
            self.audio_note = f"the sound could not be carried over because {_reason(error)}"
        return None

    def _start(self, sound: _Sound | None, encoder: str) -> None:
        import av

        kind = self._kind
        container_options = _FRAGMENTS if kind.container in ("mp4", "mov") else {}
        self._output = av.open(f"file:{self.part}", "w", format=kind.container, container_options=container_options)
        self._output.flags |= _BITEXACT_FILE | _FLUSH_FILE
        options = {**kind.options, **({} if self._info.steady else kind.unsteady)}
        self._stream = self._output.add_stream(kind.codec, rate=self._info.rate, options=options)
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = kind.pixel_format
        self._stream.time_base = self._time_base
        context = self._stream.codec_context
        context.time_base = self._time_base
        context.thread_count, context.thread_type = _THREADS, "FRAME"  # slices are not the same in every run
        context.flags |= _BITEXACT_CODEC | _KEEP_DURATIONS
        if not self._gif:
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = _LIMITED
            context.sample_aspect_ratio = self._info.sample_aspect_ratio
        if sound is not None:
            sound.join(self._output, encoder)
        self._output.start_encoding()  # opens the file and the encoders, so that what is wrong is said now
        self._sound = sound

    def write(self, pixels: Pixels, time: Fraction, duration: Fraction | None = None) -> None:
        """Append a frame, (H, W, 3) RGB or, where the kind takes it, (H, W, 4) RGBA, shown from ``time`` on.

        Times count from 0 in seconds, and are rounded to the unit of ``info`` (of the container where it has a coarser
        one); one that does not grow is moved to the next unit. ``duration`` matters for the last frame; where it is not
        known, 1 / rate is taken. ValueError for pixels of another shape.
        """
        channels = pixels.shape[2] if pixels.ndim == 3 else 0
        if pixels.shape[:2] != self._shape or channels not in ((3, 4) if self._kind.alpha else (3,)):
            height, width = self._shape
            expected = "(H, W, 3) or (H, W, 4)" if self._kind.alpha else "(H, W, 3)"
            raise ValueError(f"a frame of shape {pixels.shape}, expected {expected} with H = {height}, W = {width}")
        shown = duration or 1 / self._info.rate
        pts = round(time / self._time_base)
        if self._gif and self._pts >= 0 and pts < self._pts + GIF_STEP:
            return
        with _naming(self.part):
            frame = self._gif_frame(pixels) if self._gif else self._frame(pixels)
            frame.pts = self._pts = max(pts, self._pts + 1)
            frame.time_base = self._time_base
            frame.duration = max(GIF_STEP if self._gif else 1, round(shown / self._time_base))
            frame.pict_type = self._picture_type(time)
            # In one call, since a Ctrl-C between the two would lose a packet that later ones need.
            self._output.mux(self._stream.encode_lazy(frame))
            self._end = time + shown
            self._carry_sound(time)

    def _picture_type(self, time: Fraction) -> int:
        if time < self._next_key:
            return _ANY_FRAME
        self._next_key = time + KEYFRAME_SECONDS
        return _KEYFRAME

    def _frame(self, pixels: Pixels) -> av.VideoFrame:
        import av
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        (height, width), (written_width, written_height) = self._shape, self._size
        if (width, height) != self._size:
            pixels = np.pad(pixels, ((0, written_height - height), (0, written_width - width), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24" if pixels.shape[2] == 3 else "rgba")
        return self._scaler.reformat(
            frame,
            format=self._kind.pixel_format,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=int(Interpolation.BILINEAR | Interpolation.ACCURATE_RND),
        )

    def _gif_frame(self, pixels: Pixels) -> av.VideoFrame:
        import av
        from PIL import Image

        picture = Image.fromarray(pixels)
        if picture.size != self._size:
            picture = picture.resize(self._size, Image.Resampling.BOX)
        colours = picture.quantize(256, Image.Quantize.MEDIANCUT)
        picture = picture.quantize(palette=colours, dither=Image.Dither.FLOYDSTEINBERG)
        palette = np.full((256, 4), 255, np.uint8)  # alpha, red, green, blue
        found = np.array(picture.getpalette(), np.uint8).reshape(-1, 3)
        palette[: len(found), 1:] = found
        return av.VideoFrame.from_ndarray((np.array(picture), palette), "pal8")

    def _carry_sound(self, end: Fraction) -> None:
        if self._sound is not None:
            for packet in self._sound.until(end):
                self._output.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._finish()
        except Exception:
            if error is None:  # else the first one says what is wrong
                raise
        if self._pts < 0:
            self.part.unlink(missing_ok=True)
        elif error is None:
            with self.part.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(self.part, self.path)
            sync_folder(self.path.parent)

    def _finish(self) -> None:
        with _naming(self.part):
            try:
                if self._pts >= 0:
                    self._output.mux(self._stream.encode_lazy(None))
                    self._carry_sound(self._end)
            finally:
                if self._sound is not None:
                    self._sound.close()
                self._output.close()


class _Sound:
    """The first sound track of a file, on its way into another. ``codec`` is its name."""

    def __init__(self, container: Any, start: Fraction) -> None:
        self._input = container
        self._stream = container.streams.audio[0]
        self._start = start
        self.codec = _sound_codec(container)
        self._packets = self._copied()
        self._next: av.Packet | None = None

    @classmethod
    def of(cls, path: Path, start: Fraction) -> _Sound | None:
        """The sound of a file whose first frame is shown at ``start``; None where it has none."""
        container = _open_input(path)
        if container.streams.audio:
            return cls(container, start)
        container.close()
        return None

    def fits(self, kind: Kind) -> bool:
        """Whether the kind's container takes the track as it is; none here takes AAC that is framed for broadcasts."""
        context = self._stream.codec_context
        return self.codec in kind.copied and (self.codec != "aac" or bool(context and context.extradata))

    def join(self, output: Any, encoder: str) -> None:
        """Add the track to a file; ``encoder`` is empty for one that is copied. ValueError, FFmpegError."""
        if encoder:
            self._joined = _encoded_track(output, encoder, self._stream)
        else:
            self._joined = output.add_stream_from_template(self._stream)
        self._packets = self._encoded() if encoder else self._copied()

    def close(self) -> None:
        """Close the file that it is from."""
        self._packets.close()
        self._input.close()

    def until(self, end: Fraction) -> Iterator[av.Packet]:
        """The packets, from where the last call ended, that begin before ``end``."""
        while True:
            self._next = self._next or next(self._packets, None)
            if self._next is None or self._next.pts * self._next.time_base >= end:
                return
            packet, self._next = self._next, None
            yield packet

    def _demuxed(self) -> Iterator[av.Packet]:
        import av

        with suppress(av.FFmpegError):  # what is behind damage is lost
            for packet in self._input.demux(self._stream):
                if packet.size:
                    yield packet

    def _copied(self) -> Generator[av.Packet]:
        """Packets with growing times from a little before the first frame on: decoders need a packet to get going."""
        shift = round(self._start / self._stream.time_base)
        first = round(Fraction(-1, 10) / self._stream.time_base)
        last = None
        for packet in self._demuxed():
            if packet.pts is None or packet.dts is None or packet.pts - shift < first:
                continue
            packet.pts -= shift
            packet.dts -= shift
            if last is not None and packet.dts <= last:
                continue
            last = packet.dts
            packet.stream = self._joined
            yield packet

    def _encoded(self) -> Generator[av.Packet]:
        """Packets of sound that starts with the first frame and has silence where the source has none."""
        from av import AudioResampler

        context = self._joined.codec_context
        fill = {"async": "1", "first_pts": "0"}
        resampler = AudioResampler(context.format, context.layout, context.rate, context.frame_size, fill)
        shift = round(self._start / self._stream.time_base)
        expected = 0
        for frame in self._decoded():
            frame.pts = expected if frame.pts is None else frame.pts - shift
            expected = frame.pts + round(frame.samples / frame.sample_rate / self._stream.time_base)
            for piece in resampler.resample(frame):
                yield from self._joined.encode(piece)
        for piece in resampler.resample(None):
            yield from self._joined.encode(piece)
        yield from self._joined.encode(None)

    def _decoded(self) -> Iterator[av.AudioFrame]:
        import av

        for packet in chain(self._demuxed(), (None,)):
            with suppress(av.FFmpegError):
                yield from self._stream.decode(packet)


def _encoded_track(output: Any, encoder: str, source: Any) -> Any:
    """A new sound track, at the source's rate where the encoder takes it, of at most two channels."""
    if source.codec_context is None:
        raise ValueError("FFmpeg does not know its codec")
    rates = (48_000,) if encoder == "libopus" else (44_100, 48_000, 32_000, 22_050, 16_000)
    rate = source.codec_context.sample_rate
    layout = "mono" if source.codec_context.channels == 1 else "stereo"
    stream = output.add_stream(encoder, rate=rate if rate in rates else 48_000, layout=layout)
    stream.codec_context.bit_rate = 64_000 if layout == "mono" else 128_000
    stream.codec_context.flags |= _BITEXACT_CODEC
    return stream


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """FFmpeg's errors, which often name no file, as OSError of ``path``."""
    import av

    try:
        yield
    except av.FFmpegError as error:
        number = error.errno or errno.EIO
        raise OSError(number if number < _TAG else errno.EIO, _reason(error), str(path)) from error
