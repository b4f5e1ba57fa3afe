"""build-tfrecords: shards that everybody reads, of bytes that depend on the manifest and options alone."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from segdata.errors import FolderError, JobFailed, OptionError, RecordError
from segdata.formats import images
from segdata.jobs.build import BuildOptions, build
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.split import split
from segdata.labels import label_map
from segdata.records import Geometry, SplitOptions
from segdata.shards import GROUP, IMAGE, MASK, SOURCE_ID, open_shards, parse
from segdata.sources.humanparsing import HumanParsing
from segdata.sources.pairs import Pairs
from segdata.transforms.resize import letterbox_box
from tests.folders import Made, lines, segdata, small_pairs, tree

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def test_without_a_size_original_bytes_pass_through(kept: Made, tmp_path: Path) -> None:
    build(kept.manifest, tmp_path / "s", BuildOptions(jobs=1))
    for split_name in ("train", "validation", "test"):
        expected = {line["id"]: line for line in lines(kept.manifest / f"{split_name}.jsonl")}
        shards = open_shards(tmp_path / "s", split_name)
        assert len(shards) == len(expected)
        for where, payload in shards.payloads():
            values = parse(payload, where)
            line = expected.pop(values[SOURCE_ID].decode())
            assert values[IMAGE] == (kept.raw / line["image"]).read_bytes()
            assert values[MASK] == (kept.dataset / line["mask"]).read_bytes()
            assert values[GROUP].decode() == line["group"]
            assert (values["image/height"], values["image/width"]) == (line["height"], line["width"])
        assert not expected


def test_letterbox_bars_are_ignored_and_no_id_comes_in(kept: Made) -> None:
    originals = {line["id"]: line for line in lines(kept.dataset / "samples.jsonl")}
    for sample in open_shards(kept.shards, "train"):
        line = originals[sample.id]
        x, y, w, h = letterbox_box(line["height"], line["width"], (64, 96))
        bars = np.ones((64, 96), bool)
        bars[y : y + h, x : x + w] = False
        assert bars.any()
        assert (sample.mask[bars] == 255).all()
        assert abs(sample.image[bars].astype(int) - 128).mean() < 6
        original = images.decode_mask((kept.dataset / line["mask"]).read_bytes())
        assert set(np.unique(sample.mask[~bars])) <= set(np.unique(original))


def test_stretch_fills_the_whole_size(kept: Made, tmp_path: Path) -> None:
    build(kept.manifest, tmp_path / "s", BuildOptions(Geometry(size=(40, 50), fit="stretch"), jobs=1))
    sample = open_shards(tmp_path / "s", "test")[0]
    assert sample.image.shape == (40, 50, 3)
    assert (sample.mask != 255).all()


@pytest.mark.parametrize("size", [[], ["--size", "48x32"]])
def test_bytes_depend_on_neither_jobs_nor_working_folder(kept: Made, tmp_path: Path, size: list[str]) -> None:
    arguments = ["build-tfrecords", kept.manifest, *size, "--shards", "3"]
    first = segdata(*arguments, "--out", tmp_path / "one", "--jobs", "1", cwd=kept.raw)
    second = segdata(*arguments, "--out", "two", "--jobs", "2", cwd=tmp_path)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_plain_tensorflow_reads_the_deeplab_keys(kept: Made) -> None:
    import tensorflow as tf

    keys = {
        "image/encoded": tf.io.FixedLenFeature((), tf.string),
        "image/filename": tf.io.FixedLenFeature((), tf.string),
        "image/format": tf.io.FixedLenFeature((), tf.string),
        "image/height": tf.io.FixedLenFeature((), tf.int64),
        "image/width": tf.io.FixedLenFeature((), tf.int64),
        "image/channels": tf.io.FixedLenFeature((), tf.int64),
        "image/segmentation/class/encoded": tf.io.FixedLenFeature((), tf.string),
        "image/segmentation/class/format": tf.io.FixedLenFeature((), tf.string),
        "image/source_id": tf.io.FixedLenFeature((), tf.string),
        "image/key/sha256": tf.io.FixedLenFeature((), tf.string),
    }
    ours = {sample.id: sample for sample in open_shards(kept.shards, "train")}
    files = sorted(map(str, kept.shards.glob("*-train.tfrecord-*")))
    for record in tf.data.TFRecordDataset(files):
        example = tf.io.parse_single_example(record, keys)
        sample = ours.pop(example["image/source_id"].numpy().decode())
        mask = tf.io.decode_png(example["image/segmentation/class/encoded"], channels=1).numpy()[:, :, 0]
        assert (mask == sample.mask).all()
        assert tf.io.decode_image(example["image/encoded"], channels=3).shape == sample.image.shape
    assert not ours


def test_tfds_reads_the_folder_as_it_stands(kept: Made) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(str(kept.shards))
    assert builder.info.splits["train"].num_examples == 7
    assert builder.info.features["image"]["segmentation"]["class"]["encoded"].names[1] == "head"
    ours = {sample.id: sample for sample in open_shards(kept.shards, "test")}
    for example in builder.as_dataset(split="test"):
        sample = ours.pop(example["image"]["source_id"].numpy().decode())
        assert (example["image"]["segmentation"]["class"]["encoded"].numpy()[:, :, 0] == sample.mask).all()
    assert not ours


def test_mattes_travel_in_their_own_feature(tmp_path: Path) -> None:
    tfds = pytest.importorskip("tensorflow_datasets")
    photos, masks = small_pairs(tmp_path, 4)
    convert(Pairs(photos, masks, None, kind="matte"), tmp_path / "d", ConvertOptions("mine", jobs=1))
    split([tmp_path / "d"], tmp_path / "m", SplitOptions(test=1))
    build(tmp_path / "m", tmp_path / "s", BuildOptions(jobs=1))
    ours = {sample.id: sample for sample in open_shards(tmp_path / "s")}
    assert all(sample.mask is None and set(np.unique(sample.matte)) == {0, 1} for sample in ours.values())
    for example in tfds.builder_from_directory(str(tmp_path / "s")).as_dataset(split="train"):
        alpha = example["image"]["matte"]["encoded"].numpy()[:, :, 0] / 65535
        assert (alpha == ours[example["image"]["source_id"].numpy().decode()].matte).all()


def test_nothing_is_replaced_unasked_and_overwrite_leaves_nothing_old(kept: Made, tmp_path: Path) -> None:
    build(kept.manifest, tmp_path / "s", BuildOptions(shards=3, jobs=1))
    with pytest.raises(FolderError, match="--overwrite"):
        build(kept.manifest, tmp_path / "s", BuildOptions(jobs=1))
    build(kept.manifest, tmp_path / "s", BuildOptions(jobs=1, overwrite=True))
    build(kept.manifest, tmp_path / "fresh", BuildOptions(jobs=1))
    assert tree(tmp_path / "s") == tree(tmp_path / "fresh")


def test_a_file_that_changed_since_convert_is_named_and_fails(made: Made, tmp_path: Path) -> None:
    mask = next(made.dataset.glob("masks/*.png"))
    mask.write_bytes(mask.read_bytes() + b"x")
    with pytest.raises(JobFailed, match=rf"{mask.name}.*changed since it was converted"):
        build(made.manifest, tmp_path / "s", BuildOptions(jobs=1))
    assert not (tmp_path / "s" / "index.json").exists()


def test_shards_whose_index_was_removed_are_kept(kept: Made, tmp_path: Path) -> None:
    options = BuildOptions(jobs=1, shards=2)
    build(kept.manifest, tmp_path / "s", options)
    before = tree(tmp_path / "s")
    (tmp_path / "s" / "index.json").unlink()
    with pytest.raises(FolderError, match="which segdata did not make"):
        build(kept.manifest, tmp_path / "s", BuildOptions(Geometry(size=(8, 8), fit="stretch"), jobs=1, shards=2))
    assert build(kept.manifest, tmp_path / "s", options).reused == 6
    assert tree(tmp_path / "s") == before
    (tmp_path / "s" / "index.json").unlink()
    (tmp_path / "s" / "mine.txt").write_text("precious")
    with pytest.raises(FolderError, match="which segdata did not make"):
        build(kept.manifest, tmp_path / "s", options)
    assert (tmp_path / "s" / "mine.txt").read_text() == "precious"


def test_a_dataset_made_again_needs_a_new_split(made: Made, tmp_path: Path) -> None:
    path = made.dataset / "dataset.json"
    shutil.rmtree(made.dataset)
    source = HumanParsing(made.raw, label_map("binary", "humanparsing"))
    convert(source, made.dataset, ConvertOptions("other", jobs=1))
    assert path.is_file()
    with pytest.raises(FolderError, match="made again"):
        build(made.manifest, tmp_path / "s", BuildOptions(jobs=1))


def test_an_edited_manifest_is_refused(made: Made, tmp_path: Path) -> None:
    path = made.manifest / "train.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(RecordError, match=r"train\.jsonl"):
        build(made.manifest, tmp_path / "s", BuildOptions(jobs=1))


def test_records_are_spread_evenly_over_the_shards(kept: Made) -> None:
    index = json.loads((kept.shards / "index.json").read_text())
    assert [(s["file"], s["records"]) for s in index["shards"]] == [
        ("people-train.tfrecord-00000-of-00002", 3),
        ("people-train.tfrecord-00001-of-00002", 4),
        ("people-validation.tfrecord-00000-of-00002", 1),
        ("people-validation.tfrecord-00001-of-00002", 1),
        ("people-test.tfrecord-00000-of-00002", 1),
        ("people-test.tfrecord-00001-of-00002", 2),
    ]


def test_small_shards_follow_from_the_wanted_size(kept: Made, tmp_path: Path) -> None:
    report = build(
        kept.manifest, tmp_path / "s", BuildOptions(Geometry(size=(512, 512), fit="letterbox"), shard_mb=1, jobs=1)
    )
    assert report.shards == {"train": 1, "validation": 1, "test": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BuildOptions(Geometry(size=(9, 9), fit="none")), "takes no --size"),
        (lambda: BuildOptions(Geometry(fit="letterbox")), "needs a --size"),
        (lambda: BuildOptions(Geometry(size=(0, 9), fit="stretch")), "1 to 16384"),
        (lambda: BuildOptions(shards=0), "--shards 0"),
        (lambda: BuildOptions(shard_mb=0), "--shard-mb 0"),
        (lambda: BuildOptions(check="odd"), "--check"),
    ],
)
def test_options_say_what_they_expect(make: object, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()  # type: ignore[operator]
