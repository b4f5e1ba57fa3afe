"""Which samples an export looks at, and how two networks are compared on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segdata.records import Geometry, read_index
from segdata.shards import Shards
from segmodels import export_samples
from segmodels.export_samples import Seen, calibration, samples_held_back, seen
from segmodels.inputs import Inputs, to_grey
from segmodels.parity import compare, median_latency_ms, with_channels
from segmodels.runtimes import Runtime

Ids = npt.NDArray[np.uint8]


def opened(folder: Path, split: str = "train") -> Shards:
    return Shards(folder, read_index(folder), split)


def inputs_of(folder: Path, **options: Any) -> Inputs:
    stored = read_index(folder).geometry
    return Inputs(stored, options.pop("geometry", stored), **options)


# ---- held back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (3, {"test": [0, 1, 2]}),
        (7, {"test": [0, 1, 2, 3, 4], "validation": [0, 1]}),
        (10, {"test": [0, 1, 2, 3, 4], "validation": [0, 1, 2, 3], "train": [0]}),
        (99, {"test": list(range(5)), "validation": list(range(4)), "train": list(range(10))}),
    ],
)
def test_what_the_network_never_saw_comes_first(discs: Path, count: int, expected: dict[str, list[int]]) -> None:
    found: dict[str, list[int]] = {}
    for shards, number in samples_held_back(discs, read_index(discs), count):
        found.setdefault(shards.split, []).append(number)
    assert (found, list(found)) == (expected, list(expected))


def test_shards_of_one_split_have_that(make: Callable[..., Path]) -> None:
    folder = make(samples={"train": 3})
    assert [shards.split for shards, _ in samples_held_back(folder, read_index(folder), 50)] == ["train"] * 3


def test_a_sample_is_fitted_and_its_bars_are_known(make: Callable[..., Path]) -> None:
    folder = make(photos=((32, 64),), fit="letterbox", samples={"train": 2})
    found = seen(opened(folder), 1, inputs_of(folder))
    assert (found.picture.shape, found.box) == ((64, 64, 3), (0, 16, 64, 32))
    assert np.abs(found.picture[:14].astype(int) - 128).max() <= 2  # JPEG
    other = Geometry(size=(32, 32), fit="stretch")
    found = seen(opened(folder), 1, inputs_of(folder, geometry=other, grey=True))
    assert (found.picture.shape, found.box) == ((32, 32, 1), (0, 0, 32, 32))


# ---- calibration -----------------------------------------------------------------------------------------------------


def draw(monkeypatch: pytest.MonkeyPatch, classes_of: Sequence[int]) -> None:
    """Let record i hold the class ``classes_of[i]`` beside the background, and no other."""

    def ids(number: int) -> Ids:
        mask = np.zeros((8, 8), np.uint8)
        mask[2:4] = classes_of[number]
        return mask

    def arrays(found: Any, inputs: Inputs, number: int) -> tuple[npt.NDArray[Any], ...]:
        return np.full((8, 8, 3), number, np.uint8), ids(number)

    monkeypatch.setattr(export_samples, "stored", lambda shards, number: number)
    monkeypatch.setattr(export_samples, "_arrays", arrays)
    monkeypatch.setattr(export_samples, "parse", lambda payload, where, wanted: payload)
    monkeypatch.setattr(export_samples, "data", lambda values, key, where: values)
    monkeypatch.setattr(export_samples, "decode_mask", ids)
    monkeypatch.setattr(export_samples, "CALIBRATION", 3)


class Numbers:
    """Records that are their own numbers."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def payload(self, number: int) -> tuple[int, str]:
        self.read.append(number)
        return number, f"record {number}"


@pytest.mark.parametrize(
    ("classes_of", "numbers", "absent", "looked_at"),
    [
        ([1, 2, 3, 1, 2, 3], [0, 1, 2], (), []),
        ([1, 1, 1, 1, 2, 2, 3, 1], [0, 1, 2, 4, 6], (), [3, 4, 5, 6]),
        ([1, 1, 1, 255, 1, 3], [0, 1, 2, 5], (2,), [3, 4, 5]),
        ([1, 2], [0, 1], (3,), []),
    ],
    ids=["all are there", "two are further on", "one is nowhere", "fewer than wanted"],
)
def test_samples_are_added_until_every_class_is_there(
    classes_of: list[int],
    numbers: list[int],
    absent: tuple[int, ...],
    looked_at: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw(monkeypatch, classes_of)
    shards = Numbers(len(classes_of))
    found = calibration(shards, Inputs(Geometry(), Geometry()), 4)  # type: ignore[arg-type]
    assert [int(picture[0, 0, 0]) for picture in found.pictures] == numbers
    assert (found.absent, shards.read) == (absent, looked_at)


def test_of_real_shards_pictures_are_fitted_as_for_validation(discs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_samples, "CALIBRATION", 4)
    shards = opened(discs)
    found = calibration(shards, inputs_of(discs), 3)
    assert len(found.pictures) == 4
    assert found.absent == (2,)
    np.testing.assert_array_equal(found.pictures[3], seen(shards, 3, inputs_of(discs)).picture)


def test_of_mattes_person_is_half_or_more(make: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make(matte_bits=8, has_masks=False, samples={"train": 3})
    monkeypatch.setattr(export_samples, "CALIBRATION", 1)
    found = calibration(opened(folder), inputs_of(folder, target="matte"), 3)
    assert (len(found.pictures), found.absent) == (1, (2,))


# ---- comparing -------------------------------------------------------------------------------------------------------


def says(*shares: npt.NDArray[np.float32]) -> Runtime:
    """A network that gives these in turn, (h, w) alphas of class 1."""
    answers = iter(shares)

    def runtime(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        alpha = next(answers)
        return np.stack([1 - alpha, alpha], axis=-1)[None].astype(np.float32)

    return runtime


def sample(box: tuple[int, int, int, int] = (0, 0, 4, 2)) -> Seen:
    return Seen(np.zeros((2, 4, 3), np.uint8), box)


def test_ids_are_counted_over_all_samples_and_differences_are_of_probabilities() -> None:
    zeros = np.zeros((2, 4), np.float32)
    first, second = zeros.copy(), zeros.copy()
    first[0, :2], second[0, 0] = 1, 0.75
    found = compare(says(first, zeros), says(second, zeros), [sample(), sample()], (3, 3), "mask")
    assert found.iou == (14 / 15, 1 / 2)
    assert found.mean_iou == pytest.approx((14 / 15 + 1 / 2) / 2)
    assert (found.max_abs_difference, found.mean_abs_difference) == (1, pytest.approx(1.25 / 16))


def test_bars_do_not_count() -> None:
    first = np.zeros((2, 4), np.float32)
    second = first.copy()
    second[:, 0] = 1
    found = compare(says(first), says(second), [sample((1, 0, 3, 2))], (3, 3), "mask")
    assert (found.iou[0], found.max_abs_difference) == (1, 0)
    assert np.isnan(found.iou[1])
    assert found.mean_iou == 1
    assert compare(says(first), says(second), [sample()], (3, 3), "mask").iou == (6 / 8, 0)


def test_half_an_alpha_is_the_person_and_half_a_probability_is_not() -> None:
    halves = np.full((2, 4), 0.5, np.float32)
    assert np.isnan(compare(says(halves), says(halves), [sample()], (3, 3), "matte").iou[0])
    assert np.isnan(compare(says(halves), says(halves), [sample()], (3, 3), "mask").iou[1])


def test_each_network_is_given_the_channels_that_it_takes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (2, 4, 3)).astype(np.uint8)
    np.testing.assert_array_equal(with_channels(picture, 1), to_grey(picture))
    np.testing.assert_array_equal(with_channels(picture, 3), picture)
    np.testing.assert_array_equal(with_channels(picture, 4)[..., :3], picture)
    grey = picture[..., :1]
    np.testing.assert_array_equal(with_channels(grey, 1), grey)
    given = []

    def remember(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        given.append(images.shape)
        return np.full((1, 2, 4, 2), 0.5, np.float32)

    compare(remember, remember, [Seen(picture, (0, 0, 4, 2))], (1, 4), "mask")
    assert given == [(1, 2, 4, 1), (1, 2, 4, 4)]


def test_latency_is_the_median_of_what_comes_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.cumsum([0, 9, 0, 9, 0, 9, *[0, 0.002] * 10, *[0, 0.001] * 5, *[0, 1.0] * 6]).tolist())
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    assert median_latency_ms(lambda images: images, np.zeros((2, 2, 3), np.uint8)) == pytest.approx(2)
