"""Options check themselves; run.json and metrics.json come back as they were."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segdata.cli.options import sizes
from segdata.errors import FolderError, OptionError, RecordError
from segdata.records import RUN_JSON, Geometry, seal
from segmodels.augment import PRESETS
from segmodels.config import (
    BEST,
    CURVES_PNG,
    EVENTS,
    HISTORY_CSV,
    LAST,
    METRICS_JSON,
    OWNED,
    BestMetric,
    MatteScores,
    RunRecord,
    Scores,
    ShardsReference,
    SplitScores,
    TrainConfig,
    read_run,
    read_scores,
    write_scores,
)
from tests.segmodels.material import BINARY


def record(**changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "model": "unet",
        "target": "mask",
        "label_map": BINARY,
        "geometry": Geometry(size=(64, 96), fit="letterbox"),
        "input_channels": 3,
        "parameters": 7,
        "config": TrainConfig("unet", learning_rate=0.0003),
        "shards": ShardsReference(path="../shards", sha256="0" * 64),
        "backend": "tensorflow",
        "epochs": 5,
        "best_epoch": 4,
        "best_metric": BestMetric(name="val_mean_iou", value=0.123457),
    }
    return RunRecord(**(values | changes))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"epochs": 0}, "--epochs 0: expected 1 or more."),
        ({"batch_size": -2}, "--batch-size -2: expected 1 or more."),
        ({"learning_rate": 0.0}, "--learning-rate 0.0: expected a number above 0 and at most 1."),
        ({"learning_rate": float("nan")}, "--learning-rate nan: expected"),
        ({"learning_rate": float("inf")}, "--learning-rate inf: expected"),
        ({"learning_rate": 1.5}, "--learning-rate 1.5: expected a number above 0 and at most 1."),
        ({"seed": -1}, "--seed -1: expected 0 to 4294967295."),
        ({"seed": 1 << 32}, "--seed 4294967296: expected 0 to 4294967295."),
        ({"early_stopping": -1}, "--early-stopping -1: expected 0 or more."),
        ({"weight_decay": -0.1, "optimizer": "adamw"}, "--weight-decay -0.1: expected a number of 0 or more."),
        ({"clip_norm": float("nan")}, "--clip-norm nan: expected a number of 0 or more."),
        ({"clip_norm": float("inf")}, "--clip-norm inf: expected"),
        ({"schedule": "cosin"}, "--schedule 'cosin' is not known. Did you mean 'cosine'. Known: constant, cosine,"),
        ({"optimizer": "lion"}, "--optimizer 'lion' is not known. Known: adam, adamw, sgd."),
        ({"fit": "none"}, "--fit 'none' is not known.* Known: letterbox, stretch."),
        ({"mixed_precision": "float8"}, "--mixed-precision 'float8' is not known.* Known: bfloat16, float16, float32."),
        ({"class_weights": "balance"}, "--class-weights 'balance' is not known. Did you mean 'balanced'?"),
        ({"class_weights": "balanced", "loss": "dice"}, "--class-weights goes with --loss cross_entropy, not with 'd"),
        ({"weight_decay": 0.1}, "--weight-decay goes with --optimizer adamw, not with 'adam'."),
    ],
    ids=str,
)
def test_an_option_that_does_not_fit_is_named_with_its_bound(option: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        TrainConfig("unet", **option)
    assert "\n" not in str(caught.value)


def test_options_at_their_bounds_fit() -> None:
    TrainConfig("unet", epochs=1, batch_size=1, learning_rate=1.0, seed=(1 << 32) - 1, clip_norm=0, early_stopping=0)
    config = TrainConfig("unet", weight_decay=0.1, optimizer="adamw", class_weights="balanced", grey=True)
    assert (config.channels, TrainConfig("unet").channels) == (1, 3)


def test_options_come_back_from_json_whole() -> None:
    """A resumed run compares them; the augmentation's ranges are in them."""
    config = TrainConfig("unet", augment=PRESETS["portrait"], size=(32, 64), size_buckets=((32, 32), (64, 32)))
    assert msgspec.json.decode(msgspec.json.encode(config), type=TrainConfig) == config
    other = dataclasses.replace(config, augment=dataclasses.replace(PRESETS["portrait"], gamma=None))
    assert msgspec.to_builtins(other) != msgspec.to_builtins(config)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ()),
        ("256", ((256, 256),)),
        ("384x512,256", ((384, 512), (256, 256))),
        ("384x512,512x384", ((384, 512), (512, 384))),
    ],
)
def test_sizes_are_height_by_width(text: str | None, expected: tuple[tuple[int, int], ...]) -> None:
    assert sizes(text) == expected


@pytest.mark.parametrize("text", ["384x512;256", "384X512", "a", "-5", "64x64x3", "64, 32", "384x"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(OptionError, match="expected a side such as 256, or HEIGHTxWIDTH") as caught:
        sizes(text)
    assert "\n" not in str(caught.value)


def test_a_run_record_comes_back(tmp_path: Path) -> None:
    (tmp_path / RUN_JSON).write_bytes(seal(record()))
    found = read_run(tmp_path)
    assert msgspec.structs.replace(found, seal="") == record()


def test_a_run_that_is_not_there_unfinished_or_edited_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no such folder, expected a run"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(FolderError, match=r"has no run\.json, so it is unfinished"):
        read_run(tmp_path)
    (tmp_path / RUN_JSON).write_bytes(seal(record()).replace(b'"unet"', b'"unot"'))
    with pytest.raises(RecordError, match="seal"):
        read_run(tmp_path)


def test_a_record_names_the_classes_and_the_size_of_its_network() -> None:
    assert (record().classes, record().size) == (("background", "person"), (64, 96))
    matte = record(target="matte", label_map=None)
    assert matte.classes == ("background", "person")
    with pytest.raises(OptionError, match=r"run\.json: its geometry has no size"):
        _ = record(geometry=Geometry()).size


def masks(value: float) -> SplitScores:
    iou = {"background": value, "person": None}
    found = Scores(mean_iou=value, iou=iou, pixel_accuracy=1.0, samples=3, absent=("person",))
    return SplitScores(network_size=found, photo_size=found, photo_truth="stored")


def mattes(value: float) -> SplitScores:
    return SplitScores(network_size=MatteScores(mae=value, mse=None, gradient=1.0, samples=3))


def test_scores_of_other_splits_stay(tmp_path: Path) -> None:
    assert read_scores(tmp_path / METRICS_JSON) == {}
    write_scores(tmp_path / METRICS_JSON, {"validation": masks(0.5)})
    write_scores(tmp_path / METRICS_JSON, {"test": masks(0.25)})
    write_scores(tmp_path / METRICS_JSON, {"validation": masks(0.75)})
    write_scores(tmp_path / METRICS_JSON, {})
    assert read_scores(tmp_path / METRICS_JSON) == {"test": masks(0.25), "validation": masks(0.75)}


def test_scores_of_mattes_come_back_as_such(tmp_path: Path) -> None:
    write_scores(tmp_path / METRICS_JSON, {"test": mattes(0.25)})
    assert read_scores(tmp_path / METRICS_JSON) == {"test": mattes(0.25)}
    (tmp_path / METRICS_JSON).write_bytes(b'{"test": {"network_size": {"kind": "dog"}}}')
    with pytest.raises(RecordError, match=r"metrics\.json") as caught:
        read_scores(tmp_path / METRICS_JSON)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [BEST, LAST, "new.keras", HISTORY_CSV, CURVES_PNG, METRICS_JSON, EVENTS, "sheet-test.png", "worst-validation.png"],
)
def test_a_run_owns_what_it_writes(name: str) -> None:
    assert re.fullmatch(OWNED, name)


@pytest.mark.parametrize(
    "name", ["other.keras", "notes.txt", "sheet-.png", "events.out.tfevents.1.host", "best.keras~"]
)
def test_and_nothing_of_anybody_else(name: str) -> None:
    assert not re.fullmatch(OWNED, name)
