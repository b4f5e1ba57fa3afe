"""Shards to batches, as a ``tf.data.Dataset`` of what ``feeds.feed`` makes: for a ``fit`` of one's own.

With TensorFlow's own decoders and a ``numpy_function`` a sample, or a batch, it takes longer: its threads each keep
memory of their own and give it back, which costs as much as decoding.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segdata.errors import OptionError, SegdataError
from segdata.order import SHARD_ORDER, Order
from segdata.records import read_index
from segdata.shards import Shards, check_shard_sizes, check_split
from segmodels.feeds import feed
from segmodels.inputs import TARGETS, Inputs, plain_inputs
from segmodels.quiet import stderr_held_back

with stderr_held_back():
    import tensorflow as tf

_kept_aside: dict[Path, SegdataError] = {}  # by folder: TensorFlow passes on the text of an exception, within pages


def batches(
    folder: Path,
    split: str,
    batch_size: int,
    order: Order = SHARD_ORDER,
    ids: bool = False,
    inputs: Inputs | None = None,
) -> Any:
    """A dataset of (image, target), or (image, target, id) with ``ids``, over one split; the last batch may be smaller.

    image is (B, H, W, 3) uint8 RGB, target (B, H, W): uint8 class ids with 255 where a pixel does not count, or for
    shards of mattes float32 alpha with -1 there; id (B,) UTF-8 bytes. ``inputs`` says otherwise: it fits and augments,
    and with ``boundary`` the target is a dict of ``target`` and ``boundary``.

    The first pass over the dataset is ``order``; where that has a seed, each further pass is the next epoch, so that
    ``fit`` with N epochs sees N exact permutations. What is left of an epoch (``order.start``) with a seed is one pass
    only: a second one ends in OptionError. OptionError for values out of their bounds, SegdataError for shards without
    a size where ``inputs`` gives none, and RecordError for shards of another size than their index says; what only
    shows while reading needs ``read_errors`` around it.
    """
    if batch_size < 1:
        raise OptionError(f"batch_size {batch_size}: expected 1 or more.")
    index = read_index(folder)
    inputs = inputs or plain_inputs(index, folder)
    check_split(index, split, folder)
    check_shard_sizes(folder, index)
    shards = Shards(folder, index, split)
    records = len(order.numbers(len(shards)))
    passes = itertools.count()
    dataset = tf.data.Dataset.from_generator(
        lambda: _elements(shards, order, next(passes), batch_size, inputs, ids),
        output_signature=_signature(inputs, ids),
    )
    return dataset.prefetch(2).apply(tf.data.experimental.assert_cardinality(math.ceil(records / batch_size)))


def _signature(inputs: Inputs, ids: bool) -> tuple[Any, ...]:
    target = tf.TensorSpec((None, *inputs.shape), tf.uint8 if inputs.target == "mask" else tf.float32)
    boundary = tf.TensorSpec((None, *inputs.shape), tf.uint8)
    answer = dict(zip(TARGETS, (target, boundary), strict=True)) if inputs.boundary else target
    image = tf.TensorSpec((None, *inputs.shape, inputs.channels), tf.uint8)
    return (image, answer, tf.TensorSpec((None,), tf.string)) if ids else (image, answer)


def _elements(
    shards: Shards, order: Order, passes: int, batch_size: int, inputs: Inputs, ids: bool
) -> Iterator[tuple[Any, ...]]:
    """The batches of the pass after ``passes`` others. Errors are kept aside."""
    try:
        if passes and order.start and order.seed is not None:
            raise OptionError(
                f"{shards.folder}: a second pass over what was left of epoch {order.epoch} from position {order.start} "
                f"on. Make a dataset of order=Order(seed={order.seed}, epoch={order.epoch + 1}) for the next."
            )
        epoch = order.epoch + (passes if order.seed is not None else 0)
        for made in feed(shards, inputs, batch_size, dataclasses.replace(order, epoch=epoch)):
            answer = made.targets if inputs.boundary else made.targets["target"]
            names = [name.encode() for name in made.ids]
            yield (made.images, answer, names) if ids else (made.images, answer)
    except SegdataError as error:
        _kept_aside[shards.folder] = error
        raise


@contextmanager
def read_errors(folder: Path) -> Iterator[None]:
    """What was found wrong in the shards, in place of what TensorFlow makes of an exception in Python code."""
    _kept_aside.pop(folder, None)
    try:
        yield
    except tf.errors.OpError as error:
        if folder not in _kept_aside:
            raise
        raise _kept_aside.pop(folder) from error
