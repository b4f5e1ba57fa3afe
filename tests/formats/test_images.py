"""Pictures: read strictly, turned once, never guessed; stored so that plain TensorFlow reads the same pixels."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile, features

from segdata.errors import ImageRefused
from segdata.formats import images
from segdata.formats.images import (
    Header,
    check_stored,
    count_values,
    decode_jpeg_strictly,
    decode_mask,
    decode_matte,
    decode_rgb,
    decode_sample,
    decode_stored,
    encode_jpeg,
    encode_mask,
    encode_matte,
    encode_png,
    header,
)
from segdata.formats.raw_pictures import read_label, read_photo, read_rgb
from tests.material import (
    PNG_MAGIC,
    Pixels,
    exif,
    grey_png,
    ids,
    opened,
    palette_png,
    photo,
    png_chunk,
    raw_png,
    saved,
    tensorflow,
    turned,
)

RGB = photo(48, 64)
GREY = RGB[:, :, 0]
IDS = ids(48, 64)
NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
READERS: dict[str, Callable[[bytes], Any]] = {"photo": read_photo, "label": read_label, "stored": check_stored}
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
each_reader = pytest.mark.parametrize("read", READERS.values(), ids=READERS)


def refused(read: Callable[[bytes], Any], data: bytes, *reasons: str) -> str:
    """``read`` refuses ``data`` for one of ``reasons``; what it says of it."""
    with pytest.raises(ImageRefused) as caught:
        read(data)
    assert not reasons or caught.value.reason in reasons, str(caught.value)
    return caught.value.detail


def rgb16(pixels: Pixels, low: int = 37) -> bytes:
    """A 48-bit PNG whose high bytes are ``pixels``."""
    wide = pixels.astype(np.uint16) << 8 | low
    return raw_png(pixels.shape[1], pixels.shape[0], 16, 2, [row.astype(">u2").tobytes() for row in wide])


def with_orientation_behind_the_pixels(orientation: int) -> bytes:
    chunk = png_chunk(b"eXIf", exif(orientation).tobytes()[6:])
    return raw_png(64, 48, 8, 2, [row.tobytes() for row in RGB], behind=chunk)


# ---- photos: what passes through, what becomes PNG


@pytest.mark.parametrize(
    ("data", "channels"),
    [
        (saved(RGB, "JPEG"), 3),
        (saved(RGB, "JPEG", progressive=True, quality=92), 3),
        (saved(RGB, "JPEG", subsampling=0), 3),
        (saved(GREY, "JPEG"), 1),
        (saved(RGB, "PNG"), 3),
        (saved(GREY, "PNG"), 1),
        (saved(RGB, "JPEG", exif=exif(1)), 3),
        (saved(RGB, "JPEG", exif=exif(0)), 3),
        (saved(RGB, "JPEG", exif=exif(9)), 3),
        (saved(RGB, "JPEG") + b"bytes behind the end", 3),
        (saved(RGB, "PNG") + b"bytes behind the end", 3),
    ],
    ids=[
        "JPEG",
        "progressive JPEG",
        "JPEG 4:4:4",
        "grey JPEG",
        "PNG",
        "grey PNG",
        "upright",
        "orientation 0",
        "orientation 9",
        "JPEG with a tail",
        "PNG with a tail",
    ],
)
def test_what_tensorflow_reads_as_it_is_keeps_its_bytes(data: bytes, channels: int) -> None:
    found = read_photo(data)
    assert found.data is data
    assert found.header == Header("jpeg" if data[0] == 0xFF else "png", 48, 64, channels)
    assert (found.orientation, found.reencoded_from) == (1, None)


OTHERS: dict[str, tuple[bytes, str]] = {
    "BMP": (saved(RGB, "BMP"), "bmp RGB"),
    "TIFF": (saved(RGB, "TIFF"), "tiff RGB"),
    "TIFF with LZW": (saved(RGB, "TIFF", compression="tiff_lzw"), "tiff RGB"),
    "lossless WebP": (saved(RGB, "WEBP", lossless=True), "webp RGB"),
    "WebP with alpha": (saved(np.dstack([RGB, np.full_like(GREY, 255)]), "WEBP", lossless=True), "webp RGBX?"),
    "PPM": (saved(RGB, "PPM"), "ppm RGB"),
    "RGBA PNG": (saved(np.dstack([RGB, GREY]), "PNG"), "png RGBA"),
    "48-bit PNG": (rgb16(RGB), "png RGB"),
    "PNG with a transparent colour": (saved(RGB, "PNG", transparency=(1, 2, 3)), "png RGB"),
}


@pytest.mark.parametrize(("data", "was"), OTHERS.values(), ids=OTHERS)
def test_other_pictures_become_png_of_the_same_pixels(data: bytes, was: str) -> None:
    found = read_photo(data)
    assert found.header == Header("png", 48, 64, 3)
    assert re.fullmatch(was.replace("X?", "(X|A)?"), found.reencoded_from or "")
    np.testing.assert_array_equal(decode_stored(found.data), RGB)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (saved(np.dstack([GREY, IDS]), "PNG"), GREY),
        (grey_png(GREY.astype(np.uint16) << 8 | 255, 16), GREY),
        (grey_png(GREY // 128, 1), GREY // 128 * 255),
        (grey_png(GREY // 64, 2), GREY // 64 * 85),
        (grey_png(GREY // 16, 4), GREY // 16 * 17),
        (saved(GREY, "TIFF"), GREY),
        (saved(GREY.astype(np.uint16) * 257, "TIFF"), GREY),
    ],
    ids=[
        "grey and alpha",
        "16 bits",
        "1 bit",
        "2 bits",
        "4 bits",
        "TIFF",
        "16-bit TIFF",
    ],
)
def test_grey_photos_of_any_depth_become_grey_png(data: bytes, wanted: Pixels) -> None:
    found = read_photo(data)
    assert found.header == Header("png", 48, 64, 1)
    assert found.reencoded_from is not None
    np.testing.assert_array_equal(decode_stored(found.data), wanted)


def test_a_photo_of_32_bits_a_pixel_is_refused() -> None:
    assert "32 bits" in refused(read_photo, saved(GREY.astype(np.int32), "TIFF"), "unreadable")


def test_a_palette_photo_gets_its_colours() -> None:
    data = palette_png(IDS)
    found = read_photo(data)
    assert found.reencoded_from == "png P"
    np.testing.assert_array_equal(decode_stored(found.data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_a_cmyk_photo_becomes_rgb() -> None:
    found = read_photo(saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95))
    assert found.header == Header("png", 48, 64, 3)
    assert found.reencoded_from == "jpeg CMYK"
    assert np.abs(decode_stored(found.data).astype(int) - RGB).mean() < 4


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    first, second = Image.fromarray(GREY // 128 * 255), Image.fromarray(255 - GREY // 128 * 255)
    data = saved(first, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    found = read_photo(data)
    pixels = decode_rgb(found.data)
    np.testing.assert_array_equal(pixels[:, :, 0], np.asarray(first))
    assert (found.reencoded_from or "").startswith(kind.lower())


def test_an_animated_png_is_its_first_frame_for_every_reader() -> None:
    data = saved(Image.fromarray(RGB), "PNG", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    np.testing.assert_array_equal(decode_stored(read_photo(data).data), RGB)


def test_an_mpo_gives_its_first_frame_and_a_turn() -> None:
    data = saved(
        Image.fromarray(RGB), "MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)], exif=exif(6), quality=95
    )
    assert Image.open(io.BytesIO(data)).format == "MPO"
    found = read_photo(data)
    assert (found.orientation, found.reencoded_from) == (6, "mpo RGB, EXIF 6")
    np.testing.assert_array_equal(decode_stored(found.data), turned(opened(data), 6))


@needs_avif
def test_an_avif_becomes_png_of_the_pixels_that_pillow_reads() -> None:
    data = saved(RGB, "AVIF")
    found = read_photo(data)
    assert found.reencoded_from == "avif RGB"
    np.testing.assert_array_equal(decode_stored(found.data), opened(data))


@pytest.mark.parametrize("mode", ["F", "LAB"])
def test_a_tiff_that_is_no_ordinary_photo_is_refused_or_converted(mode: str) -> None:
    data = saved(Image.new(mode, (8, 6)), "TIFF")
    with contextlib.suppress(ImageRefused):
        assert read_photo(data).header == Header("png", 6, 8, 3)


# ---- photos: the EXIF turn


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_turns_are_those_that_pillow_makes(orientation: int) -> None:
    from PIL import ImageOps

    data = saved(RGB, "PNG", exif=exif(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(turned(RGB, orientation), expected)


TURNED: dict[str, Callable[[int], bytes]] = {
    "JPEG": lambda o: saved(RGB, "JPEG", exif=exif(o)),
    "progressive JPEG": lambda o: saved(RGB, "JPEG", exif=exif(o), progressive=True),
    "grey JPEG": lambda o: saved(GREY, "JPEG", exif=exif(o)),
    "PNG": lambda o: saved(RGB, "PNG", exif=exif(o)),
    "grey PNG": lambda o: saved(GREY, "PNG", exif=exif(o)),
    "PNG, chunk behind the pixels": with_orientation_behind_the_pixels,
    "lossless WebP": lambda o: saved(RGB, "WEBP", lossless=True, exif=exif(o)),
}


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("make", TURNED.values(), ids=TURNED)
def test_the_exif_turn_is_applied_once_and_recorded(make: Callable[[int], bytes], orientation: int) -> None:
    data = make(orientation)
    found = read_photo(data)
    wanted = turned(opened(make(1)), orientation)
    np.testing.assert_array_equal(decode_stored(found.data), wanted)
    assert (found.header.height, found.header.width) == wanted.shape[:2]
    assert found.orientation == orientation
    assert (found.reencoded_from or "").endswith(f", EXIF {orientation}")
    assert read_photo(found.data).orientation == 1  # nothing is left to turn twice


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_turn_of_a_tiff_is_applied_once(orientation: int) -> None:
    found = read_photo(saved(photo(48, 64), "TIFF", exif=exif(orientation)))
    wanted = turned(RGB, orientation)
    assert (found.header.height, found.header.width) == wanted.shape[:2]
    np.testing.assert_array_equal(decode_stored(found.data), wanted)
    assert found.orientation == orientation


def test_a_16_bit_photo_is_turned_too() -> None:
    data = saved(GREY.astype(np.uint16) << 8, "PNG", exif=exif(6))
    np.testing.assert_array_equal(decode_stored(read_photo(data).data), turned(GREY, 6))


@pytest.mark.parametrize("data", [b"\xff\xfe\xfd", b"", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff"])
def test_damaged_exif_turns_nothing(data: bytes) -> None:
    photo_bytes = saved(RGB, "JPEG", exif=b"Exif\0\0" + data)
    assert read_photo(photo_bytes).data is photo_bytes


# ---- cut and damaged pictures

JPEGS = {
    "baseline": saved(NOISE, "JPEG"),
    "progressive": saved(NOISE, "JPEG", progressive=True),
    "turned": saved(NOISE, "JPEG", exif=exif(6)),
    "CMYK": saved(Image.fromarray(NOISE).convert("CMYK"), "JPEG"),
}
PNGS = {
    "RGB": saved(NOISE, "PNG"),
    "turned": saved(NOISE, "PNG", exif=exif(6)),
    "RGBA": saved(Image.fromarray(NOISE).convert("RGBA"), "PNG"),
}


@pytest.mark.parametrize("left", [0.02, 0.5, 0.999], ids=["nearly all", "half", "a few bytes"])
@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_a_cut_jpeg_is_refused(data: bytes, left: float) -> None:
    refused(read_photo, data[: int(len(data) * left)], "truncated", "unreadable")


@each_reader
def test_a_jpeg_without_its_end_marker_is_refused(read: Callable[[bytes], Any]) -> None:
    for kind in ("baseline", "progressive"):
        assert "without its end marker" in refused(read, JPEGS[kind][:-2], "truncated")


@each_reader
def test_the_end_marker_of_a_thumbnail_is_not_the_pictures(read: Callable[[bytes], Any]) -> None:
    thumbnail = saved(GREY, "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = JPEGS["baseline"][:2] + segment + JPEGS["baseline"][2:]
    assert read_photo(whole).data is whole
    refused(read, whole[: len(whole) // 2], "truncated")


@each_reader
@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_a_cut_jpeg_with_an_end_marker_put_behind_is_refused(read: Callable[[bytes], Any], kind: str) -> None:
    data = JPEGS[kind]
    message = refused(read, data[: len(data) // 2] + b"\xff\xd9", "damaged")
    assert "libjpeg says: " in message


def test_a_cut_jpeg_of_four_inks_or_with_a_turn_is_refused_too() -> None:
    inks = saved(Image.fromarray(RGB).convert("CMYK"), "JPEG")
    turned_jpeg = saved(RGB, "JPEG", exif=exif(6))
    for data in (inks, turned_jpeg):
        refused(read_photo, data[: len(data) * 9 // 10] + b"\xff\xd9", "damaged", "truncated")


@each_reader
@pytest.mark.parametrize("end", [20, 40, 0.5, -30, -12, -1], ids=str)
def test_a_cut_png_is_refused(read: Callable[[bytes], Any], end: float) -> None:
    data = PNGS["RGB"]
    refused(read, data[: int(end * len(data)) if isinstance(end, float) else end], "truncated", "unreadable")


@pytest.mark.parametrize("data", PNGS.values(), ids=PNGS)
@each_reader
def test_a_png_without_its_end_chunk_is_refused(read: Callable[[bytes], Any], data: bytes) -> None:
    assert data[-8:-4] == b"IEND"
    assert "without its end chunk" in refused(read, data[:-12], "truncated")


@pytest.mark.parametrize("read", [read_photo, check_stored], ids=["photo", "stored"])
def test_a_png_whose_rows_end_early_is_refused_though_every_checksum_fits(read: Callable[[bytes], Any]) -> None:
    refused(read, raw_png(64, 48, 8, 2, [row.tobytes() for row in RGB[:24]]), "damaged", "truncated")


def test_a_label_whose_rows_end_early_is_refused() -> None:
    refused(read_label, raw_png(64, 48, 8, 0, [row.tobytes() for row in IDS[:24]]), "damaged", "truncated")


def test_a_mask_whose_rows_end_early_is_refused() -> None:
    refused(decode_mask, raw_png(64, 48, 8, 0, [row.tobytes() for row in IDS[:24]]), "damaged")


SMALL_PNGS = {"photo": saved(photo(6, 8), "PNG"), "label": saved(ids(6, 8), "PNG"), "stored": saved(photo(6, 8), "PNG")}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(READERS)), st.data())
def test_any_flipped_bit_of_a_png_is_noticed(name: str, draw: st.DataObject) -> None:
    data = bytearray(SMALL_PNGS[name])
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    data[bit // 8] ^= 1 << bit % 8
    refused(READERS[name], bytes(data))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(JPEGS)), st.data())
def test_a_flipped_bit_of_a_jpeg_is_refused_or_leaves_a_picture_of_the_same_size(
    kind: str, draw: st.DataObject
) -> None:
    """In the scan it cannot be told from a picture (there is no checksum); it must not end in anything else."""
    data = bytearray(JPEGS[kind])
    bit = draw.draw(st.integers(0, 8 * len(data) - 1))
    data[bit // 8] ^= 1 << bit % 8
    try:
        found = read_photo(bytes(data))
    except ImageRefused:
        return
    assert decode_stored(found.data).shape[:2] == (found.header.height, found.header.width)


FUZZED = {
    "BMP": saved(photo(6, 8), "BMP"),
    "GIF": saved(Image.fromarray(photo(6, 8)).quantize(8), "GIF"),
    "WebP": saved(photo(6, 8), "WEBP"),
    "PPM": saved(photo(6, 8), "PPM"),
    "JPEG": saved(photo(6, 8), "JPEG", exif=exif(6)),
    "PNG": saved(photo(6, 8), "PNG", exif=exif(6)),
}


def damaged(kind: str, draw: st.DataObject, most: int) -> bytes:
    """A picture of FUZZED, 1 to ``most`` of its bytes changed, cut anywhere."""
    data = bytearray(FUZZED[kind])
    for _ in range(draw.draw(st.integers(1, most))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    return bytes(data[: draw.draw(st.integers(1, len(data)))])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(FUZZED)), st.data())
def test_damaged_bytes_raise_nothing_but_a_refusal(kind: str, draw: st.DataObject) -> None:
    cut = damaged(kind, draw, 6)
    for read in READERS.values():
        with contextlib.suppress(ImageRefused):
            read(cut)


@each_reader
@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    data=st.binary(max_size=80), magic=st.sampled_from([b"", b"\xff\xd8\xff", PNG_MAGIC, b"GIF89a", b"II*\0", b"BM"])
)
def test_any_bytes_raise_nothing_but_a_refusal(read: Callable[[bytes], Any], data: bytes, magic: bytes) -> None:
    refused(read, magic + data)


@needs_avif
@pytest.mark.parametrize("read", [read_photo, read_label], ids=["photo", "label"])
def test_a_damaged_avif_is_refused(read: Callable[[bytes], Any]) -> None:
    data = bytearray(saved(RGB, "AVIF"))
    at = data.index(b"pitm")  # the box that says which item is the picture
    data[at : at + 4] = b"pitn"
    refused(read, bytes(data), "unreadable", "truncated", "damaged")


@pytest.mark.parametrize("read", [read_photo, read_label], ids=["photo", "label"])
def test_a_tiff_whose_pixels_stand_at_a_fraction_is_refused(read: Callable[[bytes], Any]) -> None:
    data = bytearray(saved(GREY, "TIFF"))
    at = data.index(struct.pack("<HH", 273, 4))  # StripOffsets, an integer
    data[at : at + 4] = struct.pack("<HH", 273, 11)  # ... now a float
    refused(read, bytes(data), "unreadable", "truncated", "damaged")


def headless_png() -> bytes:
    """A PNG that starts with another chunk, 9 bytes long and, with its checksum, as good as a header of 8x6 grey."""
    content = struct.pack(">IIB", 8, 6, 8)
    kinds = (b"A" + bytes(letters) for letters in itertools.product(range(65, 91), repeat=3))
    kind = next(kind for kind in kinds if png_chunk(kind, content)[-4] == 0)
    return PNG_MAGIC + png_chunk(kind, content) + saved(ids(6, 8), "PNG")[8:]


@pytest.mark.parametrize("read", [read_label, check_stored, decode_mask])
def test_a_png_that_does_not_start_with_its_header_is_refused(read: Callable[[bytes], Any]) -> None:
    refused(read, headless_png())


def test_a_palette_photo_without_its_palette_is_refused() -> None:
    refused(read_photo, raw_png(64, 48, 8, 3, [row.tobytes() for row in IDS]), "damaged", "unreadable", "truncated")


@each_reader
@pytest.mark.parametrize(
    "data",
    [b"<!DOCTYPE html><html></html>", b"\0" * 500, b"x", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"%PDF-1.7", b"\xff\xd8\xff"],
    ids=["HTML", "zeros", "one byte", "EPS", "PDF", "the start of a JPEG"],
)
def test_what_is_no_picture_is_refused(read: Callable[[bytes], Any], data: bytes) -> None:
    refused(read, data, "unreadable", "truncated")


@pytest.mark.parametrize("kind", ["BMP", "TIFF", "WEBP", "PPM", "GIF"])
@pytest.mark.parametrize("read", [read_photo, read_label], ids=["photo", "label"])
def test_other_pictures_cut_in_half_are_refused(read: Callable[[bytes], Any], kind: str) -> None:
    data = saved(NOISE[:, :, 0], kind)
    refused(read, data[: len(data) // 2], "truncated", "unreadable", "mask-mode")


def test_a_jpeg_without_a_picture_is_refused() -> None:
    refused(read_photo, b"\xff\xd8\xff\xd9", "unreadable")
    refused(check_stored, b"\xff\xd8\xff\xe0\x00\x04ab\xff\xd9", "unreadable")


def test_pillow_is_never_told_to_make_up_the_rest() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


# ---- sizes


def png_header(width: int, height: int) -> bytes:
    """A PNG that says a size and holds no pixels of it: a refusal for its size comes before any decoding."""
    return raw_png(width, height, 8, 2, [b"\0"])


def jpeg_header(width: int, height: int) -> bytes:
    data = bytearray(saved(GREY, "JPEG"))
    at = data.index(b"\xff\xc0\x00\x0b\x08") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


@each_reader
@pytest.mark.parametrize("make", [png_header, jpeg_header], ids=["PNG", "JPEG"])
@pytest.mark.parametrize("side", [60_000, 14_000, 10_000, 9434])
def test_a_header_of_too_many_pixels_is_refused_before_they_are_decoded(
    read: Callable[[bytes], Any], make: Callable[[int, int], bytes], side: int
) -> None:
    refused(read, make(side, side), "too-large")


@each_reader
def test_the_limit_is_the_limit(read: Callable[[bytes], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved(IDS, "PNG")
    monkeypatch.setattr(images, "MAX_PIXELS", 48 * 64)
    read(data)
    monkeypatch.setattr(images, "MAX_PIXELS", 48 * 64 - 1)
    assert "64x48 pixels, expected at most 3,071" in refused(read, data, "too-large")


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 60_000), (60_000, 1), (1, 70_000)])
def test_thin_pictures_are_pictures(height: int, width: int) -> None:
    pixels = np.full((height, width), 7, np.uint8)
    data = encode_png(pixels)
    assert read_photo(data).data is data
    np.testing.assert_array_equal(read_label(data).values, pixels)
    np.testing.assert_array_equal(decode_mask(data), pixels)


# ---- labels

LABELS: dict[str, bytes] = {
    "grey": saved(IDS, "PNG"),
    "palette": palette_png(IDS),
    "16 bits": grey_png(IDS, 16),
    "16 bits by Pillow": saved(IDS.astype(np.uint16), "PNG"),
    "RGB of equal channels": saved(np.dstack([IDS] * 3), "PNG"),
    "BMP": saved(IDS, "BMP"),
    "TIFF": saved(IDS, "TIFF", compression="tiff_deflate"),
    "16-bit TIFF": saved(IDS.astype(np.uint16), "TIFF"),
    "32-bit TIFF": saved(IDS.astype(np.int32), "TIFF"),
    "GIF": saved(Image.fromarray(IDS), "GIF"),
}


@pytest.mark.parametrize("data", LABELS.values(), ids=LABELS)
def test_a_label_is_read_as_its_ids(data: bytes) -> None:
    label = read_label(data)
    np.testing.assert_array_equal(label.values, IDS)
    assert label.values.dtype in (np.uint8, np.uint16)
    assert not label.lossy


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_grey_label_of_any_depth_is_not_stretched(depth: int) -> None:
    values = (np.arange(48 * 64).reshape(48, 64) % min(1 << depth, 300)).astype(np.uint16)
    np.testing.assert_array_equal(read_label(grey_png(values, depth)).values, values)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_palette_label_of_any_depth_keeps_its_indices(depth: int) -> None:
    values = (np.arange(48 * 64).reshape(48, 64) % (1 << depth)).astype(np.uint8)
    bits = np.unpackbits(values[:, :, None], axis=2)[:, :, 8 - depth :].reshape(48, -1)
    colors = png_chunk(b"PLTE", b"".join(bytes([i * 37 % 256, 3, 255 - i]) for i in range(1 << depth)))
    data = raw_png(64, 48, depth, 3, [np.packbits(row).tobytes() for row in bits], before=colors)
    np.testing.assert_array_equal(read_label(data).values, values)


def grey_tiff(values: Pixels, depth: int) -> bytes:
    """A bare TIFF that holds ``values`` in ``depth`` bits, black at 0."""
    height, width = values.shape
    bits = np.unpackbits(values[:, :, None], axis=2)[:, :, 8 - depth :].reshape(height, -1)
    pixels = b"".join(np.packbits(row).tobytes() for row in bits)
    tags = {256: width, 257: height, 258: depth, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    )


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_grey_tiff_label_of_any_depth_is_kept_or_refused(depth: int) -> None:
    values = ids(48, 64, min(1 << depth, 18))
    with contextlib.suppress(ImageRefused):
        np.testing.assert_array_equal(read_label(grey_tiff(values, depth)).values, values)


def test_ids_beyond_255_are_kept() -> None:
    values = IDS.astype(np.uint16) + 1000
    label = read_label(saved(values, "PNG"))
    assert label.values.dtype == np.uint16
    np.testing.assert_array_equal(label.values, values)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_label_saved_as_jpeg_says_so(mode: str) -> None:
    assert read_label(saved(Image.fromarray(IDS).convert(mode), "JPEG")).lossy


def test_a_label_saved_as_jpeg_inside_a_tiff_says_so() -> None:
    assert read_label(saved(IDS, "TIFF", compression="jpeg")).lossy


@pytest.mark.parametrize("kind", ["WEBP", "PPM", pytest.param("AVIF", marks=needs_avif)])
def test_formats_that_change_ids_or_may_do_so_hold_no_labels(kind: str) -> None:
    """WebP and AVIF are lossy unless told otherwise, and Pillow stretches a PGM's values to 0...255."""
    assert "expected PNG" in refused(read_label, saved(IDS, kind), "mask-mode")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (saved(RGB, "PNG"), "a colour picture"),
        (saved(np.dstack([IDS, GREY]), "PNG"), "mode LA"),
        (saved(np.dstack([IDS, IDS, IDS, GREY]), "PNG"), "mode RGBA"),
        (saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"), "mode CMYK"),
        (saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "mode CMYK"),
        (saved(IDS.astype(np.float32), "TIFF"), "mode F"),
        (saved(IDS.astype(np.int32) - 1, "TIFF"), "ids -1 to 16, expected 0 to 65535"),
        (saved(IDS.astype(np.int32) + 65535, "TIFF"), "expected 0 to 65535"),
    ],
    ids=["colours", "grey and alpha", "alpha", "CMYK", "CMYK TIFF", "fractions", "negative", "too large"],
)
def test_what_cannot_be_ids_is_refused(data: bytes, found: str) -> None:
    assert found in refused(read_label, data, "mask-mode")


def test_ids_in_48_bit_colours_are_kept_or_refused() -> None:
    wide = np.dstack([IDS] * 3).astype(np.uint16)
    data = raw_png(64, 48, 16, 2, [row.astype(">u2").tobytes() for row in wide])
    with contextlib.suppress(ImageRefused):
        np.testing.assert_array_equal(read_label(data).values, IDS)


def test_ids_in_a_pgm_of_a_small_maximum_are_kept_or_refused() -> None:
    with contextlib.suppress(ImageRefused):
        np.testing.assert_array_equal(read_label(b"P5\n64 48\n17\n" + IDS.tobytes()).values, IDS)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_label_with_a_turn_of_its_own_is_refused(kind: str, orientation: int) -> None:
    assert "EXIF turn" in refused(read_label, saved(IDS, kind, exif=exif(orientation)), "mask-exif")


def test_an_upright_label_may_say_so() -> None:
    np.testing.assert_array_equal(read_label(saved(IDS, "PNG", exif=exif(1))).values, IDS)


# ---- what is stored

STORED: dict[str, bytes] = {
    "JPEG": saved(RGB, "JPEG"),
    "noisy JPEG": saved(NOISE, "JPEG", quality=60),
    "progressive JPEG": saved(NOISE, "JPEG", progressive=True),
    "JPEG 4:4:4": saved(NOISE, "JPEG", subsampling=0),
    "grey JPEG": saved(GREY, "JPEG"),
    "JPEG with a turn": saved(RGB, "JPEG", exif=exif(6)),
    "JPEG with a thumbnail's profile": saved(RGB, "JPEG", icc_profile=b"x" * 3000),
    "PNG": saved(RGB, "PNG"),
    "PNG with a turn": saved(RGB, "PNG", exif=exif(3)),
    "grey PNG": saved(GREY, "PNG"),
    "16-bit PNG": saved(GREY.astype(np.uint16) * 257, "PNG"),
    "PNG with a gamma": raw_png(
        64, 48, 8, 2, [row.tobytes() for row in RGB], before=png_chunk(b"gAMA", struct.pack(">I", 100_000))
    ),
}


@pytest.mark.parametrize("data", STORED.values(), ids=STORED)
def test_decoding_gives_the_pixels_that_pillow_gives(data: bytes) -> None:
    found = decode_stored(data)
    expected = opened(data)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    assert check_stored(data) == header(data)
    assert (header(data).height, header(data).width) == found.shape[:2]


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (saved(RGB, "JPEG"), Header("jpeg", 48, 64, 3)),
        (saved(GREY, "JPEG", progressive=True), Header("jpeg", 48, 64, 1)),
        (saved(Image.fromarray(RGB).convert("CMYK"), "JPEG"), Header("jpeg", 48, 64, 4)),
        (saved(RGB, "PNG"), Header("png", 48, 64, 3)),
        (grey_png(GREY, 16), Header("png", 48, 64, 1, 16)),
        (grey_png(GREY // 128, 1), Header("png", 48, 64, 1, 1)),
        (palette_png(IDS), Header("png", 48, 64, 1)),
        (saved(np.dstack([RGB, GREY]), "PNG"), Header("png", 48, 64, 4)),
        (saved(np.dstack([GREY, GREY]), "PNG"), Header("png", 48, 64, 2)),
        (saved(RGB, "JPEG", comment=b"\xff\xc0\xff\xd9" * 9), Header("jpeg", 48, 64, 3)),
    ],
)
def test_the_header_says_what_is_in_the_first_bytes(data: bytes, wanted: Header) -> None:
    assert header(data) == wanted


@pytest.mark.parametrize("kind", ["GIF", "BMP", "WEBP", "TIFF"])
def test_nothing_but_jpeg_and_png_is_stored(kind: str) -> None:
    for decode in (header, check_stored, decode_stored, decode_mask, decode_matte, decode_rgb):
        refused(decode, saved(GREY, kind), "unreadable")


@pytest.mark.parametrize("data", [saved(np.dstack([RGB, GREY]), "PNG"), saved(np.dstack([GREY, GREY]), "PNG")])
def test_alpha_is_not_stored(data: bytes) -> None:
    assert "channels, expected grey or RGB" in refused(check_stored, data, "damaged")


def test_a_palette_is_not_stored() -> None:
    refused(check_stored, palette_png(IDS))


def test_a_grey_photo_is_repeated_and_a_16_bit_one_refused() -> None:
    np.testing.assert_array_equal(decode_rgb(saved(GREY, "PNG")), np.dstack([GREY] * 3))
    assert "16 bits" in refused(decode_rgb, grey_png(GREY, 16), "damaged")


# ---- masks and mattes

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=20)


@settings(max_examples=80, deadline=None)
@given(hnp.arrays(np.uint8, SHAPES))
def test_a_mask_comes_back_exactly(mask: Pixels) -> None:
    data = encode_mask(mask)
    np.testing.assert_array_equal(decode_mask(data), mask)
    np.testing.assert_array_equal(opened(data), mask)
    np.testing.assert_array_equal(read_label(data).values, mask)
    assert header(data) == Header("png", *mask.shape, 1)
    assert encode_mask(mask) == data


def test_a_mask_is_a_grey_png_for_every_reader_and_255_stays_255() -> None:
    mask = IDS.copy()
    mask[:5] = 255
    data = encode_mask(mask)
    assert Image.open(io.BytesIO(data)).mode == "L"
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), mask)
    np.testing.assert_array_equal(tensorflow().io.decode_png(data).numpy()[:, :, 0], mask)


@pytest.mark.parametrize(
    "data",
    [
        palette_png(IDS),
        grey_png(IDS, 16),
        grey_png(IDS % 2, 1),
        saved(np.dstack([IDS] * 3), "PNG"),
        saved(np.dstack([IDS, IDS]), "PNG"),
        saved(IDS, "JPEG"),
    ],
    ids=["palette", "16 bits", "1 bit", "RGB", "alpha", "JPEG"],
)
def test_a_stored_mask_is_an_8_bit_grey_png_and_nothing_else(data: bytes) -> None:
    refused(decode_mask, data, "mask-mode")


@pytest.mark.parametrize("depth", [8, 16])
@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_a_matte_comes_back_exactly(depth: int, draw: st.DataObject) -> None:
    steps = draw.draw(hnp.arrays(np.uint16 if depth == 16 else np.uint8, SHAPES))
    matte = steps.astype(np.float32) / np.float32((1 << depth) - 1)
    data = encode_matte(matte, depth)
    assert header(data).depth == depth
    np.testing.assert_array_equal(opened(data), steps)
    back = decode_matte(data)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, matte)
    assert 0 <= back.min() <= back.max() <= 1


@pytest.mark.parametrize(
    "data",
    [saved(RGB, "PNG"), saved(GREY, "JPEG"), palette_png(IDS), grey_png(GREY // 128, 1)],
    ids=["RGB", "JPEG", "palette", "1 bit"],
)
def test_a_stored_matte_is_a_grey_png_of_8_or_16_bits_and_nothing_else(data: bytes) -> None:
    refused(decode_matte, data, "matte-mode")


def test_a_sample_is_its_parts() -> None:
    matte = (GREY.astype(np.float32)) / np.float32(255)
    sample = decode_sample("a", saved(RGB, "PNG"), encode_mask(IDS), encode_matte(matte, 8))
    assert sample.id == "a"
    np.testing.assert_array_equal(sample.image, RGB)
    np.testing.assert_array_equal(sample.mask, IDS)
    np.testing.assert_array_equal(sample.matte, matte)
    alone = decode_sample("a", saved(RGB, "PNG"), None, None)
    assert (alone.mask, alone.matte) == (None, None)
    refused(lambda data: decode_sample("a", saved(RGB, "PNG"), data, None), palette_png(IDS), "mask-mode")


def test_colours_are_rgb_on_the_way_out_too() -> None:
    red = np.zeros((16, 16, 3), np.uint8)
    red[:, :, 0] = 255
    np.testing.assert_array_equal(opened(encode_png(red)), red)
    assert opened(encode_jpeg(red))[8, 8].tolist() == pytest.approx([255, 0, 0], abs=4)


def test_a_jpeg_is_of_the_quality_that_the_index_records() -> None:
    ours = Image.open(io.BytesIO(encode_jpeg(RGB))).quantization
    assert ours == Image.open(io.BytesIO(saved(RGB, "JPEG", quality=images.JPEG_QUALITY))).quantization


def test_what_opencv_cannot_encode_is_refused_and_not_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, np.zeros(0, np.uint8)))
    assert "could not encode a picture of shape (48, 64)" in refused(lambda _: encode_mask(IDS), b"", "encoder")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([np.uint8, np.uint16]), st.data())
def test_values_are_counted(kind: type[np.generic], draw: st.DataObject) -> None:
    values = draw.draw(hnp.arrays(kind, SHAPES))
    found = count_values(values)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, np.bincount(values.ravel(), minlength=256 if kind is np.uint8 else 65536))
    np.testing.assert_array_equal(count_values(values.T), found)
    np.testing.assert_array_equal(count_values(values[::2, ::3]), count_values(values[::2, ::3].copy()))


def test_counts_of_large_masks_are_exact() -> None:
    values = np.zeros((4097, 4096), np.uint8)
    values[0, 0] = 3
    assert count_values(values)[[0, 3]].tolist() == [4097 * 4096 - 1, 1]


# ---- plain TensorFlow reads it


@pytest.mark.parametrize(
    "data",
    [*STORED.values(), *(data for data, _ in OTHERS.values()), *(make(5) for make in TURNED.values())],
    ids=[*STORED, *OTHERS, *(f"turned {name}" for name in TURNED)],
)
def test_what_is_stored_of_a_photo_decodes_with_plain_tensorflow(data: bytes) -> None:
    tf = tensorflow()
    found = read_photo(data)
    decoded = tf.io.decode_image(found.data, expand_animations=False).numpy()
    assert decoded.shape == (found.header.height, found.header.width, found.header.channels)
    if found.header.format == "jpeg":  # its default inverse DCT is the fast one
        decoded = tf.io.decode_jpeg(found.data, dct_method="INTEGER_ACCURATE").numpy()
    ours = decode_stored(found.data)
    np.testing.assert_array_equal(decoded, ours if ours.ndim == 3 else ours[:, :, None])


def test_tensorflow_widens_an_8_bit_matte_exactly() -> None:
    """``features.json`` says 16 bits for mattes of both depths."""
    matte = (np.arange(256, dtype=np.float32) / np.float32(255)).reshape(16, 16)
    wide = tensorflow().io.decode_png(encode_matte(matte, 8), dtype="uint16").numpy()[:, :, 0]
    np.testing.assert_array_equal(wide, np.arange(256).reshape(16, 16) * 257)


def test_the_crc_of_chunks_is_zlibs() -> None:
    """What ``raw_png`` makes is what Pillow makes, so that the tests above test what they say."""
    data = raw_png(64, 48, 8, 2, [row.tobytes() for row in RGB])
    np.testing.assert_array_equal(opened(data), RGB)
    assert struct.unpack(">I", data[-4:])[0] == zlib.crc32(b"IEND")


def test_odd_colour_profiles_leave_no_line_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    data = saved(RGB, "PNG")
    odd = data[:33] + png_chunk(b"iCCP", b"x\0\0junk") + data[33:]
    found = read_photo(odd)
    assert found.data is odd
    np.testing.assert_array_equal(decode_stored(odd), RGB)
    assert capfd.readouterr().err == ""


# ---- photos as pixels


def outcome(read: Callable[[bytes], Any], data: bytes) -> Any:
    """The pixels, or why there are none."""
    try:
        return read(data)
    except ImageRefused as error:
        return (error.reason, error.detail)


def check_read_alike(data: bytes) -> None:
    """``read_rgb`` gives the pixels of ``read_photo``'s picture, or refuses with the same words."""
    expected, found = outcome(lambda data: decode_rgb(read_photo(data).data), data), outcome(read_rgb, data)
    assert isinstance(found, tuple) == isinstance(expected, tuple)
    np.testing.assert_array_equal(found, expected)
    if not isinstance(found, tuple):
        assert found.dtype == np.uint8
        assert found.ndim == 3


ODD = np.random.default_rng(1).integers(0, 256, (33, 49, 3), np.uint8)
ALIKE: dict[str, bytes] = {
    **STORED,
    **LABELS,
    **JPEGS,
    **PNGS,
    **FUZZED,
    **{name: data for name, (data, _) in OTHERS.items()},
    **{f"{name} {turn}": make(turn) for name, make in TURNED.items() for turn in (1, 2, 5, 6)},
    **{
        f"JPEG {ways}": saved(ODD, "JPEG", subsampling=ways, quality=30)
        for ways in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")
    },
    "JPEG of one pixel": saved(ODD[:1, :1], "JPEG"),
    "JPEG in RGB": saved(ODD, "JPEG", keep_rgb=True),
    "JPEG with restarts": saved(ODD, "JPEG", restart_marker_blocks=1),
    "1 bit": grey_png(GREY // 128, 1),
    "grey and alpha": saved(np.dstack([GREY, IDS]), "PNG"),
    "palette with a transparent colour": saved(Image.fromarray(RGB).quantize(8), "PNG", transparency=0),
    "CMYK TIFF": saved(Image.fromarray(RGB).convert("CMYK"), "TIFF"),
    "16-bit TIFF": saved(GREY.astype(np.uint16) * 257, "TIFF"),
    "32 bits": saved(GREY.astype(np.int32), "TIFF"),
    "cut JPEG": JPEGS["baseline"][:-2],
    "cut JPEG with an end": JPEGS["progressive"][:2000] + b"\xff\xd9",
    "cut turned JPEG": JPEGS["turned"][:-2],
    "cut inks": JPEGS["CMYK"][:2000] + b"\xff\xd9",
    "cut PNG": PNGS["RGBA"][:-12],
    "rows that end early": raw_png(64, 48, 8, 2, [row.tobytes() for row in RGB[:24]]),
    "nothing": b"",
    "text": b"no picture",
}


@pytest.mark.parametrize("data", ALIKE.values(), ids=ALIKE)
def test_a_photo_as_pixels_is_the_photo_as_bytes(data: bytes) -> None:
    check_read_alike(data)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(FUZZED)), st.data())
def test_a_damaged_photo_is_the_same_as_pixels_and_as_bytes(kind: str, draw: st.DataObject) -> None:
    check_read_alike(damaged(kind, draw, 4))


@pytest.mark.parametrize("name", [name for name, data in STORED.items() if data[:2] == b"\xff\xd8"])
def test_a_jpeg_has_the_same_pixels_by_the_strict_decoder(name: str) -> None:
    np.testing.assert_array_equal(decode_jpeg_strictly(STORED[name]), decode_rgb(STORED[name]))


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_the_strict_decoder_refuses_what_is_cut_even_with_an_end_put_behind(kind: str) -> None:
    data = JPEGS[kind]
    refused(decode_jpeg_strictly, data[:-2], "truncated")
    assert "libjpeg says: " in refused(decode_jpeg_strictly, data[: len(data) // 2] + b"\xff\xd9", "damaged")
    refused(decode_jpeg_strictly, JPEGS["CMYK"], "damaged")
    refused(decode_jpeg_strictly, jpeg_header(14_000, 14_000), "too-large")
    taller = jpeg_header(64, 56)  # of a picture of 64x48
    refused(decode_jpeg_strictly, taller, "damaged")


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(4))))
def test_a_picture_with_alpha_comes_back_exactly(pixels: Pixels) -> None:
    """Colours under an alpha of 0 too."""
    data = encode_png(pixels)
    assert Image.open(io.BytesIO(data)).mode == "RGBA"
    assert header(data) == Header("png", *pixels.shape)
    np.testing.assert_array_equal(opened(data), pixels)
