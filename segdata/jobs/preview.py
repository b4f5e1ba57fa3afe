"""preview: a sheet of samples as pictures, masks and overlays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segdata import sample_files, shards, sheets, splits
from segdata.errors import JobFailed, OptionError, SegdataError
from segdata.formats import files, images
from segdata.formats.folders import check_output_file
from segdata.labels import LabelMap
from segdata.records import (
    DATASET_JSON,
    INDEX_JSON,
    MANIFEST_JSON,
    Sample,
    SampleLine,
    kind_of,
    read_dataset,
    read_index,
    read_manifest,
)
from segdata.sample_files import Places

Seen = Callable[[shards.Shards, int], Sample]  # what is drawn of the record with that number
_COMMENT = "segdata preview"
_NOT_COUNTED = (200, 80, 220)  # pixels of a matte that are -1: violet, since every grey is an alpha


@dataclass(frozen=True)
class PreviewReport:
    """Where the sheet is, and how many samples of how many stand on it."""

    out: Path
    shown: int
    total: int


def preview(
    path: Path,
    out: Path,
    count: int = 24,
    split: str | None = None,
    overwrite: bool = False,
    seen: Sequence[Seen] = (),
) -> PreviewReport:
    """Write a PNG sheet of ``count`` samples: a fair choice by hashed id, the same every time.

    ``split`` names one split of a manifest or shards; the first that there is where it is None. With ``seen``, for
    shards only, each record is drawn once for each of them, as that makes it; a matte may then have -1 where a pixel
    does not count. Raises as the readers do, OptionError for a value that does not fit.
    """
    if count < 1:
        raise OptionError(f"--count {count}: expected 1 or more.")
    if out.suffix.lower() != ".png":
        raise OptionError(f"--out {out}: expected a name ending in .png.")
    check_output_file(out, _is_ours, "sheet that segdata drew", overwrite)
    if seen and kind_of(path) != INDEX_JSON:
        raise OptionError(f"{path}: is no folder of shards, which --augment needs. Run `segdata build-tfrecords`.")
    samples, labels, total = _samples(path, count, split, seen or (shards.Shards.sample,))
    cells = [_cell(sample, labels) for sample in samples]
    if not cells:
        raise JobFailed(f"{path}: holds no sample, expected at least one.")
    violet = " (violet: ignored)" if seen else ""
    headings = ("image", "mask", "overlay") if labels else ("image", f"matte{violet}", "cut-out")
    sheet = sheets.contact_sheet(cells, headings, labels)
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(out, images.with_text(images.encode_png(sheet), _COMMENT))
    return PreviewReport(out, len(cells) // max(1, len(seen)), total)


def _is_ours(sheet: Path) -> bool:
    return images.has_text(sheet.read_bytes(), _COMMENT)


def _cell(sample: Sample, labels: LabelMap | None) -> sheets.Cell:
    if sample.mask is not None and labels is not None:
        mask = sheets.colored(sample.mask, labels)
        return sheets.Cell(sample.id, (sample.image, mask, sheets.overlay(sample.image, sample.mask, labels)))
    if sample.matte is None:
        raise SegdataError(f"sample {sample.id!r}: has neither a mask nor a matte. Run `segdata verify`.")
    alpha = np.maximum(sample.matte, 0)
    panels = sheets.grey(alpha), sheets.cutout(sample.image, alpha)
    for panel in panels:
        panel[sample.matte < 0] = _NOT_COUNTED
    return sheets.Cell(sample.id, (sample.image, *panels))


def _samples(
    path: Path, count: int, split: str | None, seen: Sequence[Seen]
) -> tuple[Iterator[Sample], LabelMap | None, int]:
    kind = kind_of(path)
    if kind == DATASET_JSON:
        if split is not None:
            raise OptionError(f"--split {split}: {path} is a prepared dataset and has no splits. Leave it out.")
        record = read_dataset(path)
        lines = list(sample_files.sample_lines(path))
        return _load(_chosen(lines, count), sample_files.place_of(path, record)), record.label_map, len(lines)
    if kind == MANIFEST_JSON:
        manifest = read_manifest(path)
        name = _one_of(split, list(manifest.splits), path)
        lines = list(sample_files.split_lines(path, manifest, name))
        places = sample_files.places_of(path, manifest)
        return _load(_chosen(lines, count), places), manifest.label_map, len(lines)
    if kind == INDEX_JSON:
        index = read_index(path)
        name = _one_of(split, list(dict.fromkeys(shard.split for shard in index.shards)), path)
        records = shards.open_shards(path, name)  # already in the order of hashed ids
        shown = (see(records, i) for i in range(min(count, len(records))) for see in seen)
        return shown, index.label_map, len(records)
    raise OptionError(f"{path}: is a run, expected a prepared dataset, a manifest or shards.")


def _one_of(split: str | None, known: list[str], path: Path) -> str:
    name = split or known[0]
    if name not in known:
        raise OptionError(f"--split {name}: {path} has {', '.join(known)}.")
    return name


def _chosen(lines: Sequence[SampleLine], count: int) -> list[SampleLine]:
    return sorted(lines, key=lambda line: splits.order_key(line.id))[:count]


def _load(lines: Sequence[SampleLine], places: Places) -> Iterator[Sample]:
    for line in lines:
        yield images.decode_sample(line.id, *sample_files.read_encoded(line, places))
