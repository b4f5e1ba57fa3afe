"""Pascal VOC segmentation (Everingham et al. 2010): palette labels of 21 ids, 255 where the outline is void.

``JPEGImages/X.jpg``, ``SegmentationClass/X.png``, and lists of names in ``ImageSets/Segmentation/``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from segdata.errors import SourceError
from segdata.formats import files, raw_pictures
from segdata.labels import LabelMap
from segdata.records import RejectedLine
from segdata.sources import Entry, Found, RawLabel, paired

_LISTS = ("train", "trainval", "val")
_PHOTOS, _LABELS = "JPEGImages", "SegmentationClass"


@dataclass(frozen=True)
class Voc:
    """``root`` holds ``JPEGImages`` and ``SegmentationClass``; most photos of Pascal VOC have no label."""

    root: Path
    label_map: LabelMap
    name: str = "voc"

    @property
    def image_root(self) -> Path:
        """The dataset's own folder."""
        return self.root

    @property
    def label_root(self) -> Path:
        """The dataset's own folder too."""
        return self.root

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The folders of photos, of labels and of lists."""
        return self.root / _PHOTOS, self.root / _LABELS, self.root / "ImageSets"

    def options(self) -> dict[str, str | int | float | bool | None]:
        """The label map."""
        return {"labels": self.label_map.name}

    def find(self) -> Found:
        """Pairs by file stem. Photos without a label are passed over, unless a list names them."""
        for folder in (_PHOTOS, _LABELS):
            if not (self.root / folder).is_dir():
                raise SourceError(
                    f"{self.root}: has no folder {folder}. Name the folder that holds it, such as VOC2012."
                )
        photos = files.list_pictures(self.root / _PHOTOS)
        labels = files.list_pictures(self.root / _LABELS)
        found = paired(photos, labels, f"{_PHOTOS}/", f"{_LABELS}/")
        without = {files.key_of(Path(line.id).stem) for line in found.rejected if line.reason == "no-mask"}
        rejected = [line for line in found.rejected if line.reason != "no-mask"]
        known = {files.key_of(Path(entry.image).stem) for entry in found.entries}
        known |= {files.key_of(Path(line.id).stem) for line in rejected}
        names = self._names({files.key_of(Path(name).stem) for name in photos.names})
        listed = [self._listed(name, where, without) for name, where in names if files.key_of(name) not in known]
        unlisted = len(without - {files.key_of(line.id) for line in listed})
        ignored = found.ignored | ({"photos without a label": unlisted} if unlisted else {})
        return replace(found, rejected=rejected + listed, ignored=ignored)

    def _listed(self, name: str, where: str, without: set[str]) -> RejectedLine:
        has_photo = files.key_of(name) in without
        missing = f"no label {_LABELS}/{name}.png" if has_photo else f"no photo {_PHOTOS}/{name}.jpg"
        return RejectedLine(
            id=name, reason="no-mask" if has_photo else "no-photo", detail=f"{where} names it: {missing}"
        )

    def _names(self, photos: set[str]) -> list[tuple[str, str]]:
        """What the lists name, and which list does first; a line is one of ``photos`` (keys), or its first word is."""
        names: dict[str, str] = {}
        for part in _LISTS:
            path = self.root / "ImageSets" / "Segmentation" / f"{part}.txt"
            text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
            for line in filter(None, map(str.strip, text.split("\n"))):
                name = line if files.key_of(line) in photos else line.split()[0]
                names.setdefault(name, f"ImageSets/Segmentation/{part}.txt")
        return sorted(names.items())

    def annotate(self, entry: Entry) -> RawLabel:
        """Raw ids 0...20 and 255; a label that was saved as JPEG is refused."""
        return RawLabel(raw_pictures.read_ids(files.read_regular(self.root / entry.label)))
