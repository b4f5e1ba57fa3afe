"""Augmentations as values: one frozen dataclass each, whose fields are its ranges and how often it is drawn.

``draw(numbers)`` turns uniform numbers in [0, 1) into what happens to one sample. A range is (low, high), both ends
included. A value out of its bounds is an OptionError that names the augmentation, the field and the bounds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from segdata.errors import OptionError, did_you_mean

Numbers = Sequence[float]
Span = tuple[float, float]
BLURS = ("mean", "median", "gaussian")
_MOST_PATCHES = 6  # two numbers each, of the fifteen that an augmentation has beside the one that decides whether


@dataclass(frozen=True)
class PlainBackground:
    """Mattes only: the background becomes one random colour, image * alpha + colour * (1 - alpha)."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self)

    def draw(self, numbers: Numbers) -> tuple[int, int, int]:
        """The colour, RGB."""
        return int(numbers[0] * 256), int(numbers[1] * 256), int(numbers[2] * 256)


@dataclass(frozen=True)
class Brightness:
    """HSV's value times ``factor``, at most 255; hue and saturation stay."""

    factor: Span = (0.501, 1.3)
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, factor=(0, 10))

    def draw(self, numbers: Numbers) -> float:
        """The factor."""
        return _between(self.factor, numbers[0])


@dataclass(frozen=True)
class Contrast:
    """The distance of every channel from mid-grey, 127.5, times ``factor``."""

    factor: Span = (0.5, 1.5)
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, factor=(0, 10))

    def draw(self, numbers: Numbers) -> float:
        """The factor."""
        return _between(self.factor, numbers[0])


@dataclass(frozen=True)
class Gamma:
    """255 * (v / 255) ** (1 / gamma) for every channel, as Portrait-segmentation has it: above 1 is brighter."""

    gamma: Span = (0.5, 1.5)
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, gamma=(0.1, 10))

    def draw(self, numbers: Numbers) -> float:
        """The gamma."""
        return _between(self.gamma, numbers[0])


@dataclass(frozen=True)
class Add:
    """The same ``amount`` to all channels of the image, of 0 to 255."""

    amount: Span = (-50, 50)
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, amount=(-255, 255))

    def draw(self, numbers: Numbers) -> float:
        """The amount."""
        return _between(self.amount, numbers[0])


@dataclass(frozen=True)
class AddPerChannel:
    """An ``amount`` to each channel of the image, of 0 to 255."""

    amount: Span = (-50, 50)
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, amount=(-255, 255))

    def draw(self, numbers: Numbers) -> tuple[float, ...]:
        """The amounts for red, green and blue."""
        return tuple(_between(self.amount, number) for number in numbers[:3])


@dataclass(frozen=True)
class HorizontalFlip:
    """Left and right exchanged, in the ids of the mask too."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self)

    def draw(self, numbers: Numbers) -> bool:
        """Always True."""
        return True


@dataclass(frozen=True)
class VerticalFlip:
    """Upside down."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self)

    def draw(self, numbers: Numbers) -> bool:
        """Always True."""
        return True


@dataclass(frozen=True)
class Rotate:
    """By ``degrees`` about the middle, counter-clockwise; the picture keeps its size."""

    degrees: Span = (-45, 45)
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, degrees=(-180, 180))

    def draw(self, numbers: Numbers) -> float:
        """The angle in degrees."""
        return _between(self.degrees, numbers[0])


@dataclass(frozen=True)
class Scale:
    """By ``factor`` about the middle, above 1 is larger; the picture keeps its size."""

    factor: Span = (0.6, 1.5)
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, factor=(0.1, 10))

    def draw(self, numbers: Numbers) -> float:
        """The factor."""
        return _between(self.factor, numbers[0])


@dataclass(frozen=True)
class RandomCrop:
    """A window of ``share`` of the height and of the width, anywhere inside, enlarged to the picture's size."""

    share: Span = (0.7, 1.0)
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, share=(0.1, 1))

    def draw(self, numbers: Numbers) -> tuple[float, float, float]:
        """The share, and where the window begins: x and y as shares of the width and height."""
        share = _between(self.share, numbers[0])
        return share, numbers[1] * (1 - share), numbers[2] * (1 - share)


@dataclass(frozen=True)
class Occlusion:
    """Mid-grey ``patches``, so many, each of ``side`` of the height and width, with their middles anywhere.

    The mask stays: the network is to guess what is behind.
    """

    patches: tuple[int, int] = (1, _MOST_PATCHES)
    side: float = 0.2
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, patches=(1, _MOST_PATCHES))
        if not 0 < self.side <= 1:
            raise OptionError(f"occlusion: side {self.side}, expected a share above 0 and at most 1.")

    def draw(self, numbers: Numbers) -> list[tuple[float, float, float]]:
        """(x, y, side) of each patch: its upper left corner, which may lie outside, and its side, as shares."""
        half, count = self.side / 2, _whole(self.patches, numbers[0])
        return [(numbers[i] - half, numbers[i + 1] - half, self.side) for i in range(1, 2 * count, 2)]


@dataclass(frozen=True)
class Blur:
    """One of ``kinds``, with a square window of an odd number of pixels; Gaussian with OpenCV's sigma for that."""

    size_px: tuple[int, int] = (5, 21)
    kinds: tuple[str, ...] = BLURS
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, size_px=(3, 99))
        if not all(size % 2 for size in self.size_px):
            raise OptionError(f"blur: size_px {list(self.size_px)}, expected odd numbers.")
        if not self.kinds:
            raise OptionError(f"blur: kinds [], expected some of {', '.join(BLURS)}.")
        for kind in self.kinds:
            if kind not in BLURS:
                raise OptionError(f"blur: kind {kind!r} is not known.{did_you_mean(kind, BLURS)}")

    def draw(self, numbers: Numbers) -> tuple[str, int]:
        """The kind, and the window's side in pixels."""
        low, high = self.size_px
        return self.kinds[int(numbers[0] * len(self.kinds))], low + 2 * _whole((0, (high - low) // 2), numbers[1])


@dataclass(frozen=True)
class Jpeg:
    """Through JPEG of ``quality`` and back."""

    quality: tuple[int, int] = (10, 70)
    probability: float = 0.5

    def __post_init__(self) -> None:
        _check(self, quality=(1, 100))

    def draw(self, numbers: Numbers) -> int:
        """The quality."""
        return _whole(self.quality, numbers[0])


@dataclass(frozen=True)
class Augment:
    """What training does to samples: its name (a preset's, or a TOML file's stem) and each augmentation, None is off.

    The fields stand in the order in which they are applied. Each has random numbers of its own by its place here, so
    a new one goes to the end: then runs of before draw what they drew.
    """

    name: str
    plain_background: PlainBackground | None = None
    brightness: Brightness | None = None
    contrast: Contrast | None = None
    gamma: Gamma | None = None
    add: Add | None = None
    add_per_channel: AddPerChannel | None = None
    horizontal_flip: HorizontalFlip | None = None
    vertical_flip: VerticalFlip | None = None
    rotate: Rotate | None = None
    scale: Scale | None = None
    random_crop: RandomCrop | None = None
    occlusion: Occlusion | None = None
    blur: Blur | None = None
    jpeg: Jpeg | None = None


NAMES = tuple(field.name for field in fields(Augment)[1:])


def _between(span: Span, number: float) -> float:
    return span[0] + (span[1] - span[0]) * number


def _whole(span: tuple[int, int], number: float) -> int:
    return span[0] + int((span[1] - span[0] + 1) * number)


def _check(options: Any, **bounds: Span) -> None:
    """OptionError where the probability, or a range that ``bounds`` names, is not within its bounds."""
    name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(options).__name__).lower()
    if not 0 <= options.probability <= 1:
        raise OptionError(f"{name}: probability {options.probability}, expected 0 to 1.")
    for field, (least, most) in bounds.items():
        low, high = getattr(options, field)
        if not least <= low <= high <= most:
            raise OptionError(f"{name}: {field} [{low}, {high}], expected low and high from {least} to {most}.")
