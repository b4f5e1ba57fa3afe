"""LIP and CIHP: two layouts, two halves, 20 ids, and the maps from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import JobFailed, LabelMapError, SourceError
from segdata.formats import images
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.split import split
from segdata.jobs.verify import verify
from segdata.labels import VOCABULARIES, LabelMap, label_map
from segdata.records import SplitOptions
from segdata.sources import Found
from segdata.sources.lip import Lip
from tests.folders import lines
from tests.material import ids, palette_png, saved
from tests.sources.layouts import HEIGHT, WIDTH, jpeg, write

LAYOUTS = {
    "LIP": {
        "train": ("train_images", "TrainVal_parsing_annotations/train_segmentations"),
        "val": ("val_images", "TrainVal_parsing_annotations/val_segmentations"),
    },
    "CIHP": {
        "train": ("Training/Images", "Training/Category_ids"),
        "val": ("Validation/Images", "Validation/Category_ids"),
    },
}
LIP = label_map("lip", "lip")
VALUES = ids(HEIGHT, WIDTH, 20)


def add(root: Path, folders: tuple[str, str], *stems: str, label: bytes | None = None) -> None:
    for number, stem in enumerate(stems):
        write(root / folders[0] / f"{stem}.jpg", jpeg(len(folders[0]) + number))
        write(root / folders[1] / f"{stem}.png", label or saved(VALUES, "PNG"))


@pytest.fixture(params=LAYOUTS)
def halves(request: pytest.FixtureRequest) -> dict[str, tuple[str, str]]:
    """The folders of a layout's two halves."""
    return LAYOUTS[request.param]


def told(found: Found) -> list[tuple[str, str]]:
    return sorted((line.id, line.reason) for line in found.rejected)


def masks(root: Path, labels: LabelMap, **options: Any) -> dict[str, Any]:
    out = root.parent / "out"
    convert(Lip(root, labels), out, ConvertOptions("lip", jobs=1, **options))
    assert verify(out, jobs=1).faults == []
    return {line["id"]: images.decode_mask((out / line["mask"]).read_bytes()) for line in lines(out / "samples.jsonl")}


# ---- layouts


def test_both_halves_are_one_listing(halves: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    add(tmp_path, halves["train"], "100034_483681", "77_1")
    add(tmp_path, halves["val"], "100034_483682")
    found = Lip(tmp_path, LIP).find()
    assert [(entry.id, entry.image, entry.label) for entry in found.entries] == [
        (stem, f"{halves[half][0]}/{stem}.jpg", f"{halves[half][1]}/{stem}.png")
        for stem, half in (("100034_483681", "train"), ("100034_483682", "val"), ("77_1", "train"))
    ]
    assert found.rejected == []


@pytest.mark.parametrize("half", ["train", "val"])
def test_one_half_is_enough(halves: dict[str, tuple[str, str]], tmp_path: Path, half: str) -> None:
    add(tmp_path / "raw", halves[half], "1", "2")
    assert set(masks(tmp_path / "raw", LIP)) == {"1", "2"}
    assert Lip(tmp_path / "raw", LIP).inputs == tuple(tmp_path / "raw" / folder for folder in halves[half])


def test_equal_stems_in_the_two_halves_are_two_samples(halves: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    other = np.ascontiguousarray(VALUES[::-1])
    add(tmp_path / "raw", halves["train"], "0000001", "own")
    add(tmp_path / "raw", halves["val"], "0000001", label=saved(other, "PNG"))
    found = masks(tmp_path / "raw", LIP)
    train, val = (halves[half][0].replace("/", "-") + "-0000001" for half in ("train", "val"))
    assert set(found) == {"own", train, val}
    np.testing.assert_array_equal(found[train], VALUES)
    np.testing.assert_array_equal(found[val], other)


def test_equal_stems_in_the_two_halves_are_no_group(halves: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    add(tmp_path, halves["train"], "1", "2")
    add(tmp_path, halves["val"], "1")
    entries = Lip(tmp_path, LIP).find().entries
    assert [entry.group for entry in entries] == [entry.id for entry in entries]


def test_a_label_of_the_other_half_is_not_taken(halves: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    add(tmp_path, halves["train"], "1", "2")
    add(tmp_path, halves["val"], "3", "4")
    (tmp_path / halves["train"][1] / "2.png").rename(tmp_path / halves["val"][1] / "2.png")
    found = Lip(tmp_path, LIP).find()
    assert [entry.id for entry in found.entries] == ["1", "3", "4"]
    train, val = halves["train"][0], halves["val"][1]
    assert told(found) == sorted([(f"{train}/2.jpg", "no-mask"), (f"{val}/2.png", "no-image")])


def test_a_root_of_neither_layout_is_refused_with_the_folders_that_were_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has none of train_images, val_images, Training/Images, Validation/Images"):
        Lip(tmp_path, LIP).find()


def test_a_half_without_its_labels_is_refused(halves: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    add(tmp_path, halves["train"], "1")
    write(tmp_path / halves["val"][0] / "2.jpg", jpeg(1))
    with pytest.raises(SourceError, match=rf"expected {halves['val'][1]} beside {halves['val'][0]}"):
        Lip(tmp_path, LIP).find()


def test_a_half_of_labels_only_does_not_matter_or_is_told(halves: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    add(tmp_path, halves["train"], "1")
    write(tmp_path / halves["val"][1] / "2.png", saved(VALUES, "PNG"))
    assert [entry.id for entry in Lip(tmp_path, LIP).find().entries] == ["1"]


def test_colours_instead_of_ids_are_refused_and_the_right_folder_named(tmp_path: Path) -> None:
    add(tmp_path, ("Training/Images", "Training/Categories"), "1")
    with pytest.raises(
        SourceError, match=r"Training/Categories holds colours, not ids; expected Training/Category_ids"
    ):
        Lip(tmp_path, LIP).find()


def test_colours_beside_ids_are_ignored(tmp_path: Path) -> None:
    halves = LAYOUTS["CIHP"]
    add(tmp_path / "raw", halves["train"], "1", "2")
    for folder in ("Categories", "Human", "Human_ids", "Instances", "Instance_ids"):
        write(tmp_path / "raw" / "Training" / folder / "1.png", palette_png(ids(HEIGHT, WIDTH, 3)))
    for mask in masks(tmp_path / "raw", LIP).values():
        np.testing.assert_array_equal(mask, VALUES)
    assert Lip(tmp_path / "raw", LIP).find().rejected == []


def test_cihps_list_files_beside_the_folders_are_no_pictures(tmp_path: Path) -> None:
    add(tmp_path, LAYOUTS["CIHP"]["train"], "1")
    write(tmp_path / "Training" / "train_id.txt", b"1\n")
    found = Lip(tmp_path, LIP).find()
    assert (len(found.entries), found.rejected, found.ignored) == (1, [], {})


def test_lips_test_photos_have_no_labels_and_are_left_alone(tmp_path: Path) -> None:
    add(tmp_path, LAYOUTS["LIP"]["train"], "1")
    write(tmp_path / "test_images" / "9.jpg", jpeg(9))
    found = Lip(tmp_path, LIP).find()
    assert ([entry.id for entry in found.entries], found.rejected) == (["1"], [])


# ---- ids

PARTS5 = {
    "background": "background",
    "head": "hat hair sunglasses face scarf",
    "upper_body": "upper-clothes coat",
    "both_hands": "left-arm right-arm glove",
    "lower_body": "skirt pants dress jumpsuits socks left-shoe right-shoe left-leg right-leg",
}


@pytest.mark.parametrize("raw_id", range(20))
def test_parts5_follows_its_definition(raw_id: int) -> None:
    found = label_map("parts5", "lip")
    name = VOCABULARIES["lip"][raw_id]
    [wanted] = [part for part, members in PARTS5.items() if name in members.split()]
    assert [found.names[i] for i, raw in enumerate(found.from_ids) if raw_id in raw] == [wanted]


@pytest.mark.parametrize("labels", ["lip", "parts5", "binary"])
@pytest.mark.parametrize("encode", [lambda values: saved(values, "PNG"), palette_png], ids=["grey", "palette"])
def test_masks_are_their_map_of_the_ids_class_by_class(tmp_path: Path, labels: str, encode: Any) -> None:
    add(tmp_path / "raw", LAYOUTS["CIHP"]["train"], "1", label=encode(VALUES))
    names = VOCABULARIES["lip"]
    part_of = {name: list(PARTS5).index(part) for part, members in PARTS5.items() for name in members.split()}
    wanted = {
        "lip": list(range(20)),
        "parts5": [part_of[name] for name in names],
        "binary": [0] + [1] * 19,
    }[labels]
    [mask] = masks(tmp_path / "raw", label_map(labels, "lip")).values()
    np.testing.assert_array_equal(mask, np.array(wanted)[VALUES])


def test_left_and_right_are_exchanged_by_a_flip() -> None:
    names = LIP.names
    assert {tuple(names[i] for i in pair) for pair in LIP.left_right_pairs} == {
        ("left-arm", "right-arm"),
        ("left-leg", "right-leg"),
        ("left-shoe", "right-shoe"),
    }


@pytest.mark.parametrize("labels", ["lip", "parts5", "binary"])
@pytest.mark.parametrize("odd", [20, 255])
def test_an_id_that_lip_has_not_is_rejected_and_named(tmp_path: Path, labels: str, odd: int) -> None:
    values = VALUES.copy()
    values[3, 4:6] = odd
    add(tmp_path / "raw", LAYOUTS["LIP"]["train"], "good")
    add(tmp_path / "raw", LAYOUTS["LIP"]["train"], "odd", label=saved(values, "PNG"))
    assert set(masks(tmp_path / "raw", label_map(labels, "lip"), max_rejected=0.5)) == {"good"}
    [line] = lines(tmp_path / "out" / "rejected.jsonl")
    assert (line["id"], line["reason"]) == ("odd", "unmapped-id")
    assert str(odd) in line["detail"]
    assert "odd.png" in line["detail"]


def test_an_id_that_lip_has_not_is_ignored_when_asked(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[3, 4:6] = 20
    add(tmp_path / "raw", LAYOUTS["LIP"]["train"], "odd", label=saved(values, "PNG"))
    found = masks(tmp_path / "raw", LIP, unmapped="ignore")["odd"]
    np.testing.assert_array_equal(found, np.where(values == 20, 255, values))


def test_nothing_but_colour_labels_is_no_dataset(tmp_path: Path) -> None:
    add(tmp_path / "raw", LAYOUTS["LIP"]["train"], "1", label=saved(np.dstack([VALUES, VALUES * 2, VALUES]), "PNG"))
    with pytest.raises(JobFailed, match=r"1 mask-mode \(first: 1: .*1\.png: RGB with different channels"):
        convert(Lip(tmp_path / "raw", LIP), tmp_path / "out", ConvertOptions("lip", jobs=1))


def test_maps_of_other_datasets_are_refused() -> None:
    for name in ("humanparsing", "voc", "voc_person"):
        with pytest.raises(LabelMapError, match="not from lip ids"):
            label_map(name, "lip")


# ---- lists


def test_train_id_lists_split_it(halves: dict[str, tuple[str, str]], tmp_path: Path) -> None:
    add(tmp_path / "raw", halves["train"], "0000001", "0000002")
    add(tmp_path / "raw", halves["val"], "0000003", "0000004")
    masks(tmp_path / "raw", LIP)
    lists = {
        "train": write(tmp_path / "train_id.txt", b"0000001\n0000002\n0009999\n"),
        "validation": write(tmp_path / "val_id.txt", b"0000003\n"),
    }
    report = split([tmp_path / "out"], tmp_path / "m", SplitOptions(method="listed"), lists)
    assert report.splits == {"train": 2, "validation": 1}
    assert (report.missing, report.unlisted) == (["0009999"], ["0000004"])


def test_a_stem_of_both_halves_must_be_listed_by_its_path(tmp_path: Path) -> None:
    halves = LAYOUTS["CIHP"]
    add(tmp_path / "raw", halves["train"], "1")
    add(tmp_path / "raw", halves["val"], "1")
    masks(tmp_path / "raw", LIP)
    train = {"train": write(tmp_path / "train_id.txt", b"1\n")}
    with pytest.raises(SourceError, match="'1' fits several samples"):
        split([tmp_path / "out"], tmp_path / "m", SplitOptions(method="listed"), train)
    train["train"].write_bytes(b"Training/Images/1.jpg\n")
    report = split([tmp_path / "out"], tmp_path / "m", SplitOptions(method="listed"), train)
    assert (report.splits, report.unlisted) == ({"train": 1}, ["Validation-Images-1"])


def test_persons_of_one_coco_photo_are_one_group_in_both_halves(tmp_path: Path) -> None:
    add(tmp_path, LAYOUTS["LIP"]["train"], "77_1", "77_2", "8_1")
    add(tmp_path, LAYOUTS["LIP"]["val"], "77_1")
    found = {entry.image: entry.group for entry in Lip(tmp_path, LIP).find().entries}
    assert sorted(found.values()) == ["77", "77", "77", "8"]
