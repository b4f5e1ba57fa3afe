"""convert: a raw dataset to a prepared one."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused, JobFailed, OptionError
from segdata.formats import files, images, raw_pictures
from segdata.formats.folders import OutputFolder, output_folder
from segdata.labels import LabelMap
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
    seal,
)
from segdata.sources import Entry, Found, Source
from segdata.transforms.relabel import Relabel
from segdata.transforms.resize import FitToPhoto

OWNED = r"(masks|mattes|images)/[^/]+\.(png|jpg)|samples\.jsonl|rejected\.jsonl"
RawIds = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
_CHUNK = 16
_NOT_COUNTED = ("no-image", "no-suffix")  # masks without a photo: listed, but nothing to train on was lost


@dataclass(frozen=True)
class ConvertOptions:
    """What holds for every source. ``max_rejected`` is a share; ``jobs`` None is one process per core."""

    name: str
    unmapped: str = "reject"
    resize_masks: bool = False
    copy_images: bool = False
    max_rejected: float = 0.05
    jobs: int | None = None
    overwrite: bool = False

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


@dataclass(frozen=True)
class _Task:
    source: Source
    entries: Sequence[Entry]
    out: Path
    options: ConvertOptions


def plan(source: Source, out: Path, options: ConvertOptions) -> ConvertReport:
    """What ``convert`` would do: lists and pairs, decodes no picture, writes nothing."""
    found = _find(source)
    return ConvertReport(
        out,
        options.name,
        len(found.entries),
        _by_reason(found.rejected),
        {},
        0,
        {},
        found.ignored,
        _examples(found.rejected),
    )


def convert(source: Source, out: Path, options: ConvertOptions) -> ConvertReport:
    """Write the prepared dataset ``out`` from ``source``.

    Bad samples go to rejected.jsonl. JobFailed where none is left, or the rejected share is over ``max_rejected``:
    the folder then stays unfinished, with rejected.jsonl in it. FolderError as ``output_folder`` raises it.
    """
    found = _find(source)
    with output_folder(out, DATASET_JSON, OWNED, options.overwrite, source.inputs) as folder:
        for name in ("masks", "mattes", "images"):
            (out / name).mkdir(exist_ok=True)
        tasks = [_Task(source, chunk, out, options) for chunk in chunks(found.entries, _CHUNK)]
        results = run_tasks(_convert_chunk, tasks, options.jobs, "convert", [len(task.entries) for task in tasks])
        tally = _Tally(source.label_map)
        samples = _write_samples(folder, results, tally)
        rejected = sorted([*found.rejected, *tally.rejected], key=lambda line: (line.id, line.reason))
        _write_rejected(folder, rejected)
        for name in ("masks", "mattes", "images"):
            if not any((out / name).iterdir()):
                (out / name).rmdir()
        _refuse_too_many(out, samples.count, rejected, options.max_rejected)
        folder.finish(seal(_record(source, out, options, samples, rejected, tally)))
    return ConvertReport(
        out,
        options.name,
        samples.count,
        _by_reason(rejected),
        tally.class_pixels,
        tally.ignored_pixels,
        dict(sorted(tally.notes.items())),
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
        self.class_pixels = dict.fromkeys(labels.names, 0) if labels else {}
        self.ignored_pixels = 0
        self.notes: Counter[str] = Counter()
        self.rejected: list[RejectedLine] = []

    def add(self, line: SampleLine) -> None:
        for name, count in (line.class_pixels or {}).items():
            self.class_pixels[name] += count
        ignored = line.height * line.width - sum(line.class_pixels.values()) if line.class_pixels else 0
        self.ignored_pixels += ignored
        if ignored:
            self.notes["masks with ignored pixels (255)"] += 1
        if line.exif_orientation:
            self.notes["photos turned by their EXIF orientation"] += 1
        if line.reencoded_from:
            self.notes["photos stored anew as PNG"] += 1
        if line.mask_resized_from:
            self.notes["masks resized to their photo"] += 1


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
    counted = [line for line in rejected if line.reason not in _NOT_COUNTED]
    share = len(counted) / max(1, samples + len(counted))
    if samples and share <= max_rejected:
        return
    common = Counter(line.reason for line in counted or rejected).most_common(3)
    examples = _examples(rejected)
    reasons = "; ".join(f"{count} {reason} (first: {examples[reason]})" for reason, count in common)
    what = (
        f"{len(counted)} of {samples + len(counted)} samples rejected ({share:.1%})" if samples else "no sample is left"
    )
    limit = f", more than --max-rejected {max_rejected}" if samples else ""
    raise JobFailed(f"{out}: {what}{limit}: {reasons}. All are in {out / REJECTED_JSONL}; mend them, or allow them.")


# ---- in the worker processes -----------------------------------------------------------------------------------------


def _convert_chunk(task: _Task) -> list[SampleLine | RejectedLine]:
    images.use_one_thread()
    relabel = Relabel(task.source.label_map, task.options.unmapped == "ignore") if task.source.label_map else None
    return [_convert_or_reject(task, entry, relabel) for entry in task.entries]


def _convert_or_reject(task: _Task, entry: Entry, relabel: Relabel | None) -> SampleLine | RejectedLine:
    try:
        return _convert_one(task, entry, relabel)
    except ImageRefused as error:
        return RejectedLine(id=entry.id, reason=error.reason, detail=error.detail)


def _convert_one(task: _Task, entry: Entry, relabel: Relabel | None) -> SampleLine:
    with _naming(entry.image):
        photo = raw_pictures.read_photo(files.read_regular(task.source.image_root / entry.image))
    with _naming(entry.label):
        values = task.source.annotate(entry).values
        height, width = photo.header.height, photo.header.width
        fit = FitToPhoto(task.options.resize_masks)
        fitted = fit(values, height, width, photo.orientation, smooth=relabel is None)
        stored = (
            _store_matte(task.out, entry.id, fitted) if relabel is None else _store_mask(task, entry, fitted, relabel)
        )
    return SampleLine(
        id=entry.id,
        group=entry.group,
        height=height,
        width=width,
        exif_orientation=photo.orientation if photo.orientation != 1 else None,
        reencoded_from=photo.reencoded_from,
        mask_resized_from=None if fitted is values else (values.shape[0], values.shape[1]),
        **_store_photo(task, entry, photo),
        **stored,
    )


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Put the raw file's path before whatever is refused inside."""
    try:
        yield
    except ImageRefused as error:
        raise ImageRefused(error.reason, f"{path}: {error.detail}") from error


def _store_mask(task: _Task, entry: Entry, ids: RawIds, relabel: Relabel) -> dict[str, Any]:
    mask, counts = relabel(ids)
    data = images.encode_mask(mask)
    path = f"masks/{entry.id}.png"
    (task.out / path).write_bytes(data)
    pixels = {name: int(counts[i]) for i, name in enumerate(relabel.label_map.names)}
    return {"mask": path, "mask_sha256": files.sha256_hex(data), "mask_bytes": len(data), "class_pixels": pixels}


def _store_matte(out: Path, sample: str, alpha: RawIds) -> dict[str, Any]:
    data = images.encode_png(alpha)
    path = f"mattes/{sample}.png"
    (out / path).write_bytes(data)
    return {"matte": path, "matte_sha256": files.sha256_hex(data), "matte_bytes": len(data)}


def _store_photo(task: _Task, entry: Entry, photo: raw_pictures.Photo) -> dict[str, Any]:
    """Where the photo lies: in the raw folder as it was, or in the dataset's own where it was changed or is copied."""
    fields: dict[str, Any] = {"image_sha256": files.sha256_hex(photo.data), "image_bytes": len(photo.data)}
    if photo.reencoded_from is None and not task.options.copy_images:
        return fields | {"image": entry.image}
    path = f"images/{entry.id}.{'jpg' if photo.header.format == 'jpeg' else 'png'}"
    (task.out / path).write_bytes(photo.data)
    return fields | {"image": path} | ({} if task.options.copy_images else {"image_root": "."})
