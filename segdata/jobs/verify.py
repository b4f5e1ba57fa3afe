"""verify: read every byte of a prepared dataset, a manifest or shards, and say what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from segdata import sample_files, shards, splits
from segdata.checks import (
    Fault,
    SamplesTask,
    ShardCheck,
    ShardFound,
    absence,
    check_index,
    check_samples,
    check_shard,
    fingerprint,
)
from segdata.errors import OptionError, RecordError, SegdataError
from segdata.formats import files, tfds
from segdata.formats.folders import LOCK, MARKER, files_below
from segdata.labels import LabelMap
from segdata.parallel import Workers, chunks, run_tasks
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
    decode_lines,
    is_inside,
    kind_of,
    read_dataset,
    read_index,
    read_manifest,
)
from segdata.sample_files import Places
from segdata.sample_making import own_files
from segdata.splits import SplitKey

_CHUNK = 32
_HARMLESS = (MARKER, LOCK)
_KINDS = {DATASET_JSON: "dataset", MANIFEST_JSON: "manifest", INDEX_JSON: "shards"}


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
        checked, faults = 0, [Fault(file=kind, what=str(error).removeprefix(f"{path / kind}: "))]
    return VerifyReport(path, _KINDS[kind], checked, faults)


# ---- files -----------------------------------------------------------------------------------------------------------


def _extra_files(folder: Path, known: Iterable[str]) -> Iterator[Fault]:
    expected = {*known, *_HARMLESS}
    for name in files_below(folder):
        if files.whole_name(name) in expected:
            yield Fault(
                file=name, what="is left from a command that was killed, expected nothing else there. Remove it."
            )
        elif name not in expected:
            yield Fault(
                file=files.printable(name), what="is not of this folder, expected nothing else there. Move it away."
            )


def _check_file(folder: Path, recorded: FileRecord, where: str) -> Iterator[Fault]:
    path = folder / recorded.file
    if not is_inside(recorded.file) or not path.is_file():
        yield Fault(file=recorded.file, what=f"{absence(path)}, expected since {where} names it")
        return
    found = files.sha256_file(path)
    if found != recorded.sha256:
        yield Fault(file=recorded.file, what=f"changed: sha256 {found}, expected {recorded.sha256}")
    with path.open("rb") as file:
        lines = sum(1 for _ in file)
    if lines != recorded.count:
        yield Fault(file=recorded.file, what=f"has {lines} lines, expected {recorded.count}")


# ---- prepared datasets -----------------------------------------------------------------------------------------------


def _verify_dataset(folder: Path, jobs: int | None) -> tuple[int, list[Fault]]:
    record = read_dataset(folder)
    faults = [*_check_file(folder, record.samples, DATASET_JSON), *_check_file(folder, record.rejected, DATASET_JSON)]
    if faults:  # lines that are not the recorded ones would only repeat this, sample by sample
        return 0, faults
    lines = list(sample_files.sample_lines(folder))
    faults += _check_lines(lines, record, folder)
    faults += _check_samples(lines, sample_files.place_of(folder, record), record.label_map, jobs)
    own = [path for line in lines for path in own_files(line, record.image_root == ".")]
    faults += _extra_files(folder, [DATASET_JSON, record.samples.file, record.rejected.file, *own])
    return len(lines), faults


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


def _check_samples(
    lines: Sequence[SampleLine], places: Places, labels: LabelMap | None, jobs: int | None
) -> Iterator[Fault]:
    tasks = [SamplesTask(chunk, places, labels) for chunk in chunks(lines, _CHUNK)]
    for found in run_tasks(check_samples, tasks, Workers(jobs), "verify", [len(task.lines) for task in tasks]):
        yield from found


# ---- manifests -------------------------------------------------------------------------------------------------------


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


# ---- shards ----------------------------------------------------------------------------------------------------------


def _verify_shards(folder: Path, jobs: int | None) -> tuple[int, list[Fault]]:
    index = read_index(folder)
    faults = list(check_index(index))
    if faults:
        return 0, faults
    tasks = [ShardCheck(folder, shard, index) for shard in index.shards]
    found = list(run_tasks(check_shard, tasks, Workers(jobs), "verify", [shard.records for shard in index.shards]))
    faults += _check_sidecars(folder, index)
    if not (folder / shards.OFFSETS).is_dir():
        what = absence(folder / shards.OFFSETS)
        faults.append(Fault(file=shards.OFFSETS, what=what, expected="a folder. Run `segdata rebuild`"))
    faults += _extra_shards(folder, index)
    faults += _check_places(index, found)
    faults += [fault for result in found for fault in result.faults]
    faults += _check_order(index, found)
    if not any(result.faults for result in found):  # what is damaged is not the manifest's
        faults += _check_manifest(folder, index, found)
    return sum(sample is not None for result in found for sample in result.ids), faults


def _check_sidecars(folder: Path, index: IndexRecord) -> Iterator[Fault]:
    for name, expected in tfds.sidecar_files(index).items():
        path = folder / name
        if not path.is_file():
            yield Fault(file=name, what=absence(path), expected="what follows from index.json")
        elif path.read_bytes() != expected:
            yield Fault(file=name, what="changed", expected="what follows from index.json")


def _extra_shards(folder: Path, index: IndexRecord) -> Iterator[Fault]:
    """Files that are not of this folder; of those that hold a shard's bytes, which shard it is."""
    names = [shard.file for shard in index.shards]
    known = [INDEX_JSON, *tfds.sidecar_files(index), *names, *map(shards.offsets_name, names)]
    by_size = {shard.bytes for shard in index.shards}
    for fault in _extra_files(folder, known):
        path = folder / fault.file
        if path.is_file() and path.stat().st_size in by_size:
            digest = files.sha256_file(path)
            of = next((shard.file for shard in index.shards if shard.sha256 == digest), None)
            if of is not None:
                yield Fault(file=fault.file, what=f"holds the bytes of {of}", expected="them there alone")
                continue
        yield fault


def _check_places(index: IndexRecord, found: Sequence[ShardFound]) -> Iterator[Fault]:
    """Shards that hold the bytes of another one: swapped, or copied over."""
    by_digest = {shard.sha256: shard.file for shard in index.shards}
    for shard, result in zip(index.shards, found, strict=True):
        if result.sha256 in by_digest and result.sha256 != shard.sha256:
            yield Fault(file=shard.file, what=f"holds the bytes of {by_digest[result.sha256]}", expected="its own")


def _check_order(index: IndexRecord, found: Sequence[ShardFound]) -> Iterator[Fault]:
    """Each id once in the folder, and the records of a split in the order of their hashes.

    Not asked of shards that hold another's bytes, nor the order of those that changed: more was said of them.
    """
    digests = {shard.sha256 for shard in index.shards}
    seen: dict[str, str] = {}
    last: dict[str, bytes] = {}
    for shard, result in zip(index.shards, found, strict=True):
        is_same = result.sha256 == shard.sha256
        if not is_same and result.sha256 in digests:
            continue
        for number, sample in enumerate(result.ids):
            if sample is None:
                continue
            if sample in seen:
                where = "here" if seen[sample] == shard.file else f"in {seen[sample]}"
                yield _fault_of(shard.file, result, number, f"stands {where} too", "each sample once")
            seen[sample] = shard.file
            key = splits.order_key(sample)
            if is_same and key < last.get(shard.split, b""):
                yield _fault_of(
                    shard.file, result, number, "is not in its place", "records in the order of their hashes"
                )
            last[shard.split] = key if is_same else b""


def _check_manifest(folder: Path, index: IndexRecord, found: Sequence[ShardFound]) -> Iterator[Fault]:
    """Each sample of the manifest as its line says, and no other, where that is still there as it was."""
    path = folder / index.manifest.path if index.manifest.path is not None else None
    if path is None or not (path / MANIFEST_JSON).is_file():
        return
    if files.sha256_file(path / MANIFEST_JSON) != index.manifest.sha256:
        return
    record = read_manifest(path)
    if (index.name, index.label_map) != (record.name, record.label_map):
        yield Fault(file=INDEX_JSON, what="has another name or label map", expected=f"those of {index.manifest.path}")
    for split in dict.fromkeys([*record.splits, *(shard.split for shard in index.shards)]):
        wanted: dict[str, bytes] = {}
        if split in record.splits:
            damage = [fault.what for fault in _check_file(path, record.splits[split], MANIFEST_JSON)]
            if damage:
                yield Fault(file=f"{index.manifest.path}/{record.splits[split].file}", what=damage[0])
                continue
            lines = sample_files.split_lines(path, record, split)
            wanted = {line.id: fingerprint(line, index.geometry.size is not None) for line in lines}
        for shard, result in zip(index.shards, found, strict=True):
            if shard.split == split:
                yield from _check_lines_of(shard.file, result, wanted)
        for sample in sorted(wanted):
            yield Fault(file=INDEX_JSON, sample=sample, what=f"is in the manifest, and in no shard of {split!r}")


def _check_lines_of(file: str, found: ShardFound, wanted: dict[str, bytes]) -> Iterator[Fault]:
    """What of a shard is not as in the manifest; takes what was found out of ``wanted``."""
    for number, (sample, facts) in enumerate(zip(found.ids, found.fingerprints, strict=True)):
        line = wanted.pop(str(sample), None)
        if line != facts:
            what = "is not of this split" if line is None else "has another photo, mask, group or name"
            yield _fault_of(file, found, number, what, "what the manifest says")


def _fault_of(file: str, found: ShardFound, number: int, what: str, expected: str) -> Fault:
    sample = files.cut(str(found.ids[number]))
    return Fault(file=file, record=number, offset=found.starts[number], sample=sample, what=what, expected=expected)
