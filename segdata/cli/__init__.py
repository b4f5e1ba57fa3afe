"""The command line: build values, call one job, show its report. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
import threading
from typing import Annotated

import typer

from segdata import __version__
from segdata.cli import (
    build,
    convert,
    demo,
    evaluate,
    export,
    export_coco,
    models,
    output,
    predict,
    preview,
    rebuild,
    salvage,
    split,
    stats,
    train,
    verify,
)
from segdata.errors import SegdataError, Stopped

app = typer.Typer(
    name="segdata",
    help="Raw person-segmentation data to exact masks, honest splits, verified TFRecord shards, and trained networks.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)
app.add_typer(convert.app, name="convert")
app.command("split")(split.split)
app.command("build-tfrecords")(build.build_tfrecords)
app.command("verify")(verify.verify)
app.command("rebuild")(rebuild.rebuild)
app.command("salvage")(salvage.salvage)
app.command("stats")(stats.stats)
app.command("preview")(preview.preview)
app.command("export-coco")(export_coco.export_coco)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("models")(models.models)
app.command("demo")(demo.demo)


_SIGNALS = ("SIGTERM", "SIGHUP")  # stop as Ctrl-C does: what is done stays, worker processes end


def _version(wanted: bool) -> None:
    if wanted:
        print(f"segdata {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when something fails.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """The options before any command; ``main`` reads --debug itself, so that it may stand anywhere."""


def main(arguments: list[str] | None = None) -> None:
    """Run one command. An error is one line on stderr: exit code 1, or 2 for wrong usage; a traceback only with
    --debug.
    """
    given = sys.argv[1:] if arguments is None else arguments
    caught = _stop_on_signals()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what a terminal cannot show
    try:
        app(args=[argument for argument in given if argument != "--debug"], prog_name="segdata")
    except (SystemExit, KeyboardInterrupt) as end:  # typer's own, for a Ctrl-C; or one before it began
        if isinstance(end, KeyboardInterrupt) or end.code == Stopped.exit_code:
            print("segdata: stopped.", file=sys.stderr)
            sys.exit(_stop_code(caught))
        raise
    except Stopped as error:
        print(f"segdata: stopped. {output.one_line(str(error))}", file=sys.stderr)
        arguments = [*given, *(option for option in error.more if option not in given)]
        again = subprocess.list2cmdline(arguments) if os.name == "nt" else shlex.join(arguments)
        print(f"  segdata {output.one_line(again)}", file=sys.stderr)
        sys.exit(_stop_code(caught))
    except SegdataError as error:
        if "--debug" in given:
            raise
        _fail(str(error), error.exit_code)
    except OSError as error:
        if "--debug" in given:
            raise
        where = error.filename or "a file"
        _fail(f"{where}: {error.strerror or error}. Check that there is space, and leave to read or write there.", 1)
    except UnicodeEncodeError as error:
        if "--debug" in given:
            raise
        _fail(f"a name or option holds {error.object!a}, which is not UTF-8. Rename it.", 2)
    except Exception as error:
        if "--debug" in given:
            raise
        if caught or _is_interrupt(error):
            print("segdata: stopped.", file=sys.stderr)
            sys.exit(_stop_code(caught))
        _fail(f"internal error ({type(error).__name__}: {error}). Run again with --debug and report what it shows.", 1)


def _stop_on_signals() -> list[int]:
    """Let the signals end a command as Ctrl-C does; those that came are appended to the list."""
    caught: list[int] = []

    def stop(number: int, frame: object) -> None:
        caught.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for name in _SIGNALS:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, stop)
    return caught


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether an error was a KeyboardInterrupt, of which TensorFlow makes others while it is imported or waits."""
    return error is not None and (
        isinstance(error, KeyboardInterrupt)
        or "KeyboardInterrupt" in str(error)
        or _is_interrupt(error.__cause__ or error.__context__)
    )


def _stop_code(caught: list[int]) -> int:
    return 128 + caught[0] if caught else Stopped.exit_code


def _fail(message: str, code: int) -> None:
    print(f"segdata: error: {output.one_line(message)}", file=sys.stderr)
    sys.exit(code)
