"""LIP (Gong et al. 2017) and CIHP (Gong et al. 2018): 20 ids, in two layouts.

LIP: ``train_images/X.jpg``, ``TrainVal_parsing_annotations/train_segmentations/X.png``, and the same with ``val``.
CIHP: ``Training/Images/X.jpg``, ``Training/Category_ids/X.png``, and the same in ``Validation``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from segdata.errors import SourceError
from segdata.formats import files, raw_pictures
from segdata.labels import LabelMap
from segdata.sources import Entry, Found, RawLabel, joined, paired, pictures_in

_PARTS = {  # folder of photos: folder of labels
    "train_images": "TrainVal_parsing_annotations/train_segmentations",
    "val_images": "TrainVal_parsing_annotations/val_segmentations",
    "Training/Images": "Training/Category_ids",
    "Validation/Images": "Validation/Category_ids",
}
_COLORS = "Categories"


@dataclass(frozen=True)
class Lip:
    """``root`` holds LIP's folders or CIHP's; either half of them may be missing."""

    root: Path
    label_map: LabelMap
    name: str = "lip"

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
        """The folders of photos and labels that are there."""
        return tuple(self.root / folder for pair in self._parts().items() for folder in pair)

    def options(self) -> dict[str, str | int | float | bool | None]:
        """The label map."""
        return {"labels": self.label_map.name}

    def _parts(self) -> dict[str, str]:
        parts = {
            photos: labels
            for photos, labels in _PARTS.items()
            if (self.root / photos).is_dir() or (self.root / labels).is_dir()
        }
        if not any((self.root / photos).is_dir() for photos in parts):
            raise SourceError(
                f"{self.root}: has none of {', '.join(_PARTS)}, expected LIP's or CIHP's folders. "
                "Name the folder that holds them."
            )
        return parts

    def find(self) -> Found:
        """Pairs by file stem within each half; the id is the stem where no other photo has it.

        LIP's photos are persons cut out of COCO's, named by the photo and the person: the photo is the group. Else
        the id is.
        """
        found = joined(self._part(photos, labels) for photos, labels in self._parts().items())
        return replace(found, entries=[msgspec.structs.replace(entry, group=_group(entry)) for entry in found.entries])

    def _part(self, photos: str, labels: str) -> Found:
        if not (self.root / labels).is_dir():
            colors = Path(labels).with_name(_COLORS)
            drawn = f"{colors.as_posix()} holds colours, not ids; " if (self.root / colors).is_dir() else ""
            raise SourceError(f"{self.root}: {drawn}expected {labels} beside {photos}.")
        label_listing = files.list_pictures(self.root / labels)
        return paired(pictures_in(self.root / photos), label_listing, f"{photos}/", f"{labels}/", name_folders=True)

    def annotate(self, entry: Entry) -> RawLabel:
        """Raw ids 0...19; a label that was saved as JPEG is refused."""
        return RawLabel(raw_pictures.read_ids(files.read_regular(self.root / entry.label)))


def _group(entry: Entry) -> str:
    person = re.fullmatch(r"(\d+)_\d+", Path(entry.image).stem)
    return person[1] if person else entry.id
