"""COCO: what each thing in an instances file becomes, and that nothing in it can spoil more than its own image."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
import json
import os
import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as pycoco
from pycocotools.coco import COCO

from segdata.errors import FolderError, ImageRefused, JobFailed, LabelMapError, OptionError, SegdataError, SourceError
from segdata.formats import images
from segdata.jobs.convert import ConvertOptions, convert, plan
from segdata.labels import category_map
from segdata.sources.coco import Coco
from tests.folders import lines, tree
from tests.material import Pixels, exif, photo, saved
from tests.sources.layouts import HEIGHT, WIDTH, annotation, instances, jpeg, write

ALL = ConvertOptions("coco", jobs=1, max_rejected=1.0)
NAMES = ["a.jpg", "b.jpg"]


def coco(root: Path, content: Any, names: Iterable[str] = NAMES, labels: str | None = None, **options: Any) -> Coco:
    """A source over photos of those names and a file of that content, bytes or a value."""
    for number, name in enumerate(names):
        write(root / "images" / name, jpeg(number))
    (root / "images").mkdir(parents=True, exist_ok=True)
    write(root / "instances.json", content if isinstance(content, bytes) else json.dumps(content).encode())
    found = category_map(labels, options.get("categories", ("person",)))
    return Coco(root / "instances.json", root / "images", found, **options)


@dataclasses.dataclass(frozen=True)
class Converted:
    """What ``convert`` made: sample lines and masks by id, rejected lines as (id, reason, detail)."""

    lines: dict[str, dict[str, Any]]
    masks: dict[str, Pixels]
    rejected: list[tuple[str, str, str]]

    @property
    def reasons(self) -> list[tuple[str, str]]:
        return [(name, reason) for name, reason, _ in self.rejected]


def converted(source: Coco, options: ConvertOptions = ALL) -> Converted:
    out = source.images.parent.parent / "out"
    convert(source, out, options)
    found = {line["id"]: line for line in lines(out / "samples.jsonl")}
    masks = {name: images.decode_mask((out / line["mask"]).read_bytes()) for name, line in found.items()}
    rejected = [(line["id"], line["reason"], line["detail"]) for line in lines(out / "rejected.jsonl")]
    return Converted(found, masks, rejected)


def annotated(source: Coco, name: str = "a") -> Pixels:
    """The raw ids of one image."""
    entry = next(entry for entry in source.find().entries if entry.id == name)
    values = source.annotate(entry).values
    assert values.dtype == np.uint8
    return values


def union(content: dict[str, Any], number: int, category: int = 1) -> Pixels:
    """(H, W) pycocotools' ``annToMask`` of all annotations of a category in an image."""
    reference = COCO()
    reference.dataset = content
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        reference.createIndex()
        found = reference.loadAnns(reference.getAnnIds(imgIds=[number], catIds=[category]))
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        for item in found:
            mask |= reference.annToMask(item)
    return mask


def box(x: int, y: int, w: int, h: int) -> Pixels:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask


def run_lengths(mask: Pixels) -> dict[str, Any]:
    """A mask as plain run lengths."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    return {"size": list(mask.shape), "counts": np.diff(np.concatenate([[0], edges])).tolist()}


def compressed(mask: Pixels) -> dict[str, Any]:
    """A mask as pycocotools stores it."""
    return {"size": list(mask.shape), "counts": pycoco.encode(np.asfortranarray(mask))["counts"].decode()}


def object_at(number: int, x: int, y: int, w: int, h: int, category: int = 1, **changes: Any) -> dict[str, Any]:
    """An annotation of image 1: a box as run lengths."""
    return annotation(number, 1, category, segmentation=run_lengths(box(x, y, w, h)), **changes)


# ---- equal to pycocotools

SEGMENTATIONS = {
    "a polygon": [[2.5, 4.1, 20.2, 3.9, 17, 20]],
    "two polygons": [[2, 4, 10, 4, 10, 14, 2, 14], [12.5, 4, 30, 4.5, 30, 23.5]],
    "run lengths": run_lengths(box(3, 5, 9, 11)),
    "compressed run lengths": compressed(box(7, 2, 12, 19) | box(20, 8, 4, 4)),
}


@pytest.mark.parametrize("iscrowd", [0, 1])
@pytest.mark.parametrize("segmentation", SEGMENTATIONS.values(), ids=SEGMENTATIONS)
def test_one_annotation_is_its_mask_of_pycocotools(tmp_path: Path, segmentation: Any, iscrowd: int) -> None:
    content = instances(NAMES, [annotation(1, 1, segmentation=segmentation, iscrowd=iscrowd)])
    mask = annotated(coco(tmp_path, content, crowd="include"))
    np.testing.assert_array_equal(mask, union(content, 1))
    assert mask.any()


@pytest.mark.parametrize("crowd", ["ignore", "include", "exclude"])
def test_annotations_of_every_kind_are_their_union(tmp_path: Path, crowd: str) -> None:
    objects = [annotation(i, 1, segmentation=value) for i, value in enumerate(SEGMENTATIONS.values(), 1)]
    crowded = annotation(9, 1, segmentation=run_lengths(box(0, 0, 32, 12)), iscrowd=1)
    single = union(instances(NAMES, objects), 1)
    content = instances(NAMES, [*objects, crowded])
    wanted = {"ignore": np.where(single == 1, 1, box(0, 0, 32, 12) * 255), "exclude": single}
    mask = annotated(coco(tmp_path, content, crowd=crowd))
    np.testing.assert_array_equal(mask, wanted.get(crowd, union(content, 1)))


coordinates = st.floats(-10, 50, width=32) | st.integers(-2, 34)
polygons = st.lists(
    st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=7).map(lambda p: [v for xy in p for v in xy]),
    min_size=1,
    max_size=3,
)
boxes = st.builds(box, st.integers(0, 31), st.integers(0, 23), st.integers(0, 32), st.integers(0, 24))
segmentations = polygons | boxes.map(run_lengths) | boxes.map(compressed)
objects = st.lists(st.tuples(segmentations, st.sampled_from([1, 18]), st.booleans()), max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects)
def test_generated_annotations_are_the_union_of_pycocotools(tmp_path: Path, drawn: list[Any]) -> None:
    content = instances(
        NAMES,
        [
            annotation(i, 1, kind, segmentation=value, iscrowd=int(crowd))
            for i, (value, kind, crowd) in enumerate(drawn)
        ],
    )
    np.testing.assert_array_equal(annotated(coco(tmp_path, content, crowd="include")), union(content, 1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(objects, st.randoms(use_true_random=False))
def test_of_several_categories_the_smallest_object_lies_on_top_in_any_order(
    tmp_path: Path, drawn: list[Any], random: Any
) -> None:
    items = [annotation(i, 1, kind, segmentation=value, iscrowd=int(c)) for i, (value, kind, c) in enumerate(drawn)]
    masks = {item["id"]: union(instances(NAMES, [item]), 1, item["category_id"]) for item in items}
    wanted = np.zeros((HEIGHT, WIDTH), np.uint8)
    clean = [item for item in items if not item["iscrowd"]]
    for item in sorted(clean, key=lambda item: (-int(masks[item["id"]].sum()), -item["id"])):
        wanted[masks[item["id"]] == 1] = {18: 1, 1: 2}[item["category_id"]]
    for item in items:
        if item["iscrowd"]:
            wanted[(masks[item["id"]] == 1) & (wanted == 0)] = 255
    random.shuffle(items)
    source = coco(tmp_path, instances(NAMES, items), categories=("dog", "person"))
    np.testing.assert_array_equal(annotated(source), wanted)


# ---- files that are none

NO_FILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "blanks": (b"  \n", "expected COCO instances JSON"),
    "truncated": (json.dumps(instances(NAMES, [annotation(1, 1)])).encode()[:-40], "truncated"),
    "a list": (b"[]", r"a list, as of results, expected COCO instances JSON"),
    "a list of results": (json.dumps([annotation(1, 1)]).encode(), r"a list, as of results"),
    "a text": (b'"images"', "expected COCO instances JSON"),
    "null": (b"null", "expected COCO instances JSON"),
    "a page of HTML": (b"<html>\n<body>", "expected COCO instances JSON"),
    "a picture": (jpeg(0), "expected COCO instances JSON"),
    "UTF-16": (json.dumps(instances(NAMES, [])).encode("utf-16"), "expected COCO instances JSON"),
    "deeply nested": (b"[" * 200_000, r"a list|recursion"),
    "deeply nested in a field": (b'{"images": ' + b"[" * 200_000, "recursion"),
    "behind its end another": (b'{"images": [], "annotations": [], "categories": []}{}', "expected COCO instances"),
    "without images": (b'{"annotations": [], "categories": []}', "images"),
    "without annotations": (b'{"images": [], "categories": []}', "annotations"),
    "without categories": (b'{"images": [], "annotations": []}', "categories"),
    "images null": (b'{"images": null, "annotations": [], "categories": []}', "images"),
    "annotations an object": (b'{"images": [], "annotations": {}, "categories": []}', "annotations"),
    "a category without a name": (json.dumps(instances([], [], categories=[{"id": 1}])).encode(), "name"),
    "a category of number NaN": (b'{"images": [], "annotations": [], "categories": [{"id": NaN, "name": "a"}]}', "id"),
    "a category of a text as id": (
        json.dumps(instances([], [], categories=[{"id": "1", "name": "person"}])).encode(),
        r"\$.categories\[0\].id",
    ),
    "the person twice": (
        json.dumps(instances([], [], categories=[{"id": 1, "name": "person"}, {"id": 2, "name": "person"}])).encode(),
        "2 categories named 'person', expected one",
    ),
    "two categories of one id": (
        json.dumps(instances([], [], categories=[{"id": 1, "name": "person"}, {"id": 1, "name": "dog"}])).encode(),
        "two categories have one id",
    ),
    "no categories at all": (json.dumps(instances([], [], categories=[])).encode(), "no category named 'person'"),
}


@pytest.mark.parametrize(("data", "match"), NO_FILE.values(), ids=NO_FILE)
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, data: bytes, match: str) -> None:
    source = coco(tmp_path / "raw", data)
    with pytest.raises(SourceError, match=match) as error:
        convert(source, tmp_path / "out", ALL)
    assert str(error.value).startswith(f"{source.annotations}: ")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["nothing", "a folder", "a pipe", "a dangling link", "a link loop"])
def test_a_file_that_is_none_is_named_in_one_line(tmp_path: Path, kind: str) -> None:
    source = coco(tmp_path, b"")
    source.annotations.unlink()
    if kind == "a folder":
        source.annotations.mkdir()
    elif kind == "a pipe":
        os.mkfifo(source.annotations)
    elif kind != "nothing":
        source.annotations.symlink_to("nowhere" if kind == "a dangling link" else source.annotations)
    with pytest.raises(SourceError, match=f"^{source.annotations}: ") as error:
        source.find()
    assert len(str(error.value).splitlines()) == 1


def test_a_folder_of_images_that_is_missing_is_named(tmp_path: Path) -> None:
    source = dataclasses.replace(coco(tmp_path, instances([], [])), images=tmp_path / "photos")
    with pytest.raises(SourceError, match=r"photos: no such folder, expected the images of .*instances\.json\.$"):
        source.find()


@pytest.mark.parametrize(("asked", "hint"), [("Person", "person"), ("persom", "person"), ("dogs", "dog")])
def test_an_absent_category_never_means_all_of_them(tmp_path: Path, asked: str, hint: str) -> None:
    source = coco(tmp_path, instances(NAMES, [annotation(1, 1, 18)]), categories=(asked,))
    with pytest.raises(
        SourceError, match=rf"no category named '{asked}', expected one\. Did you mean '{hint}'\? Known"
    ):
        source.find()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"crowd": "drop"}, "^--crowd 'drop': expected one of exclude, ignore, include"),
        ({"min_area": -1}, "^--min-area -1"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    source = coco(tmp_path, b"")
    with pytest.raises(OptionError, match=match):
        dataclasses.replace(source, **options)


def test_an_empty_file_holds_no_samples(tmp_path: Path) -> None:
    source = coco(tmp_path / "raw", instances([], []))
    with pytest.raises(SourceError, match=r"instances\.json: lists no images"):
        convert(source, tmp_path / "out", ALL)


# ---- annotations that are not sound reject their image and no other

GOOD = annotation(6, 2)


def without(key: str, **changes: Any) -> dict[str, Any]:
    return {name: value for name, value in annotation(5, 1, **changes).items() if name != key}


BAD_ANNOTATIONS: dict[str, tuple[Any, str]] = {
    "no segmentation": (without("segmentation"), "segmentation missing"),
    "segmentation null": (annotation(5, 1, segmentation=None), "segmentation null"),
    "segmentation empty": (annotation(5, 1, segmentation=[]), "is empty"),
    "NaN": (annotation(5, 1, segmentation=[[float("nan"), 1, 2, 3, 4, 5]]), "segmentation does not read"),
    "Infinity": (annotation(5, 1, segmentation=[[1, -float("inf"), 2, 3, 4, 5]]), "segmentation does not read"),
    "short run lengths": (annotation(5, 1, segmentation={"size": [24, 32], "counts": [9]}), "run lengths of 9 pixels"),
    "sides exchanged": (annotation(5, 1, segmentation={"size": [32, 24], "counts": [768]}), "the image has"),
    "of a crowd": (annotation(5, 1, segmentation=[[1, 2, 3]], iscrowd=1), "a polygon of 3 numbers"),
    "no category": (without("category_id"), "category_id"),
    "an unlisted category": (annotation(5, 1, 77), "category 77, which categories does not list"),
    "a category as a text": (annotation(5, 1, category_id="1"), "category_id"),
    "a category null": (annotation(5, 1, category_id=None), "category_id"),
    "iscrowd 2": (annotation(5, 1, iscrowd=2), "iscrowd 2, expected 0 or 1"),
    "iscrowd a text": (annotation(5, 1, iscrowd="0"), "iscrowd"),
    "iscrowd null": (annotation(5, 1, iscrowd=None), "iscrowd"),
    "image as a text": (annotation(5, 1, image_id="1"), "image_id"),
    "image as a text with zeros": (annotation(5, 1, image_id="000000000001"), "image_id"),
    "image as a fraction": (annotation(5, 1, image_id=1.0), "image_id"),
    "image as a text and area of 5000 digits": (annotation(5, 1, image_id="1", area=0), "image_id"),
}


@pytest.mark.parametrize(("bad", "match"), BAD_ANNOTATIONS.values(), ids=BAD_ANNOTATIONS)
def test_an_unsound_annotation_rejects_its_image_only(tmp_path: Path, bad: dict[str, Any], match: str) -> None:
    data = json.dumps(instances(NAMES, [annotation(4, 1), bad, GOOD])).encode()
    data = data.replace(b'"area": 0', b'"area": ' + b"7" * 5000)
    made = converted(coco(tmp_path / "raw", data))
    assert made.reasons == [("a", "bad-annotation")]
    detail = made.rejected[0][2]
    assert match in detail
    assert "annotation 5" in detail or "(id 5)" in detail
    assert "image 1" in detail
    np.testing.assert_array_equal(made.masks["b"], union(instances(NAMES, [GOOD]), 2))


@pytest.mark.parametrize(
    ("changes", "shown"),
    [({"id": None}, "id None"), ({"id": "5"}, "id '5'"), ({"id": 1.5}, "id None"), ({"id": True}, "id None")],
    ids=["null", "a text", "a fraction", "true"],
)
def test_an_annotation_of_no_id_rejects_its_image_by_its_place(tmp_path: Path, changes: Any, shown: str) -> None:
    made = converted(coco(tmp_path / "raw", instances(NAMES, [annotation(4, 1), annotation(5, 1, **changes), GOOD])))
    assert made.reasons == [("a", "bad-annotation")]
    assert f"annotations[1] ({shown})" in made.rejected[0][2]


NOWHERE: dict[str, Any] = {
    "null": None,
    "a number": 7,
    "a list": [1, 2],
    "an empty object": {},
    "no image": without("image_id"),
    "image null": annotation(5, 1, image_id=None),
    "image of another text": annotation(5, 1, image_id="a.jpg"),
    "image half": annotation(5, 1, image_id=1.5),
    "image true": annotation(5, 1, image_id=True),
    "image NaN": annotation(5, 1, image_id=float("nan")),
}


@pytest.mark.parametrize("bad", NOWHERE.values(), ids=NOWHERE)
def test_an_annotation_of_no_image_is_told_for_itself(tmp_path: Path, bad: Any) -> None:
    made = converted(coco(tmp_path / "raw", instances(NAMES, [annotation(4, 1), bad, GOOD])))
    assert sorted(made.masks) == ["a", "b"]
    name, reason, detail = made.rejected[0]
    assert (len(made.rejected), reason) == (1, "bad-annotation")
    assert name in ("annotation 5", "annotation annotations[1]")
    assert detail.startswith("annotations[1] (id ")


def test_annotations_of_an_unlisted_image_are_told_once(tmp_path: Path) -> None:
    content = instances(NAMES, [annotation(1, 9), annotation(2, 9), annotation(3, 9, 18), annotation(4, 8, 77), GOOD])
    made = converted(coco(tmp_path / "raw", content))
    assert made.rejected == [
        ("image 8", "unlisted-image", "annotation 4: category 77, which categories does not list"),
        ("image 9", "unlisted-image", "annotations of it: 2, but images does not list it"),
    ]
    assert sorted(made.masks) == ["a", "b"]


def test_two_annotations_of_one_id_reject_their_images(tmp_path: Path) -> None:
    content = instances([*NAMES, "c.jpg"], [annotation(5, 1), annotation(5, 3), GOOD])
    made = converted(coco(tmp_path / "raw", content, [*NAMES, "c.jpg"]))
    assert made.reasons == [("a", "bad-annotation"), ("c", "bad-annotation")]
    assert "annotation 5: another annotation has its id" in made.rejected[0][2]


@pytest.mark.parametrize(
    "changes",
    [{"bbox": [1, 2], "area": None, "extra": {"a": [1]}}, {"iscrowd": True}, {"iscrowd": False}, {"area": "big"}],
)
def test_fields_that_no_pixel_depends_on_may_be_anything(tmp_path: Path, changes: dict[str, Any]) -> None:
    content = instances(NAMES, [annotation(5, 1, **changes)], info="x", licenses=None)
    made = converted(coco(tmp_path / "raw", content, crowd="include"))
    np.testing.assert_array_equal(made.masks["a"], union(instances(NAMES, [annotation(5, 1)]), 1))
    assert not made.rejected


@pytest.mark.parametrize("key", ["iscrowd", "area"])
def test_a_file_without_iscrowd_or_area_is_read(tmp_path: Path, key: str) -> None:
    made = converted(coco(tmp_path / "raw", instances(NAMES, [without(key)])))
    assert not made.rejected
    assert made.masks["a"].any()


@pytest.mark.parametrize("supercategory", ["", None, "animal", 3])
def test_a_supercategory_may_be_anything(tmp_path: Path, supercategory: Any) -> None:
    categories = [{"id": 1, "name": "person", "supercategory": supercategory}]
    assert len(coco(tmp_path, instances(NAMES, [], categories=categories)).find().entries) == 2


def test_unsound_annotations_of_categories_that_are_not_asked_for_do_no_harm(tmp_path: Path) -> None:
    bad = annotation(5, 1, 18, segmentation=[[float("nan"), 1]], iscrowd=2)
    made = converted(coco(tmp_path / "raw", instances(NAMES, [annotation(4, 1), bad])))
    assert not made.rejected


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    data = json.dumps(instances(NAMES, [annotation(4, 1)])).encode()
    assert coco(tmp_path, b"\xef\xbb\xbf" + data).find() == coco(tmp_path, data).find()


def test_one_nan_leaves_texts_and_all_other_annotations_as_they_were(tmp_path: Path) -> None:
    content = instances(["NaN -Infinity.jpg", "b.jpg"], [annotation(4, 1), annotation(5, 1, area=float("nan")), GOOD])
    content["info"] = 'a "NaN" \\'
    made = converted(coco(tmp_path / "raw", content, ["NaN -Infinity.jpg", "b.jpg"]))
    assert not made.rejected
    assert sorted(made.lines) == ["NaN -Infinity", "b"]
    np.testing.assert_array_equal(made.masks["b"], union(instances(NAMES, [GOOD]), 2))


# ---- images that are not sound


def with_image(root: Path, changes: dict[str, Any], gone: str = "", **options: Any) -> Coco:
    """Image 1, a.jpg, changed; image 2, b.jpg, with an annotation, as it should be."""
    content = instances(NAMES, [annotation(4, 1), GOOD])
    content["images"][0] |= changes
    content["images"][0].pop(gone, None)
    return coco(root, content, **options)


BAD_IMAGES: dict[str, tuple[dict[str, Any], str, str]] = {
    "height 0": ({"height": 0}, "bad-image", "height 0 and width 32, expected at least 1"),
    "width negative": ({"width": -32}, "bad-image", "width -32"),
    "huge": ({"height": 100000, "width": 100000}, "too-large", "image 1 ('a.jpg')"),
    "huge by its numbers": ({"height": 10**30, "width": 10**30}, "too-large", "image 1 ('a.jpg')"),
    "another size": ({"height": 32, "width": 32}, "size-mismatch", "a.jpg"),
    "sides exchanged": ({"height": 32, "width": 24}, "size-mismatch", "a.jpg"),
    "a file that is not there": ({"file_name": "c.jpg"}, "no-photo", "image 1 ('c.jpg'): no such file"),
    "a name of 300 letters": ({"file_name": "c" * 300}, "no-photo", "no such file"),
    "a name with a zero byte": ({"file_name": "a\0.jpg"}, "no-photo", "no such file"),
    "a name below a file": ({"file_name": "b.jpg/a.jpg"}, "no-photo", "no such file"),
    "two folders up": ({"file_name": "../../x"}, "bad-path", "expected a path below the folder of images"),
    "up and down": ({"file_name": "x/../../images/a.jpg"}, "bad-path", "expected a path below"),
    "/etc/hostname": ({"file_name": "/etc/hostname"}, "bad-path", "expected a path below"),
    "backslashes": ({"file_name": "..\\x.jpg"}, "bad-path", "expected a path below"),
    "a drive": ({"file_name": "C:/a.jpg"}, "bad-path", "expected a path below"),
    "no name": ({"file_name": ""}, "bad-path", "expected a path below"),
    "a dot": ({"file_name": "."}, "bad-path", "expected a path below"),
    "the root": ({"file_name": "/"}, "bad-path", "expected a path below"),
}


@pytest.mark.parametrize(("changes", "reason", "match"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_an_unsound_image_is_rejected_alone(tmp_path: Path, changes: Any, reason: str, match: str) -> None:
    made = converted(with_image(tmp_path / "raw", changes))
    assert [found for _, found, _ in made.rejected] == [reason]
    assert match in made.rejected[0][2]
    assert list(made.masks) == ["b"]
    np.testing.assert_array_equal(made.masks["b"], union(instances(NAMES, [GOOD]), 2))


@pytest.mark.parametrize(
    ("changes", "gone", "match"),
    [
        ({}, "file_name", "file_name"),
        ({}, "height", "height"),
        ({"file_name": 7}, "", "file_name"),
        ({"file_name": None}, "", "file_name"),
        ({"height": "24"}, "", "height"),
        ({"height": float("nan")}, "", "height"),
        ({"width": 32.5}, "", "width"),
        ({"width": None}, "", "width"),
        ({"video_id": [1]}, "", "video_id"),
    ],
)
def test_an_image_of_wrong_types_is_told_once_with_its_id(tmp_path: Path, changes: Any, gone: str, match: str) -> None:
    made = converted(with_image(tmp_path / "raw", changes, gone))
    assert made.reasons == [("image 1", "bad-image")]
    assert "images[0] (id 1)" in made.rejected[0][2]
    assert match in made.rejected[0][2]
    assert list(made.masks) == ["b"]


@pytest.mark.parametrize("number", ["1", None, 1.5, True, [1]], ids=["a text", "null", "half", "true", "a list"])
def test_an_image_of_no_number_is_never_converted(tmp_path: Path, number: Any) -> None:
    made = converted(with_image(tmp_path / "raw", {"id": number}))
    assert list(made.masks) == ["b"]
    faulty = [reason for reason in made.reasons if reason != ("image 1", "unlisted-image")]
    assert faulty in ([("image 1", "bad-image")], [("image images[0]", "bad-image")])


def test_bytes_that_are_not_utf_8_in_a_file_name_reject_its_image(tmp_path: Path) -> None:
    data = json.dumps(instances(NAMES, [GOOD])).encode().replace(b'"a.jpg"', b'"\xff.jpg"')
    made = converted(coco(tmp_path / "raw", data))
    assert made.reasons == [("image 1", "bad-image")]


@pytest.mark.parametrize(
    "second",
    [{}, {"height": "24"}, {"file_name": None}, {"id": "1"}, {"id": 1.0}],
    ids=["sound", "no height", "no file name", "as a text", "as a fraction"],
)
def test_two_images_of_one_id_are_both_rejected(tmp_path: Path, second: dict[str, Any]) -> None:
    content = instances([*NAMES, "c.jpg"], [annotation(4, 1), GOOD])
    content["images"][2] |= {"id": 1} | second
    made = converted(coco(tmp_path / "raw", content, [*NAMES, "c.jpg"]))
    assert {reason for _, reason in made.reasons} == {"bad-image"}
    assert len(made.rejected) == 2
    assert list(made.masks) == ["b"]


@pytest.mark.parametrize("other", ["a.jpg", "./a.jpg", "A.jpg", "a.png"])
def test_two_images_of_one_file_name_are_ambiguous(tmp_path: Path, other: str) -> None:
    names = ["a.jpg", "b.jpg", other]
    made = converted(coco(tmp_path / "raw", instances(names, [annotation(4, 1), GOOD]), names))
    assert [reason for _, reason in made.reasons] == ["ambiguous", "ambiguous"]
    assert list(made.masks) == ["b"]


@pytest.mark.parametrize("pair", list(itertools.combinations(["", "/", ".", "..", "//", "./", "a/..", "x/", "."], 2)))
def test_two_names_of_nothing_reject_themselves_only(tmp_path: Path, pair: tuple[str, str]) -> None:
    found = coco(tmp_path, instances([*pair, "b.jpg"], []), ["b.jpg"]).find()
    assert [entry.id for entry in found.entries] == ["b"]
    assert len(found.rejected) == 2


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "a dangling link", "a link loop", "empty", "text"])
def test_a_photo_that_is_none_is_rejected_alone(tmp_path: Path, kind: str) -> None:
    source = coco(tmp_path / "raw", instances(NAMES, [annotation(4, 1), GOOD]))
    path = source.images / "a.jpg"
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind in ("empty", "text"):
        path.write_bytes(b"" if kind == "empty" else b"<html>")
    else:
        path.symlink_to("nowhere" if kind == "a dangling link" else path)
    made = converted(source)
    assert made.reasons == [("a", "unreadable")]
    assert list(made.masks) == ["b"]


@pytest.mark.parametrize("name", ["link/a.jpg", "real/link/a.jpg"])
def test_links_to_folders_are_not_followed(tmp_path: Path, name: str) -> None:
    source = with_image(tmp_path / "raw", {"file_name": name})
    (source.images / name).parent.parent.mkdir(exist_ok=True)
    write(tmp_path / "elsewhere" / "a.jpg", jpeg(0))
    (source.images / name).parent.symlink_to(tmp_path / "elsewhere")
    made = converted(source)
    assert made.reasons == [("a", "bad-path")]
    assert "is a link to a folder, expected a folder" in made.rejected[0][2]


def test_a_photo_may_be_a_link_to_a_file(tmp_path: Path) -> None:
    source = coco(tmp_path / "raw", instances(NAMES, [GOOD]))
    (source.images / "a.jpg").rename(tmp_path / "a.jpg")
    (source.images / "a.jpg").symlink_to(tmp_path / "a.jpg")
    assert sorted(converted(source).masks) == ["a", "b"]


def turned(root: Path, height: int, width: int, orientation: int) -> Coco:
    """a.jpg is stored 24x32 with an EXIF turn; the file says ``height`` and ``width`` of it."""
    source = with_image(root, {"height": height, "width": width})
    write(source.images / "a.jpg", saved(photo(24, 32), "JPEG", exif=exif(orientation)))
    return source


def test_annotations_of_the_upright_photo_are_taken(tmp_path: Path) -> None:
    made = converted(turned(tmp_path / "raw", 32, 24, 6))
    assert not made.rejected
    assert (made.lines["a"]["height"], made.lines["a"]["width"]) == (32, 24)
    assert made.masks["a"].shape == (32, 24)


def test_annotations_of_the_stored_photo_alone_are_refused(tmp_path: Path) -> None:
    made = converted(turned(tmp_path / "raw", 24, 32, 6))
    assert [name for name, _ in made.reasons] == ["a"]
    assert "EXIF" in made.rejected[0][2]


# ---- what annotations mean

CROWD_COVERS_ALL = object_at(9, 0, 0, WIDTH, HEIGHT, iscrowd=1)


@pytest.mark.parametrize(("crowd", "around"), [("ignore", 255), ("include", 1), ("exclude", 0)])
def test_a_crowd_is_ignored_included_or_left_out(tmp_path: Path, crowd: str, around: int) -> None:
    content = instances(NAMES, [CROWD_COVERS_ALL, object_at(2, 4, 4, 6, 6)])
    made = converted(coco(tmp_path / "raw", content, crowd=crowd))
    np.testing.assert_array_equal(made.masks["a"], np.where(box(4, 4, 6, 6), 1, around))


@pytest.mark.parametrize("crowd", ["ignore", "include", "exclude"])
@pytest.mark.parametrize("crowd_category", [1, 18])
def test_a_crowd_never_covers_an_object_of_any_category(tmp_path: Path, crowd: str, crowd_category: int) -> None:
    small_crowd = object_at(1, 5, 5, 2, 2, crowd_category, iscrowd=1)  # smaller, and of a smaller id
    content = instances(NAMES, [object_at(2, 4, 4, 6, 6), small_crowd, object_at(3, 20, 4, 6, 6, 18)])
    mask = annotated(coco(tmp_path, content, crowd=crowd, categories=("person", "dog")))
    np.testing.assert_array_equal(mask, box(4, 4, 6, 6) + 2 * box(20, 4, 6, 6))


def test_each_category_is_a_class_in_the_order_of_the_options(tmp_path: Path) -> None:
    content = instances(NAMES, [object_at(1, 0, 0, 4, 4), object_at(2, 8, 0, 4, 4, 18)])
    source = coco(tmp_path / "raw", content, categories=("dog", "person"))
    assert source.label_map.names == ("background", "dog", "person")
    np.testing.assert_array_equal(converted(source).masks["a"], 2 * box(0, 0, 4, 4) + box(8, 0, 4, 4))


def test_categories_that_are_not_asked_for_are_background(tmp_path: Path) -> None:
    mask = annotated(coco(tmp_path, instances(NAMES, [object_at(1, 0, 0, 4, 4, 18), object_at(2, 0, 0, 2, 2)])))
    np.testing.assert_array_equal(mask, box(0, 0, 2, 2))


def test_binary_labels_merge_categories(tmp_path: Path) -> None:
    content = instances(NAMES, [object_at(1, 0, 0, 4, 4), object_at(2, 2, 0, 6, 4, 18), CROWD_COVERS_ALL])
    source = coco(tmp_path / "raw", content, labels="binary", categories=("person", "dog"))
    assert source.label_map.names == ("background", "person")
    np.testing.assert_array_equal(converted(source).masks["a"], np.where(box(0, 0, 8, 4), 1, 255))


def test_a_label_map_names_categories(tmp_path: Path) -> None:
    toml = tmp_path / "pets.toml"
    toml.write_text(
        '[[classes]]\nname = "rest"\nfrom = ["background", "person"]\n[[classes]]\nname = "pet"\nfrom = ["dog"]\n',
        encoding="utf-8",
    )
    content = instances(NAMES, [object_at(1, 0, 0, 4, 4), object_at(2, 8, 0, 4, 4, 18), CROWD_COVERS_ALL])
    source = coco(tmp_path / "raw", content, labels=str(toml), categories=("person", "dog"))
    made = converted(source)
    wanted = np.where(box(8, 0, 4, 4), 1, np.where(box(0, 0, 4, 4), 0, 255))
    np.testing.assert_array_equal(made.masks["a"], wanted)


def test_a_label_map_that_forgets_a_category_is_refused(tmp_path: Path) -> None:
    toml = tmp_path / "pets.toml"
    toml.write_text('[[classes]]\nname = "a"\nfrom = [0]\n[[classes]]\nname = "b"\nfrom = [1]\n', encoding="utf-8")
    with pytest.raises(LabelMapError, match="does not name 'dog'"):
        category_map(str(toml), ("person", "dog"))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_the_smaller_object_lies_on_top_and_of_equal_ones_the_first_id(tmp_path: Path, order: list[int]) -> None:
    items = [object_at(7, 0, 0, 20, 20), object_at(5, 4, 4, 6, 6, 18), object_at(3, 7, 4, 6, 6)]
    content = instances(NAMES, [items[i] for i in order])
    mask = annotated(coco(tmp_path, content, categories=("person", "dog")))
    wanted = np.where(box(4, 4, 6, 6), 2, box(0, 0, 20, 20))
    np.testing.assert_array_equal(mask, np.where(box(7, 4, 6, 6), 1, wanted))


@pytest.mark.parametrize(("min_area", "left"), [(0, 2), (16, 2), (17, 1), (36, 1), (37, 0)])
def test_objects_of_fewer_pixels_than_the_least_are_left_out(tmp_path: Path, min_area: int, left: int) -> None:
    content = instances(NAMES, [object_at(1, 0, 0, 4, 4, area=9999), object_at(2, 8, 0, 6, 6, area=0)])
    mask = annotated(coco(tmp_path, content, min_area=min_area))
    wanted = [0 * box(0, 0, 1, 1), box(8, 0, 6, 6), box(8, 0, 6, 6) | box(0, 0, 4, 4)][left]
    np.testing.assert_array_equal(mask, wanted)


def test_an_image_without_objects_is_all_background(tmp_path: Path) -> None:
    made = converted(coco(tmp_path / "raw", instances(NAMES, [annotation(1, 2, 18)])))
    assert not made.rejected
    assert not made.masks["a"].any()
    assert not made.masks["b"].any()


EMPTY: dict[str, list[dict[str, Any]]] = {
    "no annotation": [],
    "another category": [annotation(1, 1, 18)],
    "a crowd only": [CROWD_COVERS_ALL],
    "outside": [annotation(1, 1, segmentation=[[40, 40, 50, 40, 50, 50]])],
    "too small": [object_at(1, 3, 3, 2, 2)],
}


@pytest.mark.parametrize("objects", EMPTY.values(), ids=EMPTY)
def test_an_image_without_objects_is_dropped_on_demand_and_not_held_against_the_rest(
    tmp_path: Path, objects: list[dict[str, Any]]
) -> None:
    source = coco(tmp_path / "raw", instances(NAMES, [*objects, GOOD]), drop_empty=True, min_area=5)
    made = converted(source, ConvertOptions("coco", jobs=1, max_rejected=0.0))
    assert made.reasons == [("a", "empty")]
    assert "no object of the wanted categories in it" in made.rejected[0][2]
    assert list(made.masks) == ["b"]


def test_a_crowd_that_is_included_is_an_object(tmp_path: Path) -> None:
    source = coco(tmp_path, instances(NAMES, [CROWD_COVERS_ALL]), drop_empty=True, crowd="include")
    assert annotated(source).all()


def test_an_unsound_annotation_is_told_before_an_empty_image(tmp_path: Path) -> None:
    source = coco(tmp_path / "raw", instances(NAMES, [annotation(1, 1, iscrowd=3), GOOD]), drop_empty=True)
    assert converted(source).reasons == [("a", "bad-annotation")]


def test_rejected_annotations_do_count_against_the_rest(tmp_path: Path) -> None:
    source = coco(tmp_path / "raw", instances(NAMES, [annotation(1, 1, segmentation=[]), GOOD]))
    with pytest.raises(JobFailed, match=r"1 of 2 samples rejected \(50.0%\).*annotation 1 of image 1"):
        convert(source, tmp_path / "out", ConvertOptions("coco", jobs=1, max_rejected=0.4))


def test_the_group_is_the_video_or_else_the_image(tmp_path: Path) -> None:
    content = instances(NAMES, [])
    content["images"][0]["video_id"] = 3
    names = [*NAMES, "c.jpg"]
    content["images"].append({"id": 30, "file_name": "c.jpg", "height": HEIGHT, "width": WIDTH, "video_id": "x"})
    made = converted(coco(tmp_path / "raw", content, names))
    assert {name: line["group"] for name, line in made.lines.items()} == {"a": "video-3", "b": "2", "c": "video-x"}


@pytest.mark.parametrize(
    ("licenses", "number", "wanted"),
    [
        ([{"id": 4, "name": "CC BY", "url": "x"}], 4, "CC BY"),
        ([{"id": 4, "name": "CC BY"}], 5, None),
        ([{"id": 4, "name": "CC BY"}], None, None),
        ([{"id": 4, "name": "CC BY"}], [4], None),
        ([{"id": "4", "name": "CC BY"}], "4", "CC BY"),
        ([{"id": 4}, 7, {"id": [4], "name": "CC BY"}], 4, None),
        ("CC BY", 4, None),
        (None, 4, None),
    ],
)
def test_the_license_stands_on_the_sample_line_by_name(
    tmp_path: Path, licenses: Any, number: Any, wanted: str | None
) -> None:
    content = instances(NAMES, [], licenses=licenses)
    content["images"][0]["license"] = number
    made = converted(coco(tmp_path / "raw", content))
    assert made.lines["a"].get("license") == wanted
    assert made.lines["b"].get("license") is None


def test_files_of_one_stem_in_subfolders_have_ids_of_their_own(tmp_path: Path) -> None:
    names = ["train/a.jpg", "val/a.jpg", "./val/b.jpg"]
    made = converted(coco(tmp_path / "raw", instances(names, [annotation(1, 1), annotation(2, 2)]), names))
    assert {name: line["image"] for name, line in made.lines.items()} == {
        "train-a": "train/a.jpg",
        "val-a": "val/a.jpg",
        "b": "val/b.jpg",
    }
    for name, number in (("train-a", 1), ("val-a", 2)):
        np.testing.assert_array_equal(made.masks[name], union(instances(names, [annotation(number, number)]), number))


def test_photos_that_the_file_does_not_list_are_counted(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "d.PNG", "notes.txt"]
    listed = ["./a.jpg", "b.jpg"]
    assert coco(tmp_path, instances(listed, []), names).find().ignored == {"photos that the file does not list": 2}


def test_options_are_recorded(tmp_path: Path) -> None:
    source = coco(
        tmp_path, b"", categories=("person", "dog"), labels="binary", crowd="include", min_area=9, drop_empty=True
    )
    assert source.options() == {
        "categories": "person, dog",
        "crowd": "include",
        "min_area": 9,
        "empty": "drop",
        "labels": "binary",
    }
    assert source.inputs == (tmp_path / "instances.json", tmp_path / "images")


def test_any_number_of_processes_gives_the_same_bytes(tmp_path: Path) -> None:
    names = [f"{i:02}.jpg" for i in range(20)]
    items = [annotation(i, i, 1 if i % 3 else 18) for i in range(1, 19)]
    items[4] |= {"segmentation": [[1, 2]]}
    content = instances(names, [*items, annotation(40, 2, iscrowd=1), annotation(41, 20, iscrowd=2)])
    source = coco(tmp_path / "raw", content, names)
    for jobs in (1, 2):
        convert(source, tmp_path / f"{jobs}", ConvertOptions("coco", jobs=jobs, max_rejected=0.2))
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
    assert len(lines(tmp_path / "1" / "rejected.jsonl")) == 2


# ---- anything at all

junk = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.lists(st.integers(), max_size=3)
)
fields = st.sampled_from(
    "id image_id category_id iscrowd segmentation file_name height width video_id license name supercategory".split()
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["images", "annotations", "categories"]), st.integers(0, 1), fields, junk), max_size=4
    )
)
def test_a_file_changed_anywhere_gives_samples_and_lines_or_one_line(tmp_path: Path, changes: list[Any]) -> None:
    content = instances(NAMES, [annotation(4, 1), GOOD])
    for part, number, key, value in changes:
        content[part][number][key] = value
    source = coco(tmp_path, content)
    try:
        found = source.find()
    except SegdataError:
        with pytest.raises(SourceError, match=f"^{source.annotations}: .*$"):
            source.find()
        return
    assert len(found.entries) + len(found.rejected) >= 2
    for line in found.rejected:
        json.dumps([line.id, line.reason, line.detail])
    for entry in found.entries:
        with contextlib.suppress(ImageRefused):
            assert source.annotate(entry).values.shape == entry.size


# ---- what a user of many files meets


def test_annotations_of_images_that_the_file_does_not_list_fail_the_command(tmp_path: Path) -> None:
    content = instances(NAMES, [annotation(4, 1001), annotation(6, 1002)])
    with pytest.raises(JobFailed, match="2 unlisted-image"):
        convert(coco(tmp_path / "raw", content), tmp_path / "out", ConvertOptions("coco", jobs=1))


def test_a_video_id_that_is_no_number_is_none(tmp_path: Path) -> None:
    content = instances(NAMES, [])
    for image, video in zip(content["images"], (float("nan"), ""), strict=True):
        image["video_id"] = video
    assert [entry.group for entry in coco(tmp_path, json.dumps(content).encode()).find().entries] == ["1", "2"]


def test_long_texts_of_a_file_make_no_long_messages(tmp_path: Path) -> None:
    content = instances([*NAMES, "x" * 100_000 + ".jpg"], [])
    content["images"][1]["id"] = "y" * 100_000
    lines_ = coco(tmp_path / "raw", content).find().rejected
    assert lines_
    assert all(len(line.id) < 300 and len(line.detail) < 800 for line in lines_)


def test_a_plan_leaves_out_what_holds_crowds_alone_as_the_run_does(tmp_path: Path) -> None:
    content = instances(NAMES, [annotation(4, 1, iscrowd=1), annotation(6, 2)])
    source = dataclasses.replace(coco(tmp_path / "raw", content), crowd="exclude", drop_empty=True)
    options = ConvertOptions("coco", jobs=1)
    assert plan(source, tmp_path / "out", options).samples == convert(source, tmp_path / "out", options).samples == 1


@pytest.mark.parametrize(
    ("names", "spec", "found"),
    [
        (("person", "person"), None, "--category: 2 names, expected 1 to 254, each once"),
        ((), None, "--category: 0 names"),
        (tuple(map(str, range(255))), None, "--category: 255 names"),
        (("background",), None, "--category 'background': cannot name a class"),
        (("person, individual",), None, "Pass --labels binary"),
        (("",), None, "--category '': cannot name a class"),
    ],
)
def test_categories_that_can_be_no_classes_are_wrong_usage(
    names: tuple[str, ...], spec: str | None, found: str
) -> None:
    with pytest.raises(OptionError, match=found):
        category_map(spec, names)


def test_any_category_can_be_a_person(tmp_path: Path) -> None:
    assert category_map("binary", ("person, individual", "background")).names == ("background", "person")


def test_a_map_for_another_dataset_is_not_for_categories(tmp_path: Path) -> None:
    path = tmp_path / "hp.toml"
    path.write_text('source = "humanparsing"\n[[classes]]\nname = "a"\n[[classes]]\nname = "b"\n')
    with pytest.raises(LabelMapError, match="source 'humanparsing', but the data holds categories"):
        category_map(str(path), ("person",))


def test_a_plan_says_that_the_run_would_fail(tmp_path: Path) -> None:
    source = coco(tmp_path / "raw", instances([*NAMES, "gone.jpg"], []))
    planned = plan(source, tmp_path / "out", ConvertOptions("coco", jobs=1))
    assert re.search(
        r"1 of 3 samples rejected \(33.3%\), more than --max-rejected 0.05: 1 no-photo", planned.would_fail
    )
    with pytest.raises(JobFailed, match=re.escape(planned.would_fail)):
        convert(source, tmp_path / "out", ConvertOptions("coco", jobs=1))
    assert plan(source, tmp_path / "other", ConvertOptions("coco", jobs=1, max_rejected=0.5)).would_fail == ""


def test_a_plan_refuses_the_folders_that_the_run_refuses(tmp_path: Path) -> None:
    source = coco(tmp_path / "raw", instances(NAMES, []))
    with pytest.raises(FolderError, match="holds the input"):
        plan(source, source.images, ConvertOptions("coco", jobs=1))
