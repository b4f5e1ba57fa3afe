"""What a network says, at the photo's own size: what both ways to ask for it have in common, and where edges lie.

``test_evaluate`` has ``at_photo_size`` itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdata.records import Geometry, Sample
from segdata.transforms.resize import fit_box, fit_sample
from segmodels.photo_size import at_photo_size, enlarged, person_at_photo_size

Floats = npt.NDArray[np.float32]
FITS = ("letterbox", "stretch")


def probabilities(seed: int, size: tuple[int, int], classes: int) -> Floats:
    """(h, w, classes) that add up to 1."""
    drawn = np.random.default_rng(seed).gamma(0.5, size=(*size, classes)).astype(np.float32) + np.float32(1e-3)
    found: Floats = drawn / drawn.sum(axis=2, keepdims=True)
    return found


def smooth(share: Floats, original: tuple[int, int], geometry: Geometry) -> Floats:
    """The shares (h, w, 2) of a network that says ``share`` (H, W) of a photo fitted to its size, as it is there."""
    levels = np.repeat(np.rint(share * 255).astype(np.uint8)[:, :, None], 3, axis=2)
    person = fit_sample(Sample("", levels), *original, geometry).image[:, :, 0].astype(np.float32) / np.float32(255)
    return np.stack([1 - person, person], axis=2)


SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 99), SIZES, SIZES, st.integers(2, 6), st.sampled_from(FITS))
def test_half_and_more_is_person_where_the_background_is_not_the_highest(
    seed: int, size: tuple[int, int], original: tuple[int, int], classes: int, fit: str
) -> None:
    geometry = Geometry(size=size, fit=fit)
    shares = probabilities(seed, size, classes)
    person, ids = person_at_photo_size(shares, original, geometry)
    expected = at_photo_size(shares, original, geometry, "mask")
    assert person.shape == expected.shape == original
    assert (person.dtype, expected.dtype) == (np.float32, np.uint8)
    assert 0 <= person.min() <= person.max() <= 1
    far = np.abs(person - 0.5) > 1e-6  # what is nearer is equal but for rounding
    np.testing.assert_array_equal((person >= 0.5)[far], (expected != 0)[far])
    if classes == 2:
        assert ids is None
    else:
        assert ids is not None
        assert ids.min() >= 1  # no pixel of a person has the background's id, whatever the threshold
        np.testing.assert_array_equal(ids[far & (expected != 0)], expected[far & (expected != 0)])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), SIZES, SIZES, st.integers(3, 6))
def test_summed_it_is_all_but_the_background(
    seed: int, size: tuple[int, int], original: tuple[int, int], classes: int
) -> None:
    geometry = Geometry(size=size, fit="stretch")
    shares = probabilities(seed, size, classes)
    summed, ids = person_at_photo_size(shares, original, geometry, is_summed=True)
    against, same = person_at_photo_size(shares, original, geometry)
    all_others = sum(enlarged(shares, k, original, geometry) for k in range(1, classes))
    np.testing.assert_allclose(summed, all_others, atol=1e-5)
    np.testing.assert_array_equal(ids, same)
    assert (summed >= against - 1e-6).all()
    assert summed.dtype == np.float32


def test_three_classes_that_share_a_person_are_one_when_summed() -> None:
    shares = np.array([[[0.4, 0.35, 0.25]]], np.float32)
    alone, together = (
        person_at_photo_size(shares, (3, 3), Geometry(size=(1, 1), fit="stretch"), summed) for summed in (False, True)
    )
    assert alone[0][0, 0] == pytest.approx(0.35 / 0.75)
    assert together[0][0, 0] == pytest.approx(0.6)
    assert (alone[1] == 1).all()  # type: ignore[union-attr]


def test_of_equal_classes_the_first_is_the_persons() -> None:
    shares = np.full((4, 4, 4), 0.25, np.float32)
    person, ids = person_at_photo_size(shares, (9, 7), Geometry(size=(4, 4), fit="letterbox"))
    assert (person == 0.5).all()
    assert (ids == 1).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_certainty_is_no_division_by_zero(classes: int) -> None:
    shares = np.zeros((4, 4, classes), np.float32)
    shares[:2, :, 0], shares[2:, :, 1] = 1, 1
    person, _ = person_at_photo_size(shares, (8, 8), Geometry(size=(4, 4), fit="stretch"))
    assert np.isfinite(person).all()
    assert (person[:3] < 0.5).all()
    assert (person[5:] > 0.5).all()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 99), SIZES, SIZES, st.sampled_from([2, 3]))
def test_what_the_network_says_of_the_bars_is_not_looked_at(
    seed: int, size: tuple[int, int], original: tuple[int, int], classes: int
) -> None:
    geometry = Geometry(size=size, fit="letterbox")
    x, y, w, h = fit_box(*original, geometry)
    shares = probabilities(seed, size, classes)
    other = probabilities(seed + 1, size, classes)
    other[y : y + h, x : x + w] = shares[y : y + h, x : x + w]
    for target in ("mask", "matte"):
        found, expected = (at_photo_size(one, original, geometry, target) for one in (other, shares))
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        person_at_photo_size(other, original, geometry)[0], person_at_photo_size(shares, original, geometry)[0]
    )


NETWORKS = [(32, 32), (33, 47), (64, 24), (21, 64)]
PHOTOS = [(32, 32), (97, 61), (301, 199), (200, 333), (17, 300), (300, 11), (1, 50), (45, 1), (5, 7)]


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", NETWORKS, ids=str)
@pytest.mark.parametrize("original", PHOTOS, ids=str)
def test_a_straight_edge_comes_back_where_it_was(original: tuple[int, int], size: tuple[int, int], fit: str) -> None:
    """A letterboxed half-plane comes back to a tenth of a network's pixel: an odd bar, axes that are exchanged or half
    a pixel of shift would be seen at once. So does a stretched one, unless it shrinks one way and grows the other.
    """
    geometry = Geometry(size=size, fit=fit)
    box = fit_box(*original, geometry)
    is_mixed = (original[0] > box[3]) != (original[1] > box[2])
    for axis in (0, 1):
        length = original[axis]
        scale = length / (box[3], box[2])[axis]  # photo's pixels to one of the network's
        for cut in {length // 3, length // 2, length * 3 // 4} - {0}:
            truth = np.zeros(original, np.float32)
            truth[(slice(cut), slice(None)) if axis == 0 else (slice(None), slice(cut))] = 1
            shares = smooth(truth, original, geometry)
            person = person_at_photo_size(shares, original, geometry)[0]
            found, same = person >= 0.5, at_photo_size(shares, original, geometry, "mask") == 1
            np.testing.assert_array_equal(found[person != 0.5], same[person != 0.5])
            wrong = (found != (truth == 1)).sum(axis=axis)
            is_at_border = min(cut, length - cut) < 2 * scale  # where it is extended, not interpolated
            most = scale + 1 if is_at_border or is_mixed else 0.1 * scale + 0.51
            assert wrong.max() <= most, (axis, cut, scale)


@pytest.mark.parametrize("original", [(1, 1), (1, 70_000), (70_000, 1), (2, 3)], ids=str)
def test_thin_photos_have_masks_of_their_size(original: tuple[int, int]) -> None:
    geometry = Geometry(size=(16, 16), fit="letterbox")
    shares = np.zeros((16, 16, 3), np.float32)
    shares[..., 2] = 1
    assert at_photo_size(shares, original, geometry, "mask").shape == original
    person, ids = person_at_photo_size(shares, original, geometry)
    assert (person == 1).all()
    assert ids is not None
    assert (ids == 2).all()


def test_a_matte_is_the_second_class_of_the_two() -> None:
    geometry = Geometry(size=(4, 4), fit="stretch")
    shares = probabilities(0, (4, 4), 2)
    np.testing.assert_array_equal(at_photo_size(shares, (4, 4), geometry, "matte"), shares[..., 1])
    np.testing.assert_array_equal(enlarged(shares, 0, (4, 4), geometry), shares[..., 0])
