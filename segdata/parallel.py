"""The only parallel code: a function over tasks, in processes, with results in the order of the tasks."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from segdata.errors import JobFailed, OptionError

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


def job_count(jobs: int | None) -> int:
    """How many processes: ``jobs``, or one per core for None. OptionError below 1."""
    if jobs is None:
        return os.cpu_count() or 1
    if jobs < 1:
        raise OptionError(f"--jobs {jobs}: expected 1 or more.")
    return jobs


def chunks(items: Sequence[_Task], size: int) -> list[Sequence[_Task]]:
    """``items`` in runs of ``size``, the last one shorter."""
    return [items[at : at + size] for at in range(0, len(items), size)]


def run_tasks(
    function: Callable[[_Task], _Result], tasks: Sequence[_Task], jobs: int | None, what: str, sizes: Iterable[int]
) -> Iterator[_Result]:
    """``function`` of each task, in order, in ``jobs`` processes (in this one for 1).

    ``sizes`` are the records of each task, for the progress bar, which shows on a terminal only. JobFailed where a
    worker process dies.
    """
    processes = min(job_count(jobs), max(1, len(tasks)))
    each_size = list(sizes)
    with tqdm(total=sum(each_size), desc=what, unit=" records", disable=None, dynamic_ncols=True) as bar:
        results = _in_processes(function, tasks, processes) if processes > 1 else map(function, tasks)
        for size, result in zip(each_size, results, strict=True):
            yield result
            bar.update(size)


def _in_processes(function: Callable[[_Task], _Result], tasks: Sequence[_Task], processes: int) -> Iterator[_Result]:
    import joblib
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    parallel = joblib.Parallel(n_jobs=processes, return_as="generator", batch_size=1)
    results = parallel(joblib.delayed(function)(task) for task in tasks)
    try:
        for result in results:  # noqa: UP028 - "yield from" would close joblib's generator before its warnings are caught
            yield result
    except BaseException as error:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # joblib counts the tasks that are given up; the error says all there is to say
            results.close()
        get_reusable_executor().shutdown(wait=True, kill_workers=True)  # or it warns of leaks when the process ends
        if not isinstance(error, TerminatedWorkerError):
            raise
        raise JobFailed(
            "a worker process died (out of memory, or a crash in a decoder). "
            "Run again with --jobs 1 to see at which file."
        ) from error
