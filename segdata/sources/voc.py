"""Pascal VOC segmentation (Everingham et al. 2010): palette labels of 21 ids, 255 where the outline is void.

``JPEGImages/X.jpg``, ``SegmentationClass/X.png``, and lists of names in ``ImageSets/Segmentation/``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

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
    def inputs(self) -> tuple[Path, ...]:
        """The folders of photos, of labels and of lists."""
        return self.root / _PHOTOS, self.root / _LABELS, self.root / "ImageSets"

    def options(self) -> dict[str, str | int | float | bool | None]:
        """The label map."""
        return {"labels": self.label_map.name}

    def find(self) -> Found:
        """Pairs by file stem. Photos without a label are passed over, unless a list names them."""
        photos = files.list_pictures(self.root / _PHOTOS)
        labels = files.list_pictures(self.root / _LABELS)
        found = paired(photos, labels, f"{_PHOTOS}/", f"{_LABELS}/")
        rejected = [line for line in found.rejected if line.reason != "no-mask"]
        known = {files.key_of(Path(entry.image).stem) for entry in found.entries}
        known |= {files.key_of(Path(line.id).stem) for line in rejected}
        listed = list(self._listed_without(known))
        named = {files.key_of(line.id) for line in listed}
        without = sum(
            line.reason == "no-mask" and files.key_of(Path(line.id).stem) not in named for line in found.rejected
        )
        ignored = found.ignored | ({"photos without a label": without} if without else {})
        return replace(found, rejected=rejected + listed, ignored=ignored)

    def _listed_without(self, known: set[str]) -> Iterator[RejectedLine]:
        """Names in the lists that have no photo or no label. A line is a name, or the first word of one with more."""
        listed: dict[str, str] = {}
        for name in _LISTS:
            path = self.root / "ImageSets" / "Segmentation" / f"{name}.txt"
            if path.is_file():
                for line in path.read_text(encoding="utf-8-sig", errors="replace").split("\n"):
                    if line.strip() and files.key_of(line.strip()) not in known:
                        listed.setdefault(line.split()[0], f"ImageSets/Segmentation/{name}.txt")
        for sample, path_in_root in sorted(listed.items()):
            if files.key_of(sample) not in known:
                yield RejectedLine(
                    id=sample, reason="no-mask", detail=f"{path_in_root} names it; it has no photo or no label"
                )

    def annotate(self, entry: Entry) -> RawLabel:
        """Raw ids 0...20 and 255; a label that was saved as JPEG is refused."""
        return RawLabel(raw_pictures.read_ids(files.read_regular(self.root / entry.label)))
