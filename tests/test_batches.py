"""Batches of numpy arrays against the samples they are made of."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from segdata.batches import Batch, numpy_batches
from segdata.errors import OptionError, RecordError, SegdataError
from segdata.formats import images
from segdata.order import Order
from segdata.records import INDEX_JSON, Geometry, read_index, seal
from segdata.shards import Shards, encode_sample, open_shards
from tests.material import Stored, ids, photo, sample_line, stored, write_shards

HEIGHT, WIDTH = 20, 30


def record(number: int, with_matte: bool = False) -> Stored:
    """Sample ``number``: pixels of its own, at the size of all."""
    pixels, mask = photo(HEIGHT, WIDTH, number), np.roll(ids(HEIGHT, WIDTH, 2), number, axis=1)
    matte = np.full((HEIGHT, WIDTH), number / 10, np.float32) if with_matte else None
    line = sample_line(f"sample {number}", height=HEIGHT, width=WIDTH)
    alpha = None if matte is None else images.encode_matte(matte, 16)
    payload = encode_sample(line, images.encode_png(pixels), images.encode_mask(mask), alpha)
    return Stored(line, pixels, mask, matte, payload)


def make(folder: Path, *shards: list[Stored], size: tuple[int, int] | None = (HEIGHT, WIDTH)) -> Shards:
    """Shards whose index says that all pictures have that size."""
    index = write_shards(folder, {"train": shards})
    index = msgspec.structs.replace(index, geometry=Geometry(size=size, fit="stretch" if size else "none"))
    (folder / INDEX_JSON).write_bytes(seal(index))
    return open_shards(folder)


def lengths(batches: list[Batch]) -> list[int]:
    return [len(batch.ids) for batch in batches]


@pytest.fixture
def shards(tmp_path: Path) -> Shards:
    """Seven records in two shards."""
    return make(tmp_path, [record(i) for i in range(4)], [record(i) for i in range(4, 7)])


@pytest.mark.parametrize("order", [Order(), Order(seed=3, epoch=1), Order(seed=3, start=2, part=1, parts=2)], ids=str)
def test_batches_hold_exactly_the_samples(shards: Shards, order: Order) -> None:
    found = list(numpy_batches(shards, 3, order))
    wanted = list(shards.read(order))
    assert [sample_id for batch in found for sample_id in batch.ids] == [sample.id for sample in wanted]
    pixels, masks = (np.concatenate([getattr(batch, name) for batch in found]) for name in ("images", "masks"))
    assert (pixels.dtype, pixels.shape[1:]) == (np.uint8, (HEIGHT, WIDTH, 3))
    assert (masks.dtype, masks.shape[1:]) == (np.uint8, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(pixels, [sample.image for sample in wanted])
    np.testing.assert_array_equal(masks, [sample.mask for sample in wanted])
    assert all(batch.mattes is None for batch in found)


def test_mattes_come_where_the_shards_hold_them(tmp_path: Path) -> None:
    wanted = [record(i, with_matte=True) for i in range(2)]
    (batch,) = numpy_batches(make(tmp_path, wanted), 8)
    assert batch.mattes is not None
    assert batch.mattes.dtype == np.float32
    np.testing.assert_allclose(batch.mattes, [sample.matte for sample in wanted], atol=1 / 65535)


def test_the_last_batch_is_smaller_or_left_out(shards: Shards) -> None:
    assert lengths(list(numpy_batches(shards, 3))) == [3, 3, 1]
    assert lengths(list(numpy_batches(shards, 3, drop_remainder=True))) == [3, 3]
    assert lengths(list(numpy_batches(shards, 7, drop_remainder=True))) == [7]
    assert lengths(list(numpy_batches(shards, 8, drop_remainder=True))) == []
    assert lengths(list(numpy_batches(shards, 3, Order(start=7)))) == []


def test_what_cannot_be_is_refused_before_the_first_batch(shards: Shards, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="batch_size 0: expected 1 or more"):
        numpy_batches(shards, 0)
    with pytest.raises(OptionError, match="start 8: expected at most 7"):
        numpy_batches(shards, 3, Order(start=8))
    own = make(tmp_path / "own", [stored(0), stored(1)], size=None)
    with pytest.raises(SegdataError, match=r"were built without --size.* with --size 256"):
        numpy_batches(own, 2)


def test_a_record_of_another_size_is_named(tmp_path: Path) -> None:
    shards = make(tmp_path, [stored(0), stored(1)])
    with pytest.raises(RecordError, match=r"image of sample 'Bild_1ä': .* \(21, 30\), the index says \(20, 30\)"):
        list(numpy_batches(shards, 2))


def test_a_record_without_what_the_index_lists_is_named(tmp_path: Path) -> None:
    shards = make(tmp_path, [record(0, with_matte=True), record(1)])
    with pytest.raises(RecordError, match=r"matte of sample 'sample 1': .* None, the index says"):
        list(numpy_batches(shards, 2))


def test_a_damaged_record_is_named(shards: Shards) -> None:
    path = shards.folder / read_index(shards.folder).shards[1].file
    data = path.read_bytes()
    path.write_bytes(data[:300] + bytes((data[300] ^ 1,)) + data[301:])
    found = numpy_batches(shards, 4)
    assert len(next(found).ids) == 4
    with pytest.raises(RecordError, match=f"{path.name} at byte .*checksum"):
        next(found)
