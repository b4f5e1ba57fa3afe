"""What a run is made with and what it is found by: options, ``run.json`` and ``metrics.json``. No Keras here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from segdata.errors import FolderError, OptionError, did_you_mean
from segdata.formats.files import write_atomic
from segdata.labels import LabelMap
from segdata.records import RUN_JSON, Geometry, decode, unseal
from segmodels.augment import Augment

BEST, LAST = "best.keras", "last.keras"
HISTORY_CSV, CURVES_PNG, METRICS_JSON = "history.csv", "curves.png", "metrics.json"
EVENTS = "events.out.tfevents.0.segdata"  # TensorBoard looks for the middle of this name
OWNED = (  # files that a run may hold
    r"(best|last|new)\.keras|history\.csv|curves\.png|metrics\.json|(sheet|worst|confusion)-[a-z]+\.png"
    r"|events\.out\.tfevents\.0\.segdata"
)
MEASURED = re.compile(r"metrics\.json|(sheet|worst|confusion)-[a-z]+\.png")  # files that speak of one best.keras
OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "plateau")
PRECISIONS = ("float32", "float16", "bfloat16")
CLASS_WEIGHTS = ("none", "balanced")
OTHER_SHARDS = "These are not the shards that the run was trained on."
MATTE_CLASSES = ("background", "person")


@dataclass(frozen=True)
class TrainConfig:
    """How a network is trained: with the same value, the same shards and on the same machine, the same weights.

    ``learning_rate`` is the highest of the schedule. ``size`` is what pictures are fitted to, (height, width), and
    that of the shards where it is None; with ``size_buckets`` each training batch has one of those sizes. ``grey``
    trains on one channel. ``weight_decay`` is AdamW's, None for Keras's own. ``clip_norm`` is the most that the
    gradient's norm may be, ``early_stopping`` the epochs without a better one after which a run ends; 0 switches
    either off. ``mixed_precision`` is what layers compute in; weights and losses stay float32. ``seed`` decides
    what is random: first weights, order, augmentation, dropout.
    OptionError for a value out of its bounds.
    """

    model: str
    epochs: int = 30
    batch_size: int = 8
    learning_rate: float = 1e-3
    seed: int = 0
    loss: str = "cross_entropy"
    class_weights: str = "none"
    optimizer: str = "adam"
    weight_decay: float | None = None
    schedule: str = "cosine"
    clip_norm: float = 1.0
    early_stopping: int = 0
    augment: Augment = field(default_factory=lambda: Augment(name="none"))
    size: tuple[int, int] | None = None
    size_buckets: tuple[tuple[int, int], ...] = ()
    fit: str = "letterbox"
    grey: bool = False
    encoder: str | None = None
    freeze_encoder: bool = False
    mixed_precision: str = "float32"

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("early_stopping", 0)):
            value = getattr(self, name)
            if value < least:
                raise OptionError(f"{_option(name)} {value}: expected {least} or more.")
        if not (math.isfinite(self.learning_rate) and 0 < self.learning_rate <= 1):
            raise OptionError(f"--learning-rate {self.learning_rate}: expected a number above 0 and at most 1.")
        for name in ("weight_decay", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{_option(name)} {value}: expected a number of 0 or more.")
        if not 0 <= self.seed < 1 << 32:
            raise OptionError(f"--seed {self.seed}: expected 0 to {(1 << 32) - 1}.")
        for name, known in _CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise OptionError(f"{_option(name)} {value!r} is not known.{did_you_mean(value, known)}")
        if self.fit != "letterbox" and not (self.size or self.size_buckets):
            raise OptionError(f"--fit {self.fit}: goes with --size or --size-buckets.")
        if self.class_weights != "none" and self.loss != "cross_entropy":
            raise OptionError(f"--class-weights goes with --loss cross_entropy, not with {self.loss!r}.")
        if self.weight_decay and self.optimizer != "adamw":
            raise OptionError(f"--weight-decay goes with --optimizer adamw, not with {self.optimizer!r}.")

    @property
    def channels(self) -> int:
        """What the network sees: 1 for grey, 3 for RGB."""
        return 1 if self.grey else 3


_CHOICES = {
    "class_weights": CLASS_WEIGHTS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "fit": ("letterbox", "stretch"),
    "mixed_precision": PRECISIONS,
}


def _option(field: str) -> str:
    return f"--{field.replace('_', '-')}"


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
    """``run.json``: a finished run. Epochs count from 1.

    ``geometry`` is how pictures are fitted to what the network takes. ``target`` is what it learned, ``mask`` or
    ``matte``; ``label_map`` is null for mattes. It began with the weights of the file of that sha256, or its encoder
    with ``imagenet`` or those of a file, told by its sha256 too.
    """

    format: str = "segdata run"
    version: int = 1
    model: str
    target: str
    label_map: LabelMap | None
    geometry: Geometry
    input_channels: int
    parameters: int
    config: TrainConfig
    backend: str
    shards: ShardsReference
    epochs: int
    best_epoch: int
    best_metric: BestMetric
    class_weights: tuple[float, ...] | None = None
    weights_sha256: str | None = None
    encoder_weights: str | None = None
    seal: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by id; a matte is the share of the second."""
        return self.label_map.names if self.label_map else MATTE_CLASSES

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what the network was validated on."""
        if self.geometry.size is None:
            raise OptionError("run.json: its geometry has no size. Run `segdata train` again.")
        return self.geometry.size


class Scores(msgspec.Struct, frozen=True, kw_only=True, tag="mask", tag_field="kind"):
    """How good masks are over one split, as metrics.json holds it: shares in [0, 1], rounded to 6 digits.

    ``iou`` and ``mean_iou`` are over all pixels of the split together; ``mean_image_iou`` is for each class but the
    background the mean over the samples that have it, and the mean of these. ``boundary_iou`` counts only pixels near
    the boundaries. A class in neither the truth nor
    the prediction is ``absent``: its IoU is null, and means are over the others. What no pixel counts for is null.
    """

    mean_iou: float | None
    iou: dict[str, float | None]
    mean_image_iou: float | None = None
    mean_boundary_iou: float | None = None
    boundary_iou: dict[str, float | None] = {}
    pixel_accuracy: float | None
    samples: int
    absent: tuple[str, ...]


class MatteScores(msgspec.Struct, frozen=True, kw_only=True, tag="matte", tag_field="kind"):
    """How good mattes are over one split: mean absolute and squared error over all pixels that count, in [0, 1], and
    the mean over samples of the gradient error (Rhemann et al. 2009, in thousands). Null where no pixel counts.
    """

    mae: float | None
    mse: float | None
    gradient: float | None
    samples: int


class SplitScores(msgspec.Struct, frozen=True, kw_only=True):
    """One split: at the network's size and at that of the photos, which is null where it was not measured; of the
    shards whose index.json has that sha256.

    ``photo_truth`` says what the truth at the photo's size is: ``stored`` in the shards, or ``enlarged`` from there.
    """

    shards_sha256: str | None = None
    network_size: Scores | MatteScores
    photo_size: Scores | MatteScores | None = None
    photo_truth: str | None = None


def read_run(folder: Path) -> RunRecord:
    """``run.json`` of a run; FolderError or RecordError where it is unfinished or damaged."""
    path = folder / RUN_JSON
    if not folder.is_dir():
        raise FolderError(f"{folder}: no such folder, expected a run that `segdata train` made.")
    if not path.is_file():
        raise FolderError(f"{folder}: has no {RUN_JSON}, so it is unfinished or no run. Run `segdata train` again.")
    return unseal(path.read_bytes(), RunRecord, str(path))


def read_scores(path: Path) -> dict[str, SplitScores]:
    """A ``metrics.json`` by split; empty where there is none. RecordError where it does not decode."""
    return decode(path.read_bytes(), dict[str, SplitScores], str(path)) if path.is_file() else {}


def write_scores(path: Path, scores: Mapping[str, SplitScores]) -> None:
    """Put the scores of some splits into a ``metrics.json``, by rename; those of other splits stay."""
    by_split = dict(sorted({**read_scores(path), **scores}.items()))
    write_atomic(path, msgspec.json.format(msgspec.json.encode(by_split), indent=2) + b"\n")
