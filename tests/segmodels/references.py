"""Losses and metrics once more, in NumPy's float64, each written down as its formula stands and nothing shared."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def case(kind: str, channels: int, ignored: float = 0.3, spread: float = 4) -> tuple[Any, Any]:
    """A target of that kind ("ids", "matte", "shares"), with a share of pixels that do not count, and float32 logits.

    (2, 5, 4) pixels, so that a batch, its rows and its columns differ in number.
    """
    dice, classes = np.random.default_rng([channels, len(kind)]), max(channels, 2)
    logits = dice.normal(0, spread, (2, 5, 4, channels)).astype(np.float32)
    out = dice.random((2, 5, 4)) < ignored
    if kind == "ids":
        return np.where(out, 255, dice.integers(0, classes, (2, 5, 4))).astype(np.uint8), logits
    if kind == "matte":
        return np.where(out, -1, np.clip(dice.normal(0.5, 0.6, (2, 5, 4)), 0, 1)).astype(np.float32), logits
    shares = dice.dirichlet(np.ones(classes), (2, 5, 4))
    shares[..., -1] = np.where(out, -1, shares[..., -1])
    return shares.astype(np.float32), logits


def pixels(target: Any, logits: Any) -> tuple[Any, Any, Any]:
    """Of the pixels that count: (N, K) shares and probabilities, K >= 2, and (N, C) logits, all float64."""
    channels = logits.shape[-1]
    if target.dtype.kind != "f":
        counts, shares = target != 255, np.stack([target == k for k in range(max(channels, 2))], axis=-1)
    elif target.ndim == 3:
        counts, shares = target >= 0, np.stack([1 - target.astype(np.float64), target], axis=-1)
    else:
        counts, shares = (target >= 0).all(axis=-1), target.astype(np.float64)
    logits = logits.astype(np.float64)[counts]
    full = np.concatenate([np.zeros_like(logits), logits], axis=-1) if channels == 1 else logits
    powers = np.exp(full - full.max(axis=-1, keepdims=True))
    return shares[counts], powers / powers.sum(axis=-1, keepdims=True), logits


def mean(values: Any) -> float:
    return float(values.mean()) if values.size else 0.0


def cross_entropy(target: Any, logits: Any, weights: Any = None) -> float:
    shares, p, _ = pixels(target, logits)
    if weights is None:
        return mean(-(shares * np.log(p)).sum(axis=-1))
    total = (shares * weights).sum()
    return float(-(shares * weights * np.log(p)).sum() / total) if total else 0.0


def binary_cross_entropy(target: Any, logits: Any) -> float:
    shares, _, z = pixels(target, logits)
    shares = shares[:, 1:] if z.shape[-1] == 1 else shares
    p = 1 / (1 + np.exp(-z))
    return mean(-(shares * np.log(p) + (1 - shares) * np.log(1 - p)))


def dice(target: Any, logits: Any) -> float:
    shares, p, z = pixels(target, logits)
    lost = [1 - (2 * (s * q).sum() + 1) / (s.sum() + q.sum() + 1) for s, q in zip(shares.T, p.T, strict=True)]
    return lost[1] if z.shape[-1] == 1 else float(np.mean(lost))


def jaccard(target: Any, logits: Any) -> float:
    shares, p, z = pixels(target, logits)
    both = [(s * q).sum() for s, q in zip(shares.T, p.T, strict=True)]
    lost = [1 - (b + 1) / (s.sum() + q.sum() - b + 1) for s, q, b in zip(shares.T, p.T, both, strict=True)]
    return lost[1] if z.shape[-1] == 1 else float(np.mean(lost))


def focal(target: Any, logits: Any) -> float:
    shares, p, z = pixels(target, logits)
    alpha = np.array([0.75, 0.25]) if z.shape[-1] == 1 else 0.25
    return mean(-(shares * alpha * (1 - p) ** 2 * np.log(p)).sum(axis=-1))


def l1(target: Any, logits: Any) -> float:
    shares, p, _ = pixels(target, logits)
    return mean(np.abs(p - shares)) if p.shape[-1] > 2 else mean(np.abs(p - shares)[:, 1])


def bce_dice(target: Any, logits: Any) -> float:
    return binary_cross_entropy(target, logits) + dice(target, logits)


def ce_dice_focal_mse(target: Any, logits: Any) -> float:
    shares, p, _ = pixels(target, logits)
    return 0.7 * focal(target, logits) + 0.2 * bce_dice(target, logits) + 0.1 * mean((p - shares) ** 2)


LOSSES = {
    "bce_dice": bce_dice,
    "binary_cross_entropy": binary_cross_entropy,
    "ce_dice_focal_mse": ce_dice_focal_mse,
    "cross_entropy": cross_entropy,
    "dice": dice,
    "focal": focal,
    "jaccard": jaccard,
    "l1": l1,
}


# ---- metrics ---------------------------------------------------------------------------------------------------------


def iou(truth: Any, prediction: Any, classes: int) -> list[float]:
    """IoU by class, pixel by pixel; NaN where the class is in neither."""
    found = []
    for k in range(classes):
        pairs = [(t == k, p == k) for t, p in zip(truth.flat, prediction.flat, strict=True) if t != 255]
        both, either = sum(t and p for t, p in pairs), sum(t or p for t, p in pairs)
        found.append(both / either if either else float("nan"))
    return found


def near_contour(mask: Any, distance: int) -> Any:
    """The pixels of a mask with a pixel that is not the mask's, or lies outside, so many king's moves away or fewer."""
    height, width = mask.shape
    found = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        box = [(y + dy, x + dx) for dy in range(-distance, distance + 1) for dx in range(-distance, distance + 1)]
        found[y, x] = any(not (0 <= v < height and 0 <= u < width) or not mask[v, u] for v, u in box)
    return found


def gradient_error(truth: Any, prediction: Any) -> float:
    """Of two mattes, all of whose pixels count."""
    sigma, radius, height, width = 1.4, 4, *truth.shape
    window = range(-radius, radius + 1)
    bell = {k: math.exp(-k * k / (2 * sigma**2)) for k in window}
    scale = math.sqrt(sum((dx * bell[dx] * bell[dy]) ** 2 for dx in window for dy in window))

    def steepness(alpha: Any, y: int, x: int) -> float:
        gx = gy = 0.0
        for dy in window:
            for dx in window:
                value = float(alpha[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)])
                gx, gy = gx + value * dx * bell[dx] * bell[dy], gy + value * dy * bell[dx] * bell[dy]
        return math.hypot(gx, gy) / scale

    places = [(y, x) for y in range(height) for x in range(width)]
    return sum((steepness(prediction, y, x) - steepness(truth, y, x)) ** 2 for y, x in places) / 1000
