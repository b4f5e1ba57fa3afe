"""What a network says of photos that nobody labelled: masks of class ids, 255 where it is unsure, or mattes.

``predictions.jsonl`` has a line for each photo, and beside it lie ``masks/ID.png`` or ``mattes/ID.png``. `segdata
predict --as-dataset` makes such a folder for as long as it needs one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from segdata.errors import FolderError, SourceError
from segdata.formats import files, images
from segdata.labels import IGNORE_INDEX, LabelMap
from segdata.records import RejectedLine, decode_lines
from segdata.sources import Entry, Found, RawLabel

PREDICTIONS_JSONL = "predictions.jsonl"


class Prediction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one photo; with a ``reason`` it is no sample, and ``detail`` says what was found and expected.

    ``image`` is relative to the folder of photos, ``label`` to that of predictions, whose bytes have ``label_sha256``.
    ``confidence`` is as on a sample line.
    """

    id: str
    group: str
    image: str
    label: str = ""
    label_sha256: str = ""
    confidence: float | None = None
    license: str | None = None
    reason: str | None = None
    detail: str = ""


def label_map_of(labels: LabelMap) -> LabelMap:
    """A network's label map, for masks that hold its class ids already, and 255."""
    return msgspec.structs.replace(
        labels, from_ids=tuple((i,) for i in range(len(labels.names))), ignored_ids=(IGNORE_INDEX,)
    )


@dataclass(frozen=True)
class Predictions:
    """Photos below ``photos``, and in ``root`` what a network says of them; ``label_map`` is None for mattes.

    ``settings`` are what decided the labels, for dataset.json; ``inputs`` what was read, and ``passed_over`` counts, by
    kind, the files there that are no photos.
    """

    photos: Path
    root: Path
    label_map: LabelMap | None
    settings: Mapping[str, str | int | float | bool | None]
    inputs: tuple[Path, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)
    name: str = "predictions"

    @property
    def image_root(self) -> Path:
        """The folder that all photos lie below."""
        return self.photos

    @property
    def label_root(self) -> Path:
        """The folder of predictions."""
        return self.root

    def options(self) -> dict[str, str | int | float | bool | None]:
        """The settings and the label map."""
        return {**self.settings, "labels": self.label_map.name if self.label_map else None}

    def find(self) -> Found:
        """A sample for each photo that was predicted well enough; the others with their reasons."""
        try:
            lines = list(decode_lines(self.root / PREDICTIONS_JSONL, Prediction))
        except FolderError as error:
            raise SourceError(f"{self.root}: has no {PREDICTIONS_JSONL}. Run `segdata predict` again.") from error
        entries = [_entry(line) for line in lines if line.reason is None]
        rejected = [
            RejectedLine(id=line.id, reason=line.reason, detail=line.detail)
            for line in lines
            if line.reason is not None
        ]
        return Found(sorted(entries, key=lambda entry: entry.id), rejected, dict(self.passed_over))

    def annotate(self, entry: Entry) -> RawLabel:
        """Class ids and 255, or alpha of 8 bits."""
        return RawLabel(images.decode_mask(files.read_regular(self.root / entry.label)))


def _entry(line: Prediction) -> Entry:
    return Entry(
        id=line.id,
        group=line.group,
        image=line.image,
        label=line.label,
        license=line.license,
        confidence=msgspec.UNSET if line.confidence is None else line.confidence,
    )
