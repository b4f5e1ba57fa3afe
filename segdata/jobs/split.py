"""split: prepared datasets to a manifest of train, validation and test."""

from __future__ import annotations

import hashlib
import itertools
from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from segdata import splits
from segdata.errors import JobFailed, OptionError, SourceError
from segdata.formats import files
from segdata.formats.folders import output_folder
from segdata.records import (
    DATASET_JSON,
    MANIFEST_JSON,
    SAMPLES_JSONL,
    SPLITS,
    DatasetRecord,
    DatasetReference,
    FileRecord,
    ManifestRecord,
    SampleLine,
    SplitOptions,
    decode_lines,
    encode_lines,
    is_inside,
    read_dataset,
    seal,
)
from segdata.sample_files import Place
from segdata.splits import SplitKey

OWNED = r"(train|validation|test)\.(jsonl|txt)"
METHODS = ("hash", "listed", "ordered")


@dataclass(frozen=True)
class SplitReport:
    """How many samples each split got, and what could not be honest or complete about it."""

    out: Path
    splits: dict[str, int]
    uneven: list[str] = field(default_factory=list)
    straddling: list[list[str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unlisted: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Dataset:
    folder: Path
    record: DatasetRecord
    groups: list[str]  # of each sample
    offsets: array[int]  # of each line in samples.jsonl, and last its size

    def read_keys(self) -> Iterator[SplitKey]:
        return decode_lines(self.folder / SAMPLES_JSONL, SplitKey)


@dataclass(frozen=True)
class _Samples:
    """The keys of all datasets, with prefixed ids from several; decoded anew each time, since a million fill memory."""

    datasets: list[_Dataset]

    def __len__(self) -> int:
        return sum(len(data.groups) for data in self.datasets)

    def __iter__(self) -> Iterator[SplitKey]:
        for data in self.datasets:
            keys, name = data.read_keys(), data.record.name
            yield from keys if len(self.datasets) == 1 else (_prefixed(key, name) for key in keys)


def split(
    folders: Sequence[Path],
    out: Path,
    options: SplitOptions,
    lists: Mapping[str, Path] | None = None,
    text_lists: bool = False,
    overwrite: bool = False,
) -> SplitReport:
    """Write the manifest ``out`` over the prepared datasets ``folders`` (of one label map).

    ``lists`` (split -> list file) go with the method ``listed``. ``text_lists`` also writes train.txt and test.txt,
    "image mask" per line. JobFailed where a wanted split would be empty; SourceError where label maps or names clash.
    """
    _check_options(options, lists or {})
    datasets = [_load(folder) for folder in folders]
    _check_mergeable(datasets)
    samples = _Samples(datasets)
    groups = [group for data in datasets for group in data.groups]
    sides, missing, unlisted = _assign(samples, groups, options, lists or {})
    _check_filled(sides, options, lists or {}, groups)
    straddling = [] if options.method == "hash" else splits.straddling(samples, sides)  # by hash nothing can
    if text_lists:
        _check_no_spaces(datasets, out)
    with output_folder(out, MANIFEST_JSON, OWNED, overwrite, folders, "split") as folder:
        references = [_reference(data, out) for data in datasets]
        recorded, texts = {}, []
        for name in (name for name in SPLITS if sides[name]):
            recorded[name] = _write_split(out, name, _lines(datasets, sides[name]))
            if text_lists:
                texts.append(_write_text(out, name, datasets))
        record = ManifestRecord(
            name="_".join(reference.name for reference in references),
            datasets=references,
            label_map=datasets[0].record.label_map,
            options=options,
            splits=recorded,
            straddling=straddling,
            missing=missing,
            unlisted=unlisted,
            text_lists=texts,
        )
        folder.finish(seal(record))
    reached = {name: len(sides[name]) for name in recorded}
    uneven = [] if lists else list(_uneven(reached, options, len(samples)))
    return SplitReport(out, reached, uneven, straddling, missing, unlisted)


def _check_options(options: SplitOptions, lists: Mapping[str, Path]) -> None:
    if options.method not in METHODS:
        raise OptionError(f"--method {options.method!r}: expected one of {', '.join(METHODS)}.")
    if (options.method == "listed") != bool(lists):
        raise OptionError("--method listed and --list SPLIT=FILE go together, expected both or neither.")
    shares = [value for value in (options.test, options.validation) if isinstance(value, float)]
    if sum(shares) >= 1:
        raise OptionError(
            f"--test {options.test} and --validation {options.validation}: expected shares below 1 together."
        )
    for name in lists:
        if name not in SPLITS:
            raise OptionError(f"--list {name}=...: expected one of {', '.join(SPLITS)} before the '='.")


def _load(folder: Path) -> _Dataset:
    record = read_dataset(folder)
    path = folder / SAMPLES_JSONL
    groups = [key.group for key in decode_lines(path, SplitKey)]
    if len(groups) != record.counts.samples:
        raise SourceError(
            f"{folder}: samples.jsonl has {len(groups)} lines, its dataset.json says {record.counts.samples}. "
            "Run `segdata verify`."
        )
    with path.open("rb") as file:
        offsets = array("Q", itertools.accumulate(map(len, file), initial=0))
    return _Dataset(folder, record, groups, offsets)


def _check_mergeable(datasets: list[_Dataset]) -> None:
    first = datasets[0]
    names = [data.record.name for data in datasets]
    for data in datasets[1:]:
        ours, theirs = first.record.label_map, data.record.label_map
        if (ours and ours.names) != (theirs and theirs.names):
            raise SourceError(
                f"{data.folder}: its classes are {_classes(data)}, those of {first.folder} are {_classes(first)}; "
                "expected one label map. Convert both with the same --labels."
            )
        if names.count(data.record.name) > 1:
            raise SourceError(
                f"{data.folder}: two datasets are named {data.record.name!r}, expected different names. "
                "Convert one of them with another --name."
            )


def _classes(data: _Dataset) -> str:
    return ", ".join(data.record.label_map.names) if data.record.label_map else "none (mattes)"


def _prefixed(key: SplitKey, name: str) -> SplitKey:
    return msgspec.structs.replace(key, id=f"{name}-{key.id}", group=f"{name}-{key.group}")


def _assign(
    samples: _Samples, groups: list[str], options: SplitOptions, lists: Mapping[str, Path]
) -> tuple[dict[str, list[int]], list[str], list[str]]:
    if options.method == "listed":
        return splits.by_lists(samples, groups, {name: splits.read_list(path) for name, path in lists.items()})
    if options.method == "ordered":
        return splits.by_order(samples, options.test, options.validation), [], []
    return splits.by_hash(samples, groups, options.test, options.validation, options.salt), [], []


def _check_filled(
    sides: dict[str, list[int]], options: SplitOptions, lists: Mapping[str, Path], groups: list[str]
) -> None:
    """JobFailed where a wanted split is empty; ``groups`` are those of all samples."""
    total = len(groups)
    wanted = {"train": True, "test": bool(options.test), "validation": bool(options.validation)}
    for name in lists:
        if not sides[name]:
            raise JobFailed(f"--list {name}={lists[name]}: none of its lines names one of the {total} samples.")
    for name, needed in wanted.items():
        if needed and not sides[name] and not lists:
            option = f"--{'test' if name == 'train' else name}"
            largest = max(Counter(groups).values(), default=0)
            whole = f" Groups have up to {largest} samples, and stay whole." if largest > 1 else ""
            raise JobFailed(
                f"split {name}: none of {total} samples fell into it, expected at least one. "
                f"Give a number of samples ({option} {largest}), or lists.{whole}"
            )


def _uneven(reached: dict[str, int], options: SplitOptions, total: int) -> Iterator[str]:
    """Splits that are far from what was asked for, since groups and identical photos stay together."""
    for name, wanted in (("test", options.test), ("validation", options.validation)):
        count = splits.amount(wanted, total, name)
        spread = 4 * (count * (1 - count / total)) ** 0.5 if isinstance(wanted, float) else 0  # of a fair hash
        if abs(reached.get(name, 0) - count) > spread:
            found = reached.get(name, 0)
            yield f"{name} has {found} samples, {count} were asked for: groups and identical photos stay whole."


def _check_no_spaces(datasets: list[_Dataset], out: Path) -> None:
    for data in datasets:
        folders = (data.folder, data.folder / data.record.image_root)
        for text in itertools.chain(
            (files.relative_posix(path, out) for path in folders),
            (text for key in data.read_keys() for text in (key.image, key.id)),
        ):
            if len(text.split()) != 1:
                raise SourceError(f"--txt: {text!r} holds spaces, so its line could not be read back. Leave --txt out.")


def _lines(datasets: list[_Dataset], positions: list[int]) -> Iterator[bytes]:
    """Sample lines, as bytes: copied as they are from one dataset; with prefixed ids from several."""
    starts = list(itertools.accumulate((len(data.groups) for data in datasets), initial=0))
    with ExitStack() as stack:
        handles = [stack.enter_context((data.folder / SAMPLES_JSONL).open("rb")) for data in datasets]
        for position in positions:
            which = bisect_right(starts, position) - 1
            data, at = datasets[which], position - starts[which]
            handles[which].seek(data.offsets[at])
            line = handles[which].read(data.offsets[at + 1] - data.offsets[at])
            yield line if len(datasets) == 1 else _with_dataset(line, data.record.name)


def _with_dataset(line: bytes, name: str) -> bytes:
    sample = msgspec.json.decode(line, type=SampleLine)
    prefixed = msgspec.structs.replace(sample, id=f"{name}-{sample.id}", group=f"{name}-{sample.group}", dataset=name)
    return encode_lines([prefixed])


def _write_split(out: Path, name: str, lines: Iterator[bytes]) -> FileRecord:
    digest, count = hashlib.sha256(), 0
    with files.atomic_file(out / f"{name}.jsonl") as file:
        for line in lines:
            file.write(line)
            digest.update(line)
            count += 1
    return FileRecord(file=f"{name}.jsonl", count=count, sha256=digest.hexdigest())


def _reference(data: _Dataset, out: Path) -> DatasetReference:
    return DatasetReference(
        name=data.record.name,
        path=files.relative_posix(data.folder, out),
        sha256=files.sha256_file(data.folder / DATASET_JSON),
    )


def _write_text(out: Path, name: str, datasets: list[_Dataset]) -> FileRecord:
    """``NAME.txt``: photo and mask (or matte) of each sample, relative to the manifest's folder, with a space
    between.
    """
    places = {data.record.name: Place(data.folder, data.record.image_root) for data in datasets}
    roots: dict[_Folder, str] = {}
    digest, count = hashlib.sha256(), 0
    with files.atomic_file(out / f"{name}.txt") as file:
        for line in decode_lines(out / f"{name}.jsonl", SampleLine):
            dataset, mask = line.dataset or datasets[0].record.name, line.mask or line.matte or ""
            place = places[dataset]
            photo = _relative(("image", dataset, line.image_root), line.image, partial(place.image, line), out, roots)
            other = _relative(("mask", dataset, None), mask, partial(place.below, line, mask), out, roots)
            data = f"{photo} {other}\n".encode()
            file.write(data)
            digest.update(data)
            count += 1
    return FileRecord(file=f"{name}.txt", count=count, sha256=digest.hexdigest())


_Folder = tuple[str, str, str | None, str]  # what is in it, dataset, image_root, path in there


def _relative(
    kind: tuple[str, str, str | None], path: str, find: Callable[[], Path], out: Path, roots: dict[_Folder, str]
) -> str:
    """Where ``find`` finds a recorded path, relative to ``out``; it is asked once per folder, for it takes its time."""
    name = path[path.rfind("/") + 1 :]
    if not is_inside(name):  # as "." or a drive: only the whole path says what it is
        return files.relative_posix(find().parent, out) + f"/{find().name}"
    folder = (*kind, path[: len(path) - len(name)])
    if folder not in roots:
        roots[folder] = files.relative_posix(find().parent, out)
    return f"{roots[folder]}/{name}"
