"""convert: what it writes, what it refuses, and that both depend on the input alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdata.errors import FolderError, JobFailed, OptionError
from segdata.formats import images, raw_pictures
from segdata.jobs.convert import ConvertOptions, ConvertReport, convert, plan
from segdata.labels import label_map, lookup_table
from segdata.sources.humanparsing import HumanParsing
from segdata.sources.pairs import Pairs
from tests.folders import lines, segdata, small_pairs, tree

ONE = ConvertOptions("people", jobs=1)


def humanparsing(root: Path, labels: str = "parts5") -> HumanParsing:
    return HumanParsing(root, label_map(labels, "humanparsing"))


def convert_pairs(root: Path, photos: Path, masks: Path, **options: object) -> ConvertReport:
    found = Pairs(photos, masks, label_map("binary", "mask"))
    return convert(found, root / "out", ConvertOptions("mine", jobs=1, **options))  # type: ignore[arg-type]


def rejected(out: Path) -> dict[str, str]:
    return {line["id"]: line["reason"] for line in lines(out / "rejected.jsonl")}


@pytest.mark.parametrize("labels", ["humanparsing", "binary", "parts5"])
def test_every_mask_is_grey_and_the_lookup_table_of_its_indices(raw_people: Path, tmp_path: Path, labels: str) -> None:
    convert(humanparsing(raw_people, labels), tmp_path / "out", ONE)
    table = lookup_table(label_map(labels, "humanparsing"))
    modes = set()
    for line in lines(tmp_path / "out" / "samples.jsonl"):
        raw = Image.open(raw_people / "SegmentationClassAug" / f"{line['id']}.png")
        stored = Image.open(tmp_path / "out" / line["mask"])
        modes.add(raw.mode)
        assert stored.mode == "L"
        assert (np.asarray(stored) == table[np.asarray(raw)]).all()
        counts = np.bincount(np.asarray(stored).ravel(), minlength=len(line["class_pixels"]))
        assert list(line["class_pixels"].values()) == counts.tolist()
    assert modes == {"L", "P"}


def test_palette_and_grey_labels_of_one_picture_give_the_same_bytes(raw_people: Path, tmp_path: Path) -> None:
    other = tmp_path / "grey"
    shutil.copytree(raw_people, other)
    for path in (other / "SegmentationClassAug").iterdir():
        path.write_bytes(images.encode_mask(raw_pictures.read_label(path.read_bytes()).values.astype(np.uint8)))
    convert(humanparsing(raw_people), tmp_path / "a", ONE)
    convert(humanparsing(other), tmp_path / "b", ONE)
    assert tree(tmp_path / "a" / "masks") == tree(tmp_path / "b" / "masks")


def test_bytes_depend_on_neither_jobs_nor_working_folder(raw_people: Path, tmp_path: Path) -> None:
    arguments = ["convert", "humanparsing", raw_people, "--labels", "parts5"]
    first = segdata(*arguments, "--out", tmp_path / "one", "--jobs", "1", cwd=raw_people)
    second = segdata(*arguments, "--out", "two", "--jobs", "2", cwd=tmp_path)
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_original_photos_stay_where_they_are(raw_people: Path, tmp_path: Path) -> None:
    convert(humanparsing(raw_people), tmp_path / "out", ONE)
    record = json.loads((tmp_path / "out" / "dataset.json").read_text())
    for line in lines(tmp_path / "out" / "samples.jsonl"):
        assert (tmp_path / "out" / record["image_root"] / line["image"]).is_file()
    assert not (tmp_path / "out" / "images").exists()


def test_copied_photos_keep_their_bytes(raw_people: Path, tmp_path: Path) -> None:
    convert(humanparsing(raw_people), tmp_path / "out", ConvertOptions("people", copy_images=True, jobs=1))
    for line in lines(tmp_path / "out" / "samples.jsonl"):
        original = raw_people / "JPEGImages" / f"{line['id']}.jpg"
        assert (tmp_path / "out" / line["image"]).read_bytes() == original.read_bytes()


def test_bad_samples_are_rejected_with_their_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path, 12)
    (photos / "p0.jpg").write_bytes((photos / "p0.jpg").read_bytes()[:-20])
    (photos / "p1.jpg").write_bytes(b"<html>not found</html>")
    Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(30, 40)).save(masks / "p2.png")
    Image.new("L", (20, 30)).save(masks / "p3.png")
    Image.new("RGBA", (40, 30)).save(masks / "p4.png")
    (masks / "p5.png").unlink()
    Image.new("RGB", (40, 30)).save(photos / "p6.png")
    (photos / "p7.jpg").unlink()
    report = convert_pairs(tmp_path, photos, masks, max_rejected=0.9)
    assert report.samples == 4
    assert rejected(tmp_path / "out") == {
        "p0": "truncated",
        "p1": "unreadable",
        "p2": "not-binary",
        "p3": "size-mismatch",
        "p4": "mask-mode",
        "p5.jpg": "no-mask",
        "p6.jpg": "ambiguous",
        "p6.png": "ambiguous",
        "p7.png": "no-image",
    }
    assert [line["id"] for line in lines(tmp_path / "out" / "samples.jsonl")] == ["p10", "p11", "p8", "p9"]


def test_too_many_rejected_fails_names_reasons_and_leaves_no_dataset(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path)
    (photos / "p0.jpg").write_bytes(b"")
    with pytest.raises(JobFailed, match=r"1 of 4 samples rejected \(25.0%\).*1 unreadable.*p0.jpg"):
        convert_pairs(tmp_path, photos, masks)
    assert rejected(tmp_path / "out") == {"p0": "unreadable"}
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert convert_pairs(tmp_path, photos, masks, max_rejected=0.25).samples == 3


def test_masks_without_a_photo_are_listed_but_do_not_count_as_lost(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path, 4)
    (photos / "p0.jpg").unlink()
    report = convert_pairs(tmp_path, photos, masks)
    assert (report.samples, report.rejected) == (3, {"no-image": 1})


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path, 1)
    (photos / "p0.jpg").write_bytes(b"x")
    with pytest.raises(JobFailed, match="no sample is left"):
        convert_pairs(tmp_path, photos, masks, max_rejected=1.0)


def test_an_id_that_the_map_does_not_name_is_refused_or_ignored(raw_people: Path, tmp_path: Path) -> None:
    root = tmp_path / "raw"
    shutil.copytree(raw_people, root)
    path = root / "SegmentationClassAug" / "person_001.png"
    ids = np.array(Image.open(path))
    ids[:2, :5] = 18
    Image.fromarray(ids).save(path)
    with pytest.raises(JobFailed, match=r"unmapped-id.*person_001.png: id 18 \(10 px\)"):
        convert(humanparsing(root), tmp_path / "out", ONE)
    convert(humanparsing(root), tmp_path / "out", ConvertOptions("people", unmapped="ignore", jobs=1))
    mask = np.asarray(Image.open(tmp_path / "out" / "masks" / "person_001.png"))
    assert (mask[:2, :5] == 255).all()
    assert (mask == 255).sum() == 10


def test_a_photo_is_turned_by_exif_once_and_stored_anew(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path, 2)
    upright = np.zeros((40, 30, 3), np.uint8)
    upright[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(upright)).save(photos / "p0.jpg", exif=exif.tobytes(), quality=95)
    Image.fromarray(np.zeros((40, 30), np.uint8)).save(masks / "p0.png")
    report = convert_pairs(tmp_path, photos, masks)
    line = lines(tmp_path / "out" / "samples.jsonl")[0]
    assert (line["exif_orientation"], line["height"], line["width"], line["image_root"]) == (6, 40, 30, ".")
    stored = images.decode_rgb((tmp_path / "out" / line["image"]).read_bytes())
    assert abs(stored.astype(int) - upright).max() < 40
    assert report.notes["photos turned by their EXIF orientation"] == 1


def test_a_mask_that_fits_only_the_stored_pixels_of_a_turned_photo_is_rejected(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path, 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(photos / "p0.jpg", exif=exif.tobytes())
    with pytest.raises(JobFailed, match="fits only the stored pixels"):
        convert_pairs(tmp_path, photos, masks)


def test_smaller_masks_are_resized_when_asked_and_noted(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path, 2)
    Image.open(masks / "p1.png").resize((20, 15), Image.Resampling.NEAREST).save(masks / "p1.png")
    with pytest.raises(JobFailed, match="--resize-masks"):
        convert_pairs(tmp_path, photos, masks)
    convert_pairs(tmp_path, photos, masks, resize_masks=True)
    line = lines(tmp_path / "out" / "samples.jsonl")[1]
    assert line["mask_resized_from"] == [15, 20]
    assert np.unique(Image.open(tmp_path / "out" / line["mask"])).tolist() == [0, 1]


@pytest.mark.parametrize("suffix", ["webp", "gif", "bmp", "tiff"])
def test_other_formats_become_png_and_are_noted(tmp_path: Path, suffix: str) -> None:
    photos, masks = small_pairs(tmp_path, 1)
    picture = Image.open(photos / "p0.jpg")
    (photos / "p0.jpg").unlink()
    picture.save(photos / f"p0.{suffix}")
    convert_pairs(tmp_path, photos, masks)
    line = lines(tmp_path / "out" / "samples.jsonl")[0]
    assert line["image"] == "images/p0.png"
    assert line["reencoded_from"].startswith(suffix)


def test_mattes_keep_their_depth(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path, 2)
    alpha = np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50
    Image.fromarray(alpha).save(masks / "p0.png")
    convert(Pairs(photos, masks, None, kind="matte"), tmp_path / "out", ConvertOptions("mine", jobs=1))
    stored = [images.decode_stored((tmp_path / "out" / f"mattes/p{i}.png").read_bytes()) for i in range(2)]
    assert (stored[0] == alpha).all()
    assert stored[1].dtype == np.uint8
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["label_map"] is None


def test_a_dry_run_writes_nothing(raw_people: Path, tmp_path: Path) -> None:
    report = plan(humanparsing(raw_people), tmp_path / "out", ONE)
    assert report.samples == 12
    assert not (tmp_path / "out").exists()


def test_nothing_is_replaced_unasked(raw_people: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(humanparsing(raw_people), out, ONE)
    before = tree(out)
    assert convert(humanparsing(raw_people), out, ONE).was_there
    with pytest.raises(FolderError, match=r"was made with --name 'people', now it is 'others'.*--overwrite"):
        convert(humanparsing(raw_people), out, ConvertOptions("others", jobs=1))
    assert tree(out) == before
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"notes\.txt"):
        convert(humanparsing(raw_people), out, ConvertOptions("people", jobs=1, overwrite=True))
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    convert(humanparsing(raw_people), out, ConvertOptions("people", jobs=1, overwrite=True))
    assert tree(out) == before


@pytest.mark.parametrize("what", ["a new pair", "a label of another size"])
def test_a_finished_dataset_of_other_raw_files_is_not_taken_for_theirs(
    raw_people: Path, tmp_path: Path, what: str
) -> None:
    root = Path(shutil.copytree(raw_people, tmp_path / "raw"))
    convert(humanparsing(root), tmp_path / "out", ONE)
    assert convert(humanparsing(root), tmp_path / "out", ONE).was_there
    labels, photos = root / "SegmentationClassAug", root / "JPEGImages"
    if what == "a new pair":
        shutil.copy(labels / "person_001.png", labels / "new.png")
        shutil.copy(photos / "person_001.jpg", photos / "new.jpg")
    else:
        Image.fromarray(np.zeros_like(np.array(Image.open(labels / "person_001.png")))).save(labels / "person_001.png")
    with pytest.raises(FolderError, match=r"was made with raw files \(names and sizes\) of sha256"):
        convert(humanparsing(root), tmp_path / "out", ONE)


def test_a_wrong_option_costs_nothing(raw_people: Path, tmp_path: Path) -> None:
    convert(humanparsing(raw_people), tmp_path / "out", ONE)
    before = tree(tmp_path / "out")
    with pytest.raises(OptionError, match="--jobs 0"):
        convert(humanparsing(raw_people), tmp_path / "out", ConvertOptions("people", jobs=0, overwrite=True))
    assert tree(tmp_path / "out") == before


def test_ignored_pixels_are_reported(raw_people: Path, tmp_path: Path) -> None:
    source = Pairs(
        raw_people / "JPEGImages", raw_people / "SegmentationClassAug", label_map("binary", "mask"), kind="index"
    )
    report = convert(source, tmp_path / "out", ConvertOptions("people", unmapped="ignore", jobs=1))
    assert report.ignored_pixels > 0
    assert report.notes["masks with ignored pixels (255)"] == 12


@pytest.mark.parametrize("folder", ["/abs", "../JPEGImages", "", ".", "JPEGImages/"])
def test_folder_names_stay_below_the_root(raw_people: Path, folder: str) -> None:
    with pytest.raises(OptionError, match="--images"):
        HumanParsing(raw_people, label_map("binary", "humanparsing"), images=folder)


def test_raw_input_is_never_changed(raw_people: Path, tmp_path: Path) -> None:
    before = tree(raw_people)
    convert(humanparsing(raw_people), tmp_path / "out", ONE)
    assert tree(raw_people) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [({"name": "My Set"}, "snake_case"), ({"unmapped": "x"}, "--unmapped"), ({"max_rejected": 2.0}, "--max-rejected")],
)
def test_options_say_what_they_expect(options: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ConvertOptions(**({"name": "x"} | options))
