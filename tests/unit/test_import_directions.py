"""Imports go downward only: commands -> launching -> {trainer, evaluator} -> {data, methods, metrics, engine, report}
-> {models, regions} -> ranks."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "wsol_dist"
MODULES = sorted(PACKAGE.rglob("*.py"))

FORBIDDEN = {
    "methods": ("engine", "report", "data", "config", "commands", "metrics"),
    "metrics": ("methods", "engine", "report", "commands", "config"),
    "models": ("methods", "engine", "report", "data", "config", "commands", "metrics"),
    "regions": ("methods", "engine", "report", "data", "config", "commands", "metrics"),
    "data": ("methods", "engine", "report", "config", "commands", "metrics"),
    "report": ("methods", "engine", "data", "config", "commands", "models"),
    "engine": ("report", "data", "config", "commands", "metrics"),
    "trainer": ("commands", "launching", "evaluator"),
    "evaluator": ("commands", "launching", "trainer"),
    "clustering": ("commands", "launching", "trainer"),
    "prediction": ("commands", "launching", "trainer", "exporting", "review"),
    "quality": ("commands", "launching", "trainer", "exporting", "review"),
    "exporting": ("commands", "launching", "trainer", "review"),
    "planning": ("commands", "launching", "evaluator", "trainer", "report", "metrics"),
    "first_error.py": ("engine", "report", "data", "config", "commands", "methods", "launching", "trainer"),
    "launching": ("commands", "evaluator", "clustering"),
    "ranks.py": ("methods", "engine", "report", "data", "config", "commands", "metrics", "models", "regions"),
}
"""Folder -> the parts of the package that it must not import; `config` is the configuration tree."""
ONLY_IN = {"deepspeed": "engine/zero.py", "wandb": "report/track.py"}


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_nothing_from_above(path: Path) -> None:
    part = path.relative_to(PACKAGE).parts[0]
    for name in imports(path):
        words = name.split(".")
        if words[0] == "wsol_dist" and len(words) > 1:
            assert words[1] not in FORBIDDEN.get(part, ()), f"{path} imports {name}"
        where = ONLY_IN.get(words[0])
        assert where is None or str(path.relative_to(PACKAGE)) == where, f"{path} imports {name}"


def test_training_imports_no_data_set() -> None:
    for path in MODULES:
        if not {"sources", "shards", "fitting"} & set(path.parts):
            assert not any("data.sources." in name for name in imports(path)), path


@pytest.mark.parametrize(
    "module", ["wsol_dist.config", "wsol_dist.cli", "wsol_dist.data.index", "wsol_dist.report.page"]
)
def test_light_modules_do_not_load_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
