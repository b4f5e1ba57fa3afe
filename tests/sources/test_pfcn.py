"""PFCN in both of its layouts: what is paired, what is not, and what its masks and mattes become."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import ImageRefused, JobFailed, OptionError, SourceError
from segdata.formats import images
from segdata.jobs.convert import ConvertOptions, convert, plan
from segdata.labels import label_map
from segdata.sources import Found
from segdata.sources.pfcn import Pfcn
from tests.folders import lines, tree
from tests.material import Pixels, ids, photo, saved
from tests.sources.layouts import HEIGHT, WIDTH, jpeg, mat, soft, write

ONE = ConvertOptions("portraits", jobs=1)
MASK = ids(HEIGHT, WIDTH, 2)


def published(root: Path, *stems: str, mask: Any = MASK) -> Pfcn:
    """The layout as published, with a photo and a mask of each stem."""
    for number, stem in enumerate(stems):
        write(root / "images_data_crop" / f"{stem}.jpg", jpeg(number))
        write(root / "images_mask" / f"{stem}_mask.mat", mat(mask=mask))
    return Pfcn(root)


def redistributed(root: Path, *stems: str, matte: Pixels | None = None, **options: Any) -> Pfcn:
    """The layout as redistributed: X.png beside X_matte.png."""
    for number, stem in enumerate(stems):
        write(root / f"{stem}.png", saved(photo(HEIGHT, WIDTH, number), "PNG"))
        write(root / f"{stem}_matte.png", saved(soft() if matte is None else matte, "PNG"))
    return Pfcn(root, **options)


def pairs(found: Found) -> list[tuple[str, str, str]]:
    return [(entry.id, entry.image, entry.label) for entry in found.entries]


def told(found: Found) -> list[tuple[str, str]]:
    return sorted((line.id, line.reason) for line in found.rejected)


def stored(out: Path, kind: str) -> dict[str, Any]:
    return {line["id"]: images.decode_stored((out / line[kind]).read_bytes()) for line in lines(out / "samples.jsonl")}


# ---- as published


def test_the_published_layout_pairs_a_photo_with_its_mat(tmp_path: Path) -> None:
    source = published(tmp_path, "00002", "00001")
    found = source.find()
    assert pairs(found) == [
        ("00001", "images_data_crop/00001.jpg", "images_mask/00001_mask.mat"),
        ("00002", "images_data_crop/00002.jpg", "images_mask/00002_mask.mat"),
    ]
    assert [entry.group for entry in found.entries] == ["00001", "00002"]
    assert (found.rejected, found.ignored) == ([], {})
    assert source.label_map == label_map("binary", "mask")
    assert source.options() == {"layout": "published", "threshold": None}


def test_published_masks_are_stored_as_they_are(tmp_path: Path) -> None:
    report = convert(published(tmp_path / "raw", "00001", "00002"), tmp_path / "out", ONE)
    assert (report.samples, report.rejected) == (2, {})
    for mask in stored(tmp_path / "out", "mask").values():
        np.testing.assert_array_equal(mask, MASK)


@pytest.mark.parametrize("dtype", ["bool", "u1", "f8", "i4"])
@pytest.mark.parametrize("white", [1, 255])
def test_masks_of_0_and_1_and_of_0_and_255_are_one(tmp_path: Path, dtype: str, white: int) -> None:
    source = published(tmp_path, "00001", mask=(MASK.astype(int) * white).astype(dtype))
    np.testing.assert_array_equal(source.annotate(source.find().entries[0]).values, MASK)


@pytest.mark.parametrize("value", [0, 1])
def test_masks_of_one_value_are_masks(tmp_path: Path, value: int) -> None:
    source = published(tmp_path, "00001", mask=np.full((HEIGHT, WIDTH), value, np.uint8))
    assert (source.annotate(source.find().entries[0]).values == value).all()


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (MASK * 2, "not-binary"),
        (MASK * 128, "not-binary"),
        (ids(HEIGHT, WIDTH, 3), "not-binary"),
        (np.array([[0, 1, 255]]), "not-binary"),
        (MASK * 0.5, "mask-mode"),
        (MASK * -1.0, "mask-mode"),
        (np.dstack([MASK] * 3), "mask-mode"),
        ("mask", "mask-mode"),
    ],
    ids=["0 and 2", "0 and 128", "three ids", "0, 1 and 255", "a half", "below 0", "three channels", "text"],
)
def test_masks_of_other_values_are_refused(tmp_path: Path, mask: Any, reason: str) -> None:
    source = published(tmp_path, "00001", mask=mask)
    with pytest.raises(ImageRefused) as caught:
        source.annotate(source.find().entries[0])
    assert caught.value.reason == reason


def test_a_mat_without_the_matrix_mask_is_refused(tmp_path: Path) -> None:
    source = published(tmp_path, "00001")
    write(tmp_path / "images_mask" / "00001_mask.mat", mat(trackedmask=MASK))
    with pytest.raises(ImageRefused, match="holds 'trackedmask', expected one 'mask'"):
        source.annotate(source.find().entries[0])


def test_masks_without_a_photo_are_told_but_never_too_many(tmp_path: Path) -> None:
    source = published(tmp_path / "raw", "00001")
    for number in range(2, 12):
        write(tmp_path / "raw" / "images_mask" / f"{number:05d}_mask.mat", mat(mask=MASK))
    report = convert(source, tmp_path / "out", ConvertOptions("portraits", max_rejected=0, jobs=1))
    assert (report.samples, report.rejected) == (1, {"no-image": 10})
    assert "no photo named 00002.*" in report.examples["no-image"]


def test_a_photo_without_a_mask_counts(tmp_path: Path) -> None:
    source = published(tmp_path / "raw", "00001")
    write(tmp_path / "raw" / "images_data_crop" / "00002.jpg", jpeg(7))
    assert told(source.find()) == [("00002.jpg", "no-mask")]
    with pytest.raises(JobFailed, match=r"1 no-mask \(first: 00002.jpg: no mask named 00002_mask"):
        convert(source, tmp_path / "out", ONE)


@pytest.mark.parametrize("shape", [(WIDTH, HEIGHT), (HEIGHT * 2, WIDTH * 2), (HEIGHT, WIDTH + 1)])
def test_a_mask_of_another_size_is_rejected_with_both_sizes(tmp_path: Path, shape: tuple[int, int]) -> None:
    source = published(tmp_path / "raw", "00001", mask=ids(*shape, 2))
    with pytest.raises(
        JobFailed, match=rf"1 size-mismatch .*mask is {shape[1]}x{shape[0]}, the photo {WIDTH}x{HEIGHT}"
    ):
        convert(source, tmp_path / "out", ONE)


def test_one_broken_mask_leaves_the_others(tmp_path: Path) -> None:
    source = published(tmp_path / "raw", *(f"{i:05d}" for i in range(5)))
    path = tmp_path / "raw" / "images_mask" / "00003_mask.mat"
    path.write_bytes(path.read_bytes()[:-9])
    report = convert(source, tmp_path / "out", ConvertOptions("portraits", max_rejected=0.2, jobs=1))
    assert (report.samples, report.rejected) == (4, {"unreadable": 1})
    assert report.examples["unreadable"].startswith("00003: images_mask/00003_mask.mat: a .mat file that is cut")


def test_suffixes_are_read_in_any_letter_case(tmp_path: Path) -> None:
    write(tmp_path / "images_data_crop" / "00001.JPG", jpeg(1))
    write(tmp_path / "images_data_crop" / "00002.Jpeg", jpeg(2))
    write(tmp_path / "images_mask" / "00001_mask.MAT", mat(mask=MASK))
    write(tmp_path / "images_mask" / "00002_mask.Mat", mat(mask=MASK))
    found = Pfcn(tmp_path).find()
    assert [entry.id for entry in found.entries] == ["00001", "00002"]
    for entry in found.entries:
        np.testing.assert_array_equal(Pfcn(tmp_path).annotate(entry).values, MASK)


def test_hidden_and_other_files_are_passed_over_and_counted(tmp_path: Path) -> None:
    source = published(tmp_path, "00001")
    for name in ("images_data_crop/.00009.jpg", "images_data_crop/Thumbs.db", "images_mask/._00001_mask.mat"):
        write(tmp_path / name, b"junk")
    write(tmp_path / "images_mask" / "00001_mask.png", b"junk")
    write(tmp_path / "meanmask.png", b"junk")
    (tmp_path / "images_mask" / "old").mkdir()
    found = source.find()
    assert [entry.id for entry in found.entries] == ["00001"]
    assert found.rejected == []
    assert found.ignored == {"hidden": 2, ".db": 1, ".png": 1, "folder": 1}


def test_a_doubled_photo_is_ambiguous(tmp_path: Path) -> None:
    source = published(tmp_path, "00001", "00002")
    write(tmp_path / "images_data_crop" / "00001.png", b"not decoded")
    assert told(source.find()) == [(name, "ambiguous") for name in ("00001.jpg", "00001.png", "00001_mask.mat")]


def test_masks_are_not_cut_since_they_are_binary(tmp_path: Path) -> None:
    published(tmp_path, "00001")
    with pytest.raises(OptionError, match=r"^--threshold 0.5: .*holds masks, expected mattes to cut"):
        Pfcn(tmp_path, threshold=0.5)


def test_the_folder_of_masks_may_be_missing_but_is_named(tmp_path: Path) -> None:
    write(tmp_path / "images_data_crop" / "00001.jpg", jpeg(1))
    with pytest.raises(SourceError, match=r"images_mask: .*expected a folder"):
        Pfcn(tmp_path).find()


# ---- as redistributed


def test_the_redistributed_layout_pairs_within_one_folder(tmp_path: Path) -> None:
    source = redistributed(tmp_path, "00001", "b")
    write(tmp_path / "c.jpg", jpeg(1))
    write(tmp_path / "c_matte.png", saved(soft(), "PNG"))
    assert pairs(source.find()) == [
        ("00001", "00001.png", "00001_matte.png"),
        ("b", "b.png", "b_matte.png"),
        ("c", "c.jpg", "c_matte.png"),
    ]
    assert told(source.find()) == []
    assert source.options() == {"layout": "redistributed", "threshold": None}


def test_mattes_stay_soft(tmp_path: Path) -> None:
    source = redistributed(tmp_path / "raw", "00001")
    assert source.label_map is None
    convert(source, tmp_path / "out", ONE)
    np.testing.assert_array_equal(stored(tmp_path / "out", "matte")["00001"], soft())
    assert not (tmp_path / "out" / "masks").exists()


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0])
def test_a_threshold_cuts_mattes_to_masks(tmp_path: Path, threshold: float) -> None:
    matte = soft()
    matte[0, :5] = 255
    source = redistributed(tmp_path / "raw", "00001", matte=matte, threshold=threshold)
    assert source.label_map == label_map("binary", "mask")
    assert source.options() == {"layout": "redistributed", "threshold": threshold}
    convert(source, tmp_path / "out", ONE)
    np.testing.assert_array_equal(stored(tmp_path / "out", "mask")["00001"], matte >= threshold * 255)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, 128, float("nan")])
def test_a_threshold_is_a_share_of_full_alpha(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(OptionError, match=f"^--threshold {threshold}: expected a share above 0, to 1"):
        Pfcn(tmp_path, threshold=threshold)


def test_mattes_of_16_bits_keep_their_levels(tmp_path: Path) -> None:
    alpha = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 85
    source = redistributed(tmp_path / "raw", "00001", matte=alpha)
    convert(source, tmp_path / "out", ONE)
    np.testing.assert_array_equal(stored(tmp_path / "out", "matte")["00001"], alpha)


def test_what_has_no_partner_is_told(tmp_path: Path) -> None:
    source = redistributed(tmp_path, "a")
    write(tmp_path / "b.png", b"not decoded")
    write(tmp_path / "c_matte.png", b"not decoded")
    write(tmp_path / "_matte.png", b"not decoded")
    write(tmp_path / ".hidden.png", b"junk")
    write(tmp_path / "notes.txt", b"junk")
    found = source.find()
    assert [entry.id for entry in found.entries] == ["a"]
    assert told(found) == [("_matte.png", "no-mask"), ("b.png", "no-mask"), ("c_matte.png", "no-image")]
    assert found.ignored == {"hidden": 1, ".txt": 1}


def test_a_coloured_matte_is_rejected(tmp_path: Path) -> None:
    source = redistributed(tmp_path, "a")
    write(tmp_path / "a_matte.png", saved(photo(HEIGHT, WIDTH), "PNG"))
    with pytest.raises(ImageRefused, match="mask-mode: RGB with different channels"):
        source.annotate(source.find().entries[0])


# ---- neither


@pytest.mark.parametrize("held", [[], ["a.png", "b.jpg"], ["00001_mask.mat"], ["images_mask/00001_mask.mat"]])
def test_a_folder_of_neither_layout_is_answered_with_both(tmp_path: Path, held: list[str]) -> None:
    for name in held:
        write(tmp_path / name, b"not decoded")
    message = r"neither images_data_crop/ and images_mask/ nor X beside X_matte.png, expected one of the two"
    with pytest.raises(SourceError, match=message) as caught:
        plan(Pfcn(tmp_path), tmp_path / "out", ONE)
    assert str(caught.value).startswith(str(tmp_path))


def test_raw_files_of_either_layout_stay_as_they_are(tmp_path: Path) -> None:
    published(tmp_path / "a", "00001")
    redistributed(tmp_path / "b", "00001")
    before = tree(tmp_path)
    for name in ("a", "b"):
        convert(Pfcn(tmp_path / name), tmp_path / "out" / name, ONE)
    assert {path: sha256 for path, sha256 in tree(tmp_path).items() if not path.startswith("out/")} == before
