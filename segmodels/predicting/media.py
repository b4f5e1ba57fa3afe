"""What predict is given: photos, folders, patterns, videos and cameras, and what their results are called."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segdata.errors import OptionError
from segdata.formats.files import PICTURE_SUFFIXES, key_of, list_pictures, printable, safe_id
from segdata.formats.videos import VIDEO_SUFFIXES, is_video

_PATTERN = re.compile(r"[*?\[]")
_CAMERA = re.compile(r"camera:(\d{1,3})")
_BAD_NAME = "name not UTF-8"
_SUFFIXES = PICTURE_SUFFIXES | VIDEO_SUFFIXES


@dataclass(frozen=True)
class Item:
    """One input. ``kind`` is ``photo``, ``video`` or ``camera``; ``name`` is what files made of it are called.

    ``path`` is as it was given; of a camera ``camera:0``, whose ``number`` is 0.
    """

    path: Path
    name: str
    kind: str
    number: int = 0

    def state(self) -> tuple[int, int] | None:
        """Size in bytes and time of change, by which a run that goes on tells whether it is the same; None where it is
        not there.
        """
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Media:
    """Inputs in the order given, those of folders and patterns sorted; and what was passed over, by kind."""

    items: list[Item]
    ignored: dict[str, int] = field(default_factory=dict)


def find(inputs: Sequence[str], out: Path | None = None) -> Media:
    """List what ``inputs`` name: files, folders (what lies right in them), patterns such as ``photos/**/*.jpg``, and
    ``camera:0``. A file that is named twice is taken once; what a pattern finds in the folder ``out`` is passed over.

    Results are named by the file's stem, where another has that too with its suffix, and at last by the path from the
    folder that all lie below, with dashes. OptionError where an input names nothing.
    """
    ignored: dict[str, int] = {}
    paths = [path for text in inputs for path in _paths(text, out, ignored)]
    unique = {os.path.realpath(path): path for path in reversed(paths)}  # the first of equals stays
    kept = [path for path in paths if unique.get(os.path.realpath(path)) is path]
    names = _names(kept)
    items = [Item(path, names[path], _kind(path), _number(path)) for path in kept]
    if any(item.kind == "camera" for item in items) and len(items) > 1:
        raise OptionError(f"{' '.join(inputs)}: a camera is looked at alone. Give it as the only input.")
    return Media(items, ignored)


def _paths(text: str, out: Path | None, ignored: dict[str, int]) -> Iterable[Path]:
    path = Path(text)
    if _CAMERA.fullmatch(text) or os.path.isfile(text):
        return [path]
    if os.path.isdir(text):
        return _in_folder(path, ignored)
    if os.path.exists(text):
        raise OptionError(f"{printable(text)}: is a pipe or device, expected a photo, a video or a folder.")
    if not _PATTERN.search(text):
        raise OptionError(
            f"{printable(text)}: no such file or folder, expected photos, videos, folders, patterns or camera:0."
        )
    return _matching(text, out, ignored)


def _matching(pattern: str, out: Path | None, ignored: dict[str, int]) -> list[Path]:
    found = [Path(name) for name in sorted(_globbed(pattern)) if os.path.isfile(name)]
    fitting = [path for path in found if path.suffix.lower() in _SUFFIXES]
    readable = [path for path in fitting if printable(str(path)) == str(path)]
    if len(readable) < len(fitting):
        ignored[_BAD_NAME] = ignored.get(_BAD_NAME, 0) + len(fitting) - len(readable)
    outside = [path for path in readable if out is None or not _is_below(path, out)]
    if not outside:
        raise OptionError(f"{printable(pattern)}: no photo or video is named like that ({len(found)} other files are).")
    if len(outside) < len(readable):
        ignored["in --out"] = ignored.get("in --out", 0) + len(readable) - len(outside)
    return outside


def _globbed(pattern: str) -> list[str]:
    try:
        return glob.glob(pattern, recursive=True)
    except OSError:  # a pattern with a name in it that is too long for any file
        return []


def _is_below(path: Path, folder: Path) -> bool:
    return os.path.realpath(path).startswith(os.path.join(os.path.realpath(folder), ""))


def _in_folder(folder: Path, ignored: dict[str, int]) -> list[Path]:
    found = list_pictures(folder, _SUFFIXES)
    for kind, count in found.ignored.items():
        ignored[kind] = ignored.get(kind, 0) + count
    if found.bad_names:
        ignored[_BAD_NAME] = ignored.get(_BAD_NAME, 0) + len(found.bad_names)
    if not found.names:
        raise OptionError(
            f"{folder}: holds no photo or video. For those in its folders give a pattern: '{folder.as_posix()}/**/*'"
        )
    return [folder / name for name in found.names]


def _kind(path: Path) -> str:
    if _CAMERA.fullmatch(str(path)):
        return "camera"
    return "video" if is_video(path) else "photo"


def _number(path: Path) -> int:
    match = _CAMERA.fullmatch(str(path))
    return int(match[1]) if match else 0


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each, which no other has in any letter case."""
    whole = _from_common_folder(paths)
    ways: tuple[Callable[[Path], str], ...] = (
        lambda path: path.stem.replace(":", "-") if _kind(path) == "camera" else path.stem,
        lambda path: f"{path.stem}-{path.suffix[1:]}",
        whole.__getitem__,
    )
    names: dict[Path, str] = {}
    for way in ways:
        by_key: dict[str, list[Path]] = {}
        for path in paths:
            if path not in names:
                by_key.setdefault(key_of(_id(way(path))), []).append(path)
        taken = {key_of(name) for name in names.values()}
        names |= {same[0]: _id(way(same[0])) for key, same in by_key.items() if len(same) == 1 and key not in taken}
    taken = {key_of(name) for name in names.values()}
    for path in paths:  # a/b.jpg and a-b.jpg
        if path not in names:
            numbered = (f"{_id(path.stem)}-{number}" for number in itertools.count(1))
            names[path] = next(name for name in numbered if key_of(name) not in taken)
            taken.add(key_of(names[path]))
    return names


def _from_common_folder(paths: Sequence[Path]) -> dict[Path, str]:
    """Paths from the folder that all lie below, with dashes: the same however they were given."""
    absolute = {path: os.path.abspath(path) for path in paths}
    try:
        common = os.path.commonpath([os.path.dirname(path) for path in absolute.values()]) if paths else ""
    except ValueError:  # two drives
        return {path: path.as_posix().replace("/", "-") for path in paths}
    return {path: Path(os.path.relpath(text, common)).as_posix().replace("/", "-") for path, text in absolute.items()}


def _id(text: str) -> str:
    """A file's name for what is made of it; a name that is no UTF-8 has its bytes in it, and none looks like that of a
    video in the making.
    """
    found = safe_id(printable(text))
    return f"{found[:-5]}%2Epart" if found.casefold().endswith(".part") else found
