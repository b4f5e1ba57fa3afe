"""Networks, one file each. A new one is a file with a ``build`` and a line in MODELS. Keras loads when one is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from segdata import registry
from segdata.errors import OptionError, did_you_mean


@dataclass(frozen=True)
class Total:
    """How many parameters, trainable and not, a network has at an input shape and a number of classes.

    ``height`` and ``width`` are None where they may be any multiple that the network takes.
    """

    parameters: int
    classes: int
    channels: int = 3
    height: int | None = None
    width: int | None = None


@dataclass(frozen=True)
class ModelCard:
    """What is known of a network without building it.

    ``build`` is the ``"module:attribute"`` of a function ``(classes, channels=3, height=None, width=None)``; it returns
    a keras.Model from RGB or grey 0...255, (B, H, W, channels), to logits (B, H, W, classes). H and W must be multiples
    of ``multiple_px``.
    """

    name: str
    build: str
    totals: tuple[Total, ...]
    origin: str
    multiple_px: int

    def check_size(self, height: int, width: int, where: str) -> None:
        """OptionError, starting with ``where``, for an input size that the network cannot take."""
        step = self.multiple_px
        if height % step or width % step:
            fitting = "x".join(str(max(step, round(side / step) * step)) for side in (height, width))
            raise OptionError(
                f"{where}: pictures are {height}x{width} (HxW), {self.name} takes multiples of {step}. "
                f"Run `segdata build-tfrecords` with --size {fitting}."
            )


MODELS: dict[str, ModelCard] = {
    "likeunet": ModelCard(
        name="likeunet",
        build="segmodels.models.likeunet:build",
        totals=(Total(1_769_314, classes=2), Total(1_769_026, classes=2, channels=1)),
        origin='humanMatting, "night" and "dark"',
        multiple_px=32,
    ),
    "unet": ModelCard(
        name="unet",
        build="segmodels.models.unet:build",
        totals=(
            Total(9_553_474, classes=2, height=256, width=256),
            Total(9_553_669, classes=5, height=256, width=256),
        ),
        origin="Person-Segmentation-Keras",
        multiple_px=32,
    ),
}


def model_card(name: str) -> ModelCard:
    """The card of a network. OptionError, with the known names, where there is none of that name."""
    if name not in MODELS:
        raise OptionError(f"--model {name!r} is not known.{did_you_mean(name, MODELS)}")
    return MODELS[name]


def build_model(name: str, classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """The network of that name, a ``keras.Model`` with fresh weights; errors as in ``model_card``."""
    builders = {card.name: card.build for card in MODELS.values()}
    return registry.load(builders, name, "--model")(classes, channels, height, width)
