"""The epochs of a run: every step checked, and after each epoch all that is needed to go on from there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from segdata.errors import JobFailed, RecordError
from segdata.formats.folders import OutputFolder
from segmodels.bars import sample_bar
from segmodels.checkpoints import read_beside, save_model
from segmodels.config import BEST, LAST, MatteScores, Scores, TrainConfig
from segmodels.history import Row, write_history
from segmodels.inputs import uncounted
from segmodels.quiet import keras
from segmodels.schedules import Best, best, epochs_without_better, learning_rate
from segmodels.steps import Steps, seed_dropout
from segmodels.validation import Batch, row_of

PROGRESS = "progress.json"  # in last.keras, so that it is there when the weights are
SHOWN_IDS = 16


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run had come to when its last.keras was written: rows of history.csv, and the scores of the best."""

    rows: list[dict[str, float | None]] = []
    best_scores: Scores | MatteScores | None = None


@dataclass
class Run:
    """A run in the making: what has happened, by which the rest is decided."""

    config: TrainConfig
    best_name: str
    rows: list[Row] = field(default_factory=list)
    best_scores: Scores | MatteScores | None = None

    @property
    def best(self) -> Best:
        """The best epoch so far."""
        return best(self.rows, self.best_name)

    @property
    def is_over(self) -> bool:
        """Whether all epochs are done, or early stopping ends it."""
        patience = self.config.early_stopping
        stopped = patience and self.rows and epochs_without_better(self.rows, self.best_name) >= patience
        return len(self.rows) >= self.config.epochs or bool(stopped)


@dataclass(frozen=True)
class Loop:
    """What an epoch needs. ``batches`` gives those of each further epoch when it is called, this worker's; ``samples``
    are how many all workers have in each step. ``validate`` is None where there is no validation split, ``out`` where
    another process writes the run.
    """

    model: Any
    steps: Steps
    batches: Callable[[], Iterable[Batch]]
    samples: Sequence[int]
    validate: Callable[[], tuple[float, Scores | MatteScores]] | None
    out: Path | None
    folder: OutputFolder | None
    progress: Callable[[str], None]

    def go(self, run: Run) -> None:
        """All epochs that are left."""
        while not run.is_over:
            epoch = len(run.rows)
            if self.folder is not None:
                self.folder.done = f"{epoch} of {run.config.epochs} epochs are done"
            seed_dropout(self.model, run.config.seed, epoch * len(self.samples))
            self.steps.refresh()
            loss, rate = self._epoch(run)
            self.steps.sync()
            val_loss, found = self.validate() if self.validate else (math.nan, None)
            if found is not None and not math.isfinite(val_loss):
                raise JobFailed(
                    f"epoch {epoch + 1}: the loss on the split 'validation' is {val_loss}, expected a number. "
                    f"{LAST} is as the epoch before left it. Train again with a lower --learning-rate."
                )
            run.rows.append(row_of(epoch + 1, rate, loss, val_loss, found))
            is_best = run.best.epoch == epoch + 1
            run.best_scores = found if is_best else run.best_scores
            if self.out is not None:
                write_epoch(self.model, self.out, run)
            self.progress(_progress_line(run.rows[-1], run, is_best))

    def _epoch(self, run: Run) -> tuple[float, float]:
        """The mean loss over the samples of one epoch, and its last learning rate."""
        epoch, total, samples, rate = len(run.rows), 0.0, 0, 0.0
        what = f"epoch {epoch + 1} of {run.config.epochs}"
        all_steps = len(self.samples) * run.config.epochs
        config = run.config
        with sample_bar(sum(self.samples), what) as bar:
            for number, (images, targets, ids) in enumerate(self.batches()):
                step = epoch * len(self.samples) + number
                rate = learning_rate(config.schedule, config.learning_rate, step, all_steps, run.rows, run.best_name)
                loss = self.steps.train(images, targets, rate)
                if not math.isfinite(loss):
                    raise JobFailed(_no_number(loss, run, number, ids))
                total, samples = total + loss * self.samples[number], samples + self.samples[number]
                bar.set_postfix_str(f"loss {total / samples:.4f}", refresh=False)
                bar.update(self.samples[number])
        return total / samples, rate


def _no_number(loss: float, run: Run, batch: int, ids: Sequence[str]) -> str:
    names = list(ids)
    more = f" and {len(names) - SHOWN_IDS} more" if len(names) > SHOWN_IDS else ""
    return (
        f"epoch {len(run.rows) + 1}, batch {batch + 1}: the loss is {loss}, expected a number. The batch holds "
        f"{', '.join(names[:SHOWN_IDS])}{more}. {LAST} is as the epoch before left it. "
        "Train again with a lower --learning-rate."
    )


def write_epoch(model: Any, out: Path, run: Run) -> None:
    """What a run holds after an epoch. last.keras comes first: from it alone the others can be made again."""
    rows = [{name: None if math.isnan(value) else value for name, value in row.items()} for row in run.rows]
    state = msgspec.json.encode(Progress(rows=rows, best_scores=run.best_scores))
    save_model(model, out / LAST, {PROGRESS: state})
    if run.best.epoch == len(run.rows):
        save_model(same_layers(model), out / BEST)  # a third of the size, for it has no optimizer
    write_history(out, run.rows)


def read_progress(last: Path, config: TrainConfig, best_name: str) -> Run:
    """The run that a last.keras holds; RecordError where it is damaged."""
    try:
        found = msgspec.json.decode(read_beside(last, PROGRESS), type=Progress)
    except msgspec.DecodeError as error:
        raise RecordError(
            f"{last}: its {PROGRESS} is damaged ({error}). Another run can begin with --weights best.keras."
        ) from error
    rows = [{name: math.nan if value is None else value for name, value in row.items()} for row in found.rows]
    return Run(config, best_name, [{**row, "epoch": int(row["epoch"])} for row in rows], found.best_scores)


def same_layers(model: Any) -> Any:
    """A model of the same layers and weights that is not compiled."""
    return keras.Model(model.inputs, model.output, name=model.name)


def padded(batches: Iterable[Batch], steps: int) -> Iterator[Batch]:
    """Batches, and after the last one that one again, uncounted, up to ``steps``: workers must take equally many."""
    last: Batch | None = None
    for last in batches:
        yield last
        steps -= 1
    if last is not None:
        images, targets, ids = last
        nothing = {name: uncounted(target) for name, target in targets.items()}
        yield from itertools.repeat((images, nothing, ids[:0]), steps)


def _progress_line(row: Row, run: Run, is_best: bool) -> str:
    line = f"epoch {row['epoch']} of {run.config.epochs}: loss {row['loss']:.4f}"
    if "val_loss" in row:
        name = "val_mean_iou" if "val_mean_iou" in row else "val_mae"
        words = {"val_mean_iou": "mean IoU", "val_mae": "mean absolute error"}
        line += f", validation loss {row['val_loss']:.4f}, {words[name]} {row[name]:.4f}"
    return f"{line}{', the best so far' if is_best else ''}"
