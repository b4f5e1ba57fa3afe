"""COCO instances (Lin et al. 2014), and every dataset that is annotated in its format: one JSON, a folder of images."""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from segdata.errors import ImageRefused, OptionError, SourceError, did_you_mean
from segdata.formats import coco_json, coco_masks, files
from segdata.formats.coco_json import Annotation, Image, Instances, Problem
from segdata.formats.images import check_pixels
from segdata.labels import IGNORE_INDEX, LabelMap
from segdata.records import RejectedLine, is_inside
from segdata.sources import Entry, Found, RawLabel, sample_ids

CROWDS = ("exclude", "ignore", "include")


@dataclass(frozen=True)
class Coco:
    """Annotations of ``categories`` (by name) in ``images``; the raw id of the i-th category is i + 1.

    A crowd (``iscrowd`` 1) becomes 255 where nothing else is (``ignore``), an object like others (``include``) or
    nothing (``exclude``), and never covers another object. Where objects of several categories overlap, the one with
    fewer pixels lies on top; of equal ones that with the smaller id. Objects of fewer than ``min_area`` pixels are left
    out; with ``drop_empty`` so are images in which no object is left.
    """

    annotations: Path
    images: Path
    label_map: LabelMap
    categories: tuple[str, ...] = ("person",)
    crowd: str = "ignore"
    min_area: int = 0
    drop_empty: bool = False
    name: str = "coco"

    def __post_init__(self) -> None:
        if self.crowd not in CROWDS:
            raise OptionError(f"--crowd {self.crowd!r}: expected one of {', '.join(CROWDS)}.")
        if self.min_area < 0:
            raise OptionError(f"--min-area {self.min_area}: expected a number of pixels.")

    @property
    def image_root(self) -> Path:
        """The folder of images."""
        return self.images

    @property
    def label_root(self) -> Path:
        """Not used: the labels are in the one file."""
        return self.images

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The file and the folder."""
        return self.annotations, self.images

    def options(self) -> dict[str, str | int | float | bool | None]:
        """All but the paths."""
        return {
            "categories": ", ".join(self.categories),
            "crowd": self.crowd,
            "min_area": self.min_area,
            "empty": "drop" if self.drop_empty else "keep",
            "labels": self.label_map.name,
        }

    def find(self) -> Found:
        """Every image of the file, with its annotations; segmentations are not read yet.

        The id is the file name's stem where no other image has it, the group the video's id or else the image's.
        """
        if not self.images.is_dir():
            raise SourceError(f"{self.images}: no such folder, expected the images of {self.annotations}.")
        with coco_json.no_collector():
            instances, chosen = self.load()
            if not instances.images and not instances.problems:
                raise SourceError(f"{self.annotations}: lists no images, expected at least one.")
            entries, rejected = self._entries(instances, chosen)
        listed = set(map(_path, instances.images))
        there = files.list_pictures(self.images)
        others = sum(name not in listed for name in there.names) + len(there.bad_names)
        ignored = {"photos that the file does not list": others} if others else {}
        return Found(entries, chosen.rejected + rejected, ignored)

    def load(self) -> tuple[Instances, Chosen]:
        """The whole file, and of it the annotations of wanted categories by image."""
        instances = coco_json.read_instances(self.annotations)
        return instances, _choose(instances, self._raw_ids(instances))

    def _raw_ids(self, instances: Instances) -> dict[int, int]:
        """Raw id by category id; 0 for categories that are not wanted."""
        names = [category.name for category in instances.categories]
        for name in self.categories:
            if name not in names:
                hint = did_you_mean(name, names) if names else " It has no categories at all."
                raise SourceError(f"{self.annotations}: no category named {name!r}, expected one.{hint}")
            if names.count(name) > 1:
                raise SourceError(f"{self.annotations}: {names.count(name)} categories named {name!r}, expected one.")
        raw = {name: i for i, name in enumerate(self.categories, 1)}
        ids = {category.id: raw.get(category.name, 0) for category in instances.categories}
        if len(ids) < len(names):
            raise SourceError(f"{self.annotations}: two categories have one id, expected different ids.")
        return ids

    def _entries(self, instances: Instances, chosen: Chosen) -> tuple[list[Entry], list[RejectedLine]]:
        times = Counter(image.id for image in instances.images)
        times.update(_undecoded_images(instances))
        paths = Counter(map(_path, instances.images))
        names, doubled = sample_ids(paths)
        faults = {line.id: (line.reason, line.detail) for line in doubled}
        faults |= {path: ("ambiguous", "two images have this file name") for path, count in paths.items() if count > 1}
        folders = _Folders(self.images)
        entries, rejected = [], []
        for image in instances.images:
            path = _path(image)
            fault = _image_fault(image, times[image.id]) or faults.get(path) or folders.fault(path)
            fault = fault or chosen.faults.get(image.id)
            objects = chosen.objects.get(image.id, ())
            if not fault and self.drop_empty and all(item.iscrowd and self.crowd != "include" for item in objects):
                fault = _EMPTY
            if fault:
                detail = f"image {image.id} ({files.cut(path)!r}): {fault[1]}"
                rejected.append(RejectedLine(id=names.get(path, files.cut(path)), reason=fault[0], detail=detail))
                continue
            group = str(image.id) if image.video_id in (None, "") else f"video-{image.video_id}"
            entries.append(
                Entry(
                    id=names[path],
                    group=group,
                    image=path,
                    license=instances.license_of(image),
                    size=(image.height, image.width),
                    objects=tuple(objects),
                )
            )
        return entries, rejected

    def annotate(self, entry: Entry) -> RawLabel:
        """(H, W) raw ids: 0, the categories' from 1 on, and 255 where a crowd is ignored."""
        crowds: list[_Shape] = []
        shapes: list[_Shape] = []
        for item in entry.objects:
            rle = coco_masks.rasterised(item, *entry.size)
            shape = _Shape(-coco_masks.area(rle), -item.id, item.category_id, rle)
            if item.iscrowd and self.crowd != "include":
                crowds.append(shape)
            elif -shape.minus_area >= self.min_area:
                (crowds if item.iscrowd else shapes).append(shape)
        drawn = [*sorted(crowds if self.crowd == "include" else []), *sorted(shapes)]
        mask = coco_masks.painted(((shape.rle, shape.raw_id) for shape in drawn), *entry.size)
        for shape in crowds if self.crowd == "ignore" else []:
            coco_masks.paint_rest(mask, shape.rle, IGNORE_INDEX)
        if self.drop_empty and not ((mask > 0) & (mask < IGNORE_INDEX)).any():
            raise ImageRefused(*_EMPTY)
        return RawLabel(np.ascontiguousarray(mask))


_Fault = tuple[str, str]  # reason and detail
_EMPTY: _Fault = ("empty", "no object of the wanted categories in it")


class _Shape(NamedTuple):
    """An object to draw. They sort in the order of drawing: by area, the largest first, then by id, the last first."""

    minus_area: int
    minus_id: int
    raw_id: int
    rle: coco_masks.Rle


@dataclass(frozen=True)
class Chosen:
    """The annotations of wanted categories by image, faults that reject an image, and lines that concern none."""

    objects: dict[int, list[Annotation]]
    faults: dict[int, _Fault]
    rejected: list[RejectedLine]


def _choose(instances: Instances, raw_ids: dict[int, int]) -> Chosen:
    """Sort annotations by image. A copy of each has the raw id in place of its category's."""
    images_there = {image.id for image in instances.images}
    chosen = Chosen({}, {}, [])
    doubled: set[int] = set()
    if len({item.id for item in instances.annotations}) < len(instances.annotations):
        times = Counter(item.id for item in instances.annotations)
        doubled = {number for number, count in times.items() if count > 1}
    for item in instances.annotations:
        raw = raw_ids.get(item.category_id)
        if raw == 0:
            continue
        what = ""
        if raw is None:
            what = f"category {item.category_id}, which categories does not list"
        elif item.id in doubled:
            what = "another annotation has its id"
        elif item.iscrowd not in (0, 1):
            what = f"iscrowd {item.iscrowd}, expected 0 or 1"
        if what:
            chosen.faults.setdefault(item.image_id, ("bad-annotation", f"annotation {item.id}: {what}"))
        else:
            one = Annotation(item.id, item.image_id, raw or 0, item.segmentation, item.iscrowd)
            chosen.objects.setdefault(item.image_id, []).append(one)
    for problem in instances.problems:
        _place(problem, images_there, chosen)
    told = images_there.union(_undecoded_images(instances))
    for number in sorted((chosen.objects.keys() | chosen.faults.keys()) - told):
        missing = f"annotations of it: {len(chosen.objects.get(number, ()))}, but images does not list it"
        detail = chosen.faults.get(number, ("", missing))[1]
        chosen.rejected.append(RejectedLine(id=f"image {number}", reason="unlisted-image", detail=detail))
    return chosen


def _place(problem: Problem, images_there: set[int], chosen: Chosen) -> None:
    """An annotation that does not decode rejects its image, where that can be told; else it stands for itself."""
    number = _number(problem.image_id)
    detail = f"{problem.where} (id {files.cut(repr(problem.id))}): {problem.what}"
    if problem.kind == "annotation" and number is not None and number in images_there:
        chosen.faults.setdefault(number, ("bad-annotation", detail))
        return
    name = f"{problem.kind} {problem.where if problem.id is None else files.cut(str(problem.id))}"
    chosen.rejected.append(RejectedLine(id=name, reason=f"bad-{problem.kind}", detail=detail))


def _undecoded_images(instances: Instances) -> list[int]:
    """The numbers of images that do not decode, where they can be told."""
    numbers = [_number(problem.id) for problem in instances.problems if problem.kind == "image"]
    return [number for number in numbers if number is not None]


def _number(loose: int | str | None) -> int | None:
    """The number that an id means, written as a text too."""
    if isinstance(loose, str):
        return int(loose) if loose.isascii() and loose.isdigit() and len(loose) < 19 else None
    return loose


def _path(image: Image) -> str:
    """The file name, without needless dots and slashes."""
    return PurePosixPath(image.file_name).as_posix() if "/" in image.file_name else image.file_name


def _image_fault(image: Image, times: int) -> _Fault | None:
    if times > 1:
        return "bad-image", f"{times} images have its id"
    if image.height < 1 or image.width < 1:
        return "bad-image", f"height {image.height} and width {image.width}, expected at least 1"
    try:
        check_pixels(image.height, image.width)
    except ImageRefused as error:
        return error.reason, error.detail
    return None


class _Folders:
    """Whether a file name leads through no links to a file that is there, spelt as there on every system."""

    def __init__(self, root: Path) -> None:
        self._root = os.fspath(root)
        self._names: dict[str, set[str]] = {}  # of the files in a folder, by its relative path
        self._real = {"": True}  # by relative path

    def fault(self, path: str) -> _Fault | None:
        if not is_inside(path):
            return (
                "bad-path",
                f"file_name {files.cut(path)!r}, expected a path below the folder of images, with slashes",
            )
        parent = posixpath.dirname(path)
        if not self._is_real(parent):
            return "bad-path", f"{parent} is a link to a folder, expected a folder. Pass what it leads to as --images"
        if posixpath.basename(path) not in self._listing(parent):
            return "no-photo", "no such file in the folder of images"
        return None

    def _listing(self, folder: str) -> set[str]:
        if folder not in self._names:
            self._names[folder] = set()
            with suppress(OSError, ValueError):
                self._names[folder].update(os.listdir(os.path.join(self._root, folder)))
        return self._names[folder]

    def _is_real(self, folder: str) -> bool:
        if folder not in self._real:
            link = os.path.islink(os.path.join(self._root, folder))
            self._real[folder] = not link and self._is_real(posixpath.dirname(folder))
        return self._real[folder]
