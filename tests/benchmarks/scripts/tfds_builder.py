"""What a user of TFDS writes: file paths go in as they are, so that TFDS too passes the bytes through.

`tfds build` imports apache-beam, which TFDS 4.9.10 does not install; this runs what that command runs, without it.
"""

import sys
from pathlib import Path

import tensorflow_datasets as tfds

photos, masks, out = map(Path, sys.argv[1:])


class Pairs(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "id": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for photo in sorted(photos.iterdir()):
            yield photo.stem, {"image": str(photo), "mask": str(masks / f"{photo.stem}.png"), "id": photo.stem}


Pairs(data_dir=str(out)).download_and_prepare()
