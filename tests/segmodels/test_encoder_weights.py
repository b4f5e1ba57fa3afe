"""Encoders of keras.applications: what they are fed, how weights come in, and the output stride."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped,unused-ignore]
import numpy as np
import pytest

from segdata.errors import OptionError, SegdataError
from segmodels.encoders import build_encoder
from segmodels.layers import BATCH_NORM_MOMENTUM
from segmodels.models import build_model, encoder_layers
from segmodels.models.deeplabv3plus import FEATURES
from segmodels.quiet import keras

ENCODERS = {
    "efficientnetv2b0": ("EfficientNetV2B0", "efficientnet_v2"),
    "mobilenetv2": ("MobileNetV2", "mobilenet_v2"),
    "resnet50": ("ResNet50", "resnet"),
    "vgg16": ("VGG16", "vgg16"),
}
RGB = (None, None, 3)


def photos(side: int = 64) -> Any:
    return np.random.default_rng(0).integers(0, 256, (2, side, side, 3)).astype(np.float32)


def original(name: str) -> Any:
    """The encoder as keras.applications has it, its weights at random; in a state that training might leave."""
    model = getattr(keras.applications, ENCODERS[name][0])(include_top=False, weights=None, input_shape=(64, 64, 3))
    dice = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(dice.normal(0, 0.1, layer.moving_mean.shape))
            layer.moving_variance.assign(dice.uniform(0.5, 2, layer.moving_variance.shape))
    return model


@pytest.mark.parametrize(
    ("name", "suffix"),
    [*((name, "_notop.h5") for name in ENCODERS), ("mobilenetv2", ".weights.h5"), ("mobilenetv2", ".keras")],
)
def test_weights_of_a_file_give_what_keras_applications_gives(name: str, suffix: str, tmp_path: Path) -> None:
    """Its own preprocessing and network on one side, ours with the file on the other; ours takes 0...255."""
    theirs, file = original(name), tmp_path / f"weights{suffix}"
    if suffix == "_notop.h5":
        write_legacy(theirs, file)
    elif suffix == ".keras":
        theirs.save(file)
    else:
        theirs.save_weights(file)
    ours = build_encoder(name, RGB, str(file))
    module = getattr(keras.applications, ENCODERS[name][1])
    expected = theirs(module.preprocess_input(photos()), training=False)
    np.testing.assert_allclose(ours(photos(), training=False), expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def write_legacy(model: Any, file: Path) -> None:
    """The layout of the files that keras.applications fetches: a group per layer, in order, with the weights' names."""
    with h5py.File(file, "w") as root:
        root.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.1.6"
        for layer in model.layers:
            group = root.create_group(layer.name)
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            names = [f"{layer.name}/{weight.name}:0" for weight in weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, weights, strict=True):
                group[name] = np.asarray(weight)


@pytest.mark.parametrize(
    ("network", "name", "channels"),
    [
        ("vgg16_unet", "vgg16", 1),
        ("mobilenetv2_unet", "mobilenetv2", 3),
        ("deeplabv3plus", "mobilenetv2", 1),
    ],
)
def test_a_network_takes_them_into_its_encoder_alone(network: str, name: str, channels: int, tmp_path: Path) -> None:
    theirs, file = original(name), tmp_path / "encoder.weights.h5"
    theirs.save_weights(file)
    keras.utils.set_random_seed(3)
    loaded = build_model(network, 2, channels, encoder=name, encoder_weights=str(file))
    keras.utils.set_random_seed(3)
    fresh = build_model(network, 2, channels, encoder=name)
    given = {layer.name: layer.get_weights() for layer in theirs.layers}
    for layer, other in zip(loaded.layers, fresh.layers, strict=True):
        for got, expected in zip(layer.get_weights(), given.get(layer.name, other.get_weights()), strict=True):
            np.testing.assert_array_equal(got, expected)
    inside = {layer.name for layer in encoder_layers(loaded) if layer.weights}
    assert inside <= set(given), "the rest of the network is fresh"


@pytest.mark.parametrize("name", ["mobilenetv2", "resnet50"])
def test_output_stride_16_computes_the_same_features_at_four_times_the_places(name: str) -> None:
    """But for EfficientNetV2, whose squeeze-and-excitation sees all places at once."""
    features = FEATURES[name]
    coarse, fine = build_encoder(name, RGB), build_encoder(name, RGB, changes=features.changes)
    fine.set_weights(coarse.get_weights())
    first, second = (
        np.asarray(keras.Model(model.input, model.get_layer(features.deep).output)(photos(128), training=False))
        for model in (coarse, fine)
    )
    assert (first.shape[1:3], second.shape[1:3]) == ((4, 4), (8, 8))
    start = {"mobilenetv2": 1, "resnet50": 0}[name]  # a padded convolution of stride 2 begins at the second pixel
    np.testing.assert_allclose(second[:, start::2, start::2], first, rtol=1e-3, atol=1e-4 * np.abs(first).max())


@pytest.mark.parametrize("name", FEATURES)
def test_the_changed_layers_exist_and_features_have_the_sizes_that_the_paper_asks_for(name: str) -> None:
    features = FEATURES[name]
    model = build_encoder(name, RGB, changes=features.changes)
    assert set(features.changes) <= {layer.name for layer in model.layers}
    for layer_name, stride in ((features.low, 4), (features.deep, 16)):
        shape = keras.Model(model.input, model.get_layer(layer_name).output).compute_output_shape((1, 96, 64, 3))
        assert shape[1:3] == (96 // stride, 64 // stride)


def test_batch_norms_of_an_encoder_have_the_momentum_of_the_others() -> None:
    norms = [
        layer
        for layer in build_encoder("mobilenetv2", RGB).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(norms) == 52
    assert {layer.momentum for layer in norms} == {BATCH_NORM_MOMENTUM}


# ---- what goes wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ENCODERS)
def test_without_a_connection_it_says_which_file_is_meant(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fail(file: str, *_: object, **__: object) -> None:
        asked.append(file)
        raise Exception(f"URL fetch failure on https://…/{file}: None --\n[Errno -2] Name or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", fail)
    with pytest.raises(SegdataError, match=r"^--encoder-weights imagenet: .* could not be fetched .*not known") as info:
        build_encoder(name, RGB, "imagenet")
    assert f"imagenet: {asked[0]} could" in str(info.value)
    assert "\n" not in str(info.value)
    assert "give its path instead of 'imagenet'" in str(info.value)


def test_imagenet_weights_land_in_the_encoder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    theirs = original("vgg16")
    write_legacy(theirs, tmp_path / "fetched.h5")
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_, **__: str(tmp_path / "fetched.h5"))
    ours = build_encoder("vgg16", (96, 64, 1), "imagenet")
    for got, given in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(got, given)


@pytest.mark.parametrize(
    "case", ["missing", "folder", "another encoder", "another encoder, legacy", "text", "other end"]
)
def test_a_file_that_does_not_fit_is_one_clear_line(case: str, tmp_path: Path) -> None:
    path = tmp_path / (
        "weights.bin" if case == "other end" else "encoder.weights.h5" if "legacy" not in case else "o.h5"
    )
    if case == "folder":
        path.mkdir()
    elif case == "another encoder":
        original("mobilenetv2").save_weights(path)
    elif case == "another encoder, legacy":
        write_legacy(original("mobilenetv2"), path)
    elif case != "missing":
        path.write_text("no weights")
    with pytest.raises(OptionError, match=r"^--encoder-weights '.*(no such file|no weights of vgg16)") as info:
        build_encoder("vgg16", RGB, str(path))
    assert "\n" not in str(info.value)
    assert "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5" in str(info.value)
