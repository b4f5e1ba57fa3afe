"""Pictures, masks and mattes: strict decoding and exact encoding.

What is stored is JPEG or 8-bit grey/RGB PNG for photos, 8-bit grey PNG for masks, 8- or 16-bit grey PNG for mattes,
all of which plain TensorFlow decodes. OpenCV decodes and encodes in bulk, and its BGR never leaves this file; it is
loaded in the bodies that need it, for it takes as long to load as 300 photos to copy into a shard.
``raw_pictures`` reads what comes from outside.
"""

from __future__ import annotations

import platform
import re
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg

from segdata.errors import ImageRefused, JobFailed
from segdata.records import Sample

Pixels = npt.NDArray[np.uint8]
MAX_PIXELS = 89_000_000  # read from the header, before anything is decoded; just below Pillow's own warning
JPEG_QUALITY = 95
MAX_JPEG_SIDE = 65_500  # libjpeg's

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
JPEG_MAGIC = b"\xff\xd8\xff"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_MARKER = re.compile(rb"\xff+([\x02-\xcf\xd9-\xfe])")
_AFTER_IHDR = len(PNG_MAGIC) + 25  # a PNG's second chunk starts here
_PALETTE = 3  # a colour type of PNG


@dataclass(frozen=True)
class Header:
    """What a stored picture's first bytes say: ``format`` is jpeg or png, sizes in pixels, ``depth`` in bits."""

    format: str
    height: int
    width: int
    channels: int
    depth: int = 8


def use_one_thread() -> None:
    """Keep OpenCV to one thread, in a process that is one of many."""
    import cv2

    cv2.setNumThreads(1)


def codecs() -> str:
    """Versions of what decodes and encodes: with another one the bytes may be others."""
    import cv2
    import PIL

    return f"OpenCV {cv2.__version__}, Pillow {PIL.__version__}"


def check_codecs(expected: str) -> None:
    """JobFailed where this process, on another machine perhaps, has other codecs than the one that began the work."""
    if codecs() != expected:
        raise JobFailed(
            f"{platform.node()}: this worker has {codecs()}, expected {expected} as where the command was given. "
            "Install the same there."
        )


# ---- headers -------------------------------------------------------------------------------------------------------


def header(data: bytes) -> Header:
    """The header of JPEG or PNG bytes, by their magic. ImageRefused for anything else."""
    if data.startswith(JPEG_MAGIC):
        return _jpeg_header(data)[0]
    if data.startswith(PNG_MAGIC) and len(data) >= 33:
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


def check_jpeg_end(data: bytes) -> None:
    """ImageRefused(``truncated``) for a cut JPEG, which OpenCV would fill up with grey.

    The end marker must stand behind the frame header (a thumbnail's stands before it).
    """
    if data.rfind(b"\xff\xd9", _jpeg_header(data)[1]) < 0:
        raise ImageRefused("truncated", "a JPEG without its end marker; it was cut")


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, content) of each chunk of a PNG, checked against its CRC, up to the end chunk, which must be there."""
    chunks: list[tuple[bytes, bytes]] = []
    at = len(PNG_MAGIC)
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


def bare_png(data: bytes, chunks: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG without what its pixels do not need: libpng complains of odd colour profiles, on stderr and by no name."""
    needed = [(kind, content) for kind, content in chunks if kind[:1].isupper() or kind == b"tRNS"]
    return data if len(needed) == len(chunks) else join_png(needed)


def join_png(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """The PNG of some chunks: what ``png_chunks`` takes apart."""
    return b"".join([PNG_MAGIC, *(_png_chunk(kind, content) for kind, content in chunks)])


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(content)), kind, content, struct.pack(">I", checksum)))


def check_pixels(height: int, width: int) -> None:
    """ImageRefused(``too-large``) above MAX_PIXELS, or for an empty picture; to be asked before anything is decoded."""
    if height * width > MAX_PIXELS or not height or not width:
        raise ImageRefused("too-large", f"{width}x{height} pixels, expected at most {MAX_PIXELS:,}")


# ---- strict decoding of what segdata stores


def check_stored(data: bytes) -> Header:
    """The header of JPEG or PNG bytes that decode fully and strictly.

    ImageRefused for bytes that are cut, damaged, too large, or not grey or RGB JPEG or PNG.
    """
    found, pixels = _check_structure(data)
    if found.format == "jpeg":
        check_jpeg(data, found)
    else:
        imdecode(pixels, found)
    return found


def check_jpeg(data: bytes, expected: Header) -> None:
    """ImageRefused(``damaged``) for a JPEG of which its decoder has anything to say.

    OpenCV and Pillow let libjpeg's warnings pass, so one that was cut and got an end marker has a grey rest with them.
    As grey: every coefficient is still read, but colours are not computed, which halves the time.
    """
    _decode_jpeg(data, "GRAY", expected)


def decode_jpeg_strictly(data: bytes) -> Pixels:
    """A grey or colour JPEG, (H, W, 3) uint8 RGB as stored. ImageRefused as ``check_stored`` and ``check_jpeg``."""
    found, data = _check_structure(data)
    return _decode_jpeg(data, "RGB", found)


def _decode_jpeg(data: bytes, colors: str, expected: Header) -> Pixels:
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, colorspace=colors, strict=True)
    except ValueError as error:
        raise ImageRefused("damaged", f"libjpeg says: {error}") from error
    height, width = pixels.shape[:2]
    if (height, width) != (expected.height, expected.width):
        raise ImageRefused(
            "damaged", f"decodes to {width}x{height}, its header says {expected.width}x{expected.height}"
        )
    return pixels


def decode_stored(data: bytes) -> Pixels | npt.NDArray[np.uint16]:
    """JPEG or PNG bytes, decoded: (H, W) or (H, W, 3) RGB, uint8, or uint16 for 16-bit PNG.

    No EXIF turn is applied. Errors as in ``check_stored``.
    """
    import cv2

    found, data = _check_structure(data)
    pixels = imdecode(data, found)
    return pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]


def _check_structure(data: bytes) -> tuple[Header, bytes]:
    """The header of bytes that are whole, and what of them is to be decoded.

    Whole: size within the limit, end marker there, and for PNG every checksum right.
    """
    found = header(data)
    check_pixels(found.height, found.width)
    if found.format == "jpeg":
        check_jpeg_end(data)
    else:
        data = bare_png(data, png_chunks(data))
    if found.channels not in (1, 3):
        raise ImageRefused("damaged", f"has {found.channels} channels, expected grey or RGB")
    if found.format == "png" and data[25] == _PALETTE:
        raise ImageRefused("damaged", "a palette PNG, which readers take for colours; expected grey or RGB")
    return found, data


def imdecode(data: bytes, expected: Header) -> Pixels:
    """OpenCV's pixels (BGR), as stored. ImageRefused(``damaged``) for nothing, or another size than ``expected``."""
    pixels = _imdecode(data)
    if pixels.shape[:2] != (expected.height, expected.width):
        says = f"{expected.height}x{expected.width}"
        raise ImageRefused("damaged", f"decodes to {pixels.shape}, its header says (height x width) {says}")
    return pixels


def _imdecode(data: bytes) -> Pixels:
    import cv2

    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise ImageRefused("damaged", f"OpenCV refuses it: {error.err}") from error
    if pixels is None:
        raise ImageRefused("damaged", "it does not decode")
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
    return _to_alpha(decode_stored(data))


def decode_sample(sample_id: str, image: bytes, mask: bytes | None, matte: bytes | None) -> Sample:
    """A stored sample, each part decoded strictly. Errors as in ``decode_stored``."""
    return Sample(
        sample_id,
        decode_rgb(image),
        None if mask is None else decode_mask(mask),
        None if matte is None else decode_matte(matte),
    )


def decode_sound_sample(sample_id: str, image: bytes, mask: bytes | None, matte: bytes | None) -> Sample:
    """``decode_sample`` of bytes that it took before, without its checks: the same pixels in two thirds of the time.

    ImageRefused where they do not decode at all.
    """
    return Sample(
        sample_id,
        _decode_sound_rgb(image),
        None if mask is None else _imdecode(mask),
        None if matte is None else _to_alpha(_imdecode(matte)),
    )


def _decode_sound_rgb(data: bytes) -> Pixels:
    if not data.startswith(JPEG_MAGIC):
        return decode_rgb(data)
    try:
        return simplejpeg.decode_jpeg(data)  # type: ignore[no-any-return]
    except ValueError as error:
        raise ImageRefused("damaged", f"libjpeg says: {error}") from error


def _to_alpha(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return values.astype(np.float32) / np.float32(np.iinfo(values.dtype).max)


# ---- encoding


def encode_mask(mask: Pixels) -> bytes:
    """(H, W) uint8 ids as an 8-bit grey PNG."""
    import cv2

    # Run lengths over "same as the row above": 4 times faster than OpenCV's default on label masks, and as small.
    strategy = (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE)
    return _imencode(".png", mask, (*strategy, cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP))


def encode_png(pixels: Pixels | npt.NDArray[np.uint16]) -> bytes:
    """(H, W) grey of 8 or 16 bits, (H, W, 3) uint8 RGB or (H, W, 4) uint8 RGBA, as PNG."""
    import cv2

    if pixels.ndim == 2:
        return _imencode(".png", pixels, ())
    order = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
    return _imencode(".png", cv2.cvtColor(pixels, order), ())


def with_text(png: bytes, text: str) -> bytes:
    """A PNG with a ``Comment`` that viewers show and ``has_text`` finds."""
    chunks = png_chunks(png)
    return join_png([chunks[0], _comment(text), *chunks[1:]])


def has_text(data: bytes, text: str) -> bool:
    """Whether bytes are a PNG that ``with_text`` made with that text."""
    return data.startswith(PNG_MAGIC) and data.startswith(_png_chunk(*_comment(text)), _AFTER_IHDR)


def _comment(text: str) -> tuple[bytes, bytes]:
    return b"tEXt", b"Comment\0" + text.encode("latin-1")


def encode_matte(matte: npt.NDArray[np.float32], depth: int) -> bytes:
    """(H, W) float32 alpha in [0, 1] as a grey PNG of ``depth`` 8 or 16 bits, rounded to the nearest step."""
    stored = np.uint16 if depth == 16 else np.uint8
    values: npt.NDArray[Any] = np.rint(matte * np.iinfo(stored).max).astype(stored)
    return encode_png(values)


def encode_jpeg(pixels: Pixels) -> bytes:
    """(H, W) grey or (H, W, 3) RGB, uint8, as JPEG of quality 95."""
    import cv2

    if max(pixels.shape[:2]) > MAX_JPEG_SIDE:  # OpenCV would say so on stderr
        height, width = pixels.shape[:2]
        raise ImageRefused("encoder", f"{width}x{height} pixels, and JPEG has at most {MAX_JPEG_SIDE:,} a side")
    turned = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return _imencode(".jpg", turned, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))


def _imencode(suffix: str, pixels: npt.NDArray[Any], options: tuple[int, ...]) -> bytes:
    import cv2

    done, data = cv2.imencode(suffix, pixels, options)
    if not done:  # OpenCV says so in no other way
        raise ImageRefused("encoder", f"OpenCV could not encode a picture of shape {pixels.shape}")
    encoded: bytes = data.tobytes()
    return encoded


def count_values(values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """How many pixels hold each value: (256,) int64, or (65536,) for uint16."""
    import cv2

    if values.dtype == np.uint16:
        return np.bincount(values.ravel(), minlength=65536)
    if values.size < 1 << 24:  # up to here a float32 count is exact, and this is 2.5 times faster
        return cv2.calcHist([values], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    return np.bincount(values.ravel(), minlength=256)
