"""Which records of a split are read, and in which order: one value that every reader takes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segdata.errors import OptionError

_GAMMA = 0x9E3779B97F4A7C15  # odd, so that i * _GAMMA modulo 2**64 is another number for each i


@dataclass(frozen=True)
class Order:
    """One epoch over a split, or what is left of it, or one reader's part of that.

    ``seed`` None is the order of the shards (``epoch`` then changes nothing); with a seed each epoch is a permutation
    that (seed, epoch) alone decide, the same on every machine. ``start`` positions of the epoch, counted over all
    parts, are done already; of the rest this is every ``parts``-th from ``part`` on. So the parts of one epoch share
    no record and miss none, and an epoch goes on where it stopped with any other number of parts.

    OptionError for a value out of its bounds.
    """

    seed: int | None = None
    epoch: int = 0
    start: int = 0
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        for name, least in (("epoch", 0), ("start", 0), ("parts", 1), ("part", 0)):
            if getattr(self, name) < least:
                raise OptionError(f"{name} {getattr(self, name)}: expected {least} or more.")
        if self.part >= self.parts:
            raise OptionError(f"part {self.part}: expected less than parts, which is {self.parts}.")

    def numbers(self, records: int) -> npt.NDArray[np.int64]:
        """The record numbers, each in [0, ``records``), of a split of that many records, in reading order.

        OptionError where ``start`` is more than ``records``; as many means that nothing is left.
        """
        if self.start > records:
            raise OptionError(f"start {self.start}: expected at most {records}, the number of records.")
        if self.seed is None:
            numbers = np.arange(records, dtype=np.int64)
        else:
            numbers = np.argsort(_mixed(_key(self.seed, self.epoch), records)).astype(np.int64, copy=False)
        return numbers[self.start + self.part :: self.parts]


SHARD_ORDER = Order()  # every record once, as the shards have them


def _key(seed: int, epoch: int) -> int:
    """The first 64 bits of a sha256."""
    return int.from_bytes(hashlib.sha256(f"{seed}\0{epoch}".encode()).digest()[:8], "big")


def _mixed(key: int, count: int) -> npt.NDArray[np.uint64]:
    """SplitMix64 from ``key`` on: ``count`` numbers, no two of them equal, so that sorting them is exact.

    Source of the constants: Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014, with
    Stafford's variant 13 of the finaliser, as in Java's ``SplittableRandom``.
    """
    mixed = np.arange(count, dtype=np.uint64) * np.uint64(_GAMMA) + np.uint64(key)  # modulo 2**64, as all here
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
