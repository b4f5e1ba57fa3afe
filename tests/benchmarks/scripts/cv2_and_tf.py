"""The usual script: OpenCV for the sizes of photo and mask, which must agree, TensorFlow for the records."""

import sys
from pathlib import Path

import cv2
import tensorflow as tf

photos, masks, out = map(Path, sys.argv[1:])
out.mkdir()


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _int(value: int) -> tf.train.Feature:
    return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))


with tf.io.TFRecordWriter(str(out / "pairs.tfrecord")) as writer:
    for photo in sorted(photos.iterdir()):
        mask = masks / f"{photo.stem}.png"
        height, width, channels = cv2.imread(str(photo)).shape
        if cv2.imread(str(mask)).shape[:2] != (height, width):
            raise RuntimeError(mask)
        features = {
            "image/encoded": _bytes(photo.read_bytes()),
            "image/format": _bytes(b"jpeg"),
            "image/filename": _bytes(photo.name.encode()),
            "image/height": _int(height),
            "image/width": _int(width),
            "image/channels": _int(channels),
            "image/segmentation/class/encoded": _bytes(mask.read_bytes()),
            "image/segmentation/class/format": _bytes(b"png"),
        }
        example = tf.train.Example(features=tf.train.Features(feature=features))
        writer.write(example.SerializeToString())
