"""Which split a sample belongs to: by a salted hash of its group, by order of names, or by lists."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import msgspec

from segdata.errors import ImageRefused, OptionError, SourceError
from segdata.formats.files import PICTURE_SUFFIXES, cut, read_regular
from segdata.formats.mat import read_mat_numbers
from segdata.hashing import unit_hash
from segdata.records import SPLITS

_LONGEST_LINE = 8192  # two paths of 4096


class SplitKey(msgspec.Struct, frozen=True):
    """What of a sample line decides its split. Decodes from a sample line, leaving the rest."""

    id: str
    group: str
    image: str
    image_sha256: str
    source_sha256: str | None = None
    crop: tuple[int, int, int, int] | None = None
    image_root: str | None = None


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
    """For each sample the number of its component: samples of one group, or with byte-identical images or raw photos
    (of which they are crops), share one.

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
        pictures = {sample.image_sha256, sample.source_sha256 or sample.image_sha256}
        for key in (("group", sample.group), *(("image", sha256) for sha256 in sorted(pictures))):
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
    samples: Sequence[SplitKey], groups: Sequence[str], lists: Mapping[str, Iterable[str]]
) -> tuple[dict[str, list[int]], list[str], list[str]]:
    """Positions by split in the lists' order, listed names without a sample, and ids of samples in no list (for crops
    those of their photos).

    A listed name is an id, a group's name (all of its samples; ``groups`` are the names without a dataset's prefix),
    the end of a photo's path, or such an end without suffix; of a line "image mask" the first part counts. SourceError
    where a sample stands in two lists, or a name fits several samples.
    """
    known = _Names(samples, groups)
    sides: dict[str, list[int]] = {split: [] for split in SPLITS}
    side_of: dict[int, str] = {}
    missing: list[str] = []
    for split, names in lists.items():
        for name in names:
            try:
                found = known.find(name)
            except SourceError as error:
                raise SourceError(str(error).replace("--list", f"--list {split}", 1)) from error
            if not found:
                missing.append(name)
            for i in found:
                if side_of.setdefault(i, split) != split:
                    raise SourceError(f"--list {split}: {name!r} stands in the list of {side_of[i]} too, expected one.")
            sides[split] += found
    sides = {split: list(dict.fromkeys(found)) for split, found in sides.items()}
    left = [_photo(sample) for i, sample in enumerate(samples) if i not in side_of]
    return sides, missing, list(dict.fromkeys(left))


class _Names:
    """The positions of samples by whatever a list may call them."""

    def __init__(self, samples: Sequence[SplitKey], groups: Sequence[str]) -> None:
        self._samples = samples
        self._groups = groups
        self._by_id: dict[str, list[int]] = {}  # for crops also by photo, which lists name
        self._by_group: dict[str, list[int]] = {}
        self._by_path: dict[str, list[int]] = {}
        self._folders: set[str] = set()
        photos = {*groups, *(sample.group for sample in samples)}
        for i, sample in enumerate(samples):
            both = {sample.group, groups[i]}
            ends = {*_ends(sample.image), PurePosixPath(sample.image).stem}
            ids = {sample.id} | (both if sample.id == sample.group else set())
            if sample.crop is not None:  # crop 1 of photo "a" is not photo "a-1"
                ids = both | ({sample.id} - photos)
                ends = {end for end in ends if "/" in end}
            elif "/" in sample.image and sample.image_root is None:
                self._folders.add(PurePosixPath(sample.image).parts[0])
            for found, keys in ((self._by_id, ids), (self._by_group, both), (self._by_path, ends)):
                for key in keys:
                    found.setdefault(key, []).append(i)

    def find(self, line: str) -> list[int]:
        """The samples that a list's line names; of "image mask" the longest beginning that fits, whole paths first.

        A path into one of the datasets' own folders must fit as a whole, since another clip has a 1.jpg too.
        """
        words = line.replace("\\", "/").replace("\t", " ").split(" ")
        for count in range(len(words), 0, -1):
            found = self._named(" ".join(words[:count]), whole=True)
            if found:
                return self._alone_on_its_line(line, found, words[count:] if count > 1 else words[1:2])
        for count in range(len(words), 0, -1):
            found = self._named(" ".join(words[:count]), whole=False)
            if found:
                return self._alone_on_its_line(line, found, words[count:] if count > 1 else words[1:2])
        return []

    def _named(self, name: str, whole: bool) -> list[int]:
        """The samples of a name: of an id or the end of a path (``whole``), else of a bare file name or a group."""
        parts = PurePosixPath(name).parts
        own = [at for at, part in enumerate(parts[:-1]) if part in self._folders]
        if whole:
            candidates = [name, *("/".join(parts[at:]) for at in own or range(len(parts) - 1))]
        else:
            candidates = [] if own else [PurePosixPath(name).name, _stem(name)]
        for candidate in candidates:
            found = self._by_id.get(candidate, []) or self._by_path.get(candidate, [])
            if found:
                return self._alone(name, candidate, found)
        return [] if whole else self._by_group.get(name, [])

    def _alone_on_its_line(self, line: str, found: list[int], rest: list[str]) -> list[int]:
        """``found``, unless the rest of the line is another sample's name and not the mask of this one."""
        other: list[int] = []
        with suppress(SourceError):  # a mask's name may fit several photos
            other = self._named(" ".join(rest), whole=True) or self._named(" ".join(rest), whole=False)
        if other and other != found:
            ids = " and ".join(self._samples[each[0]].id for each in (found, other))
            raise SourceError(f'--list: {cut(line)!r} names {ids}, expected one name a line, or "image mask".')
        return found

    def _alone(self, line: str, name: str, found: list[int]) -> list[int]:
        """``found``, if it is one sample, or all crops of one photo."""
        photos = {self._groups[i] for i in found}, {self._samples[i].group for i in found}
        if len(found) == 1 or photos[0] == {name} or photos[1] == {name}:
            return found
        ids = ", ".join(self._samples[i].id for i in found[:3])
        raise SourceError(f"--list: {cut(line)!r} fits several samples ({ids}), expected one. List ids.")


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in PICTURE_SUFFIXES else path.name


def _ends(path: str) -> list[str]:
    """``a/b/c.jpg``, ``b/c.jpg``, ``c.jpg``."""
    parts = PurePosixPath(path).parts
    return ["/".join(parts[at:]) for at in range(len(parts))]


def straddling(samples: Sequence[SplitKey], sides: Mapping[str, Sequence[int]]) -> list[list[str]]:
    """Components that stand in more than one split, each as ``"split: id"`` lines (for crops ``"split: photo"``)."""
    side_of = {i: split for split, positions in sides.items() for i in positions}
    members: dict[int, list[int]] = {}
    for i, component in enumerate(components(samples)):
        if i in side_of:
            members.setdefault(component, []).append(i)
    return [
        list(dict.fromkeys(f"{side_of[i]}: {_photo(samples[i])}" for i in group))
        for _, group in sorted(members.items())
        if len({side_of[i] for i in group}) > 1
    ]


def _photo(sample: SplitKey) -> str:
    return sample.id if sample.crop is None else sample.group


def read_list(path: os.PathLike[str]) -> list[str]:
    """The lines of a list file, blank ones left out; of a ``.mat`` file its numbers, as PFCN names photos (``00042``).

    SourceError where it is neither.
    """
    where = f"--list {os.fspath(path)}"
    try:
        data = read_regular(Path(path))
        if os.fspath(path).lower().endswith(".mat"):
            return [f"{number:05d}" for number in read_mat_numbers(data)]
        lines = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
    except ImageRefused as error:
        raise SourceError(f"{where}: {error.detail}. Expected a list of photos.") from error
    except UnicodeDecodeError as error:
        raise SourceError(f"{where}: is not UTF-8 text, expected a name a line (or a .mat file of numbers).") from error
    longest = max(map(len, lines), default=0)
    if longest > _LONGEST_LINE:
        raise SourceError(f"{where}: has a line of {longest:,} characters, expected a name a line.")
    return lines
