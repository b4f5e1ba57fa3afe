"""The picture of a confusion matrix."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from segdata.formats.images import header
from segmodels.confusion import MAX_NUMBERED, draw_confusion, percent, row_shares


def names(classes: int) -> list[str]:
    return [f"class {i}" for i in range(classes)]


def test_rows_are_shares_of_their_own_class_and_one_without_pixels_is_nothing() -> None:
    shares = row_shares(np.array([[3, 1, 0], [0, 0, 0], [1, 1, 2]]))
    np.testing.assert_array_equal(shares[[0, 2]], [[0.75, 0.25, 0], [0.25, 0.25, 0.5]])
    assert np.isnan(shares[1]).all()


@pytest.mark.parametrize(
    ("share", "text"), [(1.0, "100.0"), (0.9999, "99.9"), (0.973, "97.3"), (0.5, "50.0"), (1e-7, "0.1")]
)
def test_what_is_not_all_or_nothing_is_not_rounded_to_it(share: float, text: str) -> None:
    assert percent(share) == text


def test_rows_are_the_truth_and_one_of_an_absent_class_is_grey() -> None:
    picture = Image.open(io.BytesIO(draw_confusion(np.array([[9, 1], [0, 0]]), names(2))))
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    grey = (pixels == 211).all(axis=2)  # matplotlib's lightgrey
    rows, columns = (np.flatnonzero(grey.sum(axis=axis) > 20) for axis in (1, 0))  # not the edges of letters
    height, width = np.ptp(rows), np.ptp(columns)
    assert width == pytest.approx(2 * height, rel=0.06)  # a row, and no column
    above = pixels[rows.min() - height // 4]  # clear of the numbers
    left, right = above[columns.min() + width // 8], above[columns.max() - width // 8]
    assert left.sum() < right.sum()  # 90 % is darker than 10 %


def test_equal_matrices_give_equal_bytes_and_others_do_not() -> None:
    first, again = (draw_confusion(np.eye(3, dtype=np.int64), names(3)) for _ in range(2))
    assert first == again
    assert first != draw_confusion(np.ones((3, 3), np.int64), names(3))
    assert b"matplotlib" not in first


@pytest.mark.parametrize("classes", [20, MAX_NUMBERED, MAX_NUMBERED + 1])
def test_a_picture_of_many_classes_stays_of_a_size_that_can_be_looked_at(classes: int) -> None:
    found = header(draw_confusion(np.eye(classes, dtype=np.int64), names(classes)))
    assert found.height < 2400
    assert found.width < 2400


@pytest.mark.parametrize("name", ["$x$", "straße", "n" * 500])
def test_any_class_name_is_drawn(name: str) -> None:
    assert header(draw_confusion(np.eye(2, dtype=np.int64), ["background", name])).width < 700


def test_a_split_without_a_pixel_that_counts_is_drawn() -> None:
    assert header(draw_confusion(np.zeros((2, 2), np.int64), names(2))).format == "png"
