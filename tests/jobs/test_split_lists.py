"""split by published lists: PFCN's own .mat files and text lists, over whole photos, crops and merged datasets."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import JobFailed, SourceError
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.split import SplitReport, split
from segdata.jobs.verify import verify
from segdata.labels import category_map, label_map
from segdata.records import SPLITS, SplitOptions
from segdata.sources.aisegment import AISegment
from segdata.sources.coco import Coco
from segdata.sources.pairs import Pairs
from segdata.sources.pfcn import Pfcn
from segdata.transforms.crop import Crop
from tests.folders import lines, segdata, tree
from tests.material import Pixels, ids, photo, saved
from tests.sources.layouts import HEIGHT, WIDTH, cut_out, instances, jpeg, mat, soft, write

LISTED = SplitOptions(method="listed")
SHAPES = ["whole", "crops"]


def portraits(root: Path, numbers: Iterable[int], twins: dict[int, int] | None = None) -> Path:
    """PFCN photos of those numbers; a twin's photo is the bytes of another's, its mask is not."""
    for number in numbers:
        original = (twins or {}).get(number, number)
        write(root / "images_data_crop" / f"{number:05d}.jpg", jpeg(original))
        write(root / "images_mask" / f"{number:05d}_mask.mat", mat(mask=mask_of(number)))
    return root


def mask_of(number: int) -> Pixels:
    mask = ids(HEIGHT, WIDTH, 2)
    mask[number % HEIGHT] = 1
    return mask


def prepared(root: Path, out: Path, shape: str = "whole", name: str = "portraits", count: int = 2) -> Path:
    """A prepared dataset of PFCN's layout: photos whole, or ``count`` crops of each."""
    crop = Crop(count, 16) if shape == "crops" else None
    convert(Pfcn(root), out, ConvertOptions(name, jobs=1, crop=crop))
    return out


def mat_list(path: Path, numbers: Iterable[int]) -> Path:
    """A list as PFCN's: a row of doubles, in no order."""
    return write(path, mat(**{path.stem: np.array([list(numbers)], float)}))


def text_list(path: Path, *names: str) -> Path:
    return write(path, "\n".join(names).encode())


def listed(tmp_path: Path, *folders: Path, **names: Path) -> SplitReport:
    """Split by those lists into ``tmp_path/m``; verify finds no fault in it."""
    report = split(list(folders), tmp_path / "m", LISTED, names)
    assert not verify(tmp_path / "m", jobs=1).faults
    return report


def groups(manifest: Path, split_name: str) -> list[str]:
    """The photos of one split, each once, in order."""
    return list(dict.fromkeys(line["group"] for line in lines(manifest / f"{split_name}.jsonl")))


def record(manifest: Path) -> Any:
    return json.loads((manifest / "manifest.json").read_text())


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def dataset(tmp_path: Path, shape: str) -> Path:
    """Photos 1 to 6, whole or two crops of each."""
    return prepared(portraits(tmp_path / "raw", range(1, 7)), tmp_path / "d", shape)


# ---- PFCN's lists


def test_published_lists_decide(tmp_path: Path, dataset: Path, shape: str) -> None:
    train, test = mat_list(tmp_path / "trainlist.mat", [5, 1, 3, 6]), mat_list(tmp_path / "testlist.mat", [4, 2])
    report = listed(tmp_path, dataset, train=train, test=test)
    each = 1 if shape == "whole" else 2
    assert report.splits == {"train": 4 * each, "test": 2 * each}
    assert groups(tmp_path / "m", "train") == ["00005", "00001", "00003", "00006"]
    assert groups(tmp_path / "m", "test") == ["00004", "00002"]
    assert (report.missing, report.unlisted, report.straddling, report.uneven) == ([], [], [], [])


def test_listed_photos_that_are_not_there_are_named(tmp_path: Path, dataset: Path) -> None:
    train, test = mat_list(tmp_path / "trainlist.mat", [1, 1800, 2]), mat_list(tmp_path / "testlist.mat", [3, 77])
    report = listed(tmp_path, dataset, train=train, test=test)
    assert report.missing == record(tmp_path / "m")["missing"] == ["01800", "00077"]


def test_photos_in_no_list_are_named_once_each(tmp_path: Path, dataset: Path) -> None:
    train, test = mat_list(tmp_path / "trainlist.mat", [1, 2]), mat_list(tmp_path / "testlist.mat", [4])
    report = listed(tmp_path, dataset, train=train, test=test)
    assert report.unlisted == record(tmp_path / "m")["unlisted"] == ["00003", "00005", "00006"]


def test_the_command_counts_what_its_lists_miss(tmp_path: Path, dataset: Path) -> None:
    train, test = mat_list(tmp_path / "trainlist.mat", [1, 2, 99]), mat_list(tmp_path / "testlist.mat", [4])
    done = segdata("split", dataset, "--out", tmp_path / "m", "--list", f"train={train}", "--list", f"test={test}")
    assert done.returncode == 0, done.stderr
    assert "1 listed without a sample: 00099" in done.stderr
    assert "3 samples in no list: 00003, 00005, 00006" in done.stderr


def test_a_photo_in_two_lists_is_refused(tmp_path: Path, dataset: Path) -> None:
    lists = {"train": mat_list(tmp_path / "a.mat", [1, 2]), "test": mat_list(tmp_path / "b.mat", [2, 3])}
    with pytest.raises(SourceError, match="--list test: '00002' stands in the list of train too"):
        split([dataset], tmp_path / "m", LISTED, lists)
    assert not (tmp_path / "m").exists()


def test_the_same_lists_give_the_same_bytes(tmp_path: Path, dataset: Path) -> None:
    lists = {"train": mat_list(tmp_path / "a.mat", [1, 2]), "test": mat_list(tmp_path / "b.mat", [3])}
    for name in ("m", "n"):
        split([dataset], tmp_path / name, LISTED, lists, text_lists=True)
    assert tree(tmp_path / "m") == tree(tmp_path / "n")


def test_a_mat_list_and_a_text_list_of_its_numbers_are_one(tmp_path: Path, dataset: Path) -> None:
    rest = mat_list(tmp_path / "rest.mat", [1, 2, 3])
    mats = {"train": rest, "test": mat_list(tmp_path / "t.mat", [6, 4])}
    texts = {"train": rest, "test": text_list(tmp_path / "t.txt", "00006", "00004.jpg")}
    for name, lists in (("m", mats), ("n", texts)):
        split([dataset], tmp_path / name, LISTED, lists)
    assert tree(tmp_path / "m") == tree(tmp_path / "n")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (mat(trainlist=np.arange(40.0))[:-5], "cut or damaged"),
        (b"no such thing" * 30, "no .mat file of version 5"),
        (mat(trainlist=np.array([[1.5, 2]])), "whole numbers"),
        (mat(trainlist="00001"), "class char"),
        (mat(a=np.array([1.0]), b=np.array([2.0])), "holds 'a', 'b'"),
        (mat(trainlist=np.array(["00001.jpg", "00002.jpg"], object)), "class cell"),
    ],
    ids=["empty", "cut", "other bytes", "whole numbers", "text", "two matrices", "names"],
)
def test_a_broken_list_is_told_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    dataset = prepared(portraits(tmp_path / "raw", [1, 2]), tmp_path / "d")
    broken = write(tmp_path / "trainlist.mat", data)
    with pytest.raises(SourceError, match=message) as caught:
        split([dataset], tmp_path / "m", LISTED, {"train": broken})
    assert str(caught.value).startswith(f"--list {broken}: ")
    assert str(caught.value).endswith("Expected a list of photos.")
    assert "\n" not in str(caught.value)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    dataset = prepared(portraits(tmp_path / "raw", [1, 2]), tmp_path / "d")
    with pytest.raises(SourceError, match=r"--list .*nowhere.mat: .*No such file"):
        split([dataset], tmp_path / "m", LISTED, {"train": tmp_path / "nowhere.mat"})


# ---- several datasets


def test_lists_go_over_merged_datasets(tmp_path: Path, shape: str) -> None:
    first = prepared(portraits(tmp_path / "a", range(1, 4)), tmp_path / "d", shape, "first")
    second = prepared(portraits(tmp_path / "b", range(4, 7)), tmp_path / "e", shape, "second")
    train, test = mat_list(tmp_path / "trainlist.mat", [5, 1, 3]), mat_list(tmp_path / "testlist.mat", [4, 9])
    report = listed(tmp_path, first, second, train=train, test=test)
    assert groups(tmp_path / "m", "train") == ["second-00005", "first-00001", "first-00003"]
    assert groups(tmp_path / "m", "test") == ["second-00004"]
    assert report.missing == ["00009"]
    assert report.unlisted == ["first-00002", "second-00006"]


def test_photos_of_two_datasets_that_share_a_number_are_told_apart_by_prefix(tmp_path: Path, shape: str) -> None:
    first = prepared(portraits(tmp_path / "a", range(1, 4)), tmp_path / "d", shape, "first")
    second = prepared(portraits(tmp_path / "b", range(2, 5), {2: 12, 3: 13}), tmp_path / "e", shape, "second")
    train, test = text_list(tmp_path / "a.txt", "first-00001"), text_list(tmp_path / "b.txt", "second-00002")
    report = listed(tmp_path, first, second, train=train, test=test)
    assert groups(tmp_path / "m", "test") == ["second-00002"]
    assert report.unlisted == ["first-00002", "first-00003", "second-00003", "second-00004"]
    assert report.straddling == []


def test_a_number_that_two_datasets_share_is_the_photo_of_both(tmp_path: Path, shape: str) -> None:
    first = prepared(portraits(tmp_path / "a", range(1, 4)), tmp_path / "d", shape, "first")
    second = prepared(portraits(tmp_path / "b", range(2, 5)), tmp_path / "e", shape, "second")
    listed(tmp_path, first, second, test=mat_list(tmp_path / "testlist.mat", [2]))
    assert groups(tmp_path / "m", "test") == ["first-00002", "second-00002"]


def test_crops_and_whole_photos_of_one_dataset_stand_on_one_side(tmp_path: Path) -> None:
    raw = portraits(tmp_path / "raw", range(1, 7))
    both = [prepared(raw, tmp_path / shape, shape, shape) for shape in SHAPES]
    train, test = mat_list(tmp_path / "trainlist.mat", [5, 1, 3]), mat_list(tmp_path / "testlist.mat", [4])
    report = listed(tmp_path, *both, train=train, test=test)
    assert report.splits == {"train": 9, "test": 3}
    assert groups(tmp_path / "m", "test") == ["whole-00004", "crops-00004"]
    assert report.straddling == []


# ---- the same photo under two ids


def test_a_photo_under_two_ids_that_stand_in_two_lists_is_told(tmp_path: Path, shape: str) -> None:
    dataset = prepared(portraits(tmp_path / "raw", range(1, 7), {4: 1}), tmp_path / "d", shape)
    train, test = mat_list(tmp_path / "trainlist.mat", [1, 2, 3]), mat_list(tmp_path / "testlist.mat", [4, 5, 6])
    report = listed(tmp_path, dataset, train=train, test=test)
    assert report.straddling == record(tmp_path / "m")["straddling"] == [["train: 00001", "test: 00004"]]


def test_a_photo_under_two_ids_in_one_list_is_not(tmp_path: Path, shape: str) -> None:
    dataset = prepared(portraits(tmp_path / "raw", range(1, 7), {2: 1}), tmp_path / "d", shape)
    train, test = mat_list(tmp_path / "trainlist.mat", [1, 2, 3]), mat_list(tmp_path / "testlist.mat", [4, 5, 6])
    assert listed(tmp_path, dataset, train=train, test=test).straddling == []


@pytest.mark.parametrize("salt", ["", "a", "b", "c"])
def test_a_photo_under_two_ids_never_straddles_by_hash(tmp_path: Path, shape: str, salt: str) -> None:
    twins = {number + 10: number for number in range(10)}
    dataset = prepared(portraits(tmp_path / "raw", range(20), twins), tmp_path / "d", shape)
    report = split([dataset], tmp_path / "m", SplitOptions(test=0.4, salt=salt))
    side = {group: name for name in report.splits for group in groups(tmp_path / "m", name)}
    assert len(side) == 20
    assert all(side[f"{twin:05d}"] == side[f"{number:05d}"] for twin, number in twins.items())
    assert report.straddling == []
    assert not verify(tmp_path / "m", jobs=1).faults


def test_crops_and_the_whole_photo_under_another_id_never_straddle_by_hash(tmp_path: Path) -> None:
    whole = prepared(portraits(tmp_path / "a", range(10)), tmp_path / "d", "whole", "whole")
    raw = portraits(tmp_path / "b", range(10, 20), {number + 10: number for number in range(10)})
    cropped = prepared(raw, tmp_path / "e", "crops", "crops")
    report = split([whole, cropped], tmp_path / "m", SplitOptions(test=0.4))
    side = {group: name for name in report.splits for group in groups(tmp_path / "m", name)}
    assert len(report.splits) == 2
    assert all(side[f"whole-{number:05d}"] == side[f"crops-{number + 10:05d}"] for number in range(10))


def test_crops_of_a_photo_stay_together_by_hash(tmp_path: Path) -> None:
    dataset = prepared(portraits(tmp_path / "raw", range(20)), tmp_path / "d", "crops", count=5)
    report = split([dataset], tmp_path / "m", SplitOptions(test=0.3, validation=0.2))
    found = {name: set(groups(tmp_path / "m", name)) for name in report.splits}
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == 20
    assert all(count % 5 == 0 for count in report.splits.values())


def test_a_photo_lands_where_it_does_whole_or_cropped(tmp_path: Path) -> None:
    raw = portraits(tmp_path / "raw", range(20))
    for shape in SHAPES:
        split([prepared(raw, tmp_path / shape, shape)], tmp_path / f"m {shape}", SplitOptions(test=0.4))
    whole, cropped = ({name: groups(tmp_path / f"m {shape}", name) for name in ("train", "test")} for shape in SHAPES)
    assert whole == cropped


# ---- text lists


@pytest.mark.parametrize(
    "line",
    [
        "00002",
        "00002.jpg",
        "00002.JPG",
        "./00002.jpg",
        "images_data_crop/00002.jpg",
        "./EG_dataset/images_data_crop/00002.jpg",
        "EG_dataset\\images_data_crop\\00002.jpg",
        ".\\00002.jpg",
        "/data/of/others/00002.jpg",
        "C:\\portraits\\00002.jpg",
        "../../00002.png",
        "images_data_crop/00002.jpg images_mask/00002_mask.mat",
        "  00002.jpg\t",
    ],
)
def test_a_line_is_a_name_or_a_path_from_anywhere(tmp_path: Path, shape: str, line: str) -> None:
    dataset = prepared(portraits(tmp_path / "raw", range(1, 4)), tmp_path / "d", shape)
    report = listed(tmp_path, dataset, test=text_list(tmp_path / "test.txt", line))
    assert groups(tmp_path / "m", "test") == ["00002"]
    assert report.missing == []
    assert report.unlisted == ["00001", "00003"]


def test_one_crop_may_be_listed_by_its_own_id(tmp_path: Path) -> None:
    dataset = prepared(portraits(tmp_path / "raw", [1, 2]), tmp_path / "d", "crops")
    train, test = text_list(tmp_path / "a.txt", "00001"), text_list(tmp_path / "b.txt", "00002-1")
    report = listed(tmp_path, dataset, train=train, test=test)
    assert report.splits == {"train": 2, "test": 1}
    assert report.unlisted == ["00002"]


def test_crops_of_one_photo_in_two_lists_straddle(tmp_path: Path) -> None:
    dataset = prepared(portraits(tmp_path / "raw", [1, 2]), tmp_path / "d", "crops")
    lists = {"train": text_list(tmp_path / "a.txt", "00001-0"), "test": text_list(tmp_path / "b.txt", "00001-1")}
    report = listed(tmp_path, dataset, **lists)
    assert report.straddling == [["train: 00001", "test: 00001"]]


def aisegment(tmp_path: Path, names: dict[str, str]) -> Path:
    """Photos by name and clip folder, each matte cut to a mask."""
    for number, (name, clip) in enumerate(names.items()):
        write(tmp_path / "raw" / "clip_img" / "1803" / f"clip_{clip}" / f"{name}.jpg", jpeg(number))
        alpha = cut_out(soft(), number)
        write(tmp_path / "raw" / "matting" / "1803" / f"matting_{clip}" / f"{name}.png", alpha)
    convert(AISegment(tmp_path / "raw", 0.5), tmp_path / "d", ConvertOptions("clips", jobs=1))
    return tmp_path / "d"


CLIPS = {"1803-001": "00000000", "1803-002": "00000000", "1803-003": "00000001"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("matting_human_half/clip_img/1803/clip_00000000/1803-002.jpg", ["1803-002"]),
        ("./clip_img/1803/clip_00000000/1803-002.jpg", ["1803-002"]),
        ("clip_img\\1803\\clip_00000000\\1803-002.jpg", ["1803-002"]),
        ("1803/clip_00000001/1803-003.jpg", ["1803-003"]),
        ("1803-003", ["1803-003"]),
        ("1803-clip_00000000", ["1803-001", "1803-002"]),
    ],
    ids=["folder before", "dot", "backslashes", "end of the path", "id", "the whole clip"],
)
def test_lists_of_clips_name_photos_by_path_or_by_clip(tmp_path: Path, line: str, found: list[str]) -> None:
    report = listed(tmp_path, aisegment(tmp_path, CLIPS), test=text_list(tmp_path / "test.txt", line))
    assert [entry["id"] for entry in lines(tmp_path / "m" / "test.jsonl")] == found
    assert report.unlisted == [name for name in CLIPS if name not in found]


def test_a_clip_in_two_lists_straddles(tmp_path: Path) -> None:
    train, test = text_list(tmp_path / "a.txt", "1803-001"), text_list(tmp_path / "b.txt", "1803-002")
    report = listed(tmp_path, aisegment(tmp_path, CLIPS), train=train, test=test)
    assert report.straddling == [["train: 1803-001", "test: 1803-002"]]


def pairs(tmp_path: Path, name: str, *stems: str) -> Path:
    """A prepared dataset of photo-mask pairs with photos of its own."""
    for number, stem in enumerate(stems):
        seed = 20 * len(name) + number
        write(tmp_path / name / "photos" / f"{stem}.png", saved(photo(HEIGHT, WIDTH, seed), "PNG"))
        write(tmp_path / name / "masks" / f"{stem}.png", saved(ids(HEIGHT, WIDTH, 2), "PNG"))
    source = Pairs(tmp_path / name / "photos", tmp_path / name / "masks", label_map("binary", "mask"))
    convert(source, tmp_path / f"d_{name}", ConvertOptions(name, jobs=1))
    return tmp_path / f"d_{name}"


def test_a_prefixed_id_names_one_of_two_photos_that_share_a_name(tmp_path: Path) -> None:
    folders = [pairs(tmp_path, "one", "a", "b"), pairs(tmp_path, "other", "a", "c")]
    report = listed(tmp_path, *folders, test=text_list(tmp_path / "test.txt", "other-a"))
    assert [line["id"] for line in lines(tmp_path / "m" / "test.jsonl")] == ["other-a"]
    assert report.unlisted == ["one-a", "one-b", "other-c"]


def test_a_file_name_that_two_clips_share_is_refused_and_its_path_is_not(tmp_path: Path) -> None:
    for number, clip in enumerate(("00000000", "00000001")):
        write(tmp_path / "raw" / "clip_img" / "1803" / f"clip_{clip}" / "x.jpg", jpeg(number))
        write(tmp_path / "raw" / "matting" / "1803" / f"matting_{clip}" / "x.png", cut_out(soft(), number))
    convert(AISegment(tmp_path / "raw", 0.5), tmp_path / "d", ConvertOptions("clips", jobs=1))
    lists = {"test": text_list(tmp_path / "test.txt", "x.jpg")}
    with pytest.raises(SourceError, match=r"--list test: 'x.jpg' fits several samples \(.*\), expected one. List ids"):
        split([tmp_path / "d"], tmp_path / "m", LISTED, lists)
    listed(tmp_path, tmp_path / "d", test=text_list(tmp_path / "test.txt", "clip_00000001/x.jpg"))
    assert len(lines(tmp_path / "m" / "test.jsonl")) == 1


def test_a_photo_whose_name_is_that_of_another_ones_crop_can_be_listed(tmp_path: Path) -> None:
    for number, stem in enumerate(("a", "a-1")):
        write(tmp_path / "raw" / "images_data_crop" / f"{stem}.jpg", jpeg(number))
        write(tmp_path / "raw" / "images_mask" / f"{stem}_mask.mat", mat(mask=mask_of(number)))
    dataset = prepared(tmp_path / "raw", tmp_path / "d", "crops")
    train, test = text_list(tmp_path / "a.txt", "a.jpg"), text_list(tmp_path / "b.txt", "a-1.jpg")
    listed(tmp_path, dataset, train=train, test=test)
    assert [line["id"] for line in lines(tmp_path / "m" / "test.jsonl")] == ["a-1-0", "a-1-1"]


def test_the_lists_that_split_writes_can_be_read_back(tmp_path: Path, dataset: Path) -> None:
    split([dataset], tmp_path / "m", SplitOptions(test=2), text_lists=True)
    lists = {name: tmp_path / "m" / f"{name}.txt" for name in ("train", "test")}
    report = split([dataset], tmp_path / "n", LISTED, lists)
    assert (report.missing, report.unlisted) == ([], [])
    for name in lists:
        assert (tmp_path / "n" / f"{name}.jsonl").read_bytes() == (tmp_path / "m" / f"{name}.jsonl").read_bytes()


def test_every_split_may_have_a_list(tmp_path: Path, dataset: Path) -> None:
    names = {name: text_list(tmp_path / f"{name}.txt", f"{i:05d}") for i, name in enumerate(SPLITS, 1)}
    report = listed(tmp_path, dataset, **names)
    assert {name: groups(tmp_path / "m", name) for name in report.splits} == {
        name: [f"{i:05d}"] for i, name in enumerate(SPLITS, 1)
    }


def coco(root: Path, names: dict[int, str]) -> Path:
    """COCO images by id, whose ids are other images' names."""
    found = instances(list(names.values()), [])
    found["images"] = [image | {"id": number} for image, number in zip(found["images"], names, strict=True)]
    for seed, name in enumerate(names.values()):
        write(root / "images" / name, jpeg(seed))
    write(root / "instances.json", json.dumps(found).encode())
    source = Coco(root / "instances.json", root / "images", category_map(None, ("person",)))
    convert(source, root / "d", ConvertOptions("coco", jobs=1))
    return root / "d"


@pytest.mark.parametrize(("line", "found"), [("1", "1"), ("1.jpg", "1"), ("7", "30"), ("30", "30")])
def test_a_name_means_the_photo_of_that_name_before_the_image_of_that_id(tmp_path: Path, line: str, found: str) -> None:
    dataset = coco(tmp_path, {1: "2.jpg", 2: "1.jpg", 7: "30.jpg"})
    listed(tmp_path, dataset, train=text_list(tmp_path / "a.txt", line))
    assert [sample["id"] for sample in lines(tmp_path / "m" / "train.jsonl")] == [found]


def test_a_file_name_is_no_image_id(tmp_path: Path) -> None:
    dataset = coco(tmp_path, {7: "30.jpg", 8: "31.jpg"})
    report = listed(tmp_path, dataset, train=text_list(tmp_path / "a.txt", "31.jpg", "7.jpg"))
    assert (report.splits, report.missing) == ({"train": 1}, ["7.jpg"])


def test_a_path_into_another_clip_is_missing_and_not_found_by_its_end(tmp_path: Path) -> None:
    dataset = aisegment(tmp_path, {"y": "00", "z": "01"})
    line = "matting_human_half/clip_img/9999/clip_00/y.jpg"
    report = listed(tmp_path, dataset, train=text_list(tmp_path / "a.txt", "clip_img/1803/clip_01/z.jpg", line))
    assert (report.splits, report.missing) == ({"train": 1}, [line])


@pytest.mark.parametrize("line", ["00001 00002 00003", "00001.jpg 00002.jpg", "images_data_crop/00001.jpg 00002"])
def test_two_names_on_one_line_are_refused(tmp_path: Path, line: str, shape: str) -> None:
    dataset = prepared(portraits(tmp_path / "raw", range(1, 4)), tmp_path / "d", shape)
    with pytest.raises(SourceError, match=r"--list test: .* names 0000\S* and 0000\S*, expected one name a line"):
        split([dataset], tmp_path / "m", LISTED, {"test": text_list(tmp_path / "a.txt", line)})


@pytest.mark.parametrize("line", ["00001.jpg\t00001_mask.png", "00001 masks/00001.png", "images_data_crop/00001.jpg 1"])
def test_an_image_and_its_mask_are_one_name(tmp_path: Path, line: str) -> None:
    dataset = prepared(portraits(tmp_path / "raw", range(1, 4)), tmp_path / "d", "whole")
    assert listed(tmp_path, dataset, test=text_list(tmp_path / "a.txt", line)).splits == {"test": 1}


def test_a_list_without_line_ends_is_refused_at_once(tmp_path: Path) -> None:
    dataset = prepared(portraits(tmp_path / "raw", [1]), tmp_path / "d", "whole")
    with pytest.raises(SourceError, match=r"has a line of .* characters, expected a name a line"):
        split([dataset], tmp_path / "m", LISTED, {"test": text_list(tmp_path / "a.txt", "00001 " * 60_000)})


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_is_no_list(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    dataset = prepared(portraits(tmp_path / "raw", [1]), tmp_path / "d", "whole")
    with pytest.raises(SourceError, match="not a regular file"):
        split([dataset], tmp_path / "m", LISTED, {"test": tmp_path / "a.txt"})


def test_a_list_that_names_nothing_is_named(tmp_path: Path) -> None:
    dataset = prepared(portraits(tmp_path / "raw", range(1, 4)), tmp_path / "d", "whole")
    with pytest.raises(JobFailed, match=r"--list test=.*a\.txt: none of its lines names one of the 3 samples"):
        split([dataset], tmp_path / "m", LISTED, {"test": text_list(tmp_path / "a.txt", "foo")})


def test_a_number_smaller_than_every_group_is_answered_with_their_size(tmp_path: Path) -> None:
    dataset = prepared(portraits(tmp_path / "raw", range(1, 4)), tmp_path / "d", "crops")
    with pytest.raises(JobFailed, match=r"--test 2\), or lists\. Groups have up to 2 samples"):
        split([dataset], tmp_path / "m", SplitOptions(test=1))
