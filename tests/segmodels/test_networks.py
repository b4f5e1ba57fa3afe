"""What opens a trained network: a run's folder, or a file that export wrote; and what it says of pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest

from segdata.errors import OptionError, RecordError, SegdataError
from segdata.formats.files import sha256_file
from segdata.labels import LabelMap
from segdata.records import INDEX_JSON, RUN_JSON, Geometry, seal
from segmodels.checkpoints import save_model
from segmodels.config import BEST
from segmodels.exported import CHANNEL_ORDERS, ExportRecord, TensorRecord, record_path
from segmodels.networks import Network, open_network
from segmodels.quiet import keras
from tests.segmodels.conftest import Trained
from tests.segmodels.material import BINARY
from tests.segmodels.test_evaluate import THREE, constant, letterbox, reader, stretch, write_run

Pixels = npt.NDArray[np.uint8]


def pictures(height: int, width: int, channels: int = 3, count: int = 2) -> Pixels:
    """Black on the left, white on the right."""
    found = np.zeros((count, height, width, channels), np.uint8)
    found[:, :, width // 2 :] = 255
    return found


def with_shares(model: Any) -> Any:
    """Exported networks give probabilities."""
    return keras.Model(model.inputs, keras.layers.Softmax()(model.output))


def export(
    folder: Path, size: tuple[int, int] = (16, 24), channels: int = 3, labels: LabelMap | None = BINARY, **changes: Any
) -> Path:
    """A ``.keras`` file with its JSON, written by hand."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "net.keras"
    save_model(with_shares(reader(len(labels.names) if labels else 2, channels)), path)
    names = labels.names if labels else ("background", "person")
    record = ExportRecord(
        export_format="keras",
        model="tiny",
        target="mask" if labels else "matte",
        labels=names,
        label_map=labels,
        geometry=Geometry(size=size, fit="stretch"),
        channels=CHANNEL_ORDERS[channels],
        input=TensorRecord(name="image", dtype="float32", shape=(None, *size, channels), value_range=(0.0, 255.0)),
        output=TensorRecord(name="shares", dtype="float32", shape=(None, *size, len(names)), value_range=(0.0, 1.0)),
        parity=None,
        file_bytes=path.stat().st_size,
        files_sha256={".": sha256_file(path)},
        best_sha256="0" * 64,
    )
    record_path(path).write_bytes(seal(msgspec.structs.replace(record, **changes)))
    return path


def check_answers(found: Network, channels: int) -> None:
    """Of black it says background, of white the last class, in numbers that are probabilities."""
    height, width = found.size
    shares = found.shares(pictures(height, width, channels))
    assert shares.shape == (2, height, width, len(found.classes))
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares.sum(axis=3), 1, atol=1e-5)
    assert (shares[:, :, : width // 2].argmax(axis=3) == 0).all()
    assert (shares[:, :, width // 2 :].argmax(axis=3) == len(found.classes) - 1).all()


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [BINARY, THREE, None], ids=["binary", "three", "matte"])
def test_a_run_is_opened_with_all_that_is_known_of_it(tmp_path: Path, labels: LabelMap | None) -> None:
    model = reader(len(labels.names)) if labels else reader(2, outputs=1)
    run = write_run(tmp_path / "run", model, letterbox(16, 24), labels=labels)
    found = open_network(run)
    assert (found.path, found.model, found.target) == (run, "tiny", "mask" if labels else "matte")
    assert (found.label_map, found.geometry, found.size) == (labels, letterbox(16, 24), (16, 24))
    assert found.classes == (labels.names if labels else ("background", "person"))
    assert (found.channels, found.is_grey, found.is_run) == (3, False, True)
    assert found.sha256 == sha256_file(run / BEST)
    assert found.shards_sha256 == "0" * 64
    assert found.beside("sheet.png") == run / "sheet.png"
    check_answers(found, 3)


def test_a_trained_run_is_opened(trained: Trained) -> None:
    found = open_network(trained.run)
    assert (found.model, found.size, found.classes) == ("likeunet", (64, 64), ("background", "person"))
    assert found.shards_sha256 == sha256_file(trained.shards / INDEX_JSON)
    shares = found.shares(pictures(64, 64))
    assert shares.shape == (2, 64, 64, 2)
    np.testing.assert_allclose(shares.sum(axis=3), 1, atol=1e-5)


def test_a_grey_run_takes_one_channel(tmp_path: Path) -> None:
    found = open_network(write_run(tmp_path / "run", reader(2, channels=1), stretch(16, 16), grey=True))
    assert (found.channels, found.is_grey) == (1, True)
    check_answers(found, 1)


def test_what_a_network_says_of_a_picture_does_not_depend_on_the_others(trained: Trained) -> None:
    found = open_network(trained.run)
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    together = found.shares(images)
    for i in range(5):
        alone = found.shares(images[i : i + 1])[0]
        np.testing.assert_allclose(alone, together[i], atol=1e-5)
        assert (np.abs(alone - 0.5) < 1e-5).all() or ((alone > 0.5) == (together[i] > 0.5)).mean() > 0.9999


def test_a_run_that_is_unfinished_damaged_or_none_is_refused_in_one_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", constant(0, 1), letterbox(16, 16))
    unfinished = Path(shutil.copytree(run, tmp_path / "unfinished"))
    (unfinished / RUN_JSON).unlink()
    changed = Path(shutil.copytree(run, tmp_path / "changed"))
    text = (changed / RUN_JSON).read_text(encoding="utf-8")
    (changed / RUN_JSON).write_text(text.replace('"tiny"', '"tony"', 1), encoding="utf-8")
    gone = Path(shutil.copytree(run, tmp_path / "gone"))
    (gone / BEST).unlink()
    damaged = Path(shutil.copytree(run, tmp_path / "damaged"))
    (damaged / BEST).write_bytes((run / BEST).read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    for path in (unfinished, changed, gone, damaged, tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises((SegdataError, OSError)) as caught:
            open_network(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, OSError), path


# ---- exported files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("labels", [BINARY, THREE, None], ids=["binary", "three", "matte"])
def test_an_exported_file_is_opened_in_place_of_a_run(tmp_path: Path, labels: LabelMap | None, channels: int) -> None:
    path = export(tmp_path, channels=channels, labels=labels)
    found = open_network(path)
    assert (found.path, found.model, found.target) == (path, "tiny", "mask" if labels else "matte")
    assert (found.size, found.channels, found.label_map) == ((16, 24), channels, labels)
    assert (found.is_run, found.shards_sha256, found.sha256) == (False, None, sha256_file(record_path(path)))
    assert found.beside("sheet.png") == tmp_path / "net.keras.sheet.png"
    given = 1 if found.is_grey else 3
    if channels != 4:
        check_answers(found, given)
    else:
        assert found.shares(pictures(16, 24)).shape == (2, 16, 24, len(found.classes))


def test_a_network_of_four_channels_is_given_opaque_pictures() -> None:
    given: list[Pixels] = []

    def runtime(images: Pixels) -> Any:
        given.append(images)
        return np.zeros((*images.shape[:3], 2), np.float32)

    here = Network(Path("x"), "none", "mask", BINARY, stretch(4, 6), 4, runtime, "", None)
    images = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
    here.shares(images)
    assert given[0].dtype == np.uint8
    np.testing.assert_array_equal(given[0][..., :3], images)
    assert (given[0][..., 3] == 255).all()


def test_an_exported_file_that_changed_or_has_no_json_is_refused(tmp_path: Path) -> None:
    path = export(tmp_path / "whole")
    changed = export(tmp_path / "changed")
    changed.write_bytes(changed.read_bytes() + b"x")
    with pytest.raises(RecordError, match=r"net\.keras: is not as it was exported \(another sha256\)\. Export"):
        open_network(changed)
    edited = export(tmp_path / "edited")
    record = json.loads(record_path(edited).read_bytes())
    record_path(edited).write_text(json.dumps({**record, "model": "other"}), encoding="utf-8")
    with pytest.raises(RecordError, match="json"):
        open_network(edited)
    with pytest.raises(RecordError, match="format 'odd', expected one of coreml, keras"):
        open_network(export(tmp_path / "odd", export_format="odd"))
    record_path(path).unlink()
    with pytest.raises(
        OptionError, match=r"has no net\.keras\.json beside it, so it is no network of `segdata export`"
    ):
        open_network(path)


def test_a_network_without_a_size_is_no_network() -> None:
    here = Network(Path("x"), "none", "mask", BINARY, Geometry(), 3, lambda images: images, "", None)
    with pytest.raises(ValueError, match="no size"):
        _ = here.size
