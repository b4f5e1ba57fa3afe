"""Label maps: the built-in ones as published, a user's own, and that nothing is guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdata.errors import LabelMapError
from segdata.labels import (
    IGNORE_INDEX,
    UNMAPPED,
    VOCABULARIES,
    LabelMap,
    distinct_colors,
    known_label_maps,
    label_map,
    lookup_table,
    palette,
    read_label_map,
)

# Written out by hand, since the order is the meaning.
HUMANPARSING = {
    0: "background",
    1: "hat",
    2: "hair",
    3: "sunglass",
    4: "upper-clothes",
    5: "skirt",
    6: "pants",
    7: "dress",
    8: "belt",
    9: "left-shoe",
    10: "right-shoe",
    11: "face",
    12: "left-leg",
    13: "right-leg",
    14: "left-arm",
    15: "right-arm",
    16: "bag",
    17: "scarf",
}
LIP = {
    0: "background",
    1: "hat",
    2: "hair",
    3: "glove",
    4: "sunglasses",
    5: "upper-clothes",
    6: "dress",
    7: "coat",
    8: "socks",
    9: "pants",
    10: "jumpsuits",
    11: "scarf",
    12: "skirt",
    13: "face",
    14: "left-arm",
    15: "right-arm",
    16: "left-leg",
    17: "right-leg",
    18: "left-shoe",
    19: "right-shoe",
}
PARTS5 = {
    "background": {0, 16},
    "head": {1, 2, 3, 11, 17},
    "upper_body": {4},
    "both_hands": {14, 15},
    "lower_body": {5, 6, 7, 8, 9, 10, 12, 13},
}
VOCABULARY_OF = {
    "binary": "humanparsing",
    "humanparsing": "humanparsing",
    "lip": "lip",
    "parts5": "humanparsing",
    "voc": "voc",
    "voc_person": "voc",
}


def mapping(labels: LabelMap) -> dict[str, set[int]]:
    return {name: set(ids) for name, ids in zip(labels.names, labels.from_ids, strict=True)}


def small_map(**changes: object) -> LabelMap:
    fields: dict[str, object] = {
        "name": "small",
        "names": ("background", "left-hand", "right-hand"),
        "colors": ((0, 0, 0), (9, 9, 9), (7, 7, 7)),
        "from_ids": ((0,), (1,), (2,)),
    }
    return LabelMap(**(fields | changes))  # type: ignore[arg-type]


# ---- the built-in maps


def test_the_built_in_maps_are_the_documented_ones() -> None:
    assert known_label_maps() == ("binary", "humanparsing", "lip", "parts5", "voc", "voc_person")


def test_humanparsing_keeps_its_18_classes_in_order() -> None:
    labels = label_map("humanparsing", "humanparsing")
    assert dict(enumerate(labels.names)) == HUMANPARSING
    assert labels.from_ids == tuple((i,) for i in range(18))
    assert labels.left_right_pairs == ((9, 10), (12, 13), (14, 15))


def test_lip_keeps_its_20_classes_in_order() -> None:
    labels = label_map("lip", "lip")
    assert dict(enumerate(labels.names)) == LIP
    assert labels.from_ids == tuple((i,) for i in range(20))
    assert labels.left_right_pairs == ((14, 15), (16, 17), (18, 19))


def test_binary_counts_bag_and_scarf_as_person() -> None:
    labels = label_map("binary", "humanparsing")
    assert mapping(labels) == {"background": {0}, "person": set(range(1, 18))}


def test_binary_reads_two_valued_masks_as_they_are() -> None:
    assert mapping(label_map("binary", "mask")) == {"background": {0}, "person": {1}}


def test_parts5_merges_as_written_in_the_design() -> None:
    labels = label_map("parts5", "humanparsing")
    assert mapping(labels) == PARTS5
    assert labels.names == tuple(PARTS5)
    assert labels.left_right_pairs == ()


def test_voc_person_is_class_15_and_its_void_is_ignored() -> None:
    labels = label_map("voc_person", "voc")
    assert mapping(labels) == {"background": {*range(21)} - {15}, "person": {15}}
    assert labels.ignored_ids == (255,)


@pytest.mark.parametrize("name", known_label_maps())
def test_a_built_in_map_names_every_id_of_its_dataset_once_and_no_other(name: str) -> None:
    vocabulary = VOCABULARY_OF[name]
    labels = label_map(name, vocabulary)
    table = lookup_table(labels)
    named = np.flatnonzero(table != UNMAPPED).tolist()
    assert named == [*range(len(VOCABULARIES[vocabulary])), *labels.ignored_ids]
    assert labels.name == name
    assert labels.ignore_index == 255
    assert len(set(labels.colors)) == len(labels.names)


@pytest.mark.parametrize("name", known_label_maps())
def test_a_flip_exchanges_left_with_the_same_part_on_the_right(name: str) -> None:
    labels = label_map(name, VOCABULARY_OF[name])
    exchanged = [(labels.names[a], labels.names[b]) for a, b in labels.left_right_pairs]
    assert exchanged == [(n, n.replace("left", "right")) for n in labels.names if n.startswith("left")]


def test_without_a_vocabulary_the_first_one_is_meant() -> None:
    assert label_map("parts5", "") == label_map("parts5", "humanparsing")
    assert label_map("binary", "") == label_map("binary", "humanparsing")


@pytest.mark.parametrize(("name", "vocabulary"), [("parts5", "voc"), ("lip", "humanparsing"), ("voc_person", "mask")])
def test_a_built_in_map_refuses_the_ids_of_another_dataset(name: str, vocabulary: str) -> None:
    with pytest.raises(LabelMapError, match=f"is made from .* not from {vocabulary} ids"):
        label_map(name, vocabulary)


def test_an_unknown_name_is_answered_with_a_near_one_and_the_known_ones() -> None:
    with pytest.raises(LabelMapError, match=r"'part5'.*Did you mean 'parts5'\? Known: binary, humanparsing"):
        label_map("part5", "humanparsing")


# ---- tables and colours


def test_the_lookup_table_holds_every_16_bit_id_and_fails_closed() -> None:
    table = lookup_table(small_map(from_ids=((0,), (300, 65535), (7,)), ignored_ids=(255, 9)))
    assert table.shape == (65536,)
    assert table.dtype == np.int16
    assert {i: int(table[i]) for i in np.flatnonzero(table != UNMAPPED)} == {
        0: 0,
        300: 1,
        65535: 1,
        7: 2,
        255: 255,
        9: 255,
    }


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.integers(0, 65535), st.sampled_from([0, 1, 2, IGNORE_INDEX]), max_size=60))
def test_the_lookup_table_is_the_map(wanted: dict[int, int]) -> None:
    lists = [tuple(raw for raw, target in wanted.items() if target == i) for i in (0, 1, 2, IGNORE_INDEX)]
    table = lookup_table(small_map(from_ids=tuple(lists[:3]), ignored_ids=lists[3]))
    assert {int(i): int(table[i]) for i in np.flatnonzero(table != UNMAPPED)} == wanted


def test_the_palette_shows_each_class_in_its_colour_and_the_ignore_index_in_grey() -> None:
    colors = palette(label_map("parts5", "humanparsing"))
    assert colors.shape == (256, 3)
    assert colors.dtype == np.uint8
    assert colors[1].tolist() == [255, 205, 60]
    assert colors[255].tolist() == colors[5].tolist() == [200, 200, 200]


@pytest.mark.parametrize("count", [1, 2, 20, 60])
def test_spare_colours_start_with_black_and_differ(count: int) -> None:
    colors = distinct_colors(count)
    assert colors[0] == (0, 0, 0)
    assert len(set(colors)) == len(colors) == count


# ---- what no label map may be


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": ("a",), "colors": ((0, 0, 0),), "from_ids": ((0,),)}, "1 classes, expected 2 to 255"),
        ({"colors": ((0, 0, 0),)}, "1 colours and 3 from-lists for 3 classes"),
        ({"from_ids": ((0,),)}, "3 colours and 1 from-lists for 3 classes"),
        ({"names": ("a", "b", "a")}, "class 'a' is named twice"),
        ({"names": ("a", "", "c")}, "class name '' is empty"),
        ({"names": ("a", "b, c", "d")}, "class name 'b, c' .* holds a comma"),
        ({"names": ("a", "b\nc", "d")}, "a line break or outer spaces"),
        ({"ignore_index": 0}, "ignore index 0, expected 255"),
        ({"colors": ((0, 0, 0), (256, 0, 0), (1, 1, 1))}, r"colour \[256, 0, 0\], expected three values of 0 to 255"),
        ({"from_ids": ((0,), (-1,), (2,))}, "raw id -1 of 'left-hand', expected 0 to 65535"),
        ({"from_ids": ((0,), (65536,), (2,))}, "raw id 65536"),
        ({"from_ids": ((0,), (1,), (1,))}, "raw id 1 stands in 'left-hand' and in 'right-hand'"),
        ({"ignored_ids": (2,)}, "raw id 2 stands in 'right-hand' and in 'ignore'"),
        ({"left_right_pairs": ((1, 3),)}, "expected pairs of different ids below 3"),
        ({"left_right_pairs": ((1, 1),)}, "expected pairs of different ids"),
        ({"left_right_pairs": ((0, 1), (1, 2))}, "expected pairs of different ids"),
    ],
)
def test_a_map_that_contradicts_itself_cannot_be_made(changes: dict[str, object], message: str) -> None:
    with pytest.raises(LabelMapError, match=f"^label map 'small': .*{message}"):
        small_map(**changes)


def test_a_map_of_255_classes_is_the_largest() -> None:
    names = tuple(f"c{i}" for i in range(256))
    ids = tuple((i,) for i in range(256))
    largest = LabelMap(name="big", names=names[:255], colors=distinct_colors(255), from_ids=ids[:255])
    assert lookup_table(largest).max() == 254
    with pytest.raises(LabelMapError, match="256 classes, expected 2 to 255"):
        LabelMap(name="big", names=names, colors=distinct_colors(256), from_ids=ids)


# ---- a user's own map

CLOTHES = """
name = "clothes"
source = "humanparsing"
ignore = ["bag", 255]
left_right = [["left", "other left"]]

[[classes]]
name = "background"
color = "#000000"
from = [0]

[[classes]]
name = "left"
color = [1, 2, 3]
from = ["left-arm", "4-8"]

[[classes]]
name = "other left"
from = ["hat", 300]
"""
TWO = '[[classes]]\nname = "a"\n[[classes]]\nname = "b"\n'


def written(folder: Path, text: str | bytes, name: str = "mine.toml") -> Path:
    path = folder / name
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return path


def test_a_toml_map_reads_names_ranges_ids_colours_and_pairs(tmp_path: Path) -> None:
    labels = read_label_map(written(tmp_path, CLOTHES))
    assert labels.name == "clothes"
    assert mapping(labels) == {"background": {0}, "left": {14, 4, 5, 6, 7, 8}, "other left": {1, 300}}
    assert labels.colors[:2] == ((0, 0, 0), (1, 2, 3))
    assert labels.ignored_ids == (16, 255)
    assert labels.left_right_pairs == ((1, 2),)


def test_what_a_toml_map_leaves_out_has_a_sensible_value(tmp_path: Path) -> None:
    text = "".join(f'[[classes]]\nname = "{name}"\n' for name in ("background", "left-hand", "right-hand"))
    labels = read_label_map(written(tmp_path, text, "hands.toml"))
    assert labels.name == "hands"
    assert labels.from_ids == ((0,), (1,), (2,))
    assert labels.colors == distinct_colors(3)
    assert labels.ignored_ids == ()
    assert labels.left_right_pairs == ((1, 2),)


def test_an_empty_pair_list_turns_the_pairs_off(tmp_path: Path) -> None:
    text = 'left_right = []\n[[classes]]\nname = "left"\n[[classes]]\nname = "right"\n'
    assert read_label_map(written(tmp_path, text)).left_right_pairs == ()


def test_a_class_may_be_made_from_nothing(tmp_path: Path) -> None:
    text = '[[classes]]\nname = "a"\nfrom = [0, 1]\n[[classes]]\nname = "b"\nfrom = []\n'
    assert read_label_map(written(tmp_path, text)).from_ids == ((0, 1), ())


def test_the_data_say_whose_class_names_a_map_may_use(tmp_path: Path) -> None:
    text = '[[classes]]\nname = "rest"\nfrom = [0]\n[[classes]]\nname = "top"\nfrom = ["coat"]\n'
    path = written(tmp_path, text)
    assert read_label_map(path, "lip").from_ids == ((0,), (7,))
    with pytest.raises(LabelMapError, match="'coat' is no id, range or raw class name"):
        read_label_map(path, "humanparsing")


@pytest.mark.parametrize("suffix", [".toml", ".TOML"])
def test_labels_may_be_the_path_of_a_toml_file(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path, TWO, f"two{suffix}")
    assert label_map(str(path), "humanparsing").names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes = [", "README"),
        (b"name = '\xff'", "README"),
        ("", "missing required field `classes`"),
        ("classes = 3", "Expected `array`, got `int`"),
        ("[[classes]]\ncolor = '#000000'\n", "missing required field `name`"),
        (TWO + "colour = '#000000'\n", "unknown field `colour`"),
        ("sauce = 'lip'\n" + TWO, "unknown field `sauce`"),
        (TWO + "from = [true]\n", "got `bool`"),
        (TWO + "from = [1.5]\n", "got `float`"),
        (TWO + "color = '000000'\n", "color '000000', expected"),
        (TWO + "color = '#00000g'\n", "color '#00000g', expected"),
        (TWO + "color = [1, 2]\n", "length 3"),
        ("source = 'lips'\n" + TWO, r"source 'lips' is not known. Did you mean 'lip'\?"),
        ("source = 'lip'\n" + TWO, "source 'lip', but the data holds humanparsing ids"),
        (TWO + "from = ['hats']\n", r"from 'hats' is no id, range or raw class name. Did you mean 'hat'\?"),
        (TWO + "from = ['9-3']\n", "'9-3' is no id"),
        (TWO + "from = ['3-65536']\n", "'3-65536' is no id"),
        ("ignore = ['nobody']\n" + TWO, "'nobody' is no id"),
        ("left_right = [['a', 'c']]\n" + TWO, "left_right names 'c'"),
        ("left_right = [['a', 'b', 'c']]\n" + TWO, "length 2"),
    ],
)
def test_a_toml_map_that_does_not_fit_is_refused_by_name(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(LabelMapError, match=f"^label map mine.toml: .*{message}"):
        read_label_map(path, "humanparsing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO + "color = [300, 0, 0]\n", "expected three values of 0 to 255"),
        (TWO + "from = [0]\n", "raw id 0 stands in 'a' and in 'b'"),
        ("ignore = [1]\n" + TWO, "raw id 1 stands in 'b' and in 'ignore'"),
        (TWO + "from = [-1]\n", "raw id -1"),
        (TWO + "from = [65536]\n", "raw id 65536"),
        (TWO.replace('"b"', '"a"'), "class 'a' is named twice"),
        (TWO.replace('"b"', '""'), "class name '' is empty"),
        (TWO.replace('"b"', '"b,c"'), "holds a comma"),
        ('[[classes]]\nname = "a"\n', "1 classes, expected 2 to 255"),
        ("classes = []\n", "0 classes, expected 2 to 255"),
        ("left_right = [['a', 'a']]\n" + TWO, "expected pairs of different ids"),
    ],
)
def test_a_toml_map_that_contradicts_itself_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(LabelMapError, match=f"^label map '?mine.*{message}"):
        read_label_map(path)


def test_a_refused_toml_map_with_a_name_of_its_own_is_still_named_by_its_file(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "clothes"\n' + TWO + "from = [0]\n")
    with pytest.raises(LabelMapError, match=r"mine\.toml"):
        read_label_map(path)


def test_a_toml_file_of_brackets_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path, "a = " + "[" * 5000)
    with pytest.raises(LabelMapError, match=r"mine\.toml"):
        read_label_map(path)


@pytest.mark.parametrize("name", ["a\\rb", "a\\u2028b"])
def test_a_class_name_survives_a_file_of_a_name_per_line(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, TWO.replace('"a"', f'"{name}"'))
    with pytest.raises(LabelMapError, match="line break"):
        read_label_map(path)


@pytest.mark.parametrize("name", ["nowhere.toml", "folder.toml"])
def test_a_toml_map_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(LabelMapError, match=rf"{name}: cannot be read \(.+\), expected a label map in TOML"):
        read_label_map(tmp_path / name)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_at_all_do_anything_but_make_a_map_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = written(tmp_path_factory.getbasetemp(), data, "any.toml")
    with pytest.raises(LabelMapError):
        read_label_map(path)
