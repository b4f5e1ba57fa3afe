"""Training and evaluating, on discs that a network learns at once."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from segdata.errors import FolderError, JobFailed, OptionError, RecordError, SegdataError
from segdata.formats.files import sha256_file
from segdata.formats.folders import MARKER, output_folder
from segdata.formats.images import decode_rgb, header
from segdata.records import INDEX_JSON, RUN_JSON, read_index
from segdata.shards import open_shards
from segmodels import train as train_module
from segmodels.checkpoints import load_model
from segmodels.config import BEST, OWNED, TrainConfig, read_run, read_scores
from segmodels.evaluate import OTHER_SHARDS, evaluate
from segmodels.metrics import confusion_matrix, iou
from segmodels.train import NO_VALIDATION, train
from tests.segmodels.conftest import CONFIG, Trained
from tests.segmodels.material import BINARY

Make = Callable[..., Path]
FILES = {"best.keras", "curves.png", "history.csv", "last.keras", "metrics.json", "run.json"}


@pytest.fixture
def run(trained: Trained, tmp_path: Path) -> Path:
    """A copy of the trained run, to be changed."""
    return Path(shutil.copytree(trained.run, tmp_path / "run"))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---- what a run is ---------------------------------------------------------------------------------------------------


def test_a_run_holds_its_files_and_no_more(trained: Trained) -> None:
    assert {path.name for path in trained.run.iterdir()} == FILES
    curves = header((trained.run / "curves.png").read_bytes())
    assert (curves.format, curves.height, curves.width) == ("png", 400, 1200)


def test_history_has_a_row_per_epoch_in_plain_numbers(trained: Trained) -> None:
    found = rows(trained.run)
    columns = ["epoch", "loss", "val_loss", "val_mean_iou", "val_iou_background", "val_iou_person"]
    assert list(found[0]) == columns
    assert [row["epoch"] for row in found] == ["1", "2"]
    for row in found:
        assert all(len(value) <= 9 and math.isfinite(float(value)) for value in row.values())
        shares = [float(row["val_iou_background"]), float(row["val_iou_person"])]
        assert float(row["val_mean_iou"]) == pytest.approx(np.mean(shares), abs=1e-6)


def test_the_record_says_what_was_trained_on_what(trained: Trained) -> None:
    record = read_run(trained.run)
    assert (record.model, record.label_map, record.config) == ("likeunet", BINARY, CONFIG)
    assert (record.input_size, record.input_channels, record.parameters) == ((64, 64), 3, 1_769_314)
    assert record.shards.path == os.path.relpath(trained.shards, trained.run).replace(os.sep, "/")
    assert record.shards.sha256 == sha256_file(trained.shards / INDEX_JSON)
    best = max(rows(trained.run), key=lambda row: float(row["val_mean_iou"]))
    assert (record.best_epoch, record.best_metric.name) == (int(best["epoch"]), "val_mean_iou")
    assert record.best_metric.value == float(best["val_mean_iou"])
    assert read_scores(trained.run)["validation"].mean_iou == record.best_metric.value
    assert "test" not in read_scores(trained.run)


def test_there_is_a_line_of_progress_per_epoch(trained: Trained) -> None:
    assert [line[:12] for line in trained.lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("mean IoU" in line for line in trained.lines)


def test_best_gives_what_the_record_says_it_gave(trained: Trained) -> None:
    found = evaluate(Path(shutil.copytree(trained.run, trained.run.parent / "again")), trained.shards, "validation")
    assert found.scores == read_scores(trained.run)["validation"]
    assert not found.notes


def test_the_same_call_writes_the_same_bytes_and_replaces_only_when_told(trained: Trained, tmp_path: Path) -> None:
    shards = Path(shutil.copytree(trained.shards, tmp_path / trained.shards.relative_to(trained.shards.parents[1])))
    again = tmp_path / trained.run.relative_to(trained.run.parents[1])
    with output_folder(again, RUN_JSON, OWNED, overwrite=False):  # and it is not finished
        (again / "new.keras").write_bytes(b"left by a run that was stopped")
    assert (again / MARKER).is_file()
    train(shards, again, CONFIG)
    for name in sorted(FILES):
        assert (again / name).read_bytes() == (trained.run / name).read_bytes(), name
    with pytest.raises(FolderError, match=r"already holds a finished run\.json.* --overwrite"):
        train(shards, again, CONFIG)
    (again / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"holds 'notes\.txt'"):
        train(shards, again, CONFIG, overwrite=True)
    assert {path.name for path in again.iterdir()} == FILES | {"notes.txt"}


# ---- evaluate --------------------------------------------------------------------------------------------------------


def test_evaluate_measures_all_pixels_of_the_split(run: Path, trained: Trained) -> None:
    report = evaluate(run, trained.shards)
    model, total = load_model(run / BEST), np.zeros((2, 2), np.int64)
    for sample in open_shards(trained.shards, "test"):
        assert sample.mask is not None
        total += confusion_matrix(sample.mask, np.argmax(model.predict_on_batch(sample.image[None])[0], axis=-1), 2)
    expected = dict(zip(BINARY.names, (round(float(value), 6) for value in iou(total)), strict=True))
    assert report.scores.iou == expected
    assert (report.scores.samples, report.split, report.notes) == (5, "test", ())
    written = json.loads((run / "metrics.json").read_text())
    assert list(written) == ["test", "validation"]
    assert written["test"] == json.loads(msgspec.json.encode(report.scores))
    assert report.sheet == run / "sheet-test.png"
    assert decode_rgb(report.sheet.read_bytes()).shape[1] > 4 * 176


def test_a_run_with_sheets_can_be_replaced(run: Path, trained: Trained) -> None:
    import re

    evaluate(run, trained.shards)
    assert all(re.fullmatch(OWNED, path.name) for path in run.iterdir() if path.name != "run.json")


def test_a_fresh_process_loads_the_run_and_says_nothing_on_stderr(run: Path, trained: Trained) -> None:
    code = (
        "import sys; from pathlib import Path; from segmodels.evaluate import evaluate\n"
        "print(evaluate(Path(sys.argv[1]), Path(sys.argv[2])).scores.mean_iou)"
    )
    env = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, "-c", code, str(run), str(trained.shards)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert float(done.stdout) == pytest.approx(evaluate(run, trained.shards).scores.mean_iou, abs=1e-5)


def test_other_shards_of_the_same_kind_are_noted(run: Path, make: Make) -> None:
    assert evaluate(run, make(samples={"test": 2})).notes == (OTHER_SHARDS,)


def other_names() -> Any:
    return msgspec.structs.replace(BINARY, names=("background", "dog"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": other_names()}, r"classes background, dog, but .* was trained on background, person"),
        ({"size": (96, 64)}, r"pictures are 96x64 \(HxW\), but .* 64x64.* --size 64x64"),
        ({"size": None}, "without --size"),
        ({"samples": {"train": 2}}, "no samples in split 'test'. Splits that have: train."),
    ],
)
def test_shards_that_do_not_fit_the_run_are_refused(
    run: Path, make: Make, changes: dict[str, Any], message: str
) -> None:
    before = (run / "metrics.json").read_bytes()
    with pytest.raises(SegdataError, match=message):
        evaluate(run, make(**changes))
    assert (run / "metrics.json").read_bytes() == before


def test_a_run_without_its_weights_or_its_record_is_refused(run: Path, trained: Trained) -> None:
    (run / BEST).write_bytes((run / BEST).read_bytes()[:50_000])
    with pytest.raises(RecordError, match=r"best\.keras: is no model that can be loaded .* Run `segdata train` again"):
        evaluate(run, trained.shards)
    (run / BEST).unlink()
    with pytest.raises(RecordError, match=r"best\.keras: is no model"):
        evaluate(run, trained.shards)
    (run / "run.json").unlink()
    with pytest.raises(FolderError, match="unfinished"):
        evaluate(run, trained.shards)


# ---- training that cannot be, or goes wrong --------------------------------------------------------------------------


@pytest.mark.usefixtures("tiny")
def test_without_validation_the_lowest_loss_is_best_and_the_report_says_so(make: Make, tmp_path: Path) -> None:
    shards = make(samples={"train": 3, "test": 2}, size=(32, 32))
    test = next(shard for shard in read_index(shards).shards if shard.split == "test")
    (shards / test.file).write_bytes(bytes(test.bytes))  # training must not look at it
    lines: list[str] = []
    report = train(shards, tmp_path / "run", TrainConfig("tiny", epochs=2, batch_size=2), progress=lines.append)
    assert (report.notes, report.validation, report.best_name) == ((NO_VALIDATION,), None, "loss")
    assert "`segdata split --validation 0.1`" in NO_VALIDATION
    assert list(rows(tmp_path / "run")[0]) == ["epoch", "loss"]
    assert report.best_value == min(float(row["loss"]) for row in rows(tmp_path / "run"))
    assert read_scores(tmp_path / "run") == {}
    assert "validation" not in "".join(lines)


@pytest.mark.parametrize(
    ("changes", "model", "message"),
    [
        ({"size": None}, "likeunet", "without --size"),
        ({"size": (48, 64)}, "unet", r"48x64 .* unet takes multiples of 32.* --size 64x64"),
        ({"samples": {"test": 3}}, "unet", "no samples in split 'train'"),
        ({}, "uunet", "Did you mean 'unet'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_old_run_goes(
    run: Path, make: Make, changes: dict[str, Any], model: str, message: str
) -> None:
    with pytest.raises(SegdataError, match=message):
        train(make(**changes), run, TrainConfig(model), overwrite=True)
    assert {path.name for path in run.iterdir()} == FILES


def test_unfinished_shards_are_refused(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with pytest.raises(FolderError, match=r"has no index\.json"):
        train(tmp_path / "shards", tmp_path / "run", CONFIG)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def loss_that_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(train_module.SparseCrossEntropy):  # type: ignore[misc]
        def call(self, y_true: Any, y_pred: Any) -> Any:
            return super().call(y_true, y_pred) * float("nan")

    monkeypatch.setattr(train_module, "SparseCrossEntropy", Broken)


@pytest.mark.usefixtures("tiny", "loss_that_breaks")
def test_a_loss_that_is_no_number_stops_the_run_at_once(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"epoch 1, batch 1: the loss is nan.* lower --learning-rate"):
        train(discs, tmp_path / "run", TrainConfig("tiny"))
    with pytest.raises(FolderError, match="unfinished"):
        read_run(tmp_path / "run")


@pytest.mark.usefixtures("tiny")
def test_a_validation_split_that_says_nothing_is_refused(make: Make, tmp_path: Path) -> None:
    shards = make(samples={"train": 2, "validation": 2}, size=(32, 32), ignore_all_in="validation")
    with pytest.raises(JobFailed, match="every pixel of split 'validation' is the ignore index"):
        train(shards, tmp_path / "run", TrainConfig("tiny"))


@pytest.mark.usefixtures("tiny")
def test_a_damaged_record_ends_training_in_one_line(make: Make, tmp_path: Path) -> None:
    shards = make(samples={"train": 2}, shards_a_split=1, size=(32, 32))
    path = shards / read_index(shards).shards[0].file
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordError, match=r"the checksum of a record's payload does not match. Run `segdata verify"):
        train(shards, tmp_path / "run", TrainConfig("tiny"))


def test_options_are_checked_where_they_are_made() -> None:
    with pytest.raises(OptionError, match="--epochs 0"):
        TrainConfig("unet", epochs=0)
