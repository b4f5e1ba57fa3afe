"""Shards to batches, as a ``tf.data.Dataset``; the one place here that knows TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segdata.errors import OptionError, RecordError, SegdataError
from segdata.labels import LabelMap
from segdata.records import IndexRecord, ShardRecord, read_index
from segdata.shards import IMAGE, MASK, SOURCE_ID, check_shard_sizes, read_frames
from segmodels.quiet import stderr_held_back

with stderr_held_back():
    import tensorflow as tf

SHUFFLE_RECORDS = 4096


def picture_size(index: IndexRecord, where: Path) -> tuple[int, int]:
    """(height, width) of all pictures in shards of one size; SegdataError where they differ."""
    if index.geometry.size is None:
        raise SegdataError(
            f"{where}: its shards were built without --size, so pictures differ in size and make no batch. "
            "Run `segdata build-tfrecords` with --size 256."
        )
    return index.geometry.size


def label_map(index: IndexRecord, where: Path) -> LabelMap:
    """What the ids in the masks mean; SegdataError for shards that hold mattes alone."""
    if index.label_map is None or MASK not in index.features:
        raise SegdataError(f"{where}: its shards hold mattes and no masks, expected masks of class ids.")
    return index.label_map


def split_shards(index: IndexRecord, split: str, where: Path) -> list[ShardRecord]:
    """The shards of one split, as the index lists them; OptionError where there is no such split or it is empty."""
    found = [shard for shard in index.shards if shard.split == split]
    if not sum(shard.records for shard in found):
        known = ", ".join(dict.fromkeys(shard.split for shard in index.shards if shard.records)) or "none"
        raise OptionError(f"{where}: has no samples in split {split!r}. Splits that have: {known}.")
    return found


def batches(folder: Path, split: str, batch_size: int, shuffle_seed: int | None = None, ids: bool = False) -> Any:
    """A dataset of (image, mask), or (image, mask, id) with ``ids``, over one split; the last batch may be smaller.

    image is (B, H, W, 3) uint8 RGB, mask (B, H, W) uint8 class ids with 255 where a pixel does not count, id (B,) UTF-8
    bytes. Without ``shuffle_seed`` the order is that of the shards; with it every pass has another order, and the n-th
    pass of a dataset is always the same. Errors are those of the functions above, and RecordError for shards that
    are not what their index says; what only shows while reading needs ``read_errors`` around it.
    """
    index = read_index(folder)
    shape = picture_size(index, folder)
    label_map(index, folder)
    files = split_shards(index, split, folder)
    _check(folder, index, files)
    dataset = tf.data.TFRecordDataset([str(folder / shard.file) for shard in files], buffer_size=8 << 20)
    records = sum(shard.records for shard in files)
    if shuffle_seed is not None:  # as bytes: decoded, the same buffer would take 20 times the memory
        dataset = dataset.shuffle(min(records, SHUFFLE_RECORDS), seed=shuffle_seed)
    dataset = dataset.map(lambda record: _decode(record, shape, ids), tf.data.AUTOTUNE, deterministic=True)
    dataset = dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)
    return dataset.apply(tf.data.experimental.assert_cardinality(math.ceil(records / batch_size)))


def _check(folder: Path, index: IndexRecord, files: list[ShardRecord]) -> None:
    """Sizes, and every record's length: a record that claims more than the file holds would crash TensorFlow."""
    check_shard_sizes(folder, index)
    for shard in files:
        read_frames(folder, shard)


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
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise SegdataError(f"{folder}: out of memory. Try a smaller --batch-size. {_first_line(error)}") from error
    except (tf.errors.DataLossError, tf.errors.InvalidArgumentError, tf.errors.NotFoundError) as error:
        raise RecordError(
            f"{folder}: a record does not decode: {_first_line(error)} Run `segdata verify {folder}`."
        ) from error


def _first_line(error: Any) -> str:
    """TensorFlow's messages go on for pages of operations."""
    return f"({' '.join(error.message.splitlines()[:1])[:200]})"
