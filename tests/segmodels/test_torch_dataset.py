"""The PyTorch dataset against the other readers, and in worker processes; passed over where torch is not installed."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.batches import numpy_batches
from segdata.errors import OptionError, RecordError
from segdata.order import Order
from segdata.records import read_index
from segdata.shards import open_shards
from segmodels.batches import batches
from tests.material import stored, write_shards

torch = pytest.importorskip("torch")

from torch.utils.data import DataLoader  # noqa: E402

from segmodels.torch_dataset import ShardDataset  # noqa: E402

SPAWN: list[dict[str, Any]] = [{}, {"multiprocessing_context": "spawn"}]
ORDERS = [Order(), Order(seed=0, epoch=3), Order(seed=5, start=4), Order(seed=5, epoch=1, start=1, part=1, parts=2)]


def loaded(shards: Path, order: Order, **options: Any) -> list[dict[str, Any]]:
    data = ShardDataset(shards, "train")
    return list(DataLoader(data, sampler=order.numbers(len(data)).tolist(), **options))


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_all_readers_give_the_same(discs: Path, order: Order) -> None:
    ours = list(numpy_batches(open_shards(discs), 4, order))
    theirs = list(batches(discs, "train", 4, order, ids=True).as_numpy_iterator())
    torchs = loaded(discs, order, batch_size=4)
    assert sum(len(batch.ids) for batch in ours) == len(order.numbers(10))
    for batch, (images, masks, ids), item in zip(ours, theirs, torchs, strict=True):
        assert batch.ids == [sample_id.decode() for sample_id in ids] == item["id"]
        assert item["image"].dtype == item["mask"].dtype == torch.uint8
        np.testing.assert_array_equal(batch.images, images)
        np.testing.assert_array_equal(batch.images, item["image"].numpy().transpose(0, 2, 3, 1))
        np.testing.assert_array_equal(batch.masks, masks)
        np.testing.assert_array_equal(batch.masks, item["mask"].numpy())


def test_pictures_of_their_own_sizes_and_mattes(tmp_path: Path) -> None:
    wanted = [stored(number, with_matte=True) for number in range(3)]
    write_shards(tmp_path, {"train": [wanted]})
    for item, sample in zip(loaded(tmp_path, Order(), batch_size=None), wanted, strict=True):
        assert item["id"] == sample.line.id
        assert item["image"].is_contiguous()
        np.testing.assert_array_equal(item["image"].numpy().transpose(1, 2, 0), sample.pixels)
        np.testing.assert_array_equal(item["mask"].numpy(), sample.mask)
        assert item["matte"].dtype == torch.float32
        np.testing.assert_array_equal(item["matte"].numpy(), sample.matte)


_WORKERS = """
import sys
from torch.utils.data import DataLoader
from segdata.order import Order
from segmodels.torch_dataset import ShardDataset

if __name__ == "__main__":
    data = ShardDataset(sys.argv[1], "train")
    data[0]
    order = Order(seed=0, epoch=3).numbers(len(data)).tolist()
    for way in sys.argv[2:]:
        for batch in DataLoader(data, batch_size=4, sampler=order, num_workers=2, multiprocessing_context=way):
            print(*batch["id"], sep="\\n")
    assert "tensorflow" not in sys.modules and "keras" not in sys.modules
"""


def test_worker_processes_read_in_order_and_without_tensorflow(discs: Path) -> None:
    """In a process of its own: forking one that runs TensorFlow's threads is not safe."""
    ways = ["spawn"] if sys.platform in ("darwin", "win32") else ["fork", "spawn"]
    command = [sys.executable, "-c", _WORKERS, str(discs), *ways]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=None, check=False)
    assert done.returncode == 0, done.stderr
    wanted = [sample.id for sample in open_shards(discs).read(Order(seed=0, epoch=3))]
    assert done.stdout.split() == wanted * len(ways)


def test_no_open_file_travels(discs: Path) -> None:
    data = ShardDataset(discs)
    data[3]
    assert pickle.loads(pickle.dumps(data))[3]["id"] == data[3]["id"]


def test_what_cannot_be_is_refused(discs: Path) -> None:
    with pytest.raises(OptionError, match="has no split 'training'"):
        ShardDataset(discs, "training")
    with pytest.raises(IndexError, match="record 10 of split 'train', which has 10"):
        ShardDataset(discs)[10]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_is_named(tmp_path: Path, workers: int) -> None:
    write_shards(tmp_path, {"train": [[stored(0), stored(1)]]})
    path = tmp_path / read_index(tmp_path).shards[0].file
    data = path.read_bytes()
    path.write_bytes(data[:300] + bytes((data[300] ^ 1,)) + data[301:])
    with pytest.raises(RecordError, match=f"{path.name} at byte 0: the checksum"):
        loaded(tmp_path, Order(), batch_size=None, num_workers=workers, **SPAWN[workers])
