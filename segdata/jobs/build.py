"""build-tfrecords: a manifest to TFRecord shards, one task per shard."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from segdata import sample_files, shards, splits
from segdata.errors import FolderError, ImageRefused, JobFailed, OptionError, RecordError
from segdata.formats import files, images, tfds, tfrecord
from segdata.formats.folders import output_folder
from segdata.parallel import job_count, run_tasks
from segdata.records import (
    INDEX_JSON,
    MANIFEST_JSON,
    SPLITS,
    Geometry,
    IndexRecord,
    ManifestRecord,
    ManifestReference,
    SampleLine,
    ShardRecord,
    decode,
    decode_lines,
    read_manifest,
    seal,
)
from segdata.sample_files import Places
from segdata.transforms.resize import Resize

OWNED = (
    r"[a-z0-9_]+-(train|validation|test)\.tfrecord-\d{5,}-of-\d{5,}"
    r"|(features|dataset_info)\.json|(image-segmentation-class-encoded\.)?labels\.txt"
)
CHECKS = ("hash", "decode")
_RESIZED_BYTES_PER_PIXEL = 0.5  # JPEG 95 and a mask, for the number of shards before anything is encoded
_RECORD_OVERHEAD_BYTES = 700


@dataclass(frozen=True)
class BuildOptions:
    """``shards`` per split, or as many as make them about ``shard_mb`` (10**6 bytes) each. ``jobs`` None is one
    process per core.
    """

    geometry: Geometry = field(default_factory=Geometry)
    shard_mb: int = 128
    shards: int | None = None
    check: str = "hash"
    jobs: int | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        Resize(self.geometry)  # checks itself
        if self.check not in CHECKS:
            raise OptionError(f"--check {self.check!r}: expected one of {', '.join(CHECKS)}.")
        if self.shard_mb < 1:
            raise OptionError(f"--shard-mb {self.shard_mb}: expected 1 or more.")
        if self.shards is not None and not 1 <= self.shards <= 99999:
            raise OptionError(f"--shards {self.shards}: expected 1 to 99999.")
        job_count(self.jobs)  # before anything is removed


@dataclass(frozen=True)
class BuildReport:
    """What was built: records, shards and bytes by split."""

    out: Path
    records: dict[str, int]
    shards: dict[str, int]
    bytes: dict[str, int]


class _Order(msgspec.Struct):
    """What of a sample line decides where its record goes."""

    id: str
    image_bytes: int
    mask_bytes: int = 0
    matte_bytes: int = 0


@dataclass(frozen=True)
class _Task:
    manifest: Path
    split_file: str
    offsets: list[int]
    places: Places
    out: Path
    shard_file: str
    split: str
    geometry: Geometry
    check: str


def build(manifest: Path, out: Path, options: BuildOptions) -> BuildReport:
    """Write the shards ``out`` of a manifest folder. Bytes depend on the manifest and the options alone.

    JobFailed, naming the file, where a photo or mask changed since convert; FolderError and RecordError for a
    manifest or dataset that is unfinished or damaged.
    """
    record = read_manifest(manifest)
    places = sample_files.places_of(manifest, record)
    with output_folder(out, INDEX_JSON, OWNED, options.overwrite, [manifest]) as folder:
        tasks = [
            task
            for split in SPLITS
            if split in record.splits
            for task in _plan(manifest, record, places, out, options, split)
        ]
        built = list(run_tasks(_build_shard, tasks, options.jobs, "build-tfrecords", [len(t.offsets) for t in tasks]))
        index = _index(manifest, record, out, options, built)
        for name, data in tfds.sidecar_files(index).items():
            files.write_atomic(out / name, data)
        folder.finish(seal(index))
    return BuildReport(out, _sum(built, "records"), _sum(built, None), _sum(built, "bytes"))


def _sum(built: Sequence[ShardRecord], attribute: str | None) -> dict[str, int]:
    totals: dict[str, int] = {}
    for shard in built:
        totals[shard.split] = totals.get(shard.split, 0) + (getattr(shard, attribute) if attribute else 1)
    return totals


def _plan(
    manifest: Path, record: ManifestRecord, places: Places, out: Path, options: BuildOptions, split: str
) -> Iterator[_Task]:
    """The shard tasks of one split: records by hashed id, in runs whose lengths differ by one at most."""
    file = record.splits[split]
    path = manifest / file.file
    if not path.is_file() or files.sha256_file(path) != file.sha256:
        raise RecordError(
            f"{path}: is missing or was edited; its sha256 is not the manifest's. Run `segdata split` again."
        )
    keyed: list[tuple[bytes, int]] = []
    at = total = 0
    with path.open("rb") as lines:
        for line in lines:
            order = decode(line, _Order, str(path))
            keyed.append((splits.order_key(order.id), at))
            total += order.image_bytes + order.mask_bytes + order.matte_bytes + _RECORD_OVERHEAD_BYTES
            at += len(line)
    keyed.sort()
    count = options.shards or _shard_count(len(keyed), total, options)
    count = min(count, len(keyed))
    for number in range(count):
        run = keyed[number * len(keyed) // count : (number + 1) * len(keyed) // count]
        name = shards.shard_name(record.name, split, number, count)
        offsets = [offset for _, offset in run]
        yield _Task(manifest, file.file, offsets, places, out, name, split, options.geometry, options.check)


def _shard_count(records: int, stored_bytes: int, options: BuildOptions) -> int:
    size = options.geometry.size
    if size is not None:
        stored_bytes = round(records * (size[0] * size[1] * _RESIZED_BYTES_PER_PIXEL + _RECORD_OVERHEAD_BYTES))
    return max(1, -(-stored_bytes // (options.shard_mb * 1_000_000)))


def _index(
    manifest: Path, record: ManifestRecord, out: Path, options: BuildOptions, built: list[ShardRecord]
) -> IndexRecord:
    first = next(decode_lines(manifest / next(iter(record.splits.values())).file, SampleLine))
    try:
        path = files.relative_posix(manifest, out)
    except FolderError:
        path = None
    return IndexRecord(
        name=record.name,
        label_map=record.label_map,
        geometry=options.geometry,
        features=shards.features(first.mask is not None, first.matte is not None),
        manifest=ManifestReference(path=path, sha256=files.sha256_file(manifest / MANIFEST_JSON)),
        options={"shards": options.shards, "shard_mb": options.shard_mb, "jpeg_quality": images.JPEG_QUALITY},
        shards=built,
    )


# ---- in the worker processes -----------------------------------------------------------------------------------------


def _build_shard(task: _Task) -> ShardRecord:
    images.use_one_thread()
    digest, size = hashlib.sha256(), 0
    resize = Resize(task.geometry)
    with (task.manifest / task.split_file).open("rb") as lines, files.atomic_file(task.out / task.shard_file) as file:
        for offset in task.offsets:
            lines.seek(offset)
            line = decode(lines.readline(), SampleLine, task.split_file)
            framed = tfrecord.frame(_payload(line, task, resize))
            file.write(framed)
            digest.update(framed)
            size += len(framed)
    return ShardRecord(
        file=task.shard_file, split=task.split, records=len(task.offsets), bytes=size, sha256=digest.hexdigest()
    )


def _payload(line: SampleLine, task: _Task, resize: Resize) -> bytes:
    try:
        image, mask, matte = sample_files.read_encoded(line, task.places)
        if task.geometry.size is not None:
            image, mask, matte = _resized(line.id, image, mask, matte, resize)
        elif task.check == "decode":
            for data in (image, mask, matte):
                if data is not None:
                    images.check_stored(data)
    except ImageRefused as error:
        raise JobFailed(f"{error.detail}. Convert its dataset again; nothing was put in its place.") from error
    return shards.encode_sample(line, image, mask, matte)


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
