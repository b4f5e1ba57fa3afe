"""rebuild: exactly the damaged or missing shards of a folder, from the manifest that it was built from.

Files of offsets are made again from the shards alone, where those are whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from segdata import sample_files, shard_making, shards
from segdata.checks import check_index
from segdata.errors import FolderError, RecordError, Stopped
from segdata.formats import files, tfds, tfrecord
from segdata.formats.folders import files_below, locked_folder, refuse_busy
from segdata.parallel import Workers, run_tasks
from segdata.records import (
    MANIFEST_JSON,
    IndexRecord,
    OffsetsRecord,
    ShardRecord,
    read_index,
    read_manifest,
    seal,
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
    made_from: str


def rebuild(folder: Path, manifest: Path | None = None, jobs: int | None = None) -> RebuildReport:
    """Read every shard of a folder, and make those again whose bytes are not the recorded ones, to the same bytes.

    ``manifest`` is where the manifest lies now; left out, where it lay when the shards were built. Nothing that is
    right is touched, and a shard is replaced only by one of the recorded sha256. RecordError where index.json is
    damaged; FolderError where the manifest is not the one the shards were built from; JobFailed where a source file
    changed, or the bytes would be others; Stopped where Ctrl-C ends it.
    """
    refuse_busy(folder)
    index = read_index(folder)
    for fault in check_index(index):
        raise RecordError(f"{folder / fault.file}: {fault.what}, expected {fault.expected}. Build the folder again.")
    with locked_folder(folder, "rebuild"):
        try:
            rebuilt = _rebuild(folder, index, manifest, Workers(jobs))
        except KeyboardInterrupt as error:
            raise Stopped(
                f"{folder}: shards not made again yet are as they were. Run the same command again:"
            ) from error
        finally:
            _remove_partials(folder, index)
    return RebuildReport(folder, len(index.shards), rebuilt)


def _rebuild(folder: Path, index: IndexRecord, manifest: Path | None, workers: Workers) -> list[str]:
    """The names of the files that were made again."""
    for name in _own_names(index):
        if (folder / name).is_dir():
            raise FolderError(f"{folder / name}: is a folder, expected a file. Move it away.")
    if (folder / shards.OFFSETS).is_file():
        raise FolderError(f"{folder / shards.OFFSETS}: is a file, expected a folder. Move it away.")
    made_from = shards.origin(index.manifest.sha256, index.geometry)
    looks = [_Look(folder, shard, made_from) for shard in index.shards]
    sizes = [shard.records for shard in index.shards]
    (folder / shards.OFFSETS).mkdir(exist_ok=True)
    with closing(run_tasks(_mend_offsets, looks, workers, "verify", sizes)) as results:
        states = list(results)
    damaged = [shard for shard, state in zip(index.shards, states, strict=True) if state is None]
    rebuilt = [shards.offsets_name(shard.file) for shard, state in zip(index.shards, states, strict=True) if state]
    tasks = list(_tasks(folder, index, damaged, manifest)) if damaged else []
    sizes = [len(task.offsets) for task in tasks]
    with closing(run_tasks(make_shard, tasks, workers, "rebuild", sizes)) as made:
        rebuilt += [item.shard.file for item in made]
    return [*rebuilt, *_rewrite_sidecars(folder, index)]


def _mend_offsets(look: _Look) -> bool | None:
    """Whether the offsets of a shard had to be written again; None where the shard itself is not as recorded."""
    shard = look.shard
    path, name = look.folder / shard.file, look.folder / shards.offsets_name(shard.file)
    try:
        if not path.is_file() or path.stat().st_size != shard.bytes or files.sha256_file(path) != shard.sha256:
            return None
    except OSError:  # a disk that cannot read it back
        return None
    starts, crcs = list[int](), list[int]()
    with path.open("rb") as file:
        for offset, length in tfrecord.walk(file, shard.bytes, shard.file):
            file.seek(offset + length)
            starts.append(offset - tfrecord.HEADER_BYTES)
            crcs.append(int.from_bytes(file.read(tfrecord.FOOTER_BYTES), "little"))
    data = seal(OffsetsRecord(shard=shard, made_from=look.made_from, offsets=starts, crcs=crcs))
    if name.is_file() and name.read_bytes() == data:
        return False
    files.write_atomic(name, data)
    return True


def _own_names(index: IndexRecord) -> list[str]:
    """The files that a rebuild may write."""
    names = [shard.file for shard in index.shards]
    return [*names, *map(shards.offsets_name, names), *tfds.sidecar_files(index)]


def _remove_partials(folder: Path, index: IndexRecord) -> None:
    """Remove what a rebuild that was killed, now or before, left half written."""
    ours = set(_own_names(index))
    for name in files_below(folder):
        if files.whole_name(name) in ours:
            (folder / name).unlink(missing_ok=True)


def _tasks(folder: Path, index: IndexRecord, damaged: list[ShardRecord], manifest: Path | None) -> Iterator[ShardTask]:
    source = _manifest_folder(folder, index, manifest)
    record = read_manifest(source)
    places = sample_files.places_of(source, record)
    made_from = shards.origin(index.manifest.sha256, index.geometry)
    for split in dict.fromkeys(shard.split for shard in damaged):
        if split not in record.splits:
            raise RecordError(f"{folder}: has a split {split!r}, its manifest has none. Build the folder again.")
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
