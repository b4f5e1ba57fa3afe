"""Which split a sample belongs to: by a salted hash of its group, by order of names, or by lists."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Protocol

import msgspec

from segdata.errors import ImageRefused, OptionError, SourceError
from segdata.formats.files import PICTURE_SUFFIXES, cut, read_regular
from segdata.formats.mat import read_mat_numbers
from segdata.hashing import unit_hash
from segdata.records import SPLITS

_LONGEST_LINE = 8192  # two paths of 4096


class SplitKey(msgspec.Struct, frozen=True, gc=False):
    """What of a sample line decides its split. Decodes from a sample line, leaving the rest."""

    id: str
    group: str
    image: str
    image_sha256: str
    source_sha256: str | None = None
    crop: tuple[int, int, int, int] | None = None
    image_root: str | None = None


class Samples(Protocol):
    """The keys of all samples, in order, as often as they are asked for: a list, or what decodes them anew.

    Nothing here keeps them: a million keys are half a gigabyte.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[SplitKey]: ...


def order_key(sample_id: str) -> bytes:
    """Records of a split stand in the order of this hash of their id, so that any shard is a fair sample."""
    return hashlib.sha256(b"record order\0" + sample_id.encode("utf-8")).digest()


def amount(value: float | int, total: int, what: str) -> int:
    """A share in (0, 1) or a number of samples, as a number of samples out of ``total``."""
    share = isinstance(value, float)
    if not value >= 0 or (share and value >= 1) or (not share and value > total):  # NaN is not >= 0 either
        raise OptionError(f"--{what} {value}: expected a share below 1, or at most {total} samples.")
    return round(value * total) if share else int(value)


def components(samples: Samples) -> list[int]:
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

    def join(i: int, first: int) -> None:
        if i != first:
            a, b = sorted((root(i), root(first)))
            parent[b] = a

    by_group: dict[str, int] = {}
    by_picture: dict[str, int] = {}
    for i, sample in enumerate(samples):
        join(i, by_group.setdefault(sample.group, i))
        join(i, by_picture.setdefault(sample.image_sha256, i))
        if sample.source_sha256:
            join(i, by_picture.setdefault(sample.source_sha256, i))
    return [root(i) for i in range(len(samples))]


def by_hash(
    samples: Samples, groups: Sequence[str], test: float | int, validation: float | int, salt: str
) -> dict[str, list[int]]:
    """Positions of the samples by split; a component's side follows from the smallest hash of its ``groups``.

    ``groups`` are the groups' own names, without the prefix that they get where datasets are merged: a photo lands
    on one side whether its dataset is split alone or with others.

    With shares, the hash is compared with fixed bounds (test lowest, then validation), so adding samples never moves
    an old one,
    but for a new photo that is byte-identical with an old one: then both go to the side nearer to test, and no test
    sample ever becomes a training one. With numbers, components are taken by rising hash while they fit.
    """
    numbers = components(samples)
    hashes: dict[int, float] = {}
    for number, group in zip(numbers, groups, strict=True):
        value = unit_hash(group, salt)
        if value < hashes.get(number, 1.0):
            hashes[number] = value
    sizes = Counter(numbers)
    order = sorted((value, number) for number, value in hashes.items())
    if len(set(hashes.values())) < len(hashes):  # merged datasets have groups of one name
        ids = [sample.id for sample in samples]
        order.sort(key=lambda component: (component[0], ids[component[1]]))
    if not isinstance(test, float):  # its hashes end where they end, so a share cannot begin at a fixed bound
        validation = amount(validation, len(numbers), "validation")
    held, rest = _take(order, sizes, test, len(numbers), "test", 0.0)
    start = test if isinstance(test, float) else 0.0
    validated, _ = _take(rest, sizes, validation, len(numbers), "validation", start)
    split_of = {number: "test" for _, number in held} | {number: "validation" for _, number in validated}
    sides: dict[str, list[int]] = {split: [] for split in SPLITS}
    for i, number in enumerate(numbers):
        sides[split_of.get(number, "train")].append(i)
    return sides


# Samples that must stand on one side: the smallest hash of their groups, and the position of the first.
_Component = tuple[float, int]


def _take(
    order: list[_Component], sizes: Mapping[int, int], wanted: float | int, total: int, what: str, start: float
) -> tuple[list[_Component], list[_Component]]:
    """The components of one side, and the rest: those from ``start`` on by hash, or the first that fit a number."""
    count = amount(wanted, total, what)
    taken: list[_Component] = []
    rest: list[_Component] = []
    for component in order:
        value, number = component
        if isinstance(wanted, float):
            fits = start <= value < start + wanted
        else:
            fits = sizes[number] <= count
            count -= sizes[number] if fits else 0
        (taken if fits else rest).append(component)
    return taken, rest


def by_order(samples: Samples, test: float | int, validation: float | int) -> dict[str, list[int]]:
    """Positions by split: photos' file names sorted by ``str.lower``, the last ones are test, those before them
    validation.
    """
    names = [_name_key(sample) for sample in samples]
    order = sorted(range(len(names)), key=names.__getitem__)
    last = len(order) - amount(test, len(order), "test")
    held = amount(validation, len(order), "validation")
    if held > last:
        raise OptionError(
            f"--validation {validation}: expected a share below 1, or at most {last} samples beside test."
        )
    middle = last - held
    return {"train": order[:middle], "validation": order[middle:last], "test": order[last:]}


def _name_key(sample: SplitKey) -> tuple[str, str, str]:
    name = _name(sample.image)
    return name.lower(), name, sample.id


def by_lists(
    samples: Samples, groups: Sequence[str], lists: Mapping[str, Iterable[str]]
) -> tuple[dict[str, list[int]], list[str], list[str]]:
    """Positions by split in the lists' order, listed names without a sample, and ids of samples in no list (for crops
    those of their photos).

    A listed name is an id, a group's name (all of its samples; ``groups`` are the names without a dataset's prefix),
    the end of a photo's path, or such an end without suffix; of a line "image mask" the first part counts. SourceError
    where a sample stands in two lists, or a name fits several samples.
    """
    known = _Names(samples, groups)
    sides: dict[str, list[int]] = {split: [] for split in SPLITS}
    side_of: list[str | None] = [None] * len(samples)
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
                if side_of[i] is None:
                    side_of[i] = split
                    sides[split].append(i)
                elif side_of[i] != split:
                    raise SourceError(f"--list {split}: {name!r} stands in the list of {side_of[i]} too, expected one.")
    left: dict[str, None] = {}
    if None in side_of:
        left = dict.fromkeys(_photo(sample) for sample, side in zip(samples, side_of, strict=True) if side is None)
    return sides, missing, list(left)


class _Index:
    """Positions by name, rising. Most names have one, so that lists are kept for the others alone."""

    def __init__(self) -> None:
        self._first: dict[str, int] = {}
        self._all: dict[str, list[int]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._first

    def add(self, name: str, position: int) -> None:
        first = self._first.setdefault(name, position)
        if first != position:
            self._all.setdefault(name, [first]).append(position)

    def get(self, name: str) -> list[int]:
        first = self._first.get(name)
        return [] if first is None else self._all.get(name) or [first]


class _Names:
    """The positions of samples by whatever a list may call them."""

    def __init__(self, samples: Samples, groups: Sequence[str]) -> None:
        self._samples = samples
        self._groups = groups
        self._ids: list[str] = []
        self._prefixed_groups: list[str] = []
        self._by_id = _Index()  # for crops also by photo, which lists name
        self._by_end: dict[int, _Index] = {}  # by the number of slashes in the end of a path
        folders, slashes = set[str](), set[int]()
        for i, (sample, group) in enumerate(zip(samples, groups, strict=True)):
            self._ids.append(sample.id)
            self._prefixed_groups.append(group if sample.group == group else sample.group)  # one text, not two
            both = {group, sample.group}
            if sample.crop is not None:  # crop 1 of photo "a" is not photo "a-1"
                ids = both if sample.id in self._by_group else both | {sample.id}
            else:
                ids = both if sample.id == sample.group else {sample.id}
                if sample.image_root is None:
                    folders.add(sample.image.rpartition("/")[0])
            for name in ids:
                self._by_id.add(name, i)
            slashes.add(sample.image.count("/"))
        self._folders = {part for folder in folders for part in _parts(folder)[:1]}
        self._most_slashes = max(slashes, default=0)

    @cached_property
    def _by_group(self) -> _Index:
        """By the groups' own names, and those with a dataset's prefix."""
        index = _Index()
        for i, (sample, group) in enumerate(zip(self._samples, self._groups, strict=True)):
            for name in {group, sample.group}:
                index.add(name, i)
        return index

    def _of_end(self, end: str) -> list[int]:
        """By the end of a photo's path; a bare name also without its suffix, but no crop by a bare name.

        The ends of as many parts are gathered when the first of them is asked for: most lists have one kind.
        """
        slashes = end.count("/")
        if slashes > self._most_slashes:
            return []
        if slashes not in self._by_end:
            index = self._by_end[slashes] = _Index()
            for i, sample in enumerate(self._samples):
                parts = _parts(sample.image)
                if slashes < len(parts) and (slashes or sample.crop is None):
                    found = "/".join(parts[-slashes - 1 :])
                    index.add(found, i)
                    stem = found if slashes else PurePosixPath(found).stem
                    if stem != found:
                        index.add(stem, i)
        return self._by_end[slashes].get(end)

    def find(self, line: str) -> list[int]:
        """The samples that a list's line names; of "image mask" the longest beginning that fits, whole paths first.

        A path into one of the datasets' own folders must fit as a whole, since another clip has a 1.jpg too.
        """
        words = line.replace("\\", "/").replace("\t", " ").split(" ")
        for whole in (True, False):
            for count in range(len(words), 0, -1):
                found = self._named(" ".join(words[:count]), whole)
                if found:
                    return self._alone_on_its_line(line, found, words[count:] if count > 1 else words[1:2])
        return []

    def _named(self, name: str, whole: bool) -> list[int]:
        """The samples of a name: of an id or the end of a path (``whole``), else of a bare file name or a group."""
        for candidate in self._candidates(name, whole):
            found = self._by_id.get(candidate) or self._of_end(candidate)
            if found:
                return self._alone(name, candidate, found)
        return [] if whole else self._by_group.get(name)

    def _candidates(self, name: str, whole: bool) -> Iterator[str]:
        if whole:
            yield name
        parts = _parts(name)
        own = [at for at, part in enumerate(parts[:-1]) if part in self._folders]
        if whole:
            yield from ("/".join(parts[at:]) for at in own or range(len(parts) - 1))
        elif not own:
            yield _name(name)
            yield _stem(name)

    def _alone_on_its_line(self, line: str, found: list[int], rest: list[str]) -> list[int]:
        """``found``, unless the rest of the line is another sample's name and not the mask of this one."""
        other: list[int] = []
        if any(rest):
            with suppress(SourceError):  # a mask's name may fit several photos
                other = self._named(" ".join(rest), whole=True) or self._named(" ".join(rest), whole=False)
        if other and other != found:
            ids = " and ".join(self._ids[each[0]] for each in (found, other))
            raise SourceError(f'--list: {cut(line)!r} names {ids}, expected one name a line, or "image mask".')
        return found

    def _alone(self, line: str, name: str, found: list[int]) -> list[int]:
        """``found``, if it is one sample, or all crops of one photo."""
        if len(found) == 1 or any(
            all(groups[i] == name for i in found) for groups in (self._groups, self._prefixed_groups)
        ):
            return found
        ids = ", ".join(self._ids[i] for i in found[:3])
        raise SourceError(f"--list: {cut(line)!r} fits several samples ({ids}), expected one. List ids.")


def _stem(name: str) -> str:
    path = PurePosixPath(name)
    return path.stem if path.suffix.lower() in PICTURE_SUFFIXES else path.name


def _name(path: str) -> str:
    """The last part of a path, empty where it has none."""
    return "".join(_parts(path)[-1:])


def _parts(path: str) -> Sequence[str]:
    """As ``PurePosixPath.parts``, in a fraction of its time for a path that is written plainly."""
    parts = path.split("/")
    return PurePosixPath(path).parts if "" in parts or "." in parts else parts


def straddling(samples: Samples, sides: Mapping[str, Sequence[int]]) -> list[list[str]]:
    """Components that stand in more than one split, each as ``"split: id"`` lines (for crops ``"split: photo"``)."""
    side_of: list[str | None] = [None] * len(samples)
    for split, positions in sides.items():
        for i in positions:
            side_of[i] = split
    numbers = components(samples)
    first_side: dict[int, str] = {}
    members: dict[int, list[str]] = {}  # of components in several splits
    for number, side in zip(numbers, side_of, strict=True):
        if side is not None and first_side.setdefault(number, side) != side:
            members[number] = []
    for sample, number, side in zip(samples, numbers, side_of, strict=True):
        if side is not None and number in members:
            members[number].append(f"{side}: {_photo(sample)}")
    return [list(dict.fromkeys(group)) for _, group in sorted(members.items())]


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
