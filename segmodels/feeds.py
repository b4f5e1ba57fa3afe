"""Shards to batches of numpy arrays: read, decoded, fitted and augmented, a batch a thread. No TensorFlow needed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused, RecordError
from segdata.formats.images import use_one_thread
from segdata.order import Order
from segdata.parallel import keep_freed_memory
from segdata.records import Sample
from segdata.shards import (
    IMAGE,
    MASK,
    MATTE,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    SOURCE_ID,
    Shards,
    decode_sound_values,
    number_in,
    parse,
)
from segmodels.inputs import TARGETS, Inputs

_WANTED = {IMAGE, MASK, MATTE, SOURCE_ID, ORIGINAL_HEIGHT, ORIGINAL_WIDTH}
MOST_AHEAD = 8  # batches in the making, however many cores there are: each takes memory


@dataclass(frozen=True, eq=False)
class Fed:
    """A batch: ``ids``, ``images`` (B, H, W, channels) uint8, ``targets``, each (B, H, W), as ``Inputs`` makes them."""

    ids: list[str]
    images: npt.NDArray[np.uint8]
    targets: dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Stored:
    """A sample as it lies in the shards, and the (height, width) of its photo."""

    sample: Sample
    original: tuple[int, int]


def stored(shards: Shards, number: int) -> Stored:
    """One record, decoded. RecordError where it is damaged, or has another size than the index says."""
    payload, where = shards.payload(number)
    try:
        values = parse(payload, where, _WANTED)
        height, width = (number_in(values, key, where) for key in (ORIGINAL_HEIGHT, ORIGINAL_WIDTH))
        sample = decode_sound_values(values, where)
    except (ImageRefused, RecordError) as error:
        problem = error if isinstance(error, RecordError) else f"{where} does not decode: {error}."
        raise RecordError(f"{shards.folder}: {problem} Run `segdata verify {shards.folder}`.") from error
    expected = shards.index.geometry.size or sample.image.shape[:2]
    for part in (sample.image, sample.mask, sample.matte):
        if part is not None and part.shape[:2] != expected:
            raise RecordError(
                f"{shards.folder}: {where} has {part.shape[:2]} (height, width), expected {expected}. "
                f"Run `segdata verify {shards.folder}`."
            )
    return Stored(sample, (height, width))


def make_batch(shards: Shards, inputs: Inputs, numbers: Sequence[int], size: tuple[int, int], epoch: int) -> Fed:
    """The samples with those record numbers, at (height, width) ``size``. Errors as of ``stored``."""
    ids, made = [], []
    for number in numbers:
        found = stored(shards, number)
        ids.append(found.sample.id)
        made.append(inputs.arrays(found.sample, found.original, size, number, epoch))
    images, *targets = (np.stack(parts) for parts in zip(*made, strict=True))
    return Fed(ids, images, dict(zip(TARGETS, targets, strict=False)))


def feed(shards: Shards, inputs: Inputs, batch_size: int, order: Order) -> Iterator[Fed]:
    """The batches of one epoch, bit for bit those of ``segmodels.batches``; the last one may be smaller.

    Errors come with the batch in which they are, as of ``stored``.
    """
    numbers = order.numbers(len(shards)).tolist()
    use_one_thread()  # OpenCV's own threads would only be in the way of these
    keep_freed_memory()
    ahead = min(os.cpu_count() or 1, MOST_AHEAD)
    threads = ThreadPoolExecutor(ahead, "segdata-feed")
    waiting: deque[Future[Fed]] = deque()
    try:
        for batch, at in enumerate(range(0, len(numbers), batch_size)):
            size = inputs.size_of(order.epoch, batch)
            waiting.append(threads.submit(make_batch, shards, inputs, numbers[at : at + batch_size], size, order.epoch))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)
