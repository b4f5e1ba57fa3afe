"""Records at random, without TensorFlow, against a plain read of the same files from beginning to end."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.material import Pairs, Row, best_of

_PIECE = 1 << 20


def at_random(pairs: Pairs, shards: Path) -> Row:
    """Every record once, in no order, checked against its CRC, in one process; the shards are open already."""
    command = [sys.executable, "-m", "tests.benchmarks.readers", str(shards)]
    ours_s, plain_s = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return Row(f"reading {pairs.count:,} records at random", ours_s, "reading the files in order", plain_s, 0.5)


def _read_both(folder: Path) -> list[float]:
    from segdata.shards import open_shards

    splits = [open_shards(folder, split) for split in ("train", "test")]
    numbers = [(shards, number) for shards in splits for number in range(len(shards))]
    random.Random(0).shuffle(numbers)

    def ours() -> None:
        for shards, number in numbers:
            shards.payload(number)

    def plain() -> None:
        for shards in splits:
            for shard in shards.files:
                with (folder / shard.file).open("rb", buffering=0) as file:
                    while file.read(_PIECE):
                        pass

    times = best_of(5, ours, plain)
    if "tensorflow" in sys.modules:
        raise RuntimeError("the reader imported TensorFlow")
    return times


if __name__ == "__main__":
    print(json.dumps(_read_both(Path(sys.argv[1]))))
