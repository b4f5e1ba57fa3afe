"""Where the people stand: studios, rooms and places outdoors, in picture heights from the top left corner."""

from __future__ import annotations

from collections.abc import Iterator

from segdata.drawing.shapes import (
    BLACK,
    CLOTHS,
    ROUND,
    WHITE,
    Cloth,
    Dice,
    Part,
    block,
    ellipse,
    limb,
    mix,
    rgbs,
    union,
)

WALLS = [*CLOTHS, *rgbs("ffdcc2 f3c6a2 e3ab82 cf9468")]


def background_parts(dice: Dice, width: float) -> Iterator[Part]:
    """What stands behind the person, in a picture that is ``width`` heights wide."""
    yield from dice.pick("scene", (_studio, _room, _outdoors, _outdoors, _outdoors))(dice, width)


def _studio(dice: Dice, width: float) -> Iterator[Part]:
    colors = dice.pick("first", WALLS), dice.pick("second", CLOTHS), WHITE
    yield Part(block(-1, -1, 3, 2), Cloth(mix(colors[0], WHITE, 0.5), "fade", mix(colors[1], WHITE, 0.3)))
    for i in range(12):
        x, y, r = dice.number(f"x {i}", 0, width), dice.number(f"y {i}", 0, 1), dice.number(f"r {i}", 0.03, 0.12)
        color = mix(dice.pick(f"blob {i}", colors), WHITE, 0.4)
        yield Part(ellipse(x, y, r, r), color, soft_px=5, opacity=0.5)


def _room(dice: Dice, width: float) -> Iterator[Part]:
    wall = mix(dice.pick("wall", WALLS), WHITE, dice.number("pale", 0.35, 0.65))
    paper = dice.pick("paper", ("plain", "pinstripes", "dots", "stripes", "checks"))
    yield Part(block(-1, -1, 3, 2), Cloth(wall, paper, mix(wall, BLACK, 0.12), 0.06))
    x, y = dice.number("window x", 0, width - 0.3), dice.number("window y", 0.06, 0.14)
    yield Part(block(x - 0.02, y - 0.02, x + 0.36, y + 0.42), WHITE)
    for i, pane in enumerate(rgbs("a8d8f0 a8d8f0 bfe0c4 bfe0c4")):
        left, top = x + 0.175 * (i % 2), y + 0.205 * (i // 2)
        yield Part(block(left, top, left + 0.165, top + 0.195), pane)
    floor = dice.pick("floor", rgbs("c99a6b a9744c 8d8a92 d8c6ad"))
    yield Part(block(-1, 0.77, 3, 2), Cloth(floor, "stripes", mix(floor, BLACK, 0.08), 0.05))
    yield Part(block(-1, 0.755, 3, 0.78), mix(wall, WHITE, 0.7))
    x = dice.number("plant", 0.05, 0.95) * width
    for dx, dy in ((-0.1, 0.1), (0.1, 0.12), (-0.05, 0.2), (0.06, 0.22), (0, 0.16)):
        yield Part(limb((x, 0.72), (x + dx, 0.72 - dy), 0.012, 0.03), (0.3, 0.5 + dy, 0.35), depth=ROUND)
    yield Part(block(x - 0.05, 0.71, x + 0.05, 0.83, 0.015), CLOTHS[12], depth=ROUND)


def _outdoors(dice: Dice, width: float) -> Iterator[Part]:
    yield Part(block(-1, -1, 3, 2), Cloth(dice.pick("sky", rgbs("7cc4ee 8cc8ec a7d9f0 f7bd95")), "fade"))
    for i in range(3):
        x, y = dice.number(f"cloud x {i}", 0, width), dice.number(f"cloud y {i}", 0.06, 0.3)
        puffs = (ellipse(x + dx, y, 0.05 - 0.2 * abs(dx), 0.035) for dx in (-0.06, 0, 0.06))
        yield Part(union(ellipse(x, y - 0.02, 0.05, 0.05), *puffs, blend=0.04), WHITE, soft_px=5, opacity=0.8)
    yield from dice.pick("place", (_park, _street, _beach))(dice, width)


def _ground(dice: Dice, colors: str) -> Part:
    far, near = rgbs(colors)
    return Part(block(-1, dice.number("horizon", 0.68, 0.74), 3, 2), Cloth(far, "fade", near))


def _park(dice: Dice, width: float) -> Iterator[Part]:
    for i, green in enumerate(rgbs("a5c98f 93c078")):
        yield Part(ellipse(dice.number(f"hill {i}", 0, width), 0.8, 0.8, 0.3), green, soft_px=3)
    for i in range(5):
        x, y = dice.number(f"tree x {i}", 0, width), dice.number(f"tree y {i}", 0.42, 0.55)
        r, green = dice.number(f"tree {i}", 0.08, 0.14), dice.pick(f"leaf {i}", rgbs("4f9150 6da94f 3c7f5a d98f3e"))
        yield Part(block(x - 0.018, y, x + 0.018, 0.8), CLOTHS[12], soft_px=2)
        boughs = (ellipse(x + side * 0.7 * r, y + 0.4 * r, 0.6 * r, 0.6 * r) for side in (-1, 1))
        yield Part(union(ellipse(x, y, r, 1.1 * r), *boughs), green, soft_px=3, depth=ROUND)
    yield _ground(dice, "7fb658 3f8a45")


def _street(dice: Dice, width: float) -> Iterator[Part]:
    right = -0.05
    for i in range(9):
        left, right = right, right + dice.number(f"house {i}", 0.16, 0.28)
        wall = mix(dice.pick(f"wall {i}", WALLS), WHITE, 0.4)
        cloth = Cloth(wall, "windows", dice.pick(f"window {i}", rgbs("7790a5 fbe9b0")), 0.075)
        yield Part(block(left, dice.number(f"roof {i}", 0.1, 0.45), right, 0.9), cloth, soft_px=1.5)
    yield _ground(dice, "c9c3ba 8f8a84")


def _beach(dice: Dice, width: float) -> Iterator[Part]:
    x = dice.pick("parasol", (0.14, 0.86)) * width
    yield Part(ellipse(width - x, 0.16, 0.07, 0.07), (1.0, 0.95, 0.77), soft_px=6)
    yield Part(block(-1, 0.48, 3, 1), Cloth((0.12, 0.44, 0.62), "fade", (0.65, 0.94, 0.89)), soft_px=1.5)
    yield Part(block(x - 0.008, 0.35, x + 0.008, 0.8), WHITE)
    dome = Cloth(dice.pick("dome", CLOTHS[:9]), "pinstripes", WHITE, 0.08)
    yield Part(ellipse(x, 0.45, 0.2, 0.16).above(0.45), dome, soft_px=1.5)
    yield _ground(dice, "f3dcb2 cfa070")
