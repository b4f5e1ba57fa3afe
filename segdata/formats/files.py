"""Files: atomic writes, hashes, safe reads and listings."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
import unicodedata
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from segdata.errors import FolderError, ImageRefused, SourceError

PICTURE_SUFFIXES = frozenset(".avif .bmp .gif .jfif .jpe .jpeg .jpg .mpo .pbm .pgm .png .ppm .tif .tiff .webp".split())
MAX_FILE_BYTES = 1 << 30
PARTIAL = ".segdata-partial"  # behind the name of a file that is being written, and a token of its writer
_IS_PARTIAL = re.compile(r"(.*?)(\.[0-9a-f]{8})?" + re.escape(PARTIAL), re.DOTALL)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # as writing says it, of no file
_FORBIDDEN = frozenset('<>:"/\\|?*%')
_RESERVED = frozenset(["con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))])
_MAX_ID_BYTES = 180  # leaves room for suffixes below the 255 bytes that file systems allow
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,180}")


def sha256_hex(data: bytes) -> str:
    """The sha256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def atomic_file(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """A file that appears under its name only when the block ends well: temporary name, flush to disk, rename.

    Without ``durable`` it is not flushed: it survives the death of its process, and needs ``sync_below`` to survive a
    power cut.
    """
    partial = path.with_name(f"{path.name}.{os.urandom(4).hex()}{PARTIAL}")  # two writers never share one
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(partial, path)
        if durable:
            sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None and error.errno in _FULL:  # it names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def write_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Write a whole file so that it is either the old one or the new one, never a part."""
    with atomic_file(path, durable) as file:
        file.write(data)


def sync_below(folder: Path) -> None:
    """Flush all files below a folder, many small ones that were not ``durable``, to the disk.

    One call for all of them where there is one: 700 flushes of one file each take as long as writing 5,000.
    """
    if sys.platform == "linux":  # elsewhere it may return before it is done
        os.sync()
        return
    for top, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(top, name), "rb+") as file:  # Windows flushes only what is open for writing
                os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush a folder, so that the names in it survive a power cut. Windows does that by itself, and has no call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems know no such call
            raise
    finally:
        os.close(descriptor)


def whole_name(name: str) -> str | None:
    """The name that a file in the making will get; None for the name of any other file."""
    match = _IS_PARTIAL.fullmatch(name)
    return match[1] if match else None


def read_regular(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """All bytes of a regular file. ImageRefused for a folder, pipe, device, dangling link, unreadable or larger one."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # before open: a pipe would hang
            raise ImageRefused("unreadable", f"{path.name!r} is not a regular file")
        if found.st_size > max_bytes:
            raise ImageRefused(
                "too-large", f"{path.name!r} has {found.st_size:,} bytes, expected at most {max_bytes:,}"
            )
        data = path.read_bytes()
    except OSError as error:
        raise ImageRefused("unreadable", f"{path.name!r}: {error.strerror or error}") from error
    if not data:
        raise ImageRefused("unreadable", f"{path.name!r} is empty (0 bytes)")
    return data


@dataclass(frozen=True)
class Pictures:
    """The pictures in a folder: file names in order, names that UTF-8 cannot hold, and what was passed over by kind."""

    names: list[str]
    bad_names: list[str]
    ignored: dict[str, int] = field(default_factory=dict)


def list_pictures(folder: Path, suffixes: Collection[str] = PICTURE_SUFFIXES) -> Pictures:
    """The files of a folder whose suffix is a picture's, in any letter case, sorted; hidden files and folders are not.

    SourceError where the folder does not exist.
    """
    names: list[str] = []
    bad_names: list[str] = []
    ignored: dict[str, int] = {}
    try:
        entries = sorted(os.listdir(folder))
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}, expected a folder of pictures.") from error
    for name in entries:
        kind = _passed_over(folder, name, suffixes)
        if kind:
            ignored[kind] = ignored.get(kind, 0) + 1
        elif _is_utf8(name):
            names.append(name)
        else:
            bad_names.append(name)
    return Pictures(names, bad_names, ignored)


def _passed_over(folder: Path, name: str, suffixes: Collection[str]) -> str:
    """Why a directory entry is no picture, as a word for the report; empty for one that may be."""
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        return "hidden"
    if suffix not in suffixes:
        if (folder / name).is_dir():
            return "link to a folder" if (folder / name).is_symlink() else "folder"
        return (suffix if _is_utf8(suffix) else "") or "no suffix"
    return ""


def list_folders(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the folders in a folder, sorted, and those that UTF-8 cannot hold; no hidden ones, no links to folders.

    SourceError where the folder does not exist.
    """
    try:
        with os.scandir(folder) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise SourceError(f"{folder}: {error.strerror}, expected a folder.") from error
    shown = sorted(name for name in found if not name.startswith("."))
    return [name for name in shown if _is_utf8(name)], [name for name in shown if not _is_utf8(name)]


def _is_utf8(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A file name that any terminal and JSON file can hold: bytes that are not UTF-8 as ``\\xff``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def cut(text: str) -> str:
    """A text for a message, cut in its middle where it is very long."""
    return text if len(text) <= 200 else f"{text[:140]}...{text[-40:]}"


def key_of(stem: str) -> str:
    """What two file names must share to belong together: the stem in Unicode's NFC form, letter case folded."""
    return unicodedata.normalize("NFC", stem).casefold()


def safe_id(stem: str) -> str:
    """A sample id that every file system takes as a file name; ``%XX`` for what Windows refuses.

    Different stems give different ids. Long ones are cut and end in a part of their sha256.
    """
    if _PLAIN.fullmatch(stem) and stem.lower() not in _RESERVED:  # most are, and there are many
        return stem
    text = unicodedata.normalize("NFC", stem)
    escaped = "".join(c if c not in _FORBIDDEN and ord(c) >= 32 else f"%{ord(c):02X}" for c in text)
    if escaped[-1:] in (".", " "):
        escaped = f"{escaped[:-1]}%{ord(escaped[-1]):02X}"
    if escaped.startswith(".") or escaped.split(".")[0].lower() in _RESERVED:
        escaped = f"%{ord(escaped[0]):02X}{escaped[1:]}"
    data = escaped.encode("utf-8")
    if len(data) <= _MAX_ID_BYTES:
        return escaped
    # "%-" stands in no other id, since a % of the name is %25: no name is another's cut id.
    return data[: _MAX_ID_BYTES - 18].decode("utf-8", "ignore") + "%-" + sha256_hex(text.encode("utf-8"))[:16]


def relative_posix(path: Path, start: Path) -> str:
    """``path`` relative to the folder ``start``, with forward slashes. FolderError where there is none (two drives)."""
    try:
        found = Path(os.path.relpath(path.resolve(), start.resolve())).as_posix()
    except ValueError as error:
        raise FolderError(f"{path}: no relative path leads there from {start}. Keep both on one drive.") from error
    if not _is_utf8(found):
        raise FolderError(f"{printable(found)}: its name is not UTF-8, so no JSON can hold it. Rename the folder.")
    return found
