"""``python -m tests.benchmarks [build] [coco] [convert]``: a table at the end, or JSON with --json."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import build, coco, convert

BENCHMARKS = {"build": build.measure, "coco": coco.measure, "convert": convert.measure}


def main() -> None:
    names = [name for name in sys.argv[1:] if name in BENCHMARKS] or sorted(BENCHMARKS)
    rows = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="segdata-bench-") as folder:
            rows += BENCHMARKS[name](Path(folder))
    if "--json" in sys.argv:
        print(json.dumps([asdict(row) for row in rows], indent=2))
        return
    for row in rows:
        verdict = "ok" if row.ratio >= row.must_reach else "MISSED"
        print(
            f"{row.work}: ours {row.ours:.2f} {row.unit}, {row.against} {row.reference:.2f} {row.unit}, "
            f"ratio {row.ratio:.2f} (must reach {row.must_reach}) {verdict}"
        )


if __name__ == "__main__":
    main()
