"""``.mlpackage`` folders, run by Core ML: on macOS alone."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import OptionError
from segmodels.exported import ExportRecord
from segmodels.extras import need
from segmodels.runtimes import Runtime, Shares


def load(path: Path, record: ExportRecord) -> Runtime:
    """The folder, which takes one picture at a time. OptionError elsewhere than on macOS, or without coremltools."""
    if sys.platform != "darwin":
        raise OptionError(f"{path}: only macOS runs Core ML, this is {sys.platform}. Export another --format.")
    model = need("coremltools", "coreml", str(path)).models.MLModel(str(path))
    lock = threading.Lock()  # nothing is said of threads

    def shares(images: npt.NDArray[Any]) -> Shares:
        pictures = np.asarray(images, np.float32)
        with lock:
            found = [model.predict({record.input.name: one[None]})[record.output.name] for one in pictures]
        return np.concatenate(found).astype(np.float32)

    return shares
