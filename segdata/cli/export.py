"""segdata export: a trained network for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segmodels.export import ExportReport


def export(
    run: Annotated[Path, typer.Argument(help="A folder that train made.")],
    format_name: Annotated[
        Literal["keras", "saved_model", "onnx", "tflite", "tflite-float16", "tflite-int8", "coreml"],
        typer.Option("--format", help="What reads it; tflite-int8 takes and gives bytes."),
    ],
    out: Annotated[Path, typer.Option("--out", help="The file to write, for saved_model a folder; FILE.json beside.")],
    input_channels: Annotated[
        int | None,
        typer.Option(
            "--input-channels",
            help="1 grey, 3 RGB, 4 RGBA whose alpha is not looked at; the run's own where left out.",
            show_default=False,
        ),
    ] = None,
    shards: Annotated[
        Path | None,
        typer.Option(
            "--shards", help="Where the run's own shards lie, if not where run.json says.", show_default=False
        ),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Compare with the run on so many, 50 or more.")] = 64,
    min_parity: Annotated[
        float | None,
        typer.Option(
            "--min-parity",
            help="Fail below this mean IoU with the run's own network: 0.99 where left out, of int8 0.97.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Write a trained network for phones and other programs, with what they need to know in a JSON beside it.

    Example: segdata export runs/parts5 --format tflite-int8 --out app/person.tflite
    """
    from segmodels.export import ExportOptions
    from segmodels.export import export as job

    report = job(run, format_name, out, ExportOptions(input_channels, shards, samples, min_parity, overwrite))
    for text in report.notes:
        output.note(text)
    output.show(report, _lines(report), json)


def _lines(report: ExportReport) -> Iterator[str]:
    found = report.parity
    size = f"{report.out}: {report.file_bytes / 1e6:.2f} MB"
    if found is None:
        yield f"{size}, not compared with the run's own network"
    else:
        yield (
            f"{size}, mean IoU {found.mean_iou:.4f} with the run's own network over {found.samples} samples, "
            f"largest difference {found.max_abs_difference:.2g}, {found.median_latency_ms:.1f} ms a picture"
        )
    yield f"  {report.beside}"
