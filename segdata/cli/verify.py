"""segdata verify: what is wrong with a folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segdata.checks import Fault

_SHOWN_OF_A_FILE = 20


def verify(
    path: Annotated[Path, typer.Argument(help="A prepared dataset, a manifest or shards.")],
    jobs: options.Jobs = None,
    json: options.Json = False,
) -> None:
    """Read every byte, decode every picture, and name each fault; exit code 1 where there is one.

    Example: segdata verify shards/parts5
    """
    from segdata.jobs import verify as job

    report = job.verify(path, jobs)
    end = f"{report.checked} samples checked, {len(report.faults)} faults"
    output.show(report, [*_lines(report.faults), f"{path}: {report.kind}, {end}"], json)
    if report.faults:
        raise typer.Exit(1)


def _lines(faults: Sequence[Fault]) -> Iterator[str]:
    """The first faults of each file, and how many more it has; --json has them all."""
    counts = Counter[str]()
    for fault in faults:
        counts[fault.file] += 1
        if counts[fault.file] <= _SHOWN_OF_A_FILE:
            yield _line(fault)
    for file, count in counts.items():
        if count > _SHOWN_OF_A_FILE:
            yield f"{file}: and {count - _SHOWN_OF_A_FILE} more faults; --json lists them"


def _line(fault: Fault) -> str:
    where = [fault.file]
    if fault.record is not None:
        where.append(f"record {fault.record} at byte {fault.offset}")
    if fault.sample is not None:
        where.append(f"sample {fault.sample!r}")
    expected = f", expected {fault.expected}" if fault.expected else ""
    return f"{', '.join(where)}: {fault.what}{expected}"
