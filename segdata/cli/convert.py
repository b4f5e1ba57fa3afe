"""segdata convert SOURCE: a raw dataset to a prepared one."""

# Annotations are values here, not text, since commands are put together from them.

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from segdata.cli import options, output

if TYPE_CHECKING:
    from segdata.jobs.convert import ConvertReport
    from segdata.sources import Source

_Planned = tuple["Source", dict[str, Any]]  # and how its options change ConvertOptions

app = typer.Typer(
    help="Turn a raw dataset into a prepared one: exact masks, checked photos. Stopped, the same command goes on.",
    no_args_is_help=True,
)

Unmapped = Annotated[
    Literal["reject", "ignore"],
    typer.Option("--unmapped", help="Raw ids that the label map does not name: reject the sample, or store 255."),
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Make binary masks: alpha of this share (0.5) and above is person."),
]
Matte = Annotated[
    Literal["keep"] | None, typer.Option("--matte", help="keep: soft mattes (what happens without --threshold too).")
]


def _run(
    source: "Source",
    changed: dict[str, Any],
    *,
    out: options.Out,
    name: options.Name = None,
    jobs: options.Jobs = None,
    max_rejected: options.MaxRejected = 0.05,
    copy_images: options.CopyImages = False,
    engine: options.Engine = "local",
    address: options.Address = None,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    json: options.Json = False,
) -> None:
    """Convert, with the options that every source takes; ``changed`` are what a source's own options make of others."""
    from segdata.jobs import convert

    wanted = convert.ConvertOptions(
        name=name or source.name,
        copy_images=copy_images,
        max_rejected=max_rejected,
        jobs=jobs,
        overwrite=overwrite,
        engine=engine,
        address=address,
        **changed,
    )
    report = convert.plan(source, out, wanted) if dry_run else convert.convert(source, out, wanted)
    output.show(report, lines(report, dry_run), json)
    if report.would_fail:
        output.note(f"the command would fail: {report.would_fail}")


_COMMON = [
    parameter
    for parameter in inspect.signature(_run).parameters.values()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
]


def _source(name: str) -> Callable[[Callable[..., _Planned]], None]:
    """Make a command of a function that plans it; it takes the function's own options, then those of ``_run``.

    Typer reads a command's options from its signature, and knows no other way to share eight of them among seven.
    """

    def register(function: Callable[..., _Planned]) -> None:
        own = inspect.signature(function).parameters

        def command(**values: Any) -> None:
            source, changed = function(**{key: value for key, value in values.items() if key in own})
            _run(source, changed, **{key: value for key, value in values.items() if key not in own})

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own.values()] + _COMMON
        command.__doc__ = function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        app.command(name)(command)

    return register


@_source("humanparsing")
def _humanparsing(
    root: Annotated[Path, typer.Argument(help="Folder with JPEGImages/ and SegmentationClassAug/.")],
    labels: options.Labels = "binary",
    images: Annotated[str, typer.Option("--images", help="Name of the folder of photos.")] = "JPEGImages",
    masks: Annotated[str, typer.Option("--masks", help="Name of the folder of labels.")] = "SegmentationClassAug",
    unmapped: Unmapped = "reject",
) -> _Planned:
    """HumanParsing (ATR), 18 classes: ROOT/JPEGImages/X.jpg and ROOT/SegmentationClassAug/X.png.

    Example: segdata convert humanparsing HumanParsing-Dataset --labels parts5 --out prepared/parts5
    """
    from segdata.labels import label_map
    from segdata.sources.humanparsing import HumanParsing

    found = label_map(labels, "humanparsing")
    return HumanParsing(root, found, PurePath(images).as_posix(), PurePath(masks).as_posix()), {"unmapped": unmapped}


@_source("coco")
def _coco(
    annotations: Annotated[Path, typer.Argument(help="An instances JSON, such as instances_train2017.json.")],
    images: Annotated[Path, typer.Option("--images", help="Folder of the images that it names.")],
    category: Annotated[
        list[str] | None, typer.Option("--category", help="Name of a category; several times for several. [person]")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option("--labels", help="binary: all categories are person; or a FILE.toml. Else a class for each."),
    ] = None,
    crowd: Annotated[
        Literal["ignore", "include", "exclude"],
        typer.Option("--crowd", help="Crowds: 255 where nobody else is, a person like others, or background."),
    ] = "ignore",
    min_area: Annotated[int, typer.Option("--min-area", help="Leave out objects of fewer pixels.")] = 0,
    empty: Annotated[
        Literal["keep", "drop"], typer.Option("--empty", help="Images without an object: negatives to keep, or drop.")
    ] = "keep",
) -> _Planned:
    """COCO, or any dataset in its format: one JSON with polygons or run lengths, and a folder of images.

    Example: segdata convert coco annotations/instances_val2017.json --images val2017 --out prepared/coco
    """
    from segdata.labels import category_map
    from segdata.sources.coco import Coco

    names = tuple(category or ["person"])
    return Coco(annotations, images, category_map(labels, names), names, crowd, min_area, empty == "drop"), {}


@_source("pfcn")
def _pfcn(
    root: Annotated[Path, typer.Argument(help="Folder with images_data_crop/ and images_mask/, or X beside X_matte.")],
    crops: Annotated[int, typer.Option("--crops", help="Square windows of each photo; 0 keeps photos whole.")] = 5,
    size: Annotated[int, typer.Option("--size", help="Side of a crop in pixels.")] = 512,
    seed: Annotated[int, typer.Option("--seed", help="Another seed places other windows.")] = 0,
    min_person: Annotated[float, typer.Option("--min-person", help="Least share of person pixels in a crop.")] = 0.05,
    threshold: Threshold = None,
) -> _Planned:
    """PFCN portraits: NNNNN.jpg with NNNNN_mask.mat as published, or X.png beside X_matte.png.

    Example: segdata convert pfcn EG_dataset --out prepared/portraits
    """
    from segdata.sources.pfcn import Pfcn
    from segdata.transforms.crop import Crop

    return Pfcn(root, threshold), {"crop": Crop(crops, size, seed, min_person) if crops else None}


@_source("aisegment")
def _aisegment(
    root: Annotated[Path, typer.Argument(help="Folder with clip_img/ and matting/.")],
    matte: Matte = None,
    threshold: Threshold = None,
) -> _Planned:
    """AISegment: clip_img/A/clip_B/N.jpg with the alpha of matting/A/matting_B/N.png.

    Example: segdata convert aisegment matting_human_half --out prepared/aisegment
    """
    from segdata.errors import OptionError
    from segdata.sources.aisegment import AISegment

    if matte and threshold is not None:
        raise OptionError("--matte keep and --threshold exclude each other.")
    return AISegment(root, threshold), {}


@_source("voc")
def _voc(
    root: Annotated[Path, typer.Argument(help="Folder with JPEGImages/ and SegmentationClass/, such as VOC2012.")],
    labels: options.Labels = "voc_person",
    unmapped: Unmapped = "reject",
) -> _Planned:
    """Pascal VOC segmentation: palette labels of 21 classes, 255 where the outline is void.

    Example: segdata convert voc VOCdevkit/VOC2012 --out prepared/voc
    """
    from segdata.labels import label_map
    from segdata.sources.voc import Voc

    return Voc(root, label_map(labels, "voc")), {"unmapped": unmapped}


@_source("lip")
def _lip(
    root: Annotated[Path, typer.Argument(help="Folder with LIP's train_images/ ..., or CIHP's Training/ ...")],
    labels: options.Labels = "lip",
    unmapped: Unmapped = "reject",
) -> _Planned:
    """LIP and CIHP, 20 classes, in the layouts that they are published in.

    Example: segdata convert lip instance-level_human_parsing --labels parts5 --out prepared/cihp
    """
    from segdata.labels import label_map
    from segdata.sources.lip import Lip

    return Lip(root, label_map(labels, "lip")), {"unmapped": unmapped}


@_source("pairs")
def _pairs(
    images: Annotated[Path, typer.Option("--images", help="Folder of photos.")],
    masks: Annotated[
        Path, typer.Option("--masks", help="Folder of masks of the same names (pictures, or .mat files).")
    ],
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
    mask_prefix: Annotated[
        str, typer.Option("--mask-prefix", help="What mask names have before the photo's: alpha_ for alpha_X.png.")
    ] = "",
    image_prefix: Annotated[
        str, typer.Option("--image-prefix", help="What photo names have before that: color_ for color_X.jpg.")
    ] = "",
    mask_key: Annotated[
        str | None, typer.Option("--mask-key", help="Name of the matrix in .mat masks; their only one if left out.")
    ] = None,
    resize_masks: Annotated[
        bool,
        typer.Option("--resize-masks", help="Resize masks (nearest) to their photo where the shapes agree within 1 %."),
    ] = False,
    unmapped: Unmapped = "reject",
) -> _Planned:
    """Your own folders: photos in one, masks or mattes of the same names in another.

    Example: segdata convert pairs --images photos --masks masks --out prepared/mine
    """
    from segdata.errors import OptionError
    from segdata.labels import label_map
    from segdata.sources.pairs import Pairs

    if (kind == "index") != (labels is not None):
        raise OptionError(f"--kind {kind}: --labels goes with --kind index, and is needed there; found {labels!r}.")
    found = None if kind == "matte" else label_map(labels or "binary", "" if labels else "mask")
    source = Pairs(images, masks, found, kind, threshold, mask_suffix, mask_prefix, image_prefix, mask_key)
    return source, {"unmapped": unmapped, "resize_masks": resize_masks}


def lines(report: "ConvertReport", dry_run: bool) -> Iterator[str]:
    """What a report says to people; predict --as-dataset ends in one too."""
    rejected = sum(report.rejected.values())
    verb = "would be converted to" if dry_run else "in"
    yield f"{report.name}: {report.samples} samples {verb} {report.out}, {rejected} rejected"
    if report.was_there:
        yield "  all of it was there already; --overwrite converts it again"
    for reason, count in report.rejected.items():
        yield f"  rejected  {count} {reason}, first {report.examples[reason]}"
    for note, count in report.notes.items():
        yield f"  changed   {count} {note}"
    if report.ignored:
        yield f"  passed over  {', '.join(f'{count} {kind}' for kind, count in sorted(report.ignored.items()))}"
    if report.class_pixels:
        ignored = {"ignored": report.ignored_pixels} if report.ignored_pixels else {}
        yield f"  pixels    {output.shares(report.class_pixels | ignored)}"
