"""The shape of the house, held by machine: who may import whom, which names are taken, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGES = ("hybrid_rl", "rewards", "rollouts", "model", "benchmarks")
MAY_IMPORT = {
    "model": {"model"},
    "hybrid_rl": {"hybrid_rl"},
    "rewards": {"rewards", "hybrid_rl"},
    "rollouts": {"rollouts", "hybrid_rl", "model"},
    "benchmarks": {"benchmarks", "hybrid_rl", "model", "rewards", "rollouts"},
}
# Rooms of hybrid_rl from the ground up: a room imports its own level and those below it.
LEVELS = (
    {"errors", "quiet", "interrupt", "images", "videos", "film_strip", "kept_media", "machine"},
    {"records", "rollout_figures"},
    {"protocols", "plugins", "parts"},
    {"config", "scorer_pool"},
    {"algorithm", "data"},
    {"answer_boundary", "templates"},
    {"kept_inputs"},
    {"chat_format", "scoring", "run_folder", "bridges", "dealing", "rollout_rows"},
    {"backbones", "lora", "pretrained", "processors"},
    {"policy"},
    {"updates", "loggers"},
    {"preference"},
    {"preflight", "stages", "workers", "insight", "build", "collecting", "ahead"},
    {"train", "saved"},
    {"saved_evaluations"},
    {"exporting", "authoring", "doctor"},
    {"studies"},
    {"cli"},
)
HEAVY = ("torch", "ray", "trl", "verl", "deepspeed", "vllm", "transformers", "datasets")


def sources() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((REPOSITORY / package).rglob("*.py"))]


def imported(path: Path, *, runtime_only: bool = False) -> Iterator[str]:
    """Dotted names of modules that a file imports; with `runtime_only`, not those under TYPE_CHECKING."""
    tree = ast.parse(path.read_text())
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if runtime_only and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:  # stays inside its package
                continue
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_packages_import_only_what_they_may(path: Path) -> None:
    package = path.relative_to(REPOSITORY).parts[0]
    ours = {name.partition(".")[0] for name in imported(path)} & set(PACKAGES)
    assert ours <= MAY_IMPORT[package], f"{package} must not import {sorted(ours - MAY_IMPORT[package])}"


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "hybrid_rl").rglob("*.py")), ids=lambda p: str(p.relative_to(REPOSITORY))
)
def test_rooms_import_downwards(path: Path) -> None:
    parts = path.relative_to(REPOSITORY / "hybrid_rl").with_suffix("").parts
    if parts == ("__init__",):
        return
    level = next(i for i, rooms in enumerate(LEVELS) if parts[0] in rooms)
    for name in imported(path, runtime_only=True):
        pieces = name.split(".")
        if pieces[0] != "hybrid_rl" or len(pieces) < 2:
            continue
        known = [i for i, rooms in enumerate(LEVELS) if pieces[1] in rooms]
        if known:
            assert known[0] <= level, f"{parts[0]} must not import {name}, which stands above it"


def test_every_room_has_a_level() -> None:
    rooms = {p.stem for p in (REPOSITORY / "hybrid_rl").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__"} == set().union(*LEVELS)


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    """Ray workers put the driver's folder on their path; a file `types.py` there kills them."""
    # `statistics` and the like inside a package are reached by their full name only, but habits spread.
    for path in sources():
        assert path.stem not in sys.stdlib_module_names - {"__init__"}, path


def test_engines_and_workers_do_not_share_names() -> None:
    """They are read side by side: one name for two classes, or two files, sends the reader to the wrong one."""
    named: dict[str, set[str]] = {}
    for package in ("rollouts", "hybrid_rl"):
        files = [path for path in (REPOSITORY / package).rglob("*.py") if path.stem != "__init__"]
        trees = [ast.parse(path.read_text()) for path in files]
        classes = {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        named[package] = classes | {path.stem for path in files}
    assert not named["rollouts"] & named["hybrid_rl"]


def test_no_file_or_function_grows_beyond_what_can_be_read() -> None:
    for path in sources():
        lines = path.read_text().splitlines()
        assert len(lines) <= 300, f"{path.relative_to(REPOSITORY)} has {len(lines)} lines"
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or 0) - node.lineno
                assert length <= 70, f"{path.relative_to(REPOSITORY)}: {node.name} has {length} lines"


def test_the_loop_is_one_readable_page() -> None:
    text = (REPOSITORY / "hybrid_rl" / "train.py").read_text()
    assert len(text.splitlines()) <= 100
    assert not {"ray", "torch"} & {name.partition(".")[0] for name in imported(REPOSITORY / "hybrid_rl" / "train.py")}


def test_importing_the_package_is_light() -> None:
    program = f"import hybrid_rl, sys; print([n for n in {HEAVY} if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert found.stdout.strip() == "[]"


def test_no_code_names_a_mode() -> None:
    """Modes are data: the words may stand in prose, never as a value that code compares with."""
    for package in ("hybrid_rl", "rewards", "rollouts"):
        for path in (REPOSITORY / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and node.value in ("short", "long"):
                    raise AssertionError(f"{path}:{node.lineno} names the mode {node.value!r}")
