"""segdata export-coco: a prepared dataset's masks as a COCO instances file."""

from __future__ import annotations

import os
import shlex
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
    ignored = f", {report.crowds} of them crowds (ignored pixels)" if report.crowds else ""
    text = f"{out}: {report.annotations} annotations in {report.images} images{ignored}"
    names = [] if report.categories == ["person"] else [f"--category {shlex.quote(name)}" for name in report.categories]
    arguments = [shlex.quote(str(out)), "--images", shlex.quote(_shown(report.folder)), *names, "--out DIR"]
    output.show(report, [text, f"  read it back with  segdata convert coco {' '.join(arguments)}"], json)


def _shown(folder: Path) -> str:
    """A folder as seen from here, where that is possible (not from another drive)."""
    try:
        return os.path.relpath(folder)
    except ValueError:
        return str(folder)
