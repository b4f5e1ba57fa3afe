"""The boundary target: where it is, how wide, and that an ignored area makes none."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from segmodels.boundaries import boundary_of, boundary_region, boundary_target, fill_from_nearest
from tests.segmodels import references


def disc(height: int = 60, width: int = 80, y: float = 30, x: float = 40, radius: float = 18) -> Any:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.hypot(rows - y, columns - x) < radius


def distance_to_contour(person: Any) -> Any:
    """In pixels, from a pixel's centre to the nearest place between a pixel of the person and one beside it."""
    inside = cv2.distanceTransform(person.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    outside = cv2.distanceTransform((~person).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return inside + outside - 0.5


def test_it_is_canny_dilated_by_an_ellipse() -> None:
    person = disc()
    edges = cv2.Canny(person.astype(np.uint8) * 255, 50, 100)
    width = int(40 * person.mean())
    assert width == 8
    expected = cv2.dilate(edges, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))) > 0
    found = boundary_target(person)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(boundary_target(person.astype(np.uint8)), found)


@pytest.mark.parametrize(("radius", "width"), [(5, 5), (14, 5), (18, 8), (25, 16), (29, 21)])
def test_it_is_a_band_on_both_sides_of_the_contour(radius: float, width: int) -> None:
    person = disc(radius=radius)
    assert width == max(5, int(40 * person.mean()))
    found, distance = boundary_target(person) == 1, distance_to_contour(person)
    assert found[distance < width / 2 - 1.5].all()
    assert not found[distance > width / 2 + 1.5].any()


def test_even_ellipses_are_centred_on_the_contour() -> None:
    person = np.zeros((40, 60), bool)
    person[:, :13] = True  # a share of 13/60, 8.67 px
    row = boundary_target(person)[20]
    assert np.flatnonzero(row).tolist() == list(range(9, 17)), "4 px on either side of the step between 12 and 13"


def test_nobody_and_nothing_but_somebody_have_no_boundary() -> None:
    for person in (np.zeros((20, 30), bool), np.ones((20, 30), bool)):
        assert not boundary_target(person).any()


def test_the_share_is_of_the_pixels_that_count() -> None:
    person = np.pad(disc(), ((0, 0), (40, 40)))
    ignored = np.zeros(person.shape, bool)
    ignored[:, :40] = ignored[:, -40:] = True
    np.testing.assert_array_equal(boundary_target(person, ignored)[:, 40:-40], boundary_target(disc()))


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("bars", [((0, 0), (15, 20)), ((12, 0), (0, 0)), ((6, 6), (9, 9))])
def test_a_person_cut_by_a_bar_has_no_boundary_there(bars: Any, value: bool) -> None:
    """Whatever the mask holds under the bars, the boundary is that of the picture without them, up to some pixels on
    the band's rim: Canny is undecided about the last pixel of a contour that leaves the picture aslant.
    """
    for person in (disc(y=4, x=2), disc(y=4, x=70, radius=25), disc(radius=45)):
        padded = np.pad(person, bars, constant_values=value)
        ignored = np.pad(np.zeros(person.shape, bool), bars, constant_values=True)
        found = boundary_target(padded, ignored)
        assert (found[ignored] == 255).all()
        assert (found == 1).any()
        differ = found[~ignored].reshape(person.shape) != boundary_target(person)
        off_rim = distance_to_contour(person) - max(5, int(40 * person.mean())) / 2
        assert differ.mean() < 0.01
        assert (abs(off_rim[differ]) < 2.5).all()
        naive = boundary_target(padded & ~ignored)[~ignored].reshape(person.shape)
        assert naive[off_rim > 2.5].any(), "this test must be able to fail"


def test_an_ignored_area_inside_a_person_or_the_background_makes_none() -> None:
    person, ignored = disc(), np.zeros((60, 80), bool)
    ignored[28:33, 36:44] = ignored[2:6, 2:6] = True
    found, whole = boundary_target(person, ignored), boundary_target(person)
    np.testing.assert_array_equal(found[~ignored], whole[~ignored])


def test_a_void_contour_has_the_boundary_in_its_middle() -> None:
    """As Pascal VOC marks people: 5 px of 255 between person and background."""
    person = disc()
    void = distance_to_contour(person) < 2.5
    found = boundary_target(person & ~void, void)
    assert (found[void] == 255).all()
    beside = ~void & (distance_to_contour(person) < 3)
    assert beside.any()
    assert (found[beside] == 1).mean() > 0.9
    assert not found[~void & (distance_to_contour(person) > 6)].any()


def test_where_nothing_counts_all_is_ignored() -> None:
    assert (boundary_target(disc(), np.ones((60, 80), bool)) == 255).all()


def test_masks_and_mattes_tell_who_is_a_person() -> None:
    person, ignored = disc(x=30), np.zeros((60, 80), bool)
    ignored[:, 60:] = True
    expected = boundary_target(person, ignored)
    ids = np.where(person, np.where(np.arange(80) < 30, 1, 17), 0)  # two classes of one person
    ids[ignored] = 255
    np.testing.assert_array_equal(boundary_of(ids.astype(np.uint8)), expected)
    matte = np.where(person, 0.5, 0.49).astype(np.float32)
    matte[ignored] = -1
    np.testing.assert_array_equal(boundary_of(matte), expected)


@pytest.mark.parametrize("distance", [1, 2, 5])
def test_a_region_is_what_lies_near_the_contour(distance: int) -> None:
    for mask in (disc(30, 40, 15, 20, 10), disc(30, 40, 2, 38, 14), np.ones((12, 30), bool), np.zeros((9, 9), bool)):
        np.testing.assert_array_equal(boundary_region(mask, distance), references.near_contour(mask, distance))


def test_a_region_is_the_paper_s_own_code_s() -> None:
    """Zeros around, 3x3 as often as the distance says."""
    mask = disc(radius=28) | disc(x=75)
    for distance in (1, 3, 7):
        eroded = cv2.erode(np.pad(mask, 1).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=distance)
        np.testing.assert_array_equal(boundary_region(mask, distance), mask & (eroded[1:-1, 1:-1] == 0))


def test_ignored_pixels_are_filled_from_the_nearest() -> None:
    values = np.random.default_rng(1).random((20, 30))
    ignored = np.zeros((20, 30), bool)
    ignored[:4], ignored[:, -6:] = True, True
    np.testing.assert_array_equal(fill_from_nearest(values, ignored), np.pad(values[4:, :-6], ((4, 0), (0, 6)), "edge"))
    for all_or_none in (np.ones, np.zeros):
        assert fill_from_nearest(values, all_or_none((20, 30), bool)) is values
