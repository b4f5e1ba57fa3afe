"""``tf.train.Example`` without TensorFlow: a flat table of bytes and int64 features.

Wire format (protocol buffers, ``tensorflow/core/example/example.proto`` and ``feature.proto``): Example {features = 1};
Features {map<string, Feature> feature = 1}; Feature {bytes_list = 1 | float_list = 2 | int64_list = 3};
each list {value = 1}.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from functools import lru_cache

from segdata.errors import RecordError

Value = bytes | int
_BYTES_LIST, _INT64_LIST = 1, 3
_VARINT, _LENGTH = 0, 2
_SIZES = {1: 8, 5: 4}  # of the other kinds, fixed64 and fixed32


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


def decode(payload: bytes, where: str = "record", wanted: Container[str] | None = None) -> dict[str, Value]:
    """The features of a serialised Example, those with one bytes or int64 value, and of these the ``wanted``; others
    are left out.

    RecordError, naming ``where``, for bytes that are no Example.
    """
    features: dict[str, Value] = {}
    try:
        for _, start, end in _messages(payload, 0, len(payload), (1,)):
            for _, entry, entry_end in _messages(payload, start, end, (1,)):
                parts = {number: (first, last) for number, first, last in _fields(payload, entry, entry_end)}
                (key, key_end), (feature, feature_end) = _message(parts[1]), _message(parts[2])
                name = payload[key:key_end].decode("utf-8")
                if wanted is None or name in wanted:
                    value = _single_value(payload, feature, feature_end)
                    if value is not None:
                        features[name] = value
    except (IndexError, KeyError, TypeError, UnicodeDecodeError, ValueError) as error:
        raise RecordError(f"{where}: its bytes are no tf.train.Example.") from error
    return features


def _single_value(payload: bytes, start: int, end: int) -> Value | None:
    for kind, first, last in _messages(payload, start, end, (_BYTES_LIST, _INT64_LIST)):
        values = [(at, to) for number, at, to in _fields(payload, first, last) if number == 1]
        if len(values) != 1:
            continue
        at, to = values[0]
        if kind == _BYTES_LIST:
            at, to = _message(values[0])
            return payload[at:to]
        number, after = _read_varint(payload, -at if at < 0 else at)
        if at < 0 or after == to:
            return number
    return None


# Where a field's value lies: (field number, first byte, byte after it). Of a number the first byte is negative.
Span = tuple[int, int, int]


def _messages(payload: bytes, start: int, end: int, numbers: tuple[int, ...]) -> list[Span]:
    """The fields of these numbers, which must be messages; unknown ones are passed over, as protocol buffers ask."""
    found = [span for span in _fields(payload, start, end) if span[0] in numbers]
    for _, first, last in found:
        _message((first, last))
    return found


def _message(span: tuple[int, int]) -> tuple[int, int]:
    if span[0] < 0:
        raise TypeError("a number where a message was expected")
    return span


def _fields(payload: bytes, at: int, end: int) -> list[Span]:
    """The fields of a message. Slices would cost more than the bytes that are looked at here."""
    found = []
    while at < end:
        tag, at = _read_varint(payload, at)
        kind = tag & 7
        if kind == _VARINT:
            first = at
            _, at = _read_varint(payload, at)
            found.append((tag >> 3, -first, at))
        else:
            size = _SIZES.get(kind, -1)
            if kind == _LENGTH:
                size, at = _read_varint(payload, at)
            if size < 0:
                raise ValueError("a field of an unknown kind")
            found.append((tag >> 3, at, at + size))
            at += size
        if at > end:
            raise ValueError("a field ends beyond the message")
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    byte = data[at]
    if byte < 128:  # nearly always
        return byte, at + 1
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value - (1 << 64) if value >= 1 << 63 else value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
