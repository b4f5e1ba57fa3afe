"""Every error that segdata raises on purpose.

SegdataError                 exit code 1
├── FolderError              an output or input folder: missing, unfinished, foreign, busy
├── ImageRefused             one picture or mask that cannot be used; becomes a rejected sample
├── JobFailed                a job ran to its end and its result is not acceptable
├── LabelMapError            a label map that is unknown, or does not fit its own file
├── RecordError              a JSON, JSON-lines or TFRecord file at rest that is damaged or of another version
├── SourceError              a raw dataset or list that is not laid out as its source says
├── OptionError              an option's value does not fit (exit code 2)
└── Stopped                  Ctrl-C or SIGTERM; says what is done (exit code 130)

A message is one line: *where: what was found, what was expected. What to do.*
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SegdataError(Exception):
    """Base of all; ``str(error)`` is the whole line that a user sees."""

    exit_code = 1


class FolderError(SegdataError):
    """A folder that is missing, unfinished, in use, or holds files that segdata did not make."""


class ImageRefused(SegdataError):
    """A picture, mask or matte that cannot be used.

    ``reason`` is a short kebab-case word that counts are kept by (``size-mismatch``), ``detail`` says what was found
    and what was expected.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)  # both in args, so that a worker process can send it back
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class JobFailed(SegdataError):
    """A job that ran to its end and whose result is not acceptable."""


class LabelMapError(SegdataError):
    """A label map that does not exist or contradicts itself."""


class RecordError(SegdataError):
    """A file at rest that does not decode, was edited, or is of another version."""


class SourceError(SegdataError):
    """A raw dataset whose layout is not the one its source names."""


class OptionError(SegdataError):
    """An option whose value does not fit; the command line exits with 2."""

    exit_code = 2


class Stopped(SegdataError):
    """A job that was told to stop; what it had done stays, and the same command goes on from there, with the options
    ``more``.
    """

    exit_code = 130  # 128 + SIGINT
    more: tuple[str, ...] = ()


def did_you_mean(found: str, known: Iterable[str]) -> str:
    """``" Did you mean 'binary'?"`` when one of ``known`` is close to ``found``, followed by all of ``known``."""
    names = sorted(known)
    close = difflib.get_close_matches(found, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    shown = names[:100]
    more = f", and {len(names) - 100} more" if len(names) > 100 else ""
    return f"{hint} Known: {', '.join(shown)}{more}."
