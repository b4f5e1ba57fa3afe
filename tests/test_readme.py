"""Every command of the README is run, in order, in the folder that the demo leaves."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.folders import segdata

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(console|toml|python)\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def workshop(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``segdata-demo`` in it, and each TOML example under the name in its first line."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "segdata-demo").symlink_to(demo, target_is_directory=True)
    for kind, text in BLOCKS:
        if kind == "toml":
            (folder / text.split("\n", 1)[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    return folder


def test_every_console_example_runs(workshop: Path) -> None:
    commands = [
        line[2:] for kind, text in BLOCKS if kind == "console" for line in text.splitlines() if line[:2] == "$ "
    ]
    ours = [command for command in commands if command.startswith("segdata ") and command != "segdata demo"]
    assert len(ours) > 10
    for command in ours:
        done = segdata(*shlex.split(command)[1:], cwd=workshop)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_every_python_example_runs(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    examples = [text for kind, text in BLOCKS if kind == "python"]
    assert examples
    for text in examples:
        exec(compile(text, "README.md", "exec"), {})
