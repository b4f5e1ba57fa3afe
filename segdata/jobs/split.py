"""split: prepared datasets to a manifest of train, validation and test."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
    keys: list[SplitKey]
    offsets: list[int]  # of each line in samples.jsonl


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
    merged = len(datasets) > 1
    _check_mergeable(datasets)
    keys = [_prefixed(key, data.record.name) if merged else key for data in datasets for key in data.keys]
    groups = [key.group for data in datasets for key in data.keys]
    sides, missing, unlisted = _assign(keys, groups, options, lists or {})
    _check_filled(sides, options, lists or {}, len(keys), max(Counter(groups).values(), default=0))
    straddling = splits.straddling(keys, sides)
    if text_lists:
        _check_no_spaces(datasets, out)
    with output_folder(out, MANIFEST_JSON, OWNED, overwrite, folders) as folder:
        references = [_reference(data, out) for data in datasets]
        recorded, texts = {}, []
        for name in (name for name in SPLITS if sides[name]):
            recorded[name] = _write_split(out, name, _lines(datasets, sides[name], merged))
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
    uneven = [] if lists else list(_uneven(reached, options, len(keys)))
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
    keys = list(decode_lines(folder / SAMPLES_JSONL, SplitKey))
    if len(keys) != record.counts.samples:
        raise SourceError(
            f"{folder}: samples.jsonl has {len(keys)} lines, its dataset.json says {record.counts.samples}. "
            "Run `segdata verify`."
        )
    offsets, at = [], 0
    with (folder / SAMPLES_JSONL).open("rb") as file:
        for line in file:
            offsets.append(at)
            at += len(line)
    return _Dataset(folder, record, keys, offsets)


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
    keys: list[SplitKey], groups: list[str], options: SplitOptions, lists: Mapping[str, Path]
) -> tuple[dict[str, list[int]], list[str], list[str]]:
    if options.method == "listed":
        return splits.by_lists(keys, groups, {name: splits.read_list(path) for name, path in lists.items()})
    if options.method == "ordered":
        return splits.by_order(keys, options.test, options.validation), [], []
    return splits.by_hash(keys, groups, options.test, options.validation, options.salt), [], []


def _check_filled(
    sides: dict[str, list[int]], options: SplitOptions, lists: Mapping[str, Path], total: int, largest: int
) -> None:
    """JobFailed where a wanted split is empty, of ``total`` samples in groups of up to ``largest``."""
    wanted = {"train": True, "test": bool(options.test), "validation": bool(options.validation)}
    for name in lists:
        if not sides[name]:
            raise JobFailed(f"--list {name}={lists[name]}: none of its lines names one of the {total} samples.")
    for name, needed in wanted.items():
        if needed and not sides[name] and not lists:
            option = f"--{'test' if name == 'train' else name}"
            groups = f" Groups have up to {largest} samples, and stay whole." if largest > 1 else ""
            raise JobFailed(
                f"split {name}: none of {total} samples fell into it, expected at least one. "
                f"Give a number of samples ({option} {largest}), or lists.{groups}"
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
        for text in (
            *(files.relative_posix(path, out) for path in folders),
            *(text for key in data.keys for text in (key.image, key.id)),
        ):
            if len(text.split()) != 1:
                raise SourceError(f"--txt: {text!r} holds spaces, so its line could not be read back. Leave --txt out.")


def _lines(datasets: list[_Dataset], positions: list[int], merged: bool) -> Iterator[bytes]:
    """Sample lines, as bytes: copied as they are from one dataset; with prefixed ids from several."""
    starts = [0]
    for data in datasets:
        starts.append(starts[-1] + len(data.keys))
    handles = [(data.folder / SAMPLES_JSONL).open("rb") for data in datasets]
    try:
        for position in positions:
            which = next(i for i in range(len(datasets)) if position < starts[i + 1])
            handles[which].seek(datasets[which].offsets[position - starts[which]])
            line = handles[which].readline()
            yield _with_dataset(line, datasets[which].record.name) if merged else line
    finally:
        for handle in handles:
            handle.close()


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
    roots: dict[Path, str] = {}
    digest, count = hashlib.sha256(), 0
    with files.atomic_file(out / f"{name}.txt") as file:
        for line in decode_lines(out / f"{name}.jsonl", SampleLine):
            place = places[line.dataset or datasets[0].record.name]
            pair = (place.image(line), place.below(line, line.mask or line.matte or ""))
            text = " ".join(_relative(path, out, roots) for path in pair)
            data = f"{text}\n".encode()
            file.write(data)
            digest.update(data)
            count += 1
    return FileRecord(file=f"{name}.txt", count=count, sha256=digest.hexdigest())


def _relative(path: Path, out: Path, roots: dict[Path, str]) -> str:
    """As ``relative_posix``, asking the file system once per folder."""
    if path.parent not in roots:
        roots[path.parent] = files.relative_posix(path.parent, out)
    return f"{roots[path.parent]}/{path.name}"
