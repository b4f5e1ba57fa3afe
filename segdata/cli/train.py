"""segdata train: a network on shards."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segmodels.train import TrainReport


def train(
    shards: Annotated[Path, typer.Argument(help="Shards that build-tfrecords made.")],
    model: Annotated[str, typer.Option("--model", help="The network; see `segdata models`.")],
    out: options.Out,
    epochs: Annotated[int, typer.Option("--epochs", help="How often every training sample is seen.")] = 30,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Samples in one step, over all devices.")] = 8,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="The highest of the schedule.")] = 1e-3,
    augment: Annotated[
        str, typer.Option("--augment", help="none, light, portrait, or a FILE.toml; `segdata preview` shows it.")
    ] = "light",
    size: Annotated[
        str | None,
        typer.Option("--size", help="Letterbox to 256 or HEIGHTxWIDTH on the fly; the shards' size if left out."),
    ] = None,
    size_buckets: Annotated[
        str | None,
        typer.Option("--size-buckets", help="Sizes such as 384x512,512x384: each batch has one of them by chance."),
    ] = None,
    fit: Annotated[
        str, typer.Option("--fit", help="letterbox or stretch, with --size or --size-buckets.")
    ] = "letterbox",
    grey: Annotated[bool, typer.Option("--grey", help="Train on grey pictures, one channel.")] = False,
    loss: Annotated[
        str,
        typer.Option(
            "--loss",
            help="cross_entropy, binary_cross_entropy, dice, bce_dice, jaccard, focal, ce_dice_focal_mse or l1.",
        ),
    ] = "cross_entropy",
    class_weights: Annotated[
        str, typer.Option("--class-weights", help="none, or balanced by the manifest's pixel counts.")
    ] = "none",
    optimizer: Annotated[str, typer.Option("--optimizer", help="adam, adamw or sgd.")] = "adam",
    weight_decay: Annotated[
        float | None, typer.Option("--weight-decay", help="Of adamw; 0.004 if left out.", show_default=False)
    ] = None,
    schedule: Annotated[
        str,
        typer.Option("--schedule", help="Of the learning rate, after a short warm-up: cosine, constant or plateau."),
    ] = "cosine",
    clip_norm: Annotated[
        float, typer.Option("--clip-norm", help="The most that the gradient's norm may be; 0: any.")
    ] = 1,
    early_stopping: Annotated[
        int, typer.Option("--early-stopping", help="End after so many epochs without a better one; 0: never.")
    ] = 0,
    mixed_precision: Annotated[
        str, typer.Option("--mixed-precision", help="Compute in float16 (most GPUs) or bfloat16 (newer ones).")
    ] = "float32",
    encoder: Annotated[str | None, typer.Option("--encoder", help="Of deeplabv3plus; see `segdata models`.")] = None,
    encoder_weights: Annotated[
        str | None, typer.Option("--encoder-weights", help="imagenet (fetched by Keras), or a file that has them.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="Begin with these: a run's best.keras, .weights.h5 or legacy .h5.")
    ] = None,
    freeze_encoder: Annotated[
        bool, typer.Option("--freeze-encoder", help="Leave the encoder's weights as they are.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was stopped, after its last whole epoch.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of first weights, order of samples, augmentation, dropout.")] = 0,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", help="For --class-weights: the shards' manifest, where it was moved.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option("--workers", help="Machines that train together, as HOST:PORT,HOST:PORT; the first writes --out."),
    ] = None,
    worker: Annotated[int | None, typer.Option("--worker", help="The number of this machine in --workers.")] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Train a network; keep the weights with the best IoU on the validation split.

    Example: segdata train shards/parts5 --model likeunet --augment portrait --out runs/parts5
    """
    from segmodels.augment import augment as augment_from
    from segmodels.cluster import cluster_from
    from segmodels.config import TrainConfig
    from segmodels.reading import Start
    from segmodels.train import train as job

    config = TrainConfig(
        model=model,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        loss=loss,
        class_weights=class_weights,
        optimizer=optimizer,
        weight_decay=weight_decay,
        schedule=schedule,
        clip_norm=clip_norm,
        early_stopping=early_stopping,
        augment=augment_from(augment),
        size=options.size(size),
        size_buckets=options.sizes(size_buckets),
        fit=fit,
        grey=grey,
        encoder=encoder,
        freeze_encoder=freeze_encoder,
        mixed_precision=mixed_precision,
    )
    cluster = cluster_from(workers, worker, os.environ)
    start = Start(weights, encoder_weights, manifest)
    report = job(shards, out, config, overwrite, _note, start, resume, cluster)
    for text in report.notes:
        _note(f"note: {text}")
    if cluster.is_chief:
        output.show(report, [_line(report)], json)
    else:
        _note(f"worker {cluster.number} of {cluster.size}: done; {cluster.workers[0]} wrote the run.")


def _line(report: TrainReport) -> str:
    best = f"best epoch {report.best_epoch} of {report.epochs}, {report.best_name} {report.best_value:.4f}"
    return f"{report.run}: {report.model}, {report.parameters:,} parameters, {best}"


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
