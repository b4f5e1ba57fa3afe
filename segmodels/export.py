"""Write a run's network for other programs, and see that the file says what the run does."""

from __future__ import annotations

import glob
import math
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from segdata import registry
from segdata.errors import FolderError, JobFailed, OptionError, RecordError
from segdata.formats.files import PARTIAL, sha256_file, sync_below, sync_folder
from segdata.formats.folders import refuse_nested
from segdata.records import INDEX_JSON, IndexRecord, read_index, seal, unseal
from segdata.shards import Shards, check_shard_sizes
from segmodels.bars import sample_bar
from segmodels.checkpoints import load_model
from segmodels.config import BEST, OTHER_SHARDS, RunRecord, read_run
from segmodels.export_samples import Calibration, Seen, calibration, samples_held_back, seen
from segmodels.exported import (
    CHANNEL_ORDERS,
    CalibrationRecord,
    ExportRecord,
    ParityRecord,
    own_files,
    record_path,
)
from segmodels.exporters import EXPORTERS, Exporter, Tensors, quietly
from segmodels.extras import need
from segmodels.inputs import Inputs
from segmodels.metrics import with_probabilities
from segmodels.parity import Parity, compare, median_latency_ms, with_channels
from segmodels.quiet import keras
from segmodels.runtimes import RUNTIMES, Runtime
from segmodels.runtimes.keras import load_run

LEAST_SAMPLES = 50
ONLY_MACOS = "Core ML runs on macOS alone, so the file was not compared with the run's own network: parity is null."
_BT601 = (0.299, 0.587, 0.114)  # of red, green and blue, as training's grey


@dataclass(frozen=True)
class ExportOptions:
    """``channels`` of the input, 1, 3 or 4, None for those of the run. ``shards`` is where the run's own lie, None for
    where run.json says. ``samples`` are compared; ``min_parity`` is the least mean IoU, None for the format's.
    OptionError for a value out of its bounds.
    """

    channels: int | None = None
    shards: Path | None = None
    samples: int = 64
    min_parity: float | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.channels is not None and self.channels not in CHANNEL_ORDERS:
            raise OptionError(f"--input-channels {self.channels}: expected 1 (grey), 3 (RGB) or 4 (RGBA).")
        if self.samples < LEAST_SAMPLES:
            raise OptionError(f"--samples {self.samples}: expected {LEAST_SAMPLES} or more.")
        if self.min_parity is not None and not 0 <= self.min_parity <= 1:  # NaN too
            raise OptionError(f"--min-parity {self.min_parity}: expected a share of 0 to 1.")


@dataclass(frozen=True)
class ExportReport:
    """What was written: the network, and ``beside`` it its JSON."""

    run: Path
    out: Path
    beside: Path
    export_format: str
    file_bytes: int
    parity: ParityRecord | None
    notes: tuple[str, ...]


DEFAULTS = ExportOptions()


@dataclass(frozen=True)
class _Job:
    """What is exported, checked before anything is loaded."""

    run: Path
    record: RunRecord
    export_format: str
    exporter: Exporter
    out: Path
    channels: int
    shards: Path
    index: IndexRecord
    options: ExportOptions

    @property
    def inputs(self) -> Inputs:
        """How samples are fitted: in colour where the exported network is given colours, though the run be grey."""
        plain = Inputs(self.index.geometry, self.record.geometry, self.record.target).plain()
        return replace(plain, grey=self.channels == 1)

    @property
    def runs_here(self) -> bool:
        """Whether this machine has what runs the format."""
        return self.exporter.system in ("", sys.platform)


def export(run: Path, export_format: str, out: Path, options: ExportOptions = DEFAULTS) -> ExportReport:
    """Write best.keras of ``run`` as ``out``, a key of EXPORTERS, and ``out``.json beside it, an ``ExportRecord``.

    The network takes pictures of 0...255 at the run's size and gives probabilities, in float32 whatever the run was
    trained in. Its file is run from disk, by the format's own runtime, on samples of the run's shards, and compared
    with best.keras; int8 is calibrated on the split train of those.
    OptionError, FolderError or RecordError before anything is written; JobFailed where the network cannot be converted
    or comes out worse than it should: then nothing of it is left, and what was there before stays.
    """
    job = _checked(run, export_format, out, options)
    notes = []
    chosen = _calibration(job) if job.exporter.is_calibrated else None
    if chosen is not None and chosen.absent:
        names = ", ".join(job.record.classes[i] for i in chosen.absent)
        notes.append(f"no sample of split 'train' has {names}, so int8 was calibrated without.")
    with _beside(out) as making:
        network = _network(job)
        pictures = chosen.pictures if chosen else ()
        pictures = tuple(with_channels(picture, job.channels) for picture in pictures)
        tensors = quietly(lambda: job.exporter.write(network, making, pictures), f"--format {export_format}")
        record = _record(job, making, tensors, chosen)
        if job.runs_here:
            parity, found_notes = _parity(job, making, record)
            record, notes = msgspec.structs.replace(record, parity=parity), [*notes, *found_notes]
        else:
            notes.append(ONLY_MACOS)
        record_path(making).write_bytes(seal(record))
        _put(making, out)
    return ExportReport(run, out, record_path(out), export_format, record.file_bytes, record.parity, tuple(notes))


# ---- before anything is written --------------------------------------------------------------------------------------


def _checked(run: Path, export_format: str, out: Path, options: ExportOptions) -> _Job:
    exporter: Exporter = registry.load(EXPORTERS, export_format, "--format")
    record = read_run(run)
    channels = options.channels or record.input_channels
    if channels < record.input_channels:
        raise OptionError(f"--input-channels {channels}: {run} was trained on RGB, expected 3 or 4.")
    if not out.name:
        raise OptionError(f"--out {out}: expected the name of a file to write.")
    if out.suffix.lower() != exporter.suffix and exporter.suffix:
        raise OptionError(f"--out {out}: expected a name ending in {exporter.suffix} for --format {export_format}.")
    _check_out(out, options.overwrite)
    backend = keras.backend.backend()
    if exporter.backend not in ("", backend):
        raise OptionError(
            f"--format {export_format}: Keras runs on {backend}, expected {exporter.backend}. "
            f"Set KERAS_BACKEND={exporter.backend}."
        )
    where = f"--format {export_format}"
    quietly(lambda: [need(module, exporter.extra, where) for module in exporter.packages], where)
    shards, index = _own_shards(run, record, options.shards)
    return _Job(run, record, export_format, exporter, out, channels, shards, index, options)


def _check_out(out: Path, overwrite: bool) -> None:
    """FolderError for what this command did not make, or, without ``overwrite``, for anything."""
    refuse_nested(out)
    beside = record_path(out)
    if not out.exists() and not beside.exists():
        return
    try:
        before = unseal(beside.read_bytes(), ExportRecord, str(beside))
        is_ours = not out.exists() or set(own_files(out)) <= set(before.files_sha256)
    except (OSError, RecordError):
        is_ours = False
    if not is_ours:
        found = out if out.exists() else beside
        raise FolderError(f"{found}: is no network that `segdata export` wrote. Choose another --out.")
    if not overwrite:
        raise FolderError(f"{out}: exists already. Choose another --out, or pass --overwrite.")


def _own_shards(run: Path, record: RunRecord, given: Path | None) -> tuple[Path, IndexRecord]:
    """The shards that the run was trained on. OptionError where they are not there, or are others."""
    path = record.shards.path
    if given is None and path is None:
        raise OptionError(f"{run}: does not say where its shards lie, which the export is compared on. Give --shards.")
    shards = given if given is not None else (run.resolve() / str(path)).resolve()
    if not (shards / INDEX_JSON).is_file():
        raise OptionError(
            f"{shards}: has no {INDEX_JSON}, expected the shards that {run} was trained on. "
            "Give --shards where they lie now."
        )
    index = read_index(shards)
    if sha256_file(shards / INDEX_JSON) != record.shards.sha256:
        raise OptionError(f"{shards}: {OTHER_SHARDS} Give --shards where those lie.")
    check_shard_sizes(shards, index)
    if not any(shard.records for shard in index.shards):
        raise OptionError(f"{shards}: holds no sample to compare the export on. Run `segdata verify {shards}`.")
    return shards, index


# ---- the network -----------------------------------------------------------------------------------------------------


def _network(job: _Job) -> Any:
    """From pictures of 0...255 with the channels that are wanted to probabilities; its names are always the same."""
    size, own = job.record.size, job.record.input_channels
    model = load_model(job.run / BEST)
    if job.record.config.mixed_precision != "float32":
        model = _in_float32(model)
    network = with_probabilities(model, size, own)
    for number, operation in enumerate(network.operations):
        if not isinstance(operation, keras.layers.Layer):  # Keras counts these up as long as its process lives
            operation.name = f"{type(operation).__name__.lower()}_{number}"
    image = keras.Input((*size, job.channels), batch_size=job.exporter.batch, name="image")
    x = image if job.channels == own else _picked(image, own)
    shares = keras.layers.Identity(name="probabilities")(network(x))
    return keras.Model(image, shares, name=job.record.model)


def _in_float32(model: Any) -> Any:
    """The same layers and weights, all computing in float32."""

    def made_again(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), "dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=made_again)
    copy.set_weights(model.get_weights())
    return copy


def _picked(image: Any, own: int) -> Any:
    """The run's own channels of RGB or RGBA: grey, or the colours without alpha, which has the weight 0.

    A convolution, since every converter has one, and in int8 too it gives colours back as they were.
    """
    kernel = np.zeros((1, 1, image.shape[-1], own), np.float32)
    kernel[0, 0, :3] = np.reshape(_BT601, (3, 1)) if own == 1 else np.eye(3)
    layer = keras.layers.Conv2D(own, 1, use_bias=False, trainable=False, name="grey" if own == 1 else "colors")
    picked = layer(image)
    layer.set_weights([kernel])
    return picked


def _calibration(job: _Job) -> Calibration:
    shards = Shards(job.shards, job.index, "train")
    return calibration(shards, job.inputs, len(job.record.classes))


# ---- the file --------------------------------------------------------------------------------------------------------


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """Where ``out`` is made, under its own name, in a folder that is gone in the end: converters look at names."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for stale in out.parent.glob(f"{glob.escape(out.name)}.????????{PARTIAL}"):  # of an export that was killed
        shutil.rmtree(stale, ignore_errors=True)
    folder = out.with_name(f"{out.name}.{os.urandom(4).hex()}{PARTIAL}")
    folder.mkdir()
    try:
        yield folder / out.name
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(made: Path, out: Path) -> None:
    """Under its final name, its JSON last, in place of what was there, which comes back where that fails."""
    sync_below(made.parent)
    before = made.with_name(f"{made.name}.before")
    if out.exists():
        os.replace(out, before)
    try:
        os.replace(made, out)
        os.replace(record_path(made), record_path(out))
    except BaseException:
        with suppress(OSError):
            if record_path(made).exists():  # else all of it is in place
                if not made.exists():  # without its JSON it would look like somebody else's
                    os.replace(out, made)
                if before.exists():
                    os.replace(before, out)
        raise
    sync_folder(out.parent)


def _record(job: _Job, made: Path, tensors: Tensors, chosen: Calibration | None) -> ExportRecord:
    record, files = job.record, own_files(made)
    calibrated = None
    if chosen is not None:
        absent = tuple(record.classes[i] for i in chosen.absent)
        calibrated = CalibrationRecord(samples=len(chosen.pictures), absent=absent)
    return ExportRecord(
        export_format=job.export_format,
        model=record.model,
        target=record.target,
        labels=record.classes,
        label_map=record.label_map,
        geometry=record.geometry,
        channels=CHANNEL_ORDERS[job.channels],
        input=tensors[0],
        output=tensors[1],
        calibration=calibrated,
        parity=None,
        file_bytes=sum(file.stat().st_size for file in files.values()),
        files_sha256={name: sha256_file(file) for name, file in files.items()},
        best_sha256=sha256_file(job.run / BEST),
    )


# ---- parity ----------------------------------------------------------------------------------------------------------


def _parity(job: _Job, made: Path, record: ExportRecord) -> tuple[ParityRecord, list[str]]:
    """Run the file, and the run's own network. JobFailed where they say too different things."""
    exported = _loaded(job, made, record)
    own = load_run(job.run / BEST, job.record.size, job.record.input_channels)
    samples = samples_held_back(job.shards, job.index, job.options.samples)
    pictures = _pictures(job, samples)
    found = compare(own, exported, pictures, (job.record.input_channels, job.channels), job.record.target)
    asked = job.options.min_parity if job.options.min_parity is not None else job.exporter.min_parity
    splits = tuple(dict.fromkeys(shards.split for shards, _ in samples))
    mean_iou = round(found.mean_iou, 6)
    if not mean_iou >= asked:
        raise JobFailed(
            f"{job.out}: mean IoU {mean_iou} with the run's own network over {len(samples)} samples of "
            f"{', '.join(splits)}, expected --min-parity {asked} or more. Nothing was written. "
            "Choose another --format, or a lower --min-parity."
        )
    picture = with_channels(seen(*samples[0], job.inputs).picture, job.channels)
    parity = ParityRecord(
        runtime=f"{job.exporter.runtime} {version(job.exporter.runtime)}",
        samples=len(samples),
        splits=splits,
        mean_iou=mean_iou,
        min_iou=float(asked),
        iou=_by_class(found, job.record),
        max_abs_difference=_short(found.max_abs_difference),
        mean_abs_difference=_short(found.mean_abs_difference),
        median_latency_ms=round(median_latency_ms(exported, picture), 3),
    )
    notes = []
    if len(samples) < job.options.samples:
        notes.append(f"{job.shards} holds {len(samples)} samples, fewer than the {job.options.samples} to compare on.")
    return parity, notes


def _loaded(job: _Job, made: Path, record: ExportRecord) -> Runtime:
    try:
        runtime: Runtime = registry.load(RUNTIMES, job.export_format, "--format")(made, record)
    except RecordError as error:
        raise JobFailed(
            f"--format {job.export_format}: the converted network does not run ({error}). Choose another --format."
        ) from error
    return runtime


def _pictures(job: _Job, samples: list[tuple[Shards, int]]) -> Iterator[Seen]:
    with sample_bar(len(samples), "parity") as bar:
        for shards, number in samples:
            yield seen(shards, number, job.inputs)
            bar.update()


def _by_class(found: Parity, record: RunRecord) -> dict[str, float | None]:
    values = (None if math.isnan(value) else round(value, 6) for value in found.iou)
    return dict(zip(record.classes, values, strict=True))


def _short(value: float) -> float:
    return float(f"{value:.3g}")
