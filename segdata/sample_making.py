"""Samples in the making: raw photos and labels to what convert stores of them, a chunk at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused, RecordError
from segdata.formats import files, images, raw_pictures
from segdata.formats.folders import PARTS, check_run
from segdata.labels import IGNORE_INDEX
from segdata.records import RejectedLine, SampleLine, is_inside, read_record_file, seal
from segdata.sources import Entry, Source
from segdata.transforms.crop import Box, Crop
from segdata.transforms.relabel import Relabel
from segdata.transforms.resize import FitToPhoto, resize_nearest, resize_smooth

RawIds = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


@dataclass(frozen=True)
class SampleTask:
    """Some raw samples to convert into the folder ``out``, which is that ``run``'s, with these ``codecs``.

    With ``reuse``, what an earlier run of the same finished is left as it is; with ``durable`` each file is flushed to
    the disk, since nobody else can do that for another machine.
    """

    source: Source
    entries: Sequence[Entry]
    out: Path
    ignore_unmapped: bool
    resize_masks: bool
    copy_images: bool
    crop: Crop | None
    reuse: bool
    run: str
    codecs: str
    durable: bool

    @cached_property
    def relabel(self) -> Relabel | None:
        """Raw ids to class ids; None for mattes."""
        labels = self.source.label_map
        return Relabel(labels, self.ignore_unmapped) if labels else None


class MadeSamples(msgspec.Struct, frozen=True, kw_only=True):
    """What some raw samples became; kept in the folder until it is finished, so that a run that was stopped goes on.

    ``raw_states`` are size in bytes and time of change of the raw files, None where one is not there.
    """

    format: str = "segdata samples in the making"
    version: int = 1
    raw_states: list[tuple[int, int] | None]
    lines: list[SampleLine]
    rejected: list[RejectedLine]
    seal: str = ""

    @property
    def stored_bytes(self) -> int:
        """Of their photos, masks and mattes."""
        return sum(line.image_bytes + (line.mask_bytes or 0) + (line.matte_bytes or 0) for line in self.lines)


def make_samples(task: SampleTask) -> MadeSamples:
    """Convert a task's samples; one that cannot be used becomes a rejected line.

    JobFailed for a worker whose codecs are not those of the others, and where another run has taken the folder over.
    """
    images.check_codecs(task.codecs)
    images.use_one_thread()
    part = task.out / PARTS / f"{files.sha256_hex(msgspec.json.encode(task.entries))[:32]}.json"
    states = _states(task.source, task.entries)
    found = _reusable(part, states, task) if task.reuse else None
    if found is not None:
        return found
    results = [line for entry in task.entries for line in _convert_or_reject(task, entry)]
    made = MadeSamples(
        raw_states=states,
        lines=[line for line in results if isinstance(line, SampleLine)],
        rejected=[line for line in results if isinstance(line, RejectedLine)],
    )
    if not made.rejected:  # what could not be read may be readable next time
        _write(task, part, seal(made))  # after a power cut its hashes tell what survived
    return made


def raw_sha256(source: Source, entries: Sequence[Entry]) -> str:
    """The sha256 of what a source says of its raw files (their names, what is drawn in them) and of their sizes."""
    sizes = [state and state[0] for state in _states(source, entries)]
    return files.sha256_hex(msgspec.json.encode([entries, sizes]))


def own_files(line: SampleLine, copies_images: bool) -> Iterator[str]:
    """The files of a sample line that lie in the dataset's own folder, all photos among them where they are copies."""
    if copies_images or line.image_root == ".":
        yield line.image
    yield from (path for path in (line.mask, line.matte) if path is not None)


def _raw_files(source: Source, entry: Entry) -> Iterator[Path]:
    yield source.image_root / entry.image
    if entry.label:
        yield source.label_root / entry.label


def _states(source: Source, entries: Sequence[Entry]) -> list[tuple[int, int] | None]:
    return [_state(path) for entry in entries for path in _raw_files(source, entry)]


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns


def _reusable(part: Path, states: list[tuple[int, int] | None], task: SampleTask) -> MadeSamples | None:
    """What an earlier run made of the same raw files, where every file it wrote still has its sha256."""
    try:
        found = read_record_file(part, MadeSamples)
    except (OSError, RecordError):
        return None
    whole = found.raw_states == states and all(_is_whole(line, task) for line in found.lines)
    return found if whole else None


def _is_whole(line: SampleLine, task: SampleTask) -> bool:
    recorded = {line.image: line.image_sha256, line.mask: line.mask_sha256, line.matte: line.matte_sha256}
    try:
        own = own_files(line, task.copy_images)
        return all(files.sha256_file(task.out / path) == recorded[path] for path in own)
    except OSError:
        return False


def _write(task: SampleTask, path: Path, data: bytes) -> None:
    """A file of its own, whole or not there; it is flushed with all others at the end."""
    check_run(task.out, task.run)
    files.write_atomic(path, data, durable=task.durable)


def _convert_or_reject(task: SampleTask, entry: Entry) -> Sequence[SampleLine | RejectedLine]:
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


def _convert_one(task: SampleTask, entry: Entry) -> list[SampleLine]:
    read, crop = _read(task, entry), task.crop
    if crop is None:
        return [_whole(task, entry, read)]
    pixels = images.decode_stored(read.photo.data)
    boxes = crop.boxes(entry.id, _person(read.label, task.relabel is None))
    return [
        _cut(task, entry, read, pixels, f"{entry.id}-{number}", box, crop.side_px) for number, box in enumerate(boxes)
    ]


def _read(task: SampleTask, entry: Entry) -> _Read:
    with _naming(entry.image):
        raw = files.read_regular(task.source.image_root / entry.image)
        photo = raw_pictures.read_photo(raw)
    with _naming(entry.label or entry.image):
        values = task.source.annotate(entry).values
        fit = FitToPhoto(task.resize_masks)
        fitted = fit(values, photo.header.height, photo.header.width, photo.orientation, smooth=task.relabel is None)
        resized_from = None if fitted is values else (values.shape[0], values.shape[1])
        return _Read(raw, photo, fitted if task.relabel is None else task.relabel(fitted)[0], resized_from)


def _person(label: RawIds, is_matte: bool) -> npt.NDArray[np.bool_]:
    """(H, W) what a crop must hold enough of: any class but background, or alpha of a half and more."""
    half = (np.iinfo(label.dtype).max + 1) // 2
    found: npt.NDArray[np.bool_] = label >= half if is_matte else (label != 0) & (label != IGNORE_INDEX)
    return found


def _whole(task: SampleTask, entry: Entry, read: _Read) -> SampleLine:
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


def _cut(task: SampleTask, entry: Entry, read: _Read, pixels: RawIds, name: str, box: Box, side: int) -> SampleLine:
    """One sample cut from a photo: area average for the picture and for alpha, nearest neighbour for class ids."""
    x, y, w, h = box
    window = (slice(y, y + h), slice(x, x + w))
    picture = resize_smooth(pixels[window], side, side)
    resize = resize_smooth if task.relabel is None else resize_nearest
    is_jpeg = read.raw.startswith(images.JPEG_MAGIC)  # lossy once more, but a fifth of the size; others stay lossless
    data = images.encode_jpeg(picture) if is_jpeg else images.encode_png(picture)
    path = f"images/{name}.{'jpg' if is_jpeg else 'png'}"
    _write(task, task.out / path, data)
    return SampleLine(
        id=name,
        group=entry.group,
        image=path,
        image_root=None if task.copy_images else ".",
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
    confidence = None if entry.confidence is msgspec.UNSET else entry.confidence
    return {"license": entry.license, "exif_orientation": turn if turn != 1 else None, "confidence": confidence}


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Put the raw file's path before whatever is refused inside."""
    try:
        yield
    except ImageRefused as error:
        raise ImageRefused(error.reason, f"{path}: {error.detail}") from error


def _store_label(task: SampleTask, sample: str, label: RawIds) -> dict[str, Any]:
    """Write a mask of class ids, or without a label map a matte; the fields of the sample line that say so."""
    if task.relabel is None:
        return _store(task, "matte", sample, images.encode_png(label))
    counts = images.count_values(label)
    pixels = {name: int(counts[i]) for i, name in enumerate(task.relabel.label_map.names)}
    return _store(task, "mask", sample, images.encode_mask(label.astype(np.uint8, copy=False))) | {
        "class_pixels": pixels
    }


def _store(task: SampleTask, kind: str, sample: str, data: bytes) -> dict[str, Any]:
    path = f"{kind}s/{sample}.png"
    _write(task, task.out / path, data)
    return {kind: path, f"{kind}_sha256": files.sha256_hex(data), f"{kind}_bytes": len(data)}


def _store_photo(task: SampleTask, entry: Entry, read: _Read) -> dict[str, Any]:
    """Where the photo lies: in the raw folder as it was, or in the dataset's own where it was changed or is copied."""
    data = read.photo.data
    fields: dict[str, Any] = {"image_sha256": files.sha256_hex(data), "image_bytes": len(data)}
    can_stay = read.photo.reencoded_from is None and is_inside(entry.image)  # "a:b.jpg" reads as a drive
    if can_stay and not task.copy_images:
        return fields | {"image": entry.image}
    if read.photo.reencoded_from is not None:
        fields |= {"source_sha256": read.sha256, "reencoded_from": read.photo.reencoded_from}
    path = f"images/{entry.id}.{'jpg' if read.photo.header.format == 'jpeg' else 'png'}"
    _write(task, task.out / path, data)
    return fields | {"image": path} | ({} if task.copy_images else {"image_root": "."})
