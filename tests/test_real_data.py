"""Real photographs and masks, where they lie beside the checkout (``../shared/data``); no part of the project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdata.errors import JobFailed
from segdata.formats import images, raw_pictures
from segdata.jobs.build import BuildOptions, build
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.split import split
from segdata.jobs.verify import verify
from segdata.labels import VOCABULARIES, label_map, lookup_table
from segdata.records import Geometry, SplitOptions
from segdata.shards import open_shards
from segdata.sources.humanparsing import HumanParsing
from segdata.sources.pairs import Pairs
from tests.folders import lines

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="no real sample data beside this checkout (../shared/data)")
ONE = ConvertOptions("real", jobs=1)


@pytest.mark.parametrize("labels", ["humanparsing", "binary", "parts5"])
def test_humanparsing_masks_are_the_lookup_table_of_the_indices(tmp_path: Path, labels: str) -> None:
    root = DATA / "humanparsing_derived"
    found = label_map(labels, "humanparsing")
    report = convert(HumanParsing(root, found), tmp_path / "d", ONE)
    assert (report.samples, report.rejected) == (43, {})
    modes = set()
    for line in lines(tmp_path / "d" / "samples.jsonl"):
        raw = Image.open(root / "SegmentationClassAug" / f"{line['id']}.png")
        modes.add(raw.mode)
        stored = Image.open(tmp_path / "d" / line["mask"])
        assert stored.mode == "L"
        assert (np.asarray(stored) == lookup_table(found)[np.asarray(raw)]).all()
    assert modes == {"L", "P"}


def test_parts5_follows_its_definition_class_by_class() -> None:
    """DESIGN's table, written out by name: background holds the bag, belts and dresses are lower body."""
    wanted = {
        "background": "background bag",
        "head": "hat hair sunglass face scarf",
        "upper_body": "upper-clothes",
        "both_hands": "left-arm right-arm",
        "lower_body": "skirt pants dress belt left-shoe right-shoe left-leg right-leg",
    }
    found = label_map("parts5", "humanparsing")
    words = VOCABULARIES["humanparsing"]
    assert {name: {words[i] for i in ids} for name, ids in zip(found.names, found.from_ids, strict=True)} == {
        name: set(members.split()) for name, members in wanted.items()
    }


def test_smaller_portrait_masks_are_resized_to_their_photos(tmp_path: Path) -> None:
    root = DATA / "portrait_pairs"
    source = Pairs(root / "Training_Images", root / "Ground_Truth", label_map("binary", "mask"))
    with pytest.raises(JobFailed, match="38 size-mismatch"):
        convert(source, tmp_path / "d", ONE)
    report = convert(source, tmp_path / "d", ConvertOptions("real", resize_masks=True, jobs=1))
    assert (report.samples, report.notes) == (60, {"masks resized to their photo": 38})
    assert not verify(tmp_path / "d", jobs=1).faults


def test_labels_of_0_and_1_in_rgb_are_masks_and_jpeg_ones_need_a_threshold(tmp_path: Path) -> None:
    root = DATA / "tiny_pairs"
    binary = label_map("binary", "mask")
    assert convert(Pairs(root / "train", root / "label", binary), tmp_path / "png", ONE).samples == 40
    with pytest.raises(JobFailed, match=r"40 not-binary.*saved lossily"):
        convert(Pairs(root / "train", root / "mask", binary), tmp_path / "jpeg", ONE)
    convert(Pairs(root / "train", root / "mask", binary, threshold=128), tmp_path / "jpeg", ONE)
    for line in lines(tmp_path / "png" / "samples.jsonl"):
        exact, cut = (images.decode_mask((tmp_path / kind / line["mask"]).read_bytes()) for kind in ("png", "jpeg"))
        assert (exact != cut).mean() < 0.01


def test_voc_through_a_toml_map_keeps_person_and_void(tmp_path: Path) -> None:
    root = DATA / "voc_person"
    toml = 'source = "voc"\nignore = [255]\n[[classes]]\nname = "background"\nfrom = ["0-14", "16-20"]\n'
    (tmp_path / "voc.toml").write_text(toml + '[[classes]]\nname = "person"\nfrom = ["person"]\n', encoding="utf-8")
    found = label_map(str(tmp_path / "voc.toml"), "")
    convert(Pairs(root / "JPEGImages", root / "SegmentationClass", found, kind="index"), tmp_path / "d", ONE)
    for line in lines(tmp_path / "d" / "samples.jsonl"):
        raw = np.asarray(Image.open(root / "SegmentationClass" / f"{line['id']}.png"))
        mask = images.decode_mask((tmp_path / "d" / line["mask"]).read_bytes())
        assert ((mask == 1) == (raw == 15)).all()
        assert ((mask == 255) == (raw == 255)).all()


def test_a_phone_photo_is_taken_by_its_first_frame_and_turned(tmp_path: Path) -> None:
    photo = raw_pictures.read_photo((DATA / "exif_mpo" / "model_test2.jpg").read_bytes())
    assert (photo.header.height, photo.header.width, photo.orientation) == (4032, 3024, 6)
    assert photo.reencoded_from is not None
    assert photo.reencoded_from.startswith("mpo")


def test_published_mattes_keep_every_level_to_the_shards(tmp_path: Path) -> None:
    root = DATA / "p3m_matting"
    convert(Pairs(root / "original", root / "alpha", None, kind="matte"), tmp_path / "d", ONE)
    split([tmp_path / "d"], tmp_path / "m", SplitOptions(test=1))
    build(tmp_path / "m", tmp_path / "s", BuildOptions(Geometry(size=(96, 128), fit="letterbox"), jobs=1))
    for sample in open_shards(tmp_path / "s"):
        assert sample.matte is not None
        assert len(np.unique(sample.matte)) > 50
    for line in lines(tmp_path / "d" / "samples.jsonl"):
        raw = np.asarray(Image.open(root / "alpha" / f"{line['id']}.png"))
        assert (images.decode_stored((tmp_path / "d" / line["matte"]).read_bytes()) == raw).all()
