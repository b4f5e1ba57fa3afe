"""COCO segmentations: bit for bit what pycocotools gives where it can be trusted, and refused where it cannot."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from segdata.errors import ImageRefused
from segdata.formats import coco_masks
from segdata.formats.coco_json import Annotation
from tests.material import Pixels, decoded_rle

Size = tuple[int, int]


def raw(value: Any) -> msgspec.Raw:
    """A segmentation as it stands in a file; NaN and Infinity as Python's json writes them."""
    return msgspec.Raw(json.dumps(value).encode())


def drawn(segmentation: Any, size: Size) -> Pixels:
    return decoded_rle(coco_masks.rasterised(Annotation(7, 5, 1, raw(segmentation)), *size))


def by_pycocotools(segmentation: Any, size: Size) -> Pixels:
    """``annToMask``."""
    coco = COCO()
    coco.imgs = {1: {"height": size[0], "width": size[1]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        mask: Pixels = coco.annToMask({"image_id": 1, "segmentation": segmentation})
    return mask


def by_runs(runs: list[int], size: Size) -> Pixels:
    """Run lengths by their definition: zeros first, then ones, then zeros, column by column."""
    values = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    return values.reshape(size, order="F")


def compressed(runs: list[int], pad: int = 0) -> str:
    """Runs as COCO's strings, each with ``pad`` groups of 5 bits more than it needs."""
    text = ""
    for i, run in enumerate(runs):
        value = run - (runs[i - 2] if i > 2 else 0)
        count = next(k for k in range(1, 20) if -(32**k) <= 2 * value < 32**k) + pad
        text += "".join(chr(48 + (value >> 5 * k & 31) + 32 * (k + 1 < count)) for k in range(count))
    return text


def runs_of(text: str) -> list[int] | None:
    """The runs in a compressed string, by arithmetic; None where the string ends within one or holds other letters."""
    runs: list[int] = []
    digits: list[int] = []
    for letter in text:
        digits.append(ord(letter) - 48)
        if not 0 <= digits[-1] < 64:
            return None
        if digits[-1] < 32:
            value = sum((digit % 32) * 32**k for k, digit in enumerate(digits))
            value -= 32 ** len(digits) if digits[-1] >= 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            digits = []
    return None if digits else runs


def refused(segmentation: Any, size: Size, match: str | None = None) -> None:
    with pytest.raises(ImageRefused, match=match) as error:
        coco_masks.rasterised(Annotation(7, 5, 1, raw(segmentation)), *size)
    assert error.value.reason == "bad-annotation"
    assert "\n" not in error.value.detail


# ---- equal to pycocotools

SIZE = (24, 32)
BOX = [4, 4, 20, 4, 20, 14, 4, 14]
POLYGONS = {
    "a box": [BOX],
    "a triangle of fractions": [[1.37, 2.9, 30.2, 5.5, 11.1, 23.3]],
    "two apart": [BOX, [22.5, 15.5, 30.5, 15.5, 30.5, 22.5, 22.5, 22.5]],
    "two that overlap": [BOX, [10, 8, 30, 8, 30, 20, 10, 20]],
    "one in the other": [BOX, [8, 6, 12, 6, 12, 10, 8, 10]],
    "crossing itself": [[2, 2, 28, 20, 28, 2, 2, 20]],
    "partly outside": [[-9.5, -3, 12, -3, 40, 30, -9.5, 30]],
    "wholly outside": [[40, 40, 50, 40, 50, 50]],
    "without an area": [[5, 5, 5, 5, 5, 5]],
    "a line": [[2, 2, 20, 2, 10, 2]],
    "all of it": [[0, 0, 32, 0, 32, 24, 0, 24]],
    "on half pixels": [[3.5, 3.5, 10.5, 3.5, 10.5, 9.5, 3.5, 9.5]],
    "a number in scientific notation": [[1e0, 2.0e0, 3e1, 2e0, 3e1, 2e1]],
}


@pytest.mark.parametrize("polygons", POLYGONS.values(), ids=POLYGONS)
def test_polygons_are_drawn_as_pycocotools_draws_them(polygons: list[list[float]]) -> None:
    np.testing.assert_array_equal(drawn(polygons, SIZE), by_pycocotools(polygons, SIZE))


coordinates = st.floats(-20, 60, width=32) | st.integers(-5, 40) | st.integers(0, 80).map(lambda half: half / 2)
polygon = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=9).map(
    lambda points: [value for point in points for value in point]
)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=200, deadline=None)
@given(st.lists(polygon, min_size=1, max_size=4), sizes)
def test_any_polygons_are_drawn_as_pycocotools_draws_them(polygons: list[list[float]], size: Size) -> None:
    rle = coco_masks.rasterised(Annotation(7, 5, 1, raw(polygons)), *size)
    wanted = by_pycocotools(polygons, size)
    np.testing.assert_array_equal(decoded_rle(rle), wanted)
    assert coco_masks.area(rle) == wanted.sum()


@pytest.mark.parametrize("count", [64, 65, 3000])
def test_many_polygons_are_drawn_as_few_are(count: int) -> None:
    polygons = [[i % 97, i % 89, i % 97 + 2.5, i % 89, i % 97 + 2.5, i % 89 + 1.5] for i in range(0, 7 * count, 7)]
    np.testing.assert_array_equal(drawn(polygons, (90, 100)), by_pycocotools(polygons, (90, 100)))


@st.composite
def masks(draw: st.DrawFn) -> Pixels:
    size = draw(sizes)
    bits = draw(st.lists(st.booleans(), min_size=size[0] * size[1] % 97 + 1, max_size=300))
    return np.resize(np.array(bits, np.uint8), size)


@settings(max_examples=150, deadline=None)
@given(masks())
def test_a_mask_comes_back_from_its_run_lengths_plain_and_compressed(mask: Pixels) -> None:
    rle = coco_masks.encoded(mask)
    text = rle["counts"].decode()
    plain = {"size": list(mask.shape), "counts": runs_of(text)}
    for segmentation in ({"size": list(mask.shape), "counts": text}, plain):
        np.testing.assert_array_equal(drawn(segmentation, mask.shape), mask)
        np.testing.assert_array_equal(by_pycocotools(segmentation, mask.shape), mask)


@st.composite
def partitions(draw: st.DrawFn) -> tuple[list[int], Size]:
    """Runs, some of them 0, that fill an image."""
    height, width = draw(sizes)
    cuts = sorted(draw(st.lists(st.integers(0, height * width), max_size=12)))
    edges = [0, *cuts, height * width]
    return [b - a for a, b in pairwise(edges)], (height, width)


@settings(max_examples=150, deadline=None)
@given(partitions(), st.integers(0, 8))
@example(([100, 300, 68, 300], (24, 32)), 6)
@example(([300, 100, 300, 5, 63], (24, 32)), 6)
def test_runs_are_what_their_definition_says_even_written_at_length(made: tuple[list[int], Size], pad: int) -> None:
    runs, size = made
    np.testing.assert_array_equal(drawn({"size": list(size), "counts": runs}, size), by_runs(runs, size))
    text = compressed(runs, pad)
    assert runs_of(text) == runs
    try:
        mask = drawn({"size": list(size), "counts": text}, size)
    except ImageRefused:
        assert pad  # only the shortest form is promised
        return
    np.testing.assert_array_equal(mask, by_runs(runs, size))


@pytest.mark.parametrize("counts", [[0, 768], [768], [767, 1], [0, 0, 768], [768, 0], [0, 1, 0, 767]])
def test_runs_at_the_edges_are_taken(counts: list[int]) -> None:
    segmentation = {"size": [24, 32], "counts": counts}
    np.testing.assert_array_equal(drawn(segmentation, SIZE), by_runs(counts, SIZE))


@settings(max_examples=100, deadline=None)
@given(masks())
def test_bounding_box_and_regions_agree_with_the_mask(mask: Pixels) -> None:
    rle = coco_masks.encoded(mask)
    rows, columns = np.nonzero(mask)
    if len(rows):
        x, y = columns.min(), rows.min()
        assert coco_masks.bounding_box(rle) == (x, y, columns.max() - x + 1, rows.max() - y + 1)
    regions = coco_masks.connected_regions(mask)
    np.testing.assert_array_equal(sum(map(decoded_rle, regions), np.zeros_like(mask)), mask)


# ---- refused

REFUSED: dict[str, tuple[Any, str | None]] = {
    "null": (None, "segmentation null, expected polygons or run lengths"),
    "a text": ("abc", "expected polygons or run lengths"),
    "a number": (7, "expected polygons or run lengths"),
    "true": (True, "expected polygons or run lengths"),
    "no polygons": ([], "is empty"),
    "an empty polygon": ([[]], "a polygon of 0 numbers"),
    "4 numbers": ([[1, 2, 3, 4]], "a polygon of 4 numbers, expected an even count of at least 6"),
    "4 numbers as the later one": ([BOX, [1, 2, 3, 4]], "a polygon of 4 numbers"),
    "an odd count": ([[*BOX, 5]], "a polygon of 9 numbers"),
    "NaN": ([[float("nan"), *BOX[1:]]], "does not read"),
    "Infinity": ([[float("inf"), *BOX[1:]]], "does not read"),
    "the word NaN": ([["NaN", *BOX[1:]]], "does not read"),
    "a null in it": ([[None, *BOX[1:]]], "does not read"),
    "true in it": ([[True, *BOX[1:]]], "does not read"),
    "texts in it": ([[str(value) for value in BOX]], "does not read"),
    "far away": ([[1e9, *BOX[1:]]], r"a coordinate of 1e\+09 in an image of 32x24"),
    "far away on the other side": ([[-1e12, *BOX[1:]]], r"a coordinate of -1e\+12"),
    "a coordinate of 400 digits": ([[10**400, *BOX[1:]]], None),
    "pairs": ([[[1, 2], [3, 4], [5, 6]]], "does not read"),
    "a flat list": (BOX, "does not read"),
    "points by name": ([{"x": 1, "y": 2}], "does not read"),
    "an empty object": ({}, "does not read"),
    "no size": ({"counts": [768]}, "does not read"),
    "no counts": ({"size": [24, 32]}, "does not read"),
    "counts null": ({"size": [24, 32], "counts": None}, "does not read"),
    "no counts in it": ({"size": [24, 32], "counts": []}, "run lengths of 0 pixels"),
    "an empty string": ({"size": [24, 32], "counts": ""}, "run lengths of 0 pixels"),
    "a run too few": ({"size": [24, 32], "counts": [10, 20]}, "run lengths of 30 pixels together, the image has 768"),
    "a run too many": ({"size": [24, 32], "counts": [768, 1]}, "run lengths of 769 pixels"),
    "a negative run": ({"size": [24, 32], "counts": [769, -1]}, "a negative run length"),
    "a run of 2**32 more": ({"size": [24, 32], "counts": [768 + 2**32]}, "run lengths of 4294968064"),
    "runs that add up in 32 bits": ({"size": [24, 32], "counts": [2**32 - 1, 769]}, "run lengths of"),
    "a run of 2**70": ({"size": [24, 32], "counts": [2**70]}, None),
    "half a pixel": ({"size": [24, 32], "counts": [20.5, 747.5]}, "does not read"),
    "runs as texts": ({"size": [24, 32], "counts": ["768"]}, "does not read"),
    "a run true": ({"size": [24, 32], "counts": [True, 767]}, "does not read"),
    "sides exchanged": ({"size": [32, 24], "counts": [768]}, r"of size \[32, 24\], the image has \[24, 32\]"),
    "one side": ({"size": [768], "counts": [768]}, "does not read"),
    "three sides": ({"size": [24, 32, 1], "counts": [768]}, "does not read"),
    "sides as texts": ({"size": ["24", "32"], "counts": [768]}, "does not read"),
    "negative sides": ({"size": [-24, -32], "counts": [768]}, "run lengths of size"),
    "huge sides": ({"size": [100000, 100000], "counts": [10**10]}, "run lengths of size"),
    "another alphabet": ({"size": [24, 32], "counts": "ÄÖÜ"}, "'Ä' at a place where none can stand"),
    "letters above the alphabet": ({"size": [24, 32], "counts": "~~~"}, "at a place where none can stand"),
    "a run without an end": ({"size": [24, 32], "counts": "o" * 50}, "at a place where none can stand"),
    "an end within a run": ({"size": [24, 32], "counts": compressed([768])[:-1]}, "end within a number"),
}


@pytest.mark.parametrize(("segmentation", "match"), REFUSED.values(), ids=REFUSED)
def test_what_pycocotools_would_take_for_something_else_is_refused(segmentation: Any, match: str | None) -> None:
    refused(segmentation, SIZE, match)


@pytest.mark.parametrize(
    "data", [b"", b" ", b"[", b"[[", b"{", b'{"size"', b"[[1,2,3,4,5,6", b"\xff", b'{"size":[1,1],"counts":"\xff"}']
)
def test_bytes_that_are_no_json_are_refused(data: bytes) -> None:
    with pytest.raises(ImageRefused) as error:
        coco_masks.rasterised(Annotation(7, 5, 1, msgspec.Raw(data)), 1, 1)
    assert error.value.reason == "bad-annotation"


@pytest.mark.parametrize("before", [b"[", b'{"counts":', b'{"a":['])
def test_deep_nesting_is_refused(before: bytes) -> None:
    with pytest.raises(ImageRefused):
        coco_masks.rasterised(Annotation(7, 5, 1, msgspec.Raw(before * 100_000)), 4, 4)


def test_an_outline_that_would_take_much_memory_is_refused() -> None:
    zigzag = [value for i in range(3000) for value in (i % 2 * 3999, i)]
    refused([zigzag], (4000, 4000), "an outline of .* expected at most 4,000,000")


@settings(max_examples=200, deadline=None)
@given(masks(), st.data())
def test_a_compressed_string_cut_anywhere_is_refused(mask: Pixels, data: st.DataObject) -> None:
    text = coco_masks.encoded(mask)["counts"].decode()
    runs = runs_of(text) or []
    cut = text[: data.draw(st.integers(0, len(text) - 1))]
    left = runs_of(cut)
    if left is not None and sum(left) == mask.size:
        assert runs[len(left) :] == [0] * (len(runs) - len(left))  # nothing is lost
        return
    refused({"size": list(mask.shape), "counts": cut}, mask.shape)


alphabet = st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=12)


@settings(max_examples=200, deadline=None)
@given(alphabet, st.sampled_from([(1, 1), (2, 3), (4, 4), (1, 31), (24, 32)]))
@example("ooooooO1", (1, 1))
@example("0ooooooN", (4, 4))
def test_any_string_is_refused_or_gives_the_runs_in_it(text: str, size: Size) -> None:
    _refused_or(lambda: by_runs(runs_of(text) or [], size), {"size": list(size), "counts": text}, size)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-2, 20) | st.sampled_from([2**31, 2**32, 2**63, 2**64, -(2**63)]), max_size=6))
def test_any_runs_are_refused_or_give_their_mask(runs: list[int]) -> None:
    size = (4, max(1, sum(runs) // 4) if 0 < sum(runs) < 100 else 4)
    _refused_or(lambda: by_runs(runs, size), {"size": list(size), "counts": runs}, size)


numbers = st.integers(-70, 70) | st.floats() | st.sampled_from([2**31, 2**32 + 5, 2**64, 10**25, 1e300, -0.0, 1e-320])
values = st.recursive(
    st.none() | st.booleans() | numbers | alphabet,
    lambda inner: (
        st.lists(inner, max_size=8) | st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)
nearly_polygons = st.lists(st.lists(numbers | st.none() | st.booleans() | st.just("3"), max_size=10), max_size=3)
nearly_runs = st.fixed_dictionaries(
    {"size": st.sampled_from([[4, 5], [5, 4], [4.0, 5.0], [4], [4, None]]) | values, "counts": values}
)


@settings(max_examples=200, deadline=None)
@given(values | nearly_polygons | nearly_runs)
@example([[0, 0, 3, 0, 3, 3], [1e300] * 6])
@example([[-0.0, 1e-320, 3, 0, 3, 3]])
@example({"size": [4.0, 5.0], "counts": [20.0]})
@example({"size": [4, 5], "counts": [3.0, 17]})
def test_anything_at_all_is_refused_or_gives_its_mask(segmentation: Any) -> None:
    _refused_or(lambda: _reference(segmentation, (4, 5)), segmentation, (4, 5))


def _reference(segmentation: Any, size: Size) -> Pixels:
    if isinstance(segmentation, list):
        return by_pycocotools(segmentation, size)
    counts = segmentation["counts"]
    runs = runs_of(counts) or [] if isinstance(counts, str) else [int(run) for run in counts]
    return by_runs(runs, size)


def _refused_or(reference: Any, segmentation: Any, size: Size) -> None:
    try:
        mask = drawn(segmentation, size)
    except ImageRefused:
        refused(segmentation, size)
        return
    np.testing.assert_array_equal(mask, reference())


def test_the_references_agree_with_each_other_and_can_tell_masks_apart() -> None:
    text = coco_masks.encoded(by_pycocotools([BOX], SIZE))["counts"].decode()
    assert (by_runs(runs_of(text) or [], SIZE) == by_pycocotools([BOX], SIZE)).all()
    assert (by_runs([768], SIZE) != by_pycocotools([BOX], SIZE)).any()
