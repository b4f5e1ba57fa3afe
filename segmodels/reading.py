"""What a run reads and begins with: shards, weights, class weights; checked before anything is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segdata.errors import OptionError
from segdata.formats.files import sha256_file
from segdata.order import Order
from segdata.records import MANIFEST_JSON, Geometry, IndexRecord, read_index, read_manifest
from segdata.sample_files import split_lines
from segdata.shards import Shards, check_shard_sizes, check_split
from segmodels.cluster import Cluster
from segmodels.config import MATTE_CLASSES, TrainConfig
from segmodels.feeds import feed
from segmodels.inputs import Inputs, network_geometry, pairs_of, target_of
from segmodels.loop import padded
from segmodels.losses import balanced_weights, loss
from segmodels.models import model_card
from segmodels.steps import backend
from segmodels.validation import Batch


@dataclass(frozen=True)
class Start:
    """What a network begins with: ``weights`` of a file, and for its encoder ``imagenet`` or a file's.

    ``manifest`` is where class weights are counted; the one that the shards name where it is None.
    """

    weights: Path | None = None
    encoder_weights: str | None = None
    manifest: Path | None = None

    def sha256(self) -> tuple[str | None, str | None]:
        """What both are told by: the files by their sha256."""
        encoder = self.encoder_weights
        if encoder is not None and encoder != "imagenet":
            encoder = _file_sha256(Path(encoder), "--encoder-weights")
        return (None if self.weights is None else _file_sha256(self.weights, "--weights")), encoder


FROM_SCRATCH = Start()


def _file_sha256(path: Path, option: str) -> str:
    if not path.is_file():
        raise OptionError(f"{option} {path}: no such file.")
    return sha256_file(path)


@dataclass(frozen=True)
class Reading:
    """What a run reads and with what it begins, checked."""

    folder: Path
    index: IndexRecord
    inputs: Inputs
    samples: dict[str, int]
    config: TrainConfig
    start: Start
    started: tuple[str | None, str | None]
    class_weights: tuple[float, ...] | None
    cluster: Cluster

    @property
    def classes(self) -> tuple[str, ...]:
        """Names by id."""
        return self.index.label_map.names if self.index.label_map else MATTE_CLASSES

    @property
    def best_name(self) -> str:
        """The column of history.csv that the best epoch is chosen by."""
        if "validation" not in self.samples:
            return "loss"
        return "val_mean_iou" if self.inputs.target == "mask" else "val_mae"


def read_options(shards: Path, config: TrainConfig, start: Start, cluster: Cluster) -> Reading:
    """Everything that can be wrong and is known before the first batch."""
    card = model_card(config.model)
    loss(config.loss)
    index = read_index(shards)
    geometry = _geometry(index, shards, config)
    for size in (geometry.size, *config.size_buckets):
        if size is not None:
            card.check_size(*size, where=_named(size, config) or str(shards))
    check_split(index, "train", shards)
    check_shard_sizes(shards, index)
    counts = {split: sum(s.records for s in index.shards if s.split == split) for split in ("train", "validation")}
    if config.batch_size % cluster.size:
        raise OptionError(f"--batch-size {config.batch_size}: expected a multiple of the {cluster.size} workers.")
    if counts["train"] < cluster.size:
        raise OptionError(f"{shards}: {counts['train']} samples to train on, expected one for each worker at least.")
    if cluster.size > 1 and backend() != "tensorflow":
        raise OptionError(f"--workers: need KERAS_BACKEND=tensorflow, not {backend()!r}.")
    inputs = Inputs(
        stored=index.geometry,
        geometry=geometry,
        target=target_of(index),
        boundary=card.has_boundary,
        grey=config.grey,
        buckets=config.size_buckets,
        augment=config.augment,
        pairs=pairs_of(index),
        seed=config.seed,
    )
    if config.freeze_encoder and not (start.weights or start.encoder_weights):
        raise OptionError("--freeze-encoder: the encoder has random weights. Pass --encoder-weights or --weights.")
    weights = None
    if config.class_weights == "balanced":
        weights = balanced_weights(_class_pixels(shards, index, start.manifest))
    samples = {split: count for split, count in counts.items() if count}
    return Reading(shards, index, inputs, samples, config, start, start.sha256(), weights, cluster)


def _named(size: tuple[int, int], config: TrainConfig) -> str:
    """The option that a size is from, if any."""
    return "--size" if size == config.size else "--size-buckets" if size in config.size_buckets else ""


def _geometry(index: IndexRecord, shards: Path, config: TrainConfig) -> Geometry:
    """What is validated at: --size, else the shards' size, else the first of the buckets."""
    size = config.size
    if size is None and config.size_buckets:
        size = index.geometry.size or config.size_buckets[0]
    return network_geometry(index, shards, size, config.fit)


def _class_pixels(shards: Path, index: IndexRecord, manifest: Path | None) -> dict[str, int]:
    """Pixels by class in the split ``train``, as the manifest counts them in the photos' own sizes."""
    if index.label_map is None:
        raise OptionError("--class-weights: these shards hold mattes, which have no classes. Leave it out.")
    folder = manifest or (None if index.manifest.path is None else shards / index.manifest.path)
    if folder is None or not (folder / MANIFEST_JSON).is_file():
        raise OptionError(f"{shards}: its manifest, which counts the pixels, is not at {folder}. Pass --manifest.")
    if sha256_file(folder / MANIFEST_JSON) != index.manifest.sha256:
        raise OptionError(f"{folder}: is not the manifest that {shards} was built from. Pass that as --manifest.")
    record = read_manifest(folder)
    lines = record.splits["train"]
    if sha256_file(folder / lines.file) != lines.sha256:
        raise OptionError(f"{folder / lines.file}: was changed since `segdata split` wrote it. Run `segdata verify`.")
    pixels = dict.fromkeys(index.label_map.names, 0)
    for line in split_lines(folder, record, "train"):
        for name, count in (line.class_pixels or {}).items():
            if name in pixels:
                pixels[name] += count
    return pixels


def samples_by_step(data: Reading) -> list[int]:
    """How many samples all workers have together in each step of an epoch; the first worker has the most."""
    workers, batch = data.cluster.size, data.config.batch_size // data.cluster.size
    counts = [len(range(worker, data.samples["train"], workers)) for worker in range(workers)]
    return [sum(min(batch, max(0, count - at)) for count in counts) for at in range(0, counts[0], batch)]


def training_batches(data: Reading, epoch: int) -> Callable[[], Iterator[Batch]]:
    """A function that gives the batches of the next epoch each time it is called, from ``epoch`` (from 0) on."""
    cluster, size = data.cluster, data.config.batch_size // data.cluster.size
    epochs = itertools.count(epoch)
    shards = Shards(data.folder, data.index, "train")

    def read() -> Iterator[Batch]:
        order = Order(seed=data.config.seed, epoch=next(epochs), part=cluster.number, parts=cluster.size)
        mine = _fed(shards, data.inputs, size, order)
        return padded(mine, len(samples_by_step(data))) if cluster.size > 1 else mine

    return read


def validation_batches(data: Reading, batch_size: int) -> Callable[[], Iterator[Batch]]:
    """A function that gives the batches of the validation split, without anything random."""
    shards = Shards(data.folder, data.index, "validation")
    return partial(_fed, shards, data.inputs.plain(), batch_size, Order())


def _fed(shards: Shards, inputs: Inputs, batch_size: int, order: Order) -> Iterator[Batch]:
    """Not by tf.data: to come through it takes half as long again."""
    for batch in feed(shards, inputs, batch_size, order):
        yield batch.images, batch.targets, batch.ids
