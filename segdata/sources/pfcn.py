"""PFCN portraits (Shen et al. 2016, "Automatic Portrait Segmentation for Image Stylization"), in two layouts.

As published: ``images_data_crop/NNNNN.jpg`` and ``images_mask/NNNNN_mask.mat``, whose matrix ``mask`` is 0 or 1. As
redistributed: ``X.png`` (or jpg) beside ``X_matte.png``, whose grey is alpha.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segdata.errors import OptionError, SourceError
from segdata.formats import files, mat, raw_pictures
from segdata.formats.pairing import Affix
from segdata.labels import LabelMap, label_map
from segdata.sources import Entry, Found, RawLabel, check_alpha_threshold, paired, parted

_PHOTOS, _MASKS = "images_data_crop", "images_mask"
_MASK = Affix(suffix="_mask")
_MATTE = Affix(suffix="_matte")


@dataclass(frozen=True)
class Pfcn:
    """``root`` in either layout. Masks as published; redistributed mattes stay soft, or are cut at ``threshold``."""

    root: Path
    threshold: float | None = None
    name: str = "pfcn"

    def __post_init__(self) -> None:
        check_alpha_threshold(self.threshold)
        if self.threshold is not None and self.is_published:
            raise OptionError(f"--threshold {self.threshold}: {self.root} holds masks, expected mattes to cut.")

    @property
    def is_published(self) -> bool:
        """Whether ``root`` is as published."""
        return (self.root / _PHOTOS).is_dir()

    @property
    def label_map(self) -> LabelMap | None:
        """``binary``; None for mattes."""
        return label_map("binary", "mask") if self.is_published or self.threshold is not None else None

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
        """The two folders, or the one."""
        return (self.root / _PHOTOS, self.root / _MASKS) if self.is_published else (self.root,)

    def options(self) -> dict[str, str | int | float | bool | None]:
        """The layout, and the threshold."""
        return {"layout": "published" if self.is_published else "redistributed", "threshold": self.threshold}

    def find(self) -> Found:
        """Pairs by name; each photo its own group."""
        if self.is_published:
            masks = files.list_pictures(self.root / _MASKS, (".mat",))
            return paired(files.list_pictures(self.root / _PHOTOS), masks, f"{_PHOTOS}/", f"{_MASKS}/", _MASK)
        photos, mattes = parted(self.root, _MATTE, ())
        if not mattes.names:
            raise SourceError(
                f"{self.root}: neither {_PHOTOS}/ and {_MASKS}/ nor X beside X_matte.png, expected one of the two."
            )
        return paired(photos, mattes, "", "", _MATTE)

    def annotate(self, entry: Entry) -> RawLabel:
        """Raw ids 0/1, or alpha."""
        data = files.read_regular(self.root / entry.label)
        if self.is_published:
            return RawLabel(raw_pictures.binary_ids(mat.read_mat_label(data, "mask"), None))
        return RawLabel(raw_pictures.cut_alpha(raw_pictures.read_alpha(data), self.threshold))
