"""What is saved comes back whole and with the same bytes; weights of other files go where they fit."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import OptionError, RecordError
from segdata.formats.images import encode_png
from segmodels.checkpoints import load_fitting_weights, load_model, load_state, read_beside, save_model
from segmodels.layers import BilinearUpsample
from segmodels.losses import Objective
from segmodels.quiet import keras
from segmodels.steps import make_optimizer, make_steps, seed_weights

BESIDE = {"progress.json": b'{"rows": []}', "more/x.bin": bytes(range(256))}
Steps = Any


def network(classes: int = 2, prefix: str = "", width: int = 4, policy: str = "float32", extra: bool = False) -> Any:
    """Two convolutions with batch norm between; ``prefix`` gives all layers other names."""
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((None, None, 3), name="image")
        x = keras.layers.Rescaling(1 / 255)(inputs)
        x = keras.layers.Conv2D(width, 3, padding="same", name=f"{prefix}first")(x)
        x = keras.layers.BatchNormalization(name=f"{prefix}norm")(x)
        if extra:
            x = keras.layers.Conv2D(width, 3, padding="same", name=f"{prefix}extra")(x)
        x = keras.layers.Conv2D(classes, 1, name=f"{prefix}logits")(keras.layers.ReLU()(x))
        return keras.Model(inputs, keras.layers.Activation("linear", dtype="float32")(x), name="small")
    finally:
        keras.config.set_dtype_policy("float32")


def filled(model: Any, seed: int) -> Any:
    """The model with weights of that seed, all of them different."""
    dice = np.random.default_rng(seed)
    model.set_weights([dice.uniform(0.1, 1, w.shape).astype(np.float32) for w in model.weights])
    return model


def compiled(model: Any, optimizer: str = "adam", is_scaled: bool = False) -> tuple[Any, Any, Steps]:
    made = make_optimizer(optimizer, 0.01, 0.0, 1.0, is_scaled)
    made.build(model.trainable_variables)
    model.compile(made, jit_compile=False)
    return model, made, make_steps(model, made, Objective("cross_entropy"))


def batch(seed: int = 0) -> tuple[Any, dict[str, Any]]:
    dice = np.random.default_rng(seed)
    images = dice.integers(0, 256, (2, 8, 8, 3), np.uint8)
    return images, {"target": dice.integers(0, 2, (2, 8, 8), np.uint8)}


def state(model: Any, optimizer: Any) -> dict[str, Any]:
    variables = [*model.weights, *optimizer.variables]
    return {f"{i} {v.path}": keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}


# ---- what is saved


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    kept: list[Any] = []
    for name in ("a", "b"):
        keras.backend.clear_session()  # so that both get the same automatic names
        model, _, steps = compiled(filled(network(), 1))
        steps.train(*batch(), 0.01)
        save_model(model, tmp_path / f"{name}.keras", BESIDE)
        kept.append(model)
        kept.append([np.zeros(1000) for _ in range(50)])  # so that the next model has other addresses
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keras", "b.keras"]


def test_no_clock_is_in_the_file(tmp_path: Path) -> None:
    save_model(network(), tmp_path / "a.keras", BESIDE)
    with zipfile.ZipFile(tmp_path / "a.keras") as saved:
        assert {member.date_time for member in saved.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert "date_saved" not in json.loads(saved.read("metadata.json"))


def test_what_lies_beside_comes_back_and_keras_loads_the_file(tmp_path: Path) -> None:
    model = filled(network(), 1)
    save_model(model, tmp_path / "a.keras", BESIDE)
    for name, data in BESIDE.items():
        assert read_beside(tmp_path / "a.keras", name) == data
    images, _ = batch()
    expected = keras.ops.convert_to_numpy(model(images))
    for loaded in (keras.saving.load_model(tmp_path / "a.keras", compile=False), load_model(tmp_path / "a.keras")):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(loaded(images)), expected)


def test_a_stopped_save_leaves_the_file_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = filled(network(), 1)
    save_model(model, tmp_path / "a.keras", BESIDE)
    before = (tmp_path / "a.keras").read_bytes()

    class Broken(dict[str, bytes]):
        def items(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_model(filled(model, 2), tmp_path / "a.keras", Broken(BESIDE))
    assert (tmp_path / "a.keras").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.keras"]


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    """A byte of what lies beside, which is stored as it is."""
    at = data.index(b'{"rows"')
    return data[:at] + b"(" + data[at + 1 :]


@pytest.mark.parametrize("damage", [cut, flipped, lambda data: b"", lambda data: b"no zip"])
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.keras"
    save_model(network(), path, BESIDE)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(RecordError, match=r"a\.keras: cannot be read .*can begin with --weights best.keras") as caught:
        read_beside(path, "progress.json")
    assert "\n" not in str(caught.value)
    if damage is not flipped:
        for read in (load_model, lambda path: load_state(network(), path)):
            with pytest.raises(RecordError, match=r"a\.keras: ") as caught:
                read(path)
            assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_or_lacks_a_member_is_named(tmp_path: Path) -> None:
    save_model(network(), tmp_path / "a.keras")
    with pytest.raises(RecordError, match=r"a\.keras: cannot be read"):
        read_beside(tmp_path / "a.keras", "progress.json")
    for read in (lambda path: read_beside(path, "progress.json"), load_model):
        with pytest.raises(RecordError, match=r"nowhere\.keras: "):
            read(tmp_path / "nowhere.keras")


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_a_state_of_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    save_model(filled(network(5, width=7), 1), tmp_path / "a.keras")
    with pytest.raises(RecordError, match=r"a\.keras: cannot be read") as caught:
        load_state(network(2), tmp_path / "a.keras")
    assert "\n" not in str(caught.value)


# ---- the state of training


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("is_scaled", [False, True], ids=["float32", "float16"])
def test_weights_and_optimizer_come_back_exactly_and_go_on_the_same(
    tmp_path: Path, optimizer: str, is_scaled: bool
) -> None:
    policy = "mixed_float16" if is_scaled else "float32"
    model, made, steps = compiled(filled(network(policy=policy), 1), optimizer, is_scaled)
    if is_scaled:
        made.dynamic_scale.assign(2.0**7)  # as if it had overflowed before
    for seed in range(3):
        steps.train(*batch(seed), 0.003)
    steps.sync()
    save_model(model, tmp_path / "a.keras", BESIDE)
    again, other, other_steps = compiled(filled(network(policy=policy), 2), optimizer, is_scaled)
    load_state(again, tmp_path / "a.keras")
    expected, found = state(model, made), state(again, other)
    assert [key.split("/")[-1] for key in found] == [key.split("/")[-1] for key in expected]
    for (key, value), want in zip(found.items(), expected.values(), strict=True):
        np.testing.assert_array_equal(value, want, key)
    assert int(keras.ops.convert_to_numpy(other.iterations)) == 3
    if is_scaled:
        assert float(keras.ops.convert_to_numpy(other.dynamic_scale)) == 2.0**7
    assert other_steps.train(*batch(3), 0.003) == steps.train(*batch(3), 0.003)
    for value, want in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, want)


# ---- weights of other files


def written(model: Any, folder: Path, kind: str) -> Path:
    path = folder / f"weights{kind}"
    if kind == ".keras":
        save_model(model, path)
    elif kind == ".weights.h5":
        model.save_weights(path)
    else:
        write_legacy(model, path, whole_model=kind == "-whole.h5")
    return path


def write_legacy(model: Any, path: Path, whole_model: bool) -> None:
    """HDF5 as Keras 2 wrote it: names in attributes, of layers without weights too, and weights below them."""
    import h5py

    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole_model else file
        group.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        group.attrs["backend"] = b"tensorflow"
        for layer in model.layers:
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            inner = group.create_group(layer.name)
            inner.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                inner[name] = keras.ops.convert_to_numpy(weight)


KINDS = (".keras", ".weights.h5", ".h5", "-whole.h5")
NAMES = ("first", "norm", "logits")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "other_"], ids=["by-name", "by-order"])
def test_weights_of_the_same_network_all_fit(tmp_path: Path, kind: str, prefix: str) -> None:
    source = filled(network(prefix=prefix), 1)
    model = filled(network(), 2)
    found = load_fitting_weights(model, written(source, tmp_path, kind))
    assert (found.loaded, found.left) == (NAMES, ())
    for weight, expected in zip(model.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prefix", ["", "other_"], ids=["by-name", "by-order"])
def test_with_other_classes_the_last_layer_is_left_and_named(tmp_path: Path, kind: str, prefix: str) -> None:
    source = filled(network(5, prefix), 1)
    model = filled(network(2), 2)
    before = model.get_weights()
    found = load_fitting_weights(model, written(source, tmp_path, kind))
    assert (found.loaded, found.left) == (NAMES[:2], ("logits",))
    for weight, expected in zip(model.get_weights()[:-2], source.get_weights()[:-2], strict=True):
        np.testing.assert_array_equal(weight, expected)
    for weight, expected in zip(model.get_weights()[-2:], before[-2:], strict=True):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("kind", [".keras", ".h5"])
def test_by_name_a_layer_more_shifts_nothing(tmp_path: Path, kind: str) -> None:
    source = filled(network(extra=True), 1)
    model = filled(network(), 2)
    assert load_fitting_weights(model, written(source, tmp_path, kind)).left == ()
    np.testing.assert_array_equal(
        model.get_layer("logits").get_weights()[0], source.get_layer("logits").get_weights()[0]
    )
    found = load_fitting_weights(filled(network(extra=True), 3), written(filled(network(), 4), tmp_path, kind))
    assert (found.loaded, found.left) == (NAMES, ("extra",))


def test_layers_of_models_within_a_model_are_found(tmp_path: Path) -> None:
    def nested() -> Any:
        inputs = keras.Input((None, None, 3))
        return keras.Model(inputs, keras.layers.Conv2D(2, 1, name="head")(network()(inputs)), name="outer")

    source, model = filled(nested(), 1), filled(nested(), 2)
    found = load_fitting_weights(model, written(source, tmp_path, ".keras"))
    assert found.loaded == (*NAMES, "head")
    for weight, expected in zip(model.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_own_layers_load(tmp_path: Path) -> None:
    """Those that segmodels registers, in a file that a fresh process would read."""
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(2, 1)(BilinearUpsample()(inputs)))
    save_model(filled(model, 1), tmp_path / "a.keras")
    np.testing.assert_array_equal(load_model(tmp_path / "a.keras").get_weights()[0], model.get_weights()[0])


def test_an_optimizer_in_the_file_does_not_matter(tmp_path: Path) -> None:
    source, _, steps = compiled(filled(network(), 1))
    steps.train(*batch(), 0.01)
    source.save_weights(tmp_path / "a.weights.h5")
    save_model(source, tmp_path / "a.keras")
    for name in ("a.weights.h5", "a.keras"):
        assert load_fitting_weights(filled(network(), 2), tmp_path / name).loaded == NAMES


def a_wrong_file(kind: str, folder: Path) -> Path:
    path = folder / kind
    if kind == "png.h5":
        path.write_bytes(encode_png(np.zeros((4, 4), np.uint8)))
    elif kind == "other.weights.h5":
        inputs = keras.Input((7,))
        keras.Model(inputs, keras.layers.Dense(3)(inputs)).save_weights(path)
    elif kind == "folder.h5":
        path.mkdir()
    elif kind in ("cut.keras", "cut.weights.h5"):
        (save_model(network(), path) if kind.endswith("keras") else network().save_weights(path))
        path.write_bytes(cut(path.read_bytes()))
    elif kind == "text.keras":
        path.write_text("weights")
    elif kind == "empty.h5":
        path.write_bytes(b"")
    elif kind == "zip.keras":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("config.json", "{}")
    elif kind == "nothing.h5":
        import h5py

        h5py.File(path, "w").close()
    return path


@pytest.mark.parametrize(
    "kind",
    [
        "png.h5",
        "other.weights.h5",
        "missing.h5",
        "missing.keras",
        "folder.h5",
        "cut.keras",
        "cut.weights.h5",
        "text.keras",
        "zip.keras",
        "empty.h5",
        "nothing.h5",
    ],
)
def test_a_wrong_file_is_an_option_that_does_not_fit(tmp_path: Path, kind: str) -> None:
    model = filled(network(), 2)
    before = model.get_weights()
    with pytest.raises(OptionError, match=rf"--weights .*{kind}: ") as caught:
        load_fitting_weights(model, a_wrong_file(kind, tmp_path))
    assert "\n" not in str(caught.value)
    assert "segdata train" not in str(caught.value), "that would not bring the file back"
    for weight, expected in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_first_weights_come_from_the_seed() -> None:
    def first(seed: int) -> list[Any]:
        seed_weights(seed)
        found: list[Any] = network().get_weights()
        return found

    for weight, expected in zip(first(3), first(3), strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert (first(3)[0] != first(4)[0]).any()
