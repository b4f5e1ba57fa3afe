"""build-tfrecords: a manifest to TFRecord shards, one task per shard. Stopped at any moment, it goes on from there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from segdata import __version__, sample_files, shard_making, shards
from segdata.errors import FolderError, JobFailed, OptionError, RecordError
from segdata.formats import files, images, tfds, tfrecord
from segdata.formats.folders import (
    MARKER,
    Plan,
    adopt,
    check_finished,
    check_output_folder,
    files_below,
    is_finished,
    output_folder,
    refuse_busy,
    refuse_difference,
)
from segdata.parallel import Workers, check_workers, run_tasks
from segdata.records import (
    INDEX_JSON,
    MANIFEST_JSON,
    SPLITS,
    Geometry,
    IndexRecord,
    ManifestRecord,
    ManifestReference,
    OffsetsRecord,
    SampleLine,
    ShardRecord,
    decode_lines,
    read_index,
    read_manifest,
    read_record_file,
    seal,
)
from segdata.shard_making import Made, RecordOrder, ShardTask, make_shard
from segdata.transforms.resize import Resize

OWNED = (
    r"[a-z0-9_]+-(train|validation|test)\.tfrecord-\d{5,}-of-\d{5,}"
    r"|offsets/[a-z0-9_]+-(train|validation|test)-\d{5,}-of-\d{5,}\.json"
    r"|(features|dataset_info)\.json|(image-segmentation-class-encoded\.)?labels\.txt"
)
CHECKS = ("hash", "decode")
_SHARD_BYTES = 128_000_000  # at most about this many, where no option says more
_PARALLEL_SHARDS, _SMALL_SHARD_BYTES = 8, 16_000_000  # and so many of at least this, so that all cores have work
_RESIZED_BYTES_PER_PIXEL = 0.5  # JPEG 95 and a mask, for the number of shards before anything is encoded
_RECORD_OVERHEAD_BYTES = 700
_SAMPLED_RECORDS = 16


@dataclass(frozen=True)
class BuildOptions:
    """``shards`` per split, or as many as make them about ``shard_mb`` (10**6 bytes) each; with neither, at most 128 MB
    each, and up to 8 of at least 16 MB. ``jobs``, ``engine`` and ``address`` as in ``parallel.Workers``.
    """

    geometry: Geometry = field(default_factory=Geometry)
    shard_mb: int | None = None
    shards: int | None = None
    check: str = "hash"
    jobs: int | None = None
    overwrite: bool = False
    engine: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        Resize(self.geometry)  # checks itself
        Workers(self.jobs, self.engine, self.address)
        if self.check not in CHECKS:
            raise OptionError(f"--check {self.check!r}: expected one of {', '.join(CHECKS)}.")
        if self.shard_mb is not None and self.shard_mb < 1:
            raise OptionError(f"--shard-mb {self.shard_mb}: expected 1 or more.")
        if self.shards is not None and not 1 <= self.shards <= 99999:
            raise OptionError(f"--shards {self.shards}: expected 1 to 99999.")


@dataclass(frozen=True)
class BuildReport:
    """What was built: records, shards and bytes by split, and how many shards were there already.

    Of a plan the bytes are estimated from a sample, and ``free_bytes`` what the disk has for them.
    """

    out: Path
    records: dict[str, int]
    shards: dict[str, int]
    bytes: dict[str, int]
    reused: int = 0
    free_bytes: int | None = None
    would_fail: str = ""  # of a plan: why the run would end in an error


@dataclass(frozen=True)
class _Planned:
    """All that is known before anything is written. ``sizes`` are estimated bytes by split."""

    record: ManifestRecord
    tasks: list[ShardTask]
    sizes: dict[str, int]
    identity: Plan

    @property
    def total_bytes(self) -> int:
        """Of all shards."""
        return sum(self.sizes.values())


def plan(manifest: Path, out: Path, options: BuildOptions) -> BuildReport:
    """What ``build`` would do: records, shards, bytes as estimated from a sample, and free space; writes nothing.

    FolderError where ``out`` could not be written.
    """
    planned = _planned(manifest, out, options)
    if is_finished(out, INDEX_JSON) and not options.overwrite:
        return replace(_complete(out, planned.identity), free_bytes=_free_bytes(out))
    check_output_folder(out, INDEX_JSON, OWNED, options.overwrite, [manifest], planned.identity)
    return replace(
        _report(out, [(task.split, len(task.offsets), 0) for task in planned.tasks]),
        bytes=planned.sizes,
        free_bytes=_free_bytes(out),
        would_fail=_no_room(out, planned.total_bytes),
    )


def build(manifest: Path, out: Path, options: BuildOptions) -> BuildReport:
    """Write the shards ``out`` of a manifest folder. Bytes depend on the manifest and the options alone.

    What an earlier run of the same finished is kept, once its sha256 was compared. JobFailed, naming the file, where a
    photo or mask changed since convert; FolderError and RecordError for a manifest or dataset that is unfinished or
    damaged, for a folder built from another manifest or options, and where the disk has too little room.
    """
    if options.engine != "local":  # workers elsewhere have another current folder
        manifest, out = manifest.absolute(), out.absolute()
    refuse_busy(out)
    planned = _planned(manifest, out, options)
    if is_finished(out, INDEX_JSON) and not options.overwrite:
        return _complete(out, planned.identity)
    if not (out / INDEX_JSON).exists() and _is_of(out, planned):
        adopt(out, OWNED, planned.identity)
    check_output_folder(out, INDEX_JSON, OWNED, options.overwrite, [manifest], planned.identity)
    no_room = _no_room(out, planned.total_bytes)
    if no_room:
        raise FolderError(f"{out}: {no_room}. Make room, or choose another --out; nothing was written.")
    workers = Workers(options.jobs, options.engine, options.address)
    check_workers(workers)  # before anything that is there goes
    with output_folder(
        out, INDEX_JSON, OWNED, options.overwrite, [manifest], "build-tfrecords", planned.identity
    ) as folder:
        if folder.is_whole:  # stopped when only tidying up was left
            folder.tidy()
            return _report_of(out, planned.identity)
        (out / shards.OFFSETS).mkdir(exist_ok=True)
        tasks = [replace(task, reuse=folder.is_resumed, run=folder.run) for task in planned.tasks]
        sizes = [len(task.offsets) for task in tasks]
        with closing(run_tasks(make_shard, tasks, workers, "build-tfrecords", sizes, _bytes_of)) as results:
            made = list(folder.counted(results, [1] * len(tasks), "shards"))
        _check_manifest(manifest, planned)
        index = _index(manifest, planned, out, options, [item.shard for item in made])
        for name, data in tfds.sidecar_files(index).items():
            files.write_atomic(out / name, data)
        folder.finish(seal(index))
    report = _report(out, [(item.shard.split, item.shard.records, item.shard.bytes) for item in made])
    return replace(report, reused=sum(item.is_reused for item in made))


def _bytes_of(made: Made) -> int:
    return made.shard.bytes


def _report(out: Path, found: Sequence[tuple[str, int, int]]) -> BuildReport:
    """From (split, records, bytes) of each shard."""
    records: dict[str, int] = {}
    count: dict[str, int] = {}
    size: dict[str, int] = {}
    for split, shard_records, shard_bytes in found:
        records[split] = records.get(split, 0) + shard_records
        count[split] = count.get(split, 0) + 1
        size[split] = size.get(split, 0) + shard_bytes
    return BuildReport(out, records, count, size)


def _complete(out: Path, identity: Plan) -> BuildReport:
    """The report of a folder that was finished before. FolderError where it was built from something else."""
    check_finished(out, INDEX_JSON, OWNED, command="build-tfrecords")
    return _report_of(out, identity)


def _report_of(out: Path, identity: Plan) -> BuildReport:
    """The same, once it is known that only files of ours are there, and that nobody else is writing."""
    index = read_index(out)
    same = {key: value for key, value in identity.items() if key in _identity_of(index)}
    refuse_difference(out, _identity_of(index), same, "was built", "to keep it")
    shards.check_shard_sizes(out, index)
    report = _report(out, [(shard.split, shard.records, shard.bytes) for shard in index.shards])
    return replace(report, reused=len(index.shards))


def _is_of(out: Path, planned: _Planned) -> bool:
    """Whether a folder without marker or index.json, which somebody removed, holds shards of this very build."""
    if (out / MARKER).exists():
        return False
    for task in planned.tasks:
        with suppress(OSError, RecordError):
            found = read_record_file(out / shards.offsets_name(task.file), OffsetsRecord)
            return (found.made_from, found.shard.file) == (task.made_from, task.file)
    return False


def _identity(manifest: Path, options: BuildOptions) -> Plan:
    """What decides the bytes of shards, and how their sources were checked."""
    encoded = {"codecs": images.codecs()} if options.geometry.size else {}
    return {
        "manifest of sha256": files.sha256_file(manifest / MANIFEST_JSON),
        "--size": _size(options.geometry),
        "--fit": options.geometry.fit,
        "--shards": options.shards,
        "--shard-mb": options.shard_mb,
        "--check": options.check,
        "segdata": __version__,
        **encoded,
    }


def _identity_of(index: IndexRecord) -> Plan:
    """What of it an index tells."""
    return {
        "manifest of sha256": index.manifest.sha256,
        "--size": _size(index.geometry),
        "--fit": index.geometry.fit,
        "--shards": index.options.get("shards"),
        "--shard-mb": index.options.get("shard_mb"),
    }


def _size(geometry: Geometry) -> str | None:
    return "x".join(map(str, geometry.size)) if geometry.size else None


# ---- planning --------------------------------------------------------------------------------------------------------


def _planned(manifest: Path, out: Path, options: BuildOptions) -> _Planned:
    record = read_manifest(manifest)
    places = sample_files.places_of(manifest, record)
    identity = _identity(manifest, options)
    made_from = shards.origin(str(identity["manifest of sha256"]), options.geometry)
    tasks, sizes = list[ShardTask](), dict[str, int]()
    for split in (split for split in SPLITS if split in record.splits):
        order = shard_making.record_order(manifest, record.splits[split])
        count = _shard_count(order, options)
        for number, offsets in enumerate(shard_making.runs(order, count)):
            name = shards.shard_name(record.name, split, number, count)
            tasks.append(
                ShardTask(
                    order.file,
                    offsets,
                    places,
                    out,
                    name,
                    split,
                    options.geometry,
                    options.check,
                    made_from,
                    str(identity.get("codecs", "")),
                )
            )
        sizes[split] = _estimated_bytes(order, tasks[-count:])
    return _Planned(record, tasks, sizes, identity)


def _shard_count(order: RecordOrder, options: BuildOptions) -> int:
    """How many shards a split gets; from its sample lines alone, so that it is the same everywhere."""
    records, size = len(order.offsets), options.geometry.size
    per_record = size[0] * size[1] * _RESIZED_BYTES_PER_PIXEL if size else order.stored_bytes / max(1, records)
    total = round(records * (per_record + _RECORD_OVERHEAD_BYTES))
    if options.shards is not None:
        count = options.shards
    elif options.shard_mb is not None:
        count = -(-total // (options.shard_mb * 1_000_000))
    else:
        count = max(-(-total // _SHARD_BYTES), min(_PARALLEL_SHARDS, total // _SMALL_SHARD_BYTES))
    return max(1, min(count, records))


def _estimated_bytes(order: RecordOrder, tasks: Sequence[ShardTask]) -> int:
    """The bytes of a split's shards, as some of its records come to; without a size they are known from its lines.

    Reading some shows early that the photos are not there, or changed.
    """
    records = len(order.offsets)
    sampled = np.linspace(0, records - 1, min(records, _SAMPLED_RECORDS)).astype(int)  # any are a fair sample
    found = list(shard_making.payloads(replace(tasks[0], offsets=order.offsets[sampled])))
    if tasks[0].geometry.size is None:
        return order.stored_bytes + records * _RECORD_OVERHEAD_BYTES
    each = sum(map(len, found)) / len(found) + tfrecord.HEADER_BYTES + tfrecord.FOOTER_BYTES
    return round(each * records)


def _free_bytes(out: Path) -> int:
    """What the disk has for a folder, its own files counted, since they are kept or replaced."""
    there = next(parent for parent in (out.absolute(), *out.absolute().parents) if parent.is_dir())
    own = 0
    for name in files_below(out):
        with suppress(OSError):  # of another run that is writing there, which is told of later
            own += (out / name).stat().st_size
    return shutil.disk_usage(there).free + own


def _no_room(out: Path, needed: int) -> str:
    free = _free_bytes(out)
    if needed <= free:
        return ""
    return f"needs about {needed / 1e6:,.1f} MB (estimated from a sample), the disk has {free / 1e6:,.1f} MB for it"


def _check_manifest(manifest: Path, planned: _Planned) -> None:
    """JobFailed where the manifest is no longer the one that the shards were made of."""
    recorded = {file.file: file.sha256 for file in planned.record.splits.values()}
    recorded[MANIFEST_JSON] = str(planned.identity["manifest of sha256"])
    for name, sha256 in recorded.items():
        if not (manifest / name).is_file() or files.sha256_file(manifest / name) != sha256:
            raise JobFailed(
                f"{manifest / name}: changed while the shards were built. Build them again with --overwrite."
            )


def _index(manifest: Path, planned: _Planned, out: Path, options: BuildOptions, made: list[ShardRecord]) -> IndexRecord:
    record = planned.record
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
        manifest=ManifestReference(path=path, sha256=str(planned.identity["manifest of sha256"])),
        options={"shards": options.shards, "shard_mb": options.shard_mb, "jpeg_quality": images.JPEG_QUALITY},
        shards=made,
    )
