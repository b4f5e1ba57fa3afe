"""pairs: prefixes and suffixes around names, in one folder and in two, and masks in ``.mat`` files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import JobFailed, OptionError
from segdata.formats import images
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.verify import verify
from segdata.labels import label_map
from segdata.sources import Found
from segdata.sources.pairs import Pairs
from tests.folders import lines
from tests.material import ids, saved
from tests.sources.layouts import HEIGHT, WIDTH, jpeg, mat, soft, write

BINARY = label_map("binary", "mask")
MASK = ids(HEIGHT, WIDTH, 2)
OPTIONS = ConvertOptions("people", jobs=1)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        write(folder / name, b"not decoded")
    folder.mkdir(exist_ok=True)
    return folder


def one(folder: Path, **affixes: str) -> Found:
    return Pairs(folder, folder, BINARY, **affixes).find()


def two(root: Path, **affixes: str) -> Found:
    return Pairs(root / "photos", root / "masks", BINARY, **affixes).find()


def found_pairs(found: Found) -> list[tuple[str, str]]:
    return sorted((entry.image, entry.label) for entry in found.entries)


def told(found: Found) -> list[tuple[str, str]]:
    return sorted((line.id, line.reason) for line in found.rejected)


# ---- one folder


def test_prefixes_of_both_tell_photos_from_masks(tmp_path: Path) -> None:
    touch(tmp_path, "color_1.jpg", "alpha_1.jpg", "color_2.jpg", "alpha_2.png", "color_3.jpg", "alpha_4.jpg")
    found = one(tmp_path, image_prefix="color_", mask_prefix="alpha_")
    assert found_pairs(found) == [("color_1.jpg", "alpha_1.jpg"), ("color_2.jpg", "alpha_2.png")]
    assert told(found) == [("alpha_4.jpg", "no-image"), ("color_3.jpg", "no-mask")]
    details = " ".join(line.detail for line in found.rejected)
    assert "no mask named alpha_3.*" in details
    assert "no photo named color_4.*" in details


def test_the_id_is_the_photos_stem_with_its_prefix(tmp_path: Path) -> None:
    touch(tmp_path, "color_1.jpg", "alpha_1.jpg")
    [entry] = one(tmp_path, image_prefix="color_", mask_prefix="alpha_").entries
    assert (entry.id, entry.group) == ("color_1", "color_1")


def test_a_prefix_of_masks_alone_is_enough(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "mask_1.png", "2.jpg", "mask_2.png")
    found = one(tmp_path, mask_prefix="mask_")
    assert found_pairs(found) == [("1.jpg", "mask_1.png"), ("2.jpg", "mask_2.png")]
    assert found.rejected == []


def test_a_prefix_and_a_suffix_of_masks_go_together(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "m_1_seg.png", "m_2.png", "2_seg.png", "2.jpg")
    found = one(tmp_path, mask_prefix="m_", mask_suffix="_seg")
    assert found_pairs(found) == [("1.jpg", "m_1_seg.png")]
    assert told(found) == [("2.jpg", "no-mask"), ("2_seg.png", "no-mask"), ("m_2.png", "no-mask")]


def test_files_without_the_photos_prefix_are_told_and_not_counted_as_lost(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    write(folder / "color_1.jpg", jpeg(1))
    write(folder / "alpha_1.png", saved(MASK, "PNG"))
    for number in range(5):
        write(folder / f"other_{number}.jpg", jpeg(2))
    source = Pairs(folder, folder, BINARY, image_prefix="color_", mask_prefix="alpha_")
    report = convert(source, tmp_path / "out", OPTIONS)
    assert (report.samples, report.rejected) == (1, {"no-prefix": 5})
    details = [line["detail"] for line in lines(tmp_path / "out" / "rejected.jsonl")]
    assert set(details) == {"a photo's name is expected as color_NAME"}


def test_a_name_that_is_nothing_but_the_affix_is_no_mask(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "1_mask.png", "_mask.png")
    found = one(tmp_path, mask_suffix="_mask")
    assert found_pairs(found) == [("1.jpg", "1_mask.png")]
    assert told(found) == [("_mask.png", "no-mask")]


def test_a_photo_prefix_that_masks_have_too_leaves_masks_masks(tmp_path: Path) -> None:
    touch(tmp_path, "img_1.jpg", "img_1_mask.png")
    found = one(tmp_path, image_prefix="img_", mask_prefix="img_", mask_suffix="_mask")
    assert found_pairs(found) == [("img_1.jpg", "img_1_mask.png")]
    assert found.rejected == []


def test_affixes_count_in_their_letter_case_and_names_in_any(tmp_path: Path) -> None:
    touch(tmp_path, "Anna.jpg", "anna_mask.png", "bob.jpg", "bob_MASK.png")
    found = one(tmp_path, mask_suffix="_mask")
    assert found_pairs(found) == [("Anna.jpg", "anna_mask.png")]
    assert told(found) == [("bob.jpg", "no-mask"), ("bob_MASK.png", "no-mask")]


def test_two_masks_of_one_photo_are_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a_mask.png", "a_mask.bmp", "b.jpg", "b_mask.png")
    found = one(tmp_path, mask_suffix="_mask")
    assert found_pairs(found) == [("b.jpg", "b_mask.png")]
    assert {reason for _, reason in told(found)} == {"ambiguous"}


def test_a_name_that_is_not_utf8_is_told_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a_mask.png", os.fsdecode(b"b\xff.jpg"))
    assert told(one(tmp_path, mask_suffix="_mask")) == [("b\\xff.jpg", "bad-name")]


def test_glob_letters_in_an_affix_are_letters(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a[mask].png", "am.png")
    assert found_pairs(one(tmp_path, mask_suffix="[mask]")) == [("a.jpg", "a[mask].png")]


def test_a_photo_prefix_alone_does_not_tell_masks_apart(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="one folder: say --mask-suffix or --mask-prefix"):
        one(tmp_path, image_prefix="color_")


# ---- two folders


def test_prefixes_in_two_folders(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "color_1.jpg", "color_2.jpg", "1.jpg")
    touch(tmp_path / "masks", "alpha_1.png", "alpha_3.png", "2.png")
    found = two(tmp_path, image_prefix="color_", mask_prefix="alpha_")
    assert found_pairs(found) == [("color_1.jpg", "alpha_1.png")]
    assert told(found) == [
        ("1.jpg", "no-prefix"),
        ("2.png", "no-suffix"),
        ("alpha_3.png", "no-image"),
        ("color_2.jpg", "no-mask"),
    ]


def test_a_photo_prefix_with_plain_masks(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "img_1.jpg")
    touch(tmp_path / "masks", "1.png")
    assert found_pairs(two(tmp_path, image_prefix="img_")) == [("img_1.jpg", "1.png")]


def test_all_three_affixes_in_two_folders(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "img_1.jpg", "img_1_seg.jpg")
    touch(tmp_path / "masks", "gt_1_seg.png", "gt_1_seg_seg.png")
    found = two(tmp_path, image_prefix="img_", mask_prefix="gt_", mask_suffix="_seg")
    assert found_pairs(found) == [("img_1.jpg", "gt_1_seg.png"), ("img_1_seg.jpg", "gt_1_seg_seg.png")]


def test_every_file_is_a_sample_or_told_whatever_the_affixes(tmp_path: Path) -> None:
    names = ["a_b.jpg", "b.jpg", "a_.jpg", "a_a_b.jpg", "b_c.png", "a_b_c.png", "_c.png", "a__c.png"]
    touch(tmp_path / "photos", *names)
    touch(tmp_path / "masks", *names)
    for affixes in ({"image_prefix": "a_"}, {"mask_suffix": "_c"}, {"image_prefix": "a_", "mask_suffix": "_c"}):
        found = two(tmp_path, **affixes)
        assert 2 * len(found.entries) + len(found.rejected) == 2 * len(names)


def test_an_affix_that_fits_nothing_is_no_dataset_and_says_so(tmp_path: Path) -> None:
    write(tmp_path / "photos" / "1.jpg", jpeg(1))
    write(tmp_path / "masks" / "1.png", saved(MASK, "PNG"))
    source = Pairs(tmp_path / "photos", tmp_path / "masks", BINARY, mask_suffix="_mask")
    with pytest.raises(JobFailed, match=r"no sample is left: .*no mask named 1_mask"):
        convert(source, tmp_path / "out", OPTIONS)


def test_affixes_are_recorded(tmp_path: Path) -> None:
    source = Pairs(tmp_path / "a", tmp_path / "b", BINARY, image_prefix="i_", mask_prefix="m_", mask_suffix="_s")
    options = source.options()
    assert [options[name] for name in ("image_prefix", "mask_prefix", "mask_suffix")] == ["i_", "m_", "_s"]


def test_photos_and_mattes_of_one_folder_convert(tmp_path: Path) -> None:
    folder = tmp_path / "raw"
    for number in range(3):
        write(folder / f"color_{number}.jpg", jpeg(number))
        write(folder / f"alpha_{number}.png", saved(soft(), "PNG"))
    source = Pairs(folder, folder, None, "matte", image_prefix="color_", mask_prefix="alpha_")
    assert convert(source, tmp_path / "out", OPTIONS).samples == 3
    assert verify(tmp_path / "out", jobs=1).faults == []
    for line in lines(tmp_path / "out" / "samples.jsonl"):
        np.testing.assert_array_equal(images.decode_stored((tmp_path / "out" / line["matte"]).read_bytes()), soft())


# ---- .mat masks


def raw_mats(root: Path, **matrices: Any) -> tuple[Path, Path]:
    write(root / "photos" / "a.jpg", jpeg(0))
    write(root / "masks" / "a.mat", mat(**matrices))
    return root / "photos", root / "masks"


def mask_of(source: Pairs, out: Path) -> Any:
    convert(source, out, OPTIONS)
    assert verify(out, jobs=1).faults == []
    return images.decode_mask((out / "masks" / "a.png").read_bytes())


@pytest.mark.parametrize("name", ["mask", "groundtruth", "x"])
def test_the_only_matrix_needs_no_key(tmp_path: Path, name: str) -> None:
    photos, masks = raw_mats(tmp_path, **{name: MASK})
    np.testing.assert_array_equal(mask_of(Pairs(photos, masks, BINARY), tmp_path / "out"), MASK)


def test_the_key_chooses_among_matrices(tmp_path: Path) -> None:
    photos, masks = raw_mats(tmp_path, mask=MASK, other=1 - MASK, tracker=np.arange(4.0))
    np.testing.assert_array_equal(mask_of(Pairs(photos, masks, BINARY, mask_key="mask"), tmp_path / "1"), MASK)
    np.testing.assert_array_equal(mask_of(Pairs(photos, masks, BINARY, mask_key="other"), tmp_path / "2"), 1 - MASK)


@pytest.mark.parametrize(("key", "message"), [(None, "expected one"), ("maks", "expected .*'maks'")])
def test_several_matrices_without_the_right_key_are_refused_with_their_names(
    tmp_path: Path, key: str | None, message: str
) -> None:
    photos, masks = raw_mats(tmp_path, mask=MASK, other=MASK)
    with pytest.raises(JobFailed, match=rf"mask-mode .*a\.mat: .*'mask', 'other', {message}"):
        mask_of(Pairs(photos, masks, BINARY, mask_key=key), tmp_path / "out")


def test_the_suffix_counts_in_any_letter_case(tmp_path: Path) -> None:
    photos, masks = raw_mats(tmp_path, mask=MASK)
    (masks / "a.mat").rename(masks / "a.MAT")
    np.testing.assert_array_equal(mask_of(Pairs(photos, masks, BINARY), tmp_path / "out"), MASK)


def test_mat_masks_with_affixes_in_one_folder(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "img_a.jpg", jpeg(0))
    write(tmp_path / "raw" / "a_mask.mat", mat(mask=MASK))
    source = Pairs(tmp_path / "raw", tmp_path / "raw", BINARY, image_prefix="img_", mask_suffix="_mask")
    convert(source, tmp_path / "out", OPTIONS)
    np.testing.assert_array_equal(images.decode_mask((tmp_path / "out" / "masks" / "img_a.png").read_bytes()), MASK)


def test_a_mat_file_among_photos_is_passed_over_and_counted(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg", "list.mat")
    touch(tmp_path / "masks", "a.mat")
    assert two(tmp_path).ignored == {".mat": 1}


def test_a_mat_and_a_png_mask_of_one_photo_are_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg")
    touch(tmp_path / "masks", "a.mat", "a.png")
    assert {reason for _, reason in told(two(tmp_path))} == {"ambiguous"}


def test_mat_indices_through_a_toml_map(tmp_path: Path) -> None:
    text = (
        '[[classes]]\nname = "background"\nfrom = ["0-9", "11-58"]\n[[classes]]\nname = "thing"\nfrom = [10, 300]\n'
        "[[classes]]\nname = 'none'\nfrom = []\n"
    )
    values = (ids(HEIGHT, WIDTH, 18) % 12).astype(np.uint16)
    values[0] = 300
    photos, masks = raw_mats(tmp_path, groundtruth=values)
    labels = label_map(str(write(tmp_path / "mine.toml", text.encode())), "")
    source = Pairs(photos, masks, labels, "index", mask_key="groundtruth")
    np.testing.assert_array_equal(mask_of(source, tmp_path / "out"), np.isin(values, [10, 300]))


def test_a_threshold_cuts_mat_values(tmp_path: Path) -> None:
    values = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    photos, masks = raw_mats(tmp_path, m=values)
    np.testing.assert_array_equal(mask_of(Pairs(photos, masks, BINARY, threshold=300), tmp_path / "out"), values >= 300)


def test_a_matte_in_a_mat_file_is_its_values(tmp_path: Path) -> None:
    photos, masks = raw_mats(tmp_path, alpha=soft())
    convert(Pairs(photos, masks, None, "matte"), tmp_path / "out", OPTIONS)
    found = images.decode_stored((tmp_path / "out" / "mattes" / "a.png").read_bytes())
    np.testing.assert_array_equal(found, soft())


def test_a_matte_of_shares_in_a_mat_file_is_refused(tmp_path: Path) -> None:
    photos, masks = raw_mats(tmp_path, alpha=soft() / 255)
    with pytest.raises(JobFailed, match="fractions"):
        convert(Pairs(photos, masks, None, "matte"), tmp_path / "out", OPTIONS)


def test_the_key_is_recorded(tmp_path: Path) -> None:
    source = Pairs(tmp_path / "a", tmp_path / "b", BINARY, mask_key="groundtruth")
    assert source.options()["mask_key"] == "groundtruth"
