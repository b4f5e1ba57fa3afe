"""Every network of the table: its parameters, shapes, types and gradients, and that the table itself is light."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import OptionError
from segmodels.checkpoints import load_model, save_model
from segmodels.models import MODELS, ModelCard, Total, build_model, encoder_layers, model_card
from segmodels.quiet import keras

CASES = [(card, total) for card in MODELS.values() for total in card.totals]
HUGE = "fcn8s"  # half a gigabyte of weights
QUICK = [name for name in MODELS if name != HUGE]
GREY = {"fcn8s", "vgg16_unet", "mobilenetv2_unet", "deeplabv3plus"}  # those repeat it, so their totals stay


def photos(height: int, width: int, channels: int = 3, count: int = 1) -> Any:
    return np.random.default_rng(0).integers(0, 256, (count, height, width, channels), np.uint8)


def least(card: ModelCard) -> int:
    return max(card.multiple_px, card.minimum_px)


def heads(card: ModelCard, output: Any) -> dict[str, Any]:
    """Logits by name, whatever the network returns."""
    return dict(output) if card.has_boundary else {"mask": output}


def expected(card: ModelCard, classes: int) -> dict[str, int]:
    """Channels of the logits, by name."""
    return {"mask": card.logits_channels(classes), **({"boundary": 1} if card.has_boundary else {})}


@pytest.fixture(scope="module")
def built() -> Iterator[Callable[[str], Any]]:
    """``built("unet")``: the network for five classes of RGB, any size; made once, since that takes a second."""
    made: dict[str, Any] = {}

    def build(name: str) -> Any:
        if name not in made:
            keras.utils.set_random_seed(1)
            made[name] = build_model(name, 5)
        return made[name]

    yield build
    made.clear()


@pytest.mark.parametrize(
    ("card", "total"), CASES, ids=[f"{card.name}-{i}{total.encoder}" for i, (card, total) in enumerate(CASES)]
)
def test_parameters_add_up_to_the_published_total(card: ModelCard, total: Total) -> None:
    model = build_model(
        card.name, total.classes, total.channels, total.height, total.width, encoder=total.encoder or None
    )
    assert model.count_params() == total.parameters
    assert model.input_shape == (None, total.height, total.width, total.channels)
    channels = {name: head.shape[-1] for name, head in heads(card, model.output).items()}
    assert channels == expected(card, total.classes)
    assert all(head.shape[1:3] == (total.height, total.width) for head in heads(card, model.output).values())


def test_one_channel_stands_for_two_classes_only() -> None:
    assert [MODELS["vgg16_unet"].logits_channels(n) for n in (1, 2, 3, 18)] == [1, 1, 3, 18]
    assert [MODELS["unet"].logits_channels(n) for n in (1, 2, 3, 18)] == [1, 2, 3, 18]


@pytest.mark.parametrize("name", QUICK)
def test_one_network_takes_bytes_and_floats_of_several_sizes(name: str, built: Callable[[str], Any]) -> None:
    card, model = MODELS[name], built(name)
    step = least(card)
    for height, width in ((step, 2 * step), (3 * step, step)):
        pictures = photos(height, width)
        found = heads(card, model.predict(pictures, verbose=0))  # traced once, so H and W become unknown
        again = heads(card, model(pictures.astype(np.float32), training=False))
        assert {key: logits.shape for key, logits in found.items()} == {
            key: (1, height, width, channels) for key, channels in expected(card, 5).items()
        }
        for key, logits in found.items():
            assert logits.dtype == np.float32
            largest = np.abs(again[key]).max()
            np.testing.assert_allclose(logits, again[key], rtol=1e-3, atol=1e-3 * largest)


def test_the_largest_network_takes_a_small_picture() -> None:
    model = build_model(HUGE, 3)
    for height, width in ((32, 64), (64, 32)):
        assert model(photos(height, width), training=False).shape == (1, height, width, 3)


@pytest.mark.parametrize("name", QUICK)
def test_the_table_says_which_sizes_a_network_takes(name: str, built: Callable[[str], Any]) -> None:
    card, model = MODELS[name], built(name)
    step, start = card.multiple_px, least(card)
    assert fits(card, model, start, start + step)
    if step > 1:
        assert not fits(card, model, start + step // 2, start), "the table asks for more than the network needs"
    if start > step:
        assert step == 1 or not fits(card, model, start - step, start - step)


def fits(card: ModelCard, model: Any, height: int, width: int) -> bool:
    try:
        found = heads(card, model(photos(height, width), training=False))
    except (ValueError, keras_errors()):
        return False
    return all(logits.shape[1:3] == (height, width) for logits in found.values())


def keras_errors() -> type[Exception]:
    """What the backend raises for shapes that do not fit."""
    if keras.backend.backend() != "tensorflow":
        return TypeError
    import tensorflow as tf

    return tf.errors.InvalidArgumentError  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", QUICK)
def test_grey_pictures_have_a_first_convolution_of_their_own_or_become_three_channels(
    name: str, built: Callable[[str], Any]
) -> None:
    card, model = MODELS[name], build_model(name, 5, channels=1)
    side = least(card)
    for key, logits in heads(card, model(photos(side, side, channels=1), training=False)).items():
        assert logits.shape == (1, side, side, expected(card, 5)[key])
    assert (model.count_params() == built(name).count_params()) == (name in GREY)


def test_a_grey_picture_is_to_an_encoder_what_three_equal_channels_are() -> None:
    rgb, grey = build_model("vgg16_unet", 2), build_model("vgg16_unet", 2, channels=1)
    grey.set_weights(rgb.get_weights())
    pictures = photos(32, 32, channels=1)
    one, three = grey(pictures, training=False), rgb(np.repeat(pictures, 3, axis=3), training=False)
    np.testing.assert_allclose(one, three, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", QUICK)
def test_a_saved_network_gives_the_same_when_loaded(name: str, built: Callable[[str], Any], tmp_path: Path) -> None:
    card, model = MODELS[name], built(name)
    save_model(model, tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    pictures = photos(2 * least(card), least(card))
    before, after = (heads(card, each(pictures, training=False)) for each in (model, loaded))
    assert before.keys() == after.keys()
    for key in before:
        np.testing.assert_array_equal(before[key], after[key])


@pytest.mark.parametrize("name", QUICK)
def test_every_trainable_weight_has_a_finite_gradient(name: str, built: Callable[[str], Any]) -> None:
    """That of a loss over all heads; it reaches the first layer of the encoder and the last of the decoder."""
    card, model = MODELS[name], built(name)
    pictures = photos(2 * least(card), 2 * least(card), count=2).astype(np.float32)
    gradients = gradients_of(card, model, pictures)
    wanting = [w.path for w, g in zip(model.trainable_variables, gradients, strict=True) if g is None]
    assert not wanting
    assert all(np.isfinite(g).all() for g in gradients)
    assert np.mean([np.any(np.asarray(g) != 0) for g in gradients]) > 0.9  # a relu may be dead here and there


def gradients_of(card: ModelCard, model: Any, pictures: Any) -> list[Any]:
    """Of the sum of squares of the logits, by the backend's own means; the model's weights stay."""
    if keras.backend.backend() == "jax":
        return jax_gradients(card, model, pictures)
    import tensorflow as tf

    state = [np.array(v) for v in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        loss = sum(tf.reduce_mean(y**2) for y in heads(card, model(pictures, training=True)).values())
    for variable, value in zip(model.non_trainable_variables, state, strict=True):
        variable.assign(value)
    return [g if g is None else g.numpy() for g in tape.gradient(loss, [v.value for v in model.trainable_variables])]


def jax_gradients(card: ModelCard, model: Any, pictures: Any) -> list[Any]:
    import jax  # type: ignore[import-not-found,unused-ignore]

    def loss(trainable: Any) -> Any:
        fixed = [v.value for v in model.non_trainable_variables]
        outputs, _ = model.stateless_call(trainable, fixed, pictures, training=True)
        return sum((y**2).mean() for y in heads(card, outputs).values())

    return list(jax.jit(jax.grad(loss))([v.value for v in model.trainable_variables]))


@pytest.mark.parametrize("name", QUICK)
def test_logits_are_float32_where_layers_compute_in_float16(name: str) -> None:
    card = MODELS[name]
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build_model(name, 2)
    finally:
        keras.config.set_dtype_policy("float32")
    side = 2 * least(card)
    for logits in heads(card, model(photos(side, side), training=False)).values():
        assert keras.backend.standardize_dtype(logits.dtype) == "float32"
        assert np.isfinite(np.asarray(logits)).all()
    assert "float16" in {layer.compute_dtype for layer in model.layers}


@pytest.mark.parametrize("name", MODELS)
def test_the_encoder_ends_in_a_layer_of_that_name(name: str) -> None:
    model = build_model(name, 2)
    found = encoder_layers(model)
    end = model.get_layer("encoder_end")
    assert found[-1] is end
    assert not end.weights
    assert 0 < sum(layer.count_params() for layer in found) < model.count_params()
    assert all(layer is model.get_layer(layer.name) for layer in found), "to freeze them is to freeze the model's own"
    size, deepest = 128, keras.Model(model.inputs, end.output).compute_output_shape((1, 128, 128, 3))
    assert deepest[1] in (size // 16, size // 16 - 1, size // 32)


@pytest.mark.parametrize("name", QUICK)
def test_every_layer_has_a_name_of_its_own_that_does_not_count_up(name: str, built: Callable[[str], Any]) -> None:
    first, second = ([layer.name for layer in model.layers] for model in (built(name), build_model(name, 5)))
    assert first == second, "a second run in one process must write the same file"


@pytest.mark.parametrize("name", QUICK)
def test_the_output_is_of_no_activation(name: str, built: Callable[[str], Any]) -> None:
    for key in heads(MODELS[name], built(name).output):
        layer = built(name).get_layer(key if MODELS[name].has_boundary else "logits")
        assert layer.get_config().get("activation", "linear") == "linear"
        assert layer.compute_dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "unet", "encoder_weights": "imagenet"}, "--encoder-weights 'imagenet': unet has no encoder of keras"),
        (
            {"name": "unet", "encoder": "vgg16"},
            "--encoder 'vgg16': unet has no encoder.* expected one of deeplabv3plus",
        ),
        ({"name": "fcn8s", "encoder": "resnet50"}, "--encoder 'resnet50' is not known to fcn8s. Known: vgg16"),
        ({"name": "deeplabv3plus", "encoder": "resnet5"}, "'resnet5' is not known.* Did you mean 'resnet50'"),
    ],
    ids=["weights where there is no encoder", "encoder where there is none", "another encoder", "a slip"],
)
def test_an_encoder_that_a_network_does_not_take_is_refused(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        build_model(classes=2, **arguments)  # type: ignore[arg-type]


def test_the_only_encoder_may_be_named() -> None:
    assert build_model("vgg16_unet", 2, encoder="vgg16").count_params() == 25_862_337


def test_the_table_is_alphabetical_and_its_names_agree() -> None:
    assert list(MODELS) == sorted(MODELS)
    assert all(name == card.name for name, card in MODELS.items())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"--model 'likunet' is not known. Did you mean 'likeunet'\? Known: deep"):
        model_card("likunet")
    with pytest.raises(OptionError, match="--model 'resnet'"):
        build_model("resnet", 2)


def test_sizes_that_fit_pass_and_others_name_one_that_does() -> None:
    card = MODELS["unet"]
    card.check_size(256, 96, "shards")
    with pytest.raises(OptionError, match=r"shards: pictures are 100x10 .* multiples of 32.* --size 96x32\."):
        card.check_size(100, 10, "shards")


def test_a_size_may_be_too_small_though_it_is_a_multiple() -> None:
    with pytest.raises(
        OptionError, match=r"16x64 .* mattingnet takes multiples of 16 from 32 px on. Give --size 32x64"
    ):
        MODELS["mattingnet"].check_size(16, 64, "--size")
    MODELS["deeplabv3plus"].check_size(513, 33, "--size")
    with pytest.raises(OptionError, match=r"513x31 .* takes any size from 32 px on. Give --size 513x32"):
        MODELS["deeplabv3plus"].check_size(513, 31, "--size")


@pytest.mark.parametrize(("name", "loaded"), [("keras", False), ("tensorflow", False), ("msgspec", True)])
def test_listing_the_models_loads_no_keras(name: str, loaded: bool) -> None:
    """The last case shows that the test can fail."""
    script = f"import segmodels.models, segmodels.config, sys; sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == loaded
