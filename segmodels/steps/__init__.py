"""One step of training, by the backend that Keras runs on; a file each."""

from __future__ import annotations

import random
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from segdata import registry
from segdata.errors import OptionError, SegdataError
from segmodels.quiet import keras

STEPS = {"jax": "segmodels.steps.jax:JaxSteps", "tensorflow": "segmodels.steps.tensorflow:TensorFlowSteps"}


class Steps(Protocol):
    """A network with its optimizer and objective, on the devices of one process or of several."""

    def train(self, images: Any, targets: dict[str, Any], learning_rate: float) -> float:
        """Take one step on a batch: the loss before it, that of all workers together."""

    def outputs(self, images: Any) -> npt.NDArray[np.float32]:
        """The logits of the mask, (B, H, W, C), as in inference."""

    def refresh(self) -> None:
        """Take over what was changed in the network's own variables since the last step."""

    def sync(self) -> None:
        """Bring what was learned into the network's own variables, for saving."""


def backend() -> str:
    """What Keras runs on; SegdataError for one that there are no steps for."""
    found: str = keras.backend.backend()
    if found not in STEPS:
        raise SegdataError(f"KERAS_BACKEND {found!r}: training takes one of {', '.join(sorted(STEPS))}.")
    return found


def make_optimizer(
    name: str, learning_rate: float, weight_decay: float | None, clip_norm: float, is_scaled: bool
) -> Any:
    """Adam, AdamW (which leaves biases and norms alone) or SGD with Nesterov momentum 0.9.

    ``weight_decay`` None is 0.004, Keras's own. ``clip_norm`` is the most that the norm of the whole gradient may be, 0
    for no bound. ``is_scaled`` scales the loss, without which float16 gradients vanish.
    """
    shared = {"learning_rate": learning_rate, "global_clipnorm": clip_norm or None, "name": name}
    makers = {
        "adam": lambda: keras.optimizers.Adam(**shared),
        "adamw": lambda: keras.optimizers.AdamW(weight_decay=0.004 if weight_decay is None else weight_decay, **shared),
        "sgd": lambda: keras.optimizers.SGD(momentum=0.9, nesterov=True, **shared),
    }
    if name not in makers:
        raise OptionError(f"--optimizer {name!r}: expected one of {', '.join(makers)}.")
    optimizer = makers[name]()
    if name == "adamw":
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return keras.optimizers.LossScaleOptimizer(optimizer, name="scaled") if is_scaled else optimizer


def make_steps(model: Any, optimizer: Any, objective: Any, strategy: Any = None) -> Steps:
    """The steps of the backend; ``strategy`` is TensorFlow's, None for one device."""
    made: Steps = registry.load(STEPS, backend(), "KERAS_BACKEND")(model, optimizer, objective, strategy)
    return made


def seed_weights(seed: int) -> None:
    """Set the random state that first weights come from, without loading TensorFlow beside another backend."""
    if backend() == "tensorflow":
        keras.utils.set_random_seed(seed)
    else:
        random.seed(seed)  # of which Keras draws a seed for each initializer
        np.random.seed(seed)


def seed_dropout(model: Any, seed: int, drawn: int) -> None:
    """Set each random layer's counter as if it had drawn ``drawn`` times: Keras does not save it with the weights."""
    states = [variable for variable in model.non_trainable_variables if variable.path.endswith("seed_generator_state")]
    for number, state in enumerate(states):
        state.assign(np.array([seed ^ (number * 0x9E3779B1 & 0xFFFFFFFF), drawn], np.uint32))
