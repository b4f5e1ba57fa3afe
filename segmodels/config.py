"""What a run is made with and what it is found by: options, ``run.json`` and ``metrics.json``. No Keras here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from segdata.errors import FolderError, OptionError
from segdata.formats.files import write_atomic
from segdata.labels import LabelMap
from segdata.records import RUN_JSON, decode, unseal

BEST, LAST = "best.keras", "last.keras"
HISTORY_CSV, CURVES_PNG, METRICS_JSON = "history.csv", "curves.png", "metrics.json"
OWNED = r"(best|last|new)\.keras|history\.csv|curves\.png|metrics\.json|sheet-[a-z]+\.png"  # files that a run may hold


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained. ``learning_rate`` is the highest of the schedule, ``seed`` decides what is random."""

    model: str
    epochs: int = 30
    batch_size: int = 8
    learning_rate: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if value < 1:
                raise OptionError(f"--{name.replace('_', '-')} {value}: expected 1 or more.")
        if not (math.isfinite(self.learning_rate) and 0 < self.learning_rate <= 1):
            raise OptionError(f"--learning-rate {self.learning_rate}: expected a number above 0 and at most 1.")
        if not 0 <= self.seed < 1 << 32:
            raise OptionError(f"--seed {self.seed}: expected 0 to {(1 << 32) - 1}.")


class ShardsReference(msgspec.Struct, frozen=True, kw_only=True):
    """The shards that a run was trained on; ``path`` is relative to the run, null where no relative path leads there.

    ``sha256`` is of their index.json.
    """

    path: str | None
    sha256: str


class BestMetric(msgspec.Struct, frozen=True, kw_only=True):
    """What best.keras was chosen by: a column of history.csv, and its value then."""

    name: str
    value: float


class RunRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``run.json``: a finished run. ``input_size`` is (height, width) in pixels; epochs count from 1."""

    format: str = "segdata run"
    version: int = 1
    model: str
    label_map: LabelMap
    input_size: tuple[int, int]
    input_channels: int
    parameters: int
    config: TrainConfig
    shards: ShardsReference
    best_epoch: int
    best_metric: BestMetric
    seal: str = ""


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """How good a network is over one split, as metrics.json holds it: shares in [0, 1], rounded to 6 digits.

    A class in neither the truth nor the prediction is ``absent``: its IoU is null, and ``mean_iou`` is over the others.
    ``pixel_accuracy`` and ``mean_iou`` are null where no pixel counts at all.
    """

    mean_iou: float | None
    iou: dict[str, float | None]
    pixel_accuracy: float | None
    samples: int
    absent: tuple[str, ...]


def read_run(folder: Path) -> RunRecord:
    """``run.json`` of a run; FolderError or RecordError where it is unfinished or damaged."""
    path = folder / RUN_JSON
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder, expected a run that `segdata train` made.")
    if not path.is_file():
        raise FolderError(f"{folder}: has no {RUN_JSON}, so it is unfinished or no run. Run `segdata train` again.")
    return unseal(path.read_bytes(), RunRecord, str(path))


def read_scores(run: Path) -> dict[str, Scores]:
    """``metrics.json`` of a run by split; empty where there is none. RecordError where it does not decode."""
    path = run / METRICS_JSON
    return decode(path.read_bytes(), dict[str, Scores], str(path)) if path.is_file() else {}


def write_scores(run: Path, scores: Mapping[str, Scores]) -> None:
    """Put the scores of some splits into ``metrics.json``, by rename; those of other splits stay."""
    by_split = dict(sorted({**read_scores(run), **scores}.items()))
    write_atomic(run / METRICS_JSON, msgspec.json.format(msgspec.json.encode(by_split), indent=2) + b"\n")
