"""Square windows of a photo, placed by a hash so that every run cuts the same ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segdata.errors import OptionError
from segdata.hashing import unit_hash

_TRIES = 20
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Crop:
    """``count`` square windows of a photo, each to become ``side_px`` x ``side_px``.

    A window's side lies between ``side_px`` and the photo's short side; a smaller photo gives its whole short side.
    Each holds at least the share ``min_person`` of person pixels within 20 tries, or is centred on the person.
    """

    count: int = 5
    side_px: int = 512
    seed: int = 0
    min_person: float = 0.05

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 1000:
            raise OptionError(f"--crops {self.count}: expected 1 to 1000, or 0 to keep photos whole.")
        if not 16 <= self.side_px <= 8192:
            raise OptionError(f"--size {self.side_px}: expected a side of 16 to 8192 pixels.")
        if not 0 <= self.min_person <= 1:
            raise OptionError(f"--min-person {self.min_person}: expected a share, 0 to 1.")

    def boxes(self, photo: str, person: npt.NDArray[np.bool_]) -> list[Box]:
        """``count`` boxes (x, y, w, h) with w == h, for the photo of that id and its (H, W) person pixels."""
        return [self._box(f"{photo}\0{number}", person) for number in range(self.count)]

    def _box(self, key: str, person: npt.NDArray[np.bool_]) -> Box:
        height, width = person.shape
        short = min(height, width)
        smallest = min(self.side_px, short)
        for attempt in range(_TRIES):
            across, down, size = (unit_hash(f"{key}\0{attempt}\0{part}", f"crop {self.seed}") for part in "xys")
            side = smallest + int(size * (short - smallest + 1))
            x, y = int(across * (width - side + 1)), int(down * (height - side + 1))
            if np.count_nonzero(person[y : y + side, x : x + side]) >= self.min_person * side * side:
                return x, y, side, side
        rows, columns = np.nonzero(person)
        middle_x, middle_y = (columns.mean(), rows.mean()) if len(rows) else (width / 2, height / 2)
        x, y = round(middle_x - smallest / 2), round(middle_y - smallest / 2)
        return min(max(x, 0), width - smallest), min(max(y, 0), height - smallest), smallest, smallest
