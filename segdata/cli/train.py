"""segdata train: a network on shards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from segdata.cli import options, output


def train(
    shards: Annotated[Path, typer.Argument(help="Shards that build-tfrecords made with --size.")],
    model: Annotated[str, typer.Option("--model", help="The network; see `segdata models`.")],
    out: options.Out,
    epochs: Annotated[int, typer.Option("--epochs", help="How often every training sample is seen.")] = 30,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Samples in one step.")] = 8,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Adam's learning rate.")] = 1e-3,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the first weights and of the order of samples.")] = 0,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Train a network; keep the weights with the best IoU on the validation split.

    Example: segdata train shards/parts5 --model likeunet --out runs/parts5
    """
    from segmodels.config import TrainConfig
    from segmodels.train import train as job

    config = TrainConfig(model, epochs, batch_size, learning_rate, seed)
    report = job(shards, out, config, overwrite, _note)
    for text in report.notes:
        _note(f"note: {text}")
    best = f"best epoch {report.best_epoch} of {report.epochs}, {report.best_name} {report.best_value:.4f}"
    output.show(report, [f"{out}: {report.model}, {report.parameters:,} parameters, {best}"], json)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
