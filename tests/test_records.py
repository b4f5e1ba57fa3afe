"""The JSON at rest: what is sealed comes back, and nothing that was edited does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdata.errors import FolderError, RecordError, SegdataError
from segdata.labels import label_map
from segdata.records import (
    DATASET_JSON,
    INDEX_JSON,
    MANIFEST_JSON,
    RUN_JSON,
    DatasetCounts,
    DatasetRecord,
    DatasetReference,
    FileRecord,
    Geometry,
    IndexRecord,
    ManifestRecord,
    ManifestReference,
    RejectedLine,
    SampleLine,
    ShardRecord,
    SourceRecord,
    SplitOptions,
    decode_lines,
    encode_lines,
    image_file,
    is_inside,
    kind_of,
    read_dataset,
    read_index,
    read_manifest,
    seal,
    unseal,
)
from tests.material import sample_line

HASH = "ab" * 32
DATASET = DatasetRecord(
    name="people",
    source=SourceRecord(name="pairs", options={"kind": "binary", "threshold": None, "share": 0.5, "copy": True}),
    label_map=label_map("parts5", "humanparsing"),
    image_root="../raw",
    counts=DatasetCounts(samples=2, rejected={"size-mismatch": 1}, class_pixels={"background": 7, "Straße": 9}),
    samples=FileRecord(file="samples.jsonl", count=2, sha256=HASH),
    rejected=FileRecord(file="rejected.jsonl", count=1, sha256=HASH),
)
MANIFEST = ManifestRecord(
    name="people",
    datasets=[DatasetReference(name="people", path="../prepared", sha256=HASH)],
    label_map=None,
    options=SplitOptions(method="ordered", test=5000, validation=0.1, salt="日本"),
    splits={"train": FileRecord(file="train.jsonl", count=1, sha256=HASH)},
    straddling=[["train: a", "test: b"]],
)
INDEX = IndexRecord(
    name="people",
    label_map=label_map("binary", "mask"),
    geometry=Geometry(size=(64, 96), fit="letterbox"),
    features={"image/encoded": "image"},
    manifest=ManifestReference(path=None, sha256=HASH),
    options={"shards": 3},
    shards=[ShardRecord(file="people-train.tfrecord-00000-of-00001", split="train", records=3, bytes=9, sha256=HASH)],
)
RECORDS = {"dataset": DATASET, "manifest": MANIFEST, "index": INDEX}
READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "dataset": (DATASET_JSON, read_dataset),
    "manifest": (MANIFEST_JSON, read_manifest),
    "index": (INDEX_JSON, read_index),
}
each_record = pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
each_reader = pytest.mark.parametrize(("name", "read"), READERS.values(), ids=READERS)


# ---- the seal


@each_record
def test_what_is_sealed_comes_back(record: Any) -> None:
    data = seal(record)
    back = unseal(data, type(record), "x.json")
    assert msgspec.structs.replace(back, seal="") == record
    assert seal(back) == data == seal(record)


@each_record
def test_the_seal_is_the_hash_of_the_bytes_without_it(record: Any) -> None:
    data = seal(record)
    found = json.loads(data)["seal"]
    assert found == hashlib.sha256(data.replace(found.encode(), b"")).hexdigest()
    assert data.endswith(b"\n}\n")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(RECORDS)), st.data())
def test_any_changed_byte_is_noticed(name: str, draw: st.DataObject) -> None:
    data = bytearray(seal(RECORDS[name]))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    with pytest.raises(SegdataError):
        unseal(bytes(data), type(RECORDS[name]), "x.json")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(RECORDS)), st.data())
def test_any_removed_or_added_byte_is_noticed(name: str, draw: st.DataObject) -> None:
    data = seal(RECORDS[name])
    at = draw.draw(st.integers(0, len(data) - 1))
    added = draw.draw(st.sampled_from([b"", b" ", b"\n", b"0", b'"']))
    changed = data[:at] + added + data[at + 1 - len(added) :]
    with pytest.raises(SegdataError):
        unseal(changed, type(RECORDS[name]), "x.json")


@each_record
def test_the_same_value_in_another_layout_is_noticed(record: Any) -> None:
    compact = json.dumps(json.loads(seal(record))).encode()
    with pytest.raises(RecordError, match=r"^x\.json: its bytes do not match its seal.*Make the folder again"):
        unseal(compact, type(record), "x.json")


def test_an_edited_number_is_noticed() -> None:
    edited = seal(DATASET).replace(b'"samples": 2', b'"samples": 3')
    with pytest.raises(RecordError, match="do not match its seal"):
        unseal(edited, DatasetRecord, "x.json")


@pytest.mark.parametrize(("old", "new"), [(b'"ignore_index": 255', b'"ignore_index": 254'), (b'"head"', b'""')])
def test_an_edited_label_map_is_an_error_of_the_file(old: bytes, new: bytes) -> None:
    edited = seal(DATASET).replace(old, new)
    with pytest.raises(RecordError, match=r"^x\.json"):
        unseal(edited, DatasetRecord, "x.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "version 2, this segdata reads version 1. Update segdata"),
        ({"version": 0}, "version 0"),
        ({"format": "segdata manifest"}, "format 'segdata manifest', expected 'segdata prepared dataset'"),
        ({"format": None}, "Expected `str`, got `null`"),
        ({"new_field": 1}, "unknown field `new_field`"),
        ({"counts": []}, r"Expected `object`, got `array` - at `\$.counts`"),
        ({"samples": {"file": "samples.jsonl", "count": "2", "sha256": HASH}}, r"`\$.samples.count`"),
    ],
)
def test_another_version_or_form_is_refused_and_says_which(change: dict[str, Any], message: str) -> None:
    value = json.loads(seal(DATASET)) | change
    with pytest.raises(RecordError, match=rf"^x\.json: .*{message}"):
        unseal(json.dumps(value).encode(), DatasetRecord, "x.json")


def test_a_newer_version_is_told_before_its_new_fields() -> None:
    value = json.loads(seal(DATASET)) | {"version": 7, "new_field": 1}
    with pytest.raises(RecordError, match=r"version 7.*Update segdata"):
        unseal(json.dumps(value).encode(), DatasetRecord, "x.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"\xff", b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"format": "\xff"}', b"not json"],
    ids=["empty", "cut", "a list", "null", "no UTF-8", "a BOM", "deep", "no UTF-8 inside", "text"],
)
def test_what_is_no_json_object_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError, match=r"^x\.json: "):
        unseal(data, IndexRecord, "x.json")


# ---- folders


@each_reader
def test_a_folder_is_read_back(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    record = next(record for kind, record in RECORDS.items() if READERS[kind][0] == name)
    (tmp_path / name).write_bytes(seal(record))
    assert msgspec.structs.replace(read(tmp_path), seal="") == record
    assert kind_of(tmp_path) == name


@each_reader
def test_a_folder_without_its_json_is_unfinished(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    with pytest.raises(FolderError, match=f"has no {name}, so it is unfinished"):
        read(tmp_path)
    with pytest.raises(FolderError, match="no such folder"):
        read(tmp_path / "nowhere")


@each_reader
def test_a_damaged_json_is_named_with_its_folder(tmp_path: Path, name: str, read: Callable[[Path], Any]) -> None:
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(RecordError, match=name):
        read(tmp_path)


@pytest.mark.parametrize("name", [DATASET_JSON, MANIFEST_JSON, INDEX_JSON, RUN_JSON])
def test_the_json_says_what_a_folder_is(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / "samples.jsonl").touch()
    assert kind_of(tmp_path) == name


def test_a_folder_of_no_kind_or_of_two_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="no such folder"):
        kind_of(tmp_path / "nowhere")
    with pytest.raises(FolderError, match=r"holds no dataset\.json, manifest\.json, index\.json or run\.json"):
        kind_of(tmp_path)
    (tmp_path / DATASET_JSON).touch()
    (tmp_path / INDEX_JSON).touch()
    with pytest.raises(FolderError, match=r"holds dataset\.json and index\.json"):
        kind_of(tmp_path)


# ---- JSON lines

WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
LINES = st.builds(
    sample_line,
    WORDS,
    image=WORDS,
    mask=st.none() | WORDS,
    class_pixels=st.none() | st.dictionaries(WORDS, st.integers(0, 2**40), max_size=4),
    crop=st.none() | st.tuples(*[st.integers(-5, 9999)] * 4),
    license=st.none() | WORDS,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(LINES, max_size=5))
def test_sample_lines_come_back(tmp_path_factory: pytest.TempPathFactory, lines: list[SampleLine]) -> None:
    path = tmp_path_factory.getbasetemp() / "samples.jsonl"
    data = encode_lines(lines)
    path.write_bytes(data)
    assert data.count(b"\n") == len(lines)
    assert list(decode_lines(path, SampleLine)) == lines


def test_a_sample_line_holds_no_more_than_is_known() -> None:
    line = encode_lines([sample_line("a", mask="masks/a.png")])
    assert list(json.loads(line)) == [
        "id",
        "group",
        "image",
        "mask",
        "height",
        "width",
        "image_sha256",
        "image_bytes",
    ]


def test_rejected_lines_come_back(tmp_path: Path) -> None:
    lines = [RejectedLine(id="a\nb", reason="no-mask", detail='"quoted", with a comma')]
    (tmp_path / "rejected.jsonl").write_bytes(encode_lines(lines))
    assert list(decode_lines(tmp_path / "rejected.jsonl", RejectedLine)) == lines


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b"{", "truncated"),
        (b"", "truncated"),
        (b'{"id": "a"}', "missing required field `group`"),
        (b'{"id": 3}', r"Expected `str`, got `int` - at `\$.id`"),
        (b'{"id": "\xff"}', "UTF-8|utf-8"),
        (encode_lines([sample_line()]).strip()[:-1] + b', "colour": 1}', "unknown field `colour`"),
        (b"[" * 100_000, "recursion|Expected `object`"),
    ],
    ids=["cut", "blank", "field missing", "wrong type", "no UTF-8", "unknown field", "deep"],
)
def test_a_bad_line_is_named_by_file_and_number(tmp_path: Path, bad: bytes, message: str) -> None:
    path = tmp_path / "samples.jsonl"
    good = encode_lines([sample_line()])
    path.write_bytes(good + good + bad + b"\n" + good)
    lines = decode_lines(path, SampleLine)
    assert [next(lines).id, next(lines).id] == ["a", "a"]
    with pytest.raises(RecordError, match=rf"samples\.jsonl line 3: .*({message})"):
        next(lines)


def test_lines_that_are_missing_are_a_folder_error(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"samples\.jsonl: cannot be read"):
        list(decode_lines(tmp_path / "samples.jsonl", SampleLine))


# ---- paths


@pytest.mark.parametrize("path", ["a.png", "masks/a.png", "a..b/c", "...", "a b/ü.png", "a/b:c", "./a.png"])
def test_paths_that_stay_inside(path: str) -> None:
    assert is_inside(path)


@pytest.mark.parametrize("path", ["", "/etc/hostname", "..", "../a.png", "a/../../b", "a\\b", "C:/a.png", "c:a.png"])
def test_paths_that_leave_their_folder(path: str) -> None:
    assert not is_inside(path)


@pytest.mark.parametrize("path", [".", "./", "./."])
def test_a_folder_itself_is_no_file_inside_it(path: str) -> None:
    assert not is_inside(path)


def test_a_photo_lies_below_the_image_root_of_its_line_or_of_its_dataset(tmp_path: Path) -> None:
    assert image_file(sample_line("a"), tmp_path, "../raw") == tmp_path / "../raw/photos/a.jpg"
    assert image_file(sample_line("a", image_root="."), tmp_path, "../raw") == tmp_path / "photos/a.jpg"
