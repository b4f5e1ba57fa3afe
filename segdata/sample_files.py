"""Where the files of sample lines lie, for a prepared dataset and for a manifest over one or several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from segdata.errors import FolderError, ImageRefused, RecordError
from segdata.formats import files
from segdata.records import (
    DATASET_JSON,
    SAMPLES_JSONL,
    DatasetRecord,
    DatasetReference,
    ManifestRecord,
    SampleLine,
    decode_lines,
    image_file,
    is_inside,
    read_dataset,
)


@dataclass(frozen=True)
class Place:
    """A prepared dataset on disk: its folder and its ``image_root``."""

    folder: Path
    image_root: str

    def image(self, line: SampleLine) -> Path:
        """The photo of a sample line."""
        _check_inside(line, line.image)
        return image_file(line, self.folder, self.image_root)

    def below(self, line: SampleLine, path: str) -> Path:
        """A mask or matte of a sample line."""
        _check_inside(line, path)
        return self.folder / path


def _check_inside(line: SampleLine, path: str) -> None:
    if not is_inside(path):
        raise RecordError(f"sample {line.id!r}: path {path!r} leaves its folder. Make the dataset again.")


Places = dict[str | None, Place]


def place_of(folder: Path, record: DatasetRecord) -> Places:
    """The one place of a prepared dataset's own sample lines."""
    return {None: Place(folder, record.image_root)}


def places_of(folder: Path, record: ManifestRecord) -> Places:
    """The places of a manifest's sample lines, by dataset name; None too where there is only one.

    FolderError where a dataset is missing, unfinished, or was made again since the split.
    """
    places: Places = {}
    for reference in record.datasets:
        place = dataset_place(folder, reference)
        places[reference.name] = place
        if len(record.datasets) == 1:
            places[None] = place
    return places


def dataset_place(manifest: Path, reference: DatasetReference) -> Place:
    """Where a manifest's dataset lies; FolderError as in ``places_of``."""
    dataset = manifest / reference.path
    record = read_dataset(dataset)
    if files.sha256_file(dataset / DATASET_JSON) != reference.sha256:
        raise FolderError(f"{dataset}: was made again since {manifest} was split from it. Run `segdata split` again.")
    return Place(dataset, record.image_root)


def sample_lines(folder: Path) -> Iterator[SampleLine]:
    """The sample lines of a prepared dataset, in order."""
    return decode_lines(folder / SAMPLES_JSONL, SampleLine)


def split_lines(folder: Path, record: ManifestRecord, split: str) -> Iterator[SampleLine]:
    """The sample lines of one split of a manifest, in order."""
    return decode_lines(folder / record.splits[split].file, SampleLine)


def read_recorded(path: Path, sha256: str | None, sample: str) -> bytes:
    """A file whose sha256 was recorded. ImageRefused where it is missing, unreadable, or changed since then."""
    try:
        data = files.read_regular(path)
    except ImageRefused as error:
        raise ImageRefused(error.reason, f"{path} of sample {sample!r}: {error.detail}") from error
    found = files.sha256_hex(data)
    if found != sha256:
        raise ImageRefused(
            "changed", f"{path} of sample {sample!r} changed since it was converted: sha256 {found}, expected {sha256}"
        )
    return data


def read_encoded(line: SampleLine, places: Places) -> tuple[bytes, bytes | None, bytes | None]:
    """The stored bytes of a sample's image, mask and matte, each as recorded; errors as in ``read_recorded``."""
    place = places[line.dataset]
    mask = matte = None
    if line.mask is not None:
        mask = read_recorded(place.below(line, line.mask), line.mask_sha256, line.id)
    if line.matte is not None:
        matte = read_recorded(place.below(line, line.matte), line.matte_sha256, line.id)
    return read_recorded(place.image(line), line.image_sha256, line.id), mask, matte
