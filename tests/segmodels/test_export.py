"""Exporting: each format written from one run, its file run by its own runtime, and compared with the run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import typing
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from segdata.cli.export import export as command
from segdata.errors import FolderError, JobFailed, OptionError, RecordError
from segdata.formats.files import sha256_file
from segdata.records import INDEX_JSON, RUN_JSON, Geometry, seal
from segmodels import export as export_module
from segmodels.checkpoints import load_model, save_model
from segmodels.config import BEST, BestMetric, RunRecord, ShardsReference, TrainConfig
from segmodels.evaluate import OTHER_SHARDS
from segmodels.export import ExportOptions, export
from segmodels.exported import FORMATS, ExportRecord, read_export, record_path
from segmodels.exporters import EXPORTERS, Exporter, quietly
from segmodels.exporters import onnx as onnx_exporter
from segmodels.layers import BilinearLike, BilinearUpsample, BinPooling
from segmodels.networks import open_network
from segmodels.quiet import keras
from segmodels.runtimes import RUNTIMES
from tests.folders import tree
from tests.segmodels.material import BINARY

SIZE = (64, 64)
NAMES = {
    "keras": "k.keras",
    "onnx": "o.onnx",
    "saved_model": "saved",
    "tflite": "f.tflite",
    "tflite-float16": "h.tflite",
    "tflite-int8": "i.tflite",
}
ANY = ExportOptions(min_parity=0)
# The most that a probability may differ by: rounding; weights of 11 bits; weights and values of 8 bits.
CLOSE = {**dict.fromkeys(NAMES, 1e-4), "tflite-float16": 0.01, "tflite-int8": 0.05}
Pictures = npt.NDArray[np.uint8]


def pictures(count: int, channels: int, seed: int = 0) -> Pictures:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, channels)).astype(np.uint8)


def write_run(folder: Path, model: Any, shards: Path, grey: bool = False, precision: str = "float32") -> Path:
    """A finished run whose best.keras is ``model``, and that learned from ``shards``."""
    folder.mkdir(parents=True)
    save_model(model, folder / BEST)
    record = RunRecord(
        model=model.name,
        target="mask",
        label_map=BINARY,
        geometry=Geometry(size=SIZE, fit="stretch"),
        input_channels=1 if grey else 3,
        parameters=model.count_params(),
        config=TrainConfig(model.name, grey=grey, mixed_precision=precision),
        backend="tensorflow",
        shards=ShardsReference(path=os.path.relpath(shards, folder), sha256=sha256_file(shards / INDEX_JSON)),
        epochs=1,
        best_epoch=1,
        best_metric=BestMetric(name="loss", value=1.0),
    )
    (folder / RUN_JSON).write_bytes(seal(record))
    return folder


def by_brightness(channels: int = 3) -> Any:
    """A person where a pixel is bright: so sure of it that rounding to 8 bits changes nothing on discs."""
    inputs = keras.Input((None, None, channels), name="image")
    layer = keras.layers.Conv2D(1, 1, name="logits")
    outputs = layer(inputs)
    weights = (0.299, 0.587, 0.114) if channels == 3 else (1,)
    layer.set_weights([np.reshape(np.float32(weights), (1, 1, channels, 1)) / 10, np.float32([-13])])
    return keras.Model(inputs, outputs, name="bright")


@pytest.fixture(scope="module")
def bright(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("bright") / "run", by_brightness(), discs)


@pytest.fixture(scope="module")
def bright_grey(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("bright") / "grey", by_brightness(1), discs, grey=True)


def small_network() -> Any:
    """A bit of all that networks here are made of, which has learned nothing: it is on the edge everywhere."""
    keras.utils.set_random_seed(5)
    inputs = keras.Input((None, None, 3), name="image")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1, name="around_zero")(inputs)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="down")(x)
    fine = keras.layers.PReLU(shared_axes=[1, 2], name="prelu")(keras.layers.BatchNormalization(name="norm")(x))
    coarse = keras.layers.SeparableConv2D(8, 3, padding="same", name="separable")(keras.layers.MaxPooling2D()(fine))
    whole = BilinearLike(name="like")([BinPooling(2, name="bins")(coarse), coarse])
    x = BilinearUpsample(name="enlarge")(keras.layers.Concatenate(name="join")([coarse, whole]))
    x = keras.layers.Concatenate(name="skip")([x, fine])
    x = keras.layers.Conv2DTranspose(8, 3, strides=2, padding="same", activation="relu", name="up")(x)
    x = keras.layers.UpSampling2D(name="repeat")(keras.layers.MaxPooling2D(name="pool")(x))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="behind")(x)
    x = keras.layers.UpSampling2D(name="again")(keras.layers.MaxPooling2D(name="once_more")(x))
    x = keras.layers.Conv2D(8, 3, padding="same", activation="relu", name="at_last")(x)
    heads = {name: keras.layers.Conv2D(1, 1, name=name)(x) for name in ("mask", "boundary")}
    return keras.Model(inputs, heads, name="small")


@pytest.fixture(scope="module")
def small(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("small") / "run", small_network(), discs)


@pytest.fixture(scope="module")
def exported(small: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """That run in every format that this machine can run."""
    folder = tmp_path_factory.mktemp("exported")
    for name, file in NAMES.items():
        export(small, name, folder / file, ANY)
    return {name: folder / file for name, file in NAMES.items()}


# ---- what is written -------------------------------------------------------------------------------------------------


def test_every_format_has_an_exporter_a_runtime_and_a_place_in_the_command() -> None:
    literal = typing.get_args(typing.get_type_hints(command, include_extras=True)["format_name"])[0]
    assert set(EXPORTERS) == set(RUNTIMES) == set(FORMATS) == set(typing.get_args(literal)) == {*NAMES, "coreml"}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_what_its_run_does(name: str, small: Path, exported: dict[str, Path]) -> None:
    """Several pictures at once too, also where the file takes one at a time."""
    found, own = open_network(exported[name]), open_network(small)
    images = pictures(3, 3)
    shares, expected = found.shares(images), own.shares(images)
    assert shares.dtype == np.float32
    assert shares.shape == (3, *SIZE, 2)
    np.testing.assert_allclose(shares, expected, atol=CLOSE[name])
    assert np.ptp(expected[..., 1]) > 2 * CLOSE[name]  # else any file would do
    assert (found.size, found.classes, found.target, found.channels) == (SIZE, BINARY.names, "mask", 3)
    assert not found.is_run


@pytest.mark.parametrize("name", NAMES)
def test_its_json_says_what_a_phone_needs(name: str, small: Path, exported: dict[str, Path]) -> None:
    record = read_export(exported[name])
    batch = 1 if name.startswith("tflite") else None
    assert (record.export_format, record.model, record.labels) == (name, "small", BINARY.names)
    assert (record.input.shape, record.output.shape) == ((batch, *SIZE, 3), (batch, *SIZE, 2))
    assert (record.input.value_range, record.output.value_range) == ((0, 255), (0, 1))
    assert (record.channels, record.best_sha256) == ("RGB", sha256_file(small / BEST))
    assert record.input.dtype == record.output.dtype == ("uint8" if name == "tflite-int8" else "float32")
    parity = record.parity
    assert parity is not None
    assert (parity.samples, parity.splits) == (19, ("test", "validation", "train"))
    assert parity.max_abs_difference <= CLOSE[name]
    assert parity.mean_abs_difference <= parity.max_abs_difference
    assert parity.median_latency_ms > 0
    if name != "tflite-int8":
        assert parity.mean_iou > 0.99


def test_int8_takes_the_bytes_of_a_camera(exported: dict[str, Path]) -> None:
    record = read_export(exported["tflite-int8"])
    assert (record.input.scale, record.input.zero_point) == (1, 0)
    assert (record.output.scale, record.output.zero_point) == (1 / 256, 0)
    assert record.calibration is not None
    assert (record.calibration.samples, record.calibration.absent) == (10, ())
    network = open_network(exported["tflite-int8"])
    images = pictures(1, 3)
    np.testing.assert_array_equal(network.shares(images), network.runtime(images.astype(np.float32)))


def test_nothing_else_is_left_beside_the_files(exported: dict[str, Path]) -> None:
    folder = exported["keras"].parent
    assert {path.name for path in folder.iterdir()} == {
        name for file in NAMES.values() for name in (file, f"{file}.json")
    }


@pytest.mark.parametrize("name", ["keras", "onnx", "tflite", "tflite-int8"])
def test_the_same_run_gives_the_same_bytes(name: str, small: Path, bright: Path, tmp_path: Path) -> None:
    """Of a SavedModel not even two exports of one process are the same, nor of ONNX where BinPooling is."""
    run = bright if name == "onnx" else small
    for folder in ("a", "b"):
        export(run, name, tmp_path / folder / NAMES[name], ANY)
    assert (tmp_path / "a" / NAMES[name]).read_bytes() == (tmp_path / "b" / NAMES[name]).read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_file_is_refused(name: str, exported: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / NAMES[name]
    source = exported[name]
    shutil.copytree(source, file) if source.is_dir() else shutil.copy(source, file)
    shutil.copy(record_path(source), record_path(file))
    assert open_network(file).size == SIZE
    inner = file / "saved_model.pb" if file.is_dir() else file
    inner.write_bytes(inner.read_bytes()[:-1] + b"x")
    with pytest.raises(RecordError, match="not as it was exported"):
        open_network(file)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "keras"])
def test_a_runtime_says_which_file_it_cannot_run(name: str, exported: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / NAMES[name]
    if name == "saved_model":
        file.mkdir()
    else:
        file.write_bytes(b"no network")
    record = read_export(exported[name])
    load = export_module.registry.load(RUNTIMES, name, "format")
    with pytest.raises(RecordError, match=f"{NAMES[name]}: is no "):
        load(file, record)


@pytest.mark.parametrize("name", NAMES)
def test_several_threads_may_ask_a_network_at_one_time(name: str, exported: dict[str, Path]) -> None:
    network = open_network(exported[name])
    batches = [pictures(2, 3, seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(network.shares, batches))
    for batch, shares in zip(batches, found, strict=True):
        np.testing.assert_allclose(shares, network.shares(batch), atol=1e-6)


_ALONE = """
import sys
from pathlib import Path
import numpy as np
from segmodels.networks import open_network
open_network(Path(sys.argv[1])).shares(np.zeros((2, 64, 64, 3), np.uint8))
print([name for name in ("keras", "tensorflow", "numpy") if name in sys.modules])
"""


@pytest.mark.parametrize("name", ["onnx", "tflite", "tflite-int8", "keras"])
def test_phone_formats_run_without_keras_and_tensorflow(name: str, exported: dict[str, Path]) -> None:
    command = [sys.executable, "-c", _ALONE, str(exported[name])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    expected = "['keras', 'tensorflow', 'numpy']" if name == "keras" else "['numpy']"  # so this test can fail
    assert done.stdout.strip() == expected


# ---- channels and numbers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if name != "tflite-float16"])
def test_alpha_is_not_looked_at(name: str, bright: Path, tmp_path: Path) -> None:
    file = tmp_path / NAMES[name]
    report = export(bright, name, file, ExportOptions(channels=4))
    assert report.parity is not None
    assert report.parity.mean_iou >= 0.999
    network = open_network(file)
    assert (network.channels, read_export(file).channels) == (4, "RGBA, alpha is not looked at")
    images = pictures(1, 4)
    other = images.copy()
    other[..., 3] = 255 - other[..., 3]
    shares = network.runtime(images)
    np.testing.assert_array_equal(shares, network.runtime(other))
    expected = open_network(bright).shares(images[..., :3])
    np.testing.assert_allclose(shares, expected, atol=0.05 if name == "tflite-int8" else 1e-4)
    np.testing.assert_array_equal(network.shares(images[..., :3]), shares)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", ["onnx", "tflite-int8"])
def test_a_grey_run_takes_colours_by_bt601(name: str, channels: int, bright_grey: Path, tmp_path: Path) -> None:
    file = tmp_path / NAMES[name]
    report = export(bright_grey, name, file, ExportOptions(channels=channels))
    assert report.parity is not None
    assert report.parity.mean_iou >= 0.99
    red, green = pictures(1, channels) // 2 * 0, pictures(1, channels) // 2 * 0
    red[..., 0], green[..., min(1, channels - 1)] = 255, 255
    runtime = open_network(file).runtime
    found = [float(runtime(one)[0, 0, 0, 1]) for one in (red, green)]
    levels = (0.299 * 255, 0.587 * 255) if channels > 1 else (255, 255)
    expected = [1 / (1 + np.exp(13 - level / 10)) for level in levels]
    np.testing.assert_allclose(found, expected, atol=0.05 if name == "tflite-int8" else 1e-4)


def test_a_run_of_colours_takes_no_grey(bright: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--input-channels 1: .* was trained on RGB, expected 3 or 4"):
        export(bright, "onnx", tmp_path / "o.onnx", ExportOptions(channels=1))


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_a_run_of_mixed_precision_is_exported_in_float32(precision: str, discs: Path, tmp_path: Path) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(f"mixed_{precision}")
    try:
        inputs = keras.Input((None, None, 3), name="image")
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
        model = keras.Model(inputs, keras.layers.Conv2D(2, 1, dtype="float32", name="logits")(x), name="mixed")
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("first").compute_dtype == precision
    run = write_run(tmp_path / "run", model, discs, precision=precision)
    export(run, "keras", tmp_path / "k.keras", ANY)
    layer = load_model(tmp_path / "k.keras").get_layer("mixed").get_layer("mixed").get_layer("first")
    assert layer.compute_dtype == "float32"
    np.testing.assert_array_equal(layer.get_weights()[0], model.get_layer("first").get_weights()[0])
    export(run, "tflite", tmp_path / "f.tflite", ANY)
    as_exported = open_network(tmp_path / "k.keras").shares(pictures(1, 3))
    np.testing.assert_allclose(open_network(tmp_path / "f.tflite").shares(pictures(1, 3)), as_exported, atol=1e-4)


# ---- parity ----------------------------------------------------------------------------------------------------------


def test_a_file_below_min_parity_is_not_left(small: Path, tmp_path: Path) -> None:
    """Eight bits change what is on the edge."""
    out = tmp_path / "app" / "i.tflite"
    with pytest.raises(
        JobFailed,
        match=r"i\.tflite: mean IoU 0\.\d+ .* over 19 samples of test, validation, train, expected --min-parity 1",
    ):
        export(small, "tflite-int8", out, ExportOptions(min_parity=1))
    assert list(out.parent.iterdir()) == []


def test_what_was_there_before_stays(bright: Path, small: Path, tmp_path: Path) -> None:
    out = tmp_path / "i.tflite"
    export(bright, "tflite", out)
    before = tree(tmp_path)
    with pytest.raises(JobFailed):
        export(small, "tflite-int8", out, ExportOptions(min_parity=1, overwrite=True))
    assert tree(tmp_path) == before
    export(bright, "tflite-int8", out, ExportOptions(overwrite=True))
    assert read_export(out).export_format == "tflite-int8"


def test_samples_that_were_held_back_come_first(bright: Path, make: Callable[..., Path], tmp_path: Path) -> None:
    shards = make(samples={"train": 40, "validation": 20, "test": 33})
    run = write_run(tmp_path / "run", by_brightness(), shards)
    report = export(run, "tflite", tmp_path / "a.tflite", ExportOptions(samples=50))
    assert report.parity is not None
    assert (report.parity.samples, report.parity.splits, report.notes) == (50, ("test", "validation"), ())
    report = export(bright, "tflite", tmp_path / "b.tflite")
    assert [note for note in report.notes if "19 samples, fewer than the 64" in note]


def test_of_float_0_99_is_asked_and_of_int8_0_97(bright: Path, tmp_path: Path) -> None:
    for name, expected in (("tflite", 0.99), ("tflite-int8", 0.97)):
        parity = export(bright, name, tmp_path / NAMES[name]).parity
        assert parity is not None
        assert (parity.min_iou, parity.mean_iou) == (expected, pytest.approx(1, abs=0.03))


# ---- shards ----------------------------------------------------------------------------------------------------------


def test_shards_that_moved_are_named(discs: Path, make: Callable[..., Path], tmp_path: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(discs, here)
    run = write_run(tmp_path / "run", by_brightness(), here)
    there = here.rename(tmp_path / "there")
    out = tmp_path / "f.tflite"
    with pytest.raises(OptionError, match=r"here: has no index\.json, .* Give --shards"):
        export(run, "tflite", out)
    with pytest.raises(OptionError, match=OTHER_SHARDS):
        export(run, "tflite", out, ExportOptions(shards=make(size=(32, 32))))
    assert not out.exists()
    export(run, "tflite", out, ExportOptions(shards=there))
    assert export_module.OTHER_SHARDS == OTHER_SHARDS  # the words of evaluate


def test_a_class_that_no_sample_has_is_named(make: Callable[..., Path], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", by_brightness(), make(ignore_all_in="train"))
    report = export(run, "tflite-int8", tmp_path / "i.tflite", ANY)
    assert "no sample of split 'train' has background, person, so int8 was calibrated without." in report.notes
    calibration = read_export(report.out).calibration
    assert calibration is not None
    assert calibration.absent == BINARY.names


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_converter_that_fails_says_so_in_one_line(
    bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        os.write(2, b"a page of C++\n")
        print("and more")
        raise RuntimeError("\nno such operation\nand how it came to that")

    monkeypatch.setattr(keras.Model, "export", fail)
    with pytest.raises(JobFailed) as caught:
        export(bright, "onnx", tmp_path / "app" / "o.onnx")
    assert str(caught.value) == (
        "--format onnx: the network cannot be converted (no such operation). Choose another --format."
    )
    assert list((tmp_path / "app").iterdir()) == []
    assert capfd.readouterr() == ("", "")


def test_what_tf2onnx_has_no_memory_for_is_refused(
    bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_exporter, "MOST_PARAMETERS", 3)
    with pytest.raises(JobFailed, match=r"--format onnx: the network has 4 parameters, expected 3 or fewer"):
        export(bright, "onnx", tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_converted_network_that_does_not_run_is_not_left(
    bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = export_module.registry.load(EXPORTERS, "onnx", "").write

    def damaged(network: Any, path: Path, calibration: Any) -> Any:
        found = written(network, path, calibration)
        path.write_bytes(b"nonsense")
        return found

    broken = ModuleType("broken")
    broken.ONNX = Exporter(damaged, ".onnx", "onnxruntime")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "broken", broken)
    monkeypatch.setitem(EXPORTERS, "onnx", "broken:ONNX")
    with pytest.raises(JobFailed, match="the converted network does not run"):
        export(bright, "onnx", tmp_path / "o.onnx")
    assert list(tmp_path.iterdir()) == []


def test_interrupted_it_leaves_nothing(bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "compare", stop)
    with pytest.raises(KeyboardInterrupt):
        export(bright, "keras", tmp_path / "k.keras")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_cannot_be_taken_gives_the_old_files_back(
    bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "k.keras"
    export(bright, "keras", out)
    before, replaced = tree(tmp_path), os.replace

    def fail_for_json(source: Any, target: Any) -> None:
        if str(target).endswith("k.keras.json") and Path(target).parent == tmp_path:
            raise PermissionError(13, "no", str(target))
        replaced(source, target)

    monkeypatch.setattr(os, "replace", fail_for_json)
    with pytest.raises(PermissionError):
        export(bright, "keras", out, ExportOptions(channels=4, overwrite=True))
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [
        ("onnxruntime", "onnx", "export"),
        ("tf2onnx", "onnx", "export"),
        ("ai_edge_litert.interpreter", "tflite", "export"),
        ("coremltools", "coreml", "coreml"),
    ],
)
def test_a_package_that_is_missing_is_named(
    module: str, name: str, extra: str, bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    package = module.partition(".")[0]
    suffix = {**NAMES, "coreml": "c.mlpackage"}[name]
    with pytest.raises(OptionError, match=rf'{name}: {package} is not installed, .* pip install "segdata\[{extra}\]"'):
        export(bright, name, tmp_path / suffix)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("module", "name"), [("onnxruntime", "onnx"), ("ai_edge_litert.interpreter", "tflite")])
def test_who_opens_a_file_is_told_so_too(
    module: str, name: str, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OptionError, match=r'is not installed, .* pip install "segdata\[export\]"'):
        open_network(exported[name])


def test_other_backends_are_told_what_to_set(bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for name in ("onnx", "saved_model", "tflite"):
        with pytest.raises(OptionError, match=r"Keras runs on jax, expected tensorflow\. Set KERAS_BACKEND=tensorflow"):
            export(bright, name, tmp_path / NAMES[name])


def test_keras_files_are_written_on_jax_too(bright: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax")
    code = "import sys; from pathlib import Path; from segmodels.export import export; "
    code += "print(export(Path(sys.argv[1]), 'keras', Path(sys.argv[2])).parity.mean_iou)"
    arguments = [sys.executable, "-c", code, str(bright), str(tmp_path / "k.keras")]
    env = os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, env=env)
    assert done.stdout.strip() == "1.0", done.stderr


def test_names_and_options_that_do_not_fit(bright: Path, tmp_path: Path) -> None:
    for bad in ({"channels": 2}, {"samples": 49}, {"min_parity": 1.1}, {"min_parity": float("nan")}):
        with pytest.raises(OptionError, match=r"--(input-channels|samples|min-parity) "):
            ExportOptions(**bad)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=r"expected a name ending in \.tflite for --format tflite-int8"):
        export(bright, "tflite-int8", tmp_path / "person.lite")
    with pytest.raises(OptionError, match=r"--format 'tflit' is not known\. Did you mean 'tflite'"):
        export(bright, "tflit", tmp_path / "a.tflite")
    with pytest.raises(OptionError, match="expected the name of a file"):
        export(bright, "saved_model", Path())
    with pytest.raises(FolderError, match="lies in"):
        export(bright, "keras", bright / "k.keras")


def test_only_what_it_made_is_replaced(bright: Path, tmp_path: Path) -> None:
    out, overwrite = tmp_path / "saved", ExportOptions(overwrite=True)
    export(bright, "saved_model", out)
    with pytest.raises(FolderError, match="exists already"):
        export(bright, "saved_model", out)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match="is no network that `segdata export` wrote"):
        export(bright, "saved_model", out, overwrite)
    (out / "notes.txt").unlink()
    export(bright, "saved_model", out, overwrite)
    foreign = tmp_path / "k.keras"
    foreign.write_bytes(b"mine")
    with pytest.raises(FolderError, match="is no network"):
        export(bright, "keras", foreign, overwrite)
    foreign.unlink()
    record_path(foreign).write_text('{"mine": 1}')
    with pytest.raises(FolderError, match=r"k\.keras\.json: is no network"):
        export(bright, "keras", foreign, overwrite)
    assert record_path(foreign).read_text() == '{"mine": 1}'


# ---- Core ML, which no machine of these tests may have ---------------------------------------------------------------


def test_core_ml_is_not_compared_where_nothing_runs_it(
    bright: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for coremltools: what the real one makes of a network is for a person with a Mac to see."""
    feature = SimpleNamespace

    class Converted:
        def __init__(self) -> None:
            self.user_defined_metadata = {"com.github.apple.coremltools.conversion_date": "today"}

        def save(self, path: str) -> None:
            Path(path).mkdir()
            Path(path, "Manifest.json").write_text(str(self.user_defined_metadata))

        def get_spec(self) -> Any:
            return feature(description=feature(input=[feature(name="image")], output=[feature(name="Identity")]))

    stand_in = ModuleType("coremltools")
    stand_in.precision = feature(FLOAT32=32)  # type: ignore[attr-defined]
    stand_in.convert = lambda network, **options: Converted()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "coremltools", stand_in)
    monkeypatch.setattr(sys, "platform", "linux")
    out = tmp_path / "c.mlpackage"
    report = export(bright, "coreml", out, ExportOptions(channels=4))
    assert report.parity is None
    assert report.notes == (export_module.ONLY_MACOS,)
    record = read_export(out)
    assert (record.parity, record.input.shape, record.output.name) == (None, (1, *SIZE, 4), "Identity")
    assert (out / "Manifest.json").read_text() == "{}"
    with pytest.raises(OptionError, match="only macOS runs Core ML"):
        open_network(out)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_says_it_in_two_lines_and_nothing_else(
    bright: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "o.onnx"
    command(bright, "onnx", out)
    shown = capfd.readouterr()
    first, second = shown.out.splitlines()
    assert first.startswith(f"{out}: 0.00 MB, mean IoU 1.0000 with the run's own network over 19 samples, largest ")
    assert first.endswith(" ms a picture")
    assert second == f"  {out}.json"
    assert shown.err.splitlines() == [line for line in shown.err.splitlines() if line.startswith("note: ")]
    command(bright, "onnx", out, overwrite=True, json=True)
    assert json.loads(capfd.readouterr().out)["parity"]["samples"] == 19


def test_quietly_lets_through_what_is_ours() -> None:
    def refuse() -> None:
        raise OptionError("ours")

    with pytest.raises(OptionError, match=r"^ours$"):
        quietly(refuse, "where")
    assert quietly(lambda: 7, "where") == 7


def test_keras_files_hold_the_scaling_and_the_shares(exported: dict[str, Path]) -> None:
    """What runs them needs nothing of the run."""
    with zipfile.ZipFile(exported["keras"]) as saved:
        config = json.loads(saved.read("config.json"))["config"]
    assert config["input_layers"][0][0] == "image" or config["input_layers"][0] == "image"
    assert config["output_layers"][0][0] == "probabilities" or config["output_layers"][0] == "probabilities"


def test_a_record_of_other_channels_is_refused(exported: dict[str, Path]) -> None:
    import msgspec

    record: ExportRecord = read_export(exported["onnx"])
    odd = msgspec.structs.replace(record, input=msgspec.structs.replace(record.input, shape=(1, *SIZE, 2)))
    with pytest.raises(RecordError, match="2 input channels"):
        _ = odd.input_channels
