"""MATLAB's ``.mat`` files of version 5 (MATLAB's -v6 and -v7): masks and lists of numbers.

Read here and not by SciPy, which a single wrong byte can make end the whole process, or fill the memory. Layout:
MathWorks, "MAT-File Format" (2019), chapter 1, level 5.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import ImageRefused
from segdata.formats.images import MAX_PIXELS
from segdata.formats.raw_pictures import Label

_HEADER = 128  # bytes before the first element
_LEAD = 4096  # bytes of a matrix that hold its class, shape and name
_CLASSES = dict(enumerate("cell struct object char sparse double single int8 uint8 int16 uint16 int32".split(), 1))
_CLASSES |= {13: "uint32", 14: "int64", 15: "uint64", 16: "function", 17: "object"}
_NUMERIC, _OPAQUE = range(6, 16), 17
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_COMPLEX = 0x800


def read_mat_label(data: bytes, key: str | None = None) -> Label:
    """The ids in the matrix ``key`` of a ``.mat`` file; for None in its only one.

    ImageRefused for what is no such file (version 7.3 too, which is HDF5), has no such matrix, or holds other values
    than whole numbers of 0 to 65535.
    """
    values = _values(data, key)
    if not np.isfinite(values).all() or (values != np.floor(values)).any():
        raise ImageRefused("mask-mode", "a matrix of fractions, expected whole numbers")
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise ImageRefused("mask-mode", f"ids {low:.6g} to {high:.6g}, expected 0 to 65535")
    ids: npt.NDArray[Any] = np.ascontiguousarray(values, np.uint8 if high < 256 else np.uint16)
    return Label(ids, lossy=False)


def read_mat_numbers(data: bytes) -> list[int]:
    """The whole numbers in a ``.mat`` file's only matrix, in MATLAB's order. ImageRefused for anything else."""
    values = _values(data, None)
    if not np.isfinite(values).all() or (values != np.floor(values)).any() or values.min() < 0:
        raise ImageRefused("mask-mode", "a matrix of other values than whole numbers")
    return [int(value) for value in values.ravel(order="F")]


class _Damaged(Exception):
    """What is wrong with the bytes."""


@dataclass(frozen=True)
class _Matrix:
    """A matrix whose numbers are not read yet: they begin at ``at`` of ``content``, which may be compressed."""

    name: str
    kind: int
    is_complex: bool
    shape: tuple[int, ...]
    content: bytes
    is_compressed: bool
    at: int


def _values(data: bytes, key: str | None) -> npt.NDArray[Any]:
    order = _byte_order(data)
    try:
        return _numbers(_wanted(list(_matrices(data, order)), key), order)
    except _Damaged as error:
        raise ImageRefused("unreadable", f"a .mat file that is cut or damaged ({error})") from error
    except (struct.error, zlib.error) as error:
        raise ImageRefused("unreadable", "a .mat file that is cut or damaged") from error


def _byte_order(data: bytes) -> str:
    if data.startswith(b"\x89HDF") or data[124:128] in (b"\x00\x02IM", b"\x02\x00MI"):
        raise ImageRefused("unreadable", "a .mat file of version 7.3 (HDF5); save it with -v7")
    if data[124:128] == b"\x00\x01IM":
        return "<"
    if data[124:128] == b"\x01\x00MI":
        return ">"
    raise ImageRefused("unreadable", f"starts with {data[:8]!r}, which is no .mat file of version 5; save it with -v7")


def _matrices(data: bytes, order: str) -> Iterator[_Matrix]:
    at = _HEADER
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        content = data[at + 8 : at + 8 + size]
        at += 8 + size
        if len(content) < size:
            raise _Damaged(f"{size:,} bytes announced, {len(content):,} there")
        is_compressed = kind == _COMPRESSED
        lead = zlib.decompressobj().decompress(content, _LEAD) if is_compressed else content[:_LEAD]
        start = 0
        if is_compressed:
            kind, start = struct.unpack_from(f"{order}I", lead)[0], 8
        if kind != _MATRIX:
            raise _Damaged(f"type {kind} where a matrix is expected")
        yield _lead(lead, start, order, content, is_compressed)


def _lead(lead: bytes, start: int, order: str, content: bytes, is_compressed: bool) -> _Matrix:
    """Class, shape and name, which stand before a matrix's numbers."""
    _, flags, at = _part(lead, start, order)
    (flag,) = struct.unpack_from(f"{order}I", flags)
    kind = flag & 0xFF
    shape: tuple[int, ...] = ()
    if kind != _OPAQUE:  # such an object has no shape
        _, sides, at = _part(lead, at, order)
        shape = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    _, name, at = _part(lead, at, order)
    return _Matrix(name.decode("latin-1"), kind, bool(flag & _COMPLEX), shape, content, is_compressed, at)


def _part(data: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """The type and the bytes of the element at ``at``, and where the next begins."""
    (kind,) = struct.unpack_from(f"{order}I", data, at)
    if kind >> 16:  # a short element: size, type and at most 4 bytes in 8
        kind, size, start, end = kind & 0xFFFF, kind >> 16, at + 4, at + 8
        if size > 4:
            raise _Damaged(f"{size} bytes in a short element")
    else:
        (size,) = struct.unpack_from(f"{order}I", data, at + 4)
        start, end = at + 8, at + 8 + -(-size // 8) * 8
    content = data[start : start + size]
    if len(content) < size:
        raise _Damaged(f"{size:,} bytes announced, {len(content):,} there")
    return kind, content, end


def _wanted(found: list[_Matrix], key: str | None) -> _Matrix:
    named = [matrix for matrix in found if matrix.name]  # what has no name is MATLAB's own
    fitting = [matrix for matrix in named if key in (None, matrix.name)]
    if len(fitting) == 1:
        return fitting[0]
    names = sorted(matrix.name for matrix in named)
    held = ", ".join(map(repr, names[:6])) + (", ..." if len(names) > 6 else "") or "nothing"
    wanted = "one matrix" if key is None else f"one {key!r}"
    hint = "; `convert pairs --mask-key` names one" if key is None and len(named) > 1 else ""
    raise ImageRefused("mask-mode", f"a .mat file that holds {held}, expected {wanted}{hint}")


def _numbers(matrix: _Matrix, order: str) -> npt.NDArray[Any]:
    if matrix.kind not in _NUMERIC or matrix.is_complex:
        kind = "complex" if matrix.is_complex else _CLASSES.get(matrix.kind, matrix.kind)
        raise ImageRefused("mask-mode", f"{matrix.name!r} is of MATLAB's class {kind}, expected numbers")
    if len(matrix.shape) != 2 or 0 in matrix.shape:
        raise ImageRefused("mask-mode", f"a matrix of shape {matrix.shape[:6]}, expected height x width")
    if min(matrix.shape) < 0:
        raise _Damaged(f"a matrix of shape {matrix.shape}")
    count = math.prod(matrix.shape)
    if count > MAX_PIXELS:
        raise ImageRefused("too-large", f"a matrix of shape {matrix.shape}, expected at most {MAX_PIXELS:,} pixels")
    content = _decompressed(matrix.content, matrix.at + 16 + 8 * count) if matrix.is_compressed else matrix.content
    kind, numbers, _ = _part(content, matrix.at, order)
    if kind not in _NUMBERS:
        raise _Damaged(f"numbers of type {kind}")
    dtype = np.dtype(order + _NUMBERS[kind])
    if len(numbers) != count * dtype.itemsize:
        raise _Damaged(f"{len(numbers):,} bytes of numbers in a matrix of shape {matrix.shape}")
    values: npt.NDArray[Any] = np.frombuffer(numbers, dtype).reshape(matrix.shape, order="F")
    return values


def _decompressed(content: bytes, most: int) -> bytes:
    """At most ``most`` bytes; one that has more, or whose checksum is wrong or missing, is damaged."""
    stream = zlib.decompressobj()
    found = stream.decompress(content, most + 1)
    if not stream.eof or len(found) > most:
        raise _Damaged("its compressed numbers are cut, or more than its shape has room for")
    return found
