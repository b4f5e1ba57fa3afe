"""From shards to augmented batches of 256x256, and whether training waits for them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segdata.shards import IMAGE, MASK, SOURCE_ID, data, open_shards, parse, text
from tests.benchmarks.material import Row, best_of, prepare_pairs, segdata

_PAIRS, _BATCH, _STEPS = 2500, 8, 30


def measure(folder: Path) -> list[Row]:
    pairs = prepare_pairs(folder, _PAIRS)
    shards = folder / "shards"
    segdata("build-tfrecords", str(pairs.manifest), "--out", str(shards), "--size", "256", "--fit", "stretch")()
    _write_files(shards, folder)
    command = [sys.executable, "-m", "tests.benchmarks.inputs", str(shards), str(folder)]
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
    decode_s, light_s, portrait_s, peer_s, cached_s, fed_s = found
    samples = f"{len(open_shards(shards, 'train')):,} samples of 256x256"
    return [
        Row(f"light, batches: {samples}", light_s, "decoding them in tf.data alone", decode_s, 0.7),
        Row(f"portrait, batches: {samples}", portrait_s, "a Python generator with OpenCV", peer_s, 1.6),
        Row(f"{_STEPS} steps of likeunet, fed with light", fed_s, "the same on one batch", cached_s, 0.85),
    ]


def _write_files(shards: Path, folder: Path) -> None:
    """The same photos and masks as files, for the generator."""
    for name in ("photos", "labels"):
        (folder / name).mkdir()
    for where, payload in open_shards(shards, "train").payloads():
        values = parse(payload, where)
        name = text(values, SOURCE_ID, where)
        (folder / "photos" / name).write_bytes(data(values, IMAGE, where))
        (folder / "labels" / f"{name}.png").write_bytes(data(values, MASK, where))


def _measure(shards: Path, folder: Path) -> list[float]:
    decoding = best_of(3, _decoding(shards), _reading(shards, "light"))
    augmenting = best_of(3, _reading(shards, "portrait"), _generating(shards, folder))
    return [*decoding, *augmenting, *_stepping(shards)]


def _decoding(shards: Path) -> Callable[[], None]:
    """As TensorFlow's own guides write it: TFRecordDataset, a parallel map, batches."""
    import tensorflow as tf

    files = [str(shards / shard.file) for shard in open_shards(shards, "train").files]
    kinds = {key: tf.io.FixedLenFeature((), tf.string) for key in (IMAGE, MASK)}

    def decode(payload: Any) -> tuple[Any, Any]:
        values = tf.io.parse_single_example(payload, kinds)
        return tf.io.decode_jpeg(values[IMAGE], channels=3), tf.io.decode_png(values[MASK], channels=1)

    dataset = tf.data.TFRecordDataset(files).map(decode, tf.data.AUTOTUNE).batch(_BATCH).prefetch(tf.data.AUTOTUNE)
    return lambda: _exhaust(dataset)


def _reading(shards: Path, preset: str) -> Callable[[], None]:
    """As training is fed, on every backend."""
    return lambda: _exhaust(_batches(shards, preset))


def _batches(shards: Path, preset: str) -> Any:
    from segmodels.feeds import feed

    return feed(open_shards(shards, "train"), _inputs(shards, preset), _BATCH, _order())


def _inputs(shards: Path, preset: str) -> Any:
    from dataclasses import replace

    from segdata.records import read_index
    from segmodels.augment import augment
    from segmodels.inputs import plain_inputs

    return replace(plain_inputs(read_index(shards), shards), augment=augment(preset))


def _order() -> Any:
    from segdata.order import Order

    return Order(seed=0)


def _exhaust(dataset: Any) -> None:
    for _ in dataset:
        pass


def _generating(shards: Path, folder: Path) -> Callable[[], None]:
    from tests.benchmarks.scripts.opencv_generator import peer

    pairs = peer(folder / "photos", folder / "labels", _BATCH)
    number = len(open_shards(shards, "train")) // _BATCH

    def run() -> None:
        for _ in range(number):
            next(pairs)

    return run


def _stepping(shards: Path) -> list[float]:
    """Seconds of steps on one batch, and of as many with batches as they come."""
    from segmodels.losses import Objective
    from segmodels.models import build_model
    from segmodels.steps import make_optimizer, make_steps

    model = build_model("likeunet", 18)
    optimizer = make_optimizer("adam", 1e-3, 0, 1, False)
    optimizer.build(model.trainable_variables)
    steps = make_steps(model, optimizer, Objective())
    endless = itertools.chain.from_iterable(_batches(shards, "light") for _ in itertools.count())
    first = next(endless)
    steps.train(first.images, first.targets, 1e-3)  # traced

    def cached() -> None:
        for _ in range(_STEPS):
            steps.train(first.images, first.targets, 1e-3)

    def fed() -> None:
        for batch in itertools.islice(endless, _STEPS):
            steps.train(batch.images, batch.targets, 1e-3)

    return best_of(3, cached, fed)


if __name__ == "__main__":
    print(json.dumps(_measure(Path(sys.argv[1]), Path(sys.argv[2]))))
