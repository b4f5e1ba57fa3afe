"""``features.json`` and ``dataset_info.json`` as TensorFlow Datasets writes them, so that
``tfds.builder_from_directory`` reads a folder of shards as it stands. Format read off TFDS 4.9.10."""

from __future__ import annotations

import json
from typing import Any

from segdata.records import IndexRecord

_FEATURES = "tensorflow_datasets.core.features"
LABELS_TXT = "labels.txt"
# TFDS finds a label image's class names in a file named after its key.
TFDS_LABELS_TXT = "image-segmentation-class-encoded.labels.txt"


def sidecar_files(index: IndexRecord) -> dict[str, bytes]:
    """The files that lie beside the shards, by name; all of them follow from the index."""
    files = {"features.json": _features_json(index), "dataset_info.json": _dataset_info_json(index)}
    if index.label_map is not None:
        names = "".join(f"{name}\n" for name in index.label_map.names).encode("utf-8")
        files |= {LABELS_TXT: names, TFDS_LABELS_TXT: names}
    return files


def _features_json(index: IndexRecord) -> bytes:
    tree: dict[str, Any] = {}
    for key, kind in index.features.items():
        *folders, last = key.split("/")
        node = tree
        for name in folders:
            node = node.setdefault(name, {})
        node[last] = _leaf(kind, index)
    return _json(_features_dict(tree))


def _features_dict(tree: dict[str, Any]) -> dict[str, Any]:
    features = {
        name: child if "pythonClassName" in child else _features_dict(child) for name, child in sorted(tree.items())
    }
    return {"featuresDict": {"features": features}, "pythonClassName": f"{_FEATURES}.features_dict.FeaturesDict"}


def _leaf(kind: str, index: IndexRecord) -> dict[str, Any]:
    if kind == "int64":
        tensor = {"dtype": "int64", "encoding": "none", "shape": {}}
        return {"pythonClassName": f"{_FEATURES}.tensor_feature.Tensor", "tensor": tensor}
    if kind == "string":
        return {"pythonClassName": f"{_FEATURES}.text_feature.Text", "text": {}}
    channels = {"image": "3", "mask": "1", "matte": "1"}[kind]
    image: dict[str, Any] = {"dtype": "uint8", "shape": {"dimensions": ["-1", "-1", channels]}}
    if kind == "matte":  # TensorFlow widens 8-bit PNG to 16 exactly (times 257), so this reads both
        image |= {"dtype": "uint16", "encodingFormat": "png"}
    if kind != "mask" or index.label_map is None:
        return {"image": image, "pythonClassName": f"{_FEATURES}.image_feature.Image"}
    image |= {"encodingFormat": "png", "label": {"numClasses": str(len(index.label_map.names))}, "useColormap": True}
    return {"image": image, "pythonClassName": f"{_FEATURES}.labeled_image.LabeledImage"}


def _dataset_info_json(index: IndexRecord) -> bytes:
    splits = []
    for split in dict.fromkeys(shard.split for shard in index.shards):
        shards = [shard for shard in index.shards if shard.split == split]
        splits.append(
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": str(sum(shard.bytes for shard in shards)),
                "shardLengths": [str(shard.records) for shard in shards],
            }
        )
    return _json({"fileFormat": "tfrecord", "name": index.name, "splits": splits, "version": "1.0.0"})


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True).encode("utf-8") + b"\n"
