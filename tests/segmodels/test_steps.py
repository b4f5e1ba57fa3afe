"""A step of training: what it changes and what it leaves; TensorFlow and JAX take the same."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import JobFailed, OptionError, SegdataError
from segdata.order import Order
from segdata.shards import open_shards
from segmodels import train as train_module
from segmodels.config import LAST, TrainConfig
from segmodels.losses import Objective
from segmodels.quiet import keras
from segmodels.steps import backend, make_optimizer, make_steps, seed_dropout
from segmodels.train import train

ROOT = Path(__file__).parents[2]
needs_jax = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed: pip install .[jax]")
needs_tensorflow = pytest.mark.skipif(backend() != "tensorflow", reason="compares with TensorFlow's own steps")


def network(
    norm: bool = False, dropout: float = 0.0, policy: str = "float32", gain: float = 1 / 255, penalty: float = 0.01
) -> Any:
    """Two convolutions on (8, 8, 3); weights are of a seed of their own, whatever the backend."""
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((8, 8, 3), name="image")
        x = keras.layers.Rescaling(gain)(inputs)
        regularizer = keras.regularizers.L2(penalty) if penalty else None
        x = keras.layers.Conv2D(4, 3, padding="same", name="encoder", kernel_regularizer=regularizer)(x)
        x = keras.layers.BatchNormalization(name="norm")(x) if norm else x
        x = keras.layers.Dropout(dropout, name="dropout")(x) if dropout else x
        model = keras.Model(inputs, keras.layers.Conv2D(2, 1, name="logits")(x), name="small")
    finally:
        keras.config.set_dtype_policy("float32")
    dice = np.random.default_rng(1)
    model.set_weights(
        [dice.uniform(-0.5, 0.5, w.shape).astype(np.float32) + ("variance" in w.path) for w in model.weights]
    )
    return model


def batch(seed: int = 0, size: int = 4) -> tuple[Any, dict[str, Any]]:
    """With a band that does not count."""
    dice = np.random.default_rng(seed)
    target = dice.integers(0, 2, (size, 8, 8), np.uint8)
    target[:, :2] = 255
    return dice.integers(0, 256, (size, 8, 8, 3), np.uint8), {"target": target}


@dataclass
class Made:
    """A network, its optimizer and its steps."""

    model: Any
    optimizer: Any
    steps: Any

    def weights(self) -> dict[str, Any]:
        self.steps.sync()
        return {w.path: np.array(keras.ops.convert_to_numpy(w)) for w in self.model.weights}


def made(
    model: Any, optimizer: str = "sgd", clip_norm: float = 0.0, weight_decay: float = 0.0, loss: str = "cross_entropy"
) -> Made:
    is_scaled = any("float16" in layer.dtype_policy.name for layer in model.layers)
    optimizer = make_optimizer(optimizer, 0.5, weight_decay, clip_norm, is_scaled)
    optimizer.build(model.trainable_variables)  # type: ignore[attr-defined]
    model.compile(optimizer, jit_compile=False)
    return Made(model, optimizer, make_steps(model, optimizer, Objective(loss)))


def moved(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """The length of the way of all weights together."""
    return math.sqrt(sum(float(np.sum((after[name] - before[name]) ** 2.0)) for name in before))


# ---- one step


def test_the_loss_is_that_before_the_step_with_the_penalties() -> None:
    found = made(network())
    images, targets = batch()
    logits = found.steps.outputs(images)
    ids, counts = targets["target"], targets["target"] != 255
    log_shares = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    taken = np.take_along_axis(log_shares, np.where(counts, ids, 0)[..., None].astype(int), -1)[..., 0]
    penalty = 0.01 * np.sum(np.array(found.model.get_layer("encoder").get_weights()[0]) ** 2)
    expected = -taken[counts].mean() + penalty
    assert found.steps.train(images, targets, 0.1) == pytest.approx(expected, rel=1e-5)
    assert found.steps.train(images, targets, 0.1) < expected, "it learns"


def test_the_learning_rate_is_the_one_given() -> None:
    """From rest the way is in proportion to it."""
    before, ways = made(network()).weights(), []
    for rate in (0.2, 0.05):
        one = made(network())
        one.steps.train(*batch(), rate)
        ways.append(moved(before, one.weights()) / rate)
        assert float(np.asarray(keras.ops.convert_to_numpy(one.optimizer.learning_rate))) == pytest.approx(rate)
    assert ways[0] == pytest.approx(ways[1], rel=1e-4)
    assert ways[0] > 0.01


def test_each_step_has_its_own_rate() -> None:
    one = made(network(), "adam")
    ways, before = [], one.weights()
    for rate in (0.1, 0.0, 0.1):
        one.steps.train(*batch(), rate)
        after = one.weights()
        ways.append(moved(before, after))
        before = after
    assert ways[1] == 0
    assert min(ways[0], ways[2]) > 0.1


def test_the_gradient_is_no_longer_than_the_bound() -> None:
    before = made(network()).weights()
    ways = {}
    for clip_norm in (0.0, 0.01, 1e6):
        one = made(network(), clip_norm=clip_norm)
        one.steps.train(*batch(), 1.0)
        ways[clip_norm] = moved(before, one.weights())
    assert ways[0.0] / 1.9 > 0.02, "else the bound would not act"
    assert ways[0.01] == pytest.approx(1.9 * 0.01, rel=1e-3)
    assert ways[1e6] == pytest.approx(ways[0.0], rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_frozen_layers_stay(optimizer: str) -> None:
    model = network(norm=True)
    for name in ("encoder", "norm"):
        model.get_layer(name).trainable = False
    frozen = made(model, optimizer, weight_decay=0.1 if optimizer == "adamw" else 0.0)
    before = frozen.weights()
    for _ in range(2):
        frozen.steps.train(*batch(), 0.1)
    after = frozen.weights()
    changed = {name for name in before if (before[name] != after[name]).any()}
    assert {name.split("/")[-2] for name in changed} == {"logits"}, "nor do the means of batch norm move"


def test_batch_norm_learns_its_means() -> None:
    one = made(network(norm=True))
    before = one.weights()
    one.steps.train(*batch(), 0.0)
    after = one.weights()
    assert {name.split("/")[-1] for name in before if (before[name] != after[name]).any()} == {
        "moving_mean",
        "moving_variance",
    }


def test_weight_decay_is_of_adamw_alone() -> None:
    ways = {}
    for name, decay in (("adam", 0.0), ("adamw", 0.0), ("adamw", 0.5)):
        one = made(network(), name, weight_decay=decay)
        one.steps.train(*batch(), 0.1)
        ways[name, decay] = one.weights()
    assert moved(ways["adam", 0.0], ways["adamw", 0.0]) == pytest.approx(0, abs=1e-6)
    assert moved(ways["adam", 0.0], ways["adamw", 0.5]) > 0.01


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(OptionError, match="--optimizer 'lion': expected one of adam, adamw, sgd"):
        make_optimizer("lion", 0.1, 0, 0, False)


def test_outputs_are_the_logits_of_the_mask_as_in_inference() -> None:
    one = made(network(dropout=0.5, norm=True))
    images, _ = batch(size=3)
    found = one.steps.outputs(images)
    assert (found.shape, found.dtype) == ((3, 8, 8, 2), np.float32)
    np.testing.assert_array_equal(found, one.steps.outputs(images))
    inputs = keras.Input((8, 8, 3))
    mask, boundary = keras.layers.Conv2D(2, 1)(inputs), keras.layers.Conv2D(1, 1)(inputs)
    two = made(keras.Model(inputs, {"mask": mask, "boundary": boundary}))
    assert two.steps.outputs(images).shape == (3, 8, 8, 2)


def test_pictures_of_other_sizes_and_smaller_batches_train_on_the_same_weights() -> None:
    inputs = keras.Input((None, None, 3))
    one = made(keras.Model(inputs, keras.layers.Conv2D(2, 1, kernel_initializer="zeros")(inputs)))
    losses = []
    for size, count in ((8, 4), (16, 2), (8, 1), (16, 2)):
        images, targets = np.full((count, size, size, 3), 9, np.uint8), np.ones((count, size, size), np.uint8)
        losses.append(one.steps.train(images, {"target": targets}, 1e-4))
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[0] > losses[1] > losses[2] > losses[3]


def test_a_batch_in_which_nothing_counts_moves_nothing() -> None:
    one = made(network(penalty=0))
    before = one.weights()
    images, targets = batch()
    assert one.steps.train(images, {"target": np.full_like(targets["target"], 255)}, 0.5) == 0
    assert moved(before, one.weights()) == 0


# ---- float16


def test_an_overflowing_gradient_skips_the_step_and_halves_the_scale() -> None:
    one = made(network(policy="mixed_float16", gain=100.0))
    before = one.weights()
    scale = float(np.asarray(keras.ops.convert_to_numpy(one.optimizer.dynamic_scale)))
    images, targets = batch()
    loss = one.steps.train(images, targets, 0.1)
    assert math.isfinite(loss)
    after = one.weights()
    assert moved(before, after) == 0
    assert float(np.asarray(keras.ops.convert_to_numpy(one.optimizer.dynamic_scale))) == scale / 2
    assert int(keras.ops.convert_to_numpy(one.optimizer.iterations)) == 0


def test_what_the_loss_is_scaled_by_does_not_change_the_step() -> None:
    """After it was lowered too: a compiled step must not keep the first scale."""
    one = made(network(policy="mixed_float16"))
    before = one.weights()
    one.optimizer.dynamic_scale.assign(2.0**15)
    rescale(one, 2.0**12, before)
    one.steps.train(*batch(), 0.1)
    first = moved(before, one.weights())
    rescale(one, 2.0**6, before)
    one.steps.train(*batch(), 0.1)
    assert moved(before, one.weights()) == pytest.approx(first, rel=0.02)


def rescale(one: Made, scale: float, weights: Mapping[str, Any]) -> None:
    """Back to those weights at rest, with another loss scale."""
    one.steps.sync()
    one.model.set_weights([weights[w.path] for w in one.model.weights])
    for variable in one.optimizer.variables:
        if "momentum" in variable.path:
            variable.assign(np.zeros(variable.shape, np.float32))
    one.optimizer.dynamic_scale.assign(scale)
    one.steps.refresh()


def test_float16_learns_like_float32() -> None:
    losses = {}
    for policy in ("float32", "mixed_float16", "mixed_bfloat16"):
        one = made(network(policy=policy))
        losses[policy] = [one.steps.train(*batch(), 0.1) for _ in range(6)]
        assert {w.dtype for w in one.model.weights} == {"float32"}
    assert losses["mixed_float16"] == pytest.approx(losses["float32"], rel=0.01)
    assert losses["mixed_bfloat16"] == pytest.approx(losses["float32"], rel=0.03)


# ---- dropout


def dropped(one: Made, drawn: int, steps: int, seed: int = 7) -> list[float]:
    """Losses of that many steps without learning, the dropout set as if it had drawn ``drawn`` times."""
    one.steps.sync()
    seed_dropout(one.model, seed, drawn)
    one.steps.refresh()
    return [one.steps.train(*batch(), 0.0) for _ in range(steps)]


def test_dropout_goes_on_with_the_draws_it_would_have_had() -> None:
    """As an epoch begins: with the same steps, after those of the epochs before."""
    one = made(network(dropout=0.5))
    whole = dropped(one, 0, 5)
    assert len(set(whole)) == 5, "each step drops others"
    assert dropped(one, 0, 5) == whole
    assert dropped(one, 3, 2) == whole[3:]
    assert not set(dropped(one, 0, 5, seed=8)) & set(whole)
    resumed = made(network(dropout=0.5))
    assert dropped(resumed, 3, 2) == whole[3:]


def test_two_random_layers_draw_differently() -> None:
    inputs = keras.Input((4,))
    x = keras.layers.Dropout(0.5)(keras.layers.Dropout(0.5)(inputs))
    model = keras.Model(inputs, x)
    seed_dropout(model, 7, 0)
    states = [np.asarray(keras.ops.convert_to_numpy(v)).tolist() for v in model.non_trainable_variables]
    assert len(states) == 2
    assert states[0][0] == 7 != states[1][0]
    assert [drawn for _, drawn in states] == [0, 0]
    seed_dropout(model, (1 << 32) - 1, (1 << 32) - 1)


# ---- shares of a batch on several devices


@pytest.mark.parametrize(("size", "parts"), [(4, 2), (5, 2), (5, 3), (1, 1)])
def test_shares_hold_every_sample_once(size: int, parts: int) -> None:
    from segmodels.batches import tf
    from segmodels.steps.tensorflow import share

    images, targets = (tf.range(size)[:, None], {"target": tf.range(size)[:, None] * 10})
    shares = [share(images, targets, part, parts) for part in range(parts)]
    assert sorted(int(i) for pictures, _ in shares for i in pictures[:, 0]) == list(range(size))
    for pictures, target in shares:
        np.testing.assert_array_equal(target["target"], pictures * 10)


@pytest.mark.parametrize(("dtype", "nothing"), [("uint8", 255), ("float32", -1)])
def test_an_empty_share_is_the_first_sample_without_a_target(dtype: str, nothing: int) -> None:
    from segmodels.steps.tensorflow import share, uncounted

    images, targets = np.array([[7.0]]), {"target": np.array([[1]], dtype), "boundary": np.array([[1]], np.uint8)}
    pictures, target = share(images, targets, 1, 2)
    np.testing.assert_array_equal(pictures, images)
    assert target["target"].dtype == dtype
    assert target["target"].tolist() == [[nothing]]
    assert target["boundary"].tolist() == [[255]]
    assert uncounted(np.zeros((0, 3), dtype)).shape == (0, 3)


# ---- JAX


WITH_JAX = """
import json, sys, pytest
sys.path.insert(0, sys.argv[1])
pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[3:]])
from tests.segmodels.test_steps import several_steps
with open(sys.argv[2], "w") as file:
    json.dump(several_steps(), file)
"""


@pytest.fixture(scope="module")
def with_jax(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What pytest says of the tests of this file in a process with JAX, and ``several_steps`` there."""
    out = tmp_path_factory.mktemp("jax") / "steps.json"
    names = " or ".join(JAX_TOO)
    command = [sys.executable, "-c", WITH_JAX, ROOT, out, Path(__file__), "-k", names]
    env = os.environ | {"KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout, json.loads(out.read_text())


def several_steps() -> dict[str, Any]:
    """Losses, and the weights at the end, of a few steps by two optimizers, on this process's backend."""
    found: dict[str, Any] = {}
    for optimizer, decay in (("adamw", 0.01), ("sgd", 0.0)):
        one = made(network(norm=True), optimizer, clip_norm=1.0, weight_decay=decay)
        losses = [one.steps.train(*batch(seed), 0.01) for seed in range(3)]
        weights = {name: value.ravel().astype(float).tolist() for name, value in one.weights().items()}
        found[optimizer] = {"losses": losses, "weights": weights}
    return found


@needs_jax
@needs_tensorflow
def test_jax_takes_the_same_steps(with_jax: tuple[str, dict[str, Any]]) -> None:
    here, there = several_steps(), with_jax[1]
    for optimizer, found in here.items():
        other = there[optimizer]
        assert found["losses"] == pytest.approx(other["losses"], abs=1e-5)
        assert found["weights"].keys() == other["weights"].keys()
        for name, values in found["weights"].items():
            assert values == pytest.approx(other["weights"][name], abs=2e-4), (optimizer, name)


@needs_jax
@needs_tensorflow
def test_what_is_tested_above_holds_with_jax(with_jax: tuple[str, dict[str, Any]]) -> None:
    said = with_jax[0]
    assert "FAILED" not in said, said[-6000:]
    found = re.search(r"(\d+) passed", said)
    assert found, said[-2000:]
    assert int(found[1]) >= len(JAX_TOO)


JAX_TOO = (
    "the_loss_is_that_before",
    "the_learning_rate_is_the_one_given",
    "each_step_has_its_own_rate",
    "no_longer_than_the_bound",
    "frozen_layers_stay",
    "batch_norm_learns",
    "outputs_are_the_logits",
    "pictures_of_other_sizes",
    "overflowing_gradient",
    "loss_is_scaled_by",
    "dropout_goes_on",
)


TRAIN_TINY = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from segmodels.models import MODELS, ModelCard, Total
MODELS["tiny"] = ModelCard("tiny", "tests.segmodels.material:build_tiny", (Total(8, classes=2),), "these tests", 1)
from segdata.cli import main
main(sys.argv[1:])
"""


def segdata_with_tiny(*arguments: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``segdata`` in a fresh process that knows the network ``tiny``: a real one takes JAX half a minute to compile."""
    command = [sys.executable, "-c", TRAIN_TINY, str(ROOT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | env, timeout=200)


@needs_jax
def test_jax_trains_where_there_is_no_tensorflow(discs: Path, tmp_path: Path) -> None:
    poison = tmp_path / "poison"
    (poison / "tensorflow").mkdir(parents=True)
    (poison / "tensorflow" / "__init__.py").write_text("raise ImportError('poisoned')\n")
    env = {"PYTHONPATH": str(poison), "KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": "-1"}
    arguments = ["train", discs, "--model", "tiny", "--batch-size", "4", "--augment", "portrait"]
    done = segdata_with_tiny(*arguments, "--epochs", "2", "--out", tmp_path / "run", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "run.json").read_text())["backend"] == "jax"
    assert {"best.keras", "last.keras", "history.csv", "metrics.json"} <= {p.name for p in (tmp_path / "run").iterdir()}
    env["KERAS_BACKEND"] = "tensorflow"
    poisoned = segdata_with_tiny(*arguments, "--out", tmp_path / "other", "--debug", env=env)
    assert poisoned.returncode != 0
    assert "poisoned" in poisoned.stderr, "the poison must be able to kill"


def test_a_backend_without_steps_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(SegdataError, match="KERAS_BACKEND 'torch': training takes one of jax, tensorflow"):
        backend()


# ---- no number


@pytest.mark.usefixtures("tiny")
def test_a_loss_that_is_no_number_stops_at_once_and_names_the_batch(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = train_module.build_model

    def broken(*arguments: Any, **options: Any) -> Any:
        model = build(*arguments, **options)
        kernel, bias = model.get_layer("logits").get_weights()
        model.get_layer("logits").set_weights([np.full_like(kernel, np.nan), bias])
        return model

    monkeypatch.setattr(train_module, "build_model", broken)
    with pytest.raises(JobFailed, match=r"epoch 1, batch 1: the loss is nan, expected a number") as caught:
        train(discs, tmp_path / "run", TrainConfig("tiny", batch_size=4, epochs=2))
    message = str(caught.value)
    assert "\n" not in message
    batch_ids = [sample.id for sample in open_shards(discs).read(Order(seed=0, epoch=0))][:4]
    assert f"The batch holds {', '.join(batch_ids)}. " in message
    assert sum(f"disc-ä{i}" in message.replace(",", " ").replace(".", " ").split() for i in range(10)) == 4
    assert not (tmp_path / "run" / LAST).exists()
    assert not (tmp_path / "run" / "run.json").exists()
