"""Deterministic changes of decoded samples: frozen values with a ``__call__``, pure, one file each."""
