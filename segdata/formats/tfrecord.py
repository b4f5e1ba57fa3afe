"""TFRecord files without TensorFlow.

A record is: length (8 bytes, little endian), masked CRC-32C of those 8 bytes (4), payload, masked CRC-32C of the
payload (4). Source of the format: TensorFlow's ``core/lib/io/record_writer.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from segdata.errors import RecordError

HEADER_BYTES = 12
FOOTER_BYTES = 4
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated right by 15 bits and offset, so that a CRC of data that holds CRCs stays strong."""
    crc: int = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """One record: ``payload`` with its length and both checksums around it."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, _CRC.pack(masked_crc(length)), payload, _CRC.pack(masked_crc(payload))))


def walk(file: BinaryIO, size: int, name: str) -> Iterator[tuple[int, int]]:
    """(offset of the payload, its length) for each record, from the headers alone.

    Every length is checked against ``size``, the file's size in bytes, before anything trusts it. RecordError gives the
    record's number and byte offset.
    """
    offset = number = 0
    while offset < size:
        file.seek(offset)
        header = file.read(HEADER_BYTES)
        where = f"{name} record {number} at byte {offset}"
        if len(header) < HEADER_BYTES:
            raise RecordError(f"{where}: {len(header)} bytes, expected a header of {HEADER_BYTES}. The file was cut.")
        length, crc = _HEADER.unpack(header)
        if masked_crc(header[:8]) != crc:
            raise RecordError(f"{where}: the checksum of its length does not match. The file is damaged.")
        end = offset + HEADER_BYTES + length + FOOTER_BYTES
        if end > size:
            raise RecordError(f"{where}: says {length} bytes, but the file ends {end - size} bytes before that.")
        yield offset + HEADER_BYTES, length
        offset, number = end, number + 1


def read_payload(file: BinaryIO, offset: int, length: int, name: str) -> bytes:
    """The payload at ``offset``, checked against its CRC; RecordError where it does not match."""
    file.seek(offset)
    data = file.read(length + FOOTER_BYTES)
    payload = data[:length]
    if len(data) != length + FOOTER_BYTES or _CRC.unpack(data[length:])[0] != masked_crc(payload):
        raise RecordError(f"{name} at byte {offset}: the checksum of a record's payload does not match.")
    return payload


def payloads(file: BinaryIO, size: int, name: str) -> Iterator[tuple[str, bytes]]:
    """(where it stands, for messages; payload) of each record in order. RecordError at the first damaged one."""
    for number, (offset, length) in enumerate(walk(file, size, name)):
        yield f"{name} record {number}", read_payload(file, offset, length, name)
