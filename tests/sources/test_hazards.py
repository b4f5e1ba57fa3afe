"""What raw folders may hold, for every source: a bad file costs its own sample, named, and nothing else.

Each test changes the sample ``b`` of a tiny raw folder and runs the real job over it.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segdata.errors import SegdataError
from segdata.formats import images
from segdata.formats.files import printable, safe_id
from segdata.jobs.convert import ConvertOptions, ConvertReport, convert, plan
from segdata.jobs.verify import verify
from segdata.labels import lookup_table
from segdata.sources import Source
from tests.folders import tree
from tests.material import exif, grey_png, ids, opened, palette_png, photo, raw_png, saved
from tests.sources.layouts import HEIGHT, RAW, STEMS, WIDTH, annotation, instances, jpeg, mat, write

MADE = {"predictions"}  # by predict, which names and checks the photos itself
OTHERS = set(STEMS) - {"b"}
ID_LABELS = ("humanparsing", "lip", "pairs", "voc")  # pictures of ids
LOSSLESS = {"BMP": "BMP", "TIFF": "TIFF", "GIF": "GIF", "WebP": "WEBP"}


@dataclass(frozen=True)
class Raw:
    """A raw folder with the files of its sample ``b``; ``label`` is None where one JSON holds all (COCO)."""

    source: Source
    root: Path
    photo: Path
    label: Path | None


@dataclass(frozen=True)
class Ran:
    """What the job made of it: sample lines by id, rejected lines."""

    out: Path
    report: ConvertReport
    samples: dict[str, dict[str, Any]]
    rejected: list[dict[str, Any]]

    def mask(self, sample: str) -> Any:
        return opened((self.out / self.samples[sample]["mask"]).read_bytes())

    def image(self, sample: str) -> Any:
        return opened((self.out / self.samples[sample]["image"]).read_bytes())


def lines(path: Path) -> list[dict[str, Any]]:
    """The values of a JSON-lines file; only a newline ends a line, not all that ``splitlines`` takes for one."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def laid_out(name: str, tmp_path: Path) -> Raw:
    source = RAW[name](tmp_path / "raw")
    labels = [path for path in (tmp_path / "raw").rglob("b*.*") if path.suffix in (".png", ".mat")]
    return Raw(source, tmp_path / "raw", next((tmp_path / "raw").rglob("b.jpg")), labels[0] if labels else None)


@pytest.fixture(params=sorted(set(RAW) - MADE))
def raw(request: pytest.FixtureRequest, tmp_path: Path) -> Raw:
    return laid_out(request.param, tmp_path)


@pytest.fixture(params=sorted(set(RAW) - MADE - {"coco"}))
def labelled(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Raw, Path]:
    """A raw folder with a label for each photo, and that of ``b``."""
    made = laid_out(request.param, tmp_path)
    assert made.label is not None
    return made, made.label


@pytest.fixture(params=ID_LABELS)
def drawn(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Raw, Path]:
    """One whose labels are pictures of ids."""
    made = laid_out(request.param, tmp_path)
    assert made.label is not None
    return made, made.label


def entries(folder: Path) -> dict[str, tuple[int, int, int, str]]:
    """Kind, size, time and target of all there is below a folder, without opening or following any of it."""
    found = {}
    for where, folders, names in os.walk(folder):
        for name in folders + names:
            path = Path(where) / name
            status = path.lstat()
            target = os.readlink(path) if path.is_symlink() else ""
            size = 0 if path.is_dir() else status.st_size
            found[os.path.relpath(path, folder)] = (status.st_mode, size, status.st_mtime_ns, target)
    return found


def converted(raw: Raw) -> Ran:
    """Run the job, and check what holds whatever was in the folder."""
    folder = raw.root.parent
    before, listed = tree(folder), entries(folder)
    out = folder / "out"
    report = convert(raw.source, out, ConvertOptions("people", jobs=1, max_rejected=1.0))
    made = {name for name in entries(folder) if name == "out" or name.startswith("out/")}
    assert {name: value for name, value in entries(folder).items() if name not in made} == listed
    assert {name: value for name, value in tree(folder).items() if name not in made} == before
    assert verify(out, jobs=1).faults == []
    samples = {line["id"]: line for line in lines(out / "samples.jsonl")}
    rejected = lines(out / "rejected.jsonl")
    assert report.samples == len(samples)
    assert sum(report.rejected.values()) == len(rejected)
    assert all(line["id"] and line["reason"] and line["detail"] for line in rejected)
    return Ran(out, report, samples, rejected)


def b_is_rejected(raw: Raw, *reasons: str) -> None:
    """``b`` alone is, for one of those reasons, and the line says which of its files is meant."""
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    assert [line["id"] for line in ran.rejected] == ["b"]
    assert ran.rejected[0]["reason"] in reasons
    named = [raw.photo.name] + ([raw.label.name] if raw.label else [])
    assert any(name in ran.rejected[0]["detail"] for name in named)


def all_are_converted(raw: Raw) -> Ran:
    ran = converted(raw)
    assert set(ran.samples) == set(STEMS)
    assert ran.rejected == []
    return ran


# ---- the guards can fail


def test_the_folders_as_they_are_convert_whole(raw: Raw) -> None:
    all_are_converted(raw)


def test_a_changed_or_new_file_beside_the_output_would_be_noticed(tmp_path: Path) -> None:
    before = entries(tmp_path)
    write(tmp_path / "raw" / "a.jpg", b"1")
    with_file = entries(tmp_path)
    assert with_file != before
    (tmp_path / "raw" / "link").symlink_to("a.jpg")
    assert entries(tmp_path) != with_file


# ---- files that are no whole picture


def empty_folder(path: Path) -> None:
    path.mkdir()


def dangling_link(path: Path) -> None:
    path.symlink_to("nowhere.jpg")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def loop_of_two_links(path: Path) -> None:
    path.symlink_to(path.name + ".other")
    path.with_name(path.name + ".other").symlink_to(path.name)


def link_to_a_folder_outside(path: Path) -> None:
    outside = path.parents[3] / "outside"
    outside.mkdir(exist_ok=True)
    path.symlink_to(outside)


NO_FILES: dict[str, Callable[[Path], None]] = {
    "folder": empty_folder,
    "dangling link": dangling_link,
    "link to itself": link_to_itself,
    "loop of two links": loop_of_two_links,
    "link to a folder outside": link_to_a_folder_outside,
    "pipe": os.mkfifo,
}


def huge_jpeg() -> bytes:
    """A JPEG whose frame header says 60000x60000 pixels."""
    data = bytearray(jpeg(0))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = (60000).to_bytes(2, "big") * 2
    return bytes(data)


def png() -> bytes:
    return saved(photo(HEIGHT, WIDTH), "PNG")


BAD_BYTES = {
    "nothing": b"",
    "HTML": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
    "zeros": bytes(5000),
    "JPEG of its magic only": b"\xff\xd8\xff",
    "half a JPEG": jpeg(0)[: len(jpeg(0)) // 2],
    "half a progressive JPEG": (lambda data: data[: len(data) // 2])(
        saved(photo(HEIGHT, WIDTH), "JPEG", progressive=True)
    ),
    "JPEG without its end marker": jpeg(0)[:-2],
    "half a PNG": png()[: len(png()) // 2],
    "PNG without its end chunk": png()[:-12],
    "PNG of 60000x60000": raw_png(60000, 60000, 8, 2, [b""]),
    "JPEG of 60000x60000": huge_jpeg(),
    "half a GIF": saved(photo(HEIGHT, WIDTH), "GIF")[:600],
    "half a TIFF": saved(photo(HEIGHT, WIDTH), "TIFF")[:900],
    "half a WebP": saved(photo(HEIGHT, WIDTH), "WEBP", lossless=True)[:60],
}
_UNREADABLE = ("truncated", "unreadable", "too-large")


@pytest.mark.parametrize("data", BAD_BYTES.values(), ids=BAD_BYTES)
def test_a_photo_that_is_no_whole_picture_is_rejected(raw: Raw, data: bytes) -> None:
    raw.photo.write_bytes(data)
    b_is_rejected(raw, *_UNREADABLE)


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_a_photo_that_is_no_file_is_rejected(raw: Raw, make: Callable[[Path], None]) -> None:
    raw.photo.unlink()
    make(raw.photo)
    b_is_rejected(raw, "unreadable")


@pytest.mark.parametrize("data", BAD_BYTES.values(), ids=BAD_BYTES)
def test_a_label_that_is_no_whole_picture_is_rejected(labelled: tuple[Raw, Path], data: bytes) -> None:
    raw, label = labelled
    label.write_bytes(data)
    b_is_rejected(raw, *_UNREADABLE, "mask-mode")  # for half a WebP too: it can hold no label


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_a_label_that_is_no_file_is_rejected(labelled: tuple[Raw, Path], make: Callable[[Path], None]) -> None:
    raw, label = labelled
    label.unlink()
    make(label)
    b_is_rejected(raw, "unreadable")


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
def test_cocos_one_file_must_be_one(tmp_path: Path, make: Callable[[Path], None]) -> None:
    raw = laid_out("coco", tmp_path)
    path = raw.root / "instances.json"
    path.unlink()
    make(path)
    with pytest.raises(SegdataError, match=r"instances\.json"):
        convert(raw.source, tmp_path / "out", ConvertOptions("people", jobs=1))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["photo", "label"])
def test_a_link_to_a_file_is_that_file(labelled: tuple[Raw, Path], name: str) -> None:
    raw, label = labelled
    path = raw.photo if name == "photo" else label
    (raw.root.parent / "elsewhere").mkdir()
    shutil.move(path, raw.root.parent / "elsewhere" / path.name)
    path.symlink_to(raw.root.parent / "elsewhere" / path.name)
    all_are_converted(raw)


def test_a_photo_of_another_size_than_its_label_is_rejected(raw: Raw) -> None:
    raw.photo.write_bytes(saved(photo(HEIGHT + 6, WIDTH), "JPEG"))
    b_is_rejected(raw, "size-mismatch")


def test_a_photo_that_is_gone_is_told(raw: Raw) -> None:
    raw.photo.unlink()
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    assert [line["reason"] for line in ran.rejected] == ["no-photo" if raw.source.name == "coco" else "no-image"]
    assert "b" in ran.rejected[0]["id"]


def test_a_label_that_is_gone_is_told(labelled: tuple[Raw, Path]) -> None:
    raw, label = labelled
    label.unlink()
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    if raw.source.name == "voc":  # as most photos of Pascal VOC
        assert ran.report.ignored["photos without a label"] == 1
    else:
        assert [line["reason"] for line in ran.rejected] == ["no-mask"]
        assert "b" in ran.rejected[0]["id"]


def test_a_dry_run_lists_the_same_folder_without_opening_its_pipes(raw: Raw) -> None:
    raw.photo.unlink()
    os.mkfifo(raw.photo)
    assert plan(raw.source, raw.root.parent / "out", ConvertOptions("people", jobs=1)).samples == 3


# ---- other formats than the name says


@pytest.mark.parametrize("kind", LOSSLESS.values(), ids=LOSSLESS)
def test_another_format_named_jpg_is_taken_and_stored_as_png(raw: Raw, kind: str) -> None:
    data = saved(photo(HEIGHT, WIDTH), kind, **({"lossless": True} if kind == "WEBP" else {}))
    raw.photo.write_bytes(data)
    ran = all_are_converted(raw)
    line = ran.samples["b"]
    assert (line["image_root"], line["image"]) == (".", "images/b.png")
    assert line["reencoded_from"].startswith(kind.lower())
    np.testing.assert_array_equal(ran.image("b"), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
    assert [name for name in ran.samples if "image_root" in ran.samples[name]] == ["b"]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_png_named_jpg_keeps_its_bytes(raw: Raw, mode: str) -> None:
    raw.photo.write_bytes(saved(Image.fromarray(photo(HEIGHT, WIDTH)).convert(mode), "PNG"))
    line = all_are_converted(raw).samples["b"]
    assert "reencoded_from" not in line
    assert line["image"].endswith("b.jpg")


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "LA", "P", "1", "I;16"])
def test_photos_of_odd_modes_are_stored_as_png(raw: Raw, mode: str) -> None:
    pixels = Image.fromarray(photo(HEIGHT, WIDTH))
    picture = Image.fromarray(np.asarray(pixels.convert("L")).astype(np.uint16) * 257)
    raw.photo.write_bytes(
        saved(picture if mode == "I;16" else pixels.convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    )
    ran = all_are_converted(raw)
    assert ran.samples["b"]["image"] == "images/b.png"
    assert ran.image("b").dtype == np.uint8
    assert ran.image("b").shape[:2] == (HEIGHT, WIDTH)


def test_suffixes_in_capitals_are_suffixes(labelled: tuple[Raw, Path]) -> None:
    raw, label = labelled
    raw.photo.rename(raw.photo.with_suffix(".JPG"))
    label.rename(label.with_suffix(label.suffix.upper()))
    all_are_converted(raw)


# ---- EXIF orientation


def turned(kind: str, orientation: int, pixels: Any) -> bytes:
    """A picture of those stored pixels that says how it is to be turned; PNG in its eXIf chunk."""
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    data = saved(pixels, kind, exif=exif(orientation), **options)
    assert kind == "JPEG" or b"eXIf" in data
    return data


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("orientation", "quarters"), [(6, 1), (8, -1), (3, 2)], ids=["6", "8", "3"])
def test_a_photo_whose_label_fits_it_upright_is_turned(raw: Raw, kind: str, orientation: int, quarters: int) -> None:
    upright = photo(HEIGHT, WIDTH)
    raw.photo.write_bytes(turned(kind, orientation, np.ascontiguousarray(np.rot90(upright, quarters))))
    ran = all_are_converted(raw)
    line = ran.samples["b"]
    assert (line["height"], line["width"], line["exif_orientation"]) == (HEIGHT, WIDTH, orientation)
    stored = ran.image("b").astype(int)
    np.testing.assert_allclose(stored, upright, atol=0 if kind == "PNG" else 16)
    assert Image.open(ran.out / line["image"]).getexif().get(0x0112, 1) == 1
    assert ran.report.notes["photos turned by their EXIF orientation"] == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_photo_whose_label_fits_only_its_stored_pixels_is_rejected(raw: Raw, kind: str, orientation: int) -> None:
    raw.photo.write_bytes(turned(kind, orientation, photo(HEIGHT, WIDTH)))
    b_is_rejected(raw, "size-mismatch")


def test_an_orientation_that_is_none_turns_nothing(raw: Raw) -> None:
    raw.photo.write_bytes(turned("JPEG", 9, photo(HEIGHT, WIDTH)))
    assert "exif_orientation" not in all_are_converted(raw).samples["b"]


# ---- labels of many kinds


def values_of(label: Path) -> Any:
    return opened(label.read_bytes())


KEPT: dict[str, Callable[[Any], bytes]] = {
    "grey": lambda values: saved(values, "PNG"),
    "16 bits": lambda values: grey_png(values, 16),
    "palette": palette_png,
    "palette of darkening greys": lambda values: palette_png(values, [(255 - i,) * 3 for i in range(256)]),
    "RGB of equal channels": lambda values: saved(np.dstack([values] * 3), "PNG"),
    "BMP": lambda values: saved(values, "BMP"),
    "TIFF": lambda values: saved(values, "TIFF"),
}


@pytest.mark.parametrize("encode", KEPT.values(), ids=KEPT)
def test_ids_are_kept_however_they_are_stored(drawn: tuple[Raw, Path], encode: Callable[[Any], bytes]) -> None:
    raw, label = drawn
    values = values_of(label)
    plain = all_are_converted(raw).mask("b")
    shutil.rmtree(raw.root.parent / "out")
    label.write_bytes(encode(values))
    ran = all_are_converted(raw)
    np.testing.assert_array_equal(ran.mask("b"), plain)
    assert raw.source.label_map is not None
    ids_read = values if raw.source.name != "pairs" else values // 255
    np.testing.assert_array_equal(plain, lookup_table(raw.source.label_map)[ids_read])


def colored(values: Any) -> Any:
    """Ids drawn in the colours of Pascal VOC, as RGB."""
    return Image.open(io.BytesIO(palette_png(values))).convert("RGB")


def with_alpha(values: Any, mode: str) -> bytes:
    return saved(Image.merge(mode, [Image.fromarray(values)] * len(mode)), "PNG")


LOST: dict[str, tuple[Callable[[Any], bytes], set[str]]] = {
    "JPEG": (lambda values: saved(values, "JPEG"), {"lossy-mask", "not-binary"}),
    "JPEG of colours": (lambda values: saved(colored(values), "JPEG"), {"mask-mode"}),
    "TIFF with JPEG inside": (
        lambda values: saved(values, "TIFF", compression="jpeg", quality=30),
        {"lossy-mask", "not-binary"},
    ),
    "WebP": (lambda values: saved(np.dstack([values] * 3), "WEBP", lossless=True), {"mask-mode"}),
    "colours": (lambda values: saved(colored(values), "PNG"), {"mask-mode"}),
    "RGB with alpha": (lambda values: with_alpha(values, "RGBA"), {"mask-mode"}),
    "grey with alpha": (lambda values: with_alpha(values, "LA"), {"mask-mode"}),
    "unknown id": (lambda values: saved(np.where(values > 0, 77, values), "PNG"), {"unmapped-id", "not-binary"}),
    "unknown id of 16 bits": (lambda values: grey_png(values + np.uint16(1000), 16), {"unmapped-id", "not-binary"}),
    "turn of its own": (lambda values: saved(values, "PNG", exif=exif(3)), {"mask-exif"}),
}


@pytest.mark.parametrize(("encode", "reasons"), LOST.values(), ids=LOST)
def test_labels_whose_ids_are_lost_or_unclear_are_rejected(
    drawn: tuple[Raw, Path], encode: Callable[[Any], bytes], reasons: set[str]
) -> None:
    raw, label = drawn
    label.write_bytes(encode(values_of(label)))
    b_is_rejected(raw, *reasons)


def pfcn_mask(matrix: Any) -> bytes:
    return mat(mask=matrix)


BINARY = ids(HEIGHT, WIDTH, 2)


@pytest.mark.parametrize(
    "matrix",
    [
        BINARY,
        BINARY * 255,
        BINARY.astype(bool),
        BINARY.astype(float),
        BINARY.astype(np.uint16),
        BINARY.astype(np.int32),
    ],
    ids=["0 and 1", "0 and 255", "logical", "double", "uint16", "int32"],
)
def test_pfcn_masks_of_any_number_type_are_the_same_mask(tmp_path: Path, matrix: Any) -> None:
    raw = laid_out("pfcn", tmp_path)
    assert raw.label is not None
    raw.label.write_bytes(pfcn_mask(matrix))
    np.testing.assert_array_equal(all_are_converted(raw).mask("b"), BINARY)


MATRICES = {
    "fractions": mat(mask=BINARY * 0.5),
    "not a number": mat(mask=np.where(BINARY, np.nan, 0.0)),
    "infinite": mat(mask=np.where(BINARY, np.inf, 0.0)),
    "negative": mat(mask=-BINARY.astype(int)),
    "three values": mat(mask=ids(HEIGHT, WIDTH, 3)),
    "three channels": mat(mask=np.dstack([BINARY] * 3)),
    "no values": mat(mask=np.zeros((0, 0))),
    "text": mat(mask="person"),
    "cells": mat(mask=np.array([BINARY, "x"], object)),
    "complex": mat(mask=BINARY * 1j),
    "another name": mat(tracker=BINARY),
}


@pytest.mark.parametrize("data", MATRICES.values(), ids=MATRICES)
def test_pfcn_matrices_that_are_no_mask_are_rejected(tmp_path: Path, data: bytes) -> None:
    raw = laid_out("pfcn", tmp_path)
    assert raw.label is not None
    raw.label.write_bytes(data)
    b_is_rejected(raw, "mask-mode", "not-binary", "unreadable")


def test_a_mat_file_of_version_4_is_read_or_refused(tmp_path: Path) -> None:
    raw = laid_out("pfcn", tmp_path)
    assert raw.label is not None
    file = io.BytesIO()
    scipy.io.savemat(file, {"mask": BINARY}, format="4")
    raw.label.write_bytes(file.getvalue())
    ran = converted(raw)
    if ran.rejected:
        assert [(line["id"], line["reason"]) for line in ran.rejected] == [("b", "unreadable")]
    else:
        np.testing.assert_array_equal(ran.mask("b"), BINARY)


# ---- names


def rename(raw: Raw, stem: str) -> None:
    """Give ``b`` another name, wherever it is written."""
    os.rename(raw.photo, raw.photo.with_name(f"{stem}.jpg"))
    if raw.label:
        os.rename(raw.label, raw.label.with_name(raw.label.name.replace("b", stem, 1)))
        return
    path = raw.root / "instances.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    for image in found["images"]:
        if image["file_name"] == "b.jpg":
            image["file_name"] = f"{stem}.jpg"
    path.write_text(json.dumps(found), encoding="utf-8")


NAMES = {
    "newline": "first\nsecond",
    "tab and bell": "a\tb\a",
    "quotes": "say \"b\" or 'b'",
    "comma": "a,b;c",
    "spaces": "  a  b ",
    "percent": "100%41",
    "CJK": "人物写真",
    "emoji": "👩‍👧",
    "right to left": "שלום",
    "240 bytes": "x" * 240,
    "80 CJK": "写" * 80,
    "only dots": "a...",
    "two suffixes": "b.tar.png",
    "glob": "x[1]*?",
    "reserved by Windows": "con",
    "option": "--help",
    "decomposed": unicodedata.normalize("NFD", "Jürgen"),
    "line separator": "a\u2028b",
}


@pytest.mark.parametrize("stem", NAMES.values(), ids=NAMES)
def test_odd_names_are_names(raw: Raw, stem: str) -> None:
    rename(raw, stem)
    ran = converted(raw)
    assert ran.rejected == []
    assert set(ran.samples) == OTHERS | {safe_id(stem)}
    assert ran.samples[safe_id(stem)]["image"].endswith(f"{stem}.jpg")


def test_a_backslash_in_a_name_is_told(raw: Raw) -> None:
    rename(raw, "a\\b")
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    assert {line["reason"] for line in ran.rejected} <= {"bad-name", "bad-path"}
    told = " ".join(line["id"] + line["detail"] for line in ran.rejected)
    for name in [raw.photo.name, *([raw.label.name] if raw.label else [])]:
        assert name.replace("b", "a\\b", 1) in told.replace("\\\\", "\\")


def test_a_colon_in_a_name_is_taken_or_told(raw: Raw) -> None:
    rename(raw, "12:30:01")
    ran = converted(raw)
    assert set(ran.samples) >= OTHERS
    assert len(ran.samples) + len(ran.rejected) == 3


def test_two_long_names_that_begin_alike_are_two_samples(labelled: tuple[Raw, Path]) -> None:
    raw, label = labelled
    one, two = "x" * 239 + "1", "x" * 239 + "2"
    shutil.copy(raw.photo, raw.photo.with_name(f"{two}.jpg"))
    shutil.copy(label, label.with_name(label.name.replace("b", two, 1)))
    rename(raw, one)
    ran = converted(raw)
    assert ran.rejected == []
    assert set(ran.samples) == OTHERS | {safe_id(one), safe_id(two)}


def test_names_that_are_not_utf8_are_rejected_and_printable(labelled: tuple[Raw, Path]) -> None:
    raw, label = labelled
    odd = os.fsdecode(b"b\xff")
    rename(raw, odd)
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    assert [line["reason"] for line in ran.rejected] == ["bad-name"] * 2
    told = " ".join(line["id"] for line in ran.rejected)
    assert printable(f"{odd}.jpg") in told
    assert printable(label.name.replace("b", odd, 1)) in told
    assert "\\xff" in told


def test_cocos_photo_whose_name_is_not_utf8_is_missed(tmp_path: Path) -> None:
    raw = laid_out("coco", tmp_path)
    raw.photo.rename(raw.photo.with_name(os.fsdecode(b"b\xff.jpg")))
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    assert [(line["id"], line["reason"]) for line in ran.rejected] == [("b", "no-photo")]


def test_half_a_character_in_cocos_file_rejects_its_image_alone(tmp_path: Path) -> None:
    raw = laid_out("coco", tmp_path)
    path = raw.root / "instances.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"b.jpg"', r'"b\udcff.jpg"'), encoding="utf-8")
    raw.photo.rename(raw.photo.with_name(os.fsdecode(b"b\xff.jpg")))
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    assert [(line["id"], line["reason"]) for line in ran.rejected] == [("b%5Cudcff", "bad-path")]


# ---- twins


def add_twin(raw: Raw, photo_name: str, label_stem: str | None = None) -> None:
    """A second photo beside ``b.jpg``, with a label of its own where a stem for it is given."""
    shutil.copy(raw.photo, raw.photo.with_name(photo_name))
    if raw.label and label_stem:
        shutil.copy(raw.label, raw.label.with_name(raw.label.name.replace("b", label_stem, 1)))
    if not raw.label:
        names = [f"{stem}.jpg" for stem in STEMS] + [photo_name]
        found = instances(names, [annotation(i, i) for i in range(1, 5)])
        write(raw.root / "instances.json", json.dumps(found).encode())


TWINS = {
    "letter case of the name": ("B.jpg", "B"),
    "letter case of the suffix": ("b.JPG", None),
    "two suffixes": ("b.png", None),
    "jpeg beside jpg": ("b.jpeg", None),
}


@pytest.mark.parametrize(("name", "label"), TWINS.values(), ids=TWINS)
def test_twins_are_told_and_neither_is_used(raw: Raw, name: str, label: str | None) -> None:
    add_twin(raw, name, label)
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    assert {line["reason"] for line in ran.rejected} == {"ambiguous"}
    for twin in ("b.jpg", name):
        assert any(twin in line["detail"] for line in ran.rejected)


def test_one_name_in_two_unicode_forms_is_ambiguous(raw: Raw) -> None:
    composed, decomposed = "Jürgen", unicodedata.normalize("NFD", "Jürgen")
    rename(raw, composed)
    label = raw.label.with_name(raw.label.name.replace("b", composed, 1)) if raw.label else None
    first = Raw(raw.source, raw.root, raw.photo.with_name(f"{composed}.jpg"), label)
    shutil.copy(first.photo, first.photo.with_name(f"{decomposed}.jpg"))
    if label:
        shutil.copy(label, label.with_name(label.name.replace(composed, decomposed)))
    else:
        names = [f"{composed}.jpg", f"{decomposed}.jpg", *(f"{stem}.jpg" for stem in sorted(OTHERS))]
        write(raw.root / "instances.json", json.dumps(instances(names, [])).encode())
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    assert {line["reason"] for line in ran.rejected} == {"ambiguous"}


@pytest.mark.parametrize("suffix", [".bmp", ".PNG"])
def test_two_labels_of_one_photo_are_told(drawn: tuple[Raw, Path], suffix: str) -> None:
    raw, label = drawn
    shutil.copy(label, label.with_suffix(suffix))
    ran = converted(raw)
    assert set(ran.samples) == OTHERS
    assert {line["reason"] for line in ran.rejected} == {"ambiguous"}
    assert any(label.with_suffix(suffix).name in line["id"] for line in ran.rejected)


# ---- what lies about


JUNK = ("Thumbs.db", ".DS_Store", "._b.jpg", "._b.png", "desktop.ini", "b.jpg.partial", "README", "list.txt", "b.xml")


def test_hidden_and_junk_files_are_passed_over_everywhere(raw: Raw) -> None:
    for folder in [raw.root, *(path for path in raw.root.rglob("*") if path.is_dir())]:
        for name in JUNK:
            write(folder / name, b"junk")
        write(folder / "__MACOSX" / "._b.jpg", b"junk")
        write(folder / "__MACOSX" / "b.jpg", jpeg(1))
        write(folder / ".hidden" / "b.jpg", jpeg(1))
    ran = all_are_converted(raw)
    if raw.label:
        assert ran.report.ignored["hidden"] >= 4
        assert ran.report.ignored[".db"] >= 2
        assert ran.report.ignored["folder"] >= 2


def test_folders_that_are_links_to_the_outside_are_not_followed(raw: Raw) -> None:
    outside = raw.root.parent / "outside"
    for part in (".", "clip_00000009", "matting_00000009", "Images", "Category_ids"):
        write(outside / part / "z.jpg", jpeg(1))
        write(outside / part / "z.png", saved(ids(HEIGHT, WIDTH, 2), "PNG"))
    for folder in [raw.root, *(path for path in raw.root.rglob("*") if path.is_dir())]:
        (folder / "more").symlink_to(outside)
    ran = all_are_converted(raw)
    assert not any("z" in name for name in ran.samples)


def test_a_link_back_to_the_root_costs_nothing(raw: Raw) -> None:
    for folder in [path for path in raw.root.rglob("*") if path.is_dir()]:
        (folder / "back").symlink_to(raw.root)
    all_are_converted(raw)


def test_cocos_file_names_that_lead_through_a_link_or_outside_are_rejected(tmp_path: Path) -> None:
    raw = laid_out("coco", tmp_path)
    write(tmp_path / "outside" / "z.jpg", jpeg(1))
    (raw.root / "images" / "more").symlink_to(tmp_path / "outside")
    names = ["A_10.jpg", "more/z.jpg", "../../outside/z.jpg", str(tmp_path / "outside" / "z.jpg")]
    write(raw.root / "instances.json", json.dumps(instances(names, [])).encode())
    ran = converted(raw)
    assert set(ran.samples) == {"A_10"}
    assert [line["reason"] for line in ran.rejected] == ["bad-path"] * 3


@pytest.mark.parametrize("name", sorted(set(RAW) - MADE))
def test_all_bad_at_once_leaves_no_dataset_and_no_traceback(tmp_path: Path, name: str) -> None:
    raw = laid_out(name, tmp_path)
    for path in raw.root.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(SegdataError, match=r"no sample is left: 3 unreadable \(first: "):
        convert(raw.source, tmp_path / "out", ConvertOptions("people", jobs=1, max_rejected=1.0))
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert len(lines(tmp_path / "out" / "rejected.jsonl")) == 3


def test_copied_photos_are_the_upright_ones(raw: Raw) -> None:
    raw.photo.write_bytes(turned("PNG", 6, np.ascontiguousarray(np.rot90(photo(HEIGHT, WIDTH)))))
    out = raw.root.parent / "out"
    convert(raw.source, out, ConvertOptions("people", jobs=1, copy_images=True))
    assert {path.stem for path in (out / "images").iterdir()} == set(STEMS)
    stored = images.decode_stored((out / "images" / "b.png").read_bytes())
    np.testing.assert_array_equal(stored, photo(HEIGHT, WIDTH))
    assert verify(out, jobs=1).faults == []
