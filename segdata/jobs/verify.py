"""verify: read every byte of a prepared dataset, a manifest or shards, and say what is wrong with it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from segdata import sample_files, shards, splits
from segdata.errors import ImageRefused, OptionError, RecordError, SegdataError
from segdata.formats import files, images, tfds, tfrecord
from segdata.formats.folders import LOCK, MARKER, files_below
from segdata.labels import LabelMap
from segdata.parallel import chunks, run_tasks
from segdata.records import (
    DATASET_JSON,
    INDEX_JSON,
    MANIFEST_JSON,
    DatasetRecord,
    FileRecord,
    IndexRecord,
    ManifestRecord,
    RejectedLine,
    SampleLine,
    ShardRecord,
    decode_lines,
    is_inside,
    kind_of,
    read_dataset,
    read_index,
    read_manifest,
)
from segdata.sample_files import Places
from segdata.splits import SplitKey

_CHUNK = 32
_HARMLESS = (MARKER, LOCK)
_KINDS = {DATASET_JSON: "dataset", MANIFEST_JSON: "manifest", INDEX_JSON: "shards"}


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: the file, the record's number and byte offset or the sample where known, and what."""

    file: str
    what: str
    sample: str | None = None
    record: int | None = None
    offset: int | None = None


@dataclass(frozen=True)
class VerifyReport:
    """All faults of a folder, and how much was read."""

    path: Path
    kind: str
    checked: int
    faults: list[Fault]


def verify(path: Path, jobs: int | None = None) -> VerifyReport:
    """Check a folder against its own JSON, and every picture in it by a strict decode.

    Reports every fault. Raises FolderError only where the folder has no JSON of segdata's.
    """
    kind = kind_of(path)
    check: dict[str, Callable[[Path, int | None], tuple[int, list[Fault]]]] = {
        DATASET_JSON: _verify_dataset,
        INDEX_JSON: _verify_shards,
        MANIFEST_JSON: _verify_manifest,
    }
    if kind not in check:
        raise OptionError(f"{path}: is a run, expected a prepared dataset, a manifest or shards.")
    try:
        checked, faults = check[kind](path, jobs)
    except RecordError as error:  # its JSON itself: nothing in the folder can be trusted
        checked, faults = 0, [Fault(file=kind, what=str(error))]
    return VerifyReport(path, _KINDS[kind], checked, faults)


# ---- files
# -------------------------------------------------------------------------------------------------------------


def _extra_files(folder: Path, known: Iterable[str]) -> Iterator[Fault]:
    expected = {*known, *_HARMLESS}
    for name in files_below(folder):
        if name not in expected:
            yield Fault(
                file=files.printable(name), what="is not of this folder, expected nothing else there. Move it away."
            )


def _check_file(folder: Path, recorded: FileRecord, where: str) -> Iterator[Fault]:
    path = folder / recorded.file
    if not is_inside(recorded.file) or not path.is_file():
        yield Fault(file=recorded.file, what=f"is missing, expected since {where} names it")
        return
    found = files.sha256_file(path)
    if found != recorded.sha256:
        yield Fault(file=recorded.file, what=f"changed: sha256 {found}, expected {recorded.sha256}")
    with path.open("rb") as file:
        lines = sum(1 for _ in file)
    if lines != recorded.count:
        yield Fault(file=recorded.file, what=f"has {lines} lines, expected {recorded.count}")


# ---- prepared datasets
# -------------------------------------------------------------------------------------------------


def _verify_dataset(folder: Path, jobs: int | None) -> tuple[int, list[Fault]]:
    record = read_dataset(folder)
    faults = [*_check_file(folder, record.samples, DATASET_JSON), *_check_file(folder, record.rejected, DATASET_JSON)]
    if faults:  # lines that are not the recorded ones would only repeat this, sample by sample
        return 0, faults
    lines = list(sample_files.sample_lines(folder))
    faults += _check_lines(lines, record, folder)
    faults += _check_samples(lines, sample_files.place_of(folder, record), record.label_map, jobs)
    own = [path for line in lines for path in _own_files(line, record.image_root)]
    faults += _extra_files(folder, [DATASET_JSON, record.samples.file, record.rejected.file, *own])
    return len(lines), faults


def _own_files(line: SampleLine, image_root: str) -> Iterator[str]:
    """The files of a sample line that lie in the dataset's own folder."""
    if line.image_root == "." or image_root == ".":
        yield line.image
    yield from (path for path in (line.mask, line.matte) if path is not None)


def _check_lines(lines: list[SampleLine], record: DatasetRecord, folder: Path) -> Iterator[Fault]:
    ids = [line.id for line in lines]
    if ids != sorted(set(ids)):
        yield Fault(file=record.samples.file, what="ids are not unique and sorted")
    totals: dict[str, int] = dict.fromkeys(record.counts.class_pixels, 0)
    for line in lines:
        for name, count in (line.class_pixels or {}).items():
            totals[name] = totals.get(name, 0) + count
    if totals != record.counts.class_pixels:
        yield Fault(file=DATASET_JSON, what=f"class pixels {record.counts.class_pixels}, the lines sum to {totals}")
    reasons: dict[str, int] = {}
    for rejected in decode_lines(folder / record.rejected.file, RejectedLine):
        reasons[rejected.reason] = reasons.get(rejected.reason, 0) + 1
    if reasons != record.counts.rejected:
        yield Fault(file=DATASET_JSON, what=f"rejected {record.counts.rejected}, the lines say {reasons}")


@dataclass(frozen=True)
class _Samples:
    lines: Sequence[SampleLine]
    places: Places
    labels: LabelMap | None


def _check_samples(
    lines: Sequence[SampleLine], places: Places, labels: LabelMap | None, jobs: int | None
) -> Iterator[Fault]:
    tasks = [_Samples(chunk, places, labels) for chunk in chunks(lines, _CHUNK)]
    for found in run_tasks(_check_chunk, tasks, jobs, "verify", [len(task.lines) for task in tasks]):
        yield from found


def _check_chunk(task: _Samples) -> list[Fault]:
    images.use_one_thread()
    return [fault for line in task.lines for fault in _check_sample(line, task)]


def _check_sample(line: SampleLine, task: _Samples) -> Iterator[Fault]:
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


# ---- manifests
# ---------------------------------------------------------------------------------------------------------


def _verify_manifest(folder: Path, jobs: int | None) -> tuple[int, list[Fault]]:
    record = read_manifest(folder)
    files_named = [*record.splits.values(), *record.text_lists]
    faults = [fault for recorded in files_named for fault in _check_file(folder, recorded, MANIFEST_JSON)]
    faults += _extra_files(folder, [MANIFEST_JSON, *(recorded.file for recorded in files_named)])
    if any(fault.file in {recorded.file for recorded in record.splits.values()} for fault in faults):
        return 0, faults
    lines = {split: list(sample_files.split_lines(folder, record, split)) for split in record.splits}
    faults += _check_sides(lines, record)
    places: Places = {}
    for reference in record.datasets:
        try:
            place = sample_files.dataset_place(folder, reference)
        except SegdataError as error:
            faults.append(Fault(file=reference.path, what=str(error)))
            continue
        places |= {reference.name: place} | ({None: place} if len(record.datasets) == 1 else {})
    reachable = [line for split in lines.values() for line in split if line.dataset in places]
    faults += _check_samples(reachable, places, record.label_map, jobs)
    return len(reachable), faults


def _check_sides(lines: dict[str, list[SampleLine]], record: ManifestRecord) -> Iterator[Fault]:
    """Every id once; nothing straddles the splits but what the manifest says."""
    every = [line for split in lines.values() for line in split]
    for repeated in (i for i, count in sorted(Counter(line.id for line in every).items()) if count > 1):
        yield Fault(file=MANIFEST_JSON, sample=repeated, what="stands in the manifest more than once, expected once")
    keys = [
        SplitKey(line.id, line.group, line.image, line.image_sha256, line.source_sha256, line.crop) for line in every
    ]
    sides, start = {}, 0
    for split, members in lines.items():
        sides[split] = range(start, start + len(members))
        start += len(members)
    known = {tuple(sorted(group)) for group in record.straddling}
    for group in splits.straddling(keys, sides):
        if tuple(sorted(group)) not in known:
            yield Fault(file=MANIFEST_JSON, what=f"one group or one photo in several splits: {', '.join(group)}")


# ---- shards
# ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Shard:
    folder: Path
    shard: ShardRecord
    index: IndexRecord


@dataclass(frozen=True)
class _ShardFound:
    ids: list[str]
    faults: list[Fault]


def _verify_shards(folder: Path, jobs: int | None) -> tuple[int, list[Fault]]:
    index = read_index(folder)
    faults = list(_check_sidecars(folder, index))
    faults += _extra_files(folder, [INDEX_JSON, *tfds.sidecar_files(index), *(shard.file for shard in index.shards)])
    tasks = [_Shard(folder, shard, index) for shard in index.shards]
    found = list(run_tasks(_check_shard, tasks, jobs, "verify", [shard.records for shard in index.shards]))
    faults += [fault for result in found for fault in result.faults]
    faults += _check_order(index, [result.ids for result in found])
    return sum(len(result.ids) for result in found), faults


def _check_sidecars(folder: Path, index: IndexRecord) -> Iterator[Fault]:
    for name, expected in tfds.sidecar_files(index).items():
        path = folder / name
        if not path.is_file():
            yield Fault(file=name, what="is missing")
        elif path.read_bytes() != expected:
            yield Fault(file=name, what="changed: it no longer follows from index.json")


def _check_shard(task: _Shard) -> _ShardFound:
    images.use_one_thread()
    shard, ids, faults = task.shard, list[str](), list[Fault]()
    path = task.folder / shard.file
    if not is_inside(shard.file) or not path.is_file():
        return _ShardFound(ids, [Fault(file=shard.file, what=f"is missing, expected {shard.records} records")])
    size, found = path.stat().st_size, files.sha256_file(path)
    if size != shard.bytes:
        faults.append(Fault(file=shard.file, what=f"has {size} bytes, expected {shard.bytes}"))
    elif found != shard.sha256:
        faults.append(Fault(file=shard.file, what=f"changed: sha256 {found}, expected {shard.sha256}"))
    number = -1
    try:
        with path.open("rb") as file:
            for number, (offset, length) in enumerate(tfrecord.walk(file, size, shard.file)):
                try:
                    payload = tfrecord.read_payload(file, offset, length, shard.file)
                    ids.append(_check_record(payload, task.index))
                except (ImageRefused, RecordError) as error:
                    faults.append(
                        Fault(file=shard.file, record=number, offset=offset - tfrecord.HEADER_BYTES, what=str(error))
                    )
    except RecordError as error:
        faults.append(Fault(file=shard.file, what=str(error)))
    else:
        if number + 1 != shard.records:
            faults.append(Fault(file=shard.file, what=f"has {number + 1} records, expected {shard.records}"))
    return _ShardFound(ids, faults)


def _check_record(payload: bytes, index: IndexRecord) -> str:
    """The id of a sound record; ImageRefused or RecordError for any other."""
    values = shards.parse(payload, "record")
    if set(values) != set(index.features):
        odd = sorted(set(values) ^ set(index.features))
        raise RecordError(f"features {odd} are missing or not of the index")
    sample = shards.decode_values(values, "record")
    height, width = sample.image.shape[:2]
    if index.geometry.size not in (None, (height, width)):
        raise ImageRefused("size-mismatch", f"image of {width}x{height}, the index says {index.geometry.size} (h, w)")
    if (values[shards.HEIGHT], values[shards.WIDTH]) != (height, width):
        raise ImageRefused("size-mismatch", f"image of {width}x{height}, its features say otherwise")
    image = values[shards.IMAGE]
    if isinstance(image, bytes) and hashlib.sha256(image).hexdigest().encode() != values[shards.SHA256]:
        raise RecordError(f"the image is not the one of {shards.SHA256}")
    for what, pixels in (("mask", sample.mask), ("matte", sample.matte)):
        if pixels is not None:
            _check_size(what, pixels, height, width)
    if sample.mask is not None and index.label_map is not None:
        _check_ids(sample.mask, index.label_map)
    return sample.id


def _check_order(index: IndexRecord, ids_by_shard: list[list[str]]) -> Iterator[Fault]:
    """Each id once in the folder, and the records of a split in the order of their hashes."""
    seen: dict[str, str] = {}
    last: dict[str, bytes] = {}
    for shard, ids in zip(index.shards, ids_by_shard, strict=True):
        for sample in ids:
            if sample in seen:
                yield Fault(file=shard.file, sample=sample, what=f"stands in {seen[sample]} too, expected once")
            seen[sample] = shard.file
            key = splits.order_key(sample)
            if key < last.get(shard.split, b""):
                yield Fault(file=shard.file, sample=sample, what="is not in its place: records stand by hashed id")
            last[shard.split] = key
