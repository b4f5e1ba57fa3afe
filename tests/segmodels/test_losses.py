"""Every loss against NumPy's float64, for every kind of target; under TensorFlow or JAX, as KERAS_BACKEND says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from segdata.errors import OptionError
from segmodels.losses import LOSSES, Objective, SparseCrossEntropy, balanced_weights, cross_entropy, loss
from segmodels.quiet import keras
from tests.segmodels import references
from tests.segmodels.references import case

ops = keras.ops
KINDS = [("ids", 1), ("ids", 2), ("ids", 5), ("matte", 1), ("matte", 2), ("shares", 1), ("shares", 2), ("shares", 5)]
FEW = [("ids", 1), ("ids", 5), ("matte", 1), ("shares", 2)]
WEIGHTS = (0.5, 3.0, 0.0, 1.0, 7.0)


def gradient(function: Callable[[Any], Any], at: Any) -> Any:
    """Of a scalar function of one array, by the backend's own means."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(function)(jax.numpy.asarray(at)).astype("float32"))
    import tensorflow as tf

    x = tf.constant(at)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tf.cast(tape.gradient(value, x), "float32").numpy()


def traced(function: Callable[..., Any], *arguments: dict[str, Any]) -> Callable[..., Any]:
    """As a training step is: compiled, with a batch, height and width that TensorFlow does not know meanwhile."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    import tensorflow as tf

    def spec(array: Any) -> Any:
        return tf.TensorSpec((None, None, None, *array.shape[3:]), array.dtype)

    specs = [{key: spec(array) for key, array in argument.items()} for argument in arguments]
    return tf.function(function, input_signature=specs)


@pytest.mark.parametrize(("kind", "channels"), KINDS)
@pytest.mark.parametrize("ignored", [0, 0.5])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_what_numpy_says(name: str, kind: str, channels: int, ignored: float) -> None:
    target, logits = case(kind, channels, ignored)
    found = LOSSES[name](target, logits)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    assert found.shape == ()
    assert float(found) == pytest.approx(references.LOSSES[name](target, logits), rel=1e-5)


@pytest.mark.parametrize(("kind", "channels"), KINDS)
@pytest.mark.parametrize("ignored", [0, 0.3])
def test_weighted_cross_entropy_is_what_numpy_says(kind: str, channels: int, ignored: float) -> None:
    target, logits = case(kind, channels, ignored)
    weights = WEIGHTS[: max(channels, 2)]
    found = float(cross_entropy(target, logits, weights))
    assert found == pytest.approx(references.cross_entropy(target, logits, weights), rel=1e-5)
    assert found == pytest.approx(float(cross_entropy(target, logits, [w * 100 for w in weights])), rel=1e-5)
    assert found != pytest.approx(float(cross_entropy(target, logits)), rel=1e-3), "weights change it"


def test_a_batch_of_classes_that_weigh_nothing_costs_nothing() -> None:
    target, logits = np.full((1, 3, 3), 1, np.uint8), case("ids", 2)[1][:1, :3, :3]
    assert float(cross_entropy(target, logits, (1.0, 0.0))) == 0
    assert not gradient(lambda x: cross_entropy(target, x, (1.0, 0.0)), logits).any()


@pytest.mark.parametrize(("kind", "channels"), [("ids", 1), ("ids", 5), ("matte", 1), ("matte", 2), ("shares", 5)])
@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_the_reference_s_slope(name: str, kind: str, channels: int) -> None:
    target, logits = case(kind, channels, spread=2)
    found = gradient(lambda x: LOSSES[name](target, x), logits)
    for place in np.ndindex(*logits.shape):
        if place[1] % 2 == 0:  # half of them do
            step = np.zeros(logits.shape)
            step[place] = 1e-5
            up, down = (references.LOSSES[name](target, logits + s) for s in (step, -step))
            assert found[place] == pytest.approx((up - down) / 2e-5, abs=2e-6)


@pytest.mark.parametrize("wild", [1e4, np.inf, np.nan])
@pytest.mark.parametrize(("kind", "channels"), FEW)
@pytest.mark.parametrize("name", LOSSES)
def test_what_is_predicted_where_no_pixel_counts_does_not_matter(
    name: str, kind: str, channels: int, wild: float
) -> None:
    target, logits = case(kind, channels)
    out = target == 255 if kind == "ids" else (target if kind == "matte" else target[..., -1]) < 0
    assert out.any()
    wildly = np.where(out[..., None], np.float32(wild), logits)
    assert float(LOSSES[name](target, wildly)) == float(LOSSES[name](target, logits))
    found = gradient(lambda x: LOSSES[name](target, x), wildly)
    assert not found[out].any()
    assert found[~out].any(axis=-1).all(), "every pixel that counts has a gradient"


@pytest.mark.parametrize(("kind", "channels"), FEW)
@pytest.mark.parametrize("name", LOSSES)
def test_where_no_pixel_counts_the_loss_is_0(name: str, kind: str, channels: int) -> None:
    target, logits = case(kind, channels, ignored=1)
    assert float(LOSSES[name](target, logits)) == 0
    assert not gradient(lambda x: LOSSES[name](target, x), logits).any()
    nothing = target[:0], logits[:0]  # nor does a batch without samples, as a worker may get
    assert float(LOSSES[name](*nothing)) == 0


@pytest.mark.parametrize("type_", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("kind", "channels"), FEW)
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_make_finite_losses_and_gradients(name: str, kind: str, channels: int, type_: str) -> None:
    target, logits = case(kind, channels)
    extreme = ops.cast(np.sign(logits) * 1e4, type_)
    found = float(LOSSES[name](target, extreme))
    assert np.isfinite(found)
    assert np.isfinite(gradient(lambda x: LOSSES[name](target, x), extreme)).all()
    if name in ("cross_entropy", "binary_cross_entropy", "bce_dice"):
        assert found > 1000, "which a clipped logarithm would hide"


@pytest.mark.parametrize("type_", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_logits_are_worked_on_in_single_precision(name: str, type_: str) -> None:
    target, logits = case("ids", 5)
    rough = ops.cast(logits, type_)
    found = LOSSES[name](target, rough)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    exact = references.LOSSES[name](target, np.asarray(ops.convert_to_numpy(ops.cast(rough, "float32"))))
    assert float(found) == pytest.approx(exact, rel=1e-5), "only the logits themselves are rounded"


@pytest.mark.parametrize("name", LOSSES)
def test_sums_do_not_overflow_half_precision(name: str) -> None:
    target, logits = np.zeros((1, 512, 512), np.uint8), np.zeros((1, 512, 512, 2), np.float16)
    target[0, ::2] = 1  # the sum over 262,144 pixels of log 2 is beyond float16's 65,504
    assert float(LOSSES[name](target, logits)) == pytest.approx(references.LOSSES[name](target, logits), rel=1e-5)


def test_for_one_channel_cross_entropy_is_binary_cross_entropy() -> None:
    for kind in ("ids", "matte", "shares"):
        target, logits = case(kind, 1)
        one, two = (float(LOSSES[name](target, logits)) for name in ("cross_entropy", "binary_cross_entropy"))
        assert one == pytest.approx(two, rel=1e-6)


def test_focal_is_keras_s_own() -> None:
    target, logits = case("ids", 5, ignored=0)
    keras_s = keras.losses.CategoricalFocalCrossentropy(from_logits=True)(np.eye(5, dtype=np.float32)[target], logits)
    assert float(loss("focal")(target, logits)) == pytest.approx(float(keras_s), rel=1e-4)
    target, logits = case("ids", 1, ignored=0)
    keras_s = keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True, from_logits=True)(
        target[..., None].astype(np.float32), logits
    )
    assert float(loss("focal")(target, logits)) == pytest.approx(float(keras_s), rel=1e-4)


def test_integers_of_every_width_are_ids() -> None:
    target, logits = case("ids", 5)
    for type_ in (np.int32, np.int64, np.uint16):
        assert float(cross_entropy(target.astype(type_), logits)) == float(cross_entropy(target, logits))


WRONG = {
    "another size": (np.zeros((2, 5, 3), np.uint8), r"target \(2, 5, 3\).*expected target \(2, 5, 4\)"),
    "a size that would be broadcast": (np.zeros((2, 1, 4), np.uint8), "does not fit"),
    "ids with a channel": (np.zeros((2, 5, 4, 1), np.uint8), "does not fit"),
    "a matte for five classes": (np.zeros((2, 5, 4), np.float32), "a matte for 5 classes"),
    "shares of two classes": (np.zeros((2, 5, 4, 2), np.float32), r"expected target \(2, 5, 4, 5\)"),
}


@pytest.mark.parametrize("name", WRONG)
def test_targets_that_do_not_fit_are_refused(name: str) -> None:
    target, message = WRONG[name]
    with pytest.raises(OptionError, match=message):
        cross_entropy(target, case("ids", 5)[1])


def test_weights_that_do_not_fit_are_refused() -> None:
    target, logits = case("ids", 5)
    with pytest.raises(OptionError, match="2 numbers for 5 classes"):
        cross_entropy(target, logits, (1.0, 2.0))
    for name in LOSSES.keys() - {"cross_entropy"}:
        with pytest.raises(OptionError, match="only cross_entropy has any"):
            LOSSES[name](target, logits, (1.0,) * 5)


def test_the_table_of_losses() -> None:
    assert list(LOSSES) == sorted(references.LOSSES)
    assert all(loss(name).__name__ == name for name in LOSSES)
    with pytest.raises(OptionError, match=r"--loss 'dise' is not known. Did you mean 'dice'\? Known: bce_dice, "):
        loss("dise")


# ---- objective and weights -------------------------------------------------------------------------------------------


def test_two_heads_are_weighed_4_to_1() -> None:
    target, logits = case("matte", 1)
    boundary, boundary_logits = np.where(target < 0, 255, target > 0.5).astype(np.uint8), logits[::-1]
    both = Objective("l1")({"target": target, "boundary": boundary}, {"mask": logits, "boundary": boundary_logits})
    expected = 0.8 * references.l1(target, logits) + 0.2 * references.cross_entropy(boundary, boundary_logits)
    assert float(both) == pytest.approx(expected, rel=1e-5)
    assert float(Objective("l1")({"target": target}, logits)) == pytest.approx(references.l1(target, logits), rel=1e-5)


def test_class_weights_reach_the_loss() -> None:
    target, logits = case("ids", 5)
    found = float(Objective("cross_entropy", WEIGHTS)({"target": target}, logits))
    assert found == pytest.approx(references.cross_entropy(target, logits, WEIGHTS), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_an_objective_is_traced(name: str) -> None:
    target, logits = case("ids", 1)
    targets, outputs = {"target": target, "boundary": target}, {"mask": logits, "boundary": -logits}
    weights = (1.0, 2.0) if name == "cross_entropy" else None
    objective = Objective(name, weights)
    step = traced(lambda targets, outputs: objective(targets, outputs), targets, outputs)
    for part in (slice(None), slice(1)):  # another size of batch
        some = [{key: ops.convert_to_tensor(value[part]) for key, value in d.items()} for d in (targets, outputs)]
        assert float(step(*some)) == pytest.approx(float(objective(*some)), rel=1e-5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "cross_entropie"}, "Did you mean 'cross_entropy'"),
        ({"name": "dice", "class_weights": (1.0, 2.0)}, "has no class weights"),
        ({"class_weights": (1.0, -2.0)}, "expected numbers of 0 or more"),
        ({"class_weights": (1.0, float("nan"))}, "expected numbers of 0 or more"),
        ({"class_weights": (0.0, 0.0)}, "one of them above 0"),
        ({"boundary_weight": 1.5}, "from 0 to 1"),
    ],
)
def test_an_objective_is_checked(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Objective(**wrong)


def test_a_boundary_head_needs_a_boundary() -> None:
    target, logits = case("ids", 1)
    with pytest.raises(OptionError, match="no 'boundary'"):
        Objective()({"target": target}, {"mask": logits, "boundary": logits})


def test_balanced_weights_make_classes_weigh_the_same() -> None:
    pixels = {"background": 700, "hat": 0, "person": 200, "bag": 100}
    weights = balanced_weights(pixels)
    weighed = [weight * n for weight, n in zip(weights, pixels.values(), strict=True)]
    assert weighed == pytest.approx([weighed[0], 0, weighed[0], weighed[0]])
    assert (weights[1], sum(weights)) == (0, pytest.approx(3))
    assert balanced_weights([5, 5]) == (1, 1)
    assert balanced_weights([10**12, 1]) == pytest.approx((2e-12, 2))
    with pytest.raises(OptionError, match="no class has a pixel"):
        balanced_weights([0, 0])


# ---- the class for compile -------------------------------------------------------------------------------------------


def test_the_keras_loss_is_cross_entropy() -> None:
    target, logits = case("ids", 5)
    assert float(SparseCrossEntropy()(target, logits)) == pytest.approx(float(cross_entropy(target, logits)), rel=1e-6)


def test_it_is_made_again_from_its_config() -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(SparseCrossEntropy()))
    assert isinstance(again, SparseCrossEntropy)
