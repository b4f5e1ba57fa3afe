"""segdata build-tfrecords: a manifest to shards."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segdata.cli import options, output


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
    shard_mb: Annotated[int, typer.Option("--shard-mb", help="About this many MB per shard.")] = 128,
    shards: Annotated[int | None, typer.Option("--shards", help="Or this many shards per split.")] = None,
    check: Annotated[
        Literal["hash", "decode"], typer.Option("--check", help="Compare every file's sha256, or decode it again too.")
    ] = "hash",
    jobs: options.Jobs = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Write TFRecord shards that TensorFlow, TFDS and DeepLab's readers take as they are.

    Example: segdata build-tfrecords manifests/parts5 --out shards/parts5 --size 256
    """
    from segdata.jobs import build as job
    from segdata.records import Geometry

    side = options.size(size)
    geometry = Geometry(size=side, fit=fit or ("letterbox" if side else "none"))
    report = job.build(manifest, out, job.BuildOptions(geometry, shard_mb, shards, check, jobs, overwrite))
    rows = [
        (f"  {split}", report.records[split], "records in", report.shards[split], "shards,", f"{size / 1e6:.1f} MB")
        for split, size in report.bytes.items()
    ]
    output.show(report, [f"{out}:", *output.table(rows)], json)
