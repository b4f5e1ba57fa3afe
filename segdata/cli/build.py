"""segdata build-tfrecords: a manifest to shards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segdata.jobs.build import BuildReport


def build_tfrecords(
    manifest: Annotated[Path, typer.Argument(help="A manifest that split made.")],
    out: options.Out,
    size: Annotated[
        str | None, typer.Option("--size", help="Side (256) or HEIGHTxWIDTH; pictures keep their own where left out.")
    ] = None,
    fit: Annotated[
        Literal["letterbox", "stretch", "none"] | None,
        typer.Option("--fit", help="How pictures get that size: letterbox (default) adds bars of the ignore index."),
    ] = None,
    shard_mb: Annotated[
        int | None,
        typer.Option(
            "--shard-mb", help="About this many MB per shard. Left out: at most 128, up to 8 shards of 16 or more."
        ),
    ] = None,
    shards: Annotated[int | None, typer.Option("--shards", help="Or this many shards per split.")] = None,
    check: Annotated[
        Literal["hash", "decode"], typer.Option("--check", help="Compare every file's sha256, or decode it again too.")
    ] = "hash",
    jobs: options.Jobs = None,
    engine: options.Engine = "local",
    address: options.Address = None,
    overwrite: options.Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print records, shards, bytes and free space; write nothing.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Write TFRecord shards that TensorFlow, TFDS and DeepLab's readers take as they are.

    Stopped at any moment, the same command goes on where it was.

    Example: segdata build-tfrecords manifests/parts5 --out shards/parts5 --size 256
    """
    from segdata.jobs import build as job
    from segdata.records import Geometry

    side = options.size(size)
    geometry = Geometry(size=side, fit=fit or ("letterbox" if side else "none"))
    wanted = job.BuildOptions(geometry, shard_mb, shards, check, jobs, overwrite, engine, address)
    report = job.plan(manifest, out, wanted) if dry_run else job.build(manifest, out, wanted)
    output.show(report, _lines(report), json)
    if report.would_fail:
        output.note(f"the command would fail: {report.would_fail}")


def _lines(report: BuildReport) -> Iterator[str]:
    is_plan = report.free_bytes is not None
    yield f"{report.out}:"
    yield from output.table(
        [
            (
                f"  {split}",
                report.records[split],
                "records in",
                report.shards[split],
                "shards, about" if is_plan else "shards,",
                f"{size / 1e6:,.1f} MB",
            )
            for split, size in report.bytes.items()
        ]
    )
    if report.free_bytes is not None:
        yield f"  free space  {report.free_bytes / 1e6:,.1f} MB; nothing was written"
    if report.reused == sum(report.shards.values()):
        yield "  all shards were there already, of the recorded sizes; `segdata verify` reads them"
    elif report.reused:
        yield f"  {report.reused} of these shards were there already"
