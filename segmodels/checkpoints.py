"""``.keras`` files: written without the time of day, read with this package's layers known."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segdata.errors import RecordError
from segdata.formats.files import atomic_file
from segmodels import layers, losses, metrics  # registers what a file may name
from segmodels.quiet import keras

__all__ = ["layers", "load_model", "losses", "metrics", "save_model"]

_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_model(model: Any, path: Path) -> None:
    """Save a model, with its optimizer where it is compiled; by rename, and the same model gives the same bytes."""
    fresh = path.with_name("new.keras")
    try:
        model.save(fresh)
        with zipfile.ZipFile(fresh) as saved, atomic_file(path) as file, zipfile.ZipFile(file, "w") as timeless:
            for name in saved.namelist():
                data = saved.read(name)
                timeless.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), _MADE_LASTING.get(name, bytes)(data))
    finally:
        fresh.unlink(missing_ok=True)


def _without_date(metadata: bytes) -> bytes:
    return json.dumps({key: value for key, value in json.loads(metadata).items() if key != "date_saved"}).encode()


def _without_addresses(config: bytes) -> bytes:
    """Shared objects numbered as they come; Keras takes their addresses in memory."""
    numbers: dict[bytes, int] = {}

    def number(match: re.Match[bytes]) -> bytes:
        return b'"shared_object_id": %d' % numbers.setdefault(match[1], len(numbers) + 1)

    return re.sub(rb'"shared_object_id": (\d+)', number, config)


_MADE_LASTING: dict[str, Callable[[bytes], bytes]] = {"metadata.json": _without_date, "config.json": _without_addresses}


def load_model(path: Path) -> Any:
    """A model that ``save_model`` wrote, not compiled. RecordError where the file is missing or damaged."""
    try:
        return keras.saving.load_model(path, compile=False)
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise RecordError(f"{path}: is no model that can be loaded ({reason}). Run `segdata train` again.") from error
