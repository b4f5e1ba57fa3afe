"""The same pairs as WebDataset's tar files, of as many bytes as our shards."""

import sys
from pathlib import Path

import webdataset

photos, masks, out = map(Path, sys.argv[1:])
out.mkdir()
with webdataset.ShardWriter(str(out / "pairs-%05d.tar"), maxsize=128_000_000, verbose=0) as writer:
    for photo in sorted(photos.iterdir()):
        mask = masks / f"{photo.stem}.png"
        writer.write({"__key__": photo.stem, "jpg": photo.read_bytes(), "png": mask.read_bytes()})
