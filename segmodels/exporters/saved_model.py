"""TensorFlow's SavedModel, a folder: for TensorFlow Serving, TensorFlow.js and other converters.

Its variables stand in another order, and its fingerprint is drawn anew, each time: the bytes differ from run to run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segmodels.exported import TensorRecord
from segmodels.exporters import PICTURES, SHARES, Exporter, Pictures, Tensors


def _write(network: Any, path: Path, calibration: Pictures) -> Tensors:
    network.export(str(path), verbose=False)
    takes, gives = network.inputs[0], network.outputs[0]
    return (  # "output_0" is what Keras calls it in the signature "serving_default"
        TensorRecord(name=takes.name, dtype="float32", shape=tuple(takes.shape), value_range=PICTURES),
        TensorRecord(name="output_0", dtype="float32", shape=tuple(gives.shape), value_range=SHARES),
    )


SAVED_MODEL = Exporter(_write, "", "tensorflow")
