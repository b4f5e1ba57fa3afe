"""convert: a raw dataset to a prepared one."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import msgspec

from segdata import __version__
from segdata.errors import JobFailed, OptionError
from segdata.formats import files, images
from segdata.formats.folders import (
    PARTS,
    OutputFolder,
    Plan,
    check_finished,
    check_output_folder,
    is_finished,
    output_folder,
    refuse_difference,
)
from segdata.labels import LabelMap
from segdata.parallel import Workers, check_workers, chunks, run_tasks
from segdata.records import (
    DATASET_JSON,
    REJECTED_JSONL,
    SAMPLES_JSONL,
    DatasetCounts,
    DatasetRecord,
    FileRecord,
    RejectedLine,
    SampleLine,
    SourceRecord,
    decode_lines,
    encode_lines,
    read_dataset,
    seal,
)
from segdata.sample_making import MadeSamples, SampleTask, make_samples, own_files, raw_sha256
from segdata.sources import Found, Source
from segdata.transforms.crop import Box, Crop

OWNED = r"(masks|mattes|images)/[^/]+\.(png|jpg)|samples\.jsonl|rejected\.jsonl"
_CHUNK = 16
_NOT_COUNTED = (  # listed, but nothing to train on was lost that one has, or wants
    "empty",
    "low-confidence",
    "no-image",
    "no-prefix",
    "no-suffix",
    "unsure",
)


@dataclass(frozen=True)
class ConvertOptions:
    """What holds for every source. ``max_rejected`` is a share; ``jobs`` None is one process per core.

    With ``crop`` every photo becomes several samples, new pictures cut from it. ``engine`` and ``address`` as in
    ``parallel.Workers``.
    """

    name: str
    unmapped: str = "reject"
    resize_masks: bool = False
    copy_images: bool = False
    max_rejected: float = 0.05
    jobs: int | None = None
    overwrite: bool = False
    crop: Crop | None = None
    engine: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", self.name):
            raise OptionError(f"--name {self.name!r}: expected snake_case of at most 100 letters, such as 'my_people'.")
        if self.unmapped not in ("reject", "ignore"):
            raise OptionError(f"--unmapped {self.unmapped!r}: expected reject or ignore.")
        if not 0 <= self.max_rejected <= 1:
            raise OptionError(f"--max-rejected {self.max_rejected}: expected a share, 0 to 1.")
        Workers(self.jobs, self.engine, self.address)  # checks itself


@dataclass(frozen=True)
class ConvertReport:
    """What was converted. ``notes`` counts samples that were changed by a stated rule (``turned by EXIF``: 3).

    ``confidence`` is the mean over samples that have one; None where none has.
    """

    out: Path
    name: str
    samples: int
    rejected: dict[str, int]
    class_pixels: dict[str, int] = field(default_factory=dict)
    ignored_pixels: int = 0
    confidence: float | None = None
    notes: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    would_fail: str = ""  # of a plan: why the run would end in an error
    was_there: bool = False  # an earlier run had done all of it


def plan(source: Source, out: Path, options: ConvertOptions) -> ConvertReport:
    """What ``convert`` would do: lists, pairs and reads annotations, decodes no picture, writes nothing.

    FolderError where ``out`` could not be written.
    """
    if is_finished(out, DATASET_JSON) and not options.overwrite:
        return _complete(out, source, options, _find(source))
    check_output_folder(out, DATASET_JSON, OWNED, options.overwrite, source.inputs, _identity(source, options))
    found = _find(source)
    refused = [
        RejectedLine(id=entry.id, reason=error.reason, detail=error.detail)
        for entry in found.entries
        if (error := entry.fault())
    ]
    rejected = sorted([*found.rejected, *refused], key=lambda line: (line.id, line.reason))
    photos = len(found.entries) - len(refused)
    return ConvertReport(
        out,
        options.name,
        photos * (options.crop.count if options.crop else 1),
        _by_reason(rejected),
        ignored=found.ignored,
        examples=_examples(rejected),
        would_fail=_too_many(photos, rejected, options.max_rejected),
    )


def check(source: Source, out: Path, options: ConvertOptions) -> None:
    """FolderError where ``convert`` could not write ``out``, which is finished, say; lists and changes nothing.

    For a source that takes long to make.
    """
    if not options.copy_images:
        files.relative_posix(source.image_root, out)  # a name that no JSON can hold is told before the work
    check_output_folder(out, DATASET_JSON, OWNED, options.overwrite, source.inputs, _identity(source, options))
    check_workers(Workers(options.jobs, options.engine, options.address))  # before anything that is there goes


def convert(source: Source, out: Path, options: ConvertOptions) -> ConvertReport:
    """Write the prepared dataset ``out`` from ``source``; what an earlier run of the same finished is kept.

    Bad samples go to rejected.jsonl. JobFailed where none is left, or the rejected share is over ``max_rejected``:
    the folder then stays unfinished, with rejected.jsonl in it. FolderError as ``output_folder`` raises it.
    """
    if options.engine != "local":  # workers elsewhere have another current folder
        source, out = _with_absolute_paths(source), out.absolute()
    if is_finished(out, DATASET_JSON) and not options.overwrite:
        return _complete(out, source, options, _find(source))
    check(source, out, options)
    found, identity = _find(source), _identity(source, options)
    raw = _raw_sha256(source, found)
    with output_folder(
        out, DATASET_JSON, OWNED, options.overwrite, source.inputs, f"convert {source.name}", identity
    ) as folder:
        if folder.is_whole:  # stopped when only tidying up was left
            folder.tidy()
            return _report_of(out, source, options, found)
        for name in ("masks", "mattes", "images", PARTS):
            (out / name).mkdir(exist_ok=True)
        tally = _Tally(source.label_map)
        samples = _write_samples(folder, _made(source, folder, options, found), tally, options)
        rejected = sorted([*found.rejected, *tally.rejected], key=lambda line: (line.id, line.reason))
        _write_rejected(folder, rejected)
        for name in ("masks", "mattes", "images"):
            if not any((out / name).iterdir()):
                (out / name).rmdir()
        photos = samples.count // (options.crop.count if options.crop else 1)
        problem = _too_many(photos, rejected, options.max_rejected)
        if problem:
            folder.fail()
            way = "mend them, or pass a larger --max-rejected" if photos else "mend them"
            raise JobFailed(f"{out}: {problem}. All are in {out / REJECTED_JSONL}; {way}.")
        files.sync_below(out)
        folder.finish(seal(_record(source, out, options, samples, rejected, tally, raw)))
    return _report(out, options, samples.count, rejected, tally, found)


def _made(source: Source, folder: OutputFolder, options: ConvertOptions, found: Found) -> Iterator[MadeSamples]:
    """What became of all entries, in their order."""
    codecs = images.codecs()
    tasks = [
        SampleTask(
            source,
            chunk,
            folder.path,
            options.unmapped == "ignore",
            options.resize_masks,
            options.copy_images,
            options.crop,
            folder.is_resumed,
            folder.run,
            codecs,
            options.engine != "local",
        )
        for chunk in chunks(found.entries, _CHUNK)
    ]
    sizes = [len(task.entries) for task in tasks]
    workers = Workers(options.jobs, options.engine, options.address)
    with closing(run_tasks(make_samples, tasks, workers, "convert", sizes, lambda made: made.stored_bytes)) as results:
        yield from folder.counted(results, sizes, "photos")


def _complete(out: Path, source: Source, options: ConvertOptions, found: Found) -> ConvertReport:
    """The report of a folder that was finished before. FolderError where it was converted from something else."""
    check_finished(out, DATASET_JSON, OWNED, source.inputs, f"convert {source.name}")
    return _report_of(out, source, options, found)


def _report_of(out: Path, source: Source, options: ConvertOptions, found: Found) -> ConvertReport:
    """The same, once it is known that only files of ours are there, and that nobody else is writing."""
    record, tally = read_dataset(out), _Tally(source.label_map)
    root = "." if options.copy_images else files.relative_posix(source.image_root, out)
    before = _described(record.name, record.source, record.label_map, record.image_root)
    origin = SourceRecord(
        name=source.name, options=_recorded_options(source, options), raw_sha256=_raw_sha256(source, found)
    )
    refuse_difference(out, before, _described(options.name, origin, source.label_map, root), "was made", "to keep it")
    for line in decode_lines(out / SAMPLES_JSONL, SampleLine):
        tally.add(line)
    rejected = list(decode_lines(out / REJECTED_JSONL, RejectedLine))
    return replace(_report(out, options, record.counts.samples, rejected, tally, found), was_there=True)


def _described(name: str, source: SourceRecord, labels: LabelMap | None, image_root: str) -> Plan:
    """What of a finished dataset tells whether it is the one that a command would make."""
    return {
        "source": source.name,
        "--name": name,
        **source.options,
        "label map of sha256": files.sha256_hex(msgspec.json.encode(labels)),
        "photos in": image_root,
        "raw files (names and sizes) of sha256": source.raw_sha256,
    }


def _raw_sha256(source: Source, found: Found) -> str:
    """Of all that a source found, half pairs too."""
    digest = hashlib.sha256(encode_lines(found.rejected))
    for chunk in chunks(found.entries, _CHUNK):
        digest.update(raw_sha256(source, chunk).encode())
    return digest.hexdigest()


def _report(
    out: Path, options: ConvertOptions, samples: int, rejected: list[RejectedLine], tally: _Tally, found: Found
) -> ConvertReport:
    return ConvertReport(
        out,
        options.name,
        samples,
        _by_reason(rejected),
        tally.class_pixels,
        tally.ignored_pixels,
        tally.confidence,
        {note: count for note, count in sorted(tally.notes.items()) if count},
        found.ignored,
        _examples(rejected),
    )


def _with_absolute_paths(source: Source) -> Source:
    """A source, which is a dataclass, as workers with another current folder see it."""
    values = {item.name: getattr(source, item.name) for item in fields(source)}  # type: ignore[arg-type]
    paths = {name: value.absolute() for name, value in values.items() if isinstance(value, Path)}
    return replace(source, **paths)  # type: ignore[type-var]


def _identity(source: Source, options: ConvertOptions) -> Plan:
    """What decides the bytes of a dataset; stays in the folder only while it is in the making."""
    return {
        "input": ", ".join(files.printable(os.path.abspath(path)) for path in source.inputs),
        "--name": options.name,
        **_recorded_options(source, options),
        "label map of sha256": files.sha256_hex(msgspec.json.encode(source.label_map)),
        "segdata": __version__,
        "codecs": images.codecs(),
    }


def _find(source: Source) -> Found:
    found = source.find()
    entries = sorted(found.entries, key=lambda entry: entry.id)
    if not entries and not found.rejected:
        raise JobFailed(f"{source.image_root}: no photo found, expected the layout of {source.name}.")
    return Found(entries, found.rejected, found.ignored)


class _Tally:
    """Counts over the samples, kept while they stream by."""

    def __init__(self, labels: LabelMap | None) -> None:
        self._crops: set[tuple[str, Box]] = set()
        self.class_pixels = dict.fromkeys(labels.names, 0) if labels else {}
        self.ignored_pixels = 0
        self._confidences = 0, 0.0  # how many, and their sum
        self.notes: Counter[str] = Counter()
        self.rejected: list[RejectedLine] = []

    @property
    def confidence(self) -> float | None:
        """The mean over the samples that have one."""
        count, total = self._confidences
        return round(total / count, 6) if count else None

    def add(self, line: SampleLine) -> None:
        for name, count in (line.class_pixels or {}).items():
            self.class_pixels[name] += count
        if line.confidence is not None:
            self._confidences = self._confidences[0] + 1, self._confidences[1] + line.confidence
        if line.class_pixels and len(line.class_pixels) > 1 and not any(list(line.class_pixels.values())[1:]):
            self.notes["masks of background alone"] += 1
        ignored = line.height * line.width - sum(line.class_pixels.values()) if line.class_pixels else 0
        self.ignored_pixels += ignored
        if ignored:
            self.notes["masks with ignored pixels (255)"] += 1
        if line.crop and line.id != f"{line.group}-0":  # what is noted of a photo counts once
            self._add_crop(line)
            return
        self._add_crop(line)
        if line.exif_orientation:
            self.notes["photos turned by their EXIF orientation"] += 1
        if line.reencoded_from:
            self.notes["photos stored anew as PNG"] += 1
        if line.mask_resized_from:
            self.notes["masks resized to their photo"] += 1

    def _add_crop(self, line: SampleLine) -> None:
        if line.enlarged_from:
            self.notes["crops enlarged, since the photo is smaller"] += 1
        if line.crop:
            window = (line.group, line.crop)
            self.notes["crops equal to another of their photo"] += window in self._crops
            self._crops.add(window)


def _write_samples(
    folder: OutputFolder, made: Iterator[MadeSamples], tally: _Tally, options: ConvertOptions
) -> FileRecord:
    """samples.jsonl; of a folder that an earlier run began, what no line names any more is removed."""
    digest, count, named = hashlib.sha256(), 0, {SAMPLES_JSONL, REJECTED_JSONL}
    with closing(made), files.atomic_file(folder.path / SAMPLES_JSONL) as file:  # type: ignore[type-var]
        results: Iterable[MadeSamples] = made
        if options.crop:  # photos come in the order of their ids, which is not that of their crops'
            results = _in_order_of_crops(made)
        for chunk in results:
            tally.rejected += chunk.rejected
            for line in chunk.lines:
                tally.add(line)
                if folder.is_resumed:
                    named.update(own_files(line, options.copy_images))
            data = encode_lines(chunk.lines)
            file.write(data)
            digest.update(data)
            count += len(chunk.lines)
    if folder.is_resumed:
        folder.remove_all_but(named)
    return FileRecord(file=SAMPLES_JSONL, count=count, sha256=digest.hexdigest())


def _in_order_of_crops(made: Iterable[MadeSamples]) -> list[MadeSamples]:
    found = list(made)
    lines = sorted((line for chunk in found for line in chunk.lines), key=lambda line: line.id)
    return [MadeSamples(raw_states=[], lines=lines, rejected=[line for chunk in found for line in chunk.rejected])]


def _write_rejected(folder: OutputFolder, rejected: list[RejectedLine]) -> None:
    files.write_atomic(folder.path / REJECTED_JSONL, encode_lines(rejected))


def _record(
    source: Source,
    out: Path,
    options: ConvertOptions,
    samples: FileRecord,
    rejected: list[RejectedLine],
    tally: _Tally,
    raw: str,
) -> DatasetRecord:
    return DatasetRecord(
        name=options.name,
        source=SourceRecord(name=source.name, options=_recorded_options(source, options), raw_sha256=raw),
        label_map=source.label_map,
        image_root="." if options.copy_images else files.relative_posix(source.image_root, out),
        counts=DatasetCounts(samples=samples.count, rejected=_by_reason(rejected), class_pixels=tally.class_pixels),
        samples=samples,
        rejected=FileRecord(file=REJECTED_JSONL, count=len(rejected), sha256=files.sha256_hex(encode_lines(rejected))),
    )


def _recorded_options(source: Source, options: ConvertOptions) -> dict[str, str | int | float | bool | None]:
    recorded = source.options() | {
        "unmapped": options.unmapped,
        "resize_masks": options.resize_masks,
        "copy_images": options.copy_images,
    }
    if options.crop:
        crop = options.crop
        recorded |= {"crops": crop.count, "size": crop.side_px, "seed": crop.seed, "min_person": crop.min_person}
    return recorded


def _by_reason(rejected: Iterable[RejectedLine]) -> dict[str, int]:
    return dict(sorted(Counter(line.reason for line in rejected).items()))


def _examples(rejected: Iterable[RejectedLine]) -> dict[str, str]:
    """The first rejected line of each reason, for the summary."""
    first: dict[str, str] = {}
    for line in rejected:
        first.setdefault(line.reason, f"{line.id}: {line.detail}")
    return first


def _too_many(samples: int, rejected: list[RejectedLine], max_rejected: float) -> str:
    """What is wrong where of ``samples`` photos and those rejected too many are; the crops of a photo count once."""
    counted = [line for line in rejected if line.reason not in _NOT_COUNTED]
    share = len(counted) / max(1, samples + len(counted))
    if samples and share <= max_rejected:
        return ""
    common = Counter(line.reason for line in counted or rejected).most_common(3)
    examples = _examples(rejected)
    reasons = "; ".join(f"{count} {reason} (first: {examples[reason]})" for reason, count in common)
    if not samples:
        return f"no sample is left: {reasons}"
    found = f"{len(counted)} of {samples + len(counted)} samples rejected ({share:.1%})"
    return f"{found}, more than --max-rejected {max_rejected}: {reasons}"
