"""Raw ids to class ids, by a lookup table; nothing is guessed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused
from segdata.formats.images import Pixels, count_values
from segdata.labels import UNMAPPED, LabelMap, lookup_table


@dataclass(frozen=True)
class Relabel:
    """Masks of ``label_map`` from raw ids. With ``ignore_unmapped`` ids that the map does not name become 255."""

    label_map: LabelMap
    ignore_unmapped: bool = False

    @cached_property
    def _table(self) -> npt.NDArray[np.int16]:
        return lookup_table(self.label_map)

    @cached_property
    def _bytes_table(self) -> Pixels:
        table = self._table.copy()
        table[table == UNMAPPED] = self.label_map.ignore_index
        return table.astype(np.uint8)

    def __call__(self, ids: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> tuple[Pixels, npt.NDArray[np.int64]]:
        """(H, W) uint8 class ids, and (256,) int64 pixels by class id.

        ImageRefused(``unmapped-id``) gives each id that the map does not name and its number of pixels.
        """
        raw_counts = count_values(ids)
        targets = self._table[: len(raw_counts)]
        unmapped = np.flatnonzero((raw_counts > 0) & (targets == UNMAPPED))
        if len(unmapped) and not self.ignore_unmapped:
            found = ", ".join(f"id {i} ({raw_counts[i]} px)" for i in unmapped[:8])
            more = f" and {len(unmapped) - 8} more ids" if len(unmapped) > 8 else ""
            raise ImageRefused("unmapped-id", f"{found}{more}: label map {self.label_map.name!r} does not name them")
        counts = np.zeros(256, np.int64)
        np.add.at(counts, self._bytes_table[: len(raw_counts)], raw_counts)
        if ids.dtype == np.uint8:
            return cv2.LUT(ids, self._bytes_table[:256]), counts  # type: ignore[return-value]
        return self._bytes_table[ids], counts
