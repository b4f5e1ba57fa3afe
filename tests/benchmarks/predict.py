"""A folder of photos through a network, against the network alone on pictures that are fitted and in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.material import Row, best_of, draw_pairs, prepare_pairs, segdata

_PHOTOS, _BATCH, _TRAINED = 500, 8, 20
_MODELS = (("likeunet_light", "256"), ("likeunet", "512"))


def measure(folder: Path) -> list[Row]:
    pairs = prepare_pairs(folder / "few", _TRAINED)
    draw_pairs(folder / "many", _PHOTOS, distinct=100)
    photos = folder / "many" / "JPEGImages"
    rows = []
    for model, size in _MODELS:
        shards, run = folder / f"shards-{model}", folder / f"run-{model}"
        segdata("build-tfrecords", str(pairs.manifest), "--out", str(shards), "--size", size)()
        _untrained(shards, run, model)
        command = [sys.executable, "-m", "tests.benchmarks.predict", str(run), str(photos), str(folder)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.splitlines()[-1])
        work = f"predict of {_PHOTOS} photos of 600x400 by {model} at {size}"
        rows += [
            Row(f"{work}: {saves}", seconds, "the network alone", found["alone"], 0.9)
            for saves, seconds in found.items()
            if saves != "alone"
        ]
    return rows


def _untrained(shards: Path, run: Path, model: str) -> None:
    """A run of one epoch over nothing much: how good the network is does not matter here."""
    segdata("train", str(shards), "--model", model, "--out", str(run), "--epochs", "1", "--augment", "none")()


def _measure(run: Path, photos: Path, folder: Path) -> dict[str, float]:
    from segdata.formats.raw_pictures import read_rgb
    from segmodels.networks import open_network
    from segmodels.predicting.media import find
    from segmodels.predicting.photos import fitted
    from segmodels.predicting.rendering import Look

    network, items = open_network(run), find([str(photos)]).items[:_PHOTOS]
    pictures = [fitted(read_rgb(item.path.read_bytes()), network) for item in items]
    batches = [np.stack(pictures[at : at + _BATCH]) for at in range(0, len(pictures), _BATCH)]

    def alone() -> None:
        for batch in batches:
            network.shares(batch)

    looks = {"mask": Look(("mask",)), "mask and overlay": Look()}
    works = [alone, *(_predicting(network, items, look, folder) for look in looks.values())]
    for batch in (batches[0], batches[-1]):  # traced; the disk's cache is warm too
        network.shares(batch)
    return dict(zip(["alone", *looks], best_of(3, *works), strict=True))


def _predicting(network: Any, items: Any, look: Any, folder: Path) -> Callable[[], None]:
    from segmodels.predicting.photos import predict_photos

    out = folder / "predicted"
    for save in look.saves:
        (out / save).mkdir(parents=True, exist_ok=True)

    def run() -> None:
        for line in predict_photos(network, items, look, out, _BATCH):
            assert line.reason is None

    return run


if __name__ == "__main__":
    print(json.dumps(_measure(*map(Path, sys.argv[1:4]))))
