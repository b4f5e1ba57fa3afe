"""The floor of a pass-through build: read both files, frame them with their checksums, write them."""

import struct
import sys
from pathlib import Path

import google_crc32c

photos, masks, out = map(Path, sys.argv[1:])
out.mkdir()


def masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


with (out / "pairs.tfrecord").open("wb") as file:
    for photo in sorted(photos.iterdir()):
        payload = photo.read_bytes() + (masks / f"{photo.stem}.png").read_bytes()
        length = struct.pack("<Q", len(payload))
        file.write(length + masked_crc(length))
        file.write(payload)
        file.write(masked_crc(payload))
