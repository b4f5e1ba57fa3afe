"""Batches against segdata's own reader, and what damaged shards end in."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from segdata.errors import OptionError, RecordError, SegdataError
from segdata.formats.tfrecord import masked_crc
from segdata.records import INDEX_JSON, read_index, seal
from segdata.shards import MASK, open_shards
from segmodels.batches import batches, read_errors

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


def test_shuffling_is_a_matter_of_the_seed_and_of_the_pass(discs: Path) -> None:
    first, second = (batches(discs, "train", 4, shuffle_seed=7, ids=True) for _ in range(2))
    passes = [order(first), order(first)]
    assert passes == [order(second), order(second)]
    assert passes[0] != passes[1]
    assert passes[0] != order(batches(discs, "train", 4, shuffle_seed=8, ids=True))
    assert sorted(passes[0]) == sorted(order(batches(discs, "train", 4, ids=True)))


def test_only_files_of_the_index_are_read(make: Make) -> None:
    shards = make()
    (shards / "discs-train.tfrecord-00002-of-00003").write_bytes(b"left over")
    assert len(order(batches(shards, "train", 4, ids=True))) == 10


def test_pictures_of_their_own_sizes_make_no_batch(make: Make) -> None:
    with pytest.raises(SegdataError, match=r"were built without --size.* with --size 256"):
        batches(make(size=None), "train", 4)


def test_mattes_alone_are_refused(make: Make) -> None:
    shards = make()
    index = read_index(shards)
    kinds = {key: kind for key, kind in index.features.items() if key != MASK}
    (shards / INDEX_JSON).write_bytes(seal(msgspec.structs.replace(index, features=kinds, label_map=None)))
    with pytest.raises(SegdataError, match="mattes and no masks"):
        batches(shards, "train", 4)


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
        (damage_payload, "does not decode: .*[Cc]orrupted.* Run `segdata verify"),
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
    with pytest.raises(RecordError, match="5 records, its index says 6"):
        batches(shards, "train", 4)
