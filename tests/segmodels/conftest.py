"""Fixtures: shards of drawn discs, and one run that was trained on them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from segmodels.config import TrainConfig
from segmodels.models import MODELS, ModelCard, Total
from tests.segmodels.material import SPLITS, Recipe, write_shards

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")  # a GPU adds in any order, and these tests compare bytes
CONFIG = TrainConfig("likeunet", epochs=2, batch_size=4, learning_rate=2e-3, seed=3)

# Keras saves TensorFlow's variables in a way that NumPy 2 wants changed; Python shows this to developers only.
NUMPY_2 = "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of this folder pass over what is Keras's to mend."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings(NUMPY_2))


@dataclass(frozen=True)
class Trained:
    """A run of two epochs, the shards it learned from, and its progress lines."""

    run: Path
    shards: Path
    lines: list[str]


@pytest.fixture(scope="session")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 64x64 discs: 10 for training, 4 for validation, 5 for testing."""
    folder = tmp_path_factory.mktemp("discs") / "shards"
    write_shards(folder, Recipe(SPLITS))
    return folder


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    """``make(size=(32, 64))``: a folder of shards of that recipe."""

    def write(**changes: object) -> Path:
        folder = tmp_path / f"shards{len(list(tmp_path.iterdir()))}"
        write_shards(folder, Recipe(**{"samples": SPLITS, **changes}))  # type: ignore[arg-type]
        return folder

    return write


@pytest.fixture(scope="session")
def trained(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The only run that tests share; they copy what they change."""
    from segmodels.train import train

    lines: list[str] = []
    run = tmp_path_factory.mktemp("runs") / "run"
    train(discs, run, CONFIG, progress=lines.append)
    return Trained(run, discs, lines)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network named tiny in the table, for it takes seconds to trace a real one."""
    card = ModelCard("tiny", "tests.segmodels.material:build_tiny", (Total(8, classes=2),), "these tests", 1)
    monkeypatch.setitem(MODELS, "tiny", card)
