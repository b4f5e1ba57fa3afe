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
    """Draw 150 people, then convert, split, build, verify, train and evaluate, in about a minute.

    Example: segdata demo
    """
    from segdata.jobs import demo as job

    report = job.demo(folder, lambda text: print(text, file=sys.stderr, flush=True), overwrite)
    print(f"{folder}: person IoU {report.person_iou:.3f} on {report.test_samples} test pictures")
    print(f"Look at {folder / job.TRAIN_SHEET} and {folder / job.TEST_SHEET}, made as {job.COMMANDS} there says.")
