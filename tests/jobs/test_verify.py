"""verify: every kind of damage is found, and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segdata.errors import FolderError, OptionError
from segdata.formats import tfrecord
from segdata.jobs.verify import Fault, verify
from tests.folders import Made, segdata


def faults(path: Path) -> list[Fault]:
    return verify(path, jobs=1).faults


def flip(path: Path, at: float) -> None:
    """Flip one bit, ``at`` a share of the file."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 4
    path.write_bytes(bytes(data))


def copy(made: Made, to: Path) -> Made:
    """The whole of a made path, so that a test may damage it; relative paths stay right."""
    shutil.copytree(made.dataset.parent, to / "made")
    shutil.copytree(made.raw.parent, to / made.raw.parent.name)
    folder = to / "made"
    return Made(to / made.raw.parent.name / made.raw.name, *(folder / n for n in ("prepared", "manifest", "shards")))


@pytest.fixture
def damaged(kept: Made, tmp_path: Path) -> Made:
    return copy(kept, tmp_path)


def test_whole_folders_have_no_fault(kept: Made) -> None:
    for path, count in ((kept.dataset, 12), (kept.manifest, 12), (kept.shards, 12)):
        report = verify(path, jobs=2)
        assert (report.faults, report.checked) == ([], count)


@pytest.mark.parametrize("kind", ["dataset", "manifest", "shards"])
@pytest.mark.parametrize("at", [0.0, 0.37, 1.0])
def test_a_flipped_bit_in_any_file_is_found_and_the_file_named(damaged: Made, kind: str, at: float) -> None:
    folder: Path = getattr(damaged, kind)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size):
        before = path.read_bytes()
        flip(path, at)
        named = {fault.file for fault in faults(folder)}
        assert path.relative_to(folder).as_posix() in named, path
        path.write_bytes(before)
    assert not faults(folder)


@pytest.mark.parametrize("kind", ["dataset", "manifest", "shards"])
def test_a_missing_file_is_named(damaged: Made, kind: str) -> None:
    folder: Path = getattr(damaged, kind)
    for path in sorted(
        p for p in folder.rglob("*") if p.is_file() and p.name not in ("dataset.json", "manifest.json", "index.json")
    ):
        before = path.read_bytes()
        path.unlink()
        assert path.relative_to(folder).as_posix() in {fault.file for fault in faults(folder)}, path
        path.write_bytes(before)


@pytest.mark.parametrize("kind", ["dataset", "manifest", "shards"])
def test_an_extra_file_is_named(damaged: Made, kind: str) -> None:
    folder: Path = getattr(damaged, kind)
    (folder / "people-train.tfrecord-00002-of-00002").write_bytes(b"x")
    assert [fault.file for fault in faults(folder)] == ["people-train.tfrecord-00002-of-00002"]


def test_a_folder_without_its_json_is_unfinished(damaged: Made) -> None:
    (damaged.shards / "index.json").unlink()
    with pytest.raises(FolderError, match="unfinished"):
        verify(damaged.shards)
    done = segdata("verify", damaged.shards)
    assert (done.returncode, done.stdout) == (1, "")
    assert "unfinished" in done.stderr


def test_a_changed_photo_is_named_for_dataset_and_manifest(damaged: Made) -> None:
    photo = damaged.raw / "JPEGImages" / "person_004.jpg"
    photo.write_bytes(photo.read_bytes()[:-30])
    for folder in (damaged.dataset, damaged.manifest):
        (fault,) = faults(folder)
        assert fault.sample == "person_004"
        assert "person_004.jpg" in fault.what


def test_swapped_shards_are_found(damaged: Made) -> None:
    first, second = (damaged.shards / f"people-train.tfrecord-0000{i}-of-00002" for i in (0, 1))
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)
    assert {fault.file for fault in faults(damaged.shards)} >= {first.name, second.name}


def test_a_cut_shard_says_where_it_ends(damaged: Made) -> None:
    path = damaged.shards / "people-train.tfrecord-00001-of-00002"
    path.write_bytes(path.read_bytes()[:-100])
    found = {fault.what: fault.expected for fault in faults(damaged.shards) if fault.file == path.name}
    assert found[f"has {path.stat().st_size} bytes"] == str(path.stat().st_size + 100)
    assert any("file ends" in what for what in found)


def test_a_damaged_record_gives_its_number_and_offset(damaged: Made) -> None:
    path = damaged.shards / "people-train.tfrecord-00001-of-00002"
    with path.open("rb") as file:
        frames = list(tfrecord.walk(file, path.stat().st_size, path.name))
    data = bytearray(path.read_bytes())
    data[frames[2][0] + 50] ^= 1
    path.write_bytes(bytes(data))
    assert (2, frames[2][0] - tfrecord.HEADER_BYTES) in {
        (fault.record, fault.offset) for fault in faults(damaged.shards)
    }


def test_exit_code_and_json(damaged: Made) -> None:
    assert segdata("verify", damaged.shards, "--json").returncode == 0
    flip(damaged.shards / "people-test.tfrecord-00000-of-00002", 0.5)
    done = segdata("verify", damaged.shards, "--json")
    assert done.returncode == 1
    assert '"file": "people-test.tfrecord-00000-of-00002"' in done.stdout


def test_a_manifest_without_its_dataset_says_so(damaged: Made) -> None:
    shutil.rmtree(damaged.dataset)
    (fault,) = faults(damaged.manifest)
    assert "no such folder" in fault.what


def test_a_run_is_no_folder_to_verify(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(OptionError, match="is a run"):
        verify(tmp_path)
