"""Loading and selecting from an instances file of about 160 MB, against ``pycocotools.coco.COCO`` and ``getImgIds``."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from tests.benchmarks.material import Row

_IMAGES, _PER_IMAGE, _POINTS = 42_000, 7, 25
_CATEGORIES = {1: "person", 2: "bicycle", 3: "car", 17: "cat", 18: "dog", 44: "bottle", 62: "chair", 90: "toothbrush"}
_RUNS = 3


def measure(folder: Path) -> list[Row]:
    path = folder / "instances.json"
    size = write_instances(path)
    found = {who: [_in_a_process(who, path) for _ in range(_RUNS)] for who in ("ours", "pycocotools")}
    if len({run["images"] for runs in found.values() for run in runs}) != 1:
        raise RuntimeError(f"both must find the same images, found {found}")
    ours, theirs = (min(run["seconds"] for run in found[who]) for who in ("ours", "pycocotools"))
    our_peak, their_peak = (min(run["peak_mb"] for run in found[who]) for who in ("ours", "pycocotools"))
    work = f"COCO instances of {size / 1e6:.0f} MB, load and select person"
    return [
        Row(work, ours, "pycocotools COCO + getImgIds", theirs, 10),
        Row(f"{work}: peak memory", our_peak, "pycocotools", their_peak, 3, unit="MB"),
    ]


def write_instances(path: Path) -> int:
    """Polygons of COCO's usual length over COCO's usual number of objects an image; the file's size in bytes."""
    generator = np.random.default_rng(0)
    numbers = [1, 1, *_CATEGORIES]  # three in ten are persons, as in COCO
    with path.open("w", encoding="utf-8") as file:
        categories = [{"supercategory": "thing", "id": i, "name": name} for i, name in _CATEGORIES.items()]
        file.write(f'{{"info": {{}}, "licenses": [], "categories": {json.dumps(categories)}, "images": [\n')
        file.write(",\n".join(json.dumps(_image(i)) for i in range(1, _IMAGES + 1)))
        file.write('\n], "annotations": [\n')
        for i in range(_IMAGES * _PER_IMAGE):
            points = generator.uniform(0, 480, 2 * int(generator.integers(8, 2 * _POINTS))).round(2).tolist()
            category = int(generator.choice(numbers))
            record = {"segmentation": [points], "area": 702.1057, "iscrowd": 0, "image_id": i // _PER_IMAGE + 1}
            record |= {"bbox": [473.07, 395.93, 38.65, 28.67], "category_id": category, "id": i + 1}
            file.write((",\n" if i else "") + json.dumps(record))
        file.write("\n]}\n")
    return path.stat().st_size


def _image(number: int) -> dict[str, object]:
    name = f"{number:012d}.jpg"
    where = {"file_name": name, "coco_url": f"http://images.cocodataset.org/train2017/{name}", "license": 3}
    return where | {"height": 480, "width": 640, "date_captured": "2013-11-14 11:18:45", "id": number}


def _in_a_process(who: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.coco", who, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _ours(path: Path) -> int:
    from segdata.labels import category_map
    from segdata.sources.coco import Coco

    return len(Coco(path, path.parent, category_map(None, ("person",))).load()[1].objects)


def _theirs(path: Path) -> int:
    from pycocotools.coco import COCO

    coco = COCO(str(path))
    return len(coco.getImgIds(catIds=coco.getCatIds(catNms=["person"])))


def main() -> None:
    import resource

    module, work = {"ours": ("segdata.sources.coco", _ours), "pycocotools": ("pycocotools.coco", _theirs)}[sys.argv[1]]
    importlib.import_module(module)  # before the clock starts
    start = perf_counter()
    images = work(Path(sys.argv[2]))
    seconds = perf_counter() - start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb, "images": images}))


if __name__ == "__main__":
    main()
