"""segdata predict: a trained network on photos, videos and cameras."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from segdata.cli import options, output
from segdata.errors import OptionError

if TYPE_CHECKING:
    from segmodels.predict import PredictReport
    from segmodels.predicting.results import ResultLine
    from segmodels.pseudo_labels import LabelOptions


_NOT_FOR_DATASETS = ("out", "save", "background", "smooth", "alpha_video", "seconds")
_FOR_DATASETS = ("sure", "min_confidence", "name", "max_rejected", "copy_images", "jobs")


def predict(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(help="A folder that train made, or a file that export wrote.")],
    inputs: Annotated[
        list[str], typer.Argument(help="Photos, videos, folders of them, patterns such as 'in/**/*.jpg', or camera:0.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder to write; it must not exist, or be one that this command made. A camera can do without.",
        ),
    ] = None,
    save: Annotated[
        str,
        typer.Option("--save", help="Which of mask, alpha, overlay, cutout, composite, collage, gif; with commas."),
    ] = "mask,overlay",
    background: Annotated[
        str,
        typer.Option(
            "--background",
            help="Behind the person in composite, collage and gif: white, black, #RRGGBB, blur, blur:PX, transparent, "
            "or the path of a picture or video.",
        ),
    ] = "white",
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            help="A pixel of this probability and more is person. [masks: where background is not the likeliest class]",
        ),
    ] = None,
    keep_largest: Annotated[
        bool, typer.Option("--keep-largest", help="Keep the largest connected part alone.")
    ] = False,
    fill_holes: Annotated[bool, typer.Option("--fill-holes", help="Fill holes in the person.")] = False,
    feather: Annotated[float, typer.Option("--feather", help="Soften alpha's edge by so many pixels.")] = 0,
    refine: Annotated[
        Literal["guided"] | None, typer.Option("--refine", help="guided: let the photo draw the edge, for hair.")
    ] = None,
    smooth: Annotated[
        str | None,
        typer.Option("--smooth", help="Videos: ema:0.7 mixes a frame with those before; flow:0.6 along their motion."),
    ] = None,
    alpha_video: Annotated[
        Literal["webm", "prores", "png"], typer.Option("--alpha-video", help="What cut-outs of videos are written as.")
    ] = "webm",
    seconds: Annotated[
        float | None, typer.Option("--seconds", help="Take so much of each video, or of a camera.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pictures that the network sees at once.")] = 8,
    as_dataset: Annotated[
        Path | None,
        typer.Option(
            "--as-dataset", help="Make a prepared dataset there, with the network's masks or mattes as labels."
        ),
    ] = None,
    sure: Annotated[
        str | None,
        typer.Option(
            "--sure", help="--as-dataset: a person's probability between these two is ignored, 255. [0.3,0.7]"
        ),
    ] = None,
    min_confidence: Annotated[
        float | None, typer.Option("--min-confidence", help="--as-dataset: reject photos of less, 0 to 1.")
    ] = None,
    name: options.Name = None,
    max_rejected: options.MaxRejected = 0.05,
    copy_images: options.CopyImages = False,
    jobs: options.Jobs = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Segment photos and videos of any size: masks, cut-outs, other backgrounds. Stopped, the same command goes on.

    Example: segdata predict runs/parts5 photos/ clip.mp4 --out predicted --save mask,composite --background blur
    """
    from segmodels.predict import PredictOptions, watch
    from segmodels.predict import predict as job
    from segmodels.predicting.rendering import Look
    from segmodels.pseudo_labels import LabelOptions
    from segmodels.refine import Refine
    from segmodels.smoothing import smooth_option

    refined = Refine(threshold, keep_largest, fill_holes, feather, refine == "guided")
    if as_dataset is not None:
        _refuse(context, _NOT_FOR_DATASETS, "cannot be used with --as-dataset")
        common = {"name": name, "max_rejected": max_rejected, "copy_images": copy_images, "jobs": jobs}
        label = LabelOptions(_two(sure), min_confidence, refined, batch_size)
        _make_dataset(run, inputs, as_dataset, label, {**common, "overwrite": overwrite}, json)
        return
    _refuse(context, _FOR_DATASETS, "is for --as-dataset alone")
    look = Look(tuple(save.split(",")), background, refined)
    wanted = PredictOptions(look, smooth_option(smooth), alpha_video, seconds, batch_size, overwrite)
    if out is None:
        line = watch(run, inputs, wanted)
        output.show(line, [_clip(line)], json)
        return
    report = job(run, inputs, out, wanted)
    for text in report.notes():
        output.note(text)
    output.show(report, _lines(report), json)


def _refuse(context: typer.Context, names: tuple[str, ...], why: str) -> None:
    """OptionError where one of these options was given."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise OptionError(f"--{name.replace('_', '-')}: {why}. Leave it out.")


def _two(text: str | None) -> tuple[float, float] | None:
    """``"0.3,0.7"`` as (0.3, 0.7)."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise OptionError(f"--sure {text!r}: expected two numbers such as 0.3,0.7.") from error
    return low, high


def _make_dataset(
    run: Path, inputs: list[str], out: Path, label: LabelOptions, common: dict[str, Any], json: bool
) -> None:
    from segdata.cli.convert import lines
    from segdata.jobs import convert
    from segmodels.pseudo_labels import pseudo_labels

    labels = pseudo_labels(run, inputs, out, label)
    wanted = convert.ConvertOptions(**{**common, "name": common["name"] or labels.source.name})
    convert.check(labels.source, out, wanted)
    with labels.made():
        report = convert.convert(labels.source, out, wanted)
    found = [] if report.confidence is None else [f"  confidence {report.confidence:.4f} (mean over samples)"]
    output.show(report, [*lines(report, False), *found], json)


def _lines(report: PredictReport) -> Iterator[str]:
    counts = {"photo": report.photos, "video": len(report.clips)}
    done = " and ".join(f"{count:,} {name}{'s' * (count > 1)}" for name, count in counts.items() if count)
    share = "" if report.person_share is None else f", person {report.person_share:.1%}".replace("%", " %")
    rate = "" if report.pictures_a_second is None else f", {report.pictures_a_second:.1f} pictures a second"
    yield f"{report.out}: {done}{share}{rate}"
    for clip in report.clips:
        yield f"  {_clip(clip)}"


def _clip(clip: ResultLine) -> str:
    parts = [f"{clip.frames:,} frame{'s' * (clip.frames != 1)}, {float(Fraction(clip.rate or '0')):.6g} a second"]
    if clip.smoothed_consecutive_iou is not None and clip.consecutive_iou is not None:
        after, before = clip.smoothed_consecutive_iou, clip.consecutive_iou
        smoothed = "" if after == before else f" ({before:.4f} without --smooth)"
        parts.append(f"IoU of consecutive masks {after:.4f}{smoothed}")
    if clip.audio is not None:
        parts.append("sound copied" if clip.audio == "copied" else clip.audio)
    if clip.missing_seconds:
        parts.append(f"{clip.missing_seconds:g} s are missing at its end: it is cut or damaged")
    if clip.damaged_packets:
        parts.append(f"{clip.damaged_packets} packets or frames are damaged")
    return f"{clip.name}: {'; '.join(parts)}"
