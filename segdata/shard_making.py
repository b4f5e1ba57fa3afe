"""Shards in the making: which records stand in which shard, and one shard's bytes. What build and rebuild share.

The bytes of a shard depend on the manifest, the geometry and the number of shards alone.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from segdata import sample_files, shards, splits
from segdata.errors import ImageRefused, JobFailed, RecordError
from segdata.formats import files, images, tfrecord
from segdata.formats.folders import check_run
from segdata.records import (
    FileRecord,
    Geometry,
    OffsetsRecord,
    SampleLine,
    ShardRecord,
    read_record_file,
    seal,
)
from segdata.sample_files import Places
from segdata.transforms.resize import Resize


@dataclass(frozen=True)
class RecordOrder:
    """The records of a split in their order: where each one's sample line begins in ``file``, in bytes.

    ``stored_bytes`` are those of all photos, masks and mattes.
    """

    file: Path
    offsets: npt.NDArray[np.uint64]
    stored_bytes: int


@dataclass(frozen=True)
class ShardTask:
    """One shard to make: the sample lines at ``offsets`` of ``lines``, as records of ``out / file``.

    ``made_from`` is what ``shards.origin`` gives, ``codecs`` what encodes (empty where nothing is). With ``reuse`` a
    finished shard that still has its sha256 is left as it is; with ``expected`` only a shard of these very bytes takes
    the place of what is there; of a folder in the making, ``run`` is whose it is.
    """

    lines: Path
    offsets: npt.NDArray[np.uint64]
    places: Places
    out: Path
    file: str
    split: str
    geometry: Geometry
    check: str
    made_from: str
    codecs: str = ""
    run: str = ""
    reuse: bool = False
    expected: ShardRecord | None = None


@dataclass(frozen=True)
class Made:
    """A finished shard, and whether it was there already."""

    shard: ShardRecord
    is_reused: bool = False


class _Line(msgspec.Struct, gc=False):
    """What of a sample line decides where its record goes, and how much it takes."""

    id: str
    image_bytes: int
    mask_bytes: int = 0
    matte_bytes: int = 0


def record_order(manifest: Path, recorded: FileRecord) -> RecordOrder:
    """The records of one split of a manifest, by hashed id. RecordError where its file is not the recorded one."""
    path = manifest / recorded.file
    if not path.is_file() or files.sha256_file(path) != recorded.sha256:
        raise RecordError(
            f"{path}: is missing or was edited; its sha256 is not the manifest's. Run `segdata split` again."
        )
    keys, offsets = bytearray(), array("Q")  # 24 bytes for each of what may be millions
    at = stored_bytes = 0
    decoder = msgspec.json.Decoder(_Line)
    with path.open("rb") as lines:
        for data in lines:
            try:
                line = decoder.decode(data)
            except msgspec.DecodeError as error:
                raise RecordError(f"{path}: {error}.") from error
            keys += splits.order_key(line.id)[:16]
            offsets.append(at)
            stored_bytes += line.image_bytes + line.mask_bytes + line.matte_bytes
            at += len(data)
    columns = np.frombuffer(keys, ">u8").reshape(-1, 2).astype(np.uint64)
    order = np.lexsort((columns[:, 1], columns[:, 0]))
    return RecordOrder(path, np.frombuffer(offsets, np.uint64)[order], stored_bytes)


def runs(order: RecordOrder, count: int) -> Iterator[npt.NDArray[np.uint64]]:
    """The offsets of each of ``count`` shards: runs whose lengths differ by one at most."""
    total = len(order.offsets)
    for number in range(count):
        yield order.offsets[number * total // count : (number + 1) * total // count]


# ---- in the worker processes -----------------------------------------------------------------------------------------


def make_shard(task: ShardTask) -> Made:
    """Write one shard and its offsets, each by a temporary name, a flush to disk and a rename.

    JobFailed, naming the file, where a photo or mask changed since convert, or the bytes are not the expected ones;
    where another run has taken the folder over; and for a worker whose codecs are not those of the others.
    """
    if task.codecs:
        images.check_codecs(task.codecs)
    if task.geometry.size is not None or task.check == "decode":
        images.use_one_thread()
    found = _reusable(task) if task.reuse else None
    if found is not None:
        return Made(found, is_reused=True)
    digest, size = hashlib.sha256(), 0
    starts, crcs = list[int](), list[int]()
    with files.atomic_file(task.out / task.file) as file:
        for payload in payloads(task):
            crc = tfrecord.masked_crc(payload)
            starts.append(size)
            crcs.append(crc)
            for part in tfrecord.framed(payload, crc):
                file.write(part)
                digest.update(part)
                size += len(part)
        shard = ShardRecord(
            file=task.file, split=task.split, records=len(task.offsets), bytes=size, sha256=digest.hexdigest()
        )
        _check_expected(task, shard)
        if task.run:
            check_run(task.out, task.run)
    offsets = OffsetsRecord(shard=shard, made_from=task.made_from, offsets=starts, crcs=crcs)
    files.write_atomic(task.out / shards.offsets_name(task.file), seal(offsets))
    return Made(shard)


def _reusable(task: ShardTask) -> ShardRecord | None:
    """The shard that an earlier run finished, where every byte of it is still as recorded."""
    try:
        found = read_record_file(task.out / shards.offsets_name(task.file), OffsetsRecord)
        path, shard = task.out / task.file, found.shard
        same = (found.made_from, shard.file, shard.records) == (task.made_from, task.file, len(task.offsets))
        is_whole = same and path.stat().st_size == shard.bytes and files.sha256_file(path) == shard.sha256
    except (OSError, RecordError):  # a disk that cannot read it back among them
        return None
    return shard if is_whole else None


def _check_expected(task: ShardTask, shard: ShardRecord) -> None:
    if task.expected is not None and shard != task.expected:
        raise JobFailed(
            f"{task.out / task.file}: would get sha256 {shard.sha256}, its index says {task.expected.sha256}; it was "
            "left as it is. Another version of OpenCV encodes otherwise: build the folder again with --overwrite."
        )


def payloads(task: ShardTask) -> Iterator[bytes]:
    """The serialised Example of each of a task's records, in order."""
    resize = Resize(task.geometry)
    decoder = msgspec.json.Decoder(SampleLine)
    with task.lines.open("rb") as lines:
        for offset in task.offsets.tolist():
            lines.seek(offset)
            try:
                line = decoder.decode(lines.readline())
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise RecordError(f"{task.lines} at byte {offset}: {error}.") from error
            yield _payload(line, task, resize)


def _payload(line: SampleLine, task: ShardTask, resize: Resize) -> bytes:
    try:
        image, mask, matte = sample_files.read_encoded(line, task.places)
        if task.geometry.size is not None:
            return shards.encode_sample(line, *_resized(line.id, image, mask, matte, resize))
        if task.check == "decode":
            for data in (image, mask, matte):
                if data is not None:
                    images.check_stored(data)
    except ImageRefused as error:
        raise JobFailed(f"{error.detail}. Convert its dataset again; nothing was put in its place.") from error
    return shards.encode_sample(line, image, mask, matte, line.image_sha256)  # as read_encoded found it to be


def _resized(
    sample_id: str, image: bytes, mask: bytes | None, matte: bytes | None, resize: Resize
) -> tuple[bytes, bytes | None, bytes | None]:
    """The sample at the geometry's size, encoded: JPEG 95 for the image, PNG for mask and matte (at the depth it
    had).
    """
    fitted = resize(images.decode_sample(sample_id, image, mask, matte))
    mask = None if fitted.mask is None else images.encode_mask(fitted.mask)
    if fitted.matte is not None and matte is not None:
        matte = images.encode_matte(fitted.matte, images.header(matte).depth)
    return images.encode_jpeg(fitted.image), mask, matte
