"""segdata salvage: the sound records of damaged TFRecord files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segdata.jobs.salvage import LostStretch, SalvagedFile

_SHOWN = 20


def salvage(
    damaged: Annotated[list[Path], typer.Argument(metavar="FILE", help="TFRecord files, of any program.")],
    out: options.Out,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Copy every sound record out of damaged TFRecord files, and say what was lost where.

    Example: segdata salvage train.tfrecord validation.tfrecord --out salvaged
    """
    from segdata.jobs import salvage as job

    report = job.salvage(damaged, out, overwrite)
    output.show(report, (line for file in report.files for line in _lines(file)), json)


def _lines(file: SalvagedFile) -> Iterator[str]:
    yield f"{file.file}: {file.records:,} records kept, {len(file.lost):,} stretches lost"
    yield from map(_line, file.lost[:_SHOWN])
    if len(file.lost) > _SHOWN:
        yield f"  and {len(file.lost) - _SHOWN:,} more: salvage.json has them all"


def _line(lost: LostStretch) -> str:
    place = "before the first record" if lost.after_record is None else f"behind record {lost.after_record}"
    several = f" ({lost.records:,} records)" if lost.records > 1 else ""
    return f"  lost {lost.bytes:,} bytes{several} at byte {lost.offset:,} {place}: {lost.what}"
