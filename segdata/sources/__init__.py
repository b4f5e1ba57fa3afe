"""Raw datasets, one file per layout. A new one is a file, a line in SOURCES and a tiny fixture."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from segdata.errors import ImageRefused, OptionError
from segdata.formats import coco_masks, files, pairing
from segdata.formats.coco_json import Annotation
from segdata.formats.files import PICTURE_SUFFIXES, Pictures
from segdata.formats.pairing import NO_AFFIX, Affix
from segdata.labels import LabelMap
from segdata.records import RejectedLine

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SOURCES: dict[str, str] = {
    "aisegment": "segdata.sources.aisegment:AISegment",
    "coco": "segdata.sources.coco:Coco",
    "humanparsing": "segdata.sources.humanparsing:HumanParsing",
    "lip": "segdata.sources.lip:Lip",
    "pairs": "segdata.sources.pairs:Pairs",
    "pfcn": "segdata.sources.pfcn:Pfcn",
    "predictions": "segdata.sources.predictions:Predictions",
    "voc": "segdata.sources.voc:Voc",
}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One raw sample as its source lists it.

    ``image`` is relative to the source's ``image_root``. ``label`` is where the label lies, or empty where one file
    holds all: then ``objects`` are its annotations, drawn in a picture of ``size`` (height, width). ``confidence`` is
    that of a network that drew the label.
    """

    id: str
    group: str
    image: str
    label: str = ""
    license: str | None = None
    size: tuple[int, int] = (0, 0)
    objects: tuple[Annotation, ...] = ()
    confidence: float | msgspec.UnsetType = msgspec.UNSET  # no JSON has it then: hashes of entries stay what they were

    def fault(self) -> ImageRefused | None:
        """What is wrong with ``objects``, as far as it can be told without the photo."""
        try:
            for item in self.objects:
                coco_masks.checked(item, *self.size)
        except ImageRefused as error:
            return error
        return None


@dataclass(frozen=True)
class Found:
    """What a source found: samples, what cannot be one and why, and files passed over by kind."""

    entries: list[Entry]
    rejected: list[RejectedLine] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RawLabel:
    """A raw label, decoded: (H, W) uint8 or uint16 raw ids, or for a matte alpha up to its type's maximum."""

    values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def paired(
    photos: Pictures,
    labels: Pictures,
    image_folder: str,
    label_folder: str,
    label_affix: Affix = NO_AFFIX,
    photo_affix: Affix = NO_AFFIX,
    *,
    name_folders: bool = False,
) -> Found:
    """Samples from two listings, paired by file stem: the id is the photo's stem, and each photo its own group.

    ``image_folder`` and ``label_folder`` (empty, or ending in a slash) go before the names in the entries. An affix is
    what a stem has around the name that photo and label share. With ``name_folders`` what is rejected is named with its
    folder.
    """
    folders = (image_folder, label_folder) if name_folders else ("", "")
    photos, other_photos = _only(photos, photo_affix, folders[0], "no-prefix", "a photo's name")
    labels, other_labels = _only(labels, label_affix, folders[1], "no-suffix", "a mask's name")
    found = pairing.pair_by_stem(photos, labels, label_affix, photo_affix, folders)
    entries = [
        Entry(id=key, group=key, image=image_folder + photo, label=label_folder + label)
        for photo, label in found.pairs
        for key in [files.safe_id(Path(photo).stem)]
    ]
    rejected = [RejectedLine(id=name, reason=reason, detail=detail) for name, reason, detail in found.unpaired]
    rejected += other_photos + other_labels
    entries.sort(key=lambda entry: entry.id)
    return Found(entries, rejected, dict(Counter(photos.ignored) + Counter(labels.ignored)))


def _only(pictures: Pictures, affix: Affix, folder: str, reason: str, what: str) -> tuple[Pictures, list[RejectedLine]]:
    """The pictures whose names have the affix, and lines for those that have not."""
    fitting = {name for name in pictures.names if affix.fits(Path(name).stem)}
    detail = f"{what} is expected as {affix.prefix}NAME{affix.suffix}"
    others = [
        RejectedLine(id=folder + name, reason=reason, detail=detail) for name in pictures.names if name not in fitting
    ]
    return replace(pictures, names=[name for name in pictures.names if name in fitting]), others


def pictures_in(folder: Path) -> Pictures:
    """The pictures of a folder; none where it is not there, so that what belongs to them is told of each."""
    return files.list_pictures(folder) if folder.is_dir() else Pictures([], [])


def parted(folder: Path, affix: Affix, label_suffixes: Collection[str]) -> tuple[Pictures, Pictures]:
    """The photos and the labels in one folder, where labels have an affix."""
    found = files.list_pictures(folder, PICTURE_SUFFIXES | set(label_suffixes))
    labels = {name for name in found.names if affix.fits(Path(name).stem)}
    others = [name for name in found.names if name not in labels]
    photos = [name for name in others if Path(name).suffix.lower() in PICTURE_SUFFIXES]
    ignored = Counter(found.ignored) + Counter(Path(name).suffix.lower() for name in set(others).difference(photos))
    return replace(found, names=photos, ignored=dict(ignored)), Pictures(sorted(labels), [])


def check_alpha_threshold(threshold: float | None) -> None:
    """OptionError for one that is no share of full alpha."""
    if threshold is not None and not 0 < threshold <= 1:
        raise OptionError(f"--threshold {threshold}: expected a share above 0, to 1, of full alpha.")


def joined(parts: Iterable[Found]) -> Found:
    """One listing of several, with ids by ``sample_ids``."""
    parts = list(parts)
    ids, doubled = sample_ids(entry.image for part in parts for entry in part.entries)
    entries = [
        msgspec.structs.replace(entry, id=ids[entry.image])
        for part in parts
        for entry in part.entries
        if entry.image in ids
    ]
    rejected = [line for part in parts for line in part.rejected]
    ignored: Counter[str] = sum((Counter(part.ignored) for part in parts), Counter())
    entries.sort(key=lambda entry: entry.id)
    return Found(entries, rejected + doubled, dict(ignored))


def sample_ids(images: Iterable[str]) -> tuple[dict[str, str], list[RejectedLine]]:
    """Ids by photo's path: its stem where no other photo has that, else the whole path with dashes.

    Paths that would share an id all the same are ambiguous, and rejected.
    """
    stems = {image: posixpath.splitext(posixpath.basename(image))[0] for image in images}
    by_stem = _by_key(stems)
    ids = {}
    for same in by_stem.values():
        for image in same:
            whole = posixpath.splitext(image)[0].replace("/", "-")
            ids[image] = files.safe_id(stems[image] if len(same) == 1 else whole)
    doubled = {image: same for same in _by_key(ids).values() if len(same) > 1 for image in same}
    rejected = [
        RejectedLine(
            id=image, reason="ambiguous", detail=f"{' and '.join(map(repr, same))} would get one id; rename one"
        )
        for image, same in doubled.items()
    ]
    return {image: name for image, name in ids.items() if image not in doubled}, rejected


def _by_key(names: Mapping[str, str]) -> dict[str, list[str]]:
    """Photos whose names differ in letter case or Unicode form at most."""
    found: dict[str, list[str]] = {}
    for image, name in names.items():
        found.setdefault(files.key_of(name), []).append(image)
    return found


class Source(Protocol):
    """A layout of raw files. Frozen and picklable: worker processes read labels through it."""

    @property
    def name(self) -> str:
        """The source's name, as in SOURCES."""

    @property
    def image_root(self) -> Path:
        """The folder that ``Entry.image`` is relative to."""

    @property
    def label_root(self) -> Path:
        """The folder that ``Entry.label`` is relative to, where entries have one."""

    @property
    def label_map(self) -> LabelMap | None:
        """What raw ids become; None for mattes."""

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The folders and files that are read, and must never be written to."""

    def options(self) -> dict[str, str | int | float | bool | None]:
        """The options that change what is written, for dataset.json; no paths."""

    def find(self) -> Found:
        """List and pair; decodes no picture. SourceError where the layout is not this source's."""

    def annotate(self, entry: Entry) -> RawLabel:
        """Decode one raw label. ImageRefused, with a reason, where it cannot be used."""
