"""Label maps: what the ids in a mask mean, and which ids of a raw label they are made from.

A built-in map reads the ids of the dataset it was drawn up for (its *vocabulary*): ``humanparsing``, ``binary`` and
``parts5`` read HumanParsing's 18 ids or LIP's 20, ``lip`` reads LIP's, ``voc`` and ``voc_person`` Pascal VOC's 21. A
user's own map is a TOML file, see ``read_label_map``. An annotation file has categories of its own: ``category_map``.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from segdata.errors import LabelMapError, OptionError, did_you_mean

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

IGNORE_INDEX = 255
UNMAPPED = -1

# Class names in the order of their ids, as each dataset publishes them.
VOCABULARIES: dict[str, tuple[str, ...]] = {
    "humanparsing": tuple(
        "background hat hair sunglass upper-clothes skirt pants dress belt left-shoe right-shoe face left-leg "
        "right-leg left-arm right-arm bag scarf".split()
    ),
    "lip": tuple(
        "background hat hair glove sunglasses upper-clothes dress coat socks pants jumpsuits scarf skirt face left-arm "
        "right-arm left-leg right-leg left-shoe right-shoe".split()
    ),
    "mask": ("background", "person"),
    "voc": tuple(
        "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
        "pottedplant sheep sofa train tvmonitor".split()
    ),
}

_MAX_CLASSES = 255  # ids 0...254; 255 is the ignore index


class LabelMap(msgspec.Struct, frozen=True, kw_only=True):
    """Names, colours and meaning of the ids in a mask.

    ``names[i]`` and ``colors[i]`` (RGB, 0...255) belong to id i; 255 is the ignore index. ``left_right_pairs`` are the
    ids that a horizontal flip exchanges. ``from_ids[i]`` are the raw ids that become i and ``ignored_ids`` those that
    become 255; any other raw id is unmapped.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    ignore_index: int = IGNORE_INDEX
    left_right_pairs: tuple[tuple[int, int], ...] = ()
    from_ids: tuple[tuple[int, ...], ...]
    ignored_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        problem = _problem(self)
        if problem:
            raise LabelMapError(f"label map {self.name!r}: {problem}")


def _problem(labels: LabelMap) -> str:
    """What is wrong with a label map, or an empty string."""
    count = len(labels.names)
    if not 2 <= count <= _MAX_CLASSES:
        return f"{count} classes, expected 2 to {_MAX_CLASSES}."
    if not len(labels.colors) == len(labels.from_ids) == count:
        return f"{len(labels.colors)} colours and {len(labels.from_ids)} from-lists for {count} classes."
    repeated = {name for name in labels.names if labels.names.count(name) > 1}
    if repeated:
        return f"class {sorted(repeated)[0]!r} is named twice; every class needs a name of its own."
    for name in labels.names:
        if not _is_class_name(name):
            return f"class name {name!r} is empty, or holds a comma, a line break or outer spaces."
    if labels.ignore_index != IGNORE_INDEX:
        return f"ignore index {labels.ignore_index}, expected {IGNORE_INDEX}."
    for color in labels.colors:
        if any(not 0 <= value <= 255 for value in color):
            return f"colour {list(color)}, expected three values of 0 to 255."
    return _raw_ids_problem(labels) or _pairs_problem(labels)


def _raw_ids_problem(labels: LabelMap) -> str:
    taken: dict[int, str] = {}
    lists = [*zip(labels.names, labels.from_ids, strict=True), ("ignore", labels.ignored_ids)]
    for name, ids in lists:
        for raw in ids:
            if not 0 <= raw <= 65535:
                return f"raw id {raw} of {name!r}, expected 0 to 65535."
            if raw in taken:
                return f"raw id {raw} stands in {taken[raw]!r} and in {name!r}; it can become only one of them."
            taken[raw] = name
    return ""


def _pairs_problem(labels: LabelMap) -> str:
    flat = [i for pair in labels.left_right_pairs for i in pair]
    if any(not 0 <= i < len(labels.names) for i in flat) or len(set(flat)) != len(flat):
        return f"left/right pairs {labels.left_right_pairs}, expected pairs of different ids below {len(labels.names)}."
    return ""


def lookup_table(labels: LabelMap) -> npt.NDArray[np.int16]:
    """(65536,) int16: raw id to class id, 255 for ignored raw ids, -1 (UNMAPPED) for ids that the map does not name."""
    import numpy as np

    table = np.full(65536, UNMAPPED, np.int16)
    for class_id, raw_ids in enumerate(labels.from_ids):
        table[list(raw_ids)] = class_id
    table[list(labels.ignored_ids)] = labels.ignore_index
    return table


def palette(labels: LabelMap) -> npt.NDArray[np.uint8]:
    """(256, 3) uint8 RGB by id; the ignore index and unnamed ids are light grey."""
    import numpy as np

    colors = np.full((256, 3), 200, np.uint8)
    colors[: len(labels.colors)] = labels.colors
    return colors


def label_map(spec: str, vocabulary: str) -> LabelMap:
    """The label map that ``spec`` names: a built-in name, or the path of a TOML file (ends in ``.toml``).

    ``vocabulary`` is what the raw ids are (a key of VOCABULARIES, or an empty string where nothing says so). Raises
    LabelMapError for an unknown name, for a built-in map that cannot be made from that vocabulary, and as
    ``read_label_map`` does.
    """
    if spec.lower().endswith(".toml"):
        return read_label_map(Path(spec), vocabulary)
    made_from = _BUILT_IN.get(spec)
    if made_from is None:
        raise LabelMapError(
            f"--labels {spec!r}: no such label map, expected a name or a .toml file.{did_you_mean(spec, _BUILT_IN)}"
        )
    found = vocabulary or next(iter(made_from))
    if found not in made_from:
        fitting = ", ".join(name for name, made in sorted(_BUILT_IN.items()) if found in made)
        raise LabelMapError(
            f"--labels {spec!r}: is made from {' or '.join(made_from)} ids, not from {vocabulary} ids. "
            f"For those there is {fitting}, or your own .toml file."
        )
    return _built_in(spec, found, made_from[found])


def category_map(spec: str | None, categories: tuple[str, ...]) -> LabelMap:
    """The label map over an annotation file's categories: raw id 0 is background, i + 1 is ``categories[i]``, 255 is
    ignored.

    None gives each category a class of its own, ``"binary"`` makes all of them person, a TOML file says which becomes
    what, by name. LabelMapError where it is none of these, or leaves a category out.
    """
    _check_categories(spec, categories)
    words = ("background", *categories)
    if spec is None or spec == "binary":
        merged = spec == "binary" or categories == ("person",)
        names = ("background", "person") if merged else words
        found = LabelMap(
            name="binary" if merged else "categories",
            names=names,
            colors=_COLORS["binary"] if len(names) == 2 else distinct_colors(len(names)),
            left_right_pairs=_left_right_pairs(names),
            from_ids=((0,), tuple(range(1, len(words)))) if merged else tuple((i,) for i in range(len(words))),
        )
    elif spec.lower().endswith(".toml"):
        parsed = _parse_toml(Path(spec))
        if parsed.source:
            raise LabelMapError(
                f"label map {Path(spec).name}: source {parsed.source!r}, but the data holds categories."
            )
        found = _from_toml(parsed, words, Path(spec))
    else:
        raise LabelMapError(f"--labels {spec!r}: expected binary, or a .toml file that names categories.")
    named = {raw for raws in (*found.from_ids, found.ignored_ids) for raw in raws}
    for raw, word in enumerate(words):
        if raw not in named:
            raise LabelMapError(
                f"--labels {spec}: does not name {word!r}, expected every category in it, and background."
            )
    return msgspec.structs.replace(found, ignored_ids=tuple(sorted({*found.ignored_ids, IGNORE_INDEX})))


def _check_categories(spec: str | None, categories: tuple[str, ...]) -> None:
    if not 1 <= len(set(categories)) == len(categories) < _MAX_CLASSES:
        raise OptionError(f"--category: {len(categories)} names, expected 1 to {_MAX_CLASSES - 1}, each once.")
    for name in categories:
        if spec is None and (not _is_class_name(name) or name == "background"):
            raise OptionError(
                f"--category {name!r}: cannot name a class (a comma, a line break, outer spaces, or 'background'). "
                "Pass --labels binary, or a FILE.toml that names its class."
            )


def _is_class_name(name: str) -> bool:
    return bool(name) and name.strip() == name and "," not in name and name.splitlines() == [name]


def known_label_maps() -> tuple[str, ...]:
    """Names of the built-in label maps, sorted."""
    return tuple(sorted(_BUILT_IN))


def _built_in(name: str, vocabulary: str, classes: dict[str, str]) -> LabelMap:
    words = VOCABULARIES[vocabulary]
    lists = {key: [words.index(word) for word in value.split()] for key, value in classes.items()}
    taken = {raw for raws in lists.values() for raw in raws}
    lists = {key: raws or [i for i in range(len(words)) if i not in taken] for key, raws in lists.items()}
    names = tuple(lists)
    return LabelMap(
        name=name,
        names=names,
        colors=_COLORS.get(name) or distinct_colors(len(names)),
        left_right_pairs=_left_right_pairs(names),
        from_ids=tuple(tuple(raws) for raws in lists.values()),
        ignored_ids=(IGNORE_INDEX,) if vocabulary == "voc" else (),
    )


def _left_right_pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (i, names.index(f"right{name[4:]}"))
        for i, name in enumerate(names)
        if name.startswith("left") and f"right{name[4:]}" in names
    )


def distinct_colors(count: int) -> tuple[tuple[int, int, int], ...]:
    """``count`` RGB colours, black first, that are easy to tell apart: hues by the golden angle, two brightnesses."""
    import colorsys

    colors = [(0, 0, 0)]
    for i in range(1, count):
        rgb = colorsys.hsv_to_rgb((0.02 + 0.618034 * i) % 1.0, 0.85 if i % 3 else 0.5, 1.0 if i % 2 else 0.75)
        colors.append((round(255 * rgb[0]), round(255 * rgb[1]), round(255 * rgb[2])))
    return tuple(colors[:count])


# Built-in maps: name -> vocabulary -> class -> raw class names; an empty string is "every other raw class".
# The first vocabulary is the one that is meant where the raw ids say nothing of themselves.
_PARTS5 = {
    "background": "background bag",
    "head": "hat hair sunglass face scarf",
    "upper_body": "upper-clothes",
    "both_hands": "left-arm right-arm",
    "lower_body": "skirt pants dress belt left-shoe right-shoe left-leg right-leg",
}
_PARTS5_OF_LIP = {  # jumpsuits as dresses, coats as upper-clothes, gloves with arms and socks with legs
    "background": "background",
    "head": "hat hair sunglasses face scarf",
    "upper_body": "upper-clothes coat",
    "both_hands": "left-arm right-arm glove",
    "lower_body": "skirt pants dress jumpsuits socks left-shoe right-shoe left-leg right-leg",
}
_BUILT_IN: dict[str, dict[str, dict[str, str]]] = {
    "binary": {
        "humanparsing": {"background": "background", "person": ""},
        "lip": {"background": "background", "person": ""},
        "mask": {"background": "background", "person": "person"},
    },
    "humanparsing": {"humanparsing": {name: name for name in VOCABULARIES["humanparsing"]}},
    "lip": {"lip": {name: name for name in VOCABULARIES["lip"]}},
    "parts5": {"humanparsing": _PARTS5, "lip": _PARTS5_OF_LIP},
    "voc": {"voc": {name: name for name in VOCABULARIES["voc"]}},
    "voc_person": {"voc": {"background": "", "person": "person"}},
}

_COLORS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "binary": ((0, 0, 0), (230, 60, 60)),
    "voc_person": ((0, 0, 0), (230, 60, 60)),
    "parts5": ((0, 0, 0), (255, 205, 60), (230, 60, 60), (60, 200, 120), (70, 120, 235)),
}


class _TomlClass(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    color: str | tuple[int, int, int] | None = None
    from_: list[int | str] | None = msgspec.field(name="from", default=None)


class _TomlLabelMap(msgspec.Struct, forbid_unknown_fields=True):
    classes: list[_TomlClass]
    name: str = ""
    source: str = ""
    ignore: list[int | str] = []
    left_right: list[tuple[str, str]] | None = None


def read_label_map(path: Path, vocabulary: str = "") -> LabelMap:
    """A user's own label map.

    ::

        name = "clothes"           # optional, the file's name otherwise
        source = "humanparsing"    # optional: whose class names the from-lists may use (humanparsing, lip, voc)
        ignore = [255]             # optional: raw ids that become the ignore index
        left_right = [["left-arm", "right-arm"]]   # optional, found by name otherwise

        [[classes]]                # ids 0, 1, 2 ... in this order
        name = "background"
        color = "#000000"          # optional
        from = [0, "2-5", "hair"]  # raw ids, ranges of them, raw class names; the class's own id where left out

    Raises LabelMapError, naming the file, for anything that does not fit.
    """
    parsed = _parse_toml(path)
    return _from_toml(parsed, _vocabulary_of(parsed.source, vocabulary, f"label map {path.name}"), path)


def _parse_toml(path: Path) -> _TomlLabelMap:
    where = f"label map {path.name}"
    if path.exists() and not path.is_file() and not path.is_dir():  # a pipe would hang
        raise LabelMapError(f"{path}: is no regular file, expected a label map in TOML.")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        return msgspec.convert(raw, _TomlLabelMap)
    except OSError as error:
        raise LabelMapError(f"{path}: cannot be read ({error.strerror}), expected a label map in TOML.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise LabelMapError(f"{where}: {error}. See the README for the form of a label map.") from error


def _from_toml(parsed: _TomlLabelMap, words: tuple[str, ...], path: Path) -> LabelMap:
    where = f"label map {path.name}"
    names = tuple(item.name for item in parsed.classes)
    spare = distinct_colors(len(names))
    try:
        return LabelMap(
            name=parsed.name or path.stem,
            names=names,
            colors=tuple(_color(item.color, spare[i], where) for i, item in enumerate(parsed.classes)),
            left_right_pairs=_named_pairs(parsed.left_right, names, where),
            from_ids=tuple(
                (i,) if item.from_ is None else _raw_ids(item.from_, words, where)
                for i, item in enumerate(parsed.classes)
            ),
            ignored_ids=_raw_ids(parsed.ignore, words, where),
        )
    except LabelMapError as error:
        raise LabelMapError(f"{where}: {str(error).partition(': ')[2]}") from error


def _vocabulary_of(source: str, vocabulary: str, where: str) -> tuple[str, ...]:
    known = {name: words for name, words in VOCABULARIES.items() if name != "mask"}
    if source and source not in known:
        raise LabelMapError(f"{where}: source {source!r} is not known.{did_you_mean(source, known)}")
    if source and vocabulary in known and source != vocabulary:
        raise LabelMapError(f"{where}: source {source!r}, but the data holds {vocabulary} ids.")
    return known.get(source or vocabulary, ())


def _color(value: str | tuple[int, int, int] | None, spare: tuple[int, int, int], where: str) -> tuple[int, int, int]:
    if value is None:
        return spare
    if isinstance(value, tuple):
        return value
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        raise LabelMapError(f'{where}: color {value!r}, expected "#RRGGBB" or [r, g, b].')
    return int(value[1:3], 16), int(value[3:5], 16), int(value[5:7], 16)


def _raw_ids(items: list[int | str], words: tuple[str, ...], where: str) -> tuple[int, ...]:
    ids: list[int] = []
    for item in items:
        span = re.fullmatch(r"(\d+)-(\d+)", item) if isinstance(item, str) else None
        if isinstance(item, int):
            ids.append(item)
        elif item in words:
            ids.append(words.index(item))
        elif span and int(span[1]) <= int(span[2]) <= 65535:
            ids.extend(range(int(span[1]), int(span[2]) + 1))
        else:
            hint = did_you_mean(item, words) if words else ' Say source = "humanparsing", "lip" or "voc" to use names.'
            raise LabelMapError(f"{where}: from {item!r} is no id, range or raw class name.{hint}")
    return tuple(ids)


def _named_pairs(
    pairs: list[tuple[str, str]] | None, names: tuple[str, ...], where: str
) -> tuple[tuple[int, int], ...]:
    if pairs is None:
        return _left_right_pairs(names)
    for name in (name for pair in pairs for name in pair):
        if name not in names:
            raise LabelMapError(f"{where}: left_right names {name!r}.{did_you_mean(name, names)}")
    return tuple((names.index(left), names.index(right)) for left, right in pairs)
