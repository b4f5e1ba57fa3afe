"""Augment by name, or from a TOML file.

The ranges of ``portrait`` are those of Portrait-segmentation (minus31/Portrait-segmentation, ``augmentation.py`` and
``data_generator.py``): both flips, rotation by 45 degrees with scales of 0.6 to 1.5, add, add per channel, gamma of 0.5
to 1.5, blur of 5 to 20 px, 1 to 6 patches of 0.2 at 127; each at probability 1/2, all of them independently, so that a
photo gets four and a half. Ours are less frequent, and nothing stands on its head: few photos in little time must
still be learned. Portrait-Segmentation (anilsathyan7) flips, and shifts and zooms by 0.1 to 0.2, in its notebooks; its
slim512 changes brightness, contrast, saturation and the crop, each at 1/2. humanMatting (toytag) augments nothing.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import msgspec

from segdata.errors import OptionError, did_you_mean
from segmodels.augment.options import (
    Add,
    AddPerChannel,
    Augment,
    Blur,
    Brightness,
    Contrast,
    Gamma,
    HorizontalFlip,
    Jpeg,
    Occlusion,
    PlainBackground,
    RandomCrop,
    Rotate,
    Scale,
    VerticalFlip,
)

KINDS: dict[str, Any] = {
    "add": Add,
    "add_per_channel": AddPerChannel,
    "blur": Blur,
    "brightness": Brightness,
    "contrast": Contrast,
    "gamma": Gamma,
    "horizontal_flip": HorizontalFlip,
    "jpeg": Jpeg,
    "occlusion": Occlusion,
    "plain_background": PlainBackground,
    "random_crop": RandomCrop,
    "rotate": Rotate,
    "scale": Scale,
    "vertical_flip": VerticalFlip,
}

PRESETS = {
    "light": Augment(
        "light",
        brightness=Brightness((0.8, 1.2), 0.2),
        contrast=Contrast((0.8, 1.2), 0.2),
        horizontal_flip=HorizontalFlip(0.5),
        rotate=Rotate((-10, 10), 0.1),
        scale=Scale((0.85, 1.2), 0.1),
    ),
    "none": Augment("none"),
    "portrait": Augment(
        "portrait",
        plain_background=PlainBackground(0.2),
        brightness=Brightness(probability=0.3),
        contrast=Contrast(probability=0.2),
        gamma=Gamma(probability=0.3),
        add=Add(probability=0.2),
        add_per_channel=AddPerChannel(probability=0.2),
        horizontal_flip=HorizontalFlip(0.5),
        rotate=Rotate(probability=0.3),
        scale=Scale(probability=0.4),
        random_crop=RandomCrop(probability=0.2),
        occlusion=Occlusion(probability=0.15),
        blur=Blur(probability=0.15),
        jpeg=Jpeg(probability=0.2),
    ),
}


def augment(name_or_toml: str) -> Augment:
    """The preset of that name, or what the TOML file at that path (it ends in ``.toml``) says.

    ::

        [rotate]                 # a table for each augmentation that is to happen
        degrees = [-30, 30]
        probability = 0.5        # of each sample in each epoch

        [jpeg]                   # with an empty one the ranges and the probability are those of KINDS

    OptionError for an unknown name, and, naming the file, for whatever in it is unknown or out of its bounds.
    """
    if name_or_toml.lower().endswith(".toml"):
        return _read(Path(name_or_toml))
    if name_or_toml not in PRESETS:
        hint = did_you_mean(name_or_toml, PRESETS)
        raise OptionError(f"--augment {name_or_toml!r} is not known.{hint} Or give the path of a file, FILE.toml.")
    return PRESETS[name_or_toml]


def _read(path: Path) -> Augment:
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would hang
        raise OptionError(f"{path}: is no regular file, expected augmentations in TOML.")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise OptionError(f"{path}: cannot be read ({error.strerror}), expected augmentations in TOML.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OptionError(f"{path}: {error}. Expected augmentations in TOML.") from error
    return Augment(path.stem, **{name: _augmentation(path, name, table) for name, table in tables.items()})


def _augmentation(path: Path, name: str, table: Any) -> Any:
    if name not in KINDS:
        raise OptionError(f"{path}: {name!r} is no augmentation.{did_you_mean(name, KINDS)}")
    if not isinstance(table, dict):
        raise OptionError(f"{path}: {name} is {table!r}, expected a table [{name}].")
    known = [field.name for field in fields(KINDS[name])]
    for key in table:
        if key not in known:
            raise OptionError(f"{path}: [{name}] has no {key!r}.{did_you_mean(key, known)}")
    try:
        return msgspec.convert(table, KINDS[name])
    except msgspec.ValidationError as error:
        raise OptionError(f"{path}: [{name}]: {error}.") from error
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from error
