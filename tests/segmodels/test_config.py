"""Options check themselves; run.json and metrics.json come back as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from segdata.errors import FolderError, OptionError, RecordError
from segdata.records import RUN_JSON, seal
from segmodels.config import (
    BestMetric,
    RunRecord,
    Scores,
    ShardsReference,
    TrainConfig,
    read_run,
    read_scores,
    write_scores,
)
from tests.segmodels.material import BINARY


def record(**changes: Any) -> RunRecord:
    values: dict[str, Any] = {
        "model": "unet",
        "label_map": BINARY,
        "input_size": (64, 96),
        "input_channels": 3,
        "parameters": 7,
        "config": TrainConfig("unet", learning_rate=0.0003),
        "shards": ShardsReference(path="../shards", sha256="0" * 64),
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
        ({"seed": -1}, "--seed -1: expected 0 to 4294967295."),
    ],
)
def test_an_option_that_does_not_fit_is_named_with_its_bound(option: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        TrainConfig("unet", **option)


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


def test_scores_of_other_splits_stay(tmp_path: Path) -> None:
    def score(value: float) -> Scores:
        iou = {"background": value, "person": None}
        return Scores(mean_iou=value, iou=iou, pixel_accuracy=1.0, samples=3, absent=("person",))

    assert read_scores(tmp_path) == {}
    write_scores(tmp_path, {"validation": score(0.5)})
    write_scores(tmp_path, {"test": score(0.25)})
    write_scores(tmp_path, {"validation": score(0.75)})
    assert read_scores(tmp_path) == {"test": score(0.25), "validation": score(0.75)}
