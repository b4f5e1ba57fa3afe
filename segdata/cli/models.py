"""segdata models: the networks that train knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segdata.cli import options, output

if TYPE_CHECKING:
    from segmodels.models import ModelCard, Total

HEADINGS = ("name", "parameters", "input", "classes", "outputs", "encoders", "from")


def models(json: options.Json = False) -> None:
    """List the networks: parameters, inputs, outputs, encoders that weights can be had for, and what each is from.

    Example: segdata models
    """
    from segmodels.models import MODELS

    rows = [_row(card, total) for card in MODELS.values() for total in card.totals]
    output.show(list(MODELS.values()), output.table([HEADINGS, *rows]), json)


def _row(card: ModelCard, total: Total) -> tuple[object, ...]:
    """A network and one of its totals; it takes any number of classes, and RGB or grey."""
    outputs = "mask+boundary" if card.has_boundary else "mask"
    encoders = total.encoder or ", ".join(card.encoders) or "-"
    colors = "RGB" if total.channels == 3 else "grey"
    return card.name, total.parameters, f"{card.sizes()}, {colors}", total.classes, outputs, encoders, card.origin
