"""Shards to batches of numpy arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import OptionError, RecordError
from segdata.order import SHARD_ORDER, Order
from segdata.shards import MASK, MATTE, Shards, picture_size


@dataclass(frozen=True, eq=False)
class Batch:
    """Samples of one size: ``images`` (B, H, W, 3) uint8 RGB, ``masks`` (B, H, W) uint8 ids with 255 where a pixel does
    not count, ``mattes`` (B, H, W) float32 in [0, 1]; None where the shards hold no such thing.
    """

    ids: list[str]
    images: npt.NDArray[np.uint8]
    masks: npt.NDArray[np.uint8] | None = None
    mattes: npt.NDArray[np.float32] | None = None


def numpy_batches(
    shards: Shards, batch_size: int, order: Order = SHARD_ORDER, drop_remainder: bool = False
) -> Iterator[Batch]:
    """The samples in that order, ``batch_size`` at a time; the last batch may be smaller, unless ``drop_remainder``
    leaves it out.

    Before the first batch OptionError for a value out of its bounds, and SegdataError for shards whose pictures differ
    in size; then RecordError or ImageRefused at the first damaged record.
    """
    if batch_size < 1:
        raise OptionError(f"batch_size {batch_size}: expected 1 or more.")
    size = picture_size(shards.index, shards.folder)
    numbers = order.numbers(len(shards)).tolist()
    stop = len(numbers) - len(numbers) % batch_size if drop_remainder else len(numbers)
    return (_batch(shards, size, numbers[at : at + batch_size]) for at in range(0, stop, batch_size))


def _batch(shards: Shards, size: tuple[int, int], numbers: Sequence[int]) -> Batch:
    samples = [shards.sample(number) for number in numbers]

    def stacked(what: str) -> Any:
        parts = [getattr(sample, what) for sample in samples]
        for sample, part in zip(samples, parts, strict=True):
            found = None if part is None else part.shape[:2]
            if found != size:
                raise RecordError(
                    f"{shards.folder}: {what} of sample {sample.id!r}: (height, width) {found}, the index says {size}. "
                    f"Run `segdata verify {shards.folder}`."
                )
        return np.stack(parts)

    has = shards.index.features
    return Batch(
        ids=[sample.id for sample in samples],
        images=stacked("image"),
        masks=stacked("mask") if MASK in has else None,
        mattes=stacked("matte") if MATTE in has else None,
    )
