"""Tiny raw folders, one for each source, as each is laid out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import scipy.io

from segdata.labels import category_map, label_map
from segdata.sources import Source
from segdata.sources.aisegment import AISegment
from segdata.sources.coco import Coco
from segdata.sources.humanparsing import HumanParsing
from segdata.sources.lip import Lip
from segdata.sources.pairs import Pairs
from segdata.sources.pfcn import Pfcn
from segdata.sources.predictions import PREDICTIONS_JSONL, Prediction, Predictions, label_map_of
from segdata.sources.voc import Voc
from tests.material import Pixels, ids, palette_png, photo, saved

STEMS = ["b", "Müller 2", "A_10"]
HEIGHT, WIDTH = 24, 32


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def jpeg(number: int) -> bytes:
    return saved(photo(HEIGHT, WIDTH, number), "JPEG")


def mat(**matrices: Any) -> bytes:
    """A ``.mat`` file of version 5."""
    file = io.BytesIO()
    scipy.io.savemat(file, matrices, do_compression=True)
    return file.getvalue()


def cut_out(alpha: Pixels, seed: int = 0) -> bytes:
    """An RGBA PNG as AISegment's."""
    return saved(np.dstack([photo(*alpha.shape, seed), alpha]), "PNG")


def soft() -> Pixels:
    """(H, W) alpha of many levels, never quite 0 or 255."""
    return (4 + np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) * 247 // (HEIGHT * WIDTH)).astype(np.uint8)


def annotation(number: int, image: int, category: int = 1, **changes: Any) -> dict[str, Any]:
    """A COCO annotation: a box 8 wide and 10 high, moved right by its number."""
    x = 2 + number % 7
    box = [[x, 4, x + 8, 4, x + 8, 14, x, 14]]
    return {"id": number, "image_id": image, "category_id": category, "iscrowd": 0, "segmentation": box} | changes


def instances(names: list[str], annotations: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A COCO instances file over images 1, 2 ... of those names."""
    images = [{"id": i, "file_name": name, "height": HEIGHT, "width": WIDTH} for i, name in enumerate(names, 1)]
    categories = [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}]
    return {"images": images, "annotations": annotations, "categories": categories} | changes


def raw_aisegment(root: Path) -> Source:
    for number, stem in enumerate(STEMS):
        clip = number // 2
        write(root / "clip_img" / "1803" / f"clip_{clip:08d}" / f"{stem}.jpg", jpeg(number))
        write(root / "matting" / "1803" / f"matting_{clip:08d}" / f"{stem}.png", cut_out(soft(), number))
    return AISegment(root)


def raw_coco(root: Path) -> Source:
    names = [f"{stem}.jpg" for stem in STEMS]
    for number, name in enumerate(names):
        write(root / "images" / name, jpeg(number))
    found = instances(names, [annotation(7, 1), annotation(8, 1, 18), annotation(9, 2), annotation(3, 2, iscrowd=1)])
    write(root / "instances.json", json.dumps(found).encode())
    return Coco(root / "instances.json", root / "images", category_map(None, ("person",)))


def raw_humanparsing(root: Path) -> Source:
    for number, stem in enumerate(STEMS):
        write(root / "JPEGImages" / f"{stem}.jpg", jpeg(number))
        write(root / "SegmentationClassAug" / f"{stem}.png", saved(ids(HEIGHT, WIDTH), "PNG"))
    return HumanParsing(root, label_map("parts5", "humanparsing"))


def raw_lip(root: Path) -> Source:
    for number, stem in enumerate(STEMS):
        part = "Training" if number else "Validation"
        write(root / part / "Images" / f"{stem}.jpg", jpeg(number))
        write(root / part / "Category_ids" / f"{stem}.png", saved(ids(HEIGHT, WIDTH, 20), "PNG"))
    return Lip(root, label_map("lip", "lip"))


def raw_pairs(root: Path) -> Source:
    for number, stem in enumerate(STEMS):
        write(root / "photos" / f"{stem}.jpg", jpeg(number))
        write(root / "masks" / f"{stem}.png", saved(ids(HEIGHT, WIDTH, 2) * 255, "PNG"))
    return Pairs(root / "photos", root / "masks", label_map("binary", "mask"))


def raw_pfcn(root: Path) -> Source:
    for number, stem in enumerate(STEMS):
        write(root / "images_data_crop" / f"{stem}.jpg", jpeg(number))
        write(root / "images_mask" / f"{stem}_mask.mat", mat(mask=ids(HEIGHT, WIDTH, 2)))
    return Pfcn(root)


def raw_voc(root: Path) -> Source:
    void = ids(HEIGHT, WIDTH, 21)
    void[0] = 255
    for number, stem in enumerate(STEMS):
        write(root / "JPEGImages" / f"{stem}.jpg", jpeg(number))
        write(root / "SegmentationClass" / f"{stem}.png", palette_png(void))
    return Voc(root, label_map("voc_person", "voc"))


def raw_predictions(root: Path) -> Predictions:
    """Photos, and beside them masks of 18 classes with a stripe of 255."""
    lines = []
    for number, stem in enumerate(STEMS):
        mask = ids(HEIGHT, WIDTH)
        mask[:, 4:6] = 255
        write(root / "photos" / f"{stem}.jpg", jpeg(number))
        write(root / "work" / "masks" / f"{stem}.png", saved(mask, "PNG"))
        lines.append(
            Prediction(id=stem, group=stem, image=f"{stem}.jpg", label=f"masks/{stem}.png", confidence=0.5 + number / 8)
        )
    write(root / "work" / PREDICTIONS_JSONL, msgspec.json.Encoder().encode_lines(lines))
    labels = label_map_of(label_map("humanparsing", "humanparsing"))
    return Predictions(root / "photos", root / "work", labels, {"model": "unet"}, (root / "photos",))


RAW: dict[str, Callable[[Path], Source]] = {
    "aisegment": raw_aisegment,
    "coco": raw_coco,
    "humanparsing": raw_humanparsing,
    "lip": raw_lip,
    "pairs": raw_pairs,
    "pfcn": raw_pfcn,
    "predictions": raw_predictions,
    "voc": raw_voc,
}
