"""The command line: help, exit codes, and errors of one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from segdata import __version__
from segdata.cli import app, main
from segdata.cli.options import named_files, share_or_count, size
from segdata.errors import OptionError
from tests.folders import Made, small_pairs

COMMANDS = [[command.name] for command in app.registered_commands]
COMMANDS += [
    ["convert", str(c.name)] for group in app.registered_groups for c in group.typer_instance.registered_commands
]


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command run in this process."""
    with pytest.raises(SystemExit) as end:
        main([*map(str, arguments)])
    shown = capsys.readouterr()
    return int(end.value.code or 0), shown.out, shown.err


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself(
    capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    code, out, _ = run(capsys, *command, "--help")
    assert code == 0
    assert f"Example: segdata {' '.join(command)}" in " ".join(out.split())
    documented = [line for line in out.splitlines() if line.strip().startswith("--")]
    assert all(len(line.split(maxsplit=1)) == 2 for line in documented), "every option says what it does"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_stands_in_the_readme(command: list[str]) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert f"$ segdata {' '.join(command)}" in readme


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, f"segdata {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["verify"],
        ["convert", "pairs", "--images", "a", "--masks", "b", "--out", "c", "--kind", "odd"],
        ["convert", "pairs", "--images", "a", "--masks", "b", "--out", "c", "--kind", "index"],
        ["build-tfrecords", "m", "--out", "s", "--size", "big"],
        ["split", "d", "--out", "m", "--test", "1.5"],
        ["train", "s", "--model", "unknown", "--out", "r"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err


@pytest.mark.parametrize("command", ["verify", "stats"])
def test_an_error_is_one_line_with_exit_code_1(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    code, out, err = run(capsys, command, tmp_path / "nowhere")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("segdata: error: ")
    assert "nowhere" in err


def test_a_traceback_comes_only_with_debug(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="nowhere"):
        main(["verify", str(tmp_path / "nowhere"), "--debug"])


def test_an_unknown_label_map_names_the_known_ones(
    capsys: pytest.CaptureFixture[str], raw_people: Path, tmp_path: Path
) -> None:
    code, _, err = run(capsys, "convert", "humanparsing", raw_people, "--labels", "part5", "--out", tmp_path / "x")
    assert code == 1
    assert "Did you mean 'parts5'?" in err


def test_json_is_all_of_stdout(capsys: pytest.CaptureFixture[str], kept: Made) -> None:
    code, out, _ = run(capsys, "stats", kept.dataset, "--json")
    assert code == 0
    assert json.loads(out)["splits"]["all"]["samples"] == 12


def test_options_become_values() -> None:
    assert size("256") == (256, 256)
    assert size("192x256") == (192, 256)
    assert size(None) is None
    assert share_or_count("0.2", "--test") == 0.2
    assert share_or_count("5000", "--test") == 5000
    assert named_files(["train=a=b.txt"]) == {"train": Path("a=b.txt")}
    for wrong in (["train"], ["train=", "x"], ["a=1", "a=2"]):
        with pytest.raises(OptionError):
            named_files(wrong)


def test_what_a_terminal_obeys_is_shown_and_not_sent(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    photos, masks = small_pairs(tmp_path)
    (photos / "red\x1b[31m.jpg").write_bytes(b"no picture")
    (masks / "red\x1b[31m.png").write_bytes(b"no picture")
    arguments = ["--images", photos, "--masks", masks, "--out", tmp_path / "d", "--jobs", "1"]
    code, out, err = run(capsys, "convert", "pairs", *arguments, "--max-rejected", "0.5")
    assert code == 0
    assert "unreadable" in out
    assert "\x1b" not in out + err
    code, out, err = run(capsys, "stats", tmp_path / "two\nlines\x1b")
    assert (code, err.count("\n")) == (1, 1)
    assert "\x1b" not in err
