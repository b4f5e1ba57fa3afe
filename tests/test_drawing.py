"""The sample people of ``segdata demo``: exact labels, the same bytes everywhere, every class in the demo's set."""

from __future__ import annotations

import functools
import hashlib

import numpy as np
import numpy.typing as npt
import pytest

from segdata import drawing
from segdata.drawing import draw_person, people, shapes
from segdata.labels import VOCABULARIES

Bytes = npt.NDArray[np.uint8]
HUMANPARSING = VOCABULARIES["humanparsing"]
COUNT = 150


@functools.cache
def pictures() -> list[tuple[Bytes, Bytes]]:
    return [draw_person(0, number) for number in range(COUNT)]


def grown_by_a_pixel(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    height, width = region.shape
    padded = np.pad(region, 1)
    shifted = [padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)]
    grown: npt.NDArray[np.bool_] = np.any(shifted, axis=0)
    return grown


def test_same_numbers_give_the_same_bytes() -> None:
    for first, second in zip(draw_person(3, 7), draw_person(3, 7), strict=True):
        assert first.tobytes() == second.tobytes()


@pytest.mark.parametrize("other", [(0, 1), (1, 0)], ids=["other number", "other seed"])
def test_other_numbers_give_another_picture(other: tuple[int, int]) -> None:
    assert draw_person(*other)[0].tobytes() != draw_person(0, 0)[0].tobytes()


def test_shapes_types_and_ranges() -> None:
    for image, labels in pictures():
        height, width = labels.shape
        assert image.shape == (height, width, 3)
        assert image.dtype == labels.dtype == np.uint8
        assert image.flags.c_contiguous
        assert labels.flags.c_contiguous
        assert 220 <= height <= 340
        assert 180 <= width <= 300
        assert labels.max() < len(HUMANPARSING)


def test_sizes_and_formats_vary() -> None:
    sizes = {labels.shape for _, labels in pictures()}
    assert len(sizes) > COUNT / 2
    assert any(height > 1.2 * width for height, width in sizes)
    assert any(width > 1.1 * height for height, width in sizes)


def test_ids_are_those_of_humanparsing() -> None:
    for class_id, name in enumerate(HUMANPARSING):
        assert getattr(people, name.upper().replace("-", "_")) == class_id


@pytest.mark.parametrize("name", HUMANPARSING)
def test_class_occurs_often(name: str) -> None:
    held = sum(bool((labels == HUMANPARSING.index(name)).any()) for _, labels in pictures())
    assert held >= COUNT / 10


def test_person_covers_part_of_every_picture() -> None:
    shares = [float((labels > 0).mean()) for _, labels in pictures()]
    assert min(shares) >= 0.05
    assert max(shares) <= 0.8
    assert max(shares) > 0.4


@pytest.mark.parametrize("part", ["arm", "leg", "shoe"])
def test_right_is_on_the_left_of_the_picture(part: str) -> None:
    left, right = HUMANPARSING.index(f"left-{part}"), HUMANPARSING.index(f"right-{part}")
    compared = 0
    for _, labels in pictures():
        left_x, right_x = np.nonzero(labels == left)[1], np.nonzero(labels == right)[1]
        if min(len(left_x), len(right_x)) >= 60:
            assert right_x.mean() < left_x.mean()
            compared += 1
    assert compared >= COUNT / 5


def test_picture_differs_from_its_background_where_the_labels_say(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = range(0, COUNT, 10)
    monkeypatch.setattr(drawing, "person_parts", lambda person: iter(()))
    for number in numbers:
        image, labels = pictures()[number]
        background, no_labels = draw_person(0, number)
        assert not no_labels.any()
        differs = (image != background).any(axis=2)
        person = labels > 0
        # An edge is blended over one pixel, so half of the pixel beside a label may show it.
        assert not (differs & ~grown_by_a_pixel(person)).any()
        assert (differs & person).sum() > 0.97 * person.sum()


def test_nothing_of_a_shape_lies_outside_its_box(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = [pictures()[number][1] for number in range(8)]
    crop = shapes._crop
    everywhere = shapes.Shape((-99.0, -99.0, 99.0, 99.0), lambda x, y: x)
    monkeypatch.setattr(shapes, "_crop", lambda canvas, shape, margin_px: crop(canvas, everywhere, margin_px))
    for number, labels in enumerate(exact):
        np.testing.assert_array_equal(draw_person(0, number)[1], labels)


# The demo's manifests are under version control and hold hashes of these bytes: change nothing that changes them.
@pytest.mark.parametrize(
    ("number", "image_sha256", "labels_sha256"),
    [
        (
            0,
            "9f2c4c41bbacf3738f18f03b7a73bb1d56e444831f5322b3dcc064a7c83eefd5",
            "45a5bfa221deab27e71a7a7be543110e4b6605fed615f87e82fa0b49a386fb63",
        ),
        (
            1,
            "0142395e0a2394b857a3cba48bd0566f3d3e11012afc92256b7bc065a80575ce",
            "5af0ace60a4e64fd98f9c7b69e46c615a4fc166c54fc02f7082d316403c7c33a",
        ),
        (
            2,
            "16ded0e77e62fae61e9ccc76c4edf8618010156dd3cd6e926383b7e586c74655",
            "0e5d9fa36b6a61f52ea0c76c4b1ceea2104fca4e9bfa077170831842b278564a",
        ),
    ],
)
def test_bytes_never_change(number: int, image_sha256: str, labels_sha256: str) -> None:
    image, labels = pictures()[number]
    assert hashlib.sha256(labels.tobytes()).hexdigest() == labels_sha256
    assert hashlib.sha256(image.tobytes()).hexdigest() == image_sha256
