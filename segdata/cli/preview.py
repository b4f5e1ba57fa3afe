"""segdata preview: look at a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segdata.cli import options, output


def preview(
    path: Annotated[Path, typer.Argument(help="A prepared dataset, a manifest or shards.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    count: Annotated[int, typer.Option("--count", help="How many samples.")] = 24,
    split: options.Split = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Draw a sheet of samples: photo, mask in the label map's colours, and the two together.

    Example: segdata preview shards/parts5 --split train --out sheet.png
    """
    from segdata.jobs import preview as job

    report = job.preview(path, out, count, split, overwrite)
    output.show(report, [f"{out}: {report.shown} of {report.total} samples"], json)
