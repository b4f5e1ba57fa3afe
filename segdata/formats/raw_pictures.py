"""Pictures, masks and mattes as they come from outside: strict decoding of any readable format.

Pillow opens them (it alone keeps palette indices and says the mode); nothing is guessed: what is ambiguous is refused.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segdata.errors import ImageRefused
from segdata.formats.images import (
    JPEG_MAGIC,
    MAX_PIXELS,
    PNG_MAGIC,
    Header,
    Pixels,
    bare_png,
    check_jpeg,
    check_jpeg_end,
    check_pixels,
    check_stored,
    count_values,
    decode_jpeg_strictly,
    decode_rgb,
    encode_png,
    header,
    imdecode,
    join_png,
    png_chunks,
)

_OTHER_FORMATS = ("AVIF", "BMP", "GIF", "PPM", "TIFF", "WEBP")
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
_LABEL_FORMATS = ("BMP", "GIF", "TIFF")  # beside PNG and JPEG; the others stretch or blur what they hold
_TIFF_BITS, _TIFF_COMPRESSION, _LOSSLESS = 258, 259, (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000)
_GREY, _PALETTE = 0, 3  # colour types of PNG


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
    _check_whole(data)
    turned = encode_png(_turned_pixels(picture, orientation))
    was = f"{(picture.format or '').lower()} {picture.mode}"
    return Photo(turned, header(turned), orientation, was if orientation == 1 else f"{was}, EXIF {orientation}")


@contextmanager
def pillow_held_back() -> Iterator[None]:
    """What Pillow warns of is not shown while the block's threads read photos.

    ``warnings.catch_warnings`` is of the whole process: threads that leave it in another order than they came leave it
    as it was for one of them. After this block all is as it was before.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def read_rgb(data: bytes) -> Pixels:
    """A photo of any readable format as (H, W, 3) uint8 RGB, upright: the pixels that ``read_photo`` makes, without its
    PNG between. ImageRefused as there.
    """
    picture = _open(data)
    orientation = _orientation(picture, data)
    if orientation == 1 and _is_stored_as_it_is(picture, data):
        return decode_jpeg_strictly(data) if picture.format == "JPEG" else decode_rgb(data)
    _check_whole(data)
    pixels = _turned_pixels(picture, orientation)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, :, None], 3, axis=2)


def _check_whole(data: bytes) -> None:
    """ImageRefused where Pillow would load a picture of which a part is missing."""
    if data.startswith(JPEG_MAGIC):
        check_jpeg_end(data)
        check_jpeg(data, header(data))
    elif data.startswith(PNG_MAGIC):
        png_chunks(data)


def _formats(data: bytes) -> tuple[str, ...]:
    """What Pillow may take the bytes for: by magic, and nothing that runs other programs (EPS) or is no picture."""
    if data.startswith(JPEG_MAGIC):
        return ("JPEG",)  # MPO too, which starts as one
    if data.startswith(PNG_MAGIC):
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
    check_pixels(picture.height, picture.width)
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
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
    if data.startswith(PNG_MAGIC):
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
        check_jpeg_end(data)
        check_jpeg(data, header(data))
    _load(picture)
    values = _one_channel(_label_values(picture))
    white = 1 if picture.mode == "1" else int(np.iinfo(values.dtype).max)
    lossy = is_jpeg or tags.get(_TIFF_COMPRESSION, 1) not in _LOSSLESS
    palette = np.array(picture.getpalette("RGB"), np.uint8).reshape(-1, 3) if picture.mode == "P" else None
    return Label(values, lossy, white, palette)


def read_ids(data: bytes) -> npt.NDArray[Any]:
    """The (H, W) ids of a raw label. ImageRefused as in ``read_label``, and for one that was saved lossily."""
    return lossless(read_label(data))


def lossless(label: Label) -> npt.NDArray[Any]:
    """The (H, W) ids of a label that was not saved lossily; ImageRefused(``lossy-mask``) otherwise."""
    if label.lossy:
        raise ImageRefused("lossy-mask", "ids saved as JPEG cannot be restored; use lossless labels, such as PNG")
    return label.values


def _refuse_turn(picture: Image.Image, data: bytes) -> None:
    if _orientation(picture, data) != 1:
        raise ImageRefused("mask-exif", "a label with an EXIF turn of its own. Turn its pixels and save it without")


def _png_header(data: bytes) -> tuple[Header, list[tuple[bytes, bytes]]]:
    """The header and the chunks of a label's PNG, which must be whole and have no turn of its own."""
    chunks = png_chunks(data)
    found = header(data)
    check_pixels(found.height, found.width)
    if b"eXIf" in data or b"exif" in data:
        _refuse_turn(_open(data), data)
    return found, chunks


def _png_label(data: bytes) -> Label:
    """A PNG's stored values: palette indices too, by decoding them as the grey values they are.

    OpenCV, since Pillow fills a label whose rows end early up with 0 and keeps but half of 48-bit colours.
    """
    found, chunks = _png_header(data)
    if found.channels not in (1, 3):
        raise ImageRefused("mask-mode", f"mode {'LA' if found.channels == 2 else 'RGBA'}, expected no alpha")
    head = bytearray(chunks[0][1])
    palette = None
    if head[9] == _PALETTE:
        palette = np.frombuffer(dict(chunks)[b"PLTE"], np.uint8).reshape(-1, 3)
        head[9] = _GREY
    pixels = [(kind, content) for kind, content in chunks if kind in (b"IDAT", b"IEND")]
    values: npt.NDArray[Any] = imdecode(join_png([(b"IHDR", bytes(head)), *pixels]), found)
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


def alpha_values(label: Label) -> npt.NDArray[Any]:
    """(H, W) uint8 or uint16 alpha up to its type's maximum; ImageRefused for indices into a palette."""
    if label.palette is not None:
        raise ImageRefused("matte-mode", "a palette picture, whose values are no alpha; save it as grey")
    highest = int(label.values.max())
    if label.white >= 255 and 0 < highest <= 3:
        raise ImageRefused("matte-mode", f"values up to {highest} of {label.white}: ids, or nearly nothing; no alpha")
    return label.values * (255 // label.white) if label.white < 255 else label.values


def binary_ids(label: Label, threshold: int | None) -> Pixels:
    """(H, W) uint8 of 0 and 1: ``value >= threshold``, or without one exactly two values: 0 and 1, or 0 and 255.

    In 16 bits 65535 is as good as 255. A mask of less than 8 bits, or of palette indices, needs no threshold.
    ImageRefused(``not-binary``) with the values found for anything else, for a palette whose index 0 is the bright
    one, and where a threshold would empty a mask of 0 and 1.
    """
    found = np.flatnonzero(count_values(label.values)).tolist()
    if label.palette is not None and len(label.palette) > 1 and found and max(found) == 1:
        dark, bright = label.palette[:2].astype(int).sum(axis=1)
        if dark > bright:
            raise ImageRefused("not-binary", "a palette whose index 0 is brighter than index 1; save the mask as grey")
    if threshold is not None and label.palette is None and label.white >= 255:
        if 0 < max(found) < threshold and not label.lossy:
            raise ImageRefused("not-binary", f"values up to {max(found)}, all below --threshold {threshold}; lower it")
        cut: Pixels = (label.values >= threshold).astype(np.uint8)
        return cut
    if set(found) <= {0, 1} and not (label.lossy and found != [0]):
        return label.values.astype(np.uint8)
    if set(found) <= {0, 255} or set(found) <= {0, 65535}:
        white: Pixels = (label.values > 0).astype(np.uint8)
        return white
    shown = ", ".join(map(str, found[:6])) + (", ..." if len(found) > 6 else "")
    why = "was saved lossily" if label.lossy or len(found) > 8 else "is not binary"
    raise ImageRefused(
        "not-binary",
        f"{len(found)} values ({shown}), expected 0 and 1 or 0 and 255; the mask {why}. "
        "With `convert pairs` --threshold 128 cuts it, and --kind index takes ids",
    )


def read_alpha(data: bytes) -> npt.NDArray[Any]:
    """(H, W) uint8 or uint16: the alpha channel of a PNG, or the values of a grey picture that has none.

    ImageRefused(``matte-mode``) for one that is grey and opaque everywhere, where either could be the matte; as
    ``read_label`` for colours without alpha.
    """
    if not data.startswith(PNG_MAGIC) or header(data).channels not in (2, 4):
        return alpha_values(read_label(data))
    found, chunks = _png_header(data)
    pixels: npt.NDArray[Any] = imdecode(bare_png(data, chunks), found)
    alpha = np.ascontiguousarray(pixels[:, :, 3])  # OpenCV makes four channels of grey with alpha
    is_grey = (pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 0] == pixels[:, :, 2]).all()
    if is_grey and alpha.min() == np.iinfo(alpha.dtype).max:
        raise ImageRefused("matte-mode", "grey, with an alpha that is opaque everywhere; save the matte without it")
    return alpha


def cut_alpha(alpha: npt.NDArray[Any], threshold: float | None) -> npt.NDArray[Any]:
    """(H, W) uint8 of 0 and 1: where alpha, as a share of its type's maximum, is at least ``threshold``.

    Alpha as it is for None.
    """
    if threshold is None:
        return alpha
    cut: Pixels = (alpha >= threshold * np.iinfo(alpha.dtype).max).astype(np.uint8)
    return cut
