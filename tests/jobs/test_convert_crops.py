"""convert with crops: every sample is a window of its photo, and says which."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segdata.errors import JobFailed
from segdata.formats import images
from segdata.formats.files import sha256_file
from segdata.jobs.convert import ConvertOptions, convert, plan
from segdata.jobs.verify import verify
from segdata.sources.pfcn import Pfcn
from segdata.transforms.crop import Crop
from segdata.transforms.resize import resize_nearest
from tests.folders import lines, segdata, tree
from tests.material import Pixels, exif, opened, photo, saved
from tests.sources.layouts import mat, write

HEIGHT, WIDTH, SIDE = 80, 60, 32
CROP = Crop(3, SIDE)


def person(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """(H, W) of 0 and 1: a head and shoulders with a hole, alike in no two windows."""
    rows, columns = np.mgrid[0:height, 0:width]
    head = (rows - height * 0.3) ** 2 + (columns - width * 0.45) ** 2 < (width * 0.2) ** 2
    body = (rows > height * 0.5) & (np.abs(columns - width * 0.5) < rows * 0.4) & (rows % 7 > 0)
    return (head | body).astype(np.uint8)


def crops(**options: Any) -> ConvertOptions:
    return ConvertOptions("portraits", **({"jobs": 1, "crop": CROP} | options))


def one(root: Path, data: bytes, name: str = "00001.png", mask: Pixels | None = None) -> Pfcn:
    """The published layout with one photo of those bytes."""
    write(root / "images_data_crop" / name, data)
    write(root / "images_mask" / f"{Path(name).stem}_mask.mat", mat(mask=person() if mask is None else mask))
    return Pfcn(root)


def several(root: Path, count: int = 4) -> Pfcn:
    """JPEG photos, each of its own colours."""
    for number in range(count):
        one(root, saved(photo(HEIGHT, WIDTH, number * 9), "JPEG"), f"{number:05d}.jpg")
    return Pfcn(root)


@dataclass(frozen=True)
class Cut:
    """One sample as it was written, and the box that it says it is."""

    line: dict[str, Any]
    image: npt.NDArray[Any]
    label: npt.NDArray[Any]

    def window(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        x, y, w, h = self.line["crop"]
        return pixels[y : y + h, x : x + w]


def written(out: Path) -> Iterator[Cut]:
    for line in lines(out / "samples.jsonl"):
        label = opened((out / line.get("mask", line.get("matte"))).read_bytes())
        yield Cut(line, opened((out / line["image"]).read_bytes()), label)


def area_average(pixels: npt.NDArray[Any], side: int) -> npt.NDArray[np.float64]:
    """(side, side[, C]) by the definition: each pixel the mean of the area that it covers, parts of pixels by share."""
    size = len(pixels)
    edges = np.arange(side + 1) * size / side
    weights = np.clip(
        np.minimum(edges[1:, None], np.arange(1, size + 1)) - np.maximum(edges[:-1, None], np.arange(size)), 0, None
    )
    weights *= side / size
    return np.einsum("ij,jk...,lk->il...", weights, pixels.astype(float), weights)


# ---- what is written


def test_every_photo_becomes_as_many_samples_in_its_own_group(tmp_path: Path) -> None:
    source = several(tmp_path / "raw")
    report = convert(source, tmp_path / "out", crops())
    found = lines(tmp_path / "out" / "samples.jsonl")
    assert report.samples == plan(source, tmp_path / "other", crops()).samples == 12
    assert [line["id"] for line in found] == [f"{photo:05d}-{number}" for photo in range(4) for number in range(3)]
    assert [line["group"] for line in found] == [f"{photo:05d}" for photo in range(4) for _ in range(3)]
    assert {(line["height"], line["width"]) for line in found} == {(SIDE, SIDE)}
    assert report.rejected == {}


def test_the_boxes_are_those_of_the_options(tmp_path: Path) -> None:
    convert(several(tmp_path / "raw", 1), tmp_path / "out", crops())
    assert [cut.line["crop"] for cut in written(tmp_path / "out")] == [
        list(box) for box in CROP.boxes("00000", person() == 1)
    ]


def test_the_raw_photo_that_a_crop_is_of_is_told_by_its_bytes(tmp_path: Path) -> None:
    source = several(tmp_path / "raw")
    convert(source, tmp_path / "out", crops())
    for cut in written(tmp_path / "out"):
        raw = tmp_path / "raw" / "images_data_crop" / f"{cut.line['group']}.jpg"
        assert cut.line["source_sha256"] == sha256_file(raw)
        assert cut.line["image_sha256"] == sha256_file(tmp_path / "out" / cut.line["image"])
        assert cut.line["image_sha256"] != cut.line["source_sha256"]


@pytest.mark.parametrize("seed", range(3))
def test_masks_are_the_nearest_neighbours_of_their_window(tmp_path: Path, seed: int) -> None:
    convert(several(tmp_path / "raw", 2), tmp_path / "out", crops(crop=Crop(4, SIDE, seed)))
    for cut in written(tmp_path / "out"):
        np.testing.assert_array_equal(cut.label, resize_nearest(cut.window(person()), SIDE, SIDE))
        assert cut.line["class_pixels"] == {
            "background": int((cut.label == 0).sum()),
            "person": int((cut.label == 1).sum()),
        }
        assert "enlarged_from" not in cut.line


@pytest.mark.parametrize("colour", [True, False], ids=["colour", "grey"])
def test_pictures_are_the_area_average_of_their_window(tmp_path: Path, colour: bool) -> None:
    pixels = photo(HEIGHT, WIDTH) if colour else photo(HEIGHT, WIDTH)[:, :, 0].copy()
    convert(one(tmp_path / "raw", saved(pixels, "PNG")), tmp_path / "out", crops(crop=Crop(8, SIDE)))
    for cut in written(tmp_path / "out"):
        assert cut.line["image"] == f"images/{cut.line['id']}.png"
        assert cut.image.ndim == pixels.ndim
        assert np.abs(cut.image - area_average(cut.window(pixels), SIDE)).max() <= 1


def test_a_window_of_the_size_of_a_crop_keeps_every_pixel(tmp_path: Path) -> None:
    pixels = photo(SIDE, 90)
    convert(one(tmp_path / "raw", saved(pixels, "PNG"), mask=person(SIDE, 90)), tmp_path / "out", crops())
    for cut in written(tmp_path / "out"):
        np.testing.assert_array_equal(cut.image, cut.window(pixels))
        np.testing.assert_array_equal(cut.label, cut.window(person(SIDE, 90)))


def test_jpeg_photos_give_jpeg_crops_that_are_close(tmp_path: Path) -> None:
    convert(several(tmp_path / "raw", 1), tmp_path / "out", crops())
    pixels = opened((tmp_path / "raw" / "images_data_crop" / "00000.jpg").read_bytes())
    for cut in written(tmp_path / "out"):
        assert cut.line["image"].endswith(".jpg")
        assert np.abs(cut.image - area_average(cut.window(pixels), SIDE)).mean() < 4


def test_grey_jpeg_photos_stay_grey(tmp_path: Path) -> None:
    convert(one(tmp_path / "raw", saved(photo(HEIGHT, WIDTH)[:, :, 0], "JPEG"), "1.jpg"), tmp_path / "out", crops())
    assert {cut.image.shape for cut in written(tmp_path / "out")} == {(SIDE, SIDE)}
    assert not verify(tmp_path / "out", jobs=1).faults


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_crop_of_a_turned_photo_is_of_the_upright_one(tmp_path: Path, kind: str) -> None:
    lying = np.rot90(photo(HEIGHT, WIDTH), 1)  # 6: turn clockwise to bring it upright
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(lying, kind, exif=exif(6), **options)
    upright = np.rot90(opened(data), -1)
    source = one(tmp_path / "raw", data, f"00001.{kind.lower()}")
    report = convert(source, tmp_path / "out", crops())
    assert report.notes["photos turned by their EXIF orientation"] == 1
    for cut in written(tmp_path / "out"):
        assert cut.line["exif_orientation"] == 6
        assert np.abs(cut.image - area_average(cut.window(upright), SIDE)).mean() < (4 if kind == "JPEG" else 1)
        np.testing.assert_array_equal(cut.label, resize_nearest(cut.window(person()), SIDE, SIDE))
        assert b"Exif" not in (tmp_path / "out" / cut.line["image"]).read_bytes()
    assert not verify(tmp_path / "out", jobs=1).faults


@pytest.mark.parametrize(("size", "side"), [((20, 40), 20), ((40, 20), 20), ((24, 24), 24)])
def test_a_photo_smaller_than_a_crop_is_enlarged_and_told(tmp_path: Path, size: tuple[int, int], side: int) -> None:
    source = one(tmp_path / "raw", saved(photo(*size), "PNG"), mask=person(*size))
    report = convert(source, tmp_path / "out", crops())
    assert report.notes["crops enlarged, since the photo is smaller"] == 3
    for cut in written(tmp_path / "out"):
        assert cut.line["crop"][2:] == cut.line["enlarged_from"] == [side, side]
        assert cut.image.shape == (SIDE, SIDE, 3)
        np.testing.assert_array_equal(cut.label, resize_nearest(cut.window(person(*size)), SIDE, SIDE))
    assert not verify(tmp_path / "out", jobs=1).faults


@pytest.mark.parametrize("white", [255, 65535])
def test_mattes_are_averaged_and_keep_their_depth(tmp_path: Path, white: int) -> None:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    alpha = (rows * columns * white // (HEIGHT * WIDTH)).astype(np.uint8 if white == 255 else np.uint16)
    write(tmp_path / "raw" / "a.png", saved(photo(HEIGHT, WIDTH), "PNG"))
    write(tmp_path / "raw" / "a_matte.png", saved(alpha, "PNG"))
    convert(Pfcn(tmp_path / "raw"), tmp_path / "out", crops())
    for cut in written(tmp_path / "out"):
        assert cut.line["matte"] == f"mattes/{cut.line['id']}.png"
        assert cut.label.dtype == alpha.dtype
        assert np.abs(cut.label - area_average(cut.window(alpha), SIDE)).max() <= 1
        assert (cut.window(alpha) > white / 2).mean() >= CROP.min_person or cut.line["crop"][2] == SIDE
    assert not verify(tmp_path / "out", jobs=1).faults


def test_mattes_cut_by_a_threshold_are_masks_of_their_window(tmp_path: Path) -> None:
    rows = np.repeat(np.arange(HEIGHT, dtype=np.uint8)[:, None] * 3, WIDTH, axis=1)
    write(tmp_path / "raw" / "a.png", saved(photo(HEIGHT, WIDTH), "PNG"))
    write(tmp_path / "raw" / "a_matte.png", saved(rows, "PNG"))
    convert(Pfcn(tmp_path / "raw", threshold=0.5), tmp_path / "out", crops())
    for cut in written(tmp_path / "out"):
        np.testing.assert_array_equal(cut.label, resize_nearest(cut.window(rows >= 127.5), SIDE, SIDE))


def test_a_photo_without_a_person_still_gives_its_crops(tmp_path: Path) -> None:
    nobody = np.zeros((HEIGHT, WIDTH), np.uint8)
    report = convert(one(tmp_path / "raw", saved(photo(HEIGHT, WIDTH), "PNG"), mask=nobody), tmp_path / "out", crops())
    assert report.samples == 3
    assert report.class_pixels == {"background": 3 * SIDE * SIDE, "person": 0}


# ---- what is told of it


def test_pixels_by_class_are_summed_over_the_crops(tmp_path: Path) -> None:
    report = convert(several(tmp_path / "raw"), tmp_path / "out", crops())
    total = sum(int(cut.label.sum()) for cut in written(tmp_path / "out"))
    assert report.class_pixels == {"background": 12 * SIDE * SIDE - total, "person": total}
    record = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert record["counts"] == {"samples": 12, "rejected": {}, "class_pixels": report.class_pixels}


def test_the_options_that_placed_the_crops_are_recorded(tmp_path: Path) -> None:
    convert(several(tmp_path / "raw", 1), tmp_path / "out", crops(crop=Crop(2, 16, 7, 0.25)))
    recorded = json.loads((tmp_path / "out" / "dataset.json").read_text())["source"]["options"]
    assert recorded == {
        "layout": "published",
        "threshold": None,
        "unmapped": "reject",
        "resize_masks": False,
        "copy_images": False,
        "crops": 2,
        "size": 16,
        "seed": 7,
        "min_person": 0.25,
    }


def test_a_photo_that_cannot_be_read_is_one_rejected_line_and_leaves_no_crop(tmp_path: Path) -> None:
    source = several(tmp_path / "raw")
    path = tmp_path / "raw" / "images_data_crop" / "00002.jpg"
    path.write_bytes(path.read_bytes()[:-30])
    report = convert(source, tmp_path / "out", crops(max_rejected=0.5))
    assert (report.samples, report.rejected) == (9, {"truncated": 1})
    assert not list((tmp_path / "out").rglob("00002*"))


# ---- the folder


@pytest.mark.parametrize("copy_images", [False, True])
def test_verify_finds_no_fault_in_crops_and_finds_a_changed_one(tmp_path: Path, copy_images: bool) -> None:
    out = tmp_path / "out"
    convert(several(tmp_path / "raw"), out, crops(copy_images=copy_images))
    assert not verify(out, jobs=1).faults
    (out / "images" / "00001-2.jpg").write_bytes((out / "images" / "00001-1.jpg").read_bytes())
    (fault,) = verify(out, jobs=1).faults
    assert fault.sample == "00001-2"


def test_crops_need_their_raw_photos_no_more(tmp_path: Path) -> None:
    convert(several(tmp_path / "raw"), tmp_path / "out", crops())
    (tmp_path / "raw").rename(tmp_path / "gone")
    assert not verify(tmp_path / "out", jobs=1).faults


def test_bytes_depend_on_neither_jobs_nor_run(tmp_path: Path) -> None:
    source = several(tmp_path / "raw", 20)
    convert(source, tmp_path / "one", crops())
    convert(source, tmp_path / "two", crops(jobs=2))
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_another_seed_gives_other_crops(tmp_path: Path) -> None:
    source = several(tmp_path / "raw", 2)
    for seed in (0, 1):
        convert(source, tmp_path / str(seed), crops(crop=Crop(3, SIDE, seed)))
    first, second = ([cut.line["crop"] for cut in written(tmp_path / str(seed))] for seed in (0, 1))
    assert not {tuple(box) for box in first} & {tuple(box) for box in second}


def test_a_photo_has_the_same_crops_whatever_lies_beside_it(tmp_path: Path) -> None:
    convert(several(tmp_path / "a", 1), tmp_path / "one", crops())
    convert(several(tmp_path / "b", 3), tmp_path / "three", crops())
    assert lines(tmp_path / "three" / "samples.jsonl")[:3] == lines(tmp_path / "one" / "samples.jsonl")


# ---- the command


def test_crops_0_keeps_photos_whole_and_their_bytes(tmp_path: Path) -> None:
    source = several(tmp_path / "raw", 2)
    done = segdata("convert", "pfcn", tmp_path / "raw", "--crops", "0", "--out", tmp_path / "whole", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    for line in lines(tmp_path / "whole" / "samples.jsonl"):
        raw = tmp_path / "raw" / "images_data_crop" / f"{line['id']}.jpg"
        assert line["image_sha256"] == sha256_file(raw)
        assert images.decode_mask((tmp_path / "whole" / line["mask"]).read_bytes()).tolist() == person().tolist()
        assert not {"crop", "source_sha256", "enlarged_from"} & set(line)
    recorded = json.loads((tmp_path / "whole" / "dataset.json").read_text())["source"]["options"]
    assert not {"crops", "size", "seed", "min_person"} & set(recorded)
    assert source.find().entries


def test_the_command_cuts_as_the_job_does(tmp_path: Path) -> None:
    options = ["--crops", "3", "--size", "32", "--seed", "4", "--min-person", "0.1", "--jobs", "1"]
    convert(several(tmp_path / "raw", 2), tmp_path / "job", ConvertOptions("pfcn", jobs=1, crop=Crop(3, 32, 4, 0.1)))
    done = segdata("convert", "pfcn", tmp_path / "raw", "--out", tmp_path / "command", *options)
    assert done.returncode == 0, done.stderr
    assert tree(tmp_path / "command") == tree(tmp_path / "job")


@pytest.mark.parametrize("jobs", [1, 2])
def test_lines_are_sorted_by_the_crops_ids_whatever_the_photos_are_called(tmp_path: Path, jobs: int) -> None:
    for name in ("a", "a-1", "b"):
        one(tmp_path / "raw", saved(photo(HEIGHT, WIDTH, len(name)), "JPEG"), f"{name}.jpg")
    report = convert(Pfcn(tmp_path / "raw"), tmp_path / "out", crops(crop=Crop(12, SIDE), jobs=jobs))
    ids = [line["id"] for line in lines(tmp_path / "out" / "samples.jsonl")]
    assert ids == sorted(ids)
    assert len(set(ids)) == report.samples == 36
    assert not verify(tmp_path / "out", jobs=1).faults


def test_equal_crops_are_counted(tmp_path: Path) -> None:
    source = one(tmp_path / "raw", saved(photo(24, 24), "PNG"), mask=person(24, 24))
    report = convert(source, tmp_path / "out", crops(crop=Crop(4, SIDE)))
    assert report.notes["crops equal to another of their photo"] == 3


def test_a_share_of_rejected_photos_is_not_watered_down_by_crops(tmp_path: Path) -> None:
    source = several(tmp_path / "raw", 10)
    (tmp_path / "raw" / "images_data_crop" / "00003.jpg").write_bytes(b"no picture")
    with pytest.raises(JobFailed, match=r"1 of 10 samples rejected \(10.0%\)"):
        convert(source, tmp_path / "out", crops())
