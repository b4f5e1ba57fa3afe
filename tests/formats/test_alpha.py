"""Alpha and masks of two values: what is read from a picture's alpha, how it is cut, and what is binary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segdata.errors import ImageRefused
from segdata.formats.raw_pictures import Label, binary_ids, cut_alpha, read_alpha
from segdata.sources import Entry
from segdata.sources.pairs import Pairs
from tests.material import exif, grey_png, palette_png, photo, png_chunk, raw_png, saved
from tests.sources.layouts import cut_out, soft, write

HEIGHT, WIDTH = 16, 32
ALPHA = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % 256).astype(np.uint8)
WIDE = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 127 + 3).astype(np.uint16)
BOX = np.zeros((HEIGHT, WIDTH), np.uint8)
BOX[3:9, 5:20] = 1


def rgba(alpha: Any = ALPHA, **options: Any) -> bytes:
    return saved(np.dstack([photo(HEIGHT, WIDTH), alpha]), "PNG", **options)


def deep(alpha: Any, colors: int) -> bytes:
    """A 16-bit PNG of ``colors`` zero channels and alpha."""
    pixels = np.dstack([np.zeros((HEIGHT, WIDTH, colors), np.uint16), alpha])
    kind = {1: 4, 3: 6}[colors]
    return raw_png(WIDTH, HEIGHT, 16, kind, [row.astype(">u2").tobytes() for row in pixels])


# ---- read_alpha

KEPT = {
    "RGBA": rgba(),
    "grey with alpha": saved(Image.merge("LA", [Image.fromarray(255 - ALPHA), Image.fromarray(ALPHA)]), "PNG"),
    "grey": saved(ALPHA, "PNG"),
    "RGB of equal channels": saved(np.dstack([ALPHA] * 3), "PNG"),
    "grey BMP": saved(ALPHA, "BMP"),
    "grey TIFF": saved(ALPHA, "TIFF"),
    "RGBA with an orientation that turns nothing": rgba(exif=exif(1)),
}


@pytest.mark.parametrize("data", KEPT.values(), ids=KEPT)
def test_alpha_is_kept_exactly(data: bytes) -> None:
    found = read_alpha(data)
    assert (found.dtype, found.shape) == (np.uint8, (HEIGHT, WIDTH))
    np.testing.assert_array_equal(found, ALPHA)
    assert found.flags["C_CONTIGUOUS"]


@pytest.mark.parametrize("data", [deep(WIDE, 3), deep(WIDE, 1), grey_png(WIDE, 16)], ids=["RGBA", "LA", "grey"])
def test_alpha_of_16_bits_is_kept_exactly(data: bytes) -> None:
    found = read_alpha(data)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, WIDE)


@pytest.mark.parametrize("value", [0, 1, 3, 254, 255])
def test_an_alpha_channel_of_one_value_is_taken_whatever_it_is(value: int) -> None:
    assert (read_alpha(rgba(np.full((HEIGHT, WIDTH), value, np.uint8))) == value).all()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_grey_of_few_bits_is_spread_over_all_of_alpha(depth: int) -> None:
    white = (1 << depth) - 1
    values = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % (white + 1)).astype(np.uint8)
    found = read_alpha(grey_png(values, depth))
    np.testing.assert_array_equal(found, values * (255 // white))


def transparent_palette() -> bytes:
    """A palette PNG in which index 0 is transparent, as tools that reduce colours write cut-outs."""
    return saved(Image.fromarray(photo(HEIGHT, WIDTH)).quantize(16), "PNG", transparency=0)


def transparent_grey() -> bytes:
    """A grey PNG whose value 0 is transparent (a tRNS chunk)."""
    before = png_chunk(b"tRNS", b"\0\0")
    return raw_png(WIDTH, HEIGHT, 8, 0, [row.tobytes() for row in ALPHA], before)


REFUSED = {
    "RGB without alpha": (saved(photo(HEIGHT, WIDTH), "PNG"), "mask-mode|matte-mode"),
    "photo as JPEG": (saved(photo(HEIGHT, WIDTH), "JPEG"), "mask-mode|matte-mode"),
    "palette": (palette_png(BOX), "matte-mode"),
    "palette with transparency": (transparent_palette(), "mask-mode|matte-mode"),
    "WebP with alpha": (saved(np.dstack([photo(HEIGHT, WIDTH), ALPHA]), "WEBP", lossless=True), "mask-mode"),
    "TIFF with alpha": (saved(np.dstack([photo(HEIGHT, WIDTH), ALPHA]), "TIFF"), "mask-mode"),
    "RGBA with a turn of its own": (rgba(exif=exif(6)), "mask-exif"),
    "grey with a turn of its own": (saved(ALPHA, "PNG", exif=exif(3)), "mask-exif"),
    "grey of 0 and 1": (saved(BOX, "PNG"), "matte-mode"),
    "half of it": (rgba()[: len(rgba()) // 2], "truncated|unreadable"),
    "without its end chunk": (rgba()[:-12], "truncated|unreadable"),
    "60000x60000": (raw_png(60000, 60000, 8, 6, [b""]), "too-large"),
    "rows that end early": (raw_png(WIDTH, HEIGHT, 8, 6, [bytes(WIDTH * 4)] * 5), "truncated|unreadable|damaged"),
    "nothing": (b"", "unreadable"),
    "HTML": (b"<html>404</html>", "unreadable"),
}


@pytest.mark.parametrize(("data", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_holds_no_alpha_for_sure_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRefused, match=rf"^({reason}): "):
        read_alpha(data)


def test_a_grey_value_that_is_transparent_is_refused_or_leaves_the_values() -> None:
    try:
        found = read_alpha(transparent_grey())
    except ImageRefused:
        return
    np.testing.assert_array_equal(found, ALPHA)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_flipped_bit_is_noticed(draw: st.DataObject) -> None:
    data = bytearray(rgba())
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= 1 << draw.draw(st.integers(0, 7))
    with pytest.raises(ImageRefused):
        read_alpha(bytes(data))


# ---- cut_alpha


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("threshold", [1e-9, 0.1, 1 / 3, 0.5, 0.999, 1.0])
def test_alpha_is_cut_at_its_share_of_full(kind: Any, threshold: float) -> None:
    full = int(np.iinfo(kind).max)
    alpha = np.arange(full + 1, dtype=kind)[None]
    found = cut_alpha(alpha, threshold)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], [value >= threshold * full for value in range(full + 1)])
    assert (found[0, 0], found[0, -1]) == (0, 1)


def test_8_and_16_bits_of_one_alpha_are_cut_alike() -> None:
    alpha = np.arange(256, dtype=np.uint8)[None]
    for threshold in (0.1, 0.25, 0.5, 0.75, 0.9, 1.0):
        np.testing.assert_array_equal(cut_alpha(alpha, threshold), cut_alpha(alpha.astype(np.uint16) * 257, threshold))


def test_cutting_changes_nothing_of_what_was_given() -> None:
    alpha = ALPHA.copy()
    cut_alpha(alpha, 0.5)
    np.testing.assert_array_equal(alpha, ALPHA)


# ---- binary_ids


def label(values: Any, **changes: Any) -> Label:
    kept = values if isinstance(values, np.ndarray) else np.array(values, np.uint8)
    return Label(kept, **({"lossy": False} | changes))


GREYS = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)


@pytest.mark.parametrize(
    "found",
    [
        label(BOX),
        label(BOX * 255),
        label(BOX.astype(np.uint16) * 255, white=65535),
        label(BOX, white=1),
        label(BOX, palette=GREYS),
        label(BOX, palette=GREYS[:1].repeat(2, axis=0)),
        label(BOX * 255, palette=np.arange(768).reshape(256, 3).astype(np.uint8)),
    ],
    ids=["0 and 1", "0 and 255", "16 bits", "1 bit", "palette", "palette of one colour", "palette 0 and 255"],
)
def test_two_values_are_a_mask(found: Label) -> None:
    mask = binary_ids(found, None)
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, BOX)


@pytest.mark.parametrize("threshold", [None, 1, 128])
def test_a_palette_whose_first_colour_is_the_bright_one_is_refused(threshold: int | None) -> None:
    with pytest.raises(ImageRefused, match="not-binary: a palette whose index 0 is brighter"):
        binary_ids(label(BOX, palette=GREYS[::-1]), threshold)


def test_a_mask_of_16_bits_that_is_all_or_nothing_is_read() -> None:
    for threshold in (None, 32768):
        found = binary_ids(label(BOX.astype(np.uint16) * 65535, white=65535), threshold)
        np.testing.assert_array_equal(found, BOX)


@pytest.mark.parametrize("values", [[0, 2], [0, 254], [1, 254], [0, 1, 2], [7], [0, 1, 255], [0, 256], [0, 65534]])
def test_other_values_are_refused_and_named(values: list[int]) -> None:
    with pytest.raises(ImageRefused, match=rf"^not-binary: {len(values)} values \({', '.join(map(str, values))}\)"):
        binary_ids(label(np.array([values], np.uint16), white=65535), None)


@pytest.mark.parametrize(("values", "threshold"), [([0, 1], 2), ([0, 1], 255), ([0, 3, 100], 101), ([0, 255], 256)])
def test_a_threshold_that_would_empty_a_mask_is_refused(values: list[int], threshold: int) -> None:
    with pytest.raises(ImageRefused, match=f"not-binary: values up to {max(values)}, all below --threshold"):
        binary_ids(label([values]), threshold)


def test_an_empty_mask_stays_empty_at_any_threshold() -> None:
    for threshold in (None, 1, 128, 65535):
        assert not binary_ids(label(np.zeros((3, 4), np.uint8)), threshold).any()


def test_a_dark_lossy_mask_may_be_empty_at_a_threshold() -> None:
    assert not binary_ids(label([[0, 3, 2, 1]], lossy=True), 128).any()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.integers(1, 255))
def test_a_threshold_cuts_lossy_values(values: list[int], threshold: int) -> None:
    found = binary_ids(label(np.array([values], np.uint8), lossy=True), threshold)
    assert found.tolist() == [[int(value >= threshold) for value in values]]


def test_grey_that_is_opaque_everywhere_could_be_either_and_is_refused() -> None:
    grey = soft()
    opaque = np.full_like(grey, 255)
    with pytest.raises(ImageRefused, match="matte-mode: grey, with an alpha that is opaque everywhere"):
        read_alpha(saved(np.dstack([grey, grey, grey, opaque]), "PNG"))
    with pytest.raises(ImageRefused, match="opaque everywhere"):
        read_alpha(saved(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(opaque)]), "PNG"))
    np.testing.assert_array_equal(read_alpha(cut_out(opaque)), opaque)  # colours are no matte


def test_a_cut_out_is_a_matte_in_pairs_too(tmp_path: Path) -> None:
    write(tmp_path / "masks" / "a.png", cut_out(soft()))
    source = Pairs(tmp_path / "photos", tmp_path / "masks", None, "matte")
    values = source.annotate(Entry(id="a", group="a", image="a.jpg", label="a.png")).values
    np.testing.assert_array_equal(values, soft())
