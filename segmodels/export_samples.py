"""Which samples of a run's shards an export looks at: those that it is compared on, and those it is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused
from segdata.formats.images import decode_mask, decode_matte
from segdata.labels import IGNORE_INDEX
from segdata.records import IndexRecord
from segdata.shards import MASK, MATTE, Shards, data, parse
from segdata.transforms.resize import fit_box
from segmodels.bars import sample_bar
from segmodels.feeds import Stored, stored
from segmodels.inputs import Inputs

HELD_BACK_FIRST = ("test", "validation", "train")
CALIBRATION = 100  # samples; TensorFlow's guide says a few hundred, and ranges of 100 differ little from those
Picture = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture as a network is given it, (h, w, 1 or 3), and where in it the photo lies: box (x, y, w, h)."""

    picture: Picture
    box: tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Pictures of the split train, and the ids of the classes that none of that split has."""

    pictures: tuple[Picture, ...]
    absent: tuple[int, ...]


def samples_held_back(folder: Path, index: IndexRecord, count: int) -> list[tuple[Shards, int]]:
    """(split, record number) of ``count`` samples, or of all there are: of test, then validation, then train.

    Each split in the order of its shards, which is by salted hash.
    """
    found: list[tuple[Shards, int]] = []
    for split in HELD_BACK_FIRST:
        if any(shard.split == split and shard.records for shard in index.shards):
            shards = Shards(folder, index, split)
            found += [(shards, number) for number in range(min(len(shards), count - len(found)))]
    return found


def seen(shards: Shards, number: int, inputs: Inputs) -> Seen:
    """One record as ``inputs`` fits it. RecordError where it is damaged."""
    found = stored(shards, number)
    return Seen(_arrays(found, inputs, number)[0], fit_box(*found.original, inputs.geometry))


def calibration(shards: Shards, inputs: Inputs, classes: int) -> Calibration:
    """The first pictures of a split, in the order of its shards, and more until every class is in one of them.

    Of the rest it takes, in order, those with a class that none before has.
    """
    missing, pictures = set(range(classes)), []
    first = min(CALIBRATION, len(shards))
    with sample_bar(first, "calibration") as bar:
        for number in range(first):
            picture, target = _arrays(stored(shards, number), inputs, number)
            missing -= _ids(target)
            pictures.append(picture)
            bar.update()
    for number in _with_missing(shards, first, missing, inputs.target):
        picture, target = _arrays(stored(shards, number), inputs, number)
        if missing & _ids(target):
            missing -= _ids(target)
            pictures.append(picture)
    return Calibration(tuple(pictures), tuple(sorted(missing)))


def _with_missing(shards: Shards, first: int, missing: set[int], target: str) -> Iterator[int]:
    """Numbers of the records from ``first`` on whose stored mask or matte has a class that is missing by then."""
    key = MASK if target == "mask" else MATTE
    for number in range(first, len(shards)):
        if not missing:
            return
        payload, where = shards.payload(number)
        stored_target = data(parse(payload, where, {key}), key, where)
        try:
            ids = _ids(decode_mask(stored_target) if target == "mask" else decode_matte(stored_target))
        except ImageRefused:  # said where the record is read whole
            ids = missing
        if ids & missing:
            yield number


def _arrays(found: Stored, inputs: Inputs, number: int) -> Sequence[npt.NDArray[Any]]:
    size = inputs.geometry.size or found.sample.image.shape[:2]
    return inputs.arrays(found.sample, found.original, size, number, 0)


def _ids(target: npt.NDArray[Any]) -> set[int]:
    """The classes in a mask, or in a matte by its half; what does not count left out."""
    ids = np.where(target < 0, IGNORE_INDEX, target >= 0.5) if target.dtype.kind == "f" else target
    return set(np.unique(ids).tolist()) - {IGNORE_INDEX}
