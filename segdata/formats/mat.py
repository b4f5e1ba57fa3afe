"""MATLAB's ``.mat`` files (version 5): masks and lists of numbers."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused
from segdata.formats.images import MAX_PIXELS
from segdata.formats.raw_pictures import Label

_NUMERIC = frozenset("double single int8 uint8 int16 uint16 int32 uint32 int64 uint64 logical".split())


def read_mat_label(data: bytes, key: str | None = None) -> Label:
    """The ids in the matrix ``key`` of a ``.mat`` file; for None in its only one.

    ImageRefused for what is no such file (version 7.3 too, which is HDF5), has no such matrix, or holds other values
    than whole numbers of 0 to 65535.
    """
    values = _matrix(data, key)
    if values.ndim != 2 or not values.size:
        raise ImageRefused("mask-mode", f"a matrix of shape {values.shape}, expected height x width")
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        raise ImageRefused("mask-mode", "a matrix of fractions, expected whole numbers")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageRefused("mask-mode", f"ids {low} to {high}, expected 0 to 65535")
    ids: npt.NDArray[Any] = np.ascontiguousarray(values, np.uint8 if high < 256 else np.uint16)
    return Label(ids, lossy=False)


def read_mat_numbers(data: bytes) -> list[int]:
    """The numbers in a ``.mat`` file's only matrix, in MATLAB's order. ImageRefused as in ``read_mat_label``."""
    return [int(value) for value in read_mat_label(data).values.ravel(order="F")]


def _matrix(data: bytes, key: str | None) -> npt.NDArray[Any]:
    import scipy.io  # here, since nothing but .mat files needs it

    try:
        found = {name: (shape, kind) for name, shape, kind in scipy.io.whosmat(io.BytesIO(data))}
        name = _wanted(found, key)
        shape, kind = found[name]
        if int(np.prod([float(side) for side in shape])) > MAX_PIXELS:
            raise ImageRefused("too-large", f"a matrix of shape {shape}, expected at most {MAX_PIXELS:,} pixels")
        if kind not in _NUMERIC:
            raise ImageRefused("mask-mode", f"{name!r} is of MATLAB's class {kind}, expected numbers")
        values: npt.NDArray[Any] = np.asarray(scipy.io.loadmat(io.BytesIO(data), variable_names=[name])[name])
    except ImageRefused:
        raise
    except NotImplementedError as error:
        raise ImageRefused("unreadable", "a .mat file of version 7.3 (HDF5); save it with -v7") from error
    except Exception as error:  # SciPy's reader fails in every way there is
        raise ImageRefused("unreadable", f"no .mat file that can be read: {error}") from error
    if values.dtype.kind not in "biuf":
        raise ImageRefused("mask-mode", f"{name!r} holds {values.dtype}, expected numbers")
    return values


def _wanted(found: Iterable[str], key: str | None) -> str:
    names = sorted(found)
    if key in names:
        return key
    if key is None and len(names) == 1:
        return names[0]
    held = ", ".join(map(repr, names)) or "nothing"
    raise ImageRefused("mask-mode", f"a .mat file that holds {held}, expected {repr(key) if key else 'one matrix'}")
