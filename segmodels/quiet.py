"""Keras, imported without the lines that TensorFlow's C++ side writes meanwhile; every module here takes it from here.

The environment variable alone does not do it: some of those lines are written before TensorFlow reads it. Whoever sets
``TF_CPP_MIN_LOG_LEVEL`` to something lower sees the later ones.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stderr_held_back() -> Iterator[None]:
    """What is written to file descriptor 2 in the block is dropped; where the block raises, it is shown after all."""
    try:
        stderr = os.dup(2)
    except OSError:  # a process without stderr
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with stderr_held_back():
    import keras

__all__ = ["keras"]
