"""Memory that a thread keeps from sample to sample: asking the system for it each time takes longer than the work."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

_kept = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    """An array of that shape with anything in it; the next call of this thread for ``name`` may return the same one."""
    found: npt.NDArray[Any] | None = getattr(_kept, name, None)
    if found is None or found.shape != shape:
        found = np.empty(shape, dtype)
        setattr(_kept, name, found)
    return found
