"""Networks, one file each. A new one is a file with a ``build`` and a line in MODELS. Keras loads when one is built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from segdata import registry
from segdata.errors import OptionError, did_you_mean


@dataclass(frozen=True)
class Total:
    """How many parameters, trainable and not, a network has at an input shape and a number of classes.

    ``height`` and ``width`` are None where they may be any multiple that the network takes; ``encoder`` is empty where
    there is no choice.
    """

    parameters: int
    classes: int
    channels: int = 3
    height: int | None = None
    width: int | None = None
    encoder: str = ""


@dataclass(frozen=True)
class ModelCard:
    """What is known of a network without building it.

    ``build`` is the ``"module:attribute"`` of a function ``(classes, channels=3, height=None, width=None)``; it returns
    a keras.Model from RGB or grey 0...255, (B, H, W, channels), to logits (B, H, W, logits_channels(classes)), or, with
    ``has_boundary``, to ``{"mask": those logits, "boundary": logits (B, H, W, 1)}``. H and W must be multiples of
    ``multiple_px`` and at least ``minimum_px``. ``encoders`` are names of those of keras.applications that its encoder
    can be, the first if none is named; ``build`` then takes ``encoder_weights`` too, and where there are several
    ``encoder``.
    """

    name: str
    build: str
    totals: tuple[Total, ...]
    origin: str
    multiple_px: int
    minimum_px: int = 1
    one_channel_for_two: bool = False
    has_boundary: bool = False
    encoders: tuple[str, ...] = ()

    def logits_channels(self, classes: int) -> int:
        """The channels of the mask's logits: as many as classes, but one for two where the original ends in one."""
        return 1 if classes == 2 and self.one_channel_for_two else classes

    def check_size(self, height: int, width: int, where: str) -> None:
        """OptionError, starting with ``where``, for an input size that the network cannot take."""
        step, least = self.multiple_px, max(self.multiple_px, self.minimum_px)
        if height % step or width % step or min(height, width) < least:
            fitting = "x".join(str(max(least, round(side / step) * step)) for side in (height, width))
            found = f"{where}: pictures are {height}x{width} (HxW)"
            raise OptionError(f"{found}, {self.name} takes {self.sizes()}. Give --size {fitting}.")

    def sizes(self) -> str:
        """What H and W may be: ``"multiples of 16 from 32 px on"``."""
        some = "any size" if self.multiple_px == 1 else f"multiples of {self.multiple_px}"
        return f"{some} from {self.minimum_px} px on" if self.minimum_px > self.multiple_px else some

    def encoder_options(self, encoder: str | None, encoder_weights: str | None) -> dict[str, str | None]:
        """What ``build`` is called with beside the shape. OptionError for what the network does not take."""
        if not self.encoders:
            wrong = {"--encoder": encoder, "--encoder-weights": encoder_weights}
            for option, value in wrong.items():
                if value is not None:
                    having = ", ".join(card.name for card in MODELS.values() if card.encoders)
                    raise OptionError(
                        f"{option} {value!r}: {self.name} has no encoder of keras.applications, expected one of "
                        f"{having}. Leave {option} out, or change --model."
                    )
            return {}
        if encoder is not None and encoder not in self.encoders:
            raise OptionError(
                f"--encoder {encoder!r} is not known to {self.name}.{did_you_mean(encoder, self.encoders)}"
            )
        choice = {"encoder": encoder or self.encoders[0]} if len(self.encoders) > 1 else {}
        return {**choice, "encoder_weights": encoder_weights}


MODELS: dict[str, ModelCard] = {
    "deeplabv3plus": ModelCard(
        name="deeplabv3plus",
        build="segmodels.models.deeplabv3plus:build",
        totals=(
            Total(2_753_714, classes=2, encoder="mobilenetv2"),
            Total(26_788_530, classes=2, encoder="resnet50"),
            Total(6_410_434, classes=2, encoder="efficientnetv2b0"),
        ),
        origin="Chen et al. 2018",
        multiple_px=1,
        minimum_px=32,  # less than the encoders were made for
        encoders=("mobilenetv2", "resnet50", "efficientnetv2b0"),
    ),
    "fast_scnn": ModelCard(
        name="fast_scnn",
        build="segmodels.models.fast_scnn:build",
        totals=(Total(1_172_842, classes=2, height=256, width=192),),
        origin="Portrait-segmentation; Poudel et al. 2019",
        multiple_px=1,
        minimum_px=32,  # one pixel for the pyramid to pool over
        one_channel_for_two=True,
        has_boundary=True,
    ),
    "fcn8s": ModelCard(
        name="fcn8s",
        build="segmodels.models.fcn8s:build",
        totals=(Total(134_271_430, classes=2),),
        origin="Long et al. 2015, VGG16, as in humanMatting's notebook",
        multiple_px=32,
        encoders=("vgg16",),
    ),
    "likeunet": ModelCard(
        name="likeunet",
        build="segmodels.models.likeunet:build",
        totals=(Total(1_769_314, classes=2), Total(1_769_026, classes=2, channels=1)),
        origin='humanMatting, "night" and "dark"',
        multiple_px=32,
    ),
    "likeunet_light": ModelCard(
        name="likeunet_light",
        build="segmodels.models.likeunet_light:build",
        totals=(Total(221_626, classes=2, channels=1),),
        origin='humanMatting, "dark-light"',
        multiple_px=32,
    ),
    "mattingnet": ModelCard(
        name="mattingnet",
        build="segmodels.models.mattingnet:build",
        totals=(Total(926_838, classes=2, height=256, width=192),),
        origin="Portrait-segmentation, big",
        multiple_px=16,
        minimum_px=32,  # a valid 3x3 convolution at 1/8 of the size
        one_channel_for_two=True,
        has_boundary=True,
    ),
    "mattingnet_small": ModelCard(
        name="mattingnet_small",
        build="segmodels.models.mattingnet_small:build",
        totals=(Total(260_356, classes=2, height=256, width=192),),
        origin="Portrait-segmentation, small",
        multiple_px=32,
        one_channel_for_two=True,
        has_boundary=True,
    ),
    "mobilenetv2_unet": ModelCard(
        name="mobilenetv2_unet",
        build="segmodels.models.mobilenetv2_unet:build",
        totals=(Total(9_606_201, classes=2, height=512, width=512),),
        origin="portrait_segmentation",
        multiple_px=32,
        one_channel_for_two=True,
        encoders=("mobilenetv2",),
    ),
    "segnet": ModelCard(
        name="segnet",
        build="segmodels.models.segnet:build",
        totals=(
            Total(10_191_042, classes=2, height=256, width=256),
            Total(10_191_237, classes=5, height=256, width=256),
        ),
        origin="Person-Segmentation-Keras",
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
    "vgg16_unet": ModelCard(
        name="vgg16_unet",
        build="segmodels.models.vgg16_unet:build",
        totals=(Total(25_862_337, classes=2, height=256, width=256),),
        origin="UnetVGG16_Person_Segmentation",
        multiple_px=16,
        one_channel_for_two=True,
        encoders=("vgg16",),
    ),
}


def model_card(name: str) -> ModelCard:
    """The card of a network. OptionError, with the known names, where there is none of that name."""
    if name not in MODELS:
        raise OptionError(f"--model {name!r} is not known.{did_you_mean(name, MODELS)}")
    return MODELS[name]


def build_model(
    name: str,
    classes: int,
    channels: int = 3,
    height: int | None = None,
    width: int | None = None,
    encoder: str | None = None,
    encoder_weights: str | None = None,
) -> Any:
    """The network of that name, a ``keras.Model``; its weights are fresh, but for the encoder's where they are named.

    ``encoder_weights`` is ``"imagenet"`` or the path of a file. OptionError for an unknown name, for an encoder or
    weights that the network does not take, and for a file that does not fit; SegdataError where ImageNet's weights
    cannot be fetched.
    """
    options = model_card(name).encoder_options(encoder, encoder_weights)
    builders = {card.name: card.build for card in MODELS.values()}
    return registry.load(builders, name, "--model")(classes, channels, height, width, **options)


def encoder_layers(model: Any) -> list[Any]:
    """The layers of a network's encoder: all that its deepest features, ``encoder_end``, come from, themselves too."""
    from segmodels.quiet import keras

    return list(keras.Model(model.inputs, model.get_layer("encoder_end").output).layers)
