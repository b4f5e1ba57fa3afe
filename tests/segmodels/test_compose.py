"""Compositions: the person's colours against a known truth, backgrounds, cut-outs, pictures side by side."""

from __future__ import annotations

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from segdata.errors import OptionError
from segdata.formats.images import encode_png
from segdata.formats.videos import VideoInfo, VideoWriter
from segdata.labels import label_map, palette
from segdata.sheets import overlay
from segmodels.compose import (
    Blurred,
    Picture,
    Plain,
    Video,
    background,
    collage,
    composite,
    covering,
    cutout,
    foreground,
)

NOW = Fraction(0)


def soft_disc(height: int = 240, width: int = 320, soft_px: float = 12) -> Any:
    rows, columns = np.mgrid[0:height, 0:width]
    distance = height / 3 - np.hypot(rows - height / 2, columns - width / 2)
    return np.clip(0.5 + distance / soft_px, 0, 1).astype(np.float32)


def waves(height: int, width: int, color: tuple[int, int, int], seed: int) -> Any:
    """A smoothly textured picture around a colour."""
    noise = np.random.default_rng(seed).normal(0, 1, (height // 20 + 2, width // 20 + 2, 3)).astype(np.float32)
    smooth = cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.rint(smooth * 12 + color).clip(0, 255).astype(np.uint8)


def mixed(alpha: Any, front: Any, behind: Any) -> Any:
    return np.rint(alpha[:, :, None] * front + (1 - alpha[:, :, None]) * behind).astype(np.uint8)


def error(found: Any, expected: Any, where: Any) -> float:
    return float(np.abs(found.astype(float) - expected)[where].mean())


# ---- the person's colours --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(240, 320), (61, 47), (900, 1300)])
def test_colors_are_nearer_to_the_truth_than_the_photos_own(size: tuple[int, int]) -> None:
    front, behind = waves(*size, (60, 40, 30), 1), waves(*size, (40, 190, 60), 2)
    alpha = soft_disc(*size, soft_px=max(size) / 30)
    photo = mixed(alpha, front, behind)
    soft = (alpha > 0.02) & (alpha < 1)
    assert error(foreground(photo, alpha), front, soft) < 0.25 * error(photo, front, soft)


def test_no_halo_on_white_and_no_glow_on_black() -> None:
    front, behind = waves(240, 320, (60, 40, 30), 1), waves(240, 320, (40, 190, 60), 2)
    alpha = soft_disc()
    photo = mixed(alpha, front, behind)
    soft = (alpha > 0) & (alpha < 1)
    for level in (255, 0):
        ground = np.full_like(photo, level)
        truth = mixed(alpha, front, ground)
        naive = error(mixed(alpha, photo, ground), truth, soft)
        assert error(composite(photo, alpha, ground), truth, soft) < 0.3 * naive


def test_the_photo_stays_where_alpha_is_1_and_the_ground_where_it_is_0() -> None:
    photo, ground = waves(240, 320, (90, 90, 90), 3), waves(240, 320, (200, 10, 10), 4)
    alpha = soft_disc()
    before = photo.copy(), alpha.copy(), ground.copy()
    sure = (alpha == 0) | (alpha == 1)
    np.testing.assert_array_equal(foreground(photo, alpha)[sure], photo[sure])
    found = composite(photo, alpha, ground)
    np.testing.assert_array_equal(found[alpha == 1], photo[alpha == 1])
    np.testing.assert_array_equal(found[alpha == 0], ground[alpha == 0])
    for value, old in zip((photo, alpha, ground), before, strict=True):
        np.testing.assert_array_equal(value, old)


@pytest.mark.parametrize("level", [0, 0.001, 0.4, 0.999, 1])
def test_one_alpha_everywhere(level: float) -> None:
    photo, ground = waves(50, 70, (90, 120, 150), 5), np.full((50, 70, 3), 255, np.uint8)
    alpha = np.full((50, 70), level, np.float32)
    assert np.abs(foreground(photo, alpha).astype(int) - photo).max() <= 60
    expected = mixed(alpha, foreground(photo, alpha), ground)
    assert np.abs(composite(photo, alpha, ground).astype(int) - expected).max() <= 1


def test_any_size_and_photos_that_are_views() -> None:
    random = np.random.default_rng(6)
    for height, width in ((1, 1), (1, 900), (700, 2)):
        photo = random.integers(0, 256, (height, width, 6), np.uint8)[:, :, ::2]
        alpha = random.random((height, width), np.float32)
        found = composite(photo, alpha, photo[::-1])
        assert found.shape == (height, width, 3)
        np.testing.assert_array_equal(found, composite(np.ascontiguousarray(photo), alpha, photo[::-1].copy()))
        assert cutout(photo, alpha).shape == (height, width, 4)


def test_a_cutout_holds_nothing_of_the_background() -> None:
    front, behind = waves(240, 320, (60, 40, 30), 1), waves(240, 320, (40, 190, 60), 2)
    alpha = soft_disc()
    found = cutout(mixed(alpha, front, behind), alpha)
    np.testing.assert_array_equal(found[:, :, 3], np.rint(alpha * 255))
    assert not found[found[:, :, 3] == 0].any()
    shown = found[:, :, 3] > 5
    assert error(found[:, :, :3], front, shown) < 3
    assert len(encode_png(found)) < len(encode_png(np.dstack([mixed(alpha, front, behind), found[:, :, 3]])))


# ---- backgrounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("white", (255, 255, 255)),
        ("Black", (0, 0, 0)),
        ("rebeccapurple", (0x66, 0x33, 0x99)),
        ("#12aBfF", (0x12, 0xAB, 0xFF)),
        ("#1af", (0x11, 0xAA, 0xFF)),
    ],
)
def test_colors(text: str, color: tuple[int, int, int]) -> None:
    found = background(text)
    assert found == Plain(color)
    picture = found(np.zeros((5, 7, 3), np.uint8), np.zeros((5, 7), np.float32), NOW)
    assert picture.shape == (5, 7, 3)
    assert (picture == color).all()


def test_words() -> None:
    assert background("transparent") is None
    assert background("blur") == Blurred()
    assert background("blur:7.5") == Blurred(7.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("blurr", "Did you mean 'blur'"),
        ("whte", "Did you mean 'white'"),
        ("#12345", "#RRGGBB"),
        ("#ggg", "#RRGGBB"),
        ("", "transparent"),
        ("blur:0", "blur:PX"),
        ("blur:nan", "blur:PX"),
        ("blur:wide", "blur:PX"),
        ("beach.jpg", "no file of that name"),
        ("beach\0.jpg", "--background"),
        ("x" * 5000, "no file of that name"),
    ],
)
def test_anything_else_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        background(text)
    assert said in str(caught.value)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["folder", "text.png", "text.mp4", "empty.jpg"])
def test_files_that_are_no_picture_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"" if name == "empty.jpg" else b"some words")
    with pytest.raises(OptionError, match="--background"):
        background(str(path))


def test_a_picture_is_turned_by_its_exif_and_covers_the_photo(tmp_path: Path) -> None:
    stored = Image.new("RGB", (60, 30), (200, 0, 0))
    stored.paste((0, 0, 200), (0, 0, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise to be upright: what was left is on top
    data = io.BytesIO()
    stored.save(data, "PNG", exif=exif)
    (tmp_path / "ground.png").write_bytes(data.getvalue())
    found = background(str(tmp_path / "ground.png"))
    assert isinstance(found, Picture)
    assert found.pixels.shape == (60, 30, 3)
    alpha = np.zeros((40, 40), np.float32)
    shown = found(np.zeros((40, 40, 3), np.uint8), alpha, NOW)
    assert (shown[:18] == (0, 0, 200)).all()
    assert (shown[22:] == (200, 0, 0)).all()
    assert found(np.zeros((40, 40, 3), np.uint8), alpha, NOW) is shown, "made once for photos of one size"
    assert found(np.zeros((9, 20, 3), np.uint8), np.zeros((9, 20), np.float32), NOW).shape == (9, 20, 3)


def test_covering_cuts_both_sides_alike_and_keeps_the_shape() -> None:
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 100:200] = 255
    assert (covering(pixels, 50, 50) == 255).all()
    assert (covering(pixels.transpose(1, 0, 2), 70, 70) == 255).all()
    for height, width in ((1, 1), (1, 500), (500, 1)):
        assert covering(pixels, height, width).shape == (height, width, 3)


@pytest.mark.parametrize(
    ("radius_px", "off_px"), [(None, 0), (1, 0), (5, 0), (40, 0), (1000, 0), (None, 1), (5, 1), (40, 1)]
)
def test_blur_leaves_no_ghost_of_the_person(radius_px: float | None, off_px: int) -> None:
    """Also where the alpha is a pixel too small."""
    alpha = soft_disc(soft_px=1)
    photo = mixed(alpha, np.full((240, 320, 3), (255, 0, 0)), np.full((240, 320, 3), (20, 90, 160)))
    given = cv2.erode(alpha, np.ones((2 * off_px + 1,) * 2)) if off_px else alpha
    found = Blurred(radius_px)(photo, given, NOW).astype(int)
    assert found.shape == photo.shape
    assert np.abs(found - (20, 90, 160)).max() <= (2 if off_px == 0 else 40)


def test_blur_smooths_the_background() -> None:
    photo = np.random.default_rng(7).integers(0, 256, (240, 320, 3), np.uint8)
    nobody = np.zeros((240, 320), np.float32)
    spread = [Blurred(px)(photo, nobody, NOW).std() for px in (1, 4, 16, 64)]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 4
    expected = cv2.GaussianBlur(photo, (0, 0), 8)
    assert np.abs(Blurred(16)(photo, nobody, NOW).astype(int) - expected).mean() < 1.5


def test_blur_where_nothing_but_the_person_is() -> None:
    photo = np.full((30, 40, 3), 200, np.uint8)
    assert Blurred()(photo, np.ones((30, 40), np.float32), NOW).shape == photo.shape


@pytest.fixture
def clip(tmp_path: Path) -> Callable[[int], Video]:
    """A video background of so many frames at 10 a second, each grey of 40 times its number."""

    def made(frames: int) -> Video:
        path = tmp_path / "clip.mp4"
        with VideoWriter(path, 48, 64, VideoInfo(64, 48, Fraction(10)), "mp4") as writer:
            for number in range(frames):
                writer.write(np.full((48, 64, 3), 40 * number, np.uint8), Fraction(number, 10))
        found = background(str(path))
        assert isinstance(found, Video)
        return found

    return made


def shown(video: Video, time: Fraction, height: int = 24, width: int = 24) -> int:
    """The number of the frame that is shown."""
    picture = video(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.float32), time)
    assert picture.shape == (height, width, 3)
    return round(float(picture.mean()) / 40)


def test_a_video_runs_by_time_and_begins_anew_at_its_end(clip: Callable[[int], Video]) -> None:
    video = clip(5)
    times = [Fraction(n, 20) for n in range(40)]
    assert [shown(video, time) for time in times] == [n // 2 % 5 for n in range(40)]
    assert shown(video, Fraction(10**6) + Fraction(1, 4)) == 2
    assert shown(video, Fraction(0)) == 0, "the next video that is worked on"
    assert shown(video, Fraction(1, 10), 10, 30) == 1


def test_a_video_of_one_frame_stands_still(clip: Callable[[int], Video]) -> None:
    video = clip(1)
    assert [shown(video, Fraction(n, 7)) for n in range(20)] == [0] * 20


# ---- side by side ----------------------------------------------------------------------------------------------------


def test_a_collage_is_of_one_height_with_white_between() -> None:
    red, blue = np.full((20, 30, 3), (255, 0, 0), np.uint8), np.full((40, 30, 3), (0, 0, 255), np.uint8)
    found = collage([red, blue, red])
    assert found.shape == (20, 30 + 8 + 15 + 8 + 30, 3)
    assert (found[:, :30] == (255, 0, 0)).all()
    assert (found[:, 30:38] == 255).all()
    assert (found[:, 38:53] == (0, 0, 255)).all()
    np.testing.assert_array_equal(collage([red]), red)


@pytest.mark.parametrize("strength", [0, 0.3, 0.55, 1])
def test_overlay_mixes_colors_as_arithmetic_does(strength: float) -> None:
    random = np.random.default_rng(8)
    labels = label_map("parts5", "humanparsing")
    photo, mask = random.integers(0, 256, (90, 70, 3), np.uint8), random.choice([0, 1, 2, 3, 4, 255], (90, 70))
    mask = mask.astype(np.uint8)
    tint = np.where(mask > 0, strength, 0.0)[:, :, None]
    expected = np.rint(photo * (1 - tint) + palette(labels)[mask] * tint)
    np.testing.assert_array_equal(overlay(photo, mask, labels, strength), expected)
