"""Train a network on shards: a run folder with the best and the last weights, the history and its curves."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from segdata.errors import FolderError, JobFailed
from segdata.formats.files import relative_posix, sha256_file, write_atomic
from segdata.formats.folders import output_folder
from segdata.labels import LabelMap
from segdata.order import Order
from segdata.records import INDEX_JSON, RUN_JSON, read_index, seal
from segdata.shards import check_shard_sizes, picture_size
from segmodels.batches import batches, check_split, label_map, read_errors
from segmodels.checkpoints import save_model
from segmodels.config import (
    BEST,
    CURVES_PNG,
    HISTORY_CSV,
    LAST,
    OWNED,
    BestMetric,
    RunRecord,
    Scores,
    ShardsReference,
    TrainConfig,
    write_scores,
)
from segmodels.curves import draw_curves
from segmodels.losses import SparseCrossEntropy
from segmodels.metrics import MeanIoU, scores
from segmodels.models import build_model, model_card
from segmodels.quiet import keras

CHANNELS = 3  # what shards hold
WARM_UP_STEPS = 50
NO_VALIDATION = (
    "The shards have no validation split, so best.keras is the epoch with the lowest training loss. "
    "`segdata split --validation 0.1` makes one."
)
Row = dict[str, float]


@dataclass(frozen=True)
class TrainReport:
    """What a run came to. ``best_name`` is the column of history.csv that best.keras was chosen by."""

    run: Path
    model: str
    parameters: int
    samples: dict[str, int]
    epochs: int
    best_epoch: int
    best_name: str
    best_value: float
    validation: Scores | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Data:
    """What a run reads, checked."""

    folder: Path
    labels: LabelMap
    size: tuple[int, int]
    samples: dict[str, int]


def train(
    shards: Path,
    out: Path,
    config: TrainConfig,
    overwrite: bool = False,
    progress: Callable[[str], None] = lambda line: None,
) -> TrainReport:
    """Train ``config.model`` on the split ``train`` of ``shards`` and fill the run folder ``out``.

    best.keras is the epoch with the highest mean IoU on the split ``validation``, the first of equals; without that
    split the one with the lowest training loss. The split ``test`` is never read. ``progress`` gets a line per epoch; a
    bar shows on stderr where that is a terminal. The seed sets the random state of Python, NumPy and Keras: on one CPU
    the same call writes the same bytes.
    OptionError, FolderError, RecordError or SegdataError before anything in ``out`` changes; JobFailed where the loss
    stops being a number: then ``out`` stays unfinished.
    """
    data = _checked(shards, config)
    with output_folder(out, RUN_JSON, OWNED, overwrite, [shards], "train") as folder:
        keras.utils.set_random_seed(config.seed)
        model = build_model(config.model, len(data.labels.names), CHANNELS)
        recorder = _fit(model, data, out, config, progress)
        _write_results(out, recorder)
        folder.finish(seal(_run_record(data, out, config, model.count_params(), recorder)))
    return TrainReport(
        run=out,
        model=config.model,
        parameters=model.count_params(),
        samples=data.samples,
        epochs=config.epochs,
        best_epoch=recorder.best_epoch,
        best_name=recorder.best_name,
        best_value=recorder.best_value,
        validation=recorder.best_scores,
        notes=() if recorder.best_scores else (NO_VALIDATION,),
    )


def _checked(shards: Path, config: TrainConfig) -> _Data:
    """Everything that can be wrong and is known before the first batch."""
    card = model_card(config.model)
    index = read_index(shards)
    size = picture_size(index, shards)
    card.check_size(*size, where=str(shards))
    check_split(index, "train", shards)
    samples = {
        split: sum(shard.records for shard in index.shards if shard.split == split) for split in ("train", "validation")
    }
    check_shard_sizes(shards, index)
    return _Data(shards, label_map(index, shards), size, {split: n for split, n in samples.items() if n})


def _fit(model: Any, data: _Data, out: Path, config: TrainConfig, progress: Callable[[str], None]) -> _Recorder:
    """All epochs; the recorder has seen them and written what a run holds per epoch."""
    pictures = batches(data.folder, "train", config.batch_size, order=Order(seed=config.seed))
    optimizer = _optimizer(config, len(pictures) * config.epochs)
    optimizer.build(model.trainable_variables)  # variables made in the first step would make TensorFlow trace it twice
    # No machine code of XLA's: on a CPU making it takes 10 s and gains nothing.
    model.compile(optimizer, SparseCrossEntropy(name="cross_entropy"), jit_compile=False)
    validation = _Validation(model, data, config.batch_size) if "validation" in data.samples else None
    recorder = _Recorder(out, validation, config.epochs, len(pictures), progress)
    with read_errors(data.folder):
        model.fit(pictures, epochs=config.epochs, shuffle=False, callbacks=[recorder], verbose=0)  # they are shuffled
    return recorder


def _optimizer(config: TrainConfig, steps: int) -> Any:
    """Adam with a short linear warm-up, then a cosine down to 0 at the last step; the gradient's norm is at most 1.

    likeunet, which has one batch norm only, comes further with both in as many steps (by 0.02 of IoU on drawn people).
    """
    warm_up = min(WARM_UP_STEPS, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        config.learning_rate / 10 if warm_up else config.learning_rate,
        decay_steps=max(1, steps - warm_up),
        warmup_target=config.learning_rate if warm_up else None,
        warmup_steps=warm_up,
    )
    return keras.optimizers.Adam(rate, global_clipnorm=1.0, name="adam")


class _Validation:
    """Loss and scores of a network in training over the split ``validation``.

    The network is measured as a second model of the same layers: a metric of the model that ``fit`` trains would be
    counted over the training batches too, which takes a tenth of the time.
    """

    def __init__(self, model: Any, data: _Data, batch_size: int) -> None:
        self.data = data
        self.batches = batches(data.folder, "validation", batch_size)
        self.metric = MeanIoU(len(data.labels.names))
        self.model = _same_layers(model)
        self.model.compile(loss=SparseCrossEntropy(), metrics=[self.metric], jit_compile=False)

    def __call__(self) -> tuple[float, Scores]:
        loss = self.model.evaluate(self.batches, verbose=0, return_dict=True)["loss"]
        confusion = self.metric.counts()
        if not confusion.any():
            raise JobFailed(f"{self.data.folder}: every pixel of split 'validation' is the ignore index.")
        return loss, scores(confusion, self.data.labels.names, self.data.samples["validation"])


def _same_layers(model: Any) -> Any:
    """A model of the same layers and weights that is not compiled."""
    return keras.Model(model.inputs, model.outputs, name=model.name)


class _Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """Per epoch: a row of history.csv, last.keras, and best.keras where the epoch is the best so far."""

    def __init__(
        self,
        out: Path,
        validation: _Validation | None,
        epochs: int,
        steps: int,
        progress: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.out, self.validation, self.progress = out, validation, progress
        self.epochs, self.steps = epochs, steps
        self.rows: list[Row] = []
        self.best_name = "val_mean_iou" if validation else "loss"
        self.best_epoch, self.best_value = 0, math.nan
        self.best_scores: Scores | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """A new bar."""
        what = f"epoch {epoch + 1} of {self.epochs}"
        self.bar = tqdm(total=self.steps, desc=what, unit=" batches", leave=False, disable=None, dynamic_ncols=True)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop at the first loss that is no number."""
        self.bar.update()
        loss = (logs or {})["loss"]
        if not math.isfinite(loss):
            self.bar.close()
            raise JobFailed(
                f"epoch {len(self.rows) + 1}, batch {batch + 1}: the loss is {loss}, expected a number. "
                "Train again with a lower --learning-rate."
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write down what the epoch came to."""
        self.bar.close()
        val_loss, found = self.validation() if self.validation else (math.nan, None)
        self.rows.append(_row(epoch + 1, (logs or {})["loss"], val_loss, found))
        write_atomic(self.out / HISTORY_CSV, _history_csv(self.rows))
        save_model(self.model, self.out / LAST)
        value = self.rows[-1][self.best_name]
        if not self.best_epoch or (value > self.best_value if self.validation else value < self.best_value):
            self.best_epoch, self.best_value, self.best_scores = epoch + 1, value, found
            save_model(_same_layers(self.model), self.out / BEST)  # a third of the size, for it has no optimizer
        self.progress(_progress_line(self.rows[-1], self.epochs))


def _row(epoch: int, loss: float, val_loss: float, found: Scores | None) -> Row:
    """A row of history.csv, rounded; NaN for a class that is absent, and only the loss where nothing was validated."""
    row: Row = {"epoch": epoch, "loss": round(loss, 6)}
    if found is None:
        return row
    values = {"val_mean_iou": found.mean_iou, **{f"val_iou_{name}": value for name, value in found.iou.items()}}
    row["val_loss"] = round(val_loss, 6)
    return row | {name: math.nan if value is None else value for name, value in values.items()}


def _history_csv(rows: list[Row]) -> bytes:
    """Comma-separated, a header line first; an empty cell for NaN."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(rows[0])
    table.writerows(["" if math.isnan(value) else repr(value) for value in row.values()] for row in rows)
    return file.getvalue().encode("utf-8")


def _progress_line(row: Row, epochs: int) -> str:
    line = f"epoch {row['epoch']} of {epochs}: loss {row['loss']:.4f}"
    if "val_loss" not in row:
        return line
    return f"{line}, validation loss {row['val_loss']:.4f}, mean IoU {row['val_mean_iou']:.4f}"


def _write_results(out: Path, recorder: _Recorder) -> None:
    write_atomic(out / CURVES_PNG, draw_curves(recorder.rows))
    write_scores(out, {"validation": recorder.best_scores} if recorder.best_scores else {})


def _run_record(data: _Data, out: Path, config: TrainConfig, parameters: int, recorder: _Recorder) -> RunRecord:
    try:
        path = relative_posix(data.folder, out)
    except FolderError:  # on another drive
        path = None
    return RunRecord(
        model=config.model,
        label_map=data.labels,
        input_size=data.size,
        input_channels=CHANNELS,
        parameters=parameters,
        config=config,
        shards=ShardsReference(path=path, sha256=sha256_file(data.folder / INDEX_JSON)),
        best_epoch=recorder.best_epoch,
        best_metric=BestMetric(name=recorder.best_name, value=recorder.best_value),
    )
