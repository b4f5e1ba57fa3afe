"""Keras, imported without the lines that TensorFlow's C++ side writes meanwhile; every module here takes it from here.

The environment variable alone does not do it: some of those lines are written before TensorFlow reads it. Whoever sets
``TF_CPP_MIN_LOG_LEVEL`` to something lower sees the later ones.
"""

from __future__ import annotations

import os

from segmodels.held_back import stderr_held_back

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
with stderr_held_back():
    import keras

__all__ = ["keras", "stderr_held_back"]
