"""Output folders: whole or unfinished, nobody else's files touched, one writer at a time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from segdata.errors import FolderError
from segdata.formats.folders import MARKER, OutputFolder, files_below, output_folder

RECORD = "dataset.json"
WHOLE = b'{"format": "segdata test"}\n'
OWNED = r"masks/[^/]+\.png|samples\.jsonl"


def fill(path: Path, overwrite: bool = False, mask: str = "a", record: bytes = WHOLE) -> None:
    with output_folder(path, RECORD, OWNED, overwrite) as folder:
        (path / "masks").mkdir(exist_ok=True)
        (path / "masks" / f"{mask}.png").write_bytes(b"x")
        folder.finish(record)


def break_off(path: Path, error: type[BaseException] = ValueError, overwrite: bool = False) -> None:
    """A run that writes one mask and dies."""

    def run() -> None:
        with output_folder(path, RECORD, OWNED, overwrite):
            (path / "masks").mkdir(exist_ok=True)
            (path / "masks" / "half.png").write_bytes(b"x")
            raise error

    with pytest.raises(error):
        run()


def refused(path: Path, message: str, overwrite: bool = False) -> None:
    """Claiming ``path`` fails and changes nothing in it."""
    before = {name: (path / name).read_bytes() for name in files_below(path)} if path.is_dir() else {}
    with pytest.raises(FolderError, match=message):
        fill(path, overwrite)
    if path.is_dir():
        assert {name: (path / name).read_bytes() for name in files_below(path)} == before


def test_a_finished_folder_holds_its_files_and_its_json_and_nothing_else(tmp_path: Path) -> None:
    fill(tmp_path / "deep" / "out")
    assert files_below(tmp_path) == ["deep/out/dataset.json", "deep/out/masks/a.png"]
    assert (tmp_path / "deep/out/dataset.json").read_bytes() == WHOLE


def test_a_body_that_raises_leaves_no_json(tmp_path: Path) -> None:
    break_off(tmp_path)
    assert files_below(tmp_path) == [MARKER, "masks/half.png"]


def test_a_body_that_forgets_to_finish_leaves_no_json(tmp_path: Path) -> None:
    with output_folder(tmp_path, RECORD, OWNED, overwrite=False) as folder:
        assert isinstance(folder, OutputFolder)
        assert (tmp_path / MARKER).is_file()
    assert files_below(tmp_path) == [MARKER]


def test_an_unfinished_folder_is_started_again_from_nothing(tmp_path: Path) -> None:
    break_off(tmp_path)
    fill(tmp_path)
    assert files_below(tmp_path) == ["dataset.json", "masks/a.png"]


def test_what_a_killed_write_left_is_cleared_too(tmp_path: Path) -> None:
    break_off(tmp_path)
    (tmp_path / "dataset.json.segdata-partial").write_bytes(b"half")
    fill(tmp_path)
    assert files_below(tmp_path) == ["dataset.json", "masks/a.png"]


def test_a_finished_folder_is_replaced_only_on_demand(tmp_path: Path) -> None:
    fill(tmp_path, mask="old")
    refused(tmp_path, r"already holds a finished dataset\.json.*pass --overwrite")
    fill(tmp_path, overwrite=True, mask="new")
    assert files_below(tmp_path) == ["dataset.json", "masks/new.png"]


def test_a_replacement_that_dies_does_not_look_like_the_old_whole(tmp_path: Path) -> None:
    fill(tmp_path, mask="old")
    break_off(tmp_path, overwrite=True)
    assert files_below(tmp_path) == [MARKER, "masks/half.png"]


def test_an_empty_folder_and_empty_folders_in_it_are_free(tmp_path: Path) -> None:
    (tmp_path / "masks" / "deeper").mkdir(parents=True)
    fill(tmp_path)
    assert files_below(tmp_path) == ["dataset.json", "masks/a.png"]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "masks/a.png", "masks/deeper/a.png", ".hidden", "samples.jsonl"])
def test_a_folder_that_is_not_ours_is_refused(tmp_path: Path, name: str, overwrite: bool) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"precious")
    refused(tmp_path, f"holds '{name}', which segdata did not make", overwrite)


@pytest.mark.parametrize("among", ["nothing", "an unfinished folder", "a finished folder"])
def test_somebody_elses_half_downloaded_file_is_not_ours(tmp_path: Path, among: str) -> None:
    if among == "an unfinished folder":
        break_off(tmp_path)
    elif among == "a finished folder":
        fill(tmp_path)
    (tmp_path / "film.mkv.segdata-partial").write_bytes(b"precious")
    refused(tmp_path, "holds 'film.mkv.segdata-partial', which segdata did not make", overwrite=True)


@pytest.mark.parametrize("unfinished", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "masks/a.psd", "masks/deeper/a.png"])
def test_a_foreign_file_in_a_folder_of_ours_is_refused(tmp_path: Path, name: str, unfinished: bool) -> None:
    if unfinished:
        break_off(tmp_path)
    else:
        fill(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"precious")
    refused(tmp_path, f"holds '{name}', which segdata did not make", overwrite=True)


def test_another_kind_of_folder_of_ours_is_foreign(tmp_path: Path) -> None:
    fill(tmp_path)
    with (
        pytest.raises(FolderError, match="which segdata did not make"),
        output_folder(tmp_path, "index.json", r".*\.tfrecord.*", overwrite=True),
    ):
        pass
    assert files_below(tmp_path) == ["dataset.json", "masks/a.png"]


def test_a_link_to_a_folder_is_neither_followed_nor_emptied(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(b"precious")
    out = tmp_path / "out"
    fill(out)
    os.symlink(tmp_path / "elsewhere", out / "link")
    with pytest.raises(FolderError, match="holds 'link', which segdata did not make"):
        fill(out, overwrite=True)
    assert (tmp_path / "elsewhere" / "a.png").read_bytes() == b"precious"


def test_a_link_to_a_picture_is_removed_and_not_what_it_points_at(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"precious")
    out = tmp_path / "out"
    fill(out)
    os.symlink(tmp_path / "photo.png", out / "masks" / "link.png")
    fill(out, overwrite=True)
    assert files_below(out) == ["dataset.json", "masks/a.png"]
    assert (tmp_path / "photo.png").read_bytes() == b"precious"


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"precious")
    with pytest.raises(FolderError, match="out: is a file, expected a folder"):
        fill(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out").read_bytes() == b"precious"


def test_a_file_in_the_way_of_a_parent_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(FolderError, match="file"):
        fill(tmp_path / "file" / "out")


def test_a_second_writer_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    with output_folder(tmp_path, RECORD, OWNED, overwrite=False) as folder:
        (tmp_path / "samples.jsonl").write_bytes(b"first")
        with pytest.raises(FolderError, match=r"segdata a command \(process \d+ on .*\) is writing there"):
            fill(tmp_path, overwrite=True)
        assert (tmp_path / "samples.jsonl").read_bytes() == b"first"
        folder.finish(WHOLE)
    assert files_below(tmp_path) == ["dataset.json", "samples.jsonl"]


def test_a_lock_that_a_killed_run_left_behind_is_no_lock(tmp_path: Path) -> None:
    break_off(tmp_path)
    (tmp_path / ".segdata-lock").touch()
    fill(tmp_path)
    assert files_below(tmp_path) == ["dataset.json", "masks/a.png"]


def test_a_run_that_was_killed_at_its_very_start_can_be_started_again(tmp_path: Path) -> None:
    (tmp_path / ".segdata-lock").touch()
    fill(tmp_path)


def test_files_below_are_sorted_and_links_to_folders_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("z.txt", "b/y.txt", "b/c/x.txt"):
        (tmp_path / name).touch()
    os.symlink(tmp_path, tmp_path / "b" / "up")
    assert files_below(tmp_path) == ["b/c/x.txt", "b/up", "b/y.txt", "z.txt"]
    assert files_below(tmp_path / "nowhere") == []


def test_an_output_may_neither_be_nor_hold_what_is_read(tmp_path: Path) -> None:
    photos = tmp_path / "raw" / "photos"
    photos.mkdir(parents=True)
    (photos / "a.jpg").write_bytes(b"precious")
    for out in (photos, photos.parent, tmp_path):
        with pytest.raises(FolderError, match="holds the input"), output_folder(out, RECORD, ".+", True, [photos]):
            pass
    assert (photos / "a.jpg").read_bytes() == b"precious"


def test_somebody_elses_json_of_our_name_is_foreign(tmp_path: Path) -> None:
    (tmp_path / RECORD).write_bytes(b'{"my": "own dataset"}')
    (tmp_path / "samples.jsonl").write_bytes(b"precious")
    with pytest.raises(FolderError, match="did not make"):
        fill(tmp_path, overwrite=True)
    (tmp_path / RECORD).unlink()
    (tmp_path / ".segdata-unfinished").touch()
    with pytest.raises(FolderError, match="did not make"):
        fill(tmp_path)
    assert (tmp_path / "samples.jsonl").read_bytes() == b"precious"


def test_no_folder_of_ours_may_hold_another(tmp_path: Path) -> None:
    fill(tmp_path / "outer")
    with pytest.raises(FolderError, match="lies in 'outer'"):
        fill(tmp_path / "outer" / "inner")
