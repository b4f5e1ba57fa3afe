"""segdata export-coco: a prepared dataset's masks as a COCO instances file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from segdata.cli import options, output


def export_coco(
    dataset: Annotated[Path, typer.Argument(help="A prepared dataset of masks.")],
    out: Annotated[Path, typer.Option("--out", help="The JSON to write.")],
    per: Annotated[
        Literal["person", "image"],
        typer.Option("--per", help="An annotation for each connected region, or for each class of an image."),
    ] = "person",
    jobs: options.Jobs = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Write masks as COCO annotations (compressed RLE); `segdata convert coco` reads the same masks back.

    Example: segdata export-coco prepared/parts5 --out parts5.json
    """
    from segdata.jobs import export_coco as job

    report = job.export_coco(dataset, out, per, jobs, overwrite)
    ignored = f", {report.ignored_regions} of them ignored regions" if report.ignored_regions else ""
    text = f"{out}: {report.annotations} annotations in {report.images} images{ignored}"
    back = f"  read it back with  segdata convert coco {out} --images {os.path.relpath(report.folder)}"
    output.show(report, [text, back], json)
