"""segdata verify: what is wrong with a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segdata.checks import Fault


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
    output.show(report, [*map(_line, report.faults), f"{path}: {report.kind}, {end}"], json)
    if report.faults:
        raise typer.Exit(1)


def _line(fault: Fault) -> str:
    where = [fault.file]
    if fault.record is not None:
        where.append(f"record {fault.record} at byte {fault.offset}")
    if fault.sample is not None:
        where.append(f"sample {fault.sample!r}")
    expected = f", expected {fault.expected}" if fault.expected else ""
    return f"{', '.join(where)}: {fault.what}{expected}"
