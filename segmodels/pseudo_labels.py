"""Pseudo-labels: what a trained network says of photos that nobody labelled, as a prepared dataset to train on.

Here the network is asked; ``segdata.jobs.convert`` makes the dataset of its answers, with all that it checks::

    labels = pseudo_labels(run, inputs, out, options)
    convert.check(labels.source, out, wanted)  # before the network's work
    with labels.made():
        report = convert.convert(labels.source, out, wanted)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from segdata import sample_files
from segdata.errors import ImageRefused, OptionError
from segdata.formats import files, images
from segdata.formats.folders import LOCK, MARKER, PARTS, OutputFolder, output_folder
from segdata.formats.images import Pixels
from segdata.formats.raw_pictures import pillow_held_back
from segdata.labels import IGNORE_INDEX
from segdata.records import DATASET_JSON, Geometry, read_dataset
from segdata.sources import sample_ids
from segdata.sources.predictions import PREDICTIONS_JSONL, Prediction, Predictions, label_map_of
from segmodels.bars import sample_bar
from segmodels.networks import Network, open_network
from segmodels.photo_size import enlarged
from segmodels.predicting.media import Item, find
from segmodels.predicting.photos import ReadPhoto, check_batch_size, photos_through
from segmodels.predicting.results import append_line, logged_lines
from segmodels.refine import Refine, refined_matte
from segmodels.runtimes import Shares

SURE = (0.3, 0.7)
_LOG = f"{PARTS}/{PREDICTIONS_JSONL}"
_NO_RECORD = "predictions.json"  # is never written: the folder stays one in the making until it goes
_OWNED = rf"(masks|mattes)/[^/]+\.png|{PREDICTIONS_JSONL}"
_Settings = dict[str, str | int | float | bool | None]


@dataclass(frozen=True)
class LabelOptions:
    """When a network is believed. OptionError for values out of their bounds.

    ``sure`` is (low, high), SURE for None: a pixel is background where that is 1 - low probable or more, a class where
    that is high probable or more, and ignored elsewhere. Samples of less than ``min_confidence`` are rejected.
    ``refine`` is for mattes, which are kept whole: no pixel of them can be ignored.
    """

    sure: tuple[float, float] | None = None
    min_confidence: float | None = None
    refine: Refine = field(default_factory=Refine)
    batch_size: int = 8

    def __post_init__(self) -> None:
        low, high = self.thresholds
        if not 0 < low <= high < 1:
            raise OptionError(f"--sure {low:g},{high:g}: expected LOW,HIGH above 0 and below 1, such as 0.3,0.7.")
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise OptionError(f"--min-confidence {self.min_confidence}: expected 0 to 1.")
        check_batch_size(self.batch_size)

    @property
    def thresholds(self) -> tuple[float, float]:
        """(low, high)."""
        return self.sure or SURE

    def check(self, target: str) -> None:
        """OptionError where they do not fit what a network learned, ``mask`` or ``matte``."""
        if target == "matte" and self.sure is not None:
            raise OptionError("--sure: the network makes mattes, of which no pixel can be ignored. Leave it out.")
        if target == "mask" and self.refine != Refine():
            raise OptionError(
                "--as-dataset: masks are cut by --sure alone, expected no --threshold, --keep-largest, --fill-holes, "
                "--feather or --refine. Leave them out."
            )

    def recorded(self, target: str) -> _Settings:
        """What of them decides the labels."""
        if target == "mask":
            return {"sure_low": self.thresholds[0], "sure_high": self.thresholds[1]}
        return self.refine.recorded()


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """Labels to be made by a network: of the photos of ``lines``; others are ``rejected`` already.

    ``source`` is what convert takes, inside the block of ``made`` alone: its folder, beside the dataset's, is there for
    no longer.
    """

    network: Network
    options: LabelOptions
    source: Predictions
    lines: Mapping[Item, Prediction]
    rejected: Sequence[Prediction]

    @contextmanager
    def made(self) -> Iterator[None]:
        """Ask the network, then keep what it said while the block runs.

        A run that is stopped, is killed or fails (too many rejected, a full disk) leaves its folder, and the next of
        the same goes on with it. FolderError as ``output_folder`` raises it, Stopped where Ctrl-C ends it.
        """
        work = self.source.root
        with _gone_if_empty(work), self._claimed(work) as folder:
            with pillow_held_back():
                self._write(folder)
            yield
            _empty(work)

    def _claimed(self, work: Path) -> AbstractContextManager[OutputFolder]:
        plan = self._plan()
        return output_folder(work, _NO_RECORD, _OWNED, True, self.source.inputs, "predict --as-dataset", plan)

    def _plan(self) -> _Settings:
        """What decides the labels; not --min-confidence, which leaves some of them out."""
        return {
            "photos in": files.printable(str(self.source.photos)),
            "network of sha256": self.network.sha256,
            **self.options.recorded(self.network.target),
            "codecs": images.codecs(),
        }

    def _write(self, folder: OutputFolder) -> None:
        """The labels of all photos, and predictions.jsonl."""
        for name in (f"{self.network.target}s", PARTS):
            (folder.path / name).mkdir(exist_ok=True)
        made = self._earlier(folder)
        logged = [_Logged(state=item.state(), line=line) for item, line in made.items()]
        files.write_atomic(folder.path / _LOG, msgspec.json.Encoder().encode_lines(logged))
        left = [item for item in self.lines if item not in made]
        results = photos_through(self.network, left, self._label, self._refuse, self.options.batch_size)
        bar, log = sample_bar(len(left), "predict"), (folder.path / _LOG).open("ab")
        with bar, log, closing(results) as lines:  # type: ignore[type-var]
            for item, line in zip(left, folder.counted(lines, [1] * len(left), "photos"), strict=True):
                made[item] = line
                append_line(log, _Logged(state=item.state(), line=line))
                bar.update()
        found = [*self.rejected, *(self._believed(made[item]) for item in self.lines)]
        files.write_atomic(folder.path / PREDICTIONS_JSONL, msgspec.json.Encoder().encode_lines(found))

    def _earlier(self, folder: OutputFolder) -> dict[Item, Prediction]:
        """What an earlier run of the same wrote of photos that have not changed since."""
        found = {(one.line.id, one.line.image): one for one in logged_lines(folder, _LOG, _Logged)}
        earlier = {}
        for item, line in self.lines.items():
            logged = found.get((line.id, line.image))
            if logged and logged.state == item.state() and _is_whole(folder.path, logged.line):
                earlier[item] = msgspec.structs.replace(logged.line, group=line.group, license=line.license)
        return earlier

    def _label(self, read: ReadPhoto, shares: Shares, seconds: float) -> Prediction:
        """Write the label of one photo; its line. A thread's work."""
        line = self.lines[read.item]
        try:
            data, confidence, is_sure = self._drawn(read.photo, shares)
        except ImageRefused as error:  # no PNG is that wide
            return self._refuse(read.item, error)
        if not is_sure:
            line = msgspec.structs.replace(line, reason="unsure", detail=self._unsure())
        label = f"{self.network.target}s/{line.id}.png"
        files.write_atomic(self.source.root / label, data, durable=False)
        return msgspec.structs.replace(
            line, label=label, label_sha256=files.sha256_hex(data), confidence=round(confidence, 6)
        )

    def _drawn(self, photo: Pixels, shares: Shares) -> tuple[bytes, float, bool]:
        """The label as a PNG, the network's confidence, and whether any pixel counts."""
        original, geometry = (photo.shape[0], photo.shape[1]), self.network.geometry
        if self.network.target == "matte":
            alpha = enlarged(shares, 1, original, geometry)
            confidence = float(np.maximum(alpha, 1 - alpha).mean(dtype=np.float64))
            return images.encode_matte(refined_matte(self.options.refine, alpha, photo)[1], 8), confidence, True
        mask, confidence = sure_mask(shares, original, geometry, *self.options.thresholds)
        return images.encode_mask(mask), confidence, not bool((mask == IGNORE_INDEX).all())

    def _refuse(self, item: Item, error: ImageRefused) -> Prediction:
        line = self.lines[item]
        return msgspec.structs.replace(line, reason=error.reason, detail=f"{line.image}: {error.detail}")

    def _unsure(self) -> str:
        low, high = self.options.thresholds
        return f"no pixel's probability is {1 - low:g} or more of background, or {high:g} or more of a class"

    def _believed(self, line: Prediction) -> Prediction:
        least = self.options.min_confidence
        if line.reason is not None or least is None or line.confidence is None or line.confidence >= least:
            return line
        detail = f"confidence {line.confidence}, expected {least} or more"
        return msgspec.structs.replace(line, reason="low-confidence", detail=detail)


def sure_mask(
    shares: Shares, original: tuple[int, int], geometry: Geometry, low: float, high: float
) -> tuple[Pixels, float]:
    """A mask (H, W) uint8 of class ids at the photo's (height, width) ``original``, 255 where a network is unsure, and
    the mean over the pixels of its highest probability.

    ``shares`` (h, w, classes) are probabilities at the network's size, resized smoothly before they are cut: background
    where that is 1 - ``low`` or more, a class where that is ``high`` or more and the highest, the first of equals.
    """
    background = enlarged(shares, 0, original, geometry)
    mask: Pixels = np.where(background >= 1 - low, 0, IGNORE_INDEX).astype(np.uint8)
    highest = np.zeros_like(background)
    for k in range(1, shares.shape[-1]):  # one class at a time: all those of a large photo would not fit in
        share = enlarged(shares, k, original, geometry)
        mask[(share >= high) & (share > highest)] = k
        np.maximum(highest, share, out=highest)
    return mask, float(np.maximum(highest, background).mean(dtype=np.float64))


def pseudo_labels(run: Path, inputs: Sequence[str], out: Path, options: LabelOptions) -> PseudoLabels:
    """What is to be made of ``inputs``, photos as predict takes them or one prepared dataset, for a dataset ``out``.

    Nothing is predicted or written yet. Of a dataset the photos are taken, with ids, groups and licenses; its masks are
    not looked at. OptionError where inputs or options do not fit, and as ``open_network`` raises.
    """
    photos = _photos(inputs)
    network = open_network(run)
    options.check(network.target)
    real = Path(os.path.realpath(out))
    source = Predictions(
        photos.root,
        real.with_name(f"{real.name}{PARTS}"),
        label_map_of(network.label_map) if network.label_map else None,
        {
            "model": network.model,
            "network_sha256": network.sha256,
            **options.recorded(network.target),
            "min_confidence": options.min_confidence,
        },
        photos.inputs,
        photos.passed_over,
    )
    return PseudoLabels(network, options, source, photos.lines, photos.rejected)


# ---- photos ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Photos:
    """Photos below ``root``, each with the line that it is to get, in the order of ids; those that can get none."""

    root: Path
    lines: dict[Item, Prediction]
    inputs: tuple[Path, ...]
    rejected: list[Prediction] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)


def _photos(inputs: Sequence[str]) -> _Photos:
    datasets = [text for text in inputs if (Path(text) / DATASET_JSON).is_file()]
    if not datasets:
        return _loose(inputs)
    if len(inputs) > 1:
        raise OptionError(f"{datasets[0]}: is a prepared dataset, and not the only input. Give it alone.")
    return _of_dataset(Path(datasets[0]))


def _loose(inputs: Sequence[str]) -> _Photos:
    """Photos of folders, of patterns and by name; each is its own group."""
    media = find(inputs)
    paths = _real([item.path for item in media.items if item.kind == "photo"])
    if not paths:
        raise OptionError(f"{' '.join(inputs)}: holds no photo, expected some; videos and cameras have none.")
    passed = dict(media.ignored)
    for suffix in (item.path.suffix.lower() for item in media.items if item.kind != "photo"):
        passed[suffix] = passed.get(suffix, 0) + 1
    root = _common(paths)
    names = [path.relative_to(root).as_posix() for path in paths]
    bad = [name for name in names if files.printable(name) != name]
    ids, doubled = sample_ids(name for name in names if name not in bad)
    lines = {
        Item(root / image, name, "photo"): Prediction(id=name, group=name, image=image) for image, name in ids.items()
    }
    rejected = [_rejected(line.id, line.reason, line.detail) for line in doubled]
    rejected += [_rejected(files.printable(name), "bad-name", "the file name is not UTF-8; rename it") for name in bad]
    in_order = dict(sorted(lines.items(), key=lambda pair: pair[1].id))
    return _Photos(root, in_order, _folders(paths), rejected, passed)


def _rejected(name: str, reason: str, detail: str) -> Prediction:
    return Prediction(id=name, group=name, image=name, reason=reason, detail=detail)


def _of_dataset(folder: Path) -> _Photos:
    """Those of a prepared dataset, whose lines are in order already."""
    place = sample_files.place_of(folder, read_dataset(folder))[None]
    samples = list(sample_files.sample_lines(folder))
    if not samples:
        raise OptionError(f"{folder}: holds no sample, expected photos.")
    paths = _real([place.image(line) for line in samples])
    root = _common(paths)
    lines = {
        Item(path, line.id, "photo"): Prediction(
            id=line.id, group=line.group, image=path.relative_to(root).as_posix(), license=line.license
        )
        for path, line in zip(paths, samples, strict=True)
    }
    return _Photos(root, lines, (folder, *_folders(paths)))


def _real(paths: Sequence[Path]) -> list[Path]:
    """Absolute paths through folders as they are, links followed; files keep their names."""
    folders = {path.parent: Path(os.path.realpath(path.parent)) for path in paths}
    return [folders[path.parent] / path.name for path in paths]


def _folders(paths: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(sorted({path.parent for path in paths}))


def _common(paths: Sequence[Path]) -> Path:
    """The folder that all lie below."""
    try:
        return Path(os.path.commonpath(_folders(paths)))
    except ValueError as error:  # two drives
        raise OptionError(
            f"{paths[0]}: not on one drive with all other photos. Label those of each by themselves."
        ) from error


# ---- the folder of predictions ---------------------------------------------------------------------------------------


class _Logged(msgspec.Struct, frozen=True, kw_only=True):
    """A line, and size in bytes and time of change that its photo had."""

    state: tuple[int, int] | None
    line: Prediction


def _is_whole(work: Path, line: Prediction) -> bool:
    """Whether its label is there as it was written; what could not be read may be readable now."""
    try:
        return bool(line.label) and files.sha256_file(work / line.label) == line.label_sha256
    except OSError:
        return False


@contextmanager
def _gone_if_empty(work: Path) -> Iterator[None]:
    """Remove the folder after the block, when nobody holds its lock any more: Windows keeps what is open."""
    try:
        yield
    finally:
        with suppress(OSError):
            work.rmdir()


def _empty(work: Path) -> None:
    """Remove all but the lock, which is held; the marker last, so that what a kill leaves is known for ours."""
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOCK, MARKER):
            path.unlink()
    (work / MARKER).unlink(missing_ok=True)
