"""segdata rebuild: the damaged shards of a folder, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segdata.cli import options, output


def rebuild(
    shards: Annotated[Path, typer.Argument(help="A folder of shards that build-tfrecords made.")],
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="Where its manifest lies now, if not where it was.")
    ] = None,
    jobs: options.Jobs = None,
    json: options.Json = False,
) -> None:
    """Make the damaged or missing shards again from the manifest, to the same bytes; all others stay untouched.

    Example: segdata rebuild shards/parts5
    """
    from segdata.jobs import rebuild as job

    report = job.rebuild(shards, manifest, jobs)
    text = f"{shards}: {report.shards} shards read, {len(report.rebuilt)} files made again"
    output.show(report, [text, *(f"  {name}" for name in report.rebuilt)], json)
