"""COCO instances files (https://cocodataset.org/#format-data): typed reading, and writing.

An annotation's ``segmentation`` stays the raw bytes of the file until somebody needs it; ``coco_masks`` reads those.
"""

from __future__ import annotations

import gc
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from segdata.errors import ImageRefused, SourceError
from segdata.formats.files import read_regular

_MAX_BYTES = 1 << 34
_BOM = b"\xef\xbb\xbf"
# Strings too, so that what is in them stays; one without an end goes to the end, or each quote in it would be tried.
_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*+"?|NaN|-?Infinity', re.DOTALL)
_AT = re.compile(r"\(byte (\d+)\)")


class Image(msgspec.Struct, frozen=True, gc=False):
    """A picture: ``file_name`` below the folder of images, ``height`` and ``width`` in pixels."""

    id: int
    file_name: str
    height: int
    width: int
    license: Any = None
    video_id: int | str | None = None


class Annotation(msgspec.Struct, frozen=True, gc=False):
    """One object. ``segmentation`` is raw JSON, empty where there is none; ``iscrowd`` 1 marks a region of many."""

    id: int
    image_id: int
    category_id: int
    segmentation: msgspec.Raw = msgspec.Raw()
    iscrowd: int | bool = 0

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"annotation {self.id} of image {self.image_id}"


class Category(msgspec.Struct, frozen=True):
    """A class of objects."""

    id: int
    name: str


@dataclass(frozen=True)
class Problem:
    """An image or annotation that does not decode: ``kind`` says which, ``id`` and ``image_id`` where they can be told.

    ``where`` is its place in the file, as ``annotations[5]``; ``what`` the fault.
    """

    kind: str
    where: str
    id: int | str | None
    image_id: int | str | None
    what: str


@dataclass(frozen=True)
class Instances:
    """A whole file; ``licenses`` are names by id, ``problems`` what was left out."""

    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]
    licenses: dict[int | str, str]
    problems: list[Problem] = field(default_factory=list)

    def license_of(self, image: Image) -> str | None:
        """The name of an image's license, where the file has it."""
        return self.licenses.get(image.license) if isinstance(image.license, int | str) else None


class _Typed(msgspec.Struct):
    images: list[Image]
    annotations: list[Annotation]
    categories: list[Category]
    licenses: Any = None


class _Pieces(msgspec.Struct):
    images: list[msgspec.Raw]
    annotations: list[msgspec.Raw]
    categories: list[Category]
    licenses: Any = None


_Part = TypeVar("_Part", Image, Annotation)


def read_instances(path: Path) -> Instances:
    """Read an instances file. Its segmentations keep the file's bytes in memory.

    An image or annotation of wrong types becomes a problem and stops nothing else. SourceError where the file as a
    whole is no such JSON.
    """
    try:
        data = read_regular(path, _MAX_BYTES)
    except ImageRefused as error:
        raise SourceError(f"{path}: {error.detail}, expected COCO instances JSON.") from error
    data = data.removeprefix(_BOM)
    with no_collector():
        try:
            typed = msgspec.json.decode(data, type=_Typed)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _piece_by_piece(data, path)
    return Instances(typed.images, typed.annotations, typed.categories, _license_names(typed.licenses))


@contextmanager
def no_collector() -> Iterator[None]:
    """Without the cyclic collector, which would walk the growing lists again and again and find nothing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _piece_by_piece(data: bytes, path: Path) -> Instances:
    """The same for a file with faults, several times slower."""
    try:
        pieces = _pieces(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        is_list = data.lstrip()[:1] == b"["
        found = "a list, as of results" if is_list else str(error)
        found += " (it was cut; fetch it again)" if "truncated" in found else ""
        raise SourceError(
            f"{path}: {found}, expected COCO instances JSON: an object with images, annotations and categories."
        ) from error
    problems: list[Problem] = []
    images = list(_decoded(pieces.images, Image, "image", problems))
    annotations = list(_decoded(pieces.annotations, Annotation, "annotation", problems))
    return Instances(images, annotations, pieces.categories, _license_names(pieces.licenses), problems)


def _pieces(data: bytes) -> _Pieces:
    try:
        return msgspec.json.decode(data, type=_Pieces)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError as error:
        if not _is_almost_json(data, error):
            raise
        # Python's json writes NaN and Infinity, and halves of characters, which are no JSON. As null, and as plain
        # text, they make their own annotation or image bad only.
        return msgspec.json.decode(_as_json(data), type=_Pieces)


def _is_almost_json(data: bytes, error: msgspec.DecodeError) -> bool:
    """Whether what the decoder stopped at may be such a thing; the search for them takes its time."""
    at = _AT.search(str(error))
    if at and "surrogate" not in str(error):
        return data[int(at[1]) : int(at[1]) + 1] in (b"N", b"I")
    return (rb"\ud" in data or rb"\uD" in data) and data[-100:].rstrip().endswith(b"}")


def _as_json(data: bytes) -> bytes:
    parts, done = [], 0
    for match in _TOKENS.finditer(data):
        instead = _instead(match[0])
        if instead is not None:
            parts += [data[done : match.start()], instead]
            done = match.end()
    return b"".join([*parts, data[done:]])


def _instead(token: bytes) -> bytes | None:
    if token[:1] != b'"':
        return b"null"
    if rb"\ud" in token or rb"\uD" in token:  # maybe half a character, as in a file name that is not UTF-8
        with suppress(ValueError):
            return json.dumps(json.loads(token).encode("utf-8", "backslashreplace").decode()).encode()
    return None


def _decoded(pieces: list[msgspec.Raw], kind: type[_Part], name: str, problems: list[Problem]) -> Iterator[_Part]:
    decoder = msgspec.json.Decoder(kind)
    for number, piece in enumerate(pieces):
        try:
            yield decoder.decode(piece)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            found, image = _loose_ids(piece)
            null = " (NaN and Infinity count as null)" if "null" in str(error) else ""
            problems.append(Problem(name, f"{name}s[{number}]", found, image, f"{error}{null}"))


class _Ids(msgspec.Struct):
    id: msgspec.Raw = msgspec.Raw(b"null")
    image_id: msgspec.Raw = msgspec.Raw(b"null")


def _loose_ids(piece: msgspec.Raw) -> tuple[int | str | None, int | str | None]:
    """``id`` and ``image_id`` of a faulty piece where they are whole numbers or texts, whatever else is in it."""
    try:
        found = msgspec.json.decode(piece, type=_Ids)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None, None
    return _loose_id(found.id), _loose_id(found.image_id)


def _loose_id(raw: msgspec.Raw) -> int | str | None:
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, float) and value.is_integer():
        return int(value)  # as pandas writes a column of numbers
    return value if isinstance(value, int | str) and not isinstance(value, bool) else None


def _license_names(licenses: Any) -> dict[int | str, str]:
    """Names by id; what is of another form is passed over, since no pixel depends on it."""
    items = [item for item in licenses if isinstance(item, dict)] if isinstance(licenses, list) else []
    return {
        item["id"]: item["name"]
        for item in items
        if isinstance(item.get("id"), int | str) and isinstance(item.get("name"), str)
    }


# ---- writing


class CompressedRle(msgspec.Struct, frozen=True):
    """A compressed mask: ``size`` [height, width], ``counts`` as pycocotools writes them."""

    size: list[int]
    counts: str


class WrittenImage(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image to write; as ``Image``, with a license's number."""

    id: int
    file_name: str
    height: int
    width: int
    license: int | None = None
    video_id: str | None = None


class WrittenAnnotation(msgspec.Struct, frozen=True):
    """An annotation to write: ``area`` in pixels, ``bbox`` (x, y, w, h)."""

    id: int
    image_id: int
    category_id: int
    iscrowd: int
    area: int
    bbox: tuple[int, int, int, int]
    segmentation: CompressedRle


_OURS = b'{\n"info": {"contributor": "segdata export-coco"'


def write_instances(
    file: BinaryIO,
    name: str,
    licenses: Sequence[str],
    categories: Iterable[Category],
    pictures: Iterable[WrittenImage],
    objects: Iterable[WrittenAnnotation],
) -> None:
    """An instances file, a record a line, written as the records come."""
    file.write(_OURS + b', "description": ' + msgspec.json.encode(name) + b"}")
    named = ({"id": i, "name": text} for i, text in enumerate(licenses, 1))
    parts = {"licenses": named, "categories": categories, "images": pictures, "annotations": objects}
    for key, records in parts.items():
        file.write(b',\n"%s": [' % key.encode())
        between = b"\n"
        for record in records:
            file.write(between + msgspec.json.encode(record))
            between = b",\n"
        file.write(b"\n]")
    file.write(b"\n}\n")


def is_ours(path: Path) -> bool:
    """Whether ``write_instances`` wrote a file."""
    with path.open("rb") as file:
        return file.read(len(_OURS)) == _OURS
