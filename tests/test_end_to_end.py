"""The demo: everything, on drawn people; and the manifests under version control, made again."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from segdata.jobs.demo import STEPS, draw_humanparsing
from segdata.jobs.verify import verify
from tests.folders import lines, tree

MANIFESTS = Path(__file__).parent.parent / "manifests" / "demo"


def test_the_demo_reaches_its_quality_and_leaves_every_artefact(demo: Path) -> None:
    assert json.loads((demo / "demo.json").read_text())["person_iou"] >= 0.90
    wanted = ["dataset.json", "manifest.json", "index.json", "run.json", "best.keras", "last.keras", "history.csv"]
    wanted += ["metrics.json", "curves.png", "sheet-test.png", "train-sheet.png"]
    found = {Path(name).name for name in tree(demo)}
    assert set(wanted) <= found
    for name in ("prepared", "manifests/demo", "shards"):
        assert not verify(demo / name).faults


def test_the_commands_are_left_to_be_repeated(demo: Path) -> None:
    script = [line for line in (demo / "commands.txt").read_text().splitlines() if not line.startswith("#")]
    assert [shlex.split(line) for line in script] == [["segdata", *shlex.split(step)] for step in STEPS]


def test_the_manifests_under_version_control_are_made_again(demo: Path) -> None:
    """Everything but the sha256 and sizes of encoded files, which change with the encoders' versions."""
    for name in ("train", "validation", "test"):
        ours, theirs = (
            [
                {k: v for k, v in line.items() if not k.endswith(("_sha256", "_bytes"))}
                for line in lines(folder / f"{name}.jsonl")
            ]
            for folder in (demo / "manifests" / "demo", MANIFESTS)
        )
        assert ours == theirs
        assert (demo / "manifests" / "demo" / f"{name}.txt").read_bytes() == (MANIFESTS / f"{name}.txt").read_bytes()


def test_people_can_be_drawn_again_where_others_were(tmp_path: Path) -> None:
    """As ``segdata demo --overwrite`` does: files are gone by then, their folders are not."""
    draw_humanparsing(tmp_path / "raw", 2, seed=0)
    before = tree(tmp_path)
    draw_humanparsing(tmp_path / "raw", 2, seed=0)
    assert tree(tmp_path) == before


def test_nothing_names_a_clock_a_host_or_an_absolute_path(demo: Path) -> None:
    for path in demo.rglob("*"):
        if path.suffix in (".json", ".jsonl", ".txt", ".csv"):
            text = path.read_text(encoding="utf-8")
            assert str(demo) not in text, path
            assert demo.parent.as_posix() not in text, path
