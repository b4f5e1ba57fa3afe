"""TFRecord files without TensorFlow.

A record is: length (8 bytes, little endian), masked CRC-32C of those 8 bytes (4), payload, masked CRC-32C of the
payload (4). Source of the format: TensorFlow's ``core/lib/io/record_writer.h``.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt

from segdata.errors import RecordError

HEADER_BYTES = 12
FOOTER_BYTES = 4
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated right by 15 bits and offset, so that a CRC of data that holds CRCs stays strong."""
    return _masked(google_crc32c.value(data))


def frame(payload: bytes) -> bytes:
    """One record: ``payload`` with its length and both checksums around it."""
    return b"".join(framed(payload, masked_crc(payload)))


def framed(payload: bytes, crc: int) -> tuple[bytes, bytes, bytes]:
    """Header, payload and footer of one record, given the masked CRC of its payload; nothing is copied."""
    length = struct.pack("<Q", len(payload))
    return length + _CRC.pack(masked_crc(length)), payload, _CRC.pack(crc)


def walk(file: BinaryIO, size: int, name: str) -> Iterator[tuple[int, int]]:
    """(offset of the payload, its length) for each record, from the headers alone.

    Every length is checked against ``size``, the file's size in bytes, before anything trusts it. RecordError gives the
    record's number and byte offset.
    """
    offset = number = 0
    while offset < size:
        file.seek(offset)
        try:
            length = length_of(file.read(HEADER_BYTES), offset, size)
        except RecordError as error:
            raise RecordError(f"{name} record {number} at byte {offset}: {error}") from error
        yield offset + HEADER_BYTES, length
        offset, number = offset + HEADER_BYTES + length + FOOTER_BYTES, number + 1


def length_of(header: bytes, offset: int, size: int) -> int:
    """How many bytes of payload a record's header says, in a file of ``size`` bytes, in which it begins at ``offset``.

    RecordError, without a place, where the header is cut or damaged, or the record would end behind the file.
    """
    if len(header) < HEADER_BYTES:
        raise RecordError(f"{len(header)} bytes, expected a header of {HEADER_BYTES}. The file was cut.")
    length, crc = _HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        raise RecordError("the checksum of its length does not match. The file is damaged.")
    end = offset + HEADER_BYTES + length + FOOTER_BYTES
    if end > size:
        raise RecordError(f"says {length} bytes, but the file ends {end - size} bytes before that.")
    return int(length)


def read_payload(file: BinaryIO, offset: int, length: int, name: str) -> bytes:
    """The payload at ``offset``, checked against its CRC; RecordError where it does not match."""
    file.seek(offset)
    data = file.read(length + FOOTER_BYTES)
    payload = data[:length]
    if len(data) != length + FOOTER_BYTES or _CRC.unpack(data[length:])[0] != masked_crc(payload):
        raise RecordError(f"{name} at byte {offset}: the checksum of a record's payload does not match.")
    return payload


def read_record(data: mmap.mmap | bytes, start: int, end: int, name: str) -> bytes:
    """The payload of the record from byte ``start`` to ``end`` of a file's ``data``, checked against length and CRC.

    The payload is copied once. RecordError where they do not match.
    """
    size = end - start - HEADER_BYTES - FOOTER_BYTES
    if size < 0 or data[start : start + 8] != size.to_bytes(8, "little"):
        raise RecordError(f"{name} at byte {start}: no record of {size} bytes begins there. The file is damaged.")
    payload = data[start + HEADER_BYTES : end - FOOTER_BYTES]
    if data[end - FOOTER_BYTES : end] != _CRC.pack(masked_crc(payload)):
        raise RecordError(f"{name} at byte {start}: the checksum of a record's payload does not match.")
    return payload


def payloads(file: BinaryIO, size: int, name: str) -> Iterator[tuple[str, bytes]]:
    """(where it stands, for messages; payload) of each record in order. RecordError at the first damaged one."""
    for number, (offset, length) in enumerate(walk(file, size, name)):
        yield f"{name} record {number}", read_payload(file, offset, length, name)


# ---- damaged files ---------------------------------------------------------------------------------------------------

_LEAST_BYTES = HEADER_BYTES + FOOTER_BYTES
_CRC_BYTES = 1 << 20  # of a payload at a time
_SEARCH_BYTES = (1 << 12, 1 << 18)  # of a search's first and largest block: the next header is often near
_MOST_IN_VAIN = 8  # file sizes, of payloads that do not match
_GZIP = b"\x1f\x8b\x08"


@dataclass(frozen=True)
class Kept:
    """A sound record: its frame's offset and bytes, header and footer with it."""

    offset: int
    bytes: int


@dataclass(frozen=True)
class Lost:
    """A stretch without a sound record. ``records`` is 1 where it begins with a header whose checksum is right."""

    offset: int
    bytes: int
    records: int
    what: str


def sound_records(file: BinaryIO, size: int) -> Iterator[Kept | Lost]:
    """Every byte of a damaged file of ``size`` bytes, in order: sound records, and stretches that hold none.

    A record is sound where both of its checksums match. One whose payload does not match ends where its header says if
    another header or the file's end is there; else, as behind a damaged header, a search finds the next header. A
    search gives what it passes over in pieces, with the same ``what``. Memory is bounded, whatever a header says.
    Records inside the payload of a record whose header is lost are found too: nothing tells them from those outside.
    Records are missed where, by chance, exactly as many bytes were lost before them as make the end of a damaged one
    come right again.
    """
    at = in_vain = 0
    while at < size:
        length = _length_at(file, at)
        end = at + _LEAST_BYTES + (length or 0)
        if length is None:
            few = size - at < HEADER_BYTES
            what = "too few bytes for a header" if few else "the checksum of a record's length does not match"
        elif end > size:
            what = f"a record says {length:,} bytes, but the file ends {end - size:,} bytes before its end"
        elif _is_payload_sound(file, at + HEADER_BYTES, length):
            yield Kept(at, end - at)
            at = end
            continue
        else:
            what = "the checksum of a record's payload does not match"
            in_vain += length
            # The last condition: headers made to mislead, all of the same bytes, must not take for ever.
            if end == size or _length_at(file, end) is not None or in_vain > _MOST_IN_VAIN * size:
                yield Lost(at, end - at, 1, what)
                at = end
                continue
            what += ", and no record begins where it ends"
        records = int(length is not None)
        for reached in _search(file, at + 1, size):
            if reached > at:  # not so for a record that begins with a block
                yield Lost(at, reached - at, records, what)
            at, records = reached, 0


def is_gzip(file: BinaryIO) -> bool:
    """Whether a file is compressed with gzip, as TFRecords may be. A sound record that begins like one is not."""
    file.seek(0)
    return file.read(len(_GZIP)) == _GZIP and _length_at(file, 0) is None


def _length_at(file: BinaryIO, offset: int) -> int | None:
    """What a header at ``offset`` says, where its checksum is right."""
    file.seek(offset)
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    length, crc = _HEADER.unpack(header)
    return length if masked_crc(header[:8]) == crc else None


def _is_payload_sound(file: BinaryIO, offset: int, length: int) -> bool:
    file.seek(offset)
    crc = 0
    while length:
        piece = file.read(min(length, _CRC_BYTES))
        if not piece:
            return False
        crc = google_crc32c.extend(crc, piece)
        length -= len(piece)
    return file.read(FOOTER_BYTES) == _CRC.pack(_masked(crc))


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def _search(file: BinaryIO, at: int, size: int) -> Iterator[int]:
    """How far a search for a record that fits has come, block by block; it ends at that record, or at ``size``."""
    block_bytes, most = _SEARCH_BYTES
    while at + _LEAST_BYTES <= size:
        file.seek(at)
        block = file.read(min(block_bytes, size - at))
        if len(block) < HEADER_BYTES:  # it shrank since it was measured
            break
        found = _first_header(block, size - at)
        if found is not None:
            yield at + found
            return
        at += len(block) - HEADER_BYTES + 1
        block_bytes = min(4 * block_bytes, most)
        yield at
    yield size


def _first_header(block: bytes, room: int) -> int | None:
    """Where in ``block`` the first header stands whose record ends within ``room`` bytes of the block's beginning."""
    data = np.frombuffer(block, np.uint8)
    count = len(block) - HEADER_BYTES + 1
    low, high = np.zeros(count, np.uint8), np.zeros(count, np.uint8)
    first_high = (room.bit_length() + 7) // 8
    for byte in range(HEADER_BYTES):
        some = high if first_high <= byte < 8 else low
        some |= data[byte : byte + count]
    # A length that fits has no high bytes: hardly any place in random data. And twelve zeros, of which damaged files
    # have many, are no header: the checksum of length 0 is another.
    places = np.flatnonzero((high == 0) & (low != 0))
    lengths = np.ndarray(count, "<u8", block, strides=(1,))[places]
    stored = np.ndarray(count, "<u4", block, offset=8, strides=(1,))[places]
    right = _masked_crcs(lengths, room) == stored
    for place, length in zip(places[right].tolist(), lengths[right].tolist(), strict=True):
        if place + _LEAST_BYTES + length <= room:
            return int(place)
    return None


def _masked_crcs(lengths: npt.NDArray[np.uint64], most: int) -> npt.NDArray[np.uint32]:
    """``masked_crc`` of each length's eight bytes; no length has more bytes than ``most``."""
    crcs = np.full(len(lengths), google_crc32c.value(bytes(8)), np.uint32)
    for number in range((most.bit_length() + 15) // 16):
        crcs ^= _length_tables()[number][(lengths >> np.uint64(16 * number)) & np.uint64(0xFFFF)]
    return ((crcs >> np.uint32(15)) | (crcs << np.uint32(17))) + np.uint32(_MASK_DELTA)


@cache
def _length_tables() -> list[npt.NDArray[np.uint32]]:
    """What each value of each pair of a length's bytes changes in the CRC of the length. A CRC is linear: these add."""
    zero = google_crc32c.value(bytes(8))
    tables = []
    for first in range(0, 64, 16):
        table = np.zeros(1, np.uint32)
        for bit in range(first, first + 16):
            table = np.concatenate([table, table ^ np.uint32(google_crc32c.value(struct.pack("<Q", 1 << bit)) ^ zero)])
        tables.append(table)
    return tables
