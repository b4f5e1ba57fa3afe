"""Steps with TensorFlow: on one device, on all of this machine's, or on those of several machines."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import SegdataError
from segdata.labels import IGNORE_INDEX
from segmodels.inputs import uncounted
from segmodels.quiet import stderr_held_back

with stderr_held_back():
    import tensorflow as tf

_NO_MEMORY = "out of memory. Try a smaller --batch-size, or a smaller --size."


class TensorFlowSteps:
    """Steps under a ``tf.distribute`` strategy. A batch is cut into equal shares, one a replica.

    The loss is the mean of the replicas' own, weighted by their pixels that count, which for a mean over pixels is that
    of the whole batch. A replica whose share is empty repeats the first sample with a target that does not count, for
    batch norm needs a picture.
    """

    def __init__(self, model: Any, optimizer: Any, objective: Any, strategy: Any = None) -> None:
        self.model, self.optimizer, self.objective = model, optimizer, objective
        self.strategy = strategy or tf.distribute.get_strategy()
        self._step_by_size: dict[tuple[int, ...], Any] = {}  # traced for a size each, so that layers know it
        self._averaged = tf.function(lambda: self.strategy.run(self._average))
        self._infer = tf.function(lambda images: _mask_of(self.model(images, training=False)), reduce_retracing=True)

    def train(self, images: Any, targets: dict[str, Any], learning_rate: float) -> float:
        """Take one step on a batch: the loss before it, that of all workers together."""
        self.optimizer.learning_rate = learning_rate
        size = tuple(images.shape[1:3])
        if size not in self._step_by_size:
            self._step_by_size[size] = tf.function(self._distributed, reduce_retracing=True)
        if self.strategy.num_replicas_in_sync > 1:
            images, targets = self._shared(images, targets)
        try:
            return float(self._step_by_size[size](images, targets))
        except tf.errors.ResourceExhaustedError as error:
            raise SegdataError(_NO_MEMORY) from error
        except (tf.errors.UnavailableError, tf.errors.InternalError, tf.errors.CancelledError) as error:
            if isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
                raise SegdataError("another worker is gone. Start all of them again with --resume.") from error
            raise

    def outputs(self, images: Any) -> npt.NDArray[np.float32]:
        """The logits of the mask, (B, H, W, C), as in inference."""
        try:
            logits: npt.NDArray[np.float32] = self._infer(images).numpy()
        except tf.errors.ResourceExhaustedError as error:
            raise SegdataError(_NO_MEMORY) from error
        return logits

    def refresh(self) -> None:
        """Nothing: the network's own variables are those that learn."""

    def sync(self) -> None:
        """Average what each replica has learned of its own share only: the means and variances of batch norm."""
        if self.strategy.num_replicas_in_sync > 1:
            self._averaged()

    def _average(self) -> None:
        context = tf.distribute.get_replica_context()
        for variable in self.model.non_trainable_variables:
            if variable.value.dtype.is_floating:  # a frozen weight is the same everywhere, and stays
                variable.value.assign(context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.identity(variable.value)))

    def _distributed(self, images: Any, targets: dict[str, Any]) -> Any:
        losses = self.strategy.run(self._on_replica, args=(images, targets))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

    def _on_replica(self, images: Any, targets: dict[str, Any]) -> Any:
        replicas = self.strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            outputs = self.model(images, training=True)
            loss = self.objective(targets, outputs) * self._share(targets["target"]) + sum(self.model.losses) / replicas
            scaled = self.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        gradients = tape.gradient(scaled, variables)
        if replicas > 1:  # before Keras looks whether they are finite, and how long: each replica must see the whole
            context = tf.distribute.get_replica_context()
            gradients = [g / replicas for g in context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)]
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    def _share(self, target: Any) -> Any:
        """Of the pixels that count in all replicas, the share in this one's; 1 where it is alone."""
        if self.strategy.num_replicas_in_sync == 1:
            return 1.0
        counts = target >= 0 if target.dtype.is_floating else target != IGNORE_INDEX
        mine = tf.reduce_sum(tf.cast(counts, tf.float32))
        all_of_them = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, mine)
        return mine / tf.maximum(all_of_them, 1.0)

    def _shared(self, images: Any, targets: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """A batch of this process as values of its own replicas."""
        local = len(self.strategy.extended.worker_devices)
        shares = [share(images, targets, part, local) for part in range(local)]

        def spread(values: list[Any]) -> Any:
            return self.strategy.experimental_distribute_values_from_function(
                lambda context: tf.convert_to_tensor(values[context.replica_id_in_sync_group % local])
            )

        by_name = {name: spread([part[name] for _, part in shares]) for name in targets}
        return spread([pictures for pictures, _ in shares]), by_name


def _mask_of(outputs: Any) -> Any:
    return outputs["mask"] if isinstance(outputs, dict) else outputs


def share(images: Any, targets: dict[str, Any], part: int, parts: int) -> tuple[Any, dict[str, Any]]:
    """Every ``parts``-th sample from ``part`` on; of an empty share the first sample, none of whose pixels counts."""
    if images.shape[0] > part:
        return images[part::parts], {name: target[part::parts] for name, target in targets.items()}
    return images[:1], {name: uncounted(target[:1]) for name, target in targets.items()}
