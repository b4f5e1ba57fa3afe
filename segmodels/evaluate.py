"""Measure a run over one split of shards, at the network's size and at the photos' own, and draw what it predicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from segdata.errors import FolderError, ImageRefused, OptionError, RecordError
from segdata.formats.files import sha256_file, write_atomic
from segdata.formats.images import Pixels, decode_mask, decode_matte, encode_png
from segdata.labels import IGNORE_INDEX, LabelMap
from segdata.order import Order
from segdata.records import INDEX_JSON, IndexRecord, read_index
from segdata.shards import (
    MASK,
    MATTE,
    ORIGINAL_HEIGHT,
    ORIGINAL_WIDTH,
    Shards,
    check_shard_sizes,
    check_split,
    data,
    number_in,
    parse,
)
from segdata.sheets import Cell, colored, contact_sheet, cutout, grey, overlay
from segdata.transforms.resize import fit_box, resize_nearest, resize_smooth
from segmodels.bars import sample_bar
from segmodels.config import METRICS_JSON, OTHER_SHARDS, MatteScores, Scores, SplitScores, read_scores, write_scores
from segmodels.confusion import draw_confusion
from segmodels.feeds import Fed, feed
from segmodels.inputs import Inputs, has_mattes, target_of
from segmodels.metrics import MatteTally, SegmentationTally, rounded, scores
from segmodels.networks import Network, open_network
from segmodels.photo_size import at_photo_size
from segmodels.validation import matte_scores

SHEET_SAMPLES = 24
_AT_A_TIME = 8  # samples: a network that learned on several devices is measured on one
HEADINGS = ("picture", "truth", "prediction", "overlay")
MATTE_HEADINGS = ("picture", "truth", "prediction", "cutout")
NOTHING_COUNTS = "Every pixel of the split is the ignore index, so there is nothing to measure."

Array = npt.NDArray[Any]
Tally = SegmentationTally | MatteTally


@dataclass(frozen=True)
class EvaluateReport:
    """How good a network is over one split, and where the pictures of it lie.

    ``size`` is the network's, (height, width). ``confusion`` is None for mattes, which have no classes.
    """

    run: Path
    split: str
    size: tuple[int, int]
    scores: SplitScores
    sheet: Path
    worst: Path
    confusion: Path | None
    notes: tuple[str, ...]


def evaluate(run: Path, shards: Path, split: str = "test") -> EvaluateReport:
    """Measure a run's best.keras, or an exported network, over ``split`` of ``shards``, which may be of any geometry.

    Pictures are fitted as in training, without augmentation. At the network's size bars do not count; at the photo's
    own size they are cut off, and the probabilities enlarged smoothly before the class is chosen.

    Writes the split's entry in RUN/metrics.json, whose other entries stay, and pictures, all at the network's size;
    for an exported FILE in FILE.metrics.json, and likewise beside it:
    RUN/sheet-SPLIT.png shows the first 24 samples in the order of the shards, which is by salted hash,
    RUN/worst-SPLIT.png the 24 with the lowest mean IoU (mattes: the highest mean absolute error), the worst first, and
    RUN/confusion-SPLIT.png, not for mattes, what each class was taken for. OptionError where run and shards do not fit
    together; FolderError or RecordError where either is unfinished or damaged: then nothing is written.
    """
    network, index = open_network(run), read_index(shards)
    _check_fit(network, index, shards)
    check_split(index, split, shards)
    check_shard_sizes(shards, index)
    metrics = network.beside(METRICS_JSON)
    read_scores(metrics)  # a damaged one shows before an hour of measuring, not after
    _refuse_foreign(network, metrics, split)
    inputs = Inputs(index.geometry, network.geometry, network.target, grey=network.is_grey)
    with _reading_errors(shards):
        measured = _measure(network, Shards(shards, index, split), inputs)
    found = measured.scores(network.classes)
    sha256 = sha256_file(shards / INDEX_JSON)
    found = msgspec.structs.replace(found, shards_sha256=sha256)
    _draw(measured, network, split)
    write_scores(metrics, {split: found})
    notes = [] if measured.counts else [NOTHING_COUNTS]
    if network.shards_sha256 not in (None, sha256):
        notes.append(OTHER_SHARDS)
    return EvaluateReport(
        run=run,
        split=split,
        size=network.size,
        scores=found,
        sheet=_picture(network, "sheet", split),
        worst=_picture(network, "worst", split),
        confusion=_picture(network, "confusion", split) if network.target == "mask" else None,
        notes=tuple(notes),
    )


def _refuse_foreign(network: Network, metrics: Path, split: str) -> None:
    """FolderError where beside an exported file, in anybody's folder, lie pictures that are not of this command."""
    if network.is_run or metrics.exists():
        return
    for name in ("sheet", "worst", "confusion"):
        path = _picture(network, name, split)
        if path.exists():
            raise FolderError(f"{path}: is there, and evaluate did not write it. Move it away.")


def _check_fit(network: Network, index: IndexRecord, shards: Path) -> None:
    run = network.path
    if network.target == "matte":
        if not has_mattes(index):
            raise OptionError(f"{shards}: holds masks, but {run} learned mattes. Evaluate on shards that hold mattes.")
        return
    if index.label_map is None or target_of(index) != "mask":
        raise OptionError(f"{shards}: holds mattes, but {run} learned masks. Evaluate on shards that hold masks.")
    if index.label_map.names != network.classes:
        raise OptionError(
            f"{shards}: classes {', '.join(index.label_map.names)}, but {run} was trained on "
            f"{', '.join(network.classes)}. Evaluate on shards of the same label map."
        )


@contextmanager
def _reading_errors(folder: Path) -> Iterator[None]:
    """Errors of a record name its folder too."""
    try:
        yield
    except ImageRefused as error:
        raise RecordError(f"{folder}: a record does not decode: {error}. Run `segdata verify {folder}`.") from error
    except RecordError as error:
        raise error if str(folder) in str(error) else RecordError(f"{folder}: {error}") from error


# ---- sample by sample ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Shown:
    """A sample at the network's size, to be drawn: ``image`` (H, W, 1 or 3), ``truth`` and ``prediction`` (H, W).

    ``score`` is its own mean IoU, or of mattes the mean absolute error; NaN where none of its pixels counts.
    """

    sample_id: str
    image: Pixels
    truth: Array
    prediction: Array
    score: float


@dataclass
class _Measured:
    """What was found so far. ``photo_truth`` is ``stored`` as long as no truth had to be resized."""

    network: Tally
    photo: Tally
    photo_truth: str = "stored"
    first: list[_Shown] = field(default_factory=list)
    worst: list[_Shown] = field(default_factory=list)
    counts: bool = False

    def show(self, sample: _Shown) -> None:
        """Keep a sample where it is one of the first or, so far, of the worst."""
        if len(self.first) < SHEET_SAMPLES:
            self.first.append(sample)
        if not math.isnan(sample.score):
            self.counts = True
            highest_first = isinstance(self.network, MatteTally)
            self.worst.append(sample)
            self.worst.sort(key=lambda one: one.score, reverse=highest_first)  # equals stay in the order of the shards
            del self.worst[SHEET_SAMPLES:]

    def scores(self, classes: Sequence[str]) -> SplitScores:
        """Both sizes, rounded."""
        return SplitScores(
            network_size=_scores(self.network, classes),
            photo_size=_scores(self.photo, classes),
            photo_truth=self.photo_truth,
        )


def _measure(model: Network, shards: Shards, inputs: Inputs) -> _Measured:
    """The whole split in the order of the shards; of a photo no more is held than its truth at its own size."""
    network, photo = (_tally(model) for _ in range(2))
    found, number = _Measured(network, photo), 0
    with sample_bar(len(shards), f"evaluate {shards.split}") as bar:
        for batch in feed(shards, inputs, _AT_A_TIME, Order()):
            predictions, shares = _predict(model, batch)
            for i, sample_id in enumerate(batch.ids):
                # Copies: a view that is kept to be drawn would keep its whole batch.
                image, truth, prediction = (a[i].copy() for a in (batch.images, batch.targets["target"], predictions))
                found.show(_Shown(sample_id, image, truth, prediction, network.add(truth, prediction)))
                truth, original, is_stored = _photo_truth(shards, number, inputs.target)
                found.photo_truth = found.photo_truth if is_stored else "enlarged"
                photo.add(truth, at_photo_size(shares[i], original, inputs.geometry, inputs.target))
                number += 1
            bar.update(len(batch.ids))
    return found


def _tally(model: Network) -> Tally:
    return MatteTally() if model.target == "matte" else SegmentationTally(len(model.classes))


def _predict(model: Network, batch: Fed) -> tuple[Array, Array]:
    """Of a batch the ids (B, H, W) uint8, or alphas float32, and the probabilities (B, H, W, classes) float32."""
    shares = model.shares(batch.images)
    return (shares[..., 1] if model.target == "matte" else shares.argmax(axis=-1).astype(np.uint8)), shares


# ---- at the photo's own size -----------------------------------------------------------------------------------------


def _photo_truth(shards: Shards, number: int, target: str) -> tuple[Array, tuple[int, int], bool]:
    """The mask or matte of a record without bars, at its photo's (height, width); that; and whether it is stored so.

    It is decoded for the second time: holding it until the network has seen its batch would take a batch of photos.
    """
    payload, where = shards.payload(number)
    values = parse(payload, where)
    original = number_in(values, ORIGINAL_HEIGHT, where), number_in(values, ORIGINAL_WIDTH, where)
    is_mask = target == "mask"
    truth: Array = decode_mask(data(values, MASK, where)) if is_mask else decode_matte(data(values, MATTE, where))
    x, y, w, h = fit_box(*original, shards.index.geometry)
    truth = truth[y : y + h, x : x + w]
    if truth.shape == original:
        return truth, original, True
    if is_mask:
        return resize_nearest(truth, *original), original, False
    return np.clip(resize_smooth(np.ascontiguousarray(truth), *original), 0, 1), original, False


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _scores(tally: Tally, classes: Sequence[str]) -> Scores | MatteScores:
    if isinstance(tally, MatteTally):
        return matte_scores(tally, tally.samples)
    return msgspec.structs.replace(
        scores(tally.confusion, classes, tally.samples),
        mean_image_iou=rounded(tally.mean_image_iou()),
        mean_boundary_iou=rounded(tally.mean_boundary_iou()),
        boundary_iou=dict(zip(classes, map(rounded, tally.boundary_iou()), strict=True)),
    )


# ---- pictures --------------------------------------------------------------------------------------------------------


def _draw(measured: _Measured, network: Network, split: str) -> None:
    labels = network.label_map
    headings = HEADINGS if labels else MATTE_HEADINGS
    for name, samples in (("sheet", measured.first), ("worst", measured.worst)):
        cells = [_mask_cell(sample, labels) if labels else _matte_cell(sample) for sample in samples]
        write_atomic(_picture(network, name, split), encode_png(contact_sheet(cells, headings, labels)))
    if isinstance(measured.network, SegmentationTally):
        picture = draw_confusion(measured.network.confusion, network.classes)
        write_atomic(_picture(network, "confusion", split), picture)


def _picture(network: Network, name: str, split: str) -> Path:
    return network.beside(f"{name}-{split}.png")


def _mask_cell(sample: _Shown, labels: LabelMap) -> Cell:
    truth, image = sample.truth, _as_rgb(sample.image)
    prediction = np.where(truth == IGNORE_INDEX, truth, sample.prediction)  # what it says there does not count
    panels = image, colored(truth, labels), colored(prediction, labels), overlay(image, prediction, labels)
    return Cell(f"{sample.sample_id}  mean IoU {_short(sample.score, 3)}", panels)


def _matte_cell(sample: _Shown) -> Cell:
    counts, image = sample.truth >= 0, _as_rgb(sample.image)
    truth, prediction = (np.where(counts, alpha, 0) for alpha in (sample.truth, sample.prediction))
    panels = image, grey(truth), grey(prediction), cutout(image, prediction)
    return Cell(f"{sample.sample_id}  MAE {_short(sample.score, 4)}", panels)


def _as_rgb(image: Pixels) -> Pixels:
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _short(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"
