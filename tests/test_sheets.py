"""Contact sheets: what they show is what was given, in every size and script."""

from __future__ import annotations

import numpy as np
import pytest

from segdata.labels import LabelMap, distinct_colors, label_map
from segdata.sheets import Cell, colored, contact_sheet, cutout, grey, overlay
from tests.material import Pixels, ids, photo

PARTS5 = label_map("parts5", "humanparsing")


def cells(count: int, caption: str = "sample") -> list[Cell]:
    mask = ids(30, 40, 5)
    return [Cell(f"{caption} {i}", (photo(30, 40, i), colored(mask, PARTS5))) for i in range(count)]


def sheet(count: int, **options: int) -> Pixels:
    return contact_sheet(cells(count), ["image", "mask"], PARTS5, **options)


# ---- panels


def test_a_mask_is_shown_in_its_colours_and_the_ignore_index_in_grey() -> None:
    mask = np.array([[0, 1, 4, 255]], np.uint8)
    assert colored(mask, PARTS5).tolist() == [[[0, 0, 0], [255, 205, 60], [70, 120, 235], [200, 200, 200]]]


def test_an_overlay_leaves_the_background_and_tints_the_rest() -> None:
    image = np.full((1, 3, 3), 100, np.uint8)
    found = overlay(image, np.array([[0, 1, 255]], np.uint8), PARTS5, strength=0.5)
    assert found.dtype == np.uint8
    assert found[0, 0].tolist() == [100, 100, 100]
    assert found[0, 1].tolist() == pytest.approx([178, 152, 80], abs=1)
    assert found[0, 2].tolist() == [150, 150, 150]


def test_a_cutout_keeps_what_is_opaque_over_a_board() -> None:
    image = photo(16, 32)
    matte = np.zeros((16, 32), np.float32)
    matte[:, 16:] = 1
    found = cutout(image, matte)
    np.testing.assert_array_equal(found[:, 16:], image[:, 16:])
    assert sorted(np.unique(found[:, :16])) == [160, 220]


def test_alpha_is_shown_as_grey() -> None:
    assert grey(np.array([[0, 0.5, 1]], np.float32)).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


# ---- the sheet


@pytest.mark.parametrize("count", [0, 1, 2, 7, 24])
def test_a_sheet_has_room_for_every_cell(count: int) -> None:
    found = sheet(count, panel_px=40)
    assert found.ndim == 3
    assert found.shape[2] == 3
    assert found.dtype == np.uint8
    shown = (found.reshape(-1, 3) == (250, 240, 20)).all(axis=1).sum()  # the bright box of each photo
    assert shown >= count * 30


@pytest.mark.parametrize("columns", [1, 2, 5])
def test_columns_and_panels_give_the_size(columns: int) -> None:
    narrow, wide = sheet(10, columns=columns, panel_px=40), sheet(10, columns=columns, panel_px=80)
    assert wide.shape[1] - narrow.shape[1] == columns * 2 * 40
    rows = -(-10 // columns)
    assert wide.shape[0] > rows * 80
    assert narrow.shape[0] > rows * 40


def test_a_large_sheet_is_about_as_wide_as_it_is_high() -> None:
    height, width = sheet(24).shape[:2]
    assert 0.4 < width / height < 2.5


def test_every_class_is_in_the_legend_with_its_colour() -> None:
    blank = [Cell("a", (np.full((30, 40, 3), 235, np.uint8),))]
    found = contact_sheet(blank, ["image"], PARTS5)
    pixels = {tuple(color) for color in found.reshape(-1, 3).tolist()}
    assert {*PARTS5.colors, (200, 200, 200)} <= pixels
    without = contact_sheet(blank, ["image"], None)
    assert without.shape[0] < found.shape[0]
    assert not {*PARTS5.colors[1:]} & {tuple(color) for color in without.reshape(-1, 3).tolist()}


def test_a_legend_of_many_classes_takes_several_lines() -> None:
    names = tuple(f"class with a long name {i}" for i in range(40))
    many = LabelMap(name="m", names=names, colors=distinct_colors(40), from_ids=tuple((i,) for i in range(40)))
    few = contact_sheet(cells(1), ["image", "mask"], PARTS5)
    found = contact_sheet(cells(1), ["image", "mask"], many)
    assert found.shape[1] == few.shape[1]
    assert found.shape[0] > few.shape[0] + 100
    assert set(many.colors) <= {tuple(color) for color in found.reshape(-1, 3).tolist()}


def test_the_same_samples_give_the_same_sheet() -> None:
    np.testing.assert_array_equal(sheet(5), sheet(5))


def test_another_caption_gives_another_sheet_of_the_same_size() -> None:
    one, other = (contact_sheet(cells(3, caption), ["image", "mask"], PARTS5) for caption in ("one", "two"))
    assert one.shape == other.shape
    assert (one != other).any()


@pytest.mark.parametrize(
    "text", ["Müller ä", "日本の人", "\u202eright to left", "\x00\x1b[31m", "", "x" * 500, "🙂", "two\nlines"]
)
def test_captions_headings_and_class_names_in_any_script(text: str) -> None:
    labels = LabelMap(
        name="any",
        names=("background", f"c{text}".replace("\n", " ")),
        colors=distinct_colors(2),
        from_ids=((0,), (1,)),
    )
    plain = contact_sheet(cells(2), ["image", "mask"], PARTS5, columns=2)
    found = contact_sheet(cells(2, text), [text, "mask"], labels, columns=2)
    assert found.shape[1] == plain.shape[1]


def test_captions_differ_where_only_their_script_does() -> None:
    one, other = (contact_sheet(cells(1, caption), ["image", "mask"], None) for caption in ("日", "本"))
    assert (one != other).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (300, 200), (7, 9)])
def test_panels_of_any_size_keep_their_shape(shape: tuple[int, int]) -> None:
    panel = np.full((*shape, 3), (1, 2, 3), np.uint8)
    found = contact_sheet([Cell("a", (panel,))], ["image"], None, panel_px=60)
    rows, columns = np.nonzero((found == (1, 2, 3)).all(axis=2))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert max(height, width) == 60
    scale = 60 / max(shape)
    assert (height, width) == (max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale)))
