"""The bar that shows on a terminal while samples are worked through, with their rate and the time that is left."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm


def sample_bar(samples: int, what: str) -> Any:
    """A tqdm bar for so many samples, gone when it is closed; none where stderr is no terminal."""
    return tqdm(total=samples, desc=what, unit=" samples", leave=False, disable=None, dynamic_ncols=True)
