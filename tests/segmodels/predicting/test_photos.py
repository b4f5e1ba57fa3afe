"""Photos through a network that answers in a known way: masks that lie where the photo says, whatever it is like, and
the same files however many are taken at once.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from segdata.formats.raw_pictures import read_rgb
from segdata.labels import LabelMap, distinct_colors
from segdata.records import Geometry
from segmodels.inputs import to_grey
from segmodels.networks import Network
from segmodels.photo_size import at_photo_size
from segmodels.predicting import photos as photos_module
from segmodels.predicting.media import Item
from segmodels.predicting.photos import fitted, predict_photos
from segmodels.predicting.rendering import SAVES, Look
from segmodels.predicting.results import ResultLine
from tests.folders import tree
from tests.material import exif, grey_png, palette_png, raw_png, saved, turned
from tests.segmodels.material import BINARY

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
THREE = LabelMap(
    name="three", names=("background", "head", "body"), colors=distinct_colors(3), from_ids=((0,), (1,), (2,))
)
POSIX = pytest.mark.skipif(os.name == "nt", reason="links and pipes")


def of_colors(images: Pixels) -> Floats:
    """Probabilities that are the colours: of three classes green is the second, blue the third."""
    colors = images.astype(np.float32) / np.float32(255)
    colors[..., 0] = 1 - colors[..., 1:].max(axis=-1)
    shares: Floats = colors / np.maximum(colors.sum(axis=-1, keepdims=True), np.float32(1e-6))
    return shares


def of_red(images: Pixels) -> Floats:
    """A pixel is as surely a person as it is red; of grey pictures, bright."""
    person = images[..., 0].astype(np.float32) / np.float32(255)
    return np.stack([1 - person, person], axis=-1)


def network(
    runtime: Callable[[Any], Floats] = of_red,
    labels: LabelMap | None = BINARY,
    size: tuple[int, int] = (32, 32),
    fit: str = "letterbox",
    channels: int = 3,
) -> Network:
    """A network without Keras."""
    target, geometry = "mask" if labels else "matte", Geometry(size=size, fit=fit)
    return Network(Path("run"), "none", target, labels, geometry, channels, runtime, "0" * 64, None)


def two_halves(height: int = 60, width: int = 90, cut: int = 40) -> Pixels:
    """Red on the left of column ``cut``, green on the right; a blue corner, so that no turn looks like another."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :cut], pixels[:, cut:] = (255, 0, 0), (0, 255, 0)
    pixels[: height // 6, : width // 6] = (0, 0, 255)
    return pixels


class Bench:
    """Photos in a folder of their own, and what becomes of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.number = folder, 0
        self.items: list[Item] = []
        (folder / "in").mkdir()

    def add(self, name: str, data: bytes) -> None:
        """A photo called ``name``."""
        path = self.folder / "in" / name
        path.write_bytes(data)
        self.items.append(Item(path, name, "photo"))

    def run(
        self, here: Network, saves: Sequence[str] = ("mask",), batch_size: int = 8, background: str = "white"
    ) -> tuple[Path, list[ResultLine]]:
        """A new folder with what was written, and the lines."""
        self.number += 1
        out = self.folder / f"out{self.number}"
        for save in saves:
            (out / save).mkdir(parents=True)
        return out, list(predict_photos(here, self.items, Look(tuple(saves), background), out, batch_size))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def mask(out: Path, name: str) -> Pixels:
    with Image.open(out / "mask" / f"{name}.png") as picture:
        assert (picture.mode, picture.format) == ("L", "PNG")
        return np.asarray(picture)


def untimed(line: ResultLine) -> dict[str, Any]:
    """What of a line is the same in every run."""
    found: dict[str, Any] = msgspec.to_builtins(line)
    return {name: value for name, value in found.items() if not name.endswith("_ms")}


# ---- where the mask lies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
@pytest.mark.parametrize("size", [(60, 90), (61, 173), (333, 201), (31, 47), (1, 9), (7, 1)], ids=str)
def test_a_mask_has_its_photos_size_and_lies_where_the_person_is(bench: Bench, size: tuple[int, int], fit: str) -> None:
    height, width = size
    cut = max(1, width * 2 // 5)
    person = np.zeros((height, width, 3), np.uint8)
    person[:, :cut, 0] = 255
    bench.add("p", saved(person, "PNG"))
    here = network(fit=fit)
    out, (line,) = bench.run(here)
    found = mask(out, "p")
    assert found.shape == size == (line.height, line.width)
    scale = max(1, width / 32, height / 32)
    edges = (found == 1).sum(axis=1)
    assert np.abs(edges - cut).max() <= 0.1 * scale + 1
    assert (found[:, : max(0, cut - round(scale) - 1)] == 1).all()  # and on the left it is, all of it
    assert line.person_share == pytest.approx(found.mean(), abs=1e-6)
    shares = here.shares(fitted(person, here)[None])[0]
    np.testing.assert_array_equal(found, at_photo_size(shares, size, here.geometry, "mask"))


INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_every_exif_turn_gives_the_upright_mask(bench: Bench, kind: str) -> None:
    upright = two_halves()
    options: dict[str, Any] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    for turn in range(1, 9):
        stored = np.ascontiguousarray(turned(upright, INVERSE[turn]))
        np.testing.assert_array_equal(turned(stored, turn), upright)
        bench.add(f"t{turn}", saved(stored, kind, exif=exif(turn), **options))
    out, lines = bench.run(network(), ("mask", "overlay", "alpha", "cutout"))
    first = mask(out, "t1")
    assert first[50].sum() == pytest.approx(40, abs=1)
    assert first[5, :10].sum() == 0  # the blue corner is above on the left
    for line in lines:
        assert (line.height, line.width) == (60, 90)
        np.testing.assert_array_equal(mask(out, line.name), first)
        for file in line.files:
            with Image.open(out / file) as picture:
                assert picture.size == (90, 60)
                assert picture.getexif().get(0x0112, 1) == 1  # nothing is left to turn a second time


def test_three_classes_have_their_ids_and_shares(bench: Bench) -> None:
    pixels = np.zeros((32, 64, 3), np.uint8)
    pixels[:, 16:32, 1], pixels[:, 32:, 2] = 255, 255
    bench.add("p", saved(pixels, "PNG"))
    out, (line,) = bench.run(network(of_colors, THREE, size=(32, 64)), ("mask", "overlay"))
    expected = np.repeat([0, 1, 2], [16, 16, 32])
    np.testing.assert_array_equal(mask(out, "p"), np.tile(expected, (32, 1)))
    assert line.class_shares == {"background": 0.25, "head": 0.25, "body": 0.5}
    assert line.person_share == 0.75


def test_a_matte_is_alpha_and_its_half_the_mask(bench: Bench) -> None:
    slope = np.tile(np.arange(64, dtype=np.uint8) * 4, (32, 1))
    bench.add("p", saved(np.dstack([slope, slope * 0, slope * 0]), "PNG"))
    out, (line,) = bench.run(network(labels=None, size=(32, 64)), ("mask", "alpha"))
    alpha = np.asarray(Image.open(out / "alpha" / "p.png"))
    np.testing.assert_array_equal(alpha, slope)
    np.testing.assert_array_equal(mask(out, "p"), slope >= 128)
    assert line.person_share == pytest.approx(slope.mean() / 255, abs=1e-5)
    assert line.class_shares is None


def test_a_network_of_one_channel_is_given_grey(bench: Bench) -> None:
    given: list[Pixels] = []

    def runtime(images: Pixels) -> Floats:
        given.append(images)
        return of_red(images)

    pixels = two_halves()
    bench.add("p", saved(pixels, "PNG"))
    bench.run(network(runtime, size=(60, 90), channels=1))
    assert [images.shape for images in given] == [(1, 60, 90, 1)]
    np.testing.assert_array_equal(given[0][0], to_grey(pixels))


def test_a_photo_is_letterboxed_with_grey_bars() -> None:
    image = fitted(np.full((10, 20, 3), 9, np.uint8), network())
    assert image.shape == (32, 32, 3)
    assert (image[8:24] == 9).all()
    assert (image[:8] == 128).all()
    assert (image[24:] == 128).all()


# ---- what is skipped -------------------------------------------------------------------------------------------------


def mixed(bench: Bench) -> dict[str, str | None]:
    """Good photos of many kinds with what is none between them; for each name the reason to skip it, or None."""
    rgb = two_halves()
    jpeg, png = saved(rgb, "JPEG"), saved(rgb, "PNG")
    expected: dict[str, str | None] = {}

    def add(name: str, data: bytes, reason: str | None = None) -> None:
        bench.add(name, data)
        expected[name] = reason

    add("cut.jpg", jpeg[:-20], "truncated")
    add("good.jpg", jpeg)
    add("empty.jpg", b"", "unreadable")
    add("text.jpg", b"no picture at all", "unreadable")
    add("dot.png", saved(rgb[-1:, :1], "PNG"))
    add("deep.png", grey_png(rgb[:, :80, 0].astype(np.uint16) * 257, 16))
    add("damaged.png", png[:60] + bytes([png[60] ^ 1]) + png[61:], "damaged")
    add("palette.png", palette_png((rgb[:, :, 0] // 255).astype(np.uint8), [(0, 0, 0), (255, 0, 0)]))
    add("inks.jpg", saved(Image.fromarray(rgb).convert("CMYK"), "JPEG"))
    add("clear.png", saved(Image.fromarray(rgb).convert("RGBA"), "PNG"))
    add("large.png", raw_png(60_000, 60_000, 8, 2, [b"\0"]), "too-large")
    add("last.webp", saved(rgb, "WEBP"))
    return expected


def odd_files(bench: Bench) -> dict[str, str | None]:
    """A folder, a pipe, and links to nothing and to itself; all of them are called as photos are."""
    for name in ("folder.jpg", "pipe.jpg", "gone.jpg", "loop.jpg"):
        path = bench.folder / "in" / name
        bench.items.append(Item(path, name, "photo"))
    (bench.folder / "in" / "folder.jpg").mkdir()
    os.mkfifo(bench.folder / "in" / "pipe.jpg")
    (bench.folder / "in" / "gone.jpg").symlink_to("nowhere.jpg")
    (bench.folder / "in" / "loop.jpg").symlink_to("loop.jpg")
    return {item.name: "unreadable" for item in bench.items[-4:]}


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 100])
def test_what_cannot_be_used_is_skipped_and_every_line_is_in_its_place(bench: Bench, batch_size: int) -> None:
    expected = mixed(bench)
    out, lines = bench.run(network(), ("mask", "alpha"), batch_size)
    assert [(line.name, line.reason) for line in lines] == list(expected.items())
    for item, line in zip(bench.items, lines, strict=True):
        assert (line.kind, line.input) == ("photo", f"../in/{item.name}")
        if line.reason:
            assert line.detail
            assert (line.files, line.height, line.person_share, line.read_ms) == ((), None, None, None)
            continue
        assert line.files == (f"mask/{item.name}.png", f"alpha/{item.name}.png")
        assert mask(out, item.name).shape == (line.height, line.width) == read_rgb(item.path.read_bytes()).shape[:2]
        assert line.read_ms is not None
        assert line.network_ms is not None
        assert line.write_ms is not None
        assert min(line.read_ms, line.network_ms, line.write_ms) >= 0
    assert len(tree(out)) == 2 * sum(reason is None for reason in expected.values())


@POSIX
def test_what_is_no_file_is_skipped_and_no_pipe_waited_for(bench: Bench) -> None:
    bench.add("a.png", saved(two_halves(), "PNG"))
    expected = {"a.png": None, **odd_files(bench)}
    bench.add("b.png", saved(two_halves(), "PNG"))
    out, lines = bench.run(network())
    assert {line.name: line.reason for line in lines} == {**expected, "b.png": None}
    assert set(tree(out)) == {"mask/a.png.png", "mask/b.png.png"}


@pytest.mark.parametrize(("size", "save"), [((1, 70_000), "overlay"), ((2, 22_000), "collage")], ids=str)
def test_a_photo_whose_picture_no_format_holds_is_skipped_and_the_others_are_not(
    bench: Bench, size: tuple[int, int], save: str
) -> None:
    bench.add("long.png", saved(np.full((*size, 3), 200, np.uint8), "PNG"))
    bench.add("good.png", saved(two_halves(), "PNG"))
    out, (long, good) = bench.run(network(), (save,))
    assert (long.reason, long.files, good.reason) == ("encoder", (), None)
    assert set(tree(out)) == {f"{save}/good.png.jpg"}


def test_a_photo_that_nobody_can_use_asks_nothing_of_the_network(bench: Bench) -> None:
    def never(images: Any) -> Floats:
        raise AssertionError

    bench.add("a.jpg", b"no")
    bench.add("b.jpg", b"")
    assert [line.reason for line in bench.run(network(never))[1]] == ["unreadable", "unreadable"]


def test_no_photo_gives_no_line(bench: Bench) -> None:
    assert bench.run(network())[1] == []


# ---- how many at once ------------------------------------------------------------------------------------------------


def test_files_and_lines_do_not_depend_on_how_many_are_taken_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed(bench)
    first, lines = bench.run(network(), SAVES, 4, "blur")
    for held, batch_size in ((60_000_000, 1), (60_000_000, 3), (60_000_000, 100), (1, 4), (20_000, 100)):
        monkeypatch.setattr(photos_module, "HELD_PIXELS", held)
        again, found = bench.run(network(), SAVES, batch_size, "blur")
        assert tree(again) == tree(first)
        assert [untimed(line) for line in found] == [untimed(line) for line in lines]


class Counting:
    """How many photos are held: read, and not yet written; and of which sizes the batches were."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self.held, self.most, self.lock = 0, 0, threading.Lock()
        write = photos_module.segmented

        def reading(data: bytes) -> Pixels:
            with self.lock:
                self.held += 1
                self.most = max(self.most, self.held)
            return read_rgb(data)

        def writing(*arguments: Any, **named: Any) -> Any:
            time.sleep(0.002)
            found = write(*arguments, **named)
            with self.lock:
                self.held -= 1
            return found

        monkeypatch.setattr(photos_module, "read_rgb", reading)
        monkeypatch.setattr(photos_module, "segmented", writing)

    def __call__(self, images: Pixels) -> Floats:
        self.batches.append(len(images))
        return of_red(images)


def test_the_network_is_given_full_batches_and_no_larger_ones(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    counting = Counting(monkeypatch)
    for i in range(20):
        bench.add(f"{i}", b"bad" if i in (2, 3, 9) else saved(two_halves(), "PNG"))
    bench.run(network(counting), batch_size=4)
    assert sorted(counting.batches) == [1, 4, 4, 4, 4]  # two are under way at a time


@pytest.mark.parametrize("photos_held", [1, 4, 12])
def test_no_more_photos_are_held_than_there_is_room_for(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, photos_held: int
) -> None:
    counting = Counting(monkeypatch)
    monkeypatch.setattr(photos_module, "_THREADS", 2)
    monkeypatch.setattr(photos_module, "HELD_PIXELS", photos_held * 5400)
    for i in range(60):
        bench.add(f"{i}", saved(two_halves(), "PNG"))
    bench.run(network(counting), batch_size=4)
    assert sum(counting.batches) == 60
    # Read ahead, in the batch and on their way out there are as many each, and the first are read before sizes are
    # known.
    assert counting.most <= max(6, 3 * max(2, photos_held)) + 4


# ---- ends ------------------------------------------------------------------------------------------------------------


def writers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("segdata-")]


def test_a_line_comes_when_its_files_are_there(bench: Bench) -> None:
    for i in range(12):
        bench.add(f"{i}", saved(two_halves(), "PNG"))
    out = bench.folder / "out"
    for save in ("mask", "overlay"):
        (out / save).mkdir(parents=True)
    for line in predict_photos(network(), bench.items, Look(), out, 2):
        assert all((out / file).stat().st_size for file in line.files)
    assert writers() == []


def test_who_stops_looking_ends_the_threads(bench: Bench) -> None:
    for i in range(40):
        bench.add(f"{i}", saved(two_halves(), "PNG"))
    out = bench.folder / "out"
    (out / "mask").mkdir(parents=True)
    lines = predict_photos(network(), bench.items, Look(("mask",)), out, 2)
    assert next(iter(lines)).name == "0"
    lines.close()  # type: ignore[attr-defined]
    assert writers() == []
    written = tree(out)
    assert len(written) < 40
    time.sleep(0.05)
    assert tree(out) == written


@pytest.mark.parametrize("at", ["network", "writing"])
def test_an_error_of_the_program_ends_all_and_no_thread_stays(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    for i in range(6):
        bench.add(f"{i}", saved(two_halves(), "PNG"))
    if at == "writing":
        monkeypatch.setattr(photos_module, "write_atomic", broken)
    with pytest.raises(RuntimeError, match="broken"):
        bench.run(network(broken if at == "network" else of_red), batch_size=2)
    assert writers() == []


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 90), (1, 1), (3, 2), (501, 700)], ids=str)
def test_a_gif_shows_the_photo_and_then_the_composition_a_second_each(bench: Bench, size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), (20, 60, 20), np.uint8)
    bench.add("p", saved(pixels, "PNG"))
    out, (line,) = bench.run(network(), ("gif",), background="white")  # nobody is there, so all is white
    assert line.files == ("gif/p.gif",)
    with Image.open(out / "gif" / "p.gif") as gif:
        assert getattr(gif, "n_frames", 1) == 2
        assert max(gif.size) <= 480
        frames = []
        for number in range(2):
            gif.seek(number)
            assert gif.info["duration"] == pytest.approx(1000, abs=20)
            frames.append(np.asarray(gif.convert("RGB")).reshape(-1, 3).mean(axis=0))
    np.testing.assert_allclose(frames[0], (20, 60, 20), atol=6)
    np.testing.assert_allclose(frames[1], (255, 255, 255), atol=3)


@POSIX
def test_inputs_are_named_from_the_folder_however_they_were_given(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.add("a.png", saved(two_halves(), "PNG"))
    monkeypatch.chdir(bench.folder)
    for path in (Path("in/a.png"), bench.folder / "in" / "a.png", Path("in/../in/a.png")):
        bench.items = [Item(path, "a", "photo")]
        assert [line.input for line in bench.run(network())[1]] == ["../in/a.png"]


@POSIX
def test_an_input_that_no_json_can_name_is_shown_as_it_can(bench: Bench) -> None:
    path = bench.folder / "in" / os.fsdecode(b"\xff.png")
    path.write_bytes(saved(two_halves(), "PNG"))
    bench.items = [Item(path, "a", "photo")]
    (line,) = bench.run(network())[1]
    assert line.input.endswith(r"in/\xff.png")
    assert msgspec.json.encode(line)
