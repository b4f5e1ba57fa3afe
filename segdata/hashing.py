"""The only chance in segdata: salted hashes of ids, so that the same input gives the same bytes."""

from __future__ import annotations

import hashlib


def unit_hash(text: str, salt: str) -> float:
    """A number in [0, 1) that depends on ``text`` and ``salt`` alone: the first 53 bits of a sha256."""
    digest = hashlib.sha256(f"{salt}\0{text}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / (1 << 53)
