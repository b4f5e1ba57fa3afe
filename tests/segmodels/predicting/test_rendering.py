"""What is drawn of a photo and a network's word of it: ids and alpha that agree, and files that other programs open."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segdata.errors import OptionError
from segdata.formats.files import sha256_file
from segdata.labels import LabelMap, distinct_colors
from segdata.records import Geometry
from segdata.sheets import colored
from segmodels.networks import Network
from segmodels.photo_size import at_photo_size
from segmodels.predicting.rendering import SAVES, Look, Segmented, encoded, picture, segmented
from segmodels.refine import Refine
from tests.segmodels.material import BINARY, disc

THREE = LabelMap(
    name="three", names=("background", "head", "body"), colors=distinct_colors(3), from_ids=((0,), (1,), (2,))
)
Floats = npt.NDArray[np.float32]
GEOMETRY = Geometry(size=(24, 32), fit="letterbox")


def network(labels: LabelMap | None = BINARY, geometry: Geometry = GEOMETRY) -> Network:
    """One that nobody asks: what it would say is given to ``segmented``."""

    def never(images: npt.NDArray[Any]) -> Floats:
        raise AssertionError("asked")

    return Network(Path("run"), "none", "mask" if labels else "matte", labels, geometry, 3, never, "0" * 64, None)


def blobs(classes: int, seed: int = 0) -> Floats:
    """Smooth probabilities (24, 32, classes), some of them above the others in a few parts."""
    coarse = np.random.default_rng(seed).normal(0, 2, (4, 5, classes))
    smooth = np.kron(coarse, np.ones((6, 7, 1)))[:24, :32]
    shares: Floats = (np.exp(smooth) / np.exp(smooth).sum(axis=2, keepdims=True)).astype(np.float32)
    return shares


PHOTO = disc(3, 61, 83)[0]
REFINES = {
    "nothing": Refine(),
    "threshold": Refine(0.3),
    "largest": Refine(keep_largest=True),
    "holes": Refine(fill_holes=True),
    "feather": Refine(feather_px=4),
    "guided": Refine(guided=True),
    "all": Refine(0.6, True, True, 3, True),
}
NETWORKS = {"2 classes": BINARY, "3 classes": THREE, "matte": None}
each_network = pytest.mark.parametrize("labels", NETWORKS.values(), ids=NETWORKS)
each_refine = pytest.mark.parametrize("refine", REFINES.values(), ids=REFINES)


def shares_for(labels: LabelMap | None, seed: int = 0) -> Floats:
    return blobs(len(labels.names) if labels else 2, seed)


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("saves", "expected"),
    [
        (("msk",), r"--save 'msk' is not known\. Did you mean 'mask'\? Known: alpha, collage, composite, cutout, gif,"),
        (("mask", ""), "--save '' is not known"),
        (("mask", "alpha", "mask"), "--save 'mask,alpha,mask': expected some of mask, .*, each once"),
        ((), "--save '': expected some of mask"),
    ],
)
def test_what_cannot_be_saved_is_refused(saves: tuple[str, ...], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        Look(saves)


def test_a_background_that_is_none_is_refused_when_it_is_named() -> None:
    assert Look(background="transparent").behind is None
    with pytest.raises(OptionError, match="--background 'nowhere'"):
        Look(background="nowhere")


def test_a_background_is_recorded_by_what_it_is_and_not_by_where_it_lies(tmp_path: Path) -> None:
    assert [Look(background=text).background_record() for text in ("white", "blur:3")] == ["white", "blur:3"]
    for name in ("one.png", "two.png"):
        Image.fromarray(PHOTO).save(tmp_path / name)
    first, second = (Look(background=str(tmp_path / name)).background_record() for name in ("one.png", "two.png"))
    assert first == second == f"sha256 {sha256_file(tmp_path / 'one.png')}"
    Image.fromarray(255 - PHOTO).save(tmp_path / "one.png")
    assert Look(background=str(tmp_path / "one.png")).background_record() != first


# ---- ids and alpha ---------------------------------------------------------------------------------------------------


@each_network
@each_refine
def test_alpha_is_a_half_and_more_exactly_where_there_is_a_class(labels: LabelMap | None, refine: Refine) -> None:
    for seed in range(4):
        found = segmented(PHOTO, shares_for(labels, seed), network(labels), Look(("mask", "alpha"), refine=refine))
        assert found.alpha is not None
        assert (found.alpha.dtype, found.ids.dtype) == (np.float32, np.uint8)
        assert found.alpha.shape == found.ids.shape == PHOTO.shape[:2]
        assert 0 <= found.alpha.min() <= found.alpha.max() <= 1
        np.testing.assert_array_equal(found.alpha >= 0.5, found.ids != 0)
        drawn = picture("alpha", found, Look(("alpha",)))
        np.testing.assert_array_equal(drawn >= 128, found.alpha >= 127.5 / 255)
        assert found.ids.max() < (len(labels.names) if labels else 2)


@each_network
@each_refine
def test_the_mask_does_not_depend_on_what_else_is_saved(labels: LabelMap | None, refine: Refine) -> None:
    alone, beside = (
        segmented(PHOTO, shares_for(labels), network(labels), Look(saves, refine=refine))
        for saves in (("mask",), ("mask", "overlay", "alpha", "gif"))
    )
    np.testing.assert_array_equal(alone.ids, beside.ids)


@each_network
@each_refine
def test_the_share_of_the_person_does_not_depend_on_what_is_saved(labels: LabelMap | None, refine: Refine) -> None:
    """Of masks it is that of the pixels, of mattes the mean alpha; so says the results' line."""
    shares = shares_for(labels)
    looks = [Look(saves, refine=refine) for saves in (("mask",), ("overlay",), ("mask", "alpha"), ("cutout",))]
    found = [segmented(PHOTO, shares, network(labels), look) for look in looks]
    assert len({one.person_share for one in found}) == 1
    if labels:
        assert found[0].person_share == pytest.approx((found[0].ids != 0).mean())
    else:
        assert found[0].alpha is not None
        assert found[0].person_share == pytest.approx(found[0].alpha.mean(), abs=1e-6)


@pytest.mark.parametrize("labels", [BINARY, THREE], ids=lambda labels: labels.name)
def test_with_nothing_asked_for_masks_are_those_that_evaluate_measures(labels: LabelMap) -> None:
    for seed in range(4):
        shares = shares_for(labels, seed)
        found = segmented(PHOTO, shares, network(labels), Look(("mask",)))
        np.testing.assert_array_equal(found.ids, at_photo_size(shares, (61, 83), GEOMETRY, "mask"))


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("saves", [("mask",), ("alpha",)])
def test_a_pixel_of_the_threshold_and_more_is_person(threshold: float, saves: tuple[str, ...]) -> None:
    geometry = Geometry(size=(1, 100), fit="stretch")
    person = (np.arange(100, dtype=np.float32) / np.float32(100))[None]
    shares = np.stack([1 - person, person], axis=2)
    look = Look(saves, refine=Refine(threshold))
    found = segmented(np.zeros((1, 100, 3), np.uint8), shares, network(BINARY, geometry), look)
    np.testing.assert_array_equal(found.ids[0], np.arange(100) >= round(threshold * 100))


def test_a_threshold_of_several_classes_is_of_all_that_is_not_background() -> None:
    shares = np.array([[[0.60, 0.15, 0.25], [0.75, 0.2, 0.05], [0.4, 0.3, 0.3]]], np.float32)
    photo, here = np.zeros((1, 3, 3), np.uint8), network(THREE, Geometry(size=(1, 3), fit="stretch"))
    ids = [segmented(photo, shares, here, Look(refine=Refine(cut))).ids[0].tolist() for cut in (None, 0.3, 0.5, 0.7)]
    assert ids == [[0, 0, 0], [2, 0, 1], [0, 0, 1], [0, 0, 0]]


def test_classes_have_their_shares_where_there_are_more_than_two() -> None:
    ids = np.array([[0, 0, 0, 1], [2, 2, 0, 0]], np.uint8)
    photo = np.zeros((2, 4, 3), np.uint8)
    found = Segmented(photo, ids, None, THREE, 0.375)
    assert found.class_shares() == {"background": 0.625, "head": 0.125, "body": 0.25}
    assert Segmented(photo, ids % 2, None, BINARY, 0.125).class_shares() is None
    assert Segmented(photo, ids * 0, None, THREE, 0).class_shares() == {"background": 1, "head": 0, "body": 0}


# ---- pictures --------------------------------------------------------------------------------------------------------


def drawn(save: str, look: Look, found: Segmented) -> Image.Image:
    data, suffix = encoded(save, picture(save, found, look))
    opened = Image.open(io.BytesIO(data))
    opened.load()
    assert opened.format == {".png": "PNG", ".jpg": "JPEG"}[suffix]
    return opened


@each_network
@pytest.mark.parametrize("background", ["white", "#102030", "blur", "blur:3", "transparent"])
def test_every_picture_has_the_photos_size_and_its_mode(labels: LabelMap | None, background: str) -> None:
    saves = tuple(save for save in SAVES if save != "gif")
    look = Look(saves, background)
    found = segmented(PHOTO, shares_for(labels), network(labels), look)
    composite = "RGBA" if background == "transparent" else "RGB"
    modes = {"mask": "L", "alpha": "L", "overlay": "RGB", "cutout": "RGBA", "composite": composite, "collage": "RGB"}
    for save in saves:
        opened = drawn(save, look, found)
        assert opened.mode == modes[save], save
        assert opened.size == ((3 * 83 + 16, 61) if save == "collage" else (83, 61)), save


@pytest.mark.parametrize("save", SAVES)
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 4), (3, 1), (2, 2), (1, 90)], ids=str)
@pytest.mark.parametrize("is_person", [True, False], ids=["person", "nobody"])
def test_the_smallest_photos_are_drawn(save: str, size: tuple[int, int], is_person: bool) -> None:
    shares = np.zeros((24, 32, 2), np.float32)
    shares[..., int(is_person)] = 1
    for background in ("white", "blur", "transparent"):
        look = Look((save,), background)
        found = segmented(np.full((*size, 3), 90, np.uint8), shares, network(), look)
        assert found.person_share == is_person
        assert picture(save, found, look).shape[0] == size[0]


def test_masks_are_exact_and_alpha_rounded() -> None:
    ids = np.arange(6, dtype=np.uint8).reshape(2, 3)
    alpha = np.array([[0, 0.1, 0.4999999], [0.5, 0.9, 1]], np.float32)
    found = Segmented(np.zeros((2, 3, 3), np.uint8), ids, alpha, BINARY, 5 / 6)
    look = Look(("mask", "alpha"))
    np.testing.assert_array_equal(np.asarray(drawn("mask", look, found)), ids)
    np.testing.assert_array_equal(np.asarray(drawn("alpha", look, found)), [[0, 26, 127], [128, 230, 255]])


def test_a_person_stands_before_the_background_and_a_cutout_keeps_no_other_pixel() -> None:
    left = np.zeros((40, 60), np.float32)
    left[:, :30] = 1
    photo = np.full((40, 60, 3), (10, 200, 30), np.uint8)
    found = Segmented(photo, left.astype(np.uint8), left, BINARY, 0.5)
    expected = photo.copy()
    expected[:, 30:] = (0x10, 0x20, 0x30)
    look = Look(("composite",), "#102030")
    np.testing.assert_array_equal(picture("composite", found, look), expected)
    np.testing.assert_array_equal(picture("gif", found, look), expected)
    cut = picture("cutout", found, look)
    assert (cut[:, :30] == (10, 200, 30, 255)).all()
    assert (cut[:, 30:] == 0).all()
    clear = Look(("composite",), "transparent")
    np.testing.assert_array_equal(picture("composite", found, clear), cut)
    over_board = picture("gif", found, clear)
    assert (over_board[:, :30] == photo[:, :30]).all()
    assert set(np.unique(over_board[:, 30:])) == {160, 220}


def test_a_collage_is_the_photo_the_classes_and_the_composition() -> None:
    look = Look(("collage",), "black")
    found = segmented(PHOTO, blobs(3), network(THREE), look)
    row = picture("collage", found, look)
    np.testing.assert_array_equal(row[:, :83], PHOTO)
    np.testing.assert_array_equal(row[:, 91:174], colored(found.ids, THREE))
    np.testing.assert_array_equal(row[:, 182:], picture("composite", found, look))


def test_the_overlay_leaves_the_background_as_it_is() -> None:
    found = segmented(PHOTO, blobs(2), network(), Look(("overlay",)))
    over = picture("overlay", found, Look(("overlay",)))
    np.testing.assert_array_equal(over[found.ids == 0], PHOTO[found.ids == 0])
    assert (over[found.ids == 1] != PHOTO[found.ids == 1]).any(axis=1).all()


def test_the_photo_stays_as_it_is_and_may_be_one_that_nobody_can_write_to() -> None:
    photo = PHOTO.copy()
    photo.flags.writeable = False
    look = Look(SAVES, "blur", Refine(0.4, True, True, 3, True))
    found = segmented(photo, blobs(3), network(THREE), look, Fraction(1))
    for save in SAVES:
        picture(save, found, look)
    np.testing.assert_array_equal(photo, PHOTO)
