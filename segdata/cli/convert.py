"""segdata convert SOURCE: a raw dataset to a prepared one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segdata.jobs.convert import ConvertOptions, ConvertReport
    from segdata.sources import Source

app = typer.Typer(help="Turn a raw dataset into a prepared one: exact masks, checked photos.", no_args_is_help=True)

Unmapped = Annotated[
    Literal["reject", "ignore"],
    typer.Option("--unmapped", help="Raw ids that the label map does not name: reject the sample, or store 255."),
]


@app.command("humanparsing")
def humanparsing(
    root: Annotated[Path, typer.Argument(help="Folder with JPEGImages/ and SegmentationClassAug/.")],
    out: options.Out,
    labels: options.Labels = "binary",
    images: Annotated[str, typer.Option("--images", help="Name of the folder of photos.")] = "JPEGImages",
    masks: Annotated[str, typer.Option("--masks", help="Name of the folder of labels.")] = "SegmentationClassAug",
    unmapped: Unmapped = "reject",
    name: options.Name = None,
    jobs: options.Jobs = None,
    max_rejected: options.MaxRejected = 0.05,
    copy_images: options.CopyImages = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """HumanParsing (ATR), 18 classes: ROOT/JPEGImages/X.jpg and ROOT/SegmentationClassAug/X.png.

    Example: segdata convert humanparsing HumanParsing-Dataset --labels parts5 --out prepared/parts5
    """
    from segdata.jobs.convert import ConvertOptions
    from segdata.labels import label_map
    from segdata.sources.humanparsing import HumanParsing

    source = HumanParsing(
        root, label_map(labels, "humanparsing"), PurePath(images).as_posix(), PurePath(masks).as_posix()
    )
    _run(
        source,
        out,
        ConvertOptions(name or source.name, unmapped, False, copy_images, max_rejected, jobs, overwrite),
        dry_run,
        json,
    )


@app.command("pairs")
def pairs(
    images: Annotated[Path, typer.Option("--images", help="Folder of photos.")],
    masks: Annotated[Path, typer.Option("--masks", help="Folder of masks of the same names.")],
    out: options.Out,
    kind: Annotated[
        Literal["binary", "index", "matte"],
        typer.Option("--kind", help="What masks hold: two values, class ids, alpha."),
    ] = "binary",
    labels: Annotated[
        str | None, typer.Option("--labels", help="Label map for --kind index: a FILE.toml, or a built-in name.")
    ] = None,
    threshold: Annotated[
        int | None, typer.Option("--threshold", help="Binary masks of any values: this value and above is person.")
    ] = None,
    mask_suffix: Annotated[
        str, typer.Option("--mask-suffix", help="What mask names have behind the photo's: _matte for X_matte.png.")
    ] = "",
    resize_masks: Annotated[
        bool,
        typer.Option("--resize-masks", help="Resize masks (nearest) to their photo where the shapes agree within 1 %."),
    ] = False,
    unmapped: Unmapped = "reject",
    name: options.Name = None,
    jobs: options.Jobs = None,
    max_rejected: options.MaxRejected = 0.05,
    copy_images: options.CopyImages = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Your own folders: photos in one, masks or mattes of the same names in another.

    Example: segdata convert pairs --images photos --masks masks --out prepared/mine
    """
    from segdata.errors import OptionError
    from segdata.jobs.convert import ConvertOptions
    from segdata.labels import label_map
    from segdata.sources.pairs import Pairs

    if (kind == "index") != (labels is not None):
        raise OptionError(f"--kind {kind}: --labels goes with --kind index, and is needed there; found {labels!r}.")
    found = None if kind == "matte" else label_map(labels or "binary", "" if labels else "mask")
    source = Pairs(images, masks, found, kind, threshold, mask_suffix)
    _run(
        source,
        out,
        ConvertOptions(name or source.name, unmapped, resize_masks, copy_images, max_rejected, jobs, overwrite),
        dry_run,
        json,
    )


def _run(source: Source, out: Path, wanted: ConvertOptions, dry_run: bool, json: bool) -> None:
    from segdata.jobs import convert

    report = convert.plan(source, out, wanted) if dry_run else convert.convert(source, out, wanted)
    output.show(report, _lines(report, dry_run), json)


def _lines(report: ConvertReport, dry_run: bool) -> Iterator[str]:
    rejected = sum(report.rejected.values())
    verb = "would be converted to" if dry_run else "in"
    yield f"{report.name}: {report.samples} samples {verb} {report.out}, {rejected} rejected"
    for reason, count in report.rejected.items():
        yield f"  rejected  {count} {reason}, first {report.examples[reason]}"
    for note, count in report.notes.items():
        yield f"  changed   {count} {note}"
    if report.ignored:
        yield f"  passed over  {', '.join(f'{count} {kind}' for kind, count in sorted(report.ignored.items()))}"
    if report.class_pixels:
        ignored = {"ignored": report.ignored_pixels} if report.ignored_pixels else {}
        yield f"  pixels    {output.shares(report.class_pixels | ignored)}"
