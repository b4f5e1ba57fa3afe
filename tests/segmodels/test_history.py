"""history.csv as csv reads it, and events as TensorFlow reads them."""

from __future__ import annotations

import csv
import io
import math
import struct
from pathlib import Path

import pytest

from segdata.formats.images import header
from segmodels.batches import tf
from segmodels.config import CURVES_PNG, EVENTS, HISTORY_CSV
from segmodels.history import events, history_csv, write_history

NAN = math.nan
Row = dict[str, float]


def row(epoch: int, loss: float, iou: float = 0.5, dog: float = NAN) -> Row:
    return {"epoch": epoch, "learning_rate": 0.001, "loss": loss, "val_mean_iou": iou, "val_iou_hünd": dog}


ROWS = [row(1, 0.75), row(2, 0.5, 0.625, 0.25), row(3, NAN, NAN)]


def as_float32(value: float) -> float:
    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found


def read_events(path: Path) -> list[tuple[int, float, dict[str, float]]]:
    """(step, time, values by tag) of each event, by TensorFlow, which checks the CRCs; the first names the version."""
    first, *found = (tf.compat.v1.Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset([str(path)]))
    assert (first.file_version, first.wall_time, first.step) == ("brain.Event:2", 0, 0)
    assert all(event.WhichOneof("what") == "summary" for event in found)
    return [
        (event.step, event.wall_time, {value.tag: value.simple_value for value in event.summary.value})
        for event in found
    ]


def expected(rows: list[Row]) -> list[tuple[int, float, dict[str, float]]]:
    return [
        (int(r["epoch"]), float(r["epoch"]), {k: as_float32(v) for k, v in r.items() if k != "epoch" and v == v})
        for r in rows
    ]


# ---- events


def test_tensorflow_reads_tags_values_and_steps(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(events(ROWS))
    found = read_events(tmp_path / "file")
    assert found == expected(ROWS)
    assert found[0][2] == {"learning_rate": as_float32(0.001), "loss": 0.75, "val_mean_iou": 0.5}, "and no NaN"
    assert found[1][2]["val_iou_hünd"] == 0.25
    assert list(found[2][2]) == ["learning_rate"]


def test_tensorboards_own_iterator_reads_them_too(tmp_path: Path) -> None:
    (tmp_path / EVENTS).write_bytes(events(ROWS))
    steps = [event.step for event in tf.compat.v1.train.summary_iterator(str(tmp_path / EVENTS))]
    assert steps == [0, 1, 2, 3]


def test_large_steps_and_numbers_without_bounds_are_written(tmp_path: Path) -> None:
    rows = [row(127, math.inf), row(128, -0.0), row(70_000, 3.4e38)]
    (tmp_path / "file").write_bytes(events(rows))
    assert read_events(tmp_path / "file") == expected(rows)


def test_a_name_that_is_long_is_a_tag(tmp_path: Path) -> None:
    rows = [{"epoch": 1, "val_iou_" + "x" * 300: 0.5}]
    (tmp_path / "file").write_bytes(events(rows))
    assert list(read_events(tmp_path / "file")[0][2]) == ["val_iou_" + "x" * 300]


def test_tensorboard_would_find_the_file() -> None:
    assert "tfevents" in EVENTS


# ---- files that go on


def test_epoch_by_epoch_gives_what_all_at_once_gives(tmp_path: Path) -> None:
    for folder, steps in (("step", (1, 2, 3)), ("once", (3,))):
        (tmp_path / folder).mkdir()
        for count in steps:
            write_history(tmp_path / folder, ROWS[:count])
    names = {path.name for path in (tmp_path / "step").iterdir()}
    assert names == {HISTORY_CSV, EVENTS, CURVES_PNG}
    for name in names:
        assert (tmp_path / "step" / name).read_bytes() == (tmp_path / "once" / name).read_bytes(), name
    assert (tmp_path / "once" / EVENTS).read_bytes() == events(ROWS)
    assert header((tmp_path / "once" / CURVES_PNG).read_bytes()).format == "png"


def test_events_are_appended_so_that_an_open_file_sees_them(tmp_path: Path) -> None:
    write_history(tmp_path, ROWS[:1])
    with (tmp_path / EVENTS).open("rb") as open_before:
        assert open_before.read() == events(ROWS[:1])
        write_history(tmp_path, ROWS[:2])
        assert open_before.read() == events(ROWS[:2])[len(events(ROWS[:1])) :]


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "longer", "changed"])
def test_events_that_are_damaged_are_mended(tmp_path: Path, damage: str) -> None:
    whole = events(ROWS[:2])
    damaged = {
        "cut": whole[:-5],
        "empty": b"",
        "foreign": b"something else",
        "longer": events(ROWS),
        "changed": whole[:30] + bytes((whole[30] ^ 1,)) + whole[31:],
    }[damage]
    (tmp_path / EVENTS).write_bytes(damaged)
    write_history(tmp_path, ROWS[:2])
    assert (tmp_path / EVENTS).read_bytes() == whole
    write_history(tmp_path, ROWS)
    assert read_events(tmp_path / EVENTS) == expected(ROWS)


# ---- csv


def test_the_table_is_what_csv_reads_and_nothing_for_no_number() -> None:
    found = list(csv.DictReader(io.StringIO(history_csv(ROWS).decode("utf-8"))))
    assert list(found[0]) == list(ROWS[0])
    assert found[0] == {
        "epoch": "1",
        "learning_rate": "0.001",
        "loss": "0.75",
        "val_mean_iou": "0.5",
        "val_iou_hünd": "",
    }
    assert (found[2]["loss"], found[2]["val_mean_iou"]) == ("", "")


def test_lines_end_as_in_text_of_any_system() -> None:
    data = history_csv(ROWS)
    assert data.count(b"\n") == 4
    assert data.endswith(b"\n")
    assert b"\r" not in data


def test_every_number_comes_back_exactly() -> None:
    rows = [row(1, 0.1 + 0.2, 1 / 3)]
    found = next(csv.DictReader(io.StringIO(history_csv(rows).decode("utf-8"))))
    assert (float(found["loss"]), float(found["val_mean_iou"])) == (0.1 + 0.2, 1 / 3)


def test_a_class_with_a_comma_stays_one_column() -> None:
    rows = [{"epoch": 1, 'val_iou_a,"b"': 0.5}]
    assert list(csv.DictReader(io.StringIO(history_csv(rows).decode("utf-8")))) == [
        {"epoch": "1", 'val_iou_a,"b"': "0.5"}
    ]


@pytest.mark.parametrize("columns", [("val_mae", "val_mse"), ("val_mean_iou",), ()], ids=str)
def test_histories_of_every_kind_are_drawn(tmp_path: Path, columns: tuple[str, ...]) -> None:
    rows = [{"epoch": n, "learning_rate": 0.1, "loss": 1 / n, **dict.fromkeys(columns, 0.5)} for n in (1, 2)]
    write_history(tmp_path, rows)
    assert header((tmp_path / CURVES_PNG).read_bytes()).format == "png"
