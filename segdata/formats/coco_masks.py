"""COCO segmentations: checked, rasterised by pycocotools, and written as compressed RLE.

pycocotools trusts what it is given: a run too few leaves memory uninitialised, a NaN ends the process. So nothing
reaches it unchecked.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import cv2
import msgspec
import numpy as np
import numpy.typing as npt
from pycocotools import mask as pycoco

from segdata.errors import ImageRefused
from segdata.formats.coco_json import Annotation
from segdata.formats.images import Pixels

_MAX_OUTLINE_PX = 4_000_000  # pycocotools takes 40 bytes for each pixel of an outline
_MAX_SHIFT = 30  # groups of 5 bits; pycocotools reads a negative seventh wrong, and no image needs it

Polygons = list[list[float]]  # x, y, x, y ... of each
Rle = dict[str, Any]  # pycocotools' own: size [height, width], counts as bytes


class RunLengths(msgspec.Struct):
    """Runs of 0 and 1 in turn, column by column: ``counts`` plain, or as COCO's compressed text."""

    size: tuple[int, int]
    counts: list[int] | str


_POLYGONS = msgspec.json.Decoder(Polygons)
_RUN_LENGTHS = msgspec.json.Decoder(RunLengths)


def rasterised(annotation: Annotation, height: int, width: int) -> Rle:
    """The RLE of an annotation in an image of that size: what pycocotools' ``annToRLE`` gives, bit for bit.

    Raises as ``checked``.
    """
    found = checked(annotation, height, width)
    try:
        if isinstance(found, list):
            return _merged(pycoco.frPyObjects(found, height, width))
        if isinstance(found.counts, str):
            return {"size": [height, width], "counts": found.counts.encode("ascii")}
        plain = {"size": [height, width], "counts": found.counts}
        return pycoco.frPyObjects(plain, height, width)  # type: ignore[no-any-return]
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ImageRefused("bad-annotation", f"{annotation.where}: pycocotools refuses it: {error}") from error


def checked(annotation: Annotation, height: int, width: int) -> Polygons | RunLengths:
    """An annotation's polygons, or run lengths (plain or compressed), sound in an image of that size.

    ImageRefused(``bad-annotation``), naming annotation and image, for anything that pycocotools would take for
    something else than it says.
    """
    try:
        return _checked(bytes(annotation.segmentation).lstrip(), height, width)
    except ImageRefused as error:
        raise ImageRefused(error.reason, f"{annotation.where}: {error.detail}") from error


def _checked(raw: bytes, height: int, width: int) -> Polygons | RunLengths:
    try:
        if raw[:1] == b"[":
            return _checked_polygons(_POLYGONS.decode(raw), height, width)
        if raw[:1] == b"{":
            return _checked_run_lengths(_RUN_LENGTHS.decode(raw), height, width)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refused(f"its segmentation does not read as polygons or run lengths: {error}") from error
    raise _refused(f"segmentation {raw[:20].decode('utf-8', 'replace') or 'missing'}, expected polygons or run lengths")


def _merged(rles: list[Rle]) -> Rle:
    """The union, of few at a time: ``merge`` goes through all that it has for each that comes."""
    while len(rles) > 1:
        rles = [pycoco.merge(rles[i : i + 64]) for i in range(0, len(rles), 64)]
    return rles[0]


def area(rle: Rle) -> int:
    """Pixels in an RLE."""
    return int(pycoco.area(rle))


def painted(rles: Iterable[tuple[Rle, int]], height: int, width: int) -> Pixels:
    """(H, W) uint8: each RLE's pixels get its value, the later over the earlier; the rest is 0."""
    mask = np.zeros((height, width), np.uint8, order="F")  # columns lie together, as in an RLE
    for rle, value in rles:
        first, window = _window(rle)
        mask[:, first : first + window.shape[1]][window] = value
    return mask


def paint_rest(mask: Pixels, rle: Rle, value: int) -> None:
    """Give the RLE's pixels that value where ``mask`` is 0."""
    first, window = _window(rle)
    part = mask[:, first : first + window.shape[1]]
    part[window & (part == 0)] = value


def _window(rle: Rle) -> tuple[int, npt.NDArray[np.bool_]]:
    """The first column that an RLE has pixels in, and (H, columns) from there to the last one: where its pixels are.

    Not pycocotools' ``decode``, which goes through the whole image for the smallest object.
    """
    height = rle["size"][0]
    runs = _runs(rle["counts"].decode("ascii"))
    if len(runs) % 2:
        runs = runs[:-1]  # of background
    if not len(runs) or not runs[1::2].any():
        return 0, np.zeros((height, 0), np.bool_)
    first = int(runs[0]) // height
    runs[0] -= first * height
    rest = -int(runs.sum()) % height
    values = np.arange(len(runs) + 1) % 2 == 1
    return first, np.repeat(values, np.append(runs, rest)).reshape(-1, height).T


def encoded(mask: Pixels) -> Rle:
    """The RLE of an (H, W) mask, where it is not 0."""
    rle: Rle = pycoco.encode(np.asfortranarray(mask != 0, np.uint8))
    return rle


def bounding_box(rle: Rle) -> tuple[int, int, int, int]:
    """(x, y, w, h) in pixels."""
    x, y, w, h = (int(value) for value in pycoco.toBbox(rle))
    return x, y, w, h


def connected_regions(mask: Pixels) -> list[Rle]:
    """The regions of an (H, W) mask that hang together (by corners too), in the order of their first columns.

    From the runs of all regions at once, since a mask may have thousands of specks.
    """
    height, width = mask.shape
    count, regions = cv2.connectedComponents(mask, connectivity=8)
    flat = regions.ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=-1))  # of each run of one region, or of background
    ends = np.append(starts[1:], flat.size)
    owners = flat[starts]
    order = np.argsort(owners, kind="stable")  # the runs of a region stay in their order
    bounds = np.searchsorted(owners[order], np.arange(1, count + 1))
    found = []
    for runs in sorted((order[first:last] for first, last in pairwise(bounds.tolist())), key=lambda runs: int(runs[0])):
        edges = np.column_stack((starts[runs], ends[runs])).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size)
        plain = {"size": [height, width], "counts": counts.tolist()}
        found.append(pycoco.frPyObjects(plain, height, width))
    return found


def _refused(detail: str) -> ImageRefused:
    return ImageRefused("bad-annotation", detail)


def _checked_polygons(polygons: Polygons, height: int, width: int) -> Polygons:
    if not polygons:
        raise _refused("its segmentation is empty, expected polygons")
    furthest = 4 * max(height, width) + 64
    outline = 0.0
    for polygon in polygons:
        if len(polygon) < 6 or len(polygon) % 2:
            raise _refused(f"a polygon of {len(polygon)} numbers, expected an even count of at least 6")
        if not all(-furthest <= value <= furthest for value in polygon):  # NaN is not within either
            far = max(polygon, key=abs)
            raise _refused(f"a coordinate of {far:g} in an image of {width}x{height}")
        outline += _outline(polygon)
    if outline > _MAX_OUTLINE_PX:
        raise _refused(f"an outline of {outline:.0f} pixels, expected at most {_MAX_OUTLINE_PX:,}")
    return polygons


def _outline(polygon: list[float]) -> float:
    """An upper bound of a polygon's outline in pixels."""
    across = sum(abs(b - a) for a, b in pairwise([*polygon[::2], polygon[0]]))
    down = sum(abs(b - a) for a, b in pairwise([*polygon[1::2], polygon[1]]))
    return across + down


def _checked_run_lengths(found: RunLengths, height: int, width: int) -> RunLengths:
    if found.size != (height, width):
        raise _refused(f"run lengths of size {list(found.size)}, the image has [{height}, {width}]")
    runs = _runs(found.counts).tolist() if isinstance(found.counts, str) else found.counts
    if not all(run >= 0 for run in runs):
        raise _refused("a negative run length")
    if sum(runs) != height * width or not runs:
        raise _refused(f"run lengths of {sum(runs)} pixels together, the image has {height * width}")
    return found


def _runs(text: str) -> npt.NDArray[np.int64]:
    """The runs in a compressed string: groups of 5 bits, lowest first, from the fourth on less the last but one."""
    bits = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64) - 48
    if not len(bits):
        return bits
    places = np.arange(len(bits))
    ends = (bits & 32) == 0  # the last group of each number
    starts = np.maximum.accumulate(np.where(np.append(True, ends[:-1]), places, 0))
    shifts = 5 * (places - starts)
    wrong = np.flatnonzero((bits < 0) | (bits >= 64) | (shifts >= _MAX_SHIFT))
    if len(wrong):
        raise _refused(f"compressed run lengths with {text[wrong[0]]!r} at a place where none can stand")
    if not ends[-1]:
        raise _refused("compressed run lengths that end within a number")
    values = np.add.reduceat((bits & 31) << shifts, np.unique(starts))
    values -= np.where(bits[ends] & 16, np.int64(1) << (shifts[ends] + 5), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
