"""Pairing: by key, never by position, and every file accounted for."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdata.formats.files import Pictures
from segdata.formats.pairing import Affix, Pairing, pair_by_stem


def pair(images: list[str], labels: list[str], suffix: str = "") -> Pairing:
    return pair_by_stem(Pictures(sorted(images), []), Pictures(sorted(labels), []), Affix(suffix=suffix))


def reasons(found: Pairing) -> list[tuple[str, str]]:
    return [(name, reason) for name, reason, _ in found.unpaired]


def test_files_of_one_stem_belong_together() -> None:
    found = pair(["b.jpg", "a.jpg"], ["b.png", "a.png"])
    assert found == Pairing([("a.jpg", "a.png"), ("b.jpg", "b.png")], [])


def test_a_missing_mask_moves_no_other_pair() -> None:
    found = pair(["a.jpg", "b.jpg", "c.jpg"], ["a.png", "c.png", "d.png"])
    assert found.pairs == [("a.jpg", "a.png"), ("c.jpg", "c.png")]
    assert found.unpaired == [
        ("b.jpg", "no-mask", "no mask named b.* for this photo"),
        ("d.png", "no-image", "no photo named d.* for this mask"),
    ]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("IMG_1.JPG", "img_1.png"),
        (unicodedata.normalize("NFC", "Müller.jpg"), unicodedata.normalize("NFD", "Müller.png")),
        ("straße.jpg", "STRASSE.png"),
        ("a.b.c.jpg", "a.b.c.png"),
        ("a b.jpg", "a b.png"),
        ("same.png", "same.png"),
    ],
)
def test_letter_case_unicode_form_and_suffix_do_not_keep_files_apart(image: str, label: str) -> None:
    assert pair([image], [label]).pairs == [(image, label)]


def test_numbers_are_names_and_not_numbers() -> None:
    assert pair(["1.jpg", "10.jpg"], ["01.png", "10.png"]).pairs == [("10.jpg", "10.png")]


def test_two_photos_of_one_stem_are_ambiguous_and_neither_is_used() -> None:
    found = pair(["a.jpg", "a.png", "b.jpg"], ["a.png", "b.png"])
    assert found.pairs == [("b.jpg", "b.png")]
    assert ("a.jpg", "ambiguous") in reasons(found)
    assert ("a.png", "ambiguous") in reasons(found)
    assert all("'a.jpg' and 'a.png'" in detail for _, reason, detail in found.unpaired if reason == "ambiguous")


def test_two_masks_of_one_stem_are_ambiguous_and_neither_is_used() -> None:
    found = pair(["a.jpg"], ["a.png", "A.PNG"])
    assert found.pairs == []
    assert ("a.png", "ambiguous") in reasons(found)
    assert ("A.PNG", "ambiguous") in reasons(found)


def test_a_suffix_belongs_to_the_masks() -> None:
    found = pair(["a.jpg", "b.jpg", "c_matte.jpg"], ["a_matte.png", "b.png", "c_matte_matte.png"], "_matte")
    assert found.pairs == [("a.jpg", "a_matte.png"), ("b.jpg", "b.png"), ("c_matte.jpg", "c_matte_matte.png")]


def test_a_missing_mask_is_named_with_its_suffix() -> None:
    assert pair(["a.jpg"], [], "_matte").unpaired == [("a.jpg", "no-mask", "no mask named a_matte.* for this photo")]


def test_names_that_are_not_utf8_are_told_and_not_used() -> None:
    found = pair_by_stem(Pictures(["a.jpg"], ["b\udcff.jpg"]), Pictures(["a.png"], ["b\udcff.png"]))
    assert found.pairs == [("a.jpg", "a.png")]
    assert reasons(found) == [("b\\xff.jpg", "bad-name"), ("b\\xff.png", "bad-name")]


NAMES = st.lists(
    st.tuples(st.sampled_from(["a", "A", "b", "ä", "a\u0308", "c"]), st.sampled_from([".jpg", ".png", ".JPG"])),
    unique=True,
    max_size=6,
).map(lambda parts: ["".join(part) for part in parts])


@settings(max_examples=200, deadline=None)
@given(NAMES, NAMES)
def test_nothing_is_used_twice_and_the_result_is_sorted(images: list[str], labels: list[str]) -> None:
    found = pair(images, labels)
    assert found.pairs == sorted(found.pairs)
    assert found.unpaired == sorted(found.unpaired)
    for side, names in ((0, images), (1, labels)):
        used = [both[side] for both in found.pairs]
        assert len(set(used)) == len(used)
        assert set(used) <= set(names)


@pytest.mark.parametrize(
    ("images", "labels"), [(["a.jpg"], ["a.bmp", "a.png"]), (["a.jpg", "a.png"], ["a.bmp"])], ids=["photo", "mask"]
)
def test_every_file_is_paired_or_told(images: list[str], labels: list[str]) -> None:
    found = pair(images, labels)
    told = Counter([name for both in found.pairs for name in both] + [name for name, _ in reasons(found)])
    assert told == Counter(images + labels)
