"""Several devices and several workers do what one does; who does not answer ends the others in one line."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segdata.errors import OptionError
from segmodels.checkpoints import load_model
from segmodels.cluster import ALONE, Cluster, cluster_from, make_strategy
from segmodels.config import BEST, HISTORY_CSV, LAST, TrainConfig, read_run
from segmodels.steps import backend
from segmodels.train import train
from tests.segmodels.material import Recipe, write_shards

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(backend() != "tensorflow", reason="several devices are TensorFlow's")

# ---- who takes part


def tf_config(workers: Any = ("a:1", "b:2"), index: Any = 1) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})}


@pytest.mark.parametrize(
    ("workers", "number", "environment", "expected"),
    [
        (None, None, {}, ALONE),
        ("10.0.0.1:2222,node-2:80", 1, {}, Cluster(("10.0.0.1:2222", "node-2:80"), 1)),
        ("a:1", 0, {}, Cluster(("a:1",), 0)),
        ("[::1]:2222,[::1]:2223", 0, {}, Cluster(("[::1]:2222", "[::1]:2223"), 0)),
        (None, None, tf_config(), Cluster(("a:1", "b:2"), 1)),
        (None, None, tf_config(index="1"), Cluster(("a:1", "b:2"), 1)),
        ("c:3,d:4", 0, tf_config(), Cluster(("c:3", "d:4"), 0)),
    ],
)
def test_workers_come_from_the_options_or_the_environment(
    workers: str | None, number: int | None, environment: dict[str, str], expected: Cluster
) -> None:
    found = cluster_from(workers, number, environment)
    assert found == expected
    assert found.size == max(1, len(expected.workers))
    assert found.is_chief == (expected.number == 0)


@pytest.mark.parametrize(
    ("workers", "number", "environment", "message"),
    [
        ("a:1,b:2", None, {}, "--workers and --worker go together"),
        (None, 0, {}, "--workers and --worker go together"),
        ("a:1,b", 0, {}, "--workers 'b': expected HOST:PORT, such as"),
        ("a:1,:2", 0, {}, "--workers ':2': expected HOST:PORT"),
        ("a:1,b:x", 0, {}, "--workers 'b:x': expected HOST:PORT"),
        ("", 0, {}, "--workers '': expected HOST:PORT"),
        ("a:1,a:1", 0, {}, "named twice"),
        ("a:1,b:2", 2, {}, "--worker 2: expected 0 to 1."),
        ("a:1,b:2", -1, {}, "--worker -1: expected 0 to 1."),
        (None, None, {"TF_CONFIG": "no json"}, "TF_CONFIG: expected"),
        (None, None, {"TF_CONFIG": "{}"}, "TF_CONFIG: expected"),
        (None, None, {"TF_CONFIG": "[]"}, "TF_CONFIG: expected"),
        (None, None, {"TF_CONFIG": '{"cluster": {"worker": ["a:1"]}}'}, "TF_CONFIG: expected"),
        (None, None, tf_config(index=2), "expected 0 to 1"),
        (None, None, tf_config(index=None), "TF_CONFIG: expected"),
        (None, None, tf_config(workers=[1, 2]), "expected"),
        (None, None, tf_config(workers="a:1"), "expected"),
    ],
)
def test_what_names_no_cluster_is_refused_in_one_line(
    workers: str | None, number: int | None, environment: dict[str, str], message: str
) -> None:
    with pytest.raises(OptionError, match=message) as caught:
        cluster_from(workers, number, environment)
    assert "\n" not in str(caught.value)


def test_one_device_needs_no_strategy() -> None:
    assert make_strategy(ALONE, []) is None
    assert make_strategy(ALONE, ["CPU:0"]) is None


# ---- two devices of one machine: a process that cuts its CPU in two before TensorFlow looks


def run(function: str, *arguments: Any, timeout: float = 200) -> subprocess.CompletedProcess[str]:
    """One of the functions below in a fresh process."""
    return subprocess.run(**command(function, *arguments), capture_output=True, text=True, check=False, timeout=timeout)


def command(function: str, *arguments: Any) -> dict[str, Any]:
    code = f"import sys, json; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.segmodels import test_cluster\n"
    code += f"test_cluster.{function}(*json.loads(sys.argv[1]))"
    env = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"} | {"CUDA_VISIBLE_DEVICES": "-1"}
    return {"args": [sys.executable, "-c", code, json.dumps([*map(_plain, arguments)])], "env": env}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def build_small(classes: int, channels: int = 3, height: int | None = None, width: int | None = None) -> Any:
    """With batch norm, whose means each replica learns by itself, and dropout."""
    return network(classes, True, 0.2, shape=(height, width, channels))


def network(classes: int = 2, norm: bool = False, dropout: float = 0.0, shape: Any = (8, 8, 3)) -> Any:
    from segmodels.quiet import keras

    inputs = keras.Input(shape, name="image")
    x = keras.layers.Conv2D(4, 3, padding="same")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.BatchNormalization(name="norm")(x) if norm else x
    x = keras.layers.Dropout(dropout)(x) if dropout else x
    return keras.Model(inputs, keras.layers.Conv2D(classes, 1, name="logits")(x), name="small")


CASES: dict[str, dict[str, Any]] = {
    "sgd": {},
    "adam": {"optimizer": "adam"},
    "bounded": {"clip_norm": 0.01},
    "odd": {"size": 3},
    "single": {"size": 1},
    "norm": {"norm": True},
    "float16": {"policy": "mixed_float16"},
    "overflow-there": {"policy": "mixed_float16", "bright": 1},
    "overflow-here": {"policy": "mixed_float16", "bright": 0},
}


def on_devices(out: str) -> None:
    """Each case on one device and on two: losses, weights by replica, the way from the first weights."""
    from segmodels.batches import tf

    two = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], two)
    strategy = make_strategy(ALONE, ["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    found = {}
    for name, case in CASES.items():
        found[name] = [trained_on(None, **case), trained_on(strategy, **case)]
    Path(out).write_text(json.dumps(found))


def trained_on(
    strategy: Any,
    optimizer: str = "sgd",
    clip_norm: float = 0.0,
    size: int = 4,
    norm: bool = False,
    policy: str = "float32",
    bright: int | None = None,
) -> dict[str, Any]:
    """Three steps; with ``bright`` one, in which only the samples of that share overflow float16."""
    from segmodels.losses import Objective
    from segmodels.quiet import keras
    from segmodels.steps import make_optimizer, make_steps

    keras.utils.set_random_seed(1)
    keras.config.set_dtype_policy(policy)
    with strategy.scope() if strategy else nullcontext():
        model = network(norm=norm)
        replicas = strategy.num_replicas_in_sync if strategy else 1
        made = make_optimizer(optimizer, 0.1, 0, clip_norm / replicas, policy != "float32")
        made.build(model.trainable_variables)
        model.compile(made, jit_compile=False)
    keras.config.set_dtype_policy("float32")
    before = model.get_weights()
    steps = make_steps(model, made, Objective("cross_entropy"), strategy)
    losses = [steps.train(*batch(size, bright), 0.1) for _ in range(1 if bright is not None else 3)]
    steps.sync()
    local = strategy.experimental_local_results if strategy else lambda value: (value,)
    by_replica = [[np.asarray(one).ravel().astype(float).tolist() for one in local(w.value)] for w in model.weights]
    way = sum(float(np.sum((a - b) ** 2)) for a, b in zip(model.get_weights(), before, strict=True)) ** 0.5
    return {"losses": losses, "replicas": by_replica, "way": way}


def batch(size: int, bright: int | None) -> tuple[Any, dict[str, Any]]:
    from segmodels.batches import tf

    dice = np.random.default_rng(0)
    images = dice.integers(0, 256, (size, 8, 8, 3)).astype(np.float32)
    target = dice.integers(0, 2, (size, 8, 8), np.uint8)
    target[:, :2] = 255  # as many pixels count in each sample
    if bright is not None:
        images[bright::2] *= 3e4
    return tf.constant(images), {"target": tf.constant(target)}


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``on_devices`` found."""
    out = tmp_path_factory.mktemp("devices") / "found.json"
    done = run("on_devices", out)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def weights(found: dict[str, Any]) -> list[float]:
    return [number for replicas in found["replicas"] for number in replicas[0]]


@pytest.mark.parametrize("case", ["sgd", "adam", "bounded", "float16"])
def test_two_devices_take_the_same_steps_as_one(devices: dict[str, Any], case: str) -> None:
    one, two = devices[case]
    tolerance = 1e-3 if case == "float16" else 1e-5
    assert two["losses"] == pytest.approx(one["losses"], abs=tolerance)
    assert weights(two) == pytest.approx(weights(one), abs=tolerance)
    assert one["way"] > (0.001 if case == "bounded" else 0.01)


@pytest.mark.parametrize("case", CASES)
def test_replicas_hold_the_same_after_sync(devices: dict[str, Any], case: str) -> None:
    """The means of batch norm too, which each has learned of its own share."""
    for replicas in devices[case][1]["replicas"]:
        assert len(replicas) == 2
        assert replicas[0] == replicas[1]
        assert np.isfinite(replicas[0]).all()


def test_batch_norms_means_are_those_of_both_shares(devices: dict[str, Any]) -> None:
    """The mean over shares of equal size is that over the batch; other weights move, so only about."""
    one, two = devices["norm"]
    means = len(one["replicas"]) - 4  # kernel, bias, gamma, beta, mean, variance, kernel, bias
    assert means == 4
    assert two["replicas"][means][0] == pytest.approx(one["replicas"][means][0], abs=0.02)
    assert np.abs(one["replicas"][means][0]).max() > 0.005


@pytest.mark.parametrize("case", ["odd", "single"])
def test_a_batch_that_does_not_divide_trains(devices: dict[str, Any], case: str) -> None:
    two = devices[case][1]
    assert two["way"] > 0.01
    assert two["losses"] == sorted(two["losses"], reverse=True), "it learns"


def test_a_batch_of_one_sample_has_the_loss_of_that_sample(devices: dict[str, Any]) -> None:
    one, two = devices["single"]
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert two["way"] == pytest.approx(one["way"], rel=1e-3)


@pytest.mark.parametrize("case", ["overflow-here", "overflow-there"])
def test_a_gradient_that_overflows_on_one_device_is_skipped_on_all(devices: dict[str, Any], case: str) -> None:
    assert [found["way"] for found in devices[case]] == [0, 0]


# ---- two workers, as two processes of this machine


def work(shards: str, out: str, workers: str, number: int, options: list[str], saved: str) -> None:
    """``segdata train`` as one worker, on the network ``small``; what it came to goes to the file ``saved``."""
    from segdata.cli import main
    from segmodels.loop import Loop
    from segmodels.models import MODELS, ModelCard, Total

    MODELS["small"] = ModelCard("small", "tests.segmodels.test_cluster:build_small", (Total(1, 2),), "these tests", 1)
    go = Loop.go

    def noted(self: Loop, run: Any) -> None:
        go(self, run)
        weights = hashlib.sha256(b"".join(w.tobytes() for w in self.model.get_weights())).hexdigest()
        Path(saved).write_text(json.dumps({"weights": weights, "rows": run.rows}))

    Loop.go = noted  # type: ignore[method-assign]
    arguments = ["train", shards, "--model", "small", "--out", out, "--workers", workers, "--worker", str(number)]
    main([*arguments, *options])


def free_ports(count: int) -> list[int]:
    with_sockets = [socket.socket() for _ in range(count)]
    for one in with_sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in with_sockets]
    for one in with_sockets:
        one.close()
    return ports


class Pair:
    """Two workers on loopback that train in ``folder``; both are ended with the block."""

    def __init__(self, folder: Path, shards: Path, *options: str) -> None:
        self.out, self.saved = folder / "run", [folder / f"saved{i}.json" for i in range(2)]
        self.logs = [folder / f"log{i}.txt" for i in range(2)]
        workers = ",".join(f"127.0.0.1:{port}" for port in free_ports(2))
        self.processes = [
            self._start(number, shards, self.out, workers, number, [*options], self.saved[number])
            for number in range(2)
        ]

    def _start(self, number: int, *arguments: Any) -> subprocess.Popen[bytes]:
        with self.logs[number].open("w") as log:
            return subprocess.Popen(**command("work", *arguments), stdout=log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self, number: int) -> str:
        return self.logs[number].read_text(encoding="utf-8")

    def ends(self, timeout: float) -> list[int]:
        """Both exit codes; TimeoutExpired where one hangs."""
        return [process.wait(timeout) for process in self.processes]


@dataclass(frozen=True)
class Done:
    """What two workers came to: the run's folder, and for each what it said, its weights' hash and its rows."""

    out: Path
    said: list[str]
    weights: list[str]
    rows: list[list[dict[str, float]]]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Two epochs over eleven samples, so that one worker has one more; there is no validation split."""
    folder = tmp_path_factory.mktemp("workers")
    write_shards(folder / "shards", Recipe({"train": 11}, size=(32, 32)))
    with Pair(folder, folder / "shards", "--epochs", "2", "--batch-size", "4", "--augment", "light") as pair:
        codes = pair.ends(180)
        said = [pair.said(number) for number in range(2)]
        assert codes == [0, 0], said
    found = [json.loads(path.read_text()) for path in pair.saved]
    return Done(pair.out, said, [one["weights"] for one in found], [one["rows"] for one in found])


def test_two_workers_end_with_equal_weights(done: Done) -> None:
    assert done.weights[0] == done.weights[1]


def test_the_first_worker_writes_a_whole_run(done: Done) -> None:
    record = read_run(done.out)
    assert (record.epochs, record.model, record.backend) == (2, "small", "tensorflow")
    assert {BEST, LAST, HISTORY_CSV} <= {path.name for path in done.out.iterdir()}
    saved = load_model(done.out / LAST).get_weights()
    assert hashlib.sha256(b"".join(w.tobytes() for w in saved)).hexdigest() == done.weights[0]
    assert [line.split(":")[0] for line in done.said[0].splitlines()[:2]] == ["epoch 1 of 2", "epoch 2 of 2"]


def test_workers_see_the_same_history_by_which_they_decide(done: Done) -> None:
    """Early stopping and the plateau schedule hang on it: a worker that ends alone leaves the other waiting."""
    assert done.rows[0] == done.rows[1]


@pytest.fixture
def midway(tmp_path: Path) -> Iterator[Pair]:
    """Two workers in the middle of a long run."""
    write_shards(tmp_path / "shards", Recipe({"train": 6, "validation": 2}, size=(32, 32)))
    with Pair(tmp_path, tmp_path / "shards", "--epochs", "5000", "--batch-size", "4", "--augment", "none") as pair:
        deadline = time.monotonic() + 120
        while not (pair.out / LAST).exists() and time.monotonic() < deadline:
            assert pair.processes[0].poll() is None, pair.said(0)
            time.sleep(0.1)
        assert (pair.out / LAST).exists(), pair.said(0)
        yield pair


def test_a_worker_that_dies_ends_the_other_in_one_line_and_the_run_goes_on(midway: Pair) -> None:
    midway.processes[1].kill()
    began = time.monotonic()
    assert midway.processes[0].wait(90) == 1
    assert time.monotonic() - began < 60
    last = midway.said(0).splitlines()[-1]
    assert not (midway.out / "run.json").exists()
    assert load_model(midway.out / LAST).count_params() > 0
    assert last.startswith("segdata: error: ")
    assert "internal error" not in last
    assert len(last) < 600
    assert "--resume" in last


def test_workers_that_do_not_divide_the_batch_are_refused(discs: Path, tmp_path: Path) -> None:
    cluster = Cluster(("127.0.0.1:1", "127.0.0.1:2"), 1)
    for size, samples in ((3, discs), (1, discs)):
        with pytest.raises(OptionError, match=f"--batch-size {size}: expected a multiple of the 2 workers") as caught:
            train(samples, tmp_path / "run", TrainConfig("likeunet", batch_size=size), cluster=cluster)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_split_smaller_than_the_cluster_is_said_to_be(tmp_path: Path) -> None:
    write_shards(tmp_path / "shards", Recipe({"train": 1}, shards_a_split=1))
    cluster = Cluster(("127.0.0.1:1", "127.0.0.1:2"), 1)
    with pytest.raises(OptionError) as caught:
        train(tmp_path / "shards", tmp_path / "run", TrainConfig("likeunet", batch_size=4), cluster=cluster)
    assert "sample" in str(caught.value), "the batch size is a multiple of the workers"
