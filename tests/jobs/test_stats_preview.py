"""stats and preview, over all three kinds of folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segdata.errors import FolderError, OptionError
from segdata.formats import images
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.preview import preview
from segdata.jobs.stats import stats
from segdata.shards import open_shards
from segdata.sources.pairs import Pairs
from tests.folders import Made, lines, small_pairs


def test_dataset_and_manifest_sum_to_the_sample_lines(kept: Made) -> None:
    whole = stats(kept.dataset).splits["all"]
    found = lines(kept.dataset / "samples.jsonl")
    assert whole.samples == whole.groups == 12
    assert whole.pixels == sum(line["height"] * line["width"] for line in found) == sum(whole.class_pixels.values())
    parts = stats(kept.manifest).splits
    for name, count in whole.class_pixels.items():
        assert count == sum(line["class_pixels"][name] for line in found)
        assert count == sum(part.class_pixels[name] for part in parts.values())


def test_shards_count_their_own_pixels(kept: Made) -> None:
    found = stats(kept.shards, jobs=2).splits["train"]
    masks = np.stack([sample.mask for sample in open_shards(kept.shards, "train")])
    assert found.samples == 7
    assert list(found.class_pixels.values()) == [int((masks == i).sum()) for i in range(5)]
    assert found.ignored == int((masks == 255).sum())
    assert found.class_samples["head"] == sum((mask == 1).any() for mask in masks)
    assert found.smallest == found.largest == (64, 96)


def test_shards_are_counted_without_decoding_their_images(kept: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = stats(kept.shards, jobs=1)
    monkeypatch.setattr(images, "decode_rgb", None)
    with pytest.raises(TypeError):
        next(iter(open_shards(kept.shards, "train")))
    assert stats(kept.shards, jobs=1) == expected


def test_mattes_are_counted_by_alpha(tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path, 2)
    convert(Pairs(photos, masks, None, kind="matte"), tmp_path / "d", ConvertOptions("mine", jobs=1))
    found = stats(tmp_path / "d", jobs=1).splits["all"]
    assert found.alpha[9] == 15 * 10 + 15 * 11
    assert sum(found.alpha) == 2 * 30 * 40


@pytest.mark.parametrize("kind", ["dataset", "manifest", "shards"])
def test_a_sheet_is_drawn_and_the_same_every_time(kept: Made, tmp_path: Path, kind: str) -> None:
    report = preview(getattr(kept, kind), tmp_path / "a.png", count=5)
    preview(getattr(kept, kind), tmp_path / "b.png", count=5)
    assert report.shown == 5
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    sheet = np.asarray(Image.open(tmp_path / "a.png"))
    for color in ((255, 205, 60), (230, 60, 60), (70, 120, 235)):
        assert (sheet == color).all(axis=2).sum() > 100


def test_preview_says_what_it_expects(kept: Made, tmp_path: Path) -> None:
    preview(kept.shards, tmp_path / "a.png", split="test", count=99)
    with pytest.raises(FolderError, match="exists already"):
        preview(kept.shards, tmp_path / "a.png")
    preview(kept.shards, tmp_path / "a.png", overwrite=True)
    (tmp_path / "mine.png").write_bytes(next(kept.dataset.glob("masks/*.png")).read_bytes())
    with pytest.raises(FolderError, match="no sheet that segdata drew"):
        preview(kept.shards, tmp_path / "mine.png", overwrite=True)
    with pytest.raises(FolderError, match="lies in 'shards'"):
        preview(kept.shards, kept.shards / "sheet.png")
    with pytest.raises(OptionError, match="train, validation, test"):
        preview(kept.shards, tmp_path / "b.png", split="dev")
    with pytest.raises(OptionError, match="no splits"):
        preview(kept.dataset, tmp_path / "b.png", split="train")
    with pytest.raises(OptionError, match=r"\.png"):
        preview(kept.dataset, tmp_path / "b.jpg")
    with pytest.raises(OptionError, match="--count 0"):
        preview(kept.dataset, tmp_path / "b.png", count=0)
