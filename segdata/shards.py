"""TFRecord shards: one sample to one Example, and reading them back without TensorFlow.

Keys are DeepLab's and the TF Object Detection API's; ours are ``image/matte/encoded``, ``image/group`` and
``image/original_height``/``_width`` (the photo's size before it was fitted, so that a letterbox can be undone).
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import mmap
from array import array
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import msgspec

from segdata.errors import OptionError, RecordError, SegdataError
from segdata.formats import example, images, tfrecord
from segdata.order import SHARD_ORDER, Order
from segdata.records import (
    Geometry,
    IndexRecord,
    OffsetsRecord,
    Sample,
    SampleLine,
    ShardRecord,
    is_inside,
    read_index,
    unseal,
)

Values = dict[str, example.Value]

IMAGE, MASK, MATTE = "image/encoded", "image/segmentation/class/encoded", "image/matte/encoded"
SOURCE_ID, GROUP, SHA256 = "image/source_id", "image/group", "image/key/sha256"
HEIGHT, WIDTH = "image/height", "image/width"
ORIGINAL_HEIGHT, ORIGINAL_WIDTH = "image/original_height", "image/original_width"

OFFSETS = "offsets"  # the folder of their sidecars
_MAPPED_FILES = 128  # at once: each is a file descriptor
_ALWAYS = {
    IMAGE: "image",
    "image/format": "string",
    "image/filename": "string",
    HEIGHT: "int64",
    WIDTH: "int64",
    "image/channels": "int64",
    SOURCE_ID: "string",
    SHA256: "string",
    GROUP: "string",
    ORIGINAL_HEIGHT: "int64",
    ORIGINAL_WIDTH: "int64",
}


def features(has_mask: bool, has_matte: bool) -> dict[str, str]:
    """Key to kind (image, mask, matte, string, int64) of every feature in a shard; all are there in every record."""
    kinds = dict(_ALWAYS)
    if has_mask:
        kinds |= {MASK: "mask", "image/segmentation/class/format": "string"}
    if has_matte:
        kinds |= {MATTE: "matte"}
    return dict(sorted(kinds.items()))


def encode_sample(
    line: SampleLine, image: bytes, mask: bytes | None, matte: bytes | None, image_sha256: str | None = None
) -> bytes:
    """A serialised Example. ``image`` is JPEG or PNG, ``mask`` and ``matte`` PNG, all of one size.

    ``image/key/sha256`` is of the image bytes in the record; ``image_sha256`` is that where it is known.
    """
    header = images.header(image)
    values: Values = {
        IMAGE: image,
        "image/format": header.format.encode(),
        "image/filename": line.image.rpartition("/")[2].encode(),
        HEIGHT: header.height,
        WIDTH: header.width,
        "image/channels": header.channels,
        SOURCE_ID: line.id.encode(),
        SHA256: (image_sha256 or hashlib.sha256(image).hexdigest()).encode(),
        GROUP: line.group.encode(),
        ORIGINAL_HEIGHT: line.height,
        ORIGINAL_WIDTH: line.width,
    }
    if mask is not None:
        values |= {MASK: mask, "image/segmentation/class/format": b"png"}
    if matte is not None:
        values |= {MATTE: matte}
    return example.encode(values)


def shard_name(name: str, split: str, number: int, total: int) -> str:
    """``NAME-train.tfrecord-00000-of-00016``, as TFDS names shards."""
    return f"{name}-{split}.tfrecord-{number:05d}-of-{total:05d}"


def offsets_name(shard_file: str) -> str:
    """Where the offsets of a shard's records lie: in a folder of their own, under a name that no reader's
    ``*.tfrecord*`` or ``NAME-train*`` finds.
    """
    return f"{OFFSETS}/{shard_file.replace('.tfrecord-', '-')}.json"


def origin(manifest_sha256: str, geometry: Geometry) -> str:
    """The sha256 of what decides the bytes of shards, but for their number, which stands in their names."""
    decisive = {"manifest": manifest_sha256, "geometry": geometry, "jpeg_quality": images.JPEG_QUALITY}
    return hashlib.sha256(msgspec.json.encode(decisive)).hexdigest()


def parse(payload: bytes, where: str, wanted: Container[str] | None = None) -> Values:
    """The features of a record, or the ``wanted``; RecordError, naming ``where``, for bytes that are no Example."""
    return example.decode(payload, where, wanted)


def decode_values(values: Values, where: str) -> Sample:
    """The sample in a record's features, decoded strictly: RecordError for a missing feature, ImageRefused for a
    damaged picture.
    """
    mask, matte = (data(values, key, where) if key in values else None for key in (MASK, MATTE))
    return images.decode_sample(text(values, SOURCE_ID, where), data(values, IMAGE, where), mask, matte)


def decode_sound_values(values: Values, where: str) -> Sample:
    """``decode_values`` without its checks, for records whose checksum is right: a builder decoded them strictly."""
    mask, matte = (data(values, key, where) if key in values else None for key in (MASK, MATTE))
    return images.decode_sound_sample(text(values, SOURCE_ID, where), data(values, IMAGE, where), mask, matte)


def data(values: Values, key: str, where: str) -> bytes:
    """A bytes feature; RecordError where it is not there."""
    value = values.get(key)
    if not isinstance(value, bytes):
        raise RecordError(f"{where}: has no feature {key!r}, expected bytes.")
    return value


def text(values: Values, key: str, where: str) -> str:
    """A string feature; RecordError where it is not there or not UTF-8."""
    try:
        return data(values, key, where).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"{where}: feature {key!r} is not UTF-8.") from error


def number_in(values: Values, key: str, where: str) -> int:
    """An int64 feature; RecordError where it is not there."""
    value = values.get(key)
    if not isinstance(value, int):
        raise RecordError(f"{where}: has no feature {key!r}, expected an integer.")
    return value


class Shards:
    """The records of one split: ``len``, ``shards[i]``, ``shards[2:5]``, iteration in shard order, ``read`` in any.

    ::

        for sample in open_shards("shards/hp", "train"):
            sample.id, sample.image, sample.mask

    Offsets are read from the file beside each shard, when the first record of it is asked for by number; where that is
    not there, its frames are walked once. From then on the shard is mapped into memory, which counts the pages that
    were read as this process's until the system wants them back. Picklable, without those; threads may share it.
    """

    def __init__(self, folder: Path, index: IndexRecord, split: str) -> None:
        self.folder, self.index, self.split = folder, index, split
        self.files = [shard for shard in index.shards if shard.split == split]
        if not self.files:
            known = ", ".join(dict.fromkeys(shard.split for shard in index.shards))
            raise OptionError(f"{folder}: has no split {split!r}, expected one of {known}.")
        self._ends = list(itertools.accumulate(shard.records for shard in self.files))
        self._offsets: dict[int, array[int]] = {}
        self._mapped: dict[int, mmap.mmap] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_mapped": {}}

    def __len__(self) -> int:
        return self._ends[-1]

    def __iter__(self) -> Iterator[Sample]:
        for where, payload in self.payloads():
            yield decode_values(parse(payload, where), where)

    def __getitem__(self, number: int | slice) -> Sample | list[Sample]:
        if isinstance(number, slice):
            return [self.sample(i) for i in range(*number.indices(len(self)))]
        return self.sample(number)

    def read(self, order: Order = SHARD_ORDER) -> Iterator[Sample]:
        """The samples of one epoch, or of a part of it, in that order."""
        return map(self.sample, order.numbers(len(self)).tolist())

    def sample(self, number: int) -> Sample:
        """The sample with record number ``number`` (negative ones count from the end); IndexError beyond the last."""
        payload, where = self.payload(number)
        return decode_values(parse(payload, where), where)

    def payload(self, number: int) -> tuple[bytes, str]:
        """The serialised Example with that record number, and where it stands, for messages."""
        records = self._ends[-1]
        at = number + records if number < 0 else number
        if not 0 <= at < records:
            raise IndexError(f"record {number} of split {self.split!r}, which has {records}")
        shard_number = bisect.bisect_right(self._ends, at)
        shard = self.files[shard_number]
        within = at - self._ends[shard_number] + shard.records
        data = self._mapped.get(shard_number) or self._map(shard_number)
        offsets = self._offsets[shard_number]
        if data.size() != len(data):  # of the file: reading pages that are gone would end the process
            raise RecordError(f"{self.folder / shard.file}: changed its size while it was read. Open it again.")
        try:
            payload = tfrecord.read_record(data, offsets[within], offsets[within + 1], shard.file)
        except RecordError as error:
            raise RecordError(f"{self.folder}: {error} Run `segdata verify {self.folder}`.") from error
        return payload, f"{shard.file} record {within}"

    def _map(self, shard_number: int) -> mmap.mmap:
        """Open a shard for random access: its offsets, and its bytes in place of those of the shard opened first."""
        shard = self.files[shard_number]
        path = self.folder / shard.file
        try:
            if shard_number not in self._offsets:
                self._offsets[shard_number] = read_offsets(self.folder, shard)
            with path.open("rb") as file:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: an empty file
            raise RecordError(f"{path}: cannot be read ({error}). Run `segdata verify {self.folder}`.") from error
        if len(self._mapped) >= _MAPPED_FILES:
            self._mapped.pop(next(iter(self._mapped)), None)
        self._mapped[shard_number] = data
        return data

    def payloads(self) -> Iterator[tuple[str, bytes]]:
        """(where it stands, serialised Example) of every record in order, each checked against its CRCs."""
        for shard in self.files:
            path = self.folder / shard.file
            found = 0
            with path.open("rb") as file:
                for found, record in enumerate(tfrecord.payloads(file, path.stat().st_size, shard.file), 1):
                    if found <= shard.records:
                        yield record
            _check_count(shard, found)


def read_offsets(folder: Path, shard: ShardRecord) -> array[int]:
    """Where each record of a shard begins, in bytes, and last its size: from the file beside it, or where that is
    not there from the shard's headers, each checked against the file's size.

    RecordError where either is damaged or not what the index says.
    """
    name = offsets_name(shard.file)
    path = folder / name
    if not path.is_file():
        return array("Q", [*walk_offsets(folder, shard), shard.bytes])
    try:
        record = unseal(path.read_bytes(), OffsetsRecord, str(path))
    except RecordError as error:
        raise RecordError(f"{path}: is damaged. Run `segdata rebuild {folder}`, which makes it again.") from error
    offsets = array("Q", [*record.offsets, shard.bytes])
    if record.shard != shard or len(record.offsets) != shard.records:
        raise RecordError(f"{path}: is of another shard than {shard.file}. Run `segdata rebuild {folder}`.")
    return offsets


def walk_offsets(folder: Path, shard: ShardRecord) -> list[int]:
    """Where each record of a shard begins, in bytes, from its headers alone. Errors as in ``read_offsets``."""
    path = folder / shard.file
    with path.open("rb") as file:
        found = [offset - tfrecord.HEADER_BYTES for offset, _ in tfrecord.walk(file, path.stat().st_size, shard.file)]
    _check_count(shard, len(found))
    return found


def _check_count(shard: ShardRecord, found: int) -> None:
    if found != shard.records:
        raise RecordError(f"{shard.file}: {found} records, its index says {shard.records}. Run `segdata verify`.")


def picture_size(index: IndexRecord, where: Path) -> tuple[int, int]:
    """(height, width) of all pictures in shards of one size; SegdataError where they differ."""
    if index.geometry.size is None:
        raise SegdataError(
            f"{where}: its shards were built without --size, so pictures differ in size and make no batch. "
            "Run `segdata build-tfrecords` with --size 256."
        )
    return index.geometry.size


def open_shards(folder: str | Path, split: str = "train") -> Shards:
    """The records of one split of a folder that ``build-tfrecords`` made.

    FolderError or RecordError where the folder is unfinished or its index damaged; every shard must be there with
    the recorded size.
    """
    path = Path(folder)
    index = read_index(path)
    check_shard_sizes(path, index)
    return Shards(path, index, split)


def check_split(index: IndexRecord, split: str, where: Path) -> None:
    """OptionError where there is no such split or it is empty."""
    known = list(dict.fromkeys(shard.split for shard in index.shards if shard.records))
    if split not in known:
        raise OptionError(
            f"{where}: has no samples in split {split!r}. Splits that have: {', '.join(known) or 'none'}."
        )


def check_shard_sizes(folder: Path, index: IndexRecord) -> None:
    """Every shard must exist with the recorded number of bytes: cheap, and catches what TensorFlow does not notice.

    RecordError names the first that does not.
    """
    for shard in index.shards:
        path = folder / shard.file
        size = path.stat().st_size if is_inside(shard.file) and path.is_file() else None
        if size != shard.bytes:
            found = "is missing" if size is None else f"has {size} bytes"
            raise RecordError(f"{path}: {found}, the index says {shard.bytes} bytes. Run `segdata verify {folder}`.")
