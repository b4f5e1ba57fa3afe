"""Output folders: nothing that segdata did not make is overwritten, and half a result never looks whole.

A folder in the making holds the marker ``.segdata-unfinished``; its JSON is written last, and only then does the
marker go.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from segdata.errors import FolderError
from segdata.formats.files import PARTIAL, write_atomic

MARKER = ".segdata-unfinished"
_LOCK = ".segdata-lock"


class OutputFolder:
    """A folder that one command fills; ``finish`` writes the JSON that makes it whole."""

    def __init__(self, path: Path, record_name: str) -> None:
        self.path = path
        self._record_name = record_name

    def finish(self, record: bytes) -> None:
        """Write the folder's JSON, by rename, and take the marker away."""
        write_atomic(self.path / self._record_name, record)
        (self.path / MARKER).unlink(missing_ok=True)


@contextmanager
def output_folder(path: Path, record_name: str, owned: str, overwrite: bool) -> Iterator[OutputFolder]:
    """Claim ``path`` for writing.

    ``owned`` is a regular expression over relative POSIX paths: the files that this kind of folder may hold. A finished
    folder is replaced only with ``overwrite``, an unfinished one is started again. FolderError, before anything is
    removed, where the folder is finished, holds foreign files, or another command is writing there.
    """
    _refuse_foreign(path, record_name, re.compile(owned), overwrite)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FolderError(f"{path}: cannot be made ({error.strerror}), expected a folder to write to.") from error
    lock = FileLock(path / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FolderError(f"{path}: another segdata command is writing there. Wait for it, or stop it.") from error
    try:
        (path / MARKER).write_text("segdata is writing here, or was stopped before it was done.\n", encoding="utf-8")
        _clear(path, record_name)
        yield OutputFolder(path, record_name)
    finally:
        lock.release()
        (path / _LOCK).unlink(missing_ok=True)


def _refuse_foreign(path: Path, record_name: str, owned: re.Pattern[str], overwrite: bool) -> None:
    if path.exists() and not path.is_dir():
        raise FolderError(f"{path}: is a file, expected a folder to write to.")
    files = files_below(path) if path.is_dir() else []
    if not files:
        return
    finished, ours = record_name in files, record_name in files or MARKER in files or files == [_LOCK]
    ours_alone = [name for name in files if not _own(name, record_name, owned)]
    if not ours or ours_alone:
        name = (ours_alone or files)[0]
        raise FolderError(f"{path}: holds {name!r}, which segdata did not make. Choose another --out, or move it away.")
    if finished and not overwrite:
        raise FolderError(f"{path}: already holds a finished {record_name}. Choose another --out, or pass --overwrite.")


def _own(name: str, record_name: str, owned: re.Pattern[str]) -> bool:
    whole = name.removesuffix(PARTIAL)
    return name in (MARKER, _LOCK) or whole == record_name or bool(owned.fullmatch(whole))


def _clear(path: Path, record_name: str) -> None:
    """Remove what an earlier run left. The JSON goes first, so that the folder stops looking whole at once."""
    (path / record_name).unlink(missing_ok=True)
    for name in files_below(path):
        if name not in (MARKER, _LOCK):
            (path / name).unlink()


def files_below(path: Path) -> list[str]:
    """Relative POSIX paths of all files below a folder, sorted; links to folders are not followed."""
    found = []
    for top, folders, files in os.walk(path):
        links = [name for name in folders if os.path.islink(os.path.join(top, name))]
        found += [(Path(top) / name).relative_to(path).as_posix() for name in files + links]
    return sorted(found)
