"""Photos through a network: read and fitted by threads, two batches at a time, drawn and written by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import NamedTuple, TypeVar

import numpy as np

from segdata.errors import FolderError, ImageRefused, OptionError
from segdata.formats.files import printable, read_regular, relative_posix, write_atomic
from segdata.formats.images import Pixels, use_one_thread
from segdata.formats.raw_pictures import read_rgb
from segdata.formats.videos import VideoInfo, VideoWriter
from segdata.parallel import keep_freed_memory
from segdata.records import Sample
from segdata.transforms.resize import fit_sample
from segmodels.inputs import to_grey
from segmodels.networks import Network
from segmodels.predicting.media import Item
from segmodels.predicting.rendering import Look, Segmented, encoded, picture, segmented
from segmodels.predicting.results import ResultLine
from segmodels.runtimes import Shares

HELD_PIXELS = 120_000_000  # of photos that are in memory at one time, 3 bytes each; there are three of them at least
_THREADS = os.cpu_count() or 1
_BATCHES = 2  # that the network has at one time
_Made = TypeVar("_Made")
_Taken = TypeVar("_Taken")
_Given = TypeVar("_Given")


def check_batch_size(batch_size: int) -> None:
    """OptionError where it is not 1 to 1024."""
    if not 1 <= batch_size <= 1024:
        raise OptionError(f"--batch-size {batch_size}: expected 1 to 1024.")


@dataclass(frozen=True, eq=False)
class ReadPhoto:
    """A photo (H, W, 3) uint8 RGB, and fitted to the network (h, w, 1 or 3), with the seconds that this took."""

    item: Item
    photo: Pixels
    fitted: Pixels
    seconds: float

    @property
    def pixels(self) -> int:
        """Of the photo."""
        return self.photo.size // 3


def fitted(photo: Pixels, network: Network) -> Pixels:
    """A photo (H, W, 3) uint8 RGB as the network takes it: (h, w, 1 or 3)."""
    height, width = photo.shape[:2]
    image = fit_sample(Sample("", photo), height, width, network.geometry).image
    return to_grey(image) if network.is_grey else image


def predict_photos(
    network: Network, items: Sequence[Item], look: Look, out: Path, batch_size: int
) -> Iterator[ResultLine]:
    """A line for each photo, in order, when what it asks for is written to ``out``; one that cannot be used is skipped.

    Files are SAVE/NAME.png or .jpg. As much is in memory as ``photos_through`` says.
    """
    make = partial(_written, network, look, out)
    return photos_through(network, items, make, lambda item, error: refused(item, out, error), batch_size)


def photos_through(
    network: Network,
    items: Sequence[Item],
    make: Callable[[ReadPhoto, Shares, float], _Made],
    refuse: Callable[[Item, ImageRefused], _Made],
    batch_size: int,
) -> Iterator[_Made]:
    """What is made of each photo, in order: by ``make``, which is given the network's probabilities (h, w, classes) of
    it and the seconds that those took, or by ``refuse`` where it cannot be read. Threads call both.

    So many photos are in memory as HELD_PIXELS allow, a third of them being read, predicted and made each; of very
    large ones, one each. Where they allow it, the network has the next batch before it is done with one: else it would
    wait while batches are handed over.
    """
    use_one_thread()
    keep_freed_memory()
    room = _Room(batch_size)
    with (
        ThreadPoolExecutor(_THREADS, "segdata-predict") as threads,
        ThreadPoolExecutor(_BATCHES, "segdata-network") as networks,
    ):
        try:
            read = _in_order(threads, partial(_read, network, refuse), items, room.to_read)
            batches = _in_order(networks, partial(_predicted, network), _rows(read, room), room.to_predict)
            yield from _in_order(threads, partial(_made, make), _each(batches), room.to_make)
        finally:
            networks.shutdown(cancel_futures=True)
            threads.shutdown(cancel_futures=True)


class _Room:
    """How many photos, or batches, may be under way, by the largest photo that was seen."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.largest = 0  # in pixels; 0 before one was read

    def third(self) -> int:
        return max(1, HELD_PIXELS // 3 // self.largest) if self.largest else 2

    def in_batch(self) -> int:
        return min(self.batch_size, self.third())

    def to_read(self) -> int:
        return min(self.batch_size + _THREADS, self.third())

    def to_predict(self) -> int:
        return _BATCHES if _BATCHES * self.batch_size <= self.third() else 1

    def to_make(self) -> int:
        return min(2 * self.batch_size, self.third()) + 1


def _in_order(
    threads: ThreadPoolExecutor, function: Callable[[_Taken], _Given], items: Iterable[_Taken], room: Callable[[], int]
) -> Iterator[_Given]:
    """``function`` of each item, by threads; ``room`` says how many may be under way."""
    under_way: deque[Future[_Given]] = deque()
    for item in items:
        under_way.append(threads.submit(function, item))
        while len(under_way) >= room():
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _rows(read: Iterable[ReadPhoto | _Made], room: _Room) -> Iterator[list[ReadPhoto | _Made]]:
    """The photos of a batch, and what was refused between them."""
    row: list[ReadPhoto | _Made] = []
    count = 0
    for one in read:
        row.append(one)
        if isinstance(one, ReadPhoto):
            count += 1
            room.largest = max(room.largest, one.pixels)
        if count >= room.in_batch():
            yield row
            row, count = [], 0
    if row:
        yield row


class _ToMake(NamedTuple):
    read: ReadPhoto
    shares: Shares
    seconds: float  # that the network took


def _predicted(
    network: Network, row: list[ReadPhoto | _Made]
) -> tuple[list[ReadPhoto | _Made], list[Shares], float, float]:
    """The row, the probabilities of its photos, and when the network began and ended."""
    batch = [one.fitted for one in row if isinstance(one, ReadPhoto)]
    start = perf_counter()
    shares = list(network.shares(np.stack(batch))) if batch else []
    return row, shares, start, perf_counter()


def _each(
    batches: Iterable[tuple[list[ReadPhoto | _Made], list[Shares], float, float]],
) -> Iterator[_ToMake | _Made]:
    free = 0.0  # when the network was done with the batch before: what two share is counted once
    for row, shares, start, end in batches:
        found, seconds = iter(shares), max(0, end - max(start, free)) / max(1, len(shares))
        free = max(free, end)
        for one in row:
            yield _ToMake(one, next(found), seconds) if isinstance(one, ReadPhoto) else one


def _made(make: Callable[[ReadPhoto, Shares, float], _Made], one: _ToMake | _Made) -> _Made:
    return make(*one) if isinstance(one, _ToMake) else one


def refused(item: Item, out: Path, error: ImageRefused) -> ResultLine:
    """The line of an input that was skipped."""
    return ResultLine(
        input=input_of(item, out), name=item.name, kind=item.kind, reason=error.reason, detail=error.detail
    )


def input_of(item: Item, out: Path) -> str:
    """Where an input lies, from ``out``; as it was given where no path leads there, and for a camera."""
    if item.kind == "camera":
        return str(item.path)
    try:
        return relative_posix(item.path, out)
    except (FolderError, OSError, RuntimeError):  # another drive, a name that no JSON can hold, links in a circle
        return printable(item.path.as_posix())


def _read(network: Network, refuse: Callable[[Item, ImageRefused], _Made], item: Item) -> ReadPhoto | _Made:
    start = perf_counter()
    try:
        photo = read_rgb(read_regular(item.path))
    except ImageRefused as error:
        return refuse(item, error)
    return ReadPhoto(item, photo, fitted(photo, network), perf_counter() - start)


def _written(
    network: Network, look: Look, out: Path, read: ReadPhoto, shares: Shares, network_seconds: float
) -> ResultLine:
    start = perf_counter()
    found = segmented(read.photo, shares, network, look)
    try:
        files = tuple(_write(save, found, look, out, read.item.name) for save in look.saves)
    except ImageRefused as error:  # JPEG has no more than 65,535 pixels a side
        return refused(read.item, out, error)
    return ResultLine(
        input=input_of(read.item, out),
        name=read.item.name,
        kind=read.item.kind,
        height=read.photo.shape[0],
        width=read.photo.shape[1],
        person_share=round(found.person_share, 6),
        class_shares=found.class_shares(),
        files=files,
        read_ms=round(read.seconds * 1000, 2),
        network_ms=round(network_seconds * 1000, 2),
        write_ms=round((perf_counter() - start) * 1000, 2),
    )


def _write(save: str, found: Segmented, look: Look, out: Path, name: str) -> str:
    pixels = picture(save, found, look)
    if save == "gif":
        return _write_gif(out, name, (found.photo, pixels))
    data, suffix = encoded(save, pixels)
    file = f"{save}/{name}{suffix}"
    write_atomic(out / file, data, durable=False)
    return file


def _write_gif(out: Path, name: str, frames: Sequence[Pixels]) -> str:
    """The photo and its composition in turn, a second each."""
    height, width = frames[0].shape[:2]
    file = f"gif/{name}.gif"
    with VideoWriter(out / file, height, width, VideoInfo(width, height, Fraction(1)), "gif") as writer:
        for second, pixels in enumerate(frames):
            writer.write(pixels, Fraction(second))
    return file
