"""Anybody's folders: photos in one, masks or mattes of the same names in another (or in the same one, with a
prefix or suffix).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from segdata.errors import OptionError
from segdata.formats import files, mat, raw_pictures
from segdata.formats.files import PICTURE_SUFFIXES
from segdata.formats.pairing import NO_AFFIX, Affix
from segdata.labels import LabelMap
from segdata.sources import Entry, Found, RawLabel, paired, parted

KINDS = ("binary", "index", "matte")


@dataclass(frozen=True)
class Pairs:
    """``images/NAME.*`` beside ``masks/NAME.*``, each NAME with its prefix and suffix around it.

    ``kind`` binary: masks of exactly two values (0 and 1, or 0 and 255), or anything cut at ``threshold`` (in the
    mask's own values); index: ids that ``label_map`` reads; matte: grey alpha, kept as it is (``label_map`` is None).
    ``mask_key`` is the matrix to read where masks are ``.mat`` files; their only one for None.
    """

    images: Path
    masks: Path
    label_map: LabelMap | None
    kind: str = "binary"
    threshold: int | None = None
    mask_suffix: str = ""
    mask_prefix: str = ""
    image_prefix: str = ""
    mask_key: str | None = None
    name: str = "pairs"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"--kind {self.kind!r}: expected one of {', '.join(KINDS)}.")
        if self.threshold is not None and (self.kind != "binary" or not 1 <= self.threshold <= 65535):
            raise OptionError(f"--threshold {self.threshold}: expected 1 to 65535, and --kind binary.")
        if self._is_one_folder and self._mask == NO_AFFIX:
            raise OptionError(
                "--images and --masks are one folder: say --mask-suffix or --mask-prefix, to tell masks apart."
            )

    @property
    def _is_one_folder(self) -> bool:
        return self.images.resolve() == self.masks.resolve()

    @property
    def _mask(self) -> Affix:
        return Affix(self.mask_prefix, self.mask_suffix)

    @property
    def _image(self) -> Affix:
        return Affix(prefix=self.image_prefix)

    @property
    def image_root(self) -> Path:
        """The folder of photos."""
        return self.images

    @property
    def label_root(self) -> Path:
        """The folder of masks."""
        return self.masks

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The two folders."""
        return self.images, self.masks

    def options(self) -> dict[str, str | int | float | bool | None]:
        """Kind, threshold, affixes and label map."""
        labels = self.label_map.name if self.label_map else None
        return {
            "kind": self.kind,
            "threshold": self.threshold,
            "mask_suffix": self.mask_suffix,
            "mask_prefix": self.mask_prefix,
            "image_prefix": self.image_prefix,
            "mask_key": self.mask_key,
            "labels": labels,
        }

    def find(self) -> Found:
        """Pairs by file stem; the id is the photo's stem, and each photo its own group."""
        if self._is_one_folder:
            photos, masks = parted(self.images, self._mask, (".mat",))
        else:
            photos = files.list_pictures(self.images)
            masks = files.list_pictures(self.masks, PICTURE_SUFFIXES | {".mat"})
        return paired(photos, masks, "", "", self._mask, self._image)

    def annotate(self, entry: Entry) -> RawLabel:
        """Raw ids 0/1 for binary, raw ids for index, alpha for matte."""
        data = files.read_regular(self.masks / entry.label)
        is_mat = entry.label.lower().endswith(".mat")
        if self.kind == "matte" and not is_mat:
            return RawLabel(raw_pictures.read_alpha(data))
        label = mat.read_mat_label(data, self.mask_key) if is_mat else raw_pictures.read_label(data)
        if self.kind == "matte":
            return RawLabel(raw_pictures.alpha_values(label))
        if self.kind == "binary":
            return RawLabel(raw_pictures.binary_ids(label, self.threshold))
        return RawLabel(raw_pictures.lossless(label))
