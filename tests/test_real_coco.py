"""Real COCO files, where they lie beside the checkout (``../shared/data``): masks as pycocotools makes them."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from pycocotools import mask as pycoco
from pycocotools.coco import COCO

from segdata.errors import ImageRefused, SourceError
from segdata.formats import coco_json, coco_masks, images
from segdata.formats.coco_json import Annotation
from segdata.jobs.convert import ConvertOptions, convert
from segdata.labels import category_map
from segdata.sources.coco import Coco
from tests.folders import lines
from tests.material import Pixels, decoded_rle

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real sample data beside this checkout (../shared/data)")
SETS = [
    ("coco_tiny/annotations/instances_train2017.json", "coco_tiny/images/train2017"),
    ("coco_tiny/annotations/instances_val2017.json", "coco_tiny/images/val2017"),
    ("coco128_subset/annotations/instances_train2017.json", "coco128_subset/train2017"),
]
QUIRKS = DATA / "coco_json_quirks"
ONE = ConvertOptions("real", jobs=1)


def reference(path: Path) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def union(coco: COCO, image: dict[str, Any], category: str, iscrowd: tuple[int, ...]) -> Pixels:
    """(H, W) 1 where an annotation of the category is, by ``annToMask``."""
    numbers = [item["id"] for item in coco.dataset["categories"] if item["name"] == category]
    mask = np.zeros((image["height"], image["width"]), np.uint8)
    for item in coco.imgToAnns[image["id"]]:
        if item["category_id"] in numbers and item["iscrowd"] in iscrowd:
            mask |= ann_to_mask(coco, item)
    return mask


def ann_to_mask(coco: COCO, item: dict[str, Any]) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        mask: Pixels = coco.annToMask(item)
    return mask


@pytest.mark.parametrize("crowd", ["ignore", "include", "exclude"])
@pytest.mark.parametrize(("file", "folder"), SETS)
def test_every_person_mask_is_the_union_of_ann_to_mask(file: str, folder: str, crowd: str) -> None:
    coco = reference(DATA / file)
    source = Coco(DATA / file, DATA / folder, category_map(None, ("person",)), crowd=crowd)
    found = source.find()
    assert len(found.entries) == len(coco.dataset["images"])
    assert (found.rejected, found.ignored) == ([], {})
    for entry in found.entries:
        image = coco.imgs[int(entry.group)]
        assert entry.image == image["file_name"]
        people = union(coco, image, "person", (0, 1) if crowd == "include" else (0,))
        crowds = union(coco, image, "person", (1,)) * 255
        wanted = np.where(people == 1, 1, crowds if crowd == "ignore" else 0)
        np.testing.assert_array_equal(source.annotate(entry).values, wanted)


@pytest.mark.parametrize(("file", "folder"), SETS)
def test_all_categories_together_are_the_union_of_everything(file: str, folder: str) -> None:
    coco = reference(DATA / file)
    names = tuple(item["name"] for item in coco.dataset["categories"])
    source = Coco(DATA / file, DATA / folder, category_map(None, names), names, crowd="include")
    for entry in source.find().entries:
        image = coco.imgs[int(entry.group)]
        mask = source.annotate(entry).values
        every = sum((union(coco, image, name, (0, 1)) for name in names), np.zeros_like(mask))
        np.testing.assert_array_equal(mask > 0, every > 0)
        for i, name in enumerate(names, 1):
            assert not (mask == i).any() or (union(coco, image, name, (0, 1))[mask == i] == 1).all()


@pytest.mark.parametrize(("file", "folder"), SETS)
def test_converted_masks_are_the_same(tmp_path: Path, file: str, folder: str) -> None:
    coco = reference(DATA / file)
    source = Coco(DATA / file, DATA / folder, category_map(None, ("person",)))
    report = convert(source, tmp_path / "d", ONE)
    assert (report.samples, report.rejected) == (len(coco.dataset["images"]), {})
    licenses = {item["id"]: item["name"] for item in coco.dataset["licenses"]}
    for line in lines(tmp_path / "d" / "samples.jsonl"):
        image = coco.imgs[int(line["id"])]
        mask = images.decode_mask((tmp_path / "d" / line["mask"]).read_bytes())
        np.testing.assert_array_equal(mask == 1, union(coco, image, "person", (0,)) == 1)
        assert line["license"] == licenses[image["license"]]


def test_annotations_without_photos_are_rasterised_as_by_ann_to_mask() -> None:
    path = QUIRKS / "instances_val2014_subset.json"
    coco, found = reference(path), coco_json.read_instances(path)
    assert (len(found.annotations), found.problems) == (len(coco.anns), [])
    for item in found.annotations:
        image = coco.imgs[item.image_id]
        rle = coco_masks.rasterised(item, image["height"], image["width"])
        np.testing.assert_array_equal(decoded_rle(rle), ann_to_mask(coco, coco.anns[item.id]))


def test_compressed_strings_of_results_are_read_as_by_pycocotools() -> None:
    path = QUIRKS / "instances_val2014_fakesegm_results_subset.json"
    results = json.loads(path.read_bytes())
    assert results
    for item in results:
        segmentation = item["segmentation"]
        rle = coco_masks.rasterised(
            Annotation(7, 5, 1, msgspec.Raw(json.dumps(segmentation).encode())), *segmentation["size"]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            np.testing.assert_array_equal(decoded_rle(rle), pycoco.decode(segmentation))
        for cut in range(1, len(segmentation["counts"]), 97):
            short = segmentation | {"counts": segmentation["counts"][:-cut]}
            with pytest.raises(ImageRefused, match="bad-annotation"):
                coco_masks.rasterised(
                    Annotation(7, 5, 1, msgspec.Raw(json.dumps(short).encode())), *segmentation["size"]
                )


def test_a_file_of_results_is_no_instances_file() -> None:
    path = QUIRKS / "instances_val2014_fakesegm_results_subset.json"
    with pytest.raises(SourceError, match=r"a list, as of results, expected COCO instances JSON"):
        coco_json.read_instances(path)


def test_a_person_is_looked_up_by_name_where_category_1_is_a_cloud() -> None:
    path, folder = QUIRKS / "gt_dataset.json", QUIRKS / "images"
    with pytest.raises(SourceError, match="no category named 'person', expected one"):
        Coco(path, folder, category_map(None, ("person",))).find()
    coco = reference(path)
    source = Coco(path, folder, category_map(None, ("cloud",)), ("cloud",), crowd="include")
    for entry in source.find().entries:
        wanted = union(coco, coco.imgs[int(entry.group)], "cloud", (0, 1))
        np.testing.assert_array_equal(source.annotate(entry).values, wanted)


def test_an_image_whose_id_is_a_text_is_told() -> None:
    found = coco_json.read_instances(QUIRKS / "gt_ignore_test.json")
    assert [(problem.kind, problem.id) for problem in found.problems if problem.kind == "image"] == [("image", "2299")]
