"""What lies beside an exported network: ``FILE.json``, all that a program on a phone needs to know of FILE."""

from __future__ import annotations

from pathlib import Path

import msgspec

from segdata.errors import OptionError, RecordError
from segdata.formats.files import sha256_file
from segdata.labels import LabelMap
from segdata.records import Geometry, unseal
from segmodels.config import MATTE_CLASSES

FORMATS = ("coreml", "keras", "onnx", "saved_model", "tflite", "tflite-float16", "tflite-int8")
CHANNEL_ORDERS = {1: "grey", 3: "RGB", 4: "RGBA, alpha is not looked at"}


class TensorRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The one input or output of a network: its shape has null where any size will do.

    A number q of a quantized one stands for (q - zero_point) * scale; ``scale`` is null where numbers are what they
    are. ``value_range`` is of what they stand for.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    value_range: tuple[float, float]
    scale: float | None = None
    zero_point: int | None = None


class ParityRecord(msgspec.Struct, frozen=True, kw_only=True):
    """How near an exported network comes to the run's own, over samples of a split of its shards.

    ``iou`` is by class, of the exported network's ids against the Keras model's, over all pixels but bars; null for a
    class in neither. The difference is the largest between two probabilities. ``min_iou`` is what was asked of
    ``mean_iou``. ``median_latency_ms`` is of one picture on the machine of the export, so it differs from run to run.
    ``runtime`` is what ran the file.
    """

    runtime: str
    samples: int
    splits: tuple[str, ...]
    mean_iou: float
    min_iou: float
    iou: dict[str, float | None]
    max_abs_difference: float
    mean_abs_difference: float
    median_latency_ms: float


class CalibrationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the ranges of an int8 network were measured on: so many samples of the split train of the run's shards.

    ``absent`` are the classes that no sample of that split has at the network's size.
    """

    samples: int
    absent: tuple[str, ...]


class ExportRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``FILE.json``. ``labels`` are the classes by channel of the output, which are probabilities; for the target
    ``matte`` the second is alpha.

    ``geometry`` says how a picture is fitted to the input: letterboxed with bars of ``image_padding``, or stretched.
    ``channels`` is the order of the input's. ``files_sha256`` is of each file of the network, by its path relative to
    FILE, "." for FILE itself. ``calibration`` is null but for int8, ``parity`` where this machine cannot run the
    format: with its latency in it, this JSON differs from export to export of the same bytes. ``best_sha256`` is of the
    run's best.keras.
    """

    format: str = "segdata export"
    version: int = 1
    export_format: str
    model: str
    target: str
    labels: tuple[str, ...]
    label_map: LabelMap | None
    geometry: Geometry
    channels: str
    input: TensorRecord
    output: TensorRecord
    calibration: CalibrationRecord | None = None
    parity: ParityRecord | None
    file_bytes: int
    files_sha256: dict[str, str]
    best_sha256: str
    seal: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by id."""
        return self.label_map.names if self.label_map else MATTE_CLASSES

    @property
    def input_channels(self) -> int:
        """1 for grey, 3 for RGB, 4 for RGBA."""
        found = self.input.shape[-1]
        if found not in CHANNEL_ORDERS:
            raise RecordError(f"an export with {found} input channels, expected {', '.join(map(str, CHANNEL_ORDERS))}.")
        return found


def record_path(file: Path) -> Path:
    """Where what is known of an exported network lies: beside it, with ``.json`` behind its whole name."""
    return file.parent / f"{file.name}.json"


def is_exported(path: Path) -> bool:
    """Whether a path is a network that ``segdata export`` wrote: has its JSON beside it."""
    return path.exists() and record_path(path).is_file()


def own_files(path: Path) -> dict[str, Path]:
    """The files of an exported network by relative POSIX path, ``.`` for one that is a single file."""
    if path.is_file():
        return {".": path}
    return {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}


def read_export(path: Path) -> ExportRecord:
    """What lies beside an exported network. OptionError where there is no such; RecordError where either was changed.

    The bytes of the network must be those that were checked at the export.
    """
    beside = record_path(path)
    if not path.exists():
        raise OptionError(f"{path}: no such file or folder, expected a run or a network that `segdata export` wrote.")
    if not beside.is_file():
        raise OptionError(
            f"{path}: has no {beside.name} beside it, so it is no network of `segdata export`. Export again."
        )
    record = unseal(beside.read_bytes(), ExportRecord, str(beside))
    if record.export_format not in FORMATS:
        raise RecordError(f"{beside}: format {record.export_format!r}, expected one of {', '.join(FORMATS)}.")
    found = {name: sha256_file(file) for name, file in own_files(path).items()}
    if found != record.files_sha256:
        changed = sorted(
            name for name in {*found, *record.files_sha256} if found.get(name) != record.files_sha256.get(name)
        )
        where = path if changed[0] == "." else path / changed[0]
        raise RecordError(f"{where}: is not as it was exported (another sha256). Export it again.")
    return record
