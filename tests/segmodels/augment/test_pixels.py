"""Light, background, patches, blur and JPEG against numpy."""

from __future__ import annotations

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segmodels.augment.camera import blurred, through_jpeg
from segmodels.augment.light import relit
from segmodels.augment.scene import occluded, on_plain

LEVELS = np.arange(256.0)


def noise(height: int = 40, width: int = 56) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("factor", [0.501, 0.8, 1.0, 1.1, 1.3, 3.0])
def test_brightness_is_hsvs_value(factor: float) -> None:
    image = noise()
    value = image.max(axis=2, keepdims=True).astype(float)
    wanted = image * np.minimum(factor, 255 / np.maximum(value, 1))
    found = relit(image, {"brightness": factor})
    assert abs(found - wanted).max() <= 0.5001
    assert (found.max(axis=2) >= np.floor(np.minimum(255, factor * value[:, :, 0]))).all()
    for before, after in zip(image[0, :20] / 255, found[0, :20] / 255, strict=True):
        (hue, saturation, _), (new_hue, new_saturation, _) = colorsys.rgb_to_hsv(*before), colorsys.rgb_to_hsv(*after)
        assert new_hue == pytest.approx(hue, abs=0.03)
        assert new_saturation == pytest.approx(saturation, abs=0.03)


def contrasted(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.clip(127.5 + (values - 127.5) * 1.4, 0, 255)


def with_gamma(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.asarray(255 * (values / 255) ** (1 / 0.6))


def added(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.clip(values - 33.3, 0, 255)


@pytest.mark.parametrize(
    ("drawn", "reference"),
    [
        ({"contrast": 1.4}, contrasted),
        ({"gamma": 0.6}, with_gamma),
        ({"add": -33.3}, added),
        (
            {"add": -33.3, "gamma": 0.6, "contrast": 1.4, "brightness": 0.7},
            lambda v: added(with_gamma(contrasted(v * 0.7))),
        ),
    ],
    ids=["contrast", "gamma", "add", "all in their order"],
)
def test_light_follows_its_formulas(drawn: dict[str, float], reference: Any) -> None:
    image = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    found = relit(image, drawn)
    np.testing.assert_array_equal(found, np.repeat(np.rint(reference(LEVELS))[None, :, None], 3, 2))


def test_add_per_channel_keeps_red_red() -> None:
    found = relit(np.full((2, 2, 3), 100, np.uint8), {"add_per_channel": (50.0, 0.0, -120.0), "brightness": 1.2})
    assert found[1, 1].tolist() == [170, 120, 0]


def test_a_plain_background_shows_through_alpha() -> None:
    image = noise()
    matte = np.random.default_rng(2).random(image.shape[:2], np.float32)
    matte[:10], matte[10:12], matte[12:14] = -1, 0, 1
    found = on_plain(image, matte, (255, 0, 90))
    alpha = np.where(matte < 0, 1, matte)[:, :, None]
    wanted = image * alpha + np.array([255, 0, 90]) * (1 - alpha)
    assert abs(found - wanted).max() <= 0.501
    assert (found[10:12] == (255, 0, 90)).all()
    np.testing.assert_array_equal(found[:10], image[:10])
    np.testing.assert_array_equal(found[12:14], image[12:14])


def test_patches_are_cut_at_the_edges_and_leave_the_rest() -> None:
    image = noise(50, 100)
    found = occluded(image, [(-0.1, -0.1, 0.2), (0.5, 0.4, 0.2), (0.95, 0.9, 0.2)])
    covered = np.zeros((50, 100), bool)
    covered[:5, :10] = covered[20:30, 50:70] = covered[45:, 95:] = True
    assert (found[covered] == 128).all()
    np.testing.assert_array_equal(found[~covered], image[~covered])


def test_blurs_are_what_their_names_say() -> None:
    image = noise(60, 60)
    window = image[20:27, 30:37].reshape(-1, 3)
    np.testing.assert_allclose(blurred(image, "mean", 7)[23, 33], window.mean(axis=0), atol=0.501)
    np.testing.assert_array_equal(blurred(image, "median", 7)[23, 33], np.median(window, axis=0))
    sigma = 0.3 * ((7 - 1) / 2 - 1) + 0.8
    weights = np.exp(-((np.arange(7) - 3) ** 2) / (2 * sigma**2))
    weights = np.outer(weights, weights).ravel()
    wanted = (window * weights[:, None]).sum(axis=0) / weights.sum()
    np.testing.assert_allclose(blurred(image, "gaussian", 7)[23, 33], wanted, atol=1.5)


def test_jpeg_keeps_colors_and_loses_more_at_lower_quality() -> None:
    smooth = np.dstack([np.full((64, 64), 200), np.tile(np.arange(64), (64, 1)), np.full((64, 64), 20)]).astype(
        np.uint8
    )
    assert abs(through_jpeg(smooth, 70).astype(int) - smooth).max() < 16, "red is red, blue is blue"
    image = noise(64, 64)
    lost = [abs(through_jpeg(image, quality).astype(int) - image).mean() for quality in (10, 40, 70)]
    assert lost == sorted(lost, reverse=True)
    assert lost[0] > lost[2] + 1
