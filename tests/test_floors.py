"""The floors of the house: who may import whom, and that what is heavy stays out."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.folders import Made, segdata

ROOT = Path(__file__).parent.parent
FLOORS = {
    "segdata": [
        {"errors", "hashing", "labels", "order", "records", "registry"},
        {"formats"},
        {"sources", "transforms", "splits", "shards", "parallel", "sample_files", "sheets", "drawing"},
        {"batches", "checks", "sample_making", "shard_making"},
        {"jobs"},
        {"cli"},
    ],
    "segmodels": [
        {"augment", "bars", "boundaries", "extras", "held_back", "schedules"},  # and those of one picture or video:
        {"compose", "photo_size", "refine", "smoothing"},
        {"config", "quiet"},
        {"layers"},
        {"confusion", "curves", "encoders", "exported", "inputs", "losses", "metrics"},
        {"checkpoints", "cluster", "feeds", "history", "models", "steps", "torch_dataset"},
        {"batches", "export_samples", "exporters", "meeting", "runtimes", "validation"},
        {"loop", "networks", "parity"},
        {"predicting", "reading"},
        {"train", "evaluate", "export", "predict", "pseudo_labels"},
    ],
}
ALTERNATIVES = ("exporters", "jobs", "models", "runtimes", "sources", "steps", "transforms")
HEAVY = {"jax", "tensorflow", "keras", "torch"}
TORCH = "segmodels.torch_dataset"  # alone imports it
BACKENDS = {  # alone import it: what trains on one need not have the other
    "jax": {"segmodels.steps.jax"},
    "tensorflow": {
        "segmodels.batches",
        "segmodels.cluster",
        "segmodels.exporters.saved_model",
        "segmodels.exporters.tflite",
        "segmodels.runtimes.saved_model",
        "segmodels.steps.tensorflow",
    },
}


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Dotted names of what a module imports, and whether at its top (type-checking blocks left out)."""
    checking = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {id(n) for block in checking for n in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in tree.body) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node in tree.body) for alias in node.names)


def floor(name: str) -> int | None:
    package, _, rest = name.partition(".")
    return next((i for i, names in enumerate(FLOORS.get(package, [])) if rest.split(".")[0] in names), None)


def faults(name: str, source: str) -> list[str]:
    """What a module of that dotted name imports that it must not."""
    package, here = name.split(".")[0], floor(name)
    found = []
    for imported, at_top in imports(ast.parse(source)):
        head, there = imported.split("."), floor(imported)
        inside = package == head[0] and name.split(".")[1:2] == head[1:2]
        if head[0] in HEAVY and package == "segdata":
            found.append(f"{name} imports {imported}: only segmodels may")
        if (head[0] == "torch" or imported.startswith(TORCH)) and name != TORCH:
            found.append(f"{name} imports {imported}: only {TORCH} may import torch")
        if package == "segmodels" and name not in BACKENDS.get(head[0], {name}):
            found.append(f"{name} imports {imported}: only {', '.join(sorted(BACKENDS[head[0]]))} may")
        if head[0] in HEAVY - {"torch"} and name == TORCH:
            found.append(f"{name} imports {imported}: who uses torch need not have it")
        if head[0] == "segmodels" and package == "segdata" and (at_top or not name.startswith("segdata.cli")):
            found.append(f"{name} imports {imported}: only bodies in segdata.cli may")
        if package == head[0] and not inside and here and there is not None and there >= here:
            found.append(f"{name} (floor {here}) imports {imported} (floor {there})")
        if package == "segmodels" and head[0] == "segdata" and (there is None or there > 2):
            found.append(f"{name} imports {imported}: segmodels uses floors 0 to 2 of segdata")
        neighbour = inside and head[1] in ALTERNATIVES and ROOT.joinpath(*head[:3]).with_suffix(".py").exists()
        if neighbour and name != ".".join(head[:3]):
            found.append(f"{name} imports its neighbour {imported}")
    return found


def modules() -> list[Path]:
    return sorted(path for package in FLOORS for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down(path: Path) -> None:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    assert name in FLOORS or name == "segdata.__main__" or floor(name) is not None, f"{name} has no floor"
    assert not faults(name, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("segdata.formats.files", "from segdata.jobs import convert"),
        ("segdata.splits", "from segdata.shards import open_shards"),
        ("segdata.jobs.build", "from segdata.jobs.convert import convert"),
        ("segdata.sources.pairs", "from segdata.sources.humanparsing import HumanParsing"),
        ("segdata.shards", "import tensorflow as tf"),
        ("segdata.jobs.demo", "def f():\n    from segmodels import train"),
        ("segdata.cli.train", "from segmodels import train"),
        ("segmodels.train", "from segdata.jobs import build"),
        ("segmodels.batches", "def f():\n    import torch"),
        ("segmodels.train", "from segmodels.torch_dataset import ShardDataset"),
        ("segmodels.torch_dataset", "import tensorflow as tf"),
        ("segmodels.train", "def f():\n    import tensorflow as tf"),
        ("segmodels.steps.tensorflow", "import jax"),
    ],
)
def test_this_test_can_fail(name: str, source: str) -> None:
    assert faults(name, source)


# ---- what a process loads --------------------------------------------------------------------------------------------

_LOADED = """
import sys
from segdata.cli import main

try:
    main({arguments!r})
    code = 0
except SystemExit as end:
    code = end.code
heavy = [name for name in {names!r} if name in sys.modules]
sys.exit(f"code {{code}}, loaded {{heavy}}" if code or heavy else 0)
"""


def loads(names: list[str], *arguments: str | Path) -> str:
    """Run one command in a fresh process; empty if it ended well and loaded none of ``names``, else what it did."""
    code = _LOADED.format(arguments=[*map(str, arguments)], names=names)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr


def test_help_loads_nothing_heavy() -> None:
    assert not loads(["numpy", "cv2", "PIL", "joblib", "matplotlib", "tensorflow", "keras"], "--help")
    assert not loads(["numpy", "cv2", "PIL", "joblib", "tensorflow", "keras"], "convert", "pairs", "--help")


def test_the_data_commands_never_load_tensorflow(raw_people: Path, tmp_path: Path) -> None:
    names = ["tensorflow", "keras", "tensorflow_datasets"]
    dataset, manifest, shards = tmp_path / "d", tmp_path / "m", tmp_path / "s"
    assert not loads(names, "convert", "humanparsing", raw_people, "--out", dataset, "--jobs", "1")
    assert not loads(names, "split", dataset, "--out", manifest, "--test", "3")
    assert not loads(names, "build-tfrecords", manifest, "--out", shards, "--size", "64", "--jobs", "1")
    for path in (dataset, manifest, shards):
        assert not loads(names, "verify", path, "--jobs", "1")


def test_nor_do_their_worker_processes(raw_people: Path, tmp_path: Path) -> None:
    """With a tensorflow on the path that fails to import, two jobs still do all the work."""
    for name in ("tensorflow", "keras"):
        (tmp_path / "poison" / name).mkdir(parents=True)
        (tmp_path / "poison" / name / "__init__.py").write_text("raise ImportError('poisoned')\n")
    env = {"PYTHONPATH": str(tmp_path / "poison")}
    done = segdata("convert", "humanparsing", raw_people, "--out", tmp_path / "d", "--jobs", "2", env=env)
    assert done.returncode == 0, done.stderr
    poisoned = segdata("train", tmp_path, "--model", "unet", "--out", tmp_path / "run", "--debug", env=env)
    assert "poisoned" in poisoned.stderr, "the poison must be able to kill"


def test_the_load_test_can_fail(kept: Made) -> None:
    assert "loaded ['numpy']" in loads(["numpy"], "stats", kept.dataset)
    assert "code 1" in loads([], "stats", kept.dataset / "nowhere")
