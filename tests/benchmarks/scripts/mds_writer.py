"""The same pairs as MosaicML Streaming's shards, of as many bytes as ours, with a checksum of each shard."""

import importlib
import importlib.util
import sys
import types
from pathlib import Path

# Its top module imports its vision datasets, and they torchvision, which the writer does not use and which not every
# machine has beside its torch: so the modules that the writer needs are imported without it.
spec = importlib.util.find_spec("streaming")
if spec is None:
    raise ModuleNotFoundError("streaming")
sys.modules["streaming"] = types.ModuleType("streaming")
sys.modules["streaming"].__path__ = spec.submodule_search_locations
MDSWriter = importlib.import_module("streaming.base").MDSWriter

photos, masks, out = map(Path, sys.argv[1:])
columns = {"id": "str", "image": "bytes", "mask": "bytes"}
with MDSWriter(out=str(out), columns=columns, hashes=["sha1"], size_limit=128_000_000) as writer:
    for photo in sorted(photos.iterdir()):
        mask = masks / f"{photo.stem}.png"
        writer.write({"id": photo.stem, "image": photo.read_bytes(), "mask": mask.read_bytes()})
