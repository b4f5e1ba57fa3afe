"""verify of shards against a hostile hand: each kind of damage is found, the file named, and nothing hangs or dies."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from segdata import shards
from segdata.formats import example, images, tfds, tfrecord
from segdata.jobs.build import BuildOptions, build
from segdata.jobs.verify import Fault, verify
from segdata.records import (
    Geometry,
    IndexRecord,
    OffsetsRecord,
    ShardRecord,
    read_index,
    read_record_file,
    seal,
)
from segdata.shards import IMAGE, MASK, SHA256, SOURCE_ID, features, offsets_name
from segdata.splits import order_key
from tests.folders import Made, segdata
from tests.material import saved

Change = Callable[[Path], Any]
FIRST, SHARD = (f"people-train.tfrecord-0000{i}-of-00002" for i in (0, 1))  # of 3 and of 4 records
TEST = "people-test.tfrecord-00000-of-00002"
OFFSETS = offsets_name(SHARD)


@pytest.fixture
def folder(kept: Made, tmp_path: Path) -> Path:
    """A copy of the shards, with the manifest beside it."""
    shutil.copytree(kept.manifest, tmp_path / "manifest")
    return Path(shutil.copytree(kept.shards, tmp_path / "shards"))


def faults(folder: Path) -> list[Fault]:
    return verify(folder, jobs=1).faults


def frames(path: Path) -> list[bytes]:
    data = path.read_bytes()
    with path.open("rb") as file:
        return [data[at - 12 : at + length + 4] for at, length in tfrecord.walk(file, len(data), path.name)]


def records(change: Callable[[list[bytes]], Sequence[bytes]], name: str = SHARD) -> Change:
    """Another list of frames in a shard."""
    return lambda folder: (folder / name).write_bytes(b"".join(change(frames(folder / name))))


def header(length: int) -> bytes:
    data = struct.pack("<Q", length)
    return data + struct.pack("<I", tfrecord.masked_crc(data))


def swap(first: str, second: str) -> Change:
    def change(folder: Path) -> None:
        data = (folder / first).read_bytes()
        (folder / first).write_bytes((folder / second).read_bytes())
        (folder / second).write_bytes(data)

    return change


def instead(name: str, make: Callable[[Path], Any]) -> Change:
    """Something that is no file in a file's place."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


def sealed(folder: Path) -> None:
    """Index, offsets and sidecars made anew, so that they agree with whatever the shards hold."""
    index, found = read_index(folder), []
    made_from = shards.origin(index.manifest.sha256, index.geometry)
    for shard in index.shards:
        parts = frames(folder / shard.file)
        data = b"".join(parts)
        digest = hashlib.sha256(data).hexdigest()
        record = ShardRecord(file=shard.file, split=shard.split, records=len(parts), bytes=len(data), sha256=digest)
        starts = [sum(map(len, parts[:i])) for i in range(len(parts))]
        crcs = [tfrecord.masked_crc(part[12:-4]) for part in parts]
        offsets = OffsetsRecord(shard=record, made_from=made_from, offsets=starts, crcs=crcs)
        (folder / offsets_name(shard.file)).write_bytes(seal(offsets))
        found.append(record)
    write_index(folder, replace(index, shards=found))


def write_index(folder: Path, index: IndexRecord, with_sidecars: bool = True) -> None:
    (folder / "index.json").write_bytes(seal(index))
    for name, data in tfds.sidecar_files(index).items() if with_sidecars else ():
        (folder / name).write_bytes(data)


def rewrite(folder: Path, *changes: Callable[[dict[str, Any]], dict[str, Any]], name: str = SHARD) -> None:
    """Other features in record 1, a right checksum, and all else sealed anew."""
    parts = frames(folder / name)
    values: dict[str, Any] = dict(example.decode(parts[1][12:-4]))
    for change in changes:
        values = values | change(values)
    parts[1] = tfrecord.frame(example.encode({key: value for key, value in values.items() if value is not None}))
    (folder / name).write_bytes(b"".join(parts))
    sealed(folder)


# ---- bytes -----------------------------------------------------------------------------------------------------------


def test_any_flipped_bit_cut_or_zeroed_page_of_any_file_is_found_and_placed(folder: Path) -> None:
    random_places = random.Random(1)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        places = random_places.choices(range(len(data)), k=16)
        for number, at in enumerate(places):
            changed = bytearray(data)
            if number < 9:
                changed[at] ^= 1 << number % 8
            elif number < 13:
                del changed[at:]
            else:
                page = slice(at // 512 * 512, at // 512 * 512 + 512)
                changed[page] = bytes(len(changed[page]))
            if changed == data:
                continue
            path.write_bytes(changed)
            found = [fault for fault in faults(folder) if fault.file == name]
            assert found, (name, at)
            if name.startswith("people-"):
                assert any(fault.offset is not None and fault.offset <= at for fault in found), (name, at)
        path.write_bytes(data)
    sealed(folder)  # which, with nothing changed, changes nothing
    assert not faults(folder)


# ---- files, records, offsets: the index is as it was -----------------------------------------------------------------

DAMAGE: dict[str, tuple[Change, str, str]] = {
    "the first record dropped": (records(lambda f: f[1:]), SHARD, "lacks 1 of the records"),
    "a record dropped": (records(lambda f: [*f[:2], f[3]]), SHARD, "lacks 1 of the records"),
    "the last record dropped": (records(lambda f: f[:-1]), SHARD, "lacks 1 of the records"),
    "a record repeated": (records(lambda f: [f[0], *f]), SHARD, "stands here too"),
    "records in another order": (records(lambda f: f[::-1]), SHARD, "in another order"),
    "a record rewritten, of its length": (
        records(lambda f: [f[0], tfrecord.frame(f[1][12:-5] + b"\7"), *f[2:]]),
        SHARD,
        "feature 'image/width' is 7",
    ),
    "a record rewritten, longer": (
        records(lambda f: [f[0], tfrecord.frame(f[1][12:-4] + b"x"), *f[2:]]),
        SHARD,
        "no tf.train.Example",
    ),
    "a record of another shard": (
        lambda folder: records(lambda f: [*f, frames(folder / TEST)[0]])(folder),
        SHARD,
        "were not built here",
    ),
    "an empty record": (records(lambda f: [*f, tfrecord.frame(b"")]), SHARD, "are missing or not of the index"),
    "no record": (records(lambda f: []), SHARD, "has 0 records"),
    "bytes behind the end": (records(lambda f: [*f, bytes(4096)]), SHARD, "checksum of its length"),
    "a byte lost within a record": (
        records(lambda f: [f[0][:99], f[0][100:], *f[1:]]),
        SHARD,
        "checksum of its payload",
    ),
    **{
        f"a header that says {length}": (
            records(lambda f, length=length: [f[0], header(length), *f[2:]]),  # type: ignore[misc]
            SHARD,
            f"says {length} bytes",
        )
        for length in (2**31, 2**40, 2**62, 2**63, 2**64 - 1)
    },
    "a shard that is gzip": (
        lambda folder: (folder / SHARD).write_bytes(gzip.compress((folder / SHARD).read_bytes())),
        SHARD,
        "compressed with gzip",
    ),
    "a missing shard": (lambda folder: (folder / SHARD).unlink(), SHARD, "is missing"),
    "a renamed shard": (lambda folder: (folder / SHARD).rename(folder / "x.bak"), "x.bak", f"the bytes of {SHARD}"),
    "an extra copy": (lambda folder: shutil.copy(folder / SHARD, folder / "x"), "x", f"the bytes of {SHARD}"),
    "swapped shards": (swap(FIRST, SHARD), SHARD, f"the bytes of {FIRST}"),
    "shards swapped across splits": (swap(TEST, SHARD), SHARD, f"the bytes of {TEST}"),
    "a shard copied over another": (lambda f: shutil.copy(f / SHARD, f / TEST), TEST, f"the bytes of {SHARD}"),
    "a folder for a shard": (instead(SHARD, Path.mkdir), SHARD, "no regular file"),
    "a pipe for a shard": (instead(SHARD, os.mkfifo), SHARD, "no regular file"),
    "a device for a shard": (instead(SHARD, lambda path: path.symlink_to("/dev/zero")), SHARD, "no regular file"),
    "a link to nowhere for a shard": (instead(SHARD, lambda path: path.symlink_to("x")), SHARD, "no regular file"),
    "a pipe beside the shards": (lambda folder: os.mkfifo(folder / "x"), "x", "not of this folder"),
    "a rest of a killed run": (
        lambda folder: (folder / f"{SHARD}.0123abcd.segdata-partial").touch(),
        f"{SHARD}.0123abcd.segdata-partial",
        "was killed",
    ),
    "missing offsets": (lambda folder: (folder / OFFSETS).unlink(), OFFSETS, "is missing"),
    "no offsets at all": (lambda folder: shutil.rmtree(folder / "offsets"), "offsets", "is missing"),
    "a pipe for offsets": (instead(OFFSETS, os.mkfifo), OFFSETS, "no regular file"),
    "a device for offsets": (instead(OFFSETS, lambda path: path.symlink_to("/dev/zero")), OFFSETS, "no regular file"),
    "extra offsets": (lambda folder: shutil.copy(folder / OFFSETS, folder / "offsets/x"), "offsets/x", "not of this"),
    "swapped offsets": (swap(offsets_name(FIRST), OFFSETS), OFFSETS, "of another shard"),
    "a pipe for a sidecar": (instead("labels.txt", os.mkfifo), "labels.txt", "no regular file"),
}


@pytest.mark.skipif(os.name == "nt", reason="pipes and links")
@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_found_and_named(folder: Path, case: str) -> None:
    change, name, what = DAMAGE[case]
    change(folder)
    found = faults(folder)
    assert what in "\n".join(fault.what for fault in found if fault.file == name), found
    assert len(found) < 10
    assert all(len(fault.what) < 400 for fault in found)


def test_a_whole_record_behind_one_that_lost_a_byte_is_not_told_as_lost(folder: Path) -> None:
    records(lambda f: [f[0][:99], f[0][100:], *f[1:]])(folder)
    assert [fault.record for fault in faults(folder)] == [None, 0, 1]  # its size, the record, and what its length says


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": [0, 5, 6, 7]},
        {"offsets": []},
        {"offsets": [-1, 2**70, 0, 0]},
        {"crcs": [1, 2, 3, 4]},
        {"crcs": []},
        {"made_from": "0" * 64},
    ],
    ids=str,
)
def test_offsets_that_were_sealed_anew_are_compared_with_the_shard(folder: Path, change: dict[str, Any]) -> None:
    record = read_record_file(folder / OFFSETS, OffsetsRecord)
    (folder / OFFSETS).write_bytes(seal(replace(record, **change)))
    assert [fault.file for fault in faults(folder)] == [OFFSETS]


# ---- an index sealed anew --------------------------------------------------------------------------------------------


def shard(**changes: Any) -> Callable[[IndexRecord], IndexRecord]:
    """The first shard with other fields."""
    return lambda index: replace(index, shards=[replace(index.shards[0], **changes), *index.shards[1:]])


def classes(change: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Callable[[IndexRecord], IndexRecord]:
    def other(index: IndexRecord) -> IndexRecord:
        labels = index.label_map
        assert labels is not None
        fields = {key: change(getattr(labels, key)) for key in ("names", "colors", "from_ids")}
        return replace(index, label_map=replace(labels, left_right_pairs=(), **fields))

    return other


INDEX: dict[str, Callable[[IndexRecord], IndexRecord]] = {
    "more records": shard(records=4),
    "bytes beyond 64 bits": shard(bytes=2**70),
    "another sha256": shard(sha256="0" * 64),
    "a shard outside the folder": shard(file="../shards/" + FIRST),
    "a name outside the folder": lambda index: replace(
        index, name="../x", shards=[replace(one, file=f"../x{one.file[6:]}") for one in index.shards]
    ),
    "an absolute name": shard(file="/etc/passwd"),
    "an empty name": shard(file=""),
    "a name with a zero byte": shard(file="a\0b"),
    "one name twice": lambda index: replace(index, shards=[index.shards[0], index.shards[0], *index.shards[2:]]),
    "shards in another order": lambda index: replace(index, shards=index.shards[::-1]),
    "fewer shards": lambda index: replace(index, shards=index.shards[:-1]),
    "fewer splits": lambda index: replace(index, shards=index.shards[:-2]),
    "no shards": lambda index: replace(index, shards=[]),
    "another split": shard(split="test"),
    "an unknown split": lambda index: replace(index, shards=[replace(one, split="dev") for one in index.shards]),
    "another name": lambda index: replace(index, name="other"),
    "no label map": lambda index: replace(index, label_map=None),
    "one class fewer": classes(lambda values: values[:-1]),
    "classes in another order": classes(lambda values: values[::-1]),
    "another size": lambda index: replace(index, geometry=replace(index.geometry, size=(96, 64))),
    "no size": lambda index: replace(index, geometry=Geometry()),
    "another fit": lambda index: replace(index, geometry=replace(index.geometry, fit="stretch")),
    "an unknown fit": lambda index: replace(index, geometry=replace(index.geometry, fit="x")),
    "other bars": lambda index: replace(index, geometry=replace(index.geometry, image_padding=0)),
    "no features": lambda index: replace(index, features={}),
    "no masks": lambda index: replace(index, features=features(has_mask=False, has_matte=False)),
    "mattes": lambda index: replace(index, features=features(has_mask=True, has_matte=True)),
    "a feature of an unknown kind": lambda index: replace(index, features=index.features | {IMAGE: "x"}),
    "another manifest": lambda index: replace(index, manifest=replace(index.manifest, sha256="0" * 64)),
}


@pytest.mark.parametrize("with_sidecars", [False, True], ids=["sidecars as they were", "sidecars made anew"])
@pytest.mark.parametrize("case", INDEX)
def test_an_index_that_was_sealed_anew_is_found(folder: Path, case: str, with_sidecars: bool) -> None:
    index = INDEX[case](read_index(folder))
    write_index(folder, index, with_sidecars and case != "a feature of an unknown kind")
    assert faults(folder)


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 99, b"[" * 99999, b'{"format": "segdata shards", "version": 2}'], ids=len
)
def test_an_index_that_is_none_is_one_fault(folder: Path, data: bytes) -> None:
    (folder / "index.json").write_bytes(data)
    assert [fault.file for fault in faults(folder)] == ["index.json"]


# ---- records rewritten, and everything sealed anew: what they say of themselves, and the manifest --------------------


def grey(height: int, width: int, *depth: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.full((height, width, *depth), 1, dtype)


def photo(change: Callable[[bytes], bytes]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Another photo, with its own sha256 and size."""

    def other(values: dict[str, Any]) -> dict[str, Any]:
        data = change(values[IMAGE])
        says: dict[str, Any] = {IMAGE: data, SHA256: hashlib.sha256(data).hexdigest().encode()}
        if data.startswith(images.PNG_MAGIC):
            found = images.header(data)
            says |= {"image/height": found.height, "image/width": found.width, "image/format": b"png"}
        return says

    return other


def with_bad_checksum(png: bytes) -> bytes:
    return png[:50] + bytes([png[50] ^ 1]) + png[51:]


PHOTO, MASK_PNG = saved(grey(64, 96, 3), "PNG"), images.encode_mask(grey(64, 96))
REWRITTEN: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "an id that is not UTF-8": (lambda v: {SOURCE_ID: b"\xff"}, "not UTF-8"),
    "a huge format": (lambda v: {"image/format": b"x" * 10**6}, "'image/format' is b'xxx"),
    "another format": (lambda v: {"image/format": b"png"}, "'image/format' is b'png'"),
    "another height": (lambda v: {"image/height": 65}, "'image/height' is 65"),
    "another width": (lambda v: {"image/width": 1}, "'image/width' is 1"),
    "other channels": (lambda v: {"image/channels": 1}, "'image/channels' is 1"),
    "another sha256": (lambda v: {SHA256: b"0" * 64}, "its image has"),
    "a height of bytes": (lambda v: {"image/height": b"64"}, "'image/height' is bytes"),
    "an original size of 0": (lambda v: {"image/original_height": 0}, "original size is [0, "),
    "an extra feature": (lambda v: {"x": 1}, "['x'] are missing or not of the index"),
    "a missing feature": (lambda v: {"image/group": None}, "['image/group'] are missing"),
    "another group": (lambda v: {"image/group": b"x"}, "has another photo, mask, group or name"),
    "another file name": (lambda v: {"image/filename": b"x"}, "has another photo, mask, group or name"),
    "another original size": (lambda v: {"image/original_width": 9}, "has another photo, mask, group or name"),
    "a photo cut": (photo(lambda data: data[:-30]), "without its end marker"),
    "a photo cut, with an end marker": (photo(lambda data: data[:-300] + b"\xff\xd9"), "libjpeg says"),
    "a photo of 16 bits": (photo(lambda data: images.encode_png(grey(64, 96, dtype=np.uint16))), "16 bits"),
    "a photo of another size": (photo(lambda data: saved(grey(65, 96, 3), "PNG")), "image of 96x65"),
    "a photo with a bad checksum": (photo(lambda data: with_bad_checksum(PHOTO)), "checksum of a PNG"),
    "a mask id beyond the label map": (lambda v: {MASK: images.encode_mask(grey(64, 96) * 5)}, "ids [5]"),
    "a mask of another size": (lambda v: {MASK: images.encode_mask(grey(64, 95))}, "mask of 95x64"),
    "a mask in colours": (lambda v: {MASK: PHOTO}, "single-channel grey PNG"),
    "a mask with a bad checksum": (lambda v: {MASK: with_bad_checksum(MASK_PNG)}, "checksum of a PNG"),
    "a mask that is none": (lambda v: {MASK: b""}, "neither JPEG nor PNG"),
}


@pytest.mark.parametrize("case", REWRITTEN)
def test_a_rewritten_record_is_found_where_all_else_agrees_with_it(folder: Path, case: str) -> None:
    change, what = REWRITTEN[case]
    start = len(frames(folder / SHARD)[0])
    rewrite(folder, change)
    (fault,) = faults(folder)
    assert (fault.file, fault.record, fault.offset) == (SHARD, 1, start)
    assert what in fault.what
    assert len(fault.what) < 400


def appended(entry: bytes) -> Change:
    """Bytes of protocol buffers behind a payload, and all else sealed anew."""

    def change(folder: Path) -> None:
        records(lambda f: [f[0], tfrecord.frame(f[1][12:-4] + entry), *f[2:]])(folder)
        sealed(folder)

    return change


def moved(folder: Path) -> None:
    parts = frames(folder / SHARD)
    records(lambda f: [*f, parts[0]], FIRST)(folder)
    records(lambda f: f[1:])(folder)
    sealed(folder)


def exchanged(folder: Path) -> None:
    """Records of two splits change places; each split stays in its order."""
    both = frames(folder / FIRST), frames(folder / TEST)
    for name, parts in ((FIRST, [*both[0][1:], *both[1]]), (TEST, both[0][:1])):
        parts.sort(key=lambda part: order_key(bytes(example.decode(part[12:-4])[SOURCE_ID]).decode()))
        (folder / name).write_bytes(b"".join(parts))
    sealed(folder)


SEALED: dict[str, Change] = {
    "a record dropped": lambda folder: (records(lambda f: f[1:])(folder), sealed(folder)),
    "all records dropped": lambda folder: (records(lambda f: [])(folder), sealed(folder)),
    "a record repeated": lambda folder: (records(lambda f: [f[0], *f])(folder), sealed(folder)),
    "records in another order": lambda folder: (records(lambda f: f[::-1])(folder), sealed(folder)),
    "a record moved to the shard before": moved,
    "records exchanged between splits": exchanged,
    "another id": lambda folder: rewrite(folder, lambda v: {SOURCE_ID: b"x"}),
    "a second feature of the same name": appended(b"\x0a\x16\x0a\x14\x0a\x0cimage/format\x12\x04\x12\x02\x0a\x00"),
    "a field that nobody knows": appended(b"\x78\x01"),
}


@pytest.mark.parametrize("case", SEALED)
def test_records_that_were_moved_are_found_where_all_else_agrees(folder: Path, case: str) -> None:
    SEALED[case](folder)
    assert faults(folder)


def test_pictures_of_their_own_size_are_those_of_the_manifest(kept: Made, tmp_path: Path) -> None:
    shutil.copytree(kept.dataset.parent, tmp_path / "made")
    shards = tmp_path / "made" / "original"
    build(kept.manifest, shards, BuildOptions(shards=2, jobs=1))
    index = read_index(shards)
    write_index(shards, replace(index, manifest=replace(index.manifest, path="../manifest")))
    assert not faults(shards)
    rewrite(shards, photo(lambda data: data[:-2] + b"\0\xff\xd9"))
    (fault,) = faults(shards)
    assert (fault.file, fault.record) == (SHARD, 1)
    assert "has another photo" in fault.what
    shutil.rmtree(tmp_path / "made" / "manifest")
    assert not faults(shards)  # nothing is left that says otherwise


def test_a_list_of_the_manifest_that_changed_is_named(folder: Path) -> None:
    lists = folder.parent / "manifest" / "train.jsonl"
    lists.write_bytes(lists.read_bytes()[:-1])
    assert [fault.file for fault in faults(folder)] == ["../manifest/train.jsonl"]


# ---- reports ---------------------------------------------------------------------------------------------------------


def tiny_shard(folder: Path, kept: Made, count: int) -> list[bytes]:
    """A folder of one shard of ``count`` records with one photo; their frames."""
    values = dict(example.decode(frames(kept.shards / SHARD)[0][12:-4]))
    ids = sorted((f"s{i}" for i in range(count)), key=order_key)
    parts = [tfrecord.frame(example.encode(values | {SOURCE_ID: i.encode()})) for i in ids]
    index = read_index(kept.shards)
    name = "people-train.tfrecord-00000-of-00001"
    shards = [replace(index.shards[0], file=name)]
    (folder / "offsets").mkdir(parents=True)
    (folder / name).write_bytes(b"".join(parts))
    write_index(folder, replace(index, shards=shards, manifest=replace(index.manifest, path=None)))
    sealed(folder)
    return parts


def test_hundreds_of_faults_of_a_file_are_told_in_a_few_lines(kept: Made, tmp_path: Path) -> None:
    folder = tmp_path / "s"
    parts = tiny_shard(folder, kept, 500)
    path = folder / "people-train.tfrecord-00000-of-00001"
    assert not faults(folder)
    shuffled = random.Random(1).sample(parts, len(parts))
    for changed in (shuffled[1:], [parts[0]] * 500, [part[:50] + b"\0" + part[51:] for part in parts]):
        path.write_bytes(b"".join(changed))
        assert len(faults(folder)) > 3
        shown = segdata("verify", folder).stdout.splitlines()
        assert 3 < len(shown) <= 22
    path.write_bytes(b"".join(shuffled))
    assert [fault.record for fault in faults(folder)] == [None, 0]
    sealed(folder)
    shown = segdata("verify", folder).stdout.splitlines()
    assert len(shown) == 22
    assert shown[-2] == f"{path.name}: and {len(faults(folder)) - 20} more faults; --json lists them"


def test_text_and_json_give_file_record_offset_found_and_expected(folder: Path) -> None:
    start = len(frames(folder / SHARD)[0])
    records(lambda f: [f[0], f[1][:60] + b"\0" + f[1][61:], *f[2:]])(folder)
    done = segdata("verify", folder, "--jobs", "1")
    assert (done.returncode, done.stderr) == (1, "")
    assert f"{SHARD}, record 1 at byte {start}: the checksum of its payload is " in done.stdout
    assert done.stdout.endswith("11 samples checked, 2 faults\n")
    done = segdata("verify", folder, "--jobs", "1", "--json")
    (fault,) = [fault for fault in json.loads(done.stdout)["faults"] if fault["record"] is not None]
    assert (fault["file"], fault["record"], fault["offset"], fault["sample"]) == (SHARD, 1, start, None)
    assert fault["what"]
    assert fault["expected"]


def test_a_disk_that_cannot_read_a_shard_is_a_fault_of_it_and_the_rest_is_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def fail(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == SHARD:
            raise OSError(errno.EIO, "Input/output error")
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)
    other = folder / "people-test.tfrecord-00000-of-00002"
    other.write_bytes(other.read_bytes()[:-1])
    found = verify(folder, jobs=1).faults
    assert {fault.file for fault in found} >= {SHARD, other.name}
    assert any(fault.what == "cannot be read to its end (Input/output error)" for fault in found)
