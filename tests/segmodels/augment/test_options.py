"""Ranges, presets and TOML files: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from segdata.errors import OptionError
from segmodels.augment import KINDS, PRESETS, Augment, augment
from segmodels.augment.options import NAMES, Blur, Brightness, Occlusion, Rotate

WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("rotate", {"degrees": (-200, 0)}, r"rotate: degrees \[-200, 0\], expected low and high from -180 to 180"),
    ("rotate", {"degrees": (10, -10)}, r"degrees \[10, -10\]"),
    ("scale", {"factor": (0, 1)}, "scale: factor"),
    ("brightness", {"factor": (0.5, float("nan"))}, "brightness: factor"),
    ("add_per_channel", {"amount": (-256, 0)}, "add_per_channel: amount"),
    ("jpeg", {"quality": (0, 70)}, "from 1 to 100"),
    ("blur", {"size_px": (4, 21)}, r"size_px \[4, 21\], expected odd"),
    ("blur", {"kinds": ("box",)}, "kind 'box' is not known"),
    ("blur", {"kinds": ()}, "expected some of mean, median, gaussian"),
    ("occlusion", {"patches": (0, 6)}, "patches"),
    ("occlusion", {"patches": (1, 7)}, "patches"),
    ("occlusion", {"side": 0.0}, "side 0.0"),
    ("random_crop", {"share": (0.5, 1.1)}, "share"),
]


@pytest.mark.parametrize(("name", "values", "message"), WRONG, ids=lambda value: str(value))
def test_a_range_out_of_its_bounds_is_named(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        KINDS[name](**values)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_every_probability_is_one(name: str, probability: float) -> None:
    with pytest.raises(OptionError, match=rf"^{name}: probability .*, expected 0 to 1\.$"):
        KINDS[name](probability=probability)


def test_the_table_names_every_augmentation() -> None:
    assert sorted(NAMES) == list(KINDS)
    for name, kind in KINDS.items():
        assert Augment.__annotations__[name] == f"{kind.__name__} | None"


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_are_values_that_json_gives_back(name: str) -> None:
    preset = augment(name)
    assert preset.name == name
    assert msgspec.json.decode(msgspec.json.encode(preset), type=Augment) == preset
    assert hash(preset) == hash(augment(name))


def test_portraits_stay_on_their_feet() -> None:
    portrait = augment("portrait")
    assert portrait.vertical_flip is None
    assert [name for name in NAMES if getattr(portrait, name) is None] == ["vertical_flip"]
    assert portrait.rotate == Rotate((-45, 45), 0.3)
    assert portrait.brightness == Brightness((0.501, 1.3), 0.3)


def test_a_toml_file_says_what_happens(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[rotate]\ndegrees = [-30, 30]\n[jpeg]\n[blur]\nkinds = ["mean"]\nsize_px = [3, 7]\nprobability = 1\n'
        "[occlusion]\nside = 0.1\n",
        encoding="utf-8-sig",
    )
    assert augment(str(path)) == Augment(
        "mine",
        rotate=Rotate((-30, 30)),
        jpeg=KINDS["jpeg"](),
        blur=Blur((3, 7), ("mean",), 1),
        occlusion=Occlusion(side=0.1),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[rotation]\n", "'rotation' is no augmentation. Did you mean 'rotate'"),
        ("[rotate]\ndegree = [0, 1]\n", r"\[rotate\] has no 'degree'. Did you mean 'degrees'"),
        ('[rotate]\ndegrees = "wide"\n', r"\[rotate\]: Expected `array`, got `str`"),
        ("[rotate]\ndegrees = [1]\n", "length 2"),
        ("[blur]\nsize_px = [5.5, 7]\n", "Expected `int`"),
        ("[scale]\nprobability = 2\n", "scale: probability 2.0, expected 0 to 1"),
        ("rotate = 45\n", r"rotate is 45, expected a table \[rotate\]"),
        ("name = 'x'\n", "'name' is no augmentation"),
        ("[rotate\n", "Expected augmentations in TOML"),
        ("[rotate]\n[rotate]\n", "Expected augmentations in TOML"),
    ],
)
def test_a_wrong_toml_file_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=message) as caught:
        augment(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unknown_names_and_files_say_what_is_known(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"'portait' is not known. Did you mean 'portrait'\? Known: light, none, port"
    ):
        augment("portait")
    with pytest.raises(OptionError, match="cannot be read"):
        augment(str(tmp_path / "nowhere.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(OptionError, match="cannot be read"):
        augment(str(tmp_path / "folder.toml"))
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(OptionError, match="utf-8"):
        augment(str(tmp_path / "latin.toml"))
