"""Losses of logits, and the one number that a network is trained on.

Each takes (target, logits) and gives a float32 scalar, whatever type the network computes in; each is stable for logits
of +-1e4. ``logits`` are (B, H, W, C); C = 1 is two classes by one sigmoid channel, the person's, as if the logits were
(0, z). ``target`` is told by its type and rank, while tracing:

- class ids (B, H, W), whole numbers, where 255 does not count;
- mattes (B, H, W), floats in [0, 1], where a negative number does not count, for C = 1 or 2;
- shares (B, H, W, classes), floats that sum to 1, where a pixel with a negative number in any class does not count.

What is predicted where a pixel does not count changes neither value nor gradient, be it NaN. Where no pixel counts, the
loss and its gradient are 0. Every mean is over the pixels of the whole batch that count. Probabilities p are the
sigmoid's for C = 1, else the softmax's. OptionError, while tracing, for shapes that do not fit together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segdata.errors import OptionError, did_you_mean
from segdata.labels import IGNORE_INDEX
from segmodels.quiet import keras

ops = keras.ops
Loss = Callable[..., Any]

FOCAL_ALPHA = 0.25  # Lin et al. 2017, section 4.1; the exponent gamma is 2
SMOOTH = 1.0  # in dice and jaccard, so that a class that is nowhere costs nothing


@dataclass(frozen=True, eq=False)
class _Pixels:
    """A batch, all in float32: ``shares`` (B, H, W, K), with K = 2 where ``logits`` (B, H, W, C) have C = 1, else C;
    ``counts`` (B, H, W) 1 or 0. Where a pixel does not count, the others are finite numbers without a meaning.
    """

    shares: Any
    logits: Any
    counts: Any

    @property
    def one_channel(self) -> bool:
        return bool(self.logits.shape[-1] == 1)

    def mean(self, each: Any) -> Any:
        """Of a number per pixel (B, H, W); 0 where no pixel counts."""
        pixels = ops.sum(ops.cast(self.counts, "int32"))  # float32 cannot count beyond 2**24 by ones
        return ops.sum(each * self.counts) / ops.maximum(ops.cast(pixels, "float32"), 1.0)

    def log_probabilities(self) -> Any:
        """(B, H, W, K); finite even where the probability itself is too small for float32."""
        if self.one_channel:
            z = self.logits[..., 0]
            return ops.stack([-ops.softplus(z), -ops.softplus(-z)], axis=-1)
        return ops.log_softmax(self.logits, axis=-1)


def cross_entropy(target: Any, logits: Any, class_weights: Sequence[float] | None = None) -> Any:
    """The mean of -log p(class); for shares the sum over classes of share x -log p.

    With a weight per class the weighted mean, sum(w ce) / sum(w), where w is the weight of the pixel's class, or of
    each of its shares: weights of another scale give the same loss. It is 0 where all classes of a batch weigh nothing.
    """
    pixels = _pixels(target, logits)
    costs = -pixels.shares * pixels.log_probabilities()
    if class_weights is None:
        return pixels.mean(ops.sum(costs, axis=-1))
    classes = pixels.shares.shape[-1]
    if len(class_weights) != classes:
        raise OptionError(f"class weights: {len(class_weights)} numbers for {classes} classes. Give one per class.")
    weights = ops.convert_to_tensor(class_weights, "float32") * pixels.counts[..., None]  # (B, H, W, K)
    total = ops.sum(weights * pixels.shares)
    return ops.sum(weights * costs) / ops.where(total > 0, total, 1.0)


def binary_cross_entropy(target: Any, logits: Any, class_weights: None = None) -> Any:
    """A sigmoid's cross entropy, each channel for itself against its class's share: the mean over pixels and channels.

    For C = 1 it equals ``cross_entropy``.
    """
    return _binary_cross_entropy(_pixels(target, logits, class_weights))


def dice(target: Any, logits: Any, class_weights: None = None) -> Any:
    """1 - (2 sum(share x p) + 1) / (sum(share) + sum(p) + 1), where the sums are over all pixels of the batch that
    count: the mean over classes, for C = 1 the person's alone.
    """
    return _dice(_pixels(target, logits, class_weights))


def jaccard(target: Any, logits: Any, class_weights: None = None) -> Any:
    """1 - (sum(share x p) + 1) / (sum(share) + sum(p) - sum(share x p) + 1); sums and mean as ``dice`` has them."""
    pixels = _pixels(target, logits, class_weights)
    both, total = _overlap(pixels)
    return _class_mean(pixels, 1 - (both + SMOOTH) / (total - both + SMOOTH))


def focal(target: Any, logits: Any, class_weights: None = None) -> Any:
    """The mean of -alpha (1 - p)^2 log p(class); for shares the sum over classes of share times that.

    For C = 1 alpha is 0.25 for the person and 0.75 for the background (Lin et al. 2017, equation 5), else 0.25 for
    every class, as ``keras.losses.CategoricalFocalCrossentropy`` has it.
    """
    return _focal(_pixels(target, logits, class_weights))


def l1(target: Any, logits: Any, class_weights: None = None) -> Any:
    """The mean of |p - share| over pixels and classes; for two classes, that of the matte's error."""
    pixels = _pixels(target, logits, class_weights)
    return pixels.mean(ops.mean(ops.abs(ops.exp(pixels.log_probabilities()) - pixels.shares), axis=-1))


def bce_dice(target: Any, logits: Any, class_weights: None = None) -> Any:
    """``binary_cross_entropy`` + ``dice``."""
    pixels = _pixels(target, logits, class_weights)
    return _binary_cross_entropy(pixels) + _dice(pixels)


def ce_dice_focal_mse(target: Any, logits: Any, class_weights: None = None) -> Any:
    """0.7 ``focal`` + 0.2 (``binary_cross_entropy`` + ``dice``) + 0.1 times the mean of (p - share)^2 over pixels and
    classes.
    """
    pixels = _pixels(target, logits, class_weights)
    squares = ops.square(ops.exp(pixels.log_probabilities()) - pixels.shares)
    return (
        0.7 * _focal(pixels)
        + 0.2 * (_binary_cross_entropy(pixels) + _dice(pixels))
        + 0.1 * pixels.mean(ops.mean(squares, axis=-1))
    )


LOSSES: dict[str, Loss] = {
    "bce_dice": bce_dice,
    "binary_cross_entropy": binary_cross_entropy,
    "ce_dice_focal_mse": ce_dice_focal_mse,
    "cross_entropy": cross_entropy,
    "dice": dice,
    "focal": focal,
    "jaccard": jaccard,
    "l1": l1,
}


def loss(name: str) -> Loss:
    """OptionError, with the known names, where there is none of that name."""
    if name not in LOSSES:
        raise OptionError(f"--loss {name!r} is not known.{did_you_mean(name, LOSSES)}")
    return LOSSES[name]


# ---- what a network is trained on ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Objective:
    """The loss of a network with one head or two.

    ``class_weights``, one per class, go with cross_entropy alone. ``boundary_weight`` is the share of the boundary
    head's binary cross entropy in the loss of a network that has one, the rest is the mask's: 0.8 and 0.2 by default.
    """

    name: str = "cross_entropy"
    class_weights: tuple[float, ...] | None = None
    boundary_weight: float = 0.2

    def __post_init__(self) -> None:
        loss(self.name)
        if self.class_weights is not None:
            _check_weights(self.name, self.class_weights)
        if not 0 <= self.boundary_weight <= 1:
            raise OptionError(f"boundary weight {self.boundary_weight}: expected a number from 0 to 1.")

    def __call__(self, targets: Mapping[str, Any], outputs: Any) -> Any:
        """A scalar. ``outputs`` are the logits, or {"mask": logits, "boundary": logits (B, H, W, 1)}; ``targets`` are
        {"target": what the losses above take} and, for two heads, "boundary": ids (B, H, W), where 1 is the boundary.
        """
        if not isinstance(outputs, Mapping):
            return self._mask(targets["target"], outputs)
        if "boundary" not in targets:
            raise OptionError("targets: no 'boundary', which a network with a boundary head needs. Make it from masks.")
        boundary = binary_cross_entropy(targets["boundary"], outputs["boundary"])
        mask = self._mask(targets["target"], outputs["mask"])
        return (1 - self.boundary_weight) * mask + self.boundary_weight * boundary

    def _mask(self, target: Any, logits: Any) -> Any:
        return loss(self.name)(target, logits, class_weights=self.class_weights)


def _check_weights(name: str, weights: Sequence[float]) -> None:
    if name != "cross_entropy":
        raise OptionError(f"--loss {name!r}: has no class weights. Only cross_entropy has.")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        raise OptionError(f"class weights {list(weights)}: expected numbers of 0 or more, one of them above 0.")


def balanced_weights(pixels: Mapping[str, int] | Sequence[int]) -> tuple[float, ...]:
    """Class weights from the classes' numbers of pixels, in their order: N / (C n), scaled to a mean of 1.

    N is the number of all pixels, n the class's, C the number of classes that have any: each of them then weighs as
    much as any other in ``cross_entropy`` over the whole split. A class without a pixel has weight 0, and is not in the
    mean. (Median frequency balancing, Eigen & Fergus 2015, is the same but for the scale, which cancels out, where
    every photo has every class; else it needs the photos' sizes too.) OptionError where no class has a pixel.
    """
    counts = list(pixels.values() if isinstance(pixels, Mapping) else pixels)
    shares = [1 / n if n else 0.0 for n in counts]
    if not any(shares):
        raise OptionError(
            "class weights: no class has a pixel, so they cannot be balanced. Train without class weights."
        )
    mean = sum(shares) / sum(n > 0 for n in counts)
    return tuple(share / mean for share in shares)


# ---- the parts -------------------------------------------------------------------------------------------------------


def _pixels(target: Any, logits: Any, class_weights: None = None) -> _Pixels:
    """Both arguments of a loss in one form. Only cross_entropy hands no weights on."""
    if class_weights is not None:
        raise OptionError("class weights: only cross_entropy has any. Leave them out, or take that loss.")
    target, logits = ops.convert_to_tensor(target), ops.convert_to_tensor(logits)
    classes = max(2, logits.shape[-1])
    _check_shapes(target, logits, classes)
    shares, counts = _shares(target, classes)
    # Neither a gradient nor a NaN may come from a pixel that does not count.
    logits = ops.where(counts[..., None], ops.cast(logits, "float32"), 0.0)
    return _Pixels(shares, logits, ops.cast(counts, "float32"))


def _shares(target: Any, classes: int) -> tuple[Any, Any]:
    """(B, H, W, classes) float32 of any target, and (B, H, W) bool: which pixels count."""
    if "float" not in keras.backend.standardize_dtype(target.dtype):
        ids = ops.cast(target, "int32")
        counts = ops.not_equal(ids, IGNORE_INDEX)
        return ops.one_hot(ops.where(counts, ids, 0), classes, dtype="float32"), counts
    target = ops.cast(target, "float32")
    if len(target.shape) == 4:
        counts = ops.all(target >= 0, axis=-1)
        return ops.where(counts[..., None], target, 0.0), counts
    counts = target >= 0
    matte = ops.where(counts, target, 0.0)
    return ops.stack([1 - matte, matte], axis=-1), counts


def _check_shapes(target: Any, logits: Any, classes: int) -> None:
    """OptionError for what would be broadcast to nonsense. A size that is not known while tracing passes."""
    soft = "float" in keras.backend.standardize_dtype(target.dtype)
    matte, shares = soft and len(target.shape) == 3, soft and len(target.shape) == 4
    found, expected = tuple(target.shape), (*logits.shape[:3], classes) if shares else tuple(logits.shape[:3])
    if (
        len(logits.shape) != 4
        or len(found) != len(expected)
        or any(None not in pair and pair[0] != pair[1] for pair in zip(found, expected, strict=True))
    ):
        raise OptionError(f"target {found}: does not fit logits {tuple(logits.shape)}, expected target {expected}.")
    if matte and classes > 2:
        raise OptionError(f"target: a matte for {classes} classes. Give shares (B, H, W, {classes}), or class ids.")


def _binary_cross_entropy(pixels: _Pixels) -> Any:
    z = pixels.logits
    share = pixels.shares[..., 1:] if pixels.one_channel else pixels.shares
    return pixels.mean(ops.mean(share * ops.softplus(-z) + (1 - share) * ops.softplus(z), axis=-1))


def _overlap(pixels: _Pixels) -> tuple[Any, Any]:
    """(K,) sums over the batch of share x p, and of share + p."""
    p, counts = ops.exp(pixels.log_probabilities()), pixels.counts[..., None]
    return ops.sum(pixels.shares * p * counts, axis=(0, 1, 2)), ops.sum((pixels.shares + p) * counts, axis=(0, 1, 2))


def _class_mean(pixels: _Pixels, by_class: Any) -> Any:
    return by_class[1] if pixels.one_channel else ops.mean(by_class)


def _dice(pixels: _Pixels) -> Any:
    both, total = _overlap(pixels)
    return _class_mean(pixels, 1 - (2 * both + SMOOTH) / (total + SMOOTH))


def _focal(pixels: _Pixels) -> Any:
    logs = pixels.log_probabilities()
    alpha = [1 - FOCAL_ALPHA, FOCAL_ALPHA] if pixels.one_channel else FOCAL_ALPHA
    costs = -ops.convert_to_tensor(alpha, "float32") * ops.square(1 - ops.exp(logs)) * logs
    return pixels.mean(ops.sum(pixels.shares * costs, axis=-1))


@keras.saving.register_keras_serializable(package="segmodels")
class SparseCrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """``cross_entropy`` of class ids, for ``compile``."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """A scalar. Keras hands the ids over as float32."""
        return cross_entropy(ops.cast(y_true, "int32"), y_pred)
