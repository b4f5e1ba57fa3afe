"""preview --augment: what training sees of shards."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from segdata import sheets
from segdata.cli import main
from segdata.errors import OptionError
from segdata.jobs.build import BuildOptions, build
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.preview import preview
from segdata.jobs.split import split
from segdata.order import Order
from segdata.records import Geometry, Sample, SplitOptions
from segdata.shards import Shards, open_shards
from segdata.sources.pairs import Pairs
from segmodels.augment import PRESETS, apply
from segmodels.feeds import feed
from segmodels.inputs import Inputs
from tests.folders import Made, small_pairs
from tests.segmodels.material import BINARY, Recipe, write_shards

VIOLET = (200, 80, 220)


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    return int(end.value.code or 0)


def violet(sheet: Path) -> int:
    return int((np.asarray(Image.open(sheet)) == VIOLET).all(axis=2).sum())


@pytest.fixture(scope="module")
def mattes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of two 40x30 mattes at 64x64: a quarter of each is bars."""
    root = tmp_path_factory.mktemp("mattes")
    photos, masks = small_pairs(root, 2)
    convert(Pairs(photos, masks, None, kind="matte"), root / "d", ConvertOptions("mine", jobs=1))
    split([root / "d"], root / "m", SplitOptions(test=0))
    build(root / "m", root / "s", BuildOptions(Geometry(size=(64, 64), fit="letterbox"), shards=1, jobs=1))
    return root / "s"


def test_every_record_is_drawn_as_each_makes_it(kept: Made, tmp_path: Path) -> None:
    asked = []

    def red(shards: Shards, number: int) -> Sample:
        sample = shards.sample(number)
        asked.append((number, sample.id))
        assert shards.split == "train"
        return replace(sample, image=np.full_like(sample.image, (250, 0, 3)))

    report = preview(kept.shards, tmp_path / "a.png", 3, "train", seen=[red, red])
    assert (report.shown, report.total) == (3, 7)
    assert [number for number, _ in asked] == [0, 0, 1, 1, 2, 2]
    assert asked[0][1] == asked[1][1] != asked[2][1]
    assert (np.asarray(Image.open(tmp_path / "a.png")) == (250, 0, 3)).all(axis=2).sum() > 6 * 64 * 96


def test_pixels_of_a_matte_that_do_not_count_are_violet(mattes: Path, tmp_path: Path) -> None:
    assert run("preview", mattes, "--out", tmp_path / "plain.png") == 0
    assert violet(tmp_path / "plain.png") == 0
    assert run("preview", mattes, "--augment", "none", "--out", tmp_path / "none.png") == 0
    bars = 2 * 2 * 176 * 176 // 4  # in the matte and the cut-out of two samples
    assert bars * 0.95 < violet(tmp_path / "none.png") < bars * 1.05
    scale = tmp_path / "small.toml"
    scale.write_text("[scale]\nfactor = [0.5, 0.5]\nprobability = 1\n", encoding="utf-8")
    assert run("preview", mattes, "--augment", scale, "--out", tmp_path / "small.png") == 0
    assert violet(tmp_path / "small.png") > 2.5 * bars


def test_seed_and_epochs_decide_what_is_drawn(kept: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def sheet(name: str, *arguments: str) -> bytes:
        out = tmp_path / f"{name}.png"
        assert (
            run("preview", kept.shards, "--count", "3", "--augment", "portrait", "--json", "--out", out, *arguments)
            == 0
        )
        assert json.loads(capsys.readouterr().out)["shown"] == 3
        return out.read_bytes()

    first = sheet("a")
    assert sheet("b", "--seed", "0", "--epoch", "1") == first
    assert len({first, sheet("c", "--seed", "1"), sheet("d", "--epoch", "2"), sheet("e", "--epochs", "2")}) == 4


def test_what_does_not_fit_is_an_option_error(kept: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "a.png"
    for path in (kept.dataset, kept.manifest):
        with pytest.raises(OptionError, match="is no folder of shards, which --augment needs"):
            preview(path, out, seen=[Shards.sample])
    for wrong in (
        ["--augment", "portait"],
        ["--augment", "none", "--seed", "-1"],
        ["--augment", "none", "--epoch", "0"],
        ["--augment", "none", "--epochs", "0"],
        ["--augment", "none", "--size", "12x"],
        ["--augment", "none", "--size", "0"],
        ["--augment", "none", "--size", "64", "--fit", "none"],
        ["--augment", "none", "--fit", "stretch"],
        ["--size", "64"],
        ["--fit", "letterbox"],
        ["--grey"],
        ["--seed", "0"],
        ["--epoch", "1"],
        ["--epochs", "1"],
    ):
        assert run("preview", kept.shards, "--out", out, *wrong) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert error.startswith("segdata: error: ")
        assert wrong[-1] in error
        assert ("goes with --augment" in error) == ("--augment" not in wrong)
    assert not out.exists()


# ---- what stands on the sheet is what the network is given

PHOTOS = ((48, 40), (30, 50), (33, 64), (40, 40))
BOXED = Geometry(size=(48, 48), fit="letterbox")
PORTRAIT = PRESETS["portrait"]
PAIRS = ((0, 1),)  # as if they were a left and a right, so that a flip that forgets them shows


@dataclass(frozen=True)
class Case:
    """Shards, what preview is given, and how training with that reads them."""

    stored: Geometry
    arguments: str
    geometry: Geometry
    grey: bool = False
    mattes: bool = False


CASES = {
    "bars undone and made again": Case(BOXED, "--size 32x64", Geometry(size=(32, 64), fit="letterbox")),
    "bars undone, then stretched": Case(BOXED, "--size 32x64 --fit stretch", Geometry(size=(32, 64), fit="stretch")),
    "the shards' own size": Case(BOXED, "", BOXED),
    "grey": Case(BOXED, "--grey --size 64", Geometry(size=(64, 64), fit="letterbox"), grey=True),
    "shards without a size": Case(Geometry(), "--size 40x32", Geometry(size=(40, 32), fit="letterbox")),
    "mattes": Case(BOXED, "--size 32x64 --grey", Geometry(size=(32, 64), fit="letterbox"), grey=True, mattes=True),
}


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> list[sheets.Cell]:
    """Those of every sheet that is drawn, before it shrinks them."""
    drawn: list[sheets.Cell] = []
    real = sheets.contact_sheet

    def contact_sheet(cells: list[sheets.Cell], *others: Any) -> Any:
        drawn.extend(cells)
        return real(cells, *others)

    monkeypatch.setattr(sheets, "contact_sheet", contact_sheet)
    return drawn


def shards_of(folder: Path, stored: Geometry, mattes: bool = False) -> Path:
    labels = msgspec.structs.replace(BINARY, left_right_pairs=PAIRS)
    bits = 8 if mattes else 0
    recipe = Recipe({"train": 8}, stored.size, labels, 2, "", stored.fit, PHOTOS, not mattes, bits)
    write_shards(folder / "shards", recipe)
    return folder / "shards"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_what_is_drawn_is_what_training_feeds(case: Case, cells: list[sheets.Cell], tmp_path: Path) -> None:
    path = shards_of(tmp_path, case.stored, case.mattes)
    more = (*case.arguments.split(), "--seed", "5", "--epoch", "3", "--epochs", "2", "--count", "8")
    assert run("preview", path, "--augment", "portrait", "--out", tmp_path / "a.png", *more) == 0
    target = "matte" if case.mattes else "mask"
    inputs = Inputs(case.stored, case.geometry, target, grey=case.grey, augment=PORTRAIT, pairs=PAIRS, seed=5)
    shards = open_shards(path)
    labels = shards.index.label_map
    for epoch in (2, 3):  # of those that count from 0
        fed = next(feed(shards, inputs, 8, Order(epoch=epoch)))
        assert fed.images.shape == (8, *(case.geometry.size or ()), 1 if case.grey else 3)
        for i, cell in enumerate(cells[epoch - 2 :: 2]):
            assert cell.caption.startswith(f"{fed.ids[i]}, epoch {epoch + 1}: ")
            np.testing.assert_array_equal(cell.panels[0], np.broadcast_to(fed.images[i], cell.panels[0].shape))
            truth = fed.targets["target"][i]
            grey = np.where(truth < 0, 0, np.rint(truth * 255)).astype(np.uint8)[:, :, None]
            wanted = sheets.colored(truth, labels) if labels else np.where(truth[:, :, None] < 0, VIOLET, grey)
            np.testing.assert_array_equal(cell.panels[1], wanted)
    assert len(cells) == 16


def test_without_a_size_photos_keep_theirs_and_a_note_says_so(
    cells: list[sheets.Cell], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = shards_of(tmp_path, Geometry())
    assert run("preview", path, "--augment", "portrait", "--out", tmp_path / "a.png") == 0
    assert "note: " in (said := capsys.readouterr().err)
    assert "each photo is augmented at its own size" in said
    for i, sample in enumerate(open_shards(path)):
        image, mask, _ = apply(PORTRAIT, sample.image, sample.mask, None, PAIRS, 0, 0, i)
        np.testing.assert_array_equal(cells[i].panels[0], image)
        np.testing.assert_array_equal(cells[i].panels[1], sheets.colored(mask, open_shards(path).index.label_map))  # type: ignore[arg-type]
    assert {cell.panels[0].shape[:2] for cell in cells} == set(PHOTOS)
    for quiet in (["--augment", "none", "--size", "64"], []):
        assert run("preview", path, "--out", tmp_path / "a.png", "--overwrite", *quiet) == 0
        assert not capsys.readouterr().err


@pytest.mark.parametrize("mattes", [False, True], ids=["masks", "mattes"])
def test_the_caption_names_a_new_background_only_where_there_is_one(
    mattes: bool, cells: list[sheets.Cell], tmp_path: Path
) -> None:
    only = tmp_path / "plain.toml"
    only.write_text("[plain_background]\nprobability = 1\n", encoding="utf-8")
    path = shards_of(tmp_path, BOXED, mattes)
    assert run("preview", path, "--augment", only, "--out", tmp_path / "a.png") == 0
    assert {cell.caption.split(": ")[1] for cell in cells} == {"plain_background" if mattes else "as it is"}
