"""segdata preview: look at a folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segdata.cli import options, output
from segdata.errors import OptionError, did_you_mean

if TYPE_CHECKING:
    from segdata.jobs.preview import Seen
    from segdata.records import Geometry, Sample
    from segdata.shards import Shards
    from segmodels.augment import Augment

_FITS = ("letterbox", "stretch")  # of train


def preview(
    path: Annotated[Path, typer.Argument(help="A prepared dataset, a manifest or shards.")],
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    count: Annotated[int, typer.Option("--count", help="How many samples.")] = 24,
    split: options.Split = None,
    augment: Annotated[
        str | None,
        typer.Option("--augment", help="Draw what training sees of shards: none, light, portrait, or a FILE.toml."),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="With --augment: train's --size; the shards' size if left out.")
    ] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", help="With --augment and --size: train's --fit; letterbox if left out.")
    ] = None,
    grey: Annotated[bool, typer.Option("--grey", help="With --augment: train's --grey.")] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="With --augment: train's --seed; 0 if left out.")] = None,
    epoch: Annotated[
        int | None, typer.Option("--epoch", help="With --augment: the epoch to draw; 1, the first, if left out.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs", help="With --augment: draw each sample as in so many epochs, from --epoch on; 1 if left out."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
) -> None:
    """Draw a sheet of samples: photo, mask in the label map's colours, and the two together.

    With --augment each is drawn once per epoch, as training sees it then, with the names of what was done to it. Give
    the --size, --fit, --grey and --seed that train is given.

    Example: segdata preview shards/parts5 --split train --out sheet.png
    """
    from segdata.jobs import preview as job

    seen: list[Seen] = []
    if augment is None:
        _refuse(size=size, fit=fit, grey=grey or None, seed=seed, epoch=epoch, epochs=epochs)
    else:
        seen = _seen_by_training(augment, _fitting(size, fit), grey, seed, epoch, epochs)
    report = job.preview(path, out, count, split, overwrite, seen)
    if seen and size is None:
        _note_own_sizes(path)
    output.show(report, [f"{out}: {report.shown} of {report.total} samples"], json)


def _refuse(**given: object) -> None:
    """OptionError for the first option that is given."""
    for name, value in given.items():
        if value is not None:
            found = f"--{name}" if value is True else f"--{name} {value}"
            raise OptionError(f"{found}: goes with --augment. Add --augment none to see training without augmentation.")


def _note_own_sizes(path: Path) -> None:
    from segdata.records import read_index

    if read_index(path).geometry.size is None:
        output.note(
            f"{path}: its shards were built without --size, so each photo is augmented at its own size. Training fits "
            "it first: give train's --size here too."
        )


def _fitting(size: str | None, fit: str | None) -> Geometry | None:
    """How train fits pictures with those options; None for as they are stored."""
    from segdata.records import Geometry
    from segdata.transforms.resize import Resize

    if fit is not None and fit not in _FITS:
        raise OptionError(f"--fit {fit!r} is not known.{did_you_mean(fit, _FITS)}")
    wanted = options.size(size)
    if wanted is None:
        if fit not in (None, "letterbox"):  # which changes nothing there, as in train
            raise OptionError(f"--fit {fit}: goes with --size.")
        return None
    return Resize(Geometry(size=wanted, fit=fit or "letterbox")).geometry  # checked by that


def _seen_by_training(
    name: str, fitting: Geometry | None, grey: bool, seed: int | None, epoch: int | None, epochs: int | None
) -> list[Seen]:
    """What is seen of records in each epoch with the augmentation of that name, or in that file."""
    from segmodels.augment import augment

    found = {"seed": seed or 0, "epoch": 1 if epoch is None else epoch, "epochs": 1 if epochs is None else epochs}
    bounds = {"seed": (0, (1 << 32) - 1), "epoch": (1, 1 << 32), "epochs": (1, 1000)}
    for option, (least, most) in bounds.items():
        if not least <= found[option] <= most:
            raise OptionError(f"--{option} {found[option]}: expected {least} to {most}.")
    first = found["epoch"] - 1  # train says 1 to people and begins with 0
    config = augment(name)
    return [partial(_seen, config, fitting, grey, found["seed"], first + i) for i in range(found["epochs"])]


def _seen(
    config: Augment, fitting: Geometry | None, grey: bool, seed: int, epoch: int, shards: Shards, number: int
) -> Sample:
    """A record as ``Inputs.arrays`` hands it to the network, but grey pictures with three channels."""
    import numpy as np

    from segdata.records import Sample
    from segmodels.augment import draw
    from segmodels.feeds import stored
    from segmodels.inputs import Inputs, has_mattes, pairs_of, target_of

    index = shards.index
    geometry, target = fitting or index.geometry, target_of(index)
    inputs = Inputs(index.geometry, geometry, target, grey=grey, augment=config, pairs=pairs_of(index), seed=seed)
    record = stored(shards, number)
    height, width = geometry.size or record.sample.image.shape[:2]
    image, truth = inputs.arrays(record.sample, record.original, (height, width), number, epoch)
    names = [name for name in draw(config, seed, epoch, number) if name != "plain_background" or has_mattes(index)]
    return Sample(
        id=f"{record.sample.id}, epoch {epoch + 1}: {', '.join(names) or 'as it is'}",
        image=np.repeat(image, 3, axis=2) if grey else image,
        mask=truth if target == "mask" else None,
        matte=truth if target == "matte" else None,
    )
