"""What decodes and encodes, against the codecs alone: one process per core, whose start-up counts, as ours does."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import cv2
import numpy as np

from tests.benchmarks.material import Pairs, Row, best_of, segdata

_PROCESSES = os.cpu_count() or 1
_SIDE = 512


def checking(pairs: Pairs, out: Path) -> Row:
    """Every picture decoded again, as ``--check decode`` asks."""
    ours = segdata("build-tfrecords", str(pairs.manifest), "--out", str(out), "--check", "decode")
    work = f"build-tfrecords --check decode of {pairs.count:,} pairs"
    times = best_of(2, ours, _floor("decode", pairs.photos, pairs.masks), remove=out)
    return Row(work, times[0], "decoding the same files", times[1], 0.8)


def resizing(pairs: Pairs, out: Path) -> Row:
    """Every picture decoded, fitted and encoded."""
    ours = segdata("build-tfrecords", str(pairs.manifest), "--out", str(out), "--size", str(_SIDE))
    work = f"build-tfrecords --size {_SIDE} of {pairs.count:,} pairs"
    times = best_of(2, ours, _floor("resize", pairs.photos, pairs.masks), remove=out)
    return Row(work, times[0], "read, decode, resize, encode", times[1], 0.8)


def verifying(pairs: Pairs, shards: Path) -> Row:
    """Every byte of the shards hashed, every picture in them decoded."""
    places = shards.with_name("places.json")
    places.write_text(json.dumps(_places(shards)), encoding="utf-8")
    times = best_of(2, segdata("verify", str(shards)), _floor("verify", places))
    return Row(f"verify of shards with {pairs.count:,} pairs", times[0], "sha256 and decoding", times[1], 0.7)


def _places(folder: Path) -> list[tuple[str, list[int]]]:
    """For each record: its file, and where it, its image and its mask begin and end there."""
    from segdata.shards import IMAGE, MASK, open_shards, parse

    places = []
    for split in ("train", "test"):
        reader = open_shards(folder, split)
        payloads = reader.payloads()
        for shard in reader.files:
            at = 0
            for _ in range(shard.records):
                where, payload = next(payloads)
                values = parse(payload, where)
                parts = [(at + 12 + payload.find(values[key]), len(values[key])) for key in (IMAGE, MASK)]
                record = (at, len(payload) + 16)
                spans = list(chain.from_iterable((start, start + length) for start, length in (record, *parts)))
                places.append((str(folder / shard.file), spans))
                at += len(payload) + 16
    return places


def _floor(work: str, *paths: Path) -> Callable[[], None]:
    def run() -> None:
        command = [sys.executable, "-m", "tests.benchmarks.codecs", work, *map(str, paths)]
        running = [subprocess.Popen([*command, str(part)]) for part in range(_PROCESSES)]
        if any(status != 0 for status in [process.wait() for process in running]):
            raise RuntimeError(f"a process of the floor {work} failed")

    return run


# ---- in the floors' processes, each with its part of the records -----------------------------------------------------


def _decode(photos: str, masks: str, part: int) -> None:
    for photo in sorted(Path(photos).iterdir())[part::_PROCESSES]:
        for path in (photo, Path(masks, f"{photo.stem}.png")):
            _pixels(path.read_bytes())


def _resize(photos: str, masks: str, part: int) -> None:
    from segdata.formats.images import JPEG_QUALITY, encode_mask
    from segdata.transforms.resize import letterbox_box

    for photo in sorted(Path(photos).iterdir())[part::_PROCESSES]:
        image, mask = _pixels(photo.read_bytes()), _pixels(Path(masks, f"{photo.stem}.png").read_bytes())
        x, y, w, h = letterbox_box(*mask.shape, (_SIDE, _SIDE))
        fitted = np.full((_SIDE, _SIDE, 3), 128, np.uint8), np.full((_SIDE, _SIDE), 255, np.uint8)
        shrinks = w * h < mask.size
        smooth = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        for pixels, canvas, way in zip((image, mask), fitted, (smooth, cv2.INTER_NEAREST), strict=True):
            canvas[y : y + h, x : x + w] = cv2.resize(pixels, (w, h), interpolation=way)
        cv2.imencode(".jpg", fitted[0], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
        encode_mask(fitted[1])


def _verify(places: str, part: int) -> None:
    digest = hashlib.sha256()
    files = {}
    for name, (start, end, *parts) in json.loads(Path(places).read_bytes())[part::_PROCESSES]:
        if name not in files:
            files[name] = Path(name).open("rb", buffering=0)  # noqa: SIM115 - the process ends with them
        files[name].seek(start)
        record = files[name].read(end - start)
        digest.update(record)
        for at in (0, 2):
            _pixels(record[parts[at] - start : parts[at + 1] - start])


def _pixels(data: bytes) -> np.ndarray:
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise RuntimeError("a picture does not decode")
    return pixels


if __name__ == "__main__":
    cv2.setNumThreads(1)
    {"decode": _decode, "resize": _resize, "verify": _verify}[sys.argv[1]](*sys.argv[2:-1], int(sys.argv[-1]))
