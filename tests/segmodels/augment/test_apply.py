"""What is drawn, from what, and that the arrays given are left alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segmodels.augment import KINDS, PRESETS, Augment, apply, draw
from segmodels.augment.options import NAMES

EVERYTHING = Augment("all", **{name: kind(probability=1) for name, kind in KINDS.items()})
Sample = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]


def sample(seed: int = 0, height: int = 48, width: int = 64) -> Sample:
    dice = np.random.default_rng(seed)
    image = dice.integers(0, 256, (height, width, 3), np.uint8)
    mask = dice.integers(0, 5, (height, width), np.uint8)
    return image, mask, dice.random((height, width), np.float32)


def digest(config: Augment, seed: int, epoch: int, record: int) -> bytes:
    return b"".join(
        part.tobytes() for part in apply(config, *sample(), ((1, 2),), seed, epoch, record) if part is not None
    )


def test_seed_epoch_and_record_alone_decide() -> None:
    config = PRESETS["portrait"]
    keys = [(seed, epoch, record) for seed in range(3) for epoch in range(3) for record in range(3)]
    first = [digest(config, *key) for key in keys]
    np.random.seed(5)  # of the global generator, which nothing here uses
    assert [digest(config, *key) for key in reversed(keys)] == first[::-1]
    assert len(set(first)) > 20, "with another key another draw, but for the few that draw nothing"


def test_threads_do_not_share_what_they_work_on() -> None:
    config = replace(EVERYTHING, blur=None, jpeg=None)
    large = sample(0, 256, 256)

    def seen(record: int) -> bytes:
        return apply(config, *large, (), 1, 0, record)[0].tobytes()

    alone = list(map(seen, range(60)))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(seen, range(60))) == alone


def test_records_do_not_share_their_random_numbers() -> None:
    """Philox makes four numbers a count, and an augmentation has sixteen."""
    for record in range(20):
        others = [draw(EVERYTHING, 0, 0, record + i) for i in range(1, 9)]
        amounts = draw(EVERYTHING, 0, 0, record)["add_per_channel"]
        assert not any(one["add"] in amounts or one["add_per_channel"][0] in amounts for one in others)


def test_large_keys_are_keys() -> None:
    most = (1 << 64) - 1
    assert draw(EVERYTHING, most, 0, 0) != draw(EVERYTHING, 0, most, 0) != draw(EVERYTHING, 0, 0, most)


def test_an_augmentation_draws_the_same_with_and_without_others() -> None:
    whole = draw(EVERYTHING, 7, 2, 9)
    assert tuple(whole) == NAMES
    for name in NAMES:
        alone = Augment("one", **{name: getattr(EVERYTHING, name)})
        assert draw(alone, 7, 2, 9) == {name: whole[name]}


@pytest.mark.parametrize("name", NAMES)
def test_probabilities_are_kept(name: str) -> None:
    config = Augment("one", **{name: KINDS[name](probability=0.3)})
    count = sum(bool(draw(config, 0, 0, record)) for record in range(2000))
    assert 0.26 < count / 2000 < 0.34


def test_draws_fill_their_ranges_and_stay_inside() -> None:
    drawn = [draw(EVERYTHING, 0, 0, record) for record in range(600)]
    for name, low, high in (("rotate", -45, 45), ("scale", 0.6, 1.5), ("gamma", 0.5, 1.5), ("brightness", 0.501, 1.3)):
        values = [one[name] for one in drawn]
        room = (high - low) * 0.02
        assert low <= min(values) < low + room
        assert high - room < max(values) <= high
    assert {one["jpeg"] for one in drawn} == set(range(10, 71))
    assert {one["blur"] for one in drawn} == {(k, n) for k in ("mean", "median", "gaussian") for n in range(5, 22, 2)}
    assert {len(one["occlusion"]) for one in drawn} == {1, 2, 3, 4, 5, 6}
    assert all(x != y and min(x, y) >= -0.1 and max(x, y) < 0.9 for one in drawn for x, y, _ in one["occlusion"])
    assert all(
        x >= 0 and y >= 0 and x + share <= 1 and y + share <= 1 for share, x, y in (one["random_crop"] for one in drawn)
    )


def test_none_returns_what_it_was_given() -> None:
    image, mask, matte = sample()
    found = apply(PRESETS["none"], image, mask, matte, (), 0, 0, 0)
    assert found[0] is image
    assert found[1] is mask
    assert found[2] is matte
    assert apply(Augment("off", rotate=KINDS["rotate"](probability=0)), image, None, None, (), 0, 0, 0)[0] is image


@pytest.mark.parametrize("name", [*NAMES, "everything"])
@pytest.mark.parametrize("shape", [(48, 64), (31, 17), (1, 1)], ids=str)
def test_shapes_types_and_the_arrays_given_stay(name: str, shape: tuple[int, int]) -> None:
    config = EVERYTHING if name == "everything" else Augment("one", **{name: KINDS[name](probability=1)})
    before = sample(0, *shape)
    kept = [part.copy() for part in before]
    for part in before:
        part.setflags(write=False)  # as tf.data hands them out
    for record in range(4):
        after = apply(config, *before, ((1, 2),), 0, 0, record)
        for was, now, copy in zip(before, after, kept, strict=True):
            assert now is not None
            assert (now.shape, now.dtype) == (was.shape, was.dtype)
            assert now.flags.c_contiguous
            assert (was == copy).all()
        assert after[2] is not None
        assert ((after[2] == -1) | ((after[2] >= 0) & (after[2] <= 1))).all()
    assert apply(config, before[0], None, None, (), 0, 0, 0)[1:] == (None, None)


def test_only_geometry_moves_masks_and_mattes() -> None:
    moving = {"horizontal_flip", "vertical_flip", "rotate", "scale", "random_crop"}
    still = Augment("still", **{name: KINDS[name](probability=1) for name in NAMES if name not in moving})
    image, mask, matte = sample()
    found = apply(still, image, mask, matte, ((1, 2),), 0, 0, 0)
    assert found[1] is mask
    assert found[2] is matte
    assert (found[0] != image).any()


def test_a_plain_background_needs_a_matte() -> None:
    config = Augment("plain", plain_background=KINDS["plain_background"](probability=1))
    image, mask, matte = sample()
    np.testing.assert_array_equal(apply(config, image, mask, None, (), 0, 0, 0)[0], image)
    assert (apply(config, image, mask, matte, (), 0, 0, 0)[0] != image).any()
