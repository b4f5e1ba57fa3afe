"""split: manifests that are honest, complete and stable."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from segdata.errors import FolderError, JobFailed, OptionError, RecordError, SourceError
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.split import split
from segdata.labels import label_map
from segdata.records import SplitOptions
from segdata.sources.humanparsing import HumanParsing
from tests.folders import Made, lines, tree


def prepared(raw: Path, out: Path, name: str = "people", labels: str = "parts5") -> Path:
    convert(HumanParsing(raw, label_map(labels, "humanparsing")), out, ConvertOptions(name, jobs=1))
    return out


def ids(manifest: Path) -> dict[str, list[str]]:
    return {path.stem: [line["id"] for line in lines(path)] for path in sorted(manifest.glob("*.jsonl"))}


def test_every_sample_stands_in_one_split_with_its_own_line(kept: Made) -> None:
    original = {line["id"]: line for line in lines(kept.dataset / "samples.jsonl")}
    found = [line for path in kept.manifest.glob("*.jsonl") for line in lines(path)]
    assert sorted(line["id"] for line in found) == sorted(original)
    assert all(line == original[line["id"]] for line in found)


def test_the_same_input_gives_the_same_bytes(kept: Made, tmp_path: Path) -> None:
    beside = kept.manifest.with_name("again")
    split([kept.dataset], beside, SplitOptions(test=3, validation=2), text_lists=True)
    assert tree(beside) == tree(kept.manifest)
    shutil.rmtree(beside)


def test_ordered_takes_the_last_names_for_test(kept: Made, tmp_path: Path) -> None:
    split([kept.dataset], tmp_path / "m", SplitOptions(method="ordered", test=5))
    found = ids(tmp_path / "m")
    assert found["train"] == [f"person_{i:03d}" for i in range(7)]
    assert found["test"] == [f"person_{i:03d}" for i in range(7, 12)]


def test_text_lists_hold_photo_and_mask_from_the_manifests_folder(kept: Made) -> None:
    for name in ("train", "test"):
        rows = [line.split() for line in (kept.manifest / f"{name}.txt").read_text().splitlines()]
        assert [Path(photo).stem for photo, _ in rows] == ids(kept.manifest)[name]
        assert all((kept.manifest / path).is_file() for row in rows for path in row)


def test_text_lists_of_merged_datasets_lead_into_each(raw_people: Path, tmp_path: Path) -> None:
    copied = tmp_path / "raw" / "people"
    shutil.copytree(raw_people, copied)
    folders = [prepared(raw_people, tmp_path / "a", "first"), prepared(copied, tmp_path / "b", "second")]
    split(folders, tmp_path / "m", SplitOptions(test=5), text_lists=True)
    rows = [line.split() for line in (tmp_path / "m" / "train.txt").read_text().splitlines()]
    found = ids(tmp_path / "m")["train"]
    roots = {"first": (raw_people / "JPEGImages", folders[0]), "second": (copied / "JPEGImages", folders[1])}
    for (photo, mask), sample in zip(rows, found, strict=True):
        (dataset, name), places = sample.split("-"), roots[sample.split("-")[0]]
        assert (tmp_path / "m" / photo).samefile(places[0] / f"{name}.jpg"), dataset
        assert (tmp_path / "m" / mask).samefile(places[1] / "masks" / f"{name}.png"), dataset


@pytest.mark.parametrize("image", ["JPEGImages/..", "JPEGImages/../../x.jpg", "/etc/passwd"])
def test_text_lists_name_nothing_outside_though_its_folder_is_known(
    raw_people: Path, tmp_path: Path, image: str
) -> None:
    dataset = prepared(raw_people, tmp_path / "d")
    data = (dataset / "samples.jsonl").read_text()
    (dataset / "samples.jsonl").write_text(data.replace("JPEGImages/person_011.jpg", image))
    with pytest.raises(RecordError, match=r"'person_011': path .* leaves its folder"):
        split([dataset], tmp_path / "m", SplitOptions(method="ordered", test=1), text_lists=True)


def test_text_lists_know_a_folder_from_a_photo_that_ends_in_a_dot(raw_people: Path, tmp_path: Path) -> None:
    dataset = prepared(raw_people, tmp_path / "d")
    data = (dataset / "samples.jsonl").read_text()
    (dataset / "samples.jsonl").write_text(data.replace("JPEGImages/person_000.jpg", "JPEGImages/."))
    split([dataset], tmp_path / "m", SplitOptions(method="ordered", test=1), text_lists=True)
    photos = [Path(line.split()[0]) for line in (tmp_path / "m" / "train.txt").read_text().splitlines()]
    assert photos[0] in {photo.parent for photo in photos[1:]}
    assert all((tmp_path / "m" / photo).is_file() for photo in photos[1:])


def test_lists_decide_and_what_they_miss_is_named(kept: Made, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("person_003\nJPEGImages/person_001.jpg\nperson_999\n")
    (tmp_path / "test.txt").write_text("person_005.jpg masks/person_005.png\n")
    lists = {"train": tmp_path / "train.txt", "test": tmp_path / "test.txt"}
    report = split([kept.dataset], tmp_path / "m", SplitOptions(method="listed"), lists)
    assert ids(tmp_path / "m") == {"train": ["person_003", "person_001"], "test": ["person_005"]}
    assert report.missing == ["person_999"]
    assert len(report.unlisted) == 9


def test_a_sample_in_two_lists_is_an_error(kept: Made, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("person_003\n")
    lists = {"train": tmp_path / "a.txt", "test": tmp_path / "a.txt"}
    with pytest.raises(SourceError, match=r"person_003.*train"):
        split([kept.dataset], tmp_path / "m", SplitOptions(method="listed"), lists)


def test_identical_photos_stay_together_or_are_reported(raw_people: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(raw_people, raw)
    for i in range(12):  # every person has a twin with another name
        for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClassAug", "png")):
            shutil.copy(raw / folder / f"person_{i:03d}.{suffix}", raw / folder / f"twin_{i:03d}.{suffix}")
    dataset = prepared(raw, tmp_path / "d")
    split([dataset], tmp_path / "hash", SplitOptions(test=0.4))
    side = {i: name for name, members in ids(tmp_path / "hash").items() for i in members}
    assert set(side.values()) == {"train", "test"}
    assert all(side[f"person_{i:03d}"] == side[f"twin_{i:03d}"] for i in range(12))
    report = split([dataset], tmp_path / "ordered", SplitOptions(method="ordered", test=0.5))
    assert len(report.straddling) == 12
    assert json.loads((tmp_path / "ordered" / "manifest.json").read_text())["straddling"] == report.straddling


def test_merged_datasets_prefix_ids_and_split_as_they_would_alone(raw_people: Path, tmp_path: Path) -> None:
    first, second = prepared(raw_people, tmp_path / "a", "first"), prepared(raw_people, tmp_path / "b", "second")
    split([first, second], tmp_path / "both", SplitOptions(test=0.3))
    split([first], tmp_path / "alone", SplitOptions(test=0.3))
    both, alone = ids(tmp_path / "both"), ids(tmp_path / "alone")
    assert [i for i in both["test"] if i.startswith("first-")] == [f"first-{i}" for i in alone["test"]]
    assert {line["dataset"] for line in lines(tmp_path / "both" / "train.jsonl")} == {"first", "second"}


def test_merging_refuses_different_classes_and_equal_names(raw_people: Path, tmp_path: Path) -> None:
    first = prepared(raw_people, tmp_path / "a", "first")
    binary = prepared(raw_people, tmp_path / "b", "second", "binary")
    same = prepared(raw_people, tmp_path / "c", "first")
    with pytest.raises(SourceError, match="one label map"):
        split([first, binary], tmp_path / "m", SplitOptions())
    with pytest.raises(SourceError, match="--name"):
        split([first, same], tmp_path / "m", SplitOptions())


def test_nothing_is_replaced_unasked_and_overwrite_leaves_nothing_old(kept: Made, tmp_path: Path) -> None:
    split([kept.dataset], tmp_path / "m", SplitOptions(test=3, validation=2), text_lists=True)
    with pytest.raises(FolderError, match="--overwrite"):
        split([kept.dataset], tmp_path / "m", SplitOptions())
    split([kept.dataset], tmp_path / "m", SplitOptions(test=4), overwrite=True)
    assert set(tree(tmp_path / "m")) == {"manifest.json", "train.jsonl", "test.jsonl"}


def test_a_split_far_from_what_was_asked_is_reported(raw_people: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    shutil.copytree(raw_people, raw)
    for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClassAug", "png")):
        for i in range(2, 12):  # eleven of one photo, and one of another
            shutil.copy(raw / folder / f"person_000.{suffix}", raw / folder / f"person_{i:03d}.{suffix}")
    report = split([prepared(raw, tmp_path / "d")], tmp_path / "m", SplitOptions(test=3))
    assert report.splits == {"train": 11, "test": 1}
    assert report.uneven == ["test has 1 samples, 3 were asked for: groups and identical photos stay whole."]


def test_an_empty_split_is_refused(kept: Made, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="--test 1"):
        split([kept.dataset], tmp_path / "m", SplitOptions(test=0.0001))
    with pytest.raises(JobFailed, match="split train"):
        split([kept.dataset], tmp_path / "m", SplitOptions(test=12))
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("options", "lists", "message"),
    [
        (SplitOptions(method="odd"), {}, "--method"),
        (SplitOptions(method="listed"), {}, "--list"),
        (SplitOptions(), {"train": "x.txt"}, "--list"),
        (SplitOptions(method="listed"), {"dev": "x.txt"}, "--list dev"),
        (SplitOptions(test=13), {}, "at most 12"),
        (SplitOptions(test=-0.5), {}, "--test -0.5"),
    ],
)
def test_options_say_what_they_expect(
    kept: Made, tmp_path: Path, options: SplitOptions, lists: dict[str, str], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        split([kept.dataset], tmp_path / "m", options, {name: Path(path) for name, path in lists.items()})
