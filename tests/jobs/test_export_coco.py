"""export-coco: COCO annotations that any reader takes, and that give back the same masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from segdata.errors import FolderError, JobFailed, OptionError, SourceError
from segdata.formats import coco_masks
from segdata.formats.images import decode_mask, encode_mask
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.export_coco import ExportReport, export_coco
from segdata.labels import category_map, label_map
from segdata.sources.coco import Coco
from segdata.sources.pairs import Pairs
from segdata.transforms.crop import Crop
from tests.folders import Made, lines, small_pairs, tree
from tests.material import Pixels, decoded_rle, exif, ids, photo, saved
from tests.sources.layouts import RAW, write

ONE = ConvertOptions("made", jobs=1)


def index_pairs(root: Path, mask: Pixels, classes: int = 4) -> Path:
    """A prepared dataset of one photo whose mask is ``mask`` (255 is ignored)."""
    names = ["background", *(f"part {i}" for i in range(1, classes))]
    toml = 'ignore = [255]\nname = "parts"\n' + "".join(f'[[classes]]\nname = "{name}"\n' for name in names)
    write(root / "parts.toml", toml.encode())
    write(root / "photos" / "a.jpg", saved(photo(*mask.shape), "JPEG"))
    write(root / "masks" / "a.png", encode_mask(mask))
    source = Pairs(root / "photos", root / "masks", label_map(str(root / "parts.toml"), ""), "index")
    convert(source, root / "prepared", ONE)
    return root / "prepared"


def back(root: Path, report: ExportReport, categories: tuple[str, ...] = ("person",)) -> Path:
    """What ``convert coco`` makes of an exported file."""
    source = Coco(report.out, report.folder, category_map(None, categories), categories)
    convert(source, root / "back", ConvertOptions("back", jobs=1))
    return root / "back"


def same_masks(one: Path, other: Path) -> bool:
    first, second = (
        {line["id"]: line["mask_sha256"] for line in lines(folder / "samples.jsonl")} for folder in (one, other)
    )
    assert len(first) > 0
    return first == second


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("per", ["person", "image"])
def test_masks_come_back_as_they_were(kept: Made, tmp_path: Path, per: str) -> None:
    report = export_coco(kept.dataset, tmp_path / "parts.json", per, jobs=1)
    assert report.images == 12
    categories = ("head", "upper_body", "both_hands", "lower_body")
    assert same_masks(kept.dataset, back(tmp_path, report, categories))


@pytest.mark.parametrize("per", ["person", "image"])
def test_ignored_pixels_come_back_as_ignored(tmp_path: Path, per: str) -> None:
    mask = ids(24, 32, 4)
    mask[3:9, 5:30] = 255
    mask[0, 0] = 255
    dataset = index_pairs(tmp_path, mask)
    report = export_coco(dataset, tmp_path / "a.json", per, jobs=1)
    assert report.crowds == 3  # one of each class
    made = back(tmp_path, report, ("part 1", "part 2", "part 3"))
    (line,) = lines(made / "samples.jsonl")
    np.testing.assert_array_equal(decode_mask((made / line["mask"]).read_bytes()), mask)


def test_crops_come_back_with_their_groups(tmp_path: Path) -> None:
    convert(RAW["pfcn"](tmp_path / "raw"), tmp_path / "d", ConvertOptions("d", jobs=1, crop=Crop(3, 16)))
    report = export_coco(tmp_path / "d", tmp_path / "d.json", jobs=1)
    made = back(tmp_path, report)
    assert same_masks(tmp_path / "d", made)
    groups = [
        {line["id"]: line["group"] for line in lines(folder / "samples.jsonl")} for folder in (tmp_path / "d", made)
    ]
    assert groups[1] == {sample: f"video-{group}" for sample, group in groups[0].items()}


def test_photos_in_two_folders_are_named_from_the_folder_of_both(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path)
    write(photos / "p1.jpg", saved(photo(40, 30), "JPEG", exif=exif(6)))  # turned, so stored anew in the dataset
    convert(Pairs(photos, masks, label_map("binary", "mask")), tmp_path / "d", ONE)
    report = export_coco(tmp_path / "d", tmp_path / "d.json", jobs=1)
    assert report.folder == tmp_path.resolve()
    names = {image["file_name"] for image in read(report.out)["images"]}
    assert {"photos/p0.jpg", "d/images/p1.png"} <= names
    assert same_masks(tmp_path / "d", back(tmp_path, report))


def test_each_person_that_stands_alone_is_an_annotation(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), np.uint8)
    mask[2:6, 3:8] = 1
    mask[6, 8] = 1  # by a corner
    mask[10:15, 20:24] = 1
    dataset = index_pairs(tmp_path, mask, classes=2)
    found = read(export_coco(dataset, tmp_path / "a.json", jobs=1).out)["annotations"]
    assert [(a["bbox"], a["area"], a["iscrowd"], a["category_id"]) for a in found] == [
        ([3, 2, 6, 5], 21, 0, 1),
        ([20, 10, 4, 5], 20, 0, 1),
    ]
    whole = read(export_coco(dataset, tmp_path / "b.json", "image", jobs=1).out)["annotations"]
    assert [(a["bbox"], a["area"]) for a in whole] == [([3, 2, 21, 13], 41)]


def test_a_picture_without_a_person_stays_as_a_negative(tmp_path: Path) -> None:
    report = export_coco(index_pairs(tmp_path, np.zeros((20, 30), np.uint8), 2), tmp_path / "a.json", jobs=1)
    assert (report.images, report.annotations) == (1, 0)
    assert read(report.out)["annotations"] == []
    assert same_masks(tmp_path / "prepared", back(tmp_path, report, ("part 1",)))


def test_pycocotools_reads_it(kept: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    coco = COCO(str(export_coco(kept.dataset, tmp_path / "a.json", "image", jobs=1).out))
    capsys.readouterr()
    for line in lines(kept.dataset / "samples.jsonl"):
        image = next(i for i in coco.imgs.values() if Path(i["file_name"]).stem == line["id"])
        mask = decode_mask((kept.dataset / line["mask"]).read_bytes())
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]])):
            rle = coco.annToRLE(annotation)
            drawn = decoded_rle(rle | {"counts": rle["counts"].encode()})
            np.testing.assert_array_equal(drawn == 1, mask == annotation["category_id"])


def test_licenses_are_kept(tmp_path: Path) -> None:
    source = RAW["coco"](tmp_path / "raw")
    path = tmp_path / "raw" / "instances.json"
    found = read(path) | {"licenses": [{"id": 4, "name": "CC BY"}]}
    found["images"][0]["license"] = 4
    path.write_text(json.dumps(found))
    convert(source, tmp_path / "d", ONE)
    made = read(export_coco(tmp_path / "d", tmp_path / "d.json", jobs=1).out)
    assert made["licenses"] == [{"id": 1, "name": "CC BY"}]
    assert [image.get("license") for image in made["images"]].count(1) == 1


def test_the_bytes_depend_on_nothing_but_the_dataset(kept: Made, tmp_path: Path) -> None:
    for jobs in (1, 2):
        export_coco(kept.dataset, tmp_path / str(jobs) / "a.json", jobs=jobs)
    assert len(set(tree(tmp_path).values())) == 1


def test_its_own_file_is_replaced_only_with_overwrite(kept: Made, tmp_path: Path) -> None:
    out = export_coco(kept.dataset, tmp_path / "a.json", jobs=1).out
    with pytest.raises(FolderError, match="exists already"):
        export_coco(kept.dataset, out, jobs=1)
    export_coco(kept.dataset, out, jobs=1, overwrite=True)


def test_anothers_file_is_never_replaced(kept: Made, tmp_path: Path) -> None:
    other = write(tmp_path / "a.json", b'{"images": []}')
    with pytest.raises(FolderError, match="is no file that export-coco wrote"):
        export_coco(kept.dataset, other, jobs=1, overwrite=True)
    assert other.read_bytes() == b'{"images": []}'


def test_it_writes_into_no_folder_of_segdatas(made: Made) -> None:
    with pytest.raises(FolderError, match="lies in"):
        export_coco(made.dataset, made.dataset / "a.json", jobs=1)


def test_mattes_and_other_folders_are_refused(tmp_path: Path, kept: Made) -> None:
    convert(RAW["aisegment"](tmp_path / "raw"), tmp_path / "d", ONE)
    with pytest.raises(SourceError, match="holds mattes, expected masks"):
        export_coco(tmp_path / "d", tmp_path / "a.json", jobs=1)
    with pytest.raises(FolderError, match=r"dataset\.json"):
        export_coco(kept.shards, tmp_path / "a.json", jobs=1)
    with pytest.raises(OptionError, match="--per 'class'"):
        export_coco(kept.dataset, tmp_path / "a.json", "class", jobs=1)


def test_a_mask_that_changed_since_is_named_and_nothing_is_written(made: Made, tmp_path: Path) -> None:
    line = lines(made.dataset / "samples.jsonl")[0]
    (made.dataset / line["mask"]).write_bytes(encode_mask(ids(8, 8, 2)))
    with pytest.raises(JobFailed, match=f"{line['id']}.*changed since"):
        export_coco(made.dataset, tmp_path / "a.json", jobs=1)
    assert not list(tmp_path.glob("a.json*"))


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.integers(0, 1)))
def test_regions_are_what_hangs_together(mask: Pixels) -> None:
    count, wanted = cv2.connectedComponents(mask, connectivity=8)
    found = [decoded_rle(rle) for rle in coco_masks.connected_regions(mask)]
    assert len(found) == count - 1
    assert {region.tobytes() for region in found} == {(wanted == i).astype(np.uint8).tobytes() for i in range(1, count)}
    firsts = [int(np.flatnonzero(region.ravel(order="F"))[0]) for region in found]
    assert firsts == sorted(firsts)


def test_ignored_pixels_stay_ignored_for_any_one_class(tmp_path: Path) -> None:
    mask = ids(24, 32, 4)
    mask[3:9] = 255
    report = export_coco(index_pairs(tmp_path, mask), tmp_path / "a.json", jobs=1)
    made = back(tmp_path, report, ("part 2",))
    (line,) = lines(made / "samples.jsonl")
    found = decode_mask((made / line["mask"]).read_bytes())
    np.testing.assert_array_equal(found == 255, mask == 255)
    np.testing.assert_array_equal(found == 1, mask == 2)


def test_edited_sample_lines_are_refused(made: Made, tmp_path: Path) -> None:
    path = made.dataset / "samples.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace('"width":', '"width":1', 1), encoding="utf-8")
    with pytest.raises(SourceError, match=r"its samples\.jsonl is not the one"):
        export_coco(made.dataset, tmp_path / "a.json", jobs=1)
