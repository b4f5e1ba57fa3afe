"""Damaged TFRecord files: every sound record is found, nothing else, and every lost byte is accounted for."""

from __future__ import annotations

import gzip
import io
import random
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from segdata.formats import tfrecord
from segdata.formats.tfrecord import Kept, Lost, frame, is_gzip, masked_crc, sound_records
from tests.material import tensorflow

PAYLOADS = [b"first", b"", bytes(range(256)) * 3, b"\0" * 40, b"last"]
FRAMES = [frame(payload) for payload in PAYLOADS]
FILE = b"".join(FRAMES)
STARTS = [len(b"".join(FRAMES[:i])) for i in range(len(FRAMES))]
NO_LENGTH = "the checksum of a record's length does not match"
NO_PAYLOAD = "the checksum of a record's payload does not match"


class Counting(io.BytesIO):
    """A file that counts the bytes read from it."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def scanned(data: bytes) -> tuple[list[bytes], list[Lost]]:
    """The sound frames, and the lost stretches with the pieces of a search put together; they tile the file."""
    kept: list[bytes] = []
    lost: list[Lost] = []
    at = 0
    for found in sound_records(io.BytesIO(data), len(data)):
        assert found.offset == at
        assert found.bytes > 0
        at += found.bytes
        if isinstance(found, Kept):
            kept.append(data[found.offset : at])
        elif lost and lost[-1].what == found.what and not found.records:
            lost[-1] = Lost(lost[-1].offset, at - lost[-1].offset, lost[-1].records, found.what)
        else:
            lost.append(found)
    assert at == len(data)
    return kept, lost


def forged_header(length: int) -> bytes:
    packed = struct.pack("<Q", length)
    return packed + struct.pack("<I", masked_crc(packed))


def without(*numbers: int) -> list[bytes]:
    return [one for number, one in enumerate(FRAMES) if number not in numbers]


def test_a_sound_file_is_kept_whole() -> None:
    assert scanned(FILE) == (FRAMES, [])
    assert scanned(b"") == ([], [])


# ---- any damage ------------------------------------------------------------------------------------------------------

DAMAGES = ("flip", "cut", "zero", "insert", "drop", "noise")


def damage(data: bytes, kind: str, at: int, count: int, seed: int) -> tuple[bytes, int]:
    """Damaged bytes, and the end of what was touched; an insert touches what it stands within."""
    noise = random.Random(seed).randbytes(count)
    end = {"flip": at + 1, "cut": len(data), "insert": at}.get(kind, min(at + count, len(data)))
    between = {
        "flip": bytes([data[at] ^ 1 << seed % 8]),
        "zero": bytes(end - at),
        "insert": noise if seed % 2 else bytes(count),
        "noise": noise[: end - at],
    }.get(kind, b"")
    return data[:at] + between + data[end:], end


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.binary(max_size=90) | st.integers(0, 6000).map(bytes), min_size=1, max_size=9),
    st.sampled_from(DAMAGES),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 9000),
    st.integers(0, 2**32),
)
@example([b"x" * 48] * 5, "drop", 0.1, 63, 0)
@example([b"x" * 48] * 5, "flip", 0.0, 1, 6)  # a length that leads to a later record
def test_what_damage_did_not_touch_is_kept_and_nothing_else(
    payloads: list[bytes], kind: str, where: float, count: int, seed: int
) -> None:
    frames = [frame(payload) for payload in payloads]
    data = b"".join(frames)
    at = int(where * len(data))
    damaged, touched_end = damage(data, kind, at, count, seed)
    starts = [sum(map(len, frames[:i])) for i in range(len(frames) + 1)]
    untouched = [
        one for one, start in zip(frames, starts, strict=False) if start + len(one) <= at or start >= touched_end
    ]
    if kind == "drop":  # not as many bytes as make the damaged record end with another: that hides what is between
        assume(min(start for start in starts if start > at) + touched_end - at not in starts)
    kept, lost = scanned(damaged)
    assert not Counter(untouched) - Counter(kept)
    assert not Counter(kept) - Counter(frames)
    assert lost or data == damaged or kind in ("cut", "drop")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.lists(st.sampled_from([b"\0\0", FRAMES[1], FRAMES[0][:12], b"x"])).map(b"".join))
def test_any_bytes_at_all_are_accounted_for(data: bytes) -> None:
    kept, _ = scanned(data)
    assert all(frame(one[12:-4]) == one for one in kept)


def test_one_flipped_bit_loses_one_record() -> None:
    for bit in range(0, 8 * len(FILE), 5):
        data = bytearray(FILE)
        data[bit // 8] ^= 1 << bit % 8
        kept, lost = scanned(bytes(data))
        number = max(i for i, start in enumerate(STARTS) if start <= bit // 8)
        assert kept == without(number)
        in_header = bit // 8 < STARTS[number] + 12
        expected = NO_LENGTH if in_header else NO_PAYLOAD
        assert lost == [Lost(STARTS[number], len(FRAMES[number]), int(not in_header), expected)]


def test_a_cut_keeps_what_stands_before_it() -> None:
    for end in range(len(FILE)):
        kept, lost = scanned(FILE[:end])
        whole = [start + len(one) for start, one in zip(STARTS, FRAMES, strict=True) if start + len(one) <= end]
        assert kept == FRAMES[: len(whole)]
        at = whole[-1] if whole else 0
        assert [(one.offset, one.bytes) for one in lost] == ([(at, end - at)] if end > at else [])
        if 0 < end - at < 12:
            assert lost[0].what == "too few bytes for a header"
        elif end > at:
            assert f"but the file ends {len(FRAMES[len(whole)]) - (end - at)} bytes before its end" in lost[0].what


# ---- hazards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [2**31, 2**40, 2**62, 2**63, 2**64 - 1, 2**64 - 16])
def test_a_huge_length_with_a_right_checksum_is_not_believed(length: int) -> None:
    data = FRAMES[0] + forged_header(length) + b"x" * 9 + FRAMES[2]
    kept, lost = scanned(data)
    assert kept == [FRAMES[0], FRAMES[2]]
    assert [(one.offset, one.bytes, one.records) for one in lost] == [(len(FRAMES[0]), 21, 1)]
    assert f"says {length:,} bytes, but the file ends" in lost[0].what


@pytest.mark.parametrize("tail", [b"\0\0\0", b"\0" * 100_000, b"\n", FRAMES[2][:-1], b"<html></html>"])
def test_bytes_behind_the_last_record_are_one_stretch(tail: bytes) -> None:
    kept, lost = scanned(FILE + tail)
    assert kept == FRAMES
    assert [(one.offset, one.bytes) for one in lost] == [(len(FILE), len(tail))]


@pytest.mark.parametrize("count", [1, 11, 12, 13, 4080, 4096, 4097, 300_000, 1_100_000])
@pytest.mark.parametrize("filler", [b"\0", b"\xff", b"\1\0\0\0\0\0\0\0"])
def test_a_header_is_found_behind_a_gap_of_any_length(count: int, filler: bytes) -> None:
    gap = (filler * count)[:count]
    kept, lost = scanned(FRAMES[0] + gap + FRAMES[1] + FRAMES[3])
    assert kept == [FRAMES[0], FRAMES[1], FRAMES[3]]
    assert [(one.offset, one.bytes, one.what) for one in lost] == [(len(FRAMES[0]), count, NO_LENGTH)]


def test_every_header_in_a_block_is_found() -> None:
    for count in range(4050, 4130):  # over the end of the first block of a search
        kept, _ = scanned(b"x" * count + FRAMES[0])
        assert kept == [FRAMES[0]], count


def test_a_length_is_searched_for_by_its_checksum() -> None:
    """The tables give the same CRCs as the library, whatever the length."""
    lengths = [0, 1, 255, 2**16 - 1, 2**16, 2**33 + 5, 2**47 + 2**20, 2**63 - 1, 2**64 - 1]
    found = tfrecord._masked_crcs(np.array(lengths, np.uint64), 2**64 - 1)
    assert found.tolist() == [masked_crc(struct.pack("<Q", length)) for length in lengths]
    assert masked_crc(bytes(8)) != 0, "twelve zeros are no header"


def test_damaged_payloads_in_a_row_are_lost_one_by_one() -> None:
    data = bytearray(FILE)
    data[STARTS[2] + 20] ^= 1
    data[STARTS[3] + 20] ^= 1
    kept, lost = scanned(bytes(data))
    assert kept == without(2, 3)
    assert lost == [Lost(STARTS[i], len(FRAMES[i]), 1, NO_PAYLOAD) for i in (2, 3)]


def test_a_payload_that_lost_bytes_hides_no_record_behind_it() -> None:
    kept, lost = scanned(FILE[: STARTS[2] + 100] + FILE[STARTS[2] + 107 :])
    assert kept == without(2)
    what = f"{NO_PAYLOAD}, and no record begins where it ends"
    assert lost == [Lost(STARTS[2], len(FRAMES[2]) - 7, 1, what)]


def test_records_within_a_damaged_payload_are_not_taken_for_records() -> None:
    outer = bytearray(frame(FILE))
    outer[12 + STARTS[2] + 20] ^= 1
    kept, lost = scanned(bytes(outer) + FRAMES[0])
    assert kept == [FRAMES[0]]
    assert lost == [Lost(0, len(outer), 1, NO_PAYLOAD)]


def test_as_many_bytes_lost_as_a_record_has_lose_what_they_touch() -> None:
    frames = [frame(bytes([i]) * 48) for i in range(5)]
    data = b"".join(frames)
    kept, lost = scanned(data[:90] + data[154:])
    assert kept == [frames[0], *frames[3:]]
    assert lost == [Lost(64, 64, 1, NO_PAYLOAD)]


def test_a_search_passes_over_a_header_whose_record_does_not_fit() -> None:
    gap = b"x" * 20 + forged_header(120) + b"x" * 20
    kept, lost = scanned(FRAMES[0] + gap + FRAMES[0])
    assert kept == [FRAMES[0]] * 2
    assert lost == [Lost(len(FRAMES[0]), len(gap), 0, NO_LENGTH)]


def test_a_file_that_grew_since_it_was_measured_ends_where_it_did() -> None:
    data = FRAMES[0] + b"x" * 5000
    found = list(sound_records(io.BytesIO(data + FILE), len(data)))
    assert isinstance(found[0], Kept)
    assert not any(isinstance(one, Kept) for one in found[1:])
    assert sum(one.bytes for one in found) == len(data)


def test_a_file_that_shrank_since_it_was_measured_ends() -> None:
    for missing in (2, 10, 300, len(FILE)):
        found = list(sound_records(io.BytesIO(FILE[:-missing]), len(FILE)))
        assert sum(one.bytes for one in found) == len(FILE)
        assert isinstance(found[-1], Lost)


def test_headers_made_to_mislead_take_no_longer_than_others() -> None:
    file = Counting(forged_header(200_001) * 20_000)
    size = len(file.getvalue())
    assert not any(isinstance(one, Kept) for one in sound_records(file, size))
    assert file.count < 20 * size


def test_memory_is_bounded_whatever_a_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tfrecord, "_CRC_BYTES", 64)
    monkeypatch.setattr(tfrecord, "_SEARCH_BYTES", (32, 64))

    class Bounded(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 <= size <= 64
            return super().read(size)

    data = FILE + b"x" * 1000 + FILE
    kept = [one for one in sound_records(Bounded(data), len(data)) if isinstance(one, Kept)]
    assert len(kept) == 2 * len(FRAMES)


@pytest.mark.parametrize("data", [b"<html></html>", b"\x89PNG" * 20, bytes(5000)], ids=["HTML", "PNG", "zeros"])
def test_what_is_no_tfrecord_has_no_sound_record(data: bytes) -> None:
    assert scanned(data)[0] == []


def test_gzip_is_told_from_a_record_that_begins_as_gzip_does() -> None:
    assert is_gzip(io.BytesIO(gzip.compress(FILE, mtime=0)))
    record = frame(bytes(0x088B1F))
    assert record.startswith(b"\x1f\x8b\x08\0\0\0\0\0")
    assert not is_gzip(io.BytesIO(record))
    assert not is_gzip(io.BytesIO(b""))


def test_what_tensorflow_wrote_is_salvaged_for_tensorflow(tmp_path: Path) -> None:
    tf = tensorflow()
    path = str(tmp_path / "x.tfrecord")
    payloads = [bytes([i]) * (700 * i) for i in range(30)]
    with tf.io.TFRecordWriter(path) as writer:
        for payload in payloads:
            writer.write(payload)
    data = Path(path).read_bytes()
    at = len(data) // 2
    kept, lost = scanned(data[:at] + bytes(4096) + data[at + 4096 :])
    assert [(one.records, one.what) for one in lost] == [(1, NO_PAYLOAD)]
    Path(path).write_bytes(b"".join(kept))
    assert [record.numpy() for record in tf.data.TFRecordDataset(path)] == [one[12:-4] for one in kept]
    assert len(kept) == 29
