"""Orders: exact permutations, shared out and gone on with without loss or repetition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segdata.errors import OptionError
from segdata.order import SHARD_ORDER, Order

RECORDS = st.integers(0, 500)
SEEDS = st.none() | st.integers()
EPOCHS = st.integers(0, 1000)


def numbers(records: int, *fields: Any) -> list[int]:
    found = Order(*fields).numbers(records)
    assert found.dtype == np.int64
    return found.tolist()


@given(RECORDS, SEEDS, EPOCHS)
def test_an_epoch_is_every_record_once(records: int, seed: int | None, epoch: int) -> None:
    assert sorted(numbers(records, seed, epoch)) == list(range(records))


@given(RECORDS, SEEDS, EPOCHS, st.integers(1, 40), st.data())
def test_parts_share_nothing_and_miss_nothing(
    records: int, seed: int | None, epoch: int, parts: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, records))
    shares = [numbers(records, seed, epoch, start, part, parts) for part in range(parts)]
    assert sorted(n for share in shares for n in share) == sorted(numbers(records, seed, epoch)[start:])
    assert {len(share) for share in shares} <= {(records - start) // parts, math.ceil((records - start) / parts)}


@given(RECORDS, SEEDS, EPOCHS, st.integers(1, 9), st.integers(1, 9), st.data())
def test_an_epoch_goes_on_with_another_number_of_parts(
    records: int, seed: int | None, epoch: int, before: int, after: int, data: st.DataObject
) -> None:
    """Every reader took ``steps`` records, then it stopped; in turns, what was read is the uninterrupted order."""
    steps = data.draw(st.integers(0, records // before))
    done = [numbers(records, seed, epoch, 0, part, before)[:steps] for part in range(before)]
    start = steps * before
    rest = [numbers(records, seed, epoch, start, part, after) for part in range(after)]
    longest = max(len(share) for share in rest)
    found = [share[i] for i in range(steps) for share in done]
    found += [share[i] for i in range(longest) for share in rest if i < len(share)]
    assert found == numbers(records, seed, epoch)


@pytest.mark.parametrize(
    ("seed", "epoch", "expected"),
    [
        (None, 3, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (7, 0, [9, 11, 8, 2, 3, 7, 10, 1, 6, 5, 0, 4]),
        (7, 1, [9, 8, 7, 3, 0, 10, 2, 1, 4, 6, 5, 11]),
    ],
)
def test_an_order_stays_what_it_was_in_earlier_versions(seed: int | None, epoch: int, expected: list[int]) -> None:
    assert numbers(12, seed, epoch) == expected


def test_the_first_of_a_long_epoch_stay_what_they_were() -> None:
    assert numbers(100_000, 0, 0)[:5] == [47909, 5351, 82407, 51294, 76524]


def test_epochs_and_seeds_differ() -> None:
    orders = [tuple(numbers(50, seed, epoch)) for seed in (-1, 0, 1, 2**70) for epoch in range(20)]
    assert len(set(orders)) == len(orders)


def test_positions_are_shared_out_evenly() -> None:
    """Each record comes first about as often as any other: 2000 epochs of 10 records, six standard deviations."""
    counts = np.bincount([numbers(10, 5, epoch)[0] for epoch in range(2000)], minlength=10)
    assert abs(counts - 200).max() < 6 * math.sqrt(200)


def test_the_order_of_the_shards_is_the_default() -> None:
    assert Order() == SHARD_ORDER
    assert numbers(5) == [0, 1, 2, 3, 4]


def test_nothing_may_be_left_but_not_less() -> None:
    assert numbers(5, 1, 0, 5) == []
    with pytest.raises(OptionError, match=r"^start 6: expected at most 5, the number of records"):
        numbers(5, 1, 0, 6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epoch": -1}, "epoch -1: expected 0 or more"),
        ({"start": -1}, "start -1: expected 0 or more"),
        ({"parts": 0}, "parts 0: expected 1 or more"),
        ({"part": -1}, "part -1: expected 0 or more"),
        ({"part": 2, "parts": 2}, "part 2: expected less than parts, which is 2"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        Order(**fields)
