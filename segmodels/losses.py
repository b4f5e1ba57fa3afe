"""Losses. They take logits, and leave out pixels of the ignore index."""

from __future__ import annotations

from typing import Any

from segdata.labels import IGNORE_INDEX
from segmodels.quiet import keras

ops = keras.ops


@keras.saving.register_keras_serializable(package="segmodels")
class SparseCrossEntropy(keras.losses.Loss):  # type: ignore[misc]
    """Cross entropy of class ids (B, H, W) and logits (B, H, W, C): the mean over all pixels of the batch that count.

    Pixels of the ignore index (255) do not count; where none does, the loss is 0. Keras hands both arguments over as
    float32, whatever type the network computes in.
    """

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """A scalar."""
        ids = ops.cast(y_true, "int32")  # (B, H, W)
        counts = ops.not_equal(ids, IGNORE_INDEX)
        ids = ops.where(counts, ids, 0)  # 255 is no class of y_pred
        each = ops.sparse_categorical_crossentropy(ids, y_pred, from_logits=True)  # (B, H, W)
        total = ops.sum(ops.where(counts, each, 0.0))
        return total / ops.maximum(ops.sum(ops.cast(counts, total.dtype)), 1.0)
