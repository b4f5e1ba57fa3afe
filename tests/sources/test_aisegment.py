"""AISegment: clips whose file names repeat, mattes in the alpha of cut-outs, folders that are not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import ImageRefused, JobFailed, OptionError, SourceError
from segdata.formats import images
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.split import split
from segdata.jobs.verify import verify
from segdata.records import SplitOptions
from segdata.sources import Entry, Found
from segdata.sources.aisegment import AISegment
from tests.folders import lines
from tests.material import palette_png, photo, raw_png, saved
from tests.sources.layouts import HEIGHT, WIDTH, cut_out, jpeg, soft, write

CLIPS = [("1803151818", "00000000"), ("1803151818", "00000001"), ("1804", "00000000")]
OPTIONS = ConvertOptions("portraits", jobs=1)


def photo_path(shoot: str, clip: str, name: str = "1") -> str:
    return f"clip_img/{shoot}/clip_{clip}/{name}.jpg"


def matte_path(shoot: str, clip: str, name: str = "1") -> str:
    return f"matting/{shoot}/matting_{clip}/{name}.png"


def add(root: Path, shoot: str, clip: str, name: str = "1", seed: int = 0) -> None:
    write(root / photo_path(shoot, clip, name), jpeg(seed))
    write(root / matte_path(shoot, clip, name), cut_out(soft(), seed))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three clips, of two shoots, with the photos 1 and 2 in each, and one more name in the last."""
    for number, clip in enumerate(CLIPS):
        for name in ("1", "2"):
            add(tmp_path / "raw", *clip, name, seed=2 * number + int(name))
    add(tmp_path / "raw", *CLIPS[-1], "own", seed=9)
    return tmp_path / "raw"


def told(found: Found) -> list[tuple[str, str]]:
    return sorted((line.id, line.reason) for line in found.rejected)


def made(root: Path, **options: Any) -> Path:
    out = root.parent / "out"
    convert(AISegment(root, **options), out, OPTIONS)
    assert verify(out, jobs=1).faults == []
    return out


# ---- ids and groups


def test_a_name_of_one_clip_only_is_the_id_and_others_get_their_path(root: Path) -> None:
    found = AISegment(root).find()
    ids = [entry.id for entry in found.entries]
    assert ids == sorted(ids)
    assert found.rejected == []
    assert set(ids) == {"own"} | {
        f"clip_img-{shoot}-clip_{clip}-{name}" for shoot, clip in CLIPS for name in ("1", "2")
    }


def test_each_photo_has_its_own_clips_matte(root: Path) -> None:
    for entry in AISegment(root).find().entries:
        expected = entry.image.replace("clip_img", "matting").replace("clip_", "matting_").replace(".jpg", ".png")
        assert entry.label == expected


def test_the_group_is_the_clip_of_its_shoot(root: Path) -> None:
    groups: dict[str, set[str]] = {}
    for entry in AISegment(root).find().entries:
        groups.setdefault(entry.group, set()).add(str(Path(entry.image).parent))
    assert groups == {f"{shoot}-clip_{clip}": {f"clip_img/{shoot}/clip_{clip}"} for shoot, clip in CLIPS}


def test_a_clip_never_stands_on_two_sides_of_a_split(root: Path) -> None:
    out = made(root)
    report = split([out], root.parent / "m", SplitOptions(test=2))
    assert report.splits == {"train": 5, "test": 2}
    sides = {name: {line["group"] for line in lines(root.parent / "m" / f"{name}.jsonl")} for name in report.splits}
    assert not sides["train"] & sides["test"]


def test_ids_do_not_change_when_a_clip_of_other_names_is_added(root: Path) -> None:
    before = {entry.image: entry.id for entry in AISegment(root).find().entries}
    add(root, "1900", "00000000", "new")
    after = {entry.image: entry.id for entry in AISegment(root).find().entries}
    assert before.items() <= after.items()


def test_paths_that_give_one_id_are_ambiguous(tmp_path: Path) -> None:
    add(tmp_path, "1", "2-3", "x")
    add(tmp_path, "1", "2", "x")
    add(tmp_path, "1", "2", "3-x")
    add(tmp_path, "2", "2", "3-x")
    found = AISegment(tmp_path).find()
    ids = [entry.id for entry in found.entries]
    assert len(ids) == len(set(ids))
    assert len(found.entries) + len(found.rejected) == 4


# ---- alpha


def rgba16(alpha: Any) -> bytes:
    """An RGBA PNG of 16 bits a channel."""
    height, width = alpha.shape
    pixels = np.dstack([np.zeros((height, width, 3), np.uint16), alpha])
    return raw_png(width, height, 16, 6, [row.astype(">u2").tobytes() for row in pixels])


def matte(out: Path, sample: str) -> Any:
    line = next(line for line in lines(out / "samples.jsonl") if line["id"] == sample)
    return images.decode_stored((out / line["matte"]).read_bytes())


def test_alpha_of_8_bits_is_kept_exactly(root: Path) -> None:
    alpha = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
    write(root / matte_path(*CLIPS[-1], "own"), cut_out(alpha))
    found = matte(made(root), "own")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, alpha)


def test_alpha_of_16_bits_is_kept_exactly(root: Path) -> None:
    alpha = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 85).astype(np.uint16)
    write(root / matte_path(*CLIPS[-1], "own"), rgba16(alpha))
    found = matte(made(root), "own")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, alpha)


@pytest.mark.parametrize("value", [0, 255])
def test_alpha_of_one_value_is_alpha(root: Path, value: int) -> None:
    write(root / matte_path(*CLIPS[-1], "own"), cut_out(np.full((HEIGHT, WIDTH), value, np.uint8)))
    assert (matte(made(root), "own") == value).all()


def test_colours_under_alpha_do_not_matter(root: Path) -> None:
    path = root / matte_path(*CLIPS[-1], "own")
    write(path, cut_out(soft(), 1))
    one = AISegment(root).annotate(Entry(id="own", group="g", image="", label=matte_path(*CLIPS[-1], "own"))).values
    write(path, saved(np.dstack([np.zeros((HEIGHT, WIDTH, 3), np.uint8), soft()]), "PNG"))
    other = AISegment(root).annotate(Entry(id="own", group="g", image="", label=matte_path(*CLIPS[-1], "own"))).values
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("threshold", [1 / 255, 0.25, 0.5, 0.9, 1.0])
def test_a_threshold_cuts_alpha_and_is_itself_person(root: Path, threshold: float) -> None:
    alpha = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint8)
    write(root / matte_path(*CLIPS[-1], "own"), cut_out(alpha))
    out = made(root, threshold=threshold)
    assert not (out / "mattes").exists()
    mask = images.decode_mask((out / "masks" / "own.png").read_bytes())
    np.testing.assert_array_equal(mask, alpha >= threshold * 255)
    assert mask.max() == 1


@pytest.mark.parametrize("threshold", [0, 0.0, -0.5, 1.01, 128, float("nan"), float("inf")])
def test_a_threshold_is_a_share(tmp_path: Path, threshold: float) -> None:
    with pytest.raises(OptionError, match="--threshold"):
        AISegment(tmp_path, threshold)


def test_a_threshold_makes_masks_and_is_recorded(tmp_path: Path) -> None:
    assert AISegment(tmp_path).label_map is None
    binary = AISegment(tmp_path, 0.5).label_map
    assert binary is not None
    assert binary.names == ("background", "person")
    assert AISegment(tmp_path, 0.5).options() == {"threshold": 0.5}


def annotated(root: Path, data: bytes) -> Any:
    write(root / "m.png", data)
    return AISegment(root).annotate(Entry(id="a", group="a", image="a.jpg", label="m.png")).values


def test_a_cut_out_without_alpha_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match=r"matte-mode|mask-mode"):
        annotated(tmp_path, saved(photo(HEIGHT, WIDTH), "PNG"))


def test_a_cut_out_saved_as_jpeg_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match=r"matte-mode|mask-mode"):
        annotated(tmp_path, saved(photo(HEIGHT, WIDTH), "JPEG"))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_grey_matte_is_taken(tmp_path: Path, kind: str) -> None:
    np.testing.assert_array_equal(annotated(tmp_path, saved(soft(), kind)), soft())


def test_indices_of_a_palette_are_no_alpha(tmp_path: Path) -> None:
    with pytest.raises(ImageRefused, match="matte-mode"):
        annotated(tmp_path, palette_png(soft()))


# ---- folders and files that are not as they should be


def test_photos_of_a_clip_without_mattes_are_named(root: Path) -> None:
    for path in sorted((root / matte_path(*CLIPS[0])).parent.iterdir()):
        path.unlink()
    (root / matte_path(*CLIPS[0])).parent.rmdir()
    found = AISegment(root).find()
    folder = Path(photo_path(*CLIPS[0])).parent.as_posix()
    assert told(found) == [(f"{folder}/1.jpg", "no-mask"), (f"{folder}/2.jpg", "no-mask")]
    assert len(found.entries) == 5


def test_mattes_without_their_clip_are_named(root: Path) -> None:
    for path in sorted((root / photo_path(*CLIPS[0])).parent.iterdir()):
        path.unlink()
    (root / photo_path(*CLIPS[0])).parent.rmdir()
    found = AISegment(root).find()
    assert [reason for _, reason in told(found)] == ["no-image"] * 2
    assert all(CLIPS[0][0] in name and CLIPS[0][1] in name for name, _ in told(found))


def test_a_whole_shoot_without_mattes_is_named(root: Path) -> None:
    write(root / photo_path("1999", "00000000"), jpeg(1))
    assert told(AISegment(root).find()) == [("clip_img/1999/clip_00000000/1.jpg", "no-mask")]


def test_a_photo_without_its_matte_is_named_with_its_clip(root: Path) -> None:
    (root / matte_path(*CLIPS[1], "2")).unlink()
    (root / photo_path(*CLIPS[2], "1")).unlink()
    found = AISegment(root).find()
    assert [reason for _, reason in told(found)] == ["no-mask", "no-image"]
    assert told(found)[0][0] == photo_path(*CLIPS[1], "2")


@pytest.mark.parametrize("gone", ["clip_img", "matting"])
def test_a_root_without_one_of_the_two_folders_is_refused_and_the_folder_named(root: Path, gone: str) -> None:
    (root / gone).rename(root / "elsewhere")
    with pytest.raises(SourceError, match=rf"{gone}. Name the folder that holds it"):
        AISegment(root).find()


def test_another_layout_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    write(tmp_path / "clip_img" / "1.jpg", jpeg(1))
    write(tmp_path / "matting" / "1.png", cut_out(soft()))
    with pytest.raises(SourceError, match=r"no folder clip_img/\*/clip_\*, expected AISegment's layout"):
        AISegment(tmp_path).find()


def test_apples_hidden_twins_are_passed_over_and_counted(root: Path) -> None:
    for clip in CLIPS:
        write(root / photo_path(*clip, "._1"), b"Mac OS X")
        write(root / matte_path(*clip, "._1"), b"Mac OS X")
    write(root / "clip_img" / ".DS_Store", b"junk")
    write(root / "clip_img" / "._1803151818", b"junk")
    write(root / "clip_img" / "1803151818" / "._clip_00000000", b"junk")
    found = AISegment(root).find()
    assert len(found.entries) == 7
    assert found.rejected == []
    assert found.ignored == {"hidden": 9}


def test_links_to_folders_are_not_followed_and_counted(root: Path, tmp_path: Path) -> None:
    add(tmp_path / "elsewhere", "1900", "00000000", "z")
    (root / "clip_img" / "1900").symlink_to(tmp_path / "elsewhere" / "clip_img" / "1900")
    (root / "matting" / "1900").symlink_to(tmp_path / "elsewhere" / "matting" / "1900")
    (root / "clip_img" / "1804" / "clip_9").symlink_to(root / "clip_img" / "1804" / "clip_00000000")
    found = AISegment(root).find()
    assert (len(found.entries), found.rejected, found.ignored) == (7, [], {"link to a folder": 3})


def test_photos_beside_the_clips_are_counted(root: Path) -> None:
    write(root / "clip_img" / "stray.jpg", jpeg(1))
    write(root / "matting" / "1804" / "stray.png", cut_out(soft()))
    found = AISegment(root).find()
    assert (len(found.entries), found.rejected, found.ignored) == (7, [], {".jpg": 1, ".png": 1})


def test_folders_of_other_names_are_no_clips(root: Path) -> None:
    write(root / "clip_img" / "1804" / "preview" / "1.jpg", jpeg(1))
    write(root / "matting" / "1804" / "old_matting_00000000" / "1.png", cut_out(soft()))
    found = AISegment(root).find()
    assert (len(found.entries), found.ignored) == (7, {"folder": 2})


def test_a_folder_whose_name_is_not_utf8_is_rejected_as_a_whole(root: Path) -> None:
    odd = os.fsdecode(b"clip_\xff")
    (root / "clip_img" / "1804" / odd).mkdir()
    found = AISegment(root).find()
    assert (told(found), found.ignored) == ([("clip_img/1804/clip_\\xff", "bad-name")], {})


def test_nothing_but_unpaired_files_is_no_dataset(tmp_path: Path) -> None:
    write(tmp_path / "raw" / photo_path(*CLIPS[0]), jpeg(1))
    (tmp_path / "raw" / "matting").mkdir()
    with pytest.raises(JobFailed, match="no sample is left: 1 no-mask"):
        convert(AISegment(tmp_path / "raw"), tmp_path / "out", OPTIONS)


# ---- lists


@pytest.mark.parametrize("with_matte", [False, True], ids=["photo", "photo and matte"])
def test_list_files_of_paths_split_it(root: Path, with_matte: bool) -> None:
    out = made(root)
    train = [photo_path(*CLIPS[0], "1"), photo_path(*CLIPS[0], "2"), photo_path(*CLIPS[1], "1")]
    test = [photo_path(*CLIPS[2], name) for name in ("1", "2", "own")]
    if with_matte:
        test = [f"{photo_path(*CLIPS[2], name)} {matte_path(*CLIPS[2], name)}" for name in ("1", "2", "own")]
    for name, rows in (("train", train), ("test", test)):
        write(root.parent / f"{name}.txt", "\r\n".join(rows).encode())
    lists = {name: root.parent / f"{name}.txt" for name in ("train", "test")}
    report = split([out], root.parent / "m", SplitOptions(method="listed"), lists)
    assert report.splits == {"train": 3, "test": 3}
    assert report.missing == []
    assert report.unlisted == [f"clip_img-{CLIPS[1][0]}-clip_{CLIPS[1][1]}-2"]
    assert [line["image"] for line in lines(root.parent / "m" / "train.jsonl")]
    listed = {line["id"] for line in lines(root.parent / "m" / "test.jsonl")}
    assert listed == {"own", *(f"clip_img-1804-clip_00000000-{name}" for name in ("1", "2"))}


def test_lists_that_part_a_clip_are_reported(root: Path) -> None:
    out = made(root)
    write(root.parent / "train.txt", photo_path(*CLIPS[0], "1").encode())
    write(root.parent / "test.txt", photo_path(*CLIPS[0], "2").encode())
    lists = {name: root.parent / f"{name}.txt" for name in ("train", "test")}
    report = split([out], root.parent / "m", SplitOptions(method="listed"), lists)
    assert len(report.straddling) == 1


def test_a_name_that_stands_in_several_clips_is_refused(root: Path) -> None:
    out = made(root)
    write(root.parent / "test.txt", b"1.jpg")
    with pytest.raises(SourceError, match=r"'1\.jpg' fits several samples"):
        split([out], root.parent / "m", SplitOptions(method="listed"), {"test": root.parent / "test.txt"})
