"""Pictures of what a network says of a photo or a frame: masks, alpha, overlays, cut-outs, compositions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segdata.errors import OptionError, did_you_mean
from segdata.formats.files import sha256_file
from segdata.formats.images import Pixels, encode_jpeg, encode_mask, encode_png
from segdata.labels import LabelMap, label_map
from segdata.sheets import colored, cutout, overlay
from segmodels.compose import Background, Picture, Video, background, collage, composite
from segmodels.compose import cutout as rgba
from segmodels.networks import Network
from segmodels.photo_size import enlarged, person_at_photo_size
from segmodels.refine import CUT, Refine, refined, refined_matte

SAVES = ("mask", "alpha", "overlay", "cutout", "composite", "collage", "gif")
_WITHOUT_ALPHA = {"mask", "overlay"}
_BEHIND = {"composite", "collage", "gif"}  # what shows the background


@dataclass(frozen=True)
class Look:
    """What is drawn, and how: the options of predict by these names. OptionError for what is not known."""

    saves: tuple[str, ...] = ("mask", "overlay")
    background: str = "white"
    refine: Refine = field(default_factory=Refine)

    def __post_init__(self) -> None:
        for name in self.saves:
            if name not in SAVES:
                raise OptionError(f"--save {name!r} is not known.{did_you_mean(name, SAVES)}")
        if not self.saves or len(set(self.saves)) < len(self.saves):
            raise OptionError(f"--save {','.join(self.saves)!r}: expected some of {', '.join(SAVES)}, each once.")
        _ = self.behind  # read now: a value that exists is valid

    @cached_property
    def behind(self) -> Background | None:
        """What a person is put in front of; None for ``transparent``."""
        return background(self.background)

    def background_record(self) -> str:
        """What the background was, for a JSON: the sha256 of a picture or video, not its path."""
        is_file = isinstance(self.behind, Picture | Video)
        return f"sha256 {sha256_file(Path(self.background))}" if is_file else self.background

    @property
    def is_moving(self) -> bool:
        """Whether the background is a video, whose frames must be asked for in order."""
        return isinstance(self.behind, Video) and bool(_BEHIND & set(self.saves))


@dataclass(frozen=True, eq=False)
class Segmented:
    """A photo or frame (H, W, 3) uint8 RGB with what the network says of it at that size.

    ``ids`` (H, W) uint8 are classes; ``alpha`` (H, W) float32 in [0, 1] is the person's, 0.5 or more where they are not
    0, None where nothing asks for it. ``person_share`` is the share of pixels that are not background, or of a matte
    the mean alpha.
    """

    photo: Pixels
    ids: Pixels
    alpha: npt.NDArray[np.float32] | None
    labels: LabelMap
    person_share: float
    time: Fraction = Fraction(0)
    drawn: dict[str, Pixels] = field(default_factory=dict, repr=False)  # what several of what is saved show

    def class_shares(self) -> dict[str, float] | None:
        """The share of each class, where there are more than two."""
        names = self.labels.names
        if len(names) == 2:
            return None
        counts = np.bincount(self.ids.ravel(), minlength=len(names))
        return {name: round(float(count) / self.ids.size, 6) for name, count in zip(names, counts, strict=True)}


def segmented(
    photo: Pixels, shares: npt.NDArray[np.float32], network: Network, look: Look, time: Fraction = Fraction(0)
) -> Segmented:
    """What ``shares`` (h, w, classes), the network's probabilities of a photo fitted to its size, say of that photo."""
    original, refine = (photo.shape[0], photo.shape[1]), look.refine
    labels = network.label_map or label_map("binary", "mask")
    if network.target == "matte":
        mask, alpha = refined_matte(refine, enlarged(shares, 1, original, network.geometry), photo)
        return Segmented(photo, mask.astype(np.uint8), alpha, labels, float(alpha.mean()), time)
    person, ids = person_at_photo_size(shares, original, network.geometry, refine.threshold is not None)
    if _WITHOUT_ALPHA.issuperset(look.saves) and refine == Refine(threshold=refine.threshold):
        mask, found = person >= (refine.threshold or CUT), None
    else:
        mask, found = refined(refine, person, photo)
    classes = mask.astype(np.uint8) if ids is None else np.where(mask, ids, np.uint8(0))
    return Segmented(photo, classes, found, labels, float(np.count_nonzero(mask) / mask.size), time)


# ---- pictures --------------------------------------------------------------------------------------------------------


def picture(save: str, found: Segmented, look: Look) -> Pixels:
    """One of SAVES: (H, W) for ``mask`` and ``alpha``, (H, W, 4) where something is transparent, else (H, W, 3) RGB;
    ``collage`` and ``gif`` give the frame that they show.
    """
    return _PICTURES[save](found, look)


def encoded(save: str, pixels: Pixels) -> tuple[bytes, str]:
    """The bytes of a picture as its file holds them, and the file's suffix: PNG for what must be exact or transparent,
    JPEG of quality 95 for what is to be looked at.
    """
    if save == "mask":
        return encode_mask(pixels), ".png"
    if pixels.ndim == 2 or pixels.shape[2] == 4:
        return encode_png(pixels), ".png"
    return encode_jpeg(pixels), ".jpg"


def _alpha_of(found: Segmented) -> npt.NDArray[np.float32]:
    if found.alpha is None:
        raise ValueError("nothing asked for alpha")  # ``segmented`` was told what is saved
    return found.alpha


def _mask(found: Segmented, look: Look) -> Pixels:
    return found.ids


def _alpha(found: Segmented, look: Look) -> Pixels:
    return np.rint(_alpha_of(found) * 255).astype(np.uint8)


def _overlay(found: Segmented, look: Look) -> Pixels:
    return overlay(found.photo, found.ids, found.labels)


def _cutout(found: Segmented, look: Look) -> Pixels:
    return rgba(found.photo, _alpha_of(found))


def _composite(found: Segmented, look: Look) -> Pixels:
    if look.behind is None:
        return _cutout(found, look)
    if "composite" not in found.drawn:
        alpha = _alpha_of(found)
        found.drawn["composite"] = composite(found.photo, alpha, look.behind(found.photo, alpha, found.time))
    return found.drawn["composite"]


def _opaque(found: Segmented, look: Look) -> Pixels:
    """The composition; over a checkerboard where the background is transparent."""
    return cutout(found.photo, _alpha_of(found)) if look.behind is None else _composite(found, look)


def _collage(found: Segmented, look: Look) -> Pixels:
    return collage([found.photo, colored(found.ids, found.labels), _opaque(found, look)])


_PICTURES: dict[str, Callable[[Segmented, Look], Pixels]] = {
    "mask": _mask,
    "alpha": _alpha,
    "overlay": _overlay,
    "cutout": _cutout,
    "composite": _composite,
    "collage": _collage,
    "gif": _opaque,
}
