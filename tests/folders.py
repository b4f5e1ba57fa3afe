"""Folders in tests: what the path makes, and whether two are the same to the byte."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Made:
    """One run of the path, from raw folder to shards."""

    raw: Path
    dataset: Path
    manifest: Path
    shards: Path


def tree(folder: Path) -> dict[str, str]:
    """sha256 of every file below a folder, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines(path: Path) -> list[dict[str, Any]]:
    """The values of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def segdata(
    *arguments: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A whole segdata process, with what it printed."""
    command = [sys.executable, "-m", "segdata", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | (env or {}), check=False)


def small_pairs(root: Path, count: int = 4) -> tuple[Path, Path]:
    """``count`` 40x30 photos, each of its own grey, with 0/255 masks of a box."""
    photos, masks = root / "photos", root / "masks"
    photos.mkdir(parents=True)
    masks.mkdir()
    for i in range(count):
        Image.new("RGB", (40, 30), (i * 9, 90, 120)).save(photos / f"p{i}.jpg")
        mask = np.zeros((30, 40), np.uint8)
        mask[5:20, 10 : 20 + i] = 255
        Image.fromarray(mask).save(masks / f"p{i}.png")
    return photos, masks
