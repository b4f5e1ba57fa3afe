"""The files that let TensorFlow Datasets read a folder of shards as it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from segdata.formats.tfds import LABELS_TXT, TFDS_LABELS_TXT, sidecar_files
from segdata.labels import label_map
from segdata.records import IndexRecord
from tests.material import Stored, stored, tensorflow, write_shards

TRAIN, TEST = [stored(number, with_matte=True) for number in range(4)], [stored(4, with_matte=True)]


@pytest.fixture
def index(tmp_path: Path) -> IndexRecord:
    return write_shards(tmp_path, {"train": [TRAIN[:3], TRAIN[3:]], "test": [TEST]})


def features_of(index: IndexRecord) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sidecar_files(index)["features.json"])
    return found


def leaf(tree: dict[str, Any], key: str) -> dict[str, Any]:
    for part in key.split("/"):
        tree = tree["featuresDict"]["features"][part]
    return tree


def test_dataset_info_counts_records_and_bytes_by_split(index: IndexRecord, tmp_path: Path) -> None:
    info = json.loads(sidecar_files(index)["dataset_info.json"])
    assert (info["name"], info["version"], info["fileFormat"]) == ("people", "1.0.0", "tfrecord")
    splits = {split["name"]: split for split in info["splits"]}
    assert splits["train"]["shardLengths"] == ["3", "1"]  # strings: protobuf's JSON for 64 bits
    assert splits["test"]["shardLengths"] == ["1"]
    sizes = {name: sum(path.stat().st_size for path in tmp_path.glob(f"people-{name}.*")) for name in splits}
    assert {name: split["numBytes"] for name, split in splits.items()} == {k: str(v) for k, v in sizes.items()}
    assert splits["train"]["filepathTemplate"] == "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def test_features_are_nested_by_their_slashes(index: IndexRecord) -> None:
    tree = features_of(index)
    assert tree["pythonClassName"] == "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    for key in index.features:
        assert "pythonClassName" in leaf(tree, key)
    assert leaf(tree, "image/height")["tensor"] == {"dtype": "int64", "encoding": "none", "shape": {}}
    assert leaf(tree, "image/source_id")["pythonClassName"].endswith(".Text")
    assert leaf(tree, "image/encoded")["image"]["shape"] == {"dimensions": ["-1", "-1", "3"]}
    assert leaf(tree, "image/matte/encoded")["image"]["dtype"] == "uint16"
    assert leaf(tree, "image/segmentation/class/encoded")["image"]["label"] == {"numClasses": "2"}


def test_class_names_stand_one_per_line_in_the_order_of_their_ids(index: IndexRecord) -> None:
    parts = msgspec.structs.replace(index, label_map=label_map("parts5", "humanparsing"))
    files = sidecar_files(parts)
    assert files[LABELS_TXT] == b"background\nhead\nupper_body\nboth_hands\nlower_body\n"
    assert files[TFDS_LABELS_TXT] == files[LABELS_TXT]
    assert leaf(features_of(parts), "image/segmentation/class/encoded")["image"]["label"] == {"numClasses": "5"}


def test_mattes_alone_need_no_class_names(index: IndexRecord) -> None:
    features = {key: kind for key, kind in index.features.items() if "segmentation" not in key}
    files = sidecar_files(msgspec.structs.replace(index, label_map=None, features=features))
    assert sorted(files) == ["dataset_info.json", "features.json"]


def test_the_files_follow_from_the_index_alone(index: IndexRecord) -> None:
    shuffled = msgspec.structs.replace(index, features=dict(reversed(index.features.items())))
    assert sidecar_files(index) == sidecar_files(shuffled)


# ---- TensorFlow Datasets itself


def assert_is(found: dict[str, Any], wanted: Stored) -> None:
    picture = found["image"]
    assert picture["source_id"].decode() == wanted.line.id
    assert picture["group"].decode() == wanted.line.group
    assert (picture["height"], picture["width"]) == wanted.pixels.shape[:2]
    np.testing.assert_array_equal(picture["encoded"], wanted.pixels)
    np.testing.assert_array_equal(picture["segmentation"]["class"]["encoded"][:, :, 0], wanted.mask)


def test_tensorflow_datasets_reads_the_folder_as_it_stands(index: IndexRecord, tmp_path: Path) -> None:
    tensorflow()
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(tmp_path))
    assert builder.info.name == "people"
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {"train": 4, "test": 1}
    mask = builder.info.features["image"]["segmentation"]["class"]["encoded"]
    assert (mask.num_classes, mask.names) == (2, ["background", "person"])
    for split, wanted in (("train", TRAIN), ("test", TEST)):
        found = list(tfds.as_numpy(builder.as_dataset(split=split, shuffle_files=False)))
        assert len(found) == len(wanted)
        for one, sample in zip(found, wanted, strict=True):
            assert_is(one, sample)
            matte = one["image"]["matte"]["encoded"]
            assert matte.dtype == np.uint16
            assert sample.matte is not None
            np.testing.assert_array_equal(matte[:, :, 0], np.rint(sample.matte * 65535))
