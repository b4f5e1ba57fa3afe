"""Batches against segdata's own reader, and what damaged shards end in."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from segdata.errors import OptionError, RecordError, SegdataError
from segdata.formats.tfrecord import frame, masked_crc
from segdata.order import Order
from segdata.records import INDEX_JSON, read_index, seal
from segdata.shards import open_shards
from segmodels.batches import batches, read_errors, tf

Make = Callable[..., Path]


def read(dataset: Any) -> list[tuple[Any, ...]]:
    """All batches, as numpy."""
    return list(dataset.as_numpy_iterator())


def order(dataset: Any) -> list[str]:
    return [sample_id.decode() for batch in read(dataset) for sample_id in batch[2]]


def test_batches_hold_exactly_what_segdata_reads(discs: Path) -> None:
    expected = list(open_shards(discs, "train"))
    found = read(batches(discs, "train", 4, ids=True))
    assert [len(ids) for _, _, ids in found] == [4, 4, 2]
    images, masks, ids = (np.concatenate(parts) for parts in zip(*found, strict=True))
    assert (images.dtype, images.shape, masks.dtype, masks.shape) == ("uint8", (10, 64, 64, 3), "uint8", (10, 64, 64))
    assert [sample_id.decode() for sample_id in ids] == [sample.id for sample in expected]
    np.testing.assert_array_equal(images, [sample.image for sample in expected])
    np.testing.assert_array_equal(masks, [sample.mask for sample in expected])


def test_without_ids_there_are_pairs_and_their_number_is_known(discs: Path) -> None:
    dataset = batches(discs, "validation", 3)
    assert len(dataset) == 2
    assert [len(batch) for batch in read(dataset)] == [2, 2]


def expected(shards: Path, wanted: Order) -> list[str]:
    """The ids of the training samples in that order, from segdata's reader."""
    return [sample.id for sample in open_shards(shards, "train").read(wanted)]


def test_each_pass_with_a_seed_is_the_next_epoch(discs: Path) -> None:
    dataset = batches(discs, "train", 4, Order(seed=7, epoch=3), ids=True)
    assert [order(dataset) for _ in range(3)] == [expected(discs, Order(seed=7, epoch=epoch)) for epoch in (3, 4, 5)]


def test_each_pass_without_a_seed_is_the_same(discs: Path) -> None:
    dataset = batches(discs, "train", 4, Order(start=3), ids=True)
    assert [order(dataset) for _ in range(2)] == [expected(discs, Order(start=3))] * 2


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("start", [0, 7, 10])
def test_parts_of_what_is_left_have_their_number_and_order(discs: Path, start: int, parts: int) -> None:
    for part in range(parts):
        wanted = Order(seed=7, epoch=1, start=start, part=part, parts=parts)
        dataset = batches(discs, "train", 2, wanted, ids=True)
        ids = expected(discs, wanted)
        assert len(dataset) == math.ceil(len(ids) / 2)
        assert order(dataset) == ids


def test_what_is_left_of_an_epoch_is_read_once(discs: Path) -> None:
    dataset = batches(discs, "train", 4, Order(seed=7, epoch=1, start=4))
    with read_errors(discs):
        read(dataset)
    with pytest.raises(OptionError, match=r"position 4 on.*Order\(seed=7, epoch=2\)"), read_errors(discs):
        read(dataset)


def test_fit_sees_whole_epochs_in_their_order(discs: Path) -> None:
    """The network is one that notes the sum of each picture, as they come."""
    from segmodels.quiet import keras

    dataset = batches(discs, "train", 4, Order(seed=7))
    seen: list[int] = []

    class Noting(keras.Model):
        def train_step(self, data: Any) -> dict[str, Any]:
            seen.extend(np.sum(data[0].numpy(), axis=(1, 2, 3)).tolist())
            return {"loss": 0.0}

    model = Noting()
    model.compile(run_eagerly=True)
    model.fit(dataset, epochs=3, shuffle=False, verbose=0)
    epochs = [open_shards(discs).read(Order(seed=7, epoch=epoch)) for epoch in range(3)]
    assert seen == [sample.image.sum() for samples in epochs for sample in samples]
    assert len(set(seen)) == 10


@pytest.mark.parametrize("batch_size", [0, -1])
def test_an_empty_batch_is_refused(discs: Path, batch_size: int) -> None:
    with pytest.raises(OptionError, match=f"batch_size {batch_size}: expected 1 or more"):
        batches(discs, "train", batch_size)


def test_an_order_that_starts_beyond_the_end_is_refused(discs: Path) -> None:
    with pytest.raises(OptionError, match="start 11: expected at most 10"):
        batches(discs, "train", 4, Order(seed=7, start=11))


def test_only_files_of_the_index_are_read(make: Make) -> None:
    shards = make()
    (shards / "discs-train.tfrecord-00002-of-00003").write_bytes(b"left over")
    assert len(order(batches(shards, "train", 4, ids=True))) == 10


def test_pictures_of_their_own_sizes_make_no_batch(make: Make) -> None:
    with pytest.raises(SegdataError, match=r"were built without --size.* train's --size 256"):
        batches(make(size=None), "train", 4)


def test_mattes_come_as_shares(make: Make) -> None:
    shards = make(has_masks=False, matte_bits=16)
    found = read(batches(shards, "train", 4))
    mattes = np.concatenate([target for _, target in found])
    assert (mattes.dtype, mattes.shape) == ("float32", (10, 64, 64))
    np.testing.assert_array_equal(mattes, [sample.matte for sample in open_shards(shards, "train")])


def test_a_split_without_samples_is_refused_with_those_that_have(make: Make) -> None:
    shards = make(samples={"train": 4, "test": 3, "validation": 0})
    for split in ("validation", "training"):
        with pytest.raises(OptionError, match=f"no samples in split '{split}'. Splits that have: train, test."):
            batches(shards, split, 4)


def damage_cut(data: bytes) -> bytes:
    return data[:-1]


def damage_length(data: bytes) -> bytes:
    """A record that claims 2**40 bytes, under a right checksum: TensorFlow's own reader crashes on it."""
    length = struct.pack("<Q", 1 << 40)
    return length + struct.pack("<I", masked_crc(length)) + data[12:]


def damage_payload(data: bytes) -> bytes:
    return data[:300] + bytes((data[300] ^ 1,)) + data[301:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_cut, "bytes, the index says"),
        (damage_length, "says 1099511627776 bytes"),
        (damage_payload, "tfrecord-00001-of-00002 at byte 0: the checksum of .* Run `segdata verify"),
        (lambda data: b"", "has 0 bytes"),
    ],
)
def test_damaged_shards_end_in_one_line(make: Make, damage: Callable[[bytes], bytes], message: str) -> None:
    shards = make()
    path = shards / read_index(shards).shards[1].file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordError, match=message) as caught, read_errors(shards):
        read(batches(shards, "train", 4))
    assert "\n" not in str(caught.value)


def test_a_missing_record_is_missed(make: Make) -> None:
    shards = make()
    index = read_index(shards)
    more = [msgspec.structs.replace(shard, records=shard.records + 1) for shard in index.shards]
    (shards / INDEX_JSON).write_bytes(seal(msgspec.structs.replace(index, shards=more)))
    with pytest.raises(RecordError, match="5 records, its index says 6"), read_errors(shards):
        read(batches(shards, "train", 4))


def test_a_missing_shard_is_named(make: Make) -> None:
    shards = make()
    path = shards / read_index(shards).shards[1].file
    dataset = batches(shards, "train", 4)
    path.unlink()
    with pytest.raises(RecordError, match="is missing"):
        batches(shards, "train", 4)
    with pytest.raises(RecordError, match=f"{path.name}: cannot be read") as caught, read_errors(shards):
        read(dataset)
    assert "\n" not in str(caught.value)


def test_a_record_that_does_not_decode_ends_in_one_line(make: Make) -> None:
    shards = make()
    index = read_index(shards)
    data = frame(b"no example") * 5
    (shards / index.shards[0].file).write_bytes(data)
    files = [msgspec.structs.replace(index.shards[0], bytes=len(data)), *index.shards[1:]]
    (shards / INDEX_JSON).write_bytes(seal(msgspec.structs.replace(index, shards=files)))
    message = r"its bytes are no tf\.train\.Example.* Run `segdata verify"
    with pytest.raises(RecordError, match=message) as caught, read_errors(shards):
        read(batches(shards, "train", 4))
    assert "\n" not in str(caught.value)


def test_an_error_of_an_earlier_reading_is_not_shown_again(make: Make) -> None:
    shards = make()
    path = shards / read_index(shards).shards[0].file
    data = path.read_bytes()
    path.write_bytes(damage_payload(data))
    with pytest.raises(Exception, match=r"RecordError: .*checksum"):  # TensorFlow's own
        read(batches(shards, "train", 4))
    path.write_bytes(data)

    def elsewhere() -> Any:
        raise RuntimeError("elsewhere")

    with pytest.raises(Exception, match="elsewhere"), read_errors(shards):
        read(tf.data.Dataset.range(1).map(lambda _: tf.py_function(elsewhere, (), tf.int64)))
