"""What predict writes down: a line per input, and the JSON that makes its folder whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO, TypeVar

import msgspec

from segdata.formats.folders import OutputFolder
from segdata.records import FileRecord

PREDICTIONS_JSON = "predictions.json"
RESULTS_JSONL = "results.jsonl"
_Line = TypeVar("_Line")


class ResultLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one input; with a ``reason`` it was skipped, and ``detail`` says what was found and expected.
    ``input`` is its path from the folder.

    ``height`` and ``width`` are in pixels, upright. ``person_share`` is the share of pixels that are person (of a
    matte the mean alpha; of a video the mean over its frames), ``class_shares`` that of each class where there are
    several. ``files`` are relative to the folder; of pictures in a folder by number, that folder. Times are in
    milliseconds, of a video for each frame: to read and fit it, the network's, and to make and write what is saved;
    they overlap, and differ from run to run. Of a camera ``network_ms`` is all of it.

    Of videos: the frames that were written, their ``rate`` as a fraction a second, how many ``seconds`` they last, and
    how many more the file says it holds, where it was cut; the mean IoU of consecutive masks after motion, as the
    network gave them and smoothed, at its size and before they are refined, null where no two follow each other;
    packets that did not decode and frames that did in part, and what became of the sound.
    """

    input: str
    name: str
    kind: str
    height: int | None = None
    width: int | None = None
    person_share: float | None = None
    class_shares: dict[str, float] | None = None
    files: tuple[str, ...] = ()
    read_ms: float | None = None
    network_ms: float | None = None
    write_ms: float | None = None
    reason: str | None = None
    detail: str | None = None
    frames: int | None = None
    rate: str | None = None
    seconds: float | None = None
    missing_seconds: float | None = None
    consecutive_iou: float | None = None
    smoothed_consecutive_iou: float | None = None
    damaged_packets: int | None = None
    audio: str | None = None


class PredictionsRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``predictions.json``: what a network said of some inputs.

    ``network_sha256`` is of the run's best.keras, or of the JSON of an exported network.
    """

    format: str = "segdata predictions"
    version: int = 1
    model: str
    network_sha256: str
    options: dict[str, str | int | float | bool | None]
    done: int
    skipped: dict[str, int]
    results: FileRecord
    seal: str = ""


def append_line(log: BinaryIO, line: object) -> None:
    """Log what became of one input, for ``logged_lines`` of a later run."""
    log.write(msgspec.json.encode(line) + b"\n")
    log.flush()


def logged_lines(folder: OutputFolder, name: str, kind: type[_Line]) -> Iterator[_Line]:
    """What an earlier run of the same logged in the file ``name`` of its folder; nothing where there was none."""
    log = folder.path / name
    for text in log.read_bytes().splitlines() if folder.is_resumed and log.is_file() else ():
        with suppress(msgspec.DecodeError, UnicodeDecodeError):  # the last line of a run that was killed
            yield msgspec.json.decode(text, type=kind)
