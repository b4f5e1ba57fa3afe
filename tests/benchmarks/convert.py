"""convert humanparsing against its floor: the codecs and the hash alone, one process per core."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tests.benchmarks.material import Row, best_of, draw_pairs, segdata

_PAIRS, _PROCESSES = 2000, 2


def measure(folder: Path) -> list[Row]:
    draw_pairs(folder / "raw", _PAIRS)
    ours = segdata(
        "convert", "humanparsing", str(folder / "raw"), "--out", str(folder / "out"), "--jobs", "2", "--overwrite"
    )
    ours_s, floor_s = best_of(3, ours, lambda: _floor(folder / "raw"))
    return [Row(f"convert {_PAIRS} pairs of 600x400, --jobs 2", ours_s, "floor (codecs and sha256)", floor_s, 0.6)]


def _floor(root: Path) -> None:
    """The floor's processes, each with every second pair; their start-up counts, as ours does."""
    command = [sys.executable, "-m", "tests.benchmarks.convert", str(root)]
    running = [subprocess.Popen([*command, str(i)]) for i in range(_PROCESSES)]
    if any(process.wait() for process in running):
        raise RuntimeError("a process of the floor failed")


def work_through(root: Path, part: int) -> None:
    """Read, sha256, strictly decode photo and label, table lookup, encode PNG: nothing else."""
    cv2.setNumThreads(1)
    table = np.minimum(np.arange(256), 1).astype(np.uint8)
    for photo in sorted((root / "JPEGImages").iterdir())[part::_PROCESSES]:
        data = photo.read_bytes()
        hashlib.sha256(data).hexdigest()
        if cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) is None:
            raise RuntimeError(photo)
        label = (root / "SegmentationClassAug" / f"{photo.stem}.png").read_bytes()
        ids = np.asarray(Image.open(io.BytesIO(label)))
        encoded = cv2.imencode(".png", cv2.LUT(ids, table))[1].tobytes()
        hashlib.sha256(encoded).hexdigest()


if __name__ == "__main__":
    work_through(Path(sys.argv[1]), int(sys.argv[2]))
