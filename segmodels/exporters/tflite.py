"""TensorFlow Lite: float32, weights in float16, and whole numbers of 8 bits from end to end.

The last takes and gives uint8. Its input's scale is 1 and its zero point 0, so that a camera's bytes go in as they are;
of its output a byte q is the probability q / 256, and serves as alpha as it is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import JobFailed
from segmodels.exported import TensorRecord
from segmodels.exporters import PICTURES, SHARES, Exporter, Pictures, Tensors
from segmodels.extras import need
from segmodels.quiet import keras


def _write(network: Any, path: Path, calibration: Pictures, numbers: str) -> Tensors:
    import tensorflow as tf

    _double_at_known_sizes(network)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        network.export(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if numbers != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if numbers == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if numbers == "int8":
            converter.representative_dataset = partial(_one_by_one, calibration)
            # TensorFlow's older quantizer: of trained networks its mean IoU with the run's own is 0.97 where the newer
            # one's is 0.93 (likeunet), 0.96 where it is 0.79 (mattingnet_small).
            converter.experimental_new_quantizer = False
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        path.write_bytes(converter.convert())
    takes, gives = _tensors(path)
    if numbers == "int8" and (takes.dtype, takes.scale, takes.zero_point) != ("uint8", 1.0, 0):
        raise JobFailed(f"{path.name}: takes {takes.dtype} of scale {takes.scale}, expected bytes as they are.")
    return takes, gives


def _double_at_known_sizes(network: Any) -> None:
    """Let layers that repeat pixels do so by the operation for it: what Keras makes of them loses the size, and the
    converter then leaves the convolution behind them to TensorFlow, as in SegNet. The pixels are the same.
    """
    for layer in network.layers:
        if isinstance(layer, keras.layers.UpSampling2D) and layer.interpolation == "nearest":
            layer.call = partial(_repeated, layer.size)
        elif isinstance(layer, keras.Model):
            _double_at_known_sizes(layer)


def _repeated(times: tuple[int, int], inputs: Any) -> Any:
    size = tuple(side * n for side, n in zip(inputs.shape[1:3], times, strict=True))
    return keras.ops.image.resize(inputs, size, "nearest", data_format="channels_last")


def _one_by_one(pictures: Pictures) -> Iterator[list[npt.NDArray[np.float32]]]:
    """A representative dataset. The first has a black and a white pixel: the input's range is that of a byte."""
    for number, picture in enumerate(pictures):
        one = picture.astype(np.float32)[None]
        if number == 0:
            one[0, 0, 0], one[0, 0, 1] = 0, 255
        yield [one]


def _tensors(path: Path) -> Tensors:
    interpreter = need("ai_edge_litert.interpreter", "export", path.name).Interpreter(model_path=str(path))
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    return _tensor(takes, PICTURES), _tensor(gives, SHARES)


def _tensor(found: Any, value_range: tuple[float, float]) -> TensorRecord:
    scale, zero_point = found["quantization"]
    return TensorRecord(
        name=found["name"],
        dtype=np.dtype(found["dtype"]).name,
        shape=tuple(map(int, found["shape"])),
        value_range=value_range,
        scale=float(scale) if scale else None,
        zero_point=int(zero_point) if scale else None,
    )


_RUN_BY = (".tflite", "ai-edge-litert", ("ai_edge_litert.interpreter",))
FLOAT32 = Exporter(partial(_write, numbers="float32"), *_RUN_BY, batch=1)
FLOAT16 = Exporter(partial(_write, numbers="float16"), *_RUN_BY, batch=1)
INT8 = Exporter(partial(_write, numbers="int8"), *_RUN_BY, batch=1, is_calibrated=True, min_parity=0.97)
