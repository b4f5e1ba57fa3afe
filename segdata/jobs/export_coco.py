"""export-coco: a prepared dataset's masks to a COCO instances file, and back again without loss."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segdata.errors import ImageRefused, JobFailed, OptionError, SourceError
from segdata.formats import coco_json, coco_masks, files, images
from segdata.formats.coco_json import Category, CompressedRle, WrittenAnnotation, WrittenImage
from segdata.formats.folders import check_output_file
from segdata.labels import IGNORE_INDEX
from segdata.parallel import Workers, chunks, run_tasks
from segdata.records import SAMPLES_JSONL, DatasetRecord, SampleLine, read_dataset
from segdata.sample_files import Place, read_recorded, sample_lines

PER = ("image", "person")
_CHUNK = 16


@dataclass(frozen=True)
class ExportReport:
    """What was written: ``folder`` is what its file names are relative to, for ``convert coco --images``."""

    out: Path
    folder: Path
    categories: list[str]
    images: int
    annotations: int
    crowds: int


@dataclass(frozen=True)
class _Task:
    place: Place
    lines: Sequence[SampleLine]
    per: str
    classes: int


@dataclass(frozen=True)
class _Region:
    category: int
    is_crowd: bool
    rle: coco_masks.Rle


def export_coco(
    dataset: Path, out: Path, per: str = "person", jobs: int | None = None, overwrite: bool = False
) -> ExportReport:
    """Write ``out``, compressed run lengths over the prepared dataset ``dataset``.

    ``per`` person: an annotation for each connected region of a class; image: one for all of a class in a picture.
    Ids of categories are those of the label map, 0 is background. What is 255 becomes a crowd of each category, so
    that ``convert coco`` gives the same masks again, whichever categories it is asked for. FolderError where ``out`` is
    something else's file.
    """
    if per not in PER:
        raise OptionError(f"--per {per!r}: expected one of {', '.join(PER)}.")
    record = read_dataset(dataset)
    if record.label_map is None:
        raise SourceError(f"{dataset}: holds mattes, expected masks. Convert it with a --threshold to make some.")
    check_output_file(out, coco_json.is_ours, "file that export-coco wrote", overwrite)
    if files.sha256_file(dataset / SAMPLES_JSONL) != record.samples.sha256:
        raise SourceError(f"{dataset}: its samples.jsonl is not the one that its dataset.json names. Convert it again.")
    lines = list(sample_lines(dataset))
    folder, prefixes = _common_folder(dataset, record, lines)
    place = Place(dataset, record.image_root)
    licenses = sorted({line.license for line in lines if line.license is not None})
    pictures = _pictures(lines, record, prefixes, licenses)
    categories = [Category(i, name) for i, name in enumerate(record.label_map.names) if i]
    tasks = [_Task(place, chunk, per, len(record.label_map.names)) for chunk in chunks(lines, _CHUNK)]
    regions = run_tasks(_regions_of, tasks, Workers(jobs), "export-coco", [len(task.lines) for task in tasks])
    counts = {"annotations": 0, "crowds": 0}
    objects = _numbered((found for chunk in regions for found in chunk), counts)
    out.parent.mkdir(parents=True, exist_ok=True)
    with files.atomic_file(out) as file:
        coco_json.write_instances(file, record.name, licenses, categories, pictures, objects)
    names = [category.name for category in categories]
    return ExportReport(out, folder, names, len(lines), counts["annotations"], counts["crowds"])


def _common_folder(dataset: Path, record: DatasetRecord, lines: Sequence[SampleLine]) -> tuple[Path, dict[str, str]]:
    """The folder below which all photos lie, and what goes before their names by the root that their lines name."""
    roots = {line.image_root or record.image_root for line in lines} or {record.image_root}
    real = {root: (dataset / root).resolve() for root in roots}
    try:
        folder = Path(os.path.commonpath(list(real.values())))
    except ValueError as error:
        raise SourceError(f"{dataset}: its photos lie on two drives. Convert it with --copy-images.") from error
    return folder, {
        root: "" if path == folder else f"{files.relative_posix(path, folder)}/" for root, path in real.items()
    }


def _pictures(
    lines: Sequence[SampleLine], record: DatasetRecord, prefixes: dict[str, str], licenses: Sequence[str]
) -> Iterator[WrittenImage]:
    sizes = Counter(line.group for line in lines)
    for number, line in enumerate(lines, 1):
        yield WrittenImage(
            id=number,
            file_name=prefixes[line.image_root or record.image_root] + line.image,
            height=line.height,
            width=line.width,
            license=None if line.license is None else licenses.index(line.license) + 1,
            video_id=line.group if sizes[line.group] > 1 else None,  # so that they stay on one side of a split
        )


def _numbered(found: Iterator[list[_Region]], counts: dict[str, int]) -> Iterator[WrittenAnnotation]:
    """Annotations with ids from 1 on; ``found`` are each picture's regions, in the order of the pictures."""
    for image, regions in enumerate(found, 1):
        for region in regions:
            counts["annotations"] += 1
            counts["crowds"] += region.is_crowd
            yield WrittenAnnotation(
                id=counts["annotations"],
                image_id=image,
                category_id=region.category,
                iscrowd=int(region.is_crowd),
                area=coco_masks.area(region.rle),
                bbox=coco_masks.bounding_box(region.rle),
                segmentation=CompressedRle(region.rle["size"], region.rle["counts"].decode("ascii")),
            )


def _regions_of(task: _Task) -> list[list[_Region]]:
    images.use_one_thread()
    return [_regions(task, line) for line in task.lines]


def _regions(task: _Task, line: SampleLine) -> list[_Region]:
    try:
        mask = images.decode_mask(read_recorded(task.place.below(line, line.mask or ""), line.mask_sha256, line.id))
    except ImageRefused as error:
        raise JobFailed(f"{task.place.folder}: {error}. Convert it again.") from error
    found = []
    for class_id in np.flatnonzero(images.count_values(mask)).tolist():
        if class_id == 0:
            continue
        of_class = (mask == class_id).astype(np.uint8)
        if class_id == IGNORE_INDEX:
            ignored = coco_masks.encoded(of_class)
            found += [_Region(category, True, ignored) for category in range(1, task.classes)]
            continue
        whole = task.per == "image"
        parts = [coco_masks.encoded(of_class)] if whole else coco_masks.connected_regions(of_class)
        found += [_Region(class_id, False, part) for part in parts]
    return found
