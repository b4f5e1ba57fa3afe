"""The command predict on photos: what lies in its folder, whole or not at all, and what a user is told."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segdata.errors import FolderError, JobFailed, OptionError, Stopped
from segdata.formats.files import sha256_file
from segdata.formats.folders import LOCK, MARKER, PARTS, is_finished
from segdata.records import Geometry, Sample, unseal
from segmodels import evaluate as evaluate_module
from segmodels import predict as predict_module
from segmodels.config import BEST
from segmodels.evaluate import evaluate
from segmodels.photo_size import at_photo_size
from segmodels.predict import PredictOptions, PredictReport, predict, watch
from segmodels.predicting.rendering import SAVES, Look
from segmodels.predicting.results import PREDICTIONS_JSON, RESULTS_JSONL, PredictionsRecord
from segmodels.quiet import keras
from segmodels.refine import Refine
from tests.folders import lines, segdata, tree
from tests.material import saved
from tests.segmodels.material import BINARY
from tests.segmodels.predicting.test_photos import THREE, network, of_colors, of_red, two_halves
from tests.segmodels.test_evaluate import write, write_run
from tests.test_cli import run as run_command

Ids = npt.NDArray[np.uint8]
POSIX = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
_WAIT_S = 60


def drawn_network(classes: int, seed: int) -> Any:
    """A network that nobody trained: 3x3 convolutions by chance, whose classes are all somewhere."""
    dice = np.random.default_rng(seed)
    inputs = keras.Input((None, None, 3), name="image")
    layer = keras.layers.Conv2D(classes, 3, padding="same", name="logits")
    answer = layer(inputs)
    layer.set_weights([dice.normal(0, 0.02, (3, 3, 3, classes)), np.zeros(classes)])
    return keras.Model(inputs, answer, name="drawn")


def spots(seed: int, height: int, width: int) -> Ids:
    """Soft spots of all colours."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run for subprocesses, which cannot be given a network that is made up."""
    return write_run(
        tmp_path_factory.mktemp("runs") / "run", drawn_network(2, 1), Geometry(size=(32, 32), fit="letterbox")
    )


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is one without Keras, which says person where a photo is red; of the run ``three`` one of colours."""

    def opened(path: Path) -> Any:
        return network(of_colors, THREE) if path.name == "three" else network()

    monkeypatch.setattr(predict_module, "open_network", opened)


@pytest.fixture(autouse=True)
def _no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here cuts the power."""
    monkeypatch.setattr(os, "sync", lambda: None)
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with four photos in ``in``."""
    monkeypatch.chdir(tmp_path)
    for i in range(4):
        add(tmp_path / "in" / f"{i}.png", height=40 + i)
    return tmp_path


def add(path: Path, height: int = 40, cut: int = 30) -> None:
    """A photo: red on the left of column ``cut``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(saved(two_halves(height, 60, cut), "PNG"))


def go(*inputs: str, out: str = "out", saves: str = "mask,overlay", background: str = "white", **options: Any) -> Any:
    """predict as the command would call it, with a look of these saves."""
    refine = options.pop("refine", Refine())
    look = Look(tuple(saves.split(",")), background, refine)
    return predict(Path(options.pop("run", "run")), inputs or ("in",), Path(out), PredictOptions(look, **options))


def results(out: str | Path = "out") -> list[dict[str, Any]]:
    return lines(Path(out) / RESULTS_JSONL)


def untimed(out: str | Path) -> tuple[dict[str, str], list[dict[str, Any]], dict[str, Any]]:
    """All that a folder says but for timings, and the hash of what holds them."""
    record = json.loads((Path(out) / PREDICTIONS_JSON).read_bytes())
    record["results"].pop("sha256")
    record.pop("seal")
    said = [{key: value for key, value in line.items() if not key.endswith("_ms")} for line in results(out)]
    files = {name: digest for name, digest in tree(Path(out)).items() if name not in (PREDICTIONS_JSON, RESULTS_JSONL)}
    return files, said, record


def mask(file: Path) -> Ids:
    with Image.open(file) as picture:
        return np.asarray(picture)


# ---- the same as evaluate --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", [Geometry(size=(33, 47), fit="letterbox"), Geometry(size=(32, 24), fit="stretch")])
@pytest.mark.parametrize("labels", [BINARY, THREE], ids=lambda labels: labels.name)
def test_a_mask_is_what_evaluate_measures_of_the_same_photo(
    tmp_path: Path, labels: Any, geometry: Geometry, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [(61, 83), (33, 47), (20, 90), (70, 21)]
    samples = [Sample(f"p{i}", spots(i, *size), np.ones(size, np.uint8)) for i, size in enumerate(sizes)]
    (tmp_path / "in").mkdir()
    for one in samples:
        (tmp_path / "in" / f"{one.id}.png").write_bytes(saved(one.image, "PNG"))
    run = write_run(
        tmp_path / "run", drawn_network(len(labels.names), {2: 4, 3: 11}[len(labels.names)]), geometry, labels=labels
    )
    measured: list[Ids] = []

    def watched(*arguments: Any) -> Any:
        measured.append(at_photo_size(*arguments))
        return measured[-1]

    monkeypatch.setattr(evaluate_module, "at_photo_size", watched)
    evaluate(run, write(tmp_path / "shards", samples, labels=labels))
    predict(run, [str(tmp_path / "in")], tmp_path / "out", PredictOptions(Look(("mask",))))
    shown: set[int] = set()
    for one, expected in zip(samples, measured, strict=True):
        found = mask(tmp_path / "out" / "mask" / f"{one.id}.png")
        np.testing.assert_array_equal(found, expected)
        shown |= set(np.unique(found).tolist())
    assert shown == set(range(len(labels.names))), "or the test sees nothing"


# ---- a folder --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("made_up")
def test_a_folder_holds_what_was_asked_for_and_a_line_for_each_input(here: Path) -> None:
    report = go("in/2.png", "in", saves="mask,alpha,composite", refine=Refine(0.4, fill_holes=True))
    assert isinstance(report, PredictReport)
    names = ["2", "0", "1", "3"]
    assert [line["name"] for line in results()] == names
    assert set(tree(here / "out")) == {PREDICTIONS_JSON, RESULTS_JSONL} | {
        f"{save}/{name}{suffix}"
        for name in names
        for save, suffix in (("mask", ".png"), ("alpha", ".png"), ("composite", ".jpg"))
    }
    assert not (here / "out" / MARKER).exists()
    assert not (here / "out" / PARTS).exists()
    assert is_finished(here / "out", PREDICTIONS_JSON)
    record = unseal((here / "out" / PREDICTIONS_JSON).read_bytes(), PredictionsRecord, "it")
    assert (record.model, record.network_sha256, record.done, record.skipped) == ("none", "0" * 64, 4, {})
    assert record.results.sha256 == sha256_file(here / "out" / RESULTS_JSONL)
    assert record.results.count == 4
    assert record.options["--save"] == "mask,alpha,composite"
    assert (record.options["--threshold"], record.options["--fill-holes"]) == (0.4, True)
    assert (report.photos, report.frames, report.skipped, report.resumed, report.ignored) == (4, 0, {}, 0, {})
    assert report.person_share == pytest.approx(np.mean([line["person_share"] for line in results()]))
    assert report.notes() == ()


@pytest.mark.usefixtures("made_up")
def test_what_names_options_changes_the_record(here: Path) -> None:
    recorded = PredictOptions().recorded()
    for i, changed in enumerate(
        (
            {"look": Look(("mask",))},
            {"look": Look(background="black")},
            {"look": Look(refine=Refine(0.4))},
            {"look": Look(refine=Refine(keep_largest=True))},
            {"look": Look(refine=Refine(fill_holes=True))},
            {"look": Look(refine=Refine(feather_px=2))},
            {"look": Look(refine=Refine(guided=True))},
            {"alpha_video": "png"},
            {"seconds": 2.0},
        )
    ):
        found = replace(PredictOptions(), **changed).recorded()  # type: ignore[arg-type]
        assert sum(found[key] != recorded[key] for key in recorded) == 1, i
    for same in ({"batch_size": 3}, {"overwrite": True}):
        assert replace(PredictOptions(), **same).recorded() == recorded


@pytest.mark.usefixtures("made_up")
def test_no_file_says_where_the_folder_lies(here: Path) -> None:
    (here / "in" / "bad.png").write_bytes(b"no")
    add(here / "wall.png")
    go(out="relative", saves="composite", background="wall.png")
    go(str(here / "in"), out=str(here / "absolute"), saves="composite", background=str(here / "wall.png"))
    go(str(here / "in" / "*.png"), out=str(here / "pattern"), saves="composite", background="./wall.png")
    for out in ("relative", "absolute", "pattern"):
        for name in (PREDICTIONS_JSON, RESULTS_JSONL):
            assert here.name not in (here / out / name).read_text(encoding="utf-8")
        assert untimed(out) == untimed("relative")


@pytest.mark.usefixtures("made_up")
def test_all_kinds_of_pictures_open_in_other_programs(here: Path) -> None:
    go(saves=",".join(SAVES), background="transparent", run="three")
    modes = {"mask": "L", "alpha": "L", "overlay": "RGB", "cutout": "RGBA", "composite": "RGBA", "collage": "RGB"}
    for line in results():
        assert [file.split("/")[0] for file in line["files"]] == list(SAVES)
        assert line["class_shares"].keys() == {"background", "head", "body"}
        for file in line["files"]:
            save = file.split("/")[0]
            with Image.open(here / "out" / file) as picture:
                picture.load()
                width = 3 * 60 + 16 if save == "collage" else 60
                assert picture.size == (width, line["height"])
                assert picture.mode == modes.get(save, picture.mode)
                assert getattr(picture, "n_frames", 1) == (2 if save == "gif" else 1)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_files_do_not_depend_on_the_batch(here: Path, batch_size: int) -> None:
    go(out="eight")
    go(out="other", batch_size=batch_size)
    assert untimed("other") == untimed("eight")


def test_files_of_a_real_network_do_not_depend_on_the_batch(run: Path, here: Path) -> None:
    for i in range(7):
        (here / "in" / f"d{i}.png").write_bytes(saved(spots(i, 90, 70), "PNG"))
    for batch_size in (1, 3, 100):
        go(run=run, out=f"b{batch_size}", batch_size=batch_size, saves="mask,alpha")
        assert untimed(f"b{batch_size}") == untimed("b1")


# ---- what is skipped -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("made_up")
def test_bad_files_are_skipped_counted_and_named(here: Path) -> None:
    for i in range(6):
        (here / "in" / f"bad{i}.jpg").write_bytes(b"" if i else b"\xff\xd8\xff")
    (here / "in" / "folder.jpg").mkdir()
    report = go()
    assert report.photos == 4
    assert sum(report.skipped.values()) == 7
    assert [bool(line.get("reason")) for line in results()] == [False] * 4 + [True] * 7
    record = json.loads((here / "out" / PREDICTIONS_JSON).read_bytes())
    assert (record["done"], record["skipped"], record["results"]["count"]) == (4, report.skipped, 11)
    notes = report.notes()
    assert notes[0] == f"7 inputs were skipped; all are in {Path('out') / RESULTS_JSONL}:"
    assert len(notes) == 6  # no more than five are shown
    assert notes[1].startswith("bad0: unreadable: ")
    assert "folder.jpg' is not a regular file" in results()[-1]["detail"]


@pytest.mark.usefixtures("made_up")
def test_nothing_looks_finished_where_no_input_can_be_used(here: Path) -> None:
    (here / "bad").mkdir()
    for name in ("a.jpg", "b.png"):
        (here / "bad" / name).write_bytes(b"no picture")
    for _ in range(2):  # and it may be tried again
        with pytest.raises(JobFailed, match=r"none of 2 inputs can be used\. The first, 'a': unreadable: .*results"):
            go("bad")
        assert not is_finished(here / "out", PREDICTIONS_JSON)
        assert [line["reason"] for line in results()] == ["unreadable"] * 2
        assert set(tree(here / "out")) == {MARKER, RESULTS_JSONL, f"{PARTS}/{RESULTS_JSONL}"}
    report = go("in", saves="mask")  # with other options too, without being told to overwrite
    assert report.photos == 4
    assert is_finished(here / "out", PREDICTIONS_JSON)


@pytest.mark.usefixtures("made_up")
def test_the_smallest_photo_does_not_end_the_others(here: Path) -> None:
    (here / "in" / "dot.png").write_bytes(saved(two_halves()[-1:, :1], "PNG"))
    assert go().photos == 5


# ---- folders that are refused ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("made_up")
def test_a_finished_folder_is_replaced_only_when_told(here: Path) -> None:
    go(saves="mask,cutout")
    before = tree(here / "out")
    with pytest.raises(FolderError, match=r"already holds a finished predictions\.json.*--overwrite"):
        go(saves="mask")
    assert tree(here / "out") == before
    go("in/0.png", saves="mask", overwrite=True)
    assert set(tree(here / "out")) == {PREDICTIONS_JSON, RESULTS_JSONL, "mask/0.png"}


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("foreign", ["notes.txt", "mask/notes.txt", "other/a.png", "mask/a/b.png", "a.png"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_holds_files_of_others_is_left_alone(here: Path, foreign: str, overwrite: bool) -> None:
    go()
    path = here / "out" / foreign
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("mine")
    before = tree(here / "out")
    with pytest.raises(FolderError, match=f"holds {foreign!r}, which segdata did not make"):
        go(overwrite=overwrite)
    assert tree(here / "out") == before
    assert not (here / "out" / LOCK).exists()


@pytest.mark.usefixtures("made_up")
def test_a_folder_may_neither_be_the_input_nor_hold_it(here: Path) -> None:
    for out in ("in", "."):
        with pytest.raises(FolderError, match=r": holds .*Choose another --out"):
            go(out=out)
    assert set(tree(here)) == {f"in/{i}.png" for i in range(4)}


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("given", ["in", "in/*", "in/**/*"])
def test_a_folder_among_the_inputs_is_never_one_of_them(here: Path, given: str) -> None:
    """What an earlier run wrote there is no photo to look at: neither when it is made anew nor when it is gone on
    with.
    """
    stop_at_the_end(given, out="in/out")
    assert go(given, out="in/out").resumed == 4
    assert go(given, out="in/out", overwrite=True).photos == 4


def test_a_run_is_no_folder_to_write_to(run: Path, here: Path) -> None:
    before = tree(run)
    for out in (run, run / "below"):
        with pytest.raises(FolderError, match=r"Choose an(other)? --out"):
            go(run=run, out=str(out))
    assert tree(run) == before


def test_what_is_wrong_with_inputs_and_options_is_told_before_the_network_loads(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(path: Path) -> Any:
        raise AssertionError("loaded")

    monkeypatch.setattr(predict_module, "open_network", never)
    with pytest.raises(OptionError, match="nowhere: no such file or folder"):
        go("nowhere")
    with pytest.raises(OptionError, match="--background"):
        go(background="nowhere")
    Path("file").touch()
    with pytest.raises(FolderError, match="file: is a file, expected a folder to write to"):
        go(out="file")
    assert not (here / "out").exists()


def test_without_a_folder_there_must_be_a_camera(here: Path) -> None:
    for inputs in (["in"], ["in/0.png"]):
        with pytest.raises(OptionError, match=r"--out is missing: expected a folder to write to\. Only a camera"):
            watch(here / "run", inputs, PredictOptions())


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"batch_size": 0}, "--batch-size 0: expected 1 to 1024"),
        ({"batch_size": 1025}, "--batch-size 1025"),
        ({"seconds": 0.0}, "--seconds 0.0: expected a number above 0"),
        ({"seconds": float("nan")}, "--seconds nan"),
        ({"seconds": float("inf")}, "--seconds inf"),
        ({"alpha_video": "avi"}, "--alpha-video 'avi': expected one of webm, prores, png"),
    ],
)
def test_options_out_of_their_bounds_are_refused(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError, match=expected):
        PredictOptions(**wrong)


# ---- going on --------------------------------------------------------------------------------------------------------


@contextmanager
def stopping(after: int) -> Iterator[None]:
    """Ctrl-C when so many photos are done."""
    real = predict_module.predict_photos

    def stopped(*arguments: Any) -> Iterator[Any]:
        for number, line in enumerate(real(*arguments)):
            if number == after:
                raise KeyboardInterrupt
            yield line
        if after < 0:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict_module, "predict_photos", stopped)
        yield


def stop_after(after: int, *inputs: str, **options: Any) -> str:
    with stopping(after), pytest.raises(Stopped) as caught:
        go(*inputs, **options)
    return str(caught.value)


def stop_at_the_end(*inputs: str, **options: Any) -> None:
    """Where all is done but to say so."""
    stop_after(-1, *inputs, **options)


def state(out: Path) -> dict[str, tuple[int, int]]:
    """What changes where a file is written anew."""
    paths = [path for path in out.rglob("*") if path.is_file()]
    return {path.relative_to(out).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("after", range(4))
def test_a_stopped_run_goes_on_and_ends_as_one_that_was_not(here: Path, after: int) -> None:
    (here / "in" / "1a.png").write_bytes(b"bad")
    go(out="whole")
    said = stop_after(after, batch_size=1)
    assert said == f"out: {after} of 5 inputs are done. Run the same command again to go on:"
    assert not is_finished(here / "out", PREDICTIONS_JSON)
    assert not (here / "out" / LOCK).exists()
    before = state(here / "out")
    logged = [line["line"]["name"] for line in lines(here / "out" / PARTS / RESULTS_JSONL)]
    assert logged == [name for name in ("0", "1", "1a", "2", "3")[:after] if name != "1a"]
    report = go(batch_size=3)
    assert report.resumed == len(logged)
    assert untimed("out") == untimed("whole")
    kept = {file: what for file, what in before.items() if Path(file).stem in logged}
    assert len(kept) == 2 * len(logged)
    assert {file: state(here / "out")[file] for file in kept} == kept
    assert not (here / "out" / PARTS).exists()


@pytest.mark.usefixtures("made_up")
def test_all_that_was_made_is_counted_and_told(here: Path) -> None:
    stop_after(3, batch_size=1)
    assert go().notes() == ("3 inputs were done by an earlier run.",)


@pytest.mark.usefixtures("made_up")
def test_an_input_that_changed_is_made_again(here: Path) -> None:
    stop_at_the_end()
    before = state(here / "out")
    add(here / "in" / "1.png", cut=10)
    os.utime(here / "in" / "2.png", ns=(1, 1))
    report = go()
    assert report.resumed == 2
    changed = {name for name, what in state(here / "out").items() if before.get(name) != what}
    assert {name for name in changed if "/" in name} == {"mask/1.png", "mask/2.png", "overlay/1.jpg", "overlay/2.jpg"}
    assert mask(here / "out/mask/1.png")[-1].sum() == pytest.approx(10, abs=1)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("damage", ["gone", "empty", "cut"])
def test_a_file_that_was_lost_or_damaged_is_made_again(here: Path, damage: str) -> None:
    """As after a power cut, which leaves the names of files that were not flushed, and nothing in them."""
    go(out="whole")
    stop_at_the_end()
    file = here / "out" / "mask" / "1.png"
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "empty" else file.read_bytes()[:-20])
    assert go().resumed == 3
    assert untimed("out") == untimed("whole")


@pytest.mark.usefixtures("made_up")
def test_a_log_that_was_cut_costs_no_more_than_its_last_line(here: Path) -> None:
    go(out="whole")
    stop_at_the_end()
    log = here / "out" / PARTS / RESULTS_JSONL
    log.write_bytes(log.read_bytes()[:-30])
    stop_at_the_end()  # what is written behind half a line is a line of its own
    assert go().resumed == 4
    assert untimed("out") == untimed("whole")


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\0", b"{}\n[]\n", b"null\n"])
def test_a_log_that_is_none_starts_again(here: Path, damage: bytes) -> None:
    go(out="whole")
    stop_at_the_end()
    (here / "out" / PARTS / RESULTS_JSONL).write_bytes(damage)
    assert go().resumed == 0
    assert untimed("out") == untimed("whole")


@pytest.mark.usefixtures("made_up")
def test_what_is_no_longer_an_input_leaves_nothing_behind(here: Path) -> None:
    """A finished folder holds the files of its lines, and no other."""
    add(here / "in" / "twin.jpg")
    stop_at_the_end()
    (here / "in" / "1.png").unlink()
    (here / "in" / "2.png").write_bytes(b"no longer a picture")
    add(here / "in" / "twin.png")  # so that both have longer names
    go()
    named = {file for line in results() for file in line.get("files", ())}
    assert set(tree(here / "out")) == named | {PREDICTIONS_JSON, RESULTS_JSONL}


@pytest.mark.usefixtures("made_up")
def test_another_plan_is_refused_in_one_line_and_overwrite_starts_again(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at_the_end()
    before = tree(here / "out")
    with pytest.raises(FolderError, match=r"out: was begun with --save 'mask,overlay', now it is 'mask'\. Give the"):
        go(saves="mask")
    with pytest.raises(FolderError, match=r"was begun with --threshold None, now it is 0\.3"):
        go(refine=Refine(0.3))
    other = replace(network(of_red), sha256="1" * 64)
    with monkeypatch.context() as patch:
        patch.setattr(predict_module, "open_network", lambda _: other)
        with pytest.raises(FolderError, match="was begun with network of sha256 '0000"):
            go()
    assert tree(here / "out") == before
    assert go(saves="mask", overwrite=True).resumed == 0
    assert set(tree(here / "out")) == {PREDICTIONS_JSON, RESULTS_JSONL, *(f"mask/{i}.png" for i in range(4))}


@pytest.mark.usefixtures("made_up")
def test_another_background_of_the_same_name_is_another_plan(here: Path) -> None:
    add(here / "wall.png")
    stop_at_the_end(saves="composite", background="wall.png")
    add(here / "wall.png", cut=11)
    with pytest.raises(FolderError, match="was begun with --background"):
        go(saves="composite", background="wall.png")


@pytest.mark.usefixtures("made_up")
def test_inputs_may_be_given_in_another_way(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_after(2, batch_size=1)
    monkeypatch.chdir(here / "in")
    report = go("3.png", str(here / "in"), out="../out")
    assert report.resumed == 2
    assert [line["name"] for line in results(here / "out")] == ["3", "0", "1", "2"]


# ---- a disk that is full ---------------------------------------------------------------------------------------------


@contextmanager
def full_disk(after: int, calls: list[str]) -> Iterator[None]:
    """From the open for writing of that number on, there is no space left."""
    opened = pathlib.Path.open

    def opens(path: Path, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        if set(mode) & set("wa"):
            calls.append(path.name)
            if len(calls) > after:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return opened(path, mode, *arguments, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pathlib.Path, "open", opens)
        yield


def ending(after: int, calls: list[str], **options: Any) -> BaseException | None:
    """How a run on such a disk ends: its error, or None."""
    try:
        with full_disk(after, calls):
            go(**options)
    except (OSError, FolderError) as error:
        return error
    return None


@pytest.mark.usefixtures("made_up")
def test_a_disk_that_is_full_at_any_write_leaves_nothing_that_looks_whole(here: Path) -> None:
    go(out="whole")
    expected = untimed("whole")
    for after in range(100):
        calls: list[str] = []
        out = here / f"full{after}"
        error = ending(after, calls, out=out.name, batch_size=2)
        if error is None:
            break
        assert "No space left on device" in str(error)
        assert not is_finished(out, PREDICTIONS_JSON), after
        assert not list(out.rglob("*segdata-partial")), after
        go(out=out.name)
        assert untimed(out) == expected, after
    assert after == len(calls) > 10


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("made_up")
def test_the_command_shows_what_was_done_and_notes_what_was_not(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "in" / "bad\n.jpg").write_bytes(b"no")
    (here / "in" / "notes.txt").touch()
    code, out, err = run_command(capsys, "predict", "run", "in", "--out", "out")
    assert code == 0
    assert re.fullmatch(r"out: 4 photos, person \d+\.\d %, [\d,.]+ pictures a second\n", out)
    assert err.splitlines() == [
        "note: passed over: 1 .txt",
        "note: 1 inputs were skipped; all are in out/results.jsonl:",
        "note: bad%0A: unreadable: starts with b'no', which is no picture that can be read",
    ]


@pytest.mark.usefixtures("made_up")
def test_json_is_all_of_stdout_and_says_the_same(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "in" / "bad.jpg").write_bytes(b"no")
    code, out, _ = run_command(capsys, "predict", "run", "in", "--out", "out", "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["photos"], found["skipped"], found["out"]) == (4, {"unreadable": 1}, "out")
    assert found["results"] == "out/results.jsonl"
    assert found["clips"] == []
    assert 0 < found["person_share"] < 1


@pytest.mark.usefixtures("made_up")
def test_every_option_reaches_the_record(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = "--save composite,alpha --background #102030 --threshold 0.4 --keep-largest --fill-holes --feather 2.5"
    more = "--refine guided --smooth ema:0.5 --alpha-video png --seconds 3 --batch-size 2 --overwrite"
    code, _, err = run_command(capsys, "predict", "run", "in", "--out", "out", *given.split(), *more.split())
    assert (code, err) == (0, "")
    record = unseal((here / "out" / PREDICTIONS_JSON).read_bytes(), PredictionsRecord, "it")
    assert record.options == {
        "--save": "composite,alpha",
        "--background": "#102030",
        "--threshold": 0.4,
        "--keep-largest": True,
        "--fill-holes": True,
        "--feather": 2.5,
        "--refine": "guided",
        "--smooth": "ema:0.5",
        "--alpha-video": "png",
        "--seconds": 3.0,
    }


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize("background", ["white", "rebeccapurple", "#123", "blur", "blur:9", "transparent", "wall.png"])
def test_backgrounds_stand_behind_the_person(here: Path, capsys: pytest.CaptureFixture[str], background: str) -> None:
    Image.new("RGB", (7, 9), (1, 2, 3)).save("wall.png")
    arguments = ["--out", "out", "--save", "composite", "--background", background]
    assert run_command(capsys, "predict", "run", "in/0.png", *arguments)[0] == 0
    suffix = "png" if background == "transparent" else "jpg"
    with Image.open(here / "out" / "composite" / f"0.{suffix}") as picture:
        left, right = (picture.getpixel((column, 35)) for column in (5, 55))
    assert left[:3] == pytest.approx((255, 0, 0), abs=6)  # type: ignore[index]
    expected = {
        "white": (255, 255, 255),
        "rebeccapurple": (0x66, 0x33, 0x99),
        "#123": (0x11, 0x22, 0x33),
        "blur": (0, 255, 0),
        "blur:9": (0, 255, 0),
        "transparent": (0, 0, 0, 0),
        "wall.png": (1, 2, 3),
    }
    assert right == pytest.approx(expected[background], abs=10)


@pytest.mark.usefixtures("made_up")
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["in"], "--out is missing"),
        (["nowhere", "--out", "out"], "nowhere: no such file"),
        (["in", "--out", "out", "--save", "msk"], "Did you mean 'mask'?"),
        (["in", "--out", "out", "--save", ""], "--save ''"),
        (["in", "--out", "out", "--save", "mask,"], "--save ''"),
        (["in", "--out", "out", "--threshold", "1.5"], "--threshold 1.5"),
        (["in", "--out", "out", "--threshold", "nan"], "--threshold nan"),
        (["in", "--out", "out", "--feather", "-1"], "--feather -1.0"),
        (["in", "--out", "out", "--background", "whit"], "Did you mean 'white'?"),
        (["in", "--out", "out", "--background", "blur:x"], "expected blur:PX"),
        (["in", "--out", "out", "--background", "in"], "--background 'in'"),
        (["in", "--out", "out", "--background", "in/bad.png"], "--background 'in/bad.png'"),
        (["in", "--out", "out", "--smooth", "ema:2"], "--smooth"),
        (["in", "--out", "out", "--smooth", "box:0.5"], "--smooth"),
        (["in", "--out", "out", "--seconds", "-1"], "--seconds -1.0"),
        (["in", "--out", "out", "--batch-size", "0"], "--batch-size 0"),
        (["camera:0", "in", "--out", "out"], "camera is looked at alone"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_exit_with_2_in_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    (here / "in" / "bad.png").write_bytes(b"no")
    code, out, err = run_command(capsys, "predict", "run", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert expected in err
    assert not (here / "out").exists()


@pytest.mark.parametrize("arguments", [["--refine", "other"], ["--alpha-video", "avi"], ["--batch-size", "x"], ["--x"]])
def test_values_that_are_none_of_the_known_exit_with_2(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    code, out, err = run_command(capsys, "predict", "run", "in", "--out", "out", *arguments)
    assert (code, out) == (2, "")
    assert arguments[0] in err


def test_what_is_no_network_is_said_in_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for no_run in ("nowhere", "in", "in/0.png"):
        code, out, err = run_command(capsys, "predict", no_run, "in", "--out", "out")
        assert code in (1, 2)
        assert (out, err.count("\n")) == ("", 1)
        assert no_run in err
    assert not (here / "out").exists()


# ---- processes -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 100 photos of noise in ``in``, one of them cut, and in ``whole`` what predict makes of them."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "in").mkdir()
    dice = np.random.default_rng(0)
    for i in range(100):
        noise = dice.integers(0, 256, (40 + i % 7, 60 + i % 5, 3), np.uint8)
        data = saved(noise, "JPEG" if i % 2 else "PNG")
        (folder / "in" / f"{i:03}.{'jpg' if i % 2 else 'png'}").write_bytes(data[:-9] if i == 20 else data)
    return folder


def command(run: Path, many: Path, out: str) -> list[str]:
    arguments = ["predict", str(run), str(many / "in"), "--out", str(many / out), "--batch-size", "2"]
    return [sys.executable, "-m", "segdata", *arguments]


def interrupted(run: Path, many: Path, goal: int, name: str) -> tuple[int, str, dict[str, tuple[int, int]]]:
    """A process that is sent a signal when so many photos are logged: its exit code, its stderr, and the state then of
    the files that were.
    """
    log = many / "out" / PARTS / RESULTS_JSONL
    earlier = log.stat().st_ino if log.exists() else None
    # A session of its own: the signal must not reach pytest.
    with subprocess.Popen(
        command(run, many, "out"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            end = time.monotonic() + _WAIT_S
            while not log.exists() or log.stat().st_ino == earlier or log.read_bytes().count(b"\n") < goal:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < end
                time.sleep(0.002)
            os.killpg(process.pid, getattr(signal, name))
            _, err = process.communicate(timeout=_WAIT_S)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    whole = log.read_bytes()
    whole = whole[: whole.rfind(b"\n") + 1]
    logged = [file for line in whole.splitlines() for file in json.loads(line)["line"]["files"]]
    found = state(many / "out")
    return process.returncode, err, {file: found[file] for file in logged}


@POSIX
def test_a_process_that_is_killed_and_stopped_goes_on_and_makes_nothing_twice(run: Path, many: Path) -> None:
    predict(run, [str(many / "in")], many / "whole", PredictOptions())
    kept: dict[str, tuple[int, int]] = {}
    for name, goal, code in (("SIGKILL", 10, -9), ("SIGINT", 40, 130)):
        found, err, logged = interrupted(run, many, goal, name)
        assert found == code, err
        assert not (many / "out" / PREDICTIONS_JSON).exists()
        assert kept.items() <= logged.items()
        kept = logged
    first, second = err.splitlines()
    assert re.fullmatch(
        rf"segdata: stopped\. {many / 'out'}: \d+ of \d+ inputs are done\. Run the same command again to go on:", first
    )
    assert second.split() == ["segdata", *command(run, many, "out")[3:]]
    done = segdata(*command(run, many, "out")[3:], "--json")
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["note"] * 3  # no library says anything
    assert f"note: {len(kept) // 2} inputs were done by an earlier run." in done.stderr.splitlines()
    assert json.loads(done.stdout)["photos"] == 99
    after = state(many / "out")
    assert {file: after[file] for file in kept} == kept
    assert untimed(many / "out") == untimed(many / "whole")
    assert json.loads((many / "out" / PREDICTIONS_JSON).read_bytes())["network_sha256"] == sha256_file(run / BEST)


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run_command(capsys, "predict", "--help")
    assert code == 0
    options = "out save background threshold keep-largest fill-holes feather refine smooth alpha-video seconds"
    for option in [*options.split(), "batch-size", "overwrite", "json"]:
        assert f"--{option} " in out
    for save in SAVES:
        assert save in out
