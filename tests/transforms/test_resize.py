"""Resizing: masks by nearest neighbour alone, pictures smoothly, both to the same place."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from math import floor
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segdata.errors import ImageRefused, OptionError
from segdata.records import Geometry, Sample
from segdata.transforms.resize import FitToPhoto, Resize, fit_box, letterbox_box, resize_nearest, resize_smooth
from tests.material import ids, photo

SIDES = st.integers(1, 40)
MASKS = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=25))


def sample(height: int = 30, width: int = 50) -> Sample:
    mask = ids(height, width)
    matte = np.linspace(0, 1, height * width, dtype=np.float32).reshape(height, width)
    return Sample("a", photo(height, width), mask, matte)


def fitted(height: int, width: int, size: tuple[int, int], fit: str = "letterbox") -> Sample:
    return Resize(Geometry(size=size, fit=fit))(sample(height, width))


# ---- nearest neighbour


@settings(max_examples=80, deadline=None)
@given(MASKS, SIDES, SIDES)
def test_nearest_takes_the_pixel_that_holds_each_centre(mask: npt.NDArray[np.uint8], height: int, width: int) -> None:
    found = resize_nearest(mask, height, width)
    assert found.shape == (height, width)
    assert found.dtype == mask.dtype
    rows, columns = (
        [floor(Fraction(2 * i + 1, 2) * source / target) for i in range(target)]
        for source, target in zip(mask.shape, (height, width), strict=True)
    )
    assert found.tolist() == [[mask[row, column] for column in columns] for row in rows]


@settings(max_examples=80, deadline=None)
@given(MASKS, SIDES, SIDES)
def test_no_id_comes_in_that_was_not_there(mask: npt.NDArray[np.uint8], height: int, width: int) -> None:
    assert set(np.unique(resize_nearest(mask, height, width))) <= set(np.unique(mask))


@settings(max_examples=40, deadline=None)
@given(MASKS, st.integers(1, 4), st.integers(1, 4))
def test_whole_factors_repeat_pixels_and_their_middle_brings_them_back(
    mask: npt.NDArray[np.uint8], down: int, across: int
) -> None:
    grown = resize_nearest(mask, mask.shape[0] * down, mask.shape[1] * across)
    np.testing.assert_array_equal(grown, np.kron(mask, np.ones((down, across), np.uint8)))
    np.testing.assert_array_equal(resize_nearest(grown, *mask.shape), mask)


@settings(max_examples=40, deadline=None)
@given(MASKS, SIDES, SIDES)
def test_a_mirrored_mask_gives_the_mirrored_result_but_for_centres_on_an_edge(
    mask: npt.NDArray[np.uint8], height: int, width: int
) -> None:
    if all((2 * i + 1) * n % (2 * m) for n, m in zip(mask.shape, (height, width), strict=True) for i in range(m)):
        found = resize_nearest(mask[::-1, ::-1], height, width)
        np.testing.assert_array_equal(found, resize_nearest(mask, height, width)[::-1, ::-1])


def test_the_usual_resize_would_bring_ids_in() -> None:
    """Why masks are never resized smoothly: the guard above can fail."""
    mask = np.repeat(np.array([[0, 0, 4, 4]], np.uint8), 4, axis=0)
    assert set(np.unique(resize_smooth(mask, 7, 7))) > {0, 4}
    assert set(np.unique(resize_nearest(mask, 7, 7))) == {0, 4}


# ---- smooth


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("size", [(5, 7), (30, 50), (61, 90), (10, 90), (1, 1)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_smooth_keeps_flat_colours_types_and_channels(
    kind: type[np.generic], size: tuple[int, int], channels: tuple[int, ...]
) -> None:
    pixels = np.full((30, 50, *channels), 1, kind)
    found = resize_smooth(pixels, *size)
    assert found.shape == size + channels
    assert found.dtype == kind
    np.testing.assert_allclose(found, np.ones_like(found), rtol=1e-6)


def test_smooth_averages_where_it_shrinks() -> None:
    board = (np.indices((40, 60)).sum(axis=0) % 2 * 200).astype(np.uint8)
    assert set(np.unique(resize_smooth(board, 20, 30))) == {100}


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_smooth_takes_thin_pictures(shape: tuple[int, int]) -> None:
    assert resize_smooth(np.zeros((*shape, 3), np.uint8), 8, 9).shape == (8, 9, 3)


# ---- the letterbox


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 2000), st.integers(1, 2000))
def test_the_letterbox_is_inside_centred_and_of_the_pictures_shape(
    height: int, width: int, tall: int, wide: int
) -> None:
    x, y, w, h = letterbox_box(height, width, (tall, wide))
    assert 0 <= x <= x + w <= wide
    assert 0 <= y <= y + h <= tall
    assert w >= 1
    assert h >= 1
    assert w == wide or h == tall  # the largest that fits
    assert (wide - w - x) - x in (0, 1)  # an odd pixel of bar goes to the right
    assert (tall - h - y) - y in (0, 1)  # ... or below
    if h == tall and w != wide:
        assert abs(w - width * tall / height) <= 0.5 or w == 1
    elif w == wide and h != tall:
        assert abs(h - height * wide / width) <= 0.5 or h == 1
    else:
        assert abs(w - width * tall / height) < 1 or abs(h - height * wide / width) < 1


@pytest.mark.parametrize(
    ("picture", "size", "box"),
    [
        ((600, 400), (256, 256), (42, 0, 171, 256)),
        ((400, 600), (256, 256), (0, 42, 256, 171)),
        ((100, 100), (64, 96), (16, 0, 64, 64)),
        ((64, 96), (64, 96), (0, 0, 96, 64)),
        ((10, 10), (5, 8), (1, 0, 5, 5)),
        ((1, 10_000), (64, 64), (0, 31, 64, 1)),
        ((3, 3), (300, 300), (0, 0, 300, 300)),
    ],
)
def test_letterboxes_by_hand(picture: tuple[int, int], size: tuple[int, int], box: tuple[int, int, int, int]) -> None:
    assert letterbox_box(*picture, size) == box


def test_the_box_of_each_fit() -> None:
    assert fit_box(30, 50, Geometry()) == (0, 0, 50, 30)
    assert fit_box(30, 50, Geometry(size=(64, 96), fit="stretch")) == (0, 0, 96, 64)
    assert fit_box(30, 50, Geometry(size=(64, 96), fit="letterbox")) == letterbox_box(30, 50, (64, 96))


# ---- samples


@pytest.mark.parametrize(("height", "width"), [(30, 50), (90, 50), (301, 77), (64, 96)])
def test_bars_are_grey_ignored_and_transparent(height: int, width: int) -> None:
    found = fitted(height, width, (64, 96))
    x, y, w, h = letterbox_box(height, width, (64, 96))
    inside = np.zeros((64, 96), bool)
    inside[y : y + h, x : x + w] = True
    assert found.mask is not None
    assert found.matte is not None
    assert (found.image[~inside] == 128).all()
    assert (found.mask[~inside] == 255).all()
    assert (found.matte[~inside] == 0).all()
    assert not (found.mask[inside] == 255).any()
    wanted = resize_nearest(sample(height, width).mask, h, w)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found.mask[inside].reshape(h, w), wanted)


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(64, 96), (31, 17), (1, 1), (200, 200)])
def test_every_part_gets_the_size_and_keeps_its_kind(fit: str, size: tuple[int, int]) -> None:
    found = fitted(30, 50, size, fit)
    assert found.id == "a"
    assert found.mask is not None
    assert found.matte is not None
    assert (found.image.shape, found.image.dtype) == ((*size, 3), np.uint8)
    assert (found.mask.shape, found.mask.dtype) == (size, np.uint8)
    assert (found.matte.shape, found.matte.dtype) == (size, np.float32)
    assert 0 <= found.matte.min() <= found.matte.max() <= 1


def test_stretch_leaves_no_bars() -> None:
    found = fitted(30, 50, (64, 64), "stretch")
    assert found.mask is not None
    assert 255 not in found.mask


@pytest.mark.parametrize("geometry", [Geometry(), Geometry(size=(30, 50), fit="letterbox")])
def test_a_sample_that_fits_is_not_changed(geometry: Geometry) -> None:
    before = sample()
    after = Resize(geometry)(before)
    for name in ("image", "mask", "matte"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_what_a_sample_does_not_have_it_does_not_get() -> None:
    found = Resize(Geometry(size=(8, 8), fit="letterbox"))(Sample("a", photo()))
    assert (found.mask, found.matte) == (None, None)


def test_the_sample_itself_is_left_as_it_was() -> None:
    before, kept = sample(), sample()
    Resize(Geometry(size=(64, 96), fit="letterbox"))(before)
    np.testing.assert_array_equal(before.image, kept.image)
    np.testing.assert_array_equal(before.mask, kept.mask)


def centroid(weights: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(row, column) of the centre of mass, in pixels from the top left corner."""
    rows, columns = np.indices(weights.shape) + 0.5
    total = weights.sum(dtype=np.float64)
    return np.array([(rows * weights).sum() / total, (columns * weights).sum() / total])


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(256, 256), (97, 131), (40, 64), (33, 29), (801, 640)])
@pytest.mark.parametrize("corner", [(10, 15), (100, 200), (57, 111)])
def test_a_mask_stays_on_its_picture(fit: str, size: tuple[int, int], corner: tuple[int, int]) -> None:
    """A bright square keeps one centre in image, mask and matte, and lies where arithmetic puts it."""
    square = np.zeros((200, 300), np.uint8)
    top, left = corner
    square[top : top + 60, left : left + 75] = 1
    before = Sample("a", np.repeat(square[:, :, None] * 255, 3, axis=2), square, square.astype(np.float32))
    geometry = Geometry(size=size, fit=fit, image_padding=0)
    found = Resize(geometry)(before)
    assert found.mask is not None
    assert found.matte is not None
    x, y, w, h = fit_box(200, 300, geometry)
    expected = centroid(square) * (h / 200, w / 300) + (y, x)
    tolerance = max(0.51, 0.51 * h / 200, 0.51 * w / 300)  # half a pixel, of the larger of the two pictures
    for part in (found.image[:, :, 0], found.mask == 1, found.matte):
        assert np.abs(centroid(part) - expected).max() <= tolerance
    assert np.abs(centroid(found.image[:, :, 0]) - centroid(found.mask == 1)).max() <= tolerance


# ---- options


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (Geometry(size=(8, 8), fit="crop"), "--fit 'crop': expected one of letterbox, stretch, none."),
        (Geometry(size=None, fit="letterbox"), "--fit letterbox needs a --size."),
        (Geometry(size=None, fit="stretch"), "--fit stretch needs a --size."),
        (Geometry(size=(8, 8), fit="none"), "--fit none takes no --size."),
        (Geometry(size=(0, 8), fit="stretch"), "--size 0x8: expected sides of 1 to 16384 pixels."),
        (Geometry(size=(8, 16385), fit="stretch"), "--size 8x16385: expected sides of 1 to 16384 pixels."),
    ],
)
def test_a_geometry_that_makes_no_sense_is_refused(geometry: Geometry, message: str) -> None:
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        Resize(geometry)


def test_a_resize_is_a_value() -> None:
    geometry = Geometry(size=(8, 9), fit="stretch")
    assert Resize(geometry) == Resize(Geometry(size=(8, 9), fit="stretch"))
    assert "size=(8, 9)" in repr(Resize(geometry))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Resize(geometry).geometry = Geometry()  # type: ignore[misc]


# ---- masks and photos of different sizes


def fit(values: npt.NDArray[Any], height: int, width: int, resize: bool = False, **more: Any) -> npt.NDArray[Any]:
    return FitToPhoto(resize)(values, height, width, more.get("orientation", 1), smooth=more.get("smooth", False))


def refused(values: npt.NDArray[Any], height: int, width: int, resize: bool = False, **more: Any) -> str:
    with pytest.raises(ImageRefused) as caught:
        fit(values, height, width, resize, **more)
    assert caught.value.reason == "size-mismatch"
    return caught.value.detail


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_mask_of_the_photos_size_is_passed_on_as_it_is(resize: bool, orientation: int) -> None:
    mask = ids(24, 32)
    assert fit(mask, 24, 32, resize, orientation=orientation) is mask


def test_a_smaller_mask_of_the_same_shape_is_refused_with_the_way_out() -> None:
    message = refused(ids(12, 16), 24, 32)
    assert message == (
        "the mask is 16x12, the photo 32x24, expected one size; "
        "`convert pairs --resize-masks` resizes masks of the photo's shape"
    )


@pytest.mark.parametrize("resize", [False, True])
def test_a_mask_of_another_shape_is_refused_whatever_is_asked(resize: bool) -> None:
    message = refused(ids(24, 24), 24, 32, resize)
    assert message == "the mask is 24x24, the photo 32x24, expected one size (the shapes differ too)"


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_mask_of_the_stored_pixels_is_refused_by_name(resize: bool, orientation: int) -> None:
    message = refused(ids(24, 32), 32, 24, resize, orientation=orientation)
    assert message == (
        "the mask is 32x24, the photo 24x32 after its EXIF turn; "
        "the mask fits only the stored pixels, expected the turned photo"
    )


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_a_lying_mask_of_a_standing_photo_is_just_another_shape(orientation: int) -> None:
    assert "the shapes differ too" in refused(ids(24, 32), 32, 24, orientation=orientation)


def test_a_mask_of_the_photos_shape_is_resized_by_nearest_when_asked() -> None:
    mask = ids(12, 16)
    np.testing.assert_array_equal(fit(mask, 24, 32, resize=True), resize_nearest(mask, 24, 32))
    wide = ids(12, 16).astype(np.uint16) + 1000
    assert fit(wide, 24, 32, resize=True).dtype == np.uint16


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_matte_of_the_photos_shape_is_resized_smoothly_when_asked(kind: type[np.generic]) -> None:
    alpha = (np.arange(12 * 16).reshape(12, 16) * 1.3).astype(kind)
    found = fit(alpha, 24, 32, resize=True, smooth=True)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, resize_smooth(alpha, 24, 32))


@pytest.mark.parametrize(
    ("mask", "photo_size", "fits"),
    [
        ((100, 100), (200, 200), True),
        ((100, 100), (200, 202), True),
        ((100, 100), (200, 203), False),
        ((100, 100), (203, 200), False),
        ((480, 320), (1000, 667), True),
        ((1, 1), (500, 500), True),
    ],
)
def test_shapes_agree_within_a_hundredth(mask: tuple[int, int], photo_size: tuple[int, int], fits: bool) -> None:
    if fits:
        assert fit(ids(*mask), *photo_size, resize=True).shape == photo_size
    else:
        assert "the shapes differ too" in refused(ids(*mask), *photo_size, resize=True)
