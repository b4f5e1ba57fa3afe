"""Evaluating: networks that answer in a known way, on pictures whose scores can be counted by hand."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from segdata import shards as shard_files
from segdata.cli.evaluate import evaluate as command
from segdata.errors import FolderError, OptionError, RecordError, SegdataError
from segdata.formats import images, tfrecord
from segdata.formats.files import sha256_file
from segdata.labels import LabelMap, distinct_colors
from segdata.records import (
    INDEX_JSON,
    RUN_JSON,
    Geometry,
    IndexRecord,
    ManifestReference,
    Sample,
    SampleLine,
    ShardRecord,
    read_index,
    seal,
)
from segdata.sheets import Cell, contact_sheet
from segdata.transforms.resize import fit_box, fit_sample
from segmodels import evaluate as evaluate_module
from segmodels.checkpoints import save_model
from segmodels.config import (
    BEST,
    METRICS_JSON,
    OWNED,
    BestMetric,
    MatteScores,
    RunRecord,
    Scores,
    ShardsReference,
    SplitScores,
    TrainConfig,
    read_scores,
    write_scores,
)
from segmodels.evaluate import (
    HEADINGS,
    MATTE_HEADINGS,
    NOTHING_COUNTS,
    OTHER_SHARDS,
    SHEET_SAMPLES,
    evaluate,
)
from segmodels.photo_size import at_photo_size
from segmodels.quiet import keras
from tests.segmodels.material import BINARY

THREE = LabelMap(
    name="three", names=("background", "head", "body"), colors=distinct_colors(3), from_ids=((0,), (1,), (2,))
)
WHOLE = Geometry()  # photos keep their own size
Ids = npt.NDArray[np.uint8]


# ---- shards and runs -------------------------------------------------------------------------------------------------


def sample(name: str, mask: Ids, shown: Ids | None = None, classes: int = 2) -> Sample:
    """A picture of grey levels that say each pixel's id, those of ``shown`` in place of ``mask`` where it is given."""
    level = np.where(mask == 255, 0, mask) if shown is None else shown
    grey = (level.astype(np.int64) * 255 // (classes - 1)).astype(np.uint8)
    return Sample(name, np.repeat(grey[:, :, None], 3, axis=2), mask)


def write(
    folder: Path,
    samples: Sequence[Sample],
    geometry: Geometry = WHOLE,
    labels: LabelMap | None = BINARY,
    split: str = "test",
) -> Path:
    """Shards of one split as build-tfrecords makes them; samples are photos at their own size."""
    folder.mkdir(parents=True)
    payloads = [payload(one, geometry) for one in samples]
    written = b"".join(map(tfrecord.frame, payloads))
    name = shard_files.shard_name("drawn", split, 0, 1)
    (folder / name).write_bytes(written)
    digest = hashlib.sha256(written).hexdigest()
    index = IndexRecord(
        name="drawn",
        label_map=labels,
        geometry=geometry,
        features=shard_files.features(has_mask=samples[0].mask is not None, has_matte=samples[0].matte is not None),
        manifest=ManifestReference(path=None, sha256="0" * 64),
        options={},
        shards=[ShardRecord(file=name, split=split, records=len(samples), bytes=len(written), sha256=digest)],
    )
    (folder / INDEX_JSON).write_bytes(seal(index))
    return folder


def payload(photo: Sample, geometry: Geometry) -> bytes:
    height, width = photo.image.shape[:2]
    fitted = fit_sample(photo, height, width, geometry)
    line = SampleLine(
        id=photo.id,
        group=photo.id,
        image=f"{photo.id}.png",
        height=height,
        width=width,
        image_sha256="0" * 64,
        image_bytes=1,
    )
    mask = None if fitted.mask is None else images.encode_mask(fitted.mask)
    matte = None if fitted.matte is None else images.encode_matte(fitted.matte, 8)
    return shard_files.encode_sample(line, images.encode_png(fitted.image), mask, matte)


def reader(classes: int, channels: int = 3, outputs: int = 0, heads: bool = False) -> Any:
    """A network that answers with the class whose grey level is nearest to the pixel's, as sure of it as can be.

    The square of the distance to level l is x² - 2lx + l², and x² is the same for all: so the answer is linear.
    """
    inputs = keras.Input((None, None, channels), name="image")
    outputs = outputs or classes
    layer = keras.layers.Conv2D(outputs, 1, name="logits")
    logits = layer(inputs)
    levels = np.arange(classes) * 255 / (classes - 1)
    slopes, offsets = 2 * levels / channels, -(levels**2)
    if outputs == 1:
        slopes, offsets = slopes[1:] - slopes[:1], offsets[1:] - offsets[:1]
    layer.set_weights([np.tile(slopes, (1, 1, channels, 1)), offsets])
    answer = {"boundary": keras.layers.Conv2D(1, 1, name="edge")(inputs), "mask": logits} if heads else logits
    return keras.Model(inputs, answer, name="reader")


def constant(*logits: float) -> Any:
    """A network that says the same of every pixel."""
    inputs = keras.Input((None, None, 3), name="image")
    layer = keras.layers.Conv2D(len(logits), 1, name="logits")
    outputs = layer(inputs)
    layer.set_weights([np.zeros((1, 1, 3, len(logits))), np.array(logits)])
    return keras.Model(inputs, outputs, name="constant")


def write_run(
    folder: Path,
    model: Any,
    geometry: Geometry,
    shards: Path | None = None,
    labels: LabelMap | None = BINARY,
    grey: bool = False,
) -> Path:
    """A finished run whose best.keras is ``model``; ``shards`` are what it says that it learned from."""
    folder.mkdir(parents=True)
    save_model(model, folder / BEST)
    digest = sha256_file(shards / INDEX_JSON) if shards else "0" * 64
    record = RunRecord(
        model="tiny",
        target="mask" if labels else "matte",
        label_map=labels,
        geometry=geometry,
        input_channels=1 if grey else 3,
        parameters=model.count_params(),
        config=TrainConfig("tiny", batch_size=2, grey=grey),
        backend=keras.backend.backend(),
        shards=ShardsReference(path=None, sha256=digest),
        epochs=1,
        best_epoch=1,
        best_metric=BestMetric(name="loss", value=1.0),
    )
    (folder / RUN_JSON).write_bytes(seal(record))
    return folder


def letterbox(height: int, width: int) -> Geometry:
    return Geometry(size=(height, width), fit="letterbox")


def stretch(height: int, width: int) -> Geometry:
    return Geometry(size=(height, width), fit="stretch")


def blocks(seed: int, height: int, width: int, classes: int = 2, side: int = 8) -> Ids:
    """A mask of squares of ``side`` pixels, each of an id by chance."""
    small = np.random.default_rng(seed).integers(0, classes, (height // side, width // side)).astype(np.uint8)
    return np.kron(small, np.ones((side, side), np.uint8))


def half(height: int, width: int) -> Ids:
    """Class 1 on the left, 0 on the right."""
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 1
    return mask


def masks(found: SplitScores) -> tuple[Scores, Scores]:
    assert isinstance(found.network_size, Scores)
    assert isinstance(found.photo_size, Scores)
    return found.network_size, found.photo_size


def mattes(found: SplitScores) -> tuple[MatteScores, MatteScores]:
    assert isinstance(found.network_size, MatteScores)
    assert isinstance(found.photo_size, MatteScores)
    return found.network_size, found.photo_size


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], tuple[str, ...]]]:
    """(captions, headings) of each sheet that is drawn."""
    drawn: list[tuple[list[str], tuple[str, ...]]] = []
    draw = contact_sheet

    def watched(shown: Sequence[Cell], headings: tuple[str, ...], labels: Any) -> Any:
        drawn.append(([cell.caption for cell in shown], headings))
        return draw(shown, headings, labels)

    monkeypatch.setattr(evaluate_module, "contact_sheet", watched)
    return drawn


# ---- undoing the fit -------------------------------------------------------------------------------------------------


GEOMETRIES = {
    "wide photos in a square": letterbox(32, 32),
    "tall bars and an odd pixel": letterbox(21, 64),
    "at the photo's own width": letterbox(96, 64),
    "stretched": stretch(16, 64),
}


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=GEOMETRIES)
@pytest.mark.parametrize("stored", [WHOLE, letterbox(64, 64), letterbox(16, 64), stretch(64, 32)], ids=repr)
def test_a_network_that_is_right_is_right_at_the_photos_size_to_the_pixel(
    geometry: Geometry, stored: Geometry, tmp_path: Path
) -> None:
    """Where each square of one class comes to whole pixels, nothing is lost by fitting and undoing it."""
    photos = [sample(f"p{i}", blocks(i, 32, 64)) for i in range(3)]
    if geometry == letterbox(21, 64):  # 32x64 comes to 21x42: squares are not whole, so it is right but for their edges
        photos = [sample(f"p{i}", half(32, 64)) for i in range(3)]
    run = write_run(tmp_path / "run", reader(2), geometry)
    found = evaluate(run, write(tmp_path / "shards", photos, stored)).scores
    network, photo = masks(found)
    assert (network.mean_iou, photo.mean_iou, photo.mean_image_iou, photo.mean_boundary_iou) == (1, 1, 1, 1)
    assert found.photo_truth == ("stored" if stored in (WHOLE, letterbox(64, 64)) else "enlarged")


def test_an_enlarged_truth_holds_no_id_that_was_not_there(tmp_path: Path) -> None:
    mask = half(32, 64) * np.uint8(2)
    mask[:, 24:32] = 255
    run = write_run(tmp_path / "run", constant(0, 0, 1), letterbox(16, 16), labels=THREE)
    found = evaluate(run, write(tmp_path / "shards", [sample("p", mask, classes=3)], letterbox(8, 8), THREE)).scores
    assert found.photo_truth == "enlarged"
    assert [one.iou["head"] for one in masks(found)] == [None, None]


def test_the_bars_that_are_cut_off_are_those_of_the_box() -> None:
    shares = np.zeros((10, 7, 2), np.float32)  # a photo of 3x7 pixels lies in rows 3, 4 and 5
    x, y, w, h = fit_box(3, 7, letterbox(10, 7))
    assert (x, y, w, h) == (0, 3, 7, 3)
    shares[..., 0] = 0.6
    shares[3, :, 1] = shares[5, 6, 1] = 0.9
    expected = np.zeros((3, 7), np.uint8)
    expected[0], expected[2, 6] = 1, 1
    np.testing.assert_array_equal(at_photo_size(shares, (3, 7), letterbox(10, 7), "mask"), expected)


def test_probabilities_are_enlarged_before_a_class_is_chosen() -> None:
    """Half-way between two sure classes lies one that is second in both."""
    shares = np.array([[[0.6, 0.4, 0.0], [0.0, 0.4, 0.6]]], np.float32)
    found = at_photo_size(shares, (1, 8), stretch(1, 2), "mask")
    # Bilinear with half-pixel centres: class 2 has 0.6 t, class 0 has 0.6 (1 - t), t = 0, 0, 1/8, 3/8, 5/8, 7/8, 1, 1.
    np.testing.assert_array_equal(found, [[0, 0, 0, 1, 1, 2, 2, 2]])


def test_equal_probabilities_are_the_first_class_and_mattes_stay_in_their_bounds() -> None:
    shares = np.full((4, 4, 3), 1 / 3, np.float32)
    assert (at_photo_size(shares, (9, 9), stretch(4, 4), "mask") == 0).all()
    alpha = np.zeros((2, 2, 2), np.float32)
    alpha[0, :, 1] = 1
    found = at_photo_size(alpha, (8, 3), stretch(2, 2), "matte")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, 0], [1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0], atol=1e-6)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def two_photos() -> list[Sample]:
    """A small photo that the network gets right, and a large one that it takes for one person."""
    all_ones = np.ones((64, 64), np.uint8)
    return [sample("small", half(32, 32)), sample("large", half(64, 64), shown=all_ones)]


NETWORKS: dict[str, Callable[[], Any]] = {
    "two channels": lambda: reader(2),
    "one channel": lambda: reader(2, outputs=1),
    "two heads": lambda: reader(2, outputs=1, heads=True),
    "grey": lambda: reader(2, channels=1),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_numbers_are_those_that_can_be_counted_at_both_sizes(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", NETWORKS[name](), letterbox(16, 16), grey=name == "grey")
    report = evaluate(run, write(tmp_path / "shards", two_photos()))
    network, photo = masks(report.scores)
    # At 16x16 both photos have 256 pixels, 128 of each class; at their own size 1,024 and 4,096.
    assert network.iou == {"background": 0.5, "person": round(256 / 384, 6)}
    assert photo.iou == {"background": 0.2, "person": round(2560 / 4608, 6)}
    assert photo.mean_iou == pytest.approx((0.2 + 2560 / 4608) / 2, abs=1e-6)
    assert (network.pixel_accuracy, photo.pixel_accuracy) == (0.75, 0.6)
    assert (network.mean_image_iou, photo.mean_image_iou) == (0.75, 0.75)  # the person's: 1 and 0.5
    assert (network.samples, photo.samples, report.size, report.split) == (2, 2, (16, 16), "test")
    assert (network.absent, photo.absent) == ((), ())
    for found in (network, photo):
        assert found.mean_boundary_iou is not None
        assert found.boundary_iou.keys() == found.iou.keys()
        assert 0 < found.mean_boundary_iou < 1


def test_a_class_that_is_nowhere_is_absent_and_left_out_of_the_means(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = [sample("p", half(16, 16) * np.uint8(2), classes=3)]
    run = write_run(tmp_path / "run", reader(3), letterbox(16, 16), labels=THREE)
    shards = write(tmp_path / "shards", photos, labels=THREE)
    for found in masks(evaluate(run, shards).scores):
        assert found.absent == ("head",)
        assert found.iou == {"background": 1, "head": None, "body": 1}
        assert (found.mean_iou, found.boundary_iou["head"], found.mean_boundary_iou) == (1, None, 1)
    command(run, shards)
    shown = capsys.readouterr().out
    assert re.search(r"IoU over all pixels, head +absent +absent", shown)
    assert "absent: in neither truths nor predictions, so left out of the means" in shown


def test_ignored_pixels_do_not_count_at_either_size(tmp_path: Path) -> None:
    mask = half(32, 32)
    mask[:16] = 255
    wrong_there = np.concatenate([1 - half(16, 32), half(16, 32)])
    run = write_run(tmp_path / "run", reader(2), letterbox(16, 16))
    for found in masks(evaluate(run, write(tmp_path / "shards", [sample("p", mask, shown=wrong_there)])).scores):
        assert (found.mean_iou, found.pixel_accuracy) == (1, 1)


def test_a_split_where_no_pixel_counts_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", reader(2), letterbox(16, 16))
    shards = write(tmp_path / "shards", [sample("p", np.full((16, 16), 255, np.uint8))])
    report = evaluate(run, shards)
    for found in masks(report.scores):
        assert (found.mean_iou, found.mean_image_iou, found.mean_boundary_iou, found.pixel_accuracy) == (None,) * 4
    assert NOTHING_COUNTS in report.notes
    command(run, shards)
    shown = capsys.readouterr()
    assert re.search("mean IoU over all pixels +no pixel counts +no pixel counts", shown.out)
    assert NOTHING_COUNTS in shown.err


def test_the_truth_is_stored_only_where_that_of_every_photo_is(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", reader(2), letterbox(16, 16))
    fits, does_not = sample("fits", half(32, 16)), sample("does not", half(64, 64))
    stored = letterbox(32, 32)
    assert evaluate(run, write(tmp_path / "one", [fits], stored)).scores.photo_truth == "stored"
    assert evaluate(run, write(tmp_path / "both", [fits, does_not, fits], stored)).scores.photo_truth == "enlarged"


def test_shards_of_other_splits_keep_their_scores(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", reader(2), letterbox(16, 16))
    other = SplitScores(network_size=MatteScores(mae=1.0, mse=1.0, gradient=1.0, samples=1))
    write_scores(run / METRICS_JSON, {"validation": other, "test": other})
    report = evaluate(run, write(tmp_path / "shards", two_photos()))
    assert read_scores(run / METRICS_JSON) == {"test": report.scores, "validation": other}


# ---- mattes ----------------------------------------------------------------------------------------------------------


def matte_photos(*alphas: float) -> list[Sample]:
    """A photo for each alpha: that one on the left, 1 on the right."""
    photos = []
    for i, alpha in enumerate(alphas):
        matte = np.where(half(32, 64) == 1, alpha, 1).astype(np.float32)
        photos.append(Sample(f"m{i}", np.full((32, 64, 3), 128, np.uint8), None, matte))
    return photos


@pytest.mark.parametrize("stored", [WHOLE, letterbox(64, 64), letterbox(32, 32)], ids=repr)
def test_mattes_are_measured_without_their_bars(stored: Geometry, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", constant(0), letterbox(32, 32), labels=None)
    report = evaluate(run, write(tmp_path / "shards", matte_photos(0.2, 0.2, 0.2), stored, labels=None))
    network, photo = mattes(report.scores)
    is_enlarged = report.scores.photo_truth == "enlarged"
    assert is_enlarged == (stored == letterbox(32, 32))
    # What is said is 0.5: errors are 0.3 and 0.5. In an enlarged truth two of 64 columns are 0.4 and 0.8.
    assert (network.mae, network.mse) == pytest.approx((0.4, 0.17), abs=1e-6)
    expected = (0.4 - 0.4 / 64, 0.17 - 0.24 / 64) if is_enlarged else (0.4, 0.17)
    assert (photo.mae, photo.mse) == pytest.approx(expected, abs=1e-6)
    for found in (network, photo):
        assert found.gradient is not None
        assert (found.gradient > 0, found.samples) == (True, 3)
    assert report.confusion is None
    assert {path.name for path in run.iterdir()} == {BEST, RUN_JSON, "metrics.json", "sheet-test.png", "worst-test.png"}


def test_the_worst_mattes_are_those_with_the_highest_error(
    tmp_path: Path, cells: list[tuple[list[str], tuple[str, ...]]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", constant(0), letterbox(32, 64), labels=None)
    command(run, write(tmp_path / "shards", matte_photos(0.6, 0.0, 0.2), labels=None))
    assert cells[1] == (["m1  MAE 0.5000", "m2  MAE 0.4000", "m0  MAE 0.3000"], MATTE_HEADINGS)
    shown = capsys.readouterr().out
    assert re.search(r"mean absolute error +0\.4000 +0\.4000", shown)
    assert "IoU" not in shown
    assert "confusion" not in shown


def test_a_run_is_measured_only_on_what_it_learned(tmp_path: Path) -> None:
    of_masks = write_run(tmp_path / "masks", reader(2), letterbox(16, 16))
    of_mattes = write_run(tmp_path / "mattes", constant(0), letterbox(16, 16), labels=None)
    with pytest.raises(OptionError, match=r"holds mattes, but .* learned masks\. Evaluate on shards that hold masks"):
        evaluate(of_masks, write(tmp_path / "a", matte_photos(0.2), labels=None))
    with pytest.raises(OptionError, match=r"holds masks, but .* learned mattes\. Evaluate on shards that hold mattes"):
        evaluate(of_mattes, write(tmp_path / "b", two_photos()))


def test_shards_with_both_do_for_either(tmp_path: Path) -> None:
    matte = half(16, 16).astype(np.float32)
    photo = sample("p", half(16, 16))
    shards = write(tmp_path / "shards", [Sample("p", photo.image, photo.mask, matte)])
    of_masks = write_run(tmp_path / "masks", reader(2), letterbox(16, 16))
    of_mattes = write_run(tmp_path / "mattes", reader(2, outputs=1), letterbox(16, 16), labels=None)
    assert masks(evaluate(of_masks, shards).scores)[1].mean_iou == 1
    assert mattes(evaluate(of_mattes, shards).scores)[1].mae == 0


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_the_worst_are_worst_and_the_first_are_first(
    tmp_path: Path, cells: list[tuple[list[str], tuple[str, ...]]]
) -> None:
    """Photo i has i rows of 32 wrong; one has no pixel that counts, and is no bad one."""
    photos = []
    for i in np.random.default_rng(0).permutation(30).tolist():
        shown = half(32, 32)
        shown[:i] = 1 - shown[:i]
        photos.append(sample(f"wrong{i}", half(32, 32), shown=shown))
    photos.insert(3, sample("uncounted", np.full((32, 32), 255, np.uint8)))
    run = write_run(tmp_path / "run", reader(2), letterbox(32, 32))
    report = evaluate(run, write(tmp_path / "shards", photos))
    (first, headings), (worst, _) = cells
    assert headings == HEADINGS
    assert [caption.split()[0] for caption in first] == [photo.id for photo in photos[:SHEET_SAMPLES]]
    assert first[3] == "uncounted  mean IoU -"
    # Both classes have 16 pixels a row: i rows wrong make an IoU of (32 - i) / (32 + i).
    assert worst == [f"wrong{i}  mean IoU {(32 - i) / (32 + i):.3f}" for i in range(29, 29 - SHEET_SAMPLES, -1)]
    for path in (report.sheet, report.worst):
        assert images.decode_rgb(path.read_bytes()).shape[1] > 4 * 176


def test_pictures_and_their_names_are_the_same_each_time_and_belong_to_the_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", reader(2), letterbox(16, 16))
    shards = write(tmp_path / "shards", two_photos())
    report = evaluate(run, shards)
    assert (report.sheet, report.worst) == (run / "sheet-test.png", run / "worst-test.png")
    assert report.confusion == run / "confusion-test.png"
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert all(re.fullmatch(OWNED, name) for name in before if name != RUN_JSON)
    assert evaluate(run, shards) == report
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_table_has_a_column_for_each_size_and_names_that_say_what_a_mean_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = write(tmp_path / "shards", two_photos(), letterbox(32, 32))
    run = write_run(tmp_path / "run", reader(2), letterbox(16, 16), shards)
    command(run, shards)
    shown = capsys.readouterr()
    assert shown.err == ""
    lines = [line.strip() for line in shown.out.splitlines()]
    assert lines[0] == f"{run}: 2 samples of split test"
    assert lines[1:3] == ["network size  photo size", "16x16         truth enlarged"]
    numbers = {parts[0]: parts[1:] for parts in (re.split("  +", line) for line in lines[3:-3])}
    assert numbers["mean IoU over all pixels"] == ["0.5833", "0.3778"]
    assert numbers["mean IoU per image, without background"] == ["0.7500", "0.7500"]
    assert numbers["IoU over all pixels, background"] == ["0.5000", "0.2000"]
    assert list(numbers)[-1] == "pixel accuracy"
    assert [line.split(": ")[1] for line in lines[-3:]] == [
        str(run / f"{name}-test.png") for name in ("confusion", "worst", "sheet")
    ]


def test_json_holds_what_metrics_json_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = write(tmp_path / "shards", two_photos(), split="validation")
    run = write_run(tmp_path / "run", reader(2), letterbox(16, 16), shards)
    command(run, shards, "validation", json=True)
    report = json.loads(capsys.readouterr().out)
    assert report["scores"] == json.loads((run / "metrics.json").read_text())["validation"]
    assert (report["split"], report["notes"]) == ("validation", [])
    assert report["confusion"].endswith("run/confusion-validation.png")


def test_other_shards_than_those_learned_from_are_noted(tmp_path: Path) -> None:
    shards = write(tmp_path / "shards", two_photos())
    assert evaluate(write_run(tmp_path / "a", reader(2), letterbox(16, 16)), shards).notes == (OTHER_SHARDS,)
    assert evaluate(write_run(tmp_path / "b", reader(2), letterbox(16, 16), shards), shards).notes == ()


# ---- what cannot be measured -----------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", reader(2), letterbox(16, 16))


def refused(run: Path, shards: Path, kind: type[SegdataError], message: str, split: str = "test") -> None:
    """One line, and nothing in the run is changed."""
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(kind, match=message) as caught:
        evaluate(run, shards, split)
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_another_label_map_is_refused(run: Path, tmp_path: Path) -> None:
    labels = msgspec.structs.replace(BINARY, names=("background", "dog"))
    shards = write(tmp_path / "shards", two_photos(), labels=labels)
    refused(run, shards, OptionError, r"classes background, dog, but .* was trained on background, person")


def test_a_split_that_is_not_there_is_refused(run: Path, tmp_path: Path) -> None:
    shards = write(tmp_path / "shards", two_photos(), split="train")
    refused(run, shards, OptionError, "no samples in split 'test'. Splits that have: train.")


def test_a_damaged_record_is_one_line(run: Path, tmp_path: Path) -> None:
    shards = write(tmp_path / "shards", two_photos())
    path = shards / read_index(shards).shards[0].file
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] + bytes([whole[-100] ^ 1]) + whole[-99:])
    refused(run, shards, RecordError, "the checksum of a record's payload does not match. Run `segdata verify")
    path.write_bytes(whole[:-1])
    refused(run, shards, RecordError, "the index says")


def test_a_record_whose_picture_or_mask_is_none_is_one_line_that_names_the_shards(run: Path, tmp_path: Path) -> None:
    photo = sample("p", half(16, 16))
    cut = payload(photo, WHOLE).replace(b"IEND", b"IENd")
    shards = write(tmp_path / "cut", [photo])
    replace_only_record(shards, cut)
    refused(run, shards, RecordError, rf"{re.escape(str(shards))}: .*record 0 does not decode: .* Run `segdata verify")
    beyond = write(tmp_path / "beyond", [sample("p", np.full((16, 16), 7, np.uint8), shown=half(16, 16))])
    refused(run, beyond, RecordError, rf"{re.escape(str(beyond))}: a mask holds id 7, expected 0 to 1")


def replace_only_record(shards: Path, payload: bytes) -> None:
    index = read_index(shards)
    written = tfrecord.frame(payload)
    (shards / index.shards[0].file).write_bytes(written)
    shard = msgspec.structs.replace(
        index.shards[0], bytes=len(written), sha256=hashlib.sha256(written).hexdigest(), records=1
    )
    (shards / INDEX_JSON).write_bytes(seal(msgspec.structs.replace(index, shards=[shard])))


def test_a_run_without_sound_weights_record_or_scores_is_refused(run: Path, tmp_path: Path) -> None:
    shards = write(tmp_path / "shards", two_photos())
    (run / "metrics.json").write_text("{}garbage")
    refused(run, shards, RecordError, r"metrics\.json: ")
    (run / "metrics.json").unlink()
    (run / BEST).write_bytes((run / BEST).read_bytes()[:2000])
    refused(run, shards, RecordError, r"best\.keras: is no model that can be loaded .* Run `segdata train` again")
    (run / BEST).unlink()
    refused(run, shards, RecordError, r"best\.keras: is no model")
    (run / RUN_JSON).unlink()
    refused(run, shards, FolderError, "unfinished")


# ---- another process, another backend --------------------------------------------------------------------------------

_FRESH = """
import sys
from pathlib import Path
from segmodels.evaluate import evaluate
print(evaluate(Path(sys.argv[1]), Path(sys.argv[2])).scores.photo_size.mean_iou, "tensorflow" in sys.modules)
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_a_fresh_process_gives_the_same_on_either_backend_and_says_nothing_on_stderr(
    run: Path, tmp_path: Path, backend: str
) -> None:
    if backend == "jax":
        pytest.importorskip("jax")
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    arguments = [sys.executable, "-c", _FRESH, str(run), str(write(tmp_path / "shards", two_photos()))]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=env | {"KERAS_BACKEND": backend})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["0.377778", str(backend == "tensorflow")]
