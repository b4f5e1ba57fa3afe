"""Who stands there: people by chance, and the parts they are drawn of, labelled with HumanParsing ids.

Lengths are head heights from the crown, y down. People face the camera: their left is the picture's right, side 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segdata.drawing.shapes import (
    BLACK,
    CLOTHS,
    ROUND,
    WHITE,
    Cloth,
    Dice,
    Part,
    Point,
    Rgb,
    Shape,
    between,
    block,
    column,
    ellipse,
    limb,
    mix,
    rgbs,
    union,
)

BACKGROUND, HAT, HAIR, SUNGLASS, UPPER_CLOTHES, SKIRT, PANTS, DRESS, BELT = range(9)
LEFT_SHOE, RIGHT_SHOE, FACE, LEFT_LEG, RIGHT_LEG, LEFT_ARM, RIGHT_ARM, BAG, SCARF = range(9, 18)
RIGHT, LEFT = SIDES = (-1, 1)
NECK, SHOULDER, WAIST, HIP, KNEE, ANKLE, SOLE = 1.1, 1.47, 2.7, 3.1, 4.55, 5.9, 6.25

GOLD, GLASS, BLUSH, LIPS = rgbs("e9c65a 20242c e8505a 8a2a34")
SKINS = rgbs("ffdcc2 f3c6a2 e3ab82 cf9468 ad7347 8a5636 6a4129 4f3122")
HAIRS = rgbs("2a1c16 17141a 4b2f20 7c4a28 a9692f dcae58 a8421f 8f8f94 e6ded3 b84a78")


@dataclass(frozen=True)
class Limb:
    """An arm (shoulder, elbow, wrist) or a leg (hip, knee, ankle)."""

    side: int
    root: Point
    joint: Point
    tip: Point


@dataclass(frozen=True)
class Person:
    """Body, pose and clothes; lengths in head heights."""

    skin: Rgb
    hair: Rgb
    haircut: str
    shoulder: float  # half width, as waist and hip
    waist: float
    hip: float
    arms: tuple[Limb, Limb]  # right, left
    legs: tuple[Limb, Limb]
    top: Cloth  # the dress where there is one
    neckline: str
    sleeve: float  # 0 none, 1 to the elbow, 2 to the wrist
    lower: str  # pants, skirt or dress
    bottom: Cloth
    hem: float  # height at which pants, skirt or dress end
    flare: float
    shoes: Rgb
    hat: str
    extra: Cloth  # of hat and scarf
    bag: str
    bag_side: int
    leather: Rgb  # of bag and belt
    worn: frozenset[str]  # of WORN_SHARES

    @property
    def top_label(self) -> int:
        """Upper-clothes or dress."""
        return DRESS if self.lower == "dress" else UPPER_CLOTHES


# From shoulder to elbow and from elbow to wrist, for a left arm; common ones several times.
ARM_POSES = (
    *[((0.22, 0.92), (0.07, 0.85))] * 4,  # down
    *[((0.32, 0.89), (0.13, 0.84))] * 3,  # down, away from the body
    *[((0.59, 0.74), (-0.59, 0.61))] * 2,  # hand on the hip
    ((0.9, 0.29), (0.2, -0.82)),  # waving
    ((0.67, -0.67), (0.17, -0.83)),  # raised
    ((0.88, 0.35), (0.85, 0.0)),  # stretched out
    ((0.3, 0.9), (-0.75, -0.4)),  # hand on the chest
)
WORN_SHARES = {"belt": 0.6, "boots": 0.3, "long pants": 0.7, "scarf": 0.2, "sunglasses": 0.22, "tucked": 0.5}


def _arm(dice: Dice, side: int, shoulder: float) -> Limb:
    (dx, dy), (wrist_dx, wrist_dy) = dice.pick(f"arm {side}", ARM_POSES)
    bend = dice.number(f"bend {side}", -0.08, 0.08)
    root = side * (shoulder - 0.04), SHOULDER
    elbow = root[0] + side * (dx + bend), root[1] + dy
    return Limb(side, root, elbow, (elbow[0] + side * (wrist_dx - bend), elbow[1] + wrist_dy))


def _leg(dice: Dice, side: int, spread: float) -> Limb:
    ankle = spread + dice.number(f"ankle {side}", -0.03, 0.06)
    knee = 0.12 + 0.55 * ankle + dice.number(f"knee {side}", 0.0, 0.08)
    return Limb(side, (side * 0.27, HIP), (side * knee, KNEE), (side * ankle, ANKLE))


def _cloth(dice: Dice, what: str, patterns: Sequence[str]) -> Cloth:
    color, second = dice.pick(f"{what} color", CLOTHS), dice.pick(f"{what} second", CLOTHS + [WHITE] * 9)
    return Cloth(color, dice.pick(f"{what} pattern", patterns), second, dice.number(f"{what} pitch", 0.16, 0.34))


def random_person(dice: Dice) -> Person:
    """Somebody: body, pose and clothes as the dice fall."""
    worn = frozenset(what for what, share in WORN_SHARES.items() if dice.number(what, 0, 1) < share)
    shoulder, lower = dice.number("shoulder", 0.62, 0.76), dice.pick("lower", ("pants",) * 5 + ("skirt", "dress") * 2)
    spread = dice.number("spread", 0.17, 0.5 if lower == "pants" else 0.3)
    haircut = dice.pick("haircut", ("short", "short", "side", "bob", "long", "long", "bun", "curls"))
    long_pants = lower == "pants" and "long pants" in worn
    return Person(
        skin=dice.pick("skin", SKINS),
        hair=dice.pick("hair", HAIRS),
        haircut=haircut,
        shoulder=shoulder,
        waist=dice.number("waist", 0.42, 0.49),
        hip=dice.number("hip", 0.5, 0.58),
        arms=(_arm(dice, RIGHT, shoulder), _arm(dice, LEFT, shoulder)),
        legs=(_leg(dice, RIGHT, spread), _leg(dice, LEFT, spread)),
        top=_cloth(dice, "top", ("plain", "plain", "stripes", "checks", "dots", "pinstripes")),
        neckline=dice.pick("neckline", ("round", "vee", "high", "jacket", "buttons")),
        sleeve=dice.pick("sleeve", (0.0, 0.45, 0.6, 0.6, 1.4, 1.95, 1.95)),
        lower=lower,
        bottom=_cloth(dice, "bottom", ("plain",) * 4 + ("checks", "dots" if lower == "skirt" else "pinstripes")),
        hem=dice.number("hem", 5.6, 5.95) if long_pants else dice.number("hem", 4.0, 5.0),
        flare=dice.number("flare", 0, 1),
        shoes=dice.pick("shoes", CLOTHS),
        # A bun or curls would stick out of a hat.
        hat="" if haircut in ("bun", "curls") else dice.pick("hat", ("", "", "", "beanie", "cap", "sun hat")),
        extra=_cloth(dice, "extra", ("plain", "stripes", "checks", "dots")),
        bag=dice.pick("bag", ("", "", "", "hand", "shoulder")),
        bag_side=dice.pick("bag side", SIDES),
        leather=mix(dice.pick("leather", CLOTHS), BLACK, 0.15),
        worn=worn,
    )


def person_parts(person: Person) -> Iterator[Part]:
    """All there is to paint of the person, from back to front."""
    for parts in (_back_hair, _legs, _throat, _clothes, _bag, _arms, _scarf, _head, _hair, _sunglasses, _hat):
        yield from parts(person)


def _legs(person: Person) -> Iterator[Part]:
    for leg, skin, label in zip(person.legs, (RIGHT_LEG, LEFT_LEG), (RIGHT_SHOE, LEFT_SHOE), strict=True):
        thigh, shin = limb(leg.root, leg.joint, 0.27, 0.19), limb(leg.joint, leg.tip, 0.18, 0.11)
        yield Part(union(thigh, shin, blend=0.1), person.skin, skin, ROUND)
        x = leg.tip[0]
        shoe = limb((x, ANKLE + 0.1), (x + leg.side * 0.14, SOLE - 0.1), 0.15, 0.17).above(SOLE)
        if "boots" in person.worn:
            shoe = union(shoe, limb(between(leg.joint, leg.tip, 0.45), leg.tip, 0.19, 0.15), blend=0.05)
        yield Part(shoe, person.shoes, label, ROUND)
        yield Part(block(x - 1, SOLE - 0.07, x + 1, SOLE) & shoe, mix(person.shoes, WHITE, 0.7), label)


def _throat(person: Person) -> Iterator[Part]:
    """Neck and chest, which the neckline leaves bare."""
    neck = limb((0, 0.8), (0, 1.3), 0.18, 0.21)
    yield Part(union(neck, ellipse(0, 1.55, 0.36, 0.36), blend=0.1), person.skin, FACE, ROUND)


def _clothes(person: Person) -> Iterator[Part]:
    tucked = "tucked" in person.worn or person.lower == "dress"
    torso = _torso(person)
    if person.lower == "dress":
        torso = union(torso, _skirt(person, 2.6), blend=0.1)
    else:
        torso = torso.above(WAIST + 0.1 if tucked else HIP + 0.1)
    neckline = limb((0, 1.15), (0, 1.8), 0.27, 0.01) if person.neckline == "vee" else ellipse(0, 1.18, 0.27, 0.2)
    top = [Part(torso - neckline, person.top, person.top_label, ROUND), *_front(person, neckline)]
    waistband = WAIST if tucked else HIP - 0.15  # under a loose top it must not show at the sides
    bottom = []
    if person.lower == "skirt":
        bottom = [Part(_skirt(person, waistband), person.bottom, SKIRT, ROUND)]
    if person.lower == "pants":
        bottom = [Part(_pants(person, waistband), person.bottom, PANTS, ROUND)]
    yield from (*top, *bottom) if tucked else (*bottom, *top)
    if tucked and "belt" in person.worn:
        band = column(((WAIST - 0.05, person.waist + 0.05), (WAIST + 0.1, person.waist + 0.07)))
        yield Part(band, mix(person.leather, BLACK, 0.3), BELT, ROUND)
        yield Part(block(-0.08, WAIST - 0.04, 0.08, WAIST + 0.09, 0.03), GOLD, BELT)


def _torso(person: Person) -> Shape:
    s, waist, hip = person.shoulder, person.waist, person.hip
    yoke = limb((0.14 - s, SHOULDER + 0.03), (s - 0.14, SHOULDER + 0.03), 0.17, 0.17)
    trunk = column(
        ((SHOULDER - 0.1, s - 0.1), (2.0, (s + waist) / 2), (2.55, waist), (3.0, hip + 0.03), (3.4, hip + 0.1))
    )
    return union(yoke, trunk, limb((0, NECK + 0.1), (0, SHOULDER + 0.05), 0.2, 0.4), blend=0.1)


def _skirt(person: Person, top: float) -> Shape:
    reach = max(abs(leg.tip[0]) for leg in person.legs) + 0.2
    wide = max(person.hip + 0.1 + 0.35 * person.flare, reach)
    return column(((top, person.waist + 0.03), (HIP, person.hip + 0.05), (person.hem, wide)), corner=0.12, sag=0.1)


def _pants(person: Person, top: float) -> Shape:
    seat = column(((top, person.waist + 0.03), (HIP, person.hip + 0.03), (HIP + 0.35, person.hip - 0.02)))
    tubes = []
    for leg in person.legs:
        shin = limb(leg.joint, leg.tip, 0.24, 0.15 + 0.12 * person.flare, flat=True)
        tubes.append(union(limb(leg.root, leg.joint, 0.31, 0.24), shin, blend=0.1).above(person.hem))
    return union(seat, *tubes, blend=0.05)


def _front(person: Person, neckline: Shape) -> Iterator[Part]:
    """What is sewn on the top."""
    if person.neckline == "high":
        yield Part(block(-0.24, NECK - 0.05, 0.24, NECK + 0.3, 0.08), person.top, person.top_label, ROUND)
    if person.neckline == "jacket":
        shirt = column(((NECK + 0.2, 0.1), (WAIST - 0.05, 0.2))) - neckline
        yield Part(shirt, person.top.second, person.top_label)
    if person.neckline == "buttons":
        buttons = (ellipse(0, 1.55 + 0.3 * i, 0.035, 0.035) for i in range(4))
        yield from (Part(button, person.top.second, person.top_label) for button in buttons)


def _bag(person: Person) -> Iterator[Part]:
    side, strap = person.bag_side, mix(person.leather, BLACK, 0.3)
    x, y = person.arms[SIDES.index(side)].tip
    if person.bag == "shoulder":
        yield Part(limb((-side * 0.4, SHOULDER - 0.1), (side * 0.5, 2.9), 0.04, 0.04), strap, BAG, ROUND)
        x, y = side * 0.58, 2.4
    elif person.bag == "hand" and y > 3.0:
        yield Part(ellipse(x, y + 0.4, 0.2, 0.3) - ellipse(x, y + 0.4, 0.14, 0.24), strap, BAG, ROUND)
    else:
        return
    yield Part(block(x - 0.36, y + 0.42, x + 0.36, y + 1.0, 0.1), person.leather, BAG, ROUND)
    yield Part(block(x - 0.36, y + 0.42, x + 0.36, y + 0.7, 0.1), strap, BAG, opacity=0.5)
    yield Part(ellipse(x, y + 0.7, 0.06, 0.06), GOLD, BAG)


def _arms(person: Person) -> Iterator[Part]:
    for arm, label in zip(person.arms, (RIGHT_ARM, LEFT_ARM), strict=True):
        upper, fore = limb(arm.root, arm.joint, 0.15, 0.13), limb(arm.joint, arm.tip, 0.13, 0.09)
        hand = limb(arm.tip, between(arm.joint, arm.tip, 1.16), 0.11, 0.1)
        yield Part(union(upper, fore, hand, blend=0.06), person.skin, label, ROUND)
        if person.sleeve:
            yield Part(_sleeve(arm, person.sleeve), person.top, person.top_label, ROUND)


def _sleeve(arm: Limb, length: float) -> Shape:
    if length <= 1:
        return limb(arm.root, between(arm.root, arm.joint, length), 0.18, 0.21, flat=True)
    cuff = limb(arm.joint, between(arm.joint, arm.tip, length - 1), 0.17, 0.14, flat=True)
    return union(limb(arm.root, arm.joint, 0.18, 0.17), cuff, blend=0.05)


def _scarf(person: Person) -> Iterator[Part]:
    if "scarf" in person.worn:
        yield Part(limb((0.16, 1.3), (0.24, 2.2), 0.14, 0.16, flat=True), person.extra, SCARF, ROUND)
        yield Part(block(-0.36, NECK - 0.1, 0.36, NECK + 0.28, 0.18), person.extra, SCARF, ROUND)


def _head(person: Person) -> Iterator[Part]:
    face = union(ellipse(0, 0.46, 0.37, 0.4), ellipse(0, 0.7, 0.26, 0.3), blend=0.15)
    ears = [ellipse(side * 0.37, 0.58, 0.07, 0.1) for side in SIDES]
    yield from (Part(shape, person.skin, FACE, ROUND) for shape in (*ears, face))
    for x in (-0.15, 0.15):
        cheek, brow = ellipse(1.4 * x, 0.7, 0.08, 0.06), limb((x - 0.07, 0.42), (x + 0.07, 0.42), 0.018, 0.018)
        yield Part(cheek, mix(person.skin, BLUSH, 0.4), FACE, soft_px=3, opacity=0.6)
        yield Part(brow, mix(person.hair, BLACK, 0.3), FACE)
        yield Part(ellipse(x, 0.54, 0.068, 0.06), WHITE, FACE)
        yield Part(ellipse(x, 0.54, 0.046, 0.056), BLACK, FACE)
        yield Part(ellipse(x - 0.015, 0.52, 0.014, 0.014), WHITE, FACE)
    yield Part(limb((0, 0.6), (0.01, 0.67), 0.02, 0.035), mix(person.skin, BLACK, 0.35), FACE, opacity=0.5)
    yield Part(ellipse(0, 0.78, 0.13, 0.085) - ellipse(0, 0.73, 0.16, 0.08), LIPS, FACE)


def _strands(person: Person) -> Cloth:
    return Cloth(person.hair, "pinstripes", mix(person.hair, BLACK, 0.15), 0.09)


def _back_hair(person: Person) -> Iterator[Part]:
    if person.haircut in ("bob", "long"):
        end = 1.15 if person.haircut == "bob" else 2.0
        falling = column(((0.1, 0.36), (0.4, 0.46), (0.9, 0.48), (end, 0.5)), corner=0.1)
        yield Part(falling, _strands(person), HAIR, ROUND)
    if person.haircut == "bun":
        yield Part(ellipse(0, -0.08, 0.2, 0.19), _strands(person), HAIR, ROUND)
    if person.haircut == "curls":
        spots = ((-0.38, 0.6), (0.38, 0.6), (-0.36, 0.22), (0.36, 0.22), (0, 0.05))
        curls = union(*(ellipse(x, y, 0.27, 0.27) for x, y in spots), blend=0.1)
        yield Part(curls, person.hair, HAIR, ROUND)


def _hair(person: Person) -> Iterator[Part]:
    parting = {"side": 0.14, "long": 0.08, "bob": 0.0}.get(person.haircut, 0.04)
    low = {"bob": 0.9, "long": 0.85, "bun": 0.5}.get(person.haircut, 0.56)
    crown = ellipse(0, 0.42, 0.42, 0.46).above(low)
    yield Part(crown - ellipse(parting, 0.76, 0.36, 0.47), _strands(person), HAIR, ROUND)


def _sunglasses(person: Person) -> Iterator[Part]:
    if "sunglasses" in person.worn:
        lenses = (block(x - 0.135, 0.45, x + 0.135, 0.65, 0.07) for x in (-0.165, 0.165))
        yield Part(union(limb((-0.37, 0.5), (0.37, 0.5), 0.025, 0.025), *lenses), GLASS, SUNGLASS, ROUND)
        for x in (-0.165, 0.165):
            yield Part(limb((x - 0.05, 0.6), (x + 0.05, 0.5), 0.015, 0.015), WHITE, SUNGLASS, opacity=0.5)


def _hat(person: Person) -> Iterator[Part]:
    cloth, trim = person.extra, mix(person.extra.color, BLACK, 0.2)
    if person.hat == "beanie":
        yield Part(ellipse(0, -0.14, 0.13, 0.13), WHITE, HAT, ROUND)
        yield Part(ellipse(0, 0.3, 0.45, 0.4).above(0.32), cloth, HAT, ROUND)
        yield Part(block(-0.45, 0.2, 0.45, 0.38, 0.08), trim, HAT, ROUND)
    if person.hat == "cap":
        yield Part(ellipse(0, 0.32, 0.43, 0.4).above(0.32), cloth, HAT, ROUND)
        yield Part(ellipse(0, 0.33, 0.4, 0.09), trim, HAT, ROUND)
    if person.hat == "sun hat":
        yield Part(ellipse(0, 0.28, 0.85, 0.14), cloth, HAT, ROUND)
        yield Part(block(-0.4, -0.2, 0.4, 0.28, 0.2), cloth, HAT, ROUND)
        yield Part(block(-0.4, 0.12, 0.4, 0.24, 0.03), trim, HAT)
