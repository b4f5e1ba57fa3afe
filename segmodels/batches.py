"""Shards to batches, as a ``tf.data.Dataset``; the one place here that knows TensorFlow."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segdata.errors import OptionError, RecordError, SegdataError
from segdata.labels import LabelMap
from segdata.order import SHARD_ORDER, Order
from segdata.records import IndexRecord, read_index
from segdata.shards import IMAGE, MASK, SOURCE_ID, Shards, check_shard_sizes, picture_size
from segmodels.quiet import stderr_held_back

with stderr_held_back():
    import tensorflow as tf

_AT_A_TIME = 32  # records: a call from TensorFlow into Python costs more than a read
_kept_aside: dict[Path, SegdataError] = {}  # by folder: TensorFlow passes on the text of an exception, within pages


def label_map(index: IndexRecord, where: Path) -> LabelMap:
    """What the ids in the masks mean; SegdataError for shards that hold mattes alone."""
    if index.label_map is None or MASK not in index.features:
        raise SegdataError(f"{where}: its shards hold mattes and no masks, expected masks of class ids.")
    return index.label_map


def check_split(index: IndexRecord, split: str, where: Path) -> None:
    """OptionError where there is no such split or it is empty."""
    known = list(dict.fromkeys(shard.split for shard in index.shards if shard.records))
    if split not in known:
        raise OptionError(
            f"{where}: has no samples in split {split!r}. Splits that have: {', '.join(known) or 'none'}."
        )


def batches(folder: Path, split: str, batch_size: int, order: Order = SHARD_ORDER, ids: bool = False) -> Any:
    """A dataset of (image, mask), or (image, mask, id) with ``ids``, over one split; the last batch may be smaller.

    image is (B, H, W, 3) uint8 RGB, mask (B, H, W) uint8 class ids with 255 where a pixel does not count, id (B,) UTF-8
    bytes. The first pass over the dataset is ``order``; where that has a seed, each further pass is the next epoch, so
    that ``fit`` with N epochs sees N exact permutations. What is left of an epoch (``order.start``) with a seed is one
    pass only: a second one ends in OptionError. Errors are those of the functions above, OptionError for values out of
    their bounds, and RecordError for shards of another size than their index says; what only shows while reading needs
    ``read_errors`` around it.
    """
    if batch_size < 1:
        raise OptionError(f"batch_size {batch_size}: expected 1 or more.")
    index = read_index(folder)
    shape = picture_size(index, folder)
    label_map(index, folder)
    check_split(index, split, folder)
    check_shard_sizes(folder, index)
    shards = Shards(folder, index, split)
    records = len(order.numbers(len(shards)))
    passes = itertools.count()
    dataset = tf.data.Dataset.from_generator(
        lambda: _payloads(shards, order, next(passes)), output_signature=tf.TensorSpec((None,), tf.string)
    )
    dataset = dataset.prefetch(2).unbatch()
    dataset = dataset.map(lambda record: _decode(record, shape, ids), tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    return dataset.apply(tf.data.experimental.assert_cardinality(math.ceil(records / batch_size)))


def _payloads(shards: Shards, order: Order, passes: int) -> Iterator[list[bytes]]:
    """The serialised Examples of the pass after ``passes`` others, some at a time. Its errors are kept aside."""
    try:
        if passes and order.start and order.seed is not None:
            raise OptionError(
                f"{shards.folder}: a second pass over what was left of epoch {order.epoch} from position {order.start} "
                f"on. Make a dataset of order=Order(seed={order.seed}, epoch={order.epoch + 1}) for the next."
            )
        numbers = dataclasses.replace(order, epoch=order.epoch + passes).numbers(len(shards)).tolist()
        for at in range(0, len(numbers), _AT_A_TIME):
            yield [shards.payload(number)[0] for number in numbers[at : at + _AT_A_TIME]]
    except SegdataError as error:
        _kept_aside[shards.folder] = error
        raise


def _decode(record: Any, shape: tuple[int, int], ids: bool) -> tuple[Any, ...]:
    """One serialised Example to (image, mask[, id]): with the accurate DCT exactly the pixels that segdata reads."""
    kinds = {key: tf.io.FixedLenFeature((), tf.string) for key in (IMAGE, MASK, SOURCE_ID)}
    values = tf.io.parse_single_example(record, kinds)
    image = tf.io.decode_jpeg(values[IMAGE], channels=3, dct_method="INTEGER_ACCURATE")  # PNG too, in spite of its name
    mask = tf.io.decode_png(values[MASK], channels=1)
    image, mask = tf.ensure_shape(image, (*shape, 3)), tf.ensure_shape(mask, (*shape, 1))[:, :, 0]
    return (image, mask, values[SOURCE_ID]) if ids else (image, mask)


@contextmanager
def read_errors(folder: Path) -> Iterator[None]:
    """TensorFlow's errors about shards and memory as ours, one line each."""
    _kept_aside.pop(folder, None)
    try:
        yield
    except tf.errors.UnknownError as error:  # what TensorFlow makes of an exception in Python code
        if folder not in _kept_aside:
            raise
        raise _kept_aside.pop(folder) from error
    except tf.errors.ResourceExhaustedError as error:
        raise SegdataError(f"{folder}: out of memory. Try a smaller --batch-size. {_first_line(error)}") from error
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        raise RecordError(
            f"{folder}: a record does not decode: {_first_line(error)} Run `segdata verify {folder}`."
        ) from error


def _first_line(error: Any) -> str:
    """TensorFlow's messages go on for pages of operations."""
    return f"({' '.join(error.message.splitlines()[:1])[:200]})"
