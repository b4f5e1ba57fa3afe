"""The parent's peak memory in build-tfrecords of ten times the samples: what workers return must not pile up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from segdata.formats.files import sha256_hex
from segdata.records import (
    DATASET_JSON,
    SAMPLES_JSONL,
    DatasetRecord,
    FileRecord,
    SampleLine,
    encode_lines,
    seal,
    unseal,
)
from tests.benchmarks.material import Row, draw_pairs, segdata

_SAMPLES = 20_000, 200_000
_SMALL = 16
# Its own peak: what the system tells of a child counts the process that started it, and the workers it waited for.
_RUN = """
import resource, sys
from pathlib import Path
from segdata.cli import main
try:
    main()
finally:
    status = Path("/proc/self/status")
    if status.is_file():
        kib = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    else:
        kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10 if sys.platform == "darwin" else 1)
    print(kib, file=sys.stderr)
"""


def measure(folder: Path) -> list[Row]:
    draw_pairs(folder / "raw", 1, _SMALL, _SMALL)
    few, many = (_peak_mb(_samples(folder, count), count) for count in _SAMPLES)
    work = f"build-tfrecords --jobs 2 of {_SAMPLES[1]:,} samples: the parent's peak memory"
    return [Row(work, many, f"of {_SAMPLES[0]:,} samples", few, round(1 / 1.3, 2), "MB")]


def _samples(folder: Path, count: int) -> Path:
    """A prepared dataset of ``count`` samples that all name the same photo and mask."""
    out = folder / f"prepared-{count}"
    segdata("convert", "humanparsing", str(folder / "raw"), "--out", str(out))()
    record = unseal((out / DATASET_JSON).read_bytes(), DatasetRecord, DATASET_JSON)
    line = msgspec.json.decode((out / SAMPLES_JSONL).read_bytes(), type=SampleLine)
    ids = [f"person_{number:06d}" for number in range(count)]
    data = encode_lines([msgspec.structs.replace(line, id=name, group=name) for name in ids])
    (out / SAMPLES_JSONL).write_bytes(data)
    totals = {name: pixels * count for name, pixels in record.counts.class_pixels.items()}
    counts = msgspec.structs.replace(record.counts, samples=count, class_pixels=totals)
    samples = FileRecord(file=SAMPLES_JSONL, count=count, sha256=sha256_hex(data))
    (out / DATASET_JSON).write_bytes(seal(msgspec.structs.replace(record, counts=counts, samples=samples)))
    return out


def _peak_mb(prepared: Path, count: int) -> float:
    manifest, shards = (str(prepared.with_name(f"{name}-{count}")) for name in ("manifest", "shards"))
    segdata("split", str(prepared), "--out", manifest, "--test", "0")()
    command = [sys.executable, "-c", _RUN, "build-tfrecords", manifest, "--out", shards, "--jobs", "2"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"build-tfrecords of {count} samples failed:\n{done.stderr[-2000:]}")
    return float(done.stderr.split()[-1]) * 1024 / 1e6
