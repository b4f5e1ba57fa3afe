"""``python -m tests.benchmarks [build] [coco] ...``: a table at the end, or JSON with --json; left out, all of them."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import build, coco, convert, inputs, memory, million, predict
from tests.benchmarks.material import Row

BENCHMARKS = {
    "build": build.measure,
    "coco": coco.measure,
    "convert": convert.measure,
    "inputs": inputs.measure,
    "memory": memory.measure,
    "million": million.measure,
    "predict": predict.measure,
}


def main() -> None:
    names = [name for name in sys.argv[1:] if name in BENCHMARKS] or sorted(BENCHMARKS)
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="segdata-bench-") as folder:
            rows += BENCHMARKS[name](Path(folder))
    if "--json" in sys.argv:
        print(json.dumps([asdict(row) | {"ratio": row.ratio, "met": row.met} for row in rows], indent=2))
        return
    print("ratio: how often ours fits into what it is measured against\n")
    print(*_table(rows), sep="\n")


def _table(rows: list[Row]) -> list[str]:
    head = ("work", "ours", "against", "theirs", "ratio", "must reach", "met")
    lines = [head, *map(_cells, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _cells(row: Row) -> tuple[str, ...]:
    ours, limit = f"{row.ours:.2f} {row.unit}", f"{row.must_reach:.2f}"
    if row.reference is None or row.ratio is None:
        return row.work, ours, row.against, "not installed", "", limit, ""
    theirs, verdict = f"{row.reference:.2f} {row.unit}", "yes" if row.met else "MISSED"
    return row.work, ours, row.against, theirs, f"{row.ratio:.2f}", limit, verdict


if __name__ == "__main__":
    main()
