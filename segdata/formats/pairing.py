"""Pairing files of two folders by key, never by position in a listing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from segdata.formats.files import Pictures, key_of, printable


@dataclass(frozen=True)
class Affix:
    """What a file's stem has before and behind the name that a photo and its label share."""

    prefix: str = ""
    suffix: str = ""

    def fits(self, stem: str) -> bool:
        """Whether a stem has both, and a name between them."""
        return (
            len(stem) > len(self.prefix + self.suffix) and stem.startswith(self.prefix) and stem.endswith(self.suffix)
        )

    def name(self, stem: str) -> str:
        """The stem without them."""
        return stem.removeprefix(self.prefix).removesuffix(self.suffix)

    def around(self, name: str) -> str:
        """The stem of a name."""
        return f"{self.prefix}{name}{self.suffix}"


NO_AFFIX = Affix()


@dataclass(frozen=True)
class Pairing:
    """``pairs`` of (image name, label name) sorted by image name; ``unpaired`` as (file name, reason, detail)."""

    pairs: list[tuple[str, str]]
    unpaired: list[tuple[str, str, str]] = field(default_factory=list)


def pair_by_stem(
    images: Pictures,
    labels: Pictures,
    label_affix: Affix = NO_AFFIX,
    image_affix: Affix = NO_AFFIX,
    folders: tuple[str, str] = ("", ""),
) -> Pairing:
    """Match ``NAME.*`` of ``images`` with ``NAME.*`` of ``labels``, each name with its affix around it.

    The key is the name in NFC with letter case folded. Two files with one key on one side are ambiguous: neither is
    used. Reasons: ``ambiguous``, ``no-mask``, ``no-image``, ``bad-name``. ``folders`` (of images and of labels, empty
    or ending in a slash) go before the names of what is unpaired.
    """
    image_by_key, bad_images = _by_key(images, image_affix)
    label_by_key, bad_labels = _by_key(labels, label_affix)
    doubled = {_key(name, image_affix): detail for name, reason, detail in bad_images if reason == "ambiguous"}
    doubled |= {_key(name, label_affix): detail for name, reason, detail in bad_labels if reason == "ambiguous"}
    pairs = []
    for key, image in image_by_key.items():
        if key in label_by_key:
            pairs.append((image, label_by_key[key]))
        elif key in doubled:
            bad_images.append((image, "ambiguous", doubled[key]))
        else:
            wanted = label_affix.around(image_affix.name(_stem(image)))
            bad_images.append((image, "no-mask", f"no mask named {wanted}.* for this photo"))
    for key, label in label_by_key.items():
        if key in doubled:
            bad_labels.append((label, "ambiguous", doubled[key]))
        elif key not in image_by_key:
            wanted = image_affix.around(label_affix.name(_stem(label)))
            bad_labels.append((label, "no-image", f"no photo named {wanted}.* for this mask"))
    unpaired = [
        (folder + name, reason, detail)
        for folder, bad in zip(folders, (bad_images, bad_labels), strict=True)
        for name, reason, detail in bad
    ]
    return Pairing(sorted(pairs), sorted(unpaired))


def doubled(names: Sequence[str]) -> str:
    """What to say of files that share a name."""
    return f"{' and '.join(map(repr, names))} have one name but for suffix or letter case; keep one"


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _key(name: str, affix: Affix) -> str:
    return key_of(affix.name(_stem(name)))


def _by_key(pictures: Pictures, affix: Affix) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """File name by key, and those left out: names that no record can hold, and those that share a key."""
    bad = [(printable(name), "bad-name", "the file name is not UTF-8; rename it") for name in pictures.bad_names]
    groups: dict[str, list[str]] = {}
    for name in pictures.names:
        if "\\" in name:
            bad.append((name, "bad-name", "the file name has a backslash, which parts folders on Windows; rename it"))
        else:
            groups.setdefault(_key(name, affix), []).append(name)
    single = {key: group[0] for key, group in groups.items() if len(group) == 1}
    shared = [(name, "ambiguous", doubled(group)) for group in groups.values() if len(group) > 1 for name in group]
    return single, bad + shared
