"""segdata stats: what is in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segdata.jobs.stats import SplitStats, StatsReport


def stats(
    path: Annotated[Path, typer.Argument(help="A prepared dataset, a manifest or shards.")],
    jobs: options.Jobs = None,
    json: options.Json = False,
) -> None:
    """Count samples, sizes and pixels by class, for each split.

    Example: segdata stats manifests/parts5
    """
    from segdata.jobs import stats as job

    report = job.stats(path, jobs)
    output.show(report, _lines(report), json)


def _lines(report: StatsReport) -> Iterator[str]:
    yield f"{report.path}: {report.kind} {report.name}"
    for split, found in report.splits.items():
        smallest, largest = (f"{size[1]}x{size[0]}" for size in (found.smallest, found.largest))
        yield (
            f"{split}: {found.samples:,} samples in {found.groups:,} groups, {smallest} to {largest} pixels, "
            f"photos {found.image_bytes / 1e6:.1f} MB"
        )
        yield from output.table(list(_classes(found))) if found.class_pixels else ()
        for i, count in enumerate(found.alpha):
            share = count / max(1, sum(found.alpha))
            yield f"  alpha {i / 10:.1f}-{(i + 1) / 10:.1f}  {share:6.1%}  {'#' * round(40 * share)}"
    for reason, count in report.rejected.items():
        yield f"rejected: {count} {reason}"


def _classes(found: SplitStats) -> Iterator[tuple[object, ...]]:
    yield "  class", "pixels", "share", "samples"
    for name, count in found.class_pixels.items():
        yield f"  {name}", count, f"{count / max(1, found.pixels):.2%}", found.class_samples[name]
    yield "  (ignored)", found.ignored, f"{found.ignored / max(1, found.pixels):.2%}", ""
