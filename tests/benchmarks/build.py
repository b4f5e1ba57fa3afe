"""build-tfrecords, verify and reading at random, on 8,000 pairs of 75 kB (600 MB), against floors and peers.

``SEGDATA_BENCH_PAIRS`` sets another number of pairs, for a quick look. The scripts in the folder beside this file are
what others do with the same pairs, each a whole process: ``python SCRIPT PHOTOS MASKS OUT``. Nobody's clock runs while
the last folder is removed, and the page cache is warm.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import codecs, readers
from tests.benchmarks.material import Pairs, Row, best_of, prepare_pairs, process, segdata

_PAIRS = int(os.environ.get("SEGDATA_BENCH_PAIRS", "8000"))
_SCRIPTS = Path(__file__).with_name("scripts")
# How the table names it, its script, what ours must reach, how often it runs: what takes long varies little.
_PEERS = (
    ("read, CRC-32C and write in one process", "crc_and_write.py", 1 / 3.5, 3),
    ("webdataset's ShardWriter", "webdataset_writer.py", 1.0, 3),
    ("MosaicML's MDSWriter with sha1", "mds_writer.py", 1.0, 3),
    ("TFDS's builder", "tfds_builder.py", 2.0, 2),
    ("cv2.imread, tf.train.Example, TFRecordWriter", "cv2_and_tf.py", 8.0, 2),
)


def measure(folder: Path) -> list[Row]:
    pairs = prepare_pairs(folder / "pairs", _PAIRS)
    fewer = prepare_pairs(folder / "fewer", _PAIRS // 4)
    out = folder / "out"
    shards = folder / "shards"
    rows = [*_pass_through(pairs, out), codecs.checking(pairs, out), codecs.resizing(fewer, out)]
    segdata("build-tfrecords", str(pairs.manifest), "--out", str(shards))()
    return [*rows, codecs.verifying(pairs, shards), readers.at_random(pairs, shards)]


def _pass_through(pairs: Pairs, out: Path) -> list[Row]:
    ours = segdata("build-tfrecords", str(pairs.manifest), "--out", str(out))
    few = _few(pairs, 2)
    best, reached = float("inf"), {}
    for turns in (3, 2):
        peers = {name: script for name, script, _, runs in _PEERS if runs == turns and _is_installed(script, few, out)}
        works = [_script(script, pairs.photos, pairs.masks, out) for script in peers.values()]
        ours_s, *theirs = best_of(turns, ours, *works, remove=out)
        best = min(best, ours_s)
        reached |= dict(zip(peers, theirs, strict=True))
    work = f"build-tfrecords of {pairs.count:,} pairs as they are"
    return [Row(work, best, name, reached.get(name), limit) for name, _, limit, _ in _PEERS]


def _script(name: str, photos: Path, masks: Path, out: Path) -> Callable[[], None]:
    return process(str(_SCRIPTS / name), str(photos), str(masks), str(out))


def _few(pairs: Pairs, count: int) -> tuple[Path, Path]:
    """Folders with the first photos and masks."""
    folders = pairs.root / "few-photos", pairs.root / "few-masks"
    for source, folder in zip((pairs.photos, pairs.masks), folders, strict=True):
        folder.mkdir()
        for path in sorted(source.iterdir())[:count]:
            (folder / path.name).write_bytes(path.read_bytes())
    return folders


def _is_installed(script: str, few: tuple[Path, Path], out: Path) -> bool:
    """Whether a peer can be imported, by a run on a few pairs; any other failure is one of its script."""
    try:
        best_of(1, _script(script, *few, out), remove=out)
    except RuntimeError as error:
        if "ModuleNotFoundError" in str(error) or "ImportError" in str(error):
            return False
        raise
    return True
