"""build-tfrecords and convert, stopped anywhere: never half a folder that looks whole, and the same command goes on."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from segdata.errors import FolderError, JobFailed, RecordError, Stopped
from segdata.formats import folders
from segdata.formats.folders import LOCK, MARKER, PARTS, files_below
from segdata.jobs import build as build_job
from segdata.jobs.build import BuildOptions, BuildReport, build
from segdata.jobs.convert import ConvertOptions, ConvertReport, convert
from segdata.jobs.split import split
from segdata.labels import label_map
from segdata.records import Geometry, SplitOptions
from segdata.sources.pairs import Pairs
from segdata.transforms.crop import Crop
from tests.folders import Made, lines, segdata, small_pairs, tree

BINARY = label_map("binary", "mask")
SMALL = Geometry(size=(32, 24), fit="letterbox")
BUILD = BuildOptions(shards=2, jobs=1)
CONVERT = ConvertOptions("mine", jobs=1)
WHOLE = {"build": "index.json", "convert": "dataset.json"}
_WAIT_S = 120  # until a process does what it should: far longer than it takes, for a machine with other work


@dataclass(frozen=True)
class Chain:
    """Raw pairs, the dataset and the manifest made of them, and where outputs go that are to be compared: JSON files
    hold relative paths, so all of these lie side by side.
    """

    root: Path

    @property
    def source(self) -> Pairs:
        return Pairs(self.root / "photos", self.root / "masks", BINARY)

    @property
    def manifest(self) -> Path:
        return self.root / "manifest"

    def new(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.root))

    def run(self, job: str, out: Path, **options: Any) -> BuildReport | ConvertReport:
        """The build or the conversion of that name."""
        if job.startswith("build"):
            geometry = SMALL if job == "build to a size" else Geometry()
            return build(self.manifest, out, replace(BUILD, geometry=geometry, **options))
        how = {"convert with copies": {"copy_images": True}, "convert to crops": {"crop": Crop(2, 16, 0, 0.05)}}
        return convert(self.source, out, replace(CONVERT, **how.get(job, {}), **options))


JOBS = ["build", "build to a size", "convert", "convert with copies", "convert to crops"]
STEPPED = ["build", "convert with copies", "convert to crops"]  # they take every step that the others do


def made_path(root: Path, count: int) -> Chain:
    small_pairs(root, count)
    path = Chain(root)
    path.run("convert", root / "dataset")
    split([root / "dataset"], path.manifest, SplitOptions(test=2))
    return path


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing to the disk takes nearly all of the time, and longer where others write; no test here cuts the power."""
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(scope="module")
def kept_path(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """For tests that change nothing but outputs."""
    return made_path(tmp_path_factory.mktemp("resume"), 4)


@pytest.fixture
def path(tmp_path: Path) -> Chain:
    """For tests that change inputs too: 40 pairs, so that a conversion has three chunks."""
    return made_path(tmp_path, 40)


@pytest.fixture(scope="module")
def expected(kept_path: Chain) -> Callable[[str], dict[str, str]]:
    """The tree that an uninterrupted run of a job writes."""

    @cache
    def of(job: str) -> dict[str, str]:
        out = kept_path.new()
        kept_path.run(job, out)
        return tree(out)

    return of


def record_of(job: str) -> str:
    return WHOLE[job.split(" ")[0]]


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What changes where a file is written again, were it to the same bytes."""
    found = {name: (folder / name).lstat() for name in files_below(folder)}
    return {name: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for name, stat in found.items()}


# ---- a call of the system that fails ---------------------------------------------------------------------------------


class _Failing:
    """Let the ``n``-th call fail, and with ``for_good`` all later ones too."""

    def __init__(self, n: int, error: Callable[[], BaseException], for_good: bool) -> None:
        self.n, self.error, self.for_good = n, error, for_good
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.n or (self.for_good and self.calls > self.n):
            raise self.error()


class _File:
    """An open file whose ``write`` may fail, halfway."""

    def __init__(self, file: Any, fails: _Failing) -> None:
        self._file, self._fails = file, fails

    def __enter__(self) -> _File:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: bytes) -> int:
        self._file.write(data[: len(data) // 2])
        self._fails()
        return int(self._file.write(data[len(data) // 2 :]))


@contextmanager
def failing(call: str, fails: _Failing) -> Iterator[None]:
    """Within the block the named call, of those that write, may fail."""
    with pytest.MonkeyPatch.context() as patch:
        if call in ("open", "write"):
            opened = pathlib.Path.open

            def opens(file: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
                if "b" not in mode or "w" not in mode:
                    return opened(file, mode, *arguments, **named)
                if call == "open":
                    fails()
                    return opened(file, mode, *arguments, **named)
                return _File(opened(file, mode, *arguments, **named), fails)

            patch.setattr(pathlib.Path, "open", opens)
        else:
            real = getattr(os, call)

            def calls(*arguments: Any, **named: Any) -> Any:
                fails()
                return real(*arguments, **named)

            patch.setattr(os, call, calls)
        yield


def disk_full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def break_off(path: Chain, job: str, out: Path, call: str, n: int, **options: Any) -> None:
    """A run that is interrupted at the ``n``-th call."""
    fails = _Failing(n, KeyboardInterrupt, for_good=False)
    with failing(call, fails), pytest.raises(Stopped):
        path.run(job, out, **options)


def ending(path: Chain, job: str, out: Path, call: str, fails: _Failing) -> BaseException | None:
    """How a run ends in which a call may fail: its error, or None."""
    try:
        with failing(call, fails):
            path.run(job, out)
    except (OSError, FolderError, Stopped, KeyboardInterrupt) as error:
        return error
    return None


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "mkdir"])
@pytest.mark.parametrize("job", STEPPED)
def test_a_disk_that_is_full_at_any_step_leaves_no_whole_folder_and_the_same_command_goes_on(
    kept_path: Chain, expected: Callable[[str], dict[str, str]], job: str, call: str
) -> None:
    for n in range(1, 1000):
        out, fails = kept_path.new(), _Failing(n, disk_full, for_good=True)
        error = ending(kept_path, job, out, call, fails)
        if error is None:
            break
        assert isinstance(error, OSError | FolderError)
        assert "No space left on device" in str(error)
        check_goes_on(kept_path, job, out, expected(job), f"{call} {n}")
    assert fails.calls == n - 1 >= 1


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace", "mkdir", "unlink", "rmdir", "sync"])
@pytest.mark.parametrize("job", STEPPED)
def test_ctrl_c_at_any_step_leaves_no_whole_folder_and_the_same_command_goes_on(
    kept_path: Chain, expected: Callable[[str], dict[str, str]], job: str, call: str
) -> None:
    for n in range(1, 1000):
        out, fails = kept_path.new(), _Failing(n, KeyboardInterrupt, for_good=False)
        error = ending(kept_path, job, out, call, fails)
        if error is None:
            break
        if isinstance(error, Stopped):
            assert str(error).startswith(f"{out}: ")
            assert "Run the same command again to go on:" in str(error)
        else:  # while nothing is written yet, or nothing is left to do
            assert not set(files_below(out)) - {LOCK} or set(tree(out)) >= set(expected(job))
        check_goes_on(kept_path, job, out, expected(job), f"{call} {n}")
    assert fails.calls == n - 1


def check_goes_on(path: Chain, job: str, out: Path, expected: dict[str, str], where: str) -> None:
    """What a stopped run left is whole only where all of it is there, and the same run completes it."""
    left = tree(out)
    if record_of(job) in left:
        assert {name: left.get(name) for name in expected} == expected, where
    else:
        assert not folders.is_finished(out, record_of(job)), where
    path.run(job, out)
    assert tree(out) == expected, where
    assert not (out / PARTS).exists(), where


def test_a_call_that_fails_is_seen_by_these_tests(kept_path: Chain) -> None:
    out = kept_path.new()
    break_off(kept_path, "build", out, "replace", 5)
    assert set(files_below(out)) == {
        MARKER,
        "offsets/mine-train-00000-of-00002.json",
        "mine-train.tfrecord-00000-of-00002",
    }
    assert folders.is_finished(out, "index.json") is False


# ---- what is kept, and what is not -----------------------------------------------------------------------------------


def test_finished_shards_are_kept_and_the_report_counts_them(
    kept_path: Chain, expected: Callable[[str], dict[str, str]]
) -> None:
    out = kept_path.new()
    break_off(kept_path, "build", out, "replace", 7)  # two markers; shard, offsets; shard, offsets; shard
    before = state(out)
    report = kept_path.run("build", out)
    assert isinstance(report, BuildReport)
    assert (report.reused, sum(report.shards.values())) == (2, 4)
    after = state(out)
    assert len(before) == 5
    assert {name for name in before if after.get(name) != before[name]} == {MARKER}
    assert tree(out) == expected("build")
    assert replace(report, reused=0, out=out) == replace(fresh(kept_path, "build"), out=out)


def fresh(path: Chain, job: str) -> Any:
    return path.run(job, path.new())


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
@pytest.mark.parametrize("what", ["a shard", "its offsets"])
def test_a_finished_shard_that_was_damaged_since_is_made_again(
    kept_path: Chain, expected: Callable[[str], dict[str, str]], what: str, damage: str
) -> None:
    out = kept_path.new()
    break_off(kept_path, "build", out, "replace", 7)
    name = "mine-train.tfrecord-00001-of-00002" if what == "a shard" else "offsets/mine-train-00001-of-00002.json"
    hurt(out / name, damage)
    before = state(out)
    report = kept_path.run("build", out)
    assert isinstance(report, BuildReport)
    assert report.reused == 1
    after = state(out)
    assert after["mine-train.tfrecord-00000-of-00002"] == before["mine-train.tfrecord-00000-of-00002"]
    assert tree(out) == expected("build")


def hurt(file: Path, damage: str) -> None:
    data = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(data[:-1])
    elif damage == "flipped":
        file.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    elif damage == "empty":
        file.touch()


def test_offsets_of_another_build_are_not_believed(kept_path: Chain, expected: Callable[[str], dict[str, str]]) -> None:
    out, other = kept_path.new(), kept_path.new()
    kept_path.run("build to a size", other)
    break_off(kept_path, "build", out, "replace", 7)
    for name in ("mine-train.tfrecord-00001-of-00002", "offsets/mine-train-00001-of-00002.json"):
        shutil.copy(other / name, out / name)
    report = kept_path.run("build", out)
    assert isinstance(report, BuildReport)
    assert report.reused == 1
    assert tree(out) == expected("build")


@pytest.mark.parametrize("job", JOBS)
def test_partial_files_of_a_killed_run_are_gone_at_the_end(
    kept_path: Chain, expected: Callable[[str], dict[str, str]], job: str
) -> None:
    out = kept_path.new()
    break_off(kept_path, job, out, "replace", 3)
    partial = "0123abcd.segdata-partial"
    if job.startswith("build"):
        names = ["mine-train.tfrecord-00000-of-00002", "offsets/mine-train-00000-of-00002.json", "index.json"]
    else:
        names = ["masks/p3.png", "samples.jsonl", "dataset.json", f"{PARTS}/{'0' * 32}.json"]
    for name in [*names, MARKER]:
        (out / f"{name}.{partial}").write_bytes(b"half")
    kept_path.run(job, out)
    assert tree(out) == expected(job)


def masks_written(out: Path) -> set[str]:
    return {name for name in files_below(out) if name.startswith("masks/") and name.endswith(".png")}


@pytest.fixture
def broken_off(path: Chain) -> tuple[Chain, Path]:
    """A conversion that was stopped in its third chunk of 16, 16 and 8."""
    out = path.root / "out"
    break_off(path, "convert", out, "replace", 2 + 17 + 17 + 5)  # markers; masks and a part for each chunk
    assert len(masks_written(out)) == 36
    return path, out


def converted_again(path: Chain, out: Path) -> set[str]:
    """Finish a conversion, whose tree must be that of a fresh one; the masks that were written for that."""
    before = state(out)
    path.run("convert", out)
    after = state(out)
    fresh_out = path.root / "fresh"
    path.run("convert", fresh_out)
    assert tree(out) == tree(fresh_out)
    return {name for name in masks_written(out) if after[name] != before.get(name)}


def chunk(path: Chain, number: int) -> set[str]:
    ids = sorted(file.stem for file in (path.root / "photos").iterdir())
    return {f"masks/{name}.png" for name in ids[number * 16 : (number + 1) * 16]}


def test_finished_masks_are_kept(broken_off: tuple[Chain, Path]) -> None:
    path, out = broken_off
    assert converted_again(path, out) == chunk(path, 2)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_a_chunk_with_a_damaged_mask_is_done_again(broken_off: tuple[Chain, Path], damage: str) -> None:
    path, out = broken_off
    hurt(out / sorted(chunk(path, 1))[3], damage)
    assert converted_again(path, out) == chunk(path, 1) | chunk(path, 2)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_a_chunk_whose_own_record_is_damaged_is_done_again(broken_off: tuple[Chain, Path], damage: str) -> None:
    path, out = broken_off
    part = min((out / PARTS).iterdir(), key=lambda part: part.stat().st_mtime_ns)
    hurt(part, damage)
    assert converted_again(path, out) == chunk(path, 0) | chunk(path, 2)


@pytest.mark.parametrize("what", ["photos/p9.jpg", "masks/p9.png"])
@pytest.mark.parametrize("change", ["other bytes", "touched"])
def test_a_chunk_whose_raw_files_changed_since_is_done_again(
    broken_off: tuple[Chain, Path], what: str, change: str
) -> None:
    path, out = broken_off
    raw = path.root / what
    if change == "touched":
        os.utime(raw, ns=(1, 1))
    else:
        Image.open(raw).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(raw, quality=60)
    number = next(n for n in range(3) if "masks/p9.png" in chunk(path, n))
    assert converted_again(path, out) == chunk(path, number) | chunk(path, 2)


def test_masks_of_raw_files_that_are_gone_are_removed(broken_off: tuple[Chain, Path]) -> None:
    path, out = broken_off
    (path.root / "photos" / "p0.jpg").unlink()
    (path.root / "masks" / "p0.png").unlink()
    converted_again(path, out)
    assert not (out / "masks" / "p0.png").exists()
    assert len(lines(out / "samples.jsonl")) == 39


def test_a_raw_file_that_came_since_is_converted(broken_off: tuple[Chain, Path]) -> None:
    path, out = broken_off
    for name in ("photos/p0.jpg", "masks/p0.png"):
        raw = path.root / name
        shutil.copy(raw, raw.with_stem("a0"))
    converted_again(path, out)
    assert len(lines(out / "samples.jsonl")) == 41


def test_copies_of_photos_are_compared_too(path: Chain) -> None:
    out = path.root / "out"
    break_off(path, "convert with copies", out, "replace", 2 + 33 + 5)
    hurt(out / "images" / "p0.jpg", "flipped")
    path.run("convert with copies", out)
    path.run("convert with copies", path.root / "fresh")
    assert tree(out) == tree(path.root / "fresh")


@pytest.mark.parametrize("job", [job for job in JOBS if job.startswith("convert")])
def test_the_report_of_a_resumed_conversion_is_that_of_an_uninterrupted_one(kept_path: Chain, job: str) -> None:
    out = kept_path.new()
    break_off(kept_path, job, out, "sync", 1)
    assert replace(kept_path.run(job, out), out=out) == replace(fresh(kept_path, job), out=out)


# ---- the very end ----------------------------------------------------------------------------------------------------


@contextmanager
def killed_before(name: str, number: int = 1) -> Iterator[None]:
    """A run that dies as by SIGKILL when it removes or renames the file ``name`` for the ``number``-th time: nothing
    more is done. The operating system would release its lock.
    """
    calls = 0
    with pytest.MonkeyPatch.context() as patch:

        def dies(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*paths: Any, **named: Any) -> Any:
                nonlocal calls
                calls += os.path.basename(paths[-1]) == name
                if calls >= number:
                    raise KeyboardInterrupt
                return real(*paths, **named)

            return call

        for call in ("replace", "unlink", "rmdir"):
            patch.setattr(os, call, dies(getattr(os, call)))
        with pytest.raises((KeyboardInterrupt, Stopped)):
            yield


@pytest.mark.parametrize("job", JOBS)
def test_a_run_that_was_killed_before_tidying_up_is_done(
    kept_path: Chain, expected: Callable[[str], dict[str, str]], job: str
) -> None:
    out = kept_path.new()
    with failing("fsync", _Failing(10**9, KeyboardInterrupt, False)), pytest.MonkeyPatch.context() as patch:

        def dies(folder: folders.OutputFolder) -> None:
            raise KeyboardInterrupt

        patch.setattr(folders.OutputFolder, "tidy", dies)
        with pytest.raises(Stopped):
            kept_path.run(job, out)
    assert {MARKER, record_of(job)} <= set(files_below(out))
    before = state(out)
    report = kept_path.run(job, out)
    if isinstance(report, BuildReport):
        assert report.reused == sum(report.shards.values()) == 4
    assert as_made_now(report, out) == replace(fresh(kept_path, job), out=out)
    after = state(out)
    assert {name: before[name] for name in after} == after
    assert tree(out) == expected(job)
    assert not (out / PARTS).exists()


def as_made_now(report: Any, out: Path) -> Any:
    """A report without what tells that an earlier run did a part of it."""
    return replace(report, out=out, **({"reused": 0} if isinstance(report, BuildReport) else {"was_there": False}))


@pytest.mark.parametrize("job", ["build", "convert"])
def test_a_replacement_that_was_killed_before_the_old_json_was_gone_keeps_nothing_of_the_old(
    kept_path: Chain, expected: Callable[[str], dict[str, str]], job: str
) -> None:
    out = kept_path.new()
    kept_path.run(job, out)
    before = state(out)
    with killed_before(record_of(job)):
        kept_path.run(job, out, overwrite=True)
    assert {name for name in before if name in files_below(out)} == set(before)
    assert MARKER in files_below(out)
    report = kept_path.run(job, out, overwrite=True)
    if isinstance(report, BuildReport):
        assert report.reused == 0
    assert tree(out) == expected(job)
    assert not set(state(out).values()) & set(before.values())


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("job", ["build", "convert"])
def test_a_replacement_that_was_stopped_goes_on_with_the_same_command(
    kept_path: Chain, expected: Callable[[str], dict[str, str]], job: str, same: bool
) -> None:
    """Where the folder held the result of the same options, and where of others."""
    out = kept_path.new()
    kept_path.run(job if same else {"build": "build to a size", "convert": "convert with copies"}[job], out)
    old = state(out)
    break_off(kept_path, job, out, "replace", 7, overwrite=True)  # two markers; shard, offsets; shard, offsets
    before = state(out)
    assert record_of(job) not in before
    assert not set(before.values()) & set(old.values())
    report = kept_path.run(job, out, overwrite=True)
    if isinstance(report, BuildReport):
        assert report.reused == 2
        after = state(out)
        assert {name: after[name] for name in before if name != MARKER} == {
            name: value for name, value in before.items() if name != MARKER
        }
    assert tree(out) == expected(job)


# ---- other options ---------------------------------------------------------------------------------------------------


def other_manifest(path: Chain) -> Path:
    out = path.root / "other-manifest"
    if not out.exists():
        split([path.root / "dataset"], out, SplitOptions(test=2, salt="x"))
    return out


OTHER_BUILDS = {
    "manifest": ({}, r"with manifest of sha256 '[0-9a-f]{64}', now it is '[0-9a-f]{64}'"),
    "size": ({"geometry": SMALL}, "with --size None, now it is '32x24'"),
    "shards": ({"shards": 1}, "with --shards 2, now it is 1"),
    "shard-mb": ({"shard_mb": 1}, "with --shard-mb None, now it is 1"),
    "check": ({"check": "decode"}, "with --check 'hash', now it is 'decode'"),
}


@pytest.mark.parametrize("other", list(OTHER_BUILDS))
@pytest.mark.parametrize("found", ["begun", "built"])
def test_a_folder_of_another_build_is_refused_and_the_difference_named(
    kept_path: Chain, found: str, other: str
) -> None:
    if (found, other) == ("built", "check"):
        pytest.skip("--check changes no byte, and no index tells it")
    out, (options, message) = kept_path.new(), OTHER_BUILDS[other]
    if found == "begun":
        break_off(kept_path, "build", out, "replace", 5)
    else:
        kept_path.run("build", out)
    manifest = other_manifest(kept_path) if other == "manifest" else kept_path.manifest
    wanted = replace(BUILD, **options)
    before = state(out)
    with pytest.raises(FolderError, match=f"was {found} {message}.*--overwrite"):
        build(manifest, out, wanted)
    assert state(out) == before
    build(manifest, out, replace(wanted, overwrite=True))
    replaced = kept_path.new()
    build(manifest, replaced, wanted)
    assert tree(out) == tree(replaced)


OTHER_CONVERSIONS: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": "yours"}, "with --name 'mine', now it is 'yours'"),
    "copies": ({"copy_images": True}, "with copy_images False, now it is True"),
    "unmapped": ({"unmapped": "ignore"}, "with unmapped 'reject', now it is 'ignore'"),
    "crops": ({"crop": Crop(2, 16, 0, 0.05)}, "with crops None, now it is 2"),
    "input": ({}, "with input '.*/photos, .*/masks', now it is '.*/more/photos, .*/more/masks'"),
    "kind": ({}, "with kind 'binary', now it is 'matte'"),
}


@pytest.mark.parametrize("other", list(OTHER_CONVERSIONS))
def test_a_folder_of_another_conversion_is_refused_and_the_difference_named(kept_path: Chain, other: str) -> None:
    out, (options, message) = kept_path.new(), OTHER_CONVERSIONS[other]
    break_off(kept_path, "convert", out, "replace", 4)
    source = kept_path.source
    if other == "input":
        shutil.rmtree(kept_path.root / "more", ignore_errors=True)
        source = Pairs(*small_pairs(kept_path.root / "more"), BINARY)
    elif other == "kind":
        source = Pairs(source.images, source.masks, None, kind="matte")
    wanted = replace(CONVERT, **options)
    before = state(out)
    with pytest.raises(FolderError, match=f"was begun {message}.*--overwrite"):
        convert(source, out, wanted)
    assert state(out) == before
    convert(source, out, replace(wanted, overwrite=True))
    replaced = kept_path.new()
    convert(source, replaced, wanted)
    assert tree(out) == tree(replaced)


def test_a_conversion_that_rejected_too_many_may_be_started_otherwise(path: Chain) -> None:
    raw = path.root / "photos" / "p0.jpg"
    whole = raw.read_bytes()
    raw.write_bytes(b"x")
    out = path.root / "out"
    with pytest.raises(JobFailed, match="rejected"):
        path.run("convert", out, max_rejected=0)
    before = state(out)
    raw.write_bytes(whole)
    path.run("convert", out)
    assert len([name for name in masks_written(out) if state(out)[name] == before.get(name)]) == 24
    raw.write_bytes(b"x")
    with pytest.raises(JobFailed, match="rejected"):
        path.run("convert", path.root / "out2", max_rejected=0)
    raw.write_bytes(whole)
    path.run("convert with copies", path.root / "out2")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("found", ["begun", "built"])
@pytest.mark.parametrize("job", ["build", "convert"])
def test_a_foreign_file_is_refused_and_stays(kept_path: Chain, job: str, found: str, overwrite: bool) -> None:
    out = kept_path.new()
    if found == "begun":
        break_off(kept_path, job, out, "replace", 5)
    else:
        kept_path.run(job, out)
    (out / "thesis.txt").write_bytes(b"precious")
    before = state(out)
    with pytest.raises(FolderError, match=r"holds 'thesis\.txt', which segdata did not make"):
        kept_path.run(job, out, overwrite=overwrite)
    assert state(out) == before


# ---- finished folders, changed sources -------------------------------------------------------------------------------


def test_the_same_build_of_a_finished_folder_touches_nothing(kept_path: Chain) -> None:
    out = kept_path.new()
    first = kept_path.run("build", out)
    before = state(out)
    second = kept_path.run("build", out)
    assert isinstance(first, BuildReport)
    assert (first.reused, second) == (0, replace(first, reused=4))
    assert state(out) == before
    done = segdata("build-tfrecords", kept_path.manifest, "--out", out, "--shards", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert "all shards were there already" in done.stdout
    assert state(out) == before


@pytest.mark.parametrize("job", [job for job in JOBS if job.startswith("convert")])
def test_the_same_conversion_to_a_finished_folder_touches_nothing(kept_path: Chain, job: str) -> None:
    out = kept_path.new()
    first = kept_path.run(job, out)
    before = state(out)
    second = kept_path.run(job, out)
    assert isinstance(second, ConvertReport)
    assert second.was_there
    assert as_made_now(second, out) == first
    assert state(out) == before


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_finished_folder_without_all_of_its_shards_is_an_error_that_says_what_to_do(
    kept_path: Chain, damage: str
) -> None:
    out = kept_path.new()
    kept_path.run("build", out)
    hurt(out / "mine-train.tfrecord-00001-of-00002", damage)
    with pytest.raises(RecordError, match=r"mine-train\.tfrecord-00001-of-00002: .*Run `segdata verify"):
        kept_path.run("build", out)


@pytest.mark.parametrize("what", ["photos/p2.jpg", "dataset/masks/p2.png"])
def test_a_source_that_changed_fails_the_build_and_put_back_it_goes_on(path: Chain, what: str) -> None:
    out, source = path.root / "out", path.root / what
    data = source.read_bytes()
    source.write_bytes(data + b"x")
    with pytest.raises(JobFailed, match=rf"{source.name}.*changed since it was converted"):
        build(path.manifest, out, BuildOptions(shards=8, jobs=1))
    assert not (out / "index.json").exists()
    done = {name for name in files_below(out) if name.startswith("offsets/")}
    source.write_bytes(data)
    assert build(path.manifest, out, BuildOptions(shards=8, jobs=1)).reused == len(done)
    build(path.manifest, path.root / "fresh", BuildOptions(shards=8, jobs=1))
    assert tree(out) == tree(path.root / "fresh")


# ---- space -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [[], ["--size", "96x64"], ["--size", "64", "--fit", "stretch"]])
def test_a_dry_run_writes_nothing_and_estimates_well(kept: Made, tmp_path: Path, size: list[str]) -> None:
    arguments = ["build-tfrecords", kept.manifest, "--out", tmp_path / "s", *size, "--shards", "2"]
    planned = segdata(*arguments, "--dry-run", "--json")
    assert (planned.returncode, planned.stderr, files_below(tmp_path)) == (0, "", [])
    assert list(tmp_path.iterdir()) == []
    text = segdata(*arguments, "--dry-run")
    assert "free space" in text.stdout
    assert "nothing was written" in text.stdout
    done = segdata(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    plan, report = json.loads(planned.stdout), json.loads(done.stdout)
    for key in ("records", "shards"):
        assert plan[key] == report[key]
    for name, found in report["bytes"].items():
        assert plan["bytes"][name] == pytest.approx(found, rel=0.15)
    assert plan["free_bytes"] > 0
    assert plan["would_fail"] == ""


def test_a_build_that_cannot_fit_is_refused_before_anything_is_written(
    kept_path: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(kept_path.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    out = kept_path.root / "never"
    with pytest.raises(FolderError, match=r"never: needs about .* MB .*, the disk has 0\.0 MB.*nothing was written"):
        kept_path.run("build", out)
    assert not out.exists()
    report = build_job.plan(kept_path.manifest, out, BUILD)
    assert "the disk has 0.0 MB" in report.would_fail
    assert report.free_bytes == 100
    assert not out.exists()


def test_what_a_killed_build_wrote_counts_as_free(kept_path: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    out = kept_path.new()
    break_off(kept_path, "build", out, "replace", 9)
    usage = shutil.disk_usage(kept_path.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=2000))
    kept_path.run("build", out)


def test_files_that_vanish_while_space_is_counted_do_no_harm(kept_path: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of another run do, which is told of only later."""
    out = kept_path.new()
    monkeypatch.setattr(build_job, "files_below", lambda folder: [*files_below(folder), "gone.segdata-partial"])
    kept_path.run("build", out)


# ---- real processes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A command that takes some seconds, its uninterrupted result, and what counts as done of it."""

    arguments: list[str]
    whole: Path
    pattern: str

    def done(self, out: Path) -> int:
        return sum(1 for _ in out.glob(self.pattern))


@pytest.fixture(scope="module")
def long_works(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    """A build and a conversion, each of some seconds."""
    root = tmp_path_factory.mktemp("long")
    path = made_path(root, 28)
    portraits = root / "portraits"
    portraits.mkdir()
    for i in range(160):
        Image.new("RGB", (40, 30), (i, 90, 120)).save(portraits / f"p{i:03d}.png")
        Image.linear_gradient("L").resize((40, 30)).save(portraits / f"p{i:03d}_matte.png")
    jobs = ["--jobs", "2", "--out"]
    works = {
        "build-tfrecords": Work(
            ["build-tfrecords", str(path.manifest), "--size", "1600", "--shards", "40", *jobs],
            root / "shards",
            "offsets/*.json",
        ),
        "convert": Work(
            ["convert", "pfcn", str(portraits), "--crops", "4", "--size", "640", *jobs],
            root / "converted",
            f"{PARTS}/*.json",
        ),
    }
    for work in works.values():
        done = segdata(*work.arguments, work.whole)
        assert done.returncode == 0, done.stderr
    return works


class Running:
    """A segdata process in a group of its own, as a terminal would start it."""

    def __init__(self, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", "segdata", *map(str, arguments)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )

    def wait_until(self, reached: Callable[[], bool]) -> None:
        end = time.monotonic() + _WAIT_S
        while not reached():
            if self.process.poll() is not None:
                raise AssertionError(f"ended too early: {self.process.returncode} {self.process.communicate()}")
            assert time.monotonic() < end
            time.sleep(0.002)

    def ended(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=_WAIT_S)
        return self.process.returncode, errors

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate(timeout=_WAIT_S)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        try:
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.NoSuchProcess:
            pass
    return found


def wait_for_end(processes: list[psutil.Process]) -> None:
    end = time.monotonic() + _WAIT_S
    while alive(processes):
        assert time.monotonic() < end, alive(processes)
        time.sleep(0.05)


POSIX = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")


@POSIX
@pytest.mark.parametrize("command", ["build-tfrecords", "convert"])
def test_a_process_that_is_killed_or_stopped_thrice_ends_with_the_same_tree(
    long_works: dict[str, Work], command: str
) -> None:
    work = long_works[command]
    out = Path(tempfile.mkdtemp(dir=work.whole.parent))
    for name, code in (("SIGKILL", -9), ("SIGTERM", 143), ("SIGINT", 130)):
        before = work.done(out)
        with Running(*work.arguments, out) as running:
            running.wait_until(lambda before=before: work.done(out) >= before + 2)
            workers = psutil.Process(running.process.pid).children(recursive=True)
            assert len(workers) >= 2
            send = os.killpg if name == "SIGINT" else os.kill  # a terminal sends Ctrl-C to all processes
            send(running.process.pid, getattr(signal, name))
            found, errors = running.ended()
        assert found == code, errors
        wait_for_end(workers)
        assert not (out / record_of("build" if command == "build-tfrecords" else "convert")).exists()
        assert work.done(out) >= before + 2
        if name != "SIGKILL":  # where joblib's tracker of resources may say what it cleaned up
            what = "shards" if command == "build-tfrecords" else "photos"
            first, second = errors.splitlines()
            assert first.startswith(f"segdata: stopped. {out}: ")
            assert f" {what} are done. Run the same command again to go on:" in first
            assert second == f"  segdata {' '.join(work.arguments)} {out}"
            assert not (out / LOCK).exists()
    done = segdata(*work.arguments, out)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(out) == tree(work.whole)


@POSIX
def test_a_second_run_is_told_of_the_first_and_stops_at_once(long_works: dict[str, Work]) -> None:
    work = long_works["build-tfrecords"]
    out = Path(tempfile.mkdtemp(dir=work.whole.parent))
    with Running(*work.arguments, out) as first:
        first.wait_until(lambda: work.done(out) >= 1)
        os.killpg(first.process.pid, signal.SIGSTOP)
        before = state(out)
        for more in ([], ["--overwrite"]):
            second = segdata(*work.arguments, out, *more)
            assert second.returncode == 1
            assert second.stderr == (
                f"segdata: error: {out}: segdata build-tfrecords (process {first.process.pid} on {platform.node()}) "
                "is writing there. Wait for it, or stop it.\n"
            )
        assert state(out) == before
        os.killpg(first.process.pid, signal.SIGCONT)
        os.kill(first.process.pid, signal.SIGTERM)
        assert first.ended()[0] == 143


_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from segdata.cli import main
main(sys.argv[2:])
"""


@POSIX
@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize("job", ["build", "convert"])
def test_a_file_that_may_not_grow_is_named_and_without_the_limit_the_run_goes_on(
    path: Chain, job: str, jobs: str
) -> None:
    out, fresh_out = path.root / "out", path.root / "fresh"
    if job == "build":
        arguments, file, limit = ["build-tfrecords", str(path.manifest), "--shards", "2"], "tfrecord-0000", 6000
    else:
        pairs = ["--images", str(path.root / "photos"), "--masks", str(path.root / "masks")]
        arguments, file, limit = ["convert", "pairs", *pairs], f"{PARTS}/", 8000
    command = [sys.executable, "-c", _LIMITED, str(limit), *arguments, "--jobs", jobs, "--out", str(out)]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=_WAIT_S, check=False)
    assert failed.returncode == 1, failed.stderr
    assert failed.stderr.count("\n") == 1
    assert failed.stderr.startswith(f"segdata: error: {out}")
    assert file in failed.stderr
    assert "File too large" in failed.stderr
    assert not (out / record_of(job)).exists()
    assert MARKER in files_below(out)
    for folder in (out, fresh_out):
        done = segdata(*arguments, "--out", folder, "--jobs", "1")
        assert (done.returncode, done.stderr) == (0, "")
    assert tree(out) == tree(fresh_out)


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A disk of that size at ``folder``, and how to make it larger; a skip where that is not allowed."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("mounting needs root")

    def grow(to: str) -> None:
        subprocess.run(["mount", "-o", f"remount,size={to}", str(folder)], check=True)

    try:
        yield grow
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="tmpfs")
@pytest.mark.parametrize("job", ["build", "convert with copies"])
def test_a_real_disk_that_is_full_is_told_in_a_line_and_with_space_the_run_goes_on(path: Chain, job: str) -> None:
    if job == "build":  # small shards: their offsets and the rest of their last pages were not estimated
        arguments, size = ["build-tfrecords", str(path.manifest), "--shards", "16"], "88k"
    else:
        pairs = ["--images", str(path.root / "photos"), "--masks", str(path.root / "masks"), "--copy-images"]
        arguments, size = ["convert", "pairs", *pairs], "128k"
    with small_disk(path.root / "out", size) as grow:
        failed = segdata(*arguments, "--out", path.root / "out", "--jobs", "1")
        assert failed.returncode == 1, failed.stdout
        assert failed.stderr.count("\n") == 1
        assert failed.stderr.startswith(f"segdata: error: {path.root / 'out'}/")
        assert "No space left on device. Check that there is space" in failed.stderr
        assert not (path.root / "out" / record_of(job)).exists()
        grow("8m")
        for folder in ("out", "fresh"):
            done = segdata(*arguments, "--out", path.root / folder, "--jobs", "1")
            assert (done.returncode, done.stderr) == (0, "")
        assert tree(path.root / "out") == tree(path.root / "fresh")
