"""Predictions: what a network said, as a source; and that a confidence changes nothing where there is none."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from segdata.errors import ImageRefused, RecordError, SourceError
from segdata.formats import images
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.verify import verify
from segdata.labels import label_map
from segdata.records import REJECTED_JSONL, SAMPLES_JSONL, SampleLine, decode_lines, read_dataset
from segdata.sources import Entry
from segdata.sources.predictions import PREDICTIONS_JSONL, Prediction, Predictions, label_map_of
from tests.folders import lines
from tests.material import saved
from tests.sources.layouts import STEMS, raw_pairs, raw_predictions, write

OPTIONS = ConvertOptions("drawn", jobs=1)


def with_line(source: Predictions, **fields: Any) -> None:
    """One prediction more."""
    path = source.root / PREDICTIONS_JSONL
    line = Prediction(**{"id": "more", "group": "more", "image": "more.jpg", **fields})
    path.write_bytes(path.read_bytes() + msgspec.json.encode(line) + b"\n")


def test_a_label_map_of_class_ids_keeps_names_colours_and_pairs() -> None:
    labels = label_map("parts5", "humanparsing")
    found = label_map_of(labels)
    assert (found.name, found.names, found.colors) == (labels.name, labels.names, labels.colors)
    assert found.left_right_pairs == labels.left_right_pairs
    assert found.from_ids == ((0,), (1,), (2,), (3,), (4,))
    assert found.ignored_ids == (255,)


def test_confidences_reach_the_sample_lines_and_255_the_masks(tmp_path: Path) -> None:
    report = convert(raw_predictions(tmp_path / "raw"), tmp_path / "out", OPTIONS)
    assert {line["id"]: line["confidence"] for line in lines(tmp_path / "out" / SAMPLES_JSONL)} == {
        stem: 0.5 + number / 8 for number, stem in enumerate(STEMS)
    }
    assert report.confidence == 0.625
    mask = images.decode_mask((tmp_path / "out/masks/b.png").read_bytes())
    assert (mask[:, 4:6] == 255).all()
    assert report.ignored_pixels == 3 * 2 * 24
    assert not verify(tmp_path / "out", jobs=1).faults


def test_the_same_again_tells_the_same_confidence(tmp_path: Path) -> None:
    source = raw_predictions(tmp_path / "raw")
    convert(source, tmp_path / "out", OPTIONS)
    again = convert(source, tmp_path / "out", OPTIONS)
    assert (again.was_there, again.confidence) == (True, 0.625)


def test_lines_with_a_reason_are_rejected_and_nobodys_loss(tmp_path: Path) -> None:
    source = raw_predictions(tmp_path / "raw")
    for number, reason in enumerate(["low-confidence", "unsure", "low-confidence", "unsure"]):
        with_line(source, id=f"m{number}", reason=reason, detail="as told")
    report = convert(source, tmp_path / "out", OPTIONS)
    assert report.rejected == {"low-confidence": 2, "unsure": 2}
    assert lines(tmp_path / "out" / REJECTED_JSONL)[0] == {"id": "m0", "reason": "low-confidence", "detail": "as told"}


def test_settings_and_label_map_are_recorded(tmp_path: Path) -> None:
    convert(raw_predictions(tmp_path / "raw"), tmp_path / "out", OPTIONS)
    record = read_dataset(tmp_path / "out")
    assert record.source.name == "predictions"
    assert record.source.options["model"] == "unet"
    assert record.source.options["labels"] == "humanparsing"


def test_an_alpha_of_few_values_is_still_an_alpha(tmp_path: Path) -> None:
    """Those of a photo with nobody in it: `pairs` could not tell them from ids."""
    write(tmp_path / "mattes/a.png", saved(np.eye(24, 32, dtype=np.uint8), "PNG"))
    source = Predictions(tmp_path, tmp_path, None, {})
    found = source.annotate(Entry(id="a", group="a", image="a.jpg", label="mattes/a.png")).values
    assert found.max() == 1


def test_a_label_of_colours_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "masks/a.png", saved(np.zeros((24, 32, 3), np.uint8), "PNG"))
    with pytest.raises(ImageRefused, match="mask-mode"):
        Predictions(tmp_path, tmp_path, None, {}).annotate(Entry(id="a", group="a", image="a.jpg", label="masks/a.png"))


def test_a_folder_that_was_never_filled_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has no predictions.jsonl\. Run `segdata predict` again\.$"):
        Predictions(tmp_path, tmp_path, None, {}).find()


# ---- confidence where there is none ----------------------------------------------------------------------------------


def test_entries_without_a_confidence_are_written_as_before_there_were_any() -> None:
    entry = Entry(id="a", group="a", image="a.jpg")
    assert "confidence" not in json.loads(msgspec.json.encode(entry))
    assert pickle.loads(pickle.dumps(entry)) == entry
    assert json.loads(msgspec.json.encode(msgspec.structs.replace(entry, confidence=0.5)))["confidence"] == 0.5


def test_a_dataset_that_people_drew_says_nothing_of_confidence(tmp_path: Path) -> None:
    report = convert(raw_pairs(tmp_path / "raw"), tmp_path / "out", OPTIONS)
    assert report.confidence is None
    assert b"confidence" not in b"".join(path.read_bytes() for path in (tmp_path / "out").glob("*.json*"))


@pytest.mark.parametrize("confidence", ["1.01", "-0.1", '"high"'])
def test_a_confidence_out_of_its_bounds_is_an_error(tmp_path: Path, confidence: str) -> None:
    convert(raw_predictions(tmp_path / "raw"), tmp_path / "out", OPTIONS)
    path = tmp_path / "out" / SAMPLES_JSONL
    path.write_text(path.read_text(encoding="utf-8").replace("0.625", confidence), encoding="utf-8")
    with pytest.raises(RecordError, match=r"line \d: .*confidence"):
        list(decode_lines(path, SampleLine))
