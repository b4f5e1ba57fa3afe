"""SavedModel folders, run by TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import RecordError
from segmodels.exported import ExportRecord
from segmodels.held_back import stderr_held_back
from segmodels.runtimes import Runtime, Shares


def load(path: Path, record: ExportRecord) -> Runtime:
    """The folder's ``serving_default``. RecordError for one that does not load."""
    try:
        with stderr_held_back():
            import tensorflow as tf

            loaded = tf.saved_model.load(str(path))
            serve = loaded.signatures["serving_default"]
    except (OSError, ValueError, KeyError, AttributeError) as error:
        what = " ".join(str(error).split())[:200]
        raise RecordError(f"{path}: is no SavedModel that can be loaded ({what}). Export it again.") from error

    def shares(images: npt.NDArray[Any]) -> Shares:
        pictures = tf.constant(np.asarray(images, np.float32))
        found = serve(**{record.input.name: pictures})[record.output.name]
        return np.asarray(found.numpy(), np.float32)

    shares.loaded = loaded  # type: ignore[attr-defined]  # its variables live as long as it does
    return shares
