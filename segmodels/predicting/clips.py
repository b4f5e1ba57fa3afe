"""Videos through a network: decoded, predicted, drawn and encoded at one time, frame after frame, in bounded memory."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, takewhile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from segdata.errors import ImageRefused
from segdata.formats.images import Pixels, use_one_thread
from segdata.formats.videos import Frame, VideoInfo, VideoReader
from segdata.parallel import keep_freed_memory
from segdata.transforms.resize import fit_box
from segmodels.bars import sample_bar
from segmodels.inputs import to_grey
from segmodels.networks import Network
from segmodels.predicting.media import Item
from segmodels.predicting.photos import HELD_PIXELS, fitted, input_of, refused
from segmodels.predicting.rendering import Look, segmented
from segmodels.predicting.results import ResultLine
from segmodels.predicting.sinks import Sinks
from segmodels.runtimes import Shares
from segmodels.smoothing import Smooth, Tracker

_PAINTERS = os.cpu_count() or 1
_SLACK_S = 0.5  # what a container says of itself is not exact
_STAGES = 4  # a batch is read while another is predicted, one drawn and one written


@dataclass(frozen=True)
class ClipOptions:
    """How videos are taken: so many frames at once at most, so many seconds of each, all for None."""

    look: Look
    smooth: Smooth
    alpha_video: str
    batch_size: int
    seconds: float | None


def predict_clip(network: Network, item: Item, options: ClipOptions, out: Path) -> ResultLine:
    """The line of one video when all that it asks for is written to ``out``; one that cannot be used is skipped.

    Frames keep their times. What is written has the sound of the source, where its kind can hold it. When Ctrl-C ends
    it, the files so far stay, called NAME.part.SUFFIX.
    """
    use_one_thread()
    keep_freed_memory()
    try:
        with VideoReader(item.path) as reader:
            return _Clip(network, item, options, reader).run(out)
    except ImageRefused as error:
        return refused(item, out, error)


@dataclass(frozen=True, eq=False)
class _Read:
    """A frame, as the network takes it (h, w, 1 or 3), and grey (h, w) for what follows its motion."""

    frame: Frame
    fitted: Pixels
    grey: Pixels


def settle(futures: Sequence[Future[Any]]) -> None:
    """Wait until nothing of it is under way, whatever it came to, however often Ctrl-C is pressed meanwhile."""
    while left := [future for future in futures if not future.done()]:
        with suppress(KeyboardInterrupt):
            wait(left)


def _first_done(writing: deque[Future[None]]) -> Generator[None]:
    writing[0].result()  # it stays there meanwhile, for what a Ctrl-C must wait for
    writing.popleft()
    yield


def up_to(seconds: float | None, frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames that begin within so many seconds; all for None."""
    limit = None if seconds is None else Fraction(str(seconds))
    return iter(frames) if limit is None else takewhile(lambda frame: frame.time < limit, frames)


def grey_of(image: Pixels) -> Pixels:
    """(h, w) of a picture (h, w, 1 or 3)."""
    return (image if image.shape[2] == 1 else to_grey(image))[:, :, 0]


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What is written of a frame, what was counted in it, and how long that took."""

    made: dict[str, Pixels | bytes]
    person_share: float
    class_shares: dict[str, float]
    seconds: float


class Motion:
    """Follows what moves in a video of the size that ``info`` says: smooths what the network says, measures flicker."""

    def __init__(self, network: Network, options: ClipOptions, info: VideoInfo) -> None:
        x, y, w, h = fit_box(info.height, info.width, network.geometry)
        self._inside = np.s_[y : y + h, x : x + w]  # without the bars, where nothing moves
        is_two = len(network.classes) == 2
        self.tracker = Tracker(options.smooth, options.look.refine.threshold if is_two else None)

    def smoothed(self, shares: Shares, grey: Pixels) -> Shares:
        """The next frame's probabilities (h, w, classes), smoothed; ``grey`` (h, w) is the frame at that size."""
        found = shares.copy()
        found[self._inside] = self.tracker.step(np.ascontiguousarray(shares[self._inside]), grey[self._inside])
        return found

    def figures(self) -> tuple[float | None, float | None]:
        """Mean IoU of consecutive masks as the network gave them, and smoothed; None where no two follow each other."""
        raw, smoothed = (flicker.mean_iou() for flicker in (self.tracker.raw, self.tracker.smoothed))
        return _figure(raw), _figure(smoothed)


class _Clip:
    """One video on its way, with what is counted."""

    def __init__(self, network: Network, item: Item, options: ClipOptions, reader: VideoReader) -> None:
        self.network, self.item, self.options, self.reader = network, item, options, reader
        self.motion = Motion(network, options, reader.info)
        self.has_gap, self.taken, self.end = False, 0, Fraction(0)
        self.shares_of_person = 0.0
        self.shares_of_class: dict[str, float] = {}
        self.seconds = dict.fromkeys(("read", "network", "write"), 0.0)
        pixels = reader.info.width * reader.info.height
        self.batch_size = max(1, min(options.batch_size, HELD_PIXELS // (2 * _STAGES) // pixels))

    def run(self, out: Path) -> ResultLine:
        """All of it."""
        options, info = self.options, self.reader.info
        sinks = Sinks(out, self.item.name, options.look, info, options.alpha_video, self.item.path)
        bar = sample_bar(info.frames or 0, self.item.path.name)
        with sinks, bar, closing(self._written(sinks)) as written:
            for _ in written:
                bar.update()
        return self._line(sinks, out)

    def _written(self, sinks: Sinks) -> Generator[None]:
        """Once for each frame that was written. Threads: one decodes, as many as there are cores draw, one encodes."""
        decoder, encoder = ThreadPoolExecutor(1, "segdata-decode"), ThreadPoolExecutor(1, "segdata-encode")
        painters = ThreadPoolExecutor(1 if self.options.look.is_moving else _PAINTERS, "segdata-draw")
        frames = up_to(self.options.seconds, self.reader)
        writing: deque[Future[None]] = deque()
        reading = decoder.submit(self._batch, frames)
        try:
            while batch := reading.result():
                reading = decoder.submit(self._batch, frames)
                start = perf_counter()
                shares = self.network.shares(np.stack([one.fitted for one in batch]))
                smoothed = [self.motion.smoothed(share, one.grey) for one, share in zip(batch, shares, strict=True)]
                self.seconds["network"] += perf_counter() - start
                for one, share in zip(batch, smoothed, strict=True):
                    drawn = painters.submit(self._drawn, one, share, sinks)
                    writing.append(encoder.submit(self._write, drawn, one.frame, sinks))
                while len(writing) > self.batch_size:
                    yield from _first_done(writing)
            while writing:
                yield from _first_done(writing)
        finally:
            settle([reading, *writing])  # what was predicted is written, before any file is closed
            for pool in (decoder, painters, encoder):
                pool.shutdown()

    def _batch(self, frames: Iterator[Frame]) -> list[_Read]:
        start = perf_counter()
        batch = [self._read(frame) for frame in islice(frames, self.batch_size)]
        self.seconds["read"] += perf_counter() - start
        return batch

    def _read(self, frame: Frame) -> _Read:
        image = fitted(frame.pixels, self.network)
        return _Read(frame, image, grey_of(image))

    def _drawn(self, read: _Read, shares: Shares, sinks: Sinks) -> _Drawn:
        start = perf_counter()
        found = segmented(read.frame.pixels, shares, self.network, self.options.look, read.frame.time)
        made = sinks.pictures(found)
        return _Drawn(made, found.person_share, found.class_shares() or {}, perf_counter() - start)

    def _write(self, drawing: Future[_Drawn], frame: Frame, sinks: Sinks) -> None:
        """Frame after frame; none behind one that failed or was given up, or files would have a gap."""
        if self.has_gap:
            return
        self.has_gap = True
        drawn = drawing.result()
        start = perf_counter()
        sinks.write(drawn.made, frame)
        self.seconds["write"] += perf_counter() - start + drawn.seconds
        self.taken += 1
        self.end = frame.time + (frame.duration or 1 / self.reader.info.rate)
        self.shares_of_person += drawn.person_share
        for name, share in drawn.class_shares.items():
            self.shares_of_class[name] = self.shares_of_class.get(name, 0.0) + share
        self.has_gap = False

    def _missing(self) -> float | None:
        """How much of what the file says it holds was not there: it was cut, or its end cannot be read."""
        info = self.reader.info
        if self.options.seconds is not None:
            return None
        missing = 0.0
        if info.frames:
            missing = (info.frames - self.taken) / float(info.rate)
        elif info.seconds is not None and info.audio is None:  # else it may be the sound's
            missing = info.seconds - float(self.end + max(info.start, Fraction(0)))
        return round(missing, 3) if missing > max(_SLACK_S, 3 / float(info.rate)) else None

    def _line(self, sinks: Sinks, out: Path) -> ResultLine:
        info, frames = self.reader.info, sinks.frames
        raw, smoothed = self.motion.figures()
        read_ms, network_ms, write_ms = (round(seconds * 1000 / frames, 2) for seconds in self.seconds.values())
        return ResultLine(
            input=input_of(self.item, out),
            name=self.item.name,
            kind=self.item.kind,
            height=info.height,
            width=info.width,
            person_share=round(self.shares_of_person / frames, 6),
            class_shares={name: round(s / frames, 6) for name, s in self.shares_of_class.items()} or None,
            files=sinks.files,
            frames=frames,
            rate=str(info.rate),
            seconds=round(float(self.end), 3),
            missing_seconds=self._missing(),
            consecutive_iou=raw,
            smoothed_consecutive_iou=smoothed,
            damaged_packets=self.reader.damaged or None,
            audio=sinks.audio,
            read_ms=read_ms,
            network_ms=network_ms,
            write_ms=write_ms,
        )


def _figure(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)
