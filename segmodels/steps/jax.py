"""Steps with JAX, on one device."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import numpy.typing as npt

from segdata.errors import SegdataError
from segmodels.quiet import keras


class JaxSteps:
    """Steps as pure functions of the network's and the optimizer's values, which Keras's variables get by ``sync``."""

    def __init__(self, model: Any, optimizer: Any, objective: Any, strategy: Any = None) -> None:
        if strategy is not None:
            raise SegdataError("several devices or machines need KERAS_BACKEND=tensorflow.")
        self.model, self.optimizer, self.objective = model, optimizer, objective
        self.trainable: list[Any] = []
        self.others: list[Any] = []
        self.of_optimizer: list[Any] = []
        self.refresh()
        self._rates = [i for i, v in enumerate(optimizer.variables) if v.path.endswith("/learning_rate")]
        self._step = jax.jit(self._stepped, donate_argnums=(0, 1, 2))
        self._infer = jax.jit(self._inferred)

    def train(self, images: Any, targets: dict[str, Any], learning_rate: float) -> float:
        """Take one step on a batch: the loss before it."""
        for i in self._rates:
            self.of_optimizer[i] = jax.numpy.asarray(learning_rate, self.of_optimizer[i].dtype)
        loss, *state = self._step(self.trainable, self.others, self.of_optimizer, images, targets)
        self.trainable, self.others, self.of_optimizer = state
        return float(loss)

    def outputs(self, images: Any) -> npt.NDArray[np.float32]:
        """The logits of the mask, (B, H, W, C), as in inference."""
        return np.asarray(self._infer(self.trainable, self.others, images))

    def refresh(self) -> None:
        """Take the values of the network's and the optimizer's own variables, which were changed from outside."""
        copies = ([jax.numpy.array(v.value) for v in variables] for variables in self._variables())
        self.trainable, self.others, self.of_optimizer = copies

    def sync(self) -> None:
        """Bring what was learned into the network's own variables, for saving."""
        for variables, values in self._pairs():
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
        self.refresh()  # the step may give up its arguments' memory, never that of the variables

    def _variables(self) -> tuple[list[Any], list[Any], list[Any]]:
        return self.model.trainable_variables, self.model.non_trainable_variables, self.optimizer.variables

    def _pairs(self) -> Any:
        return zip(self._variables(), (self.trainable, self.others, self.of_optimizer), strict=True)

    def _stepped(self, trainable: Any, others: Any, of_optimizer: Any, images: Any, targets: Any) -> Any:
        def objective(trainable: Any) -> Any:
            outputs, others_after, added = self.model.stateless_call(
                trainable, others, images, training=True, return_losses=True
            )
            loss = self.objective(targets, outputs) + sum(added)
            with keras.StatelessScope(state_mapping=list(zip(self.optimizer.variables, of_optimizer, strict=True))):
                return self.optimizer.scale_loss(loss), (loss, others_after)

        (_, (loss, others)), gradients = jax.value_and_grad(objective, has_aux=True)(trainable)
        trainable, of_optimizer = self.optimizer.stateless_apply(of_optimizer, gradients, trainable)
        return loss, trainable, others, of_optimizer

    def _inferred(self, trainable: Any, others: Any, images: Any) -> Any:
        outputs, _ = self.model.stateless_call(trainable, others, images, training=False)
        return outputs["mask"] if isinstance(outputs, dict) else outputs
