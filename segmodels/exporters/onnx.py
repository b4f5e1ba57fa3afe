"""ONNX, through tf2onnx: for ONNX Runtime and what builds on it.

The same run gives the same bytes, but for networks with BinPooling: of its einsum over any batch tf2onnx makes
operations in an order that differs from process to process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segdata.errors import JobFailed
from segmodels.exported import TensorRecord
from segmodels.exporters import PICTURES, SHARES, Exporter, Pictures, Tensors
from segmodels.extras import need
from segmodels.quiet import keras

_OUTPUT = "probabilities"
# tf2onnx 1.17 takes 50 to 80 times the bytes of the weights: 6 GB for 26 million, over 20 GB for the 134 of FCN-8s,
# which ends the process without a word.
MOST_PARAMETERS = 100_000_000


def _write(network: Any, path: Path, calibration: Pictures) -> Tensors:
    if network.count_params() > MOST_PARAMETERS:
        raise JobFailed(
            f"--format onnx: the network has {network.count_params():,} parameters, expected {MOST_PARAMETERS:,} or "
            "fewer, since tf2onnx would take more memory than there is. Choose --format saved_model or tflite."
        )
    onnx = need("onnx", "export", path.name)
    (takes,), (gives,) = network.inputs, network.outputs
    signature = [keras.InputSpec(shape=takes.shape, dtype=takes.dtype, name=takes.name)]  # it was never called
    network.export(str(path), format="onnx", verbose=False, input_signature=signature)
    model = onnx.load(str(path))
    _rename(model.graph)
    path.write_bytes(model.SerializeToString(deterministic=True))
    return (
        TensorRecord(name=model.graph.input[0].name, dtype="float32", shape=tuple(takes.shape), value_range=PICTURES),
        TensorRecord(name=_OUTPUT, dtype="float32", shape=tuple(gives.shape), value_range=SHARES),
    )


def _rename(graph: Any) -> None:
    """Values and nodes numbered as they come: the numbers of tf2onnx differ from process to process.

    Initializers then stand in the order in which they are used.
    """
    names = {"": "", graph.input[0].name: graph.input[0].name, graph.output[0].name: _OUTPUT}
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        for values in (node.input, node.output):
            values[:] = [names.setdefault(value, f"value_{len(names)}") for value in values]
    graph.output[0].name = _OUTPUT
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    initializers = [initializer for initializer in graph.initializer if initializer.name in names]
    for initializer in initializers:
        initializer.name = names[initializer.name]
    initializers.sort(key=lambda one: int(one.name.rpartition("_")[2]))
    del graph.initializer[:], graph.value_info[:]
    graph.doc_string = ""  # it has such a number too
    graph.initializer.extend(initializers)


ONNX = Exporter(_write, ".onnx", "onnxruntime", ("tf2onnx", "onnx", "onnxruntime"))
