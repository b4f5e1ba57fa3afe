"""What verify asks of samples and of shards, a chunk or a shard at a time, in the worker processes."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from segdata import sample_files, shards
from segdata.errors import ImageRefused, RecordError, SegdataError
from segdata.formats import images, tfrecord
from segdata.labels import LabelMap
from segdata.records import IndexRecord, OffsetsRecord, SampleLine, ShardRecord, is_inside, read_record_file
from segdata.sample_files import Places

_PIECE_BYTES = 1 << 20


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: the file, the record's number and byte offset or the sample where known, what was found,
    and what was expected where ``what`` does not say it.
    """

    file: str
    what: str
    expected: str | None = None
    sample: str | None = None
    record: int | None = None
    offset: int | None = None


@dataclass(frozen=True)
class SamplesTask:
    """Some sample lines, and where their files lie."""

    lines: Sequence[SampleLine]
    places: Places
    labels: LabelMap | None


def check_samples(task: SamplesTask) -> list[Fault]:
    """What is wrong with the files of a task's samples: bytes, sizes, ids, each picture decoded strictly."""
    images.use_one_thread()
    return [fault for line in task.lines for fault in _check_sample(line, task)]


def _check_sample(line: SampleLine, task: SamplesTask) -> Iterator[Fault]:
    place = task.places[line.dataset]
    steps: list[tuple[str, Callable[[], None]]] = [(line.image, lambda: _check_image(line, place.image(line)))]
    if line.mask is not None:
        mask = line.mask
        steps.append((mask, lambda: _check_mask(line, place.below(line, mask), task.labels)))
    if line.matte is not None:
        matte = line.matte
        steps.append((matte, lambda: _check_matte(line, place.below(line, matte))))
    for file, step in steps:
        try:
            step()
        except ImageRefused as error:
            yield Fault(file=file, sample=line.id, what=error.detail)
        except SegdataError as error:
            yield Fault(file=file, sample=line.id, what=str(error))


def _check_image(line: SampleLine, path: Path) -> None:
    data = sample_files.read_recorded(path, line.image_sha256, line.id)
    found = images.check_stored(data)
    if (found.height, found.width) != (line.height, line.width):
        raise ImageRefused("size-mismatch", f"{found.width}x{found.height}, its line says {line.width}x{line.height}")


def _check_mask(line: SampleLine, path: Path, labels: LabelMap | None) -> None:
    mask = images.decode_mask(sample_files.read_recorded(path, line.mask_sha256, line.id))
    _check_size("mask", mask, line.height, line.width)
    if labels is None:
        raise ImageRefused("mask-ids", "a mask, but dataset.json has no label map")
    counts = _check_ids(mask, labels)
    found = {name: int(counts[i]) for i, name in enumerate(labels.names)}
    if found != line.class_pixels:
        raise ImageRefused("mask-ids", f"pixels by class {found}, its sample line says {line.class_pixels}")


def _check_matte(line: SampleLine, path: Path) -> None:
    matte = images.decode_matte(sample_files.read_recorded(path, line.matte_sha256, line.id))
    _check_size("matte", matte, line.height, line.width)


def _check_size(what: str, pixels: np.ndarray, height: int, width: int) -> None:
    if pixels.shape[:2] != (height, width):
        raise ImageRefused("size-mismatch", f"{what} of {pixels.shape[1]}x{pixels.shape[0]}, expected {width}x{height}")


def _check_ids(mask: images.Pixels, labels: LabelMap) -> np.ndarray:
    counts = images.count_values(mask)
    unnamed = [int(i) for i in np.flatnonzero(counts[:255]) if i >= len(labels.names)]
    if unnamed:
        raise ImageRefused("mask-ids", f"ids {unnamed[:8]}, expected 0 to {len(labels.names) - 1} and 255")
    return counts


# ---- shards
# ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardTask:
    """One shard of a folder."""

    folder: Path
    shard: ShardRecord
    index: IndexRecord


@dataclass
class ShardFound:
    """What a shard holds: the ids of its records in order, the sha256 of its bytes, and what is wrong with it."""

    ids: list[str] = field(default_factory=list)
    sha256: str = ""
    faults: list[Fault] = field(default_factory=list)


def check_shard(task: ShardTask) -> ShardFound:
    """Read a shard once, from its first byte to its last: frames, checksums, every record's features and pictures.

    No length is trusted before it was compared with the file's size. Where frames are damaged, what is behind them is
    searched for whole records too.
    """
    images.use_one_thread()
    found, shard = ShardFound(), task.shard
    path = task.folder / shard.file
    if not is_inside(shard.file) or not path.is_file():
        found.faults.append(Fault(file=shard.file, what="is missing", expected=f"{shard.records} records"))
        return found
    with path.open("rb") as file:
        reader = _Reader(task, file, path.stat().st_size, found)
        reader.read()
    found.faults += _check_whole(task, reader)
    return found


class _Reader:
    """One walk through a shard's bytes: adds ids and faults to ``found``, and keeps where records were."""

    def __init__(self, task: ShardTask, file: BinaryIO, size: int, found: ShardFound) -> None:
        self.task, self.file, self.size, self.found = task, file, size, found
        self.digest = hashlib.sha256()
        self.starts: list[int] = []
        self.crcs: list[int] = []

    def read(self) -> None:
        """From the first byte to the last."""
        at = 0
        while at < self.size:
            end = self._read_record(at)
            if end is None:
                break
            at = end
        while piece := self.file.read(_PIECE_BYTES):
            self.digest.update(piece)
        self.found.sha256 = self.digest.hexdigest()
        if at < self.size:
            self._search_behind(at)

    def _read_record(self, at: int) -> int | None:
        """Where the record that begins at byte ``at`` ends; None where no header there can be trusted."""
        header = self.file.read(tfrecord.HEADER_BYTES)
        self.digest.update(header)
        try:
            length = tfrecord.length_of(header, at, self.size)
        except RecordError as error:
            self._add_fault(len(self.starts), at, str(error))
            return None
        body = self.file.read(length + tfrecord.FOOTER_BYTES)
        self.digest.update(body)
        self._check_record(at, body[:length], body[length:])
        return at + tfrecord.HEADER_BYTES + len(body)

    def _check_record(self, at: int, payload: bytes, footer: bytes) -> None:
        number, crc = len(self.starts), tfrecord.masked_crc(payload)
        self.starts.append(at)
        self.crcs.append(crc)
        if footer != crc.to_bytes(4, "little"):
            stored = int.from_bytes(footer, "little")
            self._add_fault(number, at, f"the checksum of its payload is {crc:08x}", f"{stored:08x}, as stored")
            return
        try:
            self.found.ids.append(_check_payload(payload, self.task.index))
        except ImageRefused as error:
            self._add_fault(number, at, error.detail)
        except RecordError as error:
            self._add_fault(number, at, str(error).removeprefix("record: "))

    def _search_behind(self, at: int) -> None:
        """What is lost behind the damaged header at byte ``at``, and which records behind it are whole."""
        told = at  # up to where losses have been told: a search gives one in pieces
        for item in tfrecord.sound_records(self.file, self.size):
            end = item.offset + item.bytes
            if isinstance(item, tfrecord.Lost):
                if item.offset > told:
                    self._add_fault(len(self.starts), item.offset, f"no record begins here: {item.what}")
                told = max(told, end)
            elif item.offset >= at:
                self.file.seek(item.offset + tfrecord.HEADER_BYTES)
                body = self.file.read(item.bytes - tfrecord.HEADER_BYTES)
                self._check_record(item.offset, body[: -tfrecord.FOOTER_BYTES], body[-tfrecord.FOOTER_BYTES :])

    def _add_fault(self, number: int, at: int, what: str, expected: str | None = None) -> None:
        self.found.faults.append(
            Fault(file=self.task.shard.file, record=number, offset=at, what=what, expected=expected)
        )


def _check_whole(task: ShardTask, reader: _Reader) -> Iterator[Fault]:
    """What is wrong with a shard as a whole, and with the file of its offsets."""
    shard, name = task.shard, shards.offsets_name(task.shard.file)
    is_same = reader.found.sha256 == shard.sha256
    if reader.size != shard.bytes:
        yield Fault(file=shard.file, what=f"has {reader.size} bytes", expected=str(shard.bytes))
    elif not is_same:
        yield Fault(file=shard.file, what=f"changed: sha256 {reader.found.sha256}", expected=shard.sha256)
    if len(reader.starts) != shard.records:
        yield Fault(file=shard.file, what=f"has {len(reader.starts)} records", expected=str(shard.records))
    try:
        offsets = read_record_file(task.folder / name, OffsetsRecord)
    except OSError:
        yield Fault(file=name, what="is missing", expected=f"the offsets of {shard.file}. Run `segdata rebuild`")
        return
    except RecordError as error:
        yield Fault(file=name, what=str(error))
        return
    if offsets.shard != shard:
        yield Fault(file=name, what="is of another shard", expected=f"{shard.file} of sha256 {shard.sha256}")
    elif is_same and (offsets.offsets, offsets.crcs) != (reader.starts, reader.crcs):
        yield Fault(file=name, what="changed", expected=f"offsets and checksums of the records of {shard.file}")
    elif not is_same:
        yield from _moved_records(shard.file, offsets, reader)


def _moved_records(file: str, offsets: OffsetsRecord, reader: _Reader) -> Iterator[Fault]:
    """Which records of a changed shard are others than when it was built, by the checksums of their payloads."""
    told = {fault.offset for fault in reader.found.faults}
    matcher = difflib.SequenceMatcher(None, offsets.crcs, reader.crcs, autojunk=False)
    if not matcher.get_matching_blocks()[0].size:
        return  # nothing of what was built is here, as its sha256 told
    for tag, first, last, here, there in matcher.get_opcodes():
        if tag == "replace" and last - first == there - here:
            for now, crc in zip(range(here, there), offsets.crcs[first:last], strict=True):
                if reader.starts[now] not in told:
                    what = f"is another record: the checksum of its payload is {reader.crcs[now]:08x}"
                    yield Fault(file=file, record=now, offset=reader.starts[now], what=what, expected=f"{crc:08x}")
        elif tag != "equal":
            gone = f"{last - first} records that were built from here on are gone"
            more = f"{there - here} records from here on were not built here"
            if last > first:
                yield Fault(file=file, record=first, offset=offsets.offsets[first], what=gone, expected="them here")
            if there > here and reader.starts[here] not in told:
                yield Fault(file=file, record=here, offset=reader.starts[here], what=more, expected="none of them")


def _check_payload(payload: bytes, index: IndexRecord) -> str:
    """The id of a sound record; ImageRefused or RecordError for any other."""
    values = shards.parse(payload, "record")
    if set(values) != set(index.features):
        odd = sorted(set(values) ^ set(index.features))
        raise RecordError(f"features {odd} are missing or not of the index")
    for key, kind in index.features.items():
        if isinstance(values[key], int) != (kind == "int64"):
            raise RecordError(f"feature {key!r} is {type(values[key]).__name__}, the index says {kind}")
    image = shards.data(values, shards.IMAGE, "record")
    header = images.check_stored(image)
    size = header.height, header.width
    if index.geometry.size not in (None, size):
        raise ImageRefused(
            "size-mismatch", f"image of {_wxh(size)}, the index says {_wxh(index.geometry.size or size)}"
        )
    said = {
        shards.HEIGHT: header.height,
        shards.WIDTH: header.width,
        "image/channels": header.channels,
        "image/format": header.format.encode(),
        shards.SHA256: hashlib.sha256(image).hexdigest().encode(),
    }
    for key, expected in said.items():
        if values[key] != expected:
            raise RecordError(f"feature {key!r} is {values[key]!r}, its image has {expected!r}")
    _check_labels(values, size, index)
    for key in (shards.GROUP, "image/filename"):
        shards.text(values, key, "record")
    return shards.text(values, shards.SOURCE_ID, "record")


def _check_labels(values: shards.Values, size: tuple[int, int], index: IndexRecord) -> None:
    if shards.MASK in index.features:
        mask = images.decode_mask(shards.data(values, shards.MASK, "record"))
        _check_size("mask", mask, *size)
        if index.label_map is not None:
            _check_ids(mask, index.label_map)
        if values["image/segmentation/class/format"] != b"png":
            raise RecordError("feature 'image/segmentation/class/format' is not 'png'")
    if shards.MATTE in index.features:
        _check_size("matte", images.decode_matte(shards.data(values, shards.MATTE, "record")), *size)


def _wxh(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
