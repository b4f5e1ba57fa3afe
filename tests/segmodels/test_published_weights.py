"""Weights that others published, where they lie beside the checkout (``../shared/data``), and the IoU they reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.io import loadmat  # type: ignore[import-untyped,unused-ignore]

from segmodels.models import build_model
from segmodels.quiet import keras

DATA = Path(__file__).parent.parent.parent.parent / "shared" / "data"
WEIGHTS = DATA / "weights" / "likeunet-light-gray-50-0.9735.h5"
PORTRAITS = DATA / "pfcn"
HEIGHT, WIDTH = 512, 384

pytestmark = pytest.mark.skipif(
    not WEIGHTS.is_file(), reason="no published weights beside this checkout (../shared/data)"
)


def light() -> Any:
    model = build_model("likeunet_light", 2, channels=1)
    model.load_weights(WEIGHTS)
    return model


def test_every_weight_comes_from_the_file() -> None:
    fresh, loaded = build_model("likeunet_light", 2, channels=1), light()
    changed = [not np.array_equal(a, b) for a, b in zip(fresh.get_weights(), loaded.get_weights(), strict=True)]
    assert all(changed)


def test_likeunet_light_reaches_the_published_iou_on_portraits() -> None:
    """Person IoU over all pixels of the 50 crops of PFCN: grey, 512x384 (HxW), the probability back at 800x600."""
    photos = sorted((PORTRAITS / "images_data_crop").glob("*.jpg"))
    grey = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in photos]
    small = np.stack([cv2.resize(picture, (WIDTH, HEIGHT)) for picture in grey])[..., None]  # (50, 512, 384, 1)
    logits = light().predict(small.astype(np.float32), batch_size=10, verbose=0)  # (50, 512, 384, 2)
    probability = np.asarray(keras.ops.softmax(logits))[..., 1]
    both = either = 0
    for path, person in zip(photos, probability, strict=True):
        truth = loadmat(PORTRAITS / "images_mask" / f"{path.stem}_mask.mat")["mask"] > 0  # (800, 600)
        found = cv2.resize(person, truth.shape[::-1]) > 0.5
        both, either = both + int((found & truth).sum()), either + int((found | truth).sum())
    assert len(photos) == 50
    assert both / either == pytest.approx(0.9526, abs=2e-4)
