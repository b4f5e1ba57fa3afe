"""What a network is given: a sample fitted, augmented, and turned into arrays. Keras and TensorFlow are not needed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import OptionError, SegdataError
from segdata.labels import IGNORE_INDEX
from segdata.records import Geometry, IndexRecord, Sample
from segdata.shards import MASK, MATTE
from segdata.transforms.resize import fit_box, fit_sample
from segmodels import augment, boundaries
from segmodels.augment import Augment

Arrays = tuple[npt.NDArray[Any], ...]
TARGETS = ("target", "boundary")  # what arrays after the image are called
IGNORED_ALPHA = -1.0  # in a matte that is learned: this pixel does not count
NONE = Augment(name="none")


@dataclass(frozen=True)
class Inputs:
    """How a sample of shards becomes what a network takes and should answer.

    ``stored`` is the geometry of the shards, ``geometry`` that of the network; with ``buckets``, sizes as (height,
    width), each batch has one of those instead, by a draw of ``seed``, epoch and batch. ``target`` is ``mask`` or
    ``matte``; ``boundary`` adds the target of a boundary head. ``pairs`` are the ids that a flip exchanges.
    """

    stored: Geometry
    geometry: Geometry
    target: str = "mask"
    boundary: bool = False
    grey: bool = False
    buckets: tuple[tuple[int, int], ...] = ()
    augment: Augment = NONE
    pairs: tuple[tuple[int, int], ...] = ()
    seed: int = 0

    @property
    def channels(self) -> int:
        """Of the pictures."""
        return 1 if self.grey else 3

    @property
    def shape(self) -> tuple[int | None, int | None]:
        """(height, width) of every batch, None where batches differ."""
        return (None, None) if self.buckets or self.geometry.size is None else self.geometry.size

    def size_of(self, epoch: int, batch: int) -> tuple[int, int]:
        """(height, width) of the pictures in a batch."""
        if self.buckets:
            return self.buckets[np.random.default_rng((self.seed, epoch, batch)).integers(len(self.buckets))]
        return self.geometry.size or (0, 0)

    def plain(self) -> Inputs:
        """The same without what is random: as validated and measured."""
        return replace(self, augment=NONE, buckets=())

    def fitted(self, sample: Sample, original: tuple[int, int], size: tuple[int, int]) -> Sample:
        """A stored sample, whose photo had (height, width) ``original``, at ``size``; a matte is -1 in the bars."""
        has_bars = self.stored.fit == "letterbox"
        is_so = size == self.stored.size and self.geometry.fit == self.stored.fit
        if is_so and not (has_bars and sample.matte is not None):
            return sample
        box = fit_box(*original, self.stored) if has_bars else None
        return fit_sample(cropped(sample, box), *original, replace_size(self.geometry, size), IGNORED_ALPHA)

    def arrays(
        self, sample: Sample, original: tuple[int, int], size: tuple[int, int], number: int, epoch: int
    ) -> Arrays:
        """(image, target), and with ``boundary`` its target: what ``seed``, ``epoch`` and the record ``number`` make.

        image (H, W, channels) uint8; target (H, W), uint8 ids with 255 or float32 alpha with -1 where a pixel does not
        count; boundary (H, W) uint8: 1 on a boundary, 0 elsewhere, 255 where it does not count.
        """
        fitted = self.fitted(sample, original, size)
        parts = fitted.image, fitted.mask, fitted.matte
        image, mask, matte = augment.apply(self.augment, *parts, self.pairs, self.seed, epoch, number)
        target = mask if self.target == "mask" else matte
        if target is None:
            raise OptionError(f"sample {sample.id!r}: has no {self.target}. Run `segdata verify`.")
        if self.grey:
            image = to_grey(image)
        return (image, target, boundaries.boundary_of(target)) if self.boundary else (image, target)


def uncounted(target: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A target like that one, ids or alpha, in which no pixel counts."""
    target = np.asarray(target)  # a tensor too
    return np.full_like(target, IGNORED_ALPHA if target.dtype.kind == "f" else IGNORE_INDEX)


def cropped(sample: Sample, box: tuple[int, int, int, int] | None) -> Sample:
    """What of a sample lies in the box (x, y, w, h); all of it for None."""
    if box is None:
        return sample
    x, y, w, h = box
    window = np.s_[y : y + h, x : x + w]
    mask, matte = sample.mask, sample.matte
    return Sample(
        sample.id,
        np.ascontiguousarray(sample.image[window]),
        None if mask is None else mask[window],
        None if matte is None else np.ascontiguousarray(matte[window]),
    )


def replace_size(geometry: Geometry, size: tuple[int, int]) -> Geometry:
    """The same geometry for another (height, width)."""
    return Geometry(size=size, fit=geometry.fit)


def to_grey(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) RGB to (H, W, 1), by the weights of ITU-R BT.601 as OpenCV rounds them."""
    import cv2

    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)[:, :, None]


def target_of(index: IndexRecord) -> str:
    """``mask`` where the shards hold masks, else ``matte``."""
    return "mask" if MASK in index.features and index.label_map is not None else "matte"


def network_geometry(index: IndexRecord, where: Path, size: tuple[int, int] | None, fit: str) -> Geometry:
    """How pictures are fitted to the network: to ``size``, or as the shards are where that is None.

    SegdataError where neither has a size.
    """
    if size is not None:
        return Geometry(size=size, fit=fit)
    if index.geometry.size is None:
        raise SegdataError(
            f"{where}: its shards were built without --size, so pictures differ in size and make no batch. "
            "Give a size, such as train's --size 256."
        )
    return index.geometry


def plain_inputs(index: IndexRecord, where: Path) -> Inputs:
    """Samples as they are stored, in shards of one size; ``dataclasses.replace`` makes others of it."""
    geometry = network_geometry(index, where, None, "letterbox")
    return Inputs(index.geometry, geometry, target_of(index), pairs=pairs_of(index))


def pairs_of(index: IndexRecord) -> tuple[tuple[int, int], ...]:
    """The ids that a horizontal flip exchanges."""
    return index.label_map.left_right_pairs if index.label_map else ()


def has_mattes(index: IndexRecord) -> bool:
    """Whether there is alpha to learn, or to mix backgrounds by."""
    return MATTE in index.features
