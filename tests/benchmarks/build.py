"""build-tfrecords against TFDS's own builder on the same pairs, whole processes.

`tfds build` imports apache-beam, which TFDS 4.9.10 does not install; this runs what that command runs, without it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.material import Row, best_of, draw_pairs, segdata

_PAIRS = 2000

# What a user of TFDS writes: file paths go in as they are, so that TFDS too passes the bytes through.
_BUILDER = """
import pathlib
import tensorflow_datasets as tfds

ROOT = pathlib.Path({root!r})


class Pairs(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({{
            "image": tfds.features.Image(encoding_format="jpeg"),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "id": tfds.features.Text(),
        }}))

    def _split_generators(self, dl_manager):
        return {{"train": self._generate_examples()}}

    def _generate_examples(self):
        for photo in sorted((ROOT / "raw" / "JPEGImages").iterdir()):
            mask = ROOT / "prepared" / "masks" / (photo.stem + ".png")
            yield photo.stem, {{"image": str(photo), "mask": str(mask), "id": photo.stem}}


Pairs(data_dir=str(ROOT / "tfds")).download_and_prepare()
"""


def measure(folder: Path) -> list[Row]:
    draw_pairs(folder / "raw", _PAIRS)
    raw, prepared, manifest, shards = (str(folder / name) for name in ("raw", "prepared", "manifest", "shards"))
    segdata("convert", "humanparsing", raw, "--out", prepared)()
    segdata("split", prepared, "--out", manifest)()
    script = folder / "pairs.py"
    script.write_text(_BUILDER.format(root=str(folder)), encoding="utf-8")
    ours = segdata("build-tfrecords", manifest, "--out", shards, "--fit", "none", "--overwrite")
    ours_s, tfds_s = best_of(2, ours, lambda: _tfds_build(script, folder / "tfds"))
    return [Row(f"build-tfrecords {_PAIRS} pairs, --fit none", ours_s, "TFDS", tfds_s, 2.0)]


def _tfds_build(script: Path, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    subprocess.run([sys.executable, str(script)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not list(out.rglob("dataset_info.json")):
        raise RuntimeError("TFDS built nothing")
