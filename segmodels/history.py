"""What a run has come to, epoch by epoch: rows, and the files that show them."""

from __future__ import annotations

import csv
import io
import math
import struct
from collections.abc import Sequence
from pathlib import Path

from segdata.formats.files import write_atomic
from segdata.formats.tfrecord import frame
from segmodels.config import CURVES_PNG, EVENTS, HISTORY_CSV
from segmodels.curves import draw_curves

Row = dict[str, float]  # by column; NaN where there is no number


def write_history(out: Path, rows: Sequence[Row]) -> None:
    """``history.csv``, TensorBoard's events and ``curves.png`` of a run's rows."""
    write_atomic(out / HISTORY_CSV, history_csv(rows))
    _go_on(out / EVENTS, events(rows))
    write_atomic(out / CURVES_PNG, draw_curves(rows))


def history_csv(rows: Sequence[Row]) -> bytes:
    """Comma-separated, a header line first; an empty cell for NaN."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(rows[0])
    table.writerows(["" if math.isnan(value) else repr(value) for value in row.values()] for row in rows)
    return file.getvalue().encode("utf-8")


def _go_on(path: Path, data: bytes) -> None:
    """Append what ``path`` lacks of ``data``, so that a TensorBoard that has it open sees it; else write it anew."""
    there = path.read_bytes() if path.is_file() else b""
    if there and data.startswith(there):
        with path.open("ab") as file:
            file.write(data[len(there) :])
    else:
        write_atomic(path, data)


# ---- TensorBoard's events: TFRecords of Event messages (tensorflow/core/util/event.proto, framework/summary.proto).
# Event {double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5}; Summary {Value value = 1};
# Value {string tag = 1; float simple_value = 2}. The time is that of the epoch's number: outputs hold no clock.


def events(rows: Sequence[Row]) -> bytes:
    """A file of events that TensorBoard draws: every column but the epoch, which is its step."""
    written = [frame(_double(1, 0.0) + _bytes(3, b"brain.Event:2"))]
    for row in rows:
        step = int(row["epoch"])
        values = b"".join(_value(name, value) for name, value in row.items() if name != "epoch")
        written.append(frame(_double(1, float(step)) + b"\x10" + _varint(step) + _bytes(5, values)))
    return b"".join(written)


def _value(name: str, value: float) -> bytes:
    if math.isnan(value):
        return b""
    return _bytes(1, _bytes(1, name.encode("utf-8")) + b"\x15" + struct.pack("<f", value))


def _double(number: int, value: float) -> bytes:
    return bytes((number << 3 | 1,)) + struct.pack("<d", value)


def _bytes(number: int, data: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))
