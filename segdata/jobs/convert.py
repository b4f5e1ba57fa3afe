"""convert: a raw dataset to a prepared one."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused, JobFailed, OptionError
from segdata.formats import files, images, raw_pictures
from segdata.formats.folders import OutputFolder, check_output_folder, output_folder
from segdata.labels import IGNORE_INDEX, LabelMap
from segdata.parallel import chunks, job_count, run_tasks
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
    encode_lines,
    is_inside,
    seal,
)
from segdata.sources import Entry, Found, Source
from segdata.transforms.crop import Box, Crop
from segdata.transforms.relabel import Relabel
from segdata.transforms.resize import FitToPhoto, resize_nearest, resize_smooth

OWNED = r"(masks|mattes|images)/[^/]+\.(png|jpg)|samples\.jsonl|rejected\.jsonl"
RawIds = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
_CHUNK = 16
_NOT_COUNTED = ("empty", "no-image", "no-prefix", "no-suffix")  # listed, but nothing to train on was lost that one has


@dataclass(frozen=True)
class ConvertOptions:
    """What holds for every source. ``max_rejected`` is a share; ``jobs`` None is one process per core.

    With ``crop`` every photo becomes several samples, new pictures cut from it.
    """

    name: str
    unmapped: str = "reject"
    resize_masks: bool = False
    copy_images: bool = False
    max_rejected: float = 0.05
    jobs: int | None = None
    overwrite: bool = False
    crop: Crop | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", self.name):
            raise OptionError(f"--name {self.name!r}: expected snake_case of at most 100 letters, such as 'my_people'.")
        if self.unmapped not in ("reject", "ignore"):
            raise OptionError(f"--unmapped {self.unmapped!r}: expected reject or ignore.")
        if not 0 <= self.max_rejected <= 1:
            raise OptionError(f"--max-rejected {self.max_rejected}: expected a share, 0 to 1.")
        job_count(self.jobs)  # before anything is removed


@dataclass(frozen=True)
class ConvertReport:
    """What was converted. ``notes`` counts samples that were changed by a stated rule (``turned by EXIF``: 3)."""

    out: Path
    name: str
    samples: int
    rejected: dict[str, int]
    class_pixels: dict[str, int] = field(default_factory=dict)
    ignored_pixels: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    would_fail: str = ""  # of a plan: why the run would end in an error


@dataclass(frozen=True)
class _Task:
    source: Source
    entries: Sequence[Entry]
    out: Path
    options: ConvertOptions

    @cached_property
    def relabel(self) -> Relabel | None:
        """Raw ids to class ids; None for mattes."""
        labels = self.source.label_map
        return Relabel(labels, self.options.unmapped == "ignore") if labels else None


def plan(source: Source, out: Path, options: ConvertOptions) -> ConvertReport:
    """What ``convert`` would do: lists, pairs and reads annotations, decodes no picture, writes nothing.

    FolderError where ``out`` could not be written.
    """
    check_output_folder(out, DATASET_JSON, OWNED, options.overwrite, source.inputs)
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


def convert(source: Source, out: Path, options: ConvertOptions) -> ConvertReport:
    """Write the prepared dataset ``out`` from ``source``.

    Bad samples go to rejected.jsonl. JobFailed where none is left, or the rejected share is over ``max_rejected``:
    the folder then stays unfinished, with rejected.jsonl in it. FolderError as ``output_folder`` raises it.
    """
    found = _find(source)
    if not options.copy_images:
        files.relative_posix(source.image_root, out)  # a name that no JSON can hold is told before the work
    with output_folder(out, DATASET_JSON, OWNED, options.overwrite, source.inputs) as folder:
        for name in ("masks", "mattes", "images"):
            (out / name).mkdir(exist_ok=True)
        tasks = [_Task(source, chunk, out, options) for chunk in chunks(found.entries, _CHUNK)]
        results = run_tasks(_convert_chunk, tasks, options.jobs, "convert", [len(task.entries) for task in tasks])
        tally = _Tally(source.label_map)
        if options.crop:  # photos come in the order of their ids, which is not that of their crops'
            results = iter([sorted((line for lines in results for line in lines), key=lambda line: line.id)])
        samples = _write_samples(folder, results, tally)
        rejected = sorted([*found.rejected, *tally.rejected], key=lambda line: (line.id, line.reason))
        _write_rejected(folder, rejected)
        for name in ("masks", "mattes", "images"):
            if not any((out / name).iterdir()):
                (out / name).rmdir()
        photos = samples.count // (options.crop.count if options.crop else 1)
        _refuse_too_many(out, photos, rejected, options.max_rejected)
        folder.finish(seal(_record(source, out, options, samples, rejected, tally)))
    return ConvertReport(
        out,
        options.name,
        samples.count,
        _by_reason(rejected),
        tally.class_pixels,
        tally.ignored_pixels,
        {note: count for note, count in sorted(tally.notes.items()) if count},
        found.ignored,
        _examples(rejected),
    )


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
        self.notes: Counter[str] = Counter()
        self.rejected: list[RejectedLine] = []

    def add(self, line: SampleLine) -> None:
        for name, count in (line.class_pixels or {}).items():
            self.class_pixels[name] += count
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
    folder: OutputFolder, results: Iterable[list[SampleLine | RejectedLine]], tally: _Tally
) -> FileRecord:
    digest, count = hashlib.sha256(), 0
    with files.atomic_file(folder.path / SAMPLES_JSONL) as file:
        for result in results:
            lines = [line for line in result if isinstance(line, SampleLine)]
            tally.rejected += [line for line in result if isinstance(line, RejectedLine)]
            for line in lines:
                tally.add(line)
            data = encode_lines(lines)
            file.write(data)
            digest.update(data)
            count += len(lines)
    return FileRecord(file=SAMPLES_JSONL, count=count, sha256=digest.hexdigest())


def _write_rejected(folder: OutputFolder, rejected: list[RejectedLine]) -> None:
    files.write_atomic(folder.path / REJECTED_JSONL, encode_lines(rejected))


def _record(
    source: Source,
    out: Path,
    options: ConvertOptions,
    samples: FileRecord,
    rejected: list[RejectedLine],
    tally: _Tally,
) -> DatasetRecord:
    recorded = source.options() | {
        "unmapped": options.unmapped,
        "resize_masks": options.resize_masks,
        "copy_images": options.copy_images,
    }
    if options.crop:
        crop = options.crop
        recorded |= {"crops": crop.count, "size": crop.side_px, "seed": crop.seed, "min_person": crop.min_person}
    return DatasetRecord(
        name=options.name,
        source=SourceRecord(name=source.name, options=recorded),
        label_map=source.label_map,
        image_root="." if options.copy_images else files.relative_posix(source.image_root, out),
        counts=DatasetCounts(samples=samples.count, rejected=_by_reason(rejected), class_pixels=tally.class_pixels),
        samples=samples,
        rejected=FileRecord(file=REJECTED_JSONL, count=len(rejected), sha256=files.sha256_hex(encode_lines(rejected))),
    )


def _by_reason(rejected: Iterable[RejectedLine]) -> dict[str, int]:
    return dict(sorted(Counter(line.reason for line in rejected).items()))


def _examples(rejected: Iterable[RejectedLine]) -> dict[str, str]:
    """The first rejected line of each reason, for the summary."""
    first: dict[str, str] = {}
    for line in rejected:
        first.setdefault(line.reason, f"{line.id}: {line.detail}")
    return first


def _refuse_too_many(out: Path, samples: int, rejected: list[RejectedLine], max_rejected: float) -> None:
    problem = _too_many(samples, rejected, max_rejected)
    if problem:
        way = "mend them, or pass a larger --max-rejected" if samples else "mend them"
        raise JobFailed(f"{out}: {problem}. All are in {out / REJECTED_JSONL}; {way}.")


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


# ---- in the worker processes -----------------------------------------------------------------------------------------


def _convert_chunk(task: _Task) -> list[SampleLine | RejectedLine]:
    images.use_one_thread()
    return [line for entry in task.entries for line in _convert_or_reject(task, entry)]


def _convert_or_reject(task: _Task, entry: Entry) -> Sequence[SampleLine | RejectedLine]:
    try:
        return _convert_one(task, entry)
    except ImageRefused as error:
        return [RejectedLine(id=entry.id, reason=error.reason, detail=error.detail)]


@dataclass(frozen=True)
class _Read:
    """A photo with its raw bytes, and its label of the same size: class ids, or alpha where there is no label map."""

    raw: bytes
    photo: raw_pictures.Photo
    label: RawIds
    resized_from: tuple[int, int] | None

    @cached_property
    def sha256(self) -> str:
        """Of the raw bytes."""
        return files.sha256_hex(self.raw)


def _convert_one(task: _Task, entry: Entry) -> list[SampleLine]:
    read, crop = _read(task, entry), task.options.crop
    if crop is None:
        return [_whole(task, entry, read)]
    pixels = images.decode_stored(read.photo.data)
    boxes = crop.boxes(entry.id, _person(read.label, task.relabel is None))
    return [
        _cut(task, entry, read, pixels, f"{entry.id}-{number}", box, crop.side_px) for number, box in enumerate(boxes)
    ]


def _read(task: _Task, entry: Entry) -> _Read:
    with _naming(entry.image):
        raw = files.read_regular(task.source.image_root / entry.image)
        photo = raw_pictures.read_photo(raw)
    with _naming(entry.label or entry.image):
        values = task.source.annotate(entry).values
        fit = FitToPhoto(task.options.resize_masks)
        fitted = fit(values, photo.header.height, photo.header.width, photo.orientation, smooth=task.relabel is None)
        resized_from = None if fitted is values else (values.shape[0], values.shape[1])
        return _Read(raw, photo, fitted if task.relabel is None else task.relabel(fitted)[0], resized_from)


def _person(label: RawIds, is_matte: bool) -> npt.NDArray[np.bool_]:
    """(H, W) what a crop must hold enough of: any class but background, or alpha of a half and more."""
    half = (np.iinfo(label.dtype).max + 1) // 2
    found: npt.NDArray[np.bool_] = label >= half if is_matte else (label != 0) & (label != IGNORE_INDEX)
    return found


def _whole(task: _Task, entry: Entry, read: _Read) -> SampleLine:
    return SampleLine(
        id=entry.id,
        group=entry.group,
        height=read.photo.header.height,
        width=read.photo.header.width,
        mask_resized_from=read.resized_from,
        **_store_photo(task, entry, read),
        **_store_label(task, entry.id, read.label),
        **_notes(entry, read),
    )


def _cut(task: _Task, entry: Entry, read: _Read, pixels: RawIds, name: str, box: Box, side: int) -> SampleLine:
    """One sample cut from a photo: area average for the picture and for alpha, nearest neighbour for class ids."""
    x, y, w, h = box
    window = (slice(y, y + h), slice(x, x + w))
    picture = resize_smooth(pixels[window], side, side)
    resize = resize_smooth if task.relabel is None else resize_nearest
    is_jpeg = read.raw.startswith(images.JPEG_MAGIC)  # lossy once more, but a fifth of the size; others stay lossless
    data = images.encode_jpeg(picture) if is_jpeg else images.encode_png(picture)
    path = f"images/{name}.{'jpg' if is_jpeg else 'png'}"
    (task.out / path).write_bytes(data)
    return SampleLine(
        id=name,
        group=entry.group,
        image=path,
        image_root=None if task.options.copy_images else ".",
        height=side,
        width=side,
        image_sha256=files.sha256_hex(data),
        image_bytes=len(data),
        source_sha256=read.sha256,
        crop=box,
        enlarged_from=(h, w) if h < side else None,
        mask_resized_from=read.resized_from,
        **_store_label(task, name, resize(read.label[window], side, side)),
        **_notes(entry, read),
    )


def _notes(entry: Entry, read: _Read) -> dict[str, Any]:
    """What a sample line says of where its photo is from."""
    turn = read.photo.orientation
    return {"license": entry.license, "exif_orientation": turn if turn != 1 else None}


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Put the raw file's path before whatever is refused inside."""
    try:
        yield
    except ImageRefused as error:
        raise ImageRefused(error.reason, f"{path}: {error.detail}") from error


def _store_label(task: _Task, sample: str, label: RawIds) -> dict[str, Any]:
    """Write a mask of class ids, or without a label map a matte; the fields of the sample line that say so."""
    if task.relabel is None:
        return _store(task.out, "matte", sample, images.encode_png(label))
    counts = images.count_values(label)
    pixels = {name: int(counts[i]) for i, name in enumerate(task.relabel.label_map.names)}
    return _store(task.out, "mask", sample, images.encode_mask(label.astype(np.uint8, copy=False))) | {
        "class_pixels": pixels
    }


def _store(out: Path, kind: str, sample: str, data: bytes) -> dict[str, Any]:
    path = f"{kind}s/{sample}.png"
    (out / path).write_bytes(data)
    return {kind: path, f"{kind}_sha256": files.sha256_hex(data), f"{kind}_bytes": len(data)}


def _store_photo(task: _Task, entry: Entry, read: _Read) -> dict[str, Any]:
    """Where the photo lies: in the raw folder as it was, or in the dataset's own where it was changed or is copied."""
    data = read.photo.data
    fields: dict[str, Any] = {"image_sha256": files.sha256_hex(data), "image_bytes": len(data)}
    can_stay = read.photo.reencoded_from is None and is_inside(entry.image)  # "a:b.jpg" reads as a drive
    if can_stay and not task.options.copy_images:
        return fields | {"image": entry.image}
    if read.photo.reencoded_from is not None:
        fields |= {"source_sha256": read.sha256, "reencoded_from": read.photo.reencoded_from}
    path = f"images/{entry.id}.{'jpg' if read.photo.header.format == 'jpeg' else 'png'}"
    (task.out / path).write_bytes(data)
    return fields | {"image": path} | ({} if task.options.copy_images else {"image_root": "."})
