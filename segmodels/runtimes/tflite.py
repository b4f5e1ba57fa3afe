"""``.tflite`` files, run by LiteRT: on a phone or a desk, without TensorFlow."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import RecordError
from segmodels.exported import ExportRecord
from segmodels.extras import need
from segmodels.held_back import stderr_held_back
from segmodels.runtimes import Runtime, Shares


def load(path: Path, record: ExportRecord) -> Runtime:
    """The file, on all cores, a picture at a time. OptionError without LiteRT, RecordError for a bad file."""
    litert = need("ai_edge_litert.interpreter", "export", str(path))
    with stderr_held_back():  # it tells of the delegate that it made
        try:
            interpreter = litert.Interpreter(model_path=str(path), num_threads=os.cpu_count())
            interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise RecordError(f"{path}: is no network that LiteRT can run ({error}). Export it again.") from error
    (takes,), (gives,) = interpreter.get_input_details(), interpreter.get_output_details()
    lock = threading.Lock()  # an interpreter holds the picture that it is working on

    def shares(images: npt.NDArray[Any]) -> Shares:
        with lock:
            return np.stack([_shares_of_one(interpreter, takes, gives, image) for image in images])

    return shares


def _shares_of_one(interpreter: Any, takes: Any, gives: Any, image: npt.NDArray[Any]) -> Shares:
    """(h, w, classes) of (h, w, channels)."""
    if takes["dtype"] == np.uint8 and image.dtype != np.uint8:
        image = np.clip(np.rint(image), 0, 255)  # scale 1, zero point 0: bytes go in as they are
    interpreter.set_tensor(takes["index"], image[None].astype(takes["dtype"]))
    interpreter.invoke()
    found = np.asarray(interpreter.get_tensor(gives["index"])[0], np.float32)
    scale, zero_point = gives["quantization"]
    return (found - np.float32(zero_point)) * np.float32(scale) if scale else found
