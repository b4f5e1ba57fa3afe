"""Keras's own ``.keras`` files: for Python on any backend. Its layers are segmodels' own, which must be imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segmodels.checkpoints import save_model
from segmodels.exported import TensorRecord
from segmodels.exporters import PICTURES, SHARES, Exporter, Pictures, Tensors


def _write(network: Any, path: Path, calibration: Pictures) -> Tensors:
    save_model(network, path)
    takes, gives = network.inputs[0], network.outputs[0]
    return (
        TensorRecord(name=takes.name, dtype="float32", shape=tuple(takes.shape), value_range=PICTURES),
        TensorRecord(name=network.layers[-1].name, dtype="float32", shape=tuple(gives.shape), value_range=SHARES),
    )


KERAS = Exporter(_write, ".keras", "keras", backend="")
