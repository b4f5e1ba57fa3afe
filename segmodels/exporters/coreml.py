"""Core ML, a ``.mlpackage`` folder, through coremltools: for iPhones and Macs. Linux writes it too, only macOS runs it.

It computes in float32: float16, which is Core ML's own choice, could not be checked elsewhere. Names in its manifest
are drawn anew each time, so its bytes differ from run to run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segmodels.exported import TensorRecord
from segmodels.exporters import PICTURES, SHARES, Exporter, Pictures, Tensors
from segmodels.extras import need


def _write(network: Any, path: Path, calibration: Pictures) -> Tensors:
    ct = need("coremltools", "coreml", path.name)
    model = ct.convert(network, source="tensorflow", convert_to="mlprogram", compute_precision=ct.precision.FLOAT32)
    model.user_defined_metadata.pop("com.github.apple.coremltools.conversion_date", None)
    model.save(str(path))
    interface = model.get_spec().description
    (takes,), (gives,) = network.inputs, network.outputs
    return (
        TensorRecord(name=interface.input[0].name, dtype="float32", shape=tuple(takes.shape), value_range=PICTURES),
        TensorRecord(name=interface.output[0].name, dtype="float32", shape=tuple(gives.shape), value_range=SHARES),
    )


COREML = Exporter(_write, ".mlpackage", "coremltools", ("coremltools",), extra="coreml", system="darwin", batch=1)
