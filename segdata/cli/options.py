"""Options that several commands take, and how their text becomes values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from segdata.errors import OptionError

Out = Annotated[
    Path, typer.Option("--out", help="Folder to write; it must not exist, or be one that this command made.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what this command made there before.")]
Jobs = Annotated[
    int | None,
    typer.Option(
        "--jobs", help="Processes, one per core where left out; with an --engine, tasks at once.", show_default=False
    ),
]
Engine = Annotated[
    Literal["local", "dask", "ray"],
    typer.Option("--engine", help="Where the work is done: here, or on a running cluster that sees the same folders."),
]
Address = Annotated[
    str | None, typer.Option("--address", help="The cluster's, such as tcp://HOST:8786 for --engine dask.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Labels = Annotated[
    str,
    typer.Option(
        "--labels",
        help="Label map that fits the source: binary, parts5, humanparsing, lip, voc, voc_person, or a FILE.toml.",
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Name of the dataset in snake_case; the source's where left out.")
]
MaxRejected = Annotated[float, typer.Option("--max-rejected", help="Fail where a larger share of samples is rejected.")]
CopyImages = Annotated[bool, typer.Option("--copy-images", help="Copy the photos into the folder, untouched.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="List, pair and read annotations only: decode no picture, write nothing.")
]
Split = Annotated[
    str | None, typer.Option("--split", help="train, validation or test; the first there is if left out.")
]


def size(text: str | None, option: str = "--size") -> tuple[int, int] | None:
    """``"256"`` or ``"192x256"`` (height x width) as (height, width)."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if not match:
        raise OptionError(f"{option} {text!r}: expected a side such as 256, or HEIGHTxWIDTH such as 192x256.")
    return int(match[1]), int(match[2] or match[1])


def sizes(text: str | None) -> tuple[tuple[int, int], ...]:
    """``"384x512,256"`` as ((384, 512), (256, 256))."""
    parts = [] if text is None else text.split(",")
    return tuple(found for part in parts if (found := size(part, "--size-buckets")) is not None)


def share_or_count(text: str, option: str) -> float | int:
    """``"0.2"`` as a share, ``"5000"`` as a number of samples."""
    try:
        value = int(text) if text.isdigit() else float(text)
    except ValueError as error:
        raise OptionError(f"{option} {text!r}: expected a share such as 0.2, or a number of samples.") from error
    if isinstance(value, float) and not 0 <= value < 1:
        raise OptionError(f"{option} {text}: expected a share of 0 to below 1, or a whole number of samples.")
    return value


def named_files(items: list[str]) -> dict[str, Path]:
    """``["train=a.txt"]`` as {"train": Path("a.txt")}."""
    files: dict[str, Path] = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or not path or name in files:
            raise OptionError(f"--list {item!r}: expected SPLIT=FILE, once for each split.")
        files[name] = Path(path)
    return files
