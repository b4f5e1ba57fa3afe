"""``tf.train.Example`` without TensorFlow: a flat table of bytes and int64 features.

Wire format (protocol buffers, ``tensorflow/core/example/example.proto`` and ``feature.proto``): Example {features = 1};
Features {map<string, Feature> feature = 1}; Feature {bytes_list = 1 | float_list = 2 | int64_list = 3};
each list {value = 1}.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

from segdata.errors import RecordError

Value = bytes | int
_BYTES_LIST, _INT64_LIST = 1, 3
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def encode(features: Mapping[str, Value]) -> bytes:
    """A serialised Example; features in the order of their names, one value each. Integers lie in [0, 2**63)."""
    parts: list[bytes] = []  # put together once: the pictures in them are large
    size = 0
    for key in sorted(features):
        size += _add_entry(parts, key, features[key])
    return b"".join([_head(1, size), *parts])


def _add_entry(parts: list[bytes], key: str, value: Value) -> int:
    """Append one entry of the table of features; how many bytes it has. Lengths are known from the inside out."""
    if isinstance(value, bytes):
        kind, values, body = _BYTES_LIST, _head(1, len(value)), value
    else:
        body = _varint(value)
        kind, values = _INT64_LIST, _head(1, len(body))
    of_list = _head(kind, len(values) + len(body))
    of_feature = _head(2, len(of_list) + len(values) + len(body))
    of_key = _key(key)
    size = len(of_key) + len(of_feature) + len(of_list) + len(values) + len(body)
    head = _head(1, size)
    parts += (head, of_key, of_feature, of_list, values, body)
    return len(head) + size


@lru_cache(256)
def _key(key: str) -> bytes:
    data = key.encode("utf-8")
    return _head(1, len(data)) + data


def _head(number: int, size: int) -> bytes:
    """What stands before a field of ``size`` bytes."""
    if size < 128:
        return bytes((number << 3 | _LENGTH, size))
    return bytes((number << 3 | _LENGTH,)) + _varint(size)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(payload: bytes, where: str = "record") -> dict[str, Value]:
    """The features of a serialised Example, those with one bytes or int64 value; others are left out.

    RecordError, naming ``where``, for bytes that are no Example.
    """
    features: dict[str, Value] = {}
    data = memoryview(payload)
    try:
        for block in _numbered(data, 1):
            for entry in _numbered(_view(block), 1):
                parts = dict(_fields(_view(entry)))
                key = bytes(_view(parts[1])).decode("utf-8")
                value = _single_value(_view(parts[2]))
                if value is not None:
                    features[key] = value
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise RecordError(f"{where}: its bytes are no tf.train.Example.") from error
    return features


def _single_value(feature: memoryview) -> Value | None:
    for kind, block in _fields(feature):
        values = list(_numbered(_view(block), 1)) if kind in (_BYTES_LIST, _INT64_LIST) else []
        if kind == _BYTES_LIST and len(values) == 1:
            return bytes(_view(values[0]))
        if kind == _INT64_LIST and len(values) == 1:
            value = values[0]
            if isinstance(value, int):
                return value
            number, end = _read_varint(value, 0)
            if end == len(value):
                return number
    return None


def _numbered(data: memoryview, number: int) -> Iterator[int | memoryview]:
    """The values of one field; unknown fields are passed over, as protocol buffers ask."""
    return (value for found, value in _fields(data) if found == number)


def _view(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError("a number where a message was expected")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) pairs: an int for a varint, the bytes for anything else."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _read_varint(data, at)
            yield tag >> 3, value
            continue
        size = {_FIXED64: 8, _FIXED32: 4}.get(kind, -1)
        if kind == _LENGTH:
            size, at = _read_varint(data, at)
        if size < 0 or at + size > len(data):
            raise ValueError("a field ends beyond the message")
        yield tag >> 3, data[at : at + size]
        at += size


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value - (1 << 64) if value >= 1 << 63 else value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
