"""Pictures, masks and mattes: strict decoding and exact encoding.

Pillow opens what comes from outside (it alone keeps palette indices and says the mode); OpenCV decodes and encodes
in bulk, and its BGR never leaves this file. What is stored is JPEG or 8-bit grey/RGB PNG for photos, 8-bit grey PNG
for masks, 8- or 16-bit grey PNG for mattes, all of which plain TensorFlow decodes.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segdata.errors import ImageRefused
from segdata.records import Sample

Pixels = npt.NDArray[np.uint8]
MAX_PIXELS = 89_000_000  # read from the header, before anything is decoded; just below Pillow's own warning
JPEG_QUALITY = 95

_OTHER_FORMATS = ("AVIF", "BMP", "GIF", "PPM", "TIFF", "WEBP")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_JPEG_MAGIC = b"\xff\xd8\xff"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd9-\xfe])")
_ORIENTATION = 0x0112
_TURNS = {  # EXIF 2.32, tag 274: what brings the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_AFTER_IHDR = len(_PNG_MAGIC) + 25  # a PNG's second chunk starts here
_GREY, _PALETTE = 0, 3  # colour types of PNG
_LABEL_FORMATS = ("BMP", "GIF", "TIFF")  # beside PNG and JPEG; the others stretch or blur what they hold
_TIFF_BITS, _TIFF_COMPRESSION, _LOSSLESS = 258, 259, (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000)
# Run lengths over "same as the row above": 4 times faster than OpenCV's default on label masks, and as small.
_MASK_PNG = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP)


@dataclass(frozen=True)
class Header:
    """What a stored picture's first bytes say: ``format`` is jpeg or png, sizes in pixels, ``depth`` in bits."""

    format: str
    height: int
    width: int
    channels: int
    depth: int = 8


@dataclass(frozen=True)
class Photo:
    """A checked photo, as bytes that plain TensorFlow decodes.

    ``orientation`` is the EXIF turn that was applied (1 for none), ``reencoded_from`` what it was before, where its
    bytes are not the original's.
    """

    data: bytes
    header: Header
    orientation: int = 1
    reencoded_from: str | None = None


@dataclass(frozen=True)
class Label:
    """A raw label: ``values`` (H, W) uint8 or uint16, and whether a lossy format (JPEG) held it.

    ``white`` is the largest value that its depth can hold (1, 3, 15, 255 or 65535). ``palette`` (N, 3) uint8 RGB is
    what the values stand for where they are indices.
    """

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    lossy: bool
    white: int = 255
    palette: Pixels | None = None


def use_one_thread() -> None:
    """Keep OpenCV to one thread, in a process that is one of many."""
    cv2.setNumThreads(1)


# ---- headers -------------------------------------------------------------------------------------------------------


def header(data: bytes) -> Header:
    """The header of JPEG or PNG bytes, by their magic. ImageRefused for anything else."""
    if data.startswith(_JPEG_MAGIC):
        return _jpeg_header(data)[0]
    if data.startswith(_PNG_MAGIC) and len(data) >= 33:
        width, height, depth, color = struct.unpack(">IIBB", data[16:26])
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(color, 0)
        return Header("png", height, width, channels, depth)
    raise ImageRefused("unreadable", f"starts with {data[:8]!r}, which is neither JPEG nor PNG")


def _jpeg_header(data: bytes) -> tuple[Header, int]:
    """Follow a JPEG's segments to its frame header; with the offset where that one ends."""
    at = 2
    try:
        while True:
            match = _JPEG_MARKER.search(data, at)
            if match is None or match[1] == b"\xd9":
                raise ImageRefused("unreadable", "a JPEG without a picture in it")
            at = match.end()
            (length,) = struct.unpack_from(">H", data, at)
            if match[1][0] in _JPEG_FRAMES:
                depth, height, width, channels = struct.unpack_from(">BHHB", data, at + 2)
                return Header("jpeg", height, width, channels, depth), at + length
            at += length
    except struct.error as error:
        raise ImageRefused("truncated", "a JPEG that ends within a segment; it was cut") from error


def _check_jpeg_end(data: bytes) -> None:
    """The end marker must stand behind the frame header (a thumbnail's stands before it). OpenCV would fill up with
    grey.
    """
    if data.rfind(b"\xff\xd9", _jpeg_header(data)[1]) < 0:
        raise ImageRefused("truncated", "a JPEG without its end marker; it was cut")


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, content) of each chunk of a PNG, checked against its CRC, up to the end chunk, which must be there."""
    chunks: list[tuple[bytes, bytes]] = []
    at = len(_PNG_MAGIC)
    while not chunks or chunks[-1][0] != b"IEND":
        if at + 12 > len(data):
            raise ImageRefused("truncated", "a PNG without its end chunk; it was cut")
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > len(data):
            raise ImageRefused("truncated", "a PNG that ends within a chunk; it was cut")
        kind, content = data[at + 4 : at + 8], data[at + 8 : end - 4]
        if zlib.crc32(content, zlib.crc32(kind)) != struct.unpack_from(">I", data, end - 4)[0]:
            raise ImageRefused("damaged", f"the checksum of a PNG's {kind!r} chunk does not match")
        chunks.append((kind, content))
        at = end
    kinds = [kind for kind, _ in chunks]
    if kinds[0] != b"IHDR" or kinds.count(b"IHDR") > 1 or len(chunks[0][1]) != 13:
        raise ImageRefused("unreadable", "a PNG without one header chunk at its start")
    if chunks[0][1][9] == _PALETTE and b"PLTE" not in kinds:
        raise ImageRefused("damaged", "a palette PNG without its palette")
    return chunks


def _png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """The PNG of some chunks: what ``_png_chunks`` takes apart."""
    return b"".join([_PNG_MAGIC, *(_png_chunk(kind, content) for kind, content in chunks)])


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)))


def _check_pixels(height: int, width: int) -> None:
    if height * width > MAX_PIXELS or not height or not width:
        raise ImageRefused("too-large", f"{width}x{height} pixels, expected at most {MAX_PIXELS:,}")


# ---- strict decoding of what segdata stores


def check_stored(data: bytes) -> Header:
    """The header of JPEG or PNG bytes that decode fully and strictly.

    ImageRefused for bytes that are cut, damaged, too large, or not grey or RGB JPEG or PNG.
    """
    found = _check_structure(data)
    # Grey: every coefficient of a JPEG is still read, but colours are not computed, which halves the time.
    flags = cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION if found.format == "jpeg" else cv2.IMREAD_UNCHANGED
    _imdecode(data, flags, found)
    return found


def decode_stored(data: bytes) -> Pixels | npt.NDArray[np.uint16]:
    """JPEG or PNG bytes, decoded: (H, W) or (H, W, 3) RGB, uint8, or uint16 for 16-bit PNG.

    No EXIF turn is applied. Errors as in ``check_stored``.
    """
    pixels = _imdecode(data, cv2.IMREAD_UNCHANGED, _check_structure(data))
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _check_structure(data: bytes) -> Header:
    """The header of bytes that are whole: size within the limit, end marker there, and for PNG every checksum right."""
    found = header(data)
    _check_pixels(found.height, found.width)
    if found.format == "jpeg":
        _check_jpeg_end(data)
    else:
        _png_chunks(data)
    if found.channels not in (1, 3):
        raise ImageRefused("damaged", f"has {found.channels} channels, expected grey or RGB")
    if found.format == "png" and data[25] == _PALETTE:
        raise ImageRefused("damaged", "a palette PNG, which readers take for colours; expected grey or RGB")
    return found


def _imdecode(data: bytes, flags: int, expected: Header) -> Pixels:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageRefused("damaged", f"OpenCV refuses it: {error.err}") from error
    if pixels is None:
        raise ImageRefused("damaged", "it does not decode")
    if pixels.shape[:2] != (expected.height, expected.width):
        says = f"{expected.height}x{expected.width}"
        raise ImageRefused("damaged", f"decodes to {pixels.shape}, its header says (height x width) {says}")
    return pixels  # type: ignore[return-value]


def decode_rgb(data: bytes) -> Pixels:
    """A stored photo as (H, W, 3) uint8 RGB; grey is repeated. Errors as in ``decode_stored``."""
    pixels = decode_stored(data)
    if pixels.dtype != np.uint8:
        raise ImageRefused("damaged", "a photo of 16 bits, expected 8")
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels  # type: ignore[return-value]


def decode_mask(data: bytes) -> Pixels:
    """A stored mask as (H, W) uint8 ids. ImageRefused for anything but an 8-bit grey PNG, palettes included."""
    if header(data).format != "png" or data[24:26] != b"\x08\x00":
        raise ImageRefused("mask-mode", "expected an 8-bit single-channel grey PNG of class ids")
    return decode_stored(data)  # type: ignore[return-value]


def decode_matte(data: bytes) -> npt.NDArray[np.float32]:
    """A stored matte as (H, W) float32 alpha in [0, 1]. ImageRefused for anything but a grey PNG of 8 or 16 bits."""
    if header(data).format != "png" or data[24:26] not in (b"\x08\x00", b"\x10\x00"):
        raise ImageRefused("matte-mode", "expected a grey PNG of 8 or 16 bits")
    values = decode_stored(data)
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


def decode_sample(sample_id: str, image: bytes, mask: bytes | None, matte: bytes | None) -> Sample:
    """A stored sample, each part decoded strictly. Errors as in ``decode_stored``."""
    return Sample(
        sample_id,
        decode_rgb(image),
        None if mask is None else decode_mask(mask),
        None if matte is None else decode_matte(matte),
    )


# ---- reading what comes from outside


def read_photo(data: bytes) -> Photo:
    """Check a photo of any readable format, strictly, and turn it by its EXIF orientation.

    JPEG and 8-bit grey/RGB PNG without a turn keep their bytes. Everything else becomes RGB (or grey) PNG: other
    formats by their first
    frame, CMYK converted, alpha dropped, 16 bits by the high byte. ImageRefused for what does not decode to its end.
    """
    picture = _open(data)
    orientation = _orientation(picture, data)
    if orientation == 1 and _is_stored_as_it_is(picture, data):
        return Photo(data, check_stored(data))
    if data.startswith(_JPEG_MAGIC):
        _check_jpeg_end(data)
    elif data.startswith(_PNG_MAGIC):
        _png_chunks(data)
    turned = encode_png(_turned_pixels(picture, orientation))
    was = f"{(picture.format or '').lower()} {picture.mode}"
    return Photo(turned, header(turned), orientation, was if orientation == 1 else f"{was}, EXIF {orientation}")


def _formats(data: bytes) -> tuple[str, ...]:
    """What Pillow may take the bytes for: by magic, and nothing that runs other programs (EPS) or is no picture."""
    if data.startswith(_JPEG_MAGIC):
        return ("JPEG",)  # MPO too, which starts as one
    if data.startswith(_PNG_MAGIC):
        return ("PNG",)
    Image.init()
    return tuple(name for name in _OTHER_FORMATS if name in Image.OPEN)


def _open(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bombs are judged below; odd EXIF is no reason for a line on stderr
            picture = Image.open(io.BytesIO(data), formats=_formats(data))
    except Image.DecompressionBombError as error:
        raise ImageRefused("too-large", f"by its header, expected at most {MAX_PIXELS:,} pixels") from error
    except Exception as error:  # Pillow's readers fail in every way there is
        raise ImageRefused("unreadable", f"starts with {data[:8]!r}, which is no picture that can be read") from error
    _check_pixels(picture.height, picture.width)
    return picture


def _load(picture: Image.Image) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture.load()
    except Exception as error:  # as above: OSError, SyntaxError, TypeError, RuntimeError, struct.error, zlib.error ...
        raise ImageRefused("truncated", f"does not decode to its end: {error}") from error


def _orientation(picture: Image.Image, data: bytes) -> int:
    """EXIF orientation, 1...8; 1 where there is none or it is no such number."""
    if "exif" not in picture.info and picture.format not in ("TIFF", "PNG"):
        return 1
    if picture.format == "PNG":
        if b"eXIf" not in data and "exif" not in picture.info:
            return 1
        _load(picture)  # the eXIf chunk may stand behind the pixels
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:  # Pillow's EXIF reader fails in many ways on damaged EXIF; the pixels are sound all the same
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _is_stored_as_it_is(picture: Image.Image, data: bytes) -> bool:
    if picture.format == "JPEG":
        return picture.mode in ("L", "RGB")
    return picture.format == "PNG" and data[24:26] in (b"\x08\x00", b"\x08\x02") and "transparency" not in picture.info


def _turned_pixels(picture: Image.Image, orientation: int) -> Pixels:
    _load(picture)
    turn = None if picture.format == "TIFF" else _TURNS.get(orientation)  # Pillow turns a TIFF when it loads it
    upright = picture if turn is None else picture.transpose(turn)
    if upright.mode in ("I;16", "I;16B", "I;16L"):
        return (np.asarray(upright) >> 8).astype(np.uint8)
    if upright.mode in ("F", "I"):
        raise ImageRefused("unreadable", f"a photo of 32 bits a pixel (mode {upright.mode}), expected 8 or 16")
    return np.asarray(upright.convert("L" if upright.mode in ("1", "L", "LA") else "RGB"))


def read_label(data: bytes) -> Label:
    """The ids of a raw label: grey, palette (indices), 1-bit, 16-bit, or RGB with three equal channels.

    ImageRefused for other modes (alpha, colours, CMYK), for other formats than PNG, BMP, GIF, TIFF and JPEG, for one
    with an EXIF turn of its own, and for what does not decode fully.
    """
    if data.startswith(_PNG_MAGIC):
        return _png_label(data)
    picture = _open(data)
    is_jpeg = picture.format in ("JPEG", "MPO")
    if not is_jpeg and picture.format not in _LABEL_FORMATS:
        raise ImageRefused("mask-mode", f"a label saved as {picture.format}, expected PNG (or BMP, GIF, TIFF, JPEG)")
    _refuse_turn(picture, data)
    tags = getattr(picture, "tag_v2", {})
    if tags.get(_TIFF_BITS, (8,))[0] in (2, 4):
        raise ImageRefused("mask-mode", "a TIFF of 2 or 4 bits, whose values readers stretch; save it as PNG")
    if is_jpeg:
        _check_jpeg_end(data)
    _load(picture)
    values = _one_channel(_label_values(picture))
    white = 1 if picture.mode == "1" else int(np.iinfo(values.dtype).max)
    lossy = is_jpeg or tags.get(_TIFF_COMPRESSION, 1) not in _LOSSLESS
    palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3) if picture.mode == "P" else None
    return Label(values, lossy, white, palette)


def _refuse_turn(picture: Image.Image, data: bytes) -> None:
    if _orientation(picture, data) != 1:
        raise ImageRefused("mask-exif", "a label with an EXIF turn of its own. Turn its pixels and save it without")


def _png_label(data: bytes) -> Label:
    """A PNG's stored values: palette indices too, by decoding them as the grey values they are.

    OpenCV, since Pillow fills a label whose rows end early up with 0 and keeps but half of 48-bit colours.
    """
    chunks = _png_chunks(data)
    found = header(data)
    _check_pixels(found.height, found.width)
    if b"eXIf" in data or b"exif" in data:
        _refuse_turn(_open(data), data)
    if found.channels not in (1, 3):
        raise ImageRefused("mask-mode", f"mode {'LA' if found.channels == 2 else 'RGBA'}, expected no alpha")
    head = bytearray(chunks[0][1])
    palette = None
    if head[9] == _PALETTE:
        palette = np.frombuffer(dict(chunks)[b"PLTE"], np.uint8).reshape(-1, 3)
        head[9] = _GREY
    pixels = [(kind, content) for kind, content in chunks if kind in (b"IDAT", b"IEND")]
    values: npt.NDArray[Any] = _imdecode(_png([(b"IHDR", bytes(head)), *pixels]), cv2.IMREAD_UNCHANGED, found)
    white = (1 << found.depth) - 1
    if found.depth < 8:  # OpenCV stretches these to 0...255
        values = values // (255 // white)
    return Label(_one_channel(values), False, white if palette is None else 255, palette)


def _label_values(picture: Image.Image) -> npt.NDArray[Any]:
    values = np.asarray(picture)
    if picture.mode in ("L", "P", "RGB"):
        return values
    if picture.mode == "1":
        return values.astype(np.uint8)
    if picture.mode in ("I", "I;16", "I;16B", "I;16L"):
        if values.min() < 0 or values.max() > 65535:
            raise ImageRefused("mask-mode", f"ids {values.min()} to {values.max()}, expected 0 to 65535")
        return values.astype(np.uint16)
    raise ImageRefused(
        "mask-mode", f"mode {picture.mode}, expected grey, palette, 1-bit, 16-bit or RGB with equal channels"
    )


def _one_channel(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if values.ndim == 2:
        return values
    first = values[:, :, 0]
    if (first == values[:, :, 1]).all() and (first == values[:, :, 2]).all():
        return np.ascontiguousarray(first)
    raise ImageRefused("mask-mode", "RGB with different channels (a colour picture), expected one channel of ids")


# ---- encoding


def encode_mask(mask: Pixels) -> bytes:
    """(H, W) uint8 ids as an 8-bit grey PNG."""
    return _imencode(".png", mask, _MASK_PNG)


def encode_png(pixels: Pixels | npt.NDArray[np.uint16]) -> bytes:
    """(H, W) grey of 8 or 16 bits, or (H, W, 3) uint8 RGB, as PNG."""
    return _imencode(".png", pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), ())


def with_text(png: bytes, text: str) -> bytes:
    """A PNG with a ``Comment`` that viewers show and ``has_text`` finds."""
    chunks = _png_chunks(png)
    return _png([chunks[0], _comment(text), *chunks[1:]])


def has_text(data: bytes, text: str) -> bool:
    """Whether bytes are a PNG that ``with_text`` made with that text."""
    return data.startswith(_PNG_MAGIC) and data.startswith(_png_chunk(*_comment(text)), _AFTER_IHDR)


def _comment(text: str) -> tuple[bytes, bytes]:
    return b"tEXt", b"Comment\0" + text.encode("latin-1")


def encode_matte(matte: npt.NDArray[np.float32], depth: int) -> bytes:
    """(H, W) float32 alpha in [0, 1] as a grey PNG of ``depth`` 8 or 16 bits, rounded to the nearest step."""
    stored = np.uint16 if depth == 16 else np.uint8
    values: npt.NDArray[Any] = np.rint(matte * np.iinfo(stored).max).astype(stored)
    return encode_png(values)


def encode_jpeg(pixels: Pixels) -> bytes:
    """(H, W, 3) uint8 RGB as JPEG of quality 95."""
    return _imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))


def _imencode(suffix: str, pixels: npt.NDArray[Any], options: tuple[int, ...]) -> bytes:
    done, data = cv2.imencode(suffix, pixels, options)
    if not done:  # OpenCV says so in no other way
        raise ImageRefused("encoder", f"OpenCV could not encode a picture of shape {pixels.shape}")
    encoded: bytes = data.tobytes()
    return encoded


def count_values(values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """How many pixels hold each value: (256,) int64, or (65536,) for uint16."""
    if values.dtype == np.uint16:
        return np.bincount(values.ravel(), minlength=65536)
    if values.size < 1 << 24:  # up to here a float32 count is exact, and this is 2.5 times faster
        return cv2.calcHist([values], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    return np.bincount(values.ravel(), minlength=256)
