"""Every source keeps the same promises; below them, what is each source's own.

A new source needs one entry in RAW of layouts.py: a function that lays out a tiny raw folder and returns its source.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from segdata.errors import ImageRefused, OptionError, SourceError
from segdata.formats.coco_json import Annotation
from segdata.formats.raw_pictures import Label, binary_ids, read_photo
from segdata.labels import label_map
from segdata.records import is_inside
from segdata.registry import load
from segdata.sources import SOURCES, Entry, Found, Source
from segdata.sources.humanparsing import HumanParsing
from segdata.sources.pairs import Pairs
from segdata.transforms.relabel import Relabel
from tests.folders import tree
from tests.material import Pixels, exif, grey_png, ids, palette_png, saved
from tests.sources.layouts import RAW, STEMS, raw_humanparsing, write


@pytest.fixture(params=sorted(SOURCES))
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """Each source over its own tiny raw folder ``tmp_path/raw``."""
    assert request.param in RAW, f"source {request.param!r} is new: add its raw folder to layouts.py"
    made = RAW[request.param](tmp_path / "raw")
    assert made.name == request.param
    return made


# ---- the table


def test_the_table_is_alphabetical_and_every_source_in_it_loads() -> None:
    assert list(SOURCES) == sorted(SOURCES)
    for name in SOURCES:
        found = load(SOURCES, name, "source")
        assert found.__module__ == f"segdata.sources.{name}"


def test_an_unknown_source_is_answered_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"source 'pair' is not known. Did you mean 'pairs'\? Known: .*humanparsing"):
        load(SOURCES, "pair", "source")


def test_no_raw_folder_is_left_from_a_source_that_is_gone() -> None:
    assert set(RAW) <= set(SOURCES)


# ---- the contract


def test_samples_have_ids_that_are_unique_and_file_names(source: Source) -> None:
    names = [entry.id for entry in source.find().entries]
    assert len(names) == len(set(names)) > 1
    for name in names:
        assert not set('<>:"/\\|?*\n\0') & set(name)
        assert 0 < len(name.encode()) <= 200
        assert unicodedata.is_normalized("NFC", name)


def test_photos_lie_below_the_image_root_and_can_be_read(source: Source) -> None:
    for entry in source.find().entries:
        assert is_inside(entry.image)
        assert entry.group
        read_photo((source.image_root / entry.image).read_bytes())


def test_labels_have_their_photos_size_and_ids_that_the_map_names(source: Source) -> None:
    for entry in source.find().entries:
        values = source.annotate(entry).values
        header = read_photo((source.image_root / entry.image).read_bytes()).header
        assert values.shape == (header.height, header.width)
        assert values.dtype in (np.uint8, np.uint16)
        if source.label_map is not None:
            mask, counts = Relabel(source.label_map)(values)
            assert counts.sum() == mask.size


def test_finding_is_repeatable(source: Source) -> None:
    assert source.find() == source.find()


def test_finding_decodes_nothing(source: Source, tmp_path: Path) -> None:
    before = source.find()
    for path in (tmp_path / "raw").rglob("*"):
        if path.suffix.lower() in (".jpg", ".png", ".jpeg"):
            path.write_bytes(b"no picture")
    assert source.find() == before


def test_raw_files_are_never_changed(source: Source, tmp_path: Path) -> None:
    before = tree(tmp_path)
    for entry in source.find().entries:
        source.annotate(entry)
    assert tree(tmp_path) == before


def test_a_source_is_a_value_that_travels_to_other_processes(source: Source) -> None:
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source
    assert copy.find() == source.find()
    entry = source.find().entries[0]
    np.testing.assert_array_equal(copy.annotate(entry).values, source.annotate(entry).values)
    with pytest.raises(dataclasses.FrozenInstanceError):
        source.name = "other"  # type: ignore[misc]


def test_options_are_plain_values_without_paths(source: Source, tmp_path: Path) -> None:
    options = source.options()
    assert options
    assert all(value is None or isinstance(value, str | int | float | bool) for value in options.values())
    assert tmp_path.name not in json.dumps(options)


def test_a_raw_folder_that_is_not_there_is_a_source_error(source: Source, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(SourceError):
        source.find()


def test_a_label_that_is_gone_or_broken_is_refused(source: Source, tmp_path: Path) -> None:
    entry = source.find().entries[0]
    if entry.objects:  # its label is in the entry, read from a file for all
        entry = msgspec.structs.replace(entry, objects=(Annotation(1, 1, 1, msgspec.Raw(b"[[1,2")),))
    for path in (tmp_path / "raw").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ImageRefused):
        source.annotate(entry)
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(ImageRefused):
        source.annotate(entry)


# ---- what sources that pair two folders share


def two_folders(kind: str, root: Path) -> tuple[Source, Path, Path]:
    if kind == "humanparsing":
        made: Source = HumanParsing(root, label_map("humanparsing", "humanparsing"))
        return made, root / "JPEGImages", root / "SegmentationClassAug"
    return Pairs(root / "photos", root / "masks", label_map("binary", "mask")), root / "photos", root / "masks"


@pytest.fixture(params=["humanparsing", "pairs"])
def pairing(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Source, Path, Path]:
    """A source with its two folders, both there and empty."""
    found = two_folders(request.param, tmp_path)
    for folder in found[1:]:
        folder.mkdir()
    return found


def touch(folder: Path, *names: str) -> None:
    for name in names:
        write(folder / name, b"not decoded")


def told(found: Found) -> list[tuple[str, str]]:
    return sorted((line.id, line.reason) for line in found.rejected)


def test_two_empty_folders_hold_no_samples(pairing: tuple[Source, Path, Path]) -> None:
    assert pairing[0].find() == Found([], [], {})


def test_photos_and_masks_are_paired_by_name_in_any_letter_case(pairing: tuple[Source, Path, Path]) -> None:
    source, photos, masks = pairing
    touch(photos, "IMG_1.JPG", "x.jpeg", "z.jpg")
    touch(masks, "img_1.png", "x.PNG", "y.png")
    found = source.find()
    assert [(entry.id, Path(entry.image).name, Path(entry.label).name) for entry in found.entries] == [
        ("IMG_1", "IMG_1.JPG", "img_1.png"),
        ("x", "x.jpeg", "x.PNG"),
    ]
    assert told(found) == [("y.png", "no-image"), ("z.jpg", "no-mask")]


def test_duplicate_stems_are_told_and_not_used(pairing: tuple[Source, Path, Path]) -> None:
    source, photos, masks = pairing
    touch(photos, "a.jpg", "a.png", "b.jpg")
    touch(masks, "a.png", "b.png", "B.bmp")
    found = source.find()
    assert found.entries == []
    assert {("a.jpg", "ambiguous"), ("a.png", "ambiguous"), ("b.png", "ambiguous"), ("B.bmp", "ambiguous")} <= set(
        told(found)
    )


def test_files_passed_over_are_counted_over_both_folders(pairing: tuple[Source, Path, Path]) -> None:
    source, photos, masks = pairing
    touch(photos, ".hidden.jpg", "notes.txt")
    touch(masks, ".other.png", "Thumbs.db")
    assert source.find().ignored == {"hidden": 2, ".txt": 1, ".db": 1}


def test_names_that_windows_refuses_give_ids_that_it_takes(pairing: tuple[Source, Path, Path]) -> None:
    source, photos, masks = pairing
    try:
        touch(photos, "a:b.jpg", "what?.jpg")
        touch(masks, "a:b.png", "what?.png")
    except OSError:
        pytest.skip("this file system refuses them too")
    assert [entry.id for entry in source.find().entries] == ["a%3Ab", "what%3F"]


def test_samples_are_sorted_by_id(pairing: tuple[Source, Path, Path]) -> None:
    source, photos, masks = pairing
    touch(photos, "a.jpg", "a-1.jpg", "a b.jpg")
    touch(masks, "a.png", "a-1.png", "a b.png")
    names = [entry.id for entry in source.find().entries]
    assert names == sorted(names)


def test_each_photo_is_its_own_group(pairing: tuple[Source, Path, Path]) -> None:
    source, photos, masks = pairing
    touch(photos, "a.jpg", "b.jpg")
    touch(masks, "a.png", "b.png")
    assert [entry.group for entry in source.find().entries] == ["a", "b"]


@pytest.mark.parametrize("gone", [1, 2], ids=["photos", "masks"])
def test_a_folder_that_is_missing_is_named(pairing: tuple[Source, Path, Path], gone: int) -> None:
    folder = pairing[gone]
    assert isinstance(folder, Path)
    folder.rmdir()
    with pytest.raises(SourceError, match=rf"{folder.name}: .*expected a folder of pictures"):
        pairing[0].find()


# ---- humanparsing


def annotated(source: Source, data: bytes, label: str) -> Any:
    """The raw ids of a label of those bytes."""
    folder = source.masks if isinstance(source, Pairs) else source.root  # type: ignore[attr-defined]
    write(folder / label, data)
    return source.annotate(Entry(id="a", group="a", image="a.jpg", label=label)).values


@pytest.fixture
def humanparsing(tmp_path: Path) -> HumanParsing:
    return HumanParsing(tmp_path, label_map("humanparsing", "humanparsing"))


def test_image_paths_read_as_in_the_published_lists(tmp_path: Path) -> None:
    source = raw_humanparsing(tmp_path)
    assert source.image_root == tmp_path
    assert sorted(entry.image for entry in source.find().entries) == sorted(f"JPEGImages/{s}.jpg" for s in STEMS)


@pytest.mark.parametrize(
    "data",
    [saved(ids(), "PNG"), palette_png(ids()), grey_png(ids(), 16), saved(np.dstack([ids()] * 3), "PNG")],
    ids=["grey", "palette", "16 bits", "RGB of equal channels"],
)
def test_humanparsing_labels_of_any_kind_are_their_ids(humanparsing: HumanParsing, data: bytes) -> None:
    np.testing.assert_array_equal(annotated(humanparsing, data, "SegmentationClassAug/a.png"), ids())


def test_a_humanparsing_label_saved_as_jpeg_is_refused_whatever_its_name(humanparsing: HumanParsing) -> None:
    with pytest.raises(ImageRefused, match="lossy-mask: ids saved as JPEG cannot be restored"):
        annotated(humanparsing, saved(ids(), "JPEG"), "SegmentationClassAug/a.png")


def test_other_folder_names_are_options(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg")
    touch(tmp_path / "labels", "a.png")
    source = HumanParsing(tmp_path, label_map("parts5", "humanparsing"), images="photos", masks="labels")
    assert [(entry.image, entry.label) for entry in source.find().entries] == [("photos/a.jpg", "labels/a.png")]
    assert source.options() == {"images": "photos", "masks": "labels", "labels": "parts5"}


# ---- pairs


def pairs(root: Path, kind: str = "binary", **options: Any) -> Pairs:
    labels = {"binary": label_map("binary", "mask"), "index": label_map("humanparsing", "humanparsing")}.get(kind)
    return Pairs(root / "photos", root / "masks", labels, kind, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "alpha"}, "--kind 'alpha': expected one of binary, index, matte."),
        ({"kind": "index", "threshold": 128}, "--threshold 128: expected 1 to 65535, and --kind binary."),
        ({"kind": "matte", "threshold": 128}, "--threshold 128: expected"),
        ({"threshold": 0}, "--threshold 0: expected 1 to 65535"),
        ({"threshold": 65536}, "--threshold 65536: expected"),
        ({"threshold": -1}, "--threshold -1: expected"),
    ],
)
def test_options_that_do_not_go_together_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        pairs(tmp_path, **options)


@pytest.mark.parametrize("other", ["photos", "photos/../photos", "link"])
def test_one_folder_for_both_needs_a_suffix(tmp_path: Path, other: str) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    labels = label_map("binary", "mask")
    with pytest.raises(OptionError, match="one folder: say --mask-suffix"):
        Pairs(tmp_path / "photos", tmp_path / other, labels)
    Pairs(tmp_path / "photos", tmp_path / other, labels, mask_suffix="_matte")


def test_photos_and_masks_in_one_folder_are_told_apart_by_the_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "a_matte.png", "b.png", "b_matte.png", "c.jpg", "d_matte.jpg", ".hidden", "notes.txt")
    found = Pairs(tmp_path, tmp_path, label_map("binary", "mask"), mask_suffix="_matte").find()
    assert [(entry.id, entry.image, entry.label) for entry in found.entries] == [
        ("a", "a.jpg", "a_matte.png"),
        ("b", "b.png", "b_matte.png"),
    ]
    assert told(found) == [("c.jpg", "no-mask"), ("d_matte.jpg", "no-image")]
    assert found.ignored == {"hidden": 1, ".txt": 1}


def test_a_suffix_may_be_asked_of_a_folder_of_its_own(tmp_path: Path) -> None:
    touch(tmp_path / "photos", "a.jpg", "b_mask.jpg")
    touch(tmp_path / "masks", "a_mask.png", "b_mask_mask.png", "c.png")
    found = pairs(tmp_path, mask_suffix="_mask").find()
    assert [(entry.id, entry.label) for entry in found.entries] == [("a", "a_mask.png"), ("b_mask", "b_mask_mask.png")]
    assert [name for name, _ in told(found)] == ["c.png"]  # passed over, but not in silence


BINARY = ids(24, 32, 2)


@pytest.mark.parametrize(
    "data",
    [
        saved(BINARY, "PNG"),
        saved(BINARY * 255, "PNG"),
        grey_png(BINARY, 1),
        grey_png(BINARY, 16),
        palette_png(BINARY),
        saved(Image.fromarray(BINARY * 255).convert("1"), "PNG"),
        saved(np.dstack([BINARY * 255] * 3), "PNG"),
        saved(BINARY * 255, "BMP"),
    ],
    ids=["0 and 1", "0 and 255", "1 bit", "16 bits", "palette", "1 bit by Pillow", "RGB", "BMP"],
)
def test_a_mask_of_two_values_is_binary(tmp_path: Path, data: bytes) -> None:
    found = annotated(pairs(tmp_path), data, "a.png")
    np.testing.assert_array_equal(found, BINARY)
    assert found.dtype == np.uint8


WHITE_FIRST = {
    "PNG quantized by Pillow": saved(Image.fromarray(BINARY * 255).quantize(2), "PNG"),
    "GIF of an RGB mask": saved(np.dstack([BINARY * 255] * 3), "GIF"),
    "palette by hand": palette_png(1 - BINARY, [(255, 255, 255), (0, 0, 0)]),
}


@pytest.mark.parametrize("data", WHITE_FIRST.values(), ids=WHITE_FIRST)
def test_a_black_and_white_palette_never_turns_a_mask_inside_out(tmp_path: Path, data: bytes) -> None:
    try:
        found = annotated(pairs(tmp_path), data, "a.png")
    except ImageRefused:
        return
    np.testing.assert_array_equal(found, BINARY)


@pytest.mark.parametrize(("value", "wanted"), [(0, 0), (1, 1), (255, 1)])
def test_a_mask_of_one_value_is_all_background_or_all_person(value: int, wanted: int) -> None:
    found = binary_ids(Label(np.full((4, 5), value, np.uint8), lossy=False), None)
    assert (found == wanted).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 255], r"3 values \(0, 1, 255\), expected 0 and 1 or 0 and 255; the mask is not binary"),
        ([0, 128], r"2 values \(0, 128\)"),
        ([1, 2], r"2 values \(1, 2\)"),
        ([128], r"1 values \(128\)"),
        ([1, 255], r"2 values \(1, 255\)"),
        (range(9), r"9 values \(0, 1, 2, 3, 4, 5, \.\.\.\), .*the mask was saved lossily"),
    ],
)
def test_anything_else_is_refused_with_its_values_and_the_way_out(values: Any, message: str) -> None:
    with pytest.raises(ImageRefused, match=rf"^not-binary: {message}.*--threshold 128 cuts it, and --kind index"):
        binary_ids(Label(np.array([list(values)], np.uint8), lossy=False), None)


def test_a_mask_saved_as_jpeg_is_refused_and_a_threshold_takes_it(tmp_path: Path) -> None:
    data = saved(BINARY * 255, "JPEG", quality=60)
    with pytest.raises(ImageRefused, match=r"not-binary: .*the mask was saved lossily"):
        annotated(pairs(tmp_path), data, "a.png")
    np.testing.assert_array_equal(annotated(pairs(tmp_path, threshold=128), data, "a.png"), BINARY)


@pytest.mark.parametrize(("threshold", "wanted"), [(1, [0, 1, 1, 1]), (128, [0, 0, 1, 1]), (255, [0, 0, 0, 1])])
def test_the_threshold_itself_is_person(threshold: int, wanted: list[int]) -> None:
    label = Label(np.array([[0, 127, 128, 255]], np.uint8), lossy=True)
    assert binary_ids(label, threshold).tolist() == [wanted]


def test_a_threshold_counts_in_the_masks_own_values(tmp_path: Path) -> None:
    values = np.array([[0, 1000, 40000, 65535] * 4], np.uint16)
    found = annotated(pairs(tmp_path, threshold=40000), saved(values, "PNG"), "a.png")
    assert found.tolist() == [[0, 0, 1, 1] * 4]


@pytest.mark.parametrize("data", [grey_png(BINARY, 1), palette_png(BINARY)], ids=["1 bit", "palette"])
def test_a_threshold_never_makes_a_mask_of_two_values_empty_in_silence(tmp_path: Path, data: bytes) -> None:
    try:
        found = annotated(pairs(tmp_path, threshold=128), data, "a.png")
    except ImageRefused:
        return
    np.testing.assert_array_equal(found, BINARY)


def test_index_masks_are_their_ids_and_never_jpeg(tmp_path: Path) -> None:
    source = pairs(tmp_path, "index")
    np.testing.assert_array_equal(annotated(source, palette_png(ids()), "a.png"), ids())
    with pytest.raises(ImageRefused, match="lossy-mask"):
        annotated(source, saved(ids(), "JPEG"), "a.png")


def alpha() -> Pixels:
    return (np.arange(24 * 32) % 256).astype(np.uint8).reshape(24, 32)


@pytest.mark.parametrize("data", [saved(alpha(), "PNG"), saved(np.dstack([alpha()] * 3), "PNG")], ids=["grey", "RGB"])
def test_a_matte_is_its_alpha(tmp_path: Path, data: bytes) -> None:
    np.testing.assert_array_equal(annotated(pairs(tmp_path, "matte"), data, "a.png"), alpha())


def test_a_matte_of_16_bits_keeps_them(tmp_path: Path) -> None:
    found = annotated(pairs(tmp_path, "matte"), saved(alpha().astype(np.uint16) * 257, "PNG"), "a.png")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, alpha().astype(np.uint16) * 257)


def test_a_matte_saved_as_jpeg_is_a_matte_all_the_same(tmp_path: Path) -> None:
    assert annotated(pairs(tmp_path, "matte"), saved(alpha(), "JPEG"), "a.jpg").shape == (24, 32)


def test_a_matte_with_a_turn_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match="mask-exif"):
        annotated(pairs(tmp_path, "matte"), saved(alpha(), "PNG", exif=exif(6)), "a.png")


@pytest.mark.parametrize(
    "data",
    [
        grey_png(BINARY, 1),
        grey_png(BINARY * 3, 2),
        grey_png(BINARY * 15, 4),
        palette_png(BINARY, [(0, 0, 0), (255, 255, 255)]),
        palette_png(BINARY * 9, [(i * 28, i * 28, i * 28 + i // 9 * 3) for i in range(10)]),
    ],
    ids=["1 bit", "2 bits", "4 bits", "palette of two", "palette of ten"],
)
def test_a_matte_of_few_greys_is_as_opaque_as_it_looks(tmp_path: Path, data: bytes) -> None:
    try:
        found = annotated(pairs(tmp_path, "matte"), data, "a.png")
    except ImageRefused:
        return
    np.testing.assert_array_equal(found >= 250, BINARY == 1)


def test_options_are_recorded(tmp_path: Path) -> None:
    assert pairs(tmp_path, threshold=3).options() == {
        "kind": "binary",
        "threshold": 3,
        "mask_suffix": "",
        "mask_prefix": "",
        "image_prefix": "",
        "mask_key": None,
        "labels": "binary",
    }
    assert pairs(tmp_path, "matte").options()["labels"] is None


def test_a_threshold_above_every_value_of_a_mask_is_refused(tmp_path: Path) -> None:
    for values, threshold in (([0, 255], 256), ([0, 2], 128)):
        mask = np.array([values * 16] * 8, np.uint8)
        with pytest.raises(ImageRefused, match=f"all below --threshold {threshold}"):
            annotated(pairs(tmp_path, threshold=threshold), saved(mask, "PNG"), "a.png")


def test_ids_are_no_alpha(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match="matte-mode"):
        annotated(pairs(tmp_path, "matte"), saved(np.array([[0, 1] * 16] * 8, np.uint8), "PNG"), "a.png")
