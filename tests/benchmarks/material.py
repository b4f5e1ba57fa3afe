"""What the benchmarks run on, and how they time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np


@dataclass(frozen=True)
class Row:
    """One comparison in seconds, or another unit; ``ratio`` is how often ours fits into the reference's."""

    work: str
    ours: float
    against: str
    reference: float
    must_reach: float
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.reference / self.ours


def draw_pairs(root: Path, count: int, height: int = 400, width: int = 600) -> None:
    """HumanParsing-shaped noise with structure: photos of about 75 kB, labels of smooth blobs in 18 ids."""
    photos, labels = root / "JPEGImages", root / "SegmentationClassAug"
    photos.mkdir(parents=True)
    labels.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (20, 30, 3), np.uint8)
        photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        photo = cv2.add(photo, rng.integers(0, 40, photo.shape, np.uint8))
        ids = cv2.resize(rng.integers(0, 18, (6, 8), np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        cv2.ellipse(ids, (width // 2, height // 2), (90, 160), number % 30, 0, 360, number % 18, -1)
        cv2.imwrite(str(photos / f"person_{number:05d}.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 88])
        cv2.imwrite(str(labels / f"person_{number:05d}.png"), ids)


def segdata(*arguments: str) -> Callable[[], None]:
    """A whole segdata process, to be timed."""

    def run() -> None:
        subprocess.run([sys.executable, "-m", "segdata", *arguments], check=True, stdout=subprocess.DEVNULL)

    return run


def best_of(runs: int, *works: Callable[[], None]) -> list[float]:
    """The best wall time of each work, taken in turns so that both see the same machine."""
    best = [float("inf")] * len(works)
    for _ in range(runs):
        for i, work in enumerate(works):
            start = time.perf_counter()
            work()
            best[i] = min(best[i], time.perf_counter() - start)
    return best
