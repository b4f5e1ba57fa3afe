"""demo: draw people in HumanParsing's layout, then run the real commands on them, one by one."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from segdata import drawing
from segdata.errors import JobFailed
from segdata.formats import files, images
from segdata.formats.folders import output_folder
from segdata.labels import VOCABULARIES, label_map, palette

PEOPLE, SEED = 150, 0
COMMANDS, RECORD = "commands.txt", "demo.json"
TRAIN_SHEET, TEST_SHEET, PREDICTED = "train-sheet.png", "run/sheet-test.png", "predicted/collage"
OWNED = (
    r"raw/(JPEGImages|SegmentationClassAug)/person_\d{3}\.(jpg|png)|commands\.txt|train-sheet\.png"
    r"|prepared/(masks/person_\d{3}\.png|samples\.jsonl|rejected\.jsonl|dataset\.json)"
    r"|manifests/demo/((train|validation|test)\.(jsonl|txt)|manifest\.json)"
    r"|shards/(demo-[a-z]+\.tfrecord-\d+-of-\d+|offsets/demo-[a-z]+-\d+-of-\d+\.json|(index|features|dataset_info)\.json|[a-z.-]*labels\.txt)"
    r"|run/((best|last|new)\.keras|history\.csv|(run|metrics)\.json|curves\.png|(sheet|worst|confusion)-test\.png"
    r"|events\.out\.tfevents\.0\.segdata)"
    r"|predicted/((mask|collage)/person_\d{3}\.(png|jpg)|predictions\.json|results\.jsonl)"
    r"|exported/person(\.json|/.+)"
    r"|(prepared|manifests/demo|shards|run|predicted)/\.segdata-(unfinished|lock|parts/\w+\.json)"
)
_EVERY_NTH_IS_PALETTE = 5

STEPS = (
    "convert humanparsing raw --out prepared --labels binary --name demo",
    "split prepared --out manifests/demo --test 0.2 --validation 0.1 --txt",
    "build-tfrecords manifests/demo --out shards --size 160x128",
    "verify shards",
    "stats shards",
    f"preview shards --split train --out {TRAIN_SHEET}",
    "train shards --model likeunet --epochs 10 --batch-size 4 --learning-rate 0.004 --out run",
    "evaluate run shards --split test",
    "predict run raw/JPEGImages --out predicted --save mask,collage --background blur",
    "export run --format saved_model --out exported/person",
)


@dataclass(frozen=True)
class DemoReport:
    """What the demo reached on its test split."""

    folder: Path
    person_iou: float
    test_samples: int


def demo(folder: Path, progress: Callable[[str], None], overwrite: bool = False) -> DemoReport:
    """Fill ``folder`` with drawn people and all that the commands make of them.

    Each step is a command line of its own, run in ``folder`` and written to commands.txt. JobFailed where one fails.
    """
    with output_folder(folder, RECORD, OWNED, overwrite, command="demo") as output:
        progress(f"drawing {PEOPLE} people to {folder / 'raw'}")
        draw_humanparsing(folder / "raw", PEOPLE, SEED)
        script = "".join(f"segdata {step}\n" for step in STEPS)
        files.write_atomic(folder / COMMANDS, f"# Run in this folder:\n{script}".encode())
        for step in STEPS:
            progress(f"$ segdata {step}")
            done = subprocess.run([sys.executable, "-m", "segdata", *shlex.split(step)], cwd=folder, check=False)
            if done.returncode:
                raise JobFailed(f"{folder}: `segdata {step}` ended with {done.returncode}; its message stands above.")
        test = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))["test"]["network_size"]
        report = DemoReport(folder, test["iou"]["person"], test["samples"])
        made = {
            "format": "segdata demo",
            "people": PEOPLE,
            "seed": SEED,
            "commands": STEPS,
            "person_iou": report.person_iou,
        }
        output.finish(json.dumps(made, indent=2).encode() + b"\n")
    return report


def draw_humanparsing(root: Path, count: int, seed: int) -> None:
    """``count`` drawn people as ``root/JPEGImages/*.jpg`` and ``root/SegmentationClassAug/*.png``; every fifth label
    is a palette PNG.
    """
    photos, labels = root / "JPEGImages", root / "SegmentationClassAug"
    photos.mkdir(parents=True, exist_ok=True)
    labels.mkdir(exist_ok=True)
    colors = palette(label_map("humanparsing", "humanparsing"))
    for number in range(count):
        picture, ids = drawing.draw_person(seed, number)
        name = f"person_{number:03d}"
        (photos / f"{name}.jpg").write_bytes(images.encode_jpeg(picture))
        if number % _EVERY_NTH_IS_PALETTE == 0:
            _save_palette(labels / f"{name}.png", ids, colors)
        else:
            (labels / f"{name}.png").write_bytes(images.encode_mask(ids))


def _save_palette(path: Path, ids: images.Pixels, colors: images.Pixels) -> None:
    picture = Image.frombytes("P", (ids.shape[1], ids.shape[0]), ids.tobytes())
    picture.putpalette(colors[: len(VOCABULARIES["humanparsing"])].ravel().tobytes())
    picture.save(path)
