"""Where a network is trained: on one device, on all GPUs of a machine, or on several machines. TensorFlow alone."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segdata.errors import OptionError, SegdataError


@dataclass(frozen=True)
class Cluster:
    """The processes that train one network together: ``workers`` as HOST:PORT, of which this is ``number``.

    The first one, number 0, writes the run. One worker is a run of its own.
    """

    workers: tuple[str, ...] = ()
    number: int = 0

    def __post_init__(self) -> None:
        for worker in self.workers:
            host, _, port = worker.rpartition(":")
            if not host or not port.isdigit():
                raise OptionError(f"--workers {worker!r}: expected HOST:PORT, such as 10.0.0.1:2222.")
        if len(set(self.workers)) < len(self.workers):
            raise OptionError("--workers: one of them is named twice.")
        if not 0 <= self.number < max(1, len(self.workers)):
            raise OptionError(f"--worker {self.number}: expected 0 to {max(1, len(self.workers)) - 1}.")

    @property
    def size(self) -> int:
        """How many processes."""
        return max(1, len(self.workers))

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run."""
        return self.number == 0


ALONE = Cluster()


def cluster_from(workers: str | None, number: int | None, environment: Mapping[str, str]) -> Cluster:
    """The cluster that ``--workers A:1,B:2 --worker 0`` names, else that of TF_CONFIG, as schedulers set it; else this
    process alone. OptionError for half of it, or a TF_CONFIG without workers.
    """
    if (workers is None) != (number is None):
        raise OptionError("--workers and --worker go together: all machines, and the number of this one.")
    if workers is not None and number is not None:
        return Cluster(tuple(workers.split(",")), number)
    if "TF_CONFIG" not in environment:
        return ALONE
    try:
        config = json.loads(environment["TF_CONFIG"])
        if config["task"]["type"] != "worker" or list(config["cluster"]) != ["worker"]:
            raise ValueError("another task than a worker")
        return Cluster(tuple(config["cluster"]["worker"]), int(config["task"]["index"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(
            "TF_CONFIG: expected a cluster of workers alone, and this worker's index. Or pass --workers and --worker."
        ) from error


def make_strategy(cluster: Cluster, devices: Sequence[str] | None = None) -> Any:
    """TensorFlow's strategy: over machines, over ``devices`` or all GPUs of this one, or None for one device.

    SegdataError where the other workers cannot be reached.
    """
    import tensorflow as tf

    if cluster.size > 1:
        config = {"cluster": {"worker": list(cluster.workers)}, "task": {"type": "worker", "index": cluster.number}}
        os.environ["TF_CONFIG"] = json.dumps(config)
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))  # TensorFlow has put its own there
            return strategy
        except (tf.errors.OpError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise SegdataError(
                f"--workers {','.join(cluster.workers)}: cannot be joined as worker {cluster.number} ({reason})."
            ) from error
    if devices is None:
        devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    return tf.distribute.MirroredStrategy(list(devices)) if len(devices) > 1 else None
