"""stats: what is in a prepared dataset, a manifest or shards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from segdata import sample_files, shards
from segdata.errors import OptionError
from segdata.formats import images, tfrecord
from segdata.labels import LabelMap
from segdata.parallel import Workers, run_tasks
from segdata.records import (
    DATASET_JSON,
    INDEX_JSON,
    MANIFEST_JSON,
    IndexRecord,
    SampleLine,
    ShardRecord,
    kind_of,
    read_dataset,
    read_index,
    read_manifest,
)
from segdata.sample_files import Place

ALPHA_BINS = 10


class SplitStats(msgspec.Struct, kw_only=True):
    """Sums over the samples of one split (or of a whole prepared dataset).

    ``pixels`` counts all, ``ignored`` those of the ignore index; ``class_pixels`` and ``class_samples`` (samples
    that show it)
    are by class name; ``alpha`` counts matte pixels in ten equal bins of [0, 1]. Sizes are (height, width) of the
    largest and smallest picture by area.
    """

    samples: int = 0
    groups: int = 0
    pixels: int = 0
    ignored: int = 0
    image_bytes: int = 0
    class_pixels: dict[str, int] = {}
    class_samples: dict[str, int] = {}
    alpha: list[int] = []
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class StatsReport:
    """Statistics by split; ``rejected`` by reason for a prepared dataset."""

    path: Path
    kind: str
    name: str
    splits: dict[str, SplitStats]
    rejected: dict[str, int]


def stats(path: Path, jobs: int | None = None) -> StatsReport:
    """Count. Datasets and manifests from their sample lines (mattes are read), shards from their records (of images
    the header alone).

    FolderError or RecordError where the folder is unfinished or damaged, ImageRefused for a damaged mask or matte.
    """
    kind = kind_of(path)
    if kind == DATASET_JSON:
        record = read_dataset(path)
        place = sample_files.place_of(path, record)
        counted = _of_lines(sample_files.sample_lines(path), record.label_map, place, jobs)
        return StatsReport(path, "dataset", record.name, {"all": counted}, record.counts.rejected)
    if kind == MANIFEST_JSON:
        manifest = read_manifest(path)
        places = sample_files.places_of(path, manifest) if manifest.label_map is None else {}
        by_split = {
            split: _of_lines(sample_files.split_lines(path, manifest, split), manifest.label_map, places, jobs)
            for split in manifest.splits
        }
        return StatsReport(path, "manifest", manifest.name, by_split, {})
    if kind == INDEX_JSON:
        index = read_index(path)
        shards.check_shard_sizes(path, index)
        return StatsReport(path, "shards", index.name, _of_shards(path, index, jobs), {})
    raise OptionError(f"{path}: is a run, expected a prepared dataset, a manifest or shards.")


def _add_size(found: SplitStats, height: int, width: int) -> None:
    found.pixels += height * width
    if not found.samples or height * width < found.smallest[0] * found.smallest[1]:
        found.smallest = (height, width)
    if height * width > found.largest[0] * found.largest[1]:
        found.largest = (height, width)
    found.samples += 1


def _add_classes(found: SplitStats, class_pixels: dict[str, int]) -> None:
    for name, count in class_pixels.items():
        found.class_pixels[name] = found.class_pixels.get(name, 0) + count
        found.class_samples[name] = found.class_samples.get(name, 0) + (count > 0)


def _of_lines(
    lines: Iterable[SampleLine], labels: LabelMap | None, places: dict[str | None, Place], jobs: int | None
) -> SplitStats:
    found, groups, mattes = SplitStats(), set(), list[tuple[Path, str, str]]()
    for line in lines:
        _add_size(found, line.height, line.width)
        found.image_bytes += line.image_bytes
        groups.add(line.group)
        if line.class_pixels is not None:
            _add_classes(found, line.class_pixels)
            found.ignored += line.height * line.width - sum(line.class_pixels.values())
        if line.matte is not None and line.matte_sha256 is not None:
            mattes.append((places[line.dataset].below(line, line.matte), line.matte_sha256, line.id))
    found.groups = len(groups)
    if labels is None and mattes:
        histograms = run_tasks(_alpha_of, mattes, Workers(jobs), "stats", [1] * len(mattes))
        found.alpha = np.sum(list(histograms), axis=0).tolist()
    return found


def _alpha_of(task: tuple[Path, str, str]) -> np.ndarray:
    path, sha256, sample = task
    return alpha_histogram(images.decode_matte(sample_files.read_recorded(path, sha256, sample)))


def alpha_histogram(matte: np.ndarray) -> np.ndarray:
    """(10,) int64: pixels of alpha in [0, 0.1), ... [0.9, 1]."""
    return np.histogram(matte, bins=ALPHA_BINS, range=(0, 1))[0].astype(np.int64)


# ---- shards ----------------------------------------------------------------------------------------------------------


def _of_shards(folder: Path, index: IndexRecord, jobs: int | None) -> dict[str, SplitStats]:
    tasks = [(folder, shard, index.label_map) for shard in index.shards]
    found: dict[str, SplitStats] = {}
    groups: dict[str, set[str]] = {}
    results = run_tasks(_of_shard, tasks, Workers(jobs), "stats", [shard.records for shard in index.shards])
    for shard, (part, part_groups) in zip(index.shards, results, strict=True):
        groups.setdefault(shard.split, set()).update(part_groups)
        found[shard.split] = _sum(found[shard.split], part) if shard.split in found else part
        found[shard.split].groups = len(groups[shard.split])
    return found


def _sum(first: SplitStats, second: SplitStats) -> SplitStats:
    total = SplitStats(
        samples=first.samples + second.samples,
        pixels=first.pixels + second.pixels,
        ignored=first.ignored + second.ignored,
        image_bytes=first.image_bytes + second.image_bytes,
        class_pixels=dict(first.class_pixels),
        class_samples=dict(first.class_samples),
        alpha=[a + b for a, b in zip(first.alpha, second.alpha, strict=True)],
        smallest=min(first.smallest, second.smallest, key=lambda size: size[0] * size[1]),
        largest=max(first.largest, second.largest, key=lambda size: size[0] * size[1]),
    )
    for name in second.class_pixels:
        total.class_pixels[name] = total.class_pixels.get(name, 0) + second.class_pixels[name]
        total.class_samples[name] = total.class_samples.get(name, 0) + second.class_samples[name]
    return total


def _of_shard(task: tuple[Path, ShardRecord, LabelMap | None]) -> tuple[SplitStats, set[str]]:
    folder, shard, labels = task
    images.use_one_thread()
    found, groups = SplitStats(), set[str]()
    path = folder / shard.file
    with path.open("rb") as file:
        for where, payload in tfrecord.payloads(file, path.stat().st_size, shard.file):
            _add_record(found, groups, shards.parse(payload, where), where, labels)
    return found, groups


def _add_record(
    found: SplitStats, groups: set[str], values: shards.Values, where: str, labels: LabelMap | None
) -> None:
    image = shards.data(values, shards.IMAGE, where)
    header = images.header(image)
    _add_size(found, header.height, header.width)
    found.image_bytes += len(image)
    groups.add(shards.text(values, shards.GROUP, where))
    if shards.MASK in values and labels is not None:
        counts = images.count_values(images.decode_mask(shards.data(values, shards.MASK, where)))
        _add_classes(found, {name: int(counts[i]) for i, name in enumerate(labels.names)})
        found.ignored += int(counts[labels.ignore_index])
    if shards.MATTE in values:
        histogram = alpha_histogram(images.decode_matte(shards.data(values, shards.MATTE, where)))
        found.alpha = (np.array(found.alpha or [0] * ALPHA_BINS) + histogram).tolist()
