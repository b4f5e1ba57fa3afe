"""Bytes to values and back: files, folders, pictures, TFRecord, Example, TFDS's JSON. Knows no dataset."""
