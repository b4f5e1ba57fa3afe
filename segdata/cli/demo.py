"""segdata demo: everything, on drawn people."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from segdata.cli import options


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder for everything that the demo makes.")] = Path("segdata-demo"),
    overwrite: options.Overwrite = False,
) -> None:
    """Draw 150 people, then convert, split, build, verify, train, evaluate, predict and export, in about a minute.

    Example: segdata demo
    """
    from segdata.jobs import demo as job

    report = job.demo(folder, lambda text: print(text, file=sys.stderr, flush=True), overwrite)
    print(f"{folder}: person IoU {report.person_iou:.3f} on {report.test_samples} test pictures")
    shown = ", ".join(str(folder / name) for name in (job.TRAIN_SHEET, job.TEST_SHEET, job.PREDICTED))
    print(f"Look at {shown}, made as {job.COMMANDS} there says.")
