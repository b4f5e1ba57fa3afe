"""Output folders: nothing that segdata did not make is overwritten, and half a result never looks whole.

A folder in the making holds the marker ``.segdata-unfinished``, which says what is being made of what. Its JSON is
written last, and only then does the marker go. A command that is given the same again goes on with what is there.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import msgspec
from filelock import FileLock, Timeout

from segdata.errors import FolderError, JobFailed, Stopped
from segdata.formats.files import sync_folder, whole_name, write_atomic
from segdata.records import RECORD_NAMES

MARKER = ".segdata-unfinished"
LOCK = ".segdata-lock"
PARTS = ".segdata-parts"  # a folder for what a command keeps until it is done
_CONTROL = {MARKER, LOCK}
Plan = Mapping[str, str | int | float | bool | None]
_Result = TypeVar("_Result")


class _Marker(msgspec.Struct, kw_only=True):
    """What is being made here: with another ``plan`` the result would be another.

    While what was there before is being removed, the folder ``is_emptied``, and nothing in it is of the plan. One that
    ``has_failed`` came to an end that nobody wants: other options start it again without being asked twice.
    """

    format: str = "segdata folder in the making"
    plan: dict[str, str | int | float | bool | None]
    run: str = ""  # another for each run
    is_emptied: bool = False
    has_failed: bool = False


class OutputFolder:
    """A folder that one command fills; ``finish`` writes the JSON that makes it whole.

    ``is_resumed`` says that an earlier run left files here which were made of the same; ``is_whole`` that it was
    stopped when all was done but tidying up.
    """

    def __init__(self, path: Path, record_name: str, owned: re.Pattern[str], is_resumed: bool) -> None:
        self.path, self.run = path, os.urandom(8).hex()
        self.is_resumed = is_resumed
        self.is_whole = is_resumed and (path / record_name).is_file()
        self.done = ""
        self._record_name, self._owned = record_name, owned

    def counted(self, results: Iterable[_Result], sizes: Sequence[int], what: str) -> Iterator[_Result]:
        """``results`` as they come, counted, for the message of a run that is stopped: ``12 of 40 shards are done``."""
        done, total = 0, sum(sizes)
        self.done = f"0 of {total} {what} are done"
        for size, result in zip(sizes, results, strict=True):
            done += size
            self.done = f"{done} of {total} {what} are done"
            yield result

    def fail(self) -> None:
        """Note that the job came to its end and the result is not acceptable, so that other options may replace it."""
        marker = _read_marker(self.path)
        if marker is not None:
            _write_marker(self.path, msgspec.structs.replace(marker, has_failed=True))

    def remove_all_but(self, names: Collection[str]) -> None:
        """Remove the files of this kind of folder, by relative path, that an earlier run made and this one did not."""
        for name in files_below(self.path):
            if self._owned.fullmatch(name) and name not in names:
                (self.path / name).unlink()

    def finish(self, record: bytes) -> None:
        """Write the folder's JSON, by rename, then take away what was there for the making alone."""
        write_atomic(self.path / self._record_name, record)
        self.tidy()

    def tidy(self) -> None:
        """Take away what was there for the making alone; the marker goes last."""
        _remove_partial(self.path)
        for name in files_below(self.path / PARTS):
            (self.path / PARTS / name).unlink(missing_ok=True)
        with suppress(OSError):
            (self.path / PARTS).rmdir()
        sync_folder(self.path)
        (self.path / MARKER).unlink(missing_ok=True)


def check_run(path: Path, run: str) -> None:
    """JobFailed where a folder is no longer of that run: a worker that outlived its run must not write to the next."""
    marker = _read_marker(path)
    if marker is None or marker.run != run:
        raise JobFailed(f"{path}: another run has taken it over; this one writes no more.")


def check_output_folder(
    path: Path, record_name: str, owned: str, overwrite: bool, inputs: Sequence[Path] = (), plan: Plan | None = None
) -> None:
    """FolderError where ``output_folder`` would refuse ``path``; changes nothing."""
    refuse_busy(path)
    _refuse_inputs(path, inputs)
    _refuse_foreign(path, record_name, re.compile(owned), overwrite)
    _refuse_other_plan(path, overwrite, plan)


def is_finished(path: Path, record_name: str) -> bool:
    """Whether a folder of that kind is whole, with nothing left to do."""
    return (path / record_name).is_file() and _is_ours(path / record_name) and not _is_unfinished(path, record_name)


def check_finished(
    path: Path, record_name: str, owned: str, inputs: Sequence[Path] = (), command: str = "a command"
) -> None:
    """FolderError where a finished folder holds files of others, or another command is writing there.

    A lock that a run left, which was killed when all else was done, is taken away.
    """
    check_output_folder(path, record_name, owned, overwrite=True, inputs=inputs)
    if (path / LOCK).exists():
        with locked_folder(path, command):
            pass


def adopt(path: Path, owned: str, plan: Plan, record_name: str = "") -> None:
    """Make a folder that lost its JSON one in the making, so that what is in it is gone on with; where all is ours.

    With ``record_name`` a finished folder too, of which the command that goes on with it removes the JSON.
    """
    pattern = re.compile(owned)
    if all(_own(name, record_name, pattern) for name in files_below(path)):
        _write_marker(path, _Marker(plan=dict(plan)))


@contextmanager
def output_folder(
    path: Path,
    record_name: str,
    owned: str,
    overwrite: bool,
    inputs: Sequence[Path] = (),
    command: str = "a command",
    plan: Plan | None = None,
) -> Iterator[OutputFolder]:
    """Claim ``path`` for writing.

    ``inputs`` are what the command reads: ``path`` may neither be one of them nor hold one. ``owned`` is a regular
    expression over relative POSIX paths: the files that this kind of folder may hold. A finished folder is replaced
    only with ``overwrite``. An unfinished one is gone on with where it was begun with the same ``plan``; with another
    it is refused, or with ``overwrite`` emptied first; without any plan it is always started again. FolderError,
    before anything is removed, where the folder is finished, holds foreign files, or another command is writing there.
    Stopped where Ctrl-C ends the block.
    """
    pattern = re.compile(owned)
    check_output_folder(path, record_name, owned, overwrite, inputs, plan)
    try:
        path.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise FolderError(f"{path}: cannot be made ({error.strerror}), expected a folder to write to.") from error
    with locked_folder(path, command):
        _refuse_foreign(path, record_name, pattern, overwrite)  # again: now nobody else is writing there
        _refuse_other_plan(path, overwrite, plan)
        is_resumed = _is_resumable(path, plan)
        folder = OutputFolder(path, record_name, pattern, is_resumed)
        try:
            if is_resumed:
                _remove_partial(path)  # they take room, and nobody goes on with them
            else:
                _write_marker(path, _Marker(plan=dict(plan or {}), is_emptied=True))
                _clear(path, record_name)
            _write_marker(path, _Marker(plan=dict(plan or {}), run=folder.run))
            yield folder
        except KeyboardInterrupt as error:
            way = "to go on" if plan is not None else "to start over"
            done = folder.done or "it is unfinished"
            raise Stopped(f"{path}: {done}. Run the same command again {way}:") from error


@contextmanager
def locked_folder(path: Path, command: str) -> Iterator[None]:
    """Keep other segdata commands from writing to a folder. FolderError, naming the other, where one does.

    The lock is of the open file; its text, which says who holds it, may be left over from a command that was killed.
    """
    lock = _acquired(path)
    try:
        with (path / LOCK).open("r+b", buffering=0) as file:
            file.seek(1)  # Windows lets nobody write or read the first byte, which is locked
            file.write(f"segdata {command} (process {os.getpid()} on {platform.node()})".encode())
            file.truncate()
        yield
    finally:
        _release(lock, path / LOCK)


def _acquired(path: Path) -> FileLock:
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderError(f"{path}: {_writer(path)} is writing there. Wait for it, or stop it.") from error
    return lock


def refuse_busy(path: Path) -> None:
    """FolderError where another command is writing, before anything else is found wrong with what it does."""
    if (path / LOCK).is_file():
        _acquired(path).release()


def _write_marker(path: Path, marker: _Marker) -> None:
    write_atomic(path / MARKER, msgspec.json.encode(marker))


def _read_marker(path: Path) -> _Marker | None:
    """The marker of a folder in the making; None where there is none, or somebody else's file of that name."""
    try:
        return msgspec.json.decode((path / MARKER).read_bytes(), type=_Marker)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def _writer(path: Path) -> str:
    """Who holds the lock of a folder."""
    with suppress(OSError, UnicodeDecodeError), (path / LOCK).open("rb", buffering=0) as file:
        file.seek(1)
        return file.read(1000).decode("utf-8") or "another segdata command"
    return "another segdata command"


def _is_unfinished(path: Path, record_name: str) -> bool:
    """Whether a marker says so. One that is to be emptied, and still has its JSON, is as whole as it was."""
    marker = _read_marker(path)
    return marker is not None and not (marker.is_emptied and (path / record_name).is_file())


def _remove_partial(path: Path) -> None:
    """Remove files in the making. Those of a worker that was given up and still writes may be held on Windows."""
    for name in files_below(path):
        if whole_name(name) is not None:
            with suppress(OSError):
                (path / name).unlink()


def _is_resumable(path: Path, plan: Plan | None) -> bool:
    marker = _read_marker(path)
    return marker is not None and not marker.is_emptied and plan is not None and marker.plan == dict(plan)


def _refuse_other_plan(path: Path, overwrite: bool, plan: Plan | None) -> None:
    marker = _read_marker(path)
    if marker is None or marker.is_emptied or marker.has_failed or plan is None or overwrite:
        return
    refuse_difference(path, marker.plan, plan, "was begun", "to go on")


def refuse_difference(path: Path, before: Plan, plan: Plan, what: str, way: str) -> None:
    """FolderError, naming the first difference, where a folder that ``was built`` with other options is there."""
    for key in [*plan, *before]:
        if before.get(key) != plan.get(key):
            raise FolderError(
                f"{path}: {what} with {key} {before.get(key)!r}, now it is {plan.get(key)!r}. "
                f"Give the same {way}, choose another --out, or pass --overwrite."
            )


def _release(lock: FileLock, file: Path) -> None:
    """Remove the lock's file while it is still held: later it could be another command's. Windows cannot do that."""
    try:
        file.unlink(missing_ok=True)
    except PermissionError:
        lock.release()
        with suppress(PermissionError):
            file.unlink(missing_ok=True)
    finally:
        lock.release()


def _refuse_inputs(path: Path, inputs: Sequence[Path]) -> None:
    """What a command reads must survive it, and no folder of segdata's may hold another."""
    out = Path(os.path.realpath(path))
    for source in (Path(os.path.realpath(item)) for item in inputs):  # Path.resolve raises where links go round
        if out == source or out in source.parents:
            raise FolderError(
                f"{path}: holds the input {source.name!r}, expected another folder. Choose another --out."
            )
    refuse_nested(path)


def refuse_nested(path: Path) -> None:
    """FolderError for a file or folder to write that lies in a folder of segdata's, which would no longer verify."""
    for parent in path.resolve().parents:
        name = next((name for name in RECORD_NAMES if (parent / name).is_file()), None)
        if name is not None and _is_ours(parent / name):
            raise FolderError(f"{path}: lies in {parent.name!r}, which has a {name}. Choose an --out beside it.")


def check_output_file(path: Path, is_ours: Callable[[Path], bool], what: str, overwrite: bool) -> None:
    """FolderError for a single file to write that is not ours, is there already, or lies in a folder of segdata's.

    ``what`` says of a foreign file what it is not, as in "sheet that segdata drew".
    """
    refuse_nested(path)
    if path.exists() and not (path.is_file() and is_ours(path)):
        raise FolderError(f"{path}: is no {what}. Choose another --out.")
    if path.exists() and not overwrite:
        raise FolderError(f"{path}: exists already. Choose another --out, or pass --overwrite.")


def _is_ours(record: Path) -> bool:
    """Whether a JSON is segdata's by its format, however damaged the rest is."""
    with record.open("rb") as file:
        return re.search(rb'"format":\s*"segdata ', file.read(200)) is not None


def _refuse_foreign(path: Path, record_name: str, owned: re.Pattern[str], overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise FolderError(f"{path}: is a file, expected a folder to write to.")
    files = files_below(path) if path.is_dir() else []
    if not files:
        return
    finished = record_name in files and _is_ours(path / record_name)
    unfinished = MARKER in files and _is_unfinished(path, record_name)
    ours = finished or (unfinished and record_name not in files) or all(_whole(name) in _CONTROL for name in files)
    foreign = [name for name in files if not _own(name, record_name, owned)]
    if not ours or foreign:
        name = (foreign or files)[0]
        raise FolderError(f"{path}: holds {name!r}, which segdata did not make. Choose another --out, or move it away.")
    if finished and not unfinished and not overwrite:
        raise FolderError(f"{path}: already holds a finished {record_name}. Choose another --out, or pass --overwrite.")


def _own(name: str, record_name: str, owned: re.Pattern[str]) -> bool:
    whole = _whole(name)
    ours = whole in _CONTROL or whole == record_name or whole.startswith(f"{PARTS}/")
    return ours or bool(owned.fullmatch(whole))


def _whole(name: str) -> str:
    found = whole_name(name)
    return name if found is None else found


def _clear(path: Path, record_name: str) -> None:
    """Remove what an earlier run left. The JSON goes first, so that the folder stops looking whole at once."""
    (path / record_name).unlink(missing_ok=True)
    for name in files_below(path):
        if name not in (MARKER, LOCK):
            (path / name).unlink()


def files_below(path: Path) -> list[str]:
    """Relative POSIX paths of all files below a folder, sorted; links to folders are not followed."""
    found = []
    for top, folders, files in os.walk(path):
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        below = os.path.relpath(top, path).replace(os.sep, "/")
        found += [name if below == "." else f"{below}/{name}" for name in files + links]
    return sorted(found)
