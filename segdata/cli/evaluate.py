"""segdata evaluate: how good a trained network is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segmodels.evaluate import EvaluateReport


def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that train made.")],
    shards: Annotated[Path, typer.Argument(help="Shards of the same label map and size.")],
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    json: options.Json = False,
) -> None:
    """Measure IoU over a split, and draw a sheet of pictures, truths and predictions into the run.

    Example: segdata evaluate runs/parts5 shards/parts5 --split test
    """
    from segmodels.evaluate import evaluate as job

    report = job(run, shards, split)
    for text in report.notes:
        output.note(text)
    output.show(report, _lines(report), json)


def _lines(report: EvaluateReport) -> Iterator[str]:
    found = report.scores
    yield f"{report.run}: {found.samples} samples of split {report.split}, over all their pixels together"
    rows = [(f"  IoU {name}", "absent" if value is None else f"{value:.4f}") for name, value in found.iou.items()]
    rows += [("  mean IoU", _number(found.mean_iou)), ("  pixel accuracy", _number(found.pixel_accuracy))]
    yield from output.table(rows)
    if found.absent:
        yield f"  left out of the mean, in neither truths nor predictions: {', '.join(found.absent)}"
    yield f"  sheet: {report.sheet}"


def _number(value: float | None) -> str:
    return "no pixel counts" if value is None else f"{value:.4f}"
