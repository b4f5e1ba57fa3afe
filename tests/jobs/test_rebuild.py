"""rebuild: exactly the damaged shards, to the same bytes; all others keep their inode and time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from segdata.errors import FolderError, JobFailed, RecordError
from segdata.formats.folders import locked_folder
from segdata.jobs.build import BuildOptions, build
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.rebuild import rebuild
from segdata.jobs.split import split
from segdata.jobs.verify import verify
from segdata.labels import label_map
from segdata.records import (
    Geometry,
    IndexRecord,
    OffsetsRecord,
    ShardRecord,
    SplitOptions,
    read_index,
    read_record_file,
    seal,
)
from segdata.shards import offsets_name
from segdata.sources.pairs import Pairs
from tests.folders import Made, lines, segdata, small_pairs, tree

GEOMETRIES = {
    "own sizes": Geometry(),
    "letterbox": Geometry(size=(32, 48), fit="letterbox"),
    "stretch": Geometry(size=(20, 20), fit="stretch"),
}
DAMAGE: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "empty": lambda path: path.write_bytes(b""),
}


def damaged(folder: Path, number: int = 0, split_name: str = "train") -> Path:
    """A shard of which the second half is gone."""
    path = sorted(folder.glob(f"*-{split_name}.tfrecord-*"))[number]
    os.truncate(path, path.stat().st_size // 2)
    return path


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every file."""
    return {name: ((folder / name).stat().st_ino, (folder / name).stat().st_mtime_ns) for name in tree(folder)}


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets of mattes and two of masks, a manifest over each two, and shards of every geometry."""
    root = tmp_path_factory.mktemp("merged")
    for kind in ("matte", "binary"):
        datasets = []
        for name in (f"{kind}_a", f"{kind}_b"):
            photos, masks = small_pairs(root / f"raw_{name}", 6)
            for path in (*photos.iterdir(), *masks.iterdir()):
                path.rename(path.with_name(f"{name}_{path.name}"))
            for path in photos.iterdir():
                path.write_bytes(path.read_bytes() + name.encode())  # no photo stands in both
            labels = None if kind == "matte" else label_map("binary", "mask")
            convert(Pairs(photos, masks, labels, kind=kind), root / name, ConvertOptions(name, jobs=1))
            datasets.append(root / name)
        split(datasets, root / f"manifest_{kind}", SplitOptions(test=3, validation=2))
        for fit, geometry in GEOMETRIES.items():
            build(root / f"manifest_{kind}", root / f"{kind} {fit}", BuildOptions(geometry, shards=2, jobs=1))
    return root


@pytest.fixture
def folder(kept: Made, tmp_path: Path) -> Path:
    """A copy of the shards, with manifest, dataset and photos where they were."""
    shutil.copytree(kept.dataset.parent, tmp_path / "made")
    shutil.copytree(kept.raw.parent, tmp_path / kept.raw.parent.name)
    return tmp_path / "made" / "shards"


@pytest.mark.parametrize("fit", GEOMETRIES)
@pytest.mark.parametrize("kind", ["matte", "binary"])
def test_what_is_damaged_is_made_again_to_the_byte_and_nothing_else_is_touched(
    merged: Path, kind: str, fit: str
) -> None:
    folder = merged / f"{kind} {fit}"
    whole = tree(folder)
    names = [name for name in whole if name != "index.json"]
    assert len([name for name in names if ".tfrecord-" in name]) == 6
    for number, damage in enumerate(DAMAGE.values()):
        before, hit = stamps(folder), set(names[number::5])
        for name in hit:
            damage(folder / name)
        rebuilt = set(rebuild(folder, jobs=1).rebuilt)
        assert tree(folder) == whole
        own = {offsets_name(name) for name in hit if ".tfrecord-" in name}
        assert hit - own <= rebuilt <= hit
        assert {name for name, stamp in stamps(folder).items() if stamp != before[name]} <= hit | own
    assert not verify(folder, jobs=1).faults


def test_where_nothing_is_damaged_nothing_is_done(kept: Made) -> None:
    before = stamps(kept.shards)
    done = segdata("rebuild", kept.shards, "--json", "--jobs", "1")
    assert (done.returncode, json.loads(done.stdout)["rebuilt"]) == (0, [])
    assert stamps(kept.shards) == before


def test_offsets_come_from_the_shard_alone_where_that_is_whole(folder: Path) -> None:
    whole = tree(folder)
    for path in (folder.parent / "manifest", folder.parent / "prepared", folder / "offsets"):
        shutil.rmtree(path)
    assert len(rebuild(folder, jobs=1).rebuilt) == 6
    path = folder / "offsets" / "people-train-00001-of-00002.json"
    record = read_record_file(path, OffsetsRecord)
    path.write_bytes(seal(replace(record, crcs=record.crcs[::-1])))
    assert rebuild(folder, jobs=1).rebuilt == ["offsets/people-train-00001-of-00002.json"]
    assert tree(folder) == whole


def test_files_of_others_stay_and_rests_of_a_killed_run_go(folder: Path) -> None:
    shard = next(folder.glob("*-train.tfrecord-*"))
    ours = folder / f"{shard.name}.0123abcd.segdata-partial"
    others = folder / "notes.txt", folder / "notes.txt.segdata-partial", folder / "offsets" / "x.json"
    for path in (ours, *others, folder / ".segdata-lock"):
        path.write_text("x")
    assert rebuild(folder, jobs=1).rebuilt == []
    assert not ours.exists()
    assert not (folder / ".segdata-lock").exists()
    assert all(path.read_text() == "x" for path in others)
    assert {fault.file for fault in verify(folder, jobs=1).faults} == {
        path.relative_to(folder).as_posix() for path in others
    }


# ---- the manifest ----------------------------------------------------------------------------------------------------


def test_a_manifest_that_was_moved_is_named_with_manifest(folder: Path) -> None:
    whole, path = tree(folder), damaged(folder)
    (folder.parent / "manifest").rename(folder.parent / "moved")
    done = segdata("rebuild", folder, "--jobs", "1")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "has no manifest.json" in done.stderr
    assert "--manifest" in done.stderr
    done = segdata("rebuild", folder, "--manifest", folder.parent / "moved", "--jobs", "1")
    assert done.stdout == f"{folder}: 6 shards read, 1 files made again\n  {path.name}\n"
    assert tree(folder) == whole


def test_another_manifest_is_refused(folder: Path, merged: Path) -> None:
    path = damaged(folder)
    before = path.read_bytes()
    with pytest.raises(FolderError, match="is another manifest"):
        rebuild(folder, merged / "manifest_binary", jobs=1)
    assert path.read_bytes() == before


def of_shard(folder: Path, path: Path) -> dict[str, Any]:
    """A sample line of a damaged shard: of the split's, the first by hash."""
    held = path.read_bytes()
    return next(line for line in lines(folder.parent / "manifest" / "train.jsonl") if line["id"].encode() in held)


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("what", ["photo", "mask"])
@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_source_file_that_changed_is_named_and_the_shard_stays(
    kept: Made, folder: Path, what: str, change: str, jobs: int
) -> None:
    path = damaged(folder)
    before, line = tree(folder), of_shard(folder, path)
    source = folder.parents[1] / kept.raw.parent.name / kept.raw.name / line["image"]
    if what == "mask":
        source = folder.parent / "prepared" / line["mask"]
    source.unlink() if change == "gone" else source.write_bytes(source.read_bytes() + b"\0")
    with pytest.raises(JobFailed, match=source.name) as caught:
        rebuild(folder, jobs=jobs)
    assert line["id"] in str(caught.value)
    assert tree(folder) == before


@pytest.mark.parametrize("name", ["manifest/train.jsonl", "manifest/manifest.json", "prepared/dataset.json"])
def test_a_damaged_manifest_or_dataset_is_named(folder: Path, name: str) -> None:
    damaged(folder)
    before, path = tree(folder), folder.parent / name
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises((RecordError, FolderError), match=path.parent.name):
        rebuild(folder, jobs=1)
    assert tree(folder) == before


# ---- the index -------------------------------------------------------------------------------------------------------


def first(**changes: Any) -> Callable[[IndexRecord], IndexRecord]:
    return lambda index: replace(index, shards=[replace(index.shards[0], **changes), *index.shards[1:]])


def outside(shard: ShardRecord) -> ShardRecord:
    return replace(shard, file=shard.file.replace("people", "../x"))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (first(file="../x"), r"names '\.\./x'"),
        (lambda index: replace(index, name="../x", shards=[outside(one) for one in index.shards]), r"names '\.\./x"),
        (first(sha256="0" * 64), "would get sha256"),
        (first(split="test"), "of split 'test'"),
        (lambda index: replace(index, geometry=Geometry(size=(5, 5), fit="x")), "--fit 'x'"),
    ],
    ids=["a name outside the folder", "names outside the folder", "another sha256", "another split", "an unknown fit"],
)
def test_an_index_that_was_sealed_anew_overwrites_nothing(
    folder: Path, change: Callable[[IndexRecord], IndexRecord], what: str
) -> None:
    damaged(folder)
    (folder / "index.json").write_bytes(seal(change(read_index(folder))))
    before = tree(folder.parent)
    with pytest.raises((RecordError, JobFailed), match=what):
        rebuild(folder, jobs=1)
    assert tree(folder.parent) == before


def test_a_damaged_index_is_one_clear_line(folder: Path) -> None:
    damaged(folder)
    path = folder / "index.json"
    path.write_bytes(path.read_bytes().replace(b"letterbox", b"letterboX"))
    done = segdata("rebuild", folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "index.json: its bytes do not match its seal" in done.stderr
    path.unlink()
    with pytest.raises(FolderError, match=r"has no index\.json"):
        rebuild(folder)


def test_what_is_in_the_way_is_named(folder: Path) -> None:
    path = damaged(folder)
    path.unlink()
    path.mkdir()
    with pytest.raises(FolderError, match="is a folder, expected a file"):
        rebuild(folder, jobs=1)
    path.rmdir()
    shutil.rmtree(folder / "offsets")
    (folder / "offsets").touch()
    with pytest.raises(FolderError, match="is a file, expected a folder"):
        rebuild(folder, jobs=1)


@pytest.mark.skipif(os.name == "nt", reason="pipes")
def test_a_pipe_in_a_files_place_is_replaced(folder: Path) -> None:
    whole = tree(folder)
    for name in list(whole)[1::4]:
        if name != "index.json":
            (folder / name).unlink()
            os.mkfifo(folder / name)
    rebuild(folder, jobs=1)
    assert tree(folder) == whole


# ---- others, and the end of a run ------------------------------------------------------------------------------------


def test_a_second_rebuild_waits_outside(folder: Path) -> None:
    before = damaged(folder).read_bytes()
    with locked_folder(folder, "rebuild"), pytest.raises(FolderError, match=r"segdata rebuild .* is writing there"):
        rebuild(folder, jobs=1)
    assert damaged(folder).stat().st_size == len(before) // 2  # as it was, until now


# A segdata that waits within its third shard.
HELD = """
import sys, time
from segdata import shard_making
from segdata.cli import main
payloads = shard_making.payloads
def slow(task):
    yield from payloads(task)
    if task.file.endswith("validation.tfrecord-00000-of-00002"):
        time.sleep(60)
shard_making.payloads = slow
main(sys.argv[1:])
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("signal_name", ["SIGKILL", "SIGTERM"])
def test_a_rebuild_that_was_stopped_leaves_whole_shards_and_the_next_one_goes_on(
    folder: Path, signal_name: str
) -> None:
    whole = tree(folder)
    for path in folder.glob("*.tfrecord-*"):
        path.unlink()
    process = subprocess.Popen(
        [sys.executable, "-c", HELD, "rebuild", str(folder), "--jobs", "1"], stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(folder.glob("*-validation.*.segdata-partial")):
        time.sleep(0.01)
    process.send_signal(getattr(signal, signal_name))
    stderr = process.communicate()[1]
    left = [path.name for path in folder.glob("*.segdata-partial")]
    if signal_name == "SIGKILL":
        assert len(left) == 1
        assert "was killed" in next(fault.what for fault in verify(folder, jobs=1).faults if fault.file in left)
    else:
        assert (process.returncode, left) == (143, [])
        assert "segdata: stopped." in stderr
        assert "segdata rebuild" in stderr
    assert not [name for name, digest in tree(folder).items() if name not in left and whole.get(name, digest) != digest]
    rebuild(folder, jobs=1)
    assert tree(folder) == whole
