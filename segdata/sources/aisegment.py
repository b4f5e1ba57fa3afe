"""AISegment (github.com/aisegmentcn/matting_human_datasets): portraits cut from clips, with RGBA cut-outs.

``clip_img/A/clip_B/N.jpg`` and ``matting/A/matting_B/N.png``, whose alpha is the matte.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from segdata.errors import OptionError, SourceError
from segdata.formats import files, raw_pictures
from segdata.formats.files import Pictures
from segdata.labels import LabelMap, label_map
from segdata.records import RejectedLine
from segdata.sources import Entry, Found, RawLabel, joined, paired

_PHOTOS, _MATTES = "clip_img", "matting"
_CLIP, _MATTING = "clip_", "matting_"


@dataclass(frozen=True)
class AISegment:
    """``root`` holds ``clip_img`` and ``matting``. Alpha stays soft, or from ``threshold`` on is person."""

    root: Path
    threshold: float | None = None
    name: str = "aisegment"

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise OptionError(f"--threshold {self.threshold}: expected a share above 0, to 1, of full alpha.")

    @property
    def label_map(self) -> LabelMap | None:
        """None: mattes; ``binary`` with a threshold."""
        return None if self.threshold is None else label_map("binary", "mask")

    @property
    def image_root(self) -> Path:
        """The dataset's own folder, so that image paths read as in lists of it."""
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
        clips = dict(self._clips())
        if not clips:
            raise SourceError(f"{self.root}: no folder {_PHOTOS}/*/{_CLIP}*, expected AISegment's layout.")
        found = joined(clips)
        ignored = dict(Counter(found.ignored) + self._ignored())
        return replace(found, rejected=found.rejected + list(self._bad_folders()), ignored=ignored)

    def _clips(self) -> Iterator[tuple[str, Found]]:
        photos, mattes = self._folders(_PHOTOS, _CLIP), self._folders(_MATTES, _MATTING)
        for shoot, clip in sorted({*photos, *mattes}):
            image_folder, matte_folder = f"{_PHOTOS}/{shoot}/{_CLIP}{clip}", f"{_MATTES}/{shoot}/{_MATTING}{clip}"
            found = paired(
                self._pictures(image_folder, (shoot, clip) in photos),
                self._pictures(matte_folder, (shoot, clip) in mattes),
                f"{image_folder}/",
                f"{matte_folder}/",
            )
            group = files.safe_id(f"{shoot}-{_CLIP}{clip}")
            yield image_folder, replace(found, entries=[msgspec.structs.replace(e, group=group) for e in found.entries])

    def _folders(self, top: str, prefix: str) -> set[tuple[str, str]]:
        """(A, B) of each folder ``top/A/prefix + B``."""
        return {
            (shoot, name.removeprefix(prefix))
            for shoot in files.list_folders(self.root / top)[0]
            for name in files.list_folders(self.root / top / shoot)[0]
            if name.startswith(prefix)
        }

    def _pictures(self, folder: str, there: bool) -> Pictures:
        return files.list_pictures(self.root / folder) if there else Pictures([], [])

    def _ignored(self) -> Counter[str]:
        """What lies beside the clips' folders, by kind; a link to a folder counts as one, and is not followed."""
        used: Counter[str] = Counter()
        for top, prefix in ((_PHOTOS, _CLIP), (_MATTES, _MATTING)):
            shoots, bad = files.list_folders(self.root / top)
            used[top] = len(shoots + bad)
            for shoot in shoots:
                clips, bad = files.list_folders(self.root / top / shoot)
                used[f"{top}/{shoot}"] = sum(name.startswith(prefix) for name in clips) + len(bad)
        ignored: Counter[str] = Counter()
        for folder in used:
            ignored.update(files.list_pictures(self.root / folder, ()).ignored)
        ignored["folder"] -= used.total()
        return +ignored

    def _bad_folders(self) -> Iterator[RejectedLine]:
        detail = "the folder's name is not UTF-8; rename it"
        for top in (_PHOTOS, _MATTES):
            shoots, bad = files.list_folders(self.root / top)
            bad = [f"{top}/{name}" for name in bad]
            bad += [
                f"{top}/{shoot}/{name}" for shoot in shoots for name in files.list_folders(self.root / top / shoot)[1]
            ]
            yield from (RejectedLine(id=files.printable(name), reason="bad-name", detail=detail) for name in bad)

    def annotate(self, entry: Entry) -> RawLabel:
        """Alpha of the cut-out, or 0/1 where a threshold is given."""
        alpha = raw_pictures.read_alpha(files.read_regular(self.root / entry.label))
        return RawLabel(alpha if self.threshold is None else raw_pictures.cut_alpha(alpha, self.threshold))
