"""Networks that Keras itself runs, on the backend that it is set to: those of runs, and exported ``.keras`` files."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmodels.checkpoints import load_model
from segmodels.exported import ExportRecord
from segmodels.metrics import with_probabilities
from segmodels.quiet import keras
from segmodels.runtimes import Runtime, Shares


def load_run(path: Path, size: tuple[int, int], channels: int) -> Runtime:
    """The network of a run's best.keras for pictures of (height, width) ``size``. RecordError where it is damaged."""
    return _runtime(with_probabilities(load_model(path), size, channels))


def load(path: Path, record: ExportRecord) -> Runtime:
    """An exported ``.keras`` file, which gives probabilities by itself."""
    return _runtime(load_model(path))


def _runtime(model: Any) -> Runtime:
    model.make_predict_function()  # once: else two threads that come first would each make and trace their own
    # On JAX, Keras takes the weights out of the model for a call, and puts them back.
    lock = nullcontext() if keras.backend.backend() == "tensorflow" else threading.Lock()

    def shares(images: npt.NDArray[Any]) -> Shares:
        with lock:
            found = model.predict_on_batch(images)
        return np.asarray(keras.ops.convert_to_numpy(found), np.float32)

    return shares
