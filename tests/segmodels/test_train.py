"""Training, on discs that a network learns at once: what a run holds, how it goes on, and what ends it."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from segdata.errors import FolderError, JobFailed, OptionError, RecordError, SegdataError
from segdata.formats.files import sha256_file
from segdata.formats.folders import MARKER, output_folder
from segdata.formats.images import header
from segdata.order import Order
from segdata.records import INDEX_JSON, RUN_JSON, read_index
from segdata.shards import open_shards
from segmodels import loop
from segmodels import train as train_module
from segmodels.augment import augment
from segmodels.checkpoints import load_model
from segmodels.config import BEST, EVENTS, LAST, METRICS_JSON, OWNED, TrainConfig, read_run, read_scores
from segmodels.evaluate import evaluate
from segmodels.losses import LOSSES, balanced_weights
from segmodels.models import MODELS, ModelCard, Total, encoder_layers
from segmodels.quiet import keras
from segmodels.reading import Start
from segmodels.train import NO_VALIDATION, train
from segmodels.validation import validate_masks
from tests.folders import Made, segdata
from tests.segmodels.conftest import CONFIG, Trained
from tests.segmodels.material import BINARY

Make = Callable[..., Path]
FILES = {"best.keras", "curves.png", EVENTS, "history.csv", "last.keras", "metrics.json", "run.json"}


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
    columns = ["epoch", "learning_rate", "loss", "val_loss", "val_mean_iou", "val_iou_background", "val_iou_person"]
    assert list(found[0]) == columns
    assert [row["epoch"] for row in found] == ["1", "2"]
    for row in found:
        assert all(len(value) <= 12 and math.isfinite(float(value)) for value in row.values())
        shares = [float(row["val_iou_background"]), float(row["val_iou_person"])]
        assert float(row["val_mean_iou"]) == pytest.approx(np.mean(shares), abs=1e-6)


def test_the_record_says_what_was_trained_on_what(trained: Trained) -> None:
    record = read_run(trained.run)
    assert (record.model, record.label_map, record.config) == ("likeunet", BINARY, CONFIG)
    assert (record.size, record.input_channels, record.parameters) == ((64, 64), 3, 1_769_314)
    assert (record.target, record.epochs, record.backend) == ("mask", 2, keras.backend.backend())
    assert record.shards.path == os.path.relpath(trained.shards, trained.run).replace(os.sep, "/")
    assert record.shards.sha256 == sha256_file(trained.shards / INDEX_JSON)
    best = max(rows(trained.run), key=lambda row: float(row["val_mean_iou"]))
    assert (record.best_epoch, record.best_metric.name) == (int(best["epoch"]), "val_mean_iou")
    assert record.best_metric.value == float(best["val_mean_iou"])
    assert read_scores(trained.run / METRICS_JSON)["validation"].network_size.mean_iou == record.best_metric.value
    assert "test" not in read_scores(trained.run / METRICS_JSON)


def test_there_is_a_line_of_progress_per_epoch(trained: Trained) -> None:
    assert [line[:12] for line in trained.lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("mean IoU" in line for line in trained.lines)


def test_best_gives_what_the_record_says_it_gave(trained: Trained) -> None:
    found = evaluate(Path(shutil.copytree(trained.run, trained.run.parent / "again")), trained.shards, "validation")
    recorded = read_scores(trained.run / METRICS_JSON)["validation"].network_size
    for name in ("mean_iou", "iou", "pixel_accuracy", "samples", "absent"):
        assert getattr(found.scores.network_size, name) == getattr(recorded, name)
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


# ---- going on --------------------------------------------------------------------------------------------------------


def build_dropout(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """A small network with all that has a state: batch norm, and dropout's counter."""
    inputs = keras.Input((height, width, channels), name="image")
    x = keras.layers.Rescaling(1 / 255, name="scaled")(inputs)
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(x)
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Dropout(0.3, name="dropped")(x))
    return keras.Model(inputs, keras.layers.Conv2D(classes, 1, name="logits")(x), name="dropout")


RESUMED = TrainConfig("dropout", epochs=4, batch_size=4, learning_rate=3e-3, augment=augment("light"), seed=5)


class Killed(BaseException):
    """What ends a run here as SIGKILL does: nothing of it is caught."""


def stopped(
    shards: Path, out: Path, config: TrainConfig, function: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that ends in that function of segmodels.loop, when it is called for that time."""
    original, count = getattr(loop, function), [0]

    def ending(*arguments: Any) -> Any:
        count[0] += 1
        if count[0] == calls:
            raise Killed
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop, function, ending)
        with pytest.raises(Killed):
            train(shards, out, config)


@pytest.fixture(scope="module")
def whole(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of four epochs that nothing stopped, with dropout, batch norm and augmentation."""
    card = ModelCard("dropout", f"{__name__}:build_dropout", (Total(1, classes=2),), "these tests", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(MODELS, "dropout", card)
        run = tmp_path_factory.mktemp("whole") / "run"
        train(discs, run, RESUMED)
        yield run


@pytest.mark.parametrize(
    ("function", "calls"),
    [("save_model", 1), ("save_model", 2), ("save_model", 4), ("write_history", 2), ("row_of", 3), ("write_epoch", 4)],
)
def test_a_run_that_was_killed_goes_on_to_the_same_bytes(
    discs: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, function: str, calls: int
) -> None:
    out = whole.parent / f"{function}{calls}"  # beside the other, for the record names the shards
    stopped(discs, out, RESUMED, function, calls, monkeypatch)
    if (out / LAST).is_file():
        with pytest.raises(FolderError, match=r"holds a run that was stopped\. Pass --resume"):
            train(discs, out, RESUMED)
        with pytest.raises(FolderError, match="was begun with loss 'cross_entropy', now it is 'dice'"):
            train(discs, out, replace(RESUMED, loss="dice"), resume=True)
    train(discs, out, RESUMED, resume=True)
    assert {path.name: sha256_file(path) for path in out.iterdir()} == {
        path.name: sha256_file(path) for path in whole.iterdir()
    }


def test_a_better_model_is_not_lost_when_a_resumed_run_gets_worse(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: Path
) -> None:
    values = iter([0.5, 0.9, 0.7, 0.8])

    def scored(*arguments: Any) -> Any:
        loss, found = validate_masks(*arguments)
        return loss, msgspec.structs.replace(found, mean_iou=next(values))

    monkeypatch.setattr(train_module, "validate_masks", scored)
    stopped(discs, tmp_path / "run", RESUMED, "write_epoch", 3, monkeypatch)
    best = sha256_file(tmp_path / "run" / BEST)
    values = iter([0.7, 0.8])
    report = train(discs, tmp_path / "run", RESUMED, resume=True)
    assert (report.best_epoch, report.best_value) == (2, 0.9)
    assert sha256_file(tmp_path / "run" / BEST) == best


def test_resume_begins_where_there_is_nothing_and_does_nothing_where_all_is_done(discs: Path, whole: Path) -> None:
    out = whole.parent / "from-nothing"
    train(discs, out, RESUMED, resume=True)
    before = {path.name: (sha256_file(path), path.stat().st_mtime_ns) for path in out.iterdir()}
    report = train(discs, out, RESUMED, resume=True)
    assert "nothing was done" in report.notes[0]
    assert "nothing was done" in train(discs, out, replace(RESUMED, early_stopping=1), resume=True).notes[0]
    assert {path.name: (sha256_file(path), path.stat().st_mtime_ns) for path in out.iterdir()} == before
    with pytest.raises(FolderError, match="was trained with seed 5, now it is 6"):
        train(discs, out, replace(RESUMED, seed=6), resume=True)
    with pytest.raises(OptionError, match=r"--epochs 3: .* has 4 epochs already"):
        train(discs, out, replace(RESUMED, epochs=3), resume=True)


def test_a_finished_run_takes_more_epochs_and_forgets_what_was_measured(discs: Path, whole: Path) -> None:
    out = Path(shutil.copytree(whole, whole.parent / "longer"))
    evaluate(out, discs)
    report = train(discs, out, replace(RESUMED, epochs=6), resume=True)
    assert (report.epochs, len(rows(out)), read_run(out).epochs) == (6, 6, 6)
    assert rows(out)[:4] == rows(whole)
    assert {path.name for path in out.iterdir()} == FILES
    assert list(read_scores(out / METRICS_JSON)) == ["validation"]


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ({"encoder": "resnet50"}, Start()),
        ({}, Start(encoder_weights="imagenet")),
        ({}, Start(weights=Path(__file__))),
    ],
)
def test_a_finished_run_survives_options_that_do_not_fit(
    discs: Path, whole: Path, tmp_path: Path, options: dict[str, Any], start: Start
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    with pytest.raises(SegdataError):
        train(discs, out, replace(RESUMED, **options), overwrite=True, start=start)
    assert {path.name: sha256_file(path) for path in out.iterdir()} == {
        path.name: sha256_file(path) for path in whole.iterdir()
    }


def test_a_damaged_last_keras_leaves_the_finished_run_as_it_was(discs: Path, whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, whole.parent / "damaged"))
    (out / LAST).write_bytes((out / LAST).read_bytes()[:-1000])
    with pytest.raises(RecordError, match=r"last\.keras: cannot be read"):
        train(discs, out, replace(RESUMED, epochs=6), resume=True)
    assert read_run(out).epochs == 4


def test_resume_and_overwrite_exclude_each_other(discs: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="Give one of them"):
        train(discs, tmp_path / "run", RESUMED, overwrite=True, resume=True)


@pytest.mark.usefixtures("tiny")
def test_overwrite_starts_again_where_a_run_was_stopped(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig("tiny", epochs=2)
    stopped(discs, tmp_path / "run", config, "write_epoch", 2, monkeypatch)
    lines: list[str] = []
    train(discs, tmp_path / "run", config, overwrite=True, progress=lines.append)
    assert [line[:12] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]


def test_a_process_that_is_killed_goes_on(discs: Path, tmp_path: Path) -> None:
    command = ["train", discs, "--model", "likeunet_light", "--epochs", "3", "--batch-size", "4"]
    done = segdata(*command, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    with subprocess.Popen(
        [sys.executable, "-m", "segdata", *map(str, command), "--out", str(tmp_path / "b")],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("epoch 1 of 3"):
            assert process.poll() is None
        process.kill()
    done = segdata(*command, "--out", tmp_path / "b", "--resume")
    assert done.returncode == 0, done.stderr
    assert "epoch 1 of 3" not in done.stderr
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "sgd", "schedule": "plateau", "clip_norm": 0.0},
        {"optimizer": "adamw", "weight_decay": 0.01, "schedule": "constant"},
        {"size": (32, 48), "fit": "stretch", "grey": True},
        {"size_buckets": ((32, 32), (64, 32)), "augment": augment("portrait")},
        {"mixed_precision": "float16"},
        {"mixed_precision": "bfloat16", "loss": "ce_dice_focal_mse"},
    ],
)
@pytest.mark.usefixtures("tiny")
def test_every_option_trains_and_stands_in_the_record(discs: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    config = TrainConfig("tiny", epochs=1, **options)
    train(discs, tmp_path / "run", config)
    record = read_run(tmp_path / "run")
    assert record.config == config
    assert record.size == options.get("size", (64, 64))
    assert record.input_channels == (1 if "grey" in options else 3)
    assert keras.config.dtype_policy().name == "float32", "and is not left behind"
    assert evaluate(tmp_path / "run", discs).scores.network_size.samples == 5


@pytest.mark.usefixtures("tiny")
def test_early_stopping_ends_the_run_and_plateau_lowers_the_rate(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scored(*arguments: Any) -> Any:
        loss, found = validate_masks(*arguments)
        return loss, msgspec.structs.replace(found, mean_iou=0.5)

    monkeypatch.setattr(train_module, "validate_masks", scored)
    config = TrainConfig("tiny", epochs=20, early_stopping=7, schedule="plateau", learning_rate=0.01)
    report = train(discs, tmp_path / "run", config)
    assert (report.epochs, report.best_epoch) == (8, 1)
    rates = [float(row["learning_rate"]) for row in rows(tmp_path / "run")]
    assert rates[2:] == [0.01] * 4 + [0.005] * 2
    assert train(discs, tmp_path / "run", config, resume=True).epochs == 8


@pytest.mark.usefixtures("tiny")
def test_shards_of_any_geometry_train_with_a_size(make: Make, tmp_path: Path) -> None:
    shards = make(size=None)
    with pytest.raises(SegdataError, match="without --size"):
        train(shards, tmp_path / "run", TrainConfig("tiny"))
    train(shards, tmp_path / "run", TrainConfig("tiny", epochs=1, size=(64, 32)))
    assert read_run(tmp_path / "run").geometry.fit == "letterbox"


def test_weights_are_taken_over_and_the_encoder_stays(trained: Trained, tmp_path: Path) -> None:
    lines: list[str] = []
    config = replace(CONFIG, epochs=1, freeze_encoder=True)
    start = Start(weights=trained.run / BEST)
    train(trained.shards, tmp_path / "run", config, progress=lines.append, start=start)
    before, after = load_model(trained.run / BEST), load_model(tmp_path / "run" / LAST)
    frozen = {layer.name for layer in encoder_layers(before) if layer.weights}
    assert "down1" in frozen
    for layer in before.layers:
        pairs = zip(layer.get_weights(), after.get_layer(layer.name).get_weights(), strict=True)
        same = all(np.array_equal(one, other) for one, other in pairs)
        assert same == (layer.name in frozen or not layer.weights), layer.name
    assert "layers begin with the weights of" in lines[0]
    assert read_run(tmp_path / "run").weights_sha256 == sha256_file(trained.run / BEST)
    with pytest.raises(OptionError, match="no such file"):
        train(trained.shards, tmp_path / "other", config, start=Start(weights=tmp_path / "nowhere.keras"))


@pytest.mark.usefixtures("tiny")
def test_class_weights_come_from_the_manifest(kept: Made, tmp_path: Path) -> None:
    config = TrainConfig("tiny", epochs=1, class_weights="balanced")
    train(kept.shards, tmp_path / "run", config)
    pixels = dict.fromkeys(read_index(kept.shards).label_map.names, 0)
    for line in (kept.manifest / "train.jsonl").read_text(encoding="utf-8").splitlines():
        for name, count in json.loads(line)["class_pixels"].items():
            pixels[name] += count
    assert read_run(tmp_path / "run").class_weights == pytest.approx(balanced_weights(pixels))
    moved = Path(shutil.copytree(kept.shards, tmp_path / "moved"))
    with pytest.raises(OptionError, match=r"its manifest, which counts the pixels, is not at .* Pass --manifest"):
        train(moved, tmp_path / "other", config)
    train(moved, tmp_path / "other", config, start=Start(manifest=kept.manifest))
    edited = Path(shutil.copytree(kept.manifest, tmp_path / "edited"))
    (edited / "manifest.json").write_bytes((edited / "manifest.json").read_bytes() + b"\n")
    with pytest.raises(OptionError, match="is not the manifest that"):
        train(moved, tmp_path / "third", config, start=Start(manifest=edited))


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
    assert list(rows(tmp_path / "run")[0]) == ["epoch", "learning_rate", "loss"]
    assert report.best_value == min(float(row["loss"]) for row in rows(tmp_path / "run"))
    assert read_scores(tmp_path / "run" / METRICS_JSON) == {}
    assert "validation" not in "".join(lines)


@pytest.mark.parametrize(
    ("changes", "model", "message"),
    [
        ({"size": None}, "likeunet", "without --size"),
        ({"size": (48, 64)}, "unet", r"48x64 .* unet takes multiples of 32"),
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


@pytest.mark.usefixtures("tiny")
def test_a_loss_that_is_no_number_stops_the_run_at_once_and_names_the_batch(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(target: Any, logits: Any, class_weights: Any = None) -> Any:
        return LOSSES["cross_entropy"](target, logits) * float("nan")

    monkeypatch.setitem(LOSSES, "dice", broken)
    ids = [sample.id for sample in open_shards(discs).read(Order(seed=0))][:3]
    message = rf"epoch 1, batch 1: the loss is nan.* The batch holds {', '.join(ids)}\..* lower --learning-rate"
    with pytest.raises(JobFailed, match=message):
        train(discs, tmp_path / "run", TrainConfig("tiny", batch_size=3, loss="dice"))
    with pytest.raises(FolderError, match="unfinished"):
        read_run(tmp_path / "run")


@pytest.mark.usefixtures("tiny")
def test_a_validation_split_that_says_nothing_is_refused(make: Make, tmp_path: Path) -> None:
    shards = make(samples={"train": 2, "validation": 2}, size=(32, 32), ignore_all_in="validation")
    with pytest.raises(JobFailed, match="no pixel of split 'validation' counts"):
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
