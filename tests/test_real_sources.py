"""Real photographs in the layouts of their datasets (``../shared/data``); no part of the project."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image

from segdata.errors import JobFailed
from segdata.formats import images, raw_pictures
from segdata.jobs.convert import ConvertOptions, ConvertReport, convert
from segdata.jobs.split import split
from segdata.jobs.verify import verify
from segdata.labels import LabelMap, label_map, lookup_table
from segdata.records import SplitOptions
from segdata.sources import Source
from segdata.sources.aisegment import AISegment
from segdata.sources.lip import Lip
from segdata.sources.pairs import Pairs
from segdata.sources.voc import Voc
from tests.folders import lines, tree
from tests.material import saved

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real sample data beside this checkout (../shared/data)")
BINARY = label_map("binary", "mask")


def made(source: Source, out: Path, **options: Any) -> ConvertReport:
    report = convert(source, out, ConvertOptions("real", jobs=1, **options))
    assert verify(out, jobs=1).faults == []
    return report


def labels_of(out: Path) -> dict[str, Any]:
    """Masks or mattes by id."""
    return {
        line["id"]: images.decode_stored((out / (line.get("mask") or line["matte"])).read_bytes())
        for line in lines(out / "samples.jsonl")
    }


# ---- aisegment


def alphas() -> dict[str, Any]:
    paths = sorted((DATA / "aisegment" / "matting").rglob("*.png"))
    return {path.stem: np.asarray(Image.open(path))[:, :, 3] for path in paths}


def test_aisegment_keeps_every_level_of_alpha(tmp_path: Path) -> None:
    before = tree(DATA / "aisegment")
    assert made(AISegment(DATA / "aisegment"), tmp_path / "d").samples == 2
    found = labels_of(tmp_path / "d")
    assert set(found) == set(alphas())
    for name, alpha in alphas().items():
        np.testing.assert_array_equal(found[name], alpha)
        assert len(np.unique(alpha)) > 50
    assert {line["group"] for line in lines(tmp_path / "d" / "samples.jsonl")} == {
        "1803151818-clip_00000000",
        "1803191139-clip_00000001",
    }
    assert tree(DATA / "aisegment") == before


@pytest.mark.parametrize("threshold", [0.1, 0.5, 1.0])
def test_aisegment_at_a_threshold_is_a_mask(tmp_path: Path, threshold: float) -> None:
    made(AISegment(DATA / "aisegment", threshold), tmp_path / "d")
    for name, mask in labels_of(tmp_path / "d").items():
        np.testing.assert_array_equal(mask, alphas()[name] >= threshold * 255)


# ---- mattes


def test_p3m_cut_outs_hold_their_mattes_to_a_level() -> None:
    for path in sorted((DATA / "p3m_matting" / "color").iterdir()):
        cut_out = raw_pictures.read_alpha(path.read_bytes())
        matte = raw_pictures.read_alpha((DATA / "p3m_matting" / "alpha" / path.name).read_bytes())
        np.testing.assert_allclose(cut_out.astype(int), matte.astype(int), atol=1)
        np.testing.assert_array_equal(cut_out, np.asarray(Image.open(path).getchannel("A")))


def test_p3m_in_aisegments_layout_and_in_pairs(tmp_path: Path) -> None:
    root = DATA / "p3m_matting"
    shutil.copytree(root / "original", tmp_path / "raw" / "clip_img" / "p3m" / "clip_1")
    shutil.copytree(root / "color", tmp_path / "raw" / "matting" / "p3m" / "matting_1")
    assert made(AISegment(tmp_path / "raw"), tmp_path / "clips").samples == 4
    assert made(Pairs(root / "original", root / "alpha", None, "matte"), tmp_path / "pairs").samples == 4
    clips, pairs = labels_of(tmp_path / "clips"), labels_of(tmp_path / "pairs")
    assert clips.keys() == pairs.keys()
    for name, matte in clips.items():
        np.testing.assert_array_equal(matte, raw_pictures.read_alpha((root / "color" / f"{name}.png").read_bytes()))
        np.testing.assert_array_equal(pairs[name], np.asarray(Image.open(root / "alpha" / f"{name}.png")))


def portraits(labels: LabelMap | None, kind: str, threshold: int | None = None) -> Pairs:
    root = DATA / "portrait_matting_jpeg"
    return Pairs(root, root, labels, kind, threshold, image_prefix="color_", mask_prefix="alpha_")


def test_mattes_as_jpeg_in_one_folder_are_mattes(tmp_path: Path) -> None:
    report = made(portraits(None, "matte"), tmp_path / "d")
    assert (report.samples, report.rejected) == (3, {})
    for name, matte in labels_of(tmp_path / "d").items():
        path = DATA / "portrait_matting_jpeg" / f"{name.replace('color', 'alpha')}.jpg"
        raw = np.asarray(Image.open(path).convert("RGB"))[:, :, 0]
        np.testing.assert_array_equal(matte, raw)


def test_mattes_as_jpeg_are_no_masks_without_a_threshold(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"3 not-binary \(first: color_1: alpha_1\.jpg: .*--threshold 128"):
        made(portraits(BINARY, "binary"), tmp_path / "d")
    assert made(portraits(BINARY, "binary", 128), tmp_path / "t").samples == 3
    for mask in labels_of(tmp_path / "t").values():
        assert set(np.unique(mask).tolist()) == {0, 1}


# ---- voc


@pytest.mark.parametrize("labels", ["voc", "voc_person"])
def test_voc_masks_are_the_indices_and_void(tmp_path: Path, labels: str) -> None:
    found = label_map(labels, "voc")
    report = made(Voc(DATA / "voc_person", found), tmp_path / "d")
    assert (report.samples, report.rejected) == (6, {})
    persons = 0
    for name, mask in labels_of(tmp_path / "d").items():
        raw = np.asarray(Image.open(DATA / "voc_person" / "SegmentationClass" / f"{name}.png"))
        np.testing.assert_array_equal(mask == 255, raw == 255)
        np.testing.assert_array_equal(mask == found.names.index("person"), raw == 15)
        if labels == "voc":
            np.testing.assert_array_equal(mask, raw)
        persons += int((raw == 15).any())
    assert persons == 6


# ---- cihp


@pytest.fixture
def cihp(tmp_path: Path) -> Path:
    """The three annotations in CIHP's folders: two for training, one for validation."""
    root = tmp_path / "CIHP"
    for half, stems in (("Training", ("0002190", "0012008")), ("Validation", ("0032190",))):
        for folder, source, suffix in (("Images", "images", "jpg"), ("Category_ids", "labels", "png")):
            (root / half / folder).mkdir(parents=True)
            for stem in stems:
                shutil.copy(DATA / "cihp_lip20" / source / f"{stem}.{suffix}", root / half / folder)
    return root


@pytest.mark.parametrize("labels", ["lip", "parts5", "binary"])
def test_cihp_masks_are_the_lookup_table_of_their_ids(tmp_path: Path, cihp: Path, labels: str) -> None:
    found = label_map(labels, "lip")
    assert made(Lip(cihp, found), tmp_path / "d").samples == 3
    for name, mask in labels_of(tmp_path / "d").items():
        raw = np.asarray(Image.open(DATA / "cihp_lip20" / "labels" / f"{name}.png"))
        np.testing.assert_array_equal(mask, lookup_table(found)[raw])


def test_cihps_lists_split_it(tmp_path: Path, cihp: Path) -> None:
    made(Lip(cihp, label_map("parts5", "lip")), tmp_path / "d")
    (tmp_path / "train_id.txt").write_text("0002190\n0012008\n", encoding="utf-8")
    (tmp_path / "val_id.txt").write_text("0032190\n", encoding="utf-8")
    lists = {"train": tmp_path / "train_id.txt", "validation": tmp_path / "val_id.txt"}
    report = split([tmp_path / "d"], tmp_path / "m", SplitOptions(method="listed"), lists)
    assert (report.splits, report.missing, report.unlisted) == ({"train": 2, "validation": 1}, [], [])


def test_the_mirrored_labels_are_the_flip_with_left_and_right_exchanged() -> None:
    labels = label_map("lip", "lip")
    exchanged = np.arange(20)
    for left, right in labels.left_right_pairs:
        exchanged[[left, right]] = right, left
    same = 0
    for path in sorted((DATA / "cihp_lip20" / "labels").iterdir()):
        ids = raw_pictures.read_ids(path.read_bytes())
        mirrored = raw_pictures.read_ids((DATA / "cihp_lip20" / "labels_rev" / path.name).read_bytes())
        same += int((exchanged[ids[:, ::-1]] == mirrored).mean() > 0.999)
    assert same >= 2


def test_edges_are_masks_of_two_values_and_no_lip_ids_are_lost(tmp_path: Path) -> None:
    root = DATA / "cihp_lip20"
    assert made(Pairs(root / "images", root / "edges", BINARY), tmp_path / "d").samples == 3
    with pytest.raises(JobFailed, match="3 not-binary"):
        made(Pairs(root / "images", root / "labels", BINARY), tmp_path / "l")


# ---- a phone's photo


def test_a_phone_photo_is_turned_and_its_label_must_fit_it_upright(tmp_path: Path) -> None:
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    shutil.copy(DATA / "exif_mpo" / "model_test2.jpg", tmp_path / "photos" / "a.jpg")
    upright = np.zeros((4032, 3024), np.uint8)
    upright[1000:3000, 500:2000] = 255
    (tmp_path / "masks" / "a.png").write_bytes(saved(upright, "PNG"))
    source = Pairs(tmp_path / "photos", tmp_path / "masks", BINARY)
    made(source, tmp_path / "d")
    [line] = lines(tmp_path / "d" / "samples.jsonl")
    assert (line["height"], line["width"], line["exif_orientation"]) == (4032, 3024, 6)
    np.testing.assert_array_equal(labels_of(tmp_path / "d")["a"], upright // 255)
    (tmp_path / "masks" / "a.png").write_bytes(saved(np.ascontiguousarray(upright.T), "PNG"))
    with pytest.raises(JobFailed, match=r"1 size-mismatch \(first: a: a\.png"):
        made(source, tmp_path / "e")


def test_masks_in_colours_are_refused(tmp_path: Path) -> None:
    for name in ("photos", "masks"):
        (tmp_path / name).mkdir()
    shutil.copy(DATA / "exif_mpo" / "model_test2_processed.png", tmp_path / "photos" / "a.png")
    shutil.copy(DATA / "exif_mpo" / "model_test2_pure_mask.png", tmp_path / "masks" / "a.png")
    with pytest.raises(JobFailed, match=r"a\.png: RGB with different channels \(a colour picture\)"):
        made(Pairs(tmp_path / "photos", tmp_path / "masks", BINARY), tmp_path / "d")


# ---- ccp


def test_ccps_mat_files_are_masks_through_a_toml_map(tmp_path: Path) -> None:
    root = DATA / "ccp"
    words = json.loads((root / "labels.json").read_text(encoding="utf-8"))["labels"]
    hair, skin = words.index("hair"), words.index("skin")
    rest = [i for i in range(len(words)) if i not in (0, hair, skin)]
    text = "".join(
        f'[[classes]]\nname = "{name}"\nfrom = {found}\n'
        for name, found in (("background", [0]), ("hair", [hair]), ("skin", [skin]), ("clothes", rest))
    )
    (tmp_path / "ccp.toml").write_text(text, encoding="utf-8")
    labels = label_map(str(tmp_path / "ccp.toml"), "")
    source = Pairs(root / "photos", root / "pixel-level", labels, "index", mask_key="groundtruth")
    assert made(source, tmp_path / "d").samples == 40
    for name, mask in labels_of(tmp_path / "d").items():
        raw = scipy.io.loadmat(root / "pixel-level" / f"{name}.mat")["groundtruth"]
        np.testing.assert_array_equal(mask, np.select([raw == 0, raw == hair, raw == skin], [0, 1, 2], 3))


def test_ccps_ids_saved_as_jpeg_are_refused(tmp_path: Path) -> None:
    labels = label_map("humanparsing", "humanparsing")
    root = DATA / "ccp"
    with pytest.raises(JobFailed, match="40 lossy-mask"):
        made(Pairs(root / "photos", root / "mask_jpeg", labels, "index"), tmp_path / "d")
