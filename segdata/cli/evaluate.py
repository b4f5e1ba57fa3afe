"""segdata evaluate: how good a trained network is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segmodels.config import MatteScores, Scores
    from segmodels.evaluate import EvaluateReport

_TRUTHS = {"stored": "truth as stored", "enlarged": "truth enlarged"}


def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that train made.")],
    shards: Annotated[Path, typer.Argument(help="Shards of the same label map, of any size.")],
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    json: options.Json = False,
) -> None:
    """Measure a network over a split, at its own size and at the photos', and draw its confusions and worst samples.

    Example: segdata evaluate runs/parts5 shards/parts5 --split test
    """
    from segmodels.evaluate import evaluate as job

    report = job(run, shards, split)
    for text in report.notes:
        output.note(text)
    output.show(report, _lines(report), json)


def _lines(report: EvaluateReport) -> Iterator[str]:
    found, (height, width) = report.scores, report.size
    yield f"{report.run}: {found.network_size.samples} samples of split {report.split}"
    columns = [_column(found.network_size)]
    heads = [("network size", f"{height}x{width}")]
    if found.photo_size is not None:
        columns.append(_column(found.photo_size))
        heads.append(("photo size", _TRUTHS[found.photo_truth or "stored"]))
    rows = [(f"  {name}", *(column[name] for column in columns)) for name in columns[0]]
    yield from output.table([*(("", *line) for line in zip(*heads, strict=True)), *rows])
    if any("absent" in column.values() for column in columns):
        yield "  absent: in neither truths nor predictions, so left out of the means"
    for name, path in (
        ("confusion", report.confusion),
        ("worst samples", report.worst),
        ("first samples", report.sheet),
    ):
        if path is not None:
            yield f"  {name}: {path}"


def _column(found: Scores | MatteScores) -> dict[str, str]:
    """What stands in each row of the table, by the row's name."""
    from segmodels.config import MatteScores

    if isinstance(found, MatteScores):
        names = {"mean absolute error": found.mae, "mean squared error": found.mse, "gradient error": found.gradient}
        return {name: _number(value) for name, value in names.items()}
    return {
        **{f"IoU over all pixels, {name}": _number(value, "absent") for name, value in found.iou.items()},
        "mean IoU over all pixels": _number(found.mean_iou),
        "mean IoU per image, without background": _number(found.mean_image_iou),
        **{f"boundary IoU, {name}": _number(value, "absent") for name, value in found.boundary_iou.items()},
        "mean boundary IoU": _number(found.mean_boundary_iou),
        "pixel accuracy": _number(found.pixel_accuracy),
    }


def _number(value: float | None, missing: str = "no pixel counts") -> str:
    return missing if value is None else f"{value:.4f}"
