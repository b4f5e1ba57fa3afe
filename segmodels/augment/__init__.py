"""Augmentation: what training does to samples at random, the same for every reader, on numpy arrays with OpenCV.

(seed, epoch, record number) alone decide what is drawn. What is drawn for one augmentation does not depend on which
others are on. This is the order, and why:

1. ``plain_background``, while the matte still fits the image exactly;
2. ``brightness``, ``contrast``, ``gamma``, ``add``, ``add_per_channel``: the light in the scene. Before the geometry,
   so that the space which that opens is mid-grey exactly, as letterbox bars are (those that a sample comes with are lit
   like the rest of it);
3. ``horizontal_flip``, ``vertical_flip``, ``rotate``, ``scale``, ``random_crop``, all of them in one warp, since each
   would blur;
4. ``occlusion``: something grey before the camera;
5. ``blur``: the lens, in pixels of what the network sees, whatever the scale;
6. ``jpeg``: the file, which comes last in a photo's life too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from segmodels.augment import camera, geometry, light, scene
from segmodels.augment.options import NAMES, Augment
from segmodels.augment.presets import KINDS, PRESETS, augment

__all__ = ["KINDS", "PRESETS", "Augment", "apply", "augment", "draw"]

_kept = threading.local()
_EMPTY = np.zeros(4, np.uint64)
_NUMBERS = 16  # of each augmentation: the first decides whether, the others what


def draw(config: Augment, seed: int, epoch: int, record: int) -> dict[str, Any]:
    """What happens to a record in an epoch: name of an augmentation to what its ``draw`` returns; may be empty.

    All three numbers are of 0 to 2**64 - 1. The generator is Philox, which counts: its key is (seed, epoch), and a
    record begins 2**64 blocks after the one before.
    """
    wanted = [(place, name) for place, name in enumerate(NAMES) if getattr(config, name) is not None]
    if not wanted:
        return {}
    table = _generator(seed, epoch, record).random((len(NAMES), _NUMBERS)).tolist()
    drawn = {}
    for place, name in wanted:
        chance, *numbers = table[place]
        options = getattr(config, name)
        if chance < options.probability:
            drawn[name] = options.draw(numbers)
    return drawn


def _generator(seed: int, epoch: int, record: int) -> np.random.Generator:
    """One that a thread keeps: to make one takes longer than all that it draws here."""
    kept: np.random.Generator | None = getattr(_kept, "generator", None)
    if kept is None:
        kept = _kept.generator = np.random.Generator(np.random.Philox(0))
    kept.bit_generator.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([0, record, 0, 0], np.uint64),
            "key": np.array([seed, epoch], np.uint64),
        },
        "buffer": _EMPTY,
        "buffer_pos": 4,  # nothing is left in it
        "has_uint32": 0,
        "uinteger": 0,
    }
    return kept


def apply(
    config: Augment,
    image: npt.NDArray[np.uint8],
    mask: npt.NDArray[np.uint8] | None,
    matte: npt.NDArray[np.float32] | None,
    pairs: Sequence[Sequence[int]],
    seed: int,
    epoch: int,
    record: int,
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None, npt.NDArray[np.float32] | None]:
    """One sample as it is trained on: (image, mask, matte) of the same shapes and types, C-contiguous.

    image (H, W, 3) uint8 RGB; mask (H, W) uint8 ids with 255 where a pixel does not count; matte (H, W) float32 in [0,
    1] with -1 where a pixel does not count; either may be None and stays that. No id comes in that was not there, but
    for 255 and those of ``pairs``, the ids that a horizontal flip exchanges. The arrays given are not written to; where
    nothing is drawn they are returned as they are.
    """
    drawn = draw(config, seed, epoch, record)
    if not drawn:
        return image, mask, matte
    if matte is not None and "plain_background" in drawn:
        image = scene.on_plain(image, matte, drawn["plain_background"])
    image = light.relit(image, drawn)
    image, mask, matte = geometry.moved(image, mask, matte, pairs, drawn)
    if "occlusion" in drawn:
        image = scene.occluded(image, drawn["occlusion"])
    if "blur" in drawn:
        image = camera.blurred(image, *drawn["blur"])
    if "jpeg" in drawn:
        image = camera.through_jpeg(image, drawn["jpeg"])
    return image, mask, matte
