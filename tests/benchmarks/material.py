"""What the benchmarks run on, and how they time."""

from __future__ import annotations

import os
import shutil
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
    """One comparison in seconds, or another unit.

    ``ratio`` is how often ours fits into the reference's: 2 is half its time. It is None where the reference is, since
    what it needs is not installed.
    """

    work: str
    ours: float
    against: str
    reference: float | None
    must_reach: float
    unit: str = "s"

    @property
    def ratio(self) -> float | None:
        return None if self.reference is None else self.reference / self.ours

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None else self.ratio >= self.must_reach


def draw_pairs(
    root: Path, count: int, height: int = 400, width: int = 600, quality: int = 88, distinct: int | None = None
) -> None:
    """HumanParsing-shaped noise with structure: photos of about 88 kB (of 73 at quality 84), labels of smooth blobs in
    18 ids.

    Beyond the first ``distinct`` pairs come those again, the photo with another JPEG comment.
    """
    photos, labels = root / "JPEGImages", root / "SegmentationClassAug"
    photos.mkdir(parents=True)
    labels.mkdir()
    rng = np.random.default_rng(0)
    drawn = []
    for number in range(min(count, distinct or count)):
        coarse = rng.integers(0, 256, (20, 30, 3), np.uint8)
        photo = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        photo = cv2.add(photo, rng.integers(0, 40, photo.shape, np.uint8))
        ids = cv2.resize(rng.integers(0, 18, (6, 8), np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        cv2.ellipse(ids, (width // 2, height // 2), (90, 160), number % 30, 0, 360, number % 18, -1)
        pair = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.imencode(".png", ids)[1]
        drawn.append((pair[0].tobytes(), pair[1].tobytes()))
    for number in range(count):
        photo_bytes, label_bytes = drawn[number % len(drawn)]
        if number >= len(drawn):
            photo_bytes = photo_bytes[:2] + b"\xff\xfe\x00\x0a%08d" % number + photo_bytes[2:]
        (photos / f"person_{number:05d}.jpg").write_bytes(photo_bytes)
        (labels / f"person_{number:05d}.png").write_bytes(label_bytes)


@dataclass(frozen=True)
class Pairs:
    """Pairs that were converted and split, in ``root``."""

    root: Path
    count: int

    @property
    def photos(self) -> Path:
        return self.root / "raw" / "JPEGImages"

    @property
    def masks(self) -> Path:
        return self.root / "prepared" / "masks"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest"


def prepare_pairs(root: Path, count: int) -> Pairs:
    """Pairs of 75 kB (the photo and the converted mask), several hundred of them distinct."""
    pairs = Pairs(root, count)
    draw_pairs(root / "raw", count, quality=84, distinct=400)
    prepared = str(root / "prepared")
    segdata("convert", "humanparsing", str(root / "raw"), "--out", prepared, "--labels", "humanparsing")()
    segdata("split", prepared, "--out", str(pairs.manifest), "--test", "0.2")()
    return pairs


def segdata(*arguments: str) -> Callable[[], None]:
    """A whole segdata process, to be timed."""
    return process("-m", "segdata", *arguments)


def process(*arguments: str) -> Callable[[], None]:
    """A whole Python process, to be timed; RuntimeError with what it said where it fails."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}

    def run() -> None:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")

    return run


def best_of(runs: int, *works: Callable[[], None], remove: Path | None = None) -> list[float]:
    """The best wall time of each work, taken in turns so that both see the same machine.

    Before each, outside the clock, the folder ``remove`` goes, and the disk gets what was written so far.
    """
    best = [float("inf")] * len(works)
    for _ in range(runs):
        for i, work in enumerate(works):
            if remove is not None:
                shutil.rmtree(remove, ignore_errors=True)
                os.sync()
            start = time.perf_counter()
            work()
            best[i] = min(best[i], time.perf_counter() - start)
    return best
