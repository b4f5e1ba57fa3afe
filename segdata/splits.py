"""Which split a sample belongs to: by a salted hash of its group, by order of names, or by lists."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import msgspec

from segdata.errors import OptionError, SourceError
from segdata.formats.files import PICTURE_SUFFIXES
from segdata.hashing import unit_hash
from segdata.records import SPLITS


class SplitKey(msgspec.Struct, frozen=True):
    """What of a sample line decides its split. Decodes from a sample line, leaving the rest."""

    id: str
    group: str
    image: str
    image_sha256: str


def order_key(sample_id: str) -> bytes:
    """Records of a split stand in the order of this hash of their id, so that any shard is a fair sample."""
    return hashlib.sha256(b"record order\0" + sample_id.encode("utf-8")).digest()


def amount(value: float | int, total: int, what: str) -> int:
    """A share in (0, 1) or a number of samples, as a number of samples out of ``total``."""
    share = isinstance(value, float)
    if not value >= 0 or (share and value >= 1) or (not share and value > total):  # NaN is not >= 0 either
        raise OptionError(f"--{what} {value}: expected a share below 1, or at most {total} samples.")
    return round(value * total) if share else int(value)


def components(samples: Sequence[SplitKey]) -> list[int]:
    """For each sample the number of its component: samples of one group, or with byte-identical images, share one.

    Union-find; a component's number is the smallest position in it.
    """
    parent = list(range(len(samples)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, sample in enumerate(samples):
        for key in (("group", sample.group), ("image", sample.image_sha256)):
            a, b = sorted((root(first.setdefault(key, i)), root(i)))
            parent[b] = a
    return [root(i) for i in range(len(samples))]


def by_hash(
    samples: Sequence[SplitKey], groups: Sequence[str], test: float | int, validation: float | int, salt: str
) -> dict[str, list[int]]:
    """Positions of the samples by split; a component's side follows from the smallest hash of its ``groups``.

    ``groups`` are the groups' own names, without the prefix that they get where datasets are merged: a photo lands
    on one side whether its dataset is split alone or with others.

    With shares, the hash is compared with fixed bounds (test lowest, then validation), so adding samples never moves
    an old one,
    but for a new photo that is byte-identical with an old one: then both go to the side nearer to test, and no test
    sample ever becomes a training one. With numbers, components are taken by rising hash while they fit.
    """
    found: dict[int, _Component] = {}
    for i, number in enumerate(components(samples)):
        value = unit_hash(groups[i], salt)
        if number in found:
            component = found[number]
            component.members.append(i)
            found[number] = replace(component, hash=min(value, component.hash))
        else:
            found[number] = _Component(value, samples[i].id, [i])
    order = sorted(found.values(), key=lambda component: (component.hash, component.first_id))
    if not isinstance(test, float):  # its hashes end where they end, so a share cannot begin at a fixed bound
        validation = amount(validation, len(samples), "validation")
    held, rest = _take(order, test, len(samples), "test", 0.0)
    validated, trained = _take(rest, validation, len(samples), "validation", test if isinstance(test, float) else 0.0)
    sides = {"train": trained, "validation": validated, "test": held}
    return {split: sorted(i for component in sides[split] for i in component.members) for split in SPLITS}


@dataclass(frozen=True)
class _Component:
    """Samples that must stand on one side: the smallest hash of their groups, the first's id, their positions."""

    hash: float
    first_id: str
    members: list[int]


def _take(
    order: list[_Component], wanted: float | int, total: int, what: str, start: float
) -> tuple[list[_Component], list[_Component]]:
    """The components of one side, and the rest: those from ``start`` on by hash, or the first that fit a number."""
    count = amount(wanted, total, what)
    taken: list[_Component] = []
    rest: list[_Component] = []
    for component in order:
        if isinstance(wanted, float):
            fits = start <= component.hash < start + wanted
        else:
            fits = len(component.members) <= count
            count -= len(component.members) if fits else 0
        (taken if fits else rest).append(component)
    return taken, rest


def by_order(samples: Sequence[SplitKey], test: float | int, validation: float | int) -> dict[str, list[int]]:
    """Positions by split: photos' file names sorted by ``str.lower``, the last ones are test, those before them
    validation.
    """
    order = sorted(range(len(samples)), key=lambda i: _name_key(samples[i]))
    last = len(order) - amount(test, len(order), "test")
    held = amount(validation, len(order), "validation")
    if held > last:
        raise OptionError(
            f"--validation {validation}: expected a share below 1, or at most {last} samples beside test."
        )
    middle = last - held
    return {"train": order[:middle], "validation": order[middle:last], "test": order[last:]}


def _name_key(sample: SplitKey) -> tuple[str, str, str]:
    name = PurePosixPath(sample.image).name
    return name.lower(), name, sample.id


def by_lists(
    samples: Sequence[SplitKey], lists: Mapping[str, Iterable[str]]
) -> tuple[dict[str, list[int]], list[str], list[str]]:
    """Positions by split in the lists' order, listed names without a sample, and ids of samples in no list.

    A listed name is an id, a photo's path or file name, or such a file name without suffix; of a line "image mask"
    the first part counts. SourceError where a sample stands in two lists, or a name fits several samples.
    """
    positions = _positions_by_name(samples)
    sides: dict[str, list[int]] = {split: [] for split in SPLITS}
    side_of: dict[int, str] = {}
    missing: list[str] = []
    for split, names in lists.items():
        for name in names:
            i = _find(name, positions, samples)
            if i is None:
                missing.append(name)
            elif side_of.setdefault(i, split) != split:
                raise SourceError(f"--list {split}: {name!r} stands in the list of {side_of[i]} too, expected one.")
            elif i not in sides[split][-1:] and side_of[i] == split:
                sides[split].append(i)
    sides = {split: list(dict.fromkeys(found)) for split, found in sides.items()}
    return sides, missing, [sample.id for i, sample in enumerate(samples) if i not in side_of]


def _positions_by_name(samples: Sequence[SplitKey]) -> dict[str, list[int]]:
    positions: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        path = PurePosixPath(sample.image)
        for name in {sample.image, path.name, path.stem}:
            positions.setdefault(name, []).append(i)
    return positions | {sample.id: [i] for i, sample in enumerate(samples)}  # an id means that sample alone


def _find(line: str, positions: Mapping[str, list[int]], samples: Sequence[SplitKey]) -> int | None:
    words = line.split(" ")
    for name in (
        " ".join(words[:count]) for count in range(len(words), 0, -1)
    ):  # of "image mask" the longest that fits
        path = PurePosixPath(name.replace("\\", "/"))
        stem = path.stem if path.suffix.lower() in PICTURE_SUFFIXES else path.name
        for candidate in (name, path.name, stem):
            found = positions.get(candidate, [])
            if len(found) > 1:
                ids = ", ".join(samples[i].id for i in found[:3])
                raise SourceError(f"--list: {line!r} fits several samples ({ids}), expected one. List ids.")
            if found:
                return found[0]
    return None


def straddling(samples: Sequence[SplitKey], sides: Mapping[str, Sequence[int]]) -> list[list[str]]:
    """Components that stand in more than one split, each as ``"split: id"`` lines, sorted."""
    side_of = {i: split for split, positions in sides.items() for i in positions}
    members: dict[int, list[int]] = {}
    for i, component in enumerate(components(samples)):
        if i in side_of:
            members.setdefault(component, []).append(i)
    return [
        [f"{side_of[i]}: {samples[i].id}" for i in group]
        for _, group in sorted(members.items())
        if len({side_of[i] for i in group}) > 1
    ]


def read_list(path: os.PathLike[str]) -> list[str]:
    """The lines of a list file, blank ones left out. SourceError where it is not UTF-8 text."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"--list {os.fspath(path)}: {error}, expected a text file with a name per line.") from error
