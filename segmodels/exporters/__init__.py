"""How a network is written for other programs, one file each. A new one is a file, its runtime, and a line in
EXPORTERS.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segdata.errors import JobFailed, SegdataError
from segmodels.exported import TensorRecord
from segmodels.held_back import stderr_held_back

Pictures = Sequence[npt.NDArray[np.uint8]]  # each (H, W, channels) of 0...255
Tensors = tuple[TensorRecord, TensorRecord]  # the input, the output
PICTURES, SHARES = (0.0, 255.0), (0.0, 1.0)  # the value ranges of these
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Exporter:
    """A format.

    ``write(network, path, calibration)`` writes a network of fixed height and width, from pictures of 0...255 to
    probabilities, whose batch is ``batch``, None for any; its last layer is called ``probabilities``. ``calibration``
    is empty but where the exporter ``is_calibrated``. A file's name ends in ``suffix``; without one it is a folder.
    ``runtime`` is the package that runs it, on the ``system`` of sys.platform, empty for any; ``packages`` are modules
    that ``extra`` installs. ``backend`` is the one of Keras that it needs, empty for any. ``min_parity`` is the least
    mean IoU with the run's own network unless a user names another.
    """

    write: Callable[[Any, Path, Pictures], Tensors]
    suffix: str
    runtime: str
    packages: tuple[str, ...] = ()
    extra: str = "export"
    system: str = ""
    batch: int | None = None
    backend: str = "tensorflow"
    is_calibrated: bool = False
    min_parity: float = 0.99


# "module:attribute" of an Exporter.
EXPORTERS: dict[str, str] = {
    "coreml": "segmodels.exporters.coreml:COREML",
    "keras": "segmodels.exporters.keras:KERAS",
    "onnx": "segmodels.exporters.onnx:ONNX",
    "saved_model": "segmodels.exporters.saved_model:SAVED_MODEL",
    "tflite": "segmodels.exporters.tflite:FLOAT32",
    "tflite-float16": "segmodels.exporters.tflite:FLOAT16",
    "tflite-int8": "segmodels.exporters.tflite:INT8",
}


def quietly(convert: Callable[[], _Result], where: str) -> _Result:
    """What ``convert`` gives, without the lines and warnings of converters. JobFailed, one line, where it fails."""
    with stderr_held_back(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return convert()
        except (SegdataError, OSError) as error:
            failure: Exception = error
        except Exception as error:  # converters raise anything
            lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            reason = " ".join(lines[0].split())
            if len(reason) > 300:  # what matters in the long ones of MLIR stands at their end
                reason = f"{reason[:100]} ... {reason[-150:]}"
            failure = JobFailed(f"{where}: the network cannot be converted ({reason}). Choose another --format.")
            failure.__cause__ = error
    raise failure
