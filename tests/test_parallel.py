"""Work in processes: the same results in the same order, and an honest end when one fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from segdata.errors import ImageRefused, JobFailed, OptionError
from segdata.parallel import Workers, chunks, run_tasks


def square(number: int) -> tuple[int, int]:
    return number, number * number


def refuse_seven(number: int) -> int:
    if number == 7:
        raise ImageRefused("size-mismatch", f"photo {number}: 3x4, expected 4x3")
    return number


def raise_a_foreign_error(number: int) -> int:
    raise KeyError(f"task {number}")


def die_at_seven(number: int) -> int:
    if number == 7:
        os._exit(3)
    return number


def process(_: int) -> int:
    return os.getpid()


def run(function: object, count: int, jobs: int) -> Iterator[object]:
    return run_tasks(function, range(count), Workers(jobs), "test", [1] * count)  # type: ignore[arg-type]


@pytest.mark.parametrize("jobs", [1, 2])
def test_results_come_in_the_order_of_the_tasks(jobs: int) -> None:
    assert list(run(square, 40, jobs)) == [(i, i * i) for i in range(40)]


def test_one_job_stays_in_this_process_and_two_do_not() -> None:
    assert set(run(process, 3, 1)) == {os.getpid()}
    assert os.getpid() not in set(run(process, 4, 2))


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("count", [0, 1])
def test_few_tasks_need_no_processes(count: int, jobs: int) -> None:
    assert list(run(process, count, jobs)) == [os.getpid()] * count


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_worker_arrives_as_itself(jobs: int) -> None:
    found = []
    with pytest.raises(ImageRefused, match=r"^size-mismatch: photo 7: 3x4, expected 4x3$") as caught:
        found.extend(run(refuse_seven, 12, jobs))
    assert found == list(range(len(found)))
    assert caught.value.reason == "size-mismatch"
    assert caught.value.detail == "photo 7: 3x4, expected 4x3"


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_that_is_not_ours_arrives_as_itself(jobs: int) -> None:
    with pytest.raises(KeyError, match="task"):
        list(run(raise_a_foreign_error, 3, jobs))


def test_a_worker_that_dies_is_a_failed_job_and_the_next_one_works() -> None:
    with pytest.raises(JobFailed, match=r"a worker process died.*--jobs 1"):
        list(run(die_at_seven, 12, 2))
    assert list(run(square, 4, 2)) == [square(i) for i in range(4)]


ROOT = Path(__file__).parent.parent
# As when the disk is full, or the user stops: whoever takes the results gives up.
STOPS_EARLY = """
import time
from segdata.parallel import Workers, run_tasks

for _ in run_tasks(time.sleep, [0.002] * 400, Workers(2), "test", [1] * 400):
    raise SystemExit("disk full")
"""

# The thread that feeds loky's queue is here the last to hold a semaphore, and takes its time to give it back.
SLOW_FEEDER = """
import threading, time
from joblib.externals.loky.backend.queues import Queue
from joblib.externals.loky.backend.synchronize import SemLock
from segdata.parallel import Workers, run_tasks

feed, clean_up = Queue._feed, SemLock._cleanup

def feed_on(*arguments):
    feed(*arguments)
    time.sleep(0.3)

def clean_up_slowly(name):
    if threading.current_thread().name == "QueueFeederThread":
        time.sleep(1)
    clean_up(name)

Queue._feed, SemLock._cleanup = staticmethod(feed_on), staticmethod(clean_up_slowly)
results = run_tasks(time.sleep, [0.002] * 400, Workers(2), "test", [1] * 400)
next(results)
results.close()
time.sleep(0.6)
raise SystemExit("disk full")
"""


@pytest.mark.parametrize("script", [STOPS_EARLY, SLOW_FEEDER])
def test_a_taker_that_gives_up_leaves_its_own_message_alone_on_stderr(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (1, "disk full\n")


def test_a_size_for_each_task_is_needed() -> None:
    with pytest.raises(ValueError, match="zip"):
        list(run_tasks(square, range(3), Workers(1), "test", [1, 1]))


def test_nothing_is_drawn_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    list(run(square, 5, 1))
    assert capfd.readouterr() == ("", "")


def test_jobs_are_counted() -> None:
    assert Workers(3).processes == 3
    assert Workers().processes == os.cpu_count()
    for jobs in (0, -1):
        with pytest.raises(OptionError, match=f"--jobs {jobs}: expected 1 or more"):
            Workers(jobs)


@pytest.mark.parametrize(("count", "size"), [(0, 3), (1, 3), (6, 3), (7, 3), (2, 100)])
def test_chunks_are_all_items_in_runs(count: int, size: int) -> None:
    found = chunks(range(count), size)
    assert [item for chunk in found for item in chunk] == list(range(count))
    assert all(len(chunk) == size for chunk in found[:-1])
    assert all(0 < len(chunk) <= size for chunk in found)
