"""What runs a trained network, one file each: by the format of its file. A new one is a file and a line in RUNTIMES."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

# (B, H, W, channels) uint8 or float32 of 0...255 -> probabilities (B, H, W, classes) float32; by any thread, several at
# one time
Shares = npt.NDArray[np.float32]
Runtime = Callable[[npt.NDArray[Any]], Shares]

# By format of an exported file: "module:attribute" of a function (path, ExportRecord) -> Runtime.
RUNTIMES: dict[str, str] = {
    "coreml": "segmodels.runtimes.coreml:load",
    "keras": "segmodels.runtimes.keras:load",
    "onnx": "segmodels.runtimes.onnx:load",
    "saved_model": "segmodels.runtimes.saved_model:load",
    "tflite": "segmodels.runtimes.tflite:load",
    "tflite-float16": "segmodels.runtimes.tflite:load",
    "tflite-int8": "segmodels.runtimes.tflite:load",
}
