"""salvage: what is sound is copied as it is, what is lost is told, and nothing else is touched."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from segdata.cli import main
from segdata.errors import FolderError, JobFailed, OptionError, RecordError, SourceError
from segdata.formats.folders import files_below
from segdata.formats.tfrecord import frame
from segdata.jobs.salvage import LostStretch, SalvagedFile, salvage
from segdata.shards import open_shards
from tests.folders import Made
from tests.material import tensorflow

FRAMES = [frame(payload) for payload in (b"one", b"", bytes(5000), b"four", b"five")]
SOUND = b"".join(FRAMES)
NO_LENGTH = "the checksum of a record's length does not match"


def damaged(folder: Path, name: str = "a.tfrecord", data: bytes = b"xx" + SOUND + b"yyy") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return folder / name


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["salvage", *map(str, arguments)])
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


def test_sound_records_are_copied_and_the_rest_is_told(tmp_path: Path) -> None:
    first, second = damaged(tmp_path), damaged(tmp_path, "b.tfrecord", SOUND)
    report = salvage([first, second], tmp_path / "out")
    lost = [
        LostStretch("a.tfrecord", 0, 2, None, 0, NO_LENGTH),
        LostStretch("a.tfrecord", 2 + len(SOUND), 3, 4, 0, "too few bytes for a header"),
    ]
    assert report.files == [
        SalvagedFile("a.tfrecord", 5, len(SOUND), lost),
        SalvagedFile("b.tfrecord", 5, len(SOUND), []),
    ]
    assert files_below(tmp_path / "out") == ["a.tfrecord", "b.tfrecord", "salvage.json"]
    assert (tmp_path / "out" / "a.tfrecord").read_bytes() == (tmp_path / "out" / "b.tfrecord").read_bytes() == SOUND
    assert first.read_bytes() == b"xx" + SOUND + b"yyy", "inputs are never modified"
    text = (tmp_path / "out" / "salvage.json").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    record = json.loads(text)
    assert (record["format"], record["version"]) == ("segdata salvage", 1)
    assert record["files"][0]["lost"][0] == {
        "file": "a.tfrecord",
        "offset": 0,
        "bytes": 2,
        "after_record": None,
        "records": 0,
        "what": NO_LENGTH,
    }


def test_the_pieces_of_a_search_and_records_lost_alike_are_one_stretch(tmp_path: Path) -> None:
    data = bytearray(FRAMES[0] + bytes(2_000_000) + SOUND)
    at = len(data) - len(SOUND) + len(FRAMES[0])
    data[at + 12] ^= 1  # the footer of the empty one, and the payload behind it
    data[at + len(FRAMES[1]) + 100] ^= 1
    found = salvage([damaged(tmp_path, data=bytes(data))], tmp_path / "out").files[0]
    assert [(one.offset, one.bytes, one.after_record, one.records) for one in found.lost] == [
        (len(FRAMES[0]), 2_000_000, 0, 0),
        (at, len(FRAMES[1]) + len(FRAMES[2]), 1, 2),
    ]
    assert found.records == 4


def test_a_file_without_sound_records_gets_no_copy(tmp_path: Path) -> None:
    paths = [damaged(tmp_path), damaged(tmp_path, "empty", b""), damaged(tmp_path, "page.html", b"<html>" * 9)]
    report = salvage(paths, tmp_path / "out")
    assert [(file.records, len(file.lost)) for file in report.files] == [(5, 2), (0, 0), (0, 1)]
    assert files_below(tmp_path / "out") == ["a.tfrecord", "salvage.json"]


def test_nothing_to_salvage_at_all_fails_and_looks_unfinished(tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match=r"^page.html, empty: no sound record in 54 bytes"):
        salvage([damaged(tmp_path, "page.html", b"<html>" * 9), damaged(tmp_path, "empty", b"")], tmp_path / "out")
    assert not (tmp_path / "out" / "salvage.json").exists()
    salvage([damaged(tmp_path, "page.html", SOUND)], tmp_path / "out")


def test_a_shard_of_ours_loses_one_record_and_tensorflow_reads_the_rest(kept: Made, tmp_path: Path) -> None:
    shard = next(kept.shards.glob("*train.tfrecord-*"))
    wanted = list(open_shards(kept.shards, "train"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    path = damaged(tmp_path, shard.name, bytes(data))
    found = salvage([path], tmp_path / "out").files[0]
    assert len(found.lost) == 1
    tf = tensorflow()
    read = [record.numpy() for record in tf.data.TFRecordDataset(str(tmp_path / "out" / shard.name))]
    whole = [record.numpy() for record in tf.data.TFRecordDataset(str(shard))]
    assert len(read) == found.records == len(whole) - 1
    assert set(read) < set(whole)
    assert len(whole) <= len(wanted)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_gzip_file_is_one_clear_line(tmp_path: Path) -> None:
    path = damaged(tmp_path, "a.gz", gzip.compress(SOUND))
    with pytest.raises(RecordError, match=r"a\.gz: is compressed \(gzip\).*Decompress it first"):
        salvage([damaged(tmp_path), path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_regular_file_is_refused_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    bad = ["folder", "nowhere", "folder/..", "."]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        bad.append("pipe")
    for name in bad:
        with pytest.raises(SourceError, match="expected a TFRecord file"):
            salvage([damaged(tmp_path), tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    path = damaged(tmp_path)
    for other in (path, damaged(tmp_path / "b"), damaged(tmp_path / "c", "A.tfrecord")):
        with pytest.raises(OptionError, match="expected each name once"):
            salvage([path, other], tmp_path / "out")


@pytest.mark.parametrize("name", ["salvage.json", ".segdata-lock", "a.segdata-partial"])
def test_names_that_the_folder_needs_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OptionError, match="for its own files"):
        salvage([damaged(tmp_path, name)], tmp_path / "out")


def test_no_file_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no file is given"):
        salvage([], tmp_path / "out")


def test_the_folder_may_not_hold_an_input(tmp_path: Path) -> None:
    path = damaged(tmp_path / "out")
    for overwrite in (False, True):
        with pytest.raises(FolderError, match="holds the input"):
            salvage([path], tmp_path / "out", overwrite)
    assert path.read_bytes() == b"xx" + SOUND + b"yyy"


def test_overwrite_replaces_its_own_files_alone(tmp_path: Path) -> None:
    path, out = damaged(tmp_path), tmp_path / "out"
    salvage([path], out)
    with pytest.raises(FolderError, match="pass --overwrite"):
        salvage([path], out)
    salvage([damaged(tmp_path, data=FRAMES[0])], out, overwrite=True)
    assert (out / "a.tfrecord").read_bytes() == FRAMES[0]
    with pytest.raises(FolderError, match=r"holds 'a\.tfrecord', which"):
        salvage([damaged(tmp_path, "aXtfrecord")], out, overwrite=True)
    (out / "mine.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"holds 'mine\.txt', which"):
        salvage([path], out, overwrite=True)
    assert (out / "a.tfrecord").read_bytes() == FRAMES[0]


def test_a_name_that_is_not_utf_8_is_kept_and_told(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.tfrecord")
    try:
        path = damaged(tmp_path, name)
    except OSError:
        pytest.skip("this file system takes no such name")
    assert salvage([path], tmp_path / "out").files[0].file == "caf\\xe9.tfrecord"
    assert (tmp_path / "out" / name).read_bytes() == SOUND


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_shows_what_was_lost_where(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, damaged(tmp_path), "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "a.tfrecord: 5 records kept, 2 stretches lost",
        f"  lost 2 bytes at byte 0 before the first record: {NO_LENGTH}",
        "  lost 3 bytes at byte 5,093 behind record 4: too few bytes for a header",
    ]
    code, out, _ = run(capsys, tmp_path / "a.tfrecord", "--out", tmp_path / "out", "--overwrite", "--json")
    assert code == 0
    assert json.loads(out)["files"][0]["lost"][1]["after_record"] == 4


def test_many_stretches_are_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, damaged(tmp_path, data=(FRAMES[0] + b"x" * 50) * 25), "--out", tmp_path / "out")
    assert (code, len(out.splitlines())) == (0, 22)
    assert out.splitlines()[-1] == "  and 5 more: salvage.json has them all"


def test_exit_code_1_where_nothing_is_salvaged(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, damaged(tmp_path, data=b"x" * 100), "--out", tmp_path / "out")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "no sound record in 100 bytes" in err
