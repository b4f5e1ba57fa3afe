"""The encoders of keras.applications, as networks take them: flat, for any size, with the weights they need."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segdata.errors import OptionError, SegdataError
from segmodels.layers import BATCH_NORM_MOMENTUM, CaffeColors
from segmodels.quiet import keras


@dataclass(frozen=True)
class _Application:
    """``build`` is the name of its function; ``file`` that of its ImageNet weights; ``scale`` what those expect."""

    build: str
    file: str
    scale: Callable[[Any], Any]
    options: Mapping[str, Any]


def _around_zero(x: Any) -> Any:
    return keras.layers.Rescaling(1 / 127.5, offset=-1, name="around_zero")(x)  # -1...1


def _caffe_colors(x: Any) -> Any:
    return CaffeColors(name="caffe_colors")(x)


def _standardized(x: Any) -> Any:
    """By mean and deviation of ImageNet's colours, as keras.applications has it inside EfficientNetV2's B variants."""
    x = keras.layers.Rescaling(1 / 255, name="unit_range")(x)
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return keras.layers.Normalization(mean=mean, variance=[d * d for d in deviation], name="standardize")(x)


_APPLICATIONS = {
    "efficientnetv2b0": _Application(
        "EfficientNetV2B0", "efficientnetv2-b0_notop.h5", _standardized, {"include_preprocessing": False}
    ),
    "mobilenetv2": _Application(
        "MobileNetV2", "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", _around_zero, {}
    ),
    "resnet50": _Application("ResNet50", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5", _caffe_colors, {}),
    "vgg16": _Application("VGG16", "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5", _caffe_colors, {}),
}


def build_encoder(
    name: str,
    shape: tuple[int | None, int | None, int],
    weights: str | None = None,
    changes: Mapping[str, Mapping[str, Any]] | None = None,
) -> Any:
    """A ``keras.Model`` from (B, H, W, 1 or 3) of 0...255 to the last features of keras.applications' ``name``.

    A grey picture becomes three equal channels. ``weights`` is None (random), ``"imagenet"`` or the path of a file that
    the encoder takes. ``changes`` are layers' names and what their configuration has instead (strides, dilation).
    OptionError for a file that does not fit; SegdataError where ImageNet's cannot be fetched.
    """
    known = _APPLICATIONS[name]
    inputs = keras.Input(shape, name="image")
    x = keras.layers.Concatenate(name="grey_thrice")([inputs] * 3) if shape[2] == 1 else inputs
    build = getattr(keras.applications, known.build)
    original = build(include_top=False, weights=None, input_tensor=known.scale(x), **known.options)

    def changed(layer: Any) -> Any:
        config = {**layer.get_config(), **(changes or {}).get(layer.name, {})}
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = BATCH_NORM_MOMENTUM
        return type(layer).from_config(config)

    copy = keras.models.clone_model(original, clone_function=changed)
    model = keras.Model(copy.inputs[0], copy.outputs[0], name=name)  # the copy would want its input in a list
    if weights == "imagenet":
        model.set_weights(_imagenet(known).get_weights())
    elif weights is not None:
        _load(model, name, known, Path(weights))
    return model


def _imagenet(known: _Application) -> Any:
    """The encoder with the weights that keras.applications keeps in the user's folder, or fetches."""
    build = getattr(keras.applications, known.build)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its progress bar
            return build(include_top=False, weights="imagenet", input_shape=(224, 224, 3), **known.options)
    except Exception as error:  # Keras raises no narrower one where a download fails
        reason = " ".join(str(error).split())[:300]
        raise SegdataError(
            f"--encoder-weights imagenet: {known.file} could not be fetched ({reason}), expected a connection. "
            "Fetch it elsewhere and give its path instead of 'imagenet'."
        ) from error


def _load(model: Any, name: str, known: _Application, path: Path) -> None:
    """Weights of ``path`` into an encoder; keras.applications' own files, and what Keras saves of such an encoder."""
    what_to_do = f"Give 'imagenet', or a file such as {known.file}."
    if not path.is_file():
        raise OptionError(f"--encoder-weights {str(path)!r}: no such file. {what_to_do}")
    try:
        with warnings.catch_warnings(action="ignore"):  # said beside the error, at length
            model.load_weights(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise OptionError(
            f"--encoder-weights {str(path)!r}: found no weights of {name} without its top ({reason}). {what_to_do}"
        ) from error
