"""predict: a trained network on photos, videos and cameras."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import BinaryIO

import msgspec

from segdata.errors import JobFailed, OptionError, Stopped
from segdata.formats import files
from segdata.formats.folders import PARTS, OutputFolder, Plan, check_output_folder, output_folder
from segdata.formats.raw_pictures import pillow_held_back
from segdata.formats.videos import is_video
from segdata.records import FileRecord, decode_lines, seal
from segmodels.bars import sample_bar
from segmodels.networks import Network, open_network
from segmodels.predicting.clips import ClipOptions, predict_clip
from segmodels.predicting.live import watch_camera
from segmodels.predicting.media import Item, Media, find
from segmodels.predicting.photos import check_batch_size, input_of, predict_photos
from segmodels.predicting.rendering import SAVES, Look
from segmodels.predicting.results import (
    PREDICTIONS_JSON,
    RESULTS_JSONL,
    PredictionsRecord,
    ResultLine,
    append_line,
    logged_lines,
)
from segmodels.predicting.sinks import check_alpha_video
from segmodels.smoothing import NOT_SMOOTHED, Smooth

OWNED = rf"({'|'.join(SAVES)})/[^/]+(/\d{{6,}})?\.(png|jpg|gif|mp4|webm|mov)|{re.escape(RESULTS_JSONL)}"
_LOG = f"{PARTS}/{RESULTS_JSONL}"
_EXAMPLES = 5


@dataclass(frozen=True)
class PredictOptions:
    """What is drawn of each input, how, and how much at a time. OptionError for values out of their bounds.

    ``smooth`` and ``alpha_video`` are of videos, the latter what cut-outs of them are written as; ``seconds`` is the
    most that is taken of each.
    """

    look: Look = field(default_factory=Look)
    smooth: Smooth = NOT_SMOOTHED
    alpha_video: str = "webm"
    seconds: float | None = None
    batch_size: int = 8
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_alpha_video(self.alpha_video)
        check_batch_size(self.batch_size)
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise OptionError(f"--seconds {self.seconds}: expected a number above 0.")

    def clips(self) -> ClipOptions:
        """What of them is for videos."""
        return ClipOptions(self.look, self.smooth, self.alpha_video, self.batch_size, self.seconds)

    def recorded(self) -> dict[str, str | int | float | bool | None]:
        """The options that change what is written."""
        refine = self.look.refine.recorded()
        return {
            "--save": ",".join(self.look.saves),
            "--background": self.look.background_record(),
            **{f"--{name.replace('_', '-')}": value for name, value in refine.items()},
            "--smooth": f"{self.smooth.kind}:{self.smooth.weight}" if self.smooth.kind != "none" else None,
            "--alpha-video": self.alpha_video,
            "--seconds": self.seconds,
        }


@dataclass(frozen=True)
class PredictReport:
    """What became of the inputs. ``skipped`` counts by reason, ``examples`` has a line for some of those.

    ``clips`` are the lines of videos; ``resumed`` were done by an earlier run. ``pictures_a_second`` is over photos and
    frames of this run, None where there were none.
    """

    out: Path
    photos: int
    frames: int
    person_share: float | None
    skipped: dict[str, int]
    examples: tuple[str, ...]
    ignored: dict[str, int]
    clips: tuple[ResultLine, ...]
    resumed: int
    pictures_a_second: float | None
    results: Path

    def notes(self) -> tuple[str, ...]:
        """What was left out, and what was there."""
        found = []
        if self.resumed:
            found.append(f"{self.resumed:,} inputs were done by an earlier run.")
        if self.ignored:
            found.append("passed over: " + ", ".join(f"{count} {kind}" for kind, count in sorted(self.ignored.items())))
        if self.skipped:
            found.append(f"{sum(self.skipped.values()):,} inputs were skipped; all are in {self.results}:")
            found += self.examples
        return tuple(found)


def predict(run: Path, inputs: Sequence[str], out: Path, options: PredictOptions) -> PredictReport:
    """Write to ``out`` what the network of a run, or an exported one, says of photos and videos.

    Pictures lie in a folder for each kind, by the name of the input; results.jsonl has a line for each input, in their
    order, and predictions.json is written last. An input that cannot be used is skipped, and its line says why. A run
    that was stopped is gone on with, where network and options are the same, but for the input that it was at.
    JobFailed where every input was skipped; FolderError as ``output_folder`` raises it, Stopped where Ctrl-C ends it.
    """
    media = find(inputs, out)
    read = [item.path for item in media.items if item.kind != "camera"]
    check_output_folder(out, PREDICTIONS_JSON, OWNED, options.overwrite, read)
    network = open_network(run)
    plan: Plan = {"network of sha256": network.sha256, **options.recorded()}
    try:
        with (
            output_folder(out, PREDICTIONS_JSON, OWNED, options.overwrite, read, "predict", plan) as folder,
            pillow_held_back(),
        ):
            return _there(folder, media) or _predicted(folder, network, media, options)
    except Stopped as error:
        parts = [path for save in options.look.saves for path in sorted((out / save).glob("*.part.*"))]
        begun = [str(path) for path in parts if is_video(path)]
        what = f"{', '.join(begun)}: what there is of it so far, and plays. " if begun else ""
        raise Stopped(f"{what}{error}") from error


def watch(run: Path, inputs: Sequence[str], options: PredictOptions) -> ResultLine:
    """A camera in a window, with nothing written: its line. OptionError for other inputs, and where is no screen."""
    items = find(inputs).items
    if [item.kind for item in items] != ["camera"]:
        raise OptionError("--out is missing: expected a folder to write to. Only a camera can be watched without one.")
    line = watch_camera(open_network(run), items[0], options.clips(), None)
    if line.reason is not None:
        raise JobFailed(f"{line.input}: {line.reason}: {line.detail}.")
    return line


def _predicted(folder: OutputFolder, network: Network, media: Media, options: PredictOptions) -> PredictReport:
    out = folder.path
    for name in (*options.look.saves, PARTS):
        (out / name).mkdir(exist_ok=True)
    earlier = _earlier(folder, media.items)
    left = [item for item in media.items if item not in earlier]
    start = perf_counter()
    made = {item: one.line for item, one in earlier.items()}
    files.write_atomic(out / _LOG, msgspec.json.Encoder().encode_lines(earlier.values()))  # without what a kill cut off
    log, bar = (out / _LOG).open("ab"), sample_bar(len(left), "predict")
    logged = []
    with (
        log,
        ThreadPoolExecutor(1, "segdata-log") as logger,
        bar,
        closing(_lines(network, left, options, out)) as lines,
    ):
        for item, line in zip(left, folder.counted(lines, [1] * len(left), "inputs"), strict=True):
            made[item] = line
            if line.reason is None:  # what could not be used may be mended
                logged.append(logger.submit(_append, log, item, line, out))  # a thread: it reads all that was written
            bar.update()
    for one in logged:
        one.result()
    seconds = perf_counter() - start
    lines_made = [made[item] for item in media.items]
    _finish(folder, network, lines_made, options)
    fresh = sum(made[item].frames or 1 for item in left if made[item].reason is None)
    report = _report(out, lines_made, media, len(earlier))
    return replace(report, pictures_a_second=fresh / seconds) if fresh else report


def _lines(network: Network, items: Sequence[Item], options: PredictOptions, out: Path) -> Generator[ResultLine]:
    """A line for each input in order: photos that follow each other together, videos one by one."""
    for kind, group in groupby(items, key=lambda item: item.kind):
        if kind == "photo":
            yield from predict_photos(network, list(group), options.look, out, options.batch_size)
            continue
        one = predict_clip if kind == "video" else watch_camera
        for item in group:
            yield one(network, item, options.clips(), out)


# ---- what an earlier run did -----------------------------------------------------------------------------------------


class _Logged(msgspec.Struct, frozen=True, kw_only=True):
    """A line, size in bytes and time of change that its input had, and the sha256 of each file that was written."""

    state: tuple[int, int] | None
    sha256: list[str]
    line: ResultLine


def _logged(item: Item, line: ResultLine, out: Path) -> _Logged:
    return _Logged(state=item.state(), sha256=[_sha256(out / file) for file in line.files], line=line)


def _append(log: BinaryIO, item: Item, line: ResultLine, out: Path) -> None:
    append_line(log, _logged(item, line, out))


def _sha256(path: Path) -> str:
    """Of a file, or of all in a folder; empty where it is not there."""
    try:
        if path.is_dir():
            return files.sha256_hex("".join(map(files.sha256_file, sorted(path.iterdir()))).encode())
        return files.sha256_file(path)
    except OSError:
        return ""


def _earlier(folder: OutputFolder, items: Sequence[Item]) -> dict[Item, _Logged]:
    """The lines of inputs that an earlier run of the same finished, and that have not changed since."""
    found = {(one.line.input, one.line.name): one for one in logged_lines(folder, _LOG, _Logged)}
    lines = {}
    for item in items:
        logged = found.get((input_of(item, folder.path), item.name))
        if logged and logged == _logged(item, logged.line, folder.path) and "" not in logged.sha256:
            lines[item] = logged
    return lines


def _there(folder: OutputFolder, media: Media) -> PredictReport | None:
    """The report of a run that was stopped when all was done but tidying up; None of others."""
    if not folder.is_whole:
        return None
    lines = list(decode_lines(folder.path / RESULTS_JSONL, ResultLine))
    if [(line.input, line.name) for line in lines] != [(input_of(i, folder.path), i.name) for i in media.items]:
        return None
    folder.tidy()
    return _report(folder.path, lines, media, len(lines))


# ---- the end ---------------------------------------------------------------------------------------------------------


def _finish(folder: OutputFolder, network: Network, lines: Sequence[ResultLine], options: PredictOptions) -> None:
    skipped = Counter(line.reason for line in lines if line.reason is not None)
    data = msgspec.json.Encoder().encode_lines(lines)
    files.write_atomic(folder.path / RESULTS_JSONL, data)
    if sum(skipped.values()) == len(lines):
        folder.fail()
        raise JobFailed(
            f"{folder.path}: none of {len(lines)} inputs can be used. The first, {lines[0].name!r}: {lines[0].reason}: "
            f"{lines[0].detail}. All are in {folder.path / RESULTS_JSONL}."
        )
    folder.remove_all_but(set(_written(folder.path, lines)) | {RESULTS_JSONL})  # of inputs that are no longer given
    for path in [path for save in SAVES for path in (*(folder.path / save).glob("*/"), folder.path / save)]:
        with suppress(OSError):
            path.rmdir()  # empty: of a video that was left out
    files.sync_below(folder.path)
    folder.finish(
        seal(
            PredictionsRecord(
                model=network.model,
                network_sha256=network.sha256,
                options=options.recorded(),
                done=len(lines) - sum(skipped.values()),
                skipped=dict(sorted(skipped.items())),
                results=FileRecord(file=RESULTS_JSONL, count=len(lines), sha256=files.sha256_hex(data)),
            )
        )
    )


def _written(out: Path, lines: Sequence[ResultLine]) -> Iterator[str]:
    """The files of all inputs, and those in the folders of videos."""
    for file in (file for line in lines for file in line.files):
        yield from (f"{file}/{name}" for name in os.listdir(out / file)) if (out / file).is_dir() else (file,)


def _report(out: Path, lines: Sequence[ResultLine], media: Media, resumed: int) -> PredictReport:
    done = [line for line in lines if line.reason is None]
    bad = [line for line in lines if line.reason is not None]
    shares = [line.person_share for line in done if line.person_share is not None]
    return PredictReport(
        out,
        photos=sum(line.kind == "photo" for line in done),
        frames=sum(line.frames or 0 for line in done),
        person_share=sum(shares) / len(shares) if shares else None,
        skipped=dict(sorted(Counter(line.reason or "" for line in bad).items())),
        examples=tuple(f"{line.name}: {line.reason}: {line.detail}" for line in bad[:_EXAMPLES]),
        ignored=media.ignored,
        clips=tuple(line for line in done if line.kind != "photo"),
        resumed=resumed,
        pictures_a_second=None,
        results=out / RESULTS_JSONL,
    )
