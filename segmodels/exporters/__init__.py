"""How a network is written for other programs, one file each. A new one is a file, its runtime, and a line in
EXPORTERS.
"""

from __future__ import annotations

import io
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
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
_FULL = ("No space left on device", "File too large", "Disk quota exceeded")  # as TensorFlow passes them on


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


@contextmanager
def interrupts_later() -> Iterator[None]:
    """Ctrl-C and SIGTERM come at the end of the block: within a converter's callback they would be lost, or taken for
    an error of its own. A second one comes at once.
    """
    caught: list[tuple[int, Any]] = []
    before: dict[int, Callable[[int, Any], Any]] = {}

    def later(number: int, frame: Any) -> None:
        signal.signal(number, before[number])
        caught.append((number, frame))

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, later)
    try:
        yield
    finally:
        for which, usual in before.items():
            signal.signal(which, usual)
        for which, frame in caught:
            before[which](which, frame)


def quietly(convert: Callable[[], _Result], where: str) -> _Result:
    """What ``convert`` gives, without the lines and warnings of converters. JobFailed, one line, where it fails."""
    with interrupts_later(), stderr_held_back(), redirect_stdout(io.StringIO()), warnings.catch_warnings():
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
            full = any(text in str(error) for text in _FULL)
            way = "Make room on the disk" if full else "Choose another --format"
            failure = JobFailed(f"{where}: the network cannot be converted ({reason}). {way}.")
            failure.__cause__ = error
    raise failure
