"""``.onnx`` files, run by ONNX Runtime on the CPU, without TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import RecordError
from segmodels.exported import ExportRecord
from segmodels.extras import need
from segmodels.runtimes import Runtime, Shares

_ERRORS_ONLY = 3


def load(path: Path, record: ExportRecord) -> Runtime:
    """The file, on all cores. OptionError without ONNX Runtime, RecordError for a bad file."""
    ort = need("onnxruntime", "export", str(path))
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    # Threads that spin while they wait would keep the cores from those that read and write photos.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own classes share no base that it shows
        what = " ".join(str(error).split())[:200]
        raise RecordError(f"{path}: is no network that ONNX Runtime can run ({what}). Export it again.") from error

    def shares(images: npt.NDArray[Any]) -> Shares:
        pictures = np.ascontiguousarray(images, np.float32)
        (found,) = session.run([record.output.name], {record.input.name: pictures})
        return np.asarray(found, np.float32)

    return shares
