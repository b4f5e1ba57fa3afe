"""rebuild: exactly the damaged or missing shards of a folder, from the manifest that it was built from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from segdata import sample_files, shard_making, shards
from segdata.errors import FolderError, RecordError
from segdata.formats import files, tfds
from segdata.formats.folders import locked_folder
from segdata.parallel import Workers, run_tasks
from segdata.records import (
    MANIFEST_JSON,
    IndexRecord,
    OffsetsRecord,
    ShardRecord,
    is_inside,
    read_index,
    read_manifest,
    read_record_file,
)
from segdata.shard_making import ShardTask, make_shard


@dataclass(frozen=True)
class RebuildReport:
    """Which files were made again, and how many shards were looked at."""

    path: Path
    shards: int
    rebuilt: list[str]


@dataclass(frozen=True)
class _Look:
    folder: Path
    shard: ShardRecord


def rebuild(folder: Path, manifest: Path | None = None, jobs: int | None = None) -> RebuildReport:
    """Read every shard of a folder, and make those again whose bytes are not the recorded ones, to the same bytes.

    ``manifest`` is where the manifest lies now; left out, where it lay when the shards were built. Nothing that is
    right is touched, and a shard is replaced only by one of the recorded sha256. RecordError where index.json is
    damaged; FolderError where the manifest is not the one the shards were built from; JobFailed where a source file
    changed, or the bytes would be others.
    """
    index = read_index(folder)
    with locked_folder(folder, "rebuild"):
        looks = [_Look(folder, shard) for shard in index.shards]
        sizes = [shard.records for shard in index.shards]
        with closing(run_tasks(_is_whole, looks, Workers(jobs), "verify", sizes)) as results:
            damaged = [shard for shard, whole in zip(index.shards, results, strict=True) if not whole]
        tasks = list(_tasks(folder, index, damaged, manifest)) if damaged else []
        (folder / shards.OFFSETS).mkdir(exist_ok=True)
        sizes = [len(task.offsets) for task in tasks]
        with closing(run_tasks(make_shard, tasks, Workers(jobs), "rebuild", sizes)) as results:
            rebuilt = [made.shard.file for made in results]
        rebuilt += _rewrite_sidecars(folder, index)
    return RebuildReport(folder, len(index.shards), rebuilt)


def _is_whole(look: _Look) -> bool:
    """Whether a shard and the file of its offsets are as recorded."""
    path, name = look.folder / look.shard.file, look.folder / shards.offsets_name(look.shard.file)
    if not is_inside(look.shard.file) or not path.is_file() or path.stat().st_size != look.shard.bytes:
        return False
    if files.sha256_file(path) != look.shard.sha256:
        return False
    try:
        offsets = read_record_file(name, OffsetsRecord)
    except (OSError, RecordError):
        return False
    return offsets.shard == look.shard and offsets.offsets == shards.walk_offsets(look.folder, look.shard)


def _tasks(folder: Path, index: IndexRecord, damaged: list[ShardRecord], manifest: Path | None) -> Iterator[ShardTask]:
    source = _manifest_folder(folder, index, manifest)
    record = read_manifest(source)
    places = sample_files.places_of(source, record)
    made_from = shard_making.origin(index.manifest.sha256, index.geometry)
    for split in dict.fromkeys(shard.split for shard in damaged):
        of_split = [shard for shard in index.shards if shard.split == split]
        order = shard_making.record_order(source, record.splits[split])
        for shard, offsets in zip(of_split, shard_making.runs(order, len(of_split)), strict=True):
            if shard in damaged:
                yield ShardTask(
                    order.file,
                    offsets,
                    places,
                    folder,
                    shard.file,
                    split,
                    index.geometry,
                    "hash",
                    made_from,
                    expected=shard,
                )


def _manifest_folder(folder: Path, index: IndexRecord, manifest: Path | None) -> Path:
    """Where the manifest lies; FolderError where it is not there, or another one."""
    if manifest is None and index.manifest.path is None:
        raise FolderError(f"{folder}: its index does not say where its manifest lies. Name it with --manifest.")
    found = manifest or folder / str(index.manifest.path)
    path = found / MANIFEST_JSON
    if not path.is_file():
        raise FolderError(
            f"{found}: has no {MANIFEST_JSON}, expected the manifest of {folder}. Name it with --manifest."
        )
    digest = files.sha256_file(path)
    if digest != index.manifest.sha256:
        raise FolderError(
            f"{found}: is another manifest than {folder} was built from (sha256 {digest}, expected "
            f"{index.manifest.sha256}). Name the right one with --manifest, or build the shards again."
        )
    return found


def _rewrite_sidecars(folder: Path, index: IndexRecord) -> Iterator[str]:
    """Write what follows from the index where it is not there or changed; the names of what was written."""
    for name, data in tfds.sidecar_files(index).items():
        path = folder / name
        if not path.is_file() or path.read_bytes() != data:
            files.write_atomic(path, data)
            yield name
