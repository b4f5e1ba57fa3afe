"""How good a network is while it trains: loss and scores over a split at the network's own size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from segmodels.bars import sample_bar
from segmodels.config import MatteScores, Scores
from segmodels.history import Row
from segmodels.metrics import Counts, MatteTally, confusion_matrix, predicted_ids, probabilities, rounded, scores
from segmodels.quiet import keras
from segmodels.steps import Steps

Batch = tuple[Any, dict[str, Any], Any]  # images, targets, ids


def validate_masks(
    steps: Steps, batches: Iterable[Batch], samples: int, loss: Any, names: Sequence[str]
) -> tuple[float, Scores]:
    """The mean loss of the mask over samples, and IoU over all pixels of the split, which has ``samples``.

    The loss is the mask's alone: without that of a boundary head and of weights' size, which training has too.
    """
    total: Counts = np.zeros((len(names),) * 2, np.int64)
    losses = 0.0
    for truth, logits in _answers(steps, batches, samples):
        losses += float(loss(truth, logits)) * len(truth)
        total += confusion_matrix(truth, to_numpy(predicted_ids(logits)), len(names))
    return losses / samples, scores(total, names, samples)


def validate_mattes(steps: Steps, batches: Iterable[Batch], samples: int, loss: Any) -> tuple[float, MatteScores]:
    """The mean loss of the matte over samples, and errors of alpha over all pixels of the split."""
    tally = MatteTally()
    losses = 0.0
    for truth, logits in _answers(steps, batches, samples):
        losses += float(loss(truth, logits)) * len(truth)
        for one, alpha in zip(truth, to_numpy(probabilities(logits))[..., 1], strict=True):
            tally.add(one, alpha)
    return losses / samples, matte_scores(tally, samples)


def _answers(steps: Steps, batches: Iterable[Batch], samples: int) -> Iterator[tuple[Any, Any]]:
    """(truth, logits) of each batch."""
    with sample_bar(samples, "validation") as bar:
        for images, targets, _ in batches:
            truth = np.asarray(targets["target"])
            yield truth, steps.outputs(images)
            bar.update(len(truth))


def matte_scores(tally: MatteTally, samples: int) -> MatteScores:
    """What a tally came to, rounded; NaN becomes None."""
    mae, mse, gradient = map(rounded, (tally.mae(), tally.mse(), tally.gradient()))
    return MatteScores(mae=mae, mse=mse, gradient=gradient, samples=samples)


def row_of(epoch: int, rate: float, loss: float, val_loss: float, found: Scores | MatteScores | None) -> Row:
    """A row of history.csv, rounded; NaN for what is absent, and only the loss where nothing was validated.

    ``rate`` is the learning rate of the epoch's last step.
    """
    row: Row = {"epoch": epoch, "learning_rate": float(f"{rate:.6g}"), "loss": round(loss, 6)}
    val_loss = val_loss if math.isfinite(val_loss) else math.nan
    if found is None:
        return row
    values: dict[str, float | None]
    if isinstance(found, Scores):
        values = {"val_mean_iou": found.mean_iou, **{f"val_iou_{name}": value for name, value in found.iou.items()}}
    else:
        values = {"val_mae": found.mae, "val_mse": found.mse}
    row["val_loss"] = round(val_loss, 6)
    return row | {name: math.nan if value is None else value for name, value in values.items()}


def to_numpy(tensor: Any) -> Any:
    """An array of what the backend computed."""
    return keras.ops.convert_to_numpy(tensor)
