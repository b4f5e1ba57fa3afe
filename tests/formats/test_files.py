"""Files: whole or not at all; listings that pass nothing over in silence; names that every system takes."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from segdata.errors import FolderError, ImageRefused, SourceError
from segdata.formats.files import (
    atomic_file,
    key_of,
    list_pictures,
    printable,
    read_regular,
    relative_posix,
    safe_id,
    sha256_file,
    sha256_hex,
    whole_name,
    write_atomic,
)


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")
    return folder


def named_in_bytes(folder: Path, name: bytes) -> str:
    """A file whose name is not UTF-8; skips where the file system refuses such names."""
    try:
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return os.fsdecode(name)


# ---- writing


def test_a_file_appears_when_its_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with atomic_file(path) as file:
        file.write(b"one ")
        file.write(b"two")
        assert not path.exists()
    assert path.read_bytes() == b"one two"
    assert listing(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_block_that_raises_leaves_nothing_behind(
    tmp_path: Path, error: type[BaseException], old: bytes | None
) -> None:
    path = tmp_path / "a.bin"
    if old is not None:
        path.write_bytes(old)

    def write() -> None:
        with atomic_file(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert listing(tmp_path) == ([] if old is None else ["a.bin"])
    assert old is None or path.read_bytes() == old


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert listing(tmp_path) == ["a.bin"]
    assert path.read_bytes() == b"old"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a.bin") as first, atomic_file(tmp_path / "a.bin") as second:
        first.write(b"fir")
        second.write(b"second")
        first.write(b"st!")
        assert {whole_name(name) for name in listing(tmp_path)} == {"a.bin"}
    assert (tmp_path / "a.bin").read_bytes() == b"first!"  # which was renamed last
    assert listing(tmp_path) == ["a.bin"]


def test_a_name_in_the_making_tells_the_whole_one() -> None:
    assert whole_name("a.bin.0123abcd.segdata-partial") == "a.bin"
    assert whole_name("a.bin.segdata-partial") == "a.bin"
    for name in ("a.bin", "a.segdata-partial.bin", ""):
        assert whole_name(name) is None


def test_a_full_disk_names_the_file_that_was_being_written(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    with pytest.raises(OSError, match="No space left") as caught, atomic_file(path):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(path)
    assert listing(tmp_path) == []


def test_a_file_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (done.append("fsync"), fsync(number)))
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append("rename"), replace(a, b)))
    write_atomic(tmp_path / "a.bin", b"whole")
    assert done == ["fsync", "rename", "fsync"]  # the last one is the folder's, which holds the name


def test_hashes_are_of_all_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "a.bin").write_bytes(data)
    assert sha256_file(tmp_path / "a.bin") == sha256_hex(data) == hashlib.sha256(data).hexdigest()


# ---- reading


def test_a_regular_file_is_read_and_so_is_a_link_to_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    os.symlink(tmp_path / "a.jpg", tmp_path / "link.jpg")
    assert read_regular(tmp_path / "a.jpg") == read_regular(tmp_path / "link.jpg") == b"x"


def test_a_pipe_is_refused_without_being_opened(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes in this file system")
    os.mkfifo(tmp_path / "a.jpg")  # opening it would wait for ever
    with pytest.raises(ImageRefused, match=r"unreadable: 'a\.jpg' is not a regular file"):
        read_regular(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder.jpg", "'folder.jpg' is not a regular file"),
        ("empty.jpg", r"'empty.jpg' is empty \(0 bytes\)"),
        ("nowhere.jpg", "'nowhere.jpg': No such file"),
        ("dangling.jpg", "'dangling.jpg': No such file"),
        ("loop.jpg", "'loop.jpg': "),
        ("empty.jpg/a.jpg", "'a.jpg': "),
    ],
)
def test_what_is_no_file_with_bytes_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "empty.jpg").touch()
    os.symlink(tmp_path / "gone", tmp_path / "dangling.jpg")
    os.symlink(tmp_path / "loop.jpg", tmp_path / "loop.jpg")
    with pytest.raises(ImageRefused, match=f"^unreadable: {message}"):
        read_regular(tmp_path / name)


# ---- listing


def test_suffixes_count_in_any_letter_case(tmp_path: Path) -> None:
    wanted = ["A.JPG", "b.Jpeg", "c.jpg", "d.PNG", "e.TIF", "f.webp"]
    assert list_pictures(touch(tmp_path, *reversed(wanted))).names == wanted


def test_what_is_passed_over_is_counted_by_kind(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".hidden.jpg", ".DS_Store", "notes.TXT", "more.txt", "README", "x.jpg.partial")
    (tmp_path / "folder").mkdir()
    found = list_pictures(tmp_path)
    assert found.names == ["a.jpg"]
    assert found.bad_names == []
    assert found.ignored == {"hidden": 2, ".txt": 2, "no suffix": 1, ".partial": 1, "folder": 1}


@pytest.mark.parametrize("name", ["a b.jpg", "a[1].jpg", "a\nb.jpg", "日本.jpg", "a,b'.jpg", "-n.jpg", "%s.jpg"])
def test_odd_names_are_listed(tmp_path: Path, name: str) -> None:
    try:
        touch(tmp_path, name)
    except OSError:
        pytest.skip("this file system refuses the name")
    assert list_pictures(tmp_path).names == [name]


def test_names_that_utf8_cannot_hold_are_kept_apart(tmp_path: Path) -> None:
    bad = named_in_bytes(tmp_path, b"b\xff.jpg")
    named_in_bytes(tmp_path, b"c.\xff")
    found = list_pictures(touch(tmp_path, "a.jpg"))
    assert (found.names, found.bad_names, found.ignored) == (["a.jpg"], [bad], {"no suffix": 1})
    assert printable(bad) == "b\\xff.jpg"


def test_a_folder_with_a_pictures_name_is_not_lost_but_refused_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    assert list_pictures(tmp_path).names == ["folder.jpg"]
    with pytest.raises(ImageRefused, match="not a regular file"):
        read_regular(tmp_path / "folder.jpg")


def test_only_the_folder_itself_is_listed(tmp_path: Path) -> None:
    touch(tmp_path / "below", "a.jpg")
    os.symlink(tmp_path, tmp_path / "below" / "up")
    found = list_pictures(tmp_path)
    assert (found.names, found.ignored) == ([], {"folder": 1})


@pytest.mark.parametrize("name", ["nowhere", "a.jpg"])
def test_a_folder_that_is_not_there_is_named(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "a.jpg")
    with pytest.raises(SourceError, match=f"{name}: .+, expected a folder of pictures"):
        list_pictures(tmp_path / name)


# ---- names


def test_keys_join_letter_cases_and_unicode_forms() -> None:
    assert key_of("Müller") == key_of("MÜLLER") == key_of(unicodedata.normalize("NFD", "Müller"))
    assert key_of("a") != key_of("b")


STEMS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda text: "\0" not in text and "/" not in text
)
FORBIDDEN = set('<>:"/\\|?*') | {chr(i) for i in range(32)}


@settings(max_examples=300, deadline=None)
@given(STEMS)
@example("con")
@example("x" * 500)
@example("ü" * 120)
@example("?" * 100)
@example("a. ")
@example("..")
def test_an_id_is_a_file_name_on_every_system(stem: str) -> None:
    name = safe_id(stem)
    assert name
    assert not FORBIDDEN & set(name)
    assert name[-1] not in ". "
    assert len(name.encode("utf-8")) <= 180
    assert unicodedata.is_normalized("NFC", name)


@settings(max_examples=300, deadline=None)
@given(STEMS, STEMS)
@example("a", "a ")
@example("a.", "a.%")
@example("con", "%63on")
@example("a:b", "a%3Ab")
@example("x" * 300, "x" * 301)
def test_different_stems_have_different_ids(one: str, other: str) -> None:
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    assert (safe_id(one) == safe_id(other)) == same


def test_an_id_that_was_cut_is_not_the_id_of_its_own_name() -> None:
    cut = safe_id("x" * 500)
    assert safe_id(cut) != cut


@pytest.mark.parametrize("stem", ["person_00012", "a b", "ü", "v1.2", "10_0", "a(1)", "日本"])
def test_ordinary_stems_are_their_own_ids(stem: str) -> None:
    assert safe_id(stem) == stem


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("a:b", "a%3Ab"),
        ("a\nb", "a%0Ab"),
        ("50%", "50%25"),
        ("con", "%63on"),
        ("CON", "%43ON"),
        ("com1", "%63om1"),
        ("nul.tar", "%6Eul.tar"),
        ("trailing.", "trailing%2E"),
        ("trailing ", "trailing%20"),
        ("console", "console"),
        ("com", "com"),
    ],
)
def test_what_windows_refuses_is_escaped(stem: str, name: str) -> None:
    assert safe_id(stem) == name


@pytest.mark.parametrize("stem", ["con.", "AUX.", "nul.a."])
def test_a_reserved_name_is_escaped_where_its_end_is_too(stem: str) -> None:
    assert safe_id(stem).split(".")[0].lower() not in {"con", "aux", "nul"}


@pytest.mark.parametrize("stem", [".", "..", ".a."])
def test_no_id_starts_with_a_dot(stem: str) -> None:
    assert not safe_id(stem).startswith(".")


def test_paths_are_relative_and_posix(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert relative_posix(tmp_path / "raw", tmp_path / "a" / "b") == "../../raw"
    assert relative_posix(tmp_path, tmp_path) == "."


def test_paths_on_two_drives_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise ValueError("path is on mount 'C:', start on mount 'D:'")  # what Windows says

    monkeypatch.setattr(os.path, "relpath", fail)
    with pytest.raises(FolderError, match="Keep both on one drive"):
        relative_posix(tmp_path, tmp_path)
