"""Packages that only an extra of segdata's installs."""

from __future__ import annotations

import importlib
from typing import Any

from segdata.errors import OptionError


def need(module: str, extra: str, where: str) -> Any:
    """The module, imported; OptionError, starting with ``where``, that names the extra where it is not installed.

    A package that is there and fails to import says why: another version of it, or a library that it lacks.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == package:
            found = f"{package} is not installed"
        else:
            found = f"{package} cannot be imported ({error})"
        raise OptionError(f'{where}: {found}, expected the extra: pip install "segdata[{extra}]".') from error
    except ImportError as error:
        raise OptionError(
            f'{where}: {package} cannot be imported ({error}), expected the extra: pip install "segdata[{extra}]".'
        ) from error
