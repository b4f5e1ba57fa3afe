"""split and stats of a prepared dataset of a million sample lines: each must stay within its seconds and memory."""

from __future__ import annotations

import hashlib
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from segdata.formats.files import sha256_hex
from segdata.labels import LabelMap, label_map
from segdata.records import (
    DATASET_JSON,
    REJECTED_JSONL,
    SAMPLES_JSONL,
    DatasetCounts,
    DatasetRecord,
    FileRecord,
    SampleLine,
    SourceRecord,
    encode_lines,
    seal,
)
from tests.benchmarks.material import Row

_LINES = 1_000_000
_MAX_S, _MAX_MB = 30, 1000
_STEMS = ("2500", "C", "Fashionista", "dataset10k", "fashionista")  # letter case matters to the method "ordered"
_BATCH = 10_000
# A child's peak counts that of the process that started it, from before it became another program: so a small one does.
_LAUNCHER = """
import os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
print(time.perf_counter() - start, usage.ru_maxrss / (1 << 10 if sys.platform == "darwin" else 1), status)
"""


def measure(folder: Path) -> list[Row]:
    parts5, parts18 = (make_dataset(folder / name, _LINES, name) for name in ("parts5", "humanparsing"))
    lists = [f"--list={name}={path}" for name, path in make_lists(folder, _LINES).items()]
    ways = {
        "by hash, shares": ["--validation", "0.1"],
        "by hash, numbers": ["--test", "200000", "--validation", "100000"],
        "ordered": ["--method", "ordered", "--test", "200000"],
        "by lists of as many names": lists,
    }
    rows = []
    for way, options in ways.items():
        command = ["split", str(parts5), "--out", str(folder / "manifest"), "--overwrite", *options]
        rows += _rows(f"split of {_LINES:,} lines {way}", command)
    rows += _rows(f"stats of {_LINES:,} lines", ["stats", str(parts5)])
    rows += _rows(f"stats of {_LINES:,} lines of 18 classes", ["stats", str(parts18)])
    rows += _rows(f"stats of a manifest of {_LINES:,} lines", ["stats", str(folder / "manifest")])
    return rows


def _rows(work: str, command: list[str]) -> list[Row]:
    seconds, peak_mb = run_measured(command)
    return [Row(work, seconds, "limit", _MAX_S, 1), Row(work, peak_mb, "limit", _MAX_MB, 1, "MB")]


def run_measured(command: list[str]) -> tuple[float, float]:
    """Wall seconds and peak memory (MB) of a whole segdata process."""
    launch = [sys.executable, "-c", _LAUNCHER, sys.executable, "-m", "segdata", *command]
    seconds, peak_kib, status = map(float, subprocess.run(launch, check=True, capture_output=True).stdout.split())
    if status:
        raise RuntimeError(f"segdata {' '.join(command)} failed")
    return seconds, peak_kib * 1024 / 1e6


def make_dataset(folder: Path, count: int, labels_name: str) -> Path:
    """A prepared dataset without its pictures, which neither command opens, in the memory of one batch of lines."""
    folder.mkdir(parents=True)
    labels = label_map(labels_name, "humanparsing")
    digest = hashlib.sha256()
    sums = dict.fromkeys(labels.names, 0)
    lines = _sample_lines(count, labels)
    with (folder / SAMPLES_JSONL).open("wb") as file:
        while batch := list(itertools.islice(lines, _BATCH)):
            for line in batch:
                for name, pixels in (line.class_pixels or {}).items():
                    sums[name] += pixels
            data = encode_lines(batch)
            file.write(data)
            digest.update(data)
    (folder / REJECTED_JSONL).touch()
    record = DatasetRecord(
        name=folder.name,
        source=SourceRecord(name="humanparsing", options={}),
        label_map=labels,
        image_root="../raw",
        counts=DatasetCounts(samples=count, rejected={}, class_pixels=sums),
        samples=FileRecord(file=SAMPLES_JSONL, count=count, sha256=digest.hexdigest()),
        rejected=FileRecord(file=REJECTED_JSONL, count=0, sha256=sha256_hex(b"")),
    )
    (folder / DATASET_JSON).write_bytes(seal(record))
    return folder


def make_lists(folder: Path, count: int) -> dict[str, Path]:
    """A list file for train and one for test, of the photos' paths in no order; together they name every sample."""
    images = [_image(i, count) for i in range(count)]
    random.Random(0).shuffle(images)
    paths = {name: folder / f"{name}.txt" for name in ("train", "test")}
    for path, part in zip(paths.values(), (images[count // 5 :], images[: count // 5]), strict=True):
        path.write_text("\n".join(part))
    return paths


def _image(i: int, count: int) -> str:
    return f"JPEGImages/{_id(i, count)}.jpg"


def _id(i: int, count: int) -> str:
    return f"{_STEMS[i * len(_STEMS) // count]}_{i:07d}"


def _sample_lines(count: int, labels: LabelMap) -> Iterator[SampleLine]:
    """Lines as convert writes them: one in ten stands in a group of four or so, one in a thousand is a twin's photo."""
    for i in range(count):
        name = _id(i, count)
        height, width = 400 + i % 300, 300 + i % 400
        share = height * width // (len(labels.names) + 1)
        yield SampleLine(
            id=name,
            group=f"clip_{i // 40:06d}" if i % 10 == 0 else name,
            image=_image(i, count),
            mask=f"masks/{name}.png",
            height=height,
            width=width,
            image_sha256=sha256_hex(b"photo %d" % (i - 500 if i % 1000 == 999 else i)),
            image_bytes=60_000 + i % 40_000,
            mask_sha256=sha256_hex(b"mask %d" % i),
            mask_bytes=3_000 + i % 2_000,
            class_pixels={label: share * ((i + k) % 7 > 0) for k, label in enumerate(labels.names)},
        )
