"""Output folders: nothing that segdata did not make is overwritten, and half a result never looks whole.

A folder in the making holds the marker ``.segdata-unfinished``; its JSON is written last, and only then does the
marker go.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from segdata.errors import FolderError
from segdata.formats.files import PARTIAL, write_atomic
from segdata.records import RECORD_NAMES

MARKER = ".segdata-unfinished"
LOCK = ".segdata-lock"
_CONTROL = {MARKER, MARKER + PARTIAL, LOCK}
MARKER_TEXT = "segdata is writing here, or was stopped before it was done.\n"


class OutputFolder:
    """A folder that one command fills; ``finish`` writes the JSON that makes it whole."""

    def __init__(self, path: Path, record_name: str) -> None:
        self.path = path
        self._record_name = record_name

    def finish(self, record: bytes) -> None:
        """Write the folder's JSON, by rename, and take the marker away."""
        write_atomic(self.path / self._record_name, record)
        (self.path / MARKER).unlink(missing_ok=True)


def check_output_folder(path: Path, record_name: str, owned: str, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    """FolderError where ``output_folder`` would refuse ``path``; changes nothing."""
    _refuse_inputs(path, inputs)
    _refuse_foreign(path, record_name, re.compile(owned), overwrite)


@contextmanager
def output_folder(
    path: Path, record_name: str, owned: str, overwrite: bool, inputs: Sequence[Path] = ()
) -> Iterator[OutputFolder]:
    """Claim ``path`` for writing.

    ``inputs`` are what the command reads: ``path`` may neither be one of them nor hold one. ``owned`` is a regular
    expression over relative POSIX paths: the files that this kind of folder may hold. A finished
    folder is replaced only with ``overwrite``, an unfinished one is started again. FolderError, before anything is
    removed, where the folder is finished, holds foreign files, or another command is writing there.
    """
    pattern = re.compile(owned)
    check_output_folder(path, record_name, owned, overwrite, inputs)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{path}: cannot be made ({error.strerror}), expected a folder to write to.") from error
    lock = FileLock(path / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderError(f"{path}: another segdata command is writing there. Wait for it, or stop it.") from error
    try:
        _refuse_foreign(path, record_name, pattern, overwrite)  # again: now nobody else is writing there
        write_atomic(path / MARKER, MARKER_TEXT.encode())
        _clear(path, record_name)
        yield OutputFolder(path, record_name)
    finally:
        _release(lock, path / LOCK)


def _release(lock: FileLock, file: Path) -> None:
    """Remove the lock's file while it is still held: later it could be another command's. Windows cannot do that."""
    try:
        file.unlink(missing_ok=True)
    except PermissionError:
        lock.release()
        with suppress(PermissionError):
            file.unlink(missing_ok=True)
    else:
        lock.release()


def _refuse_inputs(path: Path, inputs: Sequence[Path]) -> None:
    """What a command reads must survive it, and no folder of segdata's may hold another."""
    out = path.resolve()
    for source in (item.resolve() for item in inputs):
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
    unfinished = MARKER in files and (path / MARKER).read_bytes() == MARKER_TEXT.encode()
    ours = finished or (unfinished and record_name not in files) or set(files) <= _CONTROL
    foreign = [name for name in files if not _own(name, record_name, owned)]
    if not ours or foreign:
        name = (foreign or files)[0]
        raise FolderError(f"{path}: holds {name!r}, which segdata did not make. Choose another --out, or move it away.")
    if finished and not overwrite:
        raise FolderError(f"{path}: already holds a finished {record_name}. Choose another --out, or pass --overwrite.")


def _own(name: str, record_name: str, owned: re.Pattern[str]) -> bool:
    whole = name.removesuffix(PARTIAL)
    return name in _CONTROL or whole == record_name or bool(owned.fullmatch(whole))


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
        found += [(Path(top) / name).relative_to(path).as_posix() for name in files + links]
    return sorted(found)
