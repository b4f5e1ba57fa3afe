"""A trained network as predict and evaluate take it: a run, or a file that export made of one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segdata import registry
from segdata.formats.files import sha256_file
from segdata.labels import LabelMap
from segdata.records import RUN_JSON, Geometry
from segmodels.config import BEST, MATTE_CLASSES, RunRecord, read_run
from segmodels.exported import ExportRecord, is_exported, read_export, record_path
from segmodels.runtimes import RUNTIMES, Runtime, Shares


@dataclass(frozen=True)
class Network:
    """What a network is for, and what runs it.

    ``target`` is ``mask`` or ``matte``; ``label_map`` is None for mattes. Pictures are fitted to ``geometry``, whose
    size is (height, width); ``channels`` is 1 for grey, 3 for RGB, 4 for RGBA. ``sha256`` is of a run's best.keras, or
    of the JSON of an exported network; ``shards_sha256`` of the index.json that a run was trained on, None where it is
    not known.
    """

    path: Path
    model: str
    target: str
    label_map: LabelMap | None
    geometry: Geometry
    channels: int
    runtime: Runtime
    sha256: str
    shards_sha256: str | None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what it takes."""
        if self.geometry.size is None:
            raise ValueError("a network of no size")  # read_run and read_export have seen to it
        return self.geometry.size

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by id; a matte is the share of the second."""
        return self.label_map.names if self.label_map else MATTE_CLASSES

    @property
    def is_grey(self) -> bool:
        """Whether it takes one channel."""
        return self.channels == 1

    @property
    def is_run(self) -> bool:
        """Whether it is a run's folder, not an exported file."""
        return (self.path / RUN_JSON).is_file()

    def beside(self, name: str) -> Path:
        """Where a file of this network lies: in the run's folder; for an exported one beside it, its name in front."""
        return self.path / name if self.is_run else self.path.with_name(f"{self.path.name}.{name}")

    def shares(self, images: npt.NDArray[np.uint8]) -> Shares:
        """Probabilities (B, h, w, classes) float32 of pictures (B, h, w, 1 or 3) uint8 at the network's size."""
        if self.channels == 4:
            opaque = np.full((*images.shape[:3], 1), 255, np.uint8)
            images = np.concatenate([images, opaque], axis=3)
        return self.runtime(images)


def open_network(path: Path) -> Network:
    """The network of a run, or an exported one. SegdataError where it is neither, unfinished or damaged."""
    is_run = (path / RUN_JSON).is_file()
    if not is_run and (is_exported(path) or path.is_file()):
        return _exported(path, read_export(path))  # it says what is missing
    return _of_run(path, read_run(path))


def _of_run(path: Path, record: RunRecord) -> Network:
    from segmodels.runtimes.keras import load_run  # Keras loads where it is needed: an exported file may do without

    runtime = load_run(path / BEST, record.size, record.input_channels)
    return _network(path, record, runtime, sha256_file(path / BEST), record.shards.sha256)


def _exported(path: Path, record: ExportRecord) -> Network:
    runtime = registry.load(RUNTIMES, record.export_format, "format")(path, record)
    return _network(path, record, runtime, sha256_file(record_path(path)), None)


def _network(
    path: Path, record: RunRecord | ExportRecord, runtime: Runtime, sha256: str, shards_sha256: str | None
) -> Network:
    return Network(
        path=path,
        model=record.model,
        target=record.target,
        label_map=record.label_map,
        geometry=record.geometry,
        channels=record.input_channels,
        runtime=runtime,
        sha256=sha256,
        shards_sha256=shards_sha256,
    )
