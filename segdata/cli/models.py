"""segdata models: the networks that train knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from segdata.cli import options, output

if TYPE_CHECKING:
    from segmodels.models import Total


def models(json: options.Json = False) -> None:
    """List the networks: parameters, input shapes, and what each is from.

    Example: segdata models
    """
    from segmodels.models import MODELS

    rows: list[tuple[object, ...]] = [("name", "parameters", "at", "from")]
    for card in MODELS.values():
        rows += [
            (card.name, total.parameters, " ".join(_at(total, card.multiple_px)), card.origin) for total in card.totals
        ]
    output.show(list(MODELS.values()), output.table(rows), json)


def _at(total: Total, multiple_px: int) -> Iterator[str]:
    yield f"{total.height}x{total.width}" if total.height else f"any multiple of {multiple_px}"
    yield "RGB," if total.channels == 3 else "grey,"
    yield f"{total.classes} classes"
