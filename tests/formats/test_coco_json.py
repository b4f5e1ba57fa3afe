"""COCO instances files: one fault spoils one piece, and no bytes at all end in anything but a file or one line."""

from __future__ import annotations

import gc
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segdata.errors import SourceError
from segdata.formats import coco_json
from segdata.formats.coco_json import Annotation, Category, Image, Instances, Problem
from tests.sources.layouts import annotation, instances

NAMES = ["a.jpg", "b.jpg"]


def read(folder: Path, content: Any) -> Instances:
    """What a file of that content, bytes or a value, is read as."""
    path = folder / "instances.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return coco_json.read_instances(path)


def told(found: Instances) -> list[tuple[str, str, Any, Any]]:
    return [(problem.kind, problem.where, problem.id, problem.image_id) for problem in found.problems]


def test_a_sound_file_is_read_with_its_segmentations_as_they_stand(tmp_path: Path) -> None:
    content = instances(
        NAMES, [annotation(7, 2, iscrowd=1)], info={"year": 2017}, licenses=[{"id": 3, "name": "CC BY", "url": ""}]
    )
    content["images"][1] |= {"license": 3, "video_id": "v", "coco_url": "http://"}
    found = read(tmp_path, content)
    assert found.images == [Image(1, "a.jpg", 24, 32), Image(2, "b.jpg", 24, 32, 3, "v")]
    assert found.categories == [Category(18, "dog"), Category(1, "person")]
    assert (found.licenses, found.problems) == ({3: "CC BY"}, [])
    (item,) = found.annotations
    assert (item.id, item.image_id, item.category_id, item.iscrowd) == (7, 2, 1, 1)
    assert json.loads(bytes(item.segmentation)) == annotation(7, 2)["segmentation"]


def test_a_file_with_a_fault_is_read_as_one_without_it_but_for_the_fault(tmp_path: Path) -> None:
    items = [annotation(number, 1) for number in range(5)]
    sound, faulty = read(tmp_path, instances(NAMES, items)), read(tmp_path, instances(NAMES, [*items, None]))
    assert (sound.images, sound.categories) == (faulty.images, faulty.categories)
    assert [bytes(item.segmentation) for item in sound.annotations] == [
        bytes(item.segmentation) for item in faulty.annotations
    ]
    assert told(faulty) == [("annotation", "annotations[5]", None, None)]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"id": "7"}, ("7", 1)),
        ({"id": 7.0}, (7, 1)),
        ({"id": 7.5}, (None, 1)),
        ({"id": None}, (None, 1)),
        ({"id": False}, (None, 1)),
        ({"id": [7]}, (None, 1)),
        ({"id": float("nan")}, (None, 1)),
        ({"image_id": "1"}, (7, "1")),
        ({"image_id": 1.0}, (7, 1)),
        ({"image_id": 1e300}, (7, int(1e300))),
        ({"image_id": {}}, (7, None)),
        ({"iscrowd": "0", "area": 10**3000}, (7, 1)),
    ],
)
def test_the_ids_of_a_faulty_annotation_are_told_where_they_can_be(
    tmp_path: Path, changes: dict[str, Any], wanted: tuple[Any, Any]
) -> None:
    assert told(read(tmp_path, instances(NAMES, [annotation(7, 1, **changes)]))) == [
        ("annotation", "annotations[0]", *wanted)
    ]


@pytest.mark.parametrize("number", [b"9" * 5000, b"-" + b"9" * 5000, b"1e999", b"1" + b"0" * 400 + b".0"])
def test_numbers_that_no_type_holds_spoil_their_annotation_only(tmp_path: Path, number: bytes) -> None:
    data = json.dumps(instances(NAMES, [annotation(7, 1), annotation(-1, 2)])).encode()
    found = read(tmp_path, data.replace(b'"id": -1', b'"id": ' + number))
    assert told(found) == [("annotation", "annotations[1]", None, 2)]
    assert [item.id for item in found.annotations] == [7]


def test_bytes_that_are_not_utf_8_spoil_their_image_only(tmp_path: Path) -> None:
    data = json.dumps(instances(NAMES, [annotation(7, 1)])).encode()
    found = read(tmp_path, data.replace(b"a.jpg", b"\xff.jpg"))
    assert told(found) == [("image", "images[0]", 1, None)]
    assert (len(found.images), len(found.annotations)) == (1, 1)


def test_what_python_writes_for_no_number_stays_in_texts_and_is_null_elsewhere(tmp_path: Path) -> None:
    content = instances(['NaN "Infinity" \\.jpg', "-Infinity"], [annotation(7, 1, segmentation=[[float("-inf")]])])
    found = read(tmp_path, content)
    assert [image.file_name for image in found.images] == ['NaN "Infinity" \\.jpg', "-Infinity"]
    assert bytes(found.annotations[0].segmentation) == b"[[null]]"


def test_a_text_of_quotes_without_an_end_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected COCO instances JSON"):
        read(tmp_path, b'{"info": NaN, "images": "' + rb"\"" * 2_000_000)


@pytest.mark.parametrize("was", [True, False])
@pytest.mark.parametrize("content", [b"[]", b"", json.dumps(instances(NAMES, [])).encode()])
def test_the_collector_is_left_as_it_was(tmp_path: Path, was: bool, content: bytes) -> None:
    (gc.enable if was else gc.disable)()
    try:
        if content.startswith(b"{"):
            read(tmp_path, content)
        else:
            with pytest.raises(SourceError):
                read(tmp_path, content)
        assert gc.isenabled() == was
    finally:
        gc.enable()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=10,
)
parts = st.lists(json_values | st.fixed_dictionaries({"id": json_values, "image_id": json_values}), max_size=4)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts, parts)
def test_every_piece_is_read_or_told(tmp_path: Path, images: list[Any], annotations: list[Any]) -> None:
    try:
        found = read(tmp_path, instances([], annotations, images=images))
    except SourceError:  # half a surrogate pair
        with pytest.raises(SourceError, match=r"instances\.json: [^\n]*$"):
            read(tmp_path, instances([], annotations, images=images))
        return
    assert len(found.images) + len(found.annotations) + len(found.problems) == len(images) + len(annotations)
    for problem in found.problems:
        assert isinstance(problem, Problem)
        assert "\n" not in problem.what


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 600), st.integers(0, 8), st.binary(max_size=4) | st.sampled_from([b"NaN", b'"', b"\\", b"[[["]))
@example(0, 600, b"")
def test_any_damage_gives_a_file_or_one_line(tmp_path: Path, at: int, cut: int, put: bytes) -> None:
    data = json.dumps(instances(NAMES, [annotation(7, 1), annotation(8, 2, iscrowd=1)])).encode()
    damaged = data[:at] + put + data[at + cut :]
    try:
        found = read(tmp_path, damaged)
    except SourceError:
        with pytest.raises(SourceError, match=r"instances\.json: [^\n]*$"):
            read(tmp_path, damaged)
        return
    assert all(isinstance(image.file_name, str) for image in found.images)
    assert all(isinstance(item, Annotation) for item in found.annotations)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_what_is_written_is_read_back(tmp_path: Path, count: int) -> None:
    pictures = [coco_json.WrittenImage(i, f'ä "{i}".jpg', 24, 32, 1, f"v{i}") for i in range(1, count + 1)]
    runs = coco_json.CompressedRle([24, 32], "PP`0")
    objects = [coco_json.WrittenAnnotation(i, i, 1, 0, 9, (1, 2, 3, 3), runs) for i in range(1, count + 1)]
    file = io.BytesIO()
    coco_json.write_instances(file, 'two\n"people"', ["CC BY"], [Category(1, "person")], pictures, objects)
    found = read(tmp_path, file.getvalue())
    assert found.images == [Image(p.id, p.file_name, 24, 32, 1, p.video_id) for p in pictures]
    assert found.categories == [Category(1, "person")]
    assert (found.licenses, found.problems) == ({1: "CC BY"}, [])
    assert [msgspec.json.decode(item.segmentation) for item in found.annotations] == [
        {"size": [24, 32], "counts": "PP`0"}
    ] * count
    assert coco_json.is_ours(tmp_path / "instances.json")


def test_a_foreign_file_is_not_ours(tmp_path: Path) -> None:
    read(tmp_path, instances(NAMES, []))
    assert not coco_json.is_ours(tmp_path / "instances.json")
