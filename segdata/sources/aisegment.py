"""AISegment (github.com/aisegmentcn/matting_human_datasets): portraits cut from clips, with RGBA cut-outs.

``clip_img/A/clip_B/N.jpg`` and ``matting/A/matting_B/N.png``, whose alpha is the matte.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from segdata.errors import SourceError
from segdata.formats import files, raw_pictures
from segdata.labels import LabelMap, label_map
from segdata.records import RejectedLine
from segdata.sources import Entry, Found, RawLabel, check_alpha_threshold, joined, paired, pictures_in

_PHOTOS, _MATTES = "clip_img", "matting"
_CLIP, _MATTING = "clip_", "matting_"


@dataclass(frozen=True)
class AISegment:
    """``root`` holds ``clip_img`` and ``matting``. Alpha stays soft, or from ``threshold`` on is person."""

    root: Path
    threshold: float | None = None
    name: str = "aisegment"

    def __post_init__(self) -> None:
        check_alpha_threshold(self.threshold)

    @property
    def label_map(self) -> LabelMap | None:
        """None: mattes; ``binary`` with a threshold."""
        return None if self.threshold is None else label_map("binary", "mask")

    @property
    def image_root(self) -> Path:
        """The dataset's own folder, so that image paths read as in lists of it."""
        return self.root

    @property
    def label_root(self) -> Path:
        """The dataset's own folder too."""
        return self.root

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The two folders."""
        return self.root / _PHOTOS, self.root / _MATTES

    def options(self) -> dict[str, str | int | float | bool | None]:
        """The threshold."""
        return {"threshold": self.threshold}

    def find(self) -> Found:
        """Pairs by file stem within each clip; the clip's folder is the group, since its photos are of one scene."""
        for folder in (_PHOTOS, _MATTES):
            if not (self.root / folder).is_dir():
                raise SourceError(f"{self.root}: has no folder {folder}. Name the folder that holds it.")
        photos, mattes = _walk(self.root, _PHOTOS, _CLIP), _walk(self.root, _MATTES, _MATTING)
        if not photos.clips | mattes.clips:
            raise SourceError(
                f"{self.root}: no folder {_PHOTOS}/*/{_CLIP}*, expected AISegment's layout (links to folders are not "
                "followed). Name the folder that holds it."
            )
        found = joined(self._clip(shoot, clip) for shoot, clip in sorted(photos.clips | mattes.clips))
        detail = "the folder's name is not UTF-8; rename it"
        bad = [RejectedLine(id=name, reason="bad-name", detail=detail) for name in photos.bad_names + mattes.bad_names]
        ignored = dict(Counter(found.ignored) + photos.ignored + mattes.ignored)
        return replace(found, rejected=found.rejected + bad, ignored=ignored)

    def _clip(self, shoot: str, clip: str) -> Found:
        image_folder, matte_folder = f"{_PHOTOS}/{shoot}/{_CLIP}{clip}", f"{_MATTES}/{shoot}/{_MATTING}{clip}"
        group = files.safe_id(f"{shoot}-{_CLIP}{clip}")
        photos, mattes = pictures_in(self.root / image_folder), pictures_in(self.root / matte_folder)
        found = paired(photos, mattes, f"{image_folder}/", f"{matte_folder}/", name_folders=True)
        return replace(found, entries=[msgspec.structs.replace(entry, group=group) for entry in found.entries])

    def annotate(self, entry: Entry) -> RawLabel:
        """Alpha of the cut-out, or 0/1 where a threshold is given."""
        alpha = raw_pictures.read_alpha(files.read_regular(self.root / entry.label))
        return RawLabel(raw_pictures.cut_alpha(alpha, self.threshold))


@dataclass(frozen=True)
class _Tree:
    """The clips below ``clip_img`` or ``matting`` as (A, B), and what else lies there; links to folders do too."""

    clips: set[tuple[str, str]]
    bad_names: list[str]
    ignored: Counter[str]


def _walk(root: Path, top: str, prefix: str) -> _Tree:
    shoots, bad = files.list_folders(root / top)
    tree = _Tree(set(), [files.printable(f"{top}/{name}") for name in bad], _beside(root / top, len(shoots + bad)))
    for shoot in shoots:
        inside, bad = files.list_folders(root / top / shoot)
        clips = [name for name in inside if name.startswith(prefix)]
        tree.clips.update((shoot, name.removeprefix(prefix)) for name in clips)
        tree.bad_names.extend(files.printable(f"{top}/{shoot}/{name}") for name in bad)
        tree.ignored.update(_beside(root / top / shoot, len(clips + bad)))
    return tree


def _beside(folder: Path, folders: int) -> Counter[str]:
    """What a folder holds beside that many folders, by kind."""
    ignored = Counter(files.list_pictures(folder, ()).ignored)
    ignored["folder"] -= folders
    return +ignored
