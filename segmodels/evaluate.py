"""Measure a run on one split of shards, and draw what it predicts there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segdata.errors import OptionError
from segdata.formats.files import sha256_file, write_atomic
from segdata.formats.images import Pixels, encode_png
from segdata.labels import LabelMap
from segdata.records import INDEX_JSON, IndexRecord, read_index
from segdata.shards import picture_size
from segdata.sheets import Cell, colored, contact_sheet, overlay
from segmodels.batches import batches, label_map, read_errors
from segmodels.checkpoints import load_model
from segmodels.config import BEST, RunRecord, Scores, read_run, write_scores
from segmodels.metrics import Counts, confusion_matrix, mean_iou, scores

SHEET_SAMPLES = 24
HEADINGS = ("picture", "truth", "prediction", "overlay")
OTHER_SHARDS = "These are not the shards that the run was trained on."


@dataclass(frozen=True)
class EvaluateReport:
    """How good a run is over one split, and where the sheet with its predictions lies."""

    run: Path
    split: str
    scores: Scores
    sheet: Path
    notes: tuple[str, ...]


def evaluate(run: Path, shards: Path, split: str = "test") -> EvaluateReport:
    """Measure best.keras of ``run`` over ``split`` of ``shards``: writes RUN/sheet-SPLIT.png and the split's entry in
    RUN/metrics.json, whose other entries stay.

    The sheet shows the first 24 samples in the order of the shards, which is by salted hash. OptionError where run and
    shards do not fit together; FolderError or RecordError where either is unfinished or damaged.
    """
    record, index = read_run(run), read_index(shards)
    _check_fit(record, index, run, shards)
    model = load_model(run / BEST)
    labels = record.label_map
    total: Counts = np.zeros((len(labels.names),) * 2, np.int64)
    samples, cells = 0, []
    with read_errors(shards):
        for images, masks, ids in batches(shards, split, record.config.batch_size, ids=True).as_numpy_iterator():
            predictions = np.argmax(model.predict_on_batch(images), axis=-1).astype(np.uint8)  # (B, H, W)
            total += confusion_matrix(masks, predictions, len(labels.names))
            shown = SHEET_SAMPLES - samples
            cells += [_cell(*sample, labels) for sample in zip(ids[:shown], images, masks, predictions, strict=False)]
            samples += len(ids)
    found = scores(total, labels.names, samples)
    sheet = run / f"sheet-{split}.png"
    write_atomic(sheet, encode_png(contact_sheet(cells, HEADINGS, labels)))
    write_scores(run, {split: found})
    same = sha256_file(shards / INDEX_JSON) == record.shards.sha256
    return EvaluateReport(run, split, found, sheet, () if same else (OTHER_SHARDS,))


def _check_fit(record: RunRecord, index: IndexRecord, run: Path, shards: Path) -> None:
    names, expected = label_map(index, shards).names, record.label_map.names
    if names != expected:
        raise OptionError(
            f"{shards}: classes {', '.join(names)}, but {run} was trained on {', '.join(expected)}. "
            "Evaluate on shards of the same label map."
        )
    size, wanted = picture_size(index, shards), record.input_size
    if size != wanted:
        raise OptionError(
            f"{shards}: pictures are {size[0]}x{size[1]} (HxW), but {run} was trained on {wanted[0]}x{wanted[1]}. "
            f"Run `segdata build-tfrecords` with --size {wanted[0]}x{wanted[1]}."
        )


def _cell(sample_id: bytes, image: Pixels, mask: Pixels, prediction: Pixels, labels: LabelMap) -> Cell:
    """A sample on the sheet; the caption ends in its own mean IoU, where any of its pixels counts."""
    confusion = confusion_matrix(mask, prediction, len(labels.names))
    found = f"{mean_iou(confusion):.3f}" if confusion.any() else "-"
    prediction = np.where(mask == labels.ignore_index, mask, prediction)  # what it says there does not count
    panels = image, colored(mask, labels), colored(prediction, labels), overlay(image, prediction, labels)
    return Cell(f"{sample_id.decode()}  IoU {found}", panels)
