"""Fitting on the fly is what the builder does; bars are undone; augmentation hangs on the record alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import OptionError, SegdataError
from segdata.order import Order
from segdata.records import Geometry, Sample, read_index
from segdata.shards import Shards, open_shards
from segdata.transforms.resize import Resize, letterbox_box, resize_nearest, resize_smooth
from segmodels.augment import KINDS, PRESETS, Augment
from segmodels.feeds import feed
from segmodels.inputs import (
    Inputs,
    cropped,
    has_mattes,
    network_geometry,
    plain_inputs,
    target_of,
    to_grey,
)

Make = Callable[..., Path]
PHOTOS = ((48, 40), (30, 50), (33, 64), (40, 40))
LETTERBOX, STRETCH = (Geometry(size=(32, 48), fit=fit) for fit in ("letterbox", "stretch"))


def photo_of(sample: Sample) -> tuple[int, int]:
    """The size of a photo, by the number in its id."""
    return PHOTOS[int(sample.id.removeprefix("disc-ä")) % len(PHOTOS)]


def as_built(sample: Sample, geometry: Geometry, original: tuple[int, int]) -> Sample:
    assert sample.image.shape[:2] == original, "the photo as it was"
    return Resize(geometry)(sample)


# ---- on the fly as the builder does it


@pytest.mark.parametrize("geometry", [LETTERBOX, STRETCH], ids=["letterbox", "stretch"])
def test_shards_without_a_size_are_fitted_as_the_builder_fits(make: Make, geometry: Geometry) -> None:
    shards = make(size=None, photos=PHOTOS, matte_bits=16, samples={"train": 8})
    inputs = Inputs(read_index(shards).geometry, geometry)
    for sample in open_shards(shards):
        built = as_built(sample, geometry, photo_of(sample))
        found = inputs.fitted(sample, photo_of(sample), (32, 48))
        np.testing.assert_array_equal(found.image, built.image)
        np.testing.assert_array_equal(found.mask, built.mask)  # type: ignore[arg-type]
        is_bar = np.ones((32, 48), bool)
        x, y, w, h = letterbox_box(*photo_of(sample), (32, 48)) if geometry is LETTERBOX else (0, 0, 48, 32)
        is_bar[y : y + h, x : x + w] = False
        assert found.matte is not None
        np.testing.assert_array_equal(found.matte, np.where(is_bar, -1, built.matte))  # type: ignore[arg-type]
        assert (found.mask[is_bar] == 255).all()  # type: ignore[index]
        assert (found.image[is_bar] == 128).all()
        assert found.id == sample.id


def test_some_of_these_photos_have_bars() -> None:
    """Else the test above would say nothing about them."""
    boxes = [letterbox_box(*size, (32, 48)) for size in PHOTOS]
    assert {(w < 48, h < 32) for _, _, w, h in boxes} == {(True, False), (False, True)}


@pytest.mark.parametrize("size", [(96, 48), (20, 60), (64, 64)], ids=str)
@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_bars_are_undone_before_others_are_made(make: Make, size: tuple[int, int], fit: str) -> None:
    shards = make(size=(48, 48), fit="letterbox", photos=PHOTOS, matte_bits=8, samples={"train": 8})
    wanted = Geometry(size=size, fit=fit)
    inputs = Inputs(read_index(shards).geometry, wanted)
    for sample in open_shards(shards):
        original = photo_of(sample)
        x, y, w, h = letterbox_box(*original, (48, 48))
        content = np.s_[y : y + h, x : x + w]
        left, top, wide, tall = letterbox_box(*original, size) if fit == "letterbox" else (0, 0, size[1], size[0])
        place = np.s_[top : top + tall, left : left + wide]
        assert sample.mask is not None
        assert sample.matte is not None
        mask, image = np.full(size, 255), np.full((*size, 3), 128)
        matte = np.full(size, -1.0)
        mask[place] = resize_nearest(sample.mask[content], tall, wide)
        image[place] = resize_smooth(np.ascontiguousarray(sample.image[content]), tall, wide)
        matte[place] = np.clip(resize_smooth(np.ascontiguousarray(sample.matte[content]), tall, wide), 0, 1)
        found = inputs.fitted(sample, original, size)
        np.testing.assert_array_equal(found.mask, mask)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.image, image)
        np.testing.assert_array_equal(found.matte, matte.astype(np.float32))  # type: ignore[arg-type]


def test_at_the_size_of_the_shards_only_bars_change(make: Make) -> None:
    shards = make(size=(48, 48), fit="letterbox", photos=PHOTOS, matte_bits=8, samples={"train": 8})
    geometry = read_index(shards).geometry
    for sample in open_shards(shards):
        found = Inputs(geometry, geometry).fitted(sample, photo_of(sample), (48, 48))
        x, y, w, h = letterbox_box(*photo_of(sample), (48, 48))
        is_content = np.zeros((48, 48), bool)
        is_content[y : y + h, x : x + w] = True
        np.testing.assert_array_equal(found.image, np.where(is_content[:, :, None], sample.image, 128))
        np.testing.assert_array_equal(found.mask, sample.mask)  # type: ignore[arg-type]
        np.testing.assert_array_equal(found.matte, np.where(is_content, sample.matte, -1))  # type: ignore[arg-type]
        without = replace(sample, matte=None)
        assert Inputs(geometry, geometry).fitted(without, photo_of(sample), (48, 48)) is without


def test_stretched_shards_keep_their_photos_shape_when_letterboxed(make: Make) -> None:
    shards = make(size=(48, 48), photos=((30, 60),), samples={"train": 1})
    inputs = Inputs(read_index(shards).geometry, Geometry(size=(64, 64), fit="letterbox"))
    found = inputs.fitted(open_shards(shards).sample(0), (30, 60), (64, 64))
    assert found.mask is not None
    np.testing.assert_array_equal((found.image != 128).any(axis=(1, 2)), [16 <= row < 48 for row in range(64)])
    assert (found.mask[16:40] != 255).all(), "not a bar there"


def test_cutting_out_a_box_leaves_what_was_given_alone() -> None:
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    sample = Sample("a", image, image[:, :, 0].copy(), None)
    found = cropped(sample, (2, 1, 5, 3))
    np.testing.assert_array_equal(found.image, image[1:4, 2:7])
    np.testing.assert_array_equal(found.mask, image[1:4, 2:7, 0])  # type: ignore[arg-type]
    assert found.matte is None
    assert found.image.flags.c_contiguous
    assert cropped(sample, None) is sample


# ---- arrays


def an_input(**changes: Any) -> Inputs:
    return Inputs(LETTERBOX, LETTERBOX, **changes)


def a_sample(mask: bool = True, matte: bool = True) -> Sample:
    dice = np.random.default_rng(0)
    image = dice.integers(0, 256, (32, 48, 3), np.uint8)
    return Sample(
        "a",
        image,
        dice.integers(0, 2, (32, 48), np.uint8) if mask else None,
        dice.random((32, 48), np.float32) if matte else None,
    )


@pytest.mark.parametrize("target", ["mask", "matte"])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("boundary", [False, True])
@pytest.mark.parametrize("config", ["none", "portrait"])
def test_shapes_and_types(target: str, grey: bool, boundary: bool, config: str) -> None:
    inputs = an_input(target=target, grey=grey, boundary=boundary, augment=PRESETS[config])
    for number in range(8):
        image, *targets = inputs.arrays(a_sample(), (32, 48), (32, 48), number, 0)
        assert (image.shape, image.dtype) == ((32, 48, 1 if grey else 3), "uint8")
        assert image.shape[2] == inputs.channels
        assert (targets[0].shape, targets[0].dtype) == ((32, 48), "uint8" if target == "mask" else "float32")
        assert len(targets) == 1 + boundary
        for edge in targets[1:]:
            assert (edge.shape, edge.dtype) == ((32, 48), "uint8")
            assert set(np.unique(edge)) <= {0, 1, 255}


@pytest.mark.parametrize("target", ["mask", "matte"])
def test_a_sample_without_its_target_is_named(target: str) -> None:
    with pytest.raises(OptionError, match=f"sample 'a': has no {target}. Run `segdata verify`.") as caught:
        an_input(target=target).arrays(a_sample(target != "mask", target != "matte"), (32, 48), (32, 48), 0, 0)
    assert "\n" not in str(caught.value)


def test_the_boundary_is_that_of_the_augmented_target() -> None:
    flip = Augment("flip", horizontal_flip=KINDS["horizontal_flip"](probability=1))
    sample = a_sample()
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 4:16] = 1
    sample = replace(sample, mask=mask)
    _, target, edge = an_input(boundary=True, augment=flip).arrays(sample, (32, 48), (32, 48), 0, 0)
    np.testing.assert_array_equal(target, mask[:, ::-1])
    assert edge[16, 48 - 4] == 1
    assert edge[16, 4] == 0


def test_grey_is_the_weighted_sum_of_the_channels() -> None:
    image = a_sample().image
    expected = image @ np.array([0.299, 0.587, 0.114])
    found = to_grey(image)
    assert found.shape == (32, 48, 1)
    assert np.abs(found[:, :, 0] - expected).max() < 0.51
    assert to_grey(np.array([[[255, 0, 0]]], np.uint8)).item() == 76, "red first"


def test_a_stored_sample_is_not_written_to() -> None:
    sample = a_sample()
    for part in (sample.image, sample.mask, sample.matte):
        assert part is not None
        part.setflags(write=False)
    everything = Augment("all", **{name: kind(probability=1) for name, kind in KINDS.items()})
    for size in ((32, 48), (64, 64)):
        an_input(grey=True, boundary=True, augment=everything).arrays(sample, (32, 48), size, 0, 0)


# ---- what hangs on what


def seen(shards: Path, inputs: Inputs, batch_size: int, order: Order) -> dict[str, bytes]:
    """What each sample is trained on, by id."""
    fed = list(feed(Shards(shards, read_index(shards), "train"), inputs, batch_size, order))
    return {
        name: b"".join((batch.images[i].tobytes(), *(part[i].tobytes() for part in batch.targets.values())))
        for batch in fed
        for i, name in enumerate(batch.ids)
    }


def test_seed_epoch_and_record_number_alone_decide_what_is_augmented(discs: Path) -> None:
    inputs = replace(plain_inputs(read_index(discs), discs), augment=PRESETS["portrait"], seed=3)
    whole = seen(discs, inputs, 4, Order(seed=9, epoch=2))
    assert len(whole) == 10
    for batch_size in (1, 3, 10):
        assert seen(discs, inputs, batch_size, Order(seed=9, epoch=2)) == whole
    parts = [seen(discs, inputs, 2, Order(seed=9, epoch=2, start=3, part=part, parts=2)) for part in range(2)]
    assert len(parts[0] | parts[1]) == 7
    assert parts[0] | parts[1] == {name: whole[name] for name in parts[0] | parts[1]}
    assert seen(discs, inputs, 4, Order(seed=8, epoch=2)) == whole, "in another order the same"
    for other in (seen(discs, inputs, 4, Order(seed=9, epoch=3)), seen(discs, replace(inputs, seed=4), 4, Order(9, 2))):
        assert sum(other[name] != whole[name] for name in whole) >= 8


def test_without_augmentation_every_epoch_is_the_same(discs: Path) -> None:
    inputs = plain_inputs(read_index(discs), discs)
    assert seen(discs, inputs, 4, Order(seed=9, epoch=2)) == seen(discs, inputs, 3, Order())


BUCKETS = ((32, 32), (48, 32), (32, 64))


def test_a_bucket_is_drawn_by_seed_epoch_and_batch() -> None:
    inputs = an_input(buckets=BUCKETS, seed=3)
    drawn = [[inputs.size_of(epoch, batch) for batch in range(40)] for epoch in range(3)]
    assert drawn == [[inputs.size_of(epoch, batch) for batch in range(40)] for epoch in range(3)]
    assert all(set(sizes) == set(BUCKETS) for sizes in drawn)
    assert all(sizes.count(bucket) >= 5 for sizes in drawn for bucket in BUCKETS), "about as often"
    assert drawn[0] != drawn[1] != drawn[2]
    assert drawn[0] != [replace(inputs, seed=4).size_of(0, batch) for batch in range(40)]
    assert (inputs.shape, an_input().shape) == ((None, None), (32, 48))
    assert an_input().size_of(7, 7) == (32, 48)


def test_validation_draws_nothing() -> None:
    inputs = an_input(buckets=BUCKETS, augment=PRESETS["portrait"], seed=3, grey=True, boundary=True)
    assert inputs.plain() == an_input(seed=3, grey=True, boundary=True)
    assert inputs.plain().size_of(3, 1) == (32, 48)


# ---- what shards allow


def test_the_target_is_the_mask_where_there_is_one(make: Make) -> None:
    kinds = {
        (True, 0): ("mask", False),
        (True, 8): ("mask", True),
        (False, 16): ("matte", True),
    }
    for (has_masks, bits), expected in kinds.items():
        index = read_index(make(has_masks=has_masks, matte_bits=bits, samples={"train": 2}))
        assert (target_of(index), has_mattes(index)) == expected


def test_a_size_of_ones_own_wins_and_none_at_all_is_refused(make: Make) -> None:
    shards, sizeless = make(fit="letterbox", samples={"train": 2}), make(size=None, samples={"train": 2})
    assert network_geometry(read_index(shards), shards, None, "stretch") == Geometry(size=(64, 64), fit="letterbox")
    assert network_geometry(read_index(shards), shards, (64, 64), "stretch") == Geometry(size=(64, 64), fit="stretch")
    assert network_geometry(read_index(sizeless), sizeless, (32, 48), "letterbox") == LETTERBOX
    with pytest.raises(SegdataError, match="without --size") as caught:
        network_geometry(read_index(sizeless), sizeless, None, "letterbox")
    assert "\n" not in str(caught.value)
