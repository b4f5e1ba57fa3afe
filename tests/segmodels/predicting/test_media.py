"""What predict takes: which inputs are found, in which order, and that no two of them get one name."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segdata.errors import OptionError, SegdataError
from segdata.formats.files import key_of
from segmodels.predicting.media import Item, Media, find

Touch = Callable[..., None]
POSIX = pytest.mark.skipif(os.name == "nt", reason="names and files that Windows does not have")


@pytest.fixture
def touch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Touch:
    """``touch("in/a.jpg", ...)`` in a folder of its own, which is the current one."""
    monkeypatch.chdir(tmp_path)

    def write(*names: str) -> None:
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"never read")

    return write


def names(*inputs: str) -> dict[str, str]:
    """What each input is called, by its path, in order."""
    return {item.path.as_posix(): item.name for item in find(inputs).items}


# ---- what is found ---------------------------------------------------------------------------------------------------


def test_files_are_taken_in_the_order_given_and_those_of_folders_and_patterns_sorted(touch: Touch) -> None:
    touch("z.jpg", "in/b.png", "in/a.jpg", "in/sub/c.jpg", "more/2.webp", "more/1.TIF")
    assert list(names("z.jpg", "in", "more/*")) == ["z.jpg", "in/a.jpg", "in/b.png", "more/1.TIF", "more/2.webp"]
    assert list(names("more/*", "z.jpg")) == ["more/1.TIF", "more/2.webp", "z.jpg"]


def test_a_folder_gives_the_pictures_that_lie_right_in_it_and_says_what_it_passed_over(touch: Touch) -> None:
    touch("in/a.jpg", "in/.hidden.jpg", "in/notes.txt", "in/sub/b.jpg", "in/clip.MP4", "in/none")
    found = find(["in"])
    assert [(item.name, item.kind) for item in found.items] == [("a", "photo"), ("clip", "video")]
    assert found.ignored == {"hidden": 1, ".txt": 1, "folder": 1, "no suffix": 1}


def test_a_pattern_reaches_into_folders_and_takes_pictures_and_videos_alone(touch: Touch) -> None:
    touch("in/a.jpg", "in/notes.txt", "in/x/y/b.PNG", "in/x/c.webm")
    (Path("in") / "folder.jpg").mkdir()
    assert list(names("in/**/*")) == ["in/a.jpg", "in/x/c.webm", "in/x/y/b.PNG"]
    assert list(names("in/?.jp[g]")) == ["in/a.jpg"]


def test_names_that_look_like_patterns_are_files_first(touch: Touch) -> None:
    touch("a[1].jpg", "a1.jpg", "in[2]/b.jpg")
    assert list(names("a[1].jpg")) == ["a[1].jpg"]
    assert list(names("in[2]")) == ["in[2]/b.jpg"]


def test_a_file_that_is_named_may_have_any_suffix(touch: Touch) -> None:
    touch("photo", "photo.txt")
    assert names("photo.txt", "photo") == {"photo.txt": "photo-txt", "photo": "photo-"}


@POSIX
def test_a_file_that_is_named_twice_is_taken_once_where_it_was_first(touch: Touch, tmp_path: Path) -> None:
    touch("in/a.jpg", "in/b.jpg")
    Path("link.jpg").symlink_to("in/b.jpg")
    assert list(names("link.jpg", "in", "./in/a.jpg", "in/*.jpg", str(tmp_path / "in"))) == ["link.jpg", "in/a.jpg"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nowhere", "nowhere: no such file or folder, expected photos, videos, folders, patterns or camera:0."),
        ("", "expected"),
        ("camera:x", "camera:x: no such file or folder"),
        ("in/*.png", r"in/\*\.png: no photo or video is named like that \(0 other files are\)"),
        ("in/*.txt", r"\(1 other files are\)"),
        ("empty", r"empty: holds no photo or video.*'empty/\*\*/\*'"),
        ("n" * 300, "n: "),
        ("*" + "n" * 300, r"\*n+: no photo or video is named like that"),
    ],
    ids=["nowhere", "nothing", "no camera", "no match", "other files", "empty", "long", "long pattern"],
)
def test_an_input_that_names_nothing_is_refused_in_one_line(touch: Touch, text: str, expected: str) -> None:
    touch("in/notes.txt", "a.jpg")
    Path("empty").mkdir()
    with pytest.raises(OptionError, match=expected) as caught:
        find(["a.jpg", text])
    assert "\n" not in str(caught.value)


@POSIX
def test_a_pipe_is_refused_where_it_is_named_and_found_in_a_folder_without_being_opened(touch: Touch) -> None:
    touch("in/a.jpg")
    os.mkfifo("in/pipe.jpg")
    with pytest.raises(OptionError, match=r"in/pipe\.jpg: is a pipe or device, expected a photo, a video or a folder"):
        find(["in/pipe.jpg"])
    assert list(names("in")) == ["in/a.jpg", "in/pipe.jpg"]
    assert list(names("in/*")) == ["in/a.jpg"]


@POSIX
@pytest.mark.parametrize("given", ["in", "in/*"], ids=["folder", "pattern"])
def test_a_name_that_is_not_utf_8_is_passed_over_and_the_others_are_taken(touch: Touch, given: str) -> None:
    touch("in/a.jpg", os.fsdecode(b"in/\xff.jpg"))
    found = find([given])
    assert [item.name for item in found.items] == ["a"]
    assert found.ignored == {"name not UTF-8": 1}


@POSIX
def test_a_file_of_a_name_that_is_not_utf_8_is_taken_or_refused_by_an_error_of_ours(touch: Touch) -> None:
    touch("a.jpg", os.fsdecode(b"\xff.jpg"))
    with contextlib.suppress(SegdataError):
        found = find(["a.jpg", os.fsdecode(b"\xff.jpg")])
        assert "".join(item.name for item in found.items).encode("utf-8")


# ---- kinds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.jpg", "photo"), ("a.GIF", "photo"), ("a.mp4", "video"), ("a.MoV", "video"), ("a", "photo"), ("a.b", "photo")],
)
def test_a_suffix_says_whether_it_is_a_video(touch: Touch, name: str, kind: str) -> None:
    touch(name)
    assert [item.kind for item in find([name]).items] == [kind]


def test_a_camera_has_its_number_and_is_looked_at_alone(touch: Touch) -> None:
    touch("a.jpg")
    expected = Item(Path("camera:2"), "camera-2", "camera", 2)
    assert find(["camera:2"]) == find(["camera:2", "camera:2"]) == Media([expected])
    for inputs in (["camera:0", "a.jpg"], ["a.jpg", "camera:0"], ["camera:0", "camera:1"]):
        with pytest.raises(OptionError, match=r"camera is looked at alone\. Give it as the only input"):
            find(inputs)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_no_result_is_called_as_a_video_in_the_making_is(touch: Touch) -> None:
    """Those are NAME.part.SUFFIX until they are whole."""
    touch("in/a.jpg", "in/a.part.jpg", "in/b.PART.png")
    assert [item.name for item in find(["in"]).items] == ["a", "a%2Epart", "b%2Epart"]


def test_results_are_called_by_the_stem_and_by_more_where_another_has_it(touch: Touch) -> None:
    touch("in/alone.jpg", "in/twin.jpg", "in/twin.png", "in/a.b.jpg", "in/sub/twin.jpg")
    assert names("in/**/*") == {
        "in/a.b.jpg": "a.b",
        "in/alone.jpg": "alone",
        "in/sub/twin.jpg": "sub-twin.jpg",
        "in/twin.jpg": "twin.jpg",
        "in/twin.png": "twin-png",
    }


@POSIX
@pytest.mark.parametrize(
    ("name", "called"),
    [
        (" with  spaces .jpg", " with  spaces%20"),
        ("100%.jpg", "100%25"),
        ("two\nlines.jpg", "two%0Alines"),
        ("con.jpg", "%63on"),
        ("why?.jpg", "why%3F"),
        ("a\u0308.jpg", "\u00e4"),
        ("..jpg", "%2E"),
        ("a.b.c.jpg", "a.b.c"),
    ],
)
def test_a_name_is_one_that_every_file_system_takes(touch: Touch, name: str, called: str) -> None:
    touch(name)
    assert list(names(name).values()) == [called]


def check_distinct(found: Sequence[str]) -> None:
    assert len({key_of(name) for name in found}) == len(found), found
    for name in found:
        assert len(f"{name}.part.webm".encode()) <= 255
        assert not set(name) & set('<>:"/\\|?*\0\n')
        assert name[:1] not in ("", ".")


COLLIDING = {
    "one letter case": ["A.jpg", "a.JPG", "a.png"],
    "one Unicode form": ["\u00e4.jpg", "a\u0308.jpg"],
    "a stem that another gets with its suffix": ["a.jpg", "a.png", "a-jpg.png"],
    "the same, of names that are escaped": ["a?.jpg", "a?.png", "a?-jpg.png"],
    "the same, of names that are cut": [f"{'l' * 190}{end}" for end in (".jpg", ".png", "-jpg.png")],
    "paths that are one with dashes": ["x/a/b.jpg", "x-a/b.jpg"],
    "the same, beside a stem with a number": ["x/a/b.jpg", "x-a/b.jpg", "b-1.jpg"],
    "above and below": ["x/b.jpg", "x/y/../../x-b.jpg", "x-b.jpg.png"],
}


@POSIX
@pytest.mark.parametrize("files", COLLIDING.values(), ids=COLLIDING)
def test_no_two_inputs_have_one_name(touch: Touch, files: list[str]) -> None:
    Path("x/y").mkdir(parents=True)
    touch(*files)
    found = names(*files)
    assert len(found) == len(files)
    check_distinct(list(found.values()))
    check_distinct(list(names(*reversed(files)).values()))


_PART = st.sampled_from(["a", "A", "b", "a-", "-", "1", "?", "%", ".", " ", "jpg", "\u00e4"])
_STEM = st.lists(_PART, min_size=1, max_size=3).map("".join).filter(lambda stem: stem.strip("."))
_PATH = st.tuples(st.sampled_from(["", "a/", "a-a/", "a/a/"]), _STEM, st.sampled_from([".jpg", ".JPG", ".png", "-jpg"]))


@POSIX
@settings(max_examples=150, deadline=None)
@given(st.lists(_PATH.map("".join), min_size=2, max_size=7, unique=True))
def test_no_two_inputs_of_any_names_have_one(files: list[str]) -> None:
    folder = tempfile.mkdtemp()
    try:
        for file in files:
            path = Path(folder) / file
            path.parent.mkdir(exist_ok=True, parents=True)
            path.touch()
        found = find([os.path.join(folder, file) for file in files]).items
        assert len(found) == len(files)
        check_distinct([item.name for item in found])
    finally:
        shutil.rmtree(folder)


def test_names_do_not_depend_on_where_the_inputs_lie(touch: Touch, tmp_path: Path) -> None:
    """So a run can be gone on with from another folder, and no name tells what a machine's folders are called."""
    touch("in/sub/twin.jpg", "in/twin.jpg")
    relative, absolute = (find([text]).items for text in ("in/**/*", f"{tmp_path.as_posix()}/in/**/*"))
    assert [item.name for item in relative] == [item.name for item in absolute]
