"""``.keras`` files: written without the time of day, read with this package's layers known; and weights of any file
that Keras writes, laid into another network.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segdata.errors import OptionError, RecordError
from segdata.formats.files import atomic_file
from segmodels import layers  # registers what a file may name
from segmodels.quiet import keras, stderr_held_back

__all__ = ["layers"]

_UNREADABLE = (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile)  # what Keras raises for such files
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_model(model: Any, path: Path, beside: Mapping[str, bytes] | None = None) -> None:
    """Save a model, with its optimizer where it is compiled; by rename, and the same model gives the same bytes.

    ``beside`` are more members of the file, by name, which Keras does not read: they are there when the weights are.
    """
    fresh = path.with_name("new.keras")
    try:
        with stderr_held_back():  # under JAX too Keras loads TensorFlow here, where it is installed
            model.save(fresh)
        with zipfile.ZipFile(fresh) as saved, atomic_file(path) as file, zipfile.ZipFile(file, "w") as timeless:
            for name in saved.namelist():
                data = saved.read(name)
                timeless.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), _MADE_LASTING.get(name, bytes)(data))
            for name, data in (beside or {}).items():
                timeless.writestr(zipfile.ZipInfo(name, _ZIP_EPOCH), data)
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
    except _UNREADABLE as error:
        raise RecordError(
            f"{path}: is no model that can be loaded ({_short(error)}). Run `segdata train` again."
        ) from error


def read_beside(path: Path, name: str) -> bytes:
    """A member that ``save_model`` put beside the weights; RecordError where the file or the member is damaged."""
    try:
        with zipfile.ZipFile(path) as saved:
            return saved.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise RecordError(
            f"{path}: cannot be read ({error}). Another run can begin with --weights best.keras."
        ) from error


def load_state(model: Any, path: Path) -> None:
    """Weights, and those of the optimizer, into a network that is compiled and built like the saved one."""
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RecordError(
            f"{path}: cannot be read ({_short(error)}). Another run can begin with --weights best.keras."
        ) from error


# ---- weights of another network

Arrays = list[npt.NDArray[Any]]


@dataclass(frozen=True)
class Transfer:
    """Which layers took weights from a file, and which were left as they were since nothing there fits them."""

    loaded: tuple[str, ...]
    left: tuple[str, ...]


def load_fitting_weights(model: Any, path: Path) -> Transfer:
    """Lay the weights of ``path`` into the layers of ``model`` whose shapes they fit: a ``.keras`` file, a
    ``.weights.h5``, or legacy HDF5.

    Layers are told by their names where most of them are the same, else by their order. OptionError where the file is
    none of these, or no layer fits.
    """
    mine = [layer for layer in _layers(model) if layer.weights]
    theirs = _saved_weights(path, model)
    by_name = dict(theirs)
    if sum(layer.name in by_name for layer in mine) * 2 > len(mine):
        pairs = [(layer, by_name.get(layer.name, [])) for layer in mine]
    else:
        pairs = list(zip(mine, [arrays for _, arrays in theirs], strict=False))
        pairs += [(layer, []) for layer in mine[len(pairs) :]]
    fitting = [(layer, arrays) for layer, arrays in pairs if _fits(layer, arrays)]
    if not fitting:
        raise OptionError(
            f"--weights {path}: none of its {len(theirs)} layers fits {model.name}. Give its own weights."
        )
    for layer, arrays in fitting:
        layer.set_weights(arrays)
    loaded = {layer.name for layer, _ in fitting}
    return Transfer(
        tuple(layer.name for layer in mine if layer.name in loaded),
        tuple(layer.name for layer in mine if layer.name not in loaded),
    )


def _fits(layer: Any, arrays: Sequence[npt.NDArray[Any]]) -> bool:
    return [tuple(weight.shape) for weight in layer.weights] == [array.shape for array in arrays]


def _layers(model: Any) -> list[Any]:
    """All layers in order, those of models within the model in place of these."""
    found = []
    for layer in model.layers:
        found += _layers(layer) if hasattr(layer, "layers") else [layer]
    return found


def _saved_weights(path: Path, model: Any) -> list[tuple[str, Arrays]]:
    """(name, arrays) of the layers in a file that have weights, in order; ``model`` is what they are meant for."""
    if not path.is_file():
        raise OptionError(f"--weights {path}: no such file.")
    if path.suffix == ".keras":
        try:
            saved = keras.saving.load_model(path, compile=False)
        except _UNREADABLE as error:
            raise OptionError(f"--weights {path}: is no model that can be loaded ({_short(error)}).") from error
        return [(layer.name, layer.get_weights()) for layer in _layers(saved) if layer.weights]
    import h5py  # Keras's own dependency

    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if "layer_names" in group.attrs:
                return _legacy_weights(group)
            return list(_grouped_weights(file["layers"], model))
    except (OSError, KeyError) as error:
        raise OptionError(
            f"--weights {path}: is no file of Keras weights ({_short(error)}). Give a .keras, .weights.h5 or .h5 file."
        ) from error


def _legacy_weights(group: Any) -> list[tuple[str, Arrays]]:
    """Of the HDF5 format of Keras 2: the attributes name layers and their weights in order."""
    found = []
    for name in map(_text, group.attrs["layer_names"]):
        arrays = [np.asarray(group[name][_text(weight)]) for weight in group[name].attrs["weight_names"]]
        if arrays:
            found.append((name, arrays))
    return found


def _grouped_weights(groups: Any, model: Any) -> Iterator[tuple[str, Arrays]]:
    """Of a ``.weights.h5``: a group per layer, with its weights as ``vars/0``, ``vars/1``. Groups are named by the
    class of their layers, counted in order, so that a network of the same build tells which is which.
    """
    counts: Counter[str] = Counter()
    for layer in model.layers:
        kind = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)).lower()
        group = groups.get(f"{kind}_{counts[kind]}" if counts[kind] else kind, {})
        counts[kind] += 1
        variables = group.get("vars", {})
        if len(variables):
            yield layer.name, [np.asarray(variables[key]) for key in sorted(variables, key=int)]


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
