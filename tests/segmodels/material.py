"""Tiny shards for the tests of segmodels, written by hand; nothing of segdata.jobs is needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata import shards
from segdata.formats import images, tfds, tfrecord
from segdata.labels import LabelMap, label_map
from segdata.records import INDEX_JSON, Geometry, IndexRecord, ManifestReference, Sample, SampleLine, ShardRecord, seal
from segdata.transforms.resize import fit_sample

Pixels = npt.NDArray[np.uint8]
BINARY = label_map("binary", "mask")
SPLITS = {"train": 10, "validation": 4, "test": 5}


@dataclass(frozen=True)
class Recipe:
    """What to write; sizes are (height, width). ``size`` None is what build-tfrecords writes without --size.

    Photos have the sizes ``photos`` in turn, all that of the shards where it is empty, and are fitted as ``fit`` says.
    ``matte_bits`` is 0, 8 or 16.
    """

    samples: Mapping[str, int]
    size: tuple[int, int] | None = (64, 64)
    labels: LabelMap = BINARY
    shards_a_split: int = 2
    ignore_all_in: str = ""
    fit: str = "stretch"
    photos: tuple[tuple[int, int], ...] = ()
    has_masks: bool = True
    matte_bits: int = 0

    @property
    def geometry(self) -> Geometry:
        """Of the shards."""
        return Geometry(size=self.size, fit=self.fit if self.size else "none")

    def photo_size(self, number: int) -> tuple[int, int]:
        """Of the photo with that number."""
        return self.photos[number % len(self.photos)] if self.photos else self.size or (48, 40)


def disc(number: int, height: int, width: int) -> tuple[Pixels, Pixels]:
    """A bright disc on a dark slope, and its mask, with a band of the ignore index at the bottom."""
    dice = np.random.default_rng(number)
    y, x = np.mgrid[0:height, 0:width]
    center, radius = dice.uniform(0.3, 0.7, 2) * (height, width), dice.uniform(0.2, 0.35) * height
    inside = np.hypot(y - center[0], x - center[1]) < radius
    picture = np.stack([np.where(inside, 200, 40) + x * 40 // width + dice.integers(0, 15, x.shape)] * 3, axis=2)
    picture[:, :, 0] += np.where(inside, 15, 0)
    mask = inside.astype(np.uint8)
    mask[-height // 8 :] = 255
    return picture.astype(np.uint8), mask


def alpha_of(number: int, height: int, width: int) -> npt.NDArray[np.float32]:
    """The matte of the disc: 1 inside, 0 outside, and a soft edge."""
    dice = np.random.default_rng(number)
    y, x = np.mgrid[0:height, 0:width]
    center, radius = dice.uniform(0.3, 0.7, 2) * (height, width), dice.uniform(0.2, 0.35) * height
    return np.clip((radius - np.hypot(y - center[0], x - center[1])) / 6 + 0.5, 0, 1).astype(np.float32)


def write_shards(folder: Path, recipe: Recipe) -> IndexRecord:
    """A folder of shards: JPEG photos, but every third a PNG and every fifth a grey PNG."""
    folder.mkdir(parents=True)
    number, records = 0, []
    for split, count in recipe.samples.items():
        ids = range(number, number + count)
        number += count
        for k in range(recipe.shards_a_split):
            mine = ids[k :: recipe.shards_a_split]
            data = b"".join(tfrecord.frame(_payload(i, recipe, split == recipe.ignore_all_in)) for i in mine)
            name = shards.shard_name("discs", split, k, recipe.shards_a_split)
            (folder / name).write_bytes(data)
            digest = hashlib.sha256(data).hexdigest()
            records.append(ShardRecord(file=name, split=split, records=len(mine), bytes=len(data), sha256=digest))
    index = IndexRecord(
        name="discs",
        label_map=recipe.labels if recipe.has_masks else None,
        geometry=recipe.geometry,
        features=shards.features(recipe.has_masks, recipe.matte_bits > 0),
        manifest=ManifestReference(path=None, sha256="0" * 64),
        options={},
        shards=records,
    )
    for name, data in tfds.sidecar_files(index).items():
        (folder / name).write_bytes(data)
    (folder / INDEX_JSON).write_bytes(seal(index))
    return index


def _payload(number: int, recipe: Recipe, ignore_all: bool) -> bytes:
    height, width = recipe.photo_size(number)
    line = SampleLine(
        id=f"disc-ä{number}",
        group=f"disc-ä{number}",
        image=f"disc{number}.jpg",
        height=height,
        width=width,
        image_sha256="0" * 64,
        image_bytes=1,
    )
    drawn = Sample(line.id, *disc(number, height, width), alpha_of(number, height, width))
    fitted = fit_sample(drawn, height, width, recipe.geometry)
    picture, mask = fitted.image, fitted.mask
    assert mask is not None
    assert fitted.matte is not None
    if number % 5 == 4:
        data = images.encode_png(picture[:, :, 1])
    else:
        data = images.encode_png(picture) if number % 3 == 2 else images.encode_jpeg(picture)
    stored = images.encode_mask(np.full_like(mask, 255) if ignore_all else mask) if recipe.has_masks else None
    matte = images.encode_matte(fitted.matte, recipe.matte_bits) if recipe.matte_bits else None
    return shards.encode_sample(line, data, stored, matte)


def build_tiny(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """A network of one convolution, for tests of what is around the network."""
    from segmodels.quiet import keras

    inputs = keras.Input((height, width, channels), name="image")
    return keras.Model(inputs, keras.layers.Conv2D(classes, 1, name="logits")(inputs), name="tiny")
