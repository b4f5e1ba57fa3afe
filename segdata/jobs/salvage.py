"""salvage: copy the sound records out of damaged TFRecord files, ours or anybody's, and say what was lost where."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import msgspec
from tqdm import tqdm

from segdata.errors import JobFailed, OptionError, RecordError, SourceError
from segdata.formats import files, tfrecord
from segdata.formats.folders import output_folder
from segdata.formats.tfrecord import Kept, Lost

SALVAGE_JSON = "salvage.json"
_COPY_BYTES = 1 << 20
_CONTROL = ".segdata-"  # in the names that segdata's folders keep for themselves


@dataclass(frozen=True)
class LostStretch:
    """Bytes of a file that hold no sound record; adjacent ones with the same cause are one stretch.

    ``offset`` is in the damaged file. ``after_record`` is the number, from 0, of the kept record before it, None where
    there is none. ``records`` counts the headers in it whose own checksum is right, so it is the least that was lost.
    """

    file: str
    offset: int
    bytes: int
    after_record: int | None
    records: int
    what: str


@dataclass(frozen=True)
class SalvagedFile:
    """One input by its file name: how many records and bytes of it were kept, and all the rest."""

    file: str
    records: int
    bytes: int
    lost: list[LostStretch]


@dataclass(frozen=True)
class SalvageReport:
    """What ``salvage`` kept and lost, by file, in the order given."""

    out: Path
    files: list[SalvagedFile]


def salvage(damaged: Sequence[Path], out: Path, overwrite: bool = False) -> SalvageReport:
    """Copy every record whose checksums match to a file of the same name in ``out``, and write ``salvage.json``.

    Records keep their order and their bytes; a file without any gets no copy. JobFailed where no file has any.
    OptionError for two files of one name, SourceError for what is no regular file, RecordError for a gzip file,
    FolderError as ``output_folder`` raises it.
    """
    _check_names(damaged)
    total = sum(map(_checked_size, damaged))
    owned = "|".join(re.escape(path.name) for path in damaged)
    with output_folder(out, SALVAGE_JSON, owned, overwrite, damaged, "salvage") as folder:
        with tqdm(total=total, desc="salvage", unit="B", unit_scale=True, disable=None, dynamic_ncols=True) as bar:
            found = [_salvage_file(path, out / path.name, bar) for path in damaged]
        if not any(file.records for file in found):
            names = ", ".join(file.file for file in found)
            raise JobFailed(f"{files.cut(names)}: no sound record in {total:,} bytes, expected TFRecord files.")
        record = {"format": "segdata salvage", "version": 1, "files": found}
        folder.finish(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    return SalvageReport(out, found)


def _check_names(damaged: Sequence[Path]) -> None:
    """OptionError where copies could not lie side by side under their names, on any file system."""
    if not damaged:
        raise OptionError("no file is given, expected TFRecord files.")
    seen: dict[str, Path] = {}
    for path in damaged:
        key = files.key_of(path.name)
        if key in seen:
            other = "is given twice" if path == seen[key] else f"has the name of {seen[key]}"
            raise OptionError(f"{path}: {other}, expected each name once. Use an --out for each.")
        if key == SALVAGE_JSON or _CONTROL in key:
            raise OptionError(f"{path}: segdata keeps this name for its own files. Rename it.")
        seen[key] = path


def _checked_size(path: Path) -> int:
    """The bytes of a regular file that is not compressed."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # before open: a pipe would hang
            raise SourceError(f"{path}: is no regular file, expected a TFRecord file.")
        with path.open("rb") as file:
            is_gzip = tfrecord.is_gzip(file)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}, expected a TFRecord file.") from error
    if is_gzip:
        raise RecordError(f"{path}: is compressed (gzip), expected plain records. Decompress it first.")
    return status.st_size


def _salvage_file(path: Path, target: Path, bar: tqdm[None]) -> SalvagedFile:
    name = files.printable(path.name)
    records = kept_bytes = 0
    lost: list[LostStretch] = []
    with ExitStack() as stack:
        source = stack.enter_context(path.open("rb"))
        copy: BinaryIO | None = None
        for stretch in tfrecord.sound_records(source, os.fstat(source.fileno()).st_size):
            if isinstance(stretch, Lost):
                _add_lost(lost, LostStretch(name, after_record=records - 1 if records else None, **vars(stretch)))
            else:
                copy = copy or stack.enter_context(files.atomic_file(target))
                _copy(source, copy, stretch)
                records, kept_bytes = records + 1, kept_bytes + stretch.bytes
            bar.update(stretch.bytes)
    return SalvagedFile(name, records, kept_bytes, lost)


def _add_lost(lost: list[LostStretch], found: LostStretch) -> None:
    last = lost[-1] if lost else None
    if last and last.what == found.what and last.offset + last.bytes == found.offset:
        lost[-1] = replace(last, bytes=last.bytes + found.bytes, records=last.records + found.records)
    else:
        lost.append(found)


def _copy(source: BinaryIO, copy: BinaryIO, record: Kept) -> None:
    source.seek(record.offset)
    left = record.bytes
    while left:
        piece = source.read(min(left, _COPY_BYTES))
        if not piece:
            raise SourceError(f"{source.name}: became shorter while it was read. Run again when nobody writes to it.")
        copy.write(piece)
        left -= len(piece)
