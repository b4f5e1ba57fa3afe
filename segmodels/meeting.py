"""How the processes of a cluster find each other: before TensorFlow, which would wait for a missing one for ever."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from segdata.errors import OptionError, SegdataError
from segmodels.cluster import Cluster

WAIT_S = 600.0
_RETRY_S = 0.2
_NOTE_S = 5.0  # before it says that it waits
_MOST_BYTES = 1 << 20

Task = Mapping[str, Any]


def meet(cluster: Cluster, task: Task, progress: Callable[[str], None], wait_s: float = WAIT_S) -> None:
    """Return when all workers are there and have the same ``task`` (JSON: options, data, epochs done).

    The first one waits for the others at its own address, compares, and answers each.
    OptionError where a worker's task differs, naming the first difference; SegdataError where one does not come within
    ``wait_s`` seconds.
    """
    if cluster.is_chief:
        _await_others(cluster, task, progress, time.monotonic() + wait_s)
    else:
        _report(cluster, task, progress, time.monotonic() + wait_s)


def _await_others(cluster: Cluster, task: Task, progress: Callable[[str], None], end_s: float) -> None:
    host, _, port = cluster.workers[0].rpartition(":")
    there: dict[int, socket.socket] = {}
    problem = ""
    said_at_s = time.monotonic() + _NOTE_S
    try:
        with socket.create_server(("", int(port))) as server:
            server.settimeout(_RETRY_S)
            while len(there) < cluster.size - 1 and not problem:
                missing = [w for i, w in enumerate(cluster.workers) if i and i not in there]
                said_at_s = _say(f"waiting for {', '.join(missing)}", said_at_s, progress)
                if time.monotonic() > end_s:
                    problem = f"{', '.join(missing)} did not come. Start the same command there."
                    break
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                connection.settimeout(10)
                theirs = _received(connection)
                if theirs is None or not 0 < theirs.get("worker", 0) < cluster.size:
                    connection.close()  # somebody else's
                    continue
                there[theirs["worker"]] = connection
                problem = _difference(task, theirs["task"], cluster.workers[theirs["worker"]])
    except OSError as error:
        raise SegdataError(f"--workers {host}:{port}: cannot wait there for the others ({error.strerror}).") from error
    for connection in there.values():
        connection.sendall(json.dumps({"problem": problem}).encode() + b"\n")
        _received(connection)  # until it has hung up, so that the port is free here
        connection.close()
    if problem:
        raise OptionError(f"--workers: {problem}")


def _report(cluster: Cluster, task: Task, progress: Callable[[str], None], end_s: float) -> None:
    host, _, port = cluster.workers[0].rpartition(":")
    line = json.dumps({"worker": cluster.number, "task": task}).encode() + b"\n"
    said_at_s = time.monotonic() + _NOTE_S
    while time.monotonic() < end_s:
        said_at_s = _say(f"waiting for {host}:{port}", said_at_s, progress)
        try:
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(line)
                connection.settimeout(max(1.0, end_s - time.monotonic()))
                answer = _received(connection)
        except OSError:
            time.sleep(_RETRY_S)
            continue
        if answer is not None:
            if answer["problem"]:
                raise OptionError(f"--workers: {answer['problem']}")
            return
        time.sleep(_RETRY_S)
    raise SegdataError(f"--workers: {host}:{port}, the first, did not answer. Start the same command there.")


def _say(text: str, at_s: float, progress: Callable[[str], None]) -> float:
    """Say it once, when it is time."""
    if time.monotonic() < at_s:
        return at_s
    progress(f"note: {text}.")
    return float("inf")


def _received(connection: socket.socket) -> dict[str, Any] | None:
    """A line of JSON; None where the other hangs up, or sends anything else."""
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < _MOST_BYTES:
            part = connection.recv(1 << 16)
            if not part:
                return None
            data += part
        found = json.loads(data)
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _difference(ours: Task, theirs: Task, worker: str) -> str:
    """What a worker does otherwise, or nothing."""
    for key in [*ours, *theirs]:
        if ours.get(key) != theirs.get(key):
            return (
                f"{worker} has {key} {theirs.get(key)!r}, the first worker {ours.get(key)!r}. "
                "Give all the same options and data."
            )
    return ""
