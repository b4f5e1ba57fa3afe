"""Anybody's folders: photos in one, masks or mattes of the same names in another (or in the same one, with a
suffix).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from segdata.errors import ImageRefused, OptionError
from segdata.formats import files, raw_pictures
from segdata.formats.files import Pictures
from segdata.labels import LabelMap
from segdata.records import RejectedLine
from segdata.sources import Entry, Found, RawLabel, paired

KINDS = ("binary", "index", "matte")


@dataclass(frozen=True)
class Pairs:
    """``images/NAME.*`` beside ``masks/NAME + mask_suffix + .*``.

    ``kind`` binary: masks of exactly two values (0 and 1, or 0 and 255), or anything cut at ``threshold`` (in the
    mask's own values); index: ids that ``label_map`` reads; matte: grey alpha, kept as it is (``label_map`` is None).
    """

    images: Path
    masks: Path
    label_map: LabelMap | None
    kind: str = "binary"
    threshold: int | None = None
    mask_suffix: str = ""
    name: str = "pairs"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"--kind {self.kind!r}: expected one of {', '.join(KINDS)}.")
        if self.threshold is not None and (self.kind != "binary" or not 1 <= self.threshold <= 65535):
            raise OptionError(f"--threshold {self.threshold}: expected 1 to 65535, and --kind binary.")
        if self.images.resolve() == self.masks.resolve() and not self.mask_suffix:
            raise OptionError(
                "--images and --masks are one folder: say --mask-suffix, so that masks can be told apart."
            )

    @property
    def image_root(self) -> Path:
        """The folder of photos."""
        return self.images

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The two folders."""
        return self.images, self.masks

    def options(self) -> dict[str, str | int | float | bool | None]:
        """Kind, threshold, suffix and label map."""
        labels = self.label_map.name if self.label_map else None
        return {"kind": self.kind, "threshold": self.threshold, "mask_suffix": self.mask_suffix, "labels": labels}

    def find(self) -> Found:
        """Pairs by file stem; the id is the photo's stem, and each photo its own group."""
        photos = files.list_pictures(self.images)
        if self.images.resolve() == self.masks.resolve():
            masked = [name for name in photos.names if self._is_mask(name)]
            photos = replace(photos, names=[name for name in photos.names if name not in set(masked)])
            return paired(photos, Pictures(masked, []), "", "", self.mask_suffix)
        masks = files.list_pictures(self.masks)
        others = [name for name in masks.names if not self._is_mask(name)]
        masks = replace(masks, names=[name for name in masks.names if self._is_mask(name)])
        found = paired(photos, masks, "", "", self.mask_suffix)
        detail = f"the mask's name does not end in --mask-suffix {self.mask_suffix}"
        return replace(
            found,
            rejected=found.rejected + [RejectedLine(id=name, reason="no-suffix", detail=detail) for name in others],
        )

    def _is_mask(self, name: str) -> bool:
        return Path(name).stem.endswith(self.mask_suffix)

    def annotate(self, entry: Entry) -> RawLabel:
        """Raw ids 0/1 for binary, raw ids for index, alpha for matte."""
        label = raw_pictures.read_label(files.read_regular(self.masks / entry.label))
        if self.kind == "matte":
            return RawLabel(raw_pictures.alpha_values(label))
        if self.kind == "binary":
            return RawLabel(raw_pictures.binary_ids(label, self.threshold))
        if label.lossy:
            raise ImageRefused("lossy-mask", "ids saved as JPEG cannot be restored; use lossless masks")
        return RawLabel(label.values)
