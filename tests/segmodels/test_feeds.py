"""The feed without TensorFlow and the ``tf.data`` graph give the same batches, bit for bit, and both what one sample at
a time gives.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from segdata.errors import OptionError, RecordError
from segdata.order import Order
from segdata.records import INDEX_JSON, Geometry, read_index, seal
from segdata.shards import MATTE, Shards, open_shards, parse
from segmodels.augment import KINDS, PRESETS, Augment
from segmodels.batches import batches, read_errors
from segmodels.feeds import feed, stored
from segmodels.inputs import Inputs, network_geometry, target_of

Make = Callable[..., Path]
PHOTOS = ((48, 40), (30, 50), (33, 64), (40, 40))
EVERYTHING = Augment("all", **{name: kind(probability=1) for name, kind in KINDS.items()})
EPOCH = Order(seed=7, epoch=2)


@dataclass(frozen=True)
class Case:
    """Shards, and what is made of them; ``size`` None is that of the shards."""

    shards: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    fit: str = "letterbox"
    inputs: dict[str, Any] = field(default_factory=dict)
    order: Order = EPOCH

    def inputs_for(self, shards: Path) -> Inputs:
        index = read_index(shards)
        geometry = network_geometry(index, shards, self.size, self.fit)
        pairs = ((0, 1),)
        return Inputs(index.geometry, geometry, target_of(index), seed=5, pairs=pairs, **self.inputs)


LETTERBOXED = {"size": (48, 48), "fit": "letterbox", "photos": PHOTOS}
SIZELESS = {"size": None, "photos": PHOTOS}
BUCKETS = ((32, 32), (48, 32), (32, 64))
CASES = {
    "plain": Case(),
    "plain-letterbox": Case(LETTERBOXED),
    "light": Case(inputs={"augment": PRESETS["light"]}),
    "portrait": Case(inputs={"augment": PRESETS["portrait"]}),
    "everything": Case(LETTERBOXED | {"matte_bits": 16}, inputs={"augment": EVERYTHING}),
    "grey": Case(inputs={"grey": True}),
    "another-size": Case(size=(32, 80)),
    "another-size-stretched": Case(LETTERBOXED, size=(32, 80), fit="stretch"),
    "letterboxed-to-another-size": Case(LETTERBOXED, size=(64, 40)),
    "without-a-size": Case(SIZELESS, size=(40, 48)),
    "without-a-size-stretched": Case(SIZELESS, size=(40, 48), fit="stretch"),
    "buckets": Case(inputs={"buckets": BUCKETS, "augment": PRESETS["light"]}),
    "buckets-without-a-size": Case(SIZELESS, size=(40, 48), inputs={"buckets": BUCKETS}),
    "boundary": Case(inputs={"boundary": True, "augment": PRESETS["light"]}),
    "mattes-of-8-bits": Case(LETTERBOXED | {"has_masks": False, "matte_bits": 8}),
    "mattes-of-16-bits": Case(LETTERBOXED | {"has_masks": False, "matte_bits": 16}, size=(64, 40)),
    "mattes-augmented": Case({"has_masks": False, "matte_bits": 16}, inputs={"augment": PRESETS["portrait"]}),
    "mattes-with-a-boundary": Case({"has_masks": False, "matte_bits": 8}, inputs={"boundary": True, "grey": True}),
    "masks-and-mattes": Case({"matte_bits": 8}),
    "masks-and-mattes-augmented": Case({"matte_bits": 8}, inputs={"augment": PRESETS["portrait"]}),
    "start": Case(inputs={"augment": PRESETS["light"]}, order=replace(EPOCH, start=3)),
    "a-part": Case(inputs={"augment": PRESETS["light"]}, order=replace(EPOCH, start=1, part=1, parts=2)),
    "shard-order": Case(inputs={"augment": PRESETS["light"]}, order=Order()),
}

Batch = tuple[list[str], np.ndarray[Any, Any], dict[str, np.ndarray[Any, Any]]]


def by_feed(shards: Path, inputs: Inputs, order: Order) -> list[Batch]:
    reader = Shards(shards, read_index(shards), "train")
    return [(batch.ids, batch.images, batch.targets) for batch in feed(reader, inputs, 4, order)]


def by_graph(shards: Path, inputs: Inputs, order: Order) -> list[Batch]:
    with read_errors(shards):
        found = list(batches(shards, "train", 4, order, ids=True, inputs=inputs).as_numpy_iterator())
    return [
        ([name.decode() for name in ids], images, target if isinstance(target, dict) else {"target": target})
        for images, target, ids in found
    ]


def one_by_one(shards: Path, case: Case, inputs: Inputs) -> list[Batch]:
    """From segdata's reader and the numbers alone; a sample's photo is known by its id."""
    reader = open_shards(shards)
    numbers = case.order.numbers(len(reader)).tolist()
    photos = case.shards.get("photos", (case.shards.get("size", (64, 64)),))
    made = []
    for batch, at in enumerate(range(0, len(numbers), 4)):
        samples = [reader.sample(number) for number in numbers[at : at + 4]]
        originals = [photos[int(sample.id.removeprefix("disc-ä")) % len(photos)] for sample in samples]
        size = inputs.size_of(case.order.epoch, batch)
        rows = [
            inputs.arrays(sample, original, size, number, case.order.epoch)
            for sample, original, number in zip(samples, originals, numbers[at : at + 4], strict=True)
        ]
        images, *targets = (np.stack(parts) for parts in zip(*rows, strict=True))
        names = ("target", "boundary")[: len(targets)]
        made.append(([sample.id for sample in samples], images, dict(zip(names, targets, strict=True))))
    return made


def assert_same(found: list[Batch], expected: list[Batch]) -> None:
    assert [ids for ids, _, _ in found] == [ids for ids, _, _ in expected]
    for (_, images, targets), (_, expected_images, expected_targets) in zip(found, expected, strict=True):
        assert list(targets) == list(expected_targets)
        for part, other in zip((images, *targets.values()), (expected_images, *expected_targets.values()), strict=True):
            assert (part.dtype, part.shape) == (other.dtype, other.shape)
            np.testing.assert_array_equal(part, other)


@pytest.mark.parametrize("name", CASES)
def test_the_feed_the_graph_and_one_at_a_time_agree(make: Make, name: str) -> None:
    case = CASES[name]
    shards = make(**{"samples": {"train": 10}, **case.shards})
    inputs = case.inputs_for(shards)
    eager = one_by_one(shards, case, inputs)
    assert_same(by_feed(shards, inputs, case.order), eager)
    assert_same(by_graph(shards, inputs, case.order), eager)
    if inputs.buckets:
        assert len({images.shape for _, images, _ in eager}) > 1


def test_the_comparison_can_fail(discs: Path) -> None:
    inputs = CASES["light"].inputs_for(discs)
    found, other = (by_feed(discs, replace(inputs, seed=seed), EPOCH) for seed in (5, 6))
    with pytest.raises(AssertionError):
        assert_same(found, other)


def test_each_pass_over_the_graph_is_the_epoch_that_the_feed_is_told(make: Make) -> None:
    shards = make(samples={"train": 10})
    inputs = CASES["buckets"].inputs_for(shards)
    dataset = batches(shards, "train", 4, EPOCH, ids=True, inputs=inputs)
    for epoch in (2, 3, 4):
        expected = by_feed(shards, inputs, replace(EPOCH, epoch=epoch))
        found = [
            ([i.decode() for i in ids], images, {"target": target})
            for images, target, ids in dataset.as_numpy_iterator()
        ]
        assert_same(found, expected)


def test_the_graph_knows_its_shapes(make: Make) -> None:
    shards = make(samples={"train": 4})
    plain, buckets, boundary = (CASES[name].inputs_for(shards) for name in ("grey", "buckets", "boundary"))
    assert batches(shards, "train", 2, inputs=plain).element_spec[0].shape.as_list() == [None, 64, 64, 1]
    assert batches(shards, "train", 2, inputs=buckets).element_spec[0].shape.as_list() == [None, None, None, 3]
    target = batches(shards, "train", 2, inputs=boundary).element_spec[1]
    assert {key: spec.shape.as_list() for key, spec in target.items()} == {
        "target": [None, 64, 64],
        "boundary": [None, 64, 64],
    }


def test_a_matte_that_is_a_step_of_8_bits_is_that_share(make: Make) -> None:
    """So that the two decoders below are known to agree on more than noise."""
    shards = make(has_masks=False, matte_bits=8, samples={"train": 2})
    matte = open_shards(shards).sample(0).matte
    assert matte is not None
    np.testing.assert_array_equal(matte, (np.round(matte * 255) / np.float32(255)).astype(np.float32))
    assert 0 < np.mean((matte > 0) & (matte < 1)) < 0.5


def test_a_stored_sample_comes_with_the_size_of_its_photo(make: Make) -> None:
    shards = open_shards(make(**LETTERBOXED, matte_bits=8, samples={"train": 4}))
    found = stored(shards, 1)
    assert found.original == PHOTOS[int(found.sample.id.removeprefix("disc-ä"))]
    assert found.sample.image.shape == (48, 48, 3)
    assert MATTE in parse(*shards.payload(1))


# ---- threads, ends and errors


def test_no_more_is_read_ahead_than_is_said(discs: Path) -> None:
    reader = Shards(discs, read_index(discs), "train")
    read: list[int] = []
    payload = reader.payload
    reader.payload = lambda number: (read.append(number), payload(number))[1]  # type: ignore[method-assign,func-returns-value]
    batches_of_one = feed(reader, CASES["plain"].inputs_for(discs), 1, Order())
    next(batches_of_one)
    assert len(read) <= (os.cpu_count() or 1) + 1
    assert len(list(batches_of_one)) == 9


def test_a_feed_that_is_left_leaves_no_thread(discs: Path) -> None:
    fed = feed(Shards(discs, read_index(discs), "train"), CASES["portrait"].inputs_for(discs), 2, EPOCH)
    next(fed)
    assert any("segdata-feed" in thread.name for thread in threading.enumerate())
    fed.close()  # type: ignore[attr-defined]
    assert not any("segdata-feed" in thread.name for thread in threading.enumerate())


def test_nothing_left_is_no_batch(discs: Path) -> None:
    reader = Shards(discs, read_index(discs), "train")
    assert not list(feed(reader, CASES["plain"].inputs_for(discs), 4, Order(seed=1, start=10)))


def test_a_damaged_record_ends_the_feed_with_its_batch(make: Make) -> None:
    shards = make(samples={"train": 6}, shards_a_split=1)
    path = shards / read_index(shards).shards[0].file
    data = bytearray(path.read_bytes())
    data[-100] ^= 1  # in the last record
    path.write_bytes(data)
    fed = feed(Shards(shards, read_index(shards), "train"), CASES["plain"].inputs_for(shards), 2, Order())
    assert len([next(fed), next(fed)]) == 2
    with pytest.raises(RecordError, match="checksum") as caught:
        next(fed)
    assert "\n" not in str(caught.value)


def test_a_sample_without_its_target_ends_both_in_one_line(make: Make) -> None:
    shards = make(samples={"train": 4})
    inputs = replace(CASES["plain"].inputs_for(shards), target="matte")
    for read in (by_feed, by_graph):
        with pytest.raises(OptionError, match=r"has no matte\. Run `segdata verify`") as caught:
            read(shards, inputs, Order())
        assert "\n" not in str(caught.value)


def test_pictures_of_another_size_than_the_index_says_end_both_in_one_line(make: Make) -> None:
    shards = make(samples={"train": 4})
    index = read_index(shards)
    other = Geometry(size=(32, 32), fit="stretch")
    (shards / INDEX_JSON).write_bytes(seal(msgspec.structs.replace(index, geometry=other)))
    for read in (by_feed, by_graph):
        with pytest.raises(RecordError, match=r"\(64, 64\).*expected \(32, 32\).*Run `segdata verify") as caught:
            read(shards, CASES["plain"].inputs_for(shards), Order())
        assert "\n" not in str(caught.value)
