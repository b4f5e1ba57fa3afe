"""The usual generator: one Python process reads pairs with OpenCV, augments them step by step, and stacks batches.

Chances and ranges are those of the preset ``portrait``, but for the plain background, which needs a matte. As a script,
``python opencv_generator.py PHOTOS MASKS BATCHES`` prints samples per second, the first batch left out.
"""

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

SIDE = 256


def peer(photos: Path, masks: Path, batch_size: int = 8) -> Iterator[tuple[Any, Any]]:
    """Endless batches: (B, 256, 256, 3) uint8 RGB and (B, 256, 256) uint8, in a new order each epoch."""
    names = sorted(path.name for path in photos.iterdir())
    while True:
        random.shuffle(names)
        for at in range(0, len(names) - batch_size + 1, batch_size):
            pairs = [_pair(photos / name, masks / f"{Path(name).stem}.png") for name in names[at : at + batch_size]]
            yield np.stack([image for image, _ in pairs]), np.stack([mask for _, mask in pairs])


def _pair(photo: Path, label: Path) -> tuple[Any, Any]:
    image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    mask = cv2.imread(str(label), cv2.IMREAD_GRAYSCALE)
    if image.shape[:2] != (SIDE, SIDE):
        image = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    image, mask = _moved(_lit(image), mask)
    return _spoiled(image), mask


def _chance(probability: float) -> bool:
    return random.random() < probability


def _lit(image: Any) -> Any:
    if _chance(0.3):
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
        hsv[:, :, 2] = np.clip(hsv[:, :, 2] * random.uniform(0.501, 1.3), 0, 255)
        image = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB)
    if _chance(0.2):
        contrast = random.uniform(0.5, 1.5)
        image = np.clip(127.5 + (image.astype(np.float32) - 127.5) * contrast, 0, 255).astype(np.uint8)
    if _chance(0.3):
        exponent = 1 / random.uniform(0.5, 1.5)
        table = np.array([(level / 255) ** exponent * 255 for level in range(256)]).astype(np.uint8)
        image = cv2.LUT(image, table)
    if _chance(0.2):
        image = np.clip(image.astype(np.float32) + random.uniform(-50, 50), 0, 255).astype(np.uint8)
    if _chance(0.2):
        amounts = np.random.uniform(-50, 50, 3).astype(np.float32)
        image = np.clip(image.astype(np.float32) + amounts, 0, 255).astype(np.uint8)
    return image


def _moved(image: Any, mask: Any) -> tuple[Any, Any]:
    if _chance(0.5):
        image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
    degrees = random.uniform(-45, 45) if _chance(0.3) else 0
    scale = random.uniform(0.6, 1.5) if _chance(0.4) else 1
    if (degrees, scale) != (0, 1):
        matrix = cv2.getRotationMatrix2D((SIDE / 2 - 0.5, SIDE / 2 - 0.5), degrees, scale)
        image = cv2.warpAffine(image, matrix, (SIDE, SIDE), borderValue=(128, 128, 128))
        mask = cv2.warpAffine(mask, matrix, (SIDE, SIDE), flags=cv2.INTER_NEAREST, borderValue=255)
    if _chance(0.2):
        window = round(SIDE * random.uniform(0.7, 1))
        x, y = random.randint(0, SIDE - window), random.randint(0, SIDE - window)
        image = cv2.resize(image[y : y + window, x : x + window], (SIDE, SIDE))
        mask = cv2.resize(mask[y : y + window, x : x + window], (SIDE, SIDE), interpolation=cv2.INTER_NEAREST)
    return image, mask


def _spoiled(image: Any) -> Any:
    if _chance(0.15):
        image = image.copy()
        side = round(SIDE * 0.2)
        for _ in range(random.randint(1, 6)):
            x, y = random.randint(0, SIDE - 1), random.randint(0, SIDE - 1)
            image[max(0, y - side // 2) : y + side // 2, max(0, x - side // 2) : x + side // 2] = 128
    if _chance(0.15):
        size = random.randrange(5, 22, 2)
        kind = random.randrange(3)
        if kind == 0:
            image = cv2.blur(image, (size, size))
        elif kind == 1:
            image = cv2.medianBlur(image, size)
        else:
            image = cv2.GaussianBlur(image, (size, size), 0)
    if _chance(0.2):
        quality = [cv2.IMWRITE_JPEG_QUALITY, random.randint(10, 70)]
        data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)[1]
        image = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    return image


if __name__ == "__main__":
    batches = peer(Path(sys.argv[1]), Path(sys.argv[2]))
    samples = len(next(batches)[0])
    start = time.perf_counter()
    for _ in range(int(sys.argv[3])):
        next(batches)
    print(samples * int(sys.argv[3]) / (time.perf_counter() - start))
