"""Every network of the table: its parameters, its shapes, and that the table itself is light."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from segdata.errors import OptionError
from segmodels.models import MODELS, ModelCard, Total, build_model, model_card

CASES = [(card, total) for card in MODELS.values() for total in card.totals]


@pytest.mark.parametrize(("card", "total"), CASES, ids=lambda value: getattr(value, "name", None))
def test_parameters_add_up_to_the_published_total(card: ModelCard, total: Total) -> None:
    model = build_model(card.name, total.classes, total.channels, total.height, total.width)
    assert model.count_params() == total.parameters
    assert model.input_shape == (None, total.height, total.width, total.channels)
    assert model.output_shape == (None, total.height, total.width, total.classes)


@pytest.mark.parametrize("name", MODELS)
def test_one_network_takes_bytes_and_floats_of_several_sizes(name: str) -> None:
    step = MODELS[name].multiple_px
    model = build_model(name, classes=3)
    for height, width in ((step, 2 * step), (3 * step, step)):
        photos = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        logits = model.predict(photos, verbose=0)  # one traced function for both sizes, so H and W become unknown
        assert logits.shape == (2, height, width, 3)
        np.testing.assert_allclose(logits, model(photos.astype(np.float32), training=False), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_a_name_of_its_own_that_does_not_count_up(name: str) -> None:
    first, second = ([layer.name for layer in build_model(name, 2).layers] for _ in range(2))
    assert first == second, "a second run in one process must write the same file"


def test_the_last_layer_gives_logits() -> None:
    for name in MODELS:
        config = build_model(name, 2).layers[-1].get_config()
        assert (config["name"], config["activation"]) == ("logits", "linear")


def test_the_table_is_alphabetical_and_its_names_agree() -> None:
    assert list(MODELS) == sorted(MODELS)
    assert all(name == card.name for name, card in MODELS.items())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"--model 'likunet' is not known. Did you mean 'likeunet'\? Known: lik"):
        model_card("likunet")
    with pytest.raises(OptionError, match="--model 'resnet'"):
        build_model("resnet", 2)


def test_sizes_that_fit_pass_and_others_name_one_that_does() -> None:
    card = MODELS["unet"]
    card.check_size(256, 96, "shards")
    with pytest.raises(OptionError, match=r"shards: pictures are 100x10 .* multiples of 32.* --size 96x32"):
        card.check_size(100, 10, "shards")


@pytest.mark.parametrize(("name", "loaded"), [("keras", False), ("tensorflow", False), ("msgspec", True)])
def test_listing_the_models_loads_no_keras(name: str, loaded: bool) -> None:
    """The last case shows that the test can fail."""
    script = f"import segmodels.models, segmodels.config, sys; sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == loaded
