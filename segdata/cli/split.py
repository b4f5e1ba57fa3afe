"""segdata split: prepared datasets to a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segdata.jobs.split import SplitReport


def split(
    datasets: Annotated[list[Path], typer.Argument(help="Prepared datasets of one label map.")],
    out: options.Out,
    test: Annotated[str, typer.Option("--test", help="Share (0.2) or number (5000) of test samples.")] = "0.2",
    validation: Annotated[str, typer.Option("--validation", help="Share or number of validation samples.")] = "0",
    method: Annotated[
        Literal["hash", "ordered", "listed"] | None,
        typer.Option(
            "--method", help="hash: by salted hash of the group. ordered: by file name, test last. listed: by --list."
        ),
    ] = None,
    salt: Annotated[str, typer.Option("--salt", help="Another salt gives another hash split.")] = "",
    lists: Annotated[
        list[str] | None, typer.Option("--list", help="SPLIT=FILE, a name per line; once for each split.")
    ] = None,
    txt: Annotated[bool, typer.Option("--txt", help='Also write train.txt and test.txt: "image mask" lines.')] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Put every sample into train, validation or test, groups and identical photos on one side.

    Example: segdata split prepared/parts5 --out manifests/parts5 --test 0.2 --validation 0.1
    """
    from segdata.jobs import split as job
    from segdata.records import SplitOptions

    files = options.named_files(lists or [])
    wanted = SplitOptions(
        method=method or ("listed" if files else "hash"),
        test=options.share_or_count(test, "--test"),
        validation=options.share_or_count(validation, "--validation"),
        salt=salt,
    )
    report = job.split(datasets, out, wanted, files, txt, overwrite)
    for text in _notes(report):
        output.note(text)
    counts = ", ".join(f"{count} {name}" for name, count in report.splits.items())
    output.show(report, [f"{out}: {counts}"], json)


def _notes(report: SplitReport) -> list[str]:
    notes = list(report.uneven)
    if report.straddling:
        notes.append(
            f"{len(report.straddling)} groups or identical photos stand in more than one split, "
            f"first {', '.join(report.straddling[0])}. --method hash keeps them together."
        )
    for what, names in (("listed without a sample", report.missing), ("samples in no list", report.unlisted)):
        if names:
            notes.append(f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")
    return notes
