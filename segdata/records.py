"""The four things at rest as typed values, and their JSON.

A folder is described by one JSON file (``dataset.json``, ``manifest.json``, ``index.json``, ``run.json``). Such a file
carries a ``seal``: the sha256 of its own bytes with the seal left empty, so that an edit of any byte shows. Sample
lines and rejected lines are JSON lines, one value a line, in the order of the fields here.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec

from segdata.errors import FolderError, LabelMapError, RecordError
from segdata.labels import LabelMap

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

DATASET_JSON = "dataset.json"
MANIFEST_JSON = "manifest.json"
INDEX_JSON = "index.json"
RUN_JSON = "run.json"
RECORD_NAMES = (DATASET_JSON, MANIFEST_JSON, INDEX_JSON, RUN_JSON)
SAMPLES_JSONL = "samples.jsonl"
REJECTED_JSONL = "rejected.jsonl"

SPLITS = ("train", "validation", "test")
_DRIVE = re.compile(":" if os.name == "nt" else "^[A-Za-z]:")  # or a second stream of a file, on Windows


class SampleLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """Where one sample is, and what is known of it; no pixels.

    ``image`` is relative to the dataset's ``image_root``, or to ``image_root`` of this line where the line has one ("."
    for a picture that convert made, in the dataset's own folder). ``mask`` and ``matte`` are relative to the
    dataset's folder.
    ``height`` and ``width`` are in pixels after the EXIF turn, the sizes of files in bytes. ``crop`` is (x, y, w, h)
    in the source photo. ``confidence`` is a network's in what it drew: the mean over the pixels of its highest
    probability; None where people drew it.
    """

    id: str
    group: str
    image: str
    mask: str | None = None
    matte: str | None = None
    height: int
    width: int
    image_sha256: str
    image_bytes: int
    mask_sha256: str | None = None
    mask_bytes: int | None = None
    matte_sha256: str | None = None
    matte_bytes: int | None = None
    class_pixels: dict[str, int] | None = None
    image_root: str | None = None
    dataset: str | None = None  # in manifests of several datasets: which one
    license: str | None = None
    crop: tuple[int, int, int, int] | None = None
    exif_orientation: int | None = None  # the turn that was applied, where it was not 1
    reencoded_from: str | None = None  # what the photo was before convert stored it as PNG
    mask_resized_from: tuple[int, int] | None = None  # (height, width) of the raw mask or matte
    source_sha256: str | None = None  # of the raw photo, where the image was made from it
    enlarged_from: tuple[int, int] | None = None  # (height, width) of the crop, where that was smaller
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class RejectedLine(msgspec.Struct, frozen=True, kw_only=True):
    """A raw sample that was left out: ``reason`` is a short word, ``detail`` what was found and expected."""

    id: str
    reason: str
    detail: str


class FileRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A file beside the JSON: its name (relative, POSIX), how many lines or records it has, and its sha256."""

    file: str
    count: int
    sha256: str


class SourceRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which source a dataset was converted from, and the options that change its bytes.

    ``raw_sha256`` is of the names and sizes of the raw files, and of annotations that stand in one file.
    """

    name: str
    options: dict[str, str | int | float | bool | None]
    raw_sha256: str = ""


class DatasetCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many samples, how many rejected by reason, and pixels by class."""

    samples: int
    rejected: dict[str, int]
    class_pixels: dict[str, int]


class DatasetRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``dataset.json``: a prepared dataset. ``label_map`` is null where there are only mattes."""

    format: str = "segdata prepared dataset"
    version: int = 1
    name: str
    source: SourceRecord
    label_map: LabelMap | None
    image_root: str
    counts: DatasetCounts
    samples: FileRecord
    rejected: FileRecord
    seal: str = ""


class DatasetReference(msgspec.Struct, frozen=True, kw_only=True):
    """A dataset that a manifest draws on: its folder relative to the manifest's, and the sha256 of its JSON."""

    name: str
    path: str
    sha256: str


class SplitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a split was made. A share lies in (0, 1); a number of samples is an integer."""

    method: str = "hash"
    test: float | int = 0.2
    validation: float | int = 0
    salt: str = ""


class ManifestRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``manifest.json``: which sample is in which split.

    ``straddling`` lists what stands in more than one split (ids of one group, or of byte-identical images): possible
    only with the methods ``ordered`` and ``listed``. ``missing`` are listed names without a sample, ``unlisted`` the
    ids of samples that no list names.
    """

    format: str = "segdata manifest"
    version: int = 1
    name: str
    datasets: list[DatasetReference]
    label_map: LabelMap | None
    options: SplitOptions
    splits: dict[str, FileRecord]
    straddling: list[list[str]] = []
    missing: list[str] = []
    unlisted: list[str] = []
    text_lists: list[FileRecord] = []
    seal: str = ""


class Geometry(msgspec.Struct, frozen=True, kw_only=True):
    """How pictures were fitted into shards. ``size`` is (height, width), null where pictures keep their own size.

    ``fit`` is ``none``, ``stretch`` or ``letterbox``; a letterboxed picture is centred, with bars of
    ``image_padding`` in the image, the ignore index in the mask and 0 in the matte.
    """

    size: tuple[int, int] | None = None
    fit: str = "none"
    image_padding: int = 128
    mask_padding: int = 255


class ShardRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One shard file: its split, how many records and bytes it holds, and the sha256 of those bytes."""

    file: str
    split: str
    records: int
    bytes: int
    sha256: str


class OffsetsRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``offsets/NAME-train-00000-of-00016.json``: where each record of one shard begins, for random access.

    ``made_from`` is the sha256 of what decides a shard's bytes (manifest, geometry, encoding); ``offsets`` are of the
    records' first bytes, in bytes, and ``crcs`` the masked CRC-32C of their payloads.
    """

    format: str = "segdata shard offsets"
    version: int = 1
    shard: ShardRecord
    made_from: str
    offsets: list[int]
    crcs: list[int]
    seal: str = ""


class ManifestReference(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest that shards were built from; ``path`` is relative, null where no relative path leads there."""

    path: str | None
    sha256: str


class IndexRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``index.json``: all that a reader of shards needs."""

    format: str = "segdata shards"
    version: int = 1
    name: str
    label_map: LabelMap | None
    geometry: Geometry
    features: dict[str, str]
    manifest: ManifestReference
    options: dict[str, str | int | float | bool | None]
    shards: list[ShardRecord]
    seal: str = ""


class _Stamp(msgspec.Struct):
    format: str = ""
    version: int = 0


@dataclass(frozen=True)
class Sample:
    """A decoded sample: ``image`` (H, W, 3) uint8 RGB, ``mask`` (H, W) uint8 ids, ``matte`` (H, W) float32 in [0,
    1].
    """

    id: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None = None
    matte: npt.NDArray[np.float32] | None = None


_Record = TypeVar("_Record")
_Sealed = TypeVar("_Sealed", bound=msgspec.Struct)  # with the fields format, version and seal


def seal(record: _Sealed) -> bytes:
    """The bytes of a folder's JSON: two-space indents, a final newline, and the seal filled in."""
    empty = _pretty(msgspec.structs.replace(record, seal=""))
    return _pretty(msgspec.structs.replace(record, seal=hashlib.sha256(empty).hexdigest()))


def _pretty(record: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"


def unseal(data: bytes, kind: type[_Sealed], where: str) -> _Sealed:
    """The record in the bytes of a folder's JSON; RecordError where they were edited or are of another version."""
    stamp = decode(data, _Stamp, where)
    expected = next(field.default for field in msgspec.structs.fields(kind) if field.name == "format")
    if stamp.format != expected:
        raise RecordError(f"{where}: format {stamp.format!r}, expected {expected!r}.")
    if stamp.version != 1:
        raise RecordError(f"{where}: version {stamp.version}, this segdata reads version 1. Update segdata.")
    record = decode(data, kind, where)
    if seal(record) != data:
        raise RecordError(
            f"{where}: its bytes do not match its seal, so it was edited or damaged. Make the folder again."
        )
    return record


def decode(data: bytes, kind: type[_Record], where: str) -> _Record:
    """JSON to a typed value; RecordError, naming ``where`` and the field, for anything else."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LabelMapError) as error:
        raise RecordError(f"{where}: {error}.") from error


def encode_lines(lines: Iterator[SampleLine] | list[SampleLine] | list[RejectedLine]) -> bytes:
    """JSON lines, one value a line."""
    return msgspec.json.Encoder().encode_lines(list(lines))


def decode_lines(path: Path, kind: type[_Record]) -> Iterator[_Record]:
    """The values of a JSON-lines file, one at a time. RecordError names the file and the line."""
    decoder = msgspec.json.Decoder(kind)
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    raise RecordError(f"{path} line {number}: {error}.") from error
    except OSError as error:
        raise FolderError(f"{path}: cannot be read ({error.strerror}). Make the folder again.") from error


def read_record_file(path: Path, kind: type[_Sealed]) -> _Sealed:
    """The sealed record in a file. OSError where it cannot be read, RecordError where it was edited or damaged."""
    return unseal(path.read_bytes(), kind, str(path))


def kind_of(folder: Path) -> str:
    """Which JSON describes a folder: its file name. FolderError for a folder without one."""
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder, expected a prepared dataset, a manifest or shards.")
    found = [name for name in RECORD_NAMES if (folder / name).is_file()]
    if len(found) != 1:
        what = (
            f"holds {' and '.join(found)}" if found else "holds no dataset.json, manifest.json, index.json or run.json"
        )
        raise FolderError(f"{folder}: {what}, so it is unfinished or not a folder of segdata's. Run its command again.")
    return found[0]


def read_dataset(folder: Path) -> DatasetRecord:
    """``dataset.json`` of a prepared dataset; FolderError or RecordError where it is unfinished or damaged."""
    return unseal(_json_bytes(folder, DATASET_JSON, "prepared dataset"), DatasetRecord, str(folder / DATASET_JSON))


def read_manifest(folder: Path) -> ManifestRecord:
    """``manifest.json`` of a manifest folder."""
    return unseal(_json_bytes(folder, MANIFEST_JSON, "manifest"), ManifestRecord, str(folder / MANIFEST_JSON))


def read_index(folder: Path) -> IndexRecord:
    """``index.json`` of a folder of shards."""
    return unseal(_json_bytes(folder, INDEX_JSON, "folder of shards"), IndexRecord, str(folder / INDEX_JSON))


def _json_bytes(folder: Path, name: str, what: str) -> bytes:
    path = folder / name
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder, expected a {what}.")
    if not path.is_file():
        raise FolderError(
            f"{folder}: has no {name}, so it is unfinished or no {what}. Run the command that makes it again."
        )
    return path.read_bytes()


def image_file(line: SampleLine, dataset: Path, image_root: str) -> Path:
    """The photo of a sample line, given the dataset's folder and the ``image_root`` of its dataset.json."""
    return dataset / (line.image_root if line.image_root is not None else image_root) / line.image


def is_inside(path: str) -> bool:
    """Whether a recorded path is relative, POSIX, and stays inside the folder that it is relative to."""
    if "/" not in path and "\\" not in path and ":" not in path:  # most are plain names, and there are many
        return path not in ("", ".", "..")
    pure = PurePosixPath(path)
    return (
        bool(pure.parts)
        and not pure.is_absolute()
        and ".." not in pure.parts
        and "\\" not in path
        and not _DRIVE.search(path)
    )
