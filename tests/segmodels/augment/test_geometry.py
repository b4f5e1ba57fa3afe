"""Flips and warps: image, mask and matte stay on one another, and no id comes in that was not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segdata.labels import label_map
from segmodels.augment import Augment, apply, draw
from segmodels.augment.geometry import exchanged, moved
from segmodels.augment.options import HorizontalFlip, RandomCrop, Rotate, Scale, VerticalFlip

Pixels = npt.NDArray[Any]
DATA = Path(__file__).parent.parent.parent.parent.parent / "shared" / "data" / "cihp_lip20"
EVERYTHING = Augment("all", None, *[None] * 5, HorizontalFlip(), VerticalFlip(), Rotate(), Scale(), RandomCrop())
SQUARE = {"rotate": 0.0}  # a warp that moves nothing


def positions(height: int = 200, width: int = 240) -> tuple[Pixels, Pixels]:
    """A picture whose red is a pixel's column and green its row, and a mask that is the column."""
    rows, columns = np.indices((height, width), dtype=np.uint8)
    return np.dstack([columns, rows, np.full_like(rows, 7)]), columns.copy()


def blocks(seed: int, height: int = 96, width: int = 160) -> tuple[Pixels, Pixels]:
    """Squares of ids 0 to 9, and a picture in which grey 20 * id + 10 stands for each."""
    small = np.random.default_rng(seed).integers(0, 10, (height // 16, width // 16), np.uint8)
    mask = np.kron(small, np.ones((16, 16), np.uint8))
    return np.dstack([20 * mask + 10] * 3), mask


def inner(mask: Pixels) -> Pixels:
    """Where all pixels around have one id: the half pixel by which linear and nearest differ grows up to 2.2 fold."""
    window = np.ones((5, 5), np.uint8)
    same: Pixels = cv2.erode(mask, window) == cv2.dilate(mask, window)
    same[:2] = same[-2:] = same[:, :2] = same[:, -2:] = False
    return same


@pytest.mark.parametrize("record", range(40))
def test_ids_and_colors_agree_everywhere_but_on_edges(record: int) -> None:
    image, mask = blocks(record)
    matte = (mask / 10).astype(np.float32)
    new_image, new_mask, new_matte = apply(EVERYTHING, image, mask, matte, ((1, 2), (8, 9)), 3, 1, record)
    assert new_mask is not None
    assert new_matte is not None
    assert new_image.shape == image.shape
    assert new_mask.shape == new_matte.shape == mask.shape
    assert set(np.unique(new_mask)) <= {*range(10), 255}
    left, right = list(range(10)), [0, 2, 1, 3, 4, 5, 6, 7, 9, 8]
    flipped = "horizontal_flip" in draw(EVERYTHING, 3, 1, record)
    color = np.full(256, 128)
    color[right if flipped else left] = 20 * np.arange(10) + 10
    same = inner(new_mask)
    found = new_image[same][:, 0]
    assert same.mean() > 0.2
    assert (found == color[new_mask[same]]).all()
    alpha, counts = new_matte[same], new_mask[same] != 255
    assert ((alpha >= 0) == counts).all()
    np.testing.assert_allclose(alpha[counts], (found[counts] - 10.0) / 200, atol=1e-5)


@pytest.mark.parametrize("record", range(12))
def test_the_mask_is_not_half_a_pixel_beside_the_image(record: int) -> None:
    """In source pixels, on average: nearest neighbour is up to half a pixel off, but to both sides alike."""
    image, mask = positions()
    image, new_mask, _ = apply(EVERYTHING, image, mask, None, (), 0, 0, record)
    assert new_mask is not None
    whole = (new_mask != 255) & (image[:, :, 2] == 7)
    off = new_mask[whole].astype(int) - image[:, :, 0][whole]
    assert abs(off.mean()) < 0.05
    assert abs(off).max() <= 1


def test_that_test_can_fail() -> None:
    image, mask = positions()
    shifted = cv2.warpAffine(image, np.array([[1, 0, -0.5], [0, 1, 0]]), (240, 200))
    off = mask[:, 1:-1].astype(int) - shifted[:, 1:-1, 0]
    assert abs(off.mean()) > 0.4


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ({"horizontal_flip": True}, lambda part: part[:, ::-1]),
        ({"vertical_flip": True}, lambda part: part[::-1]),
        ({"horizontal_flip": True, "vertical_flip": True}, lambda part: part[::-1, ::-1]),
        ({"scale": 2.0, "random_crop": (1.0, 0.0, 0.0)}, None),
    ],
    ids=["horizontal", "vertical", "both", "enlarged"],
)
def test_flips_are_exact_alone_and_within_a_warp(drawn: dict[str, Any], expected: Any) -> None:
    image, mask = positions()
    matte = (mask / 255).astype(np.float32)
    for found in (moved(image, mask, matte, (), drawn), moved(image, mask, matte, (), SQUARE | drawn)):
        for part, before in zip(found, (image, mask, matte), strict=True):
            assert part is not None
            assert part.flags.c_contiguous
            assert part.dtype == before.dtype
            if expected:
                np.testing.assert_array_equal(part, expected(before))
            else:
                assert (part != before).any()


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (-90, -1), (180, 2)])
def test_rotation_is_counter_clockwise_about_the_middle(degrees: int, turns: int) -> None:
    image, mask = positions(200, 200)
    new_image, new_mask, _ = moved(image, mask, None, (), {"rotate": float(degrees)})
    np.testing.assert_array_equal(new_image, np.rot90(image, turns))
    np.testing.assert_array_equal(new_mask, np.rot90(mask, turns))


def test_scale_and_crop_are_about_the_middle_and_the_window() -> None:
    image, _ = positions(200, 240)
    columns = np.arange(240) + 0.5
    larger = moved(image, None, None, (), {"scale": 2.0})[0][100, :, 0]
    np.testing.assert_allclose(larger, 120 + (columns - 120) / 2 - 0.5, atol=0.55)
    window = moved(image, None, None, (), {"random_crop": (0.5, 0.25, 0.0)})[0]
    np.testing.assert_allclose(window[100, :, 0], 60 + columns / 2 - 0.5, atol=0.55)
    np.testing.assert_allclose(window[1:, 100, 1], (np.arange(1, 200) + 0.5) / 2 - 0.5, atol=0.55)
    lower = moved(image, None, None, (), {"random_crop": (0.5, 0.0, 0.25)})[0]
    np.testing.assert_allclose(lower[:, 100, 1], 50 + (np.arange(200) + 0.5) / 2 - 0.5, atol=0.55)


def test_space_that_appears_is_grey_ignored_and_not_counted() -> None:
    image, mask = np.full((100, 80, 3), 200, np.uint8), np.ones((100, 80), np.uint8)
    image, new_mask, matte = moved(image, mask, np.ones((100, 80), np.float32), (), {"scale": 0.5})
    assert new_mask is not None
    assert matte is not None
    outside = np.ones((100, 80), bool)
    outside[25:75, 20:60] = False
    assert (new_mask[outside] == 255).all()
    assert (new_mask[~outside] == 1).all()
    assert (matte[outside] == -1).all()
    assert (matte[~outside] == 1).all()
    assert (image[:24] == 128).all()
    assert (image[27:73, 22:58] == 200).all()


def test_pixels_of_a_matte_that_do_not_count_do_not_bleed() -> None:
    matte = np.full((64, 64), 0.75, np.float32)
    matte[:, :20] = -1
    for degrees in (3.0, 17.0, 40.0):
        found = moved(np.zeros((64, 64, 3), np.uint8), None, matte, (), {"rotate": degrees, "scale": 1.3})[2]
        assert found is not None
        assert set(np.unique(np.round(found, 5))) == {np.float32(-1), np.float32(0.75)}


def test_ids_are_exchanged_by_a_horizontal_flip_alone() -> None:
    mask = np.array([[1, 2, 3, 255]], np.uint8)
    image = np.zeros((1, 4, 3), np.uint8)
    assert moved(image, mask, None, [[1, 2]], {"horizontal_flip": True})[1].tolist() == [[255, 3, 1, 2]]  # type: ignore[union-attr]
    assert moved(image, mask, None, [[1, 2]], {"vertical_flip": True})[1].tolist() == [[1, 2, 3, 255]]  # type: ignore[union-attr]


@pytest.mark.skipif(not DATA.is_dir(), reason="no real sample data beside this checkout (../shared/data)")
def test_a_flip_gives_the_mirrored_labels_that_cihp_publishes() -> None:
    pairs = label_map("lip", "lip").left_right_pairs
    assert pairs == ((14, 15), (16, 17), (18, 19))
    paths = sorted((DATA / "labels").glob("*.png"))
    assert len(paths) == 3
    for path in paths:
        label = np.asarray(Image.open(path))
        published = np.asarray(Image.open(DATA / "labels_rev" / path.name))
        config = Augment("flip", horizontal_flip=HorizontalFlip(probability=1))
        _, mask, _ = apply(config, np.zeros((*label.shape, 3), np.uint8), label, None, pairs, 0, 0, 0)
        np.testing.assert_array_equal(mask, published)
        assert (exchanged(published, pairs) != published).any(), "a picture of no left or right shows nothing"
