"""``python -m tests.benchmarks [convert] [build]``: a table at the end, or JSON with --json."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.benchmarks import build, convert

BENCHMARKS = {"build": build.measure, "convert": convert.measure}


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
            f"{row.work}: ours {row.ours_s:.2f} s, {row.against} {row.reference_s:.2f} s, "
            f"ratio {row.ratio:.2f} (must reach {row.must_reach}) {verdict}"
        )


if __name__ == "__main__":
    main()
