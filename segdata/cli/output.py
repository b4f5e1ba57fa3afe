"""How reports are shown: text for people, JSON for machines, both on stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec


def show(report: Any, text: Iterable[str], as_json: bool) -> None:
    """Print ``report`` as JSON, or the lines of ``text``."""
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(report, enc_hook=_plain), indent=2).decode())
    else:
        print("\n".join(map(one_line, text)))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return value.as_posix().encode("utf-8", "backslashreplace").decode()
    raise TypeError(f"{type(value)} in a report")


def note(text: str) -> None:
    """A line for people beside the result, on stderr."""
    print(f"note: {one_line(text)}", file=sys.stderr)


def one_line(text: str) -> str:
    """Names in a text may hold line breaks, and what a terminal obeys; shown as ``\\n``, ``\\x1b``."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shares(counts: Mapping[str, int]) -> str:
    """``"background 71.2 %, person 28.8 %"``."""
    total = sum(counts.values()) or 1
    return ", ".join(f"{name} {count / total:.1%}".replace("%", " %") for name, count in counts.items())


def table(rows: Iterable[tuple[object, ...]]) -> list[str]:
    """Rows as lines with aligned columns; numbers to the right."""
    text = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    numeric = [[isinstance(cell, int | float) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in text) for i in range(max(map(len, text)))]
    return [
        "  ".join(
            cell.rjust(widths[i]) if numeric[n][i] else cell.ljust(widths[i]) for i, cell in enumerate(row)
        ).rstrip()
        for n, row in enumerate(text)
    ]
