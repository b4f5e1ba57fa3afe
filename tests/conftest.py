"""Fixtures: drawn people in raw layouts, and the folders made from them."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from segdata.jobs import build as build_job
from segdata.jobs import convert as convert_job
from segdata.jobs import demo as demo_job
from segdata.jobs import split as split_job
from segdata.labels import label_map
from segdata.records import Geometry, SplitOptions
from segdata.sources.humanparsing import HumanParsing
from tests.folders import Made, segdata

# A job that a shell started in the background ignores Ctrl-C, and so would the processes that tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def raw_people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve drawn people in HumanParsing's layout; every fifth label is a palette PNG."""
    root = tmp_path_factory.mktemp("raw") / "people"
    demo_job.draw_humanparsing(root, 12, seed=1)
    return root


@pytest.fixture
def made(raw_people: Path, tmp_path: Path) -> Made:
    """A prepared dataset, a manifest over it and letterboxed shards, made afresh."""
    return make(raw_people, tmp_path)


@pytest.fixture(scope="session")
def kept(raw_people: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The same, made once for tests that only read."""
    return make(raw_people, tmp_path_factory.mktemp("kept"))


def make(raw: Path, folder: Path, jobs: int = 1) -> Made:
    made = Made(raw, folder / "prepared", folder / "manifest", folder / "shards")
    source = HumanParsing(raw, label_map("parts5", "humanparsing"))
    convert_job.convert(source, made.dataset, convert_job.ConvertOptions("people", jobs=jobs))
    options = SplitOptions(test=3, validation=2)
    split_job.split([made.dataset], made.manifest, options, text_lists=True)
    geometry = Geometry(size=(64, 96), fit="letterbox")
    build_job.build(made.manifest, made.shards, build_job.BuildOptions(geometry, shards=2, jobs=jobs))
    return made


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder, made once: the only slow fixture."""
    folder = tmp_path_factory.mktemp("demo") / "segdata-demo"
    done = segdata("demo", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
