"""Shards as a PyTorch dataset; the one place here that knows torch, and it needs no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from segdata.shards import open_shards


class ShardDataset(Dataset):  # type: ignore[misc]
    """The samples of one split by record number, for a ``DataLoader`` with any number of worker processes.

    ::

        data = ShardDataset("shards/hp", "train")
        order = Order(seed=0, epoch=3, part=rank, parts=world)  # of segdata.order
        for batch in DataLoader(data, batch_size=8, sampler=order.numbers(len(data)).tolist(), num_workers=2):
            batch["image"], batch["mask"], batch["id"]

    An item is a dict: ``image`` (3, H, W) uint8 RGB, ``mask`` (H, W) uint8 ids with 255 where a pixel does not count,
    ``matte`` (H, W) float32 in [0, 1], each where the shards hold it, and ``id``. Nothing is resized: where pictures
    differ in size, use ``batch_size=None``.

    FolderError, RecordError or OptionError as of ``open_shards``; while reading RecordError or ImageRefused.
    """

    def __init__(self, folder: str | Path, split: str = "train") -> None:
        self.shards = open_shards(folder, split)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, number: int) -> dict[str, Any]:
        sample = self.shards.sample(number)
        item = {"id": sample.id, "image": torch.from_numpy(np.ascontiguousarray(sample.image.transpose(2, 0, 1)))}
        if sample.mask is not None:
            item["mask"] = torch.from_numpy(sample.mask)
        if sample.matte is not None:
            item["matte"] = torch.from_numpy(sample.matte)
        return item
