"""TFRecord frames: read back exactly, and no damage goes unnoticed or is believed."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdata.errors import RecordError
from segdata.formats.tfrecord import FOOTER_BYTES, HEADER_BYTES, frame, masked_crc, payloads, read_payload, walk
from tests.material import tensorflow

PAYLOADS = [b"first", b"", bytes(range(256)) * 3, b"\0" * 40]
FILE = b"".join(frame(payload) for payload in PAYLOADS)
STARTS = [len(b"".join(frame(payload) for payload in PAYLOADS[:i])) for i in range(len(PAYLOADS))]


def read(data: bytes) -> list[bytes]:
    return [payload for _, payload in payloads(io.BytesIO(data), len(data), "x.tfrecord")]


def forged_header(length: int) -> bytes:
    """A header with a right checksum, whatever its length says."""
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc(packed))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=6))
def test_what_is_framed_comes_back(wanted: list[bytes]) -> None:
    data = b"".join(frame(payload) for payload in wanted)
    assert read(data) == wanted
    assert len(data) == sum(len(payload) + HEADER_BYTES + FOOTER_BYTES for payload in wanted)


def test_records_are_found_without_reading_their_payloads() -> None:
    found = list(walk(io.BytesIO(FILE), len(FILE), "x.tfrecord"))
    assert found == [(start + 12, len(payload)) for start, payload in zip(STARTS, PAYLOADS, strict=True)]
    damaged = bytearray(FILE)
    damaged[14] ^= 1
    assert list(walk(io.BytesIO(damaged), len(FILE), "x.tfrecord")) == found


def test_a_record_is_read_by_its_place() -> None:
    file = io.BytesIO(FILE)
    for offset, length in reversed(list(walk(file, len(FILE), "x.tfrecord"))):
        assert read_payload(file, offset, length, "x.tfrecord") == FILE[offset : offset + length]


def test_a_message_says_where_a_record_stands() -> None:
    wheres = [where for where, _ in payloads(io.BytesIO(FILE), len(FILE), "x.tfrecord")]
    assert wheres == [f"x.tfrecord record {i}" for i in range(4)]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 8 * len(FILE) - 1))
def test_any_flipped_bit_is_noticed(bit: int) -> None:
    data = bytearray(FILE)
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(RecordError, match=r"^x\.tfrecord "):
        read(bytes(data))


def test_a_cut_anywhere_within_a_record_is_noticed() -> None:
    for end in set(range(1, len(FILE))) - set(STARTS):
        with pytest.raises(RecordError, match=r"^x\.tfrecord record \d at byte \d+: "):
            read(FILE[:end])


@pytest.mark.parametrize("start", STARTS)
def test_a_cut_between_records_is_seen_by_the_index_alone(start: int) -> None:
    assert read(FILE[:start]) == PAYLOADS[: STARTS.index(start)]


def test_a_cut_header_says_how_much_is_there() -> None:
    with pytest.raises(RecordError, match=r"record 1 at byte 21: 5 bytes, expected a header of 12. The file was cut"):
        read(FILE[: STARTS[1] + 5])


def test_a_cut_payload_says_how_much_is_missing() -> None:
    with pytest.raises(RecordError, match=r"record 2 at byte 37: says 768 bytes, but the file ends 8 bytes before"):
        read(FILE[: STARTS[3] - 8])


@pytest.mark.parametrize("length", [2**31, 2**35, 2**40, 2**62, 2**63, 2**64 - 1, 2**64 - 16])
def test_a_huge_length_with_a_right_checksum_is_not_believed(length: int) -> None:
    data = FILE + forged_header(length) + b"x" * 100
    with pytest.raises(RecordError, match=f"record 4 at byte {len(FILE)}: says {length} bytes, but the file ends"):
        list(walk(io.BytesIO(data), len(data), "x.tfrecord"))


@pytest.mark.parametrize("data", [b"\0" * 40, b"\x1f\x8b" + b"x" * 40, b"<html></html>"], ids=["zeros", "gzip", "HTML"])
def test_what_is_no_tfrecord_is_refused(data: bytes) -> None:
    with pytest.raises(RecordError, match=r"the checksum of its length does not match\. The file is damaged"):
        read(data)


@pytest.mark.parametrize("tail", [b"\0\0\0", b"\0" * 4096, b"\n"])
def test_bytes_behind_the_last_record_are_noticed(tail: bytes) -> None:
    with pytest.raises(RecordError, match="record 4"):
        read(FILE + tail)


def test_a_file_that_shrank_since_it_was_measured_is_noticed() -> None:
    with pytest.raises(RecordError):
        list(payloads(io.BytesIO(FILE[:-2]), len(FILE), "x.tfrecord"))


def test_an_empty_file_holds_no_records() -> None:
    assert read(b"") == []


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=120))
def test_no_bytes_raise_anything_but_a_record_error(data: bytes) -> None:
    try:
        read(data)
    except RecordError:
        pass
    else:
        assert data == b""


def test_the_checksum_is_the_published_one() -> None:
    # The check value of CRC-32C (Castagnoli), masked as TensorFlow's record_writer.h does.
    assert masked_crc(b"123456789") == ((0xE3069283 >> 15 | 0xE3069283 << 17) + 0xA282EAD8) % 2**32


def test_tensorflow_writes_the_same_bytes_and_reads_ours(tmp_path: Path) -> None:
    tf = tensorflow()
    path = str(tmp_path / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for payload in PAYLOADS:
            writer.write(payload)
    assert Path(path).read_bytes() == FILE
    assert [record.numpy() for record in tf.data.TFRecordDataset(path)] == PAYLOADS
