"""Work on a cluster: real schedulers and workers as processes here, the same bytes, and an end in any case."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
from PIL import Image

from segdata.formats.folders import PARTS
from segdata.jobs.build import BuildOptions, build
from segdata.jobs.convert import ConvertOptions, convert
from segdata.jobs.split import split
from segdata.labels import label_map
from segdata.records import SplitOptions
from segdata.sample_making import SampleTask, make_samples
from segdata.shard_making import ShardTask, make_shard
from segdata.sources.humanparsing import HumanParsing
from segdata.sources.pairs import Pairs
from tests.folders import segdata, small_pairs, tree

_WAIT_S = 120  # until something happens that takes a second or two, for a machine with other work
_PATIENCE_S = 2  # what the command waits for workers, in place of 20

# The command line, less patient.
_IMPATIENT = f"""
import sys
from segdata import parallel
parallel._CONNECT_S = {_PATIENCE_S}
from segdata.cli import main
main(sys.argv[1:])
"""
# Whose processes do the work, asked of functions that a worker needs no segdata for.
_PIDS = """
import json, sys
from segdata.parallel import Workers, run_tasks
engine, address, jobs = sys.argv[1:]
tasks = ["__import__('os').getpid()"] * 8
print(json.dumps(list(run_tasks(eval, tasks, Workers(int(jobs), engine, address), "test", [1] * 8))))
"""


@dataclass(frozen=True)
class Work:
    """A command whose paths are relative to ``root``, the tree that it makes here, and what counts as done of it."""

    root: Path
    arguments: list[str]
    pattern: str
    expected: dict[str, str]

    def done(self, out: str) -> int:
        return sum(1 for _ in (self.root / out).glob(self.pattern))


@pytest.fixture(scope="module")
def works(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Work]:
    """A build and a conversion, each of a second or two; the way to their inputs is long enough as it is."""
    root = tmp_path_factory.mktemp("engines")
    photos, masks = small_pairs(root, 28)
    convert(Pairs(photos, masks, label_map("binary", "mask")), root / "dataset", ConvertOptions("mine", jobs=1))
    split([root / "dataset"], root / "manifest", SplitOptions(test=2))
    portraits = root / "portraits"
    portraits.mkdir()
    for i in range(96):
        Image.new("RGB", (40, 30), (i, 90, 120)).save(portraits / f"p{i:03d}.png")
        Image.linear_gradient("L").resize((40, 30)).save(portraits / f"p{i:03d}_matte.png")
    commands = {
        "build-tfrecords": (["build-tfrecords", "manifest", "--size", "1000", "--shards", "40"], "offsets/*.json"),
        "convert": (["convert", "pfcn", "portraits", "--crops", "4", "--size", "512"], f"{PARTS}/*.json"),
    }
    found = {}
    for name, (arguments, pattern) in commands.items():
        here = segdata(*arguments, "--out", f"{name}-here", "--jobs", "1", cwd=root)
        assert here.returncode == 0, here.stderr
        found[name] = Work(root, arguments, pattern, tree(root / f"{name}-here"))
    return found


def wait_until(reached: Callable[[], bool]) -> None:
    end = time.monotonic() + _WAIT_S
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextmanager
def process(*command: str | Path, cwd: Path | str = "/", **env: str) -> Iterator[subprocess.Popen[str]]:
    """A process in a group of its own, which is gone after the block."""
    running = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env=os.environ | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.communicate(timeout=_WAIT_S)


@contextmanager
def quiet(log: Path, *command: str | Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """The same for a process that nobody listens to, but that writes to a file."""
    with log.open("ab") as file:
        running = subprocess.Popen(
            [sys.executable, *map(str, command)],
            cwd="/",
            env=os.environ | env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait(timeout=_WAIT_S)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def one_line_error(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The only line on stderr of a command that failed."""
    assert done.returncode == code, (done.stdout, done.stderr)
    assert done.stderr.startswith("segdata: error: ")
    ours, _, _ = done.stderr.partition("Task exception was never retrieved")  # asyncio's, of a task of Dask's, at exit
    assert ours.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


# ---- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--engine", "dask"], "--engine dask: expected the scheduler's --address too"),
        (["--address", "tcp://127.0.0.1:1"], "--address tcp://127.0.0.1:1: goes with --engine dask or ray"),
    ],
)
@pytest.mark.parametrize("command", ["build-tfrecords", "convert"])
def test_an_engine_and_its_address_go_together(
    works: dict[str, Work], command: str, options: list[str], message: str
) -> None:
    work = works[command]
    assert message in one_line_error(segdata(*work.arguments, "--out", "never", *options, cwd=work.root), 2)
    assert not (work.root / "never").exists()


def test_an_unknown_engine_is_wrong_usage(works: dict[str, Work]) -> None:
    work = works["convert"]
    done = segdata(*work.arguments, "--out", "never", "--engine", "spark", cwd=work.root)
    assert done.returncode == 2
    assert "'local', 'dask', 'ray'" in done.stderr


def test_what_goes_to_a_worker_and_back_is_small(raw_people: Path, tmp_path: Path) -> None:
    """A task is at most so many sample lines, or where they stand, and no pixel of them."""
    source = HumanParsing(raw_people, label_map("humanparsing", "humanparsing"))
    convert(source, tmp_path / "d", ConvertOptions("people", jobs=1))
    split([tmp_path / "d"], tmp_path / "m", SplitOptions(test=2))
    sent, returned = list[bytes](), list[bytes]()

    def seen(task: SampleTask | ShardTask) -> object:
        sent.append(pickle.dumps(task))
        result = make_samples(task) if isinstance(task, SampleTask) else make_shard(task)
        returned.append(pickle.dumps(result))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segdata.jobs.build.make_shard", seen)
        patch.setattr("segdata.jobs.convert.make_samples", seen)
        convert(source, tmp_path / "d2", ConvertOptions("people", jobs=1, copy_images=True))
        build(tmp_path / "m", tmp_path / "s", BuildOptions(shards=1, jobs=1))
    assert len(sent) == len(returned) == 3
    assert max(map(len, sent + returned)) < 20_000


# ---- Dask ------------------------------------------------------------------------------------------------------------


@contextmanager
def dask_scheduler(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    file = folder / "scheduler.json"
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", file]
    with quiet(folder / "scheduler.log", "-m", "distributed.cli.dask_scheduler", *options) as running:
        wait_until(lambda: file.is_file() and file.read_text().endswith("}"))
        yield str(json.loads(file.read_text())["address"]), running


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Dask scheduler without workers."""
    with dask_scheduler(tmp_path_factory.mktemp("dask")) as (address, _):
        yield address


@contextmanager
def dask_workers(address: str, *environments: dict[str, str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A Dask worker for each environment; they end with the block."""
    with ExitStack() as stack, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = ["-m", "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        logs = [Path(folder) / f"{i}.log" for i in range(len(environments))]
        started = [
            stack.enter_context(quiet(log, *command, "--local-directory", folder, **environment))
            for log, environment in zip(logs, environments, strict=True)
        ]
        wait_until(lambda: all("Starting established connection" in log.read_text() for log in logs))
        yield started


@pytest.mark.parametrize("command", ["build-tfrecords", "convert"])
def test_dask_makes_the_same_bytes_though_a_worker_dies(works: dict[str, Work], scheduler: str, command: str) -> None:
    """Paths are relative, and the workers' folder is another."""
    work, out = works[command], f"{command}-dask"
    arguments = ["-m", "segdata", *work.arguments, "--out", out, "--engine", "dask", "--address", scheduler]
    with dask_workers(scheduler, {}, {}) as workers, process(*arguments, cwd=work.root) as running:
        wait_until(lambda: work.done(out) >= 2 or running.poll() is not None)
        assert running.poll() is None
        workers[0].kill()
        stdout, stderr = running.communicate(timeout=_WAIT_S)
        assert (running.returncode, stderr) == (0, "")
        assert out in stdout
        assert workers[1].poll() is None
    assert tree(work.root / out) == work.expected


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_workers_of_dask_do_the_work_even_one_task_at_a_time(scheduler: str, jobs: int) -> None:
    with dask_workers(scheduler, {}, {}) as workers:
        with process("-c", _PIDS, "dask", scheduler, str(jobs)) as running:
            stdout, stderr = running.communicate(timeout=_WAIT_S)
        assert (running.returncode, stderr) == (0, "")
        pids = json.loads(stdout)
        assert len(pids) == 8
        assert set(pids) <= {worker.pid for worker in workers}


def test_a_scheduler_that_is_not_there_is_told_in_a_line(works: dict[str, Work]) -> None:
    work, address = works["build-tfrecords"], f"tcp://127.0.0.1:{free_port()}"
    options = ["--out", "nobody", "--engine", "dask", "--address", address]
    error = one_line_error(segdata(*work.arguments, *options, cwd=work.root))
    assert f"--address {address}: no Dask scheduler answers there" in error
    assert not (work.root / "nobody" / "index.json").exists()


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:99999"])
def test_an_address_that_is_none_is_told_in_a_line(works: dict[str, Work], address: str) -> None:
    work = works["build-tfrecords"]
    options = ["--out", "nobody", "--engine", "dask", "--address", address]
    assert f"--address {address}: " in one_line_error(segdata(*work.arguments, *options, cwd=work.root))


def run_impatient(work: Work, out: str, scheduler: str) -> list[str]:
    return ["-c", _IMPATIENT, *work.arguments, "--out", out, "--engine", "dask", "--address", scheduler]


def ended(running: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    stdout, stderr = running.communicate(timeout=_WAIT_S)
    return subprocess.CompletedProcess(running.args, running.returncode, stdout, stderr)


def test_a_cluster_without_workers_is_told_in_a_line(works: dict[str, Work], scheduler: str) -> None:
    work = works["build-tfrecords"]
    with process(*run_impatient(work, "no-workers", scheduler), cwd=work.root) as running:
        assert f"--address {scheduler}: the cluster has no worker" in one_line_error(ended(running))


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise ImportError('not here')", r"this worker cannot import segdata (not here)"),
        ("__version__ = '0.0.1'", "this worker has segdata 0.0.1, here it is"),
    ],
)
def test_a_worker_without_this_segdata_is_named(
    works: dict[str, Work], scheduler: str, tmp_path: Path, code: str, message: str
) -> None:
    (tmp_path / "segdata").mkdir()
    (tmp_path / "segdata" / "__init__.py").write_text(f"{code}\n", encoding="utf-8")
    work = works["convert"]
    with (
        dask_workers(scheduler, {}, {"PYTHONPATH": str(tmp_path)}),
        process(*run_impatient(work, tmp_path.name, scheduler), cwd=work.root) as running,
    ):
        error = one_line_error(ended(running))
        assert error.startswith("segdata: error: tcp://127.0.0.1:")
        assert message in error


def test_a_run_whose_workers_are_all_gone_ends_and_goes_on_with_others(works: dict[str, Work], scheduler: str) -> None:
    work, out = works["build-tfrecords"], "gone"
    with (
        dask_workers(scheduler, {}, {}) as workers,
        process(*run_impatient(work, out, scheduler), cwd=work.root) as running,
    ):
        wait_until(lambda: work.done(out) >= 2 or running.poll() is not None)
        for worker in workers:
            worker.kill()
        assert "all workers of the cluster are gone" in one_line_error(ended(running))
    done = segdata(*work.arguments, "--out", out, "--jobs", "2", cwd=work.root)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(work.root / out) == work.expected


def test_a_task_that_kills_each_worker_that_takes_it_fails_the_job(scheduler: str) -> None:
    code = _PIDS.replace("print(json.dumps(", "").replace("))))", "))").replace("os').getpid()", "os')._exit(1)")
    with dask_workers(scheduler, {}, {}, {}, {}, {}), process("-c", code, "dask", scheduler, "1") as running:
        _, stderr = running.communicate(timeout=_WAIT_S)
    assert running.returncode == 1
    assert "JobFailed: a task was given up: each worker of the cluster that took it died" in stderr


def test_a_scheduler_that_goes_away_ends_the_run(works: dict[str, Work], tmp_path: Path) -> None:
    work, out = works["build-tfrecords"], "went-away"
    with (
        dask_scheduler(tmp_path) as (address, scheduler),
        dask_workers(address, {}, {}),
        process(*run_impatient(work, out, address), cwd=work.root) as running,
    ):
        wait_until(lambda: work.done(out) >= 2 or running.poll() is not None)
        scheduler.kill()
        assert "the Dask scheduler went away" in one_line_error(ended(running))
    assert not (work.root / out / "index.json").exists()


def changed_source(work: Work, root: Path) -> Work:
    """A build from the copy ``root``, where a photo is not the one that was converted."""
    shutil.copytree(work.root, root, ignore=shutil.ignore_patterns("portraits", "*-*"))
    photo = root / "photos" / "p7.jpg"
    photo.write_bytes(photo.read_bytes() + b"x")
    return replace(work, root=root)


def test_an_error_of_a_task_on_dask_arrives_as_itself(works: dict[str, Work], scheduler: str, tmp_path: Path) -> None:
    work = changed_source(works["build-tfrecords"], tmp_path / "copy")
    with dask_workers(scheduler, {}, {}), process(*run_impatient(work, "out", scheduler), cwd=work.root) as running:
        error = one_line_error(ended(running))
    assert "p7.jpg" in error
    assert "changed since it was converted" in error


# ---- Ray -------------------------------------------------------------------------------------------------------------


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


@pytest.fixture(scope="module")
def ray_head() -> Iterator[str]:
    """The address of a Ray cluster of two CPUs. ``ray stop`` would end everybody's; this one ends as it was started."""
    port = free_port()
    folder = tempfile.mkdtemp(prefix="ray")  # pytest's paths are too long for its sockets
    options = ["--port", str(port), "--num-cpus", "2", "--include-dashboard", "false", "--disable-usage-stats"]
    command = ["-m", "ray.scripts.scripts", "start", "--head", "--block", "--temp-dir", folder, *options]
    with quiet(Path(folder) / "log", *command, RAY_USAGE_STATS_ENABLED="0") as running:
        wait_until(lambda: bool(ray_processes(running.pid, "raylet")))
        yield f"127.0.0.1:{port}"
        children = psutil.Process(running.pid).children(recursive=True)
        running.terminate()
        with suppress(subprocess.TimeoutExpired):
            running.wait(timeout=20)
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
    shutil.rmtree(folder, ignore_errors=True)


def ray_processes(head: int, name: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(head).children(recursive=True):
        with suppress(psutil.NoSuchProcess, IndexError):
            if name in child.cmdline()[0]:
                found.append(child)
    return found


def head_of(address: str) -> int:
    port = address.rpartition(":")[2]
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if {"--head", port} <= set(child.cmdline()):
                return child.pid
    raise AssertionError(address)


@needs_ray
@pytest.mark.parametrize("command", ["build-tfrecords", "convert"])
def test_ray_makes_the_same_bytes_though_a_worker_dies(works: dict[str, Work], ray_head: str, command: str) -> None:
    work, out = works[command], f"{command}-ray"
    arguments = ["-m", "segdata", *work.arguments, "--out", out, "--engine", "ray", "--address", ray_head]
    with process(*arguments, cwd=work.root) as running:
        wait_until(lambda: work.done(out) >= 2 or running.poll() is not None)
        assert running.poll() is None, running.communicate()
        ray_processes(head_of(ray_head), "PoolActor")[0].kill()
        stdout, stderr = running.communicate(timeout=_WAIT_S)
        assert (running.returncode, stderr) == (0, "")
        assert out in stdout
    assert tree(work.root / out) == work.expected


@needs_ray
def test_a_ray_cluster_that_is_not_there_is_told_in_a_line(works: dict[str, Work]) -> None:
    work, address = works["build-tfrecords"], f"127.0.0.1:{free_port()}"
    options = ["--out", "nobody-ray", "--engine", "ray", "--address", address]
    error = one_line_error(segdata(*work.arguments, *options, cwd=work.root))
    assert f"--address {address}: no Ray cluster answers there" in error


@needs_ray
def test_an_error_of_a_task_on_ray_arrives_as_itself(works: dict[str, Work], ray_head: str, tmp_path: Path) -> None:
    work = changed_source(works["build-tfrecords"], tmp_path / "copy")
    options = ["--out", "out", "--engine", "ray", "--address", ray_head]
    error = one_line_error(segdata(*work.arguments, *options, cwd=work.root))
    assert "p7.jpg" in error
    assert "changed since it was converted" in error
