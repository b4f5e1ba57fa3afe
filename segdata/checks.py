"""What verify asks of samples and of shards, a chunk or a shard at a time, in the worker processes."""

from __future__ import annotations

import bisect
import hashlib
import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np

from segdata import sample_files, shards
from segdata.errors import ImageRefused, RecordError, SegdataError
from segdata.formats import example, files, images, tfrecord
from segdata.labels import LabelMap
from segdata.records import (
    INDEX_JSON,
    SPLITS,
    IndexRecord,
    OffsetsRecord,
    SampleLine,
    ShardRecord,
    is_inside,
    read_record_file,
)
from segdata.sample_files import Places
from segdata.transforms.resize import Resize

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
    found = _check_photo(data)
    if (found.height, found.width) != (line.height, line.width):
        raise ImageRefused("size-mismatch", f"{found.width}x{found.height}, its line says {line.width}x{line.height}")


def _check_photo(data: bytes) -> images.Header:
    """Its header; ImageRefused for one that readers of shards would refuse."""
    found = images.check_stored(data)
    if found.depth != 8:
        raise ImageRefused("damaged", f"a photo of {found.depth} bits, expected 8")
    return found


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


# ---- shards ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ShardCheck:
    """One shard of a folder."""

    folder: Path
    shard: ShardRecord
    index: IndexRecord


@dataclass
class ShardFound:
    """What a shard holds: for each record its first byte, its id (None where it is not sound) and its ``fingerprint``;
    the sha256 of all bytes; and what is wrong with it.
    """

    starts: array[int] = field(default_factory=lambda: array("Q"))
    ids: list[str | None] = field(default_factory=list)
    fingerprints: list[bytes] = field(default_factory=list)
    sha256: str = ""
    faults: list[Fault] = field(default_factory=list)


def check_index(index: IndexRecord) -> Iterator[Fault]:
    """What no index that ``build-tfrecords`` wrote would say: nothing in such a folder can be trusted."""
    expected = []
    for split in SPLITS:
        counts = [shard.records for shard in index.shards if shard.split == split]
        total, count = sum(counts), len(counts)
        for number in range(count):
            records = (number + 1) * total // count - number * total // count  # as in shard_making.runs
            expected.append((shards.shard_name(index.name, split, number, count), split, records))
    found = [(shard.file, shard.split, shard.records) for shard in index.shards]
    for shard, wanted in zip(found, expected, strict=False):
        if shard != wanted or not is_inside(shard[0]) or "/" in shard[0]:
            yield Fault(file=INDEX_JSON, what=f"names {_named(*shard)}", expected=f"the file {_named(*wanted)}")
            return
    if len(found) != len(expected) or not found:
        what = f"names {len(found)} shards, {len(expected)} of them of known splits"
        yield Fault(file=INDEX_JSON, what=what, expected=f"some, all of {', '.join(SPLITS)}")
    features = shards.features(shards.MASK in index.features, shards.MATTE in index.features)
    odd = sorted(key for key, _ in features.items() ^ index.features.items())
    if odd:
        what = f"features {files.cut(str(odd))} are missing, unknown or of another kind"
        yield Fault(file=INDEX_JSON, what=what, expected="those of segdata")
    if shards.MASK in index.features and index.label_map is None:
        yield Fault(file=INDEX_JSON, what="masks without a label map", expected="one")
    try:
        Resize(index.geometry)
    except SegdataError as error:
        yield Fault(file=INDEX_JSON, what=f"geometry: {error}", expected="one that segdata builds")


def _named(file: str, split: str, records: int) -> str:
    return f"{files.cut(file)!r} of split {files.cut(split)!r} with {records} records"


def check_shard(task: ShardCheck) -> ShardFound:
    """Read a shard once, from its first byte to its last: frames, checksums, every record's features and pictures.

    No length is trusted before it was compared with the file's size. Where frames are damaged, what is behind them is
    searched for whole records too.
    """
    images.use_one_thread()
    found, shard = ShardFound(), task.shard
    path = task.folder / shard.file
    if not is_inside(shard.file) or not path.is_file():
        found.faults.append(Fault(file=shard.file, what=absence(path), expected=f"{shard.records} records"))
        return found
    try:
        with path.open("rb") as file:
            reader = _Reader(task, file, path.stat().st_size, found)
            reader.read()
            found.faults = [*_check_whole(task, reader), *found.faults, *_check_offsets(task, reader)]
    except OSError as error:  # a bad sector, say: the other shards are read all the same
        what = f"cannot be read to its end ({error.strerror or error})"
        found.faults.append(Fault(file=shard.file, what=what, expected=f"{shard.bytes} bytes"))
    return found


def absence(path: Path) -> str:
    """How to say that no file is at a path."""
    return "is no regular file" if os.path.lexists(path) else "is missing"


class _Reader:
    """One walk through a shard's bytes: adds ids and faults to ``found``, and keeps where records were."""

    def __init__(self, task: ShardCheck, file: BinaryIO, size: int, found: ShardFound) -> None:
        self.task, self.file, self.size, self.found = task, file, size, found
        self.digest = hashlib.sha256()
        self.starts = found.starts
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
        self.found.ids.append(None)
        self.found.fingerprints.append(b"")
        if footer != crc.to_bytes(4, "little"):
            stored = int.from_bytes(footer, "little")
            self._add_fault(number, at, f"the checksum of its payload is {crc:08x}", f"{stored:08x}, as stored")
            return
        try:
            self.found.ids[-1], self.found.fingerprints[-1] = _check_payload(payload, self.task.index)
        except ImageRefused as error:
            self._add_fault(number, at, error.detail)
        except RecordError as error:
            self._add_fault(number, at, str(error).removeprefix("record: "))

    def _search_behind(self, at: int) -> None:
        """What is lost behind the damaged header at byte ``at``, and which records behind it are whole."""
        told = at  # up to where losses have been told: a search gives one in pieces
        last = self.starts[-1] if self.starts else -1  # its header may say too much, and a record begin before ``at``
        for item in tfrecord.sound_records(self.file, self.size):
            end = item.offset + item.bytes
            if isinstance(item, tfrecord.Lost):
                if item.offset > told:
                    self._add_fault(len(self.starts), item.offset, f"no record begins here: {item.what}")
                told = max(told, end)
            elif item.offset > last:
                self.file.seek(item.offset + tfrecord.HEADER_BYTES)
                body = self.file.read(item.bytes - tfrecord.HEADER_BYTES)
                self._check_record(item.offset, body[: -tfrecord.FOOTER_BYTES], body[-tfrecord.FOOTER_BYTES :])

    def _add_fault(self, number: int, at: int, what: str, expected: str | None = None) -> None:
        self.found.faults.append(
            Fault(file=self.task.shard.file, record=number, offset=at, what=what, expected=expected)
        )


def _check_whole(task: ShardCheck, reader: _Reader) -> Iterator[Fault]:
    """What is wrong with a shard as a whole."""
    shard = task.shard
    if reader.size != shard.bytes:
        yield Fault(file=shard.file, what=f"has {reader.size} bytes", expected=str(shard.bytes))
    elif reader.found.sha256 != shard.sha256:
        yield Fault(file=shard.file, what=f"changed: sha256 {reader.found.sha256}", expected=shard.sha256)
    if len(reader.starts) != shard.records:
        yield Fault(file=shard.file, what=f"has {len(reader.starts)} records", expected=str(shard.records))
    if reader.found.faults and tfrecord.is_gzip(reader.file):
        yield Fault(file=shard.file, what="is compressed with gzip", expected="a plain TFRecord file")


def _check_offsets(task: ShardCheck, reader: _Reader) -> Iterator[Fault]:
    """What is wrong with the file of a shard's offsets, and what that says of a shard that changed."""
    shard, name = task.shard, shards.offsets_name(task.shard.file)
    path = task.folder / name
    if not path.is_file():
        if path.parent.is_dir():  # else it is one fault of the folder
            yield Fault(file=name, what=absence(path), expected=f"the offsets of {shard.file}. Run `segdata rebuild`")
        return
    try:
        offsets = read_record_file(path, OffsetsRecord)
    except RecordError as error:
        yield Fault(file=name, what=str(error).removeprefix(f"{path}: "))
        return
    index = task.index
    if offsets.shard != shard:
        yield Fault(file=name, what="is of another shard", expected=f"{shard.file} of sha256 {shard.sha256}")
    elif offsets.made_from != shards.origin(index.manifest.sha256, index.geometry):
        yield Fault(file=name, what="its shard was made from something else", expected="what index.json says")
    elif reader.found.sha256 != shard.sha256 and len(offsets.offsets) == len(offsets.crcs) == shard.records:
        yield from _moved_records(shard.file, offsets, reader)
    elif (offsets.offsets, offsets.crcs) != (reader.starts.tolist(), reader.crcs):
        yield Fault(file=name, what="changed", expected=f"offsets and checksums of the records of {shard.file}")


def _moved_records(file: str, offsets: OffsetsRecord, reader: _Reader) -> Iterator[Fault]:
    """Which records of a changed shard are others than when it was built, by the checksums of their payloads."""
    built, found = offsets.crcs, reader.crcs
    if found == built or not set(built) & set(found):
        return  # all or nothing of what was built is here, as its faults and its sha256 told
    told = {fault.offset for fault in reader.found.faults}
    if Counter(built) == Counter(found):
        here = next(i for i, crc in enumerate(found) if crc != built[i])
        what = "from here on records stand in another order"
        yield Fault(file=file, record=here, offset=reader.starts[here], what=what, expected="that of their hashes")
        return
    for first, last, here, there in _differences(built, found):
        gone, more = last - first, there - here
        if gone == more:
            for now, crc in zip(range(here, there), built[first:last], strict=True):
                if reader.starts[now] not in told:
                    what = f"is another record: the checksum of its payload is {found[now]:08x}"
                    yield Fault(file=file, record=now, offset=reader.starts[now], what=what, expected=f"{crc:08x}")
        elif not more:
            start = offsets.offsets[first]
            if gone > 1 or start not in told:
                what = f"lacks {gone} of the records that were built from here on"
                yield Fault(file=file, record=first, offset=start, what=what, expected="them here")
        elif more > 1 or reader.starts[here] not in told:
            what = f"holds {more} records from here on that were not built here"
            yield Fault(
                file=file, record=here, offset=reader.starts[here], what=what, expected=f"{gone or 'no'} others"
            )


def _differences(built: Sequence[int], found: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """The stretches ``built[first:last]`` that became ``found[here:there]``, as (first, last, here, there).

    What stayed is a longest run of pairs in the same order; in n log n steps, where difflib takes n**2.
    """
    places = defaultdict[int, list[int]](list)
    for place in reversed(range(len(built))):
        places[built[place]].append(place)
    ends, tops, before = list[int](), list[tuple[int, int]](), dict[int, tuple[int, int] | None]()
    for here, crc in enumerate(found):
        if places[crc]:
            place = places[crc].pop()
            length = bisect.bisect_left(ends, place)
            before[here] = tops[length - 1] if length else None
            ends[length : length + 1], tops[length : length + 1] = [place], [(place, here)]
    kept, pair = [(len(built), len(found))], tops[-1] if tops else None
    while pair is not None:
        kept.append(pair)
        pair = before[pair[1]]
    first = here = 0
    for last, there in reversed(kept):
        if last > first or there > here:
            yield first, last, here, there
        first, here = last + 1, there + 1


def fingerprint(line: SampleLine, has_size: bool) -> bytes:
    """What a record must share with the sample line it was made of, in 16 bytes; pictures too, where they kept their
    size.
    """
    pictures = () if has_size else (line.image_sha256, line.mask_sha256, line.matte_sha256)
    return _fingerprint(line.group, line.image.rpartition("/")[2], line.height, line.width, *pictures)


def _fingerprint(*facts: str | int | None) -> bytes:
    return hashlib.sha256(msgspec.json.encode(facts)).digest()[:16]


def _check_payload(payload: bytes, index: IndexRecord) -> tuple[str, bytes]:
    """The id and the fingerprint of a sound record; ImageRefused or RecordError for any other."""
    values = shards.parse(payload, "record")
    if set(values) != set(index.features):
        odd = sorted(set(values) ^ set(index.features))
        raise RecordError(f"features {files.cut(str(odd))} are missing or not of the index")
    for key, kind in index.features.items():
        if isinstance(values[key], int) != (kind == "int64"):
            raise RecordError(f"feature {key!r} is {type(values[key]).__name__}, the index says {kind}")
    image = shards.data(values, shards.IMAGE, "record")
    header = _check_photo(image)
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
            raise RecordError(f"feature {key!r} is {files.cut(repr(values[key]))}, its image has {expected!r}")
    _check_labels(values, size, index)
    original = [values[key] for key in (shards.ORIGINAL_HEIGHT, shards.ORIGINAL_WIDTH)]
    facts: list[str | int | None] = [
        *(shards.text(values, key, "record") for key in (shards.GROUP, "image/filename")),
        *map(int, original),
    ]
    if min(map(int, original)) < 1 or (index.geometry.size is None and original != [*size]):
        raise RecordError(f"its original size is {original}, its image has {[*size]}")
    if example.encode(values) != payload:  # or another reader might find other features in it
        raise RecordError("its features are not written as segdata writes them")
    if index.geometry.size is None:
        pictures = [values.get(key) for key in (shards.IMAGE, shards.MASK, shards.MATTE)]
        facts += [files.sha256_hex(data) if isinstance(data, bytes) else None for data in pictures]
    return shards.text(values, shards.SOURCE_ID, "record"), _fingerprint(*facts)


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
