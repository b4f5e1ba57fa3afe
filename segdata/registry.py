"""Tables of names: ``{"pairs": "segdata.sources.pairs:Pairs"}`` and nothing imported until one is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from segdata.errors import OptionError, did_you_mean


def load(table: Mapping[str, str], name: str, what: str) -> Any:
    """The attribute that ``table[name]`` (``"module:attribute"``) points at.

    Raises OptionError, with the known names, where ``name`` is none of them. ``what`` is the word for the message.
    """
    if name not in table:
        raise OptionError(f"{what} {name!r} is not known.{did_you_mean(name, table)}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
