"""What the tests of floors 0 to 2 are made of: pictures, raw PNG bytes, sample lines, shards written by hand."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segdata import shards
from segdata.formats import coco_masks, images, tfds, tfrecord, videos
from segdata.labels import LabelMap, label_map
from segdata.records import (
    INDEX_JSON,
    Geometry,
    IndexRecord,
    ManifestReference,
    SampleLine,
    ShardRecord,
    seal,
)

Pixels = npt.NDArray[np.uint8]
ORIENTATION = 0x0112
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


def tensorflow() -> Any:
    """TensorFlow, imported where a test needs it, without its lines on stderr."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    import tensorflow

    return tensorflow


def photo(height: int = 24, width: int = 32, seed: int = 0) -> Pixels:
    """(H, W, 3) RGB: a slope in each channel, a bright box in one corner, so that no turn looks like another."""
    rows, columns = np.mgrid[0:height, 0:width]
    slopes = [columns * 200 // width + seed, rows * 200 // height, (rows + columns) * 100 // (height + width)]
    pixels: Pixels = np.stack(slopes, axis=2).astype(np.uint8)
    pixels[: height // 4, : width // 3] = (250, 240, 20)
    return pixels


def ids(height: int = 24, width: int = 32, classes: int = 18) -> Pixels:
    """(H, W) class ids in blocks; every id below ``classes`` is there where the picture is large enough."""
    rows, columns = np.mgrid[0:height, 0:width]
    blocks: Pixels = ((rows * 6 // height * 6 + columns * 6 // width) % classes).astype(np.uint8)
    return blocks


def saved(pixels: npt.NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    """A picture in any of Pillow's formats, as bytes."""
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def opened(data: bytes) -> npt.NDArray[Any]:
    """The pixels that Pillow reads."""
    return np.asarray(Image.open(io.BytesIO(data)))


def frames_of(path: Path) -> list[videos.Frame]:
    with videos.VideoReader(path) as reader:
        return list(reader)


def info_of(path: Path) -> videos.VideoInfo:
    with videos.VideoReader(path) as reader:
        return reader.info


def turned(pixels: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """What EXIF 2.32 (tag 274) says: where the stored row 0 and column 0 belong."""
    return {
        1: lambda p: p,
        2: np.fliplr,
        3: lambda p: np.rot90(p, 2),
        4: np.flipud,
        5: lambda p: np.swapaxes(p, 0, 1),
        6: lambda p: np.rot90(p, -1),
        7: lambda p: np.swapaxes(np.rot90(p, 2), 0, 1),
        8: lambda p: np.rot90(p, 1),
    }[orientation](pixels)


def exif(orientation: int) -> Image.Exif:
    """EXIF data with an orientation and nothing else."""
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(
    width: int, height: int, depth: int, color: int, rows: Sequence[bytes], before: bytes = b"", behind: bytes = b""
) -> bytes:
    """A PNG from packed rows of any depth and colour type; ``before`` and ``behind`` are chunks around the pixels."""
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return b"".join((PNG_MAGIC, header, before, png_chunk(b"IDAT", packed), behind, png_chunk(b"IEND", b"")))


def grey_png(values: npt.NDArray[Any], depth: int) -> bytes:
    """A grey PNG of 1, 2, 4, 8 or 16 bits that holds ``values`` as they are (a width of whole bytes)."""
    height, width = values.shape
    if depth == 16:
        return raw_png(width, height, 16, 0, [row.astype(">u2").tobytes() for row in values])
    bits = np.unpackbits(values.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - depth :].reshape(height, -1)
    return raw_png(width, height, depth, 0, [np.packbits(row).tobytes() for row in bits])


def palette_png(values: Pixels, colors: Sequence[tuple[int, int, int]] = ()) -> bytes:
    """A palette PNG whose indices are ``values``; colours as of Pascal VOC unless given."""
    picture = Image.fromarray(values).copy()
    picture.putpalette([c for color in colors for c in color] or [i * k % 256 for i in range(256) for k in (38, 75, 5)])
    return saved(picture, "PNG")


def decoded_rle(rle: coco_masks.Rle) -> Pixels:
    """(H, W) of 0 and 1."""
    return coco_masks.painted([(rle, 1)], *rle["size"])


def sample_line(sample_id: str = "a", **changes: Any) -> SampleLine:
    """A sample line that is right in itself; fields by name to change it."""
    fields: dict[str, Any] = {
        "id": sample_id,
        "group": sample_id,
        "image": f"photos/{sample_id}.jpg",
        "height": 24,
        "width": 32,
        "image_sha256": hashlib.sha256(sample_id.encode()).hexdigest(),
        "image_bytes": 7,
    }
    return SampleLine(**(fields | changes))


@dataclass(frozen=True)
class Stored:
    """One record of shards made by hand: its line, its pixels, and the bytes in the record."""

    line: SampleLine
    pixels: Pixels
    mask: Pixels | None
    matte: npt.NDArray[np.float32] | None
    payload: bytes


def stored(number: int, with_matte: bool = False, label_ids: int = 2) -> Stored:
    """Sample ``number``: a PNG photo and mask of their own; a 16-bit matte where asked."""
    height, width = 20 + number, 30
    pixels, mask = photo(height, width, number), ids(height, width, label_ids)
    mask[0, :number] = 255
    matte = (np.arange(height * width, dtype=np.float32).reshape(height, width) % 65536) / np.float32(65535)
    line = sample_line(f"Bild_{number}ä", height=height, width=width, group=f"g{number // 2}")
    image, alpha = images.encode_png(pixels), images.encode_matte(matte, 16) if with_matte else None
    payload = shards.encode_sample(line, image, images.encode_mask(mask), alpha)
    return Stored(line, pixels, mask, matte if with_matte else None, payload)


def write_shards(
    folder: Path, splits: Mapping[str, Sequence[Sequence[Stored]]], labels: LabelMap | None = None
) -> IndexRecord:
    """A folder of shards without any job: for each split its shards, each a list of records."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for split, files in splits.items():
        for number, samples in enumerate(files):
            data = b"".join(tfrecord.frame(sample.payload) for sample in samples)
            name = shards.shard_name("people", split, number, len(files))
            (folder / name).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            records.append(
                ShardRecord(file=name, split=split, records=len(samples), bytes=len(data), sha256=digest),
            )
    first = next(sample for files in splits.values() for shard in files for sample in shard)
    index = IndexRecord(
        name="people",
        label_map=labels or label_map("binary", "mask"),
        geometry=Geometry(),
        features=shards.features(first.mask is not None, first.matte is not None),
        manifest=ManifestReference(path=None, sha256="0" * 64),
        options={},
        shards=records,
    )
    for name, data in tfds.sidecar_files(index).items():
        (folder / name).write_bytes(data)
    (folder / INDEX_JSON).write_bytes(seal(index))
    return index
