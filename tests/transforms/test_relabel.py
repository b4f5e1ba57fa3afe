"""Relabelling: exactly the label map's lookup, and nothing that the map does not name."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segdata.errors import ImageRefused
from segdata.labels import LabelMap, label_map, lookup_table
from segdata.transforms.relabel import Relabel
from tests.material import ids

PARTS5 = label_map("parts5", "humanparsing")
SPARSE = LabelMap(
    name="sparse",
    names=("background", "cloth", "nothing"),
    colors=((0, 0, 0), (9, 9, 9), (8, 8, 8)),
    from_ids=((0, 40000), (7, 255, 256, 65535), ()),
    ignored_ids=(3, 1000),
)
SPARSE_IDS = [0, 3, 7, 255, 256, 1000, 40000, 65535]


def masks(kind: type[np.generic], values: list[int]) -> st.SearchStrategy[npt.NDArray[np.generic]]:
    shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)
    return hnp.arrays(kind, shapes, elements=st.sampled_from(values))


@settings(max_examples=80, deadline=None)
@given(masks(np.uint8, list(range(18))) | masks(np.uint16, list(range(18))))
def test_a_mask_is_the_lookup_of_its_raw_ids(raw: npt.NDArray[np.uint8]) -> None:
    mask, counts = Relabel(PARTS5)(raw)
    np.testing.assert_array_equal(mask, lookup_table(PARTS5)[raw])
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(counts, np.bincount(mask.ravel(), minlength=256))
    assert counts.dtype == np.int64


@settings(max_examples=80, deadline=None)
@given(masks(np.uint16, SPARSE_IDS) | masks(np.uint8, [0, 3, 7, 255]))
def test_ids_of_16_bits_and_ignored_ids_are_looked_up_too(raw: npt.NDArray[np.uint16]) -> None:
    mask, counts = Relabel(SPARSE)(raw)
    meaning = {0: 0, 40000: 0, 7: 1, 255: 1, 256: 1, 65535: 1, 3: 255, 1000: 255}
    assert mask.tolist() == [[meaning[value] for value in row] for row in raw.tolist()]
    np.testing.assert_array_equal(counts, np.bincount(mask.ravel(), minlength=256))


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint16, hnp.array_shapes(min_dims=2, max_dims=2, max_side=8), elements=st.integers(0, 65535)))
def test_unnamed_ids_become_the_ignore_index_only_when_asked(raw: npt.NDArray[np.uint16]) -> None:
    table = lookup_table(SPARSE)
    mask, counts = Relabel(SPARSE, ignore_unmapped=True)(raw)
    np.testing.assert_array_equal(mask, np.where(table[raw] < 0, 255, table[raw]))
    assert counts.sum() == raw.size
    if (table[raw] < 0).any():
        with pytest.raises(ImageRefused, match="does not name them"):
            Relabel(SPARSE)(raw)


def test_an_unnamed_id_is_refused_with_its_number_of_pixels() -> None:
    raw = ids()
    raw[0, :5] = 18
    raw[2, :3] = 200
    with pytest.raises(ImageRefused) as caught:
        Relabel(PARTS5)(raw)
    assert caught.value.reason == "unmapped-id"
    assert caught.value.detail == "id 18 (5 px), id 200 (3 px): label map 'parts5' does not name them"


def test_many_unnamed_ids_are_counted_in_the_message() -> None:
    raw = np.arange(100, 111, dtype=np.uint16).reshape(1, 11) * 300
    with pytest.raises(ImageRefused, match=r"id 30000 \(1 px\), .*id 32100 \(1 px\) and 3 more ids: label map"):
        Relabel(PARTS5)(raw)


def test_255_in_a_raw_label_is_unnamed_unless_the_map_names_it() -> None:
    raw = np.array([[0, 15, 255]], np.uint8)
    voc, counts = Relabel(label_map("voc_person", "voc"))(raw)
    assert voc.tolist() == [[0, 1, 255]]
    assert counts[[0, 1, 255]].tolist() == [1, 1, 1]
    with pytest.raises(ImageRefused, match=r"id 255 \(1 px\)"):
        Relabel(PARTS5)(raw)


def test_the_raw_label_is_left_as_it_was() -> None:
    raw = ids()
    kept = raw.copy()
    raw.flags.writeable = False  # as Pillow gives it
    Relabel(PARTS5)(raw)
    np.testing.assert_array_equal(raw, kept)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_views_are_relabelled_like_copies(kind: type[np.generic]) -> None:
    raw = ids().astype(kind)
    relabel = Relabel(PARTS5)
    for view in (raw.T, raw[::2, ::3], raw[:, ::-1]):
        for found, expected in zip(relabel(view), relabel(view.copy()), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_it_is_a_value_that_travels_to_other_processes() -> None:
    relabel = Relabel(PARTS5)
    relabel(ids())
    copy = pickle.loads(pickle.dumps(relabel))
    assert copy == relabel == Relabel(PARTS5)
    np.testing.assert_array_equal(copy(ids())[0], relabel(ids())[0])
    with pytest.raises(dataclasses.FrozenInstanceError):
        relabel.ignore_unmapped = True  # type: ignore[misc]
