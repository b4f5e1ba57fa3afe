"""Crops: square windows inside the photo, the same ones in every run, with somebody in them where there is somebody."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdata.errors import OptionError
from segdata.transforms.crop import Box, Crop

Person = npt.NDArray[np.bool_]
few_examples = settings(max_examples=100, deadline=None)
SIDES = st.integers(1, 90)


def nobody(height: int, width: int) -> Person:
    return np.zeros((height, width), np.bool_)


def somebody(height: int, width: int, x: int, y: int, w: int, h: int) -> Person:
    person = nobody(height, width)
    person[y : y + h, x : x + w] = True
    return person


def share(person: Person, box: Box) -> float:
    x, y, w, h = box
    return float(person[y : y + h, x : x + w].mean())


@st.composite
def people(draw: st.DrawFn) -> Person:
    """A photo's person pixels: a box anywhere in it, of no pixel up to all."""
    height, width = draw(SIDES), draw(SIDES)
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return somebody(height, width, x, y, draw(st.integers(0, width - x)), draw(st.integers(0, height - y)))


# ---- shape and place


@few_examples
@given(people(), st.integers(16, 100), st.integers(1, 4), st.integers(), st.text(max_size=5), st.floats(0, 1))
def test_every_box_is_a_square_inside_the_photo(
    person: Person, side_px: int, count: int, seed: int, photo: str, min_person: float
) -> None:
    height, width = person.shape
    boxes = Crop(count, side_px, seed, min_person).boxes(photo, person)
    assert len(boxes) == count
    for x, y, w, h in boxes:
        assert w == h
        assert min(side_px, height, width) <= w <= min(height, width)
        assert 0 <= x <= width - w
        assert 0 <= y <= height - h
        assert all(type(value) is int for value in (x, y, w, h))


@few_examples
@given(people(), st.floats(0, 1), st.integers(0, 5))
def test_every_box_holds_enough_of_the_person_or_is_the_smallest_one(
    person: Person, min_person: float, seed: int
) -> None:
    for box in Crop(3, 16, seed, min_person).boxes("a", person):
        assert share(person, box) >= min_person or box[2] == min(16, *person.shape)


@pytest.mark.parametrize("size", [(10, 40), (40, 10), (10, 10), (1, 9), (1, 1)])
def test_a_photo_smaller_than_a_crop_gives_its_whole_short_side(size: tuple[int, int]) -> None:
    boxes = Crop(8, 16, min_person=0).boxes("a", nobody(*size))
    assert {box[2] for box in boxes} == {min(size)}


@pytest.mark.parametrize("size", [(50, 200), (200, 50)], ids=["landscape", "portrait"])
def test_boxes_reach_both_ends_of_the_long_side_and_every_size(size: tuple[int, int]) -> None:
    boxes = Crop(1000, 20, min_person=0).boxes("a", nobody(*size))
    along = 0 if size[1] > size[0] else 1
    assert {box[2] for box in boxes} == set(range(20, 51))
    assert min(box[along] for box in boxes) < 5
    assert max(box[along] + box[2] for box in boxes) > 195


def test_boxes_touch_every_edge_of_the_photo() -> None:
    boxes = Crop(1000, 16, min_person=0).boxes("a", nobody(20, 20))
    assert {(x, y) for x, y, w, _ in boxes if w == 16} == {(x, y) for x in range(5) for y in range(5)}
    assert {w for _, _, w, _ in boxes} == {16, 17, 18, 19, 20}


# ---- which


def test_seed_photo_and_number_decide_and_nothing_else() -> None:
    photo = nobody(300, 400)
    boxes = Crop(5, 32, seed=7, min_person=0).boxes("a", photo)
    assert Crop(5, 32, seed=7, min_person=0).boxes("a", photo.copy()) == boxes
    assert len(set(boxes)) == 5
    assert not set(boxes) & set(Crop(5, 32, seed=8, min_person=0).boxes("a", photo))
    assert not set(boxes) & set(Crop(5, 32, seed=7, min_person=0).boxes("b", photo))


def test_more_crops_keep_the_first_ones() -> None:
    photo = nobody(300, 400)
    assert Crop(9, 32, min_person=0).boxes("a", photo)[:4] == Crop(4, 32, min_person=0).boxes("a", photo)


@pytest.mark.parametrize("pair", [("a", "a1"), ("1", "11"), ("a\0", "a"), ("ä", "a")])
def test_ids_that_look_alike_have_crops_of_their_own(pair: tuple[str, str]) -> None:
    photo = nobody(300, 400)
    first, second = (set(Crop(20, 32, min_person=0).boxes(name, photo)) for name in pair)
    assert not first & second


def test_the_place_of_a_crop_is_stored_nowhere_so_it_must_never_move() -> None:
    assert Crop(2, 100).boxes("00042", somebody(800, 600, 200, 200, 200, 600)) == STORED


STORED: list[Box] = [(354, 608, 139, 139), (84, 150, 491, 491)]


# ---- the person


def test_a_crop_holds_the_least_share_where_a_try_finds_it() -> None:
    person = somebody(200, 300, 100, 50, 120, 150)
    for box in Crop(50, 40, min_person=0.3).boxes("a", person):
        assert share(person, box) >= 0.3


def test_without_a_least_share_crops_miss_the_person() -> None:
    person = somebody(200, 300, 100, 50, 120, 150)
    assert any(share(person, box) < 0.3 for box in Crop(50, 40, min_person=0).boxes("a", person))


def test_a_share_that_no_try_finds_gives_the_smallest_window_centred_on_the_person() -> None:
    person = somebody(200, 300, 101, 61, 10, 20)
    assert set(Crop(5, 40, min_person=1).boxes("a", person)) == {(86, 50, 40, 40)}


@pytest.mark.parametrize(
    ("corner", "expected"),
    [((0, 0), (0, 0)), ((298, 0), (260, 0)), ((0, 198), (0, 160)), ((298, 198), (260, 160))],
    ids=["top left", "top right", "bottom left", "bottom right"],
)
def test_a_window_centred_on_a_person_in_a_corner_stays_inside(
    corner: tuple[int, int], expected: tuple[int, int]
) -> None:
    person = somebody(200, 300, *corner, 2, 2)
    box = Crop(1, 40, min_person=1).boxes("a", person)[0]
    assert box == (*expected, 40, 40)
    assert share(person, box) > 0


def test_a_single_pixel_of_person_is_found() -> None:
    person = somebody(500, 500, 490, 3, 1, 1)
    box = Crop(1, 16, min_person=0.003).boxes("a", person)[0]
    assert share(person, box) == 1 / 256


def test_a_photo_without_a_person_is_cut_in_its_middle() -> None:
    assert Crop(2, 40).boxes("a", nobody(100, 300)) == [(130, 30, 40, 40)] * 2


def test_a_photo_without_a_person_is_cut_anywhere_where_none_is_wanted() -> None:
    assert len(set(Crop(5, 40, min_person=0).boxes("a", nobody(100, 300)))) == 5


def test_a_person_everywhere_takes_the_first_try() -> None:
    everywhere = np.ones((100, 300), np.bool_)
    assert Crop(5, 40, min_person=1).boxes("a", everywhere) == Crop(5, 40, min_person=0).boxes("a", everywhere)


# ---- options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "--crops 0: expected 1 to 1000"),
        ({"count": -1}, "--crops -1: expected"),
        ({"count": 1001}, "--crops 1001: expected"),
        ({"side_px": 15}, "--size 15: expected a side of 16 to 8192 pixels"),
        ({"side_px": 8193}, "--size 8193: expected"),
        ({"side_px": -512}, "--size -512: expected"),
        ({"min_person": -0.1}, "--min-person -0.1: expected a share, 0 to 1"),
        ({"min_person": 1.01}, "--min-person 1.01: expected"),
        ({"min_person": float("nan")}, "--min-person nan: expected"),
    ],
)
def test_options_name_themselves_and_what_they_expect(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        Crop(**options)
