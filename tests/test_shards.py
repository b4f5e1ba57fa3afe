"""Shards: one sample to one record and back, by number and in order, here and in TensorFlow."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from segdata import shards
from segdata.errors import FolderError, ImageRefused, OptionError, RecordError
from segdata.formats import example, images, tfrecord
from segdata.order import Order
from segdata.records import INDEX_JSON, Sample, read_index, seal
from segdata.shards import Shards, open_shards
from tests.material import Stored, photo, sample_line, saved, stored, tensorflow, write_shards

ALL = [stored(number) for number in range(7)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shards of 3, 1 and 2 training records and of 1 test record."""
    write_shards(tmp_path, {"train": [ALL[:3], ALL[3:4], ALL[4:6]], "test": [ALL[6:]]})
    return tmp_path


def assert_is(sample: Sample, wanted: Stored) -> None:
    assert sample.id == wanted.line.id
    np.testing.assert_array_equal(sample.image, wanted.pixels)
    np.testing.assert_array_equal(sample.mask, wanted.mask)


def names(samples: Iterable[Sample]) -> list[str]:
    return [sample.id for sample in samples]


def wanted_names(start: int, stop: int) -> list[str]:
    return [sample.line.id for sample in ALL[start:stop]]


# ---- one record


def test_a_sample_survives_its_record() -> None:
    wanted = stored(5, with_matte=True)
    sample = shards.decode_values(shards.parse(wanted.payload, "here"), "here")
    assert_is(sample, wanted)
    assert sample.image.dtype == np.uint8
    assert sample.mask is not None
    assert sample.mask.dtype == np.uint8
    assert sample.matte is not None
    assert sample.matte.dtype == np.float32
    np.testing.assert_array_equal(sample.matte, wanted.matte)


def test_a_record_holds_the_documented_features() -> None:
    line = sample_line("ä", group="g", image="photos/deep/ä b.jpg", height=48, width=64)
    image, mask = saved(photo(), "JPEG"), images.encode_mask(photo()[:, :, 0])
    values = example.decode(shards.encode_sample(line, image, mask, None))
    assert values == {
        "image/encoded": image,
        "image/format": b"jpeg",
        "image/filename": "ä b.jpg".encode(),
        "image/height": 24,
        "image/width": 32,
        "image/channels": 3,
        "image/source_id": "ä".encode(),
        "image/key/sha256": hashlib.sha256(image).hexdigest().encode(),
        "image/group": b"g",
        "image/original_height": 48,
        "image/original_width": 64,
        "image/segmentation/class/encoded": mask,
        "image/segmentation/class/format": b"png",
    }


@pytest.mark.parametrize("with_matte", [False, True])
@pytest.mark.parametrize("with_mask", [False, True])
def test_every_feature_of_a_record_is_declared(with_mask: bool, with_matte: bool) -> None:
    image = images.encode_png(photo())
    mask = images.encode_mask(photo()[:, :, 0])
    payload = shards.encode_sample(sample_line(), image, mask if with_mask else None, mask if with_matte else None)
    declared = shards.features(with_mask, with_matte)
    assert sorted(example.decode(payload)) == list(declared)
    kinds = {"image": bytes, "mask": bytes, "matte": bytes, "string": bytes, "int64": int}
    assert all(isinstance(value, kinds[declared[key]]) for key, value in example.decode(payload).items())


def test_a_grey_photo_says_so_and_is_read_as_rgb() -> None:
    grey = photo()[:, :, 0]
    values = example.decode(shards.encode_sample(sample_line(), images.encode_png(grey), None, None))
    assert (values["image/channels"], values["image/format"]) == (1, b"png")
    sample = shards.decode_values(values, "here")
    np.testing.assert_array_equal(sample.image, np.repeat(grey[:, :, None], 3, axis=2))
    assert sample.mask is None
    assert sample.matte is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image/encoded": None}, "here: has no feature 'image/encoded', expected bytes"),
        ({"image/source_id": 3}, "here: has no feature 'image/source_id'"),
        ({"image/source_id": b"\xff"}, "here: feature 'image/source_id' is not UTF-8"),
        ({"image/segmentation/class/encoded": 3}, "here: has no feature 'image/segmentation/class/encoded'"),
    ],
)
def test_a_record_without_its_features_is_refused(changes: dict[str, Any], message: str) -> None:
    values = {k: v for k, v in (example.decode(ALL[0].payload) | changes).items() if v is not None}
    with pytest.raises(RecordError, match=f"^{message}"):
        shards.decode_values(values, "here")


def test_a_damaged_picture_in_a_sound_record_is_refused() -> None:
    values = example.decode(ALL[0].payload)
    values["image/encoded"] = bytes(values["image/encoded"])[:-20]
    with pytest.raises(ImageRefused):
        shards.decode_values(values, "here")


def test_an_empty_record_is_no_sample() -> None:
    with pytest.raises(RecordError, match="has no feature 'image/source_id'"):
        shards.decode_values(shards.parse(b"", "here"), "here")


@pytest.mark.parametrize(
    ("number", "total", "name"),
    [(0, 1, "hp-train.tfrecord-00000-of-00001"), (15, 123456, "hp-train.tfrecord-00015-of-123456")],
)
def test_shards_are_named_as_tfds_names_them(number: int, total: int, name: str) -> None:
    assert shards.shard_name("hp", "train", number, total) == name


# ---- a folder of them


def test_a_split_is_read_in_order(folder: Path) -> None:
    found = open_shards(folder, "train")
    assert len(found) == 6
    for sample, wanted in zip(found, ALL[:6], strict=True):
        assert_is(sample, wanted)
    assert names(open_shards(str(folder), "test")) == wanted_names(6, 7)


def test_train_is_what_is_opened_unless_another_split_is_named(folder: Path) -> None:
    assert names(open_shards(folder)) == wanted_names(0, 6)


@pytest.mark.parametrize("order", [range(6), range(5, -1, -1), [3, 0, 5, 3]], ids=["forward", "backward", "mixed"])
def test_a_record_by_number_is_the_one_that_iteration_gives(folder: Path, order: Iterable[int]) -> None:
    found = open_shards(folder)
    for number in order:
        sample = found[number]
        assert isinstance(sample, Sample)
        assert_is(sample, ALL[number])


def test_a_second_pass_gives_the_same(folder: Path) -> None:
    found = open_shards(folder)
    assert names(found) == names(found)


@pytest.mark.parametrize("number", [-1, -6, np.int64(2), np.int32(-2)])
def test_numbers_count_from_the_end_too_and_may_be_numpys(folder: Path, number: int) -> None:
    sample = open_shards(folder)[number]
    assert isinstance(sample, Sample)
    assert sample.id == ALL[:6][number].line.id


@pytest.mark.parametrize("number", [6, -7, 10**9])
def test_a_number_beyond_the_last_record_is_an_index_error(folder: Path, number: int) -> None:
    with pytest.raises(IndexError, match=f"record {number} of split 'train', which has 6"):
        open_shards(folder)[number]


@pytest.mark.parametrize(
    "part", [slice(None), slice(2, 5), slice(-2, None), slice(None, None, -2), slice(4, 99), slice(3, 3)], ids=str
)
def test_slices_are_those_of_a_list(folder: Path, part: slice) -> None:
    found = open_shards(folder)[part]
    assert isinstance(found, list)
    assert names(found) == [sample.line.id for sample in ALL[:6][part]]


@pytest.mark.parametrize("order", [Order(), Order(seed=1, epoch=2), Order(seed=1, start=1, part=1, parts=2)], ids=str)
def test_reading_follows_an_order(folder: Path, order: Order) -> None:
    found = open_shards(folder)
    assert names(found.read(order)) == [ALL[number].line.id for number in order.numbers(6)]
    assert names(found.read()) == names(found)


def test_an_order_that_starts_beyond_the_end_is_refused_at_once(folder: Path) -> None:
    with pytest.raises(OptionError, match="start 7: expected at most 6"):
        open_shards(folder).read(Order(start=7))


def test_few_files_are_open_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_MAPPED_FILES", 2)
    found = open_shards(folder)
    mixed = [0, 3, 5, 1, 4, 2, 3, 0]
    assert [found.sample(number).id for number in mixed] == [ALL[number].line.id for number in mixed]
    assert len(found._mapped) == 2


def test_shards_travel_to_other_processes(folder: Path) -> None:
    found = open_shards(folder)
    found.sample(4)
    copy = pickle.loads(pickle.dumps(found))
    assert names(copy) == names(found)
    assert copy.sample(4).id == found.sample(4).id


def test_a_split_that_is_not_there_is_refused_with_those_that_are(folder: Path) -> None:
    with pytest.raises(OptionError, match="has no split 'validation', expected one of train, test"):
        open_shards(folder, "validation")


def test_a_folder_without_its_index_is_refused(folder: Path) -> None:
    (folder / INDEX_JSON).unlink()
    with pytest.raises(FolderError, match=r"has no index\.json, so it is unfinished"):
        open_shards(folder)


# ---- damage

SECOND = "people-train.tfrecord-00001-of-00003"


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / SECOND).unlink()
    with pytest.raises(RecordError, match=rf"{SECOND}: is missing, the index says \d+ bytes. Run `segdata verify"):
        open_shards(folder)


@pytest.mark.parametrize("change", [-1, -1000, 1, 4096])
def test_a_shard_of_another_size_is_named(folder: Path, change: int) -> None:
    data = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(data[:change] if change < 0 else data + b"\0" * change)
    with pytest.raises(RecordError, match=rf"{SECOND}: has \d+ bytes, the index says {len(data)} bytes"):
        open_shards(folder)


@pytest.mark.parametrize("at", [0, 7, 9, 40, -1], ids=["length", "length's end", "its checksum", "payload", "checksum"])
def test_a_flipped_bit_is_named_by_both_ways_of_reading(folder: Path, at: int) -> None:
    data = bytearray((folder / SECOND).read_bytes())
    data[at] ^= 4
    (folder / SECOND).write_bytes(data)
    found = open_shards(folder)
    with pytest.raises(RecordError, match=SECOND):
        found.sample(3)
    with pytest.raises(RecordError, match=SECOND):
        list(found)
    assert found.sample(2).id == ALL[2].line.id
    assert found.sample(4).id == ALL[4].line.id


@pytest.mark.parametrize("change", ["cut", "emptied", "longer", "gone"])
def test_a_shard_that_changes_while_it_is_read_is_named(folder: Path, change: str) -> None:
    path = folder / SECOND
    found, read = open_shards(folder), open_shards(folder)
    read.sample(3)
    data = path.read_bytes()
    if change == "gone":
        path.unlink()
    else:
        with path.open("r+b") as file:  # the same file, not another one of its name
            file.truncate({"cut": len(data) - 1, "emptied": 0, "longer": len(data) + 9}[change])
    with pytest.raises(RecordError, match=SECOND):
        found.sample(3)
    if change != "gone":
        with pytest.raises(RecordError, match=f"{SECOND}: changed its size while it was read"):
            read.sample(3)


def rewritten(folder: Path, payloads: list[bytes]) -> None:
    """Put other records into a shard and its new size into the index, as an honest but wrong tool would."""
    data = b"".join(tfrecord.frame(payload) for payload in payloads)
    (folder / SECOND).write_bytes(data)
    reseal(folder, 1, bytes=len(data))


def reseal(folder: Path, number: int, **changes: Any) -> None:
    """Change what the index says of one shard, under a seal that fits."""
    index = read_index(folder)
    files = list(index.shards)
    files[number] = msgspec.structs.replace(files[number], **changes)
    (folder / INDEX_JSON).write_bytes(seal(msgspec.structs.replace(index, shards=files)))


@pytest.mark.parametrize("count", [0, 2])
def test_a_shard_with_another_number_of_records_is_named(folder: Path, count: int) -> None:
    rewritten(folder, [ALL[3].payload] * count)
    with pytest.raises(RecordError, match=rf"{SECOND}: {count} records, its index says 1. Run `segdata verify`"):
        open_shards(folder).sample(3)


@pytest.mark.parametrize("count", [0, 2])
def test_iteration_gives_as_many_records_as_len_says_or_an_error(folder: Path, count: int) -> None:
    rewritten(folder, [ALL[3].payload] * count)
    found = open_shards(folder)
    with pytest.raises(RecordError, match=SECOND):
        list(found)


def test_a_record_that_is_no_example_is_named(folder: Path) -> None:
    rewritten(folder, [b"no example"])
    found = open_shards(folder)
    for read in (lambda: found.sample(3), lambda: list(found)):
        with pytest.raises(RecordError, match=rf"^{SECOND} record 0: its bytes are no tf.train.Example"):
            read()


@pytest.mark.parametrize("name", ["../people-test.tfrecord-00000-of-00001", "/etc/hostname"])
def test_an_index_that_leads_outside_is_refused(folder: Path, name: str) -> None:
    reseal(folder, 0, file=name)
    with pytest.raises(RecordError, match="is missing"):
        open_shards(folder)


# ---- TensorFlow reads ours, we read TensorFlow's


def test_tensorflow_reads_the_file_and_its_deeplab_keys(folder: Path) -> None:
    tf = tensorflow()
    kinds = {
        "image/encoded": tf.string,
        "image/format": tf.string,
        "image/filename": tf.string,
        "image/height": tf.int64,
        "image/width": tf.int64,
        "image/segmentation/class/encoded": tf.string,
        "image/segmentation/class/format": tf.string,
        "image/source_id": tf.string,
    }
    spec = {key: tf.io.FixedLenFeature([], kind) for key, kind in kinds.items()}  # no default: all must be there
    files = [str(folder / shard.file) for shard in read_index(folder).shards[:3]]
    records = [record.numpy() for record in tf.data.TFRecordDataset(files)]
    assert records == [sample.payload for sample in ALL[:6]]
    for record, wanted in zip(records, ALL, strict=False):
        parsed = tf.io.parse_single_example(record, spec)
        image = tf.io.decode_image(parsed["image/encoded"], expand_animations=False).numpy()
        mask = tf.io.decode_png(parsed["image/segmentation/class/encoded"]).numpy()
        np.testing.assert_array_equal(image, wanted.pixels)
        np.testing.assert_array_equal(mask[:, :, 0], wanted.mask)
        assert mask.shape[2] == 1
        assert parsed["image/source_id"].numpy().decode() == wanted.line.id
        assert (int(parsed["image/height"]), int(parsed["image/width"])) == image.shape[:2]


def test_our_reader_reads_the_file_that_tensorflow_writes(folder: Path) -> None:
    tf = tensorflow()
    index = read_index(folder)
    path = folder / index.shards[0].file
    ours = path.read_bytes()
    with tf.io.TFRecordWriter(str(path)) as writer:
        for sample in ALL[:3]:
            message = tf.train.Example.FromString(sample.payload)
            writer.write(message.SerializeToString(deterministic=True))
    assert path.stat().st_size == len(ours)
    for sample, wanted in zip(Shards(folder, index, "train"), ALL[:6], strict=True):
        assert_is(sample, wanted)
