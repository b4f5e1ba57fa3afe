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


NO_AFFIX = Affix()


@dataclass(frozen=True)
class Pairing:
    """``pairs`` of (image name, label name) sorted by image name; ``unpaired`` as (file name, reason, detail)."""

    pairs: list[tuple[str, str]]
    unpaired: list[tuple[str, str, str]] = field(default_factory=list)


def pair_by_stem(
    images: Pictures, labels: Pictures, label_affix: Affix = NO_AFFIX, image_affix: Affix = NO_AFFIX
) -> Pairing:
    """Match ``NAME.*`` of ``images`` with ``NAME.*`` of ``labels``, each name with its affix around it.

    The key is the name in NFC with letter case folded. Two files with one key on one side are ambiguous: neither is
    used. Reasons: ``ambiguous``, ``no-mask``, ``no-image``, ``bad-name``.
    """
    unpaired = [
        (printable(name), "bad-name", "the file name is not UTF-8; rename it")
        for name in images.bad_names + labels.bad_names
    ]
    unpaired += [
        (name, "bad-name", "the file name has a backslash, which parts folders on Windows; rename it")
        for name in images.names + labels.names
        if "\\" in name
    ]
    image_by_key, doubled_images = _by_key(images.names, image_affix)
    label_by_key, doubled_labels = _by_key(labels.names, label_affix)
    unpaired += doubled_images + doubled_labels
    doubled = {_key(name, image_affix): detail for name, _, detail in doubled_images}
    doubled |= {_key(name, label_affix): detail for name, _, detail in doubled_labels}
    pairs = []
    for key, image in image_by_key.items():
        if key in label_by_key:
            pairs.append((image, label_by_key[key]))
        elif key in doubled:
            unpaired.append((image, "ambiguous", doubled[key]))
        else:
            wanted = image_affix.name(_stem(image))
            wanted = f"{label_affix.prefix}{wanted}{label_affix.suffix}"
            unpaired.append((image, "no-mask", f"no mask named {wanted}.* for this photo"))
    for key, label in label_by_key.items():
        if key in doubled:
            unpaired.append((label, "ambiguous", doubled[key]))
        elif key not in image_by_key:
            wanted = f"{image_affix.prefix}{label_affix.name(_stem(label))}{image_affix.suffix}"
            unpaired.append((label, "no-image", f"no photo named {wanted}.* for this mask"))
    return Pairing(sorted(pairs), sorted(unpaired))


def doubled(names: Sequence[str]) -> str:
    """What to say of files that share a name."""
    return f"{' and '.join(map(repr, names))} have one name but for suffix or letter case; keep one"


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _key(name: str, affix: Affix) -> str:
    return key_of(affix.name(_stem(name)))


def _by_key(names: list[str], affix: Affix) -> tuple[dict[str, str], list[tuple[str, str, str]]]:
    """File name by key, and those left out since they share a key."""
    groups: dict[str, list[str]] = {}
    for name in (name for name in names if "\\" not in name):
        groups.setdefault(_key(name, affix), []).append(name)
    single = {key: group[0] for key, group in groups.items() if len(group) == 1}
    shared = [(name, "ambiguous", doubled(group)) for group in groups.values() if len(group) > 1 for name in group]
    return single, shared
