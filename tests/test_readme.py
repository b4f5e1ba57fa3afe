"""Every command of the README is run, in order, in the folder that the demo leaves."""

from __future__ import annotations

import re
import shlex
from fractions import Fraction
from pathlib import Path

import pytest

from segdata.drawing import draw_person
from segdata.formats.videos import VideoInfo, VideoWriter
from tests.folders import segdata
from tests.sources.layouts import STEMS, mat, raw_aisegment, raw_coco, raw_lip, raw_pfcn, raw_voc, write

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(console|toml|python)\n(.*?)```", README, flags=re.DOTALL)


def coco(root: Path) -> None:
    raw_coco(root)
    (root / "images").rename(root / "val2017")
    write(root / "annotations" / "instances_val2017.json", (root / "instances.json").read_bytes())


def pfcn(root: Path) -> None:
    raw_pfcn(root)
    for number, part in enumerate(("images_data_crop", "images_mask")):
        for stem, wanted in zip(STEMS, ("00001", "00002", "00003"), strict=True):
            ending = ("{}.jpg", "{}_mask.mat")[number]
            (root / part / ending.format(stem)).rename(root / part / ending.format(wanted))
    write(root / "trainlist.mat", mat(trainlist=[[1, 3, 7]]))
    write(root / "testlist.mat", mat(testlist=[[2]]))


def voc(root: Path) -> None:
    raw_voc(root)
    write(root / "ImageSets" / "Segmentation" / "train.txt", "\n".join(STEMS[1:]).encode())
    write(root / "ImageSets" / "Segmentation" / "val.txt", STEMS[0].encode())


LAYOUTS = {
    "": coco,
    "EG_dataset": pfcn,
    "VOCdevkit/VOC2012": voc,
    "instance-level_human_parsing": raw_lip,
    "matting_human_half": raw_aisegment,
}


@pytest.fixture(scope="module")
def workshop(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``segdata-demo``, tiny raw datasets and TOML files under the names that the examples use."""
    folder = tmp_path_factory.mktemp("readme")
    for name, layout in LAYOUTS.items():
        layout(folder / name)
    with VideoWriter(folder / "clip.mp4", 96, 80, VideoInfo(80, 96, Fraction(30000, 1001)), "mp4") as writer:
        for number in range(5):
            writer.write(draw_person(0, 5)[0][number : number + 96, :80], Fraction(1001 * number, 30000))
    (folder / "segdata-demo").symlink_to(demo, target_is_directory=True)
    for kind, text in BLOCKS:
        if kind == "toml":
            (folder / text.split("\n", 1)[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    return folder


def test_every_console_example_runs(workshop: Path) -> None:
    commands = [
        line[2:] for kind, text in BLOCKS if kind == "console" for line in text.splitlines() if line[:2] == "$ "
    ]
    ours = [command for command in commands if command.startswith("segdata ") and command != "segdata demo"]
    assert len(ours) > 10
    for command in ours:
        done = segdata(*shlex.split(command)[1:], cwd=workshop)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_every_python_example_runs(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    examples = [text for kind, text in BLOCKS if kind == "python"]
    assert examples
    for text in examples:
        exec(compile(text, "README.md", "exec"), {})
