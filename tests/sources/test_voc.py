"""Pascal VOC: palette labels with void, photos without a label, lists in ImageSets."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segdata.errors import LabelMapError, SourceError
from segdata.formats import images
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.split import split
from segdata.jobs.verify import verify
from segdata.labels import LabelMap, label_map
from segdata.records import SplitOptions
from segdata.sources import Found
from segdata.sources.voc import Voc
from tests.folders import lines
from tests.material import Pixels, ids, palette_png, saved
from tests.sources.layouts import HEIGHT, WIDTH, jpeg, write

NAMES = ["2007_000032", "2007_000033", "2008_000001", "2011_003276"]
VOC, PERSON = label_map("voc", "voc"), label_map("voc_person", "voc")


def void_ids() -> Pixels:
    """All 21 ids, and void around."""
    values = ids(HEIGHT, WIDTH, 21)
    values[0] = values[:, -1] = 255
    return values


def list_file(root: Path, name: str, *rows: str) -> Path:
    return write(root / "ImageSets" / "Segmentation" / f"{name}.txt", "".join(f"{row}\n" for row in rows).encode())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four labelled photos, the last two for validation, and three photos without a label."""
    root = tmp_path / "VOC2012"
    for number, name in enumerate([*NAMES, "2009_000001", "2009_000002", "2009_000003"]):
        write(root / "JPEGImages" / f"{name}.jpg", jpeg(number))
    for name in NAMES:
        write(root / "SegmentationClass" / f"{name}.png", palette_png(void_ids()))
    list_file(root, "train", *NAMES[:2])
    list_file(root, "val", *NAMES[2:])
    list_file(root, "trainval", *NAMES)
    return root


def told(found: Found) -> list[tuple[str, str]]:
    return sorted((line.id, line.reason) for line in found.rejected)


def masks(root: Path, labels: LabelMap, **options: Any) -> dict[str, Any]:
    out = root.parent / "out"
    convert(Voc(root, labels), out, ConvertOptions("voc", jobs=1, **options))
    assert verify(out, jobs=1).faults == []
    return {line["id"]: images.decode_mask((out / line["mask"]).read_bytes()) for line in lines(out / "samples.jsonl")}


# ---- labels


def test_the_21_ids_are_the_indices_and_void_stays_255(root: Path) -> None:
    found = masks(root, VOC)
    assert set(found) == set(NAMES)
    for mask in found.values():
        np.testing.assert_array_equal(mask, void_ids())


def test_voc_person_is_id_15_and_void(root: Path) -> None:
    values = void_ids()
    for mask in masks(root, PERSON).values():
        np.testing.assert_array_equal(mask, np.where(values == 255, 255, values == 15))


def test_a_toml_map_chooses_classes_by_name_and_by_id(root: Path) -> None:
    text = (
        'source = "voc"\nignore = [255, "pottedplant"]\n'
        '[[classes]]\nname = "background"\nfrom = ["0-7", "9-11", 13, 14, "17-20"]\n'
        '[[classes]]\nname = "animal"\nfrom = ["cat", "dog"]\n'
        '[[classes]]\nname = "person"\nfrom = ["person"]\n'
    )
    found = label_map(str(write(root.parent / "mine.toml", text.encode())), "voc")
    values = void_ids()
    wanted = np.select([np.isin(values, [8, 12]), values == 15, np.isin(values, [16, 255])], [1, 2, 255], 0)
    for mask in masks(root, found).values():
        np.testing.assert_array_equal(mask, wanted)


def test_void_is_counted_as_ignored_and_reported(root: Path) -> None:
    report = convert(Voc(root, VOC), root.parent / "out", ConvertOptions("voc", jobs=1))
    assert report.ignored_pixels == 4 * int((void_ids() == 255).sum())
    assert report.notes == {"masks with ignored pixels (255)": 4}


def test_an_id_beyond_20_is_rejected_and_named(root: Path) -> None:
    values = void_ids()
    values[5, 5] = 21
    write(root / "SegmentationClass" / f"{NAMES[0]}.png", palette_png(values))
    found = masks(root, VOC, max_rejected=0.5)
    assert set(found) == set(NAMES[1:])
    [line] = lines(root.parent / "out" / "rejected.jsonl")
    assert (line["id"], line["reason"]) == (NAMES[0], "unmapped-id")
    assert "21" in line["detail"]
    assert f"{NAMES[0]}.png" in line["detail"]


def test_an_id_beyond_20_is_ignored_when_asked(root: Path) -> None:
    values = void_ids()
    values[5, 5] = 21
    write(root / "SegmentationClass" / f"{NAMES[0]}.png", palette_png(values))
    wanted = np.where(values == 21, 255, values)
    np.testing.assert_array_equal(masks(root, VOC, unmapped="ignore")[NAMES[0]], wanted)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_label_drawn_in_colours_is_rejected(root: Path, kind: str) -> None:
    drawn = Image.open(BytesIO(palette_png(void_ids()))).convert("RGB")
    write(root / "SegmentationClass" / f"{NAMES[0]}.png", saved(drawn, kind))
    assert set(masks(root, VOC, max_rejected=0.5)) == set(NAMES[1:])


def test_labels_of_another_dataset_are_refused() -> None:
    with pytest.raises(LabelMapError, match="is made from"):
        label_map("parts5", "voc")


# ---- photos without a label, and lists


def test_photos_without_a_label_are_passed_over_and_counted(root: Path) -> None:
    found = Voc(root, VOC).find()
    assert [entry.id for entry in found.entries] == NAMES
    assert found.rejected == []
    assert found.ignored == {"photos without a label": 3}


def test_labels_without_a_photo_are_told(root: Path) -> None:
    write(root / "SegmentationClass" / "2010_000001.png", palette_png(void_ids()))
    assert told(Voc(root, VOC).find()) == [("2010_000001.png", "no-image")]


@pytest.mark.parametrize("name", ["train", "val", "trainval"])
def test_a_listed_photo_without_a_label_is_rejected_and_its_list_named(root: Path, name: str) -> None:
    list_file(root, name, *NAMES, "2009_000001")
    found = Voc(root, VOC).find()
    assert told(found) == [("2009_000001", "no-mask")]
    assert f"ImageSets/Segmentation/{name}.txt" in found.rejected[0].detail


def test_a_listed_photo_without_a_label_is_not_counted_twice(root: Path) -> None:
    list_file(root, "train", *NAMES[:2], "2009_000001")
    found = Voc(root, VOC).find()
    assert len(found.rejected) == 1
    assert found.ignored == {"photos without a label": 2}


def test_a_listed_name_without_any_file_is_rejected_once(root: Path) -> None:
    for name in ("train", "trainval", "val"):
        list_file(root, name, *NAMES, "1999_000009")
    assert told(Voc(root, VOC).find()) == [("1999_000009", "no-photo")]


def test_a_listed_label_without_photo_is_told_once(root: Path) -> None:
    (root / "JPEGImages" / f"{NAMES[0]}.jpg").unlink()
    assert told(Voc(root, VOC).find()) == [(f"{NAMES[0]}.png", "no-image")]


def test_lists_of_both_words_blank_lines_marks_and_crlf_are_read(root: Path) -> None:
    text = f"\ufeff{NAMES[0]}  1\r\n\r\n{NAMES[1]} -1\r\n   \r\n"
    write(root / "ImageSets" / "Segmentation" / "train.txt", text.encode())
    assert Voc(root, VOC).find().rejected == []


def test_a_listed_name_with_spaces_or_odd_letters_is_its_photo(root: Path) -> None:
    names = ["IMG (1)", "Müller 2", "what?", "UPPER"]
    for name in names:
        write(root / "JPEGImages" / f"{name}.jpg", jpeg(1))
        write(root / "SegmentationClass" / f"{name}.png", palette_png(void_ids()))
    list_file(root, "train", *names[:3], "upper", f"{NAMES[0]}  1", f"{NAMES[1]} -1")
    found = Voc(root, VOC).find()
    assert len(found.entries) == 8
    assert found.rejected == []


def test_a_list_that_is_not_utf8_raises_no_python_error(root: Path) -> None:
    write(root / "ImageSets" / "Segmentation" / "train.txt", b"2007_\xff\n")
    found = Voc(root, VOC).find()
    assert len(found.entries) == 4
    assert [line.reason for line in found.rejected] == ["no-photo"]


def test_without_lists_it_is_a_dataset_all_the_same(root: Path) -> None:
    for path in (root / "ImageSets" / "Segmentation").iterdir():
        path.unlink()
    assert len(Voc(root, VOC).find().entries) == 4


def test_a_list_that_is_a_folder_or_a_pipe_does_no_harm(root: Path) -> None:
    for name in ("train", "val"):
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").unlink()
    (root / "ImageSets" / "Segmentation" / "train.txt").mkdir()
    os.mkfifo(root / "ImageSets" / "Segmentation" / "val.txt")
    assert len(Voc(root, VOC).find().entries) == 4


@pytest.mark.parametrize("gone", ["JPEGImages", "SegmentationClass"])
def test_a_folder_that_is_missing_is_named(root: Path, gone: str) -> None:
    (root / gone).rename(root / "elsewhere")
    with pytest.raises(SourceError, match=f"has no folder {gone}. Name the folder that holds it"):
        Voc(root, VOC).find()


def test_rejected_listed_photos_count_as_lost(root: Path) -> None:
    list_file(root, "train", *NAMES[:2], "2009_000001")
    report = convert(Voc(root, VOC), root.parent / "out", ConvertOptions("voc", jobs=1, max_rejected=0.5))
    assert (report.samples, report.rejected) == (4, {"no-mask": 1})


# ---- through the split


def test_its_own_lists_split_it(root: Path) -> None:
    masks(root, PERSON)
    lists = {
        "train": root / "ImageSets" / "Segmentation" / "train.txt",
        "validation": root / "ImageSets" / "Segmentation" / "val.txt",
    }
    report = split([root.parent / "out"], root.parent / "m", SplitOptions(method="listed"), lists)
    assert (report.splits, report.missing, report.unlisted) == ({"train": 2, "validation": 2}, [], [])
    assert {line["id"] for line in lines(root.parent / "m" / "train.jsonl")} == set(NAMES[:2])
    assert {line["id"] for line in lines(root.parent / "m" / "validation.jsonl")} == set(NAMES[2:])
    assert verify(root.parent / "m", jobs=1).faults == []


def test_what_a_list_names_and_convert_rejected_is_missing_in_the_split(root: Path) -> None:
    list_file(root, "train", *NAMES[:2], "2009_000001")
    masks(root, PERSON, max_rejected=0.5)
    lists = {"train": root / "ImageSets" / "Segmentation" / "train.txt"}
    report = split([root.parent / "out"], root.parent / "m", SplitOptions(method="listed"), lists)
    assert (report.splits, report.missing) == ({"train": 2}, ["2009_000001"])
    assert set(report.unlisted) == set(NAMES[2:])


def test_trainval_and_val_overlap_and_are_refused(root: Path) -> None:
    masks(root, PERSON)
    lists = {"train": "trainval.txt", "validation": "val.txt"}
    paths = {side: root / "ImageSets" / "Segmentation" / name for side, name in lists.items()}
    with pytest.raises(SourceError, match="stands in the list of train too"):
        split([root.parent / "out"], root.parent / "m", SplitOptions(method="listed"), paths)
