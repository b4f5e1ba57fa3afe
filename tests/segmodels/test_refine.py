"""What cleans a prediction: the cut to the pixel, parts and holes, the guided filter against its definition."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segdata.errors import OptionError
from segmodels.refine import (
    Refine,
    edge_alpha,
    feather,
    fill_holes,
    guided,
    guided_filter,
    keep_largest,
    refined,
    refined_matte,
)

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
MASKS = arrays(bool, SHAPES)
PERSONS = arrays(np.float32, SHAPES, elements=st.floats(0, 1, width=32))
CUT = 2**-7
NEAR_CUT = arrays(np.float32, SHAPES, elements=st.sampled_from([0.0, CUT - 2**-32, CUT, CUT + 2**-30, 1.0]))
CUTS = st.floats(0.01, 0.99)
NOTHING: Any = None  # a photo that nobody looks at


def disc(height: int = 40, width: int = 50, y: float = 20, x: float = 25, radius: float = 12) -> Any:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.hypot(rows - y, columns - x) < radius


def ramp(slope: float, height: int = 8, width: int = 40) -> Any:
    """A probability that grows to the right, 0.5 at column 20."""
    return np.clip(0.5 + slope * (np.arange(width) - 20), 0, 1)[None].repeat(height, 0).astype(np.float32)


# ---- the cut ---------------------------------------------------------------------------------------------------------


@given(PERSONS, CUTS)
def test_alpha_is_a_half_or_more_exactly_where_the_probability_reaches_the_cut(person: Any, cut: float) -> None:
    alpha = edge_alpha(person, cut)
    assert alpha.dtype == np.float32
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    np.testing.assert_array_equal(alpha >= 0.5, person >= cut)


@given(NEAR_CUT)
def test_also_where_the_difference_is_lost_beside_a_half(person: Any) -> None:
    np.testing.assert_array_equal(edge_alpha(person, CUT) >= 0.5, person >= CUT)


def test_the_slope_at_the_border_is_that_of_the_border() -> None:
    person = np.ascontiguousarray(ramp(0.1)[:, 20:22] - np.float32(0.02))  # 0.2 pixels short of the contour
    np.testing.assert_allclose(edge_alpha(person, 0.5), [[0.3, 1]] * 8, atol=1e-4)
    np.testing.assert_allclose(edge_alpha(np.ascontiguousarray(person.T), 0.5), [[0.3] * 8, [1] * 8], atol=1e-4)


@pytest.mark.parametrize("slope", [0.02, 0.1, 0.3])
def test_the_edge_is_one_pixel_wide_however_soft_the_probability_is(slope: float) -> None:
    alpha = edge_alpha(ramp(slope) + np.float32(0.25 * slope), 0.5)[4]
    assert alpha[20] == pytest.approx(0.75, abs=1e-4)  # a quarter of a pixel inside
    assert not alpha[:20].any()
    assert (alpha[21:] == 1).all()


def test_flat_areas_are_0_or_1() -> None:
    for level, expected in ((0.2, 0), (0.5, 1), (0.50001, 1), (0.49999, 0)):
        assert (edge_alpha(np.full((5, 6), level, np.float32), 0.5) == expected).all()


def test_alpha_adds_up_to_the_area_of_a_disc() -> None:
    rows, columns = np.mgrid[0:40, 0:50]
    person = np.clip(0.5 + 0.05 * (12.3 - np.hypot(rows - 20, columns - 25)), 0, 1).astype(np.float32)
    assert edge_alpha(person, 0.5).sum() == pytest.approx(math.pi * 12.3**2, rel=0.005)
    assert abs(int((person >= 0.5).sum()) - math.pi * 12.3**2) > 1.5


# ---- parts and holes -------------------------------------------------------------------------------------------------


@given(MASKS)
def test_one_part_is_kept_and_none_is_larger(mask: Any) -> None:
    kept = keep_largest(mask)
    assert not (kept & ~mask).any()
    _, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    numbers, first, sizes = np.unique(parts[mask], return_index=True, return_counts=True)
    if not numbers.size:
        assert not kept.any()
        return
    best = min(range(len(numbers)), key=lambda i: (-sizes[i], first[i]))
    np.testing.assert_array_equal(kept, parts == numbers[best])


def test_of_equal_parts_the_first_is_kept_and_diagonals_connect() -> None:
    mask = np.array([[0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0]], bool)
    kept = keep_largest(mask)
    assert np.argwhere(kept).tolist() == [[0, 4], [1, 5]]


@given(MASKS)
def test_holes_are_what_a_flood_from_outside_does_not_reach(mask: Any) -> None:
    framed = np.pad(mask, 1).astype(np.uint8)
    cv2.floodFill(framed, None, (0, 0), 2, flags=4)
    np.testing.assert_array_equal(fill_holes(mask), framed[1:-1, 1:-1] != 2)


def two_discs(soft_px: float) -> Any:
    """Alpha of a large and a small disc, the large one with a hole, each edge ``soft_px`` wide."""
    rows, columns = np.mgrid[0:60, 0:100]
    large = 20 - np.hypot(rows - 30, columns - 30)
    hole = np.hypot(rows - 30, columns - 30) - 6
    small = 8 - np.hypot(rows - 30, columns - 70)
    distance = np.maximum(np.minimum(large, hole), small)
    return np.clip(0.5 + distance / soft_px, 0, 1).astype(np.float32)


@pytest.mark.parametrize("soft_px", [1, 6, 20])
def test_a_part_goes_with_its_soft_edge_and_a_hole_is_filled_with_its_own(soft_px: float) -> None:
    alpha = two_discs(soft_px)
    mask, kept = refined_matte(Refine(keep_largest=True), alpha, NOTHING)
    assert not kept[:, 62:].any(), "nearer to the small disc than to the large one"
    np.testing.assert_array_equal(kept[:, :54], alpha[:, :54])
    np.testing.assert_array_equal(mask, kept >= 0.5)
    mask, filled = refined_matte(Refine(fill_holes=True), alpha, NOTHING)
    middle = np.hypot(*(np.indices(alpha.shape) - 30)) < 12.5
    assert (filled[middle] == 1).all()
    np.testing.assert_array_equal(filled[~middle & (alpha < 0.5)], alpha[~middle & (alpha < 0.5)])
    assert mask[30, 30]


def test_faint_bits_that_touch_nothing_go_too() -> None:
    alpha = two_discs(2)
    alpha[2:5, 90:95] = 0.3
    assert not refined_matte(Refine(keep_largest=True), alpha, NOTHING)[1][:10, 80:].any()


def test_nobody_stays_nobody_and_soft_places_without_a_hole_stay_soft() -> None:
    everything = Refine(keep_largest=True, fill_holes=True, feather_px=3)
    mask, alpha = refined(everything, np.zeros((9, 12), np.float32), NOTHING)
    assert not mask.any()
    assert not alpha.any()
    tulle = np.full((9, 12), 0.8, np.float32)
    np.testing.assert_array_equal(refined_matte(Refine(fill_holes=True), tulle, NOTHING)[1], tulle)


# ---- feather ---------------------------------------------------------------------------------------------------------


@given(PERSONS, st.floats(0.1, 40))
def test_feathering_keeps_the_area_to_the_pixel(alpha: Any, radius_px: float) -> None:
    found = feather(alpha, radius_px)
    np.testing.assert_array_equal(found >= 0.5, alpha >= 0.5)
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("radius_px", [2, 6, 20, 60])
def test_a_step_rises_as_a_gaussian_of_half_the_radius(radius_px: int) -> None:
    step = np.zeros((8, 400), np.float32)
    step[:, 200:] = 1
    away = (np.arange(400) - 199.5) / (radius_px / 2)  # in sigmas, of a pixel's centre from the step
    expected = [0.5 + 0.5 * math.erf(x / math.sqrt(2)) for x in away]
    np.testing.assert_allclose(feather(step, radius_px)[4], expected, atol=0.03)


def test_feather_0_changes_nothing() -> None:
    alpha = two_discs(3)
    np.testing.assert_array_equal(feather(alpha, 0), alpha)


# ---- guided by the photo ---------------------------------------------------------------------------------------------


def reference(photo: Any, alpha: Any, radius: int, eps: float) -> Any:
    """The guided filter as its paper defines it, window by window."""
    height, width = alpha.shape
    guide, target = photo.astype(np.float64) / 255, alpha.astype(np.float64)

    def window(y: int, x: int) -> tuple[slice, slice]:
        return slice(max(0, y - radius), y + radius + 1), slice(max(0, x - radius), x + radius + 1)

    slopes, offsets = np.zeros((height, width, 3)), np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        colors, values = guide[window(y, x)].reshape(-1, 3), target[window(y, x)].reshape(-1)
        away = colors - colors.mean(0)
        covariance = away.T @ away / len(colors)
        slopes[y, x] = np.linalg.solve(covariance + eps * np.eye(3), away.T @ (values - values.mean()) / len(colors))
        offsets[y, x] = values.mean() - slopes[y, x] @ colors.mean(0)
    found = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        at = window(y, x)
        found[y, x] = slopes[at].reshape(-1, 3).mean(0) @ guide[y, x] + offsets[at].mean()
    return found


@pytest.mark.parametrize(("radius", "eps"), [(1, 1e-2), (3, 1e-4), (7, 1e-6), (40, 1e-4)])
@pytest.mark.parametrize("grey", [False, True])
def test_the_guided_filter_is_what_its_paper_defines(radius: int, eps: float, grey: bool) -> None:
    random = np.random.default_rng(1)
    photo = random.integers(0, 256, (17, 23, 3), np.uint8)
    if grey:
        photo = photo[:, :, :1].repeat(3, 2)
    alpha = disc(17, 23, 8, 11, 6).astype(np.float32)
    np.testing.assert_allclose(
        guided_filter(photo, alpha, radius, eps), reference(photo, alpha, radius, eps), atol=2e-5
    )


def hairs() -> tuple[Any, Any, Any]:
    """A dark disc with thin dark lines on a bright ground: photo, true alpha, and alpha without the lines."""
    drawn = np.zeros((480, 480), np.uint8)
    cv2.circle(drawn, (240, 240), 120, 255, -1, cv2.LINE_AA)
    coarse = drawn.astype(np.float32) / 255
    for degrees in range(0, 360, 6):
        x, y = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        ends = [(round(240 + r * x), round(240 + r * y)) for r in (115, 128)]
        cv2.line(drawn, ends[0], ends[1], 255, 1, cv2.LINE_AA)
    truth = drawn.astype(np.float32) / 255
    noise = np.random.default_rng(2).normal(0, 2, (480, 480, 3))
    photo = truth[:, :, None] * (40, 30, 20) + (1 - truth[:, :, None]) * (190, 200, 210) + noise
    return np.rint(photo).clip(0, 255).astype(np.uint8), truth, coarse


@pytest.mark.parametrize("radius_px", [12, 20])
def test_guided_finds_hair_that_the_input_lacks(radius_px: int) -> None:
    photo, truth, coarse = hairs()
    found = guided(photo, coarse, radius_px, 1e-4)
    near = (truth != coarse) | ((truth > 0) & (truth < 1))
    assert np.abs(found - truth)[near].mean() < 0.5 * np.abs(coarse - truth)[near].mean()
    assert np.abs(found - truth).mean() < 0.8 * np.abs(coarse - truth).mean(), "and it does not pay for it elsewhere"


def test_guided_changes_a_band_and_nothing_beside_it() -> None:
    photo, _, coarse = hairs()
    rows, columns = np.mgrid[0:480, 0:480]
    distance = np.abs(np.hypot(rows - 240, columns - 240) - 120)
    far = distance > 10 * math.sqrt(2) + 1.5
    photo[far & (distance < 19)] = photo[240, 240]  # of the person's colour
    assert guided_filter(photo, coarse, 10, 1e-4)[far & (coarse == 0)].max() > 0.12
    found = guided(photo, coarse, 10, 1e-4)
    np.testing.assert_array_equal(found[far], coarse[far])
    assert np.isin(found[far], (0, 1)).all()
    assert (found != coarse)[~far].any()
    assert 0 <= found.min() <= found.max() <= 1


def test_guided_leaves_little_haze_on_textures() -> None:
    _, _, coarse = hairs()
    blocks = np.kron(np.random.default_rng(3).integers(0, 256, (60, 60, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    beside = cv2.dilate(coarse, np.ones((25, 25))) > cv2.dilate(coarse, np.ones((5, 5)))
    assert (guided(blocks, coarse, 10, 1e-4)[beside] == 0).mean() > 0.3


def test_without_an_edge_guided_changes_nothing() -> None:
    photo = np.random.default_rng(4).integers(0, 256, (30, 40, 3), np.uint8)
    for level in (0, 0.3, 1):
        alpha = np.full((30, 40), level, np.float32)
        np.testing.assert_array_equal(guided(photo, alpha, 5, 1e-4), alpha)


def test_guided_takes_any_size() -> None:
    random = np.random.default_rng(5)
    for height, width in ((1, 1), (1, 7), (3, 200), (161, 9)):
        photo = random.integers(0, 256, (height, width, 3), np.uint8)
        mask, alpha = refined(Refine(guided=True), random.random((height, width), np.float32), photo)
        assert mask.shape == alpha.shape == (height, width)


# ---- all of it -------------------------------------------------------------------------------------------------------


@given(PERSONS, st.sampled_from([None, 0.3]), st.booleans(), st.booleans(), st.sampled_from([0, 2.5]), st.booleans())
def test_mask_and_alpha_agree_and_hold_what_was_asked_for(
    person: Any, threshold: float | None, largest: bool, filled: bool, feather_px: float, hair: bool
) -> None:
    refine = Refine(threshold, largest, filled, feather_px, hair)
    photo = np.random.default_rng(6).integers(0, 256, (*person.shape, 3), np.uint8)
    for function in (refined, refined_matte):
        before = person.copy()
        mask, alpha = function(refine, person, photo)
        np.testing.assert_array_equal(person, before)
        assert alpha.dtype == np.float32
        np.testing.assert_array_equal(mask, alpha >= 0.5)
        if filled:
            np.testing.assert_array_equal(fill_holes(mask), mask)
        if largest:
            np.testing.assert_array_equal(keep_largest(mask), mask)


def test_a_matte_stays_as_predicted_and_a_threshold_cuts_it() -> None:
    matte = ramp(0.05)
    np.testing.assert_array_equal(refined_matte(Refine(), matte, NOTHING)[1], matte)
    cut = refined_matte(Refine(threshold=0.7), matte, NOTHING)[1]
    np.testing.assert_array_equal(cut >= 0.5, matte >= 0.7)
    assert ((cut > 0) & (cut < 1)).sum(1).max() <= 2


def test_what_the_guided_filter_splits_off_is_no_part_of_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segmodels.refine.GUIDED_RADIUS_SHARE", 0.03)
    rows, columns = np.mgrid[0:480, 0:480]
    distance = np.hypot(rows - 240, columns - 240)
    dark = (distance < 112) | ((distance > 116) & (distance < 121))
    photo = np.where(dark[:, :, None], 30, 220).repeat(3, 2).astype(np.uint8)
    coarse = np.clip(120.5 - distance, 0, 1).astype(np.float32)
    split = refined_matte(Refine(guided=True), coarse, photo)[0]
    assert not np.array_equal(keep_largest(split), split)
    mask, alpha = refined_matte(Refine(guided=True, keep_largest=True), coarse, photo)
    np.testing.assert_array_equal(keep_largest(mask), mask)
    np.testing.assert_array_equal(alpha >= 0.5, mask)
    assert alpha[distance > 118].max() == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"threshold": 0}, "--threshold 0: "),
        ({"threshold": 1.0}, "--threshold 1.0: "),
        ({"threshold": math.nan}, "--threshold nan: "),
        ({"feather_px": -1}, "--feather -1: expected 0 to 500"),
        ({"feather_px": math.inf}, "--feather inf: "),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        Refine(**options)
