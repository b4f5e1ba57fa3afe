"""The only parallel code: a function over tasks, in processes here or on a cluster, with results in order."""

from __future__ import annotations

import atexit
import ctypes
import gc
import io
import itertools
import logging
import os
import signal
import socket
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

from segdata import __version__
from segdata.errors import JobFailed, OptionError

ENGINES = ("local", "dask", "ray")
_WATCH_S = 0.5
_FEEDERS_S = 5.0  # they end at once; this is for one that hangs
_LOOK_S = 2.0  # between two looks whether a cluster has workers
_CONNECT_S = 20
_RETRIES = 3
# glibc: keep the memory of one picture for the next. By default it goes back to the system and is zeroed again, which
# takes a third of a build with --size. Other systems do not read these.
_TRIM, _MMAP = 1 << 28, 1 << 25
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": str(_TRIM), "MALLOC_MMAP_THRESHOLD_": str(_MMAP)}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_WAVE = 4  # tasks of each worker in one call of Ray's

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def keep_freed_memory() -> None:
    """What workers are started with, for this process; nothing where its C library is not glibc."""
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_TRIM_THRESHOLD, _TRIM)
        library.mallopt(_M_MMAP_THRESHOLD, _MMAP)


@dataclass(frozen=True)
class Workers:
    """Who does the work: ``jobs`` processes here (None: one per core), or with an ``engine`` the workers of a cluster
    that is running at ``address``, which see the same folders under the same names; there ``jobs`` is how many tasks
    may run at once (None: as many as it has threads or CPUs).
    """

    jobs: int | None = None
    engine: str = "local"
    address: str | None = None

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise OptionError(f"--jobs {self.jobs}: expected 1 or more.")
        if self.engine not in ENGINES:
            raise OptionError(f"--engine {self.engine!r}: expected one of {', '.join(ENGINES)}.")
        if self.engine == "dask" and not self.address:
            raise OptionError("--engine dask: expected the scheduler's --address too, such as tcp://HOST:8786.")
        if self.engine == "local" and self.address:
            raise OptionError(f"--address {self.address}: goes with --engine dask or ray.")

    @property
    def processes(self) -> int:
        """How many processes here."""
        return self.jobs or os.cpu_count() or 1


def chunks(items: Sequence[_Task], size: int) -> list[Sequence[_Task]]:
    """``items`` in runs of ``size``, the last one shorter."""
    return [items[at : at + size] for at in range(0, len(items), size)]


def run_tasks(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    workers: Workers,
    what: str,
    sizes: Iterable[int],
    bytes_of: Callable[[_Result], int] | None = None,
) -> Generator[_Result, None, None]:
    """``function`` of each task, in order.

    ``sizes`` are the records of each task, for the progress bar, which shows on a terminal only; with ``bytes_of`` a
    result it shows MB/s too. JobFailed where a worker process dies, or the cluster does not answer.
    """
    each_size = list(sizes)
    with tqdm(total=sum(each_size), desc=what, unit=" records", disable=None, dynamic_ncols=True) as bar:
        done_bytes, start = 0, time.monotonic()
        for size, result in zip(each_size, _results(function, tasks, workers), strict=True):
            yield result
            if bytes_of is not None and not bar.disable:
                done_bytes += bytes_of(result)
                rate = done_bytes / 1e6 / max(1e-3, time.monotonic() - start)
                bar.set_postfix_str(f"{rate:.1f} MB/s", refresh=False)
            bar.update(size)


def check_workers(workers: Workers) -> None:
    """JobFailed or OptionError where a cluster does not answer or has no worker that can do the work."""
    if workers.engine != "local":
        list(run_tasks(str, [""], workers, "connecting", [0]))


def _results(
    function: Callable[[_Task], _Result], tasks: Sequence[_Task], workers: Workers
) -> Iterator[_Result] | map[_Result]:
    if workers.engine == "dask":
        return _on_dask(function, tasks, workers)
    if workers.engine == "ray":
        return _on_ray(function, tasks, workers)
    processes = min(workers.processes, max(1, len(tasks)))
    return _in_processes(function, tasks, processes) if processes > 1 else map(function, tasks)


# ---- here ------------------------------------------------------------------------------------------------------------


def _in_processes(function: Callable[[_Task], _Result], tasks: Sequence[_Task], processes: int) -> Iterator[_Result]:
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with _interrupts_held(), _environment(_MALLOC):
        options = {"initializer": _watch, "initargs": (os.getpid(),), "max_nbytes": None}
        parallel = joblib.Parallel(processes, backend="loky", return_as="generator", batch_size=1, **options)
        results = parallel(joblib.delayed(function)(task) for task in tasks)
    try:
        for result in results:  # noqa: UP028 - "yield from" would close joblib's generator before its warnings are caught
            yield result
    except BaseException as error:
        with _interrupts_held(), _lokys_threads_quiet():
            _close(results)
            get_reusable_executor().shutdown(wait=True, kill_workers=True)  # or it warns of leaks at the end
        if not isinstance(error, TerminatedWorkerError):
            raise
        raise JobFailed(
            "a worker process died (out of memory, or a crash in a decoder). "
            "Run again with --jobs 1 to see at which file."
        ) from error


def _watch(parent: int) -> None:
    """End this worker process when the process that started it is gone.

    Else the workers of a killed run would go on writing, into a folder that the next run is filling. On Windows, where
    a process keeps its parent's number, they end when they find nothing more to do.
    """

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_S)
        os._exit(1)

    if os.name != "nt":
        threading.Thread(target=wait, daemon=True, name="segdata-watch").start()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits until the block ends. Processes started inside never see it: a terminal sends it to all of them,
    and each would print a traceback; this one ends them.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # loky's children lose this; not the next
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def _lokys_threads_quiet() -> Iterator[None]:
    """Keep a traceback of loky's manager off the terminal: it may stumble over a worker that is just being ended."""
    before = threading.excepthook

    def told(what: threading.ExceptHookArgs) -> None:
        if what.thread is None or not what.thread.name.startswith("ExecutorManager"):
            before(what)

    threading.excepthook = told
    try:
        yield
    finally:
        threading.excepthook = before


@atexit.register
def _join_lokys_feeders() -> None:
    """loky waits for its manager, not for the threads that feed its queues. Where such a thread gives back a semaphore
    while the process ends, the tracker of resources would print a warning of a leak.
    """
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(_FEEDERS_S)


@contextmanager
def _environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """These variables for processes started inside, where the user has not set them."""
    added = [name for name in wanted if name not in os.environ]
    os.environ.update((name, wanted[name]) for name in added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _close(results: Any) -> None:
    with warnings.catch_warnings():  # joblib counts the tasks that are given up; the error says all there is to say
        warnings.simplefilter("ignore")
        results.close()


# ---- on a cluster ----------------------------------------------------------------------------------------------------


def _connect(address: str) -> None:
    """OSError at once where nothing listens; Dask would ask again for as long as it may, and Ray for ten minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()


def _on_dask(function: Callable[[_Task], _Result], tasks: Sequence[_Task], workers: Workers) -> Iterator[_Result]:
    """By the client itself: joblib's backend for Dask works here where ``jobs`` or the cluster's cores are one, takes
    no limit, and waits for ever for a task that no worker can take.
    """
    try:
        from distributed import CancelledError, Client, KilledWorker
        from distributed.comm import CommClosedError
    except ImportError as error:
        raise OptionError(
            "--engine dask: is not installed, expected the extra: pip install 'segdata[dask]'."
        ) from error
    try:
        _connect(str(workers.address))
        client = Client(workers.address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise JobFailed(
            f"--address {workers.address}: no Dask scheduler answers there. Start one, or mend it."
        ) from error
    with _quiet("asyncio", "distributed.client", "distributed.core"), client, client.as_current():
        try:
            client.wait_for_workers(1, timeout=_CONNECT_S)
        except TimeoutError as error:
            raise JobFailed(f"--address {workers.address}: the cluster has no worker. Start some.") from error
        _check_versions(client.run(eval, _VERSION, on_error="return"))
        try:
            yield from _by_client(client, function, tasks, workers.jobs or 2 * sum(client.nthreads().values()))
        except KilledWorker as error:
            raise JobFailed(
                "a task was given up: each worker of the cluster that took it died (out of memory, or a crash in a "
                "decoder). Run again with --engine local --jobs 1 to see at which file."
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise JobFailed(f"--address {workers.address}: the Dask scheduler went away. Start it again.") from error


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Keep what a library logs of workers and connections that are gone from the user's terminal: an error says it."""
    levels = {name: logging.getLogger(name).level for name in loggers}
    for name in loggers:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        gc.collect()  # asyncio tells of tasks that nobody waited for when they go
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


_VERSION = "__import__('segdata').__version__"


def _check_versions(found: dict[str, Any]) -> None:
    """A worker that cannot import segdata would end at its first task; another version might write other bytes."""
    for worker, version in found.items():
        if isinstance(version, Exception):
            raise JobFailed(f"{worker}: this worker cannot import segdata ({version}). Install it there.")
        if version != __version__:
            raise JobFailed(f"{worker}: this worker has segdata {version}, here it is {__version__}. Install the same.")


def _by_client(
    client: Any, function: Callable[[_Task], _Result], tasks: Sequence[_Task], limit: int
) -> Iterator[_Result]:
    """``limit`` tasks at once, their results in order."""
    from distributed import wait

    rest, window, seen = iter(tasks), deque[Any](), time.monotonic()
    while True:
        running = sum(not future.done() for future in window)  # one whose result was lost with its worker is again
        more = itertools.islice(rest, max(0, limit - running))
        window += (client.submit(function, task, pure=False) for task in more)
        if not window:
            return
        first = window[0]
        is_done = first.done()
        if first.status == "error":
            first.result()  # raises what the task raised
        try:
            if is_done:
                result = first.result(_LOOK_S)
            else:
                wait([future for future in window if not future.done()], _LOOK_S, "FIRST_COMPLETED")
        except TimeoutError as error:
            if _has_workers(client):
                seen = time.monotonic()
            elif time.monotonic() - seen > _CONNECT_S:
                raise JobFailed(
                    "all workers of the cluster are gone. Start some, and run the same command again."
                ) from error
            continue
        seen = time.monotonic()
        if is_done:
            window.popleft()
            yield result


def _has_workers(client: Any) -> bool:
    try:
        return bool(client.nthreads())
    except OSError:  # of a scheduler that is gone too
        return False


def _on_ray(function: Callable[[_Task], _Result], tasks: Sequence[_Task], workers: Workers) -> Iterator[_Result]:
    try:
        import ray
    except ImportError as error:
        raise OptionError("--engine ray: is not installed, expected the extra: pip install 'segdata[ray]'.") from error
    address = workers.address or "auto"
    try:
        if ":" in address:
            _connect(address)
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise JobFailed(f"--address {address}: no Ray cluster answers there. Start one, or mend it.") from error
    with redirect_stdout(io.StringIO()):  # Ray tells there how its workers end
        yield from _on_pool_of_ray(function, tasks, workers)


def _on_pool_of_ray(
    function: Callable[[_Task], _Result], tasks: Sequence[_Task], workers: Workers
) -> Iterator[_Result]:
    import joblib
    import ray
    from ray.util.joblib import register_ray

    try:
        register_ray()
        count = workers.jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        retried = {"max_restarts": _RETRIES, "max_task_retries": _RETRIES}  # a worker that dies is not the end
        with joblib.parallel_config("ray", ray_remote_args=retried), joblib.Parallel(count, batch_size=1) as parallel:
            for wave in chunks(tasks, _WAVE * count):  # its backend gives results only when all of a call are there
                yield from parallel(joblib.delayed(function)(task) for task in wave)
    except ray.exceptions.RayError as error:
        told = str(error).strip().splitlines()
        cause = told[-1 if isinstance(error, ray.exceptions.RayTaskError) else 0].strip()  # below a traceback
        raise JobFailed(f"--engine ray: {cause}") from error
    finally:
        ray.shutdown()
