"""HumanParsing (ATR, Liang et al. 2015): ``JPEGImages/X.jpg`` and ``SegmentationClassAug/X.png``, 18 ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segdata.errors import OptionError
from segdata.formats import files, raw_pictures
from segdata.labels import LabelMap
from segdata.records import is_inside
from segdata.sources import Entry, Found, RawLabel, paired


@dataclass(frozen=True)
class HumanParsing:
    """``root`` holds the folders ``images`` and ``masks``; labels become the classes of ``label_map``."""

    root: Path
    label_map: LabelMap
    images: str = "JPEGImages"
    masks: str = "SegmentationClassAug"
    name: str = "humanparsing"

    def __post_init__(self) -> None:
        for option, folder in (("--images", self.images), ("--masks", self.masks)):
            if not is_inside(folder) or PurePosixPath(folder).as_posix() != folder:
                raise OptionError(f"{option} {folder!r}: expected the name of a folder in {self.root}.")

    @property
    def image_root(self) -> Path:
        """The dataset's own folder, so that image paths read as in its published lists."""
        return self.root

    @property
    def label_root(self) -> Path:
        """The dataset's own folder too."""
        return self.root

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The two folders."""
        return self.root / self.images, self.root / self.masks

    def options(self) -> dict[str, str | int | float | bool | None]:
        """Names of the two folders, and of the label map."""
        return {"images": self.images, "masks": self.masks, "labels": self.label_map.name}

    def find(self) -> Found:
        """Pairs by file stem; the id is the stem, and each photo its own group."""
        photos = files.list_pictures(self.root / self.images)
        labels = files.list_pictures(self.root / self.masks)
        return paired(photos, labels, f"{self.images}/", f"{self.masks}/")

    def annotate(self, entry: Entry) -> RawLabel:
        """Raw ids 0...17; a label that was saved as JPEG is refused, since its ids are lost."""
        return RawLabel(raw_pictures.read_ids(files.read_regular(self.root / entry.label)))
